//! Evaluation of a slice of the log: entries in, answers and records out.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;

use bytes::Bytes;
use holdfast_env::{Fault, LogId};
use holdfast_mvcc::auth::AuthChange;
use holdfast_mvcc::command::{Command, Outcome};
use holdfast_mvcc::types::{
    Change, EntryId, LeaseChange, LogIndex, PutRecord, Record, RecordId, Revision, Term,
};
use holdfast_mvcc::{State, Values};
use tokio::sync::oneshot;

use super::control::CommitPosition;
use super::shared::Shared;
use crate::auth::IssuedToken;
use crate::error::StoreError;
use crate::limits::{ENTRY_BYTES, PREFETCH_BYTES_MAX, PREFETCH_RECORDS_MAX};
use crate::types::{Answer, Applied, DispatchBody, DispatchItem};
use crate::view::{ValueReader, View};
use crate::weight::may_need_values;

/// Puts that are evaluated but may not have reached the memtable yet, ascending.
#[derive(Debug, Default)]
pub(super) struct Recent {
    puts: VecDeque<(RecordId, PutRecord)>,
}

impl Recent {
    /// Forgets what is visible: that is in the memtable.
    pub(super) fn forget(&mut self, visible: Revision) {
        while self.puts.front().is_some_and(|(id, _)| id.revision <= visible) {
            self.puts.pop_front();
        }
    }

    fn add(&mut self, records: &[Record]) {
        for record in records {
            if let Change::Put(put) = &record.change {
                self.puts.push_back((record.id, put.clone()));
            }
        }
    }

    fn get(&self, id: RecordId) -> Option<&PutRecord> {
        let at = self.puts.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.puts.get(at).map(|(_, put)| put)
    }
}

/// What a slice leads to.
pub(super) struct Evaluated {
    /// All records, ascending.
    pub(super) records: Vec<Record>,
    /// What became of leases, in order.
    pub(super) leases: Vec<LeaseChange>,
    /// Who waits for what.
    pub(super) answers: Vec<(oneshot::Sender<Answer>, Answer)>,
    /// The position behind it.
    pub(super) position: CommitPosition,
    /// What it costs until it is committed.
    pub(super) bytes: usize,
}

/// Evaluates entries in order. An error is local and leaves a state that must not be used any more.
pub(super) fn evaluate(
    shared: &Shared,
    view: &View,
    items: Vec<DispatchItem>,
    recent: &mut Recent,
    applied: &mut Applied,
) -> Result<Evaluated, StoreError> {
    let prefetched = prefetch(shared, view, &items, recent)?;
    let reader = ValueReader::counting(view, &shared.cache, &shared.evaluation_reads);
    let mut values = Sources { recent, prefetched, reader };
    // Most entries are one record and have one asker somewhere.
    let (mut records, mut leases) = (Vec::with_capacity(items.len()), Vec::new());
    let mut answers = Vec::with_capacity(items.len());
    let mut bytes = 0;
    let _span = tracing::debug_span!("evaluate", entries = items.len()).entered();
    let mut state = view.state.write();
    for item in items {
        applied.log_id = Some(item.log_id);
        bytes += ENTRY_BYTES;
        match item.body {
            DispatchBody::Blank => {}
            DispatchBody::Membership(content) => applied.membership = Some((item.log_id, content)),
            DispatchBody::Command { command, caller, respond } => {
                let before = state.head().revision;
                let entry = entry_id(shared, item.log_id, &command);
                let mut outcome = state.evaluate_for(&caller, entry, &command, &mut values)?;
                check(before, outcome.revision, &outcome.records);
                values.recent.add(&outcome.records);
                bytes += outcome.records.iter().map(cost).sum::<usize>();
                records.append(&mut outcome.records);
                bytes += outcome.leases.len() * LEASE_CHANGE_BYTES;
                count_leases(shared, &command, &outcome.leases);
                note_token(shared, &state, item.log_id, (&command, &outcome));
                leases.append(&mut outcome.leases);
                if let Some(respond) = respond {
                    answers.push((respond, Answer { log_id: item.log_id, outcome }));
                }
            }
        }
    }
    // Under the lock of the index: who begins to follow reads the leases there.
    shared.leases.push(&leases);
    let position = CommitPosition { head: state.head().clone(), applied: applied.clone() };
    Ok(Evaluated { records, leases, answers, position, bytes })
}

