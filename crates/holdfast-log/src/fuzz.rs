//! Fuzz targets: the files of a log, with damage that a checksum does not see. Run by `scripts/fuzz`; the inputs that
//! are kept run with the tests.

use std::path::Path;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use holdfast_env::{
    BoxFuture, Clock, Disk, Env, Faults, LogIndex, Monotonic, NoNet, OpenMode, OsRng, Spawn, TaskHandle,
    UnixMillis,
};
use tokio::sync::oneshot;

use crate::format::{self, BLOCK_BYTES, Place, RECORDS_START, SegmentId};
use crate::segment::{Scan, behind, segment_path, to_usize};
use crate::{Log, LogConfig};

/// Ends a file: what follows goes to the next one.
const NEXT_FILE: u8 = 7;
/// Bytes that are put down as they are.
const RAW: u8 = 8;
/// Ends the write that the records before it came with.
const NEXT_BATCH: u8 = 9;
const SEGMENT_BYTES: u64 = 4 * BLOCK_BYTES;

/// The files that the input describes: records with any content, each with its checksum.
fn files(mut input: &[u8]) -> Vec<(SegmentId, Vec<u8>)> {
    let mut files = vec![begin(1)];
    let mut batch_start = RECORDS_START;
    while input.remaining() >= 3 {
        let (kind, bytes) = (input.get_u8() % 10, usize::from(input.get_u16_le()));
        let body = input.copy_to_bytes(bytes.min(input.remaining()));
        let (segment, file) = files.last_mut().expect("there is one");
        let offset = file.len() as u64;
        match kind {
            NEXT_FILE => {
                let epoch = segment.epoch + 1;
                if epoch > 4 {
                    break;
                }
                files.push(begin(epoch));
                batch_start = RECORDS_START;
                continue;
            }
            RAW => file.extend_from_slice(&body),
            NEXT_BATCH => {
                file.resize(file.len().next_multiple_of(to_usize(BLOCK_BYTES)), 0);
                batch_start = file.len() as u64;
            }
            kind => format::encode_parts(kind, &body, Place { segment: *segment, offset, batch_start }, file),
        }
        if file.len() as u64 > SEGMENT_BYTES {
            file.truncate(to_usize(SEGMENT_BYTES));
            batch_start = batch_start.min(SEGMENT_BYTES);
        }
    }
    files
}

fn begin(epoch: u64) -> (SegmentId, Vec<u8>) {
    let segment = SegmentId { epoch, tag: 0x7a67 + epoch };
    (segment, format::encode_file_header(segment, SEGMENT_BYTES))
}

/// Records in memory: what is read is the same when it is written again.
pub fn log_records(input: &[u8]) {
    drop(format::decode_file_header(input));
    for (segment, file) in files(input) {
        assert_eq!(format::decode_file_header(&file), Ok((segment, SEGMENT_BYTES)));
        let bytes = Bytes::from(file);
        let mut scan = Scan { bytes: &bytes, base: 0, segment, offset: RECORDS_START };
        for (offset, found) in &mut scan {
            assert!(found.next > offset && found.batch_start <= offset, "records go forward");
            let place = Place { segment, offset, batch_start: found.batch_start };
            let mut again = Vec::new();
            format::encode(&found.record, place, &mut again);
            let again =
                format::decode(&again.into(), offset, segment, offset).expect("what was written is read");
            assert_eq!(again.record, found.record);
        }
        let end = scan.offset;
        let behind = behind(&bytes, segment, end);
        assert!(behind.end.is_none_or(|last| last > end), "what lies behind the end is behind it");
    }
}

/// A log is opened over such files: it opens, and then all it has can be read and it opens again with the same, or it
/// says why not.
pub fn log_open(input: &[u8], disk: &Arc<dyn Disk>, dir: &Path) {
    disk.create_dir_all(dir).expect("the disk works");
    for (segment, mut bytes) in files(input) {
        bytes.resize(to_usize(SEGMENT_BYTES), 0);
        let file = disk.open(&segment_path(dir, segment.epoch), OpenMode::CreateNew).expect("the disk works");
        file.write_all_at(&bytes, 0).expect("the disk works");
    }
    let config = || LogConfig { dir: dir.to_owned(), segment_bytes: SEGMENT_BYTES, cache_bytes_max: 1024 };
    let Ok(log) = Log::open(&still(disk), config()) else { return };
    let state = log.state();
    let read = |log: &Log| log.read(LogIndex::new(0), LogIndex::new(u64::MAX), usize::MAX).ok();
    let (entries, held) = (read(&log), log.committed_and_held().ok());
    drop(log);
    let again = Log::open(&still(disk), config()).expect("a log that opens once opens again");
    assert_eq!(again.state(), state);
    assert_eq!(read(&again), entries);
    assert_eq!(again.committed_and_held().ok(), held);
}

/// A world in which nothing happens.
fn still(disk: &Arc<dyn Disk>) -> Env {
    let nothing = Arc::new(Nothing);
    Env {
        disk: Arc::clone(disk),
        clock: Arc::clone(&nothing) as _,
        net: Arc::new(NoNet),
        rng: Arc::new(OsRng),
        spawn: nothing,
        faults: Faults::default(),
    }
}

struct Nothing;

impl Clock for Nothing {
    fn now(&self) -> Monotonic {
        Monotonic::default()
    }
    fn wall(&self) -> UnixMillis {
        UnixMillis::default()
    }
    fn sleep(&self, _: std::time::Duration) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}

impl Spawn for Nothing {
    fn task(&self, name: &str, _: BoxFuture<'static, ()>) -> TaskHandle {
        TaskHandle::new(name, oneshot::channel().1)
    }
    fn dedicated(&self, name: &str, future: BoxFuture<'static, ()>) -> TaskHandle {
        self.task(name, future)
    }
    fn halt(&self, reason: &str) {
        panic!("a log that is only looked at halts: {reason}");
    }
}

#[cfg(test)]
#[path = "../../holdfast-sim/fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use holdfast_env::RealDisk;

    use super::*;

    #[test]
    fn the_kept_records_do_no_harm() {
        replay::replay("log_records", log_records);
    }

    #[test]
    fn the_kept_logs_do_no_harm() {
        replay::replay("log_open", |input| {
            let dir = tempfile::tempdir().unwrap();
            log_open(input, &(Arc::new(RealDisk) as Arc<dyn Disk>), &dir.path().join("log"));
        });
    }
}
