//! The bounds of this crate, each with its reason, and waiting with a bound.

use std::time::Duration;

use holdfast_env::Clock;

/// Payload bytes in one peer message, unless a single entry is larger: one message must not delay a heartbeat for
/// long, and 16 of them wait on a connection at most.
pub(crate) const FRAME_PAYLOAD_BYTES: usize = 1 << 20;

/// Entries that go into the local log at once; their bytes go into one write.
pub(crate) const BATCH_ENTRIES_MAX: usize = 4096;

/// Payload bytes that go into the local log at once.
pub(crate) const BATCH_BYTES_MAX: usize = 8 << 20;

/// Batches that may be on their way at once; more would only be smaller.
pub(crate) const BATCHES_IN_FLIGHT: usize = 64;

/// Append messages per peer that wait for an answer. Two overlap the network with the disk; more destroy batching.
pub(crate) const APPENDS_IN_FLIGHT: usize = 2;

/// As [`APPENDS_IN_FLIGHT`], with those that carry no entries.
pub(crate) const SENT_MAX: usize = 16;

/// How long an answer for which nobody waits is held back, until another one takes it along: longer than it is to the next
/// one under any load worth speaking of, shorter than anything that watches for signs of life.
pub(crate) const ANSWER_HELD: Duration = Duration::from_millis(10);

/// Forwarded batches of one peer connection that are handled at the same time. They last until they are applied, and
/// must leave room for the requests that a stalled apply cannot hold up: votes, appends and read confirmations. The
/// peer sends [`BATCHES_IN_FLIGHT`], and as many again when it gives the first ones up.
pub(crate) const FORWARDS_IN_FLIGHT: usize = 2 * BATCHES_IN_FLIGHT;

/// Requests of one peer connection that are handled at the same time.
pub(crate) const REQUESTS_IN_FLIGHT: usize = 256;

const _: () = assert!(FORWARDS_IN_FLIGHT < REQUESTS_IN_FLIGHT, "forwards must not take every place");

/// Peer connections that are served at the same time: seven members with two lanes each, and room for the dead ones
/// that were not noticed yet.
pub(crate) const CONNECTIONS_MAX: usize = 64;

/// The pause before something that was refused is tried again.
pub(crate) const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// How long a peer may take to connect and greet.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a connection stays open behind a refusal, so that the peer can read it.
pub(crate) const REFUSAL_LINGER: Duration = Duration::from_secs(1);

/// How long a member that was removed may take to hear of it from a peer.
pub(crate) const FAREWELL_LIMIT: Duration = Duration::from_secs(2);

/// How long a member may take to see the revision at which the leader compares.
pub(crate) const DIGEST_WAIT: Duration = Duration::from_secs(10);

/// How often the leader looks whether somebody is to become a voter, or whether a change of members was left half
/// done.
pub(crate) const KEEPER_PERIOD: Duration = Duration::from_millis(200);

/// The longest pause between two tries of a leader that should not lead to give leadership away, when it is elected again
/// and again.
pub(crate) const HAND_OVER_PAUSE_MAX: Duration = Duration::from_secs(60);

/// A learner may become a voter when its log reaches this share of the leader's, in percent: etcd's number.
pub(crate) const LEARNER_READY_PERCENT: u64 = 90;

/// A learner that is to become a voter by itself is taken when it is at most so many entries behind: the voters wait
/// for it from then on.
pub(crate) const PROMOTE_LAG_MAX: u64 = 1000;

/// The first pause before connecting again; doubles up to [`RECONNECT_MAX`], with jitter.
pub(crate) const RECONNECT_MIN: Duration = Duration::from_millis(50);

/// The longest pause before connecting again: a peer that comes back must be reached within an election timeout.
pub(crate) const RECONNECT_MAX: Duration = Duration::from_millis(500);

/// Into so many steps the time between two heartbeats is cut: those who may follow a leader that is gone campaign two steps
/// apart, 50 ms by default. That is enough for the first one's votes to be on disks, and much less than an election timeout.
pub(crate) const LOST_LEADER_STEPS: u32 = 4;

/// How often a member campaigns in the place of a leader that is gone, before it leaves that to the election timeout.
pub(crate) const LOST_LEADER_CAMPAIGNS: u32 = 4;

/// Leases whose end is proposed at once: a batch of others' writes waits behind so many at most, and 100,000 leases that end
/// together are gone within seconds.
pub(crate) const EXPIRE_BATCH_MAX: usize = 128;

/// How soon the end of a lease is proposed again that is still there.
pub(crate) const EXPIRE_RETRY: Duration = Duration::from_secs(1);

/// The lessor looks for leases whose time is over at most this often: a fifth of etcd's half second.
pub(crate) const LESSOR_PERIOD: Duration = Duration::from_millis(100);

/// Requests for leases of one peer connection that are handled at the same time; the others are to be asked again. A member
/// has one under way, and perhaps some that it has given up.
pub(crate) const LEASES_IN_FLIGHT: usize = 64;

const _: () = assert!(FORWARDS_IN_FLIGHT + LEASES_IN_FLIGHT < REQUESTS_IN_FLIGHT, "nor may leases");

/// Questions for leases in one request to the leader, at most: a frame of some ten KiB. Those that do not fit go with the next.
pub(crate) const LEASE_QUESTIONS_MAX: usize = 4096;

/// How soon a keep-alive asks again for a lease whose end is being decided.
pub(crate) const ENDING_PAUSE: Duration = Duration::from_millis(50);

/// How soon openraft is asked again to take up a dump that was begun without it: it does so when its own has ended.
pub(crate) const DUMP_HANDOVER: Duration = Duration::from_millis(100);

/// How soon the log is looked at again when openraft does not know of the newest snapshot yet: it lets nothing go before.
pub(crate) const PURGE_AGAIN: Duration = Duration::from_millis(5);

/// How long one batch waits at most while a dump is behind: the log may become a little longer than promised rather than
/// that writes stand still, should a dump take much longer than it looked like.
pub(crate) const PACE_MAX: Duration = Duration::from_secs(1);

/// How soon a dump that was to replace a damaged snapshot is tried again.
pub(crate) const DUMP_AGAIN: Duration = Duration::from_secs(30);

/// How long one step of a snapshot transfer may take.
pub(crate) const SNAPSHOT_STEP_TIMEOUT: Duration = Duration::from_secs(30);

/// Between the chunks of a snapshot the sender rests so many times as long as one took, so that reading, sending and
/// writing them takes a quarter of the time of either machine ...
pub(crate) const SNAPSHOT_REST_FACTOR: u32 = 3;

/// ... and at most this long: 50 chunks, 50 MiB, a second are sent wherever a chunk takes no longer itself.
pub(crate) const SNAPSHOT_REST_MAX: Duration = Duration::from_millis(20);

/// How fast a receiver verifies and installs at the least, in bytes per second: bounds the wait for its answer.
pub(crate) const INSTALL_BYTES_PER_SECOND: u64 = 4 << 20;

/// Waits for `future` at most `limit`; `None` when the time is over, with the future dropped.
pub(crate) async fn within<T>(
    clock: &dyn Clock,
    limit: Duration,
    future: impl Future<Output = T>,
) -> Option<T> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = clock.sleep(limit) => None,
    }
}
