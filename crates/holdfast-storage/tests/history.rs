//! `changes` and `previous` against a naive list, in every state of the dispatcher, over restarts and installs; and
//! what the event sink hears meanwhile.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::collections::BTreeMap;

use bytes::Bytes;
use common::*;
use holdfast_mvcc::command::*;
use holdfast_mvcc::types::{Change, KeyRange, KeyValue, RangeEnd, Record, Revision};
use holdfast_storage::*;
use proptest::prelude::*;

/// What a client may do here.
#[derive(Debug, Clone)]
enum Act {
    Put(u8, u16),
    Delete(u8, u8),
    /// Puts these keys, each once, and deletes one that is not among them.
    Many(Vec<u8>, u8),
    /// Compacts so far behind the newest revision.
    Compact(u64),
}

#[derive(Debug, Clone)]
enum Step {
    Act(Vec<Act>),
    /// The stable store has caught up.
    Drain,
    Scrub,
    Dump,
    /// These happen while a dump writes.
    DuringDump(Vec<Act>),
    /// So many entries are read again that are contained already.
    Restart(u64),
    /// A snapshot goes to a member that knows this share of the log, in percent.
    Install(usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => (0..10_u8, 0..3000_u16).prop_map(|(key, bytes)| Act::Put(key, bytes)),
        2 => (0..10_u8, 1..4_u8).prop_map(|(from, keys)| Act::Delete(from, keys)),
        2 => (proptest::collection::vec(0..10_u8, 1..6), 0..10_u8).prop_map(|(puts, gone)| Act::Many(puts, gone)),
        1 => (0..20_u64).prop_map(Act::Compact),
    ]
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    proptest::collection::vec(act(), 1..40)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => acts().prop_map(Step::Act),
        1 => Just(Step::Drain),
        2 => Just(Step::Scrub),
        1 => Just(Step::Dump),
        2 => acts().prop_map(Step::DuringDump),
        1 => (0..6_u64).prop_map(Step::Restart),
        1 => (0..100_usize).prop_map(Step::Install),
    ]
}

fn engine() -> impl Strategy<Value = EngineKind> {
    prop_oneof![Just(EngineKind::Sled), Just(EngineKind::Redb), Just(EngineKind::Memory)]
}

/// One change, with what was there before.
#[derive(Debug, Clone, PartialEq)]
struct Happened {
    revision: u64,
    sub: u32,
    now: Option<KeyValue>,
    key: Bytes,
    before: Option<KeyValue>,
}

/// Everything that ever happened, and the keys as they are.
#[derive(Default)]
struct Naive {
    keys: BTreeMap<Bytes, KeyValue>,
    list: Vec<Happened>,
    commands: u64,
    revision: u64,
    compact_revision: Option<u64>,
}

fn key(number: u8) -> Bytes {
    Bytes::from(format!("key/{number}"))
}

impl Naive {
    fn new() -> Self {
        Self { revision: 1, ..Self::default() }
    }

    fn change(&mut self, sub: &mut u32, key: &Bytes, value: Option<String>) {
        let revision = self.revision + 1;
        let before = self.keys.get(key).cloned();
        let now = value.map(|value| KeyValue {
            key: key.clone(),
            create_revision: before.as_ref().map_or(Revision::new(revision), |kv| kv.create_revision),
            mod_revision: Revision::new(revision),
            version: before.as_ref().map_or(1, |kv| kv.version + 1),
            lease: None,
            value: value.into(),
        });
        match &now {
            Some(kv) => drop(self.keys.insert(key.clone(), kv.clone())),
            None => drop(self.keys.remove(key)),
        }
        self.list.push(Happened { revision, sub: *sub, now, key: key.clone(), before });
        *sub += 1;
    }

    fn delete(&mut self, sub: &mut u32, range: std::ops::Range<Bytes>) {
        let keys: Vec<Bytes> = self.keys.range(range).map(|(key, _)| key.clone()).collect();
        keys.iter().for_each(|key| self.change(sub, key, None));
    }

    /// Does it, and says which command does the same.
    fn act(&mut self, act: &Act) -> Command {
        self.commands += 1;
        let value = |bytes: usize, n: u64| format!("{n}{}", "v".repeat(bytes));
        let mut sub = 0;
        let command = match act {
            Act::Put(number, bytes) => {
                let value = value(usize::from(*bytes), self.commands);
                self.change(&mut sub, &key(*number), Some(value.clone()));
                put(std::str::from_utf8(&key(*number)).unwrap(), &value)
            }
            Act::Delete(from, keys) => {
                let (start, end) = (key(*from), key((from + keys).min(9)));
                if start < end {
                    self.delete(&mut sub, start.clone()..end.clone());
                }
                let range = KeyRange { start, end: RangeEnd::Before(end) };
                Command::DeleteRange(DeleteRange { range, prev_kv: false })
            }
            Act::Many(puts, gone) => self.many(&mut sub, puts, *gone),
            Act::Compact(back) => {
                let revision = self.revision.saturating_sub(*back);
                if self.compact_revision.is_none_or(|before| before < revision) {
                    self.compact_revision = Some(revision);
                }
                compact(revision)
            }
        };
        self.revision += u64::from(sub > 0);
        command
    }

