//! The layout of a checkpoint file.
//!
//! ```text
//! file     "HOLDINDX" (8) | version 1 (1) | zeros (7) | block … | footer
//! block    part 'K', 'R' or 'T' (1) | raw length u32 LE, not 0 | stored length u32 LE | CRC-32C u32 LE | stored bytes
//! footer   blocks u64 LE | since u64 LE | through u64 LE | compact revision u64 LE | logical bytes u64 LE | CRC-32C u32 LE
//! ```
//! A block holds joined pieces of one part of [`holdfast_mvcc::checkpoint`]: keys, replaced puts, tombstones. It is LZ4
//! when the stored length is below the raw length. A checksum covers the number of its block (u64 LE, from 0) and what
//! lies before and behind it; that of the footer what lies before it. A compact revision that never was is `u64::MAX`.

use std::path::Path;

use holdfast_env::{Disk, DiskFile, Failpoint, Faults, OpenMode};
use holdfast_mvcc::checkpoint::{Part, Saved};
use holdfast_mvcc::types::Revision;

use crate::error::{StorageError, StoreError};
use crate::limits::{CHECKPOINT_BLOCK_BYTES, FILE_SYNC_BYTES};

const MAGIC: &[u8; 16] = b"HOLDINDX\x01\0\0\0\0\0\0\0";
const BLOCK_HEADER: usize = 13;
const FOOTER: usize = 44;
/// A block is closed by the first piece that makes it as long as [`CHECKPOINT_BLOCK_BYTES`]; a piece may be longer than
/// that: 512 keys with all that is retained of them.
const RAW_MAX: usize = 1 << 30;
/// LZ4 packs no more bytes into one: what claims more must not take that much memory.
const LZ4_RATIO_MAX: usize = 255;
const NEVER: u64 = u64::MAX;

/// Writes a checkpoint file from the start.
pub(crate) struct Writer {
    file: Box<dyn DiskFile>,
    offset: u64,
    /// What lies before it is durable.
    synced: u64,
    blocks: u64,
    part: Part,
    /// Pieces of `part` that wait for their block.
    raw: Vec<u8>,
    faults: Faults,
}

impl Writer {
    /// Begins a file, in the place of what an interrupted attempt has left.
    pub(crate) fn create(disk: &dyn Disk, path: &Path, faults: Faults) -> Result<Self, StorageError> {
        if disk.exists(path).map_err(StorageError::io(path, "look for"))? {
            disk.remove_file(path).map_err(StorageError::io(path, "remove"))?;
        }
        let file = disk.open(path, OpenMode::CreateNew).map_err(StorageError::io(path, "create"))?;
        Self::new(file, faults).map_err(StorageError::io(path, "write"))
    }

    /// Begins in an empty file.
    pub(crate) fn new(file: Box<dyn DiskFile>, faults: Faults) -> Result<Self, std::io::Error> {
        file.write_all_at(MAGIC, 0)?;
        let (offset, raw) = (MAGIC.len() as u64, Vec::with_capacity(CHECKPOINT_BLOCK_BYTES));
        Ok(Self { file, offset, synced: 0, blocks: 0, part: Part::Keys, raw, faults })
    }

    /// Lets `piece` append the next piece, and writes a block when there is enough for one. False when there are no
    /// more pieces.
    pub(crate) fn piece<E>(
        &mut self,
        piece: impl FnOnce(&mut Vec<u8>) -> Result<Option<Part>, E>,
    ) -> Result<Result<bool, E>, std::io::Error> {
        let before = self.raw.len();
        let part = match piece(&mut self.raw) {
            Ok(Some(part)) => part,
            Ok(None) => return Ok(Ok(false)),
            Err(error) => return Ok(Err(error)),
        };
        if part != self.part {
            let first = self.raw.split_off(before);
            self.block()?;
            (self.part, self.raw) = (part, first);
        }
        if self.raw.len() >= CHECKPOINT_BLOCK_BYTES {
            self.block()?;
        }
        Ok(Ok(true))
    }

