//! The hub: all watchers of a member, and who gets which record.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_mvcc::types::{Change, KeyRange, RangeEnd, Record, Revision};

use crate::types::{Delivery, Figures, Group, StreamId, Taken, WatcherId, WatcherSpec};

/// All watchers of a member.
#[derive(Debug)]
pub struct Hub {
    head: Revision,
    newest_id: u64,
    watchers: BTreeMap<WatcherId, Watcher>,
    blocked: BTreeSet<StreamId>,
}

#[derive(Debug)]
struct Watcher {
    spec: WatcherSpec,
    /// All its records below were handed out.
    next: Revision,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Synced,
    Cursor,
    InGroup,
}

impl Hub {
    /// A hub without watchers; all revisions up to `head` are published already.
    pub fn new(head: Revision) -> Self {
        Self { head, newest_id: 0, watchers: BTreeMap::new(), blocked: BTreeSet::new() }
    }

    /// Adds a watcher. It is synced when it starts behind the head, and reads history otherwise.
    pub fn add(&mut self, spec: WatcherSpec) -> WatcherId {
        self.newest_id += 1;
        let id = WatcherId::new(self.newest_id);
        let state = if spec.from > self.head { State::Synced } else { State::Cursor };
        self.watchers.insert(id, Watcher { next: spec.from, spec, state });
        id
    }

    /// Removes a watcher; one that is not there is none.
    pub fn remove(&mut self, id: WatcherId) {
        self.watchers.remove(&id);
    }

    /// Removes a stream with all its watchers.
    pub fn remove_stream(&mut self, stream: StreamId) {
        self.watchers.retain(|_, watcher| watcher.spec.stream != stream);
        self.blocked.remove(&stream);
    }

