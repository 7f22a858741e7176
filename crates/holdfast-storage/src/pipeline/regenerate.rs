//! Regeneration: gives space back to the disk that the engine has taken and does not need any more.
//!
//! Engines reuse what was freed in their files, and hardly ever make a file shorter. When the files stay large beside
//! what is retained, the runs are copied into the next generation, in slices between the commits, and the members'
//! readers are switched over as an install does it. Nobody has to ask for it, and nothing waits for it.
//!
//! The committer is the only writer of the stable store, and copies between two commits: so at the end of the copy the
//! two stores hold the same. A commit may make the last run longer, and nothing but the scrub changes any other: each
//! slice begins by copying the last run of the one before again, goes on behind it, and is the last one when nothing is
//! there. A compaction that is to be scrubbed ends the attempt. Until `CURRENT` names the new generation, a crash leaves a directory that the next start removes.
//!
//! What is copied is decoded on the way: damage ends the attempt, and is noted, instead of becoming part of a store that
//! nobody has a note about. A store that has failed is not copied at all.
//!
//! Readers that were let in before the switch go on in the old generation, and may see what is visible and was not
//! committed at that moment. When it is, it leaves memtable and ring: so it is committed to both generations
//! ([`Outgoing`]), until the old one holds all that such a reader may see.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use holdfast_env::{Faults, Monotonic};
use holdfast_mvcc::types::{RecordId, Revision};

use super::control::CommitPosition;
use super::shared::Shared;
use crate::error::{StorageError, StoreError};
use crate::generation::Generation;
use crate::limits::{BATCH_BESIDE_BYTES, CHORE_FLUSH_BYTES, REGENERATE_BYTES_MIN, REGENERATE_RETRY};
use crate::pack::Run;
use crate::stable::{PageMax, Writer, following};

/// What the committer knows of regenerations.
#[derive(Default)]
pub(crate) struct Regeneration {
    copy: Option<Copy>,
    /// The size of the files behind the last one: engines differ in how close they come to what is retained.
    reached: u64,
    /// Not before, after one that failed.
    not_before: Monotonic,
}

/// A copy on its way.
struct Copy {
    target: Arc<Generation>,
    /// The run that was copied last.
    last: Option<RecordId>,
    /// Bytes written since the last flush.
    unflushed: usize,
}

/// The generation before, for the readers that are still in it.
pub(crate) struct Outgoing {
    generation: Arc<Generation>,
    /// What they may see.
    through: Revision,
}

impl Outgoing {
    /// After readers were given the next generation; nothing when this one holds all that they may see.
    pub(crate) fn new(
        shared: &Shared,
        generation: Arc<Generation>,
        committed: &CommitPosition,
    ) -> Option<Self> {
        let through = shared.view.load().gate.revision();
        (committed.head.revision < through).then_some(Self { generation, through })
    }

    /// Commits what was committed to the next generation, without leases, for which no reader looks here; true when nothing more is needed.
    pub(crate) fn commit(&self, runs: &[Run], position: &CommitPosition) -> bool {
        let CommitPosition { head, applied } = position;
        if let Err(error) = self.generation.stable().commit(runs, &[], head, applied, &Faults::default()) {
            // It costs the readers that are still in there an error, and nobody else anything.
            tracing::warn!(%error, "the generation before cannot be written any more");
            return true;
        }
        position.head.revision >= self.through
    }
}

/// Why a slice could not be done.
enum Failure {
    /// The store in use cannot be read.
    Source(StoreError),
    /// The next one cannot be written: the one in use stays.
    Target(StorageError),
}

impl Regeneration {
    /// True when the files are much larger than what is retained, or a copy is on its way.
    pub(crate) fn is_wanted(&self, shared: &Shared, generation: &Generation) -> bool {
        if shared.poisoned.get().is_some() || generation.is_marked() {
            return false;
        }
        if self.copy.is_some() {
            return true;
        }
        // As of the last commit or scrub: asking the engine takes a call to the system.
        let disk_bytes = shared.disk_bytes.load(Ordering::Relaxed);
        if !generation.is_durable()
            || disk_bytes <= REGENERATE_BYTES_MIN.max(self.reached / 2 * 3)
            || shared.env.clock.now() < self.not_before
        {
            return false;
        }
        // While a command is evaluated the question is put off to the next turn.
        let logical_bytes = shared.view.load().state.try_read().map(|state| state.logical_bytes());
        logical_bytes.is_some_and(|logical| disk_bytes > 2 * logical + REGENERATE_BYTES_MIN)
    }

