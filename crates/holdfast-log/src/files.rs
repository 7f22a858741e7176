//! The file keeper: fills the next segment ahead of its use, and recycles the ones that hold nothing any more.
//! Nothing here is on the way of an append.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use holdfast_env::{Disk, Env, Failpoint, OpenMode};

use crate::error::LogError;
use crate::format::{self, SegmentId};
use crate::segment::{SegmentFile, segment_path, spare_path};
use crate::shared::Shared;

/// How many recycled files wait for their next use; more are removed. With segments of 8 MiB, little more than
/// the log needs anyway until its next dump; with fewer, zeros are a tenth of all that is written while a store grows.
const SPARES_MAX: usize = 12;
/// How much is filled with zeros at a time. Beside the writer it is made durable, too: the writer's syncs wait behind it on the
/// disk, for a whole segment a tenth of a second.
const FILL_BYTES: usize = 128 * 1024;
/// The next segment is not needed yet when it cannot be prepared, and a directory that is gone is mostly that of a log that is being
/// closed: whoever closes it has so long to say so, before the process ends.
const CLOSING_GRACE: Duration = Duration::from_secs(1);
/// How long to wait before a full disk is tried again.
const FULL_RETRY: Duration = Duration::from_secs(1);

/// The file keeper's own state.
pub(crate) struct Keeper {
    env: Env,
    shared: Arc<Shared>,
    /// Files of the right length that wait to become segments.
    spares: Vec<PathBuf>,
}

/// How a file is filled with zeros.
#[derive(Clone, Copy)]
pub(crate) enum Filling<'a> {
    /// As fast as it goes: nobody waits for the disk meanwhile.
    AtOnce,
    /// In small steps beside the writer, as long as this is true.
    Beside(&'a dyn Fn() -> bool),
}

/// Creates the file of a segment that has never been used, from a spare when there is one; it is durable, with its
/// name, on return. On error nothing is left that matters.
pub(crate) fn prepare(
    env: &Env,
    dir: &Path,
    epoch: u64,
    segment_bytes: u64,
    spare: Option<PathBuf>,
    filling: Filling<'_>,
) -> Result<Arc<SegmentFile>, LogError> {
    let disk = &*env.disk;
    let id = SegmentId { epoch, tag: env.rng.next_u64().max(1) };
    let path = segment_path(dir, epoch);
    let exists = disk.exists(&path).map_err(LogError::io(&path, "look for"))?;
    assert!(!exists, "a log segment is never made twice: {}", path.display());
    let spare = match spare {
        Some(spare) => spare,
        None => fill(disk, dir, epoch, segment_bytes, filling)?,
    };
    let file = disk.open(&spare, OpenMode::ReadWrite).map_err(LogError::io(&spare, "open"))?;
    let header = format::encode_file_header(id, segment_bytes);
    file.write_all_at(&header, 0).map_err(LogError::io(&spare, "write the header"))?;
    file.sync_all().map_err(LogError::io(&spare, "make durable"))?;
    disk.rename(&spare, &path).map_err(LogError::io(&spare, "rename"))?;
    disk.sync_dir(dir).map_err(LogError::io(dir, "make durable"))?;
    Ok(Arc::new(SegmentFile { id, path, file, bytes: segment_bytes }))
}

/// Creates a spare file full of zeros, so that later writes change no metadata.
fn fill(
    disk: &dyn Disk,
    dir: &Path,
    number: u64,
    bytes: u64,
    filling: Filling<'_>,
) -> Result<PathBuf, LogError> {
    let path = spare_path(dir, number);
    if disk.exists(&path).map_err(LogError::io(&path, "look for"))? {
        disk.remove_file(&path).map_err(LogError::io(&path, "remove"))?;
    }
    let file = disk.open(&path, OpenMode::CreateNew).map_err(LogError::io(&path, "create"))?;
    let outcome = write_zeros(&*file, &path, bytes, filling);
    drop(file);
    if outcome.is_err() {
        // Frees what a full disk gave; a file that stays is removed at the next start.
        disk.remove_file(&path).map_err(LogError::io(&path, "remove"))?;
    }
    outcome.map(|()| path)
}

fn write_zeros(
    file: &dyn holdfast_env::DiskFile,
    path: &Path,
    bytes: u64,
    filling: Filling<'_>,
) -> Result<(), LogError> {
    let zeros = vec![0; FILL_BYTES];
    let mut at = 0;
    while at < bytes {
        let count = usize::try_from(bytes - at).map_or(FILL_BYTES, |rest| rest.min(FILL_BYTES));
        file.write_all_at(&zeros[..count], at).map_err(LogError::io(path, "fill"))?;
        at += count as u64;
        if let Filling::Beside(is_wanted) = filling {
            file.sync_all().map_err(LogError::io(path, "make durable"))?;
            if !is_wanted() {
                return Err(LogError::Closed);
            }
        }
    }
    file.sync_all().map_err(LogError::io(path, "make durable"))
}

