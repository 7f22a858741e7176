//! Evaluation: how a command changes the state and what it answers.
//!
//! A command runs in three steps: choose the branches (compares see the state before), check everything that could be
//! refused, then write. Nothing is refused after the first write. Writes go straight into the index, under the revision
//! after the current one; the head moves when the command is done, if anything was written.

use bytes::Bytes;

use crate::auth::Caller;
use crate::command::{
    AlarmKind, Command, Compact, DeleteRange, DeleteRangeResponse, LEASES_MAX, LeaseCheckpoint, LeaseExpire,
    LeaseGrant, Op, OpResponse, OpResult, Outcome, Put, PutResponse, Range, RangeResponse, ReadAt, Refusal,
    Response, Txn, TxnResponse,
};
use crate::lease::check_term;
use crate::range::{RangeSource, fetch_one, for_each_key, range};
use crate::state::{IndexChunk, PutMeta, State, Values};
use crate::txn::{choose_branches, for_each_op};
use crate::types::{
    Change, EntryId, KeyRange, KeyValue, LeaseChange, LeaseId, PutRecord, Record, RecordId, Revision, Term,
};

impl State {
    /// As [`State::evaluate_for`], for the members themselves.
    pub fn evaluate<V: Values>(
        &mut self,
        entry: EntryId,
        command: &Command,
        values: &mut V,
    ) -> Result<Outcome, V::Error> {
        self.evaluate_for(&Caller::Server, entry, command, values)
    }

    /// Evaluates a command and changes the state. All the randomness, time and I/O it may depend on is in the command
    /// and in `values`; `entry` is the log entry it came in, and `caller` who wants it. The command has passed
    /// [`validate`](crate::validate::validate()).
    pub fn evaluate_for<V: Values>(
        &mut self,
        caller: &Caller,
        entry: EntryId,
        command: &Command,
        values: &mut V,
    ) -> Result<Outcome, V::Error> {
        let permitted = self.permits(caller, command).map_err(Refusal::Auth);
        if let Some(refusal) = permitted.err().or_else(|| self.alarmed(command)) {
            return Ok(Outcome {
                response: Err(refusal),
                records: Vec::new(),
                leases: Vec::new(),
                revision: self.head().revision,
            });
        }
        let mut execution = Execution::new(self, values);
        let response = match command {
            Command::Put(put) => execution.run_put(put)?.map(Response::Put),
            Command::DeleteRange(delete) => Ok(Response::DeleteRange(execution.delete(delete)?)),
            Command::Txn(txn) => execution.run_txn(txn)?.map(Response::Txn),
            Command::Compact(compact) => execution.state.run_compact(*compact).map(|()| Response::Compact),
            Command::PublishMember(attributes) => {
                execution.state.publish(attributes);
                Ok(Response::PublishMember)
            }
            Command::RaiseAlarm(alarm) => {
                execution.state.raise(*alarm);
                Ok(Response::Alarm(Some(*alarm)))
            }
            Command::ClearAlarm(alarm) => {
                let was_active = execution.state.clear(*alarm);
                Ok(Response::Alarm(was_active.then_some(*alarm)))
            }
            Command::LeaseGrant(grant) => execution.grant(*grant, entry),
            Command::LeaseRevoke(lease) => execution.revoke(*lease),
            Command::LeaseExpire(expire) => execution.expire(expire, entry.term),
            Command::LeaseCheckpoint(checkpoint) => execution.checkpoint(checkpoint, entry.term),
            Command::Auth(change) => {
                execution.state.change_auth(change).map(|()| Response::Auth).map_err(Refusal::Auth)
            }
        };
        let Execution { records, leases, .. } = execution;
        assert!(response.is_ok() || (records.is_empty() && leases.is_empty()), "a refusal changes nothing");
        if !records.is_empty() {
            self.advance();
        }
        Ok(Outcome { response, records, leases, revision: self.head().revision })
    }

    /// Why an active alarm forbids a command.
    fn alarmed(&self, command: &Command) -> Option<Refusal> {
        let (changes_data, needs_space) = match command {
            Command::Put(_) => (true, true),
            Command::Txn(txn) => (true, contains_put(txn)),
            Command::LeaseGrant(_) => (true, true),
            Command::DeleteRange(_)
            | Command::Compact(_)
            | Command::LeaseRevoke(_)
            | Command::LeaseExpire(_) => (true, false),
            Command::PublishMember(_)
            | Command::RaiseAlarm(_)
            | Command::ClearAlarm(_)
            | Command::LeaseCheckpoint(_)
            | Command::Auth(_) => (false, false),
        };
        if changes_data && self.is_alarmed(AlarmKind::Corrupt) {
            return Some(Refusal::Corrupt);
        }
        (needs_space && self.is_alarmed(AlarmKind::NoSpace)).then_some(Refusal::NoSpace)
    }

