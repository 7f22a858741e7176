//! Install: a stable store, an index and a position from a snapshot. All of it is built aside; nothing of the running
//! state is touched before everything has been verified.

use std::path::PathBuf;
use std::sync::Arc;

use holdfast_env::{DiskFile, Failpoint};
use holdfast_mvcc::State;

use super::format::{Frame, Reader};
use super::store::SnapshotStore;
use crate::error::{StorageError, StoreError};
use crate::generation::{Generation, Generations};
use crate::limits::{BUILD_FLUSH_BYTES, FILE_SYNC_BYTES};
use crate::pack::metas;
use crate::pipeline::shared::Shared;
use crate::stable::Writer;
use crate::types::{Applied, Snapshot};

/// A state that is ready to replace the running one.
pub(crate) struct Prepared {
    /// Holds the records, durably; not yet current, and removed on drop until it is.
    pub(crate) generation: Arc<Generation>,
    /// The index over them.
    pub(crate) state: State,
    /// The position.
    pub(crate) applied: Applied,
    /// What it was built from, named and verified.
    pub(crate) snapshot: Snapshot,
}

/// A snapshot on its way in from the leader, written aside. Dropped without an install, it is removed.
pub struct IncomingSnapshot {
    shared: Arc<Shared>,
    file: Option<Box<dyn DiskFile>>,
    path: PathBuf,
    offset: u64,
    /// How much of it is durable.
    synced: u64,
    /// Set when all that was written so far has been verified.
    verified: Option<Snapshot>,
}

impl std::fmt::Debug for IncomingSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IncomingSnapshot")
            .field("path", &self.path)
            .field("bytes", &self.offset)
            .finish_non_exhaustive()
    }
}

impl IncomingSnapshot {
    pub(crate) fn new(shared: Arc<Shared>) -> Result<Self, StorageError> {
        let (file, path) = shared.snapshots.create_tmp("recv")?;
        Ok(Self { shared, file: Some(file), path, offset: 0, synced: 0, verified: None })
    }

    /// Writes the next bytes, in order.
    pub fn write(&mut self, chunk: &[u8]) -> Result<(), StorageError> {
        let file = self.file.as_ref().expect("the file is there until the install");
        file.write_all_at(chunk, self.offset).map_err(StorageError::io(&self.path, "write"))?;
        self.offset += chunk.len() as u64;
        if self.offset - self.synced >= FILE_SYNC_BYTES {
            file.sync_data().map_err(StorageError::io(&self.path, "sync"))?;
            self.synced = self.offset;
        }
        self.verified = None;
        self.shared.env.faults.hit(Failpoint::InstallRecv);
        Ok(())
    }

    /// Checks fully what was received, so that an install cannot fail for what is in it; returns the position that it
    /// contains. Changes nothing of the state. Reads the whole file, and blocks on it.
    ///
    /// # Errors
    /// [`StorageError::BadSnapshot`] when it is not whole or wrong, [`StorageError::NewerFormat`] when the sender runs
    /// a newer release: in both cases drop it, which removes it.
    pub fn verify(&mut self) -> Result<Applied, StorageError> {
        if let Some(snapshot) = &self.verified {
            return Ok(snapshot.applied.clone());
        }
        let file = self.file.as_ref().expect("the file is there until the install");
        file.sync_all().map_err(StorageError::io(&self.path, "sync"))?;
        let snapshot = self.shared.snapshots.verified(&self.path)?;
        let applied = snapshot.applied.clone();
        self.verified = Some(snapshot);
        Ok(applied)
    }

    /// Bytes received so far.
    pub fn bytes(&self) -> u64 {
        self.offset
    }

    /// Verifies what was received and builds the next generation from it.
    pub(crate) fn prepare(mut self) -> Result<Prepared, StorageError> {
        // Before it has a name, so that a bad one is never taken for a snapshot of ours. Failing, it goes with `self`.
        self.verify()?;
        let shared = Arc::clone(&self.shared);
        shared.env.faults.hit(Failpoint::InstallVerified);
        let id = self.verified.take().expect("it has just been verified").id;
        drop(self.file.take());
        let snapshot = shared.snapshots.accept(&self.path, &id).inspect_err(|_| {
            shared.snapshots.discard(&self.path);
        })?;
        tracing::info!(
            snapshot = snapshot.id,
            bytes = snapshot.bytes,
            "install: verified, building the stable store"
        );
        let number = shared.generations.next_number();
        let built = build(&shared.generations, &shared.snapshots, number, snapshot.clone());
        let prepared = built.inspect_err(|_| shared.snapshots.forget(&snapshot))?;
        shared.env.faults.hit(Failpoint::InstallGenWritten);
        Ok(prepared)
    }
}

impl Drop for IncomingSnapshot {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            self.shared.snapshots.discard(&self.path);
        }
    }
}

/// Builds a generation, its index and its position from a verified snapshot.
pub(crate) fn build(
    generations: &Generations,
    snapshots: &SnapshotStore,
    number: u64,
    snapshot: Snapshot,
) -> Result<Prepared, StorageError> {
    let path = snapshots.path(&snapshot.id);
    let mut reader = Reader::new(Arc::clone(&snapshot.file), path.clone())?;
    let generation = generations.create(number).map_err(|e| StorageError::store(&path, e))?;
    let (state, applied) = fill(&generation, &mut reader, &path)?;
    Ok(Prepared { generation, state, applied, snapshot })
}

fn fill(
    generation: &Generation,
    reader: &mut Reader,
    path: &std::path::Path,
) -> Result<(State, Applied), StorageError> {
    let bad = |detail: &str| StorageError::BadSnapshot { path: path.to_owned(), detail: detail.to_owned() };
    let store = |e: StoreError| StorageError::store(generation.path(), e);
    let Frame::Preface(head, applied) = reader.frame()? else {
        return Err(bad("it does not begin with a preface"));
    };
    let mut state = State::with_head(head.clone());
    let mut writer = Writer::new(generation.stable());
    let mut unflushed = 0;
    loop {
        match reader.frame()? {
            Frame::Leases(leases) => {
                writer.put_leases(&leases).map_err(store)?;
                state.restore_leases(leases);
            }
            Frame::Run(run) => {
                for meta in metas(&run.meta).map_err(|e| StorageError::snapshot(path, e))? {
                    state.restore(&meta);
                }
                unflushed += run.bytes();
                for run in generation.stable().cut(run).map_err(store)? {
                    writer.put_run(&run).map_err(store)?;
                }
                if unflushed >= BUILD_FLUSH_BYTES {
                    generation.stable().flush().map_err(store)?;
                    unflushed = 0;
                }
            }
            Frame::End => break,
            Frame::Preface(..) => return Err(bad("a second preface")),
        }
    }
    if state.missing_lease().is_some() {
        return Err(bad("keys are attached to a lease that is not there"));
    }
    writer.finish(&[], &head, &applied).map_err(store)?;
    if let Some(compact_revision) = head.compact_revision {
        generation.stable().set_scrubbed(compact_revision).map_err(store)?;
    }
    generation.stable().flush().map_err(store)?;
    Ok((state, applied))
}
