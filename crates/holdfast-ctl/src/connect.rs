//! Connections to one endpoint, with or without TLS, as etcdctl decides that.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use holdfast_tls::{ClientFiles, ClientTls, Connector, PairFiles};
use tonic::transport::{Channel, Endpoint};

use crate::error::CtlError;
use crate::global::{Global, TlsFlags};

/// Members take offence at a client that asks more often whether they are there.
const KEEPALIVE_MIN: Duration = Duration::from_secs(10);

/// The URL of an endpoint, and a connection to it or why there is none.
///
/// Errors: flags and files that cannot be used.
pub(crate) async fn open(
    global: &Global,
    endpoint: &str,
) -> Result<(String, Result<Channel, tonic::transport::Error>), CtlError> {
    let url = global.tls.with_scheme(endpoint);
    let wrong = |error| CtlError::Arguments(format!("--endpoints: {endpoint} is no address: {error}"));
    let endpoint = Endpoint::from_shared(url.clone())
        .map_err(wrong)?
        .connect_timeout(global.dial_timeout)
        .http2_keep_alive_interval(global.keepalive_time.max(KEEPALIVE_MIN))
        .keep_alive_timeout(global.keepalive_timeout);
    let made = if url.starts_with("https://") {
        let settings = ClientTls::load(&global.tls.files()?).map_err(anyhow::Error::from)?;
        endpoint.connect_with_connector(Connector::new(Arc::new(settings))).await
    } else {
        endpoint.connect().await
    };
    Ok((url, made))
}

impl TlsFlags {
    /// TLS is meant where a file is given, or plain text is switched off.
    pub(crate) fn with_scheme(&self, endpoint: &str) -> String {
        if endpoint.contains("://") {
            return endpoint.to_owned();
        }
        let is_tls = !self.insecure_transport
            || [&self.cacert, &self.cert, &self.key].iter().any(|file| file.is_some());
        format!("{}://{endpoint}", if is_tls { "https" } else { "http" })
    }

    fn files(&self) -> anyhow::Result<ClientFiles> {
        let pair = match (self.cert.clone(), self.key.clone()) {
            (Some(cert), Some(key)) => Some(PairFiles { cert, key }),
            (None, None) => None,
            _ => bail!("--cert and --key belong together: give both, or leave both out"),
        };
        Ok(ClientFiles::of_flags(self.cacert.clone(), pair, self.insecure_skip_tls_verify))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_without_a_scheme_speaks_tls_when_something_about_it_is_given() {
        let plain = TlsFlags { insecure_transport: true, ..TlsFlags::default() };
        assert_eq!(plain.with_scheme("h:1"), "http://h:1");
        assert_eq!(plain.with_scheme("https://h:1"), "https://h:1");
        let with_ca = TlsFlags { cacert: Some("ca.crt".into()), ..plain.clone() };
        assert_eq!(with_ca.with_scheme("h:1"), "https://h:1");
        assert_eq!(with_ca.with_scheme("http://h:1"), "http://h:1");
        let secure = TlsFlags { insecure_transport: false, ..plain.clone() };
        assert_eq!(secure.with_scheme("h:1"), "https://h:1");
        let half = TlsFlags { cert: Some("a.crt".into()), ..plain };
        assert!(half.files().unwrap_err().to_string().contains("--key"));
    }
}
