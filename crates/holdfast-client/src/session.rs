//! A session: a lease that is kept alive, and what is known of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::client::{Client, jittered};
use crate::codec::LeaseId;
use crate::error::{Class, Error};
use crate::lease::new_id;
use crate::pulse::{Heart, Pulse, pulse};

/// A lease is renewed when this part of its time is over.
const RENEW_PART: u32 = 3;
/// Pause behind a renewal that failed, at most this part of the lease's time; half of it is random.
const RETRY: Duration = Duration::from_millis(200);
const RETRY_PART: u32 = 10;

/// Whether a session still lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionState {
    /// It does.
    Alive,
    /// It does, but the last renewal failed. It is lost if that goes on.
    Suspect,
    /// It does not, or nobody can tell any more: its lease may have ended, and with it all keys that lived with it.
    Lost,
}

/// A lease that is kept alive in the background, for keys, locks and places in elections that end with this process or
/// when it is cut off. Cheap to clone; the last clone that is dropped gives the lease up, in the background, and
/// [`Session::end`] waits for that.
///
/// By this machine's monotonic clock it is never shown as alive for longer than its lease can have lived.
///
/// ```no_run
/// # async fn example(client: holdfast_client::Client) -> Result<(), holdfast_client::Error> {
/// use std::time::Duration;
/// use holdfast_client::Put;
///
/// let mut session = client.session(Duration::from_secs(10)).await?;
/// client.put_with(Put::new("services/web/1", "10.0.0.7").lease(session.lease())).await?;
/// session.lost().await;
/// println!("others may think that this service is gone");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Session {
    shared: Arc<Shared>,
    pulse: Pulse,
}

#[derive(Debug)]
struct Shared {
    client: Client,
    lease: LeaseId,
    /// Ends the task that keeps it alive.
    keeper: watch::Sender<()>,
    /// Set by [`Session::end`] when the lease is revoked.
    is_ended: AtomicBool,
    /// Places in queues that were taken with it.
    places: AtomicU64,
}

/// A lease, and how long it lives at least.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lives {
    pub(crate) lease: LeaseId,
    ttl: Duration,
    until: Instant,
}

impl Lives {
    /// A new lease. When it is not certain whether there is one, it is revoked.
    pub(crate) async fn grant(client: &Client, ttl: Duration) -> Result<Self, Error> {
        let lease = new_id();
        // Before the request is sent: the server's time for the lease begins later.
        let asked_at = Instant::now();
        match client.grant(lease, ttl).await {
            Ok(granted) => Ok(Self { lease, ttl: granted, until: asked_at + granted }),
            Err(error) => {
                if error.class() == Class::Unknown {
                    client.abandon(lease).await;
                }
                Err(error)
            }
        }
    }

    pub(crate) fn pulse(&self) -> (Heart, Pulse) {
        pulse(self.until)
    }

    /// Keeps the lease alive, and tells whether each renewal worked. Returns when the lease may have ended.
    pub(crate) async fn renew(self, client: &Client, heart: &Heart) {
        let lease = self.lease;
        let ask = |until| {
            let client = client.clone();
            async move { client.keep_alive(lease, until).await }
        };
        self.renew_with(heart, ask).await;
    }

    /// As [`Lives::renew`]; `ask` renews, until it is too late.
    async fn renew_with<R: Future<Output = Result<Option<Duration>, Error>>>(
        mut self,
        heart: &Heart,
        ask: impl Fn(Instant) -> R,
    ) {
        let mut next = Instant::now() + self.ttl / RENEW_PART;
        loop {
            sleep_until(next.min(self.until)).await;
            let asked_at = Instant::now();
            let renewed = tokio::select! {
                // Both only wait.
                renewed = ask(self.until) => renewed,
                () = sleep_until(self.until) => return,
            };
            match renewed {
                Ok(Some(ttl)) => {
                    if !heart.renewed(asked_at + ttl) {
                        return;
                    }
                    self.until = asked_at + ttl;
                    next = asked_at + ttl / RENEW_PART;
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(%error, "a lease is not renewed");
                    heart.failed();
                    // A server that refuses answers at once.
                    next = Instant::now() + jittered(RETRY.min(self.ttl / RETRY_PART));
                }
            }
            if Instant::now() >= self.until {
                return;
            }
        }
    }
}

impl Client {
    /// Opens a session. When this process ends or is cut off, its keys are deleted within `ttl`, of which servers may make
    /// more; 2 s is the least that they take unless they are told otherwise.
    ///
    /// Errors: as [`Error`] says. In any case no lease is left for longer than `ttl`.
    pub async fn session(&self, ttl: Duration) -> Result<Session, Error> {
        let client = self.clone();
        // A task of its own: it cleans up also when this future is dropped half-way.
        let opening = tokio::spawn(async move {
            let lives = Lives::grant(&client, ttl).await?;
            Ok(Session::keep(client, lives))
        });
        opening.await.expect("opening does not panic, and nobody aborts it")
    }
}

