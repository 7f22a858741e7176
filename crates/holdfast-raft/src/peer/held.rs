//! Answers on their way out, of which some wait a little to go together with others.
//!
//! A leader tells its followers how far the log is committed in requests of their own, as soon as it is. Nobody waits for
//! the answers, and each would wake the leader: so they go along with the next answer that somebody waits for. So does the
//! answer to a forward that was appended: its askers hear of it from their own member.

use bytes::Bytes;
use holdfast_env::{BoxFuture, Clock};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::SendError;

use crate::limits::{ANSWER_HELD, SENT_MAX};

/// An answer.
pub(super) struct Answer {
    /// As it is sent.
    pub(super) frame: Bytes,
    /// True when nobody waits for it.
    pub(super) can_wait: bool,
}

/// Answers that are to be sent, in this order.
#[derive(Default)]
pub(super) struct Held {
    frames: Vec<Bytes>,
    is_due: bool,
    /// Ends when the first of them has waited long enough.
    timer: Option<BoxFuture<'static, ()>>,
}

impl Held {
    pub(super) fn push(&mut self, answer: Answer, clock: &dyn Clock) {
        self.frames.push(answer.frame);
        self.is_due |= !answer.can_wait || self.frames.len() >= SENT_MAX;
        if answer.can_wait && self.timer.is_none() {
            self.timer = Some(clock.sleep(ANSWER_HELD));
        }
    }

    /// True when somebody waits for one of them.
    pub(super) fn is_due(&self) -> bool {
        self.is_due
    }

    /// Resolves when the first of them has waited long enough. Cancel-safe.
    pub(super) async fn time_is_up(&mut self) {
        match &mut self.timer {
            Some(timer) => timer.await,
            None => std::future::pending().await,
        }
    }

    /// Sends all of them.
    pub(super) async fn send(&mut self, to: &mpsc::Sender<Bytes>) -> Result<(), SendError<Bytes>> {
        self.is_due = false;
        self.timer = None;
        for frame in self.frames.drain(..) {
            to.send(frame).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use holdfast_env::RealClock;

    use super::*;

    fn answer(frame: &'static [u8], can_wait: bool) -> Answer {
        Answer { frame: Bytes::from_static(frame), can_wait }
    }

    #[tokio::test]
    async fn who_can_wait_goes_with_the_next_one_and_in_order() {
        let clock = RealClock::new(tokio::runtime::Handle::current());
        let mut held = Held::default();
        held.push(answer(b"a", true), &clock);
        held.push(answer(b"b", true), &clock);
        assert!(!held.is_due());
        held.push(answer(b"c", false), &clock);
        assert!(held.is_due());
        let (send, mut sent) = mpsc::channel(SENT_MAX);
        held.send(&send).await.unwrap();
        let frames: Vec<_> = std::iter::from_fn(|| sent.try_recv().ok()).collect();
        assert_eq!(frames, ["a", "b", "c"]);
        assert!(!held.is_due() && held.timer.is_none());
    }

    #[tokio::test]
    async fn who_can_wait_waits_for_a_bounded_time_and_with_a_bounded_number() {
        let clock = RealClock::new(tokio::runtime::Handle::current());
        let mut held = Held::default();
        held.push(answer(b"a", true), &clock);
        held.time_is_up().await;
        let (send, mut sent) = mpsc::channel(SENT_MAX);
        held.send(&send).await.unwrap();
        assert_eq!(sent.recv().await.unwrap(), "a");
        for number in 1..=SENT_MAX {
            held.push(answer(b"b", true), &clock);
            assert_eq!(held.is_due(), number == SENT_MAX);
        }
    }
}
