//! Reads of a key range: filter, sort, cut, count.
//!
//! # The order of work
//! The scan always passes the whole range, because the count covers all of it. What is returned depends on the request:
//! in key order, the first or last `limit` keys that pass the filters; in another order, all that pass are candidates
//! and the best `limit` of them are kept. Values are fetched only for what is returned, or for all candidates when they
//! are what is sorted by.
//!
//! One case is odd, for compatibility: an order by another target than the key that was *not asked for explicitly*
//! ([`SortOrder::None`]), without filters, takes the first `limit + 1` keys in key order, sorts those, then cuts.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::ops::ControlFlow;

use bytes::Bytes;

use crate::command::{Range, RangeResponse, SortOrder, SortTarget};
use crate::state::{IndexChunk, IndexCount, IndexedKey, IndexedLease};
use crate::types::{KeyRange, KeyValue, PutRecord, RecordId, Revision};

/// How many index keys are visited per step.
pub const CHUNK_KEYS: usize = 512;

/// How many keys' values are announced at a time at most: neighbours are mostly written at about the same time, but not in
/// order.
const AHEAD_KEYS: usize = 32 * 1024;

/// Where a range read gets its keys and values. The live index behind a lock implements it in small steps, so that a
/// long list never holds the lock; a transaction implements it over the state it is changing.
pub trait RangeSource {
    /// A local failure (I/O, or a revision compacted in the middle); ends the read, never an answer.
    type Error;
    /// The next keys of `range` alive at `at`, ascending, behind `after` (exclusive), at most `keys_max`.
    fn chunk(
        &mut self,
        range: &KeyRange,
        after: Option<&Bytes>,
        at: Revision,
        keys_max: usize,
    ) -> Result<IndexChunk, Self::Error>;
    /// How many of the next keys of `range` are alive at `at`, behind `after` (exclusive), and where to go on; visits about
    /// `keys_max`, or passes more of them unseen.
    fn count(
        &mut self,
        range: &KeyRange,
        after: Option<&Bytes>,
        at: Revision,
        keys_max: usize,
    ) -> Result<IndexCount, Self::Error> {
        let chunk = self.chunk(range, after, at, keys_max)?;
        Ok(IndexCount { keys: chunk.keys.len() as u64, next: chunk.next })
    }
    /// The put that `id` names.
    fn record(&mut self, key: &Bytes, id: RecordId) -> Result<PutRecord, Self::Error>;
    /// The values of these, at least one, are asked for next, in this order: who reads several at once may do that now.
    /// Answers how many of them are to be asked for before the next are announced.
    fn ahead(&mut self, keys: &[IndexedKey]) -> Result<usize, Self::Error> {
        Ok(keys.len())
    }
    /// The next pair of the answer is put together: a moment to let other threads run when there are many.
    fn before_pair(&mut self) {}
}

/// Where the pairs of an answer go. It gets each as soon as it is put together, while it is in the processor's cache: who needs
/// them in another form makes that then.
pub trait Pairs {
    /// Exactly these are going to come. Not called when values decide which they are.
    fn begin(&mut self, _announced: &Announced<'_>) {}
    /// The next pair, in the order asked for. A break says that nobody needs the rest.
    fn push(&mut self, pair: KeyValue) -> ControlFlow<()>;
}

/// All of an answer but its values.
#[derive(Debug)]
pub struct Announced<'a> {
    /// Of the pairs, in their order.
    pub keys: &'a [IndexedKey],
    /// True when the values are left out.
    pub keys_only: bool,
    /// As in the answer.
    pub more: bool,
    /// As in the answer.
    pub count: u64,
}

impl Pairs for Vec<KeyValue> {
    fn begin(&mut self, announced: &Announced<'_>) {
        self.reserve_exact(announced.keys.len());
    }
    fn push(&mut self, pair: KeyValue) -> ControlFlow<()> {
        self.push(pair);
        ControlFlow::Continue(())
    }
}

/// Answers `request` at the revision `at`, which the caller has resolved and found readable.
pub fn range<S: RangeSource>(
    source: &mut S,
    request: &Range,
    at: Revision,
) -> Result<RangeResponse, S::Error> {
    range_into(source, request, at, Vec::new())
}

/// As [`range`], with the pairs handed to `pairs`.
pub fn range_into<S: RangeSource, P: Pairs>(
    source: &mut S,
    request: &Range,
    at: Revision,
    pairs: P,
) -> Result<RangeResponse<P>, S::Error> {
    if request.count_only {
        let count = count_behind(source, &request.range, at, None)?;
        return Ok(RangeResponse { kvs: pairs, more: false, count });
    }
    let answer = RangeResponse { kvs: pairs, more: false, count: 0 };
    match Plan::of(request) {
        Plan::First { limit, then_sort } => first(source, request, at, answer, (limit, then_sort)),
        Plan::Last { limit } => last(source, request, at, answer, limit),
        Plan::Best { limit } => best(source, request, at, answer, limit),
    }
}

