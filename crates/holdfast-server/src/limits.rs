//! Every limit of the server, with the reason for its value. Those with a flag are defaults; the others are fixed.

use std::time::Duration;

/// Largest encoded request that is replicated; `--max-request-bytes`. etcd's default.
pub const REQUEST_BYTES_MAX: usize = 1_572_864;

/// What a gRPC message may be larger than [`REQUEST_BYTES_MAX`]: between the two a client gets etcd's own "request is
/// too large", beyond both the gRPC library's error.
pub const GRPC_OVERHEAD_BYTES: usize = 512 * 1024;

/// The range of `--max-request-bytes`. Above 10 MiB etcd warns; above 64 MiB one request would hold up the log, the
/// peers' streams and every heartbeat behind it for longer than an election timeout on a slow disk.
/// Below 4 KiB a member could not publish its own name and URLs, and so would never be ready.
pub const REQUEST_BYTES_BOUNDS: (usize, usize) = (4 * 1024, 64 * 1024 * 1024);

/// Most operations in one transaction; `--max-txn-ops`. etcd's default.
pub const TXN_OPS_MAX: usize = 128;

/// The largest `--max-txn-ops`: more would hold up every other command for as long as this one is evaluated.
pub const TXN_OPS_BOUND: u64 = 1_000_000;

/// How often an idle watcher is told how far it has seen; `--watch-progress-notify-interval`. etcd's default.
pub const PROGRESS_NOTIFY_INTERVAL: Duration = Duration::from_secs(10 * 60);

/// The smallest `--watch-progress-notify-interval`. etcd's rule: below it progress would be most of what is sent.
pub const PROGRESS_NOTIFY_INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Bytes of events that may wait for one watch stream; `--watch-stream-bytes`. A hundred streams that do not read hold
/// less than half of the default memory for values.
pub const WATCH_STREAM_BYTES: usize = 4 * 1024 * 1024;

/// The range of `--watch-stream-bytes`: the lower bound holds a few events of usual size; a single larger one is sent
/// alone.
pub const WATCH_STREAM_BYTES_BOUNDS: (u64, u64) = (64 * 1024, 1024 * 1024 * 1024);

/// Most streams per client connection; `--max-concurrent-streams`. etcd's default, which is no limit: a watch-heavy
/// client opens one stream per watch, and each costs its client as much as us.
pub const CONCURRENT_STREAMS_MAX: u32 = u32::MAX;

/// A token ends when it was not used for so long; `--auth-token-ttl`. etcd's default.
pub const AUTH_TOKEN_TTL: Duration = Duration::from_secs(300);

/// How costly a password is to compare; `--bcrypt-cost`. etcd's default: some 60 ms of a processor.
pub const BCRYPT_COST: u32 = 10;

/// Tokens that a member knows at most. Each takes about 200 bytes.
pub const TOKENS_MAX: usize = 100_000;

/// Passwords that are hashed, and as many that are compared, at a time: they must not take all processors from the rest.
pub const HASHING_MAX: usize = 2;

/// Calls with a password that may be at work or wait to be, of each of the two kinds; others are refused at once.
pub const HASHING_WAITING_MAX: usize = 256;

/// Heartbeats; `--heartbeat-interval`. etcd's default.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(100);

/// Silence before a campaign; `--election-timeout`. etcd's default.
pub const ELECTION_TIMEOUT: Duration = Duration::from_millis(1000);

/// How many heartbeats must fit into an election timeout, so that one lost packet starts no campaign. etcd's rule.
pub const HEARTBEATS_PER_ELECTION_MIN: u32 = 5;

/// Longest election timeout accepted. etcd's rule: beyond it a dead leader stays unnoticed for too long.
pub const ELECTION_TIMEOUT_MAX: Duration = Duration::from_secs(50);

/// The fixed part of a request's time budget; two election timeouts come on top, so that a request survives one
/// change of leader. etcd's rule.
pub const REQUEST_TIME_BASE: Duration = Duration::from_secs(5);

/// How long before a client's own deadline our time ends at most (a tenth of the deadline, when that is less), so that
/// the client gets our answer and not its transport's. Enough for a turn of the scheduler and a way through a network.
pub const DEADLINE_HEADROOM_MAX: Duration = Duration::from_millis(20);

/// The quota on data when none is set; `--quota-backend-bytes`. etcd's default.
pub const QUOTA_BACKEND_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// How often the leader looks whether there is space again below the quota.
pub const QUOTA_LOOK_EVERY: Duration = Duration::from_millis(500);

/// The alarm for missing space is cleared once the data takes less than this share of the quota.
pub const QUOTA_CLEAR_PERCENT: u32 = 90;

