//! Loading: the state from the checkpoint and what the store holds behind it.

use holdfast_env::{Disk, OpenMode};
use holdfast_mvcc::checkpoint::{Loading, Unusable};
use holdfast_mvcc::types::{RecordId, Revision};
use holdfast_mvcc::{Head, State};

use super::format::Reader;
use crate::error::StoreError;
use crate::generation::Generation;

/// A state from a checkpoint.
pub(crate) struct Loaded {
    /// The state.
    pub(crate) state: State,
    /// Every retained record up to here came from the checkpoint.
    pub(crate) since: Revision,
    /// The file's length.
    pub(crate) bytes: u64,
}

/// What came of a checkpoint.
pub(crate) enum Found {
    /// There is none.
    Nothing,
    /// It cannot be used.
    Unusable,
    /// All that it was asked for.
    Loaded(Box<Loaded>),
}

/// Why there is no state from a checkpoint.
enum Failure {
    /// The checkpoint is no good: the full load is left.
    Unusable(String),
    /// The store is no good.
    Store(StoreError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Unusable> for Failure {
    fn from(unusable: Unusable) -> Self {
        Self::Unusable(unusable.to_string())
    }
}

/// The state with this head, from the generation's checkpoint and the metadata behind it. One that cannot be used is told
/// of.
///
/// # Errors
/// The store itself cannot be read.
pub(crate) fn load(disk: &dyn Disk, generation: &Generation, head: &Head) -> Result<Found, StoreError> {
    let path = super::path(generation.path());
    if !generation.is_durable() || !disk.exists(&path).map_err(StoreError::Failed)? {
        return Ok(Found::Nothing);
    }
    let opened = disk.open(&path, OpenMode::Read).map_err(StoreError::Failed).and_then(Reader::new);
    let loaded = opened.map_err(|error| Failure::Unusable(error.to_string()));
    match loaded.and_then(|reader| resume(reader, generation, head)) {
        Ok(loaded) => Ok(Found::Loaded(Box::new(loaded))),
        Err(Failure::Store(error)) => Err(error),
        Err(Failure::Unusable(reason)) => {
            tracing::warn!(reason, "the checkpoint of the index is of no use: all metadata is read");
            Ok(Found::Unusable)
        }
    }
}

fn resume(mut reader: Reader, generation: &Generation, head: &Head) -> Result<Loaded, Failure> {
    let saved = reader.saved();
    let mut loading = Loading::begin(head.clone(), saved)?;
    while let Some((part, pieces)) = reader.block().map_err(|error| Failure::Unusable(error.to_string()))? {
        loading.add(part, &pieces)?;
    }
    let above = RecordId::new(saved.since.next(), 0);
    let from = generation.stable().run_of(above)?;
    generation.stable().each_meta(from, head.revision, |records| {
        // The first run may begin before.
        let known = records.partition_point(|record| record.id < above);
        loading.restore_all(&records[known..]).map_err(Failure::from)
    })?;
    Ok(Loaded { state: loading.finish()?, since: saved.since, bytes: reader.bytes() })
}
