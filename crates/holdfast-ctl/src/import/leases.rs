//! Leases: those of the source on the target, under the same ids.
//!
//! A lease of the source is granted on the target with the id and the time to live that it was granted there, and kept
//! alive for as long as it lives on the source. So after the switch whoever holds it keeps it alive by the same id. Its
//! keys do not end with it on the target before their deletes are applied as the events that they are on the source: a
//! lease that is over there is revoked here once all that it took with it has been applied.
//!
//! A lease that is over on the source may still stand in what is to be applied. It is granted once more then, for
//! [`DEAD_LEASE_SECONDS`], and not kept alive: the deletes of its keys come behind, and would be made by itself if not.
//!
//! The one thing that cannot be made good from events: a lease that ends on the target because nobody kept it alive, while
//! it lives on. Its keys are gone here and no event brings them back. [`Leases::has_lapsed`] tells, and everything is
//! compared again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::fault::Fault;
use super::flags::{
    DEAD_LEASE_SECONDS, LEASE_ROUND, LEASES_AT_ONCE, LEASES_BEFORE_RENEWAL, RENEWALS_PER_TTL,
};
use super::ranges::Ranges;
use super::remote::{Grant, LeaseState, Remote};
use super::writer::joined;

/// What is done about a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Care {
    /// It lives on the source, and is kept alive.
    Kept,
    /// It is over there, and is revoked here when this revision of the source has been applied.
    Ending(i64),
    /// It was over before it was known, and ends by itself.
    Dead,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    care: Care,
    ttl: Duration,
    renewed: Instant,
}

/// The leases that the target has from the source.
#[derive(Debug)]
pub(crate) struct Leases {
    source: Remote,
    target: Remote,
    /// All of the source's are held, or those alone that imported keys have.
    is_everything: bool,
    /// By id. Taken for a moment at a time, never across a call.
    held: Mutex<BTreeMap<i64, Held>>,
    /// Ids that the target did not know although they were held.
    missed: Mutex<BTreeSet<i64>>,
    /// The source's revision that the target has; written by who applies.
    applied: AtomicI64,
    has_lapsed: AtomicBool,
}

impl Leases {
    pub(crate) fn new(source: &Remote, target: &Remote, ranges: &Ranges) -> Self {
        Self {
            source: source.clone(),
            target: target.clone(),
            is_everything: ranges.is_everything(),
            held: Mutex::default(),
            missed: Mutex::default(),
            applied: AtomicI64::new(0),
            has_lapsed: AtomicBool::new(false),
        }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.held().values().filter(|held| held.care == Care::Kept).count()
    }

    /// The shortest time to live of those that are kept alive.
    pub(crate) fn shortest(&self) -> Option<Duration> {
        self.held().values().filter(|held| held.care == Care::Kept).map(|held| held.ttl).min()
    }

    /// Tells up to which revision of the source the target is.
    pub(crate) fn set_applied(&self, revision: i64) {
        self.applied.store(revision, Ordering::Relaxed);
    }

    /// Whether one has ended on the target that lives on the source; asked once, it is no longer told.
    pub(crate) fn has_lapsed(&self) -> bool {
        self.has_lapsed.swap(false, Ordering::Relaxed)
    }

    /// Sees to it that the target has these.
    pub(crate) async fn ensure(&self, ids: &BTreeSet<i64>) -> Result<(), Fault> {
        let unknown: Vec<i64> = {
            let held = self.held();
            ids.iter().filter(|id| !held.contains_key(id)).copied().collect()
        };
        self.take_over(unknown, false).await.map(drop)
    }

    /// These are not on the target, contrary to what was thought.
    pub(crate) fn forget(&self, ids: &BTreeSet<i64>) {
        let mut held = self.held();
        for id in ids {
            if held.remove(id).is_some_and(|held| held.care == Care::Kept) {
                self.missed().insert(*id);
            }
        }
    }

    /// Takes all leases over that the source has now, at the start of an import that goes on. Whether one of them with keys
    /// that are imported was not on the target: it may have ended there meanwhile.
    pub(crate) async fn resume(&self, ranges: &Ranges) -> Result<bool, Fault> {
        let mut is_missed = false;
        for some in self.source.leases().await?.chunks(LEASES_BEFORE_RENEWAL) {
            let granted = self.take_over(some.to_vec(), true).await?;
            is_missed |= granted.iter().any(|state| state.keys.iter().any(|key| ranges.cover(key)));
            self.renew().await?;
        }
        Ok(is_missed)
    }

    /// Grants leases of the source on the target; what was new there.
    async fn take_over(&self, ids: Vec<i64>, with_keys: bool) -> Result<Vec<LeaseState>, Fault> {
        let (mut left, mut under_way, mut new) = (ids.into_iter(), JoinSet::new(), Vec::new());
        loop {
            while under_way.len() < LEASES_AT_ONCE
                && let Some(id) = left.next()
            {
                under_way.spawn(grant(self.source.clone(), self.target.clone(), id, with_keys));
            }
            let Some(done) = under_way.join_next().await else { return Ok(new) };
            let (id, grant, state) = joined(done)??;
            let is_alive = state.is_some();
            let was_missed = self.missed().remove(&id);
            if is_alive && was_missed && grant == Grant::New {
                self.has_lapsed.store(true, Ordering::Relaxed);
            }
            self.hold(id, grant, state.as_ref());
            new.extend(state.filter(|_| grant == Grant::New));
        }
    }

