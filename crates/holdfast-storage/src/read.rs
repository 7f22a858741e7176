//! Reads: ranges at a pinned revision, in small steps under the index lock, and the history hash.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_env::give_way;
use holdfast_mvcc::command::{Op, Range, RangeResponse, ReadAt, Refusal, Txn, TxnResponse};
use holdfast_mvcc::types::{KeyRange, PutRecord, RangeEnd, Record, RecordId, Revision};
use holdfast_mvcc::{HistoryHasher, IndexChunk, IndexCount, IndexedKey, Pairs, RangeSource};

use crate::error::{ReadError, StoreError};
use crate::gate::{Gate, Pin};
use crate::lanes::{Lane, Lanes};
use crate::limits::{LANE_TURN_KEYS, LIST_TURN_KEYS, LOCK_KEYS_MAX, LONG_LIST_KEYS};
use crate::pipeline::shared::Shared;
use crate::retention::Retention;
use crate::stable::following;
use crate::types::HistoryHash;
use crate::view::{Cache, Keeping, ValueReader, View};

/// A view with a pinned revision in it.
pub(crate) struct Entered {
    /// Where to read.
    pub(crate) view: Arc<View>,
    /// What may be read.
    pub(crate) pin: Pin,
}

/// Lets a reader in. The revision is pinned first and the view loaded behind it: so whatever is visible at the pinned
/// revision is found in the view. When an install came in between, the two do not belong together: try again.
pub(crate) fn enter(
    shared: &Shared,
    pin: impl Fn(&Arc<Gate>) -> Result<Pin, Refusal>,
) -> Result<Entered, ReadError> {
    loop {
        let gate = Arc::clone(&shared.view.load().gate);
        let pin = pin(&gate).map_err(ReadError::Refused)?;
        let view = shared.view.load_full();
        if Arc::ptr_eq(&view.gate, &gate) {
            return Ok(Entered { view, pin });
        }
    }
}

/// Answers a range, with the pairs where `pairs` puts them, which is told the newest revision that is visible when the read
/// begins. Values may be parts of packs, which stay in memory for their sake, unless the pairs are said to be kept.
pub(crate) fn range_into<P: Pairs>(
    shared: &Shared,
    request: &Range,
    keeping: Keeping,
    pairs: impl FnOnce(Revision) -> P,
) -> Result<(RangeResponse<P>, Revision), ReadError> {
    let Entered { view, pin } = enter(shared, |gate| gate.enter(request.at))?;
    let mut source = Source::new(&view, shared, keeping);
    let newest = pin.window.newest;
    let response = holdfast_mvcc::range_into(&mut source, request, pin.at, pairs(newest));
    let response = response.map_err(|e| failed(shared, &view, &e))?;
    Ok((response, newest))
}

/// Answers a transaction that only reads, at the newest visible revision, which is returned beside it.
pub(crate) fn read_txn(shared: &Shared, txn: &Txn) -> Result<(TxnResponse, Revision), ReadError> {
    let Entered { view, pin } = enter(shared, |gate| Ok(gate.enter_window()))?;
    let mut source = Source::new(&view, shared, Keeping::Pairs);
    let response = holdfast_mvcc::read_txn(&mut source, txn, pin.window);
    let response = response.map_err(|e| failed(shared, &view, &e))?;
    Ok((response.map_err(ReadError::Refused)?, pin.window.newest))
}

/// Answers a range from memory alone and without waiting for the index: `None` when a value is cold, or when a command
/// is being evaluated.
pub(crate) fn range_if_hot(
    shared: &Shared,
    request: &Range,
) -> Option<Result<(RangeResponse, Revision), ReadError>> {
    let Entered { view, pin } = match enter(shared, |gate| gate.enter(request.at)) {
        Ok(entered) => entered,
        Err(refused) => return Some(Err(refused)),
    };
    let mut source = HotSource { view: &view, cache: &shared.cache };
    let response = holdfast_mvcc::range(&mut source, request, pin.at).ok()?;
    Some(Ok((response, pin.window.newest)))
}

/// The live index and the values in memory; never waits.
struct HotSource<'a> {
    view: &'a View,
    cache: &'a Cache,
}

/// It would have to wait.
struct NotHot;

impl RangeSource for HotSource<'_> {
    type Error = NotHot;

    fn chunk(
        &mut self,
        range: &KeyRange,
        after: Option<&Bytes>,
        at: Revision,
        keys_max: usize,
    ) -> Result<IndexChunk, NotHot> {
        let state = self.view.state.try_read().ok_or(NotHot)?;
        Ok(state.chunk(range, after, at, keys_max.min(LOCK_KEYS_MAX)))
    }

    fn record(&mut self, key: &Bytes, id: RecordId) -> Result<PutRecord, NotHot> {
        self.view.hot(self.cache, key, id).ok_or(NotHot)
    }
}

/// True for a read of so many keys that it takes a lane, as far as the index can say that now.
pub(crate) fn is_long(shared: &Shared, request: &Range) -> bool {
    // Each is looked at in the index, and as a pair.
    let keys_max = LONG_LIST_KEYS / 2;
    if request.range.end == RangeEnd::Single
        || request.looked_at_max().is_some_and(|keys| keys <= keys_max as u64)
    {
        return false;
    }
    let view = shared.view.load();
    // Others may well be short: they are not to wait behind long ones.
    let Some(state) = view.state.try_read() else { return false };
    let found = state.count_keys(&request.range, None, state.head().revision, keys_max);
    found.next.is_some() || found.keys > keys_max as u64
}

