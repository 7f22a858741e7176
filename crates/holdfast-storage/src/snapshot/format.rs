//! The layout of a snapshot file.
//!
//! ```text
//! file     start | block … | footer | trailer
//! start    "HOLDSNAP" (8) | version 4 (1) | zeros (3) | CRC-32C u32 LE of the bytes before; zeros up to version 3
//! block    raw length u32 LE, not 0 | stored length u32 LE | CRC-32C u32 LE | stored bytes
//! footer   0 u32 | length u32 LE | CRC-32C u32 LE | codec Footer
//! trailer  offset of the footer u64 LE
//! ```
//! The start keeps this form in all versions to come: only one whose checksum matches tells of a newer release, and not of a
//! version byte that has rotted.
//!
//! A block holds at most 1 MiB of the *content*; it is LZ4 when the stored length is below the raw length, else it is
//! stored as it is. Checksums cover the two lengths and the stored bytes. The content is a stream of frames. A reader takes
//! blocks as they are cut; a writer cuts before and behind each value pack, because LZ4 steps over what it takes for noise,
//! and a meta pack behind 32 KiB of values that do not compress would go with them:
//!
//! ```text
//! frame    'P' | length u32 LE | codec Preface            once, first
//!          'U' | length u32 LE | a piece of users and roles (`auth`)   directly behind it; none: there are none; since version 3
//!          'L' | length u32 LE | leases (`lease`)      ascending by id, before all records; since version 2
//!          'R' | meta length u32 LE | value length u32 LE | meta pack | value pack
//!          'E'                                            once, last
//! ```
//! The content is a function of the log up to the position alone: which records, how they are cut into runs, and so
//! the SHA-256 in the footer are equal on all members.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use holdfast_env::{DiskFile, Failpoint, Faults};
use holdfast_mvcc::Head;
use holdfast_mvcc::auth::{AUTH_BYTES_MAX, Auth};
use holdfast_mvcc::types::{Lease, LeaseId, RecordId};
use sha2::{Digest, Sha256};

use crate::auth;
use crate::codec::{self, Footer, Preface};
use crate::error::{StorageError, StoreError};
use crate::lease;
use crate::limits::{BLOCK_BYTES, FILE_SYNC_BYTES, LEASE_FRAME_MAX};
use crate::pack::Run;
use crate::types::Applied;

const NAME: &[u8; 8] = b"HOLDSNAP";
const VERSION: u8 = 4;
/// Before it there was no checksum in the start; 1 had no leases, 2 no users and roles; all are the same in all else.
const FIRST_CHECKED: u8 = 4;
const START_BYTES: usize = 16;
/// Of the start, in front of its checksum.
const START_CHECKED_BYTES: usize = 12;
const BLOCK_HEADER: usize = 12;

/// Bytes of users and roles in one frame.
const AUTH_FRAME_BYTES: usize = 256 << 10;

/// Twice what the state lets them have, for what their form costs.
const AUTH_CONTENT_BYTES_MAX: usize = 2 * AUTH_BYTES_MAX;

/// A frame of the content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    /// The state beside the records, with users and roles, and the position.
    Preface(Head, Applied),
    /// Some leases.
    Leases(Vec<(LeaseId, Lease)>),
    /// Some records.
    Run(Run),
    /// Nothing follows.
    End,
}

/// Writes a snapshot file from the start.
pub(crate) struct Writer {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    /// How much of it is written. That is made durable in parts, since the log's own writes wait behind what the disk has
    /// been given at once.
    written: u64,
    /// What comes behind that, and is not written yet.
    part: Vec<u8>,
    block: Vec<u8>,
    /// Where blocks are compressed.
    packed: Vec<u8>,
    sha: Sha256,
    blocks: u64,
    content_bytes: u64,
    faults: Faults,
}

