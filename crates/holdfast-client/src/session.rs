//! A session: a lease that is kept alive, and what is known of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::client::Client;
use crate::codec::LeaseId;
use crate::error::{Class, Error};
use crate::lease::new_id;

/// A lease is renewed when this part of its time is over.
const RENEW_PART: u32 = 3;

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
    state: watch::Receiver<SessionState>,
}

#[derive(Debug)]
struct Shared {
    client: Client,
    lease: LeaseId,
    /// Ends the task that keeps it alive.
    _keeper: watch::Sender<()>,
    /// Set by [`Session::end`].
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

    /// Keeps the lease alive, and tells whether each renewal worked. Returns when the lease may have ended.
    pub(crate) async fn renew(mut self, client: &Client, tell: impl Fn(bool)) {
        let mut next = Instant::now() + self.ttl / RENEW_PART;
        loop {
            sleep_until(next.min(self.until)).await;
            let asked_at = Instant::now();
            let renewed = tokio::select! {
                // Both only wait.
                renewed = client.keep_alive(self.lease) => renewed,
                () = sleep_until(self.until) => return,
            };
            match renewed {
                Ok(Some(ttl)) => {
                    self.until = asked_at + ttl;
                    next = asked_at + ttl / RENEW_PART;
                    tell(true);
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(%error, "a lease is not renewed");
                    tell(false);
                    // The call has taken its time; the next one begins at once.
                    next = Instant::now();
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
        let (tell, state) = watch::channel(SessionState::Alive);
        let (keeper, mut dropped) = watch::channel(());
        let keeping = client.clone();
        // Ends with the sender in `Shared`, or with the loss.
        drop(tokio::spawn(async move {
            let renewed = |alive| {
                tell.send_replace(if alive { SessionState::Alive } else { SessionState::Suspect });
            };
            tokio::select! {
                // Both arms may be dropped at any point: nobody looks at what they would have found.
                _ = dropped.changed() => {}
                () = lives.renew(&keeping, renewed) => {}
            }
            tell.send_replace(SessionState::Lost);
        }));
        let (is_ended, places) = (AtomicBool::new(false), AtomicU64::new(0));
        let shared = Shared { client, lease: lives.lease, _keeper: keeper, is_ended, places };
        Self { shared: Arc::new(shared), state }
    }

    /// The lease, for [`crate::Put::lease`].
    pub fn lease(&self) -> LeaseId {
        self.shared.lease
    }

    /// Whether it lives now.
    pub fn state(&self) -> SessionState {
        *self.state.borrow()
    }

    /// Waits until it is lost. Cancel-safe.
    pub async fn lost(&mut self) {
        // An error means that the task has ended, which has told so before.
        drop(self.state.wait_for(|state| *state == SessionState::Lost).await);
    }

    /// Waits until its state changes, and gives the new one; states that pass quickly may not be seen. Behind a loss it
    /// waits no more. Cancel-safe.
    pub async fn changed(&mut self) -> SessionState {
        // As in `lost`.
        drop(self.state.changed().await);
        *self.state.borrow_and_update()
    }

    /// Ends it, and all keys that live with it, and returns when that is so.
    ///
    /// Errors: nobody could be told. It ends within its time to live then.
    pub async fn end(self) -> Result<(), Error> {
        self.shared.is_ended.store(true, Ordering::Relaxed);
        self.shared.client.revoke(self.shared.lease).await
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