impl Keeper {
    pub(crate) fn new(env: Env, shared: Arc<Shared>, spares: Vec<PathBuf>) -> Self {
        Self { env, shared, spares }
    }

    /// Runs until the writer has ended.
    pub(crate) async fn run(mut self) {
        if let Err(error) = self.work_until_closed().await {
            self.closed_within(CLOSING_GRACE).await;
            let mut inner = self.shared.inner.lock();
            inner.has_failed = true;
            let was_closing = std::mem::replace(&mut inner.is_closing, true);
            drop(inner);
            self.shared.writer_wake.notify_one();
            if was_closing {
                // Nothing that was promised depends on the next segment any more.
                tracing::warn!(%error, "the log was closed while its next segment was prepared");
            } else {
                self.env.spawn.halt(&error.to_string());
            }
        }
    }

    /// Waits until the log is closing, at most so long.
    async fn closed_within(&self, time: Duration) {
        let mut end = self.env.clock.sleep(time);
        loop {
            let woken = self.shared.files_wake.notified();
            if self.shared.inner.lock().is_closing {
                return;
            }
            futures::pin_mut!(woken);
            if let futures::future::Either::Right(_) = futures::future::select(woken, &mut end).await {
                return;
            }
        }
    }

    async fn work_until_closed(&mut self) -> Result<(), LogError> {
        loop {
            self.recycle()?;
            let wanted = {
                let mut inner = self.shared.inner.lock();
                if inner.is_writer_gone {
                    return Ok(());
                }
                inner.wanted.take()
            };
            match wanted {
                None => self.shared.files_wake.notified().await,
                Some(epoch) => self.supply(epoch).await?,
            }
        }
    }

    /// Prepares the next segment; when the disk is full, says so and waits a while.
    async fn supply(&mut self, epoch: u64) -> Result<(), LogError> {
        let spare = self.spares.pop();
        let is_recycled = spare.is_some();
        // A log that is closing may need it for what is queued.
        let is_wanted = || !self.shared.inner.lock().is_writer_gone;
        let (dir, bytes) = (&self.shared.dir, self.shared.segment_bytes);
        let outcome = prepare(&self.env, dir, epoch, bytes, spare.clone(), Filling::Beside(&is_wanted));
        let is_full = match outcome {
            Ok(file) => {
                let mut inner = self.shared.inner.lock();
                inner.prepared = Some(file);
                inner.stats.is_full = false;
                if is_recycled {
                    inner.stats.segments_recycled += 1;
                } else {
                    inner.stats.segments_created += 1;
                }
                false
            }
            Err(error) if error.is_full() => {
                tracing::error!(%error, "no space for the next log segment: writes are refused until there is");
                self.spares.extend(spare);
                let mut inner = self.shared.inner.lock();
                inner.stats.is_full = true;
                inner.wanted = Some(epoch);
                true
            }
            // The writer has ended without it.
            Err(LogError::Closed) => false,
            Err(error) => return Err(error),
        };
        // The writer may wait for the segment, or, when it is closing, has to learn that none will come.
        self.shared.writer_wake.notify_one();
        self.shared.room.notify_waiters();
        if is_full {
            let retry = self.env.clock.sleep(FULL_RETRY);
            let woken = self.shared.files_wake.notified();
            futures::pin_mut!(woken);
            futures::future::select(woken, retry).await;
        }
        Ok(())
    }

    /// Turns retired segments into spares or removes them, oldest first, so that no gap ever appears.
    fn recycle(&mut self) -> Result<(), LogError> {
        let disk = &*self.env.disk;
        let dir = &self.shared.dir;
        while let Some(retired) = self.take_retired() {
            if self.spares.len() < SPARES_MAX && retired.bytes == self.shared.segment_bytes {
                let spare = spare_path(dir, retired.id.epoch);
                disk.rename(&retired.path, &spare).map_err(LogError::io(&retired.path, "rename"))?;
                self.spares.push(spare);
            } else {
                disk.remove_file(&retired.path).map_err(LogError::io(&retired.path, "remove"))?;
            }
            self.env.faults.hit(Failpoint::CleanupInSnapshot);
            disk.sync_dir(dir).map_err(LogError::io(dir, "make durable"))?;
        }
        Ok(())
    }

    /// The oldest retired segment, when no reader uses it any more.
    fn take_retired(&self) -> Option<Arc<SegmentFile>> {
        let mut inner = self.shared.inner.lock();
        if Arc::strong_count(inner.retired.front()?) > 1 {
            return None;
        }
        inner.retired.pop_front()
    }
}
