//! A worker: encodes the records of its shard and puts them into the memtable.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::control::ShardJob;
use crate::record::Stored;

/// Works until the channel closes.
pub(crate) async fn run(shard: usize, mut jobs: mpsc::Receiver<ShardJob>) {
    while let Some(job) = jobs.recv().await {
        match job {
            ShardJob::Records { records, memtable, done } => {
                let _span = tracing::trace_span!("worker", shard, records = records.len()).entered();
                let stored: Vec<Arc<Stored>> =
                    records.into_iter().map(|r| Arc::new(Stored::new(r))).collect();
                memtable.insert(shard, &stored);
                // The sequencer is gone only when the pipeline ends.
                drop(done.send(stored));
            }
            ShardJob::Fence(reached) => reached.send(()).unwrap_or_default(),
        }
    }
}
