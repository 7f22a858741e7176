//! What the engines on disk hold in memory is bounded by the budget, and not by what they store. A test binary of its own
//! that runs itself, because what is measured is the process.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![cfg(target_os = "linux")]

mod common;

use std::process::Command;

use common::*;
use holdfast_storage::{EngineKind, StorageConfig};

const BUDGET: usize = 32 << 20;
/// Beside the budget: the process itself.
const BESIDE: u64 = 64 << 20;

/// What is stored, of values that do not compress, and what it may take beside budget and process.
struct Case {
    engine: EngineKind,
    value_bytes: u64,
    stored: u64,
    beside: u64,
}

/// sled does not go below a page for each of the 256 parts of its cache: 16 packs of small values, or a value of 32 KiB and its
/// neighbours; what is longer is cut into pieces of that. Small values have many keys, all of which are in memory.
const CASES: [Case; 3] = [
    Case { engine: EngineKind::Redb, value_bytes: 32 << 10, stored: 384 << 20, beside: 0 },
    Case { engine: EngineKind::Sled, value_bytes: 1 << 10, stored: 128 << 20, beside: 32 << 20 },
    Case { engine: EngineKind::Sled, value_bytes: 32 << 10, stored: 384 << 20, beside: 64 << 20 },
];

fn value(seed: u64, bytes: u64) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let word = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        format!("{state:016x}")
    };
    std::iter::repeat_with(word).take(usize::try_from(bytes / 16).unwrap()).collect()
}

/// The most that was ever resident, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// Says to a process of this test which case it is to run.
const CASE: &str = "HOLDFAST_ENGINE_MEMORY_CASE";

/// Each case in a process of its own: what one leaves in the allocator must not count for the next.
#[test]
#[expect(clippy::disallowed_methods, reason = "a test tells its children what to do by the environment")]
fn what_is_stored_does_not_stay_in_memory() {
    if let Ok(case) = std::env::var(CASE) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        return runtime.unwrap().block_on(run(&CASES[case.parse::<usize>().unwrap()]));
    }
    for case in 0..CASES.len() {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "what_is_stored_does_not_stay_in_memory", "--nocapture"]);
        let output = child.env(CASE, case.to_string()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        println!("{}", said.lines().find(|line| line.contains("MiB")).unwrap_or_default());
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[expect(clippy::print_stdout, reason = "the process that runs the case says what it has measured")]
async fn run(case: &Case) {
    let Case { engine, value_bytes, stored, beside } = *case;
    let values = stored / value_bytes;
    let dir = tempfile::tempdir().unwrap();
    let config = StorageConfig { memory_bytes: BUDGET, ..config(dir.path(), engine) };
    let mut member = Member::open_with(config.clone()).await;
    for first in (0..values).step_by(64) {
        let put = |n: u64| -> holdfast_mvcc::command::Command {
            put(&format!("key/{n:06}"), &value(n, value_bytes))
        };
        member.run((first..first + 64).map(put).collect()).await;
        // They hold the values.
        member.events.0.lock().unwrap().clear();
    }
    member.drained().await;
    let written = peak();
    member.close().await;
    let member = Member::open_with(config).await;
    for n in 0..values {
        assert_eq!(member.get(&format!("key/{n:06}")).unwrap().len() as u64, value_bytes);
    }
    let read = peak();
    member.close().await;
    let bound = BUDGET as u64 + BESIDE + beside;
    let told = format!(
        "{engine:?}, {value_bytes} bytes each: {} MiB when it was written, {} when it was read",
        written >> 20,
        read >> 20
    );
    println!("{told}");
    assert!(read <= bound, "{told}; {} are allowed", bound >> 20);
}
