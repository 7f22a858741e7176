//! The writer: drains the queue into one buffer, writes it once, makes it durable once, then answers in order.
//!
//! It is the only one that writes records. A batch never crosses segments: what comes behind the switch is a new
//! batch, so that an intact record proves that all before its batch had been durable.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use holdfast_env::{DiskFile, Env, Failpoint, Fault, LogId};

use crate::Durable;
use crate::contents::Contents;
use crate::error::LogError;
use crate::format::{self, BLOCK_BYTES, Place, RECORDS_START, Record};
use crate::segment::{SegmentFile, to_usize};
use crate::shared::{Inner, Op, Queued, Shared};

/// How many bytes are written at once, at least one operation. Bounds the buffer, the time an fsync takes, and how
/// much recovery writes again.
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;

/// This part of a segment is not for entries while no other segment is ready: votes must go on, and a purge, which
/// frees space, must not wait for space.
const RESERVE_DIVISOR: u64 = 16;

/// Where the next record goes, and what waits to be written.
pub(crate) struct Tail {
    pub(crate) file: Arc<SegmentFile>,
    /// Where the next record begins.
    pub(crate) offset: u64,
    /// The file's bytes from the block that holds the end of the last batch; all of it up to `offset`.
    pub(crate) buffer: Vec<u8>,
    /// Where in the file `buffer` begins; a multiple of the block size.
    pub(crate) buffer_start: u64,
    /// Where this batch begins.
    pub(crate) batch_start: u64,
    /// The records of this batch, with their places.
    staged: Vec<(u64, Record)>,
}

/// The writer's own state.
pub(crate) struct Writer {
    env: Env,
    shared: Arc<Shared>,
    tail: Tail,
    /// What was taken from the queue and is not staged yet.
    batch: VecDeque<Queued>,
    /// The committed position to write at the end of the batch.
    committed: Option<LogId>,
    /// Who is to be told once this batch is durable.
    done: Vec<Durable>,
    /// The last operation wholly in this batch, and the queue bytes that its end frees.
    finished: Option<u64>,
    freed_bytes: usize,
    /// With a planted fault only: something was acknowledged and not made durable.
    owes_sync: bool,
}

/// Where a record may go.
enum Room {
    /// Into the current segment.
    Here,
    /// Into the current segment once the next one is ready.
    HereLater,
    /// Into the next segment.
    Next,
}

/// Why the writer ends early.
enum Stop {
    /// A write or an fsync failed.
    Failed(LogError),
    /// The log is closed while it waits for space that does not come.
    Closed,
}

impl Tail {
    /// A tail that continues the segment at `offset`; `block` is what the file holds from the start of that block.
    pub(crate) fn new(file: Arc<SegmentFile>, offset: u64, block: Vec<u8>) -> Self {
        let buffer_start = offset - block.len() as u64;
        Self { file, offset, buffer: block, buffer_start, batch_start: offset, staged: Vec::new() }
    }

    /// True when a record of this size still fits in the segment.
    fn has_room(&self, bytes: usize) -> bool {
        self.offset + bytes as u64 <= self.file.bytes
    }

    /// Adds a record to the batch.
    pub(crate) fn push(&mut self, record: Record) {
        let place = Place { segment: self.file.id, offset: self.offset, batch_start: self.batch_start };
        format::encode(&record, place, &mut self.buffer);
        let offset = self.offset;
        self.offset = self.buffer_start + self.buffer.len() as u64;
        // Payloads are in the buffer already; the bookkeeping needs only the position.
        let staged = match record {
            Record::Entry(entry) => {
                Record::Entry(crate::Entry { id: entry.id, payload: bytes::Bytes::new() })
            }
            other => other,
        };
        self.staged.push((offset, staged));
    }

    /// Writes the batch, padded with zeros to what the disk writes at once, and makes it durable. Returns how many bytes
    /// were written.
    pub(crate) fn write_durably(&mut self) -> Result<u64, LogError> {
        self.write_with("write durably", |file, bytes, at| file.write_durably_at(bytes, at))
    }

