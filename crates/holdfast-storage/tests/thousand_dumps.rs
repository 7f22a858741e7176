//! Random dumps with writes, deletes, compactions, cancels, reads, restarts and installs around them, against a naive
//! model: at every readable revision, in every state. (WH7, WH8, WH10 to WH13, WH16; I3, I5, I9.)

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, RwLock};
use std::time::Duration;

use bytes::Bytes;
use common::*;
use holdfast_env::{Env, Failpoint, Fault, Faults, Sabotage};
use holdfast_mvcc::command::*;
use holdfast_mvcc::types::{KeyRange, LeaseId, LeaseRef, LogIndex, RangeEnd, Revision, Term};
use holdfast_storage::*;

const KEYS: u64 = 24;

/// Xorshift: a run is its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
    fn size(&mut self, below: u64) -> usize {
        usize::try_from(self.roll(below)).unwrap()
    }
    fn one_in(&mut self, n: u64) -> bool {
        self.roll(n) == 0
    }
}

/// Value, create revision, mod revision, version.
type Held = (Bytes, u64, u64, u64);
type Image = BTreeMap<Bytes, Held>;

/// Leases with their keys.
type Leases = BTreeMap<i64, BTreeSet<Bytes>>;

/// The whole state at each revision.
struct Model {
    at: BTreeMap<u64, Arc<Image>>,
    compacted: u64,
    leases: Leases,
    /// Which entry granted each.
    granted_at: BTreeMap<i64, LogIndex>,
    /// The leases behind each entry of the log.
    leases_at: Vec<Leases>,
}

impl Model {
    fn newest(&self) -> u64 {
        *self.at.keys().next_back().unwrap()
    }

    /// Applies puts (with values) and deletes of one command.
    fn apply(&mut self, changes: &[(Bytes, Option<Bytes>)]) {
        let revision = self.newest() + 1;
        let mut image = Image::clone(&self.at[&(revision - 1)]);
        let mut changed = false;
        for (key, value) in changes {
            for keys in self.leases.values_mut() {
                keys.remove(key);
            }
            let before = image.get(key).cloned();
            changed |= value.is_some() || before.is_some();
            match value {
                Some(value) => {
                    let (create, version) = before.map_or((revision, 1), |held| (held.1, held.3 + 1));
                    image.insert(key.clone(), (value.clone(), create, revision, version));
                }
                None => drop(image.remove(key)),
            }
        }
        if changed {
            self.at.insert(revision, Arc::new(image));
        }
    }

    fn compact(&mut self, revision: u64) {
        self.compacted = revision;
        self.at = self.at.split_off(&revision);
    }
}

/// Stops the loop that comes to the armed point until it is let go, or for 30 ms; each round arms another one.
#[derive(Default)]
struct Holder {
    inner: Mutex<(Option<Failpoint>, bool)>,
    changed: Condvar,
}

impl Holder {
    fn arm(&self, at: Option<Failpoint>) {
        *self.inner.lock().unwrap() = (at, false);
        self.changed.notify_all();
    }
    fn is_held(&self) -> bool {
        self.inner.lock().unwrap().1
    }
}

impl Sabotage for Holder {
    fn hit(&self, at: Failpoint) {
        let mut inner = self.inner.lock().unwrap();
        if inner.0 == Some(at) {
            inner.1 = true;
            self.changed.notify_all();
            let until_let_go = |inner: &mut (Option<Failpoint>, bool)| inner.0 == Some(at);
            // Not for ever: what was written may wait for room that only the end of the dump makes.
            drop(self.changed.wait_timeout_while(inner, Duration::from_millis(30), until_let_go).unwrap());
        }
    }
    fn is_planted(&self, _: Fault) -> bool {
        false
    }
}

const HELD_AT: [Failpoint; 6] = [
    Failpoint::DumpStartFenced,
    Failpoint::DumpStartDrained,
    Failpoint::DumpReadBlock,
    Failpoint::DumpCurrentUpdated,
    Failpoint::MergeMid,
    Failpoint::MergeDone,
];

fn key(n: u64) -> Bytes {
    Bytes::from(format!("key/{n:02}"))
}

fn everything(at: u64) -> Range {
    let all = KeyRange { start: Bytes::from_static(b"key/"), end: RangeEnd::Unbounded };
    Range { at: ReadAt::Revision(Revision::new(at)), ..range(all) }
}