impl Writer {
    /// Begins in an empty file.
    pub(crate) fn new(file: Box<dyn DiskFile>, path: PathBuf, faults: Faults) -> Result<Self, StorageError> {
        let mut writer = Self {
            file,
            path,
            written: 0,
            part: start(VERSION).to_vec(),
            block: Vec::new(),
            packed: Vec::new(),
            sha: Sha256::new(),
            blocks: 0,
            content_bytes: 0,
            faults,
        };
        // At once: a disk without room is found out before anything is read for it.
        writer.write_part()?;
        Ok(writer)
    }

    /// The first frames.
    pub(crate) fn preface(&mut self, head: &Head, applied: &Applied) -> Result<(), StorageError> {
        let preface = codec::encode(&Preface::new(head, applied));
        self.content(b"P")?;
        self.content(&length(preface.len()))?;
        self.content(&preface)?;
        if *head.auth == Auth::default() {
            return Ok(());
        }
        for piece in auth::encode(&head.auth).chunks(AUTH_FRAME_BYTES) {
            self.content(b"U")?;
            self.content(&length(piece.len()))?;
            self.content(piece)?;
        }
        Ok(())
    }

    /// Frames with leases, behind the first one.
    pub(crate) fn leases(&mut self, leases: &[(LeaseId, Lease)]) -> Result<(), StorageError> {
        for some in leases.chunks(LEASE_FRAME_MAX) {
            let frame = lease::frame(some);
            self.content(b"L")?;
            self.content(&length(frame.len()))?;
            self.content(&frame)?;
        }
        Ok(())
    }

    /// A frame with records.
    pub(crate) fn run(&mut self, run: &Run) -> Result<(), StorageError> {
        self.content(b"R")?;
        self.content(&length(run.meta.len()))?;
        self.content(&length(run.value.len()))?;
        self.content(&run.meta)?;
        self.flush_block()?;
        self.content(&run.value)?;
        self.flush_block()
    }

    /// The last frame and the footer; syncs the file.
    pub(crate) fn finish(mut self, applied: &Applied, records: u64) -> Result<Footer, StorageError> {
        self.content(b"E")?;
        self.flush_block()?;
        let sha256 = std::mem::take(&mut self.sha).finalize().into();
        let (blocks, content_bytes) = (self.blocks, self.content_bytes);
        let footer = Footer { applied: applied.into(), blocks, records, content_bytes, sha256 };
        let at = self.written + self.part.len() as u64;
        let encoded = codec::encode(&footer);
        self.append_checked(0, &encoded);
        self.part.extend_from_slice(&at.to_le_bytes());
        self.write_part()?;
        self.file.sync_all().map_err(StorageError::io(&self.path, "sync"))?;
        Ok(footer)
    }

    /// Appends to the content.
    pub(crate) fn content(&mut self, mut bytes: &[u8]) -> Result<(), StorageError> {
        self.sha.update(bytes);
        self.content_bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK_BYTES - self.block.len()));
            self.block.extend_from_slice(now);
            bytes = later;
            if self.block.len() == BLOCK_BYTES {
                self.flush_block()?;
            }
        }
        Ok(())
    }

    fn flush_block(&mut self) -> Result<(), StorageError> {
        if self.block.is_empty() {
            return Ok(());
        }
        let (mut raw, mut packed) = (std::mem::take(&mut self.block), std::mem::take(&mut self.packed));
        let room = lz4_flex::block::get_maximum_output_size(raw.len());
        packed.resize(packed.len().max(room), 0);
        let bytes =
            lz4_flex::block::compress_into(&raw, &mut packed).expect("there is room for the worst case");
        // Below an eighth of gain, reading without decompression is worth more.
        let stored = if bytes < raw.len() / 8 * 7 { &packed[..bytes] } else { &raw };
        self.append_checked(raw.len(), stored);
        raw.clear();
        (self.block, self.packed) = (raw, packed);
        self.faults.hit(Failpoint::DumpWriteBlock);
        self.blocks += 1;
        if self.part.len() as u64 >= FILE_SYNC_BYTES {
            self.write_part()?;
            self.file.sync_data().map_err(StorageError::io(&self.path, "sync"))?;
        }
        Ok(())
    }

    fn append_checked(&mut self, raw_len: usize, stored: &[u8]) {
        let at = self.part.len();
        self.part.extend_from_slice(&length(raw_len));
        self.part.extend_from_slice(&length(stored.len()));
        let checksum = checksum(&self.part[at..], stored);
        self.part.extend_from_slice(&checksum.to_le_bytes());
        self.part.extend_from_slice(stored);
    }

    fn write_part(&mut self) -> Result<(), StorageError> {
        let io = StorageError::io(&self.path, "write");
        self.file.write_all_at(&self.part, self.written).map_err(io)?;
        self.written += self.part.len() as u64;
        self.part.clear();
        Ok(())
    }
}

