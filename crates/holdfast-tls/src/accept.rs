//! Handshakes of a port: bounded in number and time, counted and told by cause.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_rustls::TlsAcceptor;

use crate::answer::{self, HANDSHAKE_RECORD, Words};
use crate::cause::Cause;
use crate::limits;
use crate::reload::Reloading;
use crate::server::ServerTls;
use crate::stream::ServerStream;

/// How much of the first bytes is looked at to tell plain text from TLS.
const LOOKED_AT_BYTES: usize = 16;

/// What is counted of a port, and what keeps its log short.
pub struct Port {
    name: &'static str,
    failed: [AtomicU64; Cause::ALL.len()],
    /// When each cause was told last, and how often it has come since.
    told: Mutex<[Option<Told>; Cause::ALL.len()]>,
}

#[derive(Clone, Copy)]
struct Told {
    at: Instant,
    since: u64,
}

impl Port {
    /// A port that goes by this name in logs and metrics.
    pub fn new(name: &'static str) -> Arc<Self> {
        Arc::new(Self { name, failed: Default::default(), told: Mutex::new([None; Cause::ALL.len()]) })
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// How many connections have failed for each cause, in the order of [`Cause::ALL`].
    pub fn failures(&self) -> impl Iterator<Item = (Cause, u64)> {
        Cause::ALL.into_iter().zip(self.failed.iter().map(|count| count.load(Ordering::Relaxed)))
    }

    /// Counts a connection that failed, and tells of it unless that was done a moment ago.
    pub(crate) fn failed(&self, cause: Cause, peer: SocketAddr, error: Option<&io::Error>) {
        self.failed[cause as usize].fetch_add(1, Ordering::Relaxed);
        let Some(unsaid) = self.is_to_be_told(cause) else { return };
        let error = error.map(ToString::to_string).unwrap_or_default();
        let (port, cause, hint) = (self.name, cause.label(), cause.hint());
        tracing::warn!(port, %peer, cause, error, unsaid, "a connection was refused: {hint}");
    }

    /// How often a cause has come since it was told last.
    #[cfg(test)]
    pub(crate) fn unsaid(&self, cause: Cause) -> u64 {
        self.told.lock()[cause as usize].map_or(0, |told| told.since)
    }

    /// How often it was not told since the last time, if it is to be told now.
    fn is_to_be_told(&self, cause: Cause) -> Option<u64> {
        let mut told = self.told.lock();
        let told = &mut told[cause as usize];
        match told {
            Some(last) if last.at.elapsed() < limits::SAME_WARNING_INTERVAL => {
                last.since += 1;
                None
            }
            _ => {
                let unsaid = told.map_or(0, |last| last.since);
                *told = Some(Told { at: Instant::now(), since: 0 });
                Some(unsaid)
            }
        }
    }
}

/// How the connections of a port are taken: as they are, or behind a handshake.
#[derive(Clone)]
pub struct Acceptor {
    port: Arc<Port>,
    tls: Option<Tls>,
}

#[derive(Clone)]
struct Tls {
    settings: Arc<Reloading<ServerTls>>,
    under_way: Arc<Semaphore>,
}

/// Why there is no connection.
struct Failed {
    cause: Cause,
    error: Option<io::Error>,
    /// What is left to be said, and where.
    words: Option<(TcpStream, Words)>,
}

impl Acceptor {
    /// Takes them as they are.
    pub fn plain(port: Arc<Port>) -> Self {
        Self { port, tls: None }
    }

    /// Takes them behind a handshake.
    pub fn tls(port: Arc<Port>, settings: Arc<Reloading<ServerTls>>) -> Self {
        let under_way = Arc::new(Semaphore::new(limits::HANDSHAKES_MAX));
        Self { port, tls: Some(Tls { settings, under_way }) }
    }

