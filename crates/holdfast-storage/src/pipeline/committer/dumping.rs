//! The committer while it dumps: the store at one position, written out page by page, and what happens in between.
//!
//! Nothing is written to the store meanwhile, unless the overlay grows beyond a quarter of the memory budget. Then the
//! oldest of what waits is stored under the dump. That is safe because a dump reads only what is at or below its
//! revision: those packs are not written any more (the tail is closed before, the scrub stands still while the state is
//! DUMPING), what is stored meanwhile lies in packs of its own above, and the snapshot carries its own position.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use holdfast_env::{DiskFile, Failpoint, Fault};
use tokio::sync::oneshot;

use super::Committer;
use crate::error::{StorageError, StoreError};
use crate::figures::PressureLevel;
use crate::limits::{DUMP_DEADLINE, DUMP_REST_FACTOR, DUMP_REST_MAX, VERIFY_FRAMES};
use crate::pipeline::breathe;
use crate::pipeline::control::{Control, DumpOrder, step};
use crate::pipeline::dump_control::Urgency;
use crate::snapshot::dump::{DumpError, Pages};
use crate::types::{CancelReason, Snapshot};

impl Committer {
    /// Everything up to the fence is stored: writes it out as a snapshot.
    pub(super) async fn dump(&mut self, order: DumpOrder) -> Result<(), StoreError> {
        let DumpOrder { position, started, span } = order;
        let faults = self.shared.env.faults.clone();
        step(&span, 6, "the stable store stands at the position");
        faults.hit(Failpoint::DumpStartDrained);
        self.flush()?;
        let stable = self.shared.positions.lock().stable;
        let unfenced = faults.is_planted(Fault::DumpWithoutFence);
        assert!(
            stable == position.applied.log_id || unfenced,
            "the store stands at {stable:?} at the start of a dump"
        );
        // What is stored while the dump goes on must not be put into a pack that the dump reads.
        self.tail = Vec::new();
        self.pressed = None;
        step(&span, 7, "it is flushed, the dump reads");
        drop(span);
        // Not said by the dispatcher, which has no time for it: a line may wait for the disk.
        let urgency = self.shared.dump.urgency().label();
        let revision = position.head.revision.get();
        tracing::info!(as_of = ?stable, revision, urgency, "dump: sealed, drained and flushed, writing");
        let mut job = Job {
            pages: Pages::new(&self.shared, &self.generation, &position),
            started,
            rests_below: self.rests_below(),
            stored: 0,
        };
        let (result, failed) = match self.write(&mut job).await {
            Ok(snapshot) => (Ok(snapshot), None),
            Err(DumpError::NotWritten(error)) => (Err(classified(error)), None),
            // A store that cannot be read cannot be trusted with writes either. Noted before anybody is told.
            Err(DumpError::Unreadable(error)) => {
                self.shared.store_failed(&self.generation, &error);
                (Err(StorageError::Poisoned { reason: format!("reading for a dump: {error}") }), Some(error))
            }
        };
        match &result {
            Ok(snapshot) => {
                tracing::info!(snapshot = snapshot.id, bytes = snapshot.bytes, "dump: verified and durable");
                if !self.generation.is_durable() {
                    // What is in memory is rebuilt from the snapshot: that is its durability.
                    self.shared.positions.lock().durable = snapshot.applied.log_id;
                }
            }
            Err(error) => tracing::warn!(%error, "dump: ended without a snapshot"),
        }
        let (resume, resumed) = oneshot::channel();
        if self.control.send(Control::DumpDone { result, started, resume }).await.is_ok() {
            // Fired or dropped: either way the dump is over for the dispatcher too.
            drop(resumed.await);
            self.merges = true;
        }
        failed.map_or(Ok(()), Err)
    }

    /// Writes, verifies and publishes. What did not become a snapshot is removed.
    async fn write(&mut self, job: &mut Job) -> Result<Snapshot, DumpError> {
        self.check(job)?;
        let snapshots = &self.shared.snapshots;
        let (file, tmp) = snapshots.create_tmp("dump")?;
        let written = self.write_file(job, file, &tmp).await;
        let snapshots = &self.shared.snapshots;
        let named = written.and_then(|id| Ok(snapshots.name(&tmp, &id)?));
        let path = named.inspect_err(|_| snapshots.discard(&tmp))?;
        let verified = self.verify(job, &path).await;
        let snapshots = &self.shared.snapshots;
        match verified {
            Ok(snapshot) => {
                snapshots.publish(snapshot.clone());
                self.shared.env.faults.hit(Failpoint::DumpCurrentUpdated);
                Ok(snapshot)
            }
            Err(DumpError::NotWritten(StorageError::BadSnapshot { path, detail })) => {
                snapshots.set_aside(&path, &detail)?;
                Err(StorageError::BadSnapshot { path, detail }.into())
            }
            Err(error) => {
                snapshots.discard(&path);
                Err(error)
            }
        }
    }

