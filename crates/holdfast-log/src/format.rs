//! The bytes of the log: the file header and the records, with their checks. Pure; the layout is in the crate's
//! documentation and pinned by golden tests.

use bytes::Bytes;
use holdfast_env::{LogId, LogIndex, Term};

use crate::Entry;

/// The unit of writing: a write starts and ends at a multiple of this, so that the kernel never has to read a block
/// in order to change a part of it.
pub(crate) const BLOCK_BYTES: u64 = 4096;
/// Where the first record of a segment begins: behind the block of the file header.
pub(crate) const RECORDS_START: u64 = BLOCK_BYTES;
/// The header in front of each record's body.
pub(crate) const RECORD_HEADER_BYTES: usize = 24;
/// Records begin at multiples of this.
const RECORD_ALIGN: usize = 8;
/// What a segment file begins with.
const MAGIC: [u8; 8] = *b"HOLDFAST";
/// The newest layout this code knows; higher ones are refused.
pub(crate) const FORMAT_VERSION: u8 = 1;
/// The Raft group the log belongs to; there is one today.
const GROUP: u64 = 0;
/// Bytes of the file header that carry something; the rest of its block is zero.
const FILE_HEADER_BYTES: usize = 48;
/// An entry's term and index, in front of its payload.
const ENTRY_PREFIX_BYTES: usize = 16;

const _: () = assert!(RECORD_HEADER_BYTES.is_multiple_of(RECORD_ALIGN));
const _: () = assert!(RECORDS_START.is_multiple_of(BLOCK_BYTES));

/// One use of a segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentId {
    /// Grows by one with each new segment and is never used twice.
    pub(crate) epoch: u64,
    /// Random and not zero. Nobody who writes values can know it, so no value can pass for a record, neither in this
    /// use of the file nor in a later one.
    pub(crate) tag: u64,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    /// The first record of each segment: all that must survive the loss of the segments before it.
    Head(Head),
    /// One entry of the Raft log.
    Entry(Entry),
    /// The vote, opaque.
    Vote(Bytes),
    /// All entries behind this one are dropped; all entries when `None`.
    Truncate(Option<LogId>),
    /// All entries up to this one are gone.
    Purge(LogId),
    /// How far the log is committed.
    Committed(LogId),
}

/// The state at the beginning of a segment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Head {
    /// The last purged entry.
    pub(crate) purged: Option<LogId>,
    /// The last entry of the log.
    pub(crate) last: Option<LogId>,
    /// The last committed position saved.
    pub(crate) committed: Option<LogId>,
    /// The last vote saved.
    pub(crate) vote: Option<Bytes>,
    /// The segments before this one that were in use, ascending by epoch, without gaps.
    pub(crate) earlier: Vec<HeadRow>,
}

/// What a segment's head says of an earlier segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeadRow {
    /// Which segment.
    pub(crate) epoch: u64,
    /// The lowest live entry it holds; it holds all up to the first entry of the next one that holds any.
    pub(crate) first: Option<LogIndex>,
    /// Where its records end.
    pub(crate) end: u64,
}

/// A record found in a segment, with the place of what follows it.
#[derive(Debug)]
pub(crate) struct Found {
    /// What it says.
    pub(crate) record: Record,
    /// Where the next record would begin.
    pub(crate) next: u64,
    /// Where the write that carried it began: everything before that was durable when this was written.
    pub(crate) batch_start: u64,
}

/// Why a file header is not accepted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BadHeader {
    /// It does not begin as a segment does.
    Magic,
    /// It was written by newer code.
    Newer(u8),
    /// Its checksum or its fields are wrong.
    Damaged,
}

/// The bytes a record takes in the file, for a body of this length.
pub(crate) const fn record_bytes(body: usize) -> usize {
    (RECORD_HEADER_BYTES + body).next_multiple_of(RECORD_ALIGN)
}

/// The bytes that an entry with a payload of this length takes in its segment.
pub const fn entry_bytes(payload: usize) -> usize {
    record_bytes(ENTRY_PREFIX_BYTES + payload)
}

/// One block with the header of a segment, a file of `file_bytes`.
pub(crate) fn encode_file_header(segment: SegmentId, file_bytes: u64) -> Vec<u8> {
    let mut block = Vec::with_capacity(4096);
    block.extend_from_slice(&MAGIC);
    block.extend_from_slice(&[FORMAT_VERSION, 0, 0, 0]);
    block.extend_from_slice(&[0; 4]);
    block.extend_from_slice(&segment.epoch.to_le_bytes());
    block.extend_from_slice(&file_bytes.to_le_bytes());
    block.extend_from_slice(&GROUP.to_le_bytes());
    block.extend_from_slice(&segment.tag.to_le_bytes());
    let crc = file_header_crc(&block);
    block[12..16].copy_from_slice(&crc.to_le_bytes());
    block.resize(4096, 0);
    block
}