/// Reads all keys at a revision and holds them against the model. False when it cannot be read (any more, or yet).
fn check_at(storage: &Storage, model: &RwLock<Model>, at: u64) -> bool {
    let Some(expected) = model.read().unwrap().at.get(&at).cloned() else { return false };
    match storage.range(&everything(at)) {
        Ok((found, _)) => {
            let image: Image = found
                .kvs
                .into_iter()
                .map(|kv| (kv.key, (kv.value, kv.create_revision.get(), kv.mod_revision.get(), kv.version)))
                .collect();
            assert_eq!(found.count, image.len() as u64, "the count at {at}");
            assert_eq!(image, *expected, "at revision {at}");
            true
        }
        Err(ReadError::Refused(Refusal::Compacted { .. })) => {
            assert!(at < model.read().unwrap().compacted, "{at} is not compacted");
            false
        }
        Err(ReadError::Refused(Refusal::FutureRevision { .. })) => false,
        Err(other) => panic!("at revision {at}: {other}"),
    }
}

/// Every readable revision.
fn check_all(storage: &Storage, model: &RwLock<Model>) -> usize {
    let revisions: Vec<u64> = model.read().unwrap().at.keys().copied().collect();
    revisions.into_iter().filter(|at| check_at(storage, model, *at)).count()
}

/// Holds the leases and their keys against the model.
fn check_leases(storage: &Storage, expected: &Leases) {
    let found: Leases = storage
        .lease_ids()
        .into_iter()
        .map(|id| (id.0, storage.lease_keys(id).into_iter().collect()))
        .collect();
    assert_eq!(found, *expected);
}

struct Run {
    engine: EngineKind,
    dice: Dice,
    dir: tempfile::TempDir,
    env: Env,
    member: Member,
    model: Arc<RwLock<Model>>,
    holder: Arc<Holder>,
    /// States in which every revision was checked.
    seen: BTreeSet<DispatcherState>,
    checked: usize,
    drained_under_dumps: u64,
}

impl Run {
    async fn new(engine: EngineKind, seed: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let holder = Arc::new(Holder::default());
        let env = Env { faults: Faults::new(Arc::clone(&holder) as Arc<dyn Sabotage>), ..env() };
        let member = Member::open_in(&env, small(&dir, engine)).await;
        let model = Model {
            at: BTreeMap::from([(1, Arc::default())]),
            compacted: 0,
            leases: Leases::new(),
            granted_at: BTreeMap::new(),
            leases_at: Vec::new(),
        };
        let (model, dice) = (Arc::new(RwLock::new(model)), Dice(seed));
        let (seen, checked, drained_under_dumps) = (BTreeSet::new(), 0, 0);
        Self { engine, dice, dir, env, member, model, holder, seen, checked, drained_under_dumps }
    }

    /// Some commands, in the model and in the log; not waited for.
    async fn write(&mut self, count: u64, bytes: u64) {
        let mut commands = Vec::new();
        for _ in 0..count {
            // Seldom: they are small, and a dump is to have much written under it.
            let index = LogIndex(self.member.next + commands.len() as u64);
            commands.push(if self.dice.one_in(40) { self.lease_command(index) } else { self.command(bytes) });
            let mut model = self.model.write().unwrap();
            let leases = model.leases.clone();
            model.leases_at.push(leases);
        }
        drop(self.member.dispatch(commands).await);
    }

    fn command(&mut self, bytes: u64) -> Command {
        let dice = &mut self.dice;
        let mut model = self.model.write().unwrap();
        let value =
            |dice: &mut Dice| Bytes::from(format!("{}{}", dice.roll(1 << 40), "v".repeat(dice.size(bytes))));
        let newest = model.newest();
        match dice.roll(10) {
            9 if newest > model.compacted => {
                let revision = newest - dice.roll((newest - model.compacted).min(40));
                model.compact(revision);
                compact(revision)
            }
            0..=5 | 9.. => {
                let (key, value) = (key(dice.roll(KEYS)), value(dice));
                model.apply(&[(key.clone(), Some(value.clone()))]);
                put(std::str::from_utf8(&key).unwrap(), std::str::from_utf8(&value).unwrap())
            }
            6 | 7 => {
                let from = dice.roll(KEYS);
                let to = (from + 1 + dice.roll(3)).min(99);
                let changes: Vec<_> = (from..to).map(|n| (key(n), None)).collect();
                model.apply(&changes);
                let range = KeyRange { start: key(from), end: RangeEnd::Before(key(to)) };
                Command::DeleteRange(DeleteRange { range, prev_kv: false })
            }
            _ => {
                let keys: BTreeSet<u64> = (0..4).map(|_| dice.roll(KEYS)).collect();
                let mut changes: Vec<_> = keys.into_iter().map(|n| (key(n), Some(value(dice)))).collect();
                changes[0].1 = None;
                model.apply(&changes);
                let op = |(key, value): &(Bytes, Option<Bytes>)| match value {
                    Some(value) => Op::Put(put_op(
                        std::str::from_utf8(key).unwrap(),
                        std::str::from_utf8(value).unwrap(),
                    )),
                    None => {
                        let range = KeyRange { start: key.clone(), end: RangeEnd::Single };
                        Op::DeleteRange(DeleteRange { range, prev_kv: false })
                    }
                };
                let success = changes.iter().map(op).collect();
                Command::Txn(Txn { compares: Vec::new(), success, failure: Vec::new() })
            }
        }
    }

