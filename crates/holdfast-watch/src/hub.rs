//! The hub: all watchers of a member, where each stands, and how it gets from one standing to another.

mod catch_up;
mod publish;

use std::collections::{BTreeSet, HashMap};

use holdfast_mvcc::types::Revision;

use crate::interests::{Interests, Place};
use crate::streams::{Cursor, Streams, Turn};
use crate::types::{Figures, GroupMax, HashIds, StreamId, WatcherId, WatcherSpec, Work};

/// All watchers of a member. One owner calls it, in the order of the revisions.
#[derive(Debug)]
pub struct Hub {
    /// All revisions up to it were published or skipped.
    head: Revision,
    group_max: GroupMax,
    newest_id: u64,
    /// Only looked up.
    watchers: HashMap<WatcherId, Watcher, HashIds>,
    /// The synced watchers, by their keys.
    interests: Interests,
    /// The waiting watchers, by the revision they wait for.
    waiting: BTreeSet<(Revision, WatcherId)>,
    streams: Streams,
    work: Work,
}

#[derive(Debug)]
struct Watcher {
    spec: WatcherSpec,
    /// It is handed nothing below: it was handed that already, or does not want it.
    next: Revision,
    standing: Standing,
}

#[derive(Debug, Clone, Copy)]
enum Standing {
    /// At the head, in the index.
    Synced(Place),
    /// `next` lies behind the next revision; joins the index when the head comes near.
    Waiting,
    /// `next` is at or before the head; in its stream's orders.
    Cursor(Turn),
    /// As a cursor, but out with a group.
    Grouped(Turn),
}

impl Hub {
    /// A hub without watchers; all revisions up to `head` are published already.
    pub fn new(head: Revision) -> Self {
        Self::with_group_max(head, GroupMax::DEFAULT)
    }

    /// A hub with a bound for its groups.
    pub fn with_group_max(head: Revision, group_max: GroupMax) -> Self {
        Self {
            head,
            group_max,
            newest_id: 0,
            watchers: HashMap::default(),
            interests: Interests::default(),
            waiting: BTreeSet::new(),
            streams: Streams::default(),
            work: Work::default(),
        }
    }

    /// Adds a watcher. It reads history when it starts at or before the head, and is synced otherwise.
    pub fn add(&mut self, spec: WatcherSpec) -> WatcherId {
        self.newest_id += 1;
        let id = WatcherId::new(self.newest_id);
        self.streams.join(spec.stream, id);
        let turn = self.streams.new_turn();
        // Not in any order yet, which is what being out with a group means.
        let watcher = Watcher { next: spec.from, spec, standing: Standing::Grouped(turn) };
        self.watchers.insert(id, watcher);
        self.settle(id, turn);
        id
    }

    /// Removes a watcher. Without a word when it is not there.
    pub fn remove(&mut self, id: WatcherId) {
        if self.watchers.contains_key(&id) {
            self.uproot(id);
            let watcher = self.watchers.remove(&id).expect("it was just there");
            self.streams.leave(watcher.spec.stream, id);
        }
    }

    /// Removes a stream with all its watchers. Without a word when it is not there.
    pub fn remove_stream(&mut self, stream: StreamId) {
        for id in self.streams.watchers(stream) {
            self.remove(id);
        }
    }

    /// The stream's queue has room again. Without a word when it was not blocked, or has no watchers any more.
    pub fn unblock(&mut self, stream: StreamId) {
        self.streams.unblock(stream);
    }

    /// The head, when all watchers of the stream have been handed all up to it and none waits for a revision behind
    /// the next one. A stream without watchers has missed nothing.
    pub fn stream_progress(&self, stream: StreamId) -> Option<Revision> {
        self.streams.is_at_head(stream).then_some(self.head)
    }

    /// The head, when the watcher has been handed all up to it and does not wait for a revision behind the next one.
    pub fn watcher_progress(&self, id: WatcherId) -> Option<Revision> {
        let watcher = self.watchers.get(&id)?;
        matches!(watcher.standing, Standing::Synced(_)).then_some(self.head)
    }

    /// All revisions up to this one were published, or skipped.
    pub fn head(&self) -> Revision {
        self.head
    }

    /// How many there are of what.
    pub fn figures(&self) -> Figures {
        let synced = self.interests.watchers() + self.waiting.len();
        Figures {
            watchers: self.watchers.len(),
            synced,
            lagging: self.watchers.len() - synced,
            streams: self.streams.streams(),
            blocked: self.streams.blocked(),
        }
    }

    /// What was looked at since the hub was made.
    pub fn work(&self) -> Work {
        self.work
    }

    fn watcher_mut(&mut self, id: WatcherId) -> &mut Watcher {
        self.watchers.get_mut(&id).expect("whoever stands somewhere is a watcher")
    }

    /// Puts a watcher that stands nowhere to where it belongs by the revision it needs next.
    fn settle(&mut self, id: WatcherId, turn: Turn) {
        self.work.moves += 1;
        let head = self.head;
        let watcher = self.watchers.get_mut(&id).expect("whoever settles is a watcher");
        let (next, stream) = (watcher.next, watcher.spec.stream);
        watcher.standing = if next <= head {
            self.streams.push(stream, Cursor { next, watcher: id, turn });
            Standing::Cursor(turn)
        } else if next > head.next() {
            self.waiting.insert((next, id));
            Standing::Waiting
        } else {
            return self.enter_index(id);
        };
    }

    /// Makes a watcher that stands nowhere a synced one.
    fn enter_index(&mut self, id: WatcherId) {
        let watcher = self.watchers.get_mut(&id).expect("whoever enters the index is a watcher");
        assert!(watcher.next > self.head, "synced watchers hold no backlog");
        self.streams.enter_head(watcher.spec.stream);
        watcher.standing = Standing::Synced(self.interests.add(&watcher.spec.range, id));
    }

    /// Takes a watcher from where it stands.
    fn uproot(&mut self, id: WatcherId) {
        let watcher = self.watchers.get(&id).expect("whoever is uprooted is a watcher");
        let (next, stream) = (watcher.next, watcher.spec.stream);
        match watcher.standing {
            Standing::Synced(place) => {
                self.streams.leave_head(stream);
                if let Some(moved) = self.interests.remove(&watcher.spec.range, place) {
                    self.watcher_mut(moved).standing = Standing::Synced(place);
                }
            }
            Standing::Waiting => {
                let was_waiting = self.waiting.remove(&(next, id));
                assert!(was_waiting, "who waits is found by the revision it waits for");
            }
            Standing::Cursor(turn) => self.streams.take(stream, Cursor { next, watcher: id, turn }),
            Standing::Grouped(_) => {}
        }
    }
}
