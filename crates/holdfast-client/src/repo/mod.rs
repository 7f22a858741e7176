//! Repositories: objects of one type under their names, with the same strict semantics in memory and on a cluster.
//!
//! [`Repository`] is what there is to do; [`MemoryRepository`] and [`ClusterRepository`] do it. Both pass one suite of tests.
//!
//! | | [`MemoryRepository`] | [`ClusterRepository`] |
//! |---|---|---|
//! | what is written survives | until the last clone is dropped; snapshots can be taken | as long as a majority of members does |
//! | shared by | clones in one process | every process that reaches the cluster |
//! | read, write | under a microsecond and a few | a round trip, and one through a majority |
//! | how much | memory; limits, and what goes when they are reached | the cluster's quota |
//! | past that watches reach back | the latest 1,024 changes unless set | until compaction |
//! | version | counts changes of this repository | revision of the cluster, which other keys move as well |
//! | may end as [`RepoError::Unknown`] | never | yes |
//!
//! # What it is not
//! Objects are not versioned inside, have no fields of their own, and no index: a filter by fields looks at each object.
//!
//! # Invariants
//! - Names have no slash, so no two pairs of namespace and name are one key.
//! - What is stored and cannot be decoded is there: it is never reported as not found, and stands in the way of a create.
//! - Versions never go backwards, also not of a key that was deleted and made again, and not by a restore.
//!
//! # Module map
//! `repository` the trait, `object` names, `filter`, `error`; `memory` and `snapshot`, `cluster`; `metrics`.

mod cluster;
mod error;
mod filter;
mod memory;
mod metrics;
mod object;
mod repository;
mod snapshot;

pub use cluster::{ClusterRepository, ClusterRepositoryWatch, Place};
pub use error::{Invalid, RepoError};
pub use filter::Filter;
pub use memory::{MemoryRepository, MemoryRepositoryWatch};
pub use metrics::{Counted, Counters, Labels, Metrics, Operation};
pub(crate) use object::check_name;
pub use object::{BadName, NAME_BYTES_MAX, Object, ObjectKey, Scope};
pub use repository::{Applied, Deleted, Event, Listed, READY_MAX, Repository, RepositoryWatch, Stored};
pub use snapshot::{SnapshotError, Summary};