/// Reads a snapshot file frame by frame, checking all that has a checksum.
pub(crate) struct Reader {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    footer: Footer,
    footer_at: u64,
    offset: u64,
    blocks: u64,
    buffer: BytesMut,
    /// None: the digest is not checked.
    sha: Option<Sha256>,
}

impl Reader {
    /// Checks header, trailer and footer.
    pub(crate) fn new(file: Arc<dyn DiskFile>, path: PathBuf) -> Result<Self, StorageError> {
        let bad = |detail: &str| StorageError::BadSnapshot { path: path.clone(), detail: detail.to_owned() };
        let len = file.len().map_err(StorageError::io(&path, "measure"))?;
        let min = START_BYTES + BLOCK_HEADER + 8;
        if len < min as u64 {
            return Err(bad("too short"));
        }
        let read = |at: u64, bytes: usize| {
            let mut buffer = vec![0; bytes];
            file.read_exact_at(&mut buffer, at).map_err(StorageError::io(&path, "read"))?;
            Ok::<_, StorageError>(buffer)
        };
        check_start(&read(0, START_BYTES)?).map_err(|error| StorageError::snapshot(&path, error))?;
        let trailer: [u8; 8] = read(len - 8, 8)?.try_into().expect("eight bytes were read");
        let footer_at = u64::from_le_bytes(trailer);
        if footer_at < START_BYTES as u64 || footer_at > len - (BLOCK_HEADER as u64 + 8) {
            return Err(bad("the trailer points nowhere"));
        }
        let bytes = usize::try_from(len - 8 - footer_at).map_err(|_| bad("too long"))?;
        if bytes > 32 << 20 {
            return Err(bad("the footer is too long"));
        }
        let stored = read(footer_at, bytes)?;
        if word(&stored, 0) != 0 || word(&stored, 4) as usize != bytes - BLOCK_HEADER {
            return Err(bad("the footer has the wrong length"));
        }
        if word(&stored, 8) != checksum(&stored[..8], &stored[BLOCK_HEADER..]) {
            return Err(bad("the footer's checksum does not match"));
        }
        let footer: Footer =
            codec::decode(&stored[BLOCK_HEADER..]).map_err(|e| StorageError::snapshot(&path, e))?;
        let (offset, buffer, sha) = (START_BYTES as u64, BytesMut::new(), Some(Sha256::new()));
        Ok(Self { file, path, footer, footer_at, offset, blocks: 0, buffer, sha })
    }

    /// Leaves the digest out: for who has just made it of what it wrote, and asks whether that is in the file. Blocks and
    /// packs have checksums of their own.
    pub(crate) fn without_digest(self) -> Self {
        Self { sha: None, ..self }
    }

    /// What the snapshot contains.
    pub(crate) fn applied(&self) -> Applied {
        self.footer.applied.clone().into()
    }

    /// Names the content.
    pub(crate) fn id(&self) -> String {
        id(&self.footer)
    }

    /// Reads everything and checks that it is whole, can be decoded, and is what the footer says: what has passed can
    /// be installed.
    pub(crate) fn verify(self) -> Result<(), StorageError> {
        let mut verification = self.verification()?;
        while !verification.step(usize::MAX)? {}
        Ok(())
    }

