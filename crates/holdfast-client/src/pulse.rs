//! What is known of a lease that is kept alive: told by the task that renews it, and never believed beyond the end that
//! the lease may have by this machine's clock, whatever that task does.

use tokio::sync::watch;
use tokio::time::Instant;

use crate::session::SessionState;

/// What was told last. Written by the [`Heart`].
#[derive(Debug, Clone, Copy)]
struct Told {
    state: SessionState,
    /// The lease may have ended by then.
    until: Instant,
}

impl Told {
    fn at(self, now: Instant) -> SessionState {
        if now >= self.until { SessionState::Lost } else { self.state }
    }
}

/// Both ends, of a lease that lives until then.
pub(crate) fn pulse(until: Instant) -> (Heart, Pulse) {
    let (tell, told) = watch::channel(Told { state: SessionState::Alive, until });
    (Heart(tell), Pulse(told))
}

/// The end of the task that renews the lease. When it is dropped, also by a task that ends in any other way, the lease is
/// told to be lost.
#[derive(Debug)]
pub(crate) struct Heart(watch::Sender<Told>);

impl Heart {
    /// The lease was renewed. `false` when that comes too late: somebody may have seen that it is lost, and that is final.
    pub(crate) fn renewed(&self, until: Instant) -> bool {
        let mut is_in_time = false;
        self.0.send_if_modified(|told| {
            // The clock is read while nobody can look: who looks later sees no less than who has looked before.
            is_in_time = told.at(Instant::now()) != SessionState::Lost;
            if !is_in_time {
                return false;
            }
            let is_news = told.state != SessionState::Alive;
            *told = Told { state: SessionState::Alive, until };
            is_news
        });
        is_in_time
    }

    /// A renewal failed.
    pub(crate) fn failed(&self) {
        self.0.send_if_modified(|told| {
            std::mem::replace(&mut told.state, SessionState::Suspect) != SessionState::Suspect
        });
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.0.send_if_modified(|told| {
            std::mem::replace(&mut told.state, SessionState::Lost) != SessionState::Lost
        });
    }
}

/// The end of who wants to know.
#[derive(Debug, Clone)]
pub(crate) struct Pulse(watch::Receiver<Told>);

impl Pulse {
    pub(crate) fn state(&self) -> SessionState {
        // Held while the clock is read, as in `renewed`.
        let told = self.0.borrow();
        told.at(Instant::now())
    }

    /// Waits until it is lost. Cancel-safe.
    pub(crate) async fn lost(&mut self) {
        // An error means that the other end is gone, which has told so before.
        drop(self.0.wait_for(|told| told.state == SessionState::Lost).await);
    }

    /// Waits until the state changes, and gives the new one; behind a loss it waits no more. Cancel-safe.
    pub(crate) async fn changed(&mut self) -> SessionState {
        // As in `lost`.
        drop(self.0.changed().await);
        let told = self.0.borrow_and_update();
        told.at(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt;

    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    /// RS4: also when the task that renews it stands still.
    #[test]
    fn a_lease_is_not_shown_to_live_beyond_its_end() {
        let (heart, pulse) = pulse(Instant::now());
        assert_eq!(pulse.state(), SessionState::Lost);
        assert!(!heart.renewed(Instant::now() + LONG), "a loss is final");
        assert_eq!(pulse.state(), SessionState::Lost);
    }

    #[test]
    fn a_state_is_news_when_it_changes() {
        let (heart, mut pulse) = pulse(Instant::now() + LONG);
        assert!(heart.renewed(Instant::now() + LONG));
        assert_eq!(pulse.changed().now_or_never(), None, "it lives as before");
        heart.failed();
        assert_eq!(pulse.changed().now_or_never(), Some(SessionState::Suspect));
        assert!(heart.renewed(Instant::now() + LONG));
        assert_eq!(pulse.changed().now_or_never(), Some(SessionState::Alive));
        assert_eq!(pulse.lost().now_or_never(), None);
    }

    #[test]
    fn a_task_that_is_gone_keeps_nothing_alive() {
        let (heart, mut pulse) = pulse(Instant::now() + LONG);
        drop(heart);
        assert_eq!(pulse.state(), SessionState::Lost);
        assert_eq!(pulse.lost().now_or_never(), Some(()));
        assert_eq!(pulse.changed().now_or_never(), Some(SessionState::Lost));
        assert_eq!(pulse.changed().now_or_never(), Some(SessionState::Lost));
    }
}