/// Memory budget for values; `--memory-bytes`.
pub const MEMORY_BYTES: usize = 512 * 1024 * 1024;

/// Smallest memory budget: the overlay stops writers at half of it, with sled at a quarter, and must hold some of the largest
/// requests.
pub const MEMORY_BYTES_MIN: usize = 16 * 1024 * 1024;

/// Log bytes since the last snapshot that start a dump; `--dump-log-bytes`.
pub const DUMP_LOG_BYTES: u64 = 128 * 1024 * 1024;

/// Revisions since the last checkpoint of the key index that start one; `--checkpoint-revisions`. A start reads the
/// metadata of so many in a tenth of a second.
pub const CHECKPOINT_REVISIONS: u64 = 64 * 1024;

/// Size of one log segment; `--segment-bytes`. Segments are filled ahead of their use and kept for their next one, so
/// a few of them are on disk beside what the log holds.
pub const SEGMENT_BYTES: u64 = 8 * 1024 * 1024;

/// The range of `--segment-bytes`: the lower bound holds the largest batch of entries with room to spare.
pub const SEGMENT_BYTES_BOUNDS: (u64, u64) = (4 * 1024 * 1024, 1024 * 1024 * 1024);

/// Of the memory budget, this part is for the log's tail, which peers that are a little behind read: a second of writes
/// at full speed with the default budget.
pub const LOG_CACHE_SHARE: usize = 64;

/// Bytes of proposals that may wait; the next is refused with "too many requests".
pub const PROPOSAL_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a frame between members may be larger than [`REQUEST_BYTES_MAX`]: frames are filled to 1 MiB before the last
/// entry, which may be the largest.
pub const PEER_FRAME_OVERHEAD_BYTES: usize = 2 * 1024 * 1024;

/// Committed entries that may wait to be applied; the next proposal is refused with "too many requests". etcd's rule.
pub const APPLY_LAG_MAX: u64 = 5_000;

/// Bytes in one piece of a streamed list, exceeded by less than a pair: a stream holds one piece or two, and there may be
/// many streams. Enough that what a piece costs by itself does not count.
pub const RANGE_STREAM_PIECE_BYTES: usize = 256 * 1024;
/// Keys in one piece of a streamed list: as many as that of the smallest.
pub const RANGE_STREAM_PIECE_KEYS: u64 = 4096;

/// Snapshots for clients at a time on one member; `--max-snapshot-streams`. Each takes half a core while it is written, and
/// as much of the disk as the data. etcd has no limit.
pub const SNAPSHOT_STREAMS_MAX: usize = 2;
/// The range of `--max-snapshot-streams`.
pub const SNAPSHOT_STREAMS_BOUNDS: (u64, u64) = (1, 64);
/// Bytes of records that are put into the file at once: what a client that has gone may still cost.
pub const SNAPSHOT_PIECE_BYTES: usize = 512 * 1024;
/// After each piece the writer rests as long as it took, and at most this long: what makes it slow may be over by then.
pub const SNAPSHOT_REST_MAX: Duration = Duration::from_millis(50);
/// Bytes in one message of a snapshot. etcd's number.
pub const SNAPSHOT_BLOB_BYTES: usize = 32 * 1024;
/// Bytes of a snapshot that are read at once, and held for a client that is slow.
pub const SNAPSHOT_READ_BYTES: usize = 256 * 1024;
/// A snapshot is begun only with so many times the retained bytes free: pages are at least half full, whatever the values
/// are ...
pub const SNAPSHOT_FREE_FACTOR: u64 = 2;
/// ... and this beside them, which the log may need meanwhile. With less than half of it left a snapshot ends.
pub const SNAPSHOT_FREE_BYTES: u64 = 64 * 1024 * 1024;

/// Most serving threads; `--serving-threads`.
pub const SERVING_THREADS_MAX: usize = 256;

/// Default serving threads are this part of the CPUs, at least one. A write also keeps the log's thread, the
/// dispatcher's and the committer's busy. On two CPUs a second serving thread cost 12 % more CPU per put and 15 % per
/// get: each wakes the other one for nothing.
pub const SERVING_THREADS_SHARE: usize = 2;

/// Most write workers; `--write-workers`. More would only queue behind the one committer.
pub const WRITE_WORKERS_MAX: usize = 64;

/// Default write workers on a large machine.
pub const WRITE_WORKERS_DEFAULT_MAX: usize = 8;

/// So many tasks run on a serving thread, while more are ready, before it looks for what has come from sockets. A connection's
/// task may take half a millisecond; with tokio's 61 of them a put waits for tens of milliseconds beside lists. With 4, looking
/// would cost a single client's put some hundredths more.
pub const TASKS_PER_LOOK: u32 = 8;

