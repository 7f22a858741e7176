//! Where the newest state lies, and who is told when there is another.
//!
//! The task of an informer publishes; it takes a lock that is held by others only as long as it takes to add or remove a
//! subscriber, and waits for nobody: a subscriber whose buffer is full is taken off the list, and finds out by itself.
//! Who reads takes no lock.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use super::change::Change;
use super::health::{Health, InformerState, RelistReason, Relists};
use super::snapshot::Snapshot;

/// Steps that wait for a subscriber.
const BUFFER_STEPS: usize = 1_024;

/// From one published state to the next.
pub(super) struct Step<T> {
    pub(super) snapshot: Arc<Snapshot<T>>,
    pub(super) changes: Arc<[Change<T>]>,
    /// Why all was listed, if it was.
    pub(super) relisted: Option<RelistReason>,
}

/// What all who use an informer share.
pub(super) struct Hub<T> {
    /// Written by the task, with the subscribers' lock.
    newest: ArcSwap<Snapshot<T>>,
    /// Written by the task, after `newest`.
    position: watch::Sender<Position>,
    /// Written by the task and by whoever subscribes or ends that.
    subscribers: Mutex<Subscribers<T>>,
    /// Written by the task.
    notes: Mutex<Notes>,
    /// How many wait for a revision.
    waiting: AtomicUsize,
    /// Tells the task that somebody waits.
    pub(super) awaited: Notify,
    /// How often a subscriber was too slow.
    lagged: AtomicU64,
}

/// How far an informer has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    /// 0 before the first list is complete.
    pub(super) revision: u64,
    pub(super) state: InformerState,
}

struct Subscribers<T> {
    outlets: Vec<Outlet<T>>,
    id_last: u64,
    is_closed: bool,
}

/// The task's end of a subscription.
struct Outlet<T> {
    id: u64,
    steps: mpsc::Sender<Arc<Step<T>>>,
    buffered: Arc<AtomicUsize>,
    changes_max: usize,
}

/// A subscriber's end.
pub(super) struct Inlet<T> {
    id: u64,
    pub(super) steps: mpsc::Receiver<Arc<Step<T>>>,
    buffered: Arc<AtomicUsize>,
}

/// What the task notes about itself.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) heard_at: Option<Instant>,
    pub(super) changed_at: Option<Instant>,
    pub(super) relists: Relists,
    pub(super) error: Option<String>,
}

impl<T> Hub<T> {
    pub(super) fn new(first: Arc<Snapshot<T>>) -> Self {
        let position = Position { revision: 0, state: InformerState::Init };
        Self {
            newest: ArcSwap::new(first),
            position: watch::Sender::new(position),
            subscribers: Mutex::new(Subscribers { outlets: Vec::new(), id_last: 0, is_closed: false }),
            notes: Mutex::new(Notes::default()),
            waiting: AtomicUsize::new(0),
            awaited: Notify::new(),
            lagged: AtomicU64::new(0),
        }
    }

    pub(super) fn newest(&self) -> Arc<Snapshot<T>> {
        self.newest.load_full()
    }

    pub(super) fn position(&self) -> Position {
        *self.position.borrow()
    }

    pub(super) fn positions(&self) -> watch::Receiver<Position> {
        self.position.subscribe()
    }

    pub(super) fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn subscribers(&self) -> MutexGuard<'_, Subscribers<T>> {
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows another state, and tells subscribers if something has changed.
    pub(super) fn publish(&self, snapshot: &Arc<Snapshot<T>>, told: Option<Step<T>>) {
        let mut subscribers = self.subscribers();
        self.newest.store(Arc::clone(snapshot));
        if let Some(step) = told {
            let step = Arc::new(step);
            subscribers.outlets.retain(|outlet| {
                let is_told = outlet.tell(&step);
                if !is_told {
                    self.lagged.fetch_add(1, Ordering::Relaxed);
                }
                is_told
            });
        }
        drop(subscribers);
        self.position.send_if_modified(|position| {
            let is_news = position.revision != snapshot.revision();
            position.revision = snapshot.revision();
            is_news
        });
    }

    pub(super) fn set_state(&self, state: InformerState) {
        self.position.send_if_modified(|position| {
            let is_news = position.state != state;
            position.state = state;
            is_news
        });
    }

    /// Nothing is published any more.
    pub(super) fn close(&self) {
        let mut subscribers = self.subscribers();
        subscribers.is_closed = true;
        subscribers.outlets.clear();
        drop(subscribers);
        self.set_state(InformerState::Stopped);
    }

    /// All that is published from now on, and what was last; `None` when nothing will be. Beside one step, at most
    /// `changes_max` changes wait.
    pub(super) fn join(&self, changes_max: usize) -> Option<(Inlet<T>, Arc<Snapshot<T>>)> {
        let mut subscribers = self.subscribers();
        if subscribers.is_closed {
            return None;
        }
        subscribers.id_last += 1;
        let id = subscribers.id_last;
        let (sender, steps) = mpsc::channel(BUFFER_STEPS.min(changes_max.max(1)));
        let buffered = Arc::new(AtomicUsize::new(0));
        subscribers.outlets.push(Outlet { id, steps: sender, buffered: Arc::clone(&buffered), changes_max });
        Some((Inlet { id, steps, buffered }, self.newest()))
    }

    pub(super) fn leave(&self, inlet: &Inlet<T>) {
        self.subscribers().outlets.retain(|outlet| outlet.id != inlet.id);
    }

    /// Counts as waiting for a revision until it is dropped.
    pub(super) fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.awaited.notify_one();
        Waiting(&self.waiting)
    }

    pub(super) fn is_awaited(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    pub(super) fn health(&self) -> Health {
        let (position, snapshot) = (self.position(), self.newest());
        let subscribers = self.subscribers().outlets.len();
        let notes = self.notes();
        let age = |at: Option<Instant>| at.map(|at| at.elapsed());
        Health {
            state: position.state,
            revision: snapshot.revision(),
            objects: snapshot.len(),
            unreadable: snapshot.unreadable_len(),
            last_event_age: age(notes.changed_at),
            last_heard_age: age(notes.heard_at),
            relists: notes.relists,
            subscribers,
            lagged: self.lagged.load(Ordering::Relaxed),
            error: notes.error.clone(),
        }
    }
}

impl<T> Outlet<T> {
    /// Whether there was room for it.
    fn tell(&self, step: &Arc<Step<T>>) -> bool {
        let count = step.changes.len();
        let before = self.buffered.fetch_add(count, Ordering::Relaxed);
        (before == 0 || before + count <= self.changes_max) && self.steps.try_send(Arc::clone(step)).is_ok()
    }
}

impl<T> Inlet<T> {
    /// A step was taken out of the buffer.
    pub(super) fn took(&self, step: &Step<T>) {
        self.buffered.fetch_sub(step.changes.len(), Ordering::Relaxed);
    }
}

/// Somebody waits for a revision.
pub(super) struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
