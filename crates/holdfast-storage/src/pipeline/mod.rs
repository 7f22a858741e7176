//! The write pipeline: dispatcher, workers, sequencer, committer.
//!
//! ```text
//!  queue (log order, bounded in bytes)      control (polled first, always)
//!        └────────────┬─────────────────────────┘
//!                dispatcher   evaluates in slices, the only writer of the state
//!        ┌────────────┼──────────────┐  one channel per shard (hash of the key)
//!      worker       worker   …     worker    encode, put into the memtable
//!        └────────────┼──────────────┘
//!                sequencer    in log order: opens the gate, answers, publishes
//!                     │  backlog, bounded by the memtable budget
//!                committer    one atomic batch per contiguous prefix; dumps; scrubs
//! ```
//!
//! A slice of few bytes takes no detour through the workers: the dispatcher encodes it, because waking them costs more.
//! A few light entries do not even wake the dispatcher's thread: who brings them runs its loop, when that waits (`weight`).
//! And the committer is not woken for each slice, but for the first one and when a commit is full.
//!
//! Who waits for whom: dispatcher → workers and sequencer; sequencer → workers; committer → nobody but its engine
//! (and, at the end of a dump and in an install, the dispatcher, through control events that are always taken). So
//! answers never wait for the stable store, and there is no circle. When memtables exceed their budget the
//! dispatcher holds entries back, but still takes control events.
//!
//! Every loop is a future that blocks on nothing but the engine and the disk.

pub(crate) mod backlog;
mod check;
pub(crate) mod checkpoint;
pub(crate) mod committer;
pub(crate) mod control;
pub(crate) mod dispatcher;
pub(crate) mod dump_control;
mod evaluate;
pub(crate) mod phase;
mod regenerate;
pub(crate) mod scrub;
pub(crate) mod sequencer;
pub(crate) mod shared;
pub(crate) mod worker;

/// Lets the other tasks of a single-threaded executor run.
pub(crate) async fn breathe() {
    let mut polled = false;
    std::future::poll_fn(|context| {
        if polled {
            return std::task::Poll::Ready(());
        }
        polled = true;
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}