    /// Writes the file and makes its content durable; returns the snapshot's id.
    async fn write_file(
        &mut self,
        job: &mut Job,
        file: Box<dyn DiskFile>,
        path: &Path,
    ) -> Result<String, DumpError> {
        job.pages.begin(file, path)?;
        loop {
            let began = self.shared.env.clock.now();
            if job.pages.page()? {
                break;
            }
            self.shared.env.faults.hit(Failpoint::DumpReadBlock);
            let worked = self.shared.env.clock.now().since(began);
            self.between(job, worked).await?;
        }
        let id = job.pages.finish()?;
        self.shared.env.faults.hit(Failpoint::DumpFileSynced);
        Ok(id)
    }

    /// Reads the file back and checks all of it but the digest, which has just been made of the same content. Who gets the
    /// file, or finds it at a start, checks that, too.
    async fn verify(&mut self, job: &mut Job, path: &Path) -> Result<Snapshot, DumpError> {
        let (snapshot, reader) = self.shared.snapshots.reader(path)?;
        let mut verification = reader.without_digest().verification()?;
        loop {
            let began = self.shared.env.clock.now();
            if verification.step(VERIFY_FRAMES)? {
                return Ok(snapshot);
            }
            let worked = self.shared.env.clock.now().since(began);
            self.between(job, worked).await?;
        }
    }

    /// Between two steps of a dump: lets others run, looks whether it has to end, and keeps the overlay within bounds.
    async fn between(&mut self, job: &mut Job, worked: Duration) -> Result<(), DumpError> {
        breathe().await;
        self.check(job)?;
        let level = self.pressure();
        let demanded = self.shared.dump.urgency() == Urgency::Demanded;
        match level {
            Some(PressureLevel::Hold) if !demanded => {
                self.shared.dump.cancel(CancelReason::Overlay);
                self.check(job)?;
            }
            Some(PressureLevel::Hold | PressureLevel::Drain) => {
                job.stored += self.commit()?;
                self.shared.env.faults.hit(Failpoint::DrainUnderDumpMid);
            }
            Some(PressureLevel::Hurry) => {}
            None if worked.is_zero()
                || self.is_late(job)
                || self.has_grown(job)
                || self.shared.is_awaited() => {}
            None => self.shared.env.clock.sleep((worked * DUMP_REST_FACTOR).min(DUMP_REST_MAX)).await,
        }
        Ok(())
    }

    /// True when half of a dump's time has passed: what is left is done without rests.
    fn is_late(&self, job: &Job) -> bool {
        self.shared.env.clock.now().since(job.started) >= DUMP_DEADLINE / 2
    }

    /// What may come in while a dump rests. The log is as long as the policy promises when no more comes in during a dump
    /// than it writes; without rests it writes hardly faster than clients can, so an eighth of that is left for rests.
    fn rests_below(&self) -> usize {
        let logical = self.shared.view.load().state.read().logical_bytes();
        usize::try_from(logical / 8).unwrap_or(usize::MAX)
    }

    /// True when so much came in since the seal that what is left is done without rests.
    fn has_grown(&self, job: &Job) -> bool {
        self.shared.memtable_bytes.load(Ordering::Acquire) + job.stored > job.rests_below
    }

    /// An error when the dump has to end.
    fn check(&self, job: &Job) -> Result<(), StorageError> {
        if self.shared.abandon.load(Ordering::Acquire) {
            self.shared.dump.cancel(CancelReason::Shutdown);
        }
        if self.shared.env.clock.now().since(job.started) >= DUMP_DEADLINE {
            self.shared.dump.cancel(CancelReason::Deadline);
        }
        match self.shared.dump.cancelled() {
            Some(reason) => Err(StorageError::DumpCancelled { reason }),
            None => Ok(()),
        }
    }

    /// How much presses; told once per dump and level.
    fn pressure(&mut self) -> Option<PressureLevel> {
        let config = &self.shared.config;
        let waiting = self.shared.memtable_bytes.load(Ordering::Acquire);
        let level = match waiting {
            waiting if waiting >= config.memtable_bytes_max() => PressureLevel::Hold,
            waiting if waiting >= config.overlay_drain_bytes() => PressureLevel::Drain,
            waiting if waiting >= config.overlay_hurry_bytes() => PressureLevel::Hurry,
            _ => return None,
        };
        if self.pressed < Some(level) {
            tracing::warn!(level = level.label(), bytes = waiting, "dump: much is written meanwhile");
            self.pressed = Some(level);
            self.shared.figures.pressed(level);
        }
        Some(level)
    }
}

/// A dump on its way.
struct Job {
    pages: Pages,
    /// When it was sealed.
    started: holdfast_env::Monotonic,
    /// It rests until more bytes than this came in.
    rests_below: usize,
    /// Of those, how many were stored under it.
    stored: usize,
}

/// A full disk has a reason of its own.
fn classified(error: StorageError) -> StorageError {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    match error {
        StorageError::Io { path, action, source } if matches!(source.kind(), StorageFull | QuotaExceeded) => {
            tracing::warn!(path = %path.display(), action, %source, "dump: no space left");
            StorageError::DumpCancelled { reason: CancelReason::NoSpace }
        }
        other => other,
    }
}
