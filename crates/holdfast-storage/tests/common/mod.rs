//! What the tests of the running storage share: a world, a storage in it, and commands.

#![allow(dead_code, unreachable_pub, reason = "every test binary uses its own part of this")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use holdfast_env::{
    BoxFuture, Disk, DiskFile, DiskLock, Env, Failpoint, Fault, Faults, LogId, LogIndex, NoNet, OpenMode,
    RealDisk, Sabotage, Spawn, TaskHandle, Term,
};
use holdfast_mvcc::auth::Caller;
use holdfast_mvcc::command::*;
use holdfast_mvcc::types::{KeyRange, RangeEnd, Record, Revision};
use holdfast_storage::*;
use tokio::sync::oneshot;

/// How long anything may take before a test calls it stuck.
pub const DEADLINE: Duration = Duration::from_secs(30);

pub fn env() -> Env {
    Env { faults: Faults::of_tests(), ..Env::real(tokio::runtime::Handle::current(), Arc::new(NoNet)) }
}

/// Runs every loop as a task of the runtime: with a current-thread runtime, all on one thread.
pub struct AllTasks;

impl Spawn for AllTasks {
    fn task(&self, name: &str, future: BoxFuture<'static, ()>) -> TaskHandle {
        let (end, ended) = oneshot::channel();
        tokio::spawn(async move {
            let _end = end;
            future.await;
        });
        TaskHandle::new(name, ended)
    }
    fn dedicated(&self, name: &str, future: BoxFuture<'static, ()>) -> TaskHandle {
        self.task(name, future)
    }
    fn halt(&self, reason: &str) {
        panic!("halted: {reason}");
    }
}

/// A world on one thread.
pub fn one_thread() -> Env {
    Env { spawn: Arc::new(AllTasks), ..env() }
}

/// Remembers the points that a member came to, and plants one fault.
#[derive(Default)]
pub struct Noted {
    pub hits: Mutex<Vec<Failpoint>>,
    pub planted: Option<Fault>,
}

impl Sabotage for Noted {
    fn hit(&self, at: Failpoint) {
        self.hits.lock().unwrap().push(at);
    }
    fn is_planted(&self, fault: Fault) -> bool {
        self.planted == Some(fault)
    }
}

/// Counts the points, and stops the loop that comes to one of them, once, until it is let go.
pub struct StopAt {
    at: Failpoint,
    inner: Mutex<Stopped>,
    changed: std::sync::Condvar,
}

#[derive(Default)]
struct Stopped {
    hits: Vec<Failpoint>,
    let_go: bool,
}

impl StopAt {
    pub fn new(at: Failpoint) -> Self {
        Self { at, inner: Mutex::default(), changed: std::sync::Condvar::new() }
    }

    /// Waits until the loop stands at the point.
    pub async fn reached(&self) {
        let wait = async {
            while self.count(self.at) == 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        within(wait).await;
    }

    pub fn let_go(&self) {
        self.inner.lock().unwrap().let_go = true;
        self.changed.notify_all();
    }

    pub fn count(&self, at: Failpoint) -> usize {
        self.inner.lock().unwrap().hits.iter().filter(|hit| **hit == at).count()
    }
}

impl Sabotage for StopAt {
    fn hit(&self, at: Failpoint) {
        let mut inner = self.inner.lock().unwrap();
        inner.hits.push(at);
        while at == self.at && !inner.let_go {
            inner = self.changed.wait(inner).unwrap();
        }
    }
    fn is_planted(&self, _: Fault) -> bool {
        false
    }
}

/// This world with a fault in it.
pub fn planted(env: Env, fault: Fault) -> Env {
    let noted = Noted { planted: Some(fault), ..Noted::default() };
    Env { faults: Faults::new(Arc::new(noted)), ..env }
}

/// Keeps what was published.
#[derive(Default)]
pub struct Events(pub Mutex<Vec<(Vec<Record>, Revision)>>);

impl EventSink for Events {
    fn publish(&self, records: &[&Record], revision: Revision) {
        let records = records.iter().copied().cloned().collect();
        self.0.lock().unwrap().push((records, revision));
    }
    fn replaced(&self, revision: Revision) {
        self.0.lock().unwrap().push((Vec::new(), revision));
    }
}

pub fn config(dir: &Path, engine: EngineKind) -> StorageConfig {
    StorageConfig {
        dir: dir.to_owned(),
        engine,
        workers: 2,
        memory_bytes: 64 << 20,
        checkpoint_revisions: 64 << 10,
    }
}

/// A storage and the log it is fed from.
pub struct Member {
    pub storage: Storage,
    pub events: Arc<Events>,
    pub next: u64,
}

pub fn log_id(index: u64) -> LogId {
    LogId::new(Term::new(1), LogIndex::new(index))
}

impl Member {
    pub async fn open(dir: &Path, engine: EngineKind) -> Self {
        Self::open_with(config(dir, engine)).await
    }

