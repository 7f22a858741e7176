//! The laws, one function each. See the parent for what they say.

use std::collections::BTreeMap;

use super::history::Change;
use super::record::{Content, End, Life, Session, Whose};
use super::{Breach, Record};

/// One session and what it is measured by.
pub(super) struct Case<'a> {
    record: &'a Record<'a>,
    life: &'a Life,
    session: &'a Session,
    /// Places in history of what the watcher wants, from the session's start on.
    expected: &'a [usize],
    start: i64,
    /// For each event of the session its place in history.
    places: Vec<Option<usize>>,
}

impl<'a> Case<'a> {
    pub(super) fn new(
        record: &'a Record<'a>,
        life: &'a Life,
        session: &'a Session,
        expected: &'a [usize],
    ) -> Self {
        let changes = record.history.changes();
        let start = session.start().unwrap_or(i64::MAX);
        let skipped = expected.partition_point(|place| changes[*place].revision < start);
        let events = session.events.iter();
        let places = events.map(|event| record.history.place(event.revision, event.key)).collect();
        Self { record, life, session, expected: &expected[skipped..], start, places }
    }

    fn change(&self, place: usize) -> &Change {
        &self.record.history.changes()[place]
    }

    fn name(&self, event: usize) -> String {
        self.record.keys.name(self.session.events[event].key)
    }

    /// Expected places with a revision in `from..=through`.
    fn between(&self, from: i64, through: i64) -> &[usize] {
        let first = self.expected.partition_point(|place| self.change(*place).revision < from);
        let end = self.expected.partition_point(|place| self.change(*place).revision <= through);
        &self.expected[first..end.max(first)]
    }

    /// The first expected revision in `from..=through` of which nothing is among `delivered`, which ascends.
    fn missing(&self, delivered: &[i64], from: i64, through: i64) -> Option<i64> {
        let wanted = self.between(from, through).iter().map(|place| self.change(*place).revision);
        wanted.into_iter().find(|revision| delivered.binary_search(revision).is_err())
    }

    /// Revisions of which something was delivered, ascending.
    fn delivered(&self) -> Vec<i64> {
        let mut revisions: Vec<i64> = self.session.events.iter().map(|event| event.revision).collect();
        revisions.sort_unstable();
        revisions.dedup();
        revisions
    }

    /// For each response with events: its header and the places of its events in the session.
    fn responses(&self) -> impl Iterator<Item = (i64, std::ops::Range<usize>)> {
        self.session.messages.iter().filter_map(|message| match message.content {
            Content::Events { header, first, end } => Some((header, first..end)),
            Content::Progress { .. } => None,
        })
    }
}

/// What is wrong with one session.
pub(super) fn of_session(case: &Case<'_>) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for law in [ordered, unique, gapless, atomic, resumed, progress, started, faithful, prev_kv, canceled] {
        breaches.extend(law(case));
    }
    breaches
}

/// What is wrong with how sessions follow each other, and with the end; each with the session it belongs to.
pub(super) fn of_life(record: &Record<'_>, life: &Life, expected: &[usize]) -> Vec<(usize, Breach)> {
    let mut breaches = Vec::new();
    let mut next = None;
    for (number, session) in life.sessions.iter().enumerate() {
        // A session that was never answered leaves the client where it was, "from now on" included.
        let asked = session.asked;
        if let Some(next) = next.filter(|next| *next != asked) {
            breaches.push((number, Breach::BrokenRecord { next, asked }));
        }
        next = Some(session.next());
    }
    let next = next.unwrap_or(0);
    let changes = record.history.changes();
    if life.is_to_the_end
        && let Some(last) = expected.last().map(|place| changes[*place].revision)
        && next <= last
        && let Some(missing) = expected.iter().map(|place| changes[*place].revision).find(|r| *r >= next)
    {
        breaches.push((life.sessions.len().saturating_sub(1), Breach::Unfinished { missing, next }));
    }
    breaches
}

fn ordered(case: &Case<'_>) -> Vec<Breach> {
    let events = &case.session.events;
    let mut breaches = Vec::new();
    for (at, pair) in events.windows(2).enumerate() {
        let within = pair[0].revision == pair[1].revision
            && matches!((case.places[at], case.places[at + 1]), (Some(a), Some(b)) if b < a);
        if pair[1].revision < pair[0].revision || within {
            breaches.push(Breach::OutOfOrder { revision: pair[1].revision, after: pair[0].revision });
        }
    }
    for (header, range) in case.responses() {
        let newest = events[range].iter().map(|event| event.revision).max();
        if let Some(revision) = newest.filter(|revision| *revision > header) {
            breaches.push(Breach::HeaderBehind { header, revision });
        }
    }
    breaches
}

fn unique(case: &Case<'_>) -> Vec<Breach> {
    let mut all: Vec<(i64, usize)> = Vec::with_capacity(case.session.events.len());
    all.extend(case.session.events.iter().enumerate().map(|(at, event)| (event.revision, at)));
    let key_of = |at: usize| case.session.events[at].key;
    all.sort_by_key(|(revision, at)| (*revision, key_of(*at)));
    let twice =
        all.windows(2).filter(|pair| pair[0].0 == pair[1].0 && key_of(pair[0].1) == key_of(pair[1].1));
    twice.map(|pair| Breach::Repeated { revision: pair[1].0, key: case.name(pair[1].1) }).collect()
}

fn gapless(case: &Case<'_>) -> Vec<Breach> {
    let delivered = case.delivered();
    let gaps = delivered.windows(2).filter_map(|pair| {
        let missing = case.missing(&delivered, pair[0] + 1, pair[1] - 1)?;
        Some(Breach::Gap { missing, before: pair[1] })
    });
    gaps.collect()
}

