//! Where values are: memtables, cache, stable store, as one immutable picture behind one pointer.

use std::collections::VecDeque;
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::vec;

use bytes::Bytes;
use holdfast_env::give_way;
use holdfast_mvcc::types::{PutRecord, RecordId, Revision};
use holdfast_mvcc::{IndexedKey, State, Values};
use parking_lot::RwLock;

use crate::error::StoreError;
use crate::figures::OverlayReads;
use crate::gate::Gate;
use crate::generation::Generation;
use crate::limits::{
    AHEAD_BYTES_MAX, AHEAD_KEYS_MIN, AHEAD_KEYS_NEAR, CACHED_VALUES_MAX, LIST_TURN_KEYS, LONG_LIST_KEYS,
    NEAR_REVISIONS_PER_KEY, PACKS_AHEAD, PACKS_UNNEEDED_MAX, REVISIONS_PER_ID_MAX, RING_KEYS_MAX,
};
use crate::memtable::Memtable;
use crate::pack::Values as PackValues;
use crate::ring::Ring;
use crate::stable::{Stable, StoredPack};

/// What a reader works on; loaded once per request, replaced whole.
#[derive(Clone)]
pub(crate) struct View {
    /// The key index. Written by the dispatcher (evaluation) and the committer (scrub), in bounded steps.
    pub(crate) state: Arc<RwLock<State>>,
    /// Takes new records.
    pub(crate) active: Arc<Memtable>,
    /// Sealed, and on its way into the stable store.
    pub(crate) frozen: Option<Arc<Memtable>>,
    /// The newest changes, visible or about to be, in order.
    pub(crate) ring: Arc<Ring>,
    /// The stable store.
    pub(crate) generation: Arc<Generation>,
    /// What readers may see of it.
    pub(crate) gate: Arc<Gate>,
}

/// Decoded puts by record id, bounded in bytes: those that were read. What was written last is in the ring. Records never
/// change, so nothing ever has to be invalidated.
pub(crate) struct Cache {
    puts: quick_cache::sync::Cache<RecordId, PutRecord, Weight, BuildHasherDefault<FixedHasher>>,
    /// How often a value was looked for while a memtable was frozen, and found in one, or not.
    overlay_hits: AtomicU64,
    overlay_misses: AtomicU64,
}

/// What a cached put costs beside its value: its numbers, its place in the cache, and the allocation that its value has
/// to itself.
const PUT_BYTES: u64 = 192;

#[derive(Debug, Clone)]
struct Weight;

impl quick_cache::Weighter<RecordId, PutRecord> for Weight {
    fn weight(&self, _: &RecordId, put: &PutRecord) -> u64 {
        put.value.len() as u64 + PUT_BYTES
    }
}

/// FNV-1a: a fixed hash, so that simulated runs repeat.
pub(crate) struct FixedHasher(u64);