    pub async fn open_with(config: StorageConfig) -> Self {
        Self::open_in(&env(), config).await
    }

    pub async fn open_in(env: &Env, config: StorageConfig) -> Self {
        let events = Arc::new(Events::default());
        let open = || Storage::open(env, config.clone(), Arc::clone(&events) as Arc<dyn EventSink>);
        let opening = async {
            loop {
                match open().await {
                    // sled's threads may let go of its lock only after its owner is gone.
                    Err(StorageError::InUse { .. }) => tokio::time::sleep(Duration::from_millis(5)).await,
                    opened => return opened.unwrap(),
                }
            }
        };
        let storage = within(opening).await;
        Self::over(storage, events)
    }

    pub fn over(storage: Storage, events: Arc<Events>) -> Self {
        let next = storage.applied().log_id.map_or(0, |id| id.index().get() + 1);
        Self { storage, events, next }
    }

    /// Digest, history hash, and every key.
    pub fn image(&self) -> (u64, HistoryHash, Vec<KeyValue2>) {
        (self.storage.state_digest(), self.storage.history_hash(None).unwrap(), self.all())
    }

    /// Dumps and waits for the snapshot.
    pub async fn dump(&self) -> Snapshot {
        within(within(self.storage.start_dump()).await.unwrap()).await.unwrap()
    }

    /// Dispatches commands and waits for the answers.
    pub async fn run(&mut self, commands: Vec<Command>) -> Vec<Answer> {
        let waiting = self.dispatch(commands).await;
        let mut answers = Vec::new();
        for answer in waiting {
            answers.push(within(answer).await.unwrap());
        }
        answers
    }

    pub async fn dispatch(&mut self, commands: Vec<Command>) -> Vec<oneshot::Receiver<Answer>> {
        let mut waiting = Vec::new();
        let mut items = Vec::new();
        for command in commands {
            let (respond, answer) = oneshot::channel();
            let body = DispatchBody::Command { command, caller: Caller::Server, respond: Some(respond) };
            items.push(DispatchItem { log_id: log_id(self.next), body });
            self.next += 1;
            waiting.push(answer);
        }
        within(self.storage.dispatch(items)).await.unwrap();
        waiting
    }

    /// The newest value of a key.
    pub fn get(&self, key: &str) -> Option<String> {
        self.get_at(key, ReadAt::Latest).unwrap()
    }

    pub fn get_at(&self, key: &str, at: ReadAt) -> Result<Option<String>, ReadError> {
        let (response, _) = self.storage.range(&Range { at, ..range(key_range(key)) })?;
        Ok(response.kvs.first().map(|kv| String::from_utf8(kv.value.to_vec()).unwrap()))
    }

    pub fn all(&self) -> Vec<KeyValue2> {
        let everything = KeyRange { start: Bytes::from_static(b"\0"), end: RangeEnd::Unbounded };
        let (response, _) = self.storage.range(&range(everything)).unwrap();
        response.kvs.into_iter().map(|kv| (kv.key, kv.value, kv.mod_revision.get())).collect()
    }

    /// Waits until the stable store has all that is visible.
    pub async fn drained(&self) {
        self.until("the stable store has all", |s| s.stable == s.visible.log_id).await;
    }

    pub async fn until(&self, what: &str, holds: impl Fn(&StorageStatus) -> bool) {
        let wait = async {
            while !holds(&self.storage.status()) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        assert!(tokio::time::timeout(DEADLINE, wait).await.is_ok(), "{what}: {:?}", self.storage.status());
    }

    pub async fn close(self) {
        within(self.storage.shutdown()).await;
    }
}

pub type KeyValue2 = (Bytes, Bytes, u64);

pub async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work).await.expect("finished before the deadline")
}

pub fn key_range(key: &str) -> KeyRange {
    KeyRange { start: Bytes::from(key.to_owned()), end: RangeEnd::Single }
}

pub fn range(range: KeyRange) -> Range {
    Range::of(range)
}

pub fn put(key: &str, value: &str) -> Command {
    Command::Put(put_op(key, value))
}