/// Reads that may block on the stable store at once. Each occupies a thread; more of them than this would only wait
/// for the same disk. The next reads wait for a permit, within their time budget.
pub const BLOCKING_READS_MAX: usize = 32;

/// As [`BLOCKING_READS_MAX`], for reads of more than a thousand keys: most of them wait for their turn, and others must not wait behind
/// them.
pub const LONG_READS_MAX: usize = 32;

/// So many reads of one key, whose value is not in memory, may wait for a thread before another one helps. They have threads of their
/// own, as many again, and need no permit.
pub const COLD_READS_PER_THREAD: usize = 4;

/// A read that took longer may have waited for the disk: then, and while one takes that long, other threads help.
pub const COLD_READ_QUICK: Duration = Duration::from_micros(50);

/// Members in an initial cluster: more voters make each write slower and help nobody (etcd recommends at most 7).
pub const INITIAL_MEMBERS_MAX: usize = 15;

/// A key or value up to this size is copied out of its receive buffer. Larger ones are most of their buffer, so
/// keeping the buffer costs less than the copy.
pub const COPY_BYTES_MAX: usize = 16 * 1024;

/// How long a stop waits for requests that are being answered.
pub const STOP_GRACE: Duration = Duration::from_secs(5);

/// How long a stop waits for clients to read the end of their streams, when nothing else is being answered.
pub const STREAM_STOP_GRACE: Duration = Duration::from_secs(1);

/// How often a member that could not publish its name and URLs tries again.
pub const PUBLISH_RETRY: Duration = Duration::from_millis(500);

/// Pause between two attempts to become ready.
pub const READY_RETRY: Duration = Duration::from_millis(50);

/// HTTP/2 flow-control windows: a stream may send a whole default request without waiting for an update.
pub const STREAM_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
/// The connection's window holds a few of them.
pub const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;

/// Bytes of requests that have begun and not ended, over all connections; `--max-receiving-bytes`. Some hundred of the largest
/// requests at a time; what comes in one frame, as most do, does not count.
pub const RECEIVING_BYTES: u64 = 256 * 1024 * 1024;
/// The range of `--max-receiving-bytes`: a few of the largest requests at least.
pub const RECEIVING_BYTES_BOUNDS: (u64, u64) = (8 * 1024 * 1024, 1 << 40);

/// How long a request's message may take from its first byte to its last. Long enough for the largest one over a line of
/// half a megabit a second.
pub const MESSAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// Connections that were accepted and whose tasks have not run yet: the rest of a crowd waits in the listener's queue.
pub const UNSEEN_CONNECTIONS_MAX: usize = 1;

/// Pages of metrics that may be on their way at a time on a port; each takes some hundred KiB until it is read.
pub const PAGES_MAX: usize = 64;

/// A page of metrics takes a millisecond to make: while it is on its way to somebody, who else asks within this time gets
/// the same.
pub const PAGE_SHARED_FOR: Duration = Duration::from_millis(100);

/// Ping idle clients so often; `--grpc-keepalive-interval`. etcd's default.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2 * 60 * 60);

/// Drop a client that does not answer a ping; `--grpc-keepalive-timeout`. etcd's default.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// The least time between two pings of a client; `--grpc-keepalive-min-time`. etcd's default: its clients ping every 30 s.
pub const KEEPALIVE_TIME_MIN: Duration = Duration::from_secs(5);

/// So many pings in a row may come too early; with the next one the connection ends. gRPC's number.
pub const PING_STRIKES_MAX: u32 = 2;

/// The range of a period of `--auto-compaction-retention`. Less than a second would be one compaction after the other; more
/// than a century is a mistake.
pub const AUTO_COMPACTION_PERIOD_BOUNDS: (Duration, Duration) =
    (Duration::from_secs(1), Duration::from_secs(100 * 366 * 24 * 60 * 60));
/// History is compacted at least so often by itself, however long the period that is kept. etcd's rule.
pub const AUTO_COMPACTION_EVERY_MAX: Duration = Duration::from_secs(60 * 60);
/// So many revisions are noted between two such compactions: what is kept is longer than asked for by a tenth at most.
/// etcd's rule.
pub const AUTO_COMPACTION_NOTES: u32 = 10;
/// How often it is looked whether there are more revisions than are to be kept. etcd's rule.
pub const AUTO_COMPACTION_REVISIONS_EVERY: Duration = Duration::from_secs(5 * 60);

