//! Writers with keys of their own: puts, deletes, transactions, deletes of whole groups, at a steady pace.
//!
//! A writer knows the state of its keys at all times. After an outcome that it does not know it never touches those
//! keys again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use super::calls::{Fate, carry_out};
use super::shared::Shared;
use crate::judge::watch::history::Step;

/// Keys of one writer that are written one by one.
pub const SLOTS: usize = 12;

/// Keys of a group at most.
const GROUP_KEYS_MAX: usize = 16;

/// Pause after a command that failed.
const PAUSE: Duration = Duration::from_millis(50);

/// The load.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Concurrent writers.
    pub writers: usize,
    /// Commands a second, of all writers together.
    pub rate: u32,
    /// Bytes of a value at most.
    pub value_bytes_max: usize,
}

/// A command as its writer saw it.
#[derive(Debug, Clone, Copy)]
pub struct Written {
    /// What came of it.
    pub fate: Fate,
    /// When that was known, since the run began.
    pub ended: Duration,
}

/// Running writers.
#[derive(Debug)]
pub struct Writers {
    tasks: JoinSet<(usize, Vec<Written>)>,
    stop: Arc<AtomicBool>,
}

impl Writers {
    /// Starts them.
    pub fn start(shared: &Arc<Shared>, channels: &[Channel], load: Load) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for number in 0..load.writers {
            let writer = Writer {
                number,
                rng: shared.rng("writer", number),
                shared: Arc::clone(shared),
                value_bytes_max: load.value_bytes_max,
                slots: vec![Slot::default(); SLOTS],
                group: Slot::default(),
                written: Vec::new(),
            };
            let pace =
                Duration::from_secs(1) * u32::try_from(load.writers).unwrap_or(u32::MAX) / load.rate.max(1);
            tasks.spawn(writer.run(channels.to_vec(), pace, Arc::clone(&stop)));
        }
        Self { tasks, stop }
    }

    /// Stops them and gives their commands, by writer.
    pub async fn stop(mut self) -> Result<Vec<Vec<Written>>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        while let Some(written) = self.tasks.join_next().await {
            all.push(written.context("a writer panicked")?);
        }
        all.sort_by_key(|(number, _)| *number);
        Ok(all.into_iter().map(|(_, written)| written).collect())
    }
}

/// A key that is given up for a new one when its state is not known.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    generation: usize,
    exists: bool,
}

struct Writer {
    number: usize,
    rng: StdRng,
    shared: Arc<Shared>,
    value_bytes_max: usize,
    slots: Vec<Slot>,
    /// The group's keys are put together and deleted together.
    group: Slot,
    written: Vec<Written>,
}

/// What a command touches.
enum Touched {
    /// These slots; whether each exists afterwards.
    Slots(Vec<(usize, bool)>),
    /// The group; whether it exists afterwards.
    Group(bool),
}

impl Writer {
    async fn run(
        mut self,
        channels: Vec<Channel>,
        pace: Duration,
        stop: Arc<AtomicBool>,
    ) -> (usize, Vec<Written>) {
        let mut member = self.number % channels.len();
        let mut tick = tokio::time::interval(pace);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !stop.load(Ordering::Relaxed) {
            tick.tick().await;
            let (steps, touched) = self.command();
            self.carry_out(&channels[member], steps, &touched).await;
            if self.written.last().is_some_and(|last| last.fate == Fate::Unknown) {
                member = (member + 1) % channels.len();
                tokio::time::sleep(PAUSE).await;
            }
        }
        (self.number, self.written)
    }

    async fn carry_out(&mut self, channel: &Channel, steps: Vec<Step>, touched: &Touched) {
        self.shared.chronicle().begin(&steps);
        let fate = carry_out(channel, &steps).await;
        self.shared.chronicle().end(&steps, fate);
        if let Fate::At(revision) = fate {
            self.shared.saw(revision);
            if matches!(steps.as_slice(), [Step::Delete { .. }]) {
                self.shared.saw_delete(revision);
            }
        }
        self.settle(touched, fate);
        self.written.push(Written { fate, ended: self.shared.elapsed() });
    }

    /// Brings the known state up to date; keys of an unknown outcome are given up.
    fn settle(&mut self, touched: &Touched, fate: Fate) {
        let after = |slot: &mut Slot, exists: bool| match fate {
            Fate::At(_) => slot.exists = exists,
            Fate::Nothing => slot.exists = false,
            Fate::Unknown => *slot = Slot { generation: slot.generation + 1, exists: false },
        };
        match touched {
            Touched::Slots(slots) => {
                slots.iter().for_each(|(at, exists)| after(&mut self.slots[*at], *exists));
            }
            Touched::Group(exists) => after(&mut self.group, *exists),
        }
    }

    fn command(&mut self) -> (Vec<Step>, Touched) {
        let slot = self.rng.random_range(0..SLOTS);
        match self.rng.random_range(0..100) {
            0..45 => self.one(slot, true),
            45..62 => self.one(slot, !self.slots[slot].exists),
            62..90 => self.several(slot),
            _ if self.group.exists => {
                let key = group_key(self.number, self.group.generation, "");
                let range_end = group_key(self.number, self.group.generation, "~");
                (vec![Step::Delete { key, range_end }], Touched::Group(false))
            }
            _ => {
                let count = self.rng.random_range(2..=GROUP_KEYS_MAX);
                let generation = self.group.generation;
                let steps = (0..count).map(|at| {
                    let key = group_key(self.number, generation, &format!("{at:02}"));
                    Step::Put { key, value: self.value(at), lease: 0 }
                });
                (steps.collect(), Touched::Group(true))
            }
        }
    }

    fn one(&mut self, slot: usize, put: bool) -> (Vec<Step>, Touched) {
        (vec![self.step(slot, put)], Touched::Slots(vec![(slot, put)]))
    }

    /// A transaction on two to five slots from `first` on, the first of them put.
    fn several(&mut self, first: usize) -> (Vec<Step>, Touched) {
        let count = self.rng.random_range(2..=5);
        let slots: Vec<(usize, bool)> = (0..count)
            .map(|offset| {
                let slot = (first + offset) % SLOTS;
                (slot, offset == 0 || !self.slots[slot].exists || self.rng.random_bool(0.6))
            })
            .collect();
        let steps = slots.iter().map(|(slot, put)| self.step(*slot, *put)).collect();
        (steps, Touched::Slots(slots))
    }

    fn step(&mut self, slot: usize, put: bool) -> Step {
        let key = slot_key(self.number, slot, self.slots[slot].generation);
        if put {
            Step::Put { key, value: self.value(slot), lease: 0 }
        } else {
            Step::Delete { key, range_end: Bytes::new() }
        }
    }

    /// Names its writer, command and place, so that no value is ever repeated.
    fn value(&mut self, place: usize) -> Bytes {
        let mut value = format!("{:02}/{:07}/{place:02}/", self.number, self.written.len()).into_bytes();
        let length = self.rng.random_range(value.len()..=self.value_bytes_max.max(value.len()));
        value.resize(length, b'.');
        value.into()
    }
}

/// A key of one writer; a later generation when the one before was given up.
pub fn slot_key(writer: usize, slot: usize, generation: usize) -> Bytes {
    format!("data/{writer:02}/{slot:02}/{generation:03}").into()
}

fn group_key(writer: usize, generation: usize, key: &str) -> Bytes {
    format!("data/{writer:02}/group/{generation:03}/{key}").into()
}
