//! The committer: the only writer of the stable store. Takes contiguous prefixes of the visible log and stores each
//! with one position; dumps while nothing is written.
//!
//! Beside that it has chores, done in bounded pieces: checkpoints, the scrub, regeneration, the check of the snapshot.
//! While there is nothing to commit they are all it does. Under load that moment never comes: then they take the time in
//! which a commit gathers, and at most a quarter of all time, so that space comes back however much is written. The scrub
//! takes all the time that commits leave while writers wait for it (`Storage::behind`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use holdfast_env::{Failpoint, Fault, Monotonic, give_way};
use holdfast_mvcc::types::{Change, LeaseChange};
use tokio::sync::{mpsc, oneshot};

use super::backlog::ReadySlice;
use super::check::SnapshotCheck;
use super::checkpoint::Checkpointing;
use super::control::{CommitPosition, Control, Fence, step};
use super::regenerate::{Outgoing, Regeneration};
use super::scrub::Scrub;
use super::shared::Shared;
use crate::error::StoreError;
use crate::figures::PressureLevel;
use crate::generation::Generation;
use crate::limits::{
    BATCH_BESIDE_BYTES, CHORE_FLUSH_BYTES, CHORE_REST_FACTOR, CHORE_REST_MIN, COMMIT_BYTES_MAX,
    COMMIT_LINGER, FLUSH_BYTES, SCRUB_RETRY, TAIL_FRACTION,
};
use crate::pack::{Run, RunBuilder};
use crate::record::Stored;

mod dumping;

/// The loop's state.
pub(crate) struct Committer {
    shared: Arc<Shared>,
    control: mpsc::Sender<Control>,
    generation: Arc<Generation>,
    /// The position of the last commit.
    committed: CommitPosition,
    /// The records of the last run while it is small: the next commit extends it.
    tail: Vec<Arc<Stored>>,
    scrub: Scrub,
    regeneration: Regeneration,
    outgoing: Option<Outgoing>,
    check: SnapshotCheck,
    checkpointing: Checkpointing,
    /// When what waits is committed, whatever its size.
    linger_until: Option<Monotonic>,
    /// When the next chore may be done while something waits to be committed.
    rest_until: Monotonic,
    /// Bytes committed since the last flush.
    unflushed: usize,
    /// From the end of a dump until the overlay is stored.
    merges: bool,
    /// The highest level of pressure that the running dump came to.
    pressed: Option<PressureLevel>,
}

enum Work {
    Commit,
    Fence(Fence),
    Chore(Chore),
    End,
}

/// Work in pieces for which nobody waits.
#[derive(Clone, Copy)]
enum Chore {
    Checkpoint,
    Scrub,
    Regenerate,
    Check,
}

impl Committer {
    /// Goes on behind this position.
    pub(crate) fn new(
        shared: Arc<Shared>,
        control: mpsc::Sender<Control>,
        committed: CommitPosition,
        checkpointing: Checkpointing,
    ) -> Self {
        let generation = Arc::clone(&shared.view.load().generation);
        let check = SnapshotCheck::after(&*shared.env.clock);
        Self {
            shared,
            check,
            checkpointing,
            control,
            generation,
            committed,
            tail: Vec::new(),
            scrub: Scrub::default(),
            regeneration: Regeneration::default(),
            outgoing: None,
            linger_until: None,
            rest_until: Monotonic::default(),
            unflushed: 0,
            merges: false,
            pressed: None,
        }
    }

    /// Works until the backlog is closed and empty, or the store fails.
    pub(crate) async fn run(mut self) {
        if let Err(error) = self.work().await {
            let reason = self.shared.store_failed(&self.generation, &error);
            let dropped = self.shared.backlog.clear();
            self.shared.memtable_bytes.fetch_sub(dropped, Ordering::AcqRel);
            // When the dispatcher is gone, the pipeline is ending anyway.
            drop(self.control.send(Control::StoreFailed(reason)).await);
            self.drain().await;
        }
        tracing::debug!("the committer ends");
    }

    async fn work(&mut self) -> Result<(), StoreError> {
        loop {
            match self.next().await {
                Work::Commit => {
                    self.commit()?;
                }
                Work::Fence(fence) => self.on_fence(fence).await?,
                Work::Chore(chore) => {
                    let began = self.shared.env.clock.now();
                    self.do_some_of(chore).await?;
                    let now = self.shared.env.clock.now();
                    let hurries = matches!(chore, Chore::Scrub) && self.shared.is_awaited();
                    let rest = if hurries {
                        Duration::ZERO
                    } else {
                        (now.since(began) * CHORE_REST_FACTOR).max(CHORE_REST_MIN)
                    };
                    self.rest_until = now.after(rest);
                    super::breathe().await;
                }
                Work::End => return self.flush(),
            }
        }
    }

