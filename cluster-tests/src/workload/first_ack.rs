//! How long nobody could write: puts through every member, every few milliseconds, until one is acknowledged.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

/// Every member is tried so often.
const EVERY: Duration = Duration::from_millis(20);

/// A put is given up after this long. It does not hold up the next one.
pub const TIMEOUT: Duration = Duration::from_millis(1_000);

/// Puts that may be under way at a time; above it, none is added until one ends.
const PUTS_MAX: usize = 256;

/// How long it is tried.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The time from `began` until the acknowledgement of the first put that is called from now on, if one comes within
/// [`PATIENCE`]. `put` makes one through a member, in which round, and says whether it was acknowledged.
pub async fn first_ack<F>(began: Instant, members: usize, put: impl Fn(usize, usize) -> F) -> Option<Duration>
where
    F: Future<Output = bool> + Send + 'static,
{
    let mut puts = JoinSet::new();
    let mut tick = tokio::time::interval(EVERY);
    let mut round = 0;
    while began.elapsed() < PATIENCE {
        tokio::select! {
            // Cancel-safe: a tick that was not taken stays due.
            _ = tick.tick() => {
                round += 1;
                for member in 0..members {
                    if puts.len() < PUTS_MAX {
                        puts.spawn(put(member, round));
                    }
                }
            }
            // Cancel-safe: a result that was not taken stays in the set.
            Some(acked) = puts.join_next() => {
                if acked.unwrap_or(false) {
                    return Some(began.elapsed());
                }
            }
        }
    }
    None
}
