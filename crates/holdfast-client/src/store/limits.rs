//! How much a store in memory may hold, and what it does when that is reached.

/// The largest object that etcd takes, unless it is told otherwise.
pub const OBJECT_BYTES_MAX: u64 = 1_536 * 1024;

/// What happens when a store in memory is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum WhenFull {
    /// The write is refused, and nothing happens.
    #[default]
    Reject,
    /// What was not written for the longest time goes.
    EvictOldest,
    /// What was neither read by its key nor written for the longest time goes. Lists count as no use.
    EvictLru,
}

/// How much a store in memory holds at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Objects. 10,000,000 unless set.
    pub objects_max: u64,
    /// Bytes of all keys and of all objects in encoded form; what the structures themselves take comes on top.
    /// 1 GiB unless set.
    pub bytes_max: u64,
    /// Bytes of one object in encoded form. 1.5 MiB unless set, which is what etcd takes.
    pub object_bytes_max: u64,
    /// Changes that are remembered for watches, and states for reads of the past. 1,024 unless set.
    pub changes_max: usize,
    /// What to do when there is no room.
    pub when_full: WhenFull,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            objects_max: 10_000_000,
            bytes_max: 1 << 30,
            object_bytes_max: OBJECT_BYTES_MAX,
            changes_max: 1_024,
            when_full: WhenFull::Reject,
        }
    }
}

/// Which limit a write would have passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    /// [`Limits::objects_max`].
    Objects,
    /// [`Limits::bytes_max`].
    Bytes,
    /// [`Limits::object_bytes_max`], or the cluster's own limit of one request.
    ObjectBytes,
    /// The space that the cluster has for all its keys.
    Cluster,
}

/// A write for which there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too large: {limit:?} would be {wanted} of at most {max}")]
pub struct TooLarge {
    /// Which limit.
    pub limit: Limit,
    /// What it would have come to; 0 when only the cluster knows.
    pub wanted: u64,
    /// What is allowed; 0 when only the cluster knows.
    pub max: u64,
}
