//! The snapshot that a new member begins with, when it does not begin with nothing: made from what another system, or
//! another cluster, has kept.

use std::path::{Path, PathBuf};

use holdfast_env::Env;
use holdfast_mvcc::Head;
use holdfast_mvcc::types::{Lease, LeaseId, Record, RecordId};

use super::format::{Writer, id};
use super::store::SnapshotStore;
use crate::error::StorageError;
use crate::limits::PACK_BYTES;
use crate::pack::RunBuilder;
use crate::record::Stored;
use crate::types::{Applied, Snapshot};

/// A snapshot that is being written into a storage directory that holds nothing yet. Dropped before its end, it leaves
/// a file behind that no start takes for a snapshot.
pub struct Founding {
    snapshots: SnapshotStore,
    writer: Writer,
    builder: RunBuilder,
    path: PathBuf,
    head: Head,
    applied: Applied,
    records: u64,
    last: Option<RecordId>,
}

impl std::fmt::Debug for Founding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Founding")
            .field("path", &self.path)
            .field("records", &self.records)
            .finish_non_exhaustive()
    }
}

impl Founding {
    /// Begins the snapshot of the storage that will be opened in `dir`, at this place in the log.
    ///
    /// # Errors
    /// The disk refused.
    pub fn begin(env: &Env, dir: &Path, head: Head, applied: Applied) -> Result<Self, StorageError> {
        let (snapshots, left_over) = SnapshotStore::open(env, dir.join("snapshots"))?;
        snapshots.clean_up(left_over)?;
        let (file, path) = snapshots.create_tmp("founding")?;
        let mut writer = Writer::new(file, path.clone(), env.faults.clone())?;
        writer.preface(&head, &applied)?;
        let builder = RunBuilder::new(PACK_BYTES);
        Ok(Self { snapshots, writer, builder, path, head, applied, records: 0, last: None })
    }

    /// Adds leases, ascending by id over all calls, all before the first record.
    ///
    /// # Errors
    /// The disk refused.
    pub fn leases(&mut self, leases: &[(LeaseId, Lease)]) -> Result<(), StorageError> {
        self.writer.leases(leases)
    }

    /// Adds the next record, ascending by id. Of each key, what a compaction at the head's compact revision leaves.
    ///
    /// # Errors
    /// It is out of order, or the disk refused.
    pub fn record(&mut self, record: Record) -> Result<(), StorageError> {
        if self.last >= Some(record.id) || record.id.revision > self.head.revision {
            let detail = format!("record {:?} is out of order", record.id);
            return Err(StorageError::BadSnapshot { path: self.path.clone(), detail });
        }
        self.last = Some(record.id);
        self.records += 1;
        match self.builder.add(Stored::new(record).entry()) {
            Some(run) => self.writer.run(&run),
            None => Ok(()),
        }
    }

    /// Ends the snapshot: durable, read back, and the one that a start finds.
    ///
    /// # Errors
    /// The disk refused, or what was read back is not what was written.
    pub fn finish(mut self) -> Result<Snapshot, StorageError> {
        if let Some(run) = self.builder.finish() {
            self.writer.run(&run)?;
        }
        let footer = self.writer.finish(&self.applied, self.records)?;
        self.snapshots.accept(&self.path, &id(&footer))
    }
}
