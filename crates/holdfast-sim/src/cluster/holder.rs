//! Clients that hold leases: each grants one, attaches keys to it, keeps it alive for a while through any member, and then
//! revokes it or lets it die. An id that was revoked is often granted again at once, so that what comes late for the old
//! lease meets the new one.

use std::time::Duration;

use bytes::Bytes;
use holdfast_mvcc::command::{Command, LeaseGrant, Refusal};
use holdfast_mvcc::types::LeaseId;
use tokio::time::Instant;

use super::history::{History, LeasePlace};
use super::life::Life;
use super::member::Machines;
use super::workload::Client;
use crate::world::SimRng;

/// The longest time to live that is granted, in seconds.
pub(super) const TTL_SECONDS_MAX: u64 = 3;
/// The budget of one operation.
const BUDGET: Duration = Duration::from_secs(2);
/// Keys of one lease, at most.
const KEYS_MAX: u64 = 3;
/// How often a lease is kept alive, at most.
const ROUNDS_MAX: u64 = 6;
/// Upper end of the pause before the next lease, in milliseconds.
const PAUSE_MS_MAX: u64 = 500;
/// Clients of holders count from here.
const CLIENTS: usize = 2_000;

/// One holder: one lease after the other.
pub(super) struct Holder {
    number: usize,
    granted: u64,
    /// The id for the next lease, when it is to be one that was revoked.
    again: Option<LeaseId>,
    rng: SimRng,
    machines: Machines,
    history: History,
    client: Client,
}

impl Holder {
    /// A holder with its own random source.
    pub(super) fn new(number: usize, seed: u64, machines: Machines) -> Self {
        let (rng, history) = (SimRng::new(seed), machines.history().clone());
        let client = Client::new(CLIENTS + number, !seed, machines.clone());
        Self { number, granted: 0, again: None, rng, machines, history, client }
    }

    /// Holds leases until `end`.
    pub(super) async fn run_until(mut self, end: Instant) {
        while Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(self.rng.below(PAUSE_MS_MAX))).await;
            if let Some((place, id, ttl)) = self.grant().await {
                self.attach(place, id).await;
                self.keep(place, id, ttl, end).await;
                self.revoke(place, id).await;
            }
        }
    }

    fn anywhere(&self) -> Option<Life> {
        self.machines.life(self.rng.pick(&self.machines.taken()))
    }

    async fn grant(&mut self) -> Option<(LeasePlace, LeaseId, Duration)> {
        let life = self.anywhere()?;
        self.granted += 1;
        let fresh = (self.number as u64) << 32 | self.granted;
        // One that was not acknowledged may still be granted: its id is left alone, and it has to die.
        let id = self.again.take().unwrap_or(LeaseId(i64::try_from(fresh).unwrap_or(i64::MAX)));
        let ttl_seconds = 1 + self.rng.below(TTL_SECONDS_MAX);
        let asked = Instant::now();
        let grant = Command::LeaseGrant(LeaseGrant { id, ttl_seconds });
        let answer = life.until_crash(life.node.propose(grant, BUDGET)).await;
        let is_granted = matches!(&answer, Some(Ok(answer)) if answer.outcome.response.is_ok());
        self.history.trace(("grant", id, ttl_seconds, is_granted));
        let ttl = Duration::from_secs(ttl_seconds);
        is_granted.then(|| (self.history.granted(asked + ttl), id, ttl))
    }

    async fn attach(&mut self, place: LeasePlace, id: LeaseId) {
        for _ in 0..=self.rng.below(KEYS_MAX) {
            let Some(life) = self.anywhere() else { continue };
            let key =
                Bytes::from(format!("lease-{}-{}-{}", self.number, self.granted, self.rng.below(1 << 40)));
            // Known before it is written: it may be there although its writer is not told so.
            self.history.attaching(place, key.clone());
            if self.client.put_attached(&life, key.clone(), id).await {
                self.history.attached(place, &key);
            }
        }
    }

    /// Keeps it alive, at times that are as far apart as it may live, or almost.
    async fn keep(&mut self, place: LeasePlace, id: LeaseId, ttl: Duration, end: Instant) {
        let pause_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        for _ in 0..self.rng.below(ROUNDS_MAX) {
            tokio::time::sleep(Duration::from_millis(self.rng.below(pause_ms))).await;
            if Instant::now() >= end {
                return;
            }
            let Some(life) = self.anywhere() else { continue };
            let asked = Instant::now();
            let answer = life.until_crash(life.node.keep_alive(id, BUDGET)).await;
            self.history.trace(("keep alive", id, answer.as_ref().map(|answer| answer.as_ref().ok())));
            match answer {
                Some(Ok(Some(_))) => self.history.renewed(place, asked + ttl),
                Some(Ok(None)) => return self.history.told_gone(place),
                Some(Err(_)) | None => {}
            }
        }
    }

    /// Revokes it, often at about the time at which it would end; or does not, and it has to die.
    async fn revoke(&mut self, place: LeasePlace, id: LeaseId) {
        if self.rng.one_in(2) {
            return;
        }
        if self.rng.one_in(2) {
            let around = Duration::from_millis(self.rng.below(300));
            tokio::time::sleep_until(self.history.alive_until(place) + around).await;
        }
        let Some(life) = self.anywhere() else { return };
        self.history.revoking(place);
        let answer = life.until_crash(life.node.propose(Command::LeaseRevoke(id), BUDGET)).await;
        let is_gone = match &answer {
            Some(Ok(answer)) => {
                matches!(answer.outcome.response, Ok(_) | Err(Refusal::LeaseNotFound { .. }))
            }
            Some(Err(_)) | None => false,
        };
        self.history.trace(("revoke", id, is_gone));
        self.again = (is_gone && self.rng.one_in(2)).then_some(id);
    }
}
