//! Whether what somebody wants to write is newer than what is there. Pure.

use std::cmp::Ordering;
use std::fmt;

use bytes::Bytes;

use super::envelope::{Envelope, Writer};
use super::origin::OriginVersion;

/// What is stored of an object, with the revisions that have changed it last; 0 for what is not there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Stored {
    pub(super) object: Option<Envelope>,
    pub(super) object_revision: u64,
    /// That it is known to be gone, and at which version.
    pub(super) gone: Option<Envelope>,
    pub(super) gone_revision: u64,
}

/// What somebody wants to write.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Wish {
    Put(Bytes),
    Delete,
    /// A list of the source does not have it. Where versions cannot be compared, what is stored since this revision is
    /// newer than the list.
    Vanish {
        listed_from: u64,
    },
}

/// Without the object's bytes, which may be secret.
impl fmt::Debug for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put(bytes) => f.debug_tuple("Put").field(&bytes.len()).finish(),
            Self::Delete => f.write_str("Delete"),
            Self::Vanish { listed_from } => {
                f.debug_struct("Vanish").field("listed_from", listed_from).finish()
            }
        }
    }
}

/// What becomes of a wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Apply,
    /// It is so already.
    Same,
    /// What is stored is newer.
    Older,
    /// Nobody here can tell which is newer.
    Incomparable,
}

/// Compares by the source's order, in which versions that are written the same are equal.
pub(super) fn compare(
    by_source: impl Fn(&OriginVersion, &OriginVersion) -> Option<Ordering>,
    given: &OriginVersion,
    known: &OriginVersion,
) -> Option<Ordering> {
    if given == known { Some(Ordering::Equal) } else { by_source(given, known) }
}

