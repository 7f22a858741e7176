//! What made each revision: the writers' own acknowledged commands, and for all other revisions (commands of unknown
//! outcome, leases that ended) what the store itself shows of them, read from the past before it is compacted.
//!
//! A reading only fills a gap. What a writer was told stands against it: two commands for one revision, or a state at the
//! end that does not follow from all of them, are flaws of the history.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use holdfast_proto::etcdserverpb::{RangeRequest, RangeResponse};

use super::watch::calls::Fate;
use crate::client::{Client, TIMEOUT};
use crate::judge::watch::history::{Applied, Step};

/// The first revision of an empty store, which nobody makes.
const FIRST: i64 = 1;

/// The chronicle of a run.
#[derive(Debug)]
pub struct Chronicle {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    told: BTreeMap<i64, Arc<[Step]>>,
    /// Further commands that were told a revision which another one had been told.
    doubles: Vec<(i64, Arc<[Step]>)>,
    read: BTreeMap<i64, Arc<[Step]>>,
    /// Commands of several steps that are under way or of unknown outcome, by a pair that they put.
    open: HashMap<(Bytes, Bytes), Arc<[Step]>>,
    /// Up to here every revision is told or read.
    settled: i64,
}

impl Default for Chronicle {
    fn default() -> Self {
        let inner = Inner {
            told: BTreeMap::new(),
            doubles: Vec::new(),
            read: BTreeMap::new(),
            open: HashMap::new(),
            settled: FIRST,
        };
        Self { inner: Mutex::new(inner) }
    }
}

impl Chronicle {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder of the lock panics")
    }

    /// A command is about to be sent.
    pub fn begin(&self, steps: &[Step]) {
        if let (Some(pair), 2..) = (pair_of(steps), steps.len()) {
            self.lock().open.insert(pair, steps.into());
        }
    }

    /// What a command came to.
    pub fn end(&self, steps: &[Step], fate: Fate) {
        if let (Some(pair), true) = (pair_of(steps), fate != Fate::Unknown) {
            self.lock().open.remove(&pair);
        }
        if let Fate::At(revision) = fate {
            self.told(revision, steps);
        }
    }

    /// A writer was told that these steps have made this revision.
    pub fn told(&self, revision: i64, steps: &[Step]) {
        let mut inner = self.lock();
        match inner.told.entry(revision) {
            Entry::Vacant(entry) => drop(entry.insert(steps.into())),
            Entry::Occupied(_) => inner.doubles.push((revision, steps.into())),
        }
    }

    /// Reads what nobody was told, up to and with `head`. Nothing at or above the first revision that is not settled may
    /// have been compacted.
    pub async fn settle(&self, client: &Client, member: usize, head: i64) -> Result<()> {
        let open: Vec<i64> = {
            let inner = self.lock();
            let is_open =
                |revision: &i64| !inner.told.contains_key(revision) && !inner.read.contains_key(revision);
            (inner.settled + 1..=head).filter(is_open).collect()
        };
        for revision in open {
            let change = read(client, member, revision).await;
            let change = change.with_context(|| format!("what made revision {revision}"))?;
            self.was_read(revision, change);
        }
        let mut inner = self.lock();
        inner.settled = inner.settled.max(head);
        Ok(())
    }

    /// A reading gives the steps in the order of their keys. If they are those of a command that is open, that one knows
    /// in which order they were made.
    fn was_read(&self, revision: i64, steps: Vec<Step>) {
        let mut inner = self.lock();
        let known = steps.iter().filter_map(pair_of_step).find_map(|pair| inner.open.get(&pair).cloned());
        inner.read.insert(revision, known.unwrap_or_else(|| steps.into()));
    }

    /// All commands that took effect, as far as it is settled.
    pub fn applied(&self) -> Vec<Applied> {
        let inner = self.lock();
        let read = inner.read.iter().filter(|(revision, _)| !inner.told.contains_key(revision));
        let doubles = inner.doubles.iter().map(|(revision, steps)| (revision, steps));
        let all = inner.told.iter().chain(read).chain(doubles);
        all.map(|(revision, steps)| Applied { revision: *revision, steps: steps.to_vec() }).collect()
    }

    /// How many revisions had to be read.
    pub fn readings(&self) -> usize {
        self.lock().read.len()
    }
}

