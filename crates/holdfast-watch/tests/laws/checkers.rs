//! The laws, one checker each, over what one watcher saw.

use std::collections::BTreeSet;

use holdfast_mvcc::types::{Record, RecordId, Revision};

/// One thing a watcher saw.
#[derive(Debug, Clone)]
pub(crate) enum Seen {
    /// The records of one delivery.
    Events(Vec<Record>),
    /// All up to this revision has been seen.
    Progress(Revision),
    /// It needed a revision below this compact revision.
    Canceled(Revision),
}

/// What one watcher saw, in order, and what it should have seen if it lived for ever.
#[derive(Debug, Clone)]
pub(crate) struct Story {
    pub(crate) from: Revision,
    pub(crate) seen: Vec<Seen>,
    /// All records of history that it wants, in order.
    pub(crate) wanted: Vec<Record>,
    /// Nothing can come any more: it was not removed, and everything was handed out.
    pub(crate) is_complete: bool,
}

pub(crate) type Verdict = Result<(), String>;

pub(crate) type Law = fn(&Story) -> Verdict;

/// All laws about one watcher by name.
pub(crate) const LAWS: [(&str, Law); 7] = [
    ("asked for", asked_for),
    ("ordered", ordered),
    ("unique", unique),
    ("reliable", reliable),
    ("atomic", atomic),
    ("progress sound", progress_sound),
    ("canceled by compaction only", canceled_by_compaction_only),
];

impl Story {
    fn events(&self) -> impl Iterator<Item = &Record> {
        self.seen.iter().flat_map(|seen| match seen {
            Seen::Events(records) => records.as_slice(),
            Seen::Progress(_) | Seen::Canceled(_) => &[],
        })
    }

    /// All is seen up to here.
    pub(crate) fn seen_up_to(&self) -> Option<Revision> {
        let last = |seen: &Seen| match seen {
            Seen::Events(records) => records.last().map(|record| record.id.revision),
            Seen::Progress(revision) => Some(*revision),
            Seen::Canceled(_) => None,
        };
        self.seen.iter().filter_map(last).max()
    }
}

/// Nothing comes that is not in history, or not wanted, or before the first revision wanted.
fn asked_for(story: &Story) -> Verdict {
    let wanted: Vec<_> = story.wanted.iter().collect();
    match story.events().find(|event| !wanted.contains(event)) {
        Some(event) => Err(format!("{:?} was not asked for", event.id)),
        None => Ok(()),
    }
}

/// What comes, ascends.
fn ordered(story: &Story) -> Verdict {
    let events: Vec<_> = story.events().collect();
    match events.windows(2).find(|pair| pair[0].id > pair[1].id) {
        Some(pair) => Err(format!("{:?} before {:?}", pair[0].id, pair[1].id)),
        None => Ok(()),
    }
}

/// Nothing comes twice.
fn unique(story: &Story) -> Verdict {
    let mut ids = BTreeSet::new();
    match story.events().find(|event| !ids.insert(event.id)) {
        Some(event) => Err(format!("{:?} twice", event.id)),
        None => Ok(()),
    }
}

/// Nothing is missing up to the last that came; nothing at all once all was handed out, unless it was canceled.
fn reliable(story: &Story) -> Verdict {
    let ids: BTreeSet<RecordId> = story.events().map(|event| event.id).collect();
    let is_canceled = story.seen.iter().any(|seen| matches!(seen, Seen::Canceled(_)));
    let is_due =
        |id: RecordId| (story.is_complete && !is_canceled) || ids.last().is_some_and(|last| id <= *last);
    match story.wanted.iter().find(|record| is_due(record.id) && !ids.contains(&record.id)) {
        Some(record) => Err(format!("{:?} is missing", record.id)),
        None => Ok(()),
    }
}

/// All of a revision comes in one delivery.
fn atomic(story: &Story) -> Verdict {
    for seen in &story.seen {
        let Seen::Events(records) = seen else { continue };
        let revisions: BTreeSet<_> = records.iter().map(|record| record.id.revision).collect();
        let whole = story.wanted.iter().filter(|record| revisions.contains(&record.id.revision)).count();
        if records.is_empty() || records.len() < whole {
            return Err(format!("{} of {whole} records of {revisions:?} in one delivery", records.len()));
        }
    }
    Ok(())
}

/// When progress is told, all up to it has come, and nothing up to it comes later.
fn progress_sound(story: &Story) -> Verdict {
    for (at, seen) in story.seen.iter().enumerate() {
        let Seen::Progress(progress) = seen else { continue };
        let before = Story { seen: story.seen[..at].to_vec(), ..story.clone() };
        let after = Story { seen: story.seen[at..].to_vec(), ..story.clone() };
        let ids: BTreeSet<_> = before.events().map(|event| event.id).collect();
        let is_missing = |record: &&Record| record.id.revision <= *progress && !ids.contains(&record.id);
        if let Some(record) = story.wanted.iter().find(is_missing) {
            return Err(format!("progress {progress:?} before {:?}", record.id));
        }
        if let Some(event) = after.events().find(|event| event.id.revision <= *progress) {
            return Err(format!("{:?} after progress {progress:?}", event.id));
        }
        if progress.next() < story.from {
            return Err(format!("progress {progress:?} for who starts at {:?}", story.from));
        }
    }
    Ok(())
}

/// Only who still needs a revision below the compact revision is canceled, and gets nothing afterwards.
fn canceled_by_compaction_only(story: &Story) -> Verdict {
    for (at, seen) in story.seen.iter().enumerate() {
        let Seen::Canceled(compact) = seen else { continue };
        let needs = story.seen_up_to().map_or(story.from, |seen| story.from.max(seen.next()));
        if needs >= *compact {
            return Err(format!("needs {needs:?}, canceled at {compact:?}"));
        }
        if at + 1 < story.seen.len() {
            return Err("something after the cancel".to_owned());
        }
    }
    Ok(())
}

/// A watcher that goes on behind what another one saw, sees what that one would have seen: the two, one after the
/// other, are a story that keeps the laws.
pub(crate) fn resumable(first: &Story, resumed: &Story) -> Verdict {
    let behind = first.seen_up_to().map_or(first.from, |seen| first.from.max(seen.next()));
    if resumed.from != behind {
        return Err(format!("resumed at {:?} instead of {behind:?}", resumed.from));
    }
    let seen = first.seen.iter().chain(&resumed.seen).cloned().collect();
    let whole = Story { seen, ..resumed.clone() };
    let whole = Story { from: first.from, wanted: first.wanted.clone(), ..whole };
    LAWS.iter().try_for_each(|(name, law)| law(&whole).map_err(|why| format!("not {name}: {why}")))
}
