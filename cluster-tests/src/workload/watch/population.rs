//! Which watchers there are and how they share streams, from the seed.

use std::time::Duration;

use bytes::Bytes;
use rand::RngExt;
use rand::rngs::StdRng;

use super::writers::{SLOTS, slot_key};
use crate::judge::watch::record::Wish;

/// Where a watcher's life begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beginning {
    /// From now on.
    Now,
    /// So many revisions ago, compacted or not.
    Past(i64),
    /// In so many revisions.
    Future(i64),
}

/// How a stream's client behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Temper {
    /// It stops reading for seconds.
    pub is_slow: bool,
    /// It has the stream ended when the member has no leader.
    pub needs_leader: bool,
    /// It chooses the ids of its watchers.
    pub chooses_ids: bool,
}

/// The watchers of one stream: their numbers in the run, and what they want.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The stream's number.
    pub number: usize,
    /// Its behaviour.
    pub temper: Temper,
    /// How long the client stays on one stream at most, in milliseconds.
    pub stay_ms_max: u64,
    /// Its watchers.
    pub watchers: Vec<(usize, Wish)>,
}

/// Who watches, and whom.
#[derive(Debug, Clone, Copy)]
pub struct Crowd {
    /// Watchers.
    pub watchers: usize,
    /// Writers whose keys they watch.
    pub writers: usize,
    /// How long the run goes on.
    pub duration: Duration,
}

/// Divides the watchers among streams of one to twenty-four.
pub fn plan(rng: &mut StdRng, crowd: Crowd) -> Vec<Plan> {
    let Crowd { watchers, writers, duration } = crowd;
    let mut plans = Vec::new();
    let mut placed = 0;
    // A small crowd comes and goes as often as a large one in its longer time.
    let size_max = (watchers / 8).clamp(1, 24);
    let stay = (duration / 4).clamp(Duration::from_secs(1), Duration::from_secs(40));
    let stay_ms_max = u64::try_from(stay.as_millis()).unwrap_or(u64::MAX);
    while placed < watchers {
        let size = rng.random_range(1..=size_max).min(watchers - placed);
        let number = plans.len();
        let temper = Temper {
            is_slow: number % 6 == 5,
            needs_leader: number % 4 == 1,
            chooses_ids: rng.random_bool(0.5),
        };
        let wishes = (placed..placed + size).map(|watcher| (watcher, wish(rng, writers)));
        plans.push(Plan { number, temper, stay_ms_max, watchers: wishes.collect() });
        placed += size;
    }
    plans
}

/// Where a life begins.
pub fn beginning(rng: &mut StdRng) -> Beginning {
    match rng.random_range(0..10) {
        0..4 => Beginning::Now,
        4..8 => Beginning::Past(rng.random_range(0..4_000)),
        _ => Beginning::Future(rng.random_range(1..600)),
    }
}

fn wish(rng: &mut StdRng, writers: usize) -> Wish {
    let (key, range_end) = range(rng, writers);
    let filter = rng.random_range(0..10);
    Wish {
        key,
        range_end,
        no_puts: filter == 0,
        no_deletes: filter == 1,
        prev_kv: rng.random_bool(0.4),
        progress_notify: rng.random_bool(0.4),
        fragment: rng.random_bool(0.3),
    }
}

/// Single keys, prefixes of a key's generations and of a writer, groups, spans of writers, and everything.
fn range(rng: &mut StdRng, writers: usize) -> (Bytes, Bytes) {
    let writer = rng.random_range(0..writers);
    let slot = rng.random_range(0..SLOTS);
    let prefix = |text: String| (Bytes::from(format!("{text}/")), Bytes::from(format!("{text}0")));
    match rng.random_range(0..100) {
        0..25 => (slot_key(writer, slot, 0), Bytes::new()),
        25..55 => prefix(format!("data/{writer:02}/{slot:02}")),
        55..65 => prefix(format!("data/{writer:02}/group")),
        65..85 => prefix(format!("data/{writer:02}")),
        85..95 => {
            let end = rng.random_range(writer..writers) + 1;
            (slot_key(writer, slot, 0), slot_key(end, slot, 0))
        }
        95..98 => (slot_key(writer, slot, 0), Bytes::from_static(b"\0")),
        _ => (Bytes::from_static(b"\0"), Bytes::from_static(b"\0")),
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn every_watcher_has_one_place_and_a_seed_repeats_it() {
        let crowd = Crowd { watchers: 500, writers: 8, duration: Duration::from_secs(600) };
        let plans = |seed| plan(&mut StdRng::seed_from_u64(seed), crowd);
        let first = plans(3);
        let numbers: Vec<usize> =
            first.iter().flat_map(|plan| plan.watchers.iter().map(|(number, _)| *number)).collect();
        assert_eq!(numbers, (0..500).collect::<Vec<_>>());
        assert!(
            first.iter().any(|plan| plan.temper.is_slow) && first.iter().any(|plan| plan.temper.needs_leader)
        );
        let wishes = |plans: &[Plan]| plans.iter().flat_map(|plan| plan.watchers.clone()).collect::<Vec<_>>();
        assert_eq!(wishes(&first), wishes(&plans(3)));
        assert_ne!(wishes(&first), wishes(&plans(4)));
    }
}
