//! Three members in one process: real disks, real gRPC over loopback, and a network that can be cut.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use bytes::Bytes;
use holdfast_env::net::FRAMES_MAX;
use holdfast_env::{
    BoxFuture, Duplex, Env, Faults, Helper, Incoming, Lane, LogId, Net, NetError, RealSpawn, Spawn,
    TaskHandle,
};
use holdfast_log::{Log, LogConfig};
use holdfast_mvcc::auth::Caller;
use holdfast_mvcc::command::{Command, Op, Put, Range, Txn};
use holdfast_mvcc::types::{KeyRange, MemberId, RangeEnd, Record, Revision};
use holdfast_raft::{Member, Node, NodeConfig, NodeError, PeerNet, PeerNetConfig};
use holdfast_storage::{Answer, DispatchBody, DispatchItem, EngineKind, EventSink, Storage, StorageConfig};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};

/// Longer than anything takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// An election timeout that a busy machine does not pass by accident.
pub(crate) const SLACK: Duration = Duration::from_secs(4);

/// A network whose connections can be cut, and mended.
#[derive(Clone)]
pub(crate) struct CutNet {
    inner: PeerNet,
    cut: watch::Sender<Cut>,
    deaf: Arc<Notify>,
    pub(crate) transfers: Transfers,
}

/// Which connections are cut.
#[derive(Clone, Default, PartialEq, Eq)]
enum Cut {
    #[default]
    None,
    /// Those that the member opens to this address.
    To(String),
    All,
}

impl Cut {
    /// Whether it is one that was opened to `address`; `None` for one that was accepted.
    fn is_of(&self, address: Option<&str>) -> bool {
        match self {
            Self::None => false,
            Self::To(cut) => address == Some(cut),
            Self::All => true,
        }
    }
}

/// What goes over the connections for snapshots that a member opens.
#[derive(Clone, Default)]
pub(crate) struct Transfers {
    /// The next connections break after so many bytes each.
    pub(crate) cuts: Arc<Mutex<VecDeque<u64>>>,
    /// Of each connection: the offset of the first chunk, and the bytes of all chunks.
    pub(crate) sent: Arc<Mutex<Vec<(u64, u64)>>>,
}

impl Transfers {
    /// The same connection, counted, until its cut.
    fn over(&self, outer: Duplex) -> Duplex {
        let (send, mut outbound) = mpsc::channel::<Bytes>(FRAMES_MAX);
        let (inbound, recv) = mpsc::channel(FRAMES_MAX);
        let (transfers, limit) = (self.clone(), self.cuts.lock().pop_front().unwrap_or(u64::MAX));
        tokio::spawn(async move {
            let Duplex { send: to, recv: mut from } = outer;
            let mut place = None;
            loop {
                tokio::select! {
                    frame = outbound.recv() => {
                        let Some(frame) = frame else { return };
                        if let Some((offset, bytes)) = chunk(&frame) {
                            let mut sent = transfers.sent.lock();
                            let place = *place.get_or_insert_with(|| {
                                sent.push((offset, 0));
                                sent.len() - 1
                            });
                            sent[place].1 += bytes;
                            if sent[place].1 > limit {
                                return;
                            }
                        }
                        if to.send(frame).await.is_err() {
                            return;
                        }
                    }
                    frame = from.recv() => {
                        let Some(frame) = frame else { return };
                        if inbound.send(frame).await.is_err() {
                            return;
                        }
                    }
                }
            }
        });
        Duplex { send, recv }
    }
}

fn chunk(frame: &Bytes) -> Option<(u64, u64)> {
    use holdfast_proto::internal::{PeerMessage, peer_message::Body};
    match <PeerMessage as prost::Message>::decode(frame.clone()).unwrap().body {
        Some(Body::SnapshotChunk(chunk)) => Some((chunk.offset, chunk.data.len() as u64)),
        _ => None,
    }
}

impl CutNet {
    fn new() -> Self {
        let inner = PeerNet::new(tokio::runtime::Handle::current(), PeerNetConfig::default());
        Self { inner, cut: watch::Sender::default(), deaf: Arc::default(), transfers: Transfers::default() }
    }

    /// Breaks all connections and lets none come about.
    pub(crate) fn cut(&self) {
        self.cut.send_replace(Cut::All);
    }

    /// Breaks the connections that this member has opened to one address, and lets it open none.
    pub(crate) fn cut_to(&self, address: &str) {
        self.cut.send_replace(Cut::To(address.to_owned()));
    }

    pub(crate) fn mend(&self) {
        self.cut.send_replace(Cut::None);
    }

    /// Ends one listener for good; connections stay.
    pub(crate) fn deafen(&self) {
        self.deaf.notify_one();
    }
}