    /// The same, and makes nothing durable.
    fn write(&mut self) -> Result<u64, LogError> {
        self.write_with("write", |file, bytes, at| file.write_all_at(bytes, at))
    }

    fn write_with(
        &mut self,
        what: &'static str,
        write: impl FnOnce(&dyn DiskFile, &[u8], u64) -> io::Result<()>,
    ) -> Result<u64, LogError> {
        let SegmentFile { file, path, .. } = &*self.file;
        let unit = to_usize(file.write_unit_bytes());
        let used = self.buffer.len();
        self.buffer.resize(used.next_multiple_of(unit), 0);
        // What lies before it in its block is durable already.
        let from = to_usize(self.batch_start - self.buffer_start) / unit * unit;
        let bytes = &self.buffer[from..];
        write(&**file, bytes, self.buffer_start + from as u64).map_err(LogError::io(path, what))?;
        let written = bytes.len() as u64;
        self.buffer.truncate(used);
        Ok(written)
    }

    /// Makes durable what was written without that.
    fn sync(&self) -> Result<(), LogError> {
        self.file.file.sync_data().map_err(LogError::io(&self.file.path, "make durable"))
    }

    /// Begins the next batch behind this one; gives what this one held.
    pub(crate) fn finish_batch(&mut self) -> Vec<(u64, Record)> {
        let whole = self.buffer.len() / to_usize(BLOCK_BYTES) * to_usize(BLOCK_BYTES);
        self.buffer.drain(..whole);
        self.buffer_start += whole as u64;
        self.batch_start = self.offset;
        std::mem::take(&mut self.staged)
    }
}

/// Applies a durable batch to the contents.
pub(crate) fn publish(contents: &mut Contents, staged: &[(u64, Record)], end: u64) {
    for (offset, record) in staged {
        contents.apply(record, *offset);
    }
    contents.slots.back_mut().expect("the batch was written to a segment").end = end;
}

/// Moves segments that hold nothing any more to the file keeper's list, and asks for the next segment. Returns how many
/// were moved; the keeper is to be told when [`Inner::has_file_work`].
pub(crate) fn plan_files(inner: &mut Inner) -> usize {
    let before = inner.retired.len();
    for slot in inner.contents.take_dead() {
        inner.retired.extend(slot.file);
    }
    let retired = inner.retired.len() - before;
    let current = inner.contents.slots.back().map_or(0, |slot| slot.epoch);
    // Asked for once only: the one that is being prepared now must not be prepared again behind the writer's back.
    if inner.requested <= current {
        inner.requested = current + 1;
        inner.wanted = Some(current + 1);
    }
    inner.stats.segments = inner.contents.slots.len();
    retired
}

impl Writer {
    pub(crate) fn new(env: Env, shared: Arc<Shared>, tail: Tail) -> Self {
        Self {
            env,
            shared,
            tail,
            batch: VecDeque::new(),
            committed: None,
            done: Vec::new(),
            finished: None,
            freed_bytes: 0,
            owes_sync: false,
        }
    }

    /// Runs until the log is closed and all that was queued is durable, or until a write fails.
    pub(crate) async fn run(mut self) {
        let outcome = self.write_until_closed().await;
        let mut inner = self.shared.inner.lock();
        inner.is_writer_gone = true;
        inner.is_closing = true;
        inner.has_failed |= outcome.is_err();
        // Their callbacks must not run: what they stand for is not durable.
        inner.queue.clear();
        drop(inner);
        self.shared.files_wake.notify_one();
        self.shared.room.notify_waiters();
        if let Err(Stop::Failed(error)) = outcome {
            // After a failed fsync nobody knows what is on disk, and trying again would hide it.
            self.env.spawn.halt(&error.to_string());
        }
    }

