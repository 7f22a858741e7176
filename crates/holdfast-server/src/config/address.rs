//! URLs of members: `http://host:port` or `https://host:port`, nothing more.

use std::fmt;

use super::error::ConfigError;

/// A member's URL, `http://host:port` or `https://host:port` in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberUrl {
    scheme: Scheme,
    host: String,
    port: u16,
}

/// Plain text sorts first, as its text does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Scheme {
    Http,
    Https,
}

impl MemberUrl {
    /// Reads `text`, which the user gave with `flag`.
    ///
    /// Errors: any scheme but http and https, a missing host or port, anything behind the port.
    pub fn parse(flag: &'static str, text: &str) -> Result<Self, ConfigError> {
        let bad = |why: &'static str| ConfigError::Url { flag, url: text.to_owned(), why };
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(bad("there is no scheme: write http://host:port"));
        };
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "unix" | "unixs" => {
                return Err(bad("unix sockets are not supported: use http://127.0.0.1:port"));
            }
            _ => return Err(bad("the scheme is neither http nor https: write http://host:port")),
        };
        let Some((host, port)) = rest.rsplit_once(':') else {
            return Err(bad("there is no port: write http://host:port"));
        };
        let port = port
            .parse::<u16>()
            .map_err(|_| bad("the port is not a number from 0 to 65535, or something follows it"))?;
        if !host_is_valid(host) {
            return Err(bad("the host is neither a name, an IPv4 address nor an IPv6 address in brackets"));
        }
        Ok(Self { scheme, host: host.to_ascii_lowercase(), port })
    }

    /// A URL of this machine's loopback interface.
    pub fn loopback(port: u16) -> Self {
        Self { scheme: Scheme::Http, host: "127.0.0.1".to_owned(), port }
    }

    /// `http://localhost:port`.
    pub fn localhost(port: u16) -> Self {
        Self { scheme: Scheme::Http, host: "localhost".to_owned(), port }
    }

    /// `host:port`, as sockets want it.
    pub fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// True for https.
    pub fn is_tls(&self) -> bool {
        self.scheme == Scheme::Https
    }

    /// The port; 0 means "any free one" for a listener.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// True when it names every interface, so that nobody can connect to it by this name.
    pub fn is_wildcard(&self) -> bool {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_unspecified())
    }
}

impl fmt::Display for MemberUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

fn host_is_valid(host: &str) -> bool {
    if let Some(inner) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        return inner.parse::<std::net::Ipv6Addr>().is_ok();
    }
    !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
}

/// Reads a comma-separated list; empty parts are refused, the order is kept.
pub(super) fn parse_urls(flag: &'static str, text: &str) -> Result<Vec<MemberUrl>, ConfigError> {
    text.split(',').map(|part| MemberUrl::parse(flag, part.trim())).collect()
}

/// `a,b,c`, the way the flags take it.
pub fn join(urls: &[MemberUrl]) -> String {
    urls.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