/// The same connection, until it is cut. `address` is where the member opened it to.
fn until_cut(outer: Duplex, address: Option<&str>, cut: &watch::Receiver<Cut>) -> Duplex {
    let (send, outbound) = mpsc::channel::<Bytes>(FRAMES_MAX);
    let (inbound, recv) = mpsc::channel(FRAMES_MAX);
    let is_cut = || {
        let (mut cut, address) = (cut.clone(), address.map(str::to_owned));
        async move { drop(cut.wait_for(|cut| cut.is_of(address.as_deref())).await) }
    };
    tokio::spawn(pump(outbound, outer.send, is_cut()));
    tokio::spawn(pump(outer.recv, inbound, is_cut()));
    Duplex { send, recv }
}

async fn pump(mut from: mpsc::Receiver<Bytes>, to: mpsc::Sender<Bytes>, is_cut: impl Future<Output = ()>) {
    let moving = async {
        while let Some(frame) = from.recv().await {
            if to.send(frame).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        () = is_cut => {}
        () = to.closed() => {}
        () = moving => {}
    }
}

impl Net for CutNet {
    fn connect(&self, address: &str, lane: Lane) -> BoxFuture<'static, Result<Duplex, NetError>> {
        let (net, address) = (self.clone(), address.to_owned());
        Box::pin(async move {
            if net.cut.borrow().is_of(Some(&address)) {
                return Err(NetError::Unreachable { address, reason: "cut".to_owned() });
            }
            let duplex = net.inner.connect(&address, lane).await?;
            let duplex = if lane == Lane::Snapshot { net.transfers.over(duplex) } else { duplex };
            Ok(until_cut(duplex, Some(&address), &net.cut.subscribe()))
        })
    }

    fn listen(&self, address: &str) -> BoxFuture<'static, Result<mpsc::Receiver<Incoming>, NetError>> {
        let (net, address) = (self.clone(), address.to_owned());
        Box::pin(async move {
            let mut outer = net.inner.listen(&address).await?;
            let (accepted, incoming) = mpsc::channel(16);
            tokio::spawn(async move {
                loop {
                    let next = tokio::select! {
                        biased;
                        () = accepted.closed() => return,
                        () = net.deaf.notified() => return,
                        next = outer.recv() => next,
                    };
                    let Some(Incoming { lane, duplex }) = next else { return };
                    if net.cut.borrow().is_of(None) {
                        continue;
                    }
                    let duplex = until_cut(duplex, None, &net.cut.subscribe());
                    if accepted.send(Incoming { lane, duplex }).await.is_err() {
                        return;
                    }
                }
            });
            Ok(incoming)
        })
    }
}

/// Real tasks; a halt is noted in place of ending the process.
struct HaltSpawn {
    inner: RealSpawn,
    halted: watch::Sender<Option<String>>,
}

impl Spawn for HaltSpawn {
    fn task(&self, name: &str, future: BoxFuture<'static, ()>) -> TaskHandle {
        self.inner.task(name, future)
    }

    fn dedicated(&self, name: &str, future: BoxFuture<'static, ()>) -> TaskHandle {
        self.inner.dedicated(name, future)
    }

    fn helped(&self, name: &str, future: BoxFuture<'static, ()>) -> (TaskHandle, Helper) {
        self.inner.helped(name, future)
    }

    fn halt(&self, reason: &str) {
        tracing::error!(reason, "halted");
        self.halted.send_replace(Some(reason.to_owned()));
    }
}

struct NoEvents;

impl EventSink for NoEvents {
    fn publish(&self, _: &[&Record], _: Revision) {}
    fn replaced(&self, _: Revision) {}
}

/// One running member.
pub(crate) struct Running {
    pub(crate) node: Node,
    pub(crate) storage: Storage,
    pub(crate) log: Log,
    pub(crate) net: CutNet,
    /// Why the member stopped itself, when it did.
    pub(crate) halted: watch::Receiver<Option<String>>,
}

/// The members and where they live. A member that is down is `None`.
pub(crate) struct Cluster {
    pub(crate) members: Vec<Option<Running>>,
    urls: Vec<String>,
    dir: tempfile::TempDir,
    dump_log_bytes: u64,
    election_timeout: Duration,
}

/// Where the ports for tests begin, and how many there are: below those that the kernel gives to outgoing connections,
/// so that a member that restarts finds its port free.
const PORTS_FROM: u16 = 21_000;
const PORTS: u16 = 9_000;

/// A free port for each member. Tests of one process never share one; processes start far from each other.
fn free_urls(count: usize) -> Vec<String> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 90).unwrap() * 100;
    let mut ports = std::iter::repeat_with(|| {
        PORTS_FROM + (start + NEXT.fetch_add(1, Ordering::Relaxed) % PORTS) % PORTS
    });
    let mut free = || {
        let is_free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
        let port = ports.by_ref().take(usize::from(PORTS)).find(is_free).expect("some port is free");
        format!("http://127.0.0.1:{port}")
    };
    (0..count).map(|_| free()).collect()
}