    fn hold(&self, id: i64, grant: Grant, state: Option<&LeaseState>) {
        let seconds = state.map_or(DEAD_LEASE_SECONDS, |state| state.granted);
        let ttl = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let care = if state.is_some() { Care::Kept } else { Care::Dead };
        let now = Instant::now();
        // Nobody knows how much time is left to one that was there before.
        let renewed = if grant == Grant::New { Some(now) } else { now.checked_sub(ttl) };
        self.held().insert(id, Held { care, ttl, renewed: renewed.unwrap_or(now) });
    }

    /// Looks after the leases until a call fails, which it returns.
    pub(crate) async fn keep(&self) -> Fault {
        let mut ticks = tokio::time::interval(LEASE_ROUND);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(fault) = self.round().await {
                return fault;
            }
        }
    }

    /// New ones are granted, those that live are kept alive, those that are over are ended.
    pub(crate) async fn round(&self) -> Result<(), Fault> {
        let there: BTreeSet<i64> = self.source.leases().await?.into_iter().collect();
        if self.is_everything {
            let ids: Vec<i64> = there.iter().copied().collect();
            for some in ids.chunks(LEASES_BEFORE_RENEWAL) {
                self.ensure(&some.iter().copied().collect()).await?;
                self.renew().await?;
            }
        }
        self.renew().await?;
        let gone: Vec<i64> = {
            let mut held = self.held();
            let mut gone = Vec::new();
            for (id, held) in held.iter_mut() {
                match held.care {
                    Care::Kept if !there.contains(id) => gone.push(*id),
                    // Granted anew under the same id.
                    Care::Ending(_) | Care::Dead if there.contains(id) => held.care = Care::Kept,
                    Care::Kept | Care::Ending(_) | Care::Dead => {}
                }
            }
            gone
        };
        self.part(gone).await?;
        self.end().await
    }

    async fn renew(&self) -> Result<(), Fault> {
        self.renew_those(|held| held.renewed.elapsed() + LEASE_ROUND >= held.ttl / RENEWALS_PER_TTL).await
    }

    /// Gives each of them all of its time.
    pub(crate) async fn renew_all(&self) -> Result<(), Fault> {
        self.renew_those(|_| true).await
    }

    async fn renew_those(&self, is_late: impl Fn(&Held) -> bool) -> Result<(), Fault> {
        let (begun, due): (Instant, Vec<i64>) = {
            let is_due = |held: &Held| matches!(held.care, Care::Kept | Care::Ending(_)) && is_late(held);
            let held = self.held();
            let due = held.iter().filter(|(_, held)| is_due(held)).map(|(id, _)| *id).collect();
            (Instant::now(), due)
        };
        let over: BTreeSet<i64> = self.target.keep_alive(&due).await?.into_iter().collect();
        {
            let mut held = self.held();
            for id in due {
                if let Some(held) = held.get_mut(&id) {
                    held.renewed = begun;
                }
            }
        }
        self.forget(&over);
        // Those that live on the source are granted again, and are known to have been missed.
        self.ensure(&over).await
    }

    /// These are not in the source's list: of a member that may be behind, so each is asked for by itself.
    async fn part(&self, ids: Vec<i64>) -> Result<(), Fault> {
        let mut over = Vec::new();
        for id in ids.into_iter().take(LEASES_BEFORE_RENEWAL) {
            if self.source.lease_state(id, false).await?.is_none() {
                over.push(id);
            }
        }
        if over.is_empty() {
            return Ok(());
        }
        let (_, revision) = self.source.now().await?;
        let mut held = self.held();
        for id in over {
            if let Some(held) = held.get_mut(&id) {
                held.care = Care::Ending(revision);
            }
        }
        Ok(())
    }

    async fn end(&self) -> Result<(), Fault> {
        let applied = self.applied.load(Ordering::Relaxed);
        let due: Vec<i64> = {
            let is_due = |held: &Held| matches!(held.care, Care::Ending(at) if at <= applied);
            let mut held = self.held();
            // They have ended by themselves, and are granted once more if they are met again.
            held.retain(|_, held| held.care != Care::Dead || held.renewed.elapsed() < 2 * held.ttl);
            let due = held.iter().filter(|(_, held)| is_due(held)).map(|(id, _)| *id);
            due.take(LEASES_BEFORE_RENEWAL).collect()
        };
        for id in due {
            // What is attached now was attached by others, or to one that was granted anew: theirs to end.
            let has_keys =
                self.target.lease_state(id, true).await?.is_some_and(|state| !state.keys.is_empty());
            if !has_keys {
                self.target.revoke(id).await?;
            }
            self.held().remove(&id);
        }
        Ok(())
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<i64, Held>> {
        self.held.lock().expect("nobody panics with this lock")
    }

    fn missed(&self) -> MutexGuard<'_, BTreeSet<i64>> {
        self.missed.lock().expect("nobody panics with this lock")
    }
}

/// Grants one lease of the source on the target; its state there, if it lives.
async fn grant(
    source: Remote,
    target: Remote,
    id: i64,
    with_keys: bool,
) -> Result<(i64, Grant, Option<LeaseState>), Fault> {
    let state = source.lease_state(id, with_keys).await?;
    let ttl = state.as_ref().map_or(DEAD_LEASE_SECONDS, |state| state.granted);
    Ok((id, target.grant(id, ttl).await?, state))
}