    /// Gives up a copy: the store it copies from changes, or is replaced.
    pub(crate) fn abandon(&mut self) {
        if self.copy.take().is_some() {
            tracing::debug!("regeneration: given up, to begin anew later");
        }
    }

    /// Copies a bounded piece. Returns the new generation once it holds all that the old one does, durably, and
    /// `CURRENT` names it.
    pub(crate) fn slice(
        &mut self,
        shared: &Shared,
        generation: &Generation,
        position: &CommitPosition,
    ) -> Result<Option<Arc<Generation>>, StoreError> {
        match self.copy_some(shared, generation, position) {
            Ok(done) => Ok(done),
            Err(Failure::Source(error)) => Err(error),
            Err(Failure::Target(error)) => {
                tracing::warn!(%error, "regeneration: failed, the stable store stays as it is");
                self.copy = None;
                self.not_before = shared.env.clock.now().after(REGENERATE_RETRY);
                Ok(None)
            }
        }
    }

    fn copy_some(
        &mut self,
        shared: &Shared,
        generation: &Generation,
        position: &CommitPosition,
    ) -> Result<Option<Arc<Generation>>, Failure> {
        let mut copy = match self.copy.take() {
            Some(copy) => copy,
            None => Copy::begin(shared, generation)?,
        };
        let source = generation.stable();
        let again = copy.last.map(|last| source.runs(last, PageMax::ONE)).transpose();
        // Whatever the size of a run: at least one, if there is one.
        let next = source.runs(copy.last.map_or(RecordId::default(), following), source.slice());
        let (again, next) = (again.map_err(Failure::Source)?, next.map_err(Failure::Source)?);
        let mut writer = Writer::new(copy.target.stable());
        for placed in again.iter().flatten().chain(&next) {
            placed.run.check().map_err(Failure::Source)?;
            writer.put_run(&placed.run).map_err(|error| copy.failed(error))?;
            copy.unflushed += placed.run.bytes();
        }
        if let Some(last) = next.last() {
            copy.last = Some(last.run.first);
            writer.pause().map_err(|error| copy.failed(error))?;
            copy.unflushed += BATCH_BESIDE_BYTES;
            if copy.unflushed >= CHORE_FLUSH_BYTES {
                copy.unflushed = 0;
                copy.target.stable().flush().map_err(|error| copy.failed(error))?;
            }
            self.copy = Some(copy);
            return Ok(None);
        }
        let stable = copy.target.stable();
        let mut leases = Vec::new();
        let read = generation.stable().each_lease(|some| {
            leases.extend_from_slice(some);
            Ok::<_, StoreError>(())
        });
        read.map_err(Failure::Source)?;
        writer.put_leases(&leases).map_err(|error| copy.failed(error))?;
        writer.finish(&[], &position.head, &position.applied).map_err(|error| copy.failed(error))?;
        if let Some(scrubbed) = generation.stable().scrubbed().map_err(Failure::Source)? {
            stable.set_scrubbed(scrubbed).map_err(|error| copy.failed(error))?;
        }
        stable.flush().map_err(|error| copy.failed(error))?;
        // Kept whatever comes of the switch: when it fails, nobody knows which one `CURRENT` names.
        copy.target.keep();
        shared.generations.switch_to(copy.target.number()).map_err(Failure::Target)?;
        self.reached = stable.disk_bytes();
        tracing::info!(
            generation = copy.target.number(),
            bytes_before = generation.stable().disk_bytes(),
            bytes = self.reached,
            "regeneration: done"
        );
        Ok(Some(copy.target))
    }
}

impl Copy {
    fn begin(shared: &Shared, generation: &Generation) -> Result<Self, Failure> {
        let number = shared.generations.next_number();
        tracing::info!(
            generation = number,
            bytes = generation.stable().disk_bytes(),
            "regeneration: the stable store's files are large beside what they hold, copying it"
        );
        let target = shared.generations.create(number);
        let target = target
            .map_err(|error| Failure::Target(StorageError::store(&shared.generations.path(number), error)))?;
        Ok(Self { target, last: None, unflushed: 0 })
    }

    fn failed(&self, error: StoreError) -> Failure {
        Failure::Target(StorageError::store(self.target.path(), error))
    }
}