/// Hands a token on that a command has brought.
fn note_token(shared: &Shared, state: &State, log_id: LogId, (command, outcome): (&Command, &Outcome)) {
    let Command::Auth(AuthChange::Authenticate(authenticate)) = command else { return };
    if outcome.response.is_ok()
        && let Some(session) = state.head().auth.session(&authenticate.user)
    {
        let at = shared.env.clock.now();
        shared.auth.issued(IssuedToken { digest: authenticate.token, index: log_id.index(), session, at });
    }
}

fn entry_id(shared: &Shared, log_id: LogId, command: &Command) -> EntryId {
    let entry = EntryId { term: Term(log_id.term().get()), index: LogIndex(log_id.index().get()) };
    match command {
        Command::LeaseExpire(expire) if shared.env.faults.is_planted(Fault::LeaseExpiryUnfenced) => {
            EntryId { term: expire.term, ..entry }
        }
        _ => entry,
    }
}

/// Counts for the figures.
fn count_leases(shared: &Shared, command: &Command, changes: &[LeaseChange]) {
    if changes.is_empty() {
        return;
    }
    let ended = changes.iter().filter(|change| change.lease.is_none()).count() as u64;
    shared.leases.ended.fetch_add(ended, Ordering::Relaxed);
    if matches!(command, Command::LeaseGrant(_)) {
        shared.leases.granted.fetch_add(1, Ordering::Relaxed);
    }
}

/// A revision moves by one when there are records, and else not at all; records ascend.
fn check(before: Revision, after: Revision, records: &[Record]) {
    let expected = if records.is_empty() { before } else { before.next() };
    assert!(after == expected, "a command moved the revision from {before:?} to {after:?}");
    assert!(
        records.iter().all(|r| r.id.revision == after),
        "a record carries another revision than its command"
    );
    assert!(records.windows(2).all(|w| w[0].id < w[1].id), "records are out of order");
}

/// What a change of a lease costs until it is committed.
const LEASE_CHANGE_BYTES: usize = 64;

fn cost(record: &Record) -> usize {
    let value = match &record.change {
        Change::Put(put) => put.value.len(),
        Change::Delete => 0,
    };
    record.key.len() + value + 192
}

/// Fetches what evaluation will ask for, without holding the index lock.
fn prefetch(
    shared: &Shared,
    view: &View,
    items: &[DispatchItem],
    recent: &Recent,
) -> Result<HashMap<RecordId, PutRecord>, StoreError> {
    let mut needed: Vec<(Bytes, RecordId)> = Vec::new();
    if items
        .iter()
        .any(|item| matches!(&item.body, DispatchBody::Command { command, .. } if may_need_values(command)))
    {
        let state = view.state.read();
        for item in items {
            if let DispatchBody::Command { command, .. } = &item.body
                && may_need_values(command)
            {
                let left = PREFETCH_RECORDS_MAX - needed.len();
                needed.extend(state.needed_values(command, left));
            }
            if needed.len() >= PREFETCH_RECORDS_MAX {
                break;
            }
        }
    }
    let mut reader = ValueReader::new(view, &shared.cache);
    let mut prefetched = HashMap::new();
    let mut bytes = 0;
    for (key, id) in needed {
        if bytes >= PREFETCH_BYTES_MAX {
            break;
        }
        if recent.get(id).is_none() && !prefetched.contains_key(&id) {
            let put = reader.put(&key, id)?;
            bytes += put.value.len();
            prefetched.insert(id, put);
        }
    }
    Ok(prefetched)
}

/// Where evaluation finds values.
struct Sources<'a> {
    recent: &'a mut Recent,
    prefetched: HashMap<RecordId, PutRecord>,
    reader: ValueReader<'a>,
}

impl Values for Sources<'_> {
    type Error = StoreError;

    fn record(&mut self, key: &Bytes, id: RecordId) -> Result<PutRecord, StoreError> {
        if let Some(put) = self.recent.get(id).or_else(|| self.prefetched.get(&id)) {
            return Ok(put.clone());
        }
        self.reader.put(key, id)
    }
}
