//! A watch channel that wakes its receivers in the order in which they began to wait.
//!
//! openraft tells its replication tasks and its callers about new states through watch channels. tokio's wakes several
//! receivers in an order drawn from a generator that cannot be seeded, which would make two simulations of one seed
//! differ. This one is a value behind a lock, its version, and a FIFO notification. Reads are recursive: a thread may
//! borrow twice while a sender waits in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use openraft::OptionalSend;
use openraft::OptionalSync;
use openraft_rt::watch::{RecvError, SendError, Watch, WatchReceiver, WatchSender};
use parking_lot::{RwLock, RwLockReadGuard};
use tokio::sync::Notify;

/// The kind of channel; see the module.
pub(crate) struct OrderedWatch;

struct Shared<T> {
    value: RwLock<T>,
    /// Counts the notified changes; written under the value's write lock.
    version: AtomicU64,
    senders: AtomicUsize,
    receivers: AtomicUsize,
    changed: Notify,
}

/// The sending end.
pub(crate) struct Sender<T>(Arc<Shared<T>>);

/// A receiving end and the version that it has seen.
pub(crate) struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

impl<T> Shared<T> {
    fn change(&self, modify: impl FnOnce(&mut T) -> bool) -> bool {
        let mut value = self.value.write();
        let modified = modify(&mut value);
        if modified {
            self.version.fetch_add(1, Ordering::SeqCst);
        }
        drop(value);
        if modified {
            self.changed.notify_waiters();
        }
        modified
    }

    fn version(&self) -> u64 {
        self.version.load(Ordering::SeqCst)
    }
}

impl<T> Receiver<T> {
    fn new(shared: &Arc<Shared<T>>, seen: u64) -> Self {
        shared.receivers.fetch_add(1, Ordering::SeqCst);
        Self { shared: Arc::clone(shared), seen }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.senders.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.0.senders.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.changed.notify_waiters();
        }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self::new(&self.shared, self.seen)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.receivers.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Watch for OrderedWatch {
    type Sender<T: OptionalSend + OptionalSync> = Sender<T>;
    type Receiver<T: OptionalSend + OptionalSync> = Receiver<T>;
    type Ref<'a, T: OptionalSend + 'a> = RwLockReadGuard<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(init: T) -> (Sender<T>, Receiver<T>) {
        let shared = Arc::new(Shared {
            value: RwLock::new(init),
            version: AtomicU64::new(0),
            senders: AtomicUsize::new(1),
            receivers: AtomicUsize::new(0),
            changed: Notify::new(),
        });
        let receiver = Receiver::new(&shared, 0);
        (Sender(shared), receiver)
    }
}

impl<T: OptionalSend + OptionalSync> WatchSender<OrderedWatch, T> for Sender<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        if self.0.receivers.load(Ordering::SeqCst) == 0 {
            return Err(SendError(value));
        }
        self.0.change(|current| {
            *current = value;
            true
        });
        Ok(())
    }

    fn send_if_modified<F>(&self, modify: F) -> bool
    where
        F: FnOnce(&mut T) -> bool,
    {
        self.0.change(modify)
    }

    fn borrow_watched(&self) -> RwLockReadGuard<'_, T> {
        self.0.value.read_recursive()
    }

    fn subscribe(&self) -> Receiver<T> {
        Receiver::new(&self.0, self.0.version())
    }
}

impl<T: OptionalSend + OptionalSync> WatchReceiver<OrderedWatch, T> for Receiver<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        loop {
            let mut changed = std::pin::pin!(self.shared.changed.notified());
            // Registered before looking, so that a change between the look and the wait is not missed.
            changed.as_mut().enable();
            let version = self.shared.version();
            if version != self.seen {
                self.seen = version;
                return Ok(());
            }
            if self.shared.senders.load(Ordering::SeqCst) == 0 {
                return Err(RecvError(()));
            }
            changed.await;
        }
    }

    fn borrow_watched(&self) -> RwLockReadGuard<'_, T> {
        self.shared.value.read_recursive()
    }

    fn borrow_and_update(&mut self) -> RwLockReadGuard<'_, T> {
        let value = self.shared.value.read_recursive();
        self.seen = self.shared.version();
        value
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_receiver_sees_each_change_once_and_the_end() {
        let (sender, mut receiver) = OrderedWatch::channel(1);
        assert!(receiver.changed().now_or_never().is_none());
        sender.send(2).unwrap();
        assert_eq!(receiver.changed().now_or_never(), Some(Ok(())));
        assert!(receiver.changed().now_or_never().is_none());
        assert!(!sender.send_if_greater(2));
        assert!(sender.send_if_greater(3));
        assert_eq!(*receiver.borrow_and_update(), 3);
        assert!(receiver.changed().now_or_never().is_none());
        drop(sender);
        assert_eq!(receiver.changed().now_or_never(), Some(Err(RecvError(()))));
    }

    #[test]
    fn sending_to_nobody_fails_and_a_new_receiver_starts_seen() {
        let (sender, receiver) = OrderedWatch::channel(1);
        drop(receiver);
        assert!(sender.send(2).is_err());
        let mut late = sender.subscribe();
        assert!(late.changed().now_or_never().is_none());
        sender.send(5).unwrap();
        assert_eq!(*late.borrow_watched(), 5);
    }

    #[tokio::test]
    async fn receivers_wake_in_the_order_in_which_they_waited() {
        let (sender, receiver) = OrderedWatch::channel(0);
        let (woken, mut order) = tokio::sync::mpsc::channel(20);
        for number in 0..20 {
            let (mut receiver, woken) = (receiver.clone(), woken.clone());
            tokio::spawn(async move {
                receiver.changed().await.unwrap();
                woken.send(number).await.unwrap();
            });
        }
        tokio::task::yield_now().await;
        sender.send(1).unwrap();
        for expected in 0..20 {
            assert_eq!(order.recv().await, Some(expected));
        }
    }
}
