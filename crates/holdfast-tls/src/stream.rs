//! Sockets of either end, with or without TLS.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper_util::client::legacy::connect::{Connected, Connection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{client, server};

use crate::accept::Port;
use crate::answer::{self, HANDSHAKE_RECORD};
use crate::cause::{self, Cause};
use crate::limits;

/// A connection that a port has accepted.
pub enum ServerStream {
    /// Plain text.
    Plain(PlainStream),
    /// TLS, behind its handshake.
    Tls(Box<server::TlsStream<TcpStream>>),
}

/// A socket whose first byte is looked at, in passing, when it is read.
pub struct PlainStream {
    socket: TcpStream,
    /// Until the first read.
    unread: Option<Unread>,
}

struct Unread {
    port: Arc<Port>,
    peer: SocketAddr,
}

impl ServerStream {
    /// A connection without TLS. Who begins a handshake is told, and reads end with an error.
    pub fn plain(socket: TcpStream, peer: SocketAddr, port: &Arc<Port>) -> Self {
        Self::Plain(PlainStream { socket, unread: Some(Unread { port: Arc::clone(port), peer }) })
    }

    /// The common name in the certificate that the other end has shown.
    pub fn common_name(&self) -> Option<String> {
        let Self::Tls(stream) = self else { return None };
        crate::facts::common_name(stream.get_ref().1.peer_certificates()?.first()?)
    }
}

impl PlainStream {
    /// Answers a handshake, without waiting: what is there of it is read, so that the end does not throw the answer away.
    fn turn_away(&self) {
        let mut rest = [0; 4096];
        for _ in 0..limits::LAST_WORDS_BYTES_MAX / rest.len() {
            if !self.socket.try_read(&mut rest).is_ok_and(|bytes| bytes > 0) {
                break;
            }
        }
        // A fresh socket takes a line; if not, the end has to do as an answer.
        drop(self.socket.try_write(&answer::to_handshake()));
    }

    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(context, buffer))?;
        if let Some(unread) = self.unread.take()
            && buffer.filled().get(before) == Some(&HANDSHAKE_RECORD)
        {
            unread.port.failed(Cause::TlsOnPlainPort, unread.peer, None);
            self.turn_away();
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a TLS handshake on a port for plain text",
            )));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for ServerStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => stream.poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for ServerStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(&mut stream.socket).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(&mut stream.socket).poll_write_vectored(context, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.socket.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(&mut stream.socket).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(&mut stream.socket).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

/// A connection that we have made, behind its handshake.
///
/// What a server says when it breaks TLS off later is put in words here, too.
pub struct ClientStream(pub(crate) Box<client::TlsStream<TcpStream>>);

fn in_words<T>(polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
    polled.map_err(|error| match cause::explained(&error) {
        Some(words) => io::Error::new(error.kind(), words),
        None => error,
    })
}

impl AsyncRead for ClientStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        in_words(Pin::new(&mut self.get_mut().0).poll_read(context, buffer))
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        in_words(Pin::new(&mut self.get_mut().0).poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        in_words(Pin::new(&mut self.get_mut().0).poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        in_words(Pin::new(&mut self.get_mut().0).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        in_words(Pin::new(&mut self.get_mut().0).poll_shutdown(context))
    }
}

impl Connection for ClientStream {
    fn connected(&self) -> Connected {
        let is_http2 = self.0.get_ref().1.alpn_protocol() == Some(b"h2");
        if is_http2 { Connected::new().negotiated_h2() } else { Connected::new() }
    }
}