    fn run_compact(&mut self, compact: Compact) -> Result<(), Refusal> {
        let requested = compact.revision;
        let head = self.head();
        // A store that was never compacted stands at -1 here, so that 0 is accepted once.
        let last = head.compact_revision.map_or(-1, |last| i64::try_from(last.get()).unwrap_or(i64::MAX));
        let revision = match u64::try_from(requested) {
            Ok(revision) if requested > last => Revision::new(revision),
            _ => {
                let compact_revision = head.compact_revision.unwrap_or(Revision::NONE);
                return Err(Refusal::Compacted { requested, compact_revision });
            }
        };
        if revision > head.revision {
            return Err(Refusal::FutureRevision { requested, current: head.revision });
        }
        self.compact(revision);
        Ok(())
    }
}

/// True when a branch of the transaction, whichever runs, may put.
fn contains_put(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match op {
        Op::Put(_) => true,
        Op::Txn(nested) => contains_put(nested),
        Op::Range(_) | Op::DeleteRange(_) | Op::Unset => false,
    })
}

/// One command on its way.
struct Execution<'a, V> {
    state: &'a mut State,
    values: &'a mut V,
    /// The revision before the command.
    begin: Revision,
    /// What was written so far; a record's place is its `sub`.
    records: Vec<Record>,
    /// What became of leases so far.
    leases: Vec<LeaseChange>,
}

impl<'a, V: Values> Execution<'a, V> {
    fn new(state: &'a mut State, values: &'a mut V) -> Self {
        let begin = state.head().revision;
        Self { state, values, begin, records: Vec::new(), leases: Vec::new() }
    }

    /// The revision that a read sees here: moved as soon as something was written.
    fn revision(&self) -> Revision {
        if self.records.is_empty() { self.begin } else { self.begin.next() }
    }

