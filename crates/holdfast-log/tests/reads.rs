//! Reads give what the log holds, whatever part of it is in memory, on its way to the disk, or on the disk.

mod common;

use std::sync::Arc;

use common::{append, config, done, entry, env, id};
use holdfast_env::{BoxFuture, Env, LogIndex, OsRng, Rng, Spawn, TaskHandle};
use holdfast_log::{Entry, Log};

/// Never runs what it is given: a disk that never answers.
struct Stalled;

impl Spawn for Stalled {
    fn task(&self, name: &str, _: BoxFuture<'static, ()>) -> TaskHandle {
        TaskHandle::new(name, tokio::sync::oneshot::channel().1)
    }
    fn dedicated(&self, name: &str, future: BoxFuture<'static, ()>) -> TaskHandle {
        self.task(name, future)
    }
    fn halt(&self, reason: &str) {
        panic!("{reason}");
    }
}

/// Reads every range and compares it with the entries that there should be; the first has index `first`.
fn check_all_ranges(log: &Log, expected: &[Entry], first: u64) {
    let end = first + expected.len() as u64;
    for from in first..=end {
        for to in from..=end {
            let range =
                usize::try_from(from - first).expect("small")..usize::try_from(to - first).expect("small");
            let got =
                log.read(LogIndex::new(from), LogIndex::new(to), usize::MAX).expect("the log is readable");
            assert_eq!(got, expected[range], "{from}..{to}");
        }
    }
}

// The first cluster stopped here: a read from memory walked the files too, up to entries not written yet.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_queued_is_read_from_memory_and_the_rest_from_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(&env(), config(dir.path())).unwrap();
    let mut expected: Vec<_> = (0..10).map(|index| entry(1, index, 900)).collect();
    append(&log, expected.clone()).await;
    log.shutdown().await;

    let stalled = Env { spawn: Arc::new(Stalled), ..env() };
    let log = Log::open(&stalled, config(dir.path())).unwrap();
    check_all_ranges(&log, &expected, 0);
    for round in 0..3 {
        expected.truncate(10 - round);
        log.truncate_after(expected.last().map(|entry| entry.id)).unwrap();
        check_all_ranges(&log, &expected, 0);
        let index = expected.len() as u64;
        let more: Vec<_> = (index..index + 4).map(|index| entry(2 + round as u64, index, 50)).collect();
        expected.extend(more.clone());
        log.append(more, done().0).unwrap();
        check_all_ranges(&log, &expected, 0);
    }
    log.purge(id(1, 3)).unwrap();
    check_all_ranges(&log, &expected[4..], 4);
    log.purge(id(9, 100)).unwrap();
    let fresh = [entry(9, 101, 10), entry(9, 102, 10)];
    log.append(fresh.to_vec(), done().0).unwrap();
    check_all_ranges(&log, &fresh, 101);
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_are_right_while_everything_moves() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(&env(), config(dir.path())).unwrap();
    let below = |bound: u64| OsRng.next_u64() % bound;
    let (mut expected, mut first, mut term): (Vec<Entry>, u64, u64) = (Vec::new(), 0, 1);
    for _ in 0..3000 {
        let next = first + expected.len() as u64;
        match below(20) {
            0 if expected.len() > 1 => {
                term += 1;
                let keep = expected.len() - usize::try_from(below(6)).unwrap().min(expected.len() - 1);
                expected.truncate(keep);
                log.truncate_after(expected.last().map(|entry| entry.id)).unwrap();
            }
            1 if expected.len() > 80 => {
                let count = usize::try_from(below(60)).unwrap();
                log.purge(expected[count].id).unwrap();
                first += count as u64 + 1;
                expected.drain(..=count);
            }
            2 => tokio::task::yield_now().await,
            _ => {
                let more: Vec<_> = (next..next + 1 + below(3))
                    .map(|index| entry(term, index, usize::try_from(below(1500)).unwrap()))
                    .collect();
                expected.extend(more.clone());
                log.append(more, done().0).unwrap();
            }
        }
        let len = expected.len() as u64;
        let from = below(len + 1);
        let to = from + below(len - from + 1);
        let bytes_max = usize::try_from(below(20_000)).unwrap();
        let got = log.read(LogIndex::new(first + from), LogIndex::new(first + to), bytes_max).unwrap();
        let range = &expected[usize::try_from(from).unwrap()..usize::try_from(to).unwrap()];
        assert_eq!(got, range[..got.len()]);
        let bytes: usize = got.iter().map(|entry| entry.payload.len().max(1)).sum();
        assert!(got.len() == range.len() || bytes >= bytes_max.max(1), "a read stopped early");
    }
    log.shutdown().await;
}