fn file_header_crc(header: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&header[..12]), &header[16..FILE_HEADER_BYTES])
}

/// The segment and the file length that a file header states.
pub(crate) fn decode_file_header(block: &[u8]) -> Result<(SegmentId, u64), BadHeader> {
    if block.len() < FILE_HEADER_BYTES || block[..8] != MAGIC {
        return Err(BadHeader::Magic);
    }
    if block[8] > FORMAT_VERSION {
        return Err(BadHeader::Newer(block[8]));
    }
    let segment = SegmentId { epoch: u64_at(block, 16), tag: u64_at(block, 40) };
    let intact =
        u32_at(block, 12) == file_header_crc(block) && u64_at(block, 32) == GROUP && segment.tag != 0;
    if intact { Ok((segment, u64_at(block, 24))) } else { Err(BadHeader::Damaged) }
}

/// Where a record goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// The segment.
    pub(crate) segment: SegmentId,
    /// The byte in the file where the record begins.
    pub(crate) offset: u64,
    /// The byte in the file where the write that carries it begins.
    pub(crate) batch_start: u64,
}

/// Appends the record to `out`, padded.
pub(crate) fn encode(record: &Record, place: Place, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; RECORD_HEADER_BYTES]);
    encode_body(record, out);
    seal(start, kind(record), place, out);
}

/// Appends a record that was never written: any kind, any body, with its checksum.
#[cfg(any(test, fuzzing))]
pub(crate) fn encode_parts(kind: u8, body: &[u8], place: Place, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; RECORD_HEADER_BYTES]);
    out.extend_from_slice(body);
    seal(start, kind, place, out);
}

/// Writes the header of the record that begins at `start`, and pads it.
fn seal(start: usize, kind: u8, place: Place, out: &mut Vec<u8>) {
    let body = out.len() - start - RECORD_HEADER_BYTES;
    let back = place.offset - place.batch_start;
    let header = &mut out[start..start + RECORD_HEADER_BYTES];
    header[4..8].copy_from_slice(&u32::try_from(body).expect("a record fits in a segment").to_le_bytes());
    header[8..16].copy_from_slice(&place.segment.tag.to_le_bytes());
    header[16..20].copy_from_slice(&u32::try_from(back).expect("a batch fits in a segment").to_le_bytes());
    header[20] = kind;
    let crc = record_crc(place.segment.epoch, place.offset, &out[start + 4..]);
    out[start..start + 4].copy_from_slice(&crc.to_le_bytes());
    out.resize(start + record_bytes(body), 0);
}

const fn kind(record: &Record) -> u8 {
    match record {
        Record::Head(_) => 1,
        Record::Entry(_) => 2,
        Record::Vote(_) => 3,
        Record::Truncate(_) => 4,
        Record::Purge(_) => 5,
        Record::Committed(_) => 6,
    }
}

/// The checksum covers where the record lies, so that what a recycled file held before never parses.
fn record_crc(epoch: u64, offset: u64, rest: &[u8]) -> u32 {
    let mut place = [0; 16];
    place[..8].copy_from_slice(&epoch.to_le_bytes());
    place[8..].copy_from_slice(&offset.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&place), rest)
}

fn encode_body(record: &Record, out: &mut Vec<u8>) {
    match record {
        Record::Head(head) => encode_head(head, out),
        Record::Entry(entry) => {
            put_id(entry.id, out);
            out.extend_from_slice(&entry.payload);
        }
        Record::Vote(vote) => out.extend_from_slice(vote),
        Record::Truncate(last) => put_option_id(*last, out),
        Record::Purge(id) | Record::Committed(id) => put_id(*id, out),
    }
}

fn encode_head(head: &Head, out: &mut Vec<u8>) {
    put_option_id(head.purged, out);
    put_option_id(head.last, out);
    put_option_id(head.committed, out);
    out.push(u8::from(head.vote.is_some()));
    let vote = head.vote.as_deref().unwrap_or_default();
    put_count(vote.len(), out);
    out.extend_from_slice(vote);
    put_count(head.earlier.len(), out);
    for row in &head.earlier {
        out.extend_from_slice(&row.epoch.to_le_bytes());
        out.extend_from_slice(&row.first.map_or(u64::MAX, LogIndex::get).to_le_bytes());
        out.extend_from_slice(&row.end.to_le_bytes());
    }
}

