//! When operations start: as soon as the last one is done, or by a timetable.
//!
//! With a timetable the latency of an operation counts from the moment it was due. If the server stalls, operations
//! that were due meanwhile start late, and their waiting counts: a client that simply waited for each answer would
//! have left them out, and with them the stall.
//!
//! The timetable is kept by a thread of its own, because the runtime's timers are exact to a millisecond only.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, mpsc};

use crate::error::Error;

/// How fast operations start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Each client starts an operation when its last one is done.
    Closed,
    /// So many a second over all clients, whatever the server does.
    Open(NonZeroU32),
}

/// Due operations that no client has taken; beyond it the thread waits. They keep the moments they were due at.
const DUE_MAX: usize = 4096;

/// When each operation of an open loop is due.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timetable {
    /// The first one.
    pub(crate) start: Instant,
    /// How many in a second.
    pub(crate) per_second: NonZeroU32,
}

impl Timetable {
    /// When the operation with this number is due, without the drift that adding up intervals would have.
    pub(crate) fn due(&self, number: u64) -> Instant {
        let nanos = u128::from(number) * 1_000_000_000 / u128::from(self.per_second.get());
        self.start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How many are due before `until`.
    pub(crate) fn count(&self, until: Instant) -> u64 {
        let nanos =
            until.saturating_duration_since(self.start).as_nanos() * u128::from(self.per_second.get());
        u64::try_from(nanos.div_ceil(1_000_000_000)).unwrap_or(u64::MAX)
    }
}

/// Gives each client the moment its next operation counts from.
#[derive(Clone)]
pub(crate) enum Starts {
    /// Now, until the end.
    Closed {
        /// No operation starts from here on.
        end: Instant,
    },
    /// As the timetable says.
    Open(Arc<Mutex<mpsc::Receiver<Instant>>>),
}

impl Starts {
    /// The moment from which the next operation's latency counts; `None` when the load is over.
    pub(crate) async fn next(&self) -> Option<Instant> {
        match self {
            Self::Closed { end } => Some(Instant::now()).filter(|now| now < end),
            Self::Open(due) => due.lock().await.recv().await,
        }
    }
}

/// The thread behind an open loop; ended and awaited when dropped.
pub(crate) struct Pacer {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Drop for Pacer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It cannot panic: it sleeps and sends.
            drop(thread.join());
        }
    }
}

/// Starts at the given pace, from now on and for `duration`. The pacer must live as long as the load.
pub(crate) fn begin(pace: Pace, duration: Duration) -> Result<(Starts, Option<Pacer>), Error> {
    let now = Instant::now();
    let end = now + duration;
    let Pace::Open(per_second) = pace else { return Ok((Starts::Closed { end }, None)) };
    let timetable = Timetable { start: now, per_second };
    let (sender, receiver) = mpsc::channel(DUE_MAX);
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let thread = thread::Builder::new()
        .name("pacer".to_owned())
        .spawn(move || keep(timetable, end, &sender, &stopped))
        .map_err(Error::io("start a thread"))?;
    Ok((Starts::Open(Arc::new(Mutex::new(receiver))), Some(Pacer { stop, thread: Some(thread) })))
}

fn keep(timetable: Timetable, end: Instant, due: &mpsc::Sender<Instant>, stop: &AtomicBool) {
    for number in 0..timetable.count(end) {
        let at = timetable.due(number);
        thread::sleep(at.saturating_duration_since(Instant::now()));
        let mut unsent = at;
        // Full means that the clients are far behind; what is due stays due.
        while let Err(refused) = due.try_send(unsent) {
            let mpsc::error::TrySendError::Full(back) = refused else { return };
            if stop.load(Ordering::Relaxed) {
                return;
            }
            unsent = back;
            thread::sleep(Duration::from_millis(1));
        }
        if stop.load(Ordering::Relaxed) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::Latencies;

    fn per_second(rate: u32) -> NonZeroU32 {
        NonZeroU32::new(rate).unwrap()
    }

    #[test]
    fn a_timetable_does_not_drift() {
        let start = Instant::now();
        let timetable = Timetable { start, per_second: per_second(300) };
        assert_eq!(timetable.due(0), start);
        assert_eq!(timetable.due(3_000_000), start + Duration::from_secs(10_000));
        assert_eq!(timetable.count(start), 0);
        assert_eq!(timetable.count(start + Duration::from_secs(10)), 3000);
        assert_eq!(timetable.count(start + Duration::from_millis(4)), 2, "due at 0 and at 3.3 ms");
    }

    #[tokio::test]
    async fn what_waits_behind_a_stall_counts_its_waiting() {
        let start = Instant::now();
        let timetable = Timetable { start, per_second: per_second(1000) };
        let (sender, receiver) = mpsc::channel(DUE_MAX);
        for number in 0..100 {
            sender.try_send(timetable.due(number)).unwrap();
        }
        drop(sender);
        let starts = Starts::Open(Arc::new(Mutex::new(receiver)));
        // One client; the server stalls for 100 ms, then answers at once. All 100 were due by then.
        let answered = start + Duration::from_millis(100);
        let mut latencies = Latencies::new();
        while let Some(due) = starts.next().await {
            latencies.record(answered - due);
        }
        let found = latencies.percentiles();
        assert_eq!(latencies.count(), 100);
        assert!((50_000..=51_100).contains(&found.p50_us), "{found:?}");
        assert!(found.max_us >= 100_000, "{found:?}");
    }

    #[tokio::test]
    async fn an_open_loop_hands_out_every_start_once() {
        let (starts, pacer) = begin(Pace::Open(per_second(2000)), Duration::from_millis(50)).unwrap();
        let mut due = Vec::new();
        while let Some(at) = starts.next().await {
            due.push(at);
        }
        drop(pacer);
        assert_eq!(due.len(), 100);
        assert!(due.is_sorted());
        assert_eq!(due[99] - due[0], Duration::from_micros(49_500));
    }

    #[tokio::test]
    async fn a_closed_loop_ends() {
        let (starts, pacer) = begin(Pace::Closed, Duration::ZERO).unwrap();
        assert!(pacer.is_none());
        assert_eq!(starts.next().await, None);
    }
}
