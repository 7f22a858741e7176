//! The bounds of this crate, each with its reason.

use std::time::Duration;

/// What an unpacked pack has at most.
pub(crate) const UNPACKED_BYTES_MAX: usize = 32 << 10;

/// Target size of a pack in bytes. sled writes a leaf of up to 16 and some items as one message, and moves messages
/// above a quarter segment (1 MiB at our segment size) into unsynced blob files; 32 KiB keeps clear of that. redb's
/// pages are powers of two: a full pack with its form, its key and the page's own bytes fits into one of 32 KiB, where
/// a little more would take 64.
pub(crate) const PACK_BYTES: usize = UNPACKED_BYTES_MAX - 128;

/// A stored value of the engine is never longer: what is larger is cut into pieces.
pub(crate) const PIECE_BYTES: usize = PACK_BYTES;

/// As [`PACK_BYTES`], with sled: its cache keeps the newest page of each of its 256 parts, whatever its limit, and a page has up
/// to 16 packs: 16 MiB, where packs of 32 KiB would make it 128.
pub(crate) const SLED_PACK_BYTES: usize = (4 << 10) - 128;

/// What sled has in memory whatever the limit of its cache: the newest page of each part (16 MiB), the buckets of counters
/// that we do not read and cannot switch off (20), buffers of segments that are written, sealed and prepared (12), its tables
/// of pages, and what is between being replaced and being free.
pub(crate) const SLED_BYTES_MIN: usize = 64 << 20;

/// The last pack is rewritten with what follows until it has this part of a pack's size, so that a trickle of writes does not
/// leave one pack per commit behind.
pub(crate) const TAIL_FRACTION: usize = 4;

/// Operations in one engine batch: sled holds a process-wide lock for a batch, which blocks readers.
pub(crate) const BATCH_OPS_MAX: usize = 256;

/// Bytes in one engine batch, for the same reason.
pub(crate) const BATCH_BYTES_MAX: usize = 1 << 20;

/// The committer gathers this many bytes before it writes: one engine batch carries head and position, whatever its
/// size, and the engine writes their leaves and the way to them anew each time, some 50 KiB with redb ...
pub(crate) const COMMIT_BYTES: usize = 24 * PACK_BYTES;

/// ... or waits this long ...
pub(crate) const COMMIT_LINGER: Duration = Duration::from_millis(100);

/// ... and takes at most this many bytes of records at a time.
pub(crate) const COMMIT_BYTES_MAX: usize = 896 << 10;

/// While something waits to be committed, chores rest so many times as long as they took ...
pub(crate) const CHORE_REST_FACTOR: u32 = 7;

/// ... and at least this long: a piece of the scrub may be only deletes, which take the disk longer than us.
pub(crate) const CHORE_REST_MIN: Duration = Duration::from_millis(15);

/// What an engine writes for a batch beside what is in it, about: with redb, the leaves that are touched and the way to
/// them. Counted towards the next flush, because with few writes a second it is more than the writes.
pub(crate) const BATCH_BESIDE_BYTES: usize = 48 << 10;

/// Somebody who waited for the work behind a dump so long ago may wait again: batches of writes come one after the other.
pub(crate) const AWAITED: Duration = Duration::from_millis(500);

/// The committer flushes the engine after this many bytes: redb reuses no page before, a restart after a power cut
/// replays from here, and the log's writes wait behind all that a flush gives the disk at once.
pub(crate) const FLUSH_BYTES: usize = 4 << 20;

/// As [`FLUSH_BYTES`], for chores: they write much more in the same time, so that more than one in a hundred of the log's
/// writes meets a flush, and waits as long as that takes.
pub(crate) const CHORE_FLUSH_BYTES: usize = 512 << 10;

/// As [`FLUSH_BYTES`], while a store is built from a snapshot: somebody waits for it, and on a slow disk each flush takes
/// so long that with smaller ones the log would be purged beyond the snapshot before the member has caught up.
pub(crate) const BUILD_FLUSH_BYTES: usize = 2 << 20;

/// Bytes of entries that may wait for the dispatcher.
pub(crate) const QUEUE_BYTES_MAX: usize = 32 << 20;

/// So many entries, and so many bytes of them, are evaluated by who brings them, when the dispatcher waits: that takes less
/// than waking its thread.
pub(crate) const HELPED_ENTRIES_MAX: usize = 8;

