//! Informer: a range of keys, decoded and kept here, as it is on the cluster.
//!
//! An [`Informer`] lists a range at one revision and follows its changes from the next one on. What it knows is a
//! [`Snapshot`] at any time: reading takes a pointer, and what was read never changes.
//!
//! ```text
//!                      ┌──────────── task ────────────┐
//!   list ─► changes ──►│ Cache ── next Snapshot ──► Hub │──► Reader        snapshot, wait_for, verify
//!                      └──────────────────────────────┘ ├──► Subscription  changes, in bounded buffers
//!                                                        └──► CachedStore   reads here, writes there
//! ```
//!
//! # What it is not
//! There are no selectors: what is wanted of a range is a matter of the range and of indexes. Objects are decoded in the
//! informer's task, one after the other.
//!
//! # Invariants
//! - A snapshot shows all of a revision, or nothing of it.
//! - Revisions only grow. What is not newer is not applied, also when a cluster says so that was restored from a backup:
//!   the informer stays at what it knows then, and its health says why.
//! - All is listed again only when changes were lost to compaction, when a comparison has shown a difference, or when
//!   somebody asks for it; subscribers are told the difference, and nothing that is the same.
//! - Nobody who reads or follows holds the task up.
//!
//! # Module map
//! `tree` an ordered set of which copies are cheap, `object` and `index` what is in it, `snapshot` how it is read,
//! `digest` what it is compared by; `cache` how it moves on, pure; `task` what moves it, `hub` and `subscription` who is
//! told, `reader` and `health` what users hold, `verify` the comparison with the server, `cached` reads and writes.

mod cache;
mod cached;
mod change;
mod digest;
mod health;
mod hub;
mod index;
mod object;
mod reader;
mod snapshot;
mod subscription;
mod task;
mod tree;
mod verify;

pub use cached::{CachedError, CachedStore, Expected};
pub use change::{Change, Sight};
pub use digest::Digest;
pub use health::{Health, InformerState, RelistReason, Relists};
pub use object::{DecodeError, Object, Unreadable};
pub use reader::{Informer, InformerOptions, Reader, WaitError};
pub use snapshot::Snapshot;
pub use subscription::{InformerEvent, Subscription};
pub use verify::Verified;