    /// Ends the file, durably; returns its length.
    pub(crate) fn finish(mut self, saved: Saved) -> Result<u64, std::io::Error> {
        self.block()?;
        let Saved { since, through, compact_revision, logical_bytes } = saved;
        let compact_revision = compact_revision.map_or(NEVER, Revision::get);
        let numbers = [self.blocks, since.get(), through.get(), compact_revision, logical_bytes];
        let mut footer: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        footer.extend_from_slice(&crc32c::crc32c(&footer).to_le_bytes());
        self.append(&footer)?;
        self.file.sync_all()?;
        self.faults.hit(Failpoint::CheckpointSynced);
        Ok(self.offset)
    }

    fn block(&mut self) -> Result<(), std::io::Error> {
        if self.raw.is_empty() {
            return Ok(());
        }
        assert!(self.raw.len() <= RAW_MAX, "a block of {} bytes", self.raw.len());
        let packed = lz4_flex::block::compress(&self.raw);
        // Below an eighth of gain, reading without decompression is worth more.
        let stored = if packed.len() < self.raw.len() / 8 * 7 { &packed } else { &self.raw };
        let mut block = Vec::with_capacity(BLOCK_HEADER + stored.len());
        block.push(byte(self.part));
        for length in [self.raw.len(), stored.len()] {
            let length = u32::try_from(length).expect("a block is far below 4 GiB");
            block.extend_from_slice(&length.to_le_bytes());
        }
        let crc = checksum(self.blocks, &block, stored);
        block.extend_from_slice(&crc.to_le_bytes());
        block.extend_from_slice(stored);
        self.append(&block)?;
        // In parts: behind all of it at once the log's syncs would wait.
        if self.offset - self.synced >= FILE_SYNC_BYTES {
            self.file.sync_data()?;
            self.synced = self.offset;
        }
        self.raw.clear();
        self.blocks += 1;
        self.faults.hit(Failpoint::CheckpointWriteBlock);
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), std::io::Error> {
        self.file.write_all_at(bytes, self.offset)?;
        self.offset += bytes.len() as u64;
        Ok(())
    }
}

/// Reads a checkpoint file block by block, checking all that has a checksum.
pub(crate) struct Reader {
    file: Box<dyn DiskFile>,
    saved: Saved,
    offset: u64,
    /// Where the footer begins.
    end: u64,
    read: u64,
    blocks: u64,
}

impl Reader {
    /// Checks header and footer.
    pub(crate) fn new(file: Box<dyn DiskFile>) -> Result<Self, StoreError> {
        let len = file.len().map_err(StoreError::Failed)?;
        let end = len.checked_sub(FOOTER as u64).filter(|end| *end >= MAGIC.len() as u64);
        let end = end.ok_or_else(|| StoreError::damaged("too short"))?;
        if read(&*file, 0, MAGIC.len())? != MAGIC {
            return Err(StoreError::damaged("not a checkpoint, or one of another release"));
        }
        let footer = read(&*file, end, FOOTER)?;
        if word(&footer, FOOTER - 4) != crc32c::crc32c(&footer[..FOOTER - 4]) {
            return Err(StoreError::damaged("the footer's checksum does not match"));
        }
        let numbers = |place: usize| {
            let bytes = footer[8 * place..].first_chunk().expect("the footer has five numbers");
            u64::from_le_bytes(*bytes)
        };
        let saved = Saved {
            since: Revision::new(numbers(1)),
            through: Revision::new(numbers(2)),
            compact_revision: Some(numbers(3)).filter(|compact| *compact != NEVER).map(Revision::new),
            logical_bytes: numbers(4),
        };
        Ok(Self { file, saved, offset: MAGIC.len() as u64, end, read: 0, blocks: numbers(0) })
    }

    /// What it holds.
    pub(crate) fn saved(&self) -> Saved {
        self.saved
    }

    /// The file's length.
    pub(crate) fn bytes(&self) -> u64 {
        self.end + FOOTER as u64
    }