/// As [`HELPED_ENTRIES_MAX`].
pub(crate) const HELPED_BYTES_MAX: usize = 16 << 10;

/// Messages (each a list of entries) that may wait for the dispatcher.
pub(crate) const QUEUE_MESSAGES_MAX: usize = 256;

/// Entries evaluated in one go, under one hold of the index lock.
pub(crate) const SLICE_ENTRIES_MAX: usize = 64;

/// Slices of at most so many bytes are encoded by the dispatcher itself: copying them takes less than waking a worker.
pub(crate) const INLINE_BYTES_MAX: usize = 64 << 10;

/// Values fetched ahead for one slice; what lies beyond is read during evaluation.
pub(crate) const PREFETCH_RECORDS_MAX: usize = 4096;

/// Bytes of values fetched ahead for one slice, exceeded by less than one value. They are held until the slice is
/// evaluated, beside the budget for memtables and cache.
pub(crate) const PREFETCH_BYTES_MAX: usize = 16 << 20;

/// Evaluated slices on their way through workers and sequencer.
pub(crate) const SLICES_IN_FLIGHT_MAX: usize = 64;

/// A read that needs more cold values than this leaves none of them in the cache: one list of a million keys would push out
/// all that is read again and again. Enough for the keys of one service.
pub(crate) const CACHED_VALUES_MAX: usize = 64;

/// So many keys, at least, are worth reading ahead for.
pub(crate) const AHEAD_KEYS_MIN: usize = 4;

/// So many are read at a time when they were written about one after the other ...
pub(crate) const AHEAD_KEYS_NEAR: usize = 1_024;

/// ... with so many revisions for each key.
pub(crate) const NEAR_REVISIONS_PER_KEY: u64 = 4;

/// Values that are looked for in the ring under one hold of its lock, which each write takes, too: some microseconds.
pub(crate) const RING_KEYS_MAX: usize = 64;

/// Packs that are read with the one that is needed, when the next ones will be.
pub(crate) const PACKS_AHEAD: usize = 32;

/// With more revisions between the values of a list, each pack is looked for by itself ...
pub(crate) const REVISIONS_PER_ID_MAX: u64 = 128;

/// ... and when so many came for each that was needed: looking for one costs about as much as passing that many.
pub(crate) const PACKS_UNNEEDED_MAX: usize = 6;

/// Cold values that are read ahead for a list, exceeded by less than one value.
pub(crate) const AHEAD_BYTES_MAX: usize = 16 << 20;

/// Control events that may wait. Each of their few senders has at most one on its way.
pub(crate) const CONTROL_MAX: usize = 32;

/// Keys visited under one hold of the index lock by readers and by the scrub.
pub(crate) const LOCK_KEYS_MAX: usize = 512;

/// Keys and values behind which a list is long: twice what the pages of a Kubernetes API server hold.
pub(crate) const LONG_LIST_KEYS: usize = 2_048;

/// Keys or values after which a long list gives way: some ten microseconds of work.
pub(crate) const LIST_TURN_KEYS: usize = 64;

/// Keys and values after which a long list lets another one have its turn: some milliseconds of work.
pub(crate) const LANE_TURN_KEYS: usize = 8_192;

/// Leases that one commit changes: they go into the engine batch that carries the position, all of them, and some room is
/// left there for head and position.
pub(crate) const COMMIT_LEASES_MAX: usize = 192;

/// Leases that one slice changes: several slices, or one and some of the next, fit into a commit.
pub(crate) const SLICE_LEASES_MAX: usize = 96;

/// Changes of leases that wait for who follows them: a second of more than there ever are.
pub(crate) const LEASE_FEED_MAX: usize = 1 << 18;

/// Leases of one frame of a snapshot.
pub(crate) const LEASE_FRAME_MAX: usize = 4096;

/// Tokens that wait until somebody asks for them; later ones replace the oldest. At a hundred bytes each, and far more
/// than clients log in between two calls with a token that is not known yet.
pub(crate) const TOKENS_WAITING_MAX: usize = 16 << 10;

/// What an entry costs in memory beside its records, for accounting.
pub(crate) const ENTRY_BYTES: usize = 128;

/// Raw bytes of a snapshot block.
pub(crate) const BLOCK_BYTES: usize = 1 << 20;

