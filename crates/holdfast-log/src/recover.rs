//! Opening a log: what the files say, the end of the last write, and whether anything durable is missing.
//!
//! All is verified before anything is changed. Then the end is made sure: what a torn write left behind it is
//! overwritten with zeros, and the last batch is written again and made durable, because a process that was killed
//! between its write and its fsync leaves bytes that can be read and are not on disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use holdfast_env::{Disk, Env};

use crate::contents::{Contents, Marks, Slot};
use crate::error::LogError;
use crate::files;
use crate::format::{BLOCK_BYTES, Head, RECORDS_START, Record};
use crate::segment::{
    Behind, FileKind, Scan, SegmentFile, behind, file_kind, segment_name, segment_path, to_usize,
};
use crate::writer::{Tail, publish};

/// A log as found on disk, ready to go on.
pub(crate) struct Recovered {
    pub(crate) contents: Contents,
    pub(crate) tail: Tail,
    /// The segment behind the current one, when it was ready.
    pub(crate) prepared: Option<Arc<SegmentFile>>,
    /// Segments from before the current one that nothing needs any more, oldest first.
    pub(crate) retired: Vec<Arc<SegmentFile>>,
    /// Files of the right length that wait for their use.
    pub(crate) spares: Vec<PathBuf>,
}

/// The files of the log's directory.
#[derive(Default)]
struct Files {
    /// By epoch, headers verified.
    segments: BTreeMap<u64, Arc<SegmentFile>>,
    spares: Vec<PathBuf>,
}

/// The records of one segment, up to where they end.
struct Scanned {
    file: Arc<SegmentFile>,
    bytes: Bytes,
    /// With their offsets, in order.
    records: Vec<(u64, Record)>,
    /// Behind the last intact record.
    end: u64,
    /// Where the write that carried the last intact record began.
    batch_start: u64,
    /// What lies behind `end`.
    behind: Behind,
}

/// Reads the log in `dir`, or creates it.
pub(crate) fn recover(env: &Env, dir: &Path, segment_bytes: u64) -> Result<Recovered, LogError> {
    let disk = &*env.disk;
    let is_there = disk.exists(dir).map_err(LogError::io(dir, "look for"))?;
    let files = if is_there { list(disk, dir)? } else { Files::default() };
    let newest: Vec<_> = files.segments.values().rev().take(2).cloned().collect();
    let (current, prepared) = match newest.as_slice() {
        [] => {
            holdfast_env::create_dir_synced(disk, dir).map_err(LogError::io(dir, "create"))?;
            return create(env, dir, segment_bytes, files.spares);
        }
        [last, rest @ ..] => find_current(last, rest.first())?,
    };
    let prepared_file = prepared.as_ref().map(|prepared| Arc::clone(&prepared.file));
    let Some(current) = current else {
        // The very first start was interrupted before anything was acknowledged.
        let prepared = prepared.expect("a file without a head is the prepared one");
        make_end_sure(&prepared)?;
        return begin(disk, dir, prepared.file, remove_misfits(disk, dir, segment_bytes, files.spares)?);
    };
    let mut contents = replay(&current, dir)?;
    let retired = attach_files(&mut contents, &current, files.segments, dir)?;
    // From here on the disk is changed.
    holdfast_env::create_dir_synced(disk, dir).map_err(LogError::io(dir, "make durable"))?;
    for scanned in prepared.iter().chain([&current]) {
        make_end_sure(scanned)?;
    }
    disk.sync_dir(dir).map_err(LogError::io(dir, "make durable"))?;
    let spares = remove_misfits(disk, dir, segment_bytes, files.spares)?;
    let tail = tail_of(&current);
    Ok(Recovered { contents, tail, prepared: prepared_file, retired, spares })
}

fn list(disk: &dyn Disk, dir: &Path) -> Result<Files, LogError> {
    let mut files = Files { segments: BTreeMap::new(), spares: Vec::new() };
    for path in disk.read_dir(dir).map_err(LogError::io(dir, "list"))? {
        match file_kind(&path) {
            FileKind::Segment(epoch) => {
                files.segments.insert(epoch, SegmentFile::open(disk, &path, epoch)?);
            }
            FileKind::Spare(_) => files.spares.push(path),
            FileKind::Other => {
                tracing::warn!(path = %path.display(), "a file in the log's directory is not ours");
            }
        }
    }
    Ok(files)
}

