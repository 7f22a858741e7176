//! Judges how a member that lost its disk came back: what it cost the others, and whether it has everything.

use std::fmt;
use std::time::Duration;

use super::stall::p99;

/// How much may be sent, in parts of the snapshot: a transfer that goes on where it broke sends little twice, one that
/// starts over at each of three breaks sends two and a half times as much.
const SENT_MAX: f64 = 1.3;

/// How much larger p99 of the puts may be meanwhile.
const RATIO_MAX: f64 = 2.0;

/// Puts that have to be measured on each side: with fewer, p99 is the worst of a handful.
const PUTS_MIN: usize = 1_000;

/// How it came back.
#[derive(Debug, Clone, PartialEq)]
pub struct Rejoin {
    /// Bytes of the snapshot it was to receive.
    pub snapshot_bytes: u64,
    /// Bytes that were sent to it until it voted, of everything.
    pub sent_bytes: u64,
    /// How often its connections were to break meanwhile.
    pub cuts_planned: u32,
    /// How often they did.
    pub cuts: u32,
    /// From the loss until it voted and served.
    pub took: Duration,
    /// Times of puts before the loss.
    pub calm: Vec<Duration>,
    /// Times of puts from then until it was back.
    pub busy: Vec<Duration>,
    /// Puts in all.
    pub puts: usize,
    /// Puts that were not acknowledged: the leader was never touched.
    pub failed: usize,
    /// Acknowledged puts that it does not show.
    pub missing: usize,
    /// What each member hashes to at the end.
    pub hashes: Vec<u32>,
}

/// Something that must not be.
#[expect(missing_docs, reason = "the line of a variant names what its fields hold")]
#[derive(Debug, Clone, PartialEq)]
pub enum Finding {
    /// It was not put to the test.
    NotCut { planned: u32, cuts: u32 },
    /// More was sent than a transfer that goes on where it broke sends.
    StartedOver { sent: u64, snapshot: u64 },
    /// It delayed writes.
    Delayed { calm: Duration, busy: Duration },
    /// Too few puts: nothing was compared.
    NotCompared { calm: usize, busy: usize },
    /// Puts were not acknowledged.
    Failed { puts: usize },
    /// Acknowledged puts are not there.
    Lost { puts: usize },
    /// Members differ.
    Differ { hashes: Vec<u32> },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotCut { planned, cuts } => {
                write!(f, "its connections broke {cuts} times while it received the snapshot, not {planned}")
            }
            Self::StartedOver { sent, snapshot } => {
                write!(f, "{sent} bytes were sent for a snapshot of {snapshot}: the transfer started over")
            }
            Self::Delayed { calm, busy } => write!(f, "p99 of puts {busy:?}, and {calm:?} before"),
            Self::NotCompared { calm, busy } => {
                write!(f, "nothing was compared: {calm} puts before, {busy} meanwhile")
            }
            Self::Failed { puts } => write!(f, "{puts} puts were not acknowledged"),
            Self::Lost { puts } => write!(f, "{puts} acknowledged puts are not there"),
            Self::Differ { hashes } => write!(f, "the members differ: {hashes:?}"),
        }
    }
}

impl Rejoin {
    /// What is wrong.
    pub fn judge(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let (planned, cuts) = (self.cuts_planned, self.cuts);
        findings.extend((cuts < planned).then_some(Finding::NotCut { planned, cuts }));
        let (sent, snapshot) = (self.sent_bytes, self.snapshot_bytes);
        let started_over = Finding::StartedOver { sent, snapshot };
        findings.extend((parts(sent, snapshot) > SENT_MAX).then_some(started_over));
        let (calm, busy) = (self.calm.len(), self.busy.len());
        match self.p99() {
            Some((calm_p99, busy_p99)) if calm >= PUTS_MIN && busy >= PUTS_MIN => {
                let delayed = Finding::Delayed { calm: calm_p99, busy: busy_p99 };
                findings.extend((busy_p99 > calm_p99.mul_f64(RATIO_MAX)).then_some(delayed));
            }
            _ => findings.push(Finding::NotCompared { calm, busy }),
        }
        findings.extend((self.failed > 0).then_some(Finding::Failed { puts: self.failed }));
        findings.extend((self.missing > 0).then_some(Finding::Lost { puts: self.missing }));
        if self.hashes.iter().any(|hash| *hash != self.hashes[0]) {
            findings.push(Finding::Differ { hashes: self.hashes.clone() });
        }
        findings
    }

    /// p99 of the puts before and meanwhile.
    fn p99(&self) -> Option<(Duration, Duration)> {
        Some((p99(&self.calm)?, p99(&self.busy)?))
    }
}

#[expect(clippy::cast_precision_loss, reason = "a ratio for reading")]
fn parts(bytes: u64, of: u64) -> f64 {
    bytes as f64 / of as f64
}

impl fmt::Display for Rejoin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { snapshot_bytes, sent_bytes, cuts, took, puts, failed, missing, hashes, .. } = self;
        writeln!(
            f,
            "a member without its disk voted again after {:.1} s: {} MiB sent for a snapshot of {} MiB, {:.2} times, with \
             {cuts} broken connections",
            took.as_secs_f64(),
            sent_bytes >> 20,
            snapshot_bytes >> 20,
            parts(*sent_bytes, *snapshot_bytes)
        )?;
        let (calm, busy) = self.p99().unwrap_or_default();
        let ratio = busy.as_secs_f64() / calm.as_secs_f64();
        writeln!(
            f,
            "  puts: p99 {:.2} ms before, {:.2} ms meanwhile, ratio {ratio:.2}",
            calm.as_secs_f64() * 1e3,
            busy.as_secs_f64() * 1e3
        )?;
        write!(
            f,
            "  {puts} puts, {failed} not acknowledged, {missing} missing on the new member; hashes {hashes:?}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Rejoin {
        Rejoin {
            snapshot_bytes: 1_000,
            sent_bytes: 1_200,
            cuts_planned: 3,
            cuts: 3,
            took: Duration::from_secs(9),
            calm: vec![Duration::from_millis(2); PUTS_MIN],
            busy: vec![Duration::from_millis(4); PUTS_MIN],
            puts: 2 * PUTS_MIN,
            failed: 0,
            missing: 0,
            hashes: vec![7; 3],
        }
    }

    #[test]
    fn each_rule_refuses_what_breaks_it() {
        assert_eq!(good().judge(), []);
        let found = |change: fn(&mut Rejoin)| {
            let mut rejoin = good();
            change(&mut rejoin);
            rejoin.judge()
        };
        assert_eq!(found(|r| r.cuts = 2), [Finding::NotCut { planned: 3, cuts: 2 }]);
        assert_eq!(found(|r| r.sent_bytes = 1_301), [Finding::StartedOver { sent: 1_301, snapshot: 1_000 }]);
        let slow = Duration::from_millis(5);
        let delayed = Finding::Delayed { calm: Duration::from_millis(2), busy: slow };
        assert_eq!(found(|r| r.busy = vec![Duration::from_millis(5); PUTS_MIN]), [delayed]);
        let not_compared = Finding::NotCompared { calm: PUTS_MIN, busy: 999 };
        assert_eq!(found(|r| r.busy.truncate(999)), [not_compared]);
        assert_eq!(found(|r| r.failed = 1), [Finding::Failed { puts: 1 }]);
        assert_eq!(found(|r| r.missing = 2), [Finding::Lost { puts: 2 }]);
        assert_eq!(found(|r| r.hashes[2] = 8), [Finding::Differ { hashes: vec![7, 7, 8] }]);
    }
}
