//! Collecting: objects of many systems, each with versions of its own, under one order.
//!
//! A [`Source`] is a system with objects: a cluster, a registry. [`Collection::follow`] keeps what it has here, batch by
//! batch; readers see all sources in one order, that of the store's revisions, and each object with the version that its
//! own system gives it.
//!
//! ```text
//!   Source ── list, watch ──► Run ── one transaction: objects, what is gone, cursor ──► store ──► list, get, watch
//!   writer ── write to the source, then Collection::write ─────────────────────────────►
//! ```
//!
//! # What it is not
//! Objects are bytes here: what is in them is a matter of who reads and writes. Nothing is kept in this process.
//!
//! # Invariants
//! - A cursor and what was collected up to it are written in one transaction: a run that is stopped at any point goes on
//!   with nothing missing and nothing twice.
//! - An object is replaced only by a newer version, whoever writes it. That it is gone is remembered for ten minutes, so
//!   that an older version that is late stays gone.
//! - Each transaction has at most 60 objects or 1 MiB.
//!
//! # Module map
//! `origin` names and versions of sources, `version` and `resume` texts of versions, `envelope`, `cursor` and `keys` what
//! is stored where, `guard` what is newer, all of them pure; `source` what is collected from; `collection` writes,
//! `batch` and `follow` collecting, `remove`; `view`, `watch` and `initial` reading.

mod batch;
mod collection;
mod cursor;
mod envelope;
mod error;
mod follow;
mod guard;
mod initial;
mod keys;
mod origin;
mod remove;
mod resume;
mod source;
mod version;
mod view;
mod watch;

pub use collection::{Collection, Collector, GONE_FOR, Written};
pub use cursor::Removal;
pub use envelope::{BadEnvelope, Writer};
pub use error::CollectError;
pub use origin::{BadPart, ObjectName, OriginObject, OriginVersion, Resource, SourceId};
pub use resume::{BadResume, ResumeMap, ResumePoint};
pub use source::{PageToken, Source, SourceError, SourceEvent, SourcePage};
pub use version::{BadVersion, ListVersion, Prefix, Version};
pub use view::{Collected, Listed, Scope};
pub use watch::{CollectEvent, CollectionWatch};