    /// Hands out the whole revisions behind the head up to `revision`.
    pub fn publish(
        &mut self,
        records: &[Record],
        revision: Revision,
        deliver: &mut impl FnMut(Delivery<'_>) -> Taken,
    ) {
        assert!(revision >= self.head, "the head never regresses");
        for (id, watcher) in &mut self.watchers {
            if watcher.state == State::Synced {
                offer(*id, watcher, records, revision, &mut self.blocked, deliver);
                if watcher.next <= revision {
                    watcher.state = State::Cursor;
                }
            }
        }
        self.head = revision;
    }

    /// The revisions up to `head` will not be published: every synced watcher reads them from history.
    pub fn skip_to(&mut self, head: Revision) {
        assert!(head >= self.head, "the head never regresses");
        self.head = head;
        for watcher in self.watchers.values_mut() {
            if watcher.state == State::Synced && watcher.next <= head {
                watcher.state = State::Cursor;
            }
        }
    }

    /// The next watchers to read history together; none when there is nothing to do.
    pub fn next_group(&mut self) -> Option<Group> {
        let blocked = &self.blocked;
        let ready =
            |watcher: &Watcher| watcher.state == State::Cursor && !blocked.contains(&watcher.spec.stream);
        let mut found: Vec<_> = self
            .watchers
            .iter()
            .filter(|(_, watcher)| ready(watcher))
            .map(|(id, watcher)| (watcher.next, *id))
            .collect();
        found.sort_unstable();
        found.truncate(512);
        let from = found.first()?.0;
        let watchers: Vec<_> = found.into_iter().map(|(_, id)| id).collect();
        for id in &watchers {
            if let Some(watcher) = self.watchers.get_mut(id) {
                watcher.state = State::InGroup;
            }
        }
        Some(Group { from, watchers })
    }

    /// Hands a group all changes of its first revision to `through`.
    #[allow(clippy::needless_pass_by_value, reason = "a group ends here")]
    pub fn replay(
        &mut self,
        group: Group,
        records: &[Record],
        through: Revision,
        deliver: &mut impl FnMut(Delivery<'_>) -> Taken,
    ) {
        for id in &group.watchers {
            let Some(watcher) = self.watchers.get_mut(id) else { continue };
            if watcher.next <= through {
                offer(*id, watcher, records, through, &mut self.blocked, deliver);
            }
            watcher.state = if watcher.next > self.head { State::Synced } else { State::Cursor };
        }
    }

    /// Takes back a group whose history could not be read now.
    #[allow(clippy::needless_pass_by_value, reason = "a group ends here")]
    pub fn put_back(&mut self, group: Group) {
        for id in &group.watchers {
            if let Some(watcher) = self.watchers.get_mut(id) {
                watcher.state = State::Cursor;
            }
        }
    }

    /// Takes back a group whose history is compacted: removes, and names, who needs a revision below
    /// `compact_revision`, which itself is still readable.
    #[allow(clippy::needless_pass_by_value, reason = "a group ends here")]
    pub fn compacted(
        &mut self,
        group: Group,
        compact_revision: Revision,
        cancel: &mut impl FnMut(WatcherId, StreamId),
    ) {
        for id in &group.watchers {
            let Some(watcher) = self.watchers.get_mut(id) else { continue };
            watcher.state = State::Cursor;
            if watcher.next < compact_revision {
                cancel(*id, watcher.spec.stream);
                self.watchers.remove(id);
            }
        }
    }

    /// The stream's queue has room again.
    pub fn unblock(&mut self, stream: StreamId) {
        self.blocked.remove(&stream);
    }

    /// The head, when all watchers of the stream have been handed all up to it and none waits for a revision behind
    /// the next one. A stream without watchers has missed nothing.
    pub fn stream_progress(&self, stream: StreamId) -> Option<Revision> {
        let mut own = self.watchers.values().filter(|watcher| watcher.spec.stream == stream);
        own.all(|watcher| self.is_at_head(watcher)).then_some(self.head)
    }

    /// The head, when the watcher has been handed all up to it and does not wait for a revision behind the next one.
    pub fn watcher_progress(&self, id: WatcherId) -> Option<Revision> {
        self.watchers.get(&id).filter(|watcher| self.is_at_head(watcher)).map(|_| self.head)
    }

    /// All revisions up to this one were published, or skipped.
    pub fn head(&self) -> Revision {
        self.head
    }

    /// How many there are of what.
    pub fn figures(&self) -> Figures {
        let synced = self.watchers.values().filter(|watcher| watcher.state == State::Synced).count();
        let streams: BTreeSet<_> = self.watchers.values().map(|watcher| watcher.spec.stream).collect();
        Figures {
            watchers: self.watchers.len(),
            synced,
            lagging: self.watchers.len() - synced,
            streams: streams.len(),
            blocked: self.blocked.len(),
        }
    }

    fn is_at_head(&self, watcher: &Watcher) -> bool {
        watcher.state == State::Synced && watcher.next <= self.head.next()
    }
}

/// Offers what a watcher wants of the revisions up to `through`, and moves it behind what it got.
fn offer(
    id: WatcherId,
    watcher: &mut Watcher,
    records: &[Record],
    through: Revision,
    blocked: &mut BTreeSet<StreamId>,
    deliver: &mut impl FnMut(Delivery<'_>) -> Taken,
) {
    let wanted: Vec<usize> = (0..records.len()).filter(|&at| wants(watcher, &records[at])).collect();
    let Some(&first) = wanted.first() else {
        watcher.next = watcher.next.max(through.next());
        return;
    };
    let stream = watcher.spec.stream;
    let delivery = Delivery { watcher: id, stream, prev_kv: watcher.spec.prev_kv, records: &wanted };
    if !blocked.contains(&stream) && deliver(delivery) == Taken::Taken {
        watcher.next = through.next();
    } else {
        blocked.insert(stream);
        watcher.next = records[first].id.revision;
    }
}

fn wants(watcher: &Watcher, record: &Record) -> bool {
    let sort = match record.change {
        Change::Put(_) => watcher.spec.filter.puts,
        Change::Delete => watcher.spec.filter.deletes,
    };
    sort && record.id.revision >= watcher.next && covers(&watcher.spec.range, &record.key)
}

fn covers(range: &KeyRange, key: &bytes::Bytes) -> bool {
    match &range.end {
        RangeEnd::Single => *key == range.start,
        RangeEnd::Before(end) => *key >= range.start && key < end,
        RangeEnd::Unbounded => *key >= range.start,
    }
}