pub fn put_op(key: &str, value: &str) -> Put {
    Put {
        key: Bytes::from(key.to_owned()),
        value: Bytes::from(value.to_owned()),
        lease: None,
        prev_kv: true,
        ignore_value: false,
        ignore_lease: false,
    }
}

pub fn delete(key: &str) -> Command {
    Command::DeleteRange(DeleteRange { range: key_range(key), prev_kv: true })
}

pub fn compact(revision: u64) -> Command {
    Command::Compact(Compact { revision: i64::try_from(revision).unwrap() })
}

/// When the key has the value, puts another one, else deletes the key.
pub fn swap(key: &str, expected: &str, new: &str) -> Command {
    let operand = Operand::Value(Bytes::from(expected.to_owned()));
    Command::Txn(Txn {
        compares: vec![Compare { range: key_range(key), relation: Relation::Equal, operand }],
        success: vec![Op::Put(put_op(key, new)), Op::Range(range(key_range(key)))],
        failure: vec![Op::DeleteRange(DeleteRange { range: key_range(key), prev_kv: true })],
    })
}

/// Receives a snapshot of another member as the network would bring it.
pub async fn install(from: &Snapshot, to: &Storage) -> Result<(), StorageError> {
    let mut incoming = to.receive_snapshot()?;
    let mut at = 0;
    while at < from.bytes {
        let mut chunk = vec![0; usize::try_from((from.bytes - at).min(10_000)).unwrap()];
        from.file.read_exact_at(&mut chunk, at).unwrap();
        incoming.write(&chunk)?;
        at += chunk.len() as u64;
    }
    within(to.install(incoming)).await
}

/// A disk on which writes to files of one kind wait while it is closed.
pub struct GatedDisk {
    inner: RealDisk,
    kind: &'static str,
    gate: Arc<Gate>,
}

/// Open or closed, or in the way.
#[derive(Default)]
pub struct Gate {
    closed: Mutex<bool>,
    waiting: std::sync::atomic::AtomicUsize,
    changed: std::sync::Condvar,
    fails: Mutex<Option<io::ErrorKind>>,
    free_bytes: Mutex<Option<u64>>,
}

impl Gate {
    pub fn close(&self) {
        *self.closed.lock().unwrap() = true;
    }
    pub fn open(&self) {
        *self.closed.lock().unwrap() = false;
        self.changed.notify_all();
    }
    /// Waits until a write waits.
    pub async fn until_it_holds(&self) {
        within(async {
            while self.waiting.load(std::sync::atomic::Ordering::SeqCst) == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }
    /// Writes fail like this.
    pub fn fail(&self, kind: Option<io::ErrorKind>) {
        *self.fails.lock().unwrap() = kind;
    }
    /// The disk says that so much is free.
    pub fn set_free(&self, bytes: u64) {
        *self.free_bytes.lock().unwrap() = Some(bytes);
    }
    fn pass(&self) -> io::Result<()> {
        let mut closed = self.closed.lock().unwrap();
        self.waiting.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        while *closed {
            closed = self.changed.wait(closed).unwrap();
        }
        self.waiting.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
        drop(closed);
        self.fails.lock().unwrap().map_or(Ok(()), |kind| Err(kind.into()))
    }
}

/// A world whose disk waits before it writes to files with `kind` in their name.
pub fn gated_env(kind: &'static str) -> (Env, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let disk = GatedDisk { inner: RealDisk, kind, gate: Arc::clone(&gate) };
    (Env { disk: Arc::new(disk), ..env() }, gate)
}

struct GatedFile(Box<dyn DiskFile>, Arc<Gate>);

impl DiskFile for GatedFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }
    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.1.pass()?;
        self.0.write_all_at(data, offset)
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }
}

impl Disk for GatedDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir_all(path)
    }
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let file = self.inner.open(path, mode)?;
        let gated = path.to_string_lossy().contains(self.kind);
        Ok(if gated { Box::new(GatedFile(file, Arc::clone(&self.gate))) } else { file })
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_file(path)
    }
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_dir_all(path)
    }
    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.inner.read_dir(path)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.inner.exists(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.sync_dir(path)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        self.inner.lock(path)
    }
    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let told = *self.gate.free_bytes.lock().unwrap();
        told.map_or_else(|| self.inner.free_bytes(path), Ok)
    }
}

/// Makes a snapshot one of a release to come, which has more in its start than this one.
pub fn make_newer(snapshot: &mut [u8]) {
    snapshot[8] += 1;
    snapshot[9] = 0x5a;
    let checksum = crc32c::crc32c(&snapshot[..12]);
    snapshot[12..16].copy_from_slice(&checksum.to_le_bytes());
}