    /// Grants a lease, attaches a key to one, or ends some.
    fn lease_command(&mut self, index: LogIndex) -> Command {
        let dice = &mut self.dice;
        let mut model = self.model.write().unwrap();
        let id = i64::try_from(dice.roll(5)).unwrap() + 1;
        match dice.roll(3) {
            0 => {
                let is_new = !model.leases.contains_key(&id);
                model.leases.entry(id).or_default();
                if is_new {
                    model.granted_at.insert(id, index);
                }
                Command::LeaseGrant(LeaseGrant { id: LeaseId(id), ttl_seconds: 5 })
            }
            1 if model.leases.contains_key(&id) => {
                let key = key(dice.roll(KEYS));
                model.apply(&[(key.clone(), Some(Bytes::from_static(b"leased")))]);
                model.leases.get_mut(&id).unwrap().insert(key.clone());
                let put = put_op(std::str::from_utf8(&key).unwrap(), "leased");
                Command::Put(Put { lease: Some(LeaseId(id)), ..put })
            }
            _ => {
                let ids = [id, 6 - id];
                let keys: Vec<_> = ids.iter().filter_map(|id| model.leases.remove(id)).flatten().collect();
                let changes: Vec<_> = keys.into_iter().map(|key| (key, None)).collect();
                model.apply(&changes);
                let named = |id: i64| {
                    let granted_at = model.granted_at.get(&id).copied().unwrap_or(index);
                    LeaseRef { id: LeaseId(id), granted_at }
                };
                Command::LeaseExpire(LeaseExpire { term: Term(1), leases: ids.map(named).into() })
            }
        }
    }

    async fn caught_up(&mut self) {
        let last = log_id(self.member.next - 1);
        let mut visible = self.member.storage.visible();
        within(visible.wait_for(|v| v.log_id >= Some(last))).await.unwrap();
    }

    /// Checks all revisions in the state that the dispatcher is in now.
    fn check(&mut self) {
        check_leases(&self.member.storage, &self.model.read().unwrap().leases);
        let before = self.member.storage.status().state;
        self.checked += check_all(&self.member.storage, &self.model);
        if self.member.storage.status().state == before {
            self.seen.insert(before);
        }
    }

    /// Checks some revisions, the newest among them.
    fn check_some(&mut self) {
        let (lowest, newest) = {
            let model = self.model.read().unwrap();
            (model.compacted, model.newest())
        };
        for _ in 0..4 {
            let at = lowest + self.dice.roll(newest + 1 - lowest);
            self.checked += usize::from(check_at(&self.member.storage, &self.model, at));
        }
        self.checked += usize::from(check_at(&self.member.storage, &self.model, newest));
    }