    /// Begins to verify in steps.
    pub(crate) fn verification(mut self) -> Result<Verification, StorageError> {
        let Frame::Preface(_, applied) = self.frame()? else {
            return Err(self.bad("it does not begin with a preface"));
        };
        if applied != self.applied() {
            return Err(self.bad("preface and footer name different positions"));
        }
        Ok(Verification { reader: self, records: 0, last: None, last_lease: None })
    }

    /// The next frame. [`Frame::End`] comes only when the whole content matched its digest, if that is checked.
    pub(crate) fn frame(&mut self) -> Result<Frame, StorageError> {
        self.need(1)?;
        match self.take(1)?[0] {
            b'P' => {
                let len = self.take_length()?;
                let preface = self.take(len)?;
                let preface: Preface = codec::decode(&preface).map_err(|e| self.unreadable(e))?;
                let (mut head, applied) = preface.into_parts().map_err(|e| self.unreadable(e))?;
                if let Some(auth) = self.take_auth()? {
                    head.auth = auth;
                }
                Ok(Frame::Preface(head, applied))
            }
            b'L' => {
                let len = self.take_length()?;
                let leases = self.take(len)?;
                Ok(Frame::Leases(lease::from_frame(&leases).map_err(|e| self.unreadable(e))?))
            }
            b'R' => {
                let (meta, value) = (self.take_length()?, self.take_length()?);
                let (meta, value) = (self.take(meta)?, self.take(value)?);
                let first = crate::pack::first_id(&meta).map_err(|e| self.unreadable(e))?;
                let first = first.ok_or_else(|| self.bad("an empty run"))?;
                Ok(Frame::Run(Run { first, meta, value }))
            }
            b'E' => {
                if !self.buffer.is_empty() || self.read_block()? {
                    return Err(self.bad("content behind its end"));
                }
                self.check_end()?;
                Ok(Frame::End)
            }
            _ => Err(self.bad("an unknown frame")),
        }
    }

    fn check_end(&mut self) -> Result<(), StorageError> {
        let sha = self.sha.take().map_or(self.footer.sha256, |sha| sha.finalize().into());
        if self.blocks != self.footer.blocks || sha != self.footer.sha256 {
            return Err(self.bad("the content does not match its digest"));
        }
        Ok(())
    }

    /// The frames with users and roles that come next, if any do.
    fn take_auth(&mut self) -> Result<Option<Arc<Auth>>, StorageError> {
        let mut content = Vec::new();
        loop {
            self.need(1)?;
            if self.buffer[0] != b'U' {
                break;
            }
            self.take(1)?;
            let len = self.take_length()?;
            if content.len() + len > AUTH_CONTENT_BYTES_MAX {
                return Err(self.bad("users and roles are too long"));
            }
            content.extend_from_slice(&self.take(len)?);
        }
        let found = (!content.is_empty()).then(|| auth::decode(&content));
        found.transpose().map_err(|e| self.unreadable(e))
    }

    fn take_length(&mut self) -> Result<usize, StorageError> {
        Ok(word(&self.take(4)?, 0) as usize)
    }

    fn take(&mut self, bytes: usize) -> Result<Bytes, StorageError> {
        self.need(bytes)?;
        Ok(self.buffer.split_to(bytes).freeze())
    }

    fn need(&mut self, bytes: usize) -> Result<(), StorageError> {
        while self.buffer.len() < bytes {
            if !self.read_block()? {
                return Err(self.bad("the content ends too early"));
            }
        }
        Ok(())
    }