    /// The connection, ready to be served. `None` when there is none: that is counted and told here, also to the other
    /// end as far as it can be. Takes at most [`limits::HANDSHAKE_TIME_MAX`].
    pub async fn accept(&self, socket: TcpStream, peer: SocketAddr) -> Option<ServerStream> {
        let Some(tls) = &self.tls else { return Some(ServerStream::plain(socket, peer, &self.port)) };
        let deadline = Instant::now() + limits::HANDSHAKE_TIME_MAX;
        let made = timeout_at(deadline, tls.handshake(socket)).await;
        let late = || Failed { cause: Cause::Late, error: None, words: None };
        let failed = match made.unwrap_or_else(|_| Err(late())) {
            Ok(stream) => return Some(stream),
            Err(failed) => failed,
        };
        self.port.failed(failed.cause, peer, failed.error.as_ref());
        if let Some((socket, words)) = failed.words {
            answer::last_words(socket, words).await;
        }
        None
    }
}

impl Tls {
    async fn handshake(&self, socket: TcpStream) -> Result<ServerStream, Failed> {
        let broken = |error| Failed { cause: Cause::Closed, error: Some(error), words: None };
        let mut begin = [0; LOOKED_AT_BYTES];
        let seen = socket.peek(&mut begin).await.map_err(broken)?;
        match begin[..seen].first() {
            None => return Err(Failed { cause: Cause::Closed, error: None, words: None }),
            Some(&HANDSHAKE_RECORD) => {}
            Some(_) => {
                let words = Some((socket, Words::for_plain_text(&begin[..seen])));
                return Err(Failed { cause: Cause::PlainText, error: None, words });
            }
        }
        // Only now: who connects and says nothing takes nobody's turn.
        let turn = self.under_way.acquire().await.expect("the semaphore is never closed");
        let config = Arc::clone(&self.settings.current().config);
        let made = TlsAcceptor::from(config).accept(socket).into_fallible().await;
        drop(turn);
        match made {
            Ok(stream) => Ok(ServerStream::Tls(Box::new(stream))),
            Err((error, socket)) => Err(Failed {
                cause: Cause::of(&error),
                error: Some(error),
                words: Some((socket, Words::None)),
            }),
        }
    }
}

/// A connection that is ready to be served.
pub struct Accepted {
    /// The connection.
    pub stream: ServerStream,
    /// Who made it.
    pub peer: SocketAddr,
}

/// The connections of a listener, each with a task of its own until its handshake is done.
pub struct Incoming {
    listener: TcpListener,
    acceptor: Acceptor,
    /// Dropped with this, and the handshakes with it. As many as there are connections, each for a bounded time.
    handshakes: JoinSet<Option<Accepted>>,
}

impl Incoming {
    /// Those of `listener`.
    pub fn new(listener: TcpListener, acceptor: Acceptor) -> Self {
        Self { listener, acceptor, handshakes: JoinSet::new() }
    }

    /// The next one. Never fails: an accept that fails is tried again. Cancel-safe.
    pub async fn next(&mut self) -> Accepted {
        loop {
            let taken = tokio::select! {
                // Both arms are cancel-safe.
                Some(done) = self.handshakes.join_next(), if !self.handshakes.is_empty() => match done {
                    Ok(Some(accepted)) => return accepted,
                    Ok(None) | Err(_) => continue,
                },
                taken = self.listener.accept() => taken,
            };
            match taken {
                Ok((socket, peer)) => {
                    if let Err(error) = socket.set_nodelay(true) {
                        tracing::debug!(%error, "cannot switch off Nagle's algorithm on a connection");
                    }
                    let acceptor = self.acceptor.clone();
                    self.handshakes.spawn(async move {
                        let stream = acceptor.accept(socket, peer).await?;
                        Some(Accepted { stream, peer })
                    });
                }
                Err(error) => {
                    let port = self.acceptor.port.name;
                    tracing::warn!(%error, port, "cannot accept a connection: check the limit on open files");
                    sleep(limits::ACCEPT_RETRY).await;
                }
            }
        }
    }

    /// Where it listens.
    ///
    /// Errors: what the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}