/// How many keys of a range are alive at a revision, behind `after` (exclusive).
pub(crate) fn count_behind<S: RangeSource>(
    source: &mut S,
    range: &KeyRange,
    at: Revision,
    mut after: Option<Bytes>,
) -> Result<u64, S::Error> {
    let mut keys = 0;
    loop {
        let counted = source.count(range, after.as_ref(), at, CHUNK_KEYS)?;
        keys += counted.keys;
        match counted.next {
            Some(next) => after = Some(next),
            None => return Ok(keys),
        }
    }
}

/// Visits the keys of a range that are alive at a revision, ascending, in steps of [`CHUNK_KEYS`].
pub(crate) fn for_each_key<S: RangeSource>(
    source: &mut S,
    range: &KeyRange,
    at: Revision,
    mut visit: impl FnMut(&mut S, IndexedKey) -> Result<(), S::Error>,
) -> Result<(), S::Error> {
    let mut after: Option<Bytes> = None;
    loop {
        let chunk = source.chunk(range, after.as_ref(), at, CHUNK_KEYS)?;
        for key in chunk.keys {
            visit(source, key)?;
        }
        match chunk.next {
            Some(next) => {
                assert!(after.is_none_or(|after| next > after), "a scan goes on behind where it was");
                after = Some(next);
            }
            None => return Ok(()),
        }
    }
}

/// How a request is answered. A limit of `usize::MAX` is none.
enum Plan {
    /// The first keys in key order; with `then_sort` one more is taken, and the taken are sorted before the cut.
    First { limit: usize, then_sort: bool },
    /// The last keys, descending.
    Last { limit: usize },
    /// The best by another target.
    Best { limit: usize },
}

impl Plan {
    fn of(request: &Range) -> Self {
        let limit = request.limit.filter(|&limit| limit > 0);
        let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        match (request.order, request.target) {
            (SortOrder::None | SortOrder::Ascend, SortTarget::Key) => Self::First { limit, then_sort: false },
            (SortOrder::Descend, SortTarget::Key) => Self::Last { limit },
            (SortOrder::None, _) if limit < usize::MAX && !has_filter(request) => {
                Self::First { limit, then_sort: true }
            }
            _ => Self::Best { limit },
        }
    }
}

impl Range {
    /// How many keys are looked at for an answer, beside those that are only counted, where its limit says so.
    pub fn looked_at_max(&self) -> Option<u64> {
        match Plan::of(self) {
            _ if self.count_only => Some(0),
            Plan::First { limit, .. } if limit < usize::MAX && !has_filter(self) => Some(limit as u64),
            Plan::First { .. } | Plan::Last { .. } | Plan::Best { .. } => None,
        }
    }
}

fn has_filter(request: &Range) -> bool {
    let bounds = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ];
    bounds.iter().any(|&bound| bound != Revision::NONE)
}

fn passes(request: &Range, key: &IndexedKey) -> bool {
    let is_within = |revision: Revision, min: Revision, max: Revision| {
        (min == Revision::NONE || revision >= min) && (max == Revision::NONE || revision <= max)
    };
    is_within(key.id.revision, request.min_mod_revision, request.max_mod_revision)
        && is_within(key.create_revision, request.min_create_revision, request.max_create_revision)
}

fn first<S: RangeSource, P: Pairs>(
    source: &mut S,
    request: &Range,
    at: Revision,
    mut answer: RangeResponse<P>,
    (limit, then_sort): (usize, bool),
) -> Result<RangeResponse<P>, S::Error> {
    let taken_max = if then_sort { limit.saturating_add(1) } else { limit };
    let is_filtered = has_filter(request);
    let mut taken: Vec<IndexedKey> = Vec::new();
    let mut after: Option<Bytes> = None;
    loop {
        if taken.len() == taken_max && !is_filtered {
            // The keys behind are counted and not looked at.
            let rest = count_behind(source, &request.range, at, after)?;
            answer.count += rest;
            answer.more |= rest > 0;
            break;
        }
        let chunk = source.chunk(&request.range, after.as_ref(), at, CHUNK_KEYS)?;
        for key in chunk.keys {
            answer.count += 1;
            if !passes(request, &key) {
                continue;
            }
            if taken.len() < taken_max {
                taken.push(key);
            } else {
                answer.more = true;
            }
        }
        after = chunk.next;
        if after.is_none() {
            break;
        }
    }
    if then_sort {
        answer.more = taken.len() > limit;
        let mut best = Best::new(request, limit);
        for key in taken {
            best.offer(source, key)?;
        }
        best.hand_to(&mut answer.kvs, source)?;
        Ok(answer)
    } else {
        fetch(source, taken, request.keys_only, answer)
    }
}

fn last<S: RangeSource, P: Pairs>(
    source: &mut S,
    request: &Range,
    at: Revision,
    mut answer: RangeResponse<P>,
    limit: usize,
) -> Result<RangeResponse<P>, S::Error> {
    let mut taken: VecDeque<IndexedKey> = VecDeque::new();
    for_each_key(source, &request.range, at, |_, key| {
        answer.count += 1;
        if passes(request, &key) {
            if taken.len() == limit {
                taken.pop_front();
                answer.more = true;
            }
            taken.push_back(key);
        }
        Ok(())
    })?;
    fetch(source, taken.into_iter().rev().collect(), request.keys_only, answer)
}