    /// Appends the next block to the buffer; false at the footer.
    fn read_block(&mut self) -> Result<bool, StorageError> {
        if self.offset == self.footer_at {
            return Ok(false);
        }
        let mut header = [0; BLOCK_HEADER];
        self.read(&mut header)?;
        let (raw_len, stored_len) = (word(&header, 0) as usize, word(&header, 4) as usize);
        if raw_len == 0 || raw_len > BLOCK_BYTES || stored_len > raw_len {
            return Err(self.bad("a block has an impossible length"));
        }
        let mut stored = vec![0; stored_len];
        self.read(&mut stored)?;
        if checksum(&header[..8], &stored) != word(&header, 8) {
            return Err(self.bad("a block's checksum does not match"));
        }
        let raw = if stored_len < raw_len {
            lz4_flex::block::decompress(&stored, raw_len).map_err(|e| self.bad(&e.to_string()))?
        } else {
            stored
        };
        if raw.len() != raw_len {
            return Err(self.bad("a block has the wrong length"));
        }
        if let Some(sha) = &mut self.sha {
            sha.update(&raw);
        }
        self.buffer.extend_from_slice(&raw);
        self.blocks += 1;
        Ok(true)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<(), StorageError> {
        if self.offset + buffer.len() as u64 > self.footer_at {
            return Err(self.bad("a block reaches into the footer"));
        }
        self.file.read_exact_at(buffer, self.offset).map_err(StorageError::io(&self.path, "read"))?;
        self.offset += buffer.len() as u64;
        Ok(())
    }

    fn unreadable(&self, error: StoreError) -> StorageError {
        StorageError::snapshot(&self.path, error)
    }

    fn bad(&self, detail: &str) -> StorageError {
        StorageError::BadSnapshot { path: self.path.clone(), detail: detail.to_owned() }
    }
}

/// A file that is being verified.
pub(crate) struct Verification {
    reader: Reader,
    records: u64,
    last: Option<RecordId>,
    last_lease: Option<LeaseId>,
}

impl Verification {
    /// Checks the next frames; true when all of the file is checked.
    pub(crate) fn step(&mut self, frames: usize) -> Result<bool, StorageError> {
        let reader = &mut self.reader;
        for _ in 0..frames {
            match reader.frame()? {
                Frame::Run(run) => {
                    if self.last >= Some(run.first) {
                        return Err(reader.bad("the runs are out of order"));
                    }
                    let (last, records) = (&mut self.last, &mut self.records);
                    run.each_entry(|entry| {
                        *last = Some(entry.id);
                        *records += 1;
                        Ok(())
                    })
                    .map_err(|e: StoreError| reader.unreadable(e))?;
                }
                Frame::Leases(leases) => {
                    let ids: Vec<_> =
                        self.last_lease.into_iter().chain(leases.iter().map(|(id, _)| *id)).collect();
                    if self.last.is_some() || !ids.windows(2).all(|pair| pair[0] < pair[1]) {
                        return Err(reader.bad("the leases are out of order"));
                    }
                    self.last_lease = ids.last().copied();
                }
                Frame::End if self.records == reader.footer.records => return Ok(true),
                Frame::End => return Err(reader.bad("the number of records is not the footer's")),
                Frame::Preface(..) => return Err(reader.bad("a second preface")),
            }
        }
        Ok(false)
    }
}

/// Names a content: its position, and the start of its digest.
pub(crate) fn id(footer: &Footer) -> String {
    let applied: Applied = footer.applied.clone().into();
    let (term, index) = applied.log_id.map_or((0, 0), |id| (id.term().get(), id.index().get()));
    let digest: String = footer.sha256[..8].iter().map(|b| format!("{b:02x}")).collect();
    format!("{term}-{index}-{digest}")
}

fn length(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).expect("packs and blocks are far below 4 GiB").to_le_bytes()
}

/// What a file begins with.
fn start(version: u8) -> [u8; START_BYTES] {
    let mut start = [0; START_BYTES];
    start[..NAME.len()].copy_from_slice(NAME);
    start[NAME.len()] = version;
    if version >= FIRST_CHECKED {
        let checksum = crc32c::crc32c(&start[..START_CHECKED_BYTES]);
        start[START_CHECKED_BYTES..].copy_from_slice(&checksum.to_le_bytes());
    }
    start
}

