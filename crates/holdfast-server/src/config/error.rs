//! What can be wrong with flags and environment alone.

/// A configuration that cannot work. Found before anything on the machine is touched; the process exits with code 2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A URL cannot be used.
    #[error("--{flag}: cannot use \"{url}\": {why}")]
    Url {
        /// The flag it came with.
        flag: &'static str,
        /// What was given.
        url: String,
        /// What is wrong, and what to write.
        why: &'static str,
    },
    /// A value is outside of what is allowed.
    #[error("--{flag}: {value} is not allowed: {rule}")]
    Value {
        /// The flag it came with.
        flag: &'static str,
        /// What was given.
        value: String,
        /// What is allowed.
        rule: String,
    },
    /// A part of the initial cluster is not `name=url`.
    #[error("--initial-cluster: \"{part}\" is not of the form name=http://host:port")]
    InitialClusterSyntax {
        /// The part.
        part: String,
    },
    /// Our own name is not in the initial cluster.
    #[error(
        "--initial-cluster: it has no member named \"{name}\" (it names {known}): give this member's --name as it stands \
         there, or add it"
    )]
    NameNotInCluster {
        /// Our name.
        name: String,
        /// The names it has.
        known: String,
    },
    /// Our advertised peer URLs are not those of the initial cluster.
    #[error(
        "--initial-advertise-peer-urls: {advertised} is not what --initial-cluster says of \"{name}\" ({in_cluster}): \
         make the two equal"
    )]
    PeerUrlsDiffer {
        /// Our name.
        name: String,
        /// What we advertise.
        advertised: String,
        /// What the cluster expects.
        in_cluster: String,
    },
    /// Two members share a peer URL.
    #[error(
        "--initial-cluster: \"{first}\" and \"{second}\" have the same peer URL {url}: every member needs its own"
    )]
    PeerUrlShared {
        /// One member.
        first: String,
        /// The other.
        second: String,
        /// The URL.
        url: String,
    },
    /// An advertised URL names every interface, or any port.
    #[error(
        "--{flag}: nobody can connect to {url}: give an address and port that {who} can reach ({advice})"
    )]
    Unreachable {
        /// The flag.
        flag: &'static str,
        /// The URL.
        url: String,
        /// Who has to reach it.
        who: &'static str,
        /// What else to know about the flag.
        advice: &'static str,
    },
    /// TLS is asked for, and there is no certificate.
    #[error(
        "--{flag}: {url} needs a certificate: give --{cert} and --{key}, or make some with holdfastctl cert"
    )]
    NoCertificate {
        /// The flag with the URL.
        flag: &'static str,
        /// The URL.
        url: String,
        /// The flag for the certificate.
        cert: &'static str,
        /// The flag for its key.
        key: &'static str,
    },
    /// A flag that means nothing without another one.
    #[error("--{flag} needs --{missing}: give both, or leave both out")]
    Incomplete {
        /// What was given.
        flag: &'static str,
        /// What was not.
        missing: &'static str,
    },
    /// Another error, about a value that did not come by its flag.
    #[error("{error} ({place} says so)")]
    Elsewhere {
        /// Where it came from.
        place: String,
        /// What is wrong with it.
        #[source]
        error: Box<ConfigError>,
    },
    /// A file for log lines cannot be opened.
    #[error("--log-outputs: cannot append to {path}: {reason}")]
    LogFile {
        /// The file.
        path: String,
        /// What the disk said.
        reason: String,
    },
}

impl ConfigError {
    /// The flag that it is about.
    pub fn flag(&self) -> &'static str {
        match self {
            Self::Url { flag, .. }
            | Self::Value { flag, .. }
            | Self::Unreachable { flag, .. }
            | Self::NoCertificate { flag, .. }
            | Self::Incomplete { flag, .. } => flag,
            Self::InitialClusterSyntax { .. }
            | Self::NameNotInCluster { .. }
            | Self::PeerUrlShared { .. } => "initial-cluster",
            Self::PeerUrlsDiffer { .. } => "initial-advertise-peer-urls",
            Self::LogFile { .. } => "log-outputs",
            Self::Elsewhere { error, .. } => error.flag(),
        }
    }
}