    async fn write_until_closed(&mut self) -> Result<(), Stop> {
        loop {
            let is_closing = self.take_batch();
            if self.batch.is_empty() {
                if is_closing {
                    return self.write_committed().await;
                }
                self.shared.writer_wake.notified().await;
                continue;
            }
            while let Some(queued) = self.batch.pop_front() {
                self.stage(queued).await?;
            }
            self.write_committed().await?;
        }
    }

    /// Takes what waits, up to the size of a batch. True when the log is closing.
    fn take_batch(&mut self) -> bool {
        let mut inner = self.shared.inner.lock();
        let mut bytes = 0;
        // Older than all that is queued.
        self.committed = inner.committed.take().or(self.committed);
        while bytes < BATCH_BYTES_MAX
            && let Some(queued) = inner.queue.pop_front()
        {
            bytes += queued.bytes;
            self.committed = queued.committed.or(self.committed);
            self.batch.push_back(queued);
        }
        inner.is_closing
    }

    /// Adds the committed position, if there is a newer one, and ends the batch. All that was queued before it was
    /// saved is in this batch or on disk.
    async fn write_committed(&mut self) -> Result<(), Stop> {
        let taken = self.committed.take();
        // Saved when the queue was empty: behind what was taken.
        let saved = self.shared.inner.lock().committed.take();
        if let Some(committed) = saved.or(taken) {
            self.push(Record::Committed(committed), format::record_bytes(16)).await?;
        }
        self.flush()
    }

    async fn stage(&mut self, queued: Queued) -> Result<(), Stop> {
        match queued.op {
            Op::Append(entries, done) => {
                for entry in entries {
                    let bytes = format::entry_bytes(entry.payload.len());
                    self.push(Record::Entry(entry), bytes).await?;
                }
                self.done.push(done);
            }
            Op::Vote(vote, done) => {
                let bytes = format::record_bytes(vote.len());
                if self.env.faults.is_planted(Fault::VoteNotSaved) {
                    done();
                } else {
                    self.push(Record::Vote(vote), bytes).await?;
                    self.done.push(done);
                }
            }
            Op::Truncate(last) => self.push(Record::Truncate(last), format::record_bytes(17)).await?,
            Op::Purge(through) => {
                // A later one may be on disk already.
                let purged = self.shared.inner.lock().contents.purged;
                let through = purged.map_or(through, |purged| purged.max(through));
                self.push(Record::Purge(through), format::record_bytes(16)).await?;
            }
        }
        self.finished = Some(queued.sequence);
        self.freed_bytes += queued.bytes;
        Ok(())
    }

    async fn push(&mut self, record: Record, bytes: usize) -> Result<(), Stop> {
        // More than once when the segment that was ready is from a run with smaller segments.
        loop {
            match self.room(&record, bytes) {
                Room::Here => break,
                Room::HereLater => {
                    self.flush()?;
                    self.wait_for_segment(&record).await?;
                }
                Room::Next => {
                    self.flush()?;
                    self.wait_for_segment(&record).await?;
                    self.switch();
                }
            }
        }
        self.tail.push(record);
        Ok(())
    }

    fn room(&self, record: &Record, bytes: usize) -> Room {
        if !self.tail.has_room(bytes) {
            return Room::Next;
        }
        let reserve = to_usize(self.tail.file.bytes / RESERVE_DIVISOR);
        if !matches!(record, Record::Entry(_))
            || self.tail.has_room(bytes + reserve)
            || self.shared.inner.lock().prepared.is_some()
        {
            Room::Here
        } else {
            Room::HereLater
        }
    }

