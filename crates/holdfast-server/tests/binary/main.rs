//! The binary as its users meet it: its flags, its file, its signals, and the demo's board in a real terminal.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

mod board;
mod member;
mod recovery;

use std::path::Path;
use std::time::Duration;

/// More than anything here takes on a slow machine.
const DEADLINE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(100);

/// The binary under test.
const HOLDFAST: &str = env!("CARGO_BIN_EXE_holdfast");

/// Looks again and again until there is something; fails at the deadline, saying what was seen last.
async fn wait_for<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let mut seen = String::new();
    let found = tokio::time::timeout(DEADLINE, async {
        loop {
            match look() {
                Ok(found) => return found,
                Err(instead) => seen = instead,
            }
            tokio::time::sleep(POLL).await;
        }
    });
    match found.await {
        Ok(found) => found,
        Err(_) => panic!("{what}: not within {DEADLINE:?}; instead:\n{seen}"),
    }
}

/// True while a process runs; one that has ended and that nobody has asked about does not.
fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    stat.is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z'))
}

fn signal(pid: u32, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid.cast_signed()).unwrap(), signal)
        .unwrap();
}
