//! Clients that write and read registers through any member.

use std::time::Duration;

use bytes::Bytes;
use holdfast_mvcc::command::{
    Command, Compare, Op, Operand, Put, Range, ReadAt, Relation, Response, SortOrder, SortTarget, Txn,
};
use holdfast_mvcc::types::{KeyRange, RangeEnd, Revision};
use holdfast_raft::NodeError;
use tokio::time::Instant;

use crate::cluster::history::{History, Read, Told, Write};
use crate::cluster::member::{Life, MEMBERS, Machines};
use crate::world::SimRng;

/// How many registers the clients share: few, so that they collide.
const REGISTERS: u64 = 5;
/// The budget of one operation.
const BUDGET: Duration = Duration::from_secs(2);
/// Upper end of the pause between two operations of a client, in milliseconds.
const PAUSE_MS_MAX: u64 = 40;

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
    pub(super) fn new(number: usize, seed: u64, machines: Machines, history: History) -> Self {
        Self { number, operations: 0, rng: SimRng::new(seed), machines, history }
    }

    /// Works until `end`.
    pub(super) async fn run_until(mut self, end: Instant) {
        while Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(self.rng.below(PAUSE_MS_MAX))).await;
            let target = usize::try_from(self.rng.below(MEMBERS as u64)).unwrap_or_default();
            let Some(life) = self.machines.life(target) else { continue };
            let key = Bytes::from(format!("register-{}", self.rng.below(REGISTERS)));
            self.operations += 1;
            match self.rng.below(10) {
                0..5 => self.put(&life, key).await,
                5..7 => self.swap(&life, key).await,
                _ => self.read(&life, key).await,
            }
        }
    }

    fn value(&self) -> Bytes {
        Bytes::from(format!("{}-{}", self.number, self.operations))
    }

    async fn put(&self, life: &Life, key: Bytes) {
        let value = self.value();
        let command = Command::Put(put(key.clone(), value.clone()));
        self.write(life, key, value, command).await;
    }

    /// Puts only when the register still is as a local, possibly stale read shows it.
    async fn swap(&self, life: &Life, key: Bytes) {
        let Ok((seen, _)) = life.storage.range(&range(&key)) else { return };
        let seen = seen.kvs.first().map_or(0, |kv| i64::try_from(kv.mod_revision.get()).unwrap_or(i64::MAX));
        let value = self.value();
        let compare = Compare { range: single(&key), relation: Relation::Equal, operand: Operand::Mod(seen) };
        let success = vec![Op::Put(put(key.clone(), value.clone()))];
        let command = Command::Txn(Txn { compares: vec![compare], success, failure: Vec::new() });
        self.write(life, key, value, command).await;
    }

    async fn write(&self, life: &Life, key: Bytes, value: Bytes, command: Command) {
        let known_before = self.history.known();
        let told = match life.node.propose(command, BUDGET).await {
            Ok(answer) => match answer.outcome.response {
                Ok(Response::Txn(txn)) if !txn.succeeded => Told::Refused,
                Ok(_) => Told::Done(answer.outcome.revision.get()),
                Err(_) => Told::Refused,
            },
            Err(NodeError::TimedOut(_) | NodeError::ApplyTimedOut | NodeError::Stopped) => Told::Unknown,
            Err(_) => Told::Refused,
        };
        self.history.wrote(Write { key, value, known_before, told });
    }

    async fn read(&self, life: &Life, key: Bytes) {
        let known_before = self.history.known();
        if life.node.linearize(BUDGET).await.is_err() {
            return;
        }
        let Ok((answer, revision)) = life.storage.range(&range(&key)) else { return };
        let found = answer.kvs.first().map(|kv| (kv.value.clone(), kv.mod_revision.get()));
        self.history.read(Read { key, known_before, revision: revision.get(), found });
    }
}

fn put(key: Bytes, value: Bytes) -> Put {
    Put { key, value, lease: None, prev_kv: false, ignore_value: false, ignore_lease: false }
}

fn single(key: &Bytes) -> KeyRange {
    KeyRange { start: key.clone(), end: RangeEnd::Single }
}

fn range(key: &Bytes) -> Range {
    Range {
        range: single(key),
        limit: None,
        at: ReadAt::Latest,
        order: SortOrder::None,
        target: SortTarget::Key,
        keys_only: false,
        count_only: false,
        min_mod_revision: Revision::NONE,
        max_mod_revision: Revision::NONE,
        min_create_revision: Revision::NONE,
        max_create_revision: Revision::NONE,
    }
}
