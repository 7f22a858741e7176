//! Clients that write, read, delete and compact through any member.

use std::time::Duration;

use bytes::Bytes;
use holdfast_mvcc::command::{
    Command, Compact, Compare, DeleteRange, Op, OpResult, Operand, Put, Range, ReadAt, Refusal, Relation,
    Response, Txn,
};
use holdfast_mvcc::types::{KeyRange, LeaseId, RangeEnd, Revision};
use holdfast_raft::NodeError;
use holdfast_storage::ReadError;
use tokio::time::Instant;

use super::history::{Found, History, Read, Told, Write};
use super::life::Life;
use super::member::Machines;
use crate::world::SimRng;

/// How many registers the clients share: few, so that they collide.
const REGISTERS: u64 = 5;
/// How many further keys there are, which make the store larger.
const FILLERS: u64 = 200;
/// The budget of one operation.
const BUDGET: Duration = Duration::from_secs(2);
/// Upper end of the pause between two operations of a client, in milliseconds.
const PAUSE_MS_MAX: u64 = 40;
/// Bytes of a value that does not fit into one batch of the engine.
const HUGE_BYTES: usize = 1_300_000;
/// Bytes of a large value, at most.
const LARGE_BYTES_MAX: u64 = 12 * 1024;

/// One client: one operation after the other.
pub(super) struct Client {
    number: usize,
    operations: u64,
    rng: SimRng,
    machines: Machines,
    history: History,
}

impl Client {
    /// A client with its own random source.
    pub(super) fn new(number: usize, seed: u64, machines: Machines) -> Self {
        let history = machines.history().clone();
        Self { number, operations: 0, rng: SimRng::new(seed), machines, history }
    }

