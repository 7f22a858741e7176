//! A dump: the stable store, standing still, written out as a snapshot.

use std::path::Path;
use std::sync::atomic::Ordering;

use holdfast_env::{DiskFile, Failpoint};
use holdfast_mvcc::types::RecordId;

use super::format::Writer;
use crate::error::{StorageError, StoreError};
use crate::generation::Generation;
use crate::pack::RunBuilder;
use crate::pipeline::breathe;
use crate::pipeline::control::CommitPosition;
use crate::pipeline::shared::Shared;
use crate::record::Stored;
use crate::retention::Retention;
use crate::stable::{PageMax, following};
use crate::types::Snapshot;

/// Why there is no snapshot.
pub(crate) enum DumpError {
    /// The store could not be read.
    Unreadable(StoreError),
    /// The file could not be written, or the dump was cancelled.
    NotWritten(StorageError),
}

impl From<StoreError> for DumpError {
    fn from(error: StoreError) -> Self {
        Self::Unreadable(error)
    }
}

impl From<StorageError> for DumpError {
    fn from(error: StorageError) -> Self {
        Self::NotWritten(error)
    }
}

/// Writes, verifies and publishes the snapshot at `position`, at which the store stands.
pub(crate) async fn write(
    shared: &Shared,
    generation: &Generation,
    position: &CommitPosition,
) -> Result<Snapshot, DumpError> {
    let (file, tmp) = shared.snapshots.create_tmp("dump")?;
    let result = write_file(shared, generation, position, file, &tmp).await;
    let accepted = result.and_then(|id| Ok(shared.snapshots.accept(&tmp, &id)?));
    match accepted {
        Ok(snapshot) => {
            shared.snapshots.publish(snapshot.clone());
            shared.env.faults.hit(Failpoint::DumpCurrentUpdated);
            Ok(snapshot)
        }
        Err(error) => {
            shared.snapshots.discard(&tmp);
            Err(error)
        }
    }
}

async fn write_file(
    shared: &Shared,
    generation: &Generation,
    position: &CommitPosition,
    file: Box<dyn DiskFile>,
    path: &Path,
) -> Result<String, DumpError> {
    let view = shared.view.load_full();
    let mut writer = Writer::new(file, path.to_owned(), shared.env.faults.clone())?;
    writer.preface(&position.head, &position.applied)?;
    let retention = Retention::new(&view, position.head.compact_revision);
    let mut builder = RunBuilder::default();
    let mut records = 0;
    let mut from = RecordId::default();
    loop {
        let page = generation.stable().runs(from, PageMax::SCRUB)?;
        let Some(last) = page.last() else { break };
        shared.env.faults.hit(Failpoint::DumpReadBlock);
        from = following(last.run.first);
        for placed in &page {
            let retained = retention.filter(placed.run.records()?);
            records += retained.len() as u64;
            for record in retained {
                if let Some(run) = builder.add(&Stored::new(record)) {
                    writer.run(&run)?;
                }
            }
        }
        breathe().await;
        if shared.cancel_dump.load(Ordering::Acquire) || shared.abandon.load(Ordering::Acquire) {
            return Err(StorageError::DumpFailed { reason: "it was cancelled".to_owned() }.into());
        }
    }
    if let Some(run) = builder.finish() {
        writer.run(&run)?;
    }
    let footer = writer.finish(&position.applied, records)?;
    shared.env.faults.hit(Failpoint::DumpFileSynced);
    Ok(super::format::id(&footer))
}
