//! What the engines on disk hold in memory is bounded by the budget, and not by what they store. A test binary of its own
//! with one test, because what is measured is the process.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![cfg(target_os = "linux")]

mod common;

use common::*;
use holdfast_mvcc::command::Command;
use holdfast_storage::{EngineKind, StorageConfig};

const BUDGET: usize = 32 << 20;
/// Twelve times the budget, of values that do not compress.
const VALUES: u64 = 12_288;
const VALUE_BYTES: u64 = 32 << 10;
/// Beside the budget: the process itself.
const BESIDE: u64 = 64 << 20;
/// What sled does not go below: a page of 16 packs for each of the 256 parts of its cache.
const SLED: u64 = 128 << 20;

fn value(seed: u64) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let word = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        format!("{state:016x}")
    };
    std::iter::repeat_with(word).take(usize::try_from(VALUE_BYTES / 16).unwrap()).collect()
}

/// The most that was ever resident, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stored_does_not_stay_in_memory() {
    for engine in [EngineKind::Redb, EngineKind::Sled] {
        let dir = tempfile::tempdir().unwrap();
        let config = StorageConfig { memory_bytes: BUDGET, ..config(dir.path(), engine) };
        let mut member = Member::open_with(config.clone()).await;
        for first in (0..VALUES).step_by(64) {
            let put = |n: u64| -> Command { put(&format!("key/{n:06}"), &value(n)) };
            member.run((first..first + 64).map(put).collect()).await;
            // They hold the values.
            member.events.0.lock().unwrap().clear();
        }
        member.drained().await;
        let written = peak();
        member.close().await;
        let member = Member::open_with(config).await;
        for n in 0..VALUES {
            assert_eq!(member.get(&format!("key/{n:06}")).unwrap().len() as u64, VALUE_BYTES);
        }
        let read = peak();
        member.close().await;
        let bound = BUDGET as u64 + BESIDE + if engine == EngineKind::Sled { SLED } else { 0 };
        println!("{engine:?}: {} MiB when it was written, {} when it was read", written >> 20, read >> 20);
        assert!(read <= bound, "{engine:?}: {written} bytes when it was written, {read} when it was read");
    }
}
