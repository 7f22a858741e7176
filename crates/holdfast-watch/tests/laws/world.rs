//! A hub with what surrounds it: history with a compact revision, queues that run full, groups that are out.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use holdfast_mvcc::types::{Change, KeyRange, PutRecord, RangeEnd, Record, RecordId, Revision};
use holdfast_watch::{
    Delivery, Filter, Group, GroupMax, Hub, PrevKv, StreamId, Taken, WatcherId, WatcherSpec,
};

use crate::checkers::{LAWS, Seen, Story, resumable};

/// What may happen. Numbers choose among what there is.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// A revision with these keys; `true` deletes.
    Write(Vec<(u8, bool)>),
    Publish(u8),
    SkipTo(u8),
    Add(NewWatcher),
    Remove(u8),
    RemoveStream(u8),
    /// A watcher goes away, and one that goes on where it was takes its place.
    Resume {
        watcher: u8,
        stream: u8,
    },
    /// A stream's queue is read.
    Drain(u8),
    Group,
    Replay {
        group: u8,
        revisions: u8,
    },
    PutBack(u8),
    Compact(u8),
    Progress(u8),
}

#[derive(Debug, Clone)]
pub(crate) struct NewWatcher {
    pub(crate) stream: u8,
    pub(crate) range: KeyRange,
    /// 0 to 3: the compact revision, far past, near past, the next revision or a later one.
    pub(crate) start: u8,
    pub(crate) distance: u8,
    pub(crate) filter: Filter,
}

#[derive(Default)]
struct Queue {
    records: usize,
    owes_unblock: bool,
}

struct Watched {
    spec: WatcherSpec,
    seen: Vec<Seen>,
    is_removed: bool,
    resumed: Option<WatcherId>,
}

pub(crate) struct World {
    hub: Hub,
    history: Vec<Record>,
    newest: Revision,
    compact: Revision,
    queue_records_max: usize,
    queues: BTreeMap<StreamId, Queue>,
    watched: BTreeMap<WatcherId, Watched>,
    groups: Vec<Group>,
}

/// A stream's queue takes while it is not full, whatever the size of what it takes.
fn take(
    queues: &mut BTreeMap<StreamId, Queue>,
    watched: &mut BTreeMap<WatcherId, Watched>,
    max: usize,
    records: &[Record],
    delivery: Delivery<'_>,
) -> Taken {
    let queue = queues.entry(delivery.stream).or_default();
    assert!(!queue.owes_unblock, "a blocked stream is offered nothing");
    if queue.records >= max {
        queue.owes_unblock = true;
        return Taken::Full;
    }
    queue.records += delivery.records.len();
    let watched = watched.get_mut(&delivery.watcher).expect("delivered to a watcher that is there");
    assert!(!watched.is_removed, "a removed watcher gets nothing");
    assert_eq!((watched.spec.stream, watched.spec.prev_kv), (delivery.stream, delivery.prev_kv));
    let events = delivery.records.iter().map(|at| records[*at].clone()).collect();
    watched.seen.push(Seen::Events(events));
    Taken::Taken
}

pub(crate) fn key(number: u8) -> Bytes {
    Bytes::from(vec![b'a' + number])
}

fn holds(range: &KeyRange, key: &Bytes) -> bool {
    match &range.end {
        RangeEnd::Single => *key == range.start,
        RangeEnd::Before(end) => *key >= range.start && key < end,
        RangeEnd::Unbounded => *key >= range.start,
    }
}

impl World {
    pub(crate) fn new(queue_records_max: usize, group_max: GroupMax) -> Self {
        let fresh = Revision::FRESH;
        Self {
            hub: Hub::with_group_max(fresh, group_max),
            history: Vec::new(),
            newest: fresh,
            compact: fresh,
            queue_records_max,
            queues: BTreeMap::new(),
            watched: BTreeMap::new(),
            groups: Vec::new(),
        }
    }

    pub(crate) fn step(&mut self, step: &Step) {
        match step {
            Step::Write(changes) => self.write(changes),
            Step::Publish(revisions) => {
                let through = self.hub.head().get() + u64::from(*revisions);
                self.publish(Revision::new(through.min(self.newest.get())));
            }
            Step::SkipTo(revisions) => {
                let to = self.hub.head().get() + u64::from(*revisions);
                self.hub.skip_to(Revision::new(to.min(self.newest.get())));
            }
            Step::Add(new) => self.add_new(new),
            Step::Remove(choice) => self.remove(*choice),
            Step::RemoveStream(stream) => self.remove_stream(StreamId::new((*stream).into())),
            Step::Resume { watcher, stream } => self.resume(*watcher, StreamId::new((*stream).into())),
            Step::Drain(stream) => self.drain(StreamId::new((*stream).into())),
            Step::Group => self.group(),
            Step::Replay { group, revisions } => self.replay(*group, u64::from(*revisions)),
            Step::PutBack(choice) => {
                if let Some(group) = self.take_group(*choice) {
                    self.hub.put_back(group);
                }
            }
            Step::Compact(revisions) => {
                let to = self.compact.get() + u64::from(*revisions);
                self.compact = Revision::new(to.min(self.newest.get()));
            }
            Step::Progress(stream) => self.progress(StreamId::new((*stream).into())),
        }
        self.check_figures();
        self.check_newcomers();
    }

