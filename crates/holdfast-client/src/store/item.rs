//! What stores give: an object with its versions, a list of them, and how they change.

use std::fmt;

use bytes::Bytes;

/// An object as it is stored: `Bytes` in a [`Storage`](super::Storage), `Arc<T>` in a [`TypedStore`](super::TypedStore).
#[derive(Clone, PartialEq, Eq)]
pub struct Item<V> {
    /// The key.
    pub key: Bytes,
    /// The object.
    pub value: V,
    /// The revision of its latest change. A key that is deleted and made again has a greater one than before.
    pub version: u64,
    /// The revision at which the key last came into being.
    pub created: u64,
    /// Whether it was written in another way than it would be now, say with a key that was replaced: writing it again
    /// brings it up to date. Never set by a store without a [`Transformer`](super::Transformer).
    pub is_stale: bool,
}

impl<V> Item<V> {
    /// The same with another form of the object.
    pub fn map<U>(self, form: impl FnOnce(V) -> U) -> Item<U> {
        let Self { key, value, version, created, is_stale } = self;
        Item { key, value: form(value), version, created, is_stale }
    }
}

/// The object itself is left out: it may be large, or secret.
impl<V> fmt::Debug for Item<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Item")
            .field("key", &self.key)
            .field("version", &self.version)
            .field("created", &self.created)
            .field("is_stale", &self.is_stale)
            .finish_non_exhaustive()
    }
}

/// All that a list found, as it was at one version of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Items<V> {
    /// In the order of the keys' bytes; may be empty.
    pub items: Vec<Item<V>>,
    /// The version of the whole store of which this is true, also when there is no item. A watch after it misses nothing.
    pub version: u64,
    /// Whether selectors were evaluated where the objects are. When not, all objects came here first.
    pub server_side: bool,
}

/// Some of what there is, as it was at one version of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<V> {
    /// In the order of the keys' bytes; may be empty.
    pub items: Vec<Item<V>>,
    /// The version of the store of which this is true. Other pages may be true of others, unless they are read at it.
    pub version: u64,
    /// Whether there are more behind them.
    pub more: bool,
}

/// What was deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed<V> {
    /// The object as it was last, with the version of its latest change.
    pub item: Item<V>,
    /// The version of the deletion.
    pub at: u64,
}

/// What happened to an object, as far as a selection of objects is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// It came into being.
    Created,
    /// It was there, and belongs to the selection from now on.
    Entered,
    /// It was changed.
    Modified,
    /// It is gone: somebody deleted it, or the lease that it lived with ended. Plain etcd does not say which.
    Deleted,
    /// It is still there, and does not belong to the selection any more.
    Left,
    /// A store in memory was full and dropped it.
    Evicted,
}

impl ChangeKind {
    /// Whether the object is not there any more for who watches this selection.
    pub fn is_gone(self) -> bool {
        match self {
            Self::Deleted | Self::Left | Self::Evicted => true,
            Self::Created | Self::Entered | Self::Modified => false,
        }
    }
}

/// One change of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change<V> {
    /// What happened.
    pub kind: ChangeKind,
    /// To whom.
    pub key: Bytes,
    /// The version of the change: of the deletion, for what is gone.
    pub version: u64,
    /// The object as it is now; none when it is deleted. What has left a selection is still given.
    pub current: Option<Item<V>>,
    /// As it was before; none for what was created, and where what it was cannot be opened or decoded.
    pub previous: Option<Item<V>>,
}

impl<V> Change<V> {
    /// The change as it looks to who sees only what `matches`; `None` when that is nothing.
    ///
    /// | before | now | seen as |
    /// |---|---|---|
    /// | not there | matches | created |
    /// | does not match | matches | entered |
    /// | matches | matches | modified |
    /// | matches | does not match | left |
    /// | matches | gone | deleted, evicted |
    /// | cannot be read | matches | modified |
    /// | cannot be read | does not match | left |
    /// | cannot be read | gone | deleted, evicted |
    /// | no match, or not there | no match, or gone | nothing |
    ///
    /// What cannot be read any more may have matched: somebody may have it, and is told.
    pub fn seen_by(mut self, matches: impl Fn(&Item<V>) -> bool) -> Option<Self> {
        let was = self.previous.as_ref().is_some_and(&matches);
        let is = self.current.as_ref().is_some_and(&matches);
        let may_have_been = self.previous.is_none() && self.kind != ChangeKind::Created;
        self.kind = match (was, is) {
            (false, false) if may_have_been && self.current.is_none() => self.kind,
            (false, false) if may_have_been => ChangeKind::Left,
            (false, false) => return None,
            (true, true) => self.kind,
            (false, true) if self.previous.is_none() => self.kind,
            (false, true) => ChangeKind::Entered,
            (true, false) if self.current.is_none() => self.kind,
            (true, false) => ChangeKind::Left,
        };
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(value: bool, version: u64) -> Item<bool> {
        Item { key: "k".into(), value, version, created: 1, is_stale: false }
    }

    fn change(kind: ChangeKind, previous: Option<bool>, current: Option<bool>) -> Change<bool> {
        Change {
            kind,
            key: "k".into(),
            version: 2,
            current: current.map(|value| item(value, 2)),
            previous: previous.map(|value| item(value, 1)),
        }
    }

    /// NS7: a change is an event when the current or the previous object matches.
    #[test]
    fn ns7_a_change_is_seen_when_what_is_or_what_was_matches() {
        use ChangeKind::{Created, Deleted, Entered, Evicted, Left, Modified};
        let cases = [
            (Created, None, Some(true), Some(Created)),
            (Created, None, Some(false), None),
            (Modified, Some(true), Some(true), Some(Modified)),
            (Modified, Some(false), Some(true), Some(Entered)),
            (Modified, Some(true), Some(false), Some(Left)),
            (Modified, Some(false), Some(false), None),
            (Deleted, Some(true), None, Some(Deleted)),
            (Evicted, Some(true), None, Some(Evicted)),
            (Deleted, Some(false), None, None),
            // What it was cannot be read.
            (Modified, None, Some(true), Some(Modified)),
            (Modified, None, Some(false), Some(Left)),
            (Deleted, None, None, Some(Deleted)),
        ];
        for (kind, previous, current, seen) in cases {
            let told = change(kind, previous, current).seen_by(|item| item.value);
            assert_eq!(told.map(|change| change.kind), seen, "{kind:?} {previous:?} {current:?}");
        }
    }
}