    /// The next block; `None` behind the last one.
    pub(crate) fn block(&mut self) -> Result<Option<(Part, Vec<u8>)>, StoreError> {
        let left = self.end - self.offset;
        if left == 0 {
            return match self.read == self.blocks {
                true => Ok(None),
                false => Err(StoreError::damaged("blocks are missing")),
            };
        }
        if left < BLOCK_HEADER as u64 {
            return Err(StoreError::damaged("a block is cut"));
        }
        let header = read(&*self.file, self.offset, BLOCK_HEADER)?;
        let (raw, stored) = (word(&header, 1) as usize, word(&header, 5) as usize);
        let part = part(header[0]).ok_or_else(|| StoreError::damaged("an unknown part"))?;
        let is_possible = stored <= raw && raw <= RAW_MAX && raw.div_ceil(LZ4_RATIO_MAX) <= stored;
        if stored as u64 > left - BLOCK_HEADER as u64 || !is_possible {
            return Err(StoreError::damaged("a block has an impossible length"));
        }
        let content = read(&*self.file, self.offset + BLOCK_HEADER as u64, stored)?;
        if word(&header, 9) != checksum(self.read, &header[..9], &content) {
            return Err(StoreError::damaged("a block's checksum does not match"));
        }
        self.offset += (BLOCK_HEADER + stored) as u64;
        self.read += 1;
        if stored == raw {
            return Ok(Some((part, content)));
        }
        let content = lz4_flex::block::decompress(&content, raw);
        let content = content.map_err(|e| StoreError::damaged(format!("a block: {e}")))?;
        if content.len() == raw {
            Ok(Some((part, content)))
        } else {
            Err(StoreError::damaged("a short block"))
        }
    }
}

fn byte(part: Part) -> u8 {
    match part {
        Part::Keys => b'K',
        Part::ReplacedPuts => b'R',
        Part::Tombstones => b'T',
    }
}

fn part(byte: u8) -> Option<Part> {
    [Part::Keys, Part::ReplacedPuts, Part::Tombstones].into_iter().find(|part| self::byte(*part) == byte)
}

fn checksum(number: u64, header: &[u8], content: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&number.to_le_bytes()), header);
    crc32c::crc32c_append(crc, content)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn read(file: &dyn DiskFile, at: u64, bytes: usize) -> Result<Vec<u8>, StoreError> {
    let mut buffer = vec![0; bytes];
    file.read_exact_at(&mut buffer, at).map_err(StoreError::Failed)?;
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::File;

    #[test]
    fn a_block_takes_no_more_memory_than_it_can_fill() {
        let file = File::default();
        let mut writer = Writer::new(Box::new(file.clone()), Faults::default()).unwrap();
        let piece = writer.piece(|out| {
            out.extend_from_slice(&[7; 4096]);
            Ok::<_, std::convert::Infallible>(Some(Part::Keys))
        });
        assert!(matches!(piece, Ok(Ok(true))));
        let (since, through) = (Revision::new(1), Revision::new(1));
        writer.finish(Saved { since, through, compact_revision: None, logical_bytes: 0 }).unwrap();
        let block = || Reader::new(Box::new(file.clone())).unwrap().block();
        assert_eq!(block().unwrap().unwrap().1, [7; 4096]);
        // With a checksum that agrees, as if it had been written so.
        let at = MAGIC.len() as u64;
        let mut header = read(&file, at, BLOCK_HEADER).unwrap();
        let content = read(&file, at + BLOCK_HEADER as u64, word(&header, 5) as usize).unwrap();
        header[1..5].copy_from_slice(&(1_u32 << 30).to_le_bytes());
        let crc = checksum(0, &header[..9], &content);
        header[9..].copy_from_slice(&crc.to_le_bytes());
        file.write_all_at(&header, at).unwrap();
        let refused = block().unwrap_err().to_string();
        assert!(refused.contains("impossible length"), "{refused}");
    }
}