impl Session {
    fn keep(client: Client, lives: Lives) -> Self {
        let (heart, pulse) = lives.pulse();
        let (keeper, mut dropped) = watch::channel(());
        let keeping = client.clone();
        // Ends with the sender in `Shared`, or with the loss.
        drop(tokio::spawn(async move {
            tokio::select! {
                // Both arms may be dropped at any point: nobody looks at what they would have found.
                _ = dropped.changed() => {}
                () = lives.renew(&keeping, &heart) => {}
            }
            // Which tells that it is lost.
            drop(heart);
        }));
        let (is_ended, places) = (AtomicBool::new(false), AtomicU64::new(0));
        let shared = Shared { client, lease: lives.lease, keeper, is_ended, places };
        Self { shared: Arc::new(shared), pulse }
    }

    /// The lease, for [`crate::Put::lease`].
    pub fn lease(&self) -> LeaseId {
        self.shared.lease
    }

    /// Whether it lives now.
    pub fn state(&self) -> SessionState {
        self.pulse.state()
    }

    /// Waits until it is lost. Cancel-safe.
    pub async fn lost(&mut self) {
        self.pulse.lost().await;
    }

    /// Waits until its state changes, and gives the new one; states that pass quickly may not be seen. Behind a loss it
    /// waits no more. Cancel-safe.
    pub async fn changed(&mut self) -> SessionState {
        self.pulse.changed().await
    }

    /// Ends it, and all keys that live with it, and returns when that is so. Its clones show that it is lost before the
    /// first key is gone.
    ///
    /// Errors: as [`Error`] says; after [`Error::Unknown`] it may have ended. It ends within its time to live then, and the
    /// last clone that is dropped tries again.
    pub async fn end(mut self) -> Result<(), Error> {
        self.shared.keeper.send_replace(());
        self.pulse.lost().await;
        self.shared.client.revoke(self.shared.lease).await?;
        self.shared.is_ended.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// What is known of it, without keeping it.
    pub(crate) fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    pub(crate) fn client(&self) -> &Client {
        &self.shared.client
    }

    /// A number that no other place of this session has.
    pub(crate) fn place(&self) -> u64 {
        self.shared.places.fetch_add(1, Ordering::Relaxed)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.is_ended.load(Ordering::Relaxed) {
            return;
        }
        // Without a runtime nobody renews it either: it ends by itself.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (client, lease) = (self.client.clone(), self.lease);
            drop(runtime.spawn(async move { client.abandon(lease).await }));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::net::TcpListener;

    use tonic::Code;

    use super::*;
    use crate::client::Config;

    fn refused() -> Error {
        Error::Refused { code: Code::PermissionDenied, message: "etcdserver: permission denied".into() }
    }

    fn lives(ttl: Duration) -> Lives {
        Lives { lease: LeaseId(1), ttl, until: Instant::now() + ttl }
    }

    /// RS4: a server that refuses at once is not asked as fast as it answers.
    #[tokio::test]
    async fn a_renewal_that_is_refused_is_not_repeated_at_once() {
        let lives = lives(Duration::from_millis(400));
        let ((heart, pulse), asked) = (lives.pulse(), Cell::new(0));
        lives
            .renew_with(&heart, |_| {
                asked.set(asked.get() + 1);
                std::future::ready(Err(refused()))
            })
            .await;
        assert_eq!(pulse.state(), SessionState::Lost);
        // Two thirds of the time, in pauses of 20 ms at least.
        assert!((1..=15).contains(&asked.get()), "{} times", asked.get());
    }

    /// RS4: also when nobody answers, and who has ended it cannot know what became of its keys.
    #[tokio::test]
    async fn a_session_that_is_ended_is_lost_for_all_its_clones() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let config = Config { call_timeout: Duration::from_millis(100), ..Config::default() };
        let endpoint = format!("http://{}", silent.local_addr().unwrap());
        let client = Client::with_config([endpoint], config).unwrap();
        let session = Session::keep(client, lives(Duration::from_secs(600)));
        let clone = session.clone();
        assert_eq!(clone.state(), SessionState::Alive);
        assert_eq!(session.end().await.unwrap_err().class(), Class::Unknown);
        assert_eq!(clone.state(), SessionState::Lost);
    }

    /// RS4: an answer that comes when the lease may have ended renews nothing.
    #[tokio::test]
    async fn a_renewal_that_comes_late_is_none() {
        let lives = lives(Duration::ZERO);
        let (heart, pulse) = lives.pulse();
        lives.renew_with(&heart, |_| std::future::ready(Ok(Some(Duration::from_secs(600))))).await;
        assert_eq!(pulse.state(), SessionState::Lost);
    }
}