fn atomic(case: &Case<'_>) -> Vec<Breach> {
    // By revision: the response that brought its first event, how many of its changes came, whether others brought some.
    let mut by_revision: BTreeMap<i64, (usize, Vec<usize>, bool)> = BTreeMap::new();
    for (number, (_, range)) in case.responses().enumerate() {
        for at in range {
            let Some(place) = case.places[at] else { continue };
            let revision = case.session.events[at].revision;
            let entry = by_revision.entry(revision).or_insert((number, Vec::new(), false));
            entry.2 |= entry.0 != number;
            if !entry.1.contains(&place) {
                entry.1.push(place);
            }
        }
    }
    let mut breaches = Vec::new();
    for (revision, (_, places, is_split)) in by_revision {
        if is_split {
            breaches.push(Breach::Split { revision });
        }
        let of = case.between(revision, revision).len();
        let got = places.len();
        if got < of {
            breaches.push(Breach::Torn { revision, got, of });
        }
    }
    breaches
}

fn resumed(case: &Case<'_>) -> Vec<Breach> {
    let delivered = case.delivered();
    let Some(first) = delivered.first().copied() else { return Vec::new() };
    let missing = case.missing(&delivered, case.start, first - 1);
    missing.map(|missing| Breach::NotResumed { start: case.start, missing, first }).into_iter().collect()
}

fn progress(case: &Case<'_>) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let mut delivered: Vec<i64> = Vec::new();
    let mut covered = 0;
    for message in &case.session.messages {
        match message.content {
            Content::Events { first, end, .. } => {
                for event in &case.session.events[first..end] {
                    if event.revision <= covered {
                        let (progress, revision) = (covered, event.revision);
                        breaches.push(Breach::EventAfterProgress { progress, revision });
                    } else if delivered.last().is_none_or(|last| *last < event.revision) {
                        // What is out of order is another law's; here it counts as not delivered.
                        delivered.push(event.revision);
                    }
                }
            }
            Content::Progress { revision, of } => {
                let from = case.start.max(covered + 1);
                if let Some(missing) = case.missing(&delivered, from, revision) {
                    breaches.push(Breach::TooEarlyProgress { progress: revision, missing });
                }
                if of == Whose::Watcher && revision + 1 < case.start {
                    let (progress, start) = (revision, case.start);
                    breaches.push(Breach::ProgressBeforeStart { progress, start });
                }
                covered = covered.max(revision);
            }
        }
    }
    breaches
}

fn started(case: &Case<'_>) -> Vec<Breach> {
    if case.session.created.is_none() && !case.session.messages.is_empty() {
        return vec![Breach::NotCreated];
    }
    let early = case.session.events.iter().filter(|event| event.revision < case.start);
    early.map(|event| Breach::BeforeStart { revision: event.revision, start: case.start }).collect()
}

fn faithful(case: &Case<'_>) -> Vec<Breach> {
    let events = case.session.events.iter().zip(&case.places).enumerate();
    let breaches = events.filter_map(|(at, (event, place))| {
        let (revision, key) = (event.revision, || case.name(at));
        // A run goes on a little beyond the revision at which it is judged.
        if revision > case.record.history.newest() {
            return None;
        }
        let Some(change) = place.map(|place| case.change(place)) else {
            return Some(Breach::Phantom { revision, key: key() });
        };
        let name = &case.record.keys.keys()[event.key.place()];
        if !case.life.wish.covers(name) || !case.life.wish.wants(event.kind) {
            return Some(Breach::Unasked { revision, key: key() });
        }
        let same = change.kind == event.kind && change.state == event.state;
        (!same).then(|| Breach::Altered { revision, key: key() })
    });
    breaches.collect()
}

fn prev_kv(case: &Case<'_>) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for message in &case.session.messages {
        let Content::Events { first, end, .. } = message.content else { continue };
        for at in first..end {
            let event = &case.session.events[at];
            let Some(change) = case.places[at].map(|place| case.change(place)) else { continue };
            let (revision, key) = (event.revision, || case.name(at));
            let expected = change.previous.filter(|_| case.life.wish.prev_kv);
            match (expected, event.previous) {
                (None, Some(_)) => breaches.push(Breach::UnaskedPrevious { revision, key: key() }),
                (Some(expected), Some(found)) if expected != found => {
                    breaches.push(Breach::WrongPrevious { revision, key: key() });
                }
                (Some(_), None) if !may_be_compacted(case, revision - 1, message.at) => {
                    breaches.push(Breach::NoPrevious { revision, key: key() });
                }
                (Some(_) | None, None) | (Some(_), Some(_)) => {}
            }
        }
    }
    breaches
}

/// Whether reads at this revision may have been refused at that time.
fn may_be_compacted(case: &Case<'_>, revision: i64, at: std::time::Duration) -> bool {
    let mut compactions = case.record.compactions.iter();
    compactions.any(|compaction| compaction.asked_at <= at && revision < compaction.revision)
}

fn canceled(case: &Case<'_>) -> Vec<Breach> {
    match case.session.end {
        End::Left | End::Canceled => Vec::new(),
        End::Refused => vec![Breach::CanceledUnasked],
        End::Compacted { start: compact_revision, at } => {
            let mut breaches = Vec::new();
            let mut compactions = case.record.compactions.iter();
            if !compactions.any(|asked| asked.revision == compact_revision && asked.asked_at <= at) {
                breaches.push(Breach::NoSuchCompaction { compact_revision });
            }
            let next = case.session.reached();
            if next >= compact_revision {
                breaches.push(Breach::NeedlessCancel { compact_revision, next });
            }
            breaches
        }
    }
}
