//! TLS of one member: its files, looked at again and again, and what its ports are served with.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_env::{Clock, Monotonic};
use holdfast_raft::PeerTls;
use holdfast_tls::limits::RELOAD_INTERVAL;
use holdfast_tls::{Acceptor, Cause, Change, ClientTls, Port, Reloading, ServerTls, TlsError};
use tokio_util::sync::CancellationToken;

use crate::config::TlsConfig;
use crate::limits;

/// The ends of this member that speak TLS, and all its ports.
pub struct Tls {
    client: Option<Arc<Reloading<ServerTls>>>,
    peer: Option<PeerTls>,
    /// The ports, by their use.
    pub ports: Ports,
    /// How often changed files were taken, and could not be.
    taken: AtomicU64,
    refused: AtomicU64,
}

/// What is counted of each port.
pub struct Ports {
    /// For clients.
    pub client: Arc<Port>,
    /// For other members.
    pub peer: Arc<Port>,
    /// For metrics alone.
    pub metrics: Arc<Port>,
}

/// A certificate in use, or the first of some CAs that expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry {
    /// Which one.
    pub which: &'static str,
    /// When, in seconds since 1970.
    pub at: i64,
}

/// What metrics are made from.
#[derive(Debug, Clone, Default)]
pub struct TlsFigures {
    /// When what is in use expires.
    pub expiries: Vec<Expiry>,
    /// How many connections have failed, by port and cause.
    pub failures: Vec<(&'static str, Cause, u64)>,
    /// How often changed files were taken.
    pub reloads: u64,
    /// How often they could not be used.
    pub refusals: u64,
}

impl Tls {
    /// Reads the files of a configuration.
    ///
    /// Errors: what cannot be used, with its name.
    pub fn load(config: &TlsConfig) -> Result<Self, TlsError> {
        let client = config.client.as_ref().map(ServerTls::load).transpose()?.map(Arc::new);
        let peer = match &config.peer {
            None => None,
            Some(files) => Some(PeerTls {
                accept: Arc::new(ServerTls::load(&files.accept)?),
                connect: Arc::new(ClientTls::load(&files.connect)?),
            }),
        };
        let ports =
            Ports { client: Port::new("client"), peer: Port::new("peer"), metrics: Port::new("metrics") };
        Ok(Self { client, peer, ports, taken: AtomicU64::new(0), refused: AtomicU64::new(0) })
    }

    /// What takes the connections of a port for clients or metrics.
    pub fn acceptor(&self, port: &Arc<Port>, is_tls: bool) -> Acceptor {
        match &self.client {
            Some(settings) if is_tls => Acceptor::tls(Arc::clone(port), Arc::clone(settings)),
            _ => {
                assert!(!is_tls, "a checked configuration has a certificate for its https:// URLs");
                Acceptor::plain(Arc::clone(port))
            }
        }
    }

    /// Both directions between members.
    pub fn peer(&self) -> Option<PeerTls> {
        self.peer.clone()
    }

    /// What metrics are made from.
    pub fn figures(&self) -> TlsFigures {
        let ports = [&self.ports.client, &self.ports.peer, &self.ports.metrics];
        let failures = ports
            .into_iter()
            .flat_map(|port| port.failures().map(|(cause, count)| (port.name(), cause, count)));
        TlsFigures {
            expiries: self.expiries(),
            failures: failures.collect(),
            reloads: self.reloads(),
            refusals: self.refusals(),
        }
    }

    fn expiries(&self) -> Vec<Expiry> {
        let client = self.client.as_ref().map(|settings| settings.current());
        let accept = self.peer.as_ref().map(|peer| peer.accept.current());
        let connect = self.peer.as_ref().map(|peer| peer.connect.current());
        let named = [
            ("client", client.as_ref().and_then(|tls| tls.expires)),
            ("client_ca", client.as_ref().and_then(|tls| tls.ca_expires)),
            ("peer", accept.as_ref().and_then(|tls| tls.expires)),
            ("peer_ca", accept.as_ref().and_then(|tls| tls.ca_expires)),
            ("peer_client", connect.as_ref().and_then(|tls| tls.expires)),
        ];
        named.into_iter().filter_map(|(which, at)| Some(Expiry { which, at: at? })).collect()
    }

    /// How often changed files were taken.
    pub fn reloads(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// How often changed files could not be used.
    pub fn refusals(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn look(&self) {
        if let Some(client) = &self.client {
            self.note("client", client.look());
        }
        if let Some(peer) = &self.peer {
            self.note("peer", peer.accept.look());
            self.note("peer_client", peer.connect.look());
        }
    }

    fn note(&self, which: &'static str, change: Change) {
        match change {
            Change::None => {}
            Change::Taken => {
                self.taken.fetch_add(1, Ordering::Relaxed);
                tracing::info!(which, "changed certificate files are in use for new connections");
            }
            Change::Refused(error) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                tracing::error!(which, %error, "changed certificate files are not used: those read before stay in use");
            }
        }
    }

    /// Looks at the files each [`RELOAD_INTERVAL`] until `stop`, and warns once a day of what expires soon.
    pub async fn watch(self: Arc<Self>, clock: Arc<dyn Clock>, stop: CancellationToken) {
        if self.client.is_none() && self.peer.is_none() {
            return stop.cancelled().await;
        }
        let mut warned: Option<Monotonic> = None;
        loop {
            let now = clock.now();
            if warned.is_none_or(|at| now.since(at) >= limits::EXPIRY_WARNING_INTERVAL) {
                warned = Some(now);
                let wall = i64::try_from(clock.wall().0 / 1000).unwrap_or(i64::MAX);
                self.expiries().into_iter().for_each(|expiry| warn_of(expiry, wall));
            }
            tokio::select! {
                // Both only wait.
                () = stop.cancelled() => return,
                () = clock.sleep(RELOAD_INTERVAL) => {}
            }
            let tls = Arc::clone(&self);
            // The disk may block. A panic in there has ended the process already.
            drop(tokio::task::spawn_blocking(move || tls.look()).await);
        }
    }
}

fn warn_of(expiry: Expiry, now: i64) {
    let Expiry { which, at } = expiry;
    let left = at.saturating_sub(now);
    let days = left / limits::DAY_SECONDS;
    if left <= 0 {
        tracing::error!(
            which,
            "a certificate has expired: replace its files, they are taken without a restart"
        );
    } else if days < limits::EXPIRY_WARNING_DAYS {
        tracing::warn!(
            which,
            days,
            "a certificate expires soon: replace its files, they are taken without a restart"
        );
    }
}