/// As [`is_long`], for a transaction.
pub(crate) fn is_long_txn(shared: &Shared, txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match op {
        Op::Range(range) => is_long(shared, range),
        Op::Txn(txn) => is_long_txn(shared, txn),
        Op::Put(_) | Op::DeleteRange(_) | Op::Unset => false,
    })
}

/// The live index and the values behind it.
pub(crate) struct Source<'a> {
    view: &'a View,
    values: ValueReader<'a>,
    lanes: &'a Lanes,
    /// Once the list has turned out to be long.
    lane: Option<Lane<'a>>,
    /// Keys and values that were looked at.
    looked_at: usize,
    /// Steps in which keys were counted.
    counts: usize,
}

impl<'a> Source<'a> {
    /// What `view` shows.
    pub(crate) fn new(view: &'a View, shared: &'a Shared, keeping: Keeping) -> Self {
        let values = ValueReader::of_list(view, &shared.cache, keeping);
        Self { view, values, lanes: &shared.lanes, lane: None, looked_at: 0, counts: 0 }
    }

    /// In a long list, gives way now and then. Called without a lock.
    fn look_at(&mut self, number: usize) {
        let before = self.looked_at;
        self.looked_at += number;
        let passes = |keys| self.looked_at / keys > before / keys;
        if self.looked_at <= LONG_LIST_KEYS || !passes(LIST_TURN_KEYS) {
            return;
        }
        match &mut self.lane {
            None => self.lane = Some(self.lanes.enter()),
            Some(lane) if passes(LANE_TURN_KEYS) => lane.give_way(),
            Some(_) => give_way(),
        }
    }
}

impl RangeSource for Source<'_> {
    type Error = StoreError;

    fn chunk(
        &mut self,
        range: &KeyRange,
        after: Option<&Bytes>,
        at: Revision,
        keys_max: usize,
    ) -> Result<IndexChunk, StoreError> {
        let chunk = self.view.state.read().chunk(range, after, at, keys_max.min(LOCK_KEYS_MAX));
        self.look_at(chunk.keys.len());
        Ok(chunk)
    }

    fn count(
        &mut self,
        range: &KeyRange,
        after: Option<&Bytes>,
        at: Revision,
        keys_max: usize,
    ) -> Result<IndexCount, StoreError> {
        // Not in a lane: mostly it is over at once, however many they are.
        self.counts += 1;
        if self.counts * LOCK_KEYS_MAX > LONG_LIST_KEYS {
            give_way();
        }
        Ok(self.view.state.read().count_keys(range, after, at, keys_max.min(LOCK_KEYS_MAX)))
    }

    fn record(&mut self, key: &Bytes, id: RecordId) -> Result<PutRecord, StoreError> {
        self.values.put(key, id)
    }

    fn ahead(&mut self, keys: &[IndexedKey]) -> Result<usize, StoreError> {
        self.values.ahead(keys)
    }

    fn before_pair(&mut self) {
        self.look_at(1);
    }
}

/// Hashes the retained records up to a revision, in order.
pub(crate) fn history_hash(shared: &Shared, revision: Option<Revision>) -> Result<HistoryHash, ReadError> {
    // A scrub joins runs, and would move records from behind us to before us.
    let _no_scrub = shared.scrubbing.read();
    let at = revision.map_or(ReadAt::Latest, ReadAt::Revision);
    let Entered { view, pin } = enter(shared, |gate| gate.enter(at))?;
    let compact_revision = pin.window.compact_revision;
    let retention = Retention::new(&view, compact_revision);
    let mut hasher = HistoryHasher::new();
    history(&view, pin.at, &mut |records| retention.filter(records).iter().for_each(|r| hasher.record(r)))
        .map_err(|e| failed(shared, &view, &e))?;
    Ok(HistoryHash { hash: hasher.finish(), revision: pin.at, compact_revision })
}

/// All stored records up to `at`, ascending, whether retained or not: those in the stable store merged with those in
/// the memtables. The memtables are collected first, so that what moves to the store meanwhile is not missed; what is
/// found in both is handed out once.
fn history(view: &View, at: Revision, each: &mut impl FnMut(Vec<Record>)) -> Result<(), StoreError> {
    let mut waiting = view.active.up_to(at);
    if let Some(frozen) = &view.frozen {
        waiting.extend(frozen.up_to(at));
    }
    waiting.sort_unstable_by_key(|stored| stored.record.id);
    let mut waiting = waiting.iter().map(|stored| stored.record.clone()).peekable();
    let mut from = RecordId::default();
    loop {
        let stable = view.generation.stable();
        let page = stable.runs(from, stable.slice())?;
        let Some(last) = page.last() else { break };
        from = following(last.run.first);
        for placed in &page {
            let mut merged = Vec::new();
            for record in placed.run.records()?.into_iter().filter(|r| r.id.revision <= at) {
                while let Some(before) = waiting.next_if(|w| w.id <= record.id) {
                    if before.id < record.id {
                        merged.push(before);
                    }
                }
                merged.push(record);
            }
            each(merged);
        }
    }
    each(waiting.collect());
    Ok(())
}

/// What a failed store means to a reader who found it in `view`.
pub(crate) fn failed(shared: &Shared, view: &View, error: &StoreError) -> ReadError {
    ReadError::Store(shared.read_failed(&view.generation, error))
}
