//! Lets writes come in no faster than dumps can follow, so that the log stays as short as the policy promises.
//!
//! A dump lets the log go behind its seal, and the next one begins when as much has come in since as makes one due. Whoever
//! writes faster than a member can dump would be ahead of that by more each time. So from the seal of a dump until the next
//! one can begin ([`holdfast_storage::Storage::behind`]), the leader appends without delay up to half of what makes it due,
//! and then at a rate that declines linearly, to nothing at the whole. A writer that waits for its answers sees puts that
//! take longer, not a stall.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::limits::PACE_MAX;
use crate::shared::Shared;

/// Whose turn it is to wait, and how long was waited.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    turn: tokio::sync::Mutex<()>,
    waited_nanos: AtomicU64,
}

impl Pace {
    /// Returns when a batch of this many bytes may be appended. One batch waits at a time, in the order they came.
    pub(crate) async fn keep(&self, shared: &Shared, bytes: u64) {
        let _turn = self.turn.lock().await;
        let wait = wait_before(shared, bytes);
        if !wait.is_zero() {
            shared.storage.await_work();
            shared.env.clock.sleep(wait).await;
            let nanos = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
            self.waited_nanos.fetch_add(nanos, Ordering::Relaxed);
        }
    }

    /// How long batches have waited since the start.
    pub(crate) fn waited(&self) -> Duration {
        Duration::from_nanos(self.waited_nanos.load(Ordering::Relaxed))
    }
}

fn wait_before(shared: &Shared, bytes: u64) -> Duration {
    let Some(seal) = shared.storage.behind() else { return Duration::ZERO };
    let (came, due) = {
        let log_size = shared.log_size.lock();
        let last = seal.last.map_or(0, |id| id.index().get());
        (log_size.behind(last), log_size.due(shared.config.dump_log_bytes))
    };
    delay(came, due, shared.env.clock.now().since(seal.at), bytes)
}

/// How much longer than at the rate since the seal, `came` bytes in `elapsed`, a batch takes when `due` bytes make the next
/// dump due.
fn delay(came: u64, due: u64, elapsed: Duration, bytes: u64) -> Duration {
    let beyond = came.saturating_sub(due / 2);
    let left = due.saturating_sub(came);
    if beyond == 0 {
        return Duration::ZERO;
    }
    if left == 0 {
        return PACE_MAX;
    }
    let nanos =
        elapsed.as_nanos() * u128::from(bytes) / u128::from(came) * u128::from(beyond) / u128::from(left);
    u64::try_from(nanos).map_or(PACE_MAX, |nanos| Duration::from_nanos(nanos).min(PACE_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn nothing_waits_up_to_half_of_what_makes_a_dump_due() {
        assert_eq!(delay(0, 64 * MIB, Duration::ZERO, MIB), Duration::ZERO);
        assert_eq!(delay(32 * MIB, 64 * MIB, Duration::from_secs(1), MIB), Duration::ZERO);
    }

    #[test]
    fn at_three_quarters_the_rate_is_half_of_what_it_was() {
        // 48 MiB a second: a MiB took a forty-eighth, and takes as long again.
        let wait = delay(48 * MIB, 64 * MIB, Duration::from_secs(1), MIB);
        assert_eq!(wait.as_micros(), 1_000_000 / 48);
    }

    #[test]
    fn what_comes_in_stays_below_what_makes_a_dump_due() {
        // 50 MiB a second.
        let (due, batch, took) = (64 * MIB, MIB / 8, Duration::from_micros(2_500));
        let (mut came, mut now) = (0, Duration::ZERO);
        while now < Duration::from_secs(5) {
            now += delay(came, due, now, batch) + took;
            came += batch;
        }
        assert!(came <= due, "{came}");
        assert!(came > due * 9 / 10, "{came}: it must not be slower than it has to be");
    }

    #[test]
    fn a_batch_waits_for_so_long_and_no_longer() {
        assert_eq!(delay(64 * MIB, 64 * MIB, Duration::from_secs(1), 1), PACE_MAX);
        assert_eq!(delay(70 * MIB, 64 * MIB, Duration::from_secs(1), 1), PACE_MAX);
        assert_eq!(delay(64 * MIB - 1, 64 * MIB, Duration::from_secs(9), 8 * MIB), PACE_MAX);
    }
}
