//! Writing checkpoints of the key index, in pieces between the commits.
//!
//! The committer does it, because it alone writes the stable store: it knows when that is durable up to what the
//! checkpoint holds. The index is ahead of the store while a checkpoint is written, so the written file waits for the
//! store before it is given its name.

use holdfast_mvcc::checkpoint::{Saved, Saving, Unusable};
use holdfast_mvcc::types::Revision;

use super::control::CommitPosition;
use super::shared::Shared;
use crate::checkpoint::{Writer, discard, path, publish, tmp_path};
use crate::error::StorageError;
use crate::figures::CheckpointEnd;
use crate::generation::Generation;
use crate::limits::{CHECKPOINT_BYTES_PER_REVISION, CHECKPOINT_PIECES, LOCK_KEYS_MAX};

/// What the committer knows of the checkpoints of its generation.
#[derive(Default)]
pub(crate) struct Checkpointing {
    job: Option<Job>,
    /// How far the one in force reaches.
    current: Option<Revision>,
    /// The revision at which the last one was begun, whatever came of it: a disk that is full, or a client that compacts
    /// all the time, costs one attempt at a time.
    tried: Revision,
    /// The length of the last one.
    bytes: u64,
}

/// A checkpoint on its way.
enum Job {
    Writing(Saving, Writer),
    /// Durable, and ahead of what the store has on disk.
    Written(Saved, u64),
}

impl Checkpointing {
    /// With one in force that reaches up to `since`.
    pub(crate) fn behind(since: Revision, bytes: u64) -> Self {
        Self { job: None, current: Some(since), tried: since, bytes }
    }

    /// True when there is something to do, for a store that stands at `position`.
    pub(crate) fn is_wanted(
        &self,
        shared: &Shared,
        generation: &Generation,
        position: &CommitPosition,
    ) -> bool {
        let revision = position.head.revision;
        match &self.job {
            Some(Job::Writing(..)) => true,
            Some(Job::Written(saved, _)) => revision >= saved.through,
            None => {
                let every =
                    shared.config.checkpoint_revisions.max(self.bytes / CHECKPOINT_BYTES_PER_REVISION);
                generation.is_durable() && revision.get() >= self.tried.get().saturating_add(every)
            }
        }
    }

    /// True when the store has to be flushed before the next [`Checkpointing::slice`].
    pub(crate) fn needs_flush(&self) -> bool {
        matches!(self.job, Some(Job::Written(..)))
    }

    /// Does a bounded piece of work, when it is wanted. What fails costs this checkpoint, and the next start some time.
    pub(crate) fn slice(&mut self, shared: &Shared, generation: &Generation, position: &CommitPosition) {
        if let Err(error) = self.step(shared, generation, position) {
            tracing::warn!(%error, "the checkpoint of the index could not be written");
            self.give_up(shared, generation, CheckpointEnd::Failed);
        }
    }

    /// Removes the one in force when a compaction that was cleaned up after has passed it: no start can use it.
    pub(crate) fn remove_stale(&mut self, shared: &Shared, generation: &Generation) {
        let scrubbed = Revision::new(*shared.scrubbed.borrow());
        if self.current.take_if(|since| *since < scrubbed).is_some() {
            discard(&*shared.env.disk, &path(generation.path()));
        }
    }

    fn step(
        &mut self,
        shared: &Shared,
        generation: &Generation,
        position: &CommitPosition,
    ) -> Result<(), StorageError> {
        let disk = &*shared.env.disk;
        let tmp = tmp_path(generation.path());
        match self.job.take() {
            None => {
                self.tried = position.head.revision;
                let saving = Saving::begin(&shared.view.load().state.read());
                let writer = Writer::create(disk, &tmp, shared.env.faults.clone())?;
                self.job = Some(Job::Writing(saving, writer));
            }
            Some(Job::Writing(mut saving, mut writer)) => {
                let io = || StorageError::io(&tmp, "write");
                match pieces(shared, &mut saving, &mut writer).map_err(io())? {
                    Ok(true) => self.job = Some(Job::Writing(saving, writer)),
                    Ok(false) => {
                        let saved = saving.finish();
                        let bytes = writer.finish(saved).map_err(io())?;
                        self.job = Some(Job::Written(saved, bytes));
                    }
                    Err(reason) => {
                        tracing::debug!(%reason, "checkpoint: given up, to begin anew later");
                        self.give_up(shared, generation, CheckpointEnd::Overtaken);
                    }
                }
            }
            Some(Job::Written(saved, bytes)) => {
                publish(disk, &shared.env.faults, generation.path())?;
                (self.current, self.bytes) = (Some(saved.since), bytes);
                let (since, through) = (saved.since.get(), saved.through.get());
                tracing::debug!(since, through, bytes, "checkpoint: done");
                shared.figures.checkpoint_ended(CheckpointEnd::Ok, bytes);
            }
        }
        Ok(())
    }

    fn give_up(&mut self, shared: &Shared, generation: &Generation, end: CheckpointEnd) {
        self.job = None;
        discard(&*shared.env.disk, &tmp_path(generation.path()));
        shared.figures.checkpoint_ended(end, 0);
    }
}

/// Writes some pieces; false behind the last one.
fn pieces(
    shared: &Shared,
    saving: &mut Saving,
    writer: &mut Writer,
) -> Result<Result<bool, Unusable>, std::io::Error> {
    let view = shared.view.load();
    for _ in 0..CHECKPOINT_PIECES {
        let written = writer.piece(|out| saving.piece(&view.state.read(), LOCK_KEYS_MAX, out))?;
        if written != Ok(true) {
            return Ok(written);
        }
    }
    Ok(Ok(true))
}