/// A log that never existed.
fn create(env: &Env, dir: &Path, segment_bytes: u64, spares: Vec<PathBuf>) -> Result<Recovered, LogError> {
    let disk = &*env.disk;
    let mut spares = remove_misfits(disk, dir, segment_bytes, spares)?;
    let prepared = files::prepare(env, dir, 1, segment_bytes, spares.pop(), files::Filling::AtOnce);
    let file = prepared.map_err(|error| match error.is_full() {
        true => LogError::NoSpace { dir: dir.to_owned() },
        false => error,
    })?;
    begin(disk, dir, file, spares)
}

/// Writes the head of the first segment.
fn begin(
    disk: &dyn Disk,
    dir: &Path,
    file: Arc<SegmentFile>,
    spares: Vec<PathBuf>,
) -> Result<Recovered, LogError> {
    disk.sync_dir(dir).map_err(LogError::io(dir, "make durable"))?;
    let mut contents = Contents::default();
    contents.begin_segment(Arc::clone(&file), RECORDS_START);
    let mut tail = Tail::new(file, RECORDS_START, Vec::new());
    tail.push(Record::Head(Head::default()));
    tail.write_durably()?;
    let staged = tail.finish_batch();
    publish(&mut contents, &staged, tail.offset);
    Ok(Recovered { contents, tail, prepared: None, retired: Vec::new(), spares })
}

/// Which of the two newest segments is the one written to, and which one only waits for its use.
fn find_current(
    last: &Arc<SegmentFile>,
    before: Option<&Arc<SegmentFile>>,
) -> Result<(Option<Scanned>, Option<Scanned>), LogError> {
    let scanned = scan(last)?;
    if scanned.has_head() {
        return Ok((Some(scanned), None));
    }
    match before {
        // A segment is used only once its predecessor is durable, and wanted only once that one's head is: so the
        // predecessor of an unused segment has a head.
        Some(before) => {
            let current = scan(before)?;
            if !current.has_head() {
                return Err(before.damaged(RECORDS_START, "its first record is not intact"));
            }
            if before.id.epoch + 1 != last.id.epoch {
                return Err(LogError::Missing {
                    path: last.path.with_file_name(segment_name(before.id.epoch + 1)),
                });
            }
            Ok((Some(current), Some(scanned)))
        }
        None if last.id.epoch == 1 => Ok((None, Some(scanned))),
        None => Err(last.damaged(RECORDS_START, "its first record is not intact")),
    }
}

/// Reads a whole segment. Fails when something that had been durable is not intact.
fn scan(file: &Arc<SegmentFile>) -> Result<Scanned, LogError> {
    let bytes = file.read(0, file.bytes)?;
    let mut scan = Scan { bytes: &bytes, base: 0, segment: file.id, offset: RECORDS_START };
    let mut records = Vec::new();
    let mut batch_start = RECORDS_START;
    for (offset, found) in &mut scan {
        batch_start = found.batch_start;
        records.push((offset, found.record));
    }
    let end = scan.offset;
    let behind = behind(&bytes, file.id, end);
    if behind.batch_start_max > end {
        return Err(file.damaged(end, "a record that had been made durable is not intact"));
    }
    Ok(Scanned { file: Arc::clone(file), bytes, records, end, batch_start, behind })
}

impl Scanned {
    fn has_head(&self) -> bool {
        matches!(self.records.first(), Some((RECORDS_START, Record::Head(_))))
    }
}

