//! Permissions, and the merged ranges of a user.

use bytes::{BufMut, Bytes, BytesMut};

use crate::types::{KeyRange, RangeEnd};

/// What may be done with a range of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Keys may be read and watched.
    Read,
    /// Keys may be put and deleted.
    Write,
    /// Both.
    ReadWrite,
}

/// What may be done with which keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permission {
    /// What may be done.
    pub access: Access,
    /// With which keys.
    pub range: KeyRange,
}

impl Permission {
    /// False for a range that can cover nothing.
    pub fn is_valid(&self) -> bool {
        !self.range.start.is_empty()
            && match &self.range.end {
                RangeEnd::Single | RangeEnd::Unbounded => true,
                RangeEnd::Before(end) => *end > self.range.start,
            }
    }
}

/// All that a user may touch.
#[derive(Debug)]
pub(super) struct Permissions {
    pub(super) read: Spans,
    pub(super) write: Spans,
}

impl Permissions {
    pub(super) fn merge<'a>(permissions: impl Iterator<Item = &'a Permission>) -> Self {
        let (mut read, mut write) = (Vec::new(), Vec::new());
        for permission in permissions {
            let span = Span::of(&permission.range);
            match permission.access {
                Access::Read => read.push(span),
                Access::Write => write.push(span),
                Access::ReadWrite => {
                    read.push(span.clone());
                    write.push(span);
                }
            }
        }
        Self { read: Spans::merge(read), write: Spans::merge(write) }
    }
}

/// From a key (inclusive) to another (exclusive), or to the end of all keys with `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Span {
    start: Bytes,
    end: Option<Bytes>,
}

impl Span {
    fn of(range: &KeyRange) -> Self {
        let end = match &range.end {
            RangeEnd::Single => Some(behind(&range.start)),
            RangeEnd::Before(end) => Some(end.clone()),
            RangeEnd::Unbounded => None,
        };
        Self { start: range.start.clone(), end }
    }
}

/// The least key above `key`.
fn behind(key: &[u8]) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.put_slice(key);
    next.put_u8(0);
    next.freeze()
}

/// Spans that neither meet nor touch, ascending.
#[derive(Debug)]
pub(super) struct Spans(Vec<Span>);

impl Spans {
    fn merge(mut spans: Vec<Span>) -> Self {
        spans.sort_unstable_by(|one, other| one.start.cmp(&other.start));
        let mut merged: Vec<Span> = Vec::with_capacity(spans.len());
        for span in spans {
            match merged.last_mut() {
                Some(last) if last.end.as_ref().is_none_or(|end| *end >= span.start) => {
                    // None is the end of all keys.
                    let is_longer = match (&last.end, &span.end) {
                        (Some(end), Some(new)) => new > end,
                        (Some(_), None) => true,
                        (None, _) => false,
                    };
                    if is_longer {
                        last.end = span.end;
                    }
                }
                Some(_) | None => merged.push(span),
            }
        }
        Self(merged)
    }

    /// True when each key of the range is in a span. Of a range without keys, which ends where it begins or before, the start
    /// has to be, as in etcd. Allocates nothing.
    pub(super) fn cover(&self, range: &KeyRange) -> bool {
        let Some(span) = self.span_of(&range.start) else { return false };
        match (&range.end, &span.end) {
            // The end of the span is above the start.
            (RangeEnd::Single, _) => true,
            (RangeEnd::Unbounded, end) => end.is_none(),
            (RangeEnd::Before(end), _) if *end <= range.start => true,
            (RangeEnd::Before(_), None) => true,
            (RangeEnd::Before(end), Some(span_end)) => end <= span_end,
        }
    }

    /// True when the key is in a span.
    pub(super) fn cover_key(&self, key: &[u8]) -> bool {
        self.span_of(key).is_some()
    }

    fn span_of(&self, key: &[u8]) -> Option<&Span> {
        let before = self.0.partition_point(|span| span.start[..] <= *key);
        let span = &self.0[before.checked_sub(1)?];
        span.end.as_ref().is_none_or(|end| end[..] > *key).then_some(span)
    }
}
