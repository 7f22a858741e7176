//! What the crash tests do to a log, and what the log must then hold: a script of operations and the state after each
//! of its records.

use std::collections::BTreeSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use bytes::Bytes;
use holdfast_env::{LogId, LogIndex, Rng, Term};
use holdfast_log::{Entry, Log};
use holdfast_sim::world::SimRng;

/// One call of the log, or a wait until all before it is durable.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    Append(Vec<Entry>),
    Vote(Bytes),
    Truncate(Option<LogId>),
    Purge(LogId),
    Committed(LogId),
    Settle,
}

/// The acts, with the number of records that there are when an act is done.
pub(crate) struct Script {
    pub(crate) acts: Vec<(Act, usize)>,
    /// The state after each record; the first is the empty log.
    hashes: Vec<u64>,
    committed: BTreeSet<LogId>,
}

/// What a log holds, as far as the model follows it.
#[derive(Debug, Clone, Default, Hash)]
struct Model {
    purged: Option<LogId>,
    last: Option<LogId>,
    vote: Option<Bytes>,
    /// With a hash of the payload.
    entries: Vec<(LogId, u64)>,
}

fn hash_of(value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

impl Model {
    fn of(log: &Log) -> Result<Self, String> {
        let state = log.state();
        let entries = log.read(LogIndex::new(0), LogIndex::new(u64::MAX), usize::MAX);
        let entries = entries.map_err(|error| format!("cannot read: {error}"))?;
        let entries = entries.into_iter().map(|entry| (entry.id, hash_of(&entry.payload))).collect();
        Ok(Self { purged: state.purged, last: state.last, vote: state.vote, entries })
    }

    fn hash(&self) -> u64 {
        hash_of(self)
    }

    fn truncate(&mut self, last: Option<LogId>) {
        let next = last.map_or(0, |last| last.index().get() + 1);
        self.entries.retain(|(id, _)| id.index().get() < next);
        self.last = last.max(self.purged);
    }

    fn purge(&mut self, through: LogId) {
        self.entries.retain(|(id, _)| id.index() > through.index());
        self.purged = Some(through);
        if self.last.is_none_or(|last| last.index() <= through.index()) {
            self.last = Some(through);
        }
    }
}

struct Author {
    rng: SimRng,
    term: u64,
    may_purge: bool,
    model: Model,
    script: Script,
}

impl Script {
    /// A script for a fresh log, of so many rounds: each is a few acts, then a wait.
    pub(crate) fn write(seed: u64, rounds: usize) -> Self {
        Self::go_on(Model::default(), None, seed, rounds, true)
    }

    /// A script for a fresh log that never purges, so that many segments stay in use.
    pub(crate) fn write_growing(seed: u64, rounds: usize) -> Self {
        Self::go_on(Model::default(), None, seed, rounds, false)
    }

    /// A script that goes on with what a log holds.
    pub(crate) fn write_on(log: &Log, seed: u64, rounds: usize) -> Result<Self, String> {
        Ok(Self::go_on(Model::of(log)?, log.state().committed, seed, rounds, true))
    }

    fn go_on(model: Model, committed: Option<LogId>, seed: u64, rounds: usize, may_purge: bool) -> Self {
        let script = Self {
            acts: Vec::new(),
            hashes: vec![model.hash()],
            committed: committed.into_iter().collect::<BTreeSet<_>>(),
        };
        let term = model.last.map_or(0, |last| last.term().get()) + 1;
        let mut author = Author { rng: SimRng::new(seed), term, may_purge, model, script };
        for _ in 0..rounds {
            for _ in 0..=author.rng.below(3) {
                author.act();
            }
            author.push(Act::Settle);
        }
        author.script
    }

    /// How many records the acts make.
    pub(crate) fn records(&self) -> usize {
        self.hashes.len() - 1
    }

    /// How many records had been made before the last round that made any.
    pub(crate) fn records_before_the_last_round(&self) -> usize {
        let settled =
            self.acts.iter().filter(|(act, _)| matches!(act, Act::Settle)).map(|(_, records)| *records);
        settled.filter(|records| *records < self.records()).max().unwrap_or(0)
    }

    /// Compares a log with the states between the one after `durable` records and the one after `submitted`.
    pub(crate) fn judge(&self, log: &Log, durable: usize, submitted: usize) -> Result<(), String> {
        let state = log.state();
        if let Some(committed) = state.committed
            && !(self.committed.contains(&committed)
                && log.committed_and_held().map_err(|error| error.to_string())? == Some(committed))
        {
            return Err(format!("committed position {committed} was invented"));
        }
        let model = Model::of(log)?;
        let hash = model.hash();
        if self.hashes[durable..=submitted].contains(&hash) {
            return Ok(());
        }
        let matches = self.hashes.iter().position(|known| *known == hash);
        Err(format!(
            "not a state between {durable} and {submitted} records ({matches:?} if any): purged {:?}, last {:?}, \
             {} entries, vote {:?}",
            model.purged,
            model.last,
            model.entries.len(),
            model.vote
        ))
    }
}

impl Author {
    fn push(&mut self, act: Act) {
        let records = self.script.records();
        self.script.acts.push((act, records));
    }

    fn record(&mut self) {
        self.script.hashes.push(self.model.hash());
    }

    fn act(&mut self) {
        match self.rng.below(12) {
            0 => self.vote(),
            1 if !self.model.entries.is_empty() => self.truncate(),
            2 if self.may_purge && !self.model.entries.is_empty() => self.purge(),
            3 if self.may_purge && self.rng.one_in(4) => self.purge_beyond(),
            4 | 5 if self.model.last.is_some() => {
                let committed = self.model.last.expect("just seen");
                self.script.committed.insert(committed);
                self.push(Act::Committed(committed));
            }
            _ => self.append(),
        }
    }

    fn append(&mut self) {
        let mut entries = Vec::new();
        // Mostly small; now and then several blocks.
        let bytes_max = [40, 300, 3000, 25_000][usize::try_from(self.rng.below(4)).expect("small")];
        for _ in 0..=self.rng.below(6) {
            let index = self.model.last.map_or(0, |last| last.index().get() + 1);
            let id = LogId::new(Term::new(self.term), LogIndex::new(index));
            let mut payload = vec![0; usize::try_from(self.rng.below(bytes_max)).expect("small")];
            for chunk in payload.chunks_mut(8) {
                let random = self.rng.next_u64().to_le_bytes();
                chunk.copy_from_slice(&random[..chunk.len()]);
            }
            let payload = Bytes::from(payload);
            self.model.entries.push((id, hash_of(&payload)));
            self.model.last = Some(id);
            self.record();
            entries.push(Entry { id, payload });
        }
        self.push(Act::Append(entries));
    }

    fn vote(&mut self) {
        self.term += 1;
        let vote = Bytes::from(format!("vote-{}", self.term));
        self.model.vote = Some(vote.clone());
        self.record();
        self.push(Act::Vote(vote));
    }

    /// A new leader's entries replace the last few, as after a change of leaders.
    fn truncate(&mut self) {
        self.term += 1;
        // What was committed is never truncated.
        let committed = self.script.committed.iter().map(|id| id.index()).max();
        let free = self.model.entries.iter().filter(|(id, _)| Some(id.index()) > committed).count();
        let count = usize::try_from(self.rng.below(8)).expect("small").min(free);
        let keep = self.model.entries.len() - count;
        let last = keep.checked_sub(1).map(|at| self.model.entries[at].0).or(self.model.purged);
        self.model.truncate(last);
        self.record();
        self.push(Act::Truncate(last));
    }

    fn purge(&mut self) {
        let at = usize::try_from(self.rng.below(self.model.entries.len() as u64)).expect("small");
        let through = self.model.entries[at].0;
        self.model.purge(through);
        self.record();
        self.push(Act::Purge(through));
    }

    fn purge_beyond(&mut self) {
        self.term += 1;
        let index = self.model.last.map_or(0, |last| last.index().get()) + 1 + self.rng.below(20);
        let through = LogId::new(Term::new(self.term), LogIndex::new(index));
        self.model.purge(through);
        self.record();
        self.push(Act::Purge(through));
    }
}
