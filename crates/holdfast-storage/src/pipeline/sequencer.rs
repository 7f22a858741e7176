//! The sequencer: makes slices visible, in log order, when all their records are in the memtable.
//!
//! A slice whose records are all there already, and that nothing is ahead of, is made visible by the dispatcher itself:
//! handing it to another thread would cost more than the slice.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use holdfast_env::Failpoint;
use holdfast_mvcc::types::Record;
use tokio::sync::mpsc;

use super::backlog::ReadySlice;
use super::control::{Fence, Sequenced, Slice, step};
use super::shared::Shared;
use crate::record::Stored;

/// Works until the channel closes, then closes the backlog.
pub(crate) async fn run(shared: Arc<Shared>, mut input: mpsc::Receiver<Sequenced>) {
    while let Some(next) = input.recv().await {
        match next {
            Sequenced::Slice(slice) => {
                let Some((slice, records)) = gather(*slice).await else { break };
                make_visible(&shared, slice, records);
            }
            Sequenced::Fence { reached, fence } => {
                for shard in reached {
                    // A worker that is gone has done all it will do.
                    drop(shard.await);
                }
                hand_on(&shared, fence);
            }
        }
        // Last: who sees it at zero goes on where this ended.
        shared.sequencing.fetch_sub(1, Ordering::AcqRel);
    }
    shared.backlog.close();
}

/// Hands a fence to the committer, when all that was evaluated before it is visible.
pub(super) fn hand_on(shared: &Shared, fence: Fence) {
    if let Fence::Dump(order) = &fence {
        step(&order.span, 5, "the fence has passed the workers");
        shared.env.faults.hit(Failpoint::DumpStartFenced);
    }
    shared.backlog.push_fence(fence);
}

/// Waits for the workers. `None` when one is gone: the pipeline ends, and nothing behind that slice may become visible.
async fn gather(mut slice: Slice) -> Option<(Slice, Vec<Arc<Stored>>)> {
    let mut records = std::mem::take(&mut slice.encoded);
    let parts = std::mem::take(&mut slice.parts);
    if !parts.is_empty() {
        for part in parts {
            records.extend(part.await.ok()?);
        }
        records.sort_unstable_by_key(|stored| stored.record.id);
    }
    Some((slice, records))
}

/// Makes a slice visible whose `records`, ascending, are all in the memtable; answers and publishes it. Called in log
/// order, by one thread at a time.
pub(crate) fn make_visible(shared: &Shared, slice: Slice, records: Vec<Arc<Stored>>) {
    let _span = tracing::debug_span!("sequence", revision = slice.visible.revision.get()).entered();
    {
        let view = shared.view.load();
        // In this order: who is let in finds in the ring all that it may see and the stable store may lack; and what was
        // written behind a change of users and roles is never read by who was judged before that change, and is not judged
        // again.
        shared.auth.show(&slice.commit.head.auth);
        view.ring.push(&records);
        view.gate.advance(&slice.commit.head);
    }
    shared.visible.send_replace(slice.visible);
    for (respond, answer) in slice.answers {
        // Who asked may have given up.
        drop(respond.send(answer));
    }
    if !records.is_empty() {
        let events: Vec<&Record> = records.iter().map(|stored| &stored.record).collect();
        shared.events.publish(&events, slice.visible.revision);
    }
    shared.backlog.push_slice(ReadySlice {
        records,
        leases: slice.leases,
        memtable: slice.memtable,
        position: slice.commit,
        bytes: slice.bytes,
    });
}
