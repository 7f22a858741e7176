//! The replicated core: commands in, responses and records out. Pure: no clock, disk, socket, randomness, async or
//! hash order, so that every member that evaluates the same commands ends in the same state.
//!
//! # The model
//! The store holds *keys*; every change of a key is a *record*, identified by the [`RecordId`](types::RecordId) (revision, sub) under
//! which it happened. A command that changes at least one key moves the store's *revision* by exactly one; all its
//! records share that revision and are numbered by `sub` in the order of execution. Old records stay readable down to
//! the *compact revision*.
//!
//! [`State`] holds the key index (which records exist, not their values), the revision, the compact revision, the
//! members' attributes, and users with what they may touch ([`auth`]). Values live outside: the caller stores the records that [`State::evaluate`] returns, and hands
//! them back through [`Values`] when a command or a range needs them.
//!
//! # What it is not
//! It does not store, encode, send or schedule anything, and knows nothing of Raft.
//!
//! # Invariants
//! - The revision moves by one with each command that changes a key, and with no other.
//! - The ids of a key's records ascend; a put's version is one above the put before, or 1.
//! - A refusal changes nothing. A local failure of [`Values`] leaves a [`State`] that must be thrown away.
//! - Everything below the compact revision is unreadable at once; when it is removed ([`State::drop_compacted`]) is
//!   each member's own affair and seen by nobody.
//!
//! # Module map
//! [`types`] the vocabulary; [`command`] what clients propose and what they get; [`validate`] the checks before
//! replication; `index` the many-version key index; `state` the state; `evaluate` how commands change it; [`checkpoint`]
//! its written form; `lease` the leases; [`auth`] users, roles and who may do what; `txn` compares, checks, read-only transactions; `range` reads; `piece` long lists in
//! pieces; `prefetch` which values a command will
//! need; `size` logical bytes; `hash` checksums; `varint` numbers in bytes.

pub mod auth;
pub mod checkpoint;
pub mod command;
mod evaluate;
mod hash;
mod index;
mod lease;
mod piece;
mod prefetch;
mod range;
mod size;
mod state;
mod txn;
pub mod types;
pub mod validate;
mod varint;

pub use hash::HistoryHasher;
pub use piece::{Piece, PieceMax, count, piece};
pub use range::{Announced, CHUNK_KEYS, Pairs, RangeSource, range, range_into};
pub use state::{Head, IndexChunk, IndexCount, IndexedKey, IndexedLease, PutMeta, RecordMeta, State, Values};
pub use txn::{ReadWindow, read_txn};
