//! Changes on a cluster, with each object as it was before.

use std::collections::VecDeque;

use bytes::Bytes;

use super::cluster::{item, refusal};
use super::error::StoreError;
use super::item::{Change, ChangeKind};
use super::selector::Selection;
use super::storage::StorageWatch;
use crate::client::Client;
use crate::codec::watch::Event;
use crate::range::KeyRange;
use crate::watch::{Watch, WatchEvent, WatchOptions};

/// A watch of a [`ClusterStorage`](super::ClusterStorage). It goes on over connections and members that fail; when changes
/// were compacted before they were given, it says so and ends.
#[derive(Debug)]
pub struct ClusterWatch {
    watch: Watch,
    selection: Selection<Bytes>,
    /// Changes up to this version were given, or are in `ready`.
    after: u64,
    ready: VecDeque<Change<Bytes>>,
    has_ended: bool,
}

impl ClusterWatch {
    /// The changes behind a version.
    pub(super) fn new(client: &Client, prefix: Bytes, after: u64, selection: Selection<Bytes>) -> Self {
        let options = WatchOptions::new().from(after.saturating_add(1)).previous();
        let watch = client.watch(KeyRange::prefix(prefix), options);
        Self { watch, selection, after, ready: VecDeque::new(), has_ended: false }
    }

    /// Takes what the client tells.
    fn take(&mut self, told: WatchEvent) -> Result<(), StoreError<Bytes>> {
        match told {
            WatchEvent::Changes { revision, events } => {
                for event in events {
                    // Without what was before, nobody can say what this change is to whom.
                    let change = change(event)
                        .ok_or(StoreError::Compacted { wanted: self.after, oldest: revision })?;
                    self.ready.extend(change.seen_by(|item| self.selection.matches(item)));
                }
                self.after = revision;
                Ok(())
            }
            WatchEvent::Progress { revision } => {
                self.after = self.after.max(revision);
                Ok(())
            }
            WatchEvent::Lost { resumes_at, .. } => {
                Err(StoreError::Compacted { wanted: self.after, oldest: resumes_at.saturating_sub(1) })
            }
        }
    }
}

/// `None` when it is not known what was before.
fn change(event: Event) -> Option<Change<Bytes>> {
    let is_create = event.is_create();
    let (key, version) = (event.key().clone(), event.revision());
    let (kind, current, previous) = match event {
        Event::Put { kv, .. } if is_create => (ChangeKind::Created, Some(item(kv)), None),
        Event::Put { kv, previous } => (ChangeKind::Modified, Some(item(kv)), Some(item(previous?))),
        Event::Delete { previous, .. } => (ChangeKind::Deleted, None, Some(item(previous?))),
    };
    Some(Change { kind, key, version, current, previous })
}

impl StorageWatch<Bytes> for ClusterWatch {
    async fn next(&mut self) -> Option<Result<Change<Bytes>, StoreError<Bytes>>> {
        loop {
            if let Some(change) = self.ready.pop_front() {
                return Some(Ok(change));
            }
            if self.has_ended {
                return None;
            }
            let told = self.watch.next().await.map_err(|error| refusal(self.after, error));
            if let Err(error) = told.and_then(|told| self.take(told)) {
                self.has_ended = true;
                self.ready.clear();
                return Some(Err(error));
            }
        }
    }

    fn server_side(&self) -> bool {
        self.selection.is_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::KeyValue;

    fn kv(create_revision: u64, mod_revision: u64) -> KeyValue {
        KeyValue {
            key: "k".into(),
            value: Bytes::new(),
            create_revision,
            mod_revision,
            version: 1,
            lease: None,
        }
    }

    /// NS9, AW14: what is no creation and comes without what was before is no change that can be told.
    #[test]
    fn aw14_a_change_of_what_was_there_has_what_was_before() {
        let put = |kv, previous| change(Event::Put { kv, previous }).map(|change| change.kind);
        assert_eq!(put(kv(7, 7), None), Some(ChangeKind::Created));
        assert_eq!(put(kv(6, 7), Some(kv(6, 6))), Some(ChangeKind::Modified));
        assert_eq!(put(kv(6, 7), None), None);
        let delete = |previous| change(Event::Delete { key: "k".into(), revision: 8, previous });
        let deleted = delete(Some(kv(6, 7))).unwrap();
        assert_eq!((deleted.kind, deleted.version), (ChangeKind::Deleted, 8));
        assert_eq!(deleted.previous.unwrap().version, 7);
        assert_eq!(delete(None), None);
    }
}
