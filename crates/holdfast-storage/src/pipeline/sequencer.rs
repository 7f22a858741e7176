//! The sequencer: makes slices visible, in log order, when all their records are in the memtable.

use std::sync::Arc;

use holdfast_env::Failpoint;
use holdfast_mvcc::types::Record;
use tokio::sync::mpsc;

use super::backlog::ReadySlice;
use super::control::{Fence, Sequenced, Slice, step};
use super::shared::Shared;

/// Works until the channel closes, then closes the backlog.
pub(crate) async fn run(shared: Arc<Shared>, mut input: mpsc::Receiver<Sequenced>) {
    while let Some(next) = input.recv().await {
        match next {
            Sequenced::Slice(slice) => {
                if sequence(&shared, slice).await.is_none() {
                    break;
                }
            }
            Sequenced::Fence { reached, fence } => {
                for shard in reached {
                    // A worker that is gone has done all it will do.
                    drop(shard.await);
                }
                if let Fence::Dump(order) = &fence {
                    step(&order.span, 5, "the fence has passed the workers");
                    shared.env.faults.hit(Failpoint::DumpStartFenced);
                }
                shared.backlog.push_fence(fence);
            }
        }
    }
    shared.backlog.close();
}

/// `None` when a worker is gone: the pipeline ends, and nothing behind that slice may become visible.
async fn sequence(shared: &Shared, slice: Slice) -> Option<()> {
    let mut records = slice.encoded;
    if !slice.parts.is_empty() {
        for part in slice.parts {
            records.extend(part.await.ok()?);
        }
        records.sort_unstable_by_key(|stored| stored.record.id);
    }
    let _span = tracing::debug_span!("sequence", revision = slice.visible.revision.get()).entered();
    {
        let view = shared.view.load();
        // In this order: who is let in finds in the ring all that it may see and the stable store may lack.
        view.ring.push(&records);
        view.gate.advance(&slice.commit.head);
    }
    shared.visible.send_replace(slice.visible);
    for (respond, answer) in slice.answers {
        // Who asked may have given up.
        drop(respond.send(answer));
    }
    if !records.is_empty() {
        let events: Vec<Record> = records.iter().map(|stored| stored.record.clone()).collect();
        shared.events.publish(events, slice.visible.revision);
    }
    shared.backlog.push_slice(ReadySlice {
        records,
        memtable: slice.memtable,
        position: slice.commit,
        bytes: slice.bytes,
    });
    Some(())
}
