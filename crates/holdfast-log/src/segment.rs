//! One segment file: its name, its header, and scanning its records.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use holdfast_env::{Disk, DiskFile, OpenMode};

use crate::error::LogError;
use crate::format::{self, BLOCK_BYTES, BadHeader, Found, RECORDS_START, SegmentId};

/// An open segment file. Shared by the writer and the readers; a file is recycled only when no reader holds it.
pub(crate) struct SegmentFile {
    pub(crate) id: SegmentId,
    pub(crate) path: PathBuf,
    pub(crate) file: Box<dyn DiskFile>,
    /// The file's length in bytes; records end before it.
    pub(crate) bytes: u64,
}

const SEGMENT_SUFFIX: &str = ".seg";
const SPARE_SUFFIX: &str = ".spare";

/// What a file in the log's directory is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// The segment of this epoch.
    Segment(u64),
    /// A file that waits to become a segment; its content means nothing.
    Spare(u64),
    /// Not ours.
    Other,
}

/// What the name says.
pub(crate) fn file_kind(path: &Path) -> FileKind {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let number = |suffix| name.strip_suffix(suffix).and_then(|hex| u64::from_str_radix(hex, 16).ok());
    match (number(SEGMENT_SUFFIX), number(SPARE_SUFFIX)) {
        (Some(epoch), _) => FileKind::Segment(epoch),
        (None, Some(spare)) => FileKind::Spare(spare),
        (None, None) => FileKind::Other,
    }
}

/// Where the segment of this epoch lies.
pub(crate) fn segment_path(dir: &Path, epoch: u64) -> PathBuf {
    dir.join(segment_name(epoch))
}

/// The name of the segment's file.
pub(crate) fn segment_name(epoch: u64) -> String {
    format!("{epoch:016x}{SEGMENT_SUFFIX}")
}

/// Where a spare file of this number lies.
pub(crate) fn spare_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016x}{SPARE_SUFFIX}"))
}

impl SegmentFile {
    /// Opens the segment and verifies its header. Changes nothing.
    pub(crate) fn open(disk: &dyn Disk, path: &Path, epoch: u64) -> Result<Arc<Self>, LogError> {
        let file = disk.open(path, OpenMode::ReadWrite).map_err(LogError::io(path, "open"))?;
        let bytes = file.len().map_err(LogError::io(path, "read the length"))?;
        let damaged = |what| LogError::Damaged { path: path.to_owned(), offset: 0, what };
        if bytes < RECORDS_START {
            return Err(damaged("the file is shorter than its header"));
        }
        let mut block = vec![0; to_usize(BLOCK_BYTES)];
        file.read_exact_at(&mut block, 0).map_err(LogError::io(path, "read the header"))?;
        match format::decode_file_header(&block) {
            Ok((id, stated)) if (id.epoch, stated) == (epoch, bytes) => {
                Ok(Arc::new(Self { id, path: path.to_owned(), file, bytes }))
            }
            Ok(_) => Err(damaged("its header belongs to another file, or the file was cut")),
            Err(BadHeader::Newer(found)) => {
                let known = format::FORMAT_VERSION;
                Err(LogError::NewerFormat { path: path.to_owned(), found, known })
            }
            Err(BadHeader::Magic) => Err(damaged("it does not begin as a log segment does")),
            Err(BadHeader::Damaged) => Err(damaged("the checksum of its header is wrong")),
        }
    }

    /// The bytes of `from..to`.
    pub(crate) fn read(&self, from: u64, to: u64) -> Result<Bytes, LogError> {
        let mut buffer = vec![0; to_usize(to.min(self.bytes).saturating_sub(from))];
        self.file.read_exact_at(&mut buffer, from).map_err(LogError::io(&self.path, "read"))?;
        Ok(buffer.into())
    }

    /// The error for a record that is not intact.
    pub(crate) fn damaged(&self, offset: u64, what: &'static str) -> LogError {
        LogError::Damaged { path: self.path.clone(), offset, what }
    }
}

/// Walks the intact records of one segment in memory, from `offset` on.
pub(crate) struct Scan<'a> {
    /// The file's bytes from `base` on.
    pub(crate) bytes: &'a Bytes,
    /// Where in the file `bytes` begins.
    pub(crate) base: u64,
    /// The segment.
    pub(crate) segment: SegmentId,
    /// Where the next record begins; after the end, where the first byte that is no record lies.
    pub(crate) offset: u64,
}

impl Iterator for Scan<'_> {
    type Item = (u64, Found);

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.offset;
        let found = format::decode(self.bytes, self.base, self.segment, at)?;
        self.offset = found.next;
        Some((at, found))
    }
}

/// Compared with at once, because most of a segment's rest is zero.
static ZEROS: [u8; 4096] = [0; 4096];

/// What lies behind the end of the intact records of a segment.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Behind {
    /// The end of the last intact record found there, when there is one.
    pub(crate) end: Option<u64>,
    /// The highest beginning of a write that carried one of them: all before it had been durable.
    pub(crate) batch_start_max: u64,
}

/// Looks for intact records behind `end`, at every place where one could begin. `bytes` is the whole file.
pub(crate) fn behind(bytes: &Bytes, segment: SegmentId, end: u64) -> Behind {
    let mut behind = Behind::default();
    let tag = segment.tag.to_le_bytes();
    let mut at = to_usize(end);
    while let Some(header) = bytes.get(at..at + format::RECORD_HEADER_BYTES) {
        if bytes.get(at + 8..at + 8 + ZEROS.len()) == Some(&ZEROS) {
            // No tag is zero, so no record begins where its tag would lie in here.
            at += ZEROS.len();
            continue;
        }
        let found = (header[8..16] == tag).then(|| format::decode(bytes, 0, segment, at as u64)).flatten();
        if let Some(found) = found {
            behind.end = behind.end.max(Some(found.next));
            behind.batch_start_max = behind.batch_start_max.max(found.batch_start);
        }
        at += 8;
    }
    behind
}

/// A file offset as an index into a buffer.
pub(crate) fn to_usize(offset: u64) -> usize {
    usize::try_from(offset).expect("a segment fits in memory")
}
