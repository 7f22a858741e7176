//! A network of simulated links that delay frames, are cut in one or both directions, and break.
//!
//! A connection behaves as one over TCP does: frames arrive in order and at most once. While a direction is cut its
//! frames wait; a connection that waits longer than its patience breaks, and both ends see it closed. Opening a
//! connection needs both directions. A process that ends closes its connections; a machine without power says nothing to anybody.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_env::net::FRAMES_MAX;
use holdfast_env::{BoxFuture, Duplex, Incoming, Lane, Net, NetError};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::world::{SimRng, Switch};

/// A machine in the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(pub usize);

/// How often a waiting frame looks whether its link works again.
const CUT_POLL: Duration = Duration::from_millis(10);
/// How long a connection over a cut link lives; the real transport's keep-alive gives up in about this time.
const CUT_PATIENCE: Duration = Duration::from_millis(1500);
/// How many connections may wait to be accepted.
const ACCEPT_MAX: usize = 16;

/// All links. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Network {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    rng: SimRng,
    /// Upper end of a frame's delay in microseconds.
    delay_us_max: u64,
    state: Mutex<NetworkState>,
}

#[derive(Debug, Default)]
struct NetworkState {
    hosts: BTreeMap<String, Host>,
    listeners: BTreeMap<String, mpsc::Sender<Incoming>>,
    /// Directions that carry nothing.
    cut: BTreeSet<(Host, Host)>,
    /// Machines without power. They have it again when something listens there.
    dark: BTreeSet<Host>,
    /// Open connections with the switch that breaks both directions.
    connections: BTreeMap<u64, (Host, Host, Arc<Switch>)>,
    next_connection: u64,
}

/// One host's view of the network.
#[derive(Debug, Clone)]
pub struct SimNet {
    host: Host,
    network: Network,
}

impl Network {
    /// A whole network; frames take up to `delay_us_max` microseconds.
    pub fn new(seed: u64, delay_us_max: u64) -> Self {
        let state = Mutex::new(NetworkState::default());
        Self { shared: Arc::new(Shared { rng: SimRng::new(seed), delay_us_max: delay_us_max.max(1), state }) }
    }

    /// Says which host an address belongs to.
    pub fn place(&self, address: &str, host: Host) {
        self.shared.state.lock().hosts.insert(address.to_owned(), host);
    }

    /// The network as seen from `host`.
    pub fn view(&self, host: Host) -> SimNet {
        SimNet { host, network: self.clone() }
    }

    /// Cuts one direction.
    pub fn cut(&self, from: Host, to: Host) {
        self.shared.state.lock().cut.insert((from, to));
    }

    /// Cuts both directions.
    pub fn cut_both(&self, a: Host, b: Host) {
        self.cut(a, b);
        self.cut(b, a);
    }

    /// Makes every link whole.
    pub fn heal(&self) {
        self.shared.state.lock().cut.clear();
    }

    /// Breaks every connection of `host` and stops its listeners: the process is gone.
    pub fn disconnect(&self, host: Host) {
        let mut state = self.shared.state.lock();
        state.stop_listening(host);
        state.break_connections(host);
    }

    /// Takes the power of `host` away: nobody listens there, and who is connected with it hears nothing more, not even that.
    pub fn darken(&self, host: Host) {
        let mut state = self.shared.state.lock();
        state.stop_listening(host);
        state.dark.insert(host);
    }

    fn is_cut(&self, from: Host, to: Host) -> bool {
        let state = self.shared.state.lock();
        state.cut.contains(&(from, to)) || state.is_dark(from, to)
    }

    fn delay(&self) -> Duration {
        Duration::from_micros(1 + self.shared.rng.below(self.shared.delay_us_max))
    }

    async fn open(&self, from: Host, address: String, lane: Lane) -> Result<Duplex, NetError> {
        let unreachable =
            |reason: &str| NetError::Unreachable { address: address.clone(), reason: reason.to_owned() };
        tokio::time::sleep(self.delay()).await;
        let (to, listener) = {
            let state = self.shared.state.lock();
            let to = *state.hosts.get(&address).ok_or_else(|| unreachable("no such host"))?;
            (to, state.listeners.get(&address).cloned())
        };
        if self.is_cut(from, to) || self.is_cut(to, from) {
            tokio::time::sleep(CUT_PATIENCE).await;
            return Err(unreachable("timed out"));
        }
        let listener = listener.ok_or_else(|| unreachable("connection refused"))?;
        let (near, far) = self.connection(from, to);
        listener.try_send(Incoming { lane, duplex: far }).map_err(|_| unreachable("connection refused"))?;
        Ok(near)
    }

