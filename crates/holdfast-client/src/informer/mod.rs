//! Informer: a range of keys, decoded and kept here, as it is on the cluster.

mod cache;
mod change;
mod digest;
mod index;
mod object;
mod snapshot;
mod tree;

pub use change::{Change, Sight};
pub use digest::Digest;
pub use object::{DecodeError, Object, Unreadable};
pub use snapshot::Snapshot;