/// Decides. `order` is how the version of the wish stands to the one that is stored: of the object, or of its absence.
pub(super) fn decide(stored: &Stored, wish: &Wish, writer: Writer, order: Option<Ordering>) -> Verdict {
    // A source tells in order: what it tells now is what is so now, if there is nothing to compare by.
    let unless_told = match writer {
        Writer::Sync => Verdict::Apply,
        Writer::Direct => Verdict::Incomparable,
    };
    match (&stored.object, wish) {
        (Some(object), Wish::Put(bytes)) => match order {
            Some(Ordering::Greater) => Verdict::Apply,
            Some(Ordering::Less) => Verdict::Older,
            // Whoever has written it directly may have been wrong about the bytes; the source is not.
            Some(Ordering::Equal)
                if object.bytes != *bytes && (object.writer, writer) == (Writer::Direct, Writer::Sync) =>
            {
                Verdict::Apply
            }
            Some(Ordering::Equal) => Verdict::Same,
            None => unless_told,
        },
        (Some(_), Wish::Delete) => match order {
            // Some sources give a deletion the version of what is deleted.
            Some(Ordering::Greater | Ordering::Equal) => Verdict::Apply,
            Some(Ordering::Less) => Verdict::Older,
            None => unless_told,
        },
        (Some(_), Wish::Vanish { listed_from }) => match order {
            Some(Ordering::Greater | Ordering::Equal) => Verdict::Apply,
            Some(Ordering::Less) => Verdict::Older,
            None if stored.object_revision > *listed_from => Verdict::Older,
            None => Verdict::Apply,
        },
        (None, Wish::Put(_)) => match (&stored.gone, order) {
            (None, _) | (Some(_), Some(Ordering::Greater)) => Verdict::Apply,
            (Some(_), Some(Ordering::Less | Ordering::Equal)) => Verdict::Older,
            (Some(_), None) => unless_told,
        },
        // Also of what was never here: an older object may still be on its way.
        (None, Wish::Delete) => match (&stored.gone, order) {
            (None, _) | (Some(_), Some(Ordering::Greater)) => Verdict::Apply,
            (Some(_), Some(Ordering::Less | Ordering::Equal) | None) => Verdict::Same,
        },
        (None, Wish::Vanish { .. }) => Verdict::Same,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stored(object: Option<(u64, Writer)>, gone: Option<u64>) -> Stored {
        let envelope = |(origin, writer): (u64, Writer)| Envelope {
            origin: origin.to_string().into(),
            writer,
            bytes: Bytes::from_static(b"x"),
        };
        Stored {
            object_revision: object.map_or(0, |_| 10),
            object: object.map(envelope),
            gone: gone.map(|origin| Envelope::of_gone(origin.to_string().into(), Writer::Sync, false)),
            gone_revision: gone.map_or(0, |_| 10),
        }
    }

    fn verdict(stored: &Stored, wish: &Wish, writer: Writer, origin: u64) -> Verdict {
        let given: OriginVersion = origin.to_string().into();
        let known = stored.object.as_ref().or(stored.gone.as_ref()).map(|known| &known.origin);
        let order = known.and_then(|known| compare(OriginVersion::compare_numbers, &given, known));
        decide(stored, wish, writer, order)
    }

    /// CP11: only what is newer is applied, whoever comes first.
    #[test]
    fn cp11_only_what_is_newer_is_applied() {
        use Verdict::{Apply, Older, Same};
        let (put, other) = (Wish::Put("x".into()), Wish::Put("y".into()));
        let vanish = Wish::Vanish { listed_from: 99 };
        let there = stored(Some((5, Writer::Direct)), None);
        let gone = stored(None, Some(5));
        let nothing = stored(None, None);
        for (stored, wish, writer, origin, expected) in [
            (&there, &put, Writer::Sync, 4, Older),
            (&there, &put, Writer::Sync, 5, Same),
            (&there, &put, Writer::Sync, 6, Apply),
            (&there, &other, Writer::Sync, 5, Apply),
            (&there, &other, Writer::Direct, 5, Same),
            (&there, &Wish::Delete, Writer::Sync, 4, Older),
            (&there, &Wish::Delete, Writer::Sync, 5, Apply),
            (&there, &vanish, Writer::Sync, 4, Older),
            (&there, &vanish, Writer::Sync, 6, Apply),
            (&gone, &put, Writer::Sync, 4, Older),
            (&gone, &put, Writer::Direct, 5, Older),
            (&gone, &put, Writer::Sync, 6, Apply),
            (&gone, &Wish::Delete, Writer::Sync, 5, Same),
            (&gone, &Wish::Delete, Writer::Sync, 6, Apply),
            (&gone, &vanish, Writer::Sync, 6, Same),
            (&nothing, &put, Writer::Direct, 1, Apply),
            (&nothing, &Wish::Delete, Writer::Sync, 1, Apply),
        ] {
            assert_eq!(verdict(stored, wish, writer, origin), expected, "{stored:?} {wish:?} {origin}");
        }
    }

    /// Where versions are just names, the source is believed, and somebody else is told that nobody knows.
    #[test]
    fn what_cannot_be_compared_is_left_to_the_source() {
        let there = stored(Some((5, Writer::Sync)), None);
        let put = Wish::Put("y".into());
        assert_eq!(decide(&there, &put, Writer::Sync, None), Verdict::Apply);
        assert_eq!(decide(&there, &put, Writer::Direct, None), Verdict::Incomparable);
        let vanish = |listed_from| decide(&there, &Wish::Vanish { listed_from }, Writer::Sync, None);
        assert_eq!(vanish(9), Verdict::Older, "it was written after the list began");
        assert_eq!(vanish(10), Verdict::Apply);
    }

    proptest! {
        /// CP11: in whatever order the writes of a source's history arrive, and however often, what is newest stays, and
        /// each version is applied at most once.
        #[test]
        fn cp11_writes_in_any_order_end_with_the_newest(
            order in proptest::collection::vec((1..12_u64, any::<bool>()), 1..60),
            deletes in proptest::collection::btree_set(1..12_u64, 0..4),
        ) {
            let mut now = stored(None, None);
            let mut applied = std::collections::BTreeSet::new();
            let mut newest = 0;
            for (origin, is_direct) in order {
                let writer = if is_direct { Writer::Direct } else { Writer::Sync };
                let is_delete = deletes.contains(&origin);
                let wish = if is_delete { Wish::Delete } else { Wish::Put("x".into()) };
                newest = newest.max(origin);
                if verdict(&now, &wish, writer, origin) == Verdict::Apply {
                    prop_assert!(applied.insert(origin), "{} is applied twice", origin);
                    prop_assert_eq!(applied.last(), Some(&origin), "never an older one behind a newer one");
                    now = if is_delete { stored(None, Some(origin)) } else { stored(Some((origin, writer)), None) };
                }
            }
            let known = now.object.or(now.gone).map(|known| known.origin);
            prop_assert_eq!(known, Some(newest.to_string().into()));
        }
    }
}