impl Default for FixedHasher {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl std::hash::Hasher for FixedHasher {
    fn finish(&self) -> u64 {
        // The cache takes the shard from the high and the slot from the low bits: spread both.
        (self.0 ^ (self.0 >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

impl Cache {
    /// Holds about this many bytes.
    pub(crate) fn new(bytes: usize) -> Self {
        let items = (bytes / 1024).max(64);
        let hasher = BuildHasherDefault::default();
        let lifecycle = quick_cache::sync::DefaultLifecycle::default();
        Self {
            puts: quick_cache::sync::Cache::with(items, bytes as u64, Weight, hasher, lifecycle),
            overlay_hits: AtomicU64::new(0),
            overlay_misses: AtomicU64::new(0),
        }
    }
    /// What was looked for while a memtable was frozen.
    pub(crate) fn overlay_reads(&self) -> OverlayReads {
        OverlayReads {
            hits: self.overlay_hits.load(Ordering::Relaxed),
            misses: self.overlay_misses.load(Ordering::Relaxed),
        }
    }
    /// The put with this id, when it is here.
    pub(crate) fn get(&self, id: RecordId) -> Option<PutRecord> {
        self.puts.get(&id)
    }
    /// Keeps a put. Its value must not be a slice of something larger.
    pub(crate) fn insert(&self, id: RecordId, put: PutRecord) {
        self.puts.insert(id, put);
    }
}

impl View {
    /// The put with this id from memory, when it is there.
    pub(crate) fn hot(&self, cache: &Cache, key: &[u8], id: RecordId) -> Option<PutRecord> {
        let elsewhere = || cache.get(id).or_else(|| self.in_ring(cache, id));
        let Some(frozen) = &self.frozen else { return self.active.put(key, id).or_else(elsewhere) };
        let found = self.active.put(key, id).or_else(|| frozen.put(key, id));
        let counter = if found.is_some() { &cache.overlay_hits } else { &cache.overlay_misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found.or_else(elsewhere)
    }

    /// From the ring; cached, as it is read and will leave the ring.
    fn in_ring(&self, cache: &Cache, id: RecordId) -> Option<PutRecord> {
        let put = self.ring.put(id)?;
        cache.insert(id, put.clone());
        Some(put)
    }
}

/// Finds puts for one request; remembers the last pack, because neighbours are often asked for together.
pub(crate) struct ValueReader<'a> {
    view: &'a View,
    cache: &'a Cache,
    pack: Option<(RecordId, Bytes)>,
    /// What will be asked for next, in that order; `None` for what was not read ahead.
    ahead: vec::IntoIter<(RecordId, Option<PutRecord>)>,
    /// Where reading ahead goes on when the next ids lie behind the last ones.
    packs: Option<Packs<'a>>,
    cold: Cold,
    keeping: Keeping,
    /// Counts reads of the stable store.
    reads: Option<&'a AtomicU64>,
}

/// What becomes of the pairs of a long list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keeping {
    /// They live on, so that a value must not be a part of a pack, which it would keep in memory.
    Pairs,
    /// Those whose values were read ahead are gone before the next ones are.
    Nothing,
}

/// What becomes of values that were not in memory.
enum Cold {
    /// They are cached.
    Cached,
    /// These are, when the request is done.
    Few(Vec<(RecordId, PutRecord)>),
    /// There are too many of them.
    Many,
}

impl<'a> ValueReader<'a> {
    /// Reads what `view` shows.
    pub(crate) fn new(view: &'a View, cache: &'a Cache) -> Self {
        Self::of(view, cache, Cold::Cached, Keeping::Pairs)
    }

    fn of(view: &'a View, cache: &'a Cache, cold: Cold, keeping: Keeping) -> Self {
        let ahead = vec::IntoIter::default();
        Self { view, cache, pack: None, ahead, packs: None, cold, keeping, reads: None }
    }

    /// As [`ValueReader::new`], for a request that may be a long list: what was cold is cached when the request is done, and
    /// only when there was little of it. A list of a million keys would push out everything else, and is not read again
    /// value by value.
    pub(crate) fn of_list(view: &'a View, cache: &'a Cache, keeping: Keeping) -> Self {
        Self::of(view, cache, Cold::Few(Vec::new()), keeping)
    }

    /// Counts every read of the stable store.
    pub(crate) fn counting(view: &'a View, cache: &'a Cache, reads: &'a AtomicU64) -> Self {
        let mut reader = Self::new(view, cache);
        reader.reads = Some(reads);
        reader
    }

    /// The put with this id, which must be visible and retained.
    pub(crate) fn put(&mut self, key: &[u8], id: RecordId) -> Result<PutRecord, StoreError> {
        if self.ahead.as_slice().first().is_some_and(|(next, _)| *next == id)
            && let Some((_, Some(put))) = self.ahead.next()
        {
            return Ok(put);
        }
        if let Some(put) = self.view.hot(self.cache, key, id) {
            return Ok(put);
        }
        if let Some(put) = self.in_last_pack(id)? {
            // A slice of a pack that was cached for another one, unless it is one of many.
            return Ok(if matches!(self.cold, Cold::Cached) { put } else { self.note_cold(id, put) });
        }
        if let Some(reads) = self.reads {
            reads.fetch_add(1, Ordering::Relaxed);
        }
        let put = self.in_pack_of(id)?;
        Ok(self.note_cold(id, put))
    }

    /// Reads what will be asked for next, the cold values in the order in which they lie in the stable store: keys that are
    /// neighbours were mostly written one after the other, but hardly ever in their order. Answers how many that is good for.
    pub(crate) fn ahead(&mut self, next: &[IndexedKey]) -> Result<usize, StoreError> {
        self.ahead = vec::IntoIter::default();
        if next.len() < AHEAD_KEYS_MIN {
            return Ok(next.len());
        }
        let next = near(next);
        let mut turns = Turns::of(next.len());
        let mut ahead: Vec<(RecordId, Option<PutRecord>)> = next.iter().map(|key| (key.id, None)).collect();
        let newest = self.view.ring.from();
        self.newest(newest, &mut ahead, &mut turns);
        let mut cold = Vec::new();
        for (place, ((id, put), IndexedKey { key, .. })) in ahead.iter_mut().zip(next).enumerate() {
            turns.next();
            if put.is_none() {
                // What has left the ring is in the stable store, and in no memtable.
                let is_older = id.revision < newest;
                *put = if is_older { self.cache.get(*id) } else { self.view.hot(self.cache, key, *id) };
            }
            if put.is_none() {
                cold.push((*id, place));
            }
        }
        cold.sort_unstable();
        if cold.len() > CACHED_VALUES_MAX {
            self.cold = Cold::Many;
        }
        let begun = self.packs.take().filter(|packs| cold.first().is_some_and(|(id, _)| packs.asked <= *id));
        let mut packs = begun.unwrap_or_else(|| Packs::new(self.view.generation.stable(), &cold));
        let (mut bytes, packs_before) = (0, packs.bytes);
        for (id, place) in cold {
            turns.next();
            let put = packs.put(id)?.ok_or_else(|| missing(id))?;
            bytes += put.value.len();
            // What is lent keeps whole packs in memory.
            let is_lent = self.keeping == Keeping::Nothing && packs.bytes - packs_before < AHEAD_BYTES_MAX;
            ahead[place].1 =
                Some(if is_lent && matches!(self.cold, Cold::Many) { put } else { self.note_cold(id, put) });
            if bytes >= AHEAD_BYTES_MAX {
                break;
            }
        }
        self.packs = Some(packs);
        self.ahead = ahead.into_iter();
        Ok(next.len())
    }

    /// Finds those that are in the ring, which holds everything from a revision on, unless it has left meanwhile.
    fn newest(&self, from: Revision, ahead: &mut [(RecordId, Option<PutRecord>)], turns: &mut Turns) {
        let mut here: Vec<(RecordId, usize)> = (0..)
            .zip(ahead.iter())
            .filter(|(_, (id, _))| id.revision >= from)
            .map(|(place, (id, _))| (*id, place))
            .collect();
        here.sort_unstable();
        for some in here.chunks(RING_KEYS_MAX) {
            turns.next();
            self.view.ring.puts(some.iter().copied(), |place, put| ahead[place].1 = Some(put));
        }
    }

    /// From the stable store.
    fn in_pack_of(&mut self, id: RecordId) -> Result<PutRecord, StoreError> {
        self.pack = self.view.generation.stable().value_pack(id)?;
        let put = self.in_last_pack(id)?;
        put.ok_or_else(|| missing(id))
    }

    /// A put that was not in memory, detached from its pack.
    fn note_cold(&mut self, id: RecordId, mut put: PutRecord) -> PutRecord {
        // Not a slice of the pack, which would keep all of it in memory.
        put.value = Bytes::copy_from_slice(&put.value);
        match &mut self.cold {
            Cold::Cached => self.cache.insert(id, put.clone()),
            Cold::Few(few) if few.len() < CACHED_VALUES_MAX => few.push((id, put.clone())),
            Cold::Few(_) => self.cold = Cold::Many,
            Cold::Many => {}
        }
        put
    }

    fn in_last_pack(&self, id: RecordId) -> Result<Option<PutRecord>, StoreError> {
        match &self.pack {
            Some((first, pack)) if *first <= id => Ok(PackValues::new(pack)?.seek(id)?.map(|e| e.put)),
            _ => Ok(None),
        }
    }
}

/// The value packs of ids that are asked for in ascending order.
struct Packs<'a> {
    stable: &'a Stable,
    /// The last id that was asked for.
    asked: RecordId,
    /// What is left of the one that was asked for last.
    last: PackValues,
    /// Those behind it that came with it.
    next: VecDeque<StoredPack>,
    /// How many came, and were needed, the last time.
    came: usize,
    needed: usize,
    /// False when most that came were not needed.
    reads_on: bool,
    /// Bytes of the packs that were looked into.
    bytes: usize,
}

impl<'a> Packs<'a> {
    fn new(stable: &'a Stable, ids: &[(RecordId, usize)]) -> Self {
        let span = match ids {
            [(first, _), .., (last, _)] => last.revision.get() - first.revision.get(),
            _ => u64::MAX,
        };
        let reads_on = span / REVISIONS_PER_ID_MAX <= ids.len() as u64;
        let (last, next) = (PackValues::none(), VecDeque::new());
        Self { stable, asked: RecordId::default(), last, next, came: 0, needed: 0, reads_on, bytes: 0 }
    }

    fn put(&mut self, id: RecordId) -> Result<Option<PutRecord>, StoreError> {
        self.asked = id;
        if let Some(entry) = self.last.seek(id)? {
            return Ok(Some(entry.put));
        }
        // A pack ends where the next one begins.
        while self.next.get(1).is_some_and(|behind| behind.first <= id) {
            self.next.pop_front();
        }
        if let Some(pack) = self.next.pop_front_if(|pack| pack.first <= id) {
            self.needed += 1;
            let pack = self.stable.unpacked(&pack)?;
            self.bytes += pack.len();
            self.last = PackValues::new(&pack)?;
            if let Some(entry) = self.last.seek(id)? {
                return Ok(Some(entry.put));
            }
        }
        let Some((first, pack)) = self.stable.value_pack(id)? else { return Ok(None) };
        self.bytes += pack.len();
        self.last = PackValues::new(&pack)?;
        self.reads_on &= self.came <= self.needed * PACKS_UNNEEDED_MAX;
        if self.reads_on {
            self.next = self.stable.value_packs_behind(first, PACKS_AHEAD)?.into();
            (self.came, self.needed) = (self.next.len(), 0);
        }
        Ok(self.last.seek(id)?.map(|entry| entry.put))
    }
}

/// The first of the keys, when their values lie close to each other: then little is read twice, and what was read is still
/// in the processor's cache when it is asked for. Else all of them.
fn near(keys: &[IndexedKey]) -> &[IndexedKey] {
    let Some(first) = keys.get(..AHEAD_KEYS_NEAR) else { return keys };
    let revisions = || first.iter().map(|key| key.id.revision.get());
    let span = revisions().max().unwrap_or(0) - revisions().min().unwrap_or(0);
    if span <= AHEAD_KEYS_NEAR as u64 * NEAR_REVISIONS_PER_KEY { first } else { keys }
}

/// Gives way now and then in what is read ahead for a long list.
struct Turns {
    is_long: bool,
    passed: usize,
}

impl Turns {
    fn of(keys: usize) -> Self {
        Self { is_long: keys > LONG_LIST_KEYS, passed: 0 }
    }

    fn next(&mut self) {
        self.passed += 1;
        if self.is_long && self.passed.is_multiple_of(LIST_TURN_KEYS) {
            give_way();
        }
    }
}

fn missing(id: RecordId) -> StoreError {
    StoreError::damaged(format!("the value of record {id:?} is missing"))
}

impl Drop for ValueReader<'_> {
    fn drop(&mut self) {
        if let Cold::Few(few) = &mut self.cold {
            few.drain(..).for_each(|(id, put)| self.cache.insert(id, put));
        }
    }
}

impl Values for ValueReader<'_> {
    type Error = StoreError;

    fn record(&mut self, key: &Bytes, id: RecordId) -> Result<PutRecord, StoreError> {
        self.put(key, id)
    }
}