    /// Writes the batch, makes it durable, publishes it and runs the callbacks.
    fn flush(&mut self) -> Result<(), Stop> {
        if self.tail.staged.is_empty() {
            return Ok(());
        }
        if std::mem::take(&mut self.owes_sync) {
            self.tail.sync().map_err(Stop::Failed)?;
        }
        let started = self.env.clock.now();
        let written = self.write().map_err(Stop::Failed)?;
        let took = self.env.clock.now().since(started);
        let staged = self.tail.finish_batch();
        let mut inner = self.shared.inner.lock();
        publish(&mut inner.contents, &staged, self.tail.offset);
        if let Some(finished) = self.finished.take() {
            inner.cache.written = finished;
        }
        inner.queued_bytes -= std::mem::take(&mut self.freed_bytes);
        inner.stats.observe_fsync(took);
        inner.stats.written_bytes += written;
        inner.stats.entries += staged.iter().filter(|(_, r)| matches!(r, Record::Entry(_))).count() as u64;
        inner.cache.trim(self.shared.cache_bytes_max);
        let retired = plan_files(&mut inner);
        // Not at each batch: waking its thread for nothing costs as much as the batch.
        let has_file_work = inner.has_file_work();
        drop(inner);
        if staged.iter().any(|(_, record)| matches!(record, Record::Purge(_))) {
            self.env.faults.hit(Failpoint::PurgeMarked);
        }
        (0..retired).for_each(|_| self.env.faults.hit(Failpoint::PurgeSegment));
        for done in self.done.drain(..) {
            done();
        }
        if has_file_work {
            self.shared.files_wake.notify_one();
        }
        self.shared.room.notify_waiters();
        Ok(())
    }

    /// Writes the batch and makes it durable, before anybody is told.
    fn write(&mut self) -> Result<u64, LogError> {
        let faults = &self.env.faults;
        // Told now; durable when the next write is due, if the machine lives until then.
        self.owes_sync = faults.is_planted(Fault::AckBeforeFsync);
        if self.owes_sync || faults.is_planted(Fault::NoFsync) {
            return self.tail.write();
        }
        self.tail.write_durably()
    }

    /// Waits until the next segment is ready. All that was staged is on disk. Purges behind `record` go on.
    async fn wait_for_segment(&mut self, record: &Record) -> Result<(), Stop> {
        loop {
            {
                let inner = self.shared.inner.lock();
                if inner.prepared.is_some() {
                    return Ok(());
                }
                if inner.has_failed || (inner.is_closing && inner.stats.is_full) {
                    return Err(Stop::Closed);
                }
            }
            let bytes = format::record_bytes(16);
            match self.next_purge() {
                Some(through) if matches!(record, Record::Entry(_)) && self.tail.has_room(bytes) => {
                    self.tail.push(Record::Purge(through));
                    self.flush()?;
                }
                _ => self.shared.writer_wake.notified().await,
            }
        }
    }

    /// On a full disk, the furthest purge that waits and may be written at once: all it drops is on disk, and no truncation in front
    /// of it changes that. It stays where it is; written in its turn too, it changes nothing.
    fn next_purge(&self) -> Option<LogId> {
        let inner = self.shared.inner.lock();
        let contents = &inner.contents;
        if !inner.stats.is_full {
            return None;
        }
        self.batch
            .iter()
            .chain(&inner.queue)
            .take_while(|queued| !matches!(queued.op, Op::Truncate(_)))
            .filter_map(|queued| match queued.op {
                Op::Purge(through) => Some(through),
                _ => None,
            })
            .filter(|through| contents.last.is_some_and(|last| through.index() <= last.index()))
            .filter(|through| contents.purged < Some(*through))
            .last()
    }

    /// Goes on in the next segment, which is ready and begins with a head.
    fn switch(&mut self) {
        let (next, head) = {
            let mut inner = self.shared.inner.lock();
            let next = inner.prepared.take().expect("only the writer takes what is ready");
            let head = inner.contents.head();
            inner.contents.begin_segment(Arc::clone(&next), RECORDS_START);
            (next, head)
        };
        self.tail = Tail::new(next, RECORDS_START, Vec::new());
        self.tail.push(Record::Head(head));
        assert!(
            self.tail.offset <= self.tail.file.bytes / 2,
            "the head of a log segment leaves no room for entries: too many segments in use"
        );
    }
}