    fn write(&mut self, changes: &[(u8, bool)]) {
        self.newest = self.newest.next();
        for (sub, (number, is_delete)) in (0..).zip(changes) {
            let put =
                PutRecord { create_revision: self.newest, version: 1, lease: None, value: Bytes::new() };
            let change = if *is_delete { Change::Delete } else { Change::Put(put) };
            let id = RecordId::new(self.newest, sub);
            self.history.push(Record { id, key: key(*number), change });
        }
    }

    fn records(&self, from: Revision, through: Revision) -> Vec<Record> {
        let is_within = |record: &&Record| record.id.revision >= from && record.id.revision <= through;
        self.history.iter().filter(is_within).cloned().collect()
    }

    fn publish(&mut self, through: Revision) {
        let records = self.records(self.hub.head().next(), through);
        let Self { hub, queues, watched, queue_records_max: max, .. } = self;
        hub.publish(&records, through, &mut |delivery| take(queues, watched, *max, &records, delivery));
    }

    fn add(&mut self, spec: WatcherSpec) -> WatcherId {
        let id = self.hub.add(spec.clone());
        let watched = Watched { spec, seen: Vec::new(), is_removed: false, resumed: None };
        assert!(self.watched.last_key_value().is_none_or(|(last, _)| *last < id), "ids ascend");
        self.watched.insert(id, watched);
        id
    }

    fn add_new(&mut self, new: &NewWatcher) {
        let distance = u64::from(new.distance);
        let from = match new.start {
            0 => self.compact.get(),
            1 => 1 + distance,
            2 => self.newest.get().saturating_sub(distance).max(1),
            _ => self.newest.get() + 1 + distance,
        };
        let stream = StreamId::new(new.stream.into());
        let prev_kv = if new.distance.is_multiple_of(2) { PrevKv::Wanted } else { PrevKv::Omitted };
        let from = Revision::new(from);
        self.add(WatcherSpec { stream, range: new.range.clone(), from, filter: new.filter, prev_kv });
    }

    /// One of the watchers that are there.
    fn choose(&self, choice: u8) -> Option<WatcherId> {
        let live: Vec<_> = self.watched.iter().filter(|(_, watched)| !watched.is_removed).collect();
        (!live.is_empty()).then(|| *live[usize::from(choice) % live.len()].0)
    }

    fn watched_mut(&mut self, id: WatcherId) -> &mut Watched {
        self.watched.get_mut(&id).expect("watched")
    }

    fn remove(&mut self, choice: u8) {
        if let Some(id) = self.choose(choice) {
            self.hub.remove(id);
            self.watched_mut(id).is_removed = true;
            self.forget_empty(self.watched[&id].spec.stream);
        }
    }

    fn remove_stream(&mut self, stream: StreamId) {
        self.hub.remove_stream(stream);
        for watched in self.watched.values_mut().filter(|watched| watched.spec.stream == stream) {
            watched.is_removed = true;
        }
        self.forget_empty(stream);
    }

    /// A stream without watchers is as new to the hub; so is its queue here.
    fn forget_empty(&mut self, stream: StreamId) {
        let is_live = |watched: &Watched| !watched.is_removed && watched.spec.stream == stream;
        if !self.watched.values().any(is_live) {
            self.queues.remove(&stream);
        }
    }

    fn resume(&mut self, choice: u8, stream: StreamId) {
        let Some(id) = self.choose(choice) else { return };
        let story = self.story(id);
        let from = story.seen_up_to().map_or(story.from, |seen| story.from.max(seen.next()));
        self.hub.remove(id);
        self.watched_mut(id).is_removed = true;
        self.forget_empty(self.watched[&id].spec.stream);
        let spec = WatcherSpec { stream, from, ..self.watched[&id].spec.clone() };
        self.watched_mut(id).resumed = Some(self.add(spec));
    }

    fn drain(&mut self, stream: StreamId) {
        if let Some(queue) = self.queues.remove(&stream)
            && queue.owes_unblock
        {
            self.hub.unblock(stream);
        }
    }

    fn group(&mut self) {
        let group = self.hub.next_group();
        let mut live = self.watched.values().filter(|watched| !watched.is_removed);
        let is_blocked = |stream| self.queues.get(&stream).is_some_and(|queue: &Queue| queue.owes_unblock);
        assert!(group.is_none() || live.any(|watched| !is_blocked(watched.spec.stream)), "nobody has room");
        self.groups.extend(group);
    }

    fn take_group(&mut self, choice: u8) -> Option<Group> {
        let groups = self.groups.len();
        (groups > 0).then(|| self.groups.swap_remove(usize::from(choice) % groups))
    }

