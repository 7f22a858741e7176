//! One API server's way to the cluster: its connections, the member it asks now, and its transactions, whose outcome is
//! found out when it was not told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use holdfast_proto::mvccpb::KeyValue;
use tonic::transport::Channel;

use super::calls::{self, Expected, Missed, OnFailure, Outcome, Write};
use super::world::{Hold, World, value};
use crate::judge::apiserver::{Swap, Swapped};
use crate::judge::watch::history::Step;

/// How long a cluster may take to answer again.
const PATIENCE: Duration = Duration::from_secs(60);

/// Before a call is tried on the next member.
const PAUSE: Duration = Duration::from_millis(50);

/// One API server.
#[derive(Debug, Clone)]
pub struct Api {
    /// The run.
    pub world: Arc<World>,
    /// Its number.
    pub number: usize,
    channels: Vec<Channel>,
    member: Arc<AtomicUsize>,
}

/// What a key is after a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum After {
    /// Ours took effect at this revision.
    Ours(i64),
    /// Ours did not; this is what there is, if it was shown.
    Theirs(Option<Option<KeyValue>>),
}

impl Api {
    /// The API server `number`, which asks that member first.
    pub fn new(world: Arc<World>, number: usize, channels: Vec<Channel>) -> Self {
        let member = Arc::new(AtomicUsize::new(number % channels.len()));
        Self { world, number, channels, member }
    }

    /// The member that is asked now.
    pub fn member(&self) -> usize {
        self.member.load(Ordering::Relaxed)
    }

    /// A connection to it.
    pub fn channel(&self) -> &Channel {
        &self.channels[self.member()]
    }

    /// A connection to any of them.
    pub fn channel_of(&self, member: usize) -> &Channel {
        &self.channels[member]
    }

    /// Asks another member from now on.
    pub async fn move_on(&self) {
        let next = (self.member() + 1) % self.channels.len();
        self.member.store(next, Ordering::Relaxed);
        tokio::time::sleep(PAUSE).await;
    }

    /// One key at a revision, or now, asked until somebody answers.
    pub async fn get(&self, key: &Bytes, revision: i64) -> Result<(i64, Option<KeyValue>)> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match calls::get(self.channel(), key, revision).await {
                Ok(answer) => {
                    let header = answer.header.as_ref().map_or(0, |header| header.revision);
                    self.world.saw(header);
                    return Ok((header, answer.kvs.into_iter().next()));
                }
                Err(Missed::Compacted) => bail!("{key:?} at {revision} is compacted, which was to be kept"),
                Err(why) if Instant::now() > deadline => bail!("no read: {why:?}"),
                Err(Missed::Broken(_) | Missed::NotThere) => self.move_on().await,
            }
        }
    }

    /// One transaction on a key's revision. What it came to is recorded, also when that had to be found out.
    pub async fn swap(&self, key: &Bytes, expected: i64, write: Write, show: OnFailure) -> Result<After> {
        let hold = self.world.hold();
        let outcome = calls::swap(self.channel(), key, Expected::Mod(expected), &write, show).await;
        let after = match outcome {
            Outcome::Won(revision) => {
                self.won(key, expected, &write, revision);
                After::Ours(revision)
            }
            Outcome::Lost(header, shown) => {
                self.lost(key, expected, header, &shown);
                After::Theirs(shown)
            }
            Outcome::Unknown => {
                self.world.record().counts.unknown += 1;
                self.move_on().await;
                let settled = Settling { api: self, key, expected: Expected::Mod(expected), hold: &hold };
                let found = settled.run(vec![write.clone()]).await?;
                return Ok(self.settled(key, expected, found));
            }
        };
        Ok(after)
    }

    fn settled(&self, key: &Bytes, expected: i64, found: Settled) -> After {
        match found {
            Settled::Applied { revision, write, is_newest } => {
                self.won(key, expected, &write, revision);
                match (is_newest, write) {
                    (true, Write::Put(..)) => After::Ours(revision),
                    (true, Write::Delete) => After::Theirs(Some(None)),
                    (false, _) => After::Theirs(None),
                }
            }
            Settled::Nothing => After::Theirs(None),
        }
    }

    fn won(&self, key: &Bytes, expected: i64, write: &Write, revision: i64) {
        self.world.applied(revision, step(key, write));
        let key = self.world.keys().id(key);
        self.world.record().seen.swaps.push(Swap { key, expected, outcome: Swapped::Won(revision) });
    }

    fn lost(&self, key: &Bytes, expected: i64, header: i64, shown: &Option<Option<KeyValue>>) {
        self.world.saw(header);
        let shown = shown.as_ref().map(|shown| shown.as_ref().map(|pair| self.world.held(pair)));
        let key = self.world.keys().id(key);
        let outcome = Swapped::Lost { header, shown };
        self.world.record().seen.swaps.push(Swap { key, expected, outcome });
    }
}