/// Bytes of changes that may wait for watch dispatch. When dispatch is behind by more, they are dropped and read from
/// history later. The values are shared with the stores, so that most of it costs nothing.
pub const WATCH_INBOX_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Most watchers on one watch stream; the next is refused with a reason. etcd has no limit; a client that needs more can
/// open another stream, and one that leaks watchers is stopped.
pub const WATCHERS_PER_STREAM_MAX: usize = 100_000;

/// Requests of all watch streams that may wait for dispatch. The streams read no further while it is full.
pub const WATCH_REQUESTS_WAITING_MAX: usize = 1024;

/// Requests that dispatch answers before it looks for changes again.
pub const WATCH_REQUESTS_PER_TURN: usize = 256;

/// Threads that read history for watchers behind the head: one may wait for a disk while the other reads memory.
pub const WATCH_READERS: usize = 2;

/// Most of history that is read at once for watchers behind the head. etcd's number of revisions; the bytes keep a turn
/// of dispatch short.
pub const WATCH_SLICE_REVISIONS_MAX: usize = 1000;
/// Changes whose previous values are read at once; between such lots their bytes are counted against the slice.
pub const WATCH_PREVIOUS_RECORDS: usize = 16;
/// The bytes of such a slice, those of its previous values counted by themselves.
pub const WATCH_SLICE_BYTES_MAX: usize = 1024 * 1024;

/// Dispatch rests this long per delivery that it has just made, so that the changes of a busy time leave together, in
/// fewer messages, instead of waking every stream for each ...
pub const WATCH_GATHER_PER_DELIVERY: Duration = Duration::from_micros(60);
/// ... but not for less than this, so that nothing is ever late for few watchers ...
pub const WATCH_GATHER_MIN: Duration = Duration::from_millis(5);
/// ... and at most this long: what an event may be late because thousands of others were sent just before it.
pub const WATCH_GATHER_MAX: Duration = Duration::from_millis(30);

/// Pause before history that could not be read is read again.
pub const WATCH_RETRY: Duration = Duration::from_secs(1);

/// How often, at most, the watchers that are behind are looked through for the one that is furthest behind: a figure.
pub const WATCH_LOOK: Duration = Duration::from_millis(100);

/// How many election timeouts a member may be without a leader before it ends the watch streams that want one. etcd's
/// rule: one election that fails is no reason.
pub const LEADERLESS_ELECTION_TIMEOUTS: u32 = 3;

/// The longest time to live of a lease, in seconds: etcd's number, so that its nanoseconds fit into 64 bits.
pub const LEASE_SECONDS_MAX: i64 = 9_000_000_000;

/// Keep-alives of one stream that are asked for at once: a client with many leases sends them together. What has arrived
/// when one question is answered goes with the next.
pub const KEEP_ALIVES_AT_ONCE: usize = 512;

/// Calls that wait for a lock or an election on one member; `--max-waiting-calls`. The next is refused with a reason. Each
/// costs a watch stream, about 10 KiB. etcd has no limit; a client that leaks calls is stopped.
pub const WAITING_CALLS_MAX: usize = 10_000;

/// The range of `--max-waiting-calls`: the upper bound is 10 GiB of streams.
pub const WAITING_CALLS_BOUNDS: (u64, u64) = (1, 1_000_000);

/// The time to live of the lease that the server grants for a call on a lock or an election without one, in seconds.
/// etcd's number.
pub const SESSION_SECONDS: u64 = 60;

/// Pause before a step of such a call that found no leader is tried again; up to as much again is added at random.
pub const STEP_RETRY: Duration = Duration::from_millis(250);

/// The shortest time to live that a lease is granted, in seconds: one and a half election timeouts, rounded up. One that
/// cannot outlive an election is of no use.
pub fn lease_seconds_min(election_timeout: Duration) -> u64 {
    u64::try_from((election_timeout * 3 / 2).as_millis().div_ceil(1000)).unwrap_or(u64::MAX)
}

const _: () = assert!(
    HEARTBEAT_INTERVAL.as_millis() * (HEARTBEATS_PER_ELECTION_MIN as u128) <= ELECTION_TIMEOUT.as_millis()
);
const _: () =
    assert!(REQUEST_BYTES_MAX >= REQUEST_BYTES_BOUNDS.0 && REQUEST_BYTES_MAX <= REQUEST_BYTES_BOUNDS.1);

/// How long a member may take to digest all of its data.
pub const DIGEST_LIMIT: Duration = Duration::from_secs(300);

/// Certificates that expire within so many days are warned of: time enough for who renews them by hand.
pub const EXPIRY_WARNING_DAYS: i64 = 30;

/// That warning is repeated so often.
pub const EXPIRY_WARNING_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// One day in seconds.
pub const DAY_SECONDS: i64 = 24 * 60 * 60;