fn put_id(id: LogId, out: &mut Vec<u8>) {
    out.extend_from_slice(&id.term().get().to_le_bytes());
    out.extend_from_slice(&id.index().get().to_le_bytes());
}

fn put_option_id(id: Option<LogId>, out: &mut Vec<u8>) {
    out.push(u8::from(id.is_some()));
    put_id(id.unwrap_or_default(), out);
}

fn put_count(count: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&u32::try_from(count).expect("a record fits in a segment").to_le_bytes());
}

/// The record of `segment` that begins at `offset`, when one is there and intact. `bytes` are the file's bytes
/// from `base` on.
pub(crate) fn decode(bytes: &Bytes, base: u64, segment: SegmentId, offset: u64) -> Option<Found> {
    let at = usize::try_from(offset.checked_sub(base)?).ok()?;
    let header = bytes.get(at..at + RECORD_HEADER_BYTES)?;
    if u64_at(header, 8) != segment.tag || header[21..24] != [0; 3] {
        return None;
    }
    let body_start = at + RECORD_HEADER_BYTES;
    let body_end = body_start.checked_add(usize::try_from(u32_at(header, 4)).ok()?)?;
    let rest = bytes.get(at + 4..body_end)?;
    let batch_start = offset.checked_sub(u64::from(u32_at(header, 16)))?;
    if record_crc(segment.epoch, offset, rest) != u32_at(header, 0) || batch_start < RECORDS_START {
        return None;
    }
    let record = decode_body(header[20], &bytes.slice(body_start..body_end))?;
    let next = offset + record_bytes(body_end - body_start) as u64;
    Some(Found { record, next, batch_start })
}

fn decode_body(kind: u8, body: &Bytes) -> Option<Record> {
    let mut body = Cursor { bytes: body, at: 0 };
    let record = match kind {
        1 => Record::Head(decode_head(&mut body)?),
        2 => Record::Entry(Entry { id: body.id()?, payload: body.rest() }),
        3 => Record::Vote(body.rest()),
        4 => Record::Truncate(body.option_id()?),
        5 => Record::Purge(body.id()?),
        6 => Record::Committed(body.id()?),
        _ => return None,
    };
    (body.at == body.bytes.len()).then_some(record)
}

fn decode_head(body: &mut Cursor<'_>) -> Option<Head> {
    let purged = body.option_id()?;
    let last = body.option_id()?;
    let committed = body.option_id()?;
    let has_vote = body.u8()? != 0;
    let vote_bytes = body.u32()? as usize;
    let vote = body.take(vote_bytes)?;
    let rows = body.u32()?;
    let mut earlier = Vec::new();
    for _ in 0..rows {
        let epoch = body.u64()?;
        let first = Some(body.u64()?).filter(|first| *first != u64::MAX).map(LogIndex::new);
        earlier.push(HeadRow { epoch, first, end: body.u64()? });
    }
    Some(Head { purged, last, committed, vote: has_vote.then_some(vote), earlier })
}

struct Cursor<'a> {
    bytes: &'a Bytes,
    at: usize,
}

impl Cursor<'_> {
    fn take(&mut self, count: usize) -> Option<Bytes> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len())?;
        let taken = self.bytes.slice(self.at..end);
        self.at = end;
        Some(taken)
    }
    fn rest(&mut self) -> Bytes {
        let rest = self.bytes.slice(self.at..);
        self.at = self.bytes.len();
        rest
    }
    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }
    fn u32(&mut self) -> Option<u32> {
        self.take(4).map(|b| u32_at(&b, 0))
    }
    fn u64(&mut self) -> Option<u64> {
        self.take(8).map(|b| u64_at(&b, 0))
    }
    /// The last index of all is none: there would be none behind it.
    fn id(&mut self) -> Option<LogId> {
        let (term, index) = (self.u64()?, self.u64()?);
        (index != u64::MAX).then(|| LogId::new(Term::new(term), LogIndex::new(index)))
    }
    fn option_id(&mut self) -> Option<Option<LogId>> {
        let is_some = self.u8()? != 0;
        let id = self.id()?;
        Some(is_some.then_some(id))
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("the slice has four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("the slice has eight bytes"))
}

#[cfg(test)]
mod tests;