    fn many(&mut self, sub: &mut u32, puts: &[u8], gone: u8) -> Command {
        let mut puts = puts.to_vec();
        puts.sort_unstable();
        puts.dedup();
        puts.retain(|&number| number != gone);
        let mut success = Vec::new();
        for number in puts {
            let value = self.commands.to_string();
            success.push(Op::Put(put_op(std::str::from_utf8(&key(number)).unwrap(), &value)));
            self.change(sub, &key(number), Some(value));
        }
        let range = KeyRange { start: key(gone), end: RangeEnd::Single };
        success.push(Op::DeleteRange(DeleteRange { range, prev_kv: false }));
        if self.keys.contains_key(&key(gone)) {
            self.change(sub, &key(gone), None);
        }
        Command::Txn(Txn { compares: Vec::new(), success, failure: Vec::new() })
    }

    fn from(&self, revision: u64) -> Vec<Happened> {
        self.list.iter().filter(|happened| happened.revision >= revision).cloned().collect()
    }

    /// What a reader is told of the time before a change: what is compacted now is gone.
    fn before(&self, happened: &Happened) -> Option<KeyValue> {
        let is_readable = self.compact_revision.is_none_or(|compact| happened.revision > compact);
        happened.before.clone().filter(|_| is_readable)
    }
}

fn is_told(record: &Record, happened: &Happened) -> bool {
    let change = match (&record.change, &happened.now) {
        (Change::Put(put), Some(kv)) => {
            (put.create_revision, put.version, &put.value) == (kv.create_revision, kv.version, &kv.value)
        }
        (Change::Delete, None) => true,
        _ => false,
    };
    let id = (record.id.revision.get(), record.id.sub);
    change && id == (happened.revision, happened.sub) && record.key == happened.key
}

/// Reads everything from a revision on, in slices, and holds it against the list.
fn check_from(member: &Member, naive: &Naive, from: u64, max: ChangesMax) {
    let mut expected = naive.from(from).into_iter();
    let mut next = from;
    while next <= naive.revision {
        let found = member.storage.changes(Revision::new(next), max).unwrap();
        assert_eq!(found.newest.get(), naive.revision);
        assert!(found.through.get() >= next, "a slice has at least one revision");
        let before = member.storage.previous(&found.records).unwrap();
        for (record, before) in found.records.iter().zip(before) {
            let happened = expected.next().unwrap_or_else(|| panic!("nothing like {record:?} ever happened"));
            assert!(is_told(record, &happened), "from {from} at {next}: {record:?} is not {happened:?}");
            assert_eq!(before, naive.before(&happened), "before {record:?}");
            if let Some(hot) = member.storage.previous_if_hot(record) {
                assert_eq!(hot, before, "hot, before {record:?}");
            }
        }
        let revisions: std::collections::BTreeSet<_> = found.records.iter().map(|r| r.id.revision).collect();
        assert!(revisions.len() <= max.revisions.max(1));
        next = found.through.get() + 1;
    }
    assert_eq!(next, naive.revision + 1);
    assert_eq!(expected.next(), None, "from {from}");
}

fn check(member: &Member, naive: &Naive, some: u64) {
    let lowest = naive.compact_revision.unwrap_or(0);
    let span = naive.revision + 1 - lowest;
    let few = ChangesMax { revisions: 1 + usize::try_from(some % 7).unwrap(), bytes: 40_000 };
    let all = ChangesMax { revisions: usize::MAX, bytes: usize::MAX };
    check_from(member, naive, lowest, few);
    check_from(member, naive, lowest, all);
    check_from(member, naive, lowest + some % span, ChangesMax { revisions: 100, bytes: 5_000 });
    check_from(member, naive, naive.revision, few);
    let future = member.storage.changes(Revision::new(naive.revision + 3), all).unwrap();
    assert_eq!((future.records.len(), future.through.get()), (0, naive.revision + 2));
    if lowest > 0 {
        let refused = member.storage.changes(Revision::new(lowest - 1), all);
        assert!(matches!(refused, Err(ReadError::Refused(Refusal::Compacted { .. }))), "{refused:?}");
    }
}

/// A member with its log and where to look what should be there.
struct World {
    dirs: Vec<tempfile::TempDir>,
    engine: EngineKind,
    member: Member,
    gate: std::sync::Arc<Gate>,
    log: Vec<Command>,
    naive: Naive,
    /// The revision that was visible at the open.
    opened_at: u64,
}

