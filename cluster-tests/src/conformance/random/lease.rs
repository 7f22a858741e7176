//! Random calls for leases.
//!
//! Ids are chosen by the client, so that they are the same everywhere; few, so that they are granted again and again. Times
//! are long: what ends by itself ends at another moment in each play, and is not compared here.

use std::collections::BTreeSet;

use rand::RngExt;

use super::Calls;
use super::auth::Who;

/// The ids. Negative ones are ids like others.
const IDS: [i64; 7] = [1, 2, 3, 7, -5, i64::MAX, i64::MIN];

/// No play takes nearly as long.
const SECONDS_MIN: u32 = 3_600;

/// The longest that is granted.
const SECONDS_MAX: i64 = 9_000_000_000;

/// The author's account of the leases there are; rough, as in a refused call it may err.
#[derive(Default)]
pub(super) struct Leases {
    live: BTreeSet<i64>,
}

impl Calls {
    pub(super) fn lease_call(&mut self) -> String {
        if let Who::User(_) = self.who {
            let id = self.lease();
            return format!("LeaseRevoke ID: {id}");
        }
        if self.who == Who::Nameless {
            return self.call();
        }
        let few = self.leases.live.len() < 3;
        match self.rng.random_range(0..100) {
            0..20 => self.grant(),
            20..40 if few => self.grant(),
            20..45 => {
                let id = self.lease();
                self.leases.live.remove(&id);
                format!("LeaseRevoke ID: {id}")
            }
            45..65 => format!("LeaseKeepAlive ID: {}", self.lease()),
            65..90 => {
                let id = self.lease();
                let keys = if self.chance(80) { " keys: true" } else { "" };
                format!("LeaseTimeToLive ID: {id}{keys}")
            }
            _ if self.author.lists_leases => "LeaseLeases".to_owned(),
            _ => self.grant(),
        }
    }

    fn grant(&mut self) -> String {
        let id = IDS[self.rng.random_range(0..IDS.len())];
        let seconds = match self.rng.random_range(0..20) {
            0 => SECONDS_MAX,
            1 => SECONDS_MAX + 1,
            _ => i64::from(SECONDS_MIN + self.rng.random_range(0..SECONDS_MIN)),
        };
        if seconds <= SECONDS_MAX {
            self.leases.live.insert(id);
        }
        format!("LeaseGrant TTL: {seconds} ID: {id}")
    }

    /// A lease: one that there is, most of the time.
    pub(super) fn lease(&mut self) -> i64 {
        let live = &self.leases.live;
        if live.is_empty() || self.rng.random_range(0..100) < 12 {
            return IDS[self.rng.random_range(0..IDS.len())];
        }
        let at = self.rng.random_range(0..live.len());
        live.iter().nth(at).copied().unwrap_or(IDS[0])
    }
}