    /// Works until `end`.
    pub(super) async fn run_until(mut self, end: Instant) {
        while Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(self.rng.below(PAUSE_MS_MAX))).await;
            let target = self.rng.pick(&self.machines.taken());
            let Some(life) = self.machines.life(target) else { continue };
            match self.rng.below(100) {
                0..30 => self.put(&life).await,
                30..42 => self.swap(&life).await,
                42..50 => self.move_key(&life).await,
                50..57 => self.delete(&life).await,
                57..60 => self.compact(&life).await,
                60..85 => self.read(&life).await,
                _ => self.read_at(&life),
            }
        }
    }

    /// Writes until it is acknowledged, through one member.
    pub(super) async fn put_until_done(&mut self, life: &Life) -> bool {
        let key = self.key();
        let value = self.value(8);
        let command = Command::Put(put(key.clone(), value.clone()));
        self.write(life, vec![(key, value)], None, command).await
    }

    /// Writes a key of a lease.
    pub(super) async fn put_attached(&mut self, life: &Life, key: Bytes, lease: LeaseId) -> bool {
        let value = self.value(8);
        let command = Command::Put(Put { lease: Some(lease), ..put(key.clone(), value.clone()) });
        self.write(life, vec![(key, value)], None, command).await
    }

    /// Writes many keys at once, of about so many bytes each.
    pub(super) async fn burst(&mut self, life: &Life, count: u64, bytes: usize) {
        let writes: Vec<_> = (0..count)
            .map(|_| {
                let (key, value) = (self.filler(), self.value(bytes));
                let command = Command::Put(put(key.clone(), value.clone()));
                self.write(life, vec![(key, value)], None, command)
            })
            .collect();
        let mut writes: Vec<_> = writes.into_iter().map(Box::pin).collect();
        // In their order, all at once: each is polled until it is done.
        std::future::poll_fn(|context| {
            writes.retain_mut(|write| write.as_mut().poll(context).is_pending());
            if writes.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
    }

    /// Writes what takes more than one batch of the engine to commit: one value, or many that are applied together.
    pub(super) async fn put_huge(&mut self, life: &Life) {
        if self.machines.take_huge() {
            self.burst(life, 1, HUGE_BYTES).await;
        } else {
            self.burst(life, 100, 24 * 1024).await;
        }
    }

    /// Compacts at a revision.
    pub(super) async fn compact_at(&self, life: &Life, revision: u64) -> bool {
        self.history.compacting(revision);
        let command = Command::Compact(Compact { revision: i64::try_from(revision).unwrap_or(i64::MAX) });
        let answer = life.until_crash(life.node.propose(command, BUDGET)).await;
        self.history.trace((
            "compact",
            revision,
            answer.as_ref().map(|a| a.as_ref().map(|a| a.log_id.index())),
        ));
        self.history.count(|report| report.compactions += 1);
        matches!(answer, Some(Ok(_)))
    }

    fn register(&self) -> Bytes {
        Bytes::from(format!("register-{}", self.rng.below(REGISTERS)))
    }

    fn filler(&self) -> Bytes {
        Bytes::from(format!("filler-{:03}", self.rng.below(FILLERS)))
    }

    fn key(&self) -> Bytes {
        if self.rng.one_in(2) { self.register() } else { self.filler() }
    }

    /// A value that nobody else writes, of at least so many bytes.
    fn value(&mut self, bytes: usize) -> Bytes {
        self.operations += 1;
        let mut value = format!("{}-{}.", self.number, self.operations).into_bytes();
        while value.len() < bytes {
            // Not all alike, so that snapshots are about as large as what is in them.
            value.extend_from_slice(&self.rng.below(u64::MAX).to_le_bytes());
        }
        Bytes::from(value)
    }

    fn usual_value(&mut self) -> Bytes {
        let bytes = match self.rng.below(400) {
            0..300 => 10,
            399 if self.machines.take_huge() => HUGE_BYTES as u64,
            _ => self.rng.below(LARGE_BYTES_MAX),
        };
        self.value(usize::try_from(bytes).unwrap_or_default())
    }

    async fn put(&mut self, life: &Life) {
        let (key, value) = (self.key(), self.usual_value());
        let command = Command::Put(put(key.clone(), value.clone()));
        self.write(life, vec![(key, value)], None, command).await;
    }

    /// Puts only when the register still is as a local, possibly stale read shows it.
    async fn swap(&mut self, life: &Life) {
        let key = self.register();
        let Ok((seen, _)) = life.storage.range(&range(single(&key), ReadAt::Latest)) else { return };
        let seen = seen.kvs.first().map_or(0, |kv| i64::try_from(kv.mod_revision.get()).unwrap_or(i64::MAX));
        let value = self.value(8);
        let compare = Compare { range: single(&key), relation: Relation::Equal, operand: Operand::Mod(seen) };
        let success = vec![Op::Put(put(key.clone(), value.clone()))];
        let command = Command::Txn(Txn { compares: vec![compare], success, failure: Vec::new() });
        self.write(life, vec![(key, value)], None, command).await;
    }

    /// Two puts and a delete, all or nothing.
    async fn move_key(&mut self, life: &Life) {
        let (key, other) = (self.register(), self.filler());
        let (value, large) = (self.value(8), self.usual_value());
        let gone = loop {
            let gone = self.filler();
            if gone != other {
                break gone;
            }
        };
        let success = vec![
            Op::Put(put(key.clone(), value.clone())),
            Op::DeleteRange(DeleteRange { range: single(&gone), prev_kv: false }),
            Op::Put(put(other.clone(), large.clone())),
        ];
        let command = Command::Txn(Txn { compares: Vec::new(), success, failure: Vec::new() });
        self.write(life, vec![(key, value), (other, large)], Some(single(&gone)), command).await;
    }

    async fn delete(&mut self, life: &Life) {
        let range = match self.rng.below(4) {
            0 => single(&self.register()),
            1 => {
                let start = self.filler();
                let end = Bytes::from(format!("filler-{:03}", self.rng.below(FILLERS)));
                KeyRange { start, end: RangeEnd::Before(end) }
            }
            _ => single(&self.filler()),
        };
        let command = Command::DeleteRange(DeleteRange { range: range.clone(), prev_kv: false });
        self.write(life, Vec::new(), Some(range), command).await;
    }

    async fn compact(&self, life: &Life) {
        let known = self.history.known();
        self.compact_at(life, known.saturating_sub(self.rng.below(60))).await;
    }

    /// Proposes, and records what was told. True when it happened.
    fn write(
        &self,
        life: &Life,
        puts: Vec<(Bytes, Bytes)>,
        delete: Option<KeyRange>,
        command: Command,
    ) -> impl Future<Output = bool> + use<> {
        let (life, history) = (life.clone(), self.history.clone());
        async move {
            let known_before = history.known();
            let answer = life.until_crash(life.node.propose(command, BUDGET)).await;
            let mut deleted = 0;
            let told = match answer {
                Some(Ok(answer)) => match answer.outcome.response {
                    Ok(Response::Txn(txn)) if !txn.succeeded => Told::Refused,
                    Ok(response) => {
                        deleted = deleted_by(&response);
                        Told::Done(answer.outcome.revision.get())
                    }
                    Err(_) => Told::Refused,
                },
                None | Some(Err(NodeError::TimedOut(_) | NodeError::ApplyTimedOut | NodeError::Stopped)) => {
                    Told::Unknown
                }
                Some(Err(NodeError::NoSpace)) => {
                    history.count(|report| report.refused_no_space += 1);
                    Told::Refused
                }
                Some(Err(_)) => Told::Refused,
            };
            history.wrote(Write { puts, delete, deleted, known_before, told });
            matches!(told, Told::Done(_))
        }
    }

    /// A linearizable read of a register, or of everything.
    async fn read(&self, life: &Life) {
        let known_before = self.history.known();
        let range = if self.rng.one_in(6) { everything() } else { single(&self.register()) };
        let confirmed = life.until_crash(life.node.linearize(BUDGET)).await;
        if matches!(confirmed, Some(Ok(_))) && life.is_alive() {
            self.read_here(life, range, ReadAt::Latest, known_before);
        }
    }

    /// A read of whatever the member has, as of an earlier revision.
    fn read_at(&self, life: &Life) {
        let newest = life.storage.visible().borrow().revision.get();
        let revision = newest.saturating_sub(self.rng.below(80)).max(1);
        let range = if self.rng.one_in(4) { everything() } else { single(&self.key()) };
        self.read_here(life, range, ReadAt::Revision(Revision::new(revision)), 0);
    }

    fn read_here(&self, life: &Life, keys: KeyRange, at: ReadAt, known_before: u64) {
        let (answer, newest) = match life.storage.range(&range(keys.clone(), at)) {
            Ok(answer) => answer,
            Err(ReadError::Refused(Refusal::Compacted { compact_revision, .. })) => {
                return self.history.told_compacted(compact_revision.get());
            }
            Err(error) => return self.history.violate(format!("a read failed: {error}")),
        };
        let found: Vec<Found> = answer
            .kvs
            .into_iter()
            .map(|kv| Found { key: kv.key, value: kv.value, mod_revision: kv.mod_revision.get() })
            .collect();
        if answer.count != found.len() as u64 {
            self.history.violate(format!("{} keys were counted, {} read", answer.count, found.len()));
        }
        let revision = match at {
            ReadAt::Latest => newest.get(),
            ReadAt::Revision(revision) => revision.get(),
        };
        self.history.read(Read { range: keys, known_before, revision, found });
    }

    /// Reads all of a member's state, for the final comparison.
    pub(super) fn read_all(&self, life: &Life) {
        self.read_here(life, everything(), ReadAt::Latest, self.history.known());
    }
}

fn deleted_by(response: &Response) -> u64 {
    match response {
        Response::DeleteRange(delete) => delete.deleted,
        Response::Txn(txn) => txn
            .responses
            .iter()
            .map(|op| match &op.result {
                OpResult::DeleteRange(delete) => delete.deleted,
                _ => 0,
            })
            .sum(),
        _ => 0,
    }
}

fn put(key: Bytes, value: Bytes) -> Put {
    Put { key, value, lease: None, prev_kv: false, ignore_value: false, ignore_lease: false }
}

fn single(key: &Bytes) -> KeyRange {
    KeyRange { start: key.clone(), end: RangeEnd::Single }
}

fn everything() -> KeyRange {
    KeyRange { start: Bytes::from_static(&[0]), end: RangeEnd::Unbounded }
}

fn range(range: KeyRange, at: ReadAt) -> Range {
    Range { at, ..Range::of(range) }
}
