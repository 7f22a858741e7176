//! How a node takes part, and what that means in openraft's terms.

use std::time::Duration;

use holdfast_mvcc::types::MemberId;
use openraft::{Config, SnapshotPolicy};

use crate::error::StartError;

/// One member of the cluster, as consensus knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: MemberId,
    /// Where its peers reach it, e.g. `http://10.0.0.1:2380`; at least one.
    pub peer_urls: Vec<String>,
    /// True when it receives the log but does not vote.
    pub is_learner: bool,
}

/// How a node takes part.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// This member.
    pub id: MemberId,
    /// The cluster's id; connections of another cluster are refused.
    pub cluster_id: u64,
    /// Our peer URLs to listen on.
    pub listen_peer_urls: Vec<String>,
    /// The initial members, used only while the log is empty. Every member starts with the same list.
    pub initial_members: Vec<Member>,
    /// Time between heartbeats; default 100 ms.
    pub heartbeat_interval: Duration,
    /// etcd's election timeout T; default 1 s. Campaigns start 0.85 T to 1.0 T after the leader went silent.
    pub election_timeout: Duration,
    /// Largest encoded command in bytes; default 1.5 MiB.
    pub request_bytes_max: usize,
    /// Bytes of proposals that may wait for the proposer; default 64 MiB.
    pub proposal_bytes_max: usize,
    /// Committed entries that may wait to be applied before new proposals are refused; default 5,000.
    pub apply_lag_max: u64,
    /// A dump is started when the log since the last snapshot exceeds max(this, the last snapshot's size);
    /// default 64 MiB.
    pub dump_log_bytes: u64,
}

/// The fewest milliseconds of a snapshot's final step: verifying and installing it on the receiver.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Entries in one append message at most; its bytes are bounded by the log reader.
const APPEND_ENTRIES_MAX: u64 = 2048;

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// openraft's configuration.
///
/// An openraft follower campaigns once the leader lease (its maximum election timeout) *and* a random timeout between
/// minimum and maximum have passed. With 0.35 T and 0.5 T that is 0.85 T to 1.0 T after the last heartbeat, and voters
/// grant nothing for the first 0.5 T.
pub(crate) fn openraft_config(config: &NodeConfig) -> Result<Config, StartError> {
    let election = config.election_timeout;
    let election_timeout_min = millis(election * 7 / 20);
    let election_timeout_max = millis(election / 2).max(election_timeout_min + 1);
    Config {
        cluster_name: format!("{:x}", config.cluster_id),
        heartbeat_interval: millis(config.heartbeat_interval).max(1),
        election_timeout_min,
        election_timeout_max,
        enable_pre_vote: Some(true),
        // A restarted leader's log may hold entries that it alone knows; it has to be elected again.
        enable_leader_restore: Some(false),
        install_snapshot_timeout: millis(INSTALL_TIMEOUT),
        max_payload_entries: APPEND_ENTRIES_MAX,
        // Dumps are started by bytes, and the log is purged by bytes: see the dump loop.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        replication_lag_threshold: u64::MAX,
        ..Config::default()
    }
    .validate()
    .map_err(|error| {
        StartError::Raft(format!("timers: {error}; raise the election timeout or lower the heartbeat"))
    })
}