    fn replay(&mut self, choice: u8, revisions: u64) {
        let Some(group) = self.take_group(choice) else { return };
        if group.from < self.compact {
            return self.compacted(group);
        }
        // With no revisions nothing was read. History may go beyond the head.
        let through = Revision::new((group.from.get() - 1 + revisions).min(self.newest.get()));
        let records = self.records(group.from, through);
        let Self { hub, queues, watched, queue_records_max: max, .. } = self;
        hub.replay(group, &records, through, &mut |delivery| take(queues, watched, *max, &records, delivery));
    }

    fn compacted(&mut self, group: Group) {
        let compact = self.compact;
        let watched = &mut self.watched;
        let mut streams = BTreeSet::new();
        self.hub.compacted(group, compact, &mut |id, stream| {
            let watched = watched.get_mut(&id).expect("watched");
            assert_eq!(watched.spec.stream, stream);
            watched.seen.push(Seen::Canceled(compact));
            watched.is_removed = true;
            streams.insert(stream);
        });
        streams.into_iter().for_each(|stream| self.forget_empty(stream));
    }

    /// Progress of a stream is progress of each of its watchers.
    fn progress(&mut self, stream: StreamId) {
        let is_live = |watched: &Watched| !watched.is_removed && watched.spec.stream == stream;
        let whole = self.hub.stream_progress(stream);
        let mut of_each = Vec::new();
        for (id, watched) in self.watched.iter_mut().filter(|(_, watched)| is_live(watched)) {
            let own = self.hub.watcher_progress(*id);
            of_each.push(own);
            watched.seen.extend(own.into_iter().map(Seen::Progress));
        }
        assert_eq!(whole.is_some(), of_each.iter().all(Option::is_some), "all of them, or not the stream");
        assert!(whole.is_none_or(|whole| whole == self.hub.head()));
    }

    fn check_figures(&self) {
        let figures = self.hub.figures();
        let live: Vec<_> = self.watched.values().filter(|watched| !watched.is_removed).collect();
        let streams: BTreeSet<_> = live.iter().map(|watched| watched.spec.stream).collect();
        let blocked = self.queues.values().filter(|queue| queue.owes_unblock).count();
        assert_eq!(figures.watchers, live.len());
        assert_eq!(figures.synced + figures.lagging, live.len());
        assert_eq!(figures.streams, streams.len());
        assert_eq!(figures.blocked, blocked);
    }

    /// Who starts right behind the head is at the head; who starts later waits.
    fn check_newcomers(&self) {
        for (id, watched) in self.watched.iter().filter(|(_, watched)| !watched.is_removed) {
            let next = self.hub.head().next();
            let progress = self.hub.watcher_progress(*id);
            assert!(watched.spec.from < next || progress.is_some() == (watched.spec.from == next));
        }
    }

    /// Publishes all, reads all queues, and serves all cursors: with nothing in the way this must come to an end.
    pub(crate) fn come_to_rest(&mut self) {
        self.publish(self.newest);
        let cursors = u64::try_from(self.hub.figures().lagging).expect("few");
        let mut steps_left = 1000 + 20 * (cursors + 1) * (self.newest.get() + 1);
        loop {
            steps_left = steps_left.checked_sub(1).expect("catching up comes to an end");
            let full: Vec<_> = self.queues.keys().copied().collect();
            full.into_iter().for_each(|stream| self.drain(stream));
            self.step(&Step::Group);
            if self.groups.is_empty() {
                break;
            }
            self.step(&Step::Replay { group: 0, revisions: 7 });
        }
        let figures = self.hub.figures();
        assert_eq!((figures.lagging, figures.blocked), (0, 0), "at rest nobody lags");
    }

    fn story(&self, id: WatcherId) -> Story {
        let watched = &self.watched[&id];
        let WatcherSpec { range, from, filter, .. } = &watched.spec;
        let wants = |record: &&Record| {
            let sort = if record.change == Change::Delete { filter.deletes } else { filter.puts };
            sort && record.id.revision >= *from && holds(range, &record.key)
        };
        let wanted = self.history.iter().filter(wants).cloned().collect();
        Story { from: *from, seen: watched.seen.clone(), wanted, is_complete: !watched.is_removed }
    }

    /// Judges what every watcher saw, after `come_to_rest`.
    pub(crate) fn judge(&self) {
        for (id, watched) in &self.watched {
            let story = self.story(*id);
            for (name, law) in LAWS {
                law(&story).unwrap_or_else(|why| panic!("{id:?} not {name}: {why}\n{story:#?}"));
            }
            if let Some(resumed) = watched.resumed {
                resumable(&story, &self.story(resumed)).unwrap_or_else(|why| panic!("{id:?}: {why}"));
            }
        }
    }

    /// How many deliveries were seen.
    pub(crate) fn deliveries(&self) -> usize {
        let is_delivery = |seen: &&Seen| matches!(seen, Seen::Events(_));
        self.watched.values().map(|watched| watched.seen.iter().filter(is_delivery).count()).sum()
    }
}