/// Bytes of the newest changes that are kept in memory for watches at most, beside what the stable store does not
/// hold yet: the revisions of a reconnect or a slow watcher, for seconds of writes at full speed.
pub(crate) const RING_BYTES_MAX: usize = 32 << 20;

/// A snapshot that is written or received, and a checkpoint, are made durable in parts of this size: the log's syncs wait on the disk
/// behind what is made durable at once.
pub(crate) const FILE_SYNC_BYTES: u64 = 512 << 10;

/// A dump that takes longer is cancelled: a disk that slow has something wrong with it, and the overlay grows.
pub(crate) const DUMP_DEADLINE: Duration = Duration::from_secs(30 * 60);

/// A dump begins only when so many times the retained bytes are free: a snapshot is at most about as large as those,
/// and the log goes on growing while it is written.
pub(crate) const DUMP_FREE_FACTOR: u64 = 2;

/// After a dump that did not succeed, the next one that nobody needs at once waits this long, and twice as long after
/// each further one ...
pub(crate) const DUMP_RETRY: Duration = Duration::from_secs(30);

/// ... up to this.
pub(crate) const DUMP_RETRY_MAX: Duration = Duration::from_secs(10 * 60);

/// A dump without hurry rests after each page so many times as long as the page took, so that it takes a quarter of a
/// core and of the disk's time ...
pub(crate) const DUMP_REST_FACTOR: u32 = 3;

/// ... and at most this long: what makes a page slow may be over by then.
pub(crate) const DUMP_REST_MAX: Duration = Duration::from_millis(50);

/// Frames of a new snapshot that are verified in one go.
pub(crate) const VERIFY_FRAMES: usize = 32;

/// How long a shutdown waits for the pipeline.
pub(crate) const SHUTDOWN: Duration = Duration::from_secs(5);

/// Bytes of records in one slice of work that goes through the whole store, exceeded by less than one pack: a
/// millisecond or two of work, after which others come to their turn.
pub(crate) const SLICE_BYTES: usize = 128 << 10;

/// As many runs, at least, have room in one such slice: small ones, which the scrub may join.
pub(crate) const SLICE_RUNS_MIN: usize = 12;

/// How long the scrub waits when a reader is in its way.
pub(crate) const SCRUB_RETRY: Duration = Duration::from_millis(50);

/// A stable store whose files exceed twice the logical bytes by this much is copied into new files. Small stores are
/// left alone: the engines take some MiB for nothing at all.
pub(crate) const REGENERATE_BYTES_MIN: u64 = 32 << 20;

/// Records that a start puts back into the index at a time, sorted by key: 6 MiB of them.
pub(crate) const RESTORE_RECORDS: usize = 64 << 10;

/// A checkpoint of the index is not written before so many of its bytes were matched by one revision each: it adds that
/// much at most to what a write costs the disk.
pub(crate) const CHECKPOINT_BYTES_PER_REVISION: u64 = 24;

/// Raw bytes of a block of a checkpoint, exceeded by less than a piece.
pub(crate) const CHECKPOINT_BLOCK_BYTES: usize = 256 << 10;

/// Pieces of a checkpoint that are written in one go, between two commits: some milliseconds.
pub(crate) const CHECKPOINT_PIECES: usize = 32;

/// How long after a start the snapshot that was found is read through: a member that is back has better things to do
/// at first.
pub(crate) const CHECK_AFTER: Duration = Duration::from_secs(30);

/// How long after a failed attempt, mostly for want of space, the next one waits.
pub(crate) const REGENERATE_RETRY: Duration = Duration::from_secs(60);

const _: () = assert!(COMMIT_LEASES_MAX + 3 <= BATCH_OPS_MAX);
const _: () = assert!(SLICE_LEASES_MAX <= COMMIT_LEASES_MAX);
const _: () = assert!(holdfast_mvcc::command::LEASES_MAX <= SLICE_LEASES_MAX);
const _: () = assert!(COMMIT_BYTES_MAX + PACK_BYTES * 4 <= BATCH_BYTES_MAX);
const _: () = assert!(SLED_PACK_BYTES <= PACK_BYTES);
const _: () = assert!((SLICE_RUNS_MIN + 1) * 2 * PACK_BYTES <= BATCH_BYTES_MAX);
// A slice of the smallest packs is replaced in one batch: two deletes and two puts for each.
const _: () = assert!(SLICE_BYTES / SLED_PACK_BYTES * 4 <= BATCH_OPS_MAX);