/// Whether a member forms the cluster with the others.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Founding {
    Yes,
    No,
}

pub(crate) fn id(place: usize) -> MemberId {
    MemberId(place as u64 + 1)
}

impl Cluster {
    /// Starts `count` members with an empty disk each.
    pub(crate) async fn start(count: usize, dump_log_bytes: u64) -> Self {
        Self::start_with(count, dump_log_bytes, SLACK).await
    }

    /// The same with another election timeout.
    pub(crate) async fn start_with(count: usize, dump_log_bytes: u64, election_timeout: Duration) -> Self {
        // Shown by the test runner when the test fails, or at once with --nocapture.
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::INFO)
            .with_test_writer()
            .with_ansi(false);
        subscriber.try_init().ok();
        let dir = tempfile::tempdir().unwrap();
        let urls = free_urls(count);
        let mut cluster = Self { members: Vec::new(), urls, dir, dump_log_bytes, election_timeout };
        for place in 0..count {
            let member = cluster.open(place, Founding::Yes).await;
            cluster.members.push(Some(member));
        }
        cluster
    }

    fn path(&self, place: usize) -> PathBuf {
        self.dir.path().join(place.to_string())
    }

    async fn open(&self, place: usize, founding: Founding) -> Running {
        let net = CutNet::new();
        let runtime = tokio::runtime::Handle::current();
        let (halt, halted) = watch::channel(None);
        let spawn = HaltSpawn { inner: RealSpawn::new(runtime.clone()), halted: halt };
        let env = Env {
            spawn: Arc::new(spawn),
            faults: Faults::of_tests(),
            ..Env::real(runtime, Arc::new(net.clone()))
        };
        let (log, storage) = open_stores(&env, &self.path(place)).await;
        let founders = if founding == Founding::Yes { &self.urls[..] } else { &[] };
        let initial_members = founders.iter().enumerate().map(|(place, url)| Member {
            id: id(place),
            peer_urls: vec![url.clone()],
            is_learner: false,
        });
        let config = NodeConfig {
            id: id(place),
            cluster_id: 0xc1,
            listen_peer_urls: vec![self.urls[place].clone()],
            initial_members: initial_members.collect(),
            heartbeat_interval: Duration::from_millis(100),
            election_timeout: self.election_timeout,
            request_bytes_max: 1 << 20,
            proposal_bytes_max: 16 << 20,
            apply_lag_max: 5000,
            dump_log_bytes: self.dump_log_bytes,
        };
        let node = Node::start(&env, config, log.clone(), storage.clone()).await.unwrap();
        Running { node, storage, log, net, halted }
    }

    /// Starts a member that is down, with what is on its disk.
    pub(crate) async fn restart(&mut self, place: usize) {
        assert!(self.members[place].is_none(), "only a member that is down can start");
        self.members[place] = Some(self.open(place, Founding::Yes).await);
    }

    /// The next member, not started yet.
    pub(crate) fn newcomer(&mut self, is_learner: bool) -> Member {
        self.urls.extend(free_urls(1));
        self.members.push(None);
        let place = self.urls.len() - 1;
        Member { id: id(place), peer_urls: vec![self.urls[place].clone()], is_learner }
    }

    /// Starts a member that does not belong to those who form the cluster.
    pub(crate) async fn start_newcomer(&mut self, place: usize) {
        self.members[place] = Some(self.open(place, Founding::No).await);
    }

    /// Puts a value into a stopped member's state in the place of the log entry `at`, which it does not have yet.
    pub(crate) async fn doctor(&self, place: usize, at: LogId, key: &str, value: &[u8]) {
        assert!(self.members[place].is_none(), "only a member that is down can be doctored");
        let env = Env::real(tokio::runtime::Handle::current(), Arc::new(CutNet::new()));
        let (log, storage) = open_stores(&env, &self.path(place)).await;
        let body =
            DispatchBody::Command { command: put_command(key, value), caller: Caller::Server, respond: None };
        storage.dispatch(vec![DispatchItem { log_id: at, body }]).await.unwrap();
        storage.shutdown().await;
        log.shutdown().await;
    }

    /// Changes a bit in the middle of a member's newest snapshot, whether the member runs or not.
    pub(crate) fn rot_snapshot(&self, place: usize) {
        let dir = std::fs::read_dir(self.path(place).join("store/snapshots")).unwrap();
        let paths = dir.map(|entry| entry.unwrap().path());
        let path = paths.into_iter().find(|path| path.extension().is_some_and(|e| e == "snap")).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        // In place: who has the file open reads what is rotten.
        std::fs::write(&path, bytes).unwrap();
    }

    /// Throws a stopped member's disk away.
    pub(crate) fn wipe(&self, place: usize) {
        assert!(self.members[place].is_none(), "only a member that is down can be wiped");
        std::fs::remove_dir_all(self.path(place)).unwrap();
    }

    /// Keeps a copy of all that a member that is down has on its disk.
    pub(crate) fn back_up(&self, place: usize) {
        assert!(self.members[place].is_none(), "only a member that is down can be copied");
        copy_dir(&self.path(place), &self.backup(place));
    }

    /// Puts the copy back in the place of what the member has now.
    pub(crate) fn restore(&self, place: usize) {
        self.wipe(place);
        copy_dir(&self.backup(place), &self.path(place));
    }

    fn backup(&self, place: usize) -> PathBuf {
        self.dir.path().join(format!("{place}.backup"))
    }

    /// Where the peers of a member reach it.
    pub(crate) fn url(&self, place: usize) -> &str {
        &self.urls[place]
    }

    /// Ends a member without a word to the others, as when its process is killed.
    pub(crate) async fn kill(&mut self, place: usize) {
        let member = self.members[place].take().expect("only a running member can be killed");
        member.node.abandon().await;
        member.storage.shutdown().await;
        member.log.shutdown().await;
    }

    /// Stops a member in order.
    pub(crate) async fn stop(&mut self, place: usize) {
        let member = self.members[place].take().expect("only a running member can stop");
        member.node.shutdown().await;
        member.storage.shutdown().await;
        member.log.shutdown().await;
        assert_eq!(*member.halted.borrow(), None);
    }

    pub(crate) async fn stop_all(&mut self) {
        for place in 0..self.members.len() {
            if self.members[place].is_some() {
                self.stop(place).await;
            }
        }
    }

    pub(crate) fn member(&self, place: usize) -> &Running {
        self.members[place].as_ref().expect("the member is running")
    }

    /// Waits until a running member leads, but for those in `except`.
    pub(crate) async fn leader(&self, except: &[usize]) -> usize {
        eventually("a leader", || {
            let mut running = self.members.iter().enumerate().filter(|(place, _)| !except.contains(place));
            running.find(|(_, member)| member.as_ref().is_some_and(|member| member.node.health().is_leader))
        })
        .await
        .0
    }

    /// Waits until a member sees `key` with `value` in its own state.
    pub(crate) async fn sees(&self, place: usize, key: &str, value: &str) {
        eventually("the value", || {
            (get(&self.member(place).storage, key).as_deref() == Some(value)).then_some(())
        })
        .await;
    }
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if path.is_dir() {
            copy_dir(&path, &to);
        } else {
            std::fs::copy(&path, &to).unwrap();
        }
    }
}