    fn connection(&self, from: Host, to: Host) -> (Duplex, Duplex) {
        let switch = Arc::new(Switch::default());
        {
            let mut state = self.shared.state.lock();
            let id = state.next_connection;
            state.next_connection += 1;
            state.connections.retain(|_, (_, _, switch)| !switch.is_thrown());
            state.connections.insert(id, (from, to, Arc::clone(&switch)));
        }
        let (near_send, near_out) = mpsc::channel(FRAMES_MAX);
        let (near_in, near_recv) = mpsc::channel(FRAMES_MAX);
        let (far_send, far_out) = mpsc::channel(FRAMES_MAX);
        let (far_in, far_recv) = mpsc::channel(FRAMES_MAX);
        for (from, to, out, into) in [(from, to, near_out, far_in), (to, from, far_out, near_in)] {
            let pump = Pump { network: self.clone(), from, to, switch: Arc::clone(&switch) };
            tokio::spawn(pump.run(out, into));
        }
        (Duplex { send: near_send, recv: near_recv }, Duplex { send: far_send, recv: far_recv })
    }
}

impl NetworkState {
    /// True when one of them has no power.
    fn is_dark(&self, one: Host, other: Host) -> bool {
        self.dark.contains(&one) || self.dark.contains(&other)
    }

    fn stop_listening(&mut self, host: Host) {
        let Self { hosts, listeners, .. } = self;
        listeners.retain(|address, _| hosts.get(address) != Some(&host));
    }

    fn break_connections(&mut self, host: Host) {
        self.connections.retain(|_, (from, to, broken)| {
            let hit = *from == host || *to == host;
            if hit {
                broken.throw();
            }
            !hit
        });
    }
}

/// Carries the frames of one direction of one connection.
struct Pump {
    network: Network,
    from: Host,
    to: Host,
    switch: Arc<Switch>,
}

impl Pump {
    async fn run(self, mut out: mpsc::Receiver<Bytes>, into: mpsc::Sender<Bytes>) {
        tokio::select! {
            biased;
            // Both arms only wait; nothing is lost that a broken connection would not lose too.
            () = self.switch.thrown() => {}
            () = self.carry(&mut out, &into) => {}
        }
        self.switch.throw();
    }

    /// Returns when the connection is closed or has broken.
    async fn carry(&self, out: &mut mpsc::Receiver<Bytes>, into: &mpsc::Sender<Bytes>) {
        self.carry_frames(out, into).await;
        let is_dark = self.network.shared.state.lock().is_dark(self.from, self.to);
        if is_dark {
            // Its end was closed, but nobody is there to say so.
            tokio::time::sleep(CUT_PATIENCE).await;
        }
    }

    async fn carry_frames(&self, out: &mut mpsc::Receiver<Bytes>, into: &mpsc::Sender<Bytes>) {
        loop {
            let frame = tokio::select! {
                biased;
                // The reader dropped its half: the connection is closed, also while nothing is under way.
                () = into.closed() => return,
                frame = out.recv() => frame,
            };
            let Some(frame) = frame else { return };
            tokio::time::sleep(self.network.delay()).await;
            let mut waited = Duration::ZERO;
            while self.network.is_cut(self.from, self.to) {
                if waited >= CUT_PATIENCE {
                    return;
                }
                tokio::time::sleep(CUT_POLL).await;
                waited += CUT_POLL;
            }
            if into.send(frame).await.is_err() {
                return;
            }
        }
    }
}

impl Net for SimNet {
    fn connect(&self, address: &str, lane: Lane) -> BoxFuture<'static, Result<Duplex, NetError>> {
        let (network, host, address) = (self.network.clone(), self.host, address.to_owned());
        Box::pin(async move { network.open(host, address, lane).await })
    }

    fn listen(&self, address: &str) -> BoxFuture<'static, Result<mpsc::Receiver<Incoming>, NetError>> {
        let (accept, incoming) = mpsc::channel(ACCEPT_MAX);
        {
            let mut state = self.network.shared.state.lock();
            if state.dark.remove(&self.host) {
                // Whoever still thinks that it is connected is told that nobody knows of it.
                state.break_connections(self.host);
            }
            state.listeners.insert(address.to_owned(), accept);
        }
        Box::pin(async move { Ok(incoming) })
    }
}