async fn open(dir: &std::path::Path, engine: EngineKind) -> (Member, std::sync::Arc<Gate>) {
    let (env, gate) = gated_env("dump-");
    // The ring holds 16 KiB: most tests leave it.
    let small = StorageConfig { memory_bytes: 128 << 10, ..config(dir, engine) };
    (Member::open_in(&env, small).await, gate)
}

impl World {
    async fn new(engine: EngineKind) -> Self {
        let dirs = vec![tempfile::tempdir().unwrap()];
        let (member, gate) = open(dirs[0].path(), engine).await;
        Self { dirs, engine, member, gate, log: Vec::new(), naive: Naive::new(), opened_at: 1 }
    }

    async fn act(&mut self, acts: &[Act]) {
        for act in acts {
            self.log.push(self.naive.act(act));
        }
        self.feed().await;
    }

    /// Dispatches what is missing of the log, and waits until it is visible.
    async fn feed(&mut self) {
        feed(&mut self.member, &self.log).await;
    }

    async fn step(&mut self, step: &Step, some: u64) {
        match step {
            Step::Act(acts) => self.act(acts).await,
            Step::Drain => self.member.drained().await,
            Step::Scrub => {
                let compact_revision = Revision::new(self.naive.compact_revision.unwrap_or(0));
                within(self.member.storage.scrubbed(compact_revision)).await.unwrap();
            }
            Step::Dump => drop(self.member.dump().await),
            Step::DuringDump(acts) => {
                self.gate.close();
                let done = within(self.member.storage.start_dump()).await.unwrap();
                // More would wait for room that only the end of the dump makes.
                self.act(&acts[..acts.len().min(10)]).await;
                check(&self.member, &self.naive, some);
                self.gate.open();
                within(done).await.unwrap();
            }
            Step::Restart(back) => {
                self.check_events();
                let dir = self.dirs.last().unwrap().path().to_owned();
                let (member, gate) = (self.member.storage.clone(), std::sync::Arc::clone(&self.gate));
                gate.open();
                within(member.shutdown()).await;
                drop(member);
                let (aside, _) = open(tempfile::tempdir().unwrap().path(), EngineKind::Memory).await;
                drop(std::mem::replace(&mut self.member, aside));
                (self.member, self.gate) = open(&dir, self.engine).await;
                self.opened_at = self.member.storage.visible().borrow().revision.get();
                self.member.next = self.member.next.saturating_sub(*back);
                self.feed().await;
            }
            Step::Install(percent) => self.install(*percent).await,
        }
    }

    async fn install(&mut self, percent: usize) {
        self.check_events();
        let snapshot = self.member.dump().await;
        let dir = tempfile::tempdir().unwrap();
        let (mut behind, gate) = open(dir.path(), self.engine).await;
        feed(&mut behind, &self.log[..self.log.len() * percent / 100]).await;
        install(&snapshot, &behind.storage).await.unwrap();
        behind.next = self.member.next;
        self.dirs.push(dir);
        self.gate = gate;
        self.opened_at = 1;
        std::mem::replace(&mut self.member, behind).close().await;
    }

    /// What was published: from the visible revision at the open on, each revision once, and none left out but those
    /// an install has replaced.
    fn check_events(&self) -> u64 {
        let mut last = self.opened_at;
        for (records, revision) in self.member.events.0.lock().unwrap().iter() {
            if records.is_empty() {
                last = revision.get();
                continue;
            }
            let happened = self.naive.from(last + 1);
            assert!(records.len() <= happened.len());
            for (record, happened) in records.iter().zip(&happened) {
                assert!(is_told(record, happened), "published {record:?}, not {happened:?}");
            }
            last = records.last().unwrap().id.revision.get();
            assert_eq!(last, revision.get());
            let is_whole = happened.get(records.len()).is_none_or(|next| next.revision > last);
            assert!(is_whole, "a revision is never cut");
        }
        last
    }
}

async fn feed(member: &mut Member, log: &[Command]) {
    let next = usize::try_from(member.next).unwrap();
    if next < log.len() {
        drop(member.dispatch(log[next..].to_vec()).await);
        let last = log_id(log.len() as u64 - 1);
        let mut visible = member.storage.visible();
        within(visible.wait_for(|v| v.log_id >= Some(last))).await.unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn changes_are_those_of_a_naive_list(
        steps in proptest::collection::vec((step(), any::<u64>()), 1..14),
        engine in engine(),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new(engine).await;
            for (step, some) in &steps {
                world.step(step, *some).await;
                check(&world.member, &world.naive, *some);
            }
            world.member.drained().await;
            assert_eq!(world.check_events(), world.naive.revision, "all is published");
            world.member.close().await;
        });
    }
}
