//! Watches: which watcher gets which event; cursors, progress, lagging.
//!
//! # The model
//! A [`Hub`] knows all watchers of a member. It is handed every change once, as it is published, and says who gets it;
//! where it has to be handed to depends on where each watcher stands:
//!
//! ```text
//!                    publish: the queue is full; skip_to
//!          ┌─────────────────────────────────────────────────┐
//!          │                                                 ▼
//!      ┌────────┐    replay: reached the head     ┌────────────────────┐   compacted   ┌──────────┐
//!      │ synced │ ◄────────────────────────────── │ cursor: reads from │ ────────────► │ canceled │
//!      └────────┘                                 │ history, in groups │               └──────────┘
//!          ▲                                      └────────────────────┘
//!          │ publish: its revision comes             │             ▲
//!      ┌─────────┐   replay: read beyond the head    │             │ skip_to: its revision was skipped
//!      │ waiting │ ◄─────────────────────────────────┘             │
//!      └─────────┘ ────────────────────────────────────────────────┘
//! ```
//! *Synced* watchers stand in an index of keys and ranges, and cost something only when a record matches. A watcher
//! whose stream's queue is full becomes a *cursor*: a revision to go on from, out of the index, and nothing more however
//! many events pass. Cursors near each other form a [`Group`] that reads history once for all of them. While the queue
//! is full the stream is *blocked*, and its cursors are in no group; only compaction cancels them. *Waiting* watchers
//! want a revision that is behind the next one.
//!
//! # Costs
//! With W watchers: a record costs O(log W) for its key, and for each *distinct* range that holds it one more path down a
//! tree of the distinct ranges, and O(1) for each watcher of it. Adding, removing, falling behind and catching up cost
//! O(log W) each. A blocked stream costs nothing until it is unblocked, which costs O(log W) however many cursors it has.
//! [`Hub::work`] counts.
//!
//! # What it is not
//! It holds no event: records are the caller's, and a [`Delivery`] points into them. It has no queue, knows no wire format
//! and no previous values, and reads nothing: the caller hands it history for a group. It does not check who may watch.
//!
//! # The laws, for each watcher
//! - *Ordered*: what it gets ascends by revision, and within one in the order of execution.
//! - *Unique*: it gets nothing twice.
//! - *Reliable*: between the first revision it wanted and the last it got, nothing it wanted is missing; a queue that is
//!   not full for ever gets it all, or the watcher is canceled because it needed a revision below the compact revision.
//! - *Atomic*: what it wants of one revision comes in one delivery.
//! - *Resumable*: a new watcher that starts behind the last revision it got, gets what it would have got.
//! - *Progress is sound*: a progress revision is told only to who got all up to it.
//!
//! # Invariants
//! - The head never regresses; events ascend; synced watchers hold no backlog: each is one of these, at any time: synced,
//!   waiting, a cursor at or before the head, or out with a group.
//! - A blocked stream is offered nothing. A delivery holds at least one record.
//! - The same calls give the same deliveries, in the same order.
//!
//! # Module map
//! `types` the vocabulary; `hub` the watchers and where they stand, with `hub/publish` for new revisions and
//! `hub/catch_up` for history; `interests` the index of keys and ranges; `spans` its tree of ranges; `streams` who is
//! blocked, and which cursors are next.

mod hub;
mod interests;
mod spans;
mod streams;
mod types;

pub use hub::Hub;
pub use types::{
    Delivery, Figures, Filter, Group, GroupMax, HashIds, PrevKv, StreamId, Taken, WatcherId, WatcherSpec,
    Work,
};
