//! Connections with TLS, for tonic's channels and hyper's client.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::ProtocolVersion;
use rustls::pki_types::ServerName;
use tokio::io::AsyncBufRead;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::client::ClientTls;
use crate::reload::{Change, Reloading};
use crate::stream::ClientStream;
use crate::{cause, limits};

/// Makes connections to `https://` URLs. Files that changed are used from the next connection on.
#[derive(Clone)]
pub struct Connector {
    settings: Arc<Reloading<ClientTls>>,
    protocol: Protocol,
    looks: Looks,
}

/// Who looks whether files have changed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Looks {
    /// Each connection, unless that was done a moment ago.
    Here,
    /// A task of their owner.
    Elsewhere,
}

#[derive(Clone, Copy)]
enum Protocol {
    Http2,
    Http1,
    Frames,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL names no host.
    #[error("{0} names no host")]
    NoHost(Uri),
    /// Nobody answers there.
    #[error("cannot connect")]
    Unreachable(#[source] io::Error),
    /// TLS could not be agreed on.
    #[error("{0}")]
    Handshake(String),
}

impl Connector {
    /// For gRPC.
    pub fn new(settings: Arc<Reloading<ClientTls>>) -> Self {
        Self { settings, protocol: Protocol::Http2, looks: Looks::Here }
    }

    /// For HTTP/1.1.
    pub fn http1(settings: Arc<Reloading<ClientTls>>) -> Self {
        Self { protocol: Protocol::Http1, ..Self::new(settings) }
    }

    /// For frames between members, which is no protocol with a registered name, with files that a task of their owner looks at.
    pub fn frames(settings: Arc<Reloading<ClientTls>>) -> Self {
        Self { settings, protocol: Protocol::Frames, looks: Looks::Elsewhere }
    }

    /// Connects.
    ///
    /// Errors: in words, with the next step.
    pub async fn connect(self, uri: Uri) -> Result<ClientStream, ConnectError> {
        let host = uri.host().ok_or_else(|| ConnectError::NoHost(uri.clone()))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(443);
        let settings = self.fresh().await;
        let mut config = Arc::clone(&settings.config);
        match self.protocol {
            // As the settings say.
            Protocol::Http2 => {}
            Protocol::Http1 => Arc::make_mut(&mut config).alpn_protocols = vec![b"http/1.1".to_vec()],
            Protocol::Frames => Arc::make_mut(&mut config).alpn_protocols.clear(),
        }
        let name = ServerName::try_from(host.clone()).map_err(|_| ConnectError::NoHost(uri.clone()))?;
        let socket = TcpStream::connect((host, port)).await.map_err(ConnectError::Unreachable)?;
        socket.set_nodelay(true).map_err(ConnectError::Unreachable)?;
        let made = TlsConnector::from(config).connect(name, socket).await;
        let mut stream = made.map_err(|error| ConnectError::Handshake(in_words(&error)))?;
        verdict(&mut stream).await.map_err(|error| ConnectError::Handshake(in_words(&error)))?;
        let shown = stream.get_ref().1.peer_certificates().and_then(|shown| shown.first());
        if !shown.is_some_and(|shown| settings.allowed.admits(shown)) {
            let refused = rustls::CertificateError::ApplicationVerificationFailure;
            let refused = io::Error::new(io::ErrorKind::InvalidData, rustls::Error::from(refused));
            return Err(ConnectError::Handshake(in_words(&refused)));
        }
        Ok(ClientStream(Box::new(stream)))
    }

    /// The settings, as the files are now.
    async fn fresh(&self) -> Arc<ClientTls> {
        if self.looks == Looks::Elsewhere {
            return self.settings.current();
        }
        let settings = Arc::clone(&self.settings);
        let looked = tokio::task::spawn_blocking(move || settings.look_if_due()).await;
        if let Ok(Change::Refused(error)) = looked {
            tracing::warn!(%error, "changed certificate files are not used");
        }
        self.settings.current()
    }
}

/// With TLS 1.3 we are done before the server has looked at our certificate. Waits for what it says next: tickets for
/// further sessions when it admits us, and else why it does not. A request that is under way by then would end without a
/// reason, and nobody would know whether it was served.
async fn verdict(stream: &mut TlsStream<TcpStream>) -> io::Result<()> {
    let (socket, session) = stream.get_ref();
    if session.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
        return Ok(());
    }
    // Who gives no tickets says nothing.
    match timeout(limits::VERDICT_TIME_MAX, socket.readable()).await {
        Err(_) => return Ok(()),
        Ok(readable) => readable?,
    }
    // Takes in what is there, and waits for no more.
    poll_fn(|context| {
        Poll::Ready(match Pin::new(&mut *stream).poll_fill_buf(context) {
            Poll::Ready(Ok([])) => Err(io::ErrorKind::UnexpectedEof.into()),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(_)) | Poll::Pending => Ok(()),
        })
    })
    .await
}

fn in_words(error: &io::Error) -> String {
    cause::explained(error).unwrap_or_else(|| {
        format!(
            "the server broke the connection off during the TLS handshake ({error}): is it a TLS port, and does its log say \
             why?"
        )
    })
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<ClientStream>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect(uri).await.map(TokioIo::new) })
    }
}
