//! A dump: the stable store up to one position, written out page by page as a snapshot.

use std::path::Path;
use std::sync::Arc;

use holdfast_env::{DiskFile, Faults};
use holdfast_mvcc::types::RecordId;

use super::format::Writer;
use crate::error::{StorageError, StoreError};
use crate::generation::Generation;
use crate::limits::PACK_BYTES;
use crate::pack::RunBuilder;
use crate::pipeline::control::CommitPosition;
use crate::pipeline::shared::Shared;
use crate::retention::Retention;
use crate::stable::following;

/// Why there is no snapshot.
pub(crate) enum DumpError {
    /// The store could not be read or written.
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

/// Takes the records at or below one position out of a store, in order. What lies above may be written meanwhile.
pub(crate) struct Pages {
    generation: Arc<Generation>,
    position: CommitPosition,
    retention: Retention,
    faults: Faults,
    writer: Option<Writer>,
    builder: RunBuilder,
    records: u64,
    from: RecordId,
}

impl Pages {
    /// Of this store, which holds everything up to `position`.
    pub(crate) fn new(shared: &Shared, generation: &Arc<Generation>, position: &CommitPosition) -> Self {
        Self {
            generation: Arc::clone(generation),
            position: position.clone(),
            retention: Retention::new(&shared.view.load_full(), position.head.compact_revision),
            faults: shared.env.faults.clone(),
            writer: None,
            builder: RunBuilder::new(PACK_BYTES),
            records: 0,
            from: RecordId::default(),
        }
    }

    /// Begins the file. Called before anything is written to the store behind the position.
    pub(crate) fn begin(&mut self, file: Box<dyn DiskFile>, path: &Path) -> Result<(), DumpError> {
        let mut writer = Writer::new(file, path.to_owned(), self.faults.clone())?;
        writer.preface(&self.position.head, &self.position.applied)?;
        // Of one moment: unlike records, leases may be changed while the dump goes on.
        self.generation.stable().each_lease(|leases| Ok::<_, DumpError>(writer.leases(leases)?))?;
        self.writer = Some(writer);
        Ok(())
    }

    /// Writes the next runs; true when there are no more.
    pub(crate) fn page(&mut self) -> Result<bool, DumpError> {
        let writer = self.writer.as_mut().expect("the file is begun first");
        let stable = self.generation.stable();
        let mut page = stable.runs(self.from, stable.slice())?;
        // A pack is above or below as a whole: no commit crosses the position.
        page.retain(|placed| placed.run.first.revision <= self.position.head.revision);
        let Some(last) = page.last() else { return Ok(true) };
        self.from = following(last.run.first);
        for placed in &page {
            let gone = self.retention.gone(&placed.run)?;
            placed.run.each_entry(|entry| {
                if gone.binary_search(&entry.id).is_ok() {
                    return Ok::<_, DumpError>(());
                }
                self.records += 1;
                // As it is: an entry does not depend on where it stands.
                match self.builder.add(entry) {
                    Some(run) => Ok(writer.run(&run)?),
                    None => Ok(()),
                }
            })?;
        }
        Ok(false)
    }

    /// Ends the file, durably; returns the id of the snapshot.
    pub(crate) fn finish(&mut self) -> Result<String, StorageError> {
        let mut writer = self.writer.take().expect("the file is begun first");
        if let Some(run) = self.builder.finish() {
            writer.run(&run)?;
        }
        let footer = writer.finish(&self.position.applied, self.records)?;
        Ok(super::format::id(&footer))
    }
}
