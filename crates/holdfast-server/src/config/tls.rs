//! Which files TLS is served with, and which combinations of its flags cannot work. Nothing is read here.

use std::path::PathBuf;

use holdfast_tls::{Allowed, ClientFiles, PairFiles, Roots, ServerFiles, Verify, Versions};

use super::address::MemberUrl;
use super::error::ConfigError;
use super::flags::{EndFlags, TlsFlags};

/// The ends of one member that speak TLS.
#[derive(Debug, Clone, Default)]
pub struct TlsConfig {
    /// Client and metrics ports with https:// URLs.
    pub client: Option<ServerFiles>,
    /// True when the common name of a client's certificate is who it is.
    pub names_users: bool,
    /// Peer ports with https:// URLs, and connections to members that have some.
    pub peer: Option<PeerFiles>,
}

/// Both directions between members.
#[derive(Debug, Clone)]
pub struct PeerFiles {
    /// What the peer port is served with.
    pub accept: ServerFiles,
    /// What other members are connected to with.
    pub connect: ClientFiles,
}

/// URLs that make a certificate necessary.
pub(super) struct Urls<'a> {
    /// Of the client port and the metrics ports, with their flags.
    pub(super) client: [(&'static str, &'a [MemberUrl]); 2],
    /// Of all members' peer ports.
    pub(super) peer: [(&'static str, &'a [MemberUrl]); 2],
}

/// The names of the flags of one end.
struct Names {
    cert: &'static str,
    key: &'static str,
    cert_auth: &'static str,
    ca: &'static str,
    allowed_cn: &'static str,
    allowed_hostname: &'static str,
}

const CLIENT: Names = Names {
    cert: "cert-file",
    key: "key-file",
    cert_auth: "client-cert-auth",
    ca: "trusted-ca-file",
    // etcd has no such flag for clients: a common name is a user there.
    allowed_cn: "client-cert-allowed-hostname",
    allowed_hostname: "client-cert-allowed-hostname",
};

const PEER: Names = Names {
    cert: "peer-cert-file",
    key: "peer-key-file",
    cert_auth: "peer-client-cert-auth",
    ca: "peer-trusted-ca-file",
    allowed_cn: "peer-cert-allowed-cn",
    allowed_hostname: "peer-cert-allowed-hostname",
};

impl TlsConfig {
    /// The checked combination of flags and URLs; what is of no use is added to `warnings`.
    ///
    /// Errors: an https:// URL without a certificate, half of a pair, a check that has nothing to check with.
    pub(super) fn checked(
        flags: &TlsFlags,
        urls: &Urls<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<Self, ConfigError> {
        let versions = versions(flags)?;
        let client = end(&CLIENT, &flags.client, versions)?;
        let peer = end(&PEER, &flags.peer, versions)?;
        needs(&urls.client, &CLIENT, client.is_some(), warnings)?;
        needs(&urls.peer, &PEER, peer.is_some(), warnings)?;
        let shown = pair("peer-client-cert-file", "peer-client-key-file", &flags.peer_client)?;
        let peer = peer.map(|accept| PeerFiles {
            connect: ClientFiles {
                pair: Some(shown.unwrap_or_else(|| accept.pair.clone())),
                roots: accept.ca.clone().map_or(Roots::System, Roots::File),
                verify: Verify::All,
                allowed: accept.allowed.clone(),
                versions,
            },
            accept,
        });
        Ok(Self { names_users: client.is_some() && flags.client.cert_auth, client, peer })
    }
}

/// Refuses https:// without a certificate; a certificate without https:// is only pointed out, as in etcd.
fn needs(
    urls: &[(&'static str, &[MemberUrl])],
    names: &Names,
    has_certificate: bool,
    warnings: &mut Vec<String>,
) -> Result<(), ConfigError> {
    let needing = urls.iter().find_map(|(flag, urls)| Some((*flag, urls.iter().find(|url| url.is_tls())?)));
    match needing {
        Some((flag, url)) if !has_certificate => {
            Err(ConfigError::NoCertificate { flag, url: url.to_string(), cert: names.cert, key: names.key })
        }
        None if has_certificate => {
            let flags: Vec<String> = urls.iter().map(|(flag, _)| format!("--{flag}")).collect();
            warnings.push(format!(
                "--{} has no effect: none of {} is https://, so that everything is plain text",
                names.cert,
                flags.join(" and ")
            ));
            Ok(())
        }
        _ => Ok(()),
    }
}

fn end(names: &Names, flags: &EndFlags, versions: Versions) -> Result<Option<ServerFiles>, ConfigError> {
    let allowed = allowed(names, flags)?;
    let ca = flags.ca.clone();
    let without = |flag: &'static str, missing| ConfigError::Incomplete { flag, missing };
    if flags.cert_auth && ca.is_none() {
        return Err(without(names.cert_auth, names.ca));
    }
    if ca.is_none() && allowed != Allowed::Anyone {
        let flag = if flags.allowed_cn.is_empty() { names.allowed_hostname } else { names.allowed_cn };
        return Err(without(flag, names.ca));
    }
    let Some(pair) = pair(names.cert, names.key, &flags.pair)? else {
        let asked = [(flags.cert_auth, names.cert_auth), (ca.is_some(), names.ca)];
        return match asked.into_iter().find(|(is_given, _)| *is_given) {
            Some((_, flag)) => Err(without(flag, names.cert)),
            None => Ok(None),
        };
    };
    Ok(Some(ServerFiles { pair, ca, allowed, versions }))
}

fn pair(
    cert_flag: &'static str,
    key_flag: &'static str,
    given: &(Option<PathBuf>, Option<PathBuf>),
) -> Result<Option<PairFiles>, ConfigError> {
    match given.clone() {
        (Some(cert), Some(key)) => Ok(Some(PairFiles { cert, key })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(ConfigError::Incomplete { flag: cert_flag, missing: key_flag }),
        (None, Some(_)) => Err(ConfigError::Incomplete { flag: key_flag, missing: cert_flag }),
    }
}

fn allowed(names: &Names, flags: &EndFlags) -> Result<Allowed, ConfigError> {
    let list = |text: &str| -> Vec<String> {
        text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
    };
    match (list(&flags.allowed_cn), list(&flags.allowed_hostname)) {
        (none, hostnames) if none.is_empty() && hostnames.is_empty() => Ok(Allowed::Anyone),
        (none, hostnames) if none.is_empty() => Ok(Allowed::Hostnames(hostnames)),
        (common_names, none) if none.is_empty() => Ok(Allowed::CommonNames(common_names)),
        _ => Err(super::value(
            names.allowed_hostname,
            &flags.allowed_hostname,
            format!("it cannot be given together with --{}: choose one of the two", names.allowed_cn),
        )),
    }
}

fn versions(flags: &TlsFlags) -> Result<Versions, ConfigError> {
    match (flags.min_version.as_str(), flags.max_version.as_str()) {
        ("TLS1.3", "TLS1.2") => Err(super::value(
            "tls-max-version",
            &flags.max_version,
            "it must not be older than --tls-min-version",
        )),
        ("TLS1.3", _) => Ok(Versions::Only13),
        (_, "TLS1.2") => Ok(Versions::Only12),
        _ => Ok(Versions::Both),
    }
}