    /// One dump, held at a random point or at none, with writes, checks, perhaps a cancel.
    async fn dump(&mut self) {
        let few = self.dice.roll(20);
        self.write(few, 400).await;
        let at = HELD_AT.get(self.dice.size(HELD_AT.len() as u64 + 2)).copied();
        self.holder.arm(at);
        let by_policy = self.dice.one_in(2);
        let asked = if by_policy {
            self.member.storage.start_dump_by_policy().await
        } else {
            Err(StorageError::Closed)
        };
        let dump = match asked {
            Ok(dump) => dump,
            Err(_) => within(self.member.storage.start_dump()).await.unwrap(),
        };
        let many = self.dice.roll(60);
        self.write(many, 1500).await;
        if self.dice.one_in(6) {
            self.member.storage.cancel_dump(CancelReason::Admin);
        }
        if at.is_some() {
            // A point may not come: the state is as new as the snapshot, the dump is cancelled, nothing is merged.
            let held = async {
                for _ in 0..10 {
                    if self.holder.is_held() {
                        return;
                    }
                    tokio::time::sleep(Duration::from_micros(300)).await;
                }
            };
            held.await;
        }
        self.caught_up().await;
        if self.dice.one_in(4) {
            self.check();
        } else {
            self.check_some();
        }
        self.holder.arm(None);
        let ended = within(dump).await;
        match ended {
            Ok(snapshot) if self.dice.one_in(4) => self.install_elsewhere(&snapshot).await,
            Ok(_) | Err(StorageError::DumpCancelled { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }

    /// A snapshot holds what the log held up to its position, and nothing else. The model may have been compacted
    /// since: what it still knows is compared.
    async fn install_elsewhere(&mut self, snapshot: &Snapshot) {
        let dir = tempfile::tempdir().unwrap();
        let other = Member::open(dir.path(), EngineKind::Memory).await;
        install(snapshot, &other.storage).await.unwrap();
        let newest = other.storage.visible().borrow().revision.get();
        for at in self.model.read().unwrap().compacted..=newest {
            check_at(&other.storage, &self.model, at);
        }
        let last = usize::try_from(snapshot.applied.log_id.unwrap().index().get()).unwrap();
        check_leases(&other.storage, &self.model.read().unwrap().leases_at[last]);
        let beyond = other.storage.range(&everything(newest + 1));
        assert!(matches!(beyond, Err(ReadError::Refused(Refusal::FutureRevision { .. }))));
        other.close().await;
    }

    async fn restart(&mut self) {
        self.member.drained().await;
        let aside = tempfile::tempdir().unwrap();
        let other = Member::open(aside.path(), EngineKind::Memory).await;
        std::mem::replace(&mut self.member, other).close().await;
        let reopened = Member::open_in(&self.env, small(&self.dir, self.engine)).await;
        std::mem::replace(&mut self.member, reopened).close().await;
        self.check();
    }
}

fn small(dir: &tempfile::TempDir, engine: EngineKind) -> StorageConfig {
    StorageConfig { memory_bytes: 256 << 10, ..config(dir.path(), engine) }
}

/// Ends the readers also when the test fails, which would else wait for them.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

async fn run(engine: EngineKind, seed: u64, dumps: u64) {
    let mut run = Run::new(engine, seed).await;
    let (stop, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let _stop_at_the_end = Stop(Arc::clone(&stop));
    let mut round = 0;
    while round < dumps {
        // Readers at random revisions, until the next restart.
        stop.store(false, Ordering::Relaxed);
        let (storage, model) = (run.member.storage.clone(), Arc::clone(&run.model));
        let (stopped, counted, mut dice) = (Arc::clone(&stop), Arc::clone(&reads), Dice(seed ^ (round + 1)));
        let reader = tokio::task::spawn_blocking(move || {
            while !stopped.load(Ordering::Relaxed) {
                let (lowest, newest) = {
                    let model = model.read().unwrap();
                    (model.compacted, model.newest())
                };
                let at = lowest + dice.roll(newest + 1 - lowest);
                counted.fetch_add(u64::from(check_at(&storage, &model, at)), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        for _ in 0..40.min(dumps - round) {
            run.dump().await;
            round += 1;
        }
        stop.store(true, Ordering::Relaxed);
        reader.await.unwrap_or_else(|error| panic!("seed {seed}, round {round}: {error}"));
        run.member.until("merged", |s| s.state == DispatcherState::Normal).await;
        run.check();
        let figures = run.member.storage.status().dispatch;
        run.drained_under_dumps += figures.pressure[1];
        if engine != EngineKind::Memory {
            run.restart().await;
        }
    }
    let expected = [DispatcherState::Normal, DispatcherState::Dumping, DispatcherState::Merging];
    assert_eq!(run.seen, BTreeSet::from(expected), "every revision was checked in every state");
    let (checked, reads) = (run.checked, reads.load(Ordering::Relaxed));
    assert!(checked as u64 > dumps * 5 && reads > dumps / 10, "{checked} checked, {reads} read");
    // How much is written while a dump is held depends on the machine: seldom enough in the shorter runs.
    assert!(dumps < 1000 || run.drained_under_dumps > 0, "some dumps had much written under them");
    run.member.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_random_dumps_equal_the_model_in_memory() {
    run(EngineKind::Memory, 0x5eed, 1000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_dumps_equal_the_model_on_redb() {
    run(EngineKind::Redb, 0xbead, 120).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_dumps_equal_the_model_on_sled() {
    run(EngineKind::Sled, 0xfeed, 80).await;
}