/// What a write does, for the history.
pub fn step(key: &Bytes, write: &Write) -> Step {
    match write {
        Write::Put(value, _) => Step::Put { key: key.clone(), value: value.clone(), lease: 0 },
        Write::Delete => Step::Delete { key: key.clone(), range_end: Bytes::new() },
    }
}

/// What became of transactions of which at most one can have taken effect, as all expect the same.
#[derive(Debug)]
pub enum Settled {
    /// This one did.
    Applied {
        /// When.
        revision: i64,
        /// What.
        write: Write,
        /// Whether the key has not been changed since, as far as was seen.
        is_newest: bool,
    },
    /// None did, and none will.
    Nothing,
}

/// Finds out what became of a transaction. Asking is not enough, as it may still be on its way; so one more of its kind is
/// sent until one has an outcome: then the key is no longer as expected, and nothing can follow.
pub struct Settling<'a> {
    /// Whose it is.
    pub api: &'a Api,
    /// The key.
    pub key: &'a Bytes,
    /// What all of them expect.
    pub expected: Expected,
    /// Keeps the history that is needed.
    pub hold: &'a Hold<'a>,
}

impl Settling<'_> {
    /// `tried` are those of unknown outcome.
    pub async fn run(&self, mut tried: Vec<Write>) -> Result<Settled> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let fence = Write::Put(value(&self.api.world), 0);
            let channel = self.api.channel();
            match calls::swap(channel, self.key, self.expected, &fence, OnFailure::Show).await {
                Outcome::Won(revision) => {
                    return Ok(Settled::Applied { revision, write: fence, is_newest: true });
                }
                Outcome::Lost(header, shown) => {
                    self.api.world.saw(header);
                    let shown = shown.context("a failed transaction shows its key")?;
                    return self.look_back(&tried, header, shown).await;
                }
                Outcome::Unknown => {
                    tried.push(fence);
                    self.api.move_on().await;
                }
            }
        }
        bail!("no outcome of a transaction on {:?} within {PATIENCE:?}", self.key)
    }

    /// Goes back through the key's past until one of those that were tried is found, or the time before all of them.
    async fn look_back(&self, tried: &[Write], header: i64, shown: Option<KeyValue>) -> Result<Settled> {
        let values: BTreeMap<&Bytes, &Write> = tried
            .iter()
            .filter_map(|write| match write {
                Write::Put(value, _) => Some((value, write)),
                Write::Delete => None,
            })
            .collect();
        let (mut pair, mut is_newest) = (shown, true);
        loop {
            let Some(found) = pair else {
                // Only who owns a key deletes it, so that nobody else has.
                if tried.contains(&Write::Delete) && is_newest {
                    let revision = self.gone_at(header).await?;
                    return Ok(Settled::Applied { revision, write: Write::Delete, is_newest });
                }
                return Ok(Settled::Nothing);
            };
            let revision = found.mod_revision;
            if let Some(write) = values.get(&found.value) {
                return Ok(Settled::Applied { revision, write: (*write).clone(), is_newest });
            }
            if revision <= self.hold.from {
                return Ok(Settled::Nothing);
            }
            is_newest = false;
            pair = self.api.get(self.key, (revision - 1).max(self.hold.from)).await?.1;
        }
    }

    /// When the key was deleted: it was there at the hold's revision, and is not at `header`.
    async fn gone_at(&self, header: i64) -> Result<i64> {
        let (mut there, mut gone) = (self.hold.from, header);
        while gone - there > 1 {
            let middle = there + (gone - there) / 2;
            match self.api.get(self.key, middle).await?.1 {
                Some(_) => there = middle,
                None => gone = middle,
            }
        }
        Ok(gone)
    }
}
