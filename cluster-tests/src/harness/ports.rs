//! Free ports on loopback.
//!
//! They are taken from below the range the kernel gives to outgoing connections, so that no client socket can sit on
//! a member's port while that member is down.

use std::collections::HashSet;
use std::net::TcpListener;
use std::sync::Mutex;

use anyhow::{Context, Result, bail};
use rand::RngExt;

/// Ports that are handed out: from the first, up to and excluding the last.
const RANGE: std::ops::Range<u16> = 15_000..31_000;

/// How many ports are tried before giving up.
const ATTEMPTS_MAX: usize = 1_000;

/// Ports this process has handed out. Tests of one process run side by side and must not share any.
static TAKEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);

/// A port on 127.0.0.1 that nobody listens on and that this process never handed out before.
pub fn free_port() -> Result<u16> {
    let mut guard = TAKEN.lock().ok().context("another test panicked while it chose a port")?;
    let taken = guard.get_or_insert_default();
    for _ in 0..ATTEMPTS_MAX {
        let port = rand::rng().random_range(RANGE);
        if !taken.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            taken.insert(port);
            return Ok(port);
        }
    }
    bail!("no free port on 127.0.0.1 in {RANGE:?} after {ATTEMPTS_MAX} attempts; what is listening there?")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn no_port_is_handed_out_twice_or_while_in_use() {
        let mut seen = HashSet::new();
        for _ in 0..100 {
            let port = free_port().expect("a free port");
            assert!(seen.insert(port));
            becomes_free(port);
        }
    }

    /// Another test may be starting a process just now: between its fork and its exec the child holds a copy of every
    /// descriptor, the one that `free_port` has closed among them.
    fn becomes_free(port: u16) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while let Err(error) = TcpListener::bind(("127.0.0.1", port)) {
            assert!(Instant::now() < deadline, "port {port} is not free: {error}");
            std::thread::yield_now();
        }
    }
}