    async fn do_some_of(&mut self, chore: Chore) -> Result<(), StoreError> {
        match chore {
            Chore::Checkpoint => self.checkpoint(),
            Chore::Scrub => {
                self.tail.clear();
                self.regeneration.abandon();
                let written = self.scrub.slice(&self.shared, &self.generation, &self.committed.head)?;
                self.flush_after(written, CHORE_FLUSH_BYTES)?;
                self.checkpointing.remove_stale(&self.shared, &self.generation);
                self.measure();
                Ok(())
            }
            Chore::Regenerate => self.regenerate().await,
            Chore::Check => {
                self.check.slice(&self.shared);
                Ok(())
            }
        }
    }

    /// After a failure: what still arrives is visible, but can be stored no more.
    async fn drain(&self) {
        loop {
            let waiting = self.shared.backlog.waiting();
            let dropped = self.shared.backlog.clear();
            self.shared.memtable_bytes.fetch_sub(dropped, Ordering::AcqRel);
            if waiting.closed {
                return;
            }
            self.shared.backlog.changed().await;
        }
    }

    async fn next(&mut self) -> Work {
        loop {
            let waiting = self.shared.backlog.waiting();
            if self.shared.abandon.load(Ordering::Acquire) {
                return Work::End;
            }
            if waiting.fence {
                // Whoever has sent it holds writers back until it runs again, and this thread may have taken its CPU.
                give_way();
            }
            if waiting.slices {
                let now = self.shared.env.clock.now();
                let until = *self.linger_until.get_or_insert(now.after(COMMIT_LINGER));
                let is_urgent = waiting.fence || waiting.closed;
                if !is_urgent
                    && now >= self.rest_until
                    && let Some(chore) = self.chore()
                {
                    return Work::Chore(chore);
                }
                if is_urgent || waiting.load.is_full() || now >= until {
                    self.linger_until = None;
                    return Work::Commit;
                }
                let wake = if self.rest_until > now { until.min(self.rest_until) } else { until };
                let timer = self.shared.env.clock.sleep(wake.since(now));
                // Both arms are cancel-safe: a lost timer is started anew, a wake-up stays noted.
                tokio::select! {
                    biased;
                    () = self.shared.backlog.changed() => {}
                    () = timer => {}
                }
                continue;
            }
            if let Some(fence) = self.shared.backlog.take_fence() {
                return Work::Fence(fence);
            }
            if waiting.closed {
                return Work::End;
            }
            match self.chore() {
                Some(chore) => return Work::Chore(chore),
                None => self.idle().await,
            }
        }
    }

    /// What there is to do beside commits.
    fn chore(&self) -> Option<Chore> {
        if self.checkpointing.is_wanted(&self.shared, &self.generation, &self.committed) {
            return Some(Chore::Checkpoint);
        }
        if Scrub::is_wanted(&self.shared) {
            return self.scrub.is_allowed(&self.shared, &self.committed.head).then_some(Chore::Scrub);
        }
        if self.regeneration.is_wanted(&self.shared, &self.generation) {
            return Some(Chore::Regenerate);
        }
        self.check.is_due(&*self.shared.env.clock).then_some(Chore::Check)
    }

    /// Waits until something comes, or a chore may be due.
    async fn idle(&self) {
        let rest = if Scrub::is_wanted(&self.shared) {
            // A reader in its way that leaves does not call us.
            Some(SCRUB_RETRY)
        } else {
            self.check.rest(&*self.shared.env.clock)
        };
        let Some(rest) = rest else { return self.shared.backlog.changed().await };
        let timer = self.shared.env.clock.sleep(rest);
        // Both arms are cancel-safe: a lost timer is started anew, a wake-up stays noted.
        tokio::select! {
            biased;
            () = self.shared.backlog.changed() => {}
            () = timer => {}
        }
    }

    /// Stores the next contiguous prefix with its position. Answers how many bytes that were.
    fn commit(&mut self) -> Result<usize, StoreError> {
        let mut slices = self.shared.backlog.take_slices(COMMIT_BYTES_MAX);
        if self.merges && self.shared.env.faults.is_planted(Fault::MergeWithoutGuard) {
            forget_deletes(&mut slices);
        }
        let Some(position) = slices.last().map(|s| s.position.clone()) else { return Ok(0) };
        let bytes: usize = slices.iter().map(|s| s.bytes).sum();
        let records = slices.iter().map(|s| s.records.len()).sum();
        let began = self.shared.env.clock.now();
        let span = tracing::debug_span!("commit", slices = slices.len(), bytes);
        let _span = span.enter();
        let runs = self.build_runs(&slices);
        let faults = &self.shared.env.faults;
        let leases = last_changes(&slices);
        self.generation.stable().commit(&runs, &leases, &position.head, &position.applied, faults)?;
        faults.hit(Failpoint::CommitBeforeFlush);
        if self.merges {
            faults.hit(Failpoint::MergeMid);
        }
        self.outgoing.take_if(|outgoing| outgoing.commit(&runs, &position));
        self.shared.positions.lock().stable = position.applied.log_id;
        self.shared.view.load().ring.stored(position.head.revision);
        self.committed = position;
        for slice in slices {
            slice.memtable.remove(&slice.records);
        }
        self.shared.memtable_bytes.fetch_sub(bytes, Ordering::AcqRel);
        self.shared.space.notify_one();
        self.measure();
        self.flush_after(bytes + BATCH_BESIDE_BYTES, FLUSH_BYTES)?;
        self.shared.figures.committed(records, bytes, self.shared.env.clock.now().since(began));
        Ok(bytes)
    }