/// The contents as the current segment tells them; the files of earlier segments are still missing.
fn replay(current: &Scanned, dir: &Path) -> Result<Contents, LogError> {
    let mut contents = Contents::default();
    let Some((_, Record::Head(head))) = current.records.first() else {
        unreachable!("the current segment has a head");
    };
    let mut expected = None;
    for row in &head.earlier {
        if expected.is_some_and(|expected| expected != row.epoch) || row.epoch >= current.file.id.epoch {
            return Err(current.file.damaged(RECORDS_START, "its head names segments that cannot be"));
        }
        expected = Some(row.epoch + 1);
        contents.slots.push_back(Slot {
            epoch: row.epoch,
            file: None,
            first: row.first,
            end: row.end,
            marks: None,
        });
    }
    if expected.is_some_and(|expected| expected != current.file.id.epoch) {
        return Err(LogError::Missing { path: segment_path(dir, expected.unwrap_or_default()) });
    }
    contents.begin_segment(Arc::clone(&current.file), current.end);
    publish(&mut contents, &current.records, current.end);
    Ok(contents)
}

/// Gives each segment in use its file, and returns the files of those that are not in use any more.
fn attach_files(
    contents: &mut Contents,
    current: &Scanned,
    mut files: BTreeMap<u64, Arc<SegmentFile>>,
    dir: &Path,
) -> Result<Vec<Arc<SegmentFile>>, LogError> {
    // Segments that died may be gone, or still there when the crash came before their turn.
    drop(contents.take_dead());
    for slot in &mut contents.slots {
        let file = files.remove(&slot.epoch);
        let file = file.ok_or_else(|| LogError::Missing { path: segment_path(dir, slot.epoch) })?;
        if slot.end > file.bytes {
            return Err(file.damaged(file.bytes, "the file is shorter than what it held"));
        }
        slot.file = Some(file);
    }
    files.retain(|epoch, _| *epoch < current.file.id.epoch);
    Ok(files.into_values().collect())
}

/// Overwrites what a torn write left behind the end, and writes the last batch again.
fn make_end_sure(scanned: &Scanned) -> Result<(), LogError> {
    let block = |offset: u64| offset / BLOCK_BYTES * BLOCK_BYTES;
    let start = block(scanned.batch_start);
    let stop = scanned.behind.end.unwrap_or(scanned.end).next_multiple_of(BLOCK_BYTES);
    let mut bytes = scanned.bytes[to_usize(start)..to_usize(scanned.end)].to_vec();
    bytes.resize(to_usize(stop - start), 0);
    let file = &scanned.file;
    if scanned.behind.end.is_some() {
        tracing::warn!(path = %file.path.display(), offset = scanned.end, "cut the torn end of the log");
    }
    file.file.write_all_at(&bytes, start).map_err(LogError::io(&file.path, "write"))?;
    file.file.sync_all().map_err(LogError::io(&file.path, "make durable"))
}

/// Removes spare files that cannot be used.
fn remove_misfits(
    disk: &dyn Disk,
    dir: &Path,
    segment_bytes: u64,
    spares: Vec<PathBuf>,
) -> Result<Vec<PathBuf>, LogError> {
    let mut fitting = Vec::new();
    for spare in spares {
        let file = disk.open(&spare, holdfast_env::OpenMode::Read).map_err(LogError::io(&spare, "open"))?;
        let bytes = file.len().map_err(LogError::io(&spare, "read the length"))?;
        drop(file);
        if bytes == segment_bytes {
            fitting.push(spare);
        } else {
            disk.remove_file(&spare).map_err(LogError::io(&spare, "remove"))?;
        }
    }
    disk.sync_dir(dir).map_err(LogError::io(dir, "make durable"))?;
    Ok(fitting)
}

fn tail_of(current: &Scanned) -> Tail {
    let start = to_usize(current.end / BLOCK_BYTES * BLOCK_BYTES);
    let block = current.bytes[start..to_usize(current.end)].to_vec();
    Tail::new(Arc::clone(&current.file), current.end, block)
}

/// The marks of a segment that an earlier run wrote. Reads it whole; fails when a record is not intact.
pub(crate) fn load_marks(file: &SegmentFile, end: u64) -> Result<Marks, LogError> {
    let bytes = file.read(0, end)?;
    let mut scan = Scan { bytes: &bytes, base: 0, segment: file.id, offset: RECORDS_START };
    let mut marks = Marks::default();
    for (offset, found) in &mut scan {
        marks.replay(&found.record, offset);
    }
    if scan.offset != end {
        return Err(file.damaged(scan.offset, "a record that had been made durable is not intact"));
    }
    Ok(marks)
}
