//! History, to cursors: groups that read it together, and what becomes of them.

use holdfast_mvcc::types::{Record, Revision};

use super::publish::{Batch, Candidate, Offered};
use super::{Hub, Standing};
use crate::interests::{InterestId, Interests};
use crate::streams::Turn;
use crate::types::{Delivery, Group, StreamId, Taken, WatcherId};

/// A member of a group that is still there.
#[derive(Clone, Copy)]
struct Member {
    id: WatcherId,
    next: Revision,
    turn: Turn,
}

impl Hub {
    /// The next cursors to read history together, near each other, of streams that are not blocked; none when there is
    /// nothing to read. Usually the furthest behind and its neighbours; now and then the one that waited longest.
    /// They get nothing until the group is handed back. Several groups may be out at once.
    pub fn next_group(&mut self) -> Option<Group> {
        let cursors = self.streams.take_group(self.group_max);
        let from = cursors.first()?.next;
        for cursor in &cursors {
            self.work.grouped += 1;
            self.watcher_mut(cursor.watcher).standing = Standing::Grouped(cursor.turn);
        }
        Some(Group { from, watchers: cursors.into_iter().map(|cursor| cursor.watcher).collect() })
    }

    /// Hands a group all changes of the revisions from its first to `through`, each watcher's in one delivery. Who got
    /// them, or wants nothing of them, goes on behind `through`, which may lie behind the head: then it is handed
    /// nothing of that when it is published. Who finds its stream full stays where the first record is that it did not
    /// get. With `through` below the group's first revision nothing was read, as with [`Hub::put_back`].
    pub fn replay(
        &mut self,
        group: Group,
        records: &[Record],
        through: Revision,
        deliver: &mut impl FnMut(Delivery<'_>) -> Taken,
    ) {
        if through < group.from {
            return self.put_back(group);
        }
        let mut batch = Batch::new(records, group.from, through);
        let mut interests = Interests::default();
        let members: Vec<_> = self
            .members(&group)
            .into_iter()
            .map(|member| (member, self.place(member, through, &mut interests)))
            .collect();
        self.work.index_nodes += interests.match_records(records);
        for (member, interest) in members {
            let Member { id, turn, .. } = member;
            let Some(interest) = interest else {
                self.settle(id, turn);
                continue;
            };
            let watcher = self.watchers.get_mut(&id).expect("members are watchers");
            let candidate = Candidate { id, watcher, matched: interests.records_of(interest) };
            self.work.matched_watchers += u64::from(!candidate.matched.is_empty());
            let offered = batch.offer(&candidate, &mut self.streams, deliver);
            let is_served = !matches!(offered, Offered::Refused(_));
            watcher.next = match offered {
                Offered::Nothing | Offered::Taken => through.next(),
                Offered::Refused(next) => next,
            };
            // Who was refused keeps its turn: it still waits.
            let turn = if is_served { self.streams.new_turn() } else { turn };
            self.settle(id, turn);
        }
    }

    /// Takes back a group whose history could not be read now. Its watchers go to the end of the queue by turn, so that
    /// a piece of history that cannot be read does not hold up the rest.
    #[allow(clippy::needless_pass_by_value, reason = "a group ends here")]
    pub fn put_back(&mut self, group: Group) {
        for member in self.members(&group) {
            let turn = self.streams.new_turn();
            self.settle(member.id, turn);
        }
    }

    /// Takes back a group whose history is compacted: names, and removes, who needs a revision below
    /// `compact_revision`, which itself is still readable. The others stay cursors.
    #[allow(clippy::needless_pass_by_value, reason = "a group ends here")]
    pub fn compacted(
        &mut self,
        group: Group,
        compact_revision: Revision,
        cancel: &mut impl FnMut(WatcherId, StreamId),
    ) {
        for member in self.members(&group) {
            if member.next < compact_revision {
                cancel(member.id, self.watcher_mut(member.id).spec.stream);
                self.remove(member.id);
            } else {
                self.settle(member.id, member.turn);
            }
        }
    }

    /// Those of a group that were not removed since, the furthest behind first.
    fn members(&self, group: &Group) -> Vec<Member> {
        let standing = |id: &WatcherId| {
            let watcher = self.watchers.get(id)?;
            let Standing::Grouped(turn) = watcher.standing else {
                unreachable!("who is out with a group stands nowhere else");
            };
            Some(Member { id: *id, next: watcher.next, turn })
        };
        group.watchers.iter().filter_map(standing).collect()
    }

    /// Adds a member to the index of a replay, unless all that was read lies before what it needs.
    fn place(&self, member: Member, through: Revision, interests: &mut Interests) -> Option<InterestId> {
        let watcher = self.watchers.get(&member.id)?;
        (member.next <= through).then(|| interests.add(&watcher.spec.range, member.id).interest)
    }
}