async fn open_stores(env: &Env, dir: &Path) -> (Log, Storage) {
    let log = LogConfig { segment_bytes: 4 << 20, ..LogConfig::new(dir.join("log")) };
    let log = Log::open(env, log).unwrap();
    let storage = StorageConfig {
        dir: dir.join("store"),
        engine: EngineKind::Sled,
        workers: 1,
        memory_bytes: 32 << 20,
        checkpoint_revisions: 64 << 10,
    };
    let storage = Storage::open(env, storage, Arc::new(NoEvents)).await.unwrap();
    (log, storage)
}

/// Waits until `check` gives a value.
pub(crate) async fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(tokio::time::Instant::now() < deadline, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn put_command(key: &str, value: &[u8]) -> Command {
    Command::Put(Put {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value),
        lease: None,
        prev_kv: false,
        ignore_value: false,
        ignore_lease: false,
    })
}

/// So many transactions, one in the other.
pub(crate) fn nested(depth: usize) -> Command {
    let innermost = Txn { compares: Vec::new(), success: Vec::new(), failure: Vec::new() };
    let txn = (1..depth).fold(innermost, |inner, _| Txn {
        compares: Vec::new(),
        success: vec![Op::Txn(inner)],
        failure: Vec::new(),
    });
    Command::Txn(txn)
}

/// Puts and waits for the answer.
pub(crate) async fn put(node: &Node, key: &str, value: &[u8], budget: Duration) -> Result<Answer, NodeError> {
    node.propose(put_command(key, value), budget).await
}

/// What a member's own state holds under a key.
pub(crate) fn get(storage: &Storage, key: &str) -> Option<String> {
    let range = Range::of(KeyRange { start: Bytes::copy_from_slice(key.as_bytes()), end: RangeEnd::Single });
    let (response, _) = storage.range(&range).unwrap();
    response.kvs.first().map(|kv| String::from_utf8(kv.value.to_vec()).unwrap())
}