    /// Writes a piece of a checkpoint of the index.
    fn checkpoint(&mut self) -> Result<(), StoreError> {
        if self.checkpointing.needs_flush() {
            self.flush()?;
        }
        self.checkpointing.slice(&self.shared, &self.generation, &self.committed);
        Ok(())
    }

    fn measure(&self) {
        let disk_bytes = self.generation.stable().disk_bytes();
        self.shared.disk_bytes.store(disk_bytes, Ordering::Relaxed);
    }

    /// Copies a piece into the next generation, and goes on with that one once it is whole.
    async fn regenerate(&mut self) -> Result<(), StoreError> {
        let next = self.regeneration.slice(&self.shared, &self.generation, &self.committed)?;
        let Some(next) = next else { return Ok(()) };
        self.tail = Vec::new();
        self.unflushed = 0;
        // Those are in the directory of the generation before.
        self.checkpointing = Checkpointing::default();
        let before = std::mem::replace(&mut self.generation, Arc::clone(&next));
        self.shared.positions.lock().durable = self.committed.applied.log_id;
        let (resume, resumed) = oneshot::channel();
        if self.control.send(Control::Regenerated { generation: next, resume }).await.is_ok() {
            // Fired or dropped: readers use the new one, or there is nobody any more.
            drop(resumed.await);
        }
        self.outgoing = Outgoing::new(&self.shared, before, &self.committed);
        self.measure();
        Ok(())
    }

    /// The new runs; the first one repeats the tail of the last commit when that was small.
    fn build_runs(&mut self, slices: &[ReadySlice]) -> Vec<Run> {
        let pack_bytes = self.generation.stable().pack_bytes();
        let mut builder = RunBuilder::new(pack_bytes);
        let mut runs = Vec::new();
        let mut open = std::mem::take(&mut self.tail);
        for stored in &open {
            let cut = builder.add(stored.entry());
            debug_assert!(cut.is_none(), "a tail is far smaller than a pack");
        }
        for stored in slices.iter().flat_map(|s| &s.records) {
            if let Some(run) = builder.add(stored.entry()) {
                runs.push(run);
                open.clear();
            }
            open.push(Arc::clone(stored));
        }
        if let Some(run) = builder.finish() {
            self.tail = if run.bytes() < pack_bytes / TAIL_FRACTION { open } else { Vec::new() };
            runs.push(run);
        }
        runs
    }

    /// Flushes when at least `limit` bytes were written since the last time, the latest ones counted.
    fn flush_after(&mut self, bytes: usize, limit: usize) -> Result<(), StoreError> {
        self.unflushed += bytes;
        if bytes > 0 && self.unflushed >= limit { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.generation.stable().flush()?;
        self.unflushed = 0;
        if self.generation.is_durable() {
            self.shared.positions.lock().durable = self.committed.applied.log_id;
        }
        Ok(())
    }

    async fn on_fence(&mut self, fence: Fence) -> Result<(), StoreError> {
        match fence {
            Fence::Dump(order) => self.dump(*order).await,
            Fence::Merge(span) => {
                self.merges = false;
                step(&span, 5, "the overlay is stored");
                tracing::info!("dump: the overlay is merged");
                self.shared.env.faults.hit(Failpoint::MergeDone);
                // When the dispatcher is gone there is nobody to tell.
                drop(self.control.send(Control::Merged(span)).await);
                Ok(())
            }
            Fence::Install => {
                self.merges = false;
                let (resume, resumed) = oneshot::channel();
                if self.control.send(Control::Quiesced { resume }).await.is_err() {
                    return Ok(());
                }
                if let Ok(generation) = resumed.await
                    && !Arc::ptr_eq(&generation, &self.generation)
                {
                    // As the store says it: the dispatcher may have gone on meanwhile.
                    let position = generation.stable().position()?;
                    let (head, applied) =
                        position.ok_or_else(|| StoreError::damaged("what was installed has no position"))?;
                    self.committed = CommitPosition { head, applied };
                    let old = std::mem::replace(&mut self.generation, generation);
                    self.tail = Vec::new();
                    self.scrub = Scrub::default();
                    self.regeneration = Regeneration::default();
                    self.checkpointing = Checkpointing::default();
                    self.outgoing = None;
                    self.shared.env.faults.hit(Failpoint::InstallCleanup);
                    drop(old);
                }
                Ok(())
            }
        }
    }
}

/// What became of each lease in the end.
fn last_changes(slices: &[ReadySlice]) -> Vec<LeaseChange> {
    let mut last = BTreeMap::new();
    for change in slices.iter().flat_map(|slice| &slice.leases) {
        last.insert(change.id, *change);
    }
    last.into_values().collect()
}

/// What a merge would do that knows no deletes: they stay in the index, and are gone after a restart.
fn forget_deletes(slices: &mut [ReadySlice]) {
    for slice in slices {
        slice.records.retain(|stored| matches!(stored.record.change, Change::Put(_)));
    }
}