    fn view(&mut self) -> View<'_, V> {
        View { state: self.state, values: self.values, begin: self.begin, staged: &self.records }
    }

    fn run_put(&mut self, put: &Put) -> Result<Result<PutResponse, Refusal>, V::Error> {
        if let Err(refusal) = self.check_lease(put).and_then(|()| self.check_kept(put)) {
            return Ok(Err(refusal));
        }
        self.put(put).map(Ok)
    }

    /// A lease that is named has to exist.
    fn check_lease(&self, put: &Put) -> Result<(), Refusal> {
        match put.lease {
            Some(lease) if !self.state.leases.contains(lease) => Err(Refusal::LeaseNotFound { lease }),
            Some(_) | None => Ok(()),
        }
    }

    fn check_kept(&self, put: &Put) -> Result<(), Refusal> {
        let is_refused = (put.ignore_value || put.ignore_lease) && self.state.index.live(&put.key).is_none();
        if is_refused { Err(Refusal::KeyNotFound) } else { Ok(()) }
    }

    fn put(&mut self, put: &Put) -> Result<PutResponse, V::Error> {
        // Most puts ask for nothing old: they look their key up once, when they are written.
        let wants_old = put.prev_kv || put.ignore_value;
        let before = if wants_old { self.state.index.live(&put.key) } else { None };
        let old = match before {
            Some((id, _)) => Some(self.view().record(&put.key, id)?),
            None => None,
        };
        let prev_kv = match (before, &old) {
            (Some((id, _)), Some(old)) if put.prev_kv => Some(KeyValue {
                key: put.key.clone(),
                create_revision: old.create_revision,
                mod_revision: id.revision,
                version: old.version,
                lease: old.lease,
                value: old.value.clone(),
            }),
            _ => None,
        };
        // The checks found the key to keep the value of, and validation refuses to delete it in the same transaction.
        let kept = old.map(|old| old.value).unwrap_or_default();
        let lease = if put.ignore_lease { self.state.index.lease(&put.key) } else { put.lease };
        let value = if put.ignore_value { kept } else { put.value.clone() };
        self.write_put(put.key.clone(), lease, value);
        Ok(PutResponse { prev_kv })
    }

    fn delete(&mut self, delete: &DeleteRange) -> Result<DeleteRangeResponse, V::Error> {
        let at = self.revision();
        let mut keys = Vec::new();
        let mut answer = DeleteRangeResponse::default();
        for_each_key(&mut self.view(), &delete.range, at, |source, key| {
            keys.push(key.key.clone());
            if delete.prev_kv {
                answer.prev_kvs.push(fetch_one(source, key, false)?);
            }
            Ok(())
        })?;
        answer.deleted = keys.len() as u64;
        for key in keys {
            self.write_tombstone(key);
        }
        Ok(answer)
    }

    fn grant(&mut self, grant: LeaseGrant, entry: EntryId) -> Result<Response, Refusal> {
        let change = self.state.grant(grant, entry)?;
        self.leases.push(change);
        Ok(Response::Lease)
    }

    fn revoke(&mut self, lease: LeaseId) -> Result<Response, Refusal> {
        if !self.state.leases.contains(lease) {
            return Err(Refusal::LeaseNotFound { lease });
        }
        self.end_lease(lease);
        Ok(Response::Lease)
    }

    fn expire(&mut self, expire: &LeaseExpire, term: Term) -> Result<Response, Refusal> {
        check_term(expire.term, term)?;
        for &lease in expire.leases.iter().take(LEASES_MAX) {
            if self.state.leases.contains_named(lease) {
                self.end_lease(lease.id);
            }
        }
        Ok(Response::Lease)
    }

    /// Deletes the keys of a lease, in their order, and the lease.
    fn end_lease(&mut self, lease: LeaseId) {
        let keys: Vec<Bytes> = self.state.attached_keys(lease).map(Bytes::copy_from_slice).collect();
        for key in keys {
            self.write_tombstone(key);
        }
        let change = self.state.remove_lease(lease);
        self.leases.push(change);
    }

    fn checkpoint(&mut self, checkpoint: &LeaseCheckpoint, term: Term) -> Result<Response, Refusal> {
        self.leases = self.state.checkpoint(checkpoint, term)?;
        Ok(Response::Lease)
    }

    /// The id of the next record of this command.
    fn next_id(&self) -> RecordId {
        let sub = u32::try_from(self.records.len()).expect("a command changes less than 2^32 keys");
        RecordId::new(self.begin.next(), sub)
    }

    fn write_put(&mut self, key: Bytes, lease: Option<LeaseId>, value: Bytes) {
        let id = self.next_id();
        let value_bytes = u32::try_from(value.len()).expect("a value is far below 4 GiB");
        let PutMeta { create_revision, version, .. } = self.state.put(&key, id, lease, value_bytes);
        let change = Change::Put(PutRecord { create_revision, version, lease, value });
        self.records.push(Record { id, key, change });
    }

    fn write_tombstone(&mut self, key: Bytes) {
        let id = self.next_id();
        self.state.change(&key, id, None);
        self.records.push(Record { id, key, change: Change::Delete });
    }

    fn run_txn(&mut self, txn: &Txn) -> Result<Result<TxnResponse, Refusal>, V::Error> {
        let mut choices = Vec::new();
        let begin = self.begin;
        choose_branches(&mut self.view(), txn, begin, &mut choices)?;
        if let Err(refusal) = self.check_txn(txn, &choices) {
            return Ok(Err(refusal));
        }
        self.execute(txn, &mut choices.into_iter()).map(Ok)
    }

    /// All puts that will run are checked first, then all ranges. The order within a put is the other way round than
    /// for a put on its own: etcd's order, which decides the error when both are wrong.
    fn check_txn(&self, txn: &Txn, choices: &[bool]) -> Result<(), Refusal> {
        for_each_op(txn, &mut choices.iter().copied(), &mut |op| match op {
            Op::Put(put) => self.check_kept(put).and_then(|()| self.check_lease(put)),
            Op::Range(_) | Op::DeleteRange(_) | Op::Txn(_) | Op::Unset => Ok(()),
        })?;
        for_each_op(txn, &mut choices.iter().copied(), &mut |op| match op {
            Op::Range(read) => self.state.resolve(read.at).map(|_| ()),
            Op::Put(_) | Op::DeleteRange(_) | Op::Txn(_) | Op::Unset => Ok(()),
        })
    }

    fn execute(
        &mut self,
        txn: &Txn,
        choices: &mut impl Iterator<Item = bool>,
    ) -> Result<TxnResponse, V::Error> {
        let succeeded = choices.next().expect("a branch was chosen for each transaction that runs");
        let ops = txn.branch(succeeded);
        let mut responses = Vec::with_capacity(ops.len());
        for op in ops {
            let result = match op {
                Op::Range(read) => OpResult::Range(self.read(read)?),
                Op::Put(put) => OpResult::Put(self.put(put)?),
                Op::DeleteRange(delete) => OpResult::DeleteRange(self.delete(delete)?),
                Op::Txn(nested) => OpResult::Txn(self.execute(nested, choices)?),
                Op::Unset => panic!("an empty operation does not pass validation"),
            };
            let revision = if matches!(op, Op::Txn(_)) { Revision::NONE } else { self.revision() };
            responses.push(OpResponse { revision, result });
        }
        Ok(TxnResponse { succeeded, responses })
    }

    fn read(&mut self, read: &Range) -> Result<RangeResponse, V::Error> {
        let at = match read.at {
            ReadAt::Latest | ReadAt::Revision(Revision::NONE) => self.revision(),
            ReadAt::Revision(revision) => revision,
        };
        range(&mut self.view(), read, at)
    }
}

/// The state as a transaction sees it in the middle: its own records are not in the store yet.
struct View<'a, V> {
    state: &'a State,
    values: &'a mut V,
    begin: Revision,
    staged: &'a [Record],
}

impl<V: Values> RangeSource for View<'_, V> {
    type Error = V::Error;

    fn chunk(
        &mut self,
        range: &KeyRange,
        after: Option<&Bytes>,
        at: Revision,
        keys_max: usize,
    ) -> Result<IndexChunk, V::Error> {
        Ok(self.state.chunk(range, after, at, keys_max))
    }

    fn record(&mut self, key: &Bytes, id: RecordId) -> Result<PutRecord, V::Error> {
        if id.revision <= self.begin {
            return self.values.record(key, id);
        }
        let staged = &self.staged[id.sub as usize];
        assert_eq!(staged.id, id, "a record's place is its sub");
        match &staged.change {
            Change::Put(put) => Ok(put.clone()),
            Change::Delete => panic!("only puts are asked for"),
        }
    }
}