/// What the store shows of one revision: the keys that were put, and those that are gone.
async fn read(client: &Client, member: usize, revision: i64) -> Result<Vec<Step>> {
    let put = RangeRequest { min_mod_revision: revision, ..all(revision) };
    let put = client.range(member, put, TIMEOUT).await?;
    let created = put.kvs.iter().filter(|kv| kv.version == 1).count();
    let count = async |revision| {
        let request = RangeRequest { count_only: true, ..all(revision) };
        anyhow::Ok(usize::try_from(client.range(member, request, TIMEOUT).await?.count)?)
    };
    let (before, after) = (count(revision - 1).await?, count(revision).await?);
    ensure!(before + created >= after, "{before} keys, {created} more, {after} afterwards");
    let mut steps: Vec<Step> = Vec::new();
    if before + created > after {
        let left: HashSet<Bytes> = keys(client, member, revision).await?.collect();
        let gone = keys(client, member, revision - 1).await?.filter(|key| !left.contains(key));
        steps.extend(gone.map(|key| Step::Delete { key, range_end: Bytes::new() }));
    }
    let puts = put.kvs.into_iter();
    steps.extend(puts.map(|kv| Step::Put { key: kv.key, value: kv.value, lease: kv.lease }));
    Ok(steps)
}

async fn keys(client: &Client, member: usize, revision: i64) -> Result<impl Iterator<Item = Bytes>> {
    let answer: RangeResponse =
        client.range(member, RangeRequest { keys_only: true, ..all(revision) }, TIMEOUT).await?;
    Ok(answer.kvs.into_iter().map(|kv| kv.key))
}

fn all(revision: i64) -> RangeRequest {
    let all = Bytes::from_static(b"\0");
    RangeRequest { key: all.clone(), range_end: all, revision, ..RangeRequest::default() }
}

/// The first pair that these steps put. No pair is put twice in a run.
fn pair_of(steps: &[Step]) -> Option<(Bytes, Bytes)> {
    steps.iter().find_map(pair_of_step)
}

fn pair_of_step(step: &Step) -> Option<(Bytes, Bytes)> {
    match step {
        Step::Put { key, value, .. } => Some((key.clone(), value.clone())),
        Step::Delete { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &'static str, value: &'static str) -> Step {
        Step::Put {
            key: Bytes::from_static(key.as_bytes()),
            value: Bytes::from_static(value.as_bytes()),
            lease: 0,
        }
    }

    #[test]
    fn what_was_told_stands_and_readings_fill_the_gaps() {
        let chronicle = Chronicle::default();
        chronicle.end(&[put("a", "1")], Fate::At(2));
        chronicle.end(&[put("a", "2")], Fate::Unknown);
        chronicle.was_read(3, vec![put("a", "2")]);
        // A reading of what is told afterwards.
        chronicle.was_read(4, vec![put("a", "3")]);
        chronicle.end(&[put("a", "3")], Fate::At(4));
        let revisions: Vec<i64> = chronicle.applied().iter().map(|applied| applied.revision).collect();
        assert_eq!(revisions, [2, 4, 3]);
        chronicle.end(&[put("b", "9")], Fate::At(2));
        assert_eq!(chronicle.applied().iter().filter(|applied| applied.revision == 2).count(), 2);
    }

    #[test]
    fn an_open_command_knows_the_order_of_its_steps() {
        let chronicle = Chronicle::default();
        let steps = [put("b", "1"), put("a", "2")];
        chronicle.begin(&steps);
        chronicle.end(&steps, Fate::Unknown);
        chronicle.was_read(2, vec![put("a", "2"), put("b", "1")]);
        assert_eq!(chronicle.applied()[0].steps, steps);
    }
}
