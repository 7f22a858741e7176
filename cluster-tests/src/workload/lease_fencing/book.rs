//! What is written down while a run goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::holder::CALL;
use crate::judge::lease::{Change, Held, Record, Stop};

/// The book of a run. All times are from its begin.
#[derive(Debug)]
pub(crate) struct Book {
    begin: Instant,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    record: Record,
    /// Who was seen to lead last: term and member.
    leads: Option<(u64, u64)>,
    /// When that one was seen to lead last.
    led: Duration,
    /// The member that is stopped now.
    stopped: Option<usize>,
    /// When deletes were first seen, by key.
    deleted: BTreeMap<String, Duration>,
    /// What was there when a watcher had lost events.
    looks: Vec<Look>,
    is_finished: bool,
}

/// The keys of all leases, as a member had them.
#[derive(Debug)]
struct Look {
    asked: Duration,
    answered: Duration,
    keys: BTreeSet<String>,
}

impl Look {
    /// Whether a lease has ended by then, whose key was there before the question.
    fn shows_gone(&self, lease: &Held) -> bool {
        self.asked > lease.last_try + CALL && !self.keys.contains(&lease.key)
    }
}

impl Book {
    pub(crate) fn new(election_timeout: Duration) -> Self {
        let record = Record { election_timeout, ..Record::default() };
        Self { begin: Instant::now(), inner: Mutex::new(Inner { record, ..Inner::default() }) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Whoever panicked under it fails the run; what is written is whole at any time.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> Duration {
        self.begin.elapsed()
    }

    /// No lease is kept alive from here on.
    pub(crate) fn finish(&self) {
        self.lock().is_finished = true;
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.lock().is_finished
    }

    /// Says which member is stopped now.
    pub(crate) fn stopped(&self, member: Option<usize>) {
        self.lock().stopped = member;
    }

    /// Clients would find out by a call that is not answered; knowing it saves them that.
    pub(crate) fn is_stopped(&self, member: usize) -> bool {
        self.lock().stopped == Some(member)
    }

    pub(crate) fn add_stop(&self, stop: Stop) {
        self.lock().record.stops.push(stop);
    }

    /// A member said that it leads in a term; it was asked at `asked`.
    pub(crate) fn leads(&self, term: u64, member: u64, asked: Duration) {
        let now = self.now();
        let mut inner = self.lock();
        match inner.leads {
            // One that does not know yet that it leads no more.
            Some((newest, _)) if term < newest => {}
            Some((newest, leader)) if term == newest && leader == member => inner.led = inner.led.max(asked),
            before => {
                if before.is_some() {
                    let lost = inner.led;
                    inner.record.changes.push(Change { lost, seen: now });
                }
                (inner.leads, inner.led) = (Some((term, member)), now);
            }
        }
    }

    /// A watcher was told that a key is deleted.
    pub(crate) fn deleted(&self, key: String) {
        let now = self.now();
        self.lock().deleted.entry(key).or_insert(now);
    }

    /// These keys were there, when it was asked at `asked` because a watcher had lost events.
    pub(crate) fn looked(&self, asked: Duration, keys: BTreeSet<String>) {
        let answered = self.now();
        self.lock().looks.push(Look { asked, answered, keys });
    }

    /// Whether a watcher was told that.
    pub(crate) fn is_deleted(&self, key: &str) -> bool {
        self.lock().deleted.contains_key(key)
    }

    /// Adds a lease that its holder has done with.
    pub(crate) fn add(&self, held: Held) {
        self.lock().record.leases.push(held);
    }

    /// What is to be judged.
    pub(crate) fn record(&self) -> Record {
        let inner = self.lock();
        let mut record = inner.record.clone();
        record.ended = self.now();
        for lease in &mut record.leases {
            lease.deleted = inner.deleted.get(&lease.key).copied();
            let gone = inner.looks.iter().filter(|look| look.shows_gone(lease)).map(|look| look.answered);
            lease.found_gone = gone.min().filter(|_| lease.deleted.is_none());
        }
        record
    }
}