/// Whether what follows can be read by this release.
fn check_start(found: &[u8]) -> Result<(), StoreError> {
    let version = found[NAME.len()];
    if found == start(version) {
        return match version {
            0 => Err(StoreError::damaged("version 0")),
            1..=VERSION => Ok(()),
            _ => Err(StoreError::newer("the snapshot", version, VERSION)),
        };
    }
    let is_ours = found.starts_with(NAME);
    // A newer release may use what are zeros here, but has its checksum at the same place.
    if is_ours && word(found, START_CHECKED_BYTES) == crc32c::crc32c(&found[..START_CHECKED_BYTES]) {
        return Err(StoreError::newer("the snapshot", version, VERSION));
    }
    Err(StoreError::damaged(if is_ours { "its start does not match its checksum" } else { "not a snapshot" }))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn checksum(lengths: &[u8], stored: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(lengths), stored)
}

#[cfg(test)]
mod tests {
    use holdfast_mvcc::State;
    use holdfast_mvcc::types::{Change, PutRecord, Record, Revision};

    use super::*;
    use crate::fuzz::File;
    use crate::pack::RunBuilder;
    use crate::record::Stored;

    /// A snapshot of one record.
    fn file() -> Vec<u8> {
        let put = PutRecord {
            create_revision: Revision::new(2),
            version: 1,
            lease: None,
            value: Bytes::from_static(b"value"),
        };
        let id = RecordId::new(Revision::new(2), 0);
        let stored = Stored::new(Record { id, key: Bytes::from_static(b"key"), change: Change::Put(put) });
        let mut builder = RunBuilder::new(1024);
        assert!(builder.add(stored.entry()).is_none());
        let file = File::default();
        let mut writer = Writer::new(Box::new(file.clone()), PathBuf::new(), Faults::default()).unwrap();
        writer.preface(State::default().head(), &Applied::default()).unwrap();
        writer.run(&builder.finish().unwrap()).unwrap();
        writer.finish(&Applied::default(), 1).unwrap();
        file.bytes()
    }

    fn read(bytes: &[u8]) -> Result<Reader, StorageError> {
        Reader::new(Arc::new(File::holding(bytes)), PathBuf::new())
    }

    /// As a dump does it behind its own writing.
    #[test]
    fn every_flipped_bit_is_found_without_the_digest() {
        let mut bytes = file();
        read(&bytes).unwrap().without_digest().verify().unwrap();
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&bytes).and_then(|reader| reader.without_digest().verify()).is_err(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    /// A file whose parts are all whole, and that is not what its writer meant.
    #[test]
    fn the_digest_is_checked_where_it_is_not_left_out() {
        let mut bytes = file();
        let at = u64::from_le_bytes(bytes[bytes.len() - 8..].try_into().unwrap());
        let from = usize::try_from(at).unwrap();
        let to = bytes.len() - 8;
        let mut footer: Footer = codec::decode(&bytes[from + BLOCK_HEADER..to]).unwrap();
        footer.sha256[0] ^= 1;
        let encoded = codec::encode(&footer);
        let sum = checksum(&bytes[from..from + 8], &encoded);
        bytes[from + 8..from + BLOCK_HEADER].copy_from_slice(&sum.to_le_bytes());
        bytes[from + BLOCK_HEADER..to].copy_from_slice(&encoded);
        let refused = read(&bytes).unwrap().verify();
        assert!(matches!(refused, Err(StorageError::BadSnapshot { .. })), "{refused:?}");
        read(&bytes).unwrap().without_digest().verify().unwrap();
    }

    /// The bytes on disk; a change here needs a new version.
    #[test]
    fn golden_bytes_of_the_start() {
        assert_eq!(start(4), *b"HOLDSNAP\x04\0\0\0\xf3\x41\xca\x85");
        assert_eq!(start(3), *b"HOLDSNAP\x03\0\0\0\0\0\0\0");
    }
}