fn best<S: RangeSource, P: Pairs>(
    source: &mut S,
    request: &Range,
    at: Revision,
    mut answer: RangeResponse<P>,
    limit: usize,
) -> Result<RangeResponse<P>, S::Error> {
    let mut best = Best::new(request, limit);
    for_each_key(source, &request.range, at, |source, key| {
        answer.count += 1;
        if passes(request, &key) { best.offer(source, key) } else { Ok(()) }
    })?;
    answer.more = best.offered > limit;
    best.hand_to(&mut answer.kvs, source)?;
    Ok(answer)
}

/// The best candidates so far, in the order asked for. Equal ones stay in key order.
struct Best<'a> {
    request: &'a Range,
    limit: usize,
    offered: usize,
    candidates: Vec<Candidate>,
}

struct Candidate {
    key: IndexedKey,
    /// Fetched only when values are sorted by.
    put: Option<PutRecord>,
}

impl<'a> Best<'a> {
    fn new(request: &'a Range, limit: usize) -> Self {
        Self { request, limit, offered: 0, candidates: Vec::new() }
    }

    fn offer<S: RangeSource>(&mut self, source: &mut S, key: IndexedKey) -> Result<(), S::Error> {
        let put = match self.request.target {
            SortTarget::Value => Some(source.record(&key.key, key.id)?),
            SortTarget::Key | SortTarget::Version | SortTarget::Create | SortTarget::Mod => None,
        };
        self.offered += 1;
        self.candidates.push(Candidate { key, put });
        // What is surely cut is dropped on the way, so that a small limit holds few values.
        if self.candidates.len() >= self.limit.saturating_mul(2).saturating_add(CHUNK_KEYS) {
            self.cut();
        }
        Ok(())
    }

    fn cut(&mut self) {
        let target = self.request.target;
        let is_descending = self.request.order == SortOrder::Descend;
        // A stable sort: candidates come in key order, and those kept by an earlier cut precede later ones in it.
        self.candidates.sort_by(|a, b| {
            let order = compare_by(target, a, b);
            if is_descending { order.reverse() } else { order }
        });
        self.candidates.truncate(self.limit);
    }

    fn hand_to<S: RangeSource>(mut self, pairs: &mut impl Pairs, source: &mut S) -> Result<(), S::Error> {
        self.cut();
        let keys_only = self.request.keys_only;
        for candidate in self.candidates {
            let pushed = pairs.push(match candidate.put {
                Some(put) => key_value(candidate.key, put, keys_only),
                None => fetch_one(source, candidate.key, keys_only)?,
            });
            if pushed.is_break() {
                break;
            }
        }
        Ok(())
    }
}

fn compare_by(target: SortTarget, a: &Candidate, b: &Candidate) -> Ordering {
    match target {
        SortTarget::Key => a.key.key.cmp(&b.key.key),
        SortTarget::Version => a.key.version.cmp(&b.key.version),
        SortTarget::Create => a.key.create_revision.cmp(&b.key.create_revision),
        SortTarget::Mod => a.key.id.revision.cmp(&b.key.id.revision),
        SortTarget::Value => {
            let value = |candidate: &Candidate| candidate.put.as_ref().map(|put| put.value.clone());
            value(a).cmp(&value(b))
        }
    }
}

fn fetch<S: RangeSource, P: Pairs>(
    source: &mut S,
    keys: Vec<IndexedKey>,
    keys_only: bool,
    mut answer: RangeResponse<P>,
) -> Result<RangeResponse<P>, S::Error> {
    let RangeResponse { kvs: pairs, more, count } = &mut answer;
    pairs.begin(&Announced { keys: &keys, keys_only, more: *more, count: *count });
    let mut keys = keys.into_iter();
    while !keys.as_slice().is_empty() {
        let next = &keys.as_slice()[..keys.len().min(AHEAD_KEYS)];
        let count = if keys_only { next.len() } else { source.ahead(next)? };
        for key in keys.by_ref().take(count) {
            if pairs.push(fetch_one(source, key, keys_only)?).is_break() {
                return Ok(answer);
            }
        }
    }
    Ok(answer)
}

/// A key with its value. With `keys_only` the record is fetched only when its lease is not known without it.
pub(crate) fn fetch_one<S: RangeSource>(
    source: &mut S,
    key: IndexedKey,
    keys_only: bool,
) -> Result<KeyValue, S::Error> {
    source.before_pair();
    let put = match key.lease {
        IndexedLease::Known(lease) if keys_only => PutRecord {
            create_revision: key.create_revision,
            version: key.version,
            lease,
            value: Bytes::new(),
        },
        IndexedLease::Known(_) | IndexedLease::InRecord => source.record(&key.key, key.id)?,
    };
    Ok(key_value(key, put, keys_only))
}

fn key_value(key: IndexedKey, put: PutRecord, keys_only: bool) -> KeyValue {
    KeyValue {
        create_revision: key.create_revision,
        mod_revision: key.id.revision,
        version: key.version,
        lease: put.lease,
        value: if keys_only { Bytes::new() } else { put.value },
        key: key.key,
    }
}
