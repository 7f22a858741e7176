//! Fuzz targets: snapshots, checkpoints and what is in the stable store, with damage that a checksum does not see. Run by
//! `scripts/fuzz`; the inputs that are kept run with the tests.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use holdfast_env::{DiskFile, Faults};
use holdfast_mvcc::checkpoint::{Loading, Part, Saved, Saving};
use holdfast_mvcc::types::{RecordId, Revision};
use holdfast_mvcc::{Head, State};
use parking_lot::Mutex;

use crate::auth::{self, StoredAuth, StoredAuthAt};
use crate::checkpoint::format as checkpoint_file;
use crate::codec::{self, Cold, Footer, Preface, StoredApplied, StoredHead, StoredScrubbed};
use crate::lease;
use crate::limits::PACK_BYTES;
use crate::pack::{self, PackKind, Run, RunBuilder};
use crate::record::{self, Stored};
use crate::snapshot::format::{self as snapshot_file, Frame};
use crate::types::Applied;

/// A snapshot: a whole file, or its content, around which there is a proper file then. It can be verified, and then its
/// state can be loaded, and written again so that it can be verified; or it is refused.
pub fn snapshot(input: &[u8]) {
    let Some((&form, input)) = input.split_first() else { return };
    let file = if form % 2 == 0 { File::holding(input) } else { around(input) };
    let Ok(reader) = open(&file) else { return };
    if reader.verify().is_err() {
        return;
    }
    let again = File::default();
    let mut writer = snapshot_file::Writer::new(Box::new(again.clone()), PathBuf::new(), Faults::default())
        .expect("memory takes it");
    let mut reader = open(&file).expect("it was opened before");
    let (mut applied, mut records) = (Applied::default(), 0);
    let mut loaded = None;
    loop {
        match reader.frame().expect("it was verified") {
            Frame::Preface(head, position) => {
                writer.preface(&head, &position).expect("memory takes it");
                (applied, loaded) = (position, Some(State::with_head(head)));
            }
            Frame::Leases(leases) => writer.leases(&leases).expect("memory takes it"),
            Frame::Run(run) => {
                let some = run.records().expect("it was verified");
                records += some.len() as u64;
                writer.run(&run).expect("memory takes it");
            }
            Frame::End => break,
        }
    }
    assert!(loaded.is_some(), "what is verified begins with a preface");
    writer.finish(&applied, records).expect("memory takes it");
    let again = open(&again).expect("what was written can be read");
    again.verify().expect("what was written can be verified");
}

/// A file with this content.
fn around(content: &[u8]) -> File {
    // What the footer says has to fit: a first pass finds out what that is.
    let make = |applied: &Applied, records| {
        let file = File::default();
        let made = snapshot_file::Writer::new(Box::new(file.clone()), PathBuf::new(), Faults::default())
            .and_then(|mut writer| writer.content(content).map(|()| writer))
            .and_then(|writer| writer.finish(applied, records));
        made.expect("memory takes it");
        file
    };
    let file = make(&Applied::default(), 0);
    let (mut applied, mut records) = (Applied::default(), 0);
    let mut reader = open(&file).expect("it was written properly");
    while let Ok(frame) = reader.frame() {
        match frame {
            Frame::Preface(_, position) => applied = position,
            Frame::Run(run) => records += run.records().map_or(0, |records| records.len() as u64),
            Frame::Leases(_) => {}
            Frame::End => break,
        }
    }
    make(&applied, records)
}

fn open(file: &File) -> Result<snapshot_file::Reader, crate::StorageError> {
    snapshot_file::Reader::new(Arc::new(file.clone()), PathBuf::new())
}

/// A checkpoint of the index: a whole file, or its pieces, around which there is a proper file then. It can be loaded,
/// and then it is written again as one that gives the same state; or it is refused.
pub fn checkpoint(input: &[u8]) {
    let Some((&form, input)) = input.split_first() else { return };
    let head = |revision| Head {
        revision,
        compact_revision: None,
        members: Vec::new(),
        alarms: Vec::new(),
        auth: Arc::default(),
    };
    let file = if form % 2 == 0 { File::holding(input) } else { pieces(input) };
    let Ok(mut reader) = checkpoint_file::Reader::new(Box::new(file)) else { return };
    let saved = reader.saved();
    let head = Head { compact_revision: saved.compact_revision, ..head(saved.through) };
    if head.compact_revision > Some(head.revision) {
        return;
    }
    let Ok(mut loading) = Loading::begin(head.clone(), saved) else { return };
    loop {
        match reader.block() {
            Ok(Some((part, pieces))) if loading.add(part, &pieces).is_ok() => {}
            Ok(None) => break,
            Ok(Some(_)) | Err(_) => return,
        }
    }
    let Ok(state) = loading.finish() else { return };
    let mut saving = Saving::begin(&state);
    let mut again = Vec::new();
    loop {
        let mut piece = Vec::new();
        match saving.piece(&state, 512, &mut piece).expect("nothing is compacted here") {
            Some(part) => again.push((part, piece)),
            None => break,
        }
    }
    let mut loading = Loading::begin(head, saving.finish()).expect("it was just saved");
    for (part, piece) in again {
        loading.add(part, &piece).expect("what was saved can be loaded");
    }
    let again = loading.finish().expect("what was saved can be loaded");
    assert_eq!(again.digest(), state.digest());
}

/// A checkpoint with these pieces.
fn pieces(mut input: &[u8]) -> File {
    let number = |input: &mut &[u8]| u64::from(input.try_get_u8().unwrap_or_default());
    let (through, since, compacted) = (number(&mut input), number(&mut input), number(&mut input));
    let bytes = number(&mut input) << 8 | number(&mut input);
    let file = File::default();
    let mut writer =
        checkpoint_file::Writer::new(Box::new(file.clone()), Faults::default()).expect("memory takes it");
    while input.remaining() >= 3 {
        let part = match input.get_u8() % 3 {
            0 => Part::Keys,
            1 => Part::ReplacedPuts,
            _ => Part::Tombstones,
        };
        let length = usize::from(input.get_u16_le()).min(input.remaining());
        let piece = input.copy_to_bytes(length);
        let written = writer.piece(|out| {
            out.extend_from_slice(&piece);
            Ok::<_, std::convert::Infallible>(Some(part))
        });
        assert!(matches!(written, Ok(Ok(true))));
    }
    let saved = Saved {
        since: Revision::new(since),
        through: Revision::new(through),
        compact_revision: (compacted > 0).then(|| Revision::new(compacted)),
        logical_bytes: bytes,
    };
    writer.finish(saved).expect("memory takes it");
    file
}

/// What is in the stable store: packs, rows of leases, the head and the position. It is refused, or it is the same when
/// it is written again.
pub fn stored(input: &[u8]) {
    let Some((&form, input)) = input.split_first() else { return };
    let bytes = Bytes::copy_from_slice(input);
    match form % 9 {
        0 => drop(pack::metas(&bytes)),
        1 => drop(pack::Values::new(&bytes).and_then(|mut values| values.seek(RecordId::default()))),
        2 => run(&bytes),
        3 => again::<StoredHead>(input),
        4 => again::<StoredApplied>(input),
        5 => {
            again::<StoredScrubbed>(input);
            again::<StoredAuth>(input);
            again::<StoredAuthAt>(input);
            if let Ok(found) = auth::decode(input) {
                assert_eq!(auth::decode(&auth::encode(&found)).ok(), Some(found));
            }
        }
        6 => {
            again::<Preface>(input);
            again::<Footer>(input);
        }
        7 => {
            if let Ok(found) = lease::from_row(input) {
                assert_eq!(lease::from_row(&lease::row(found)).ok(), Some(found));
            }
        }
        _ => {
            if let Ok(found) = lease::from_frame(input) {
                assert_eq!(lease::from_frame(&lease::frame(&found)).ok(), Some(found));
            }
        }
    }
}

/// Both packs of a run, from their entries.
fn run(input: &Bytes) {
    let mut input = input.clone();
    let (metas, values) =
        (u32::from(input.try_get_u8().unwrap_or(0)), u32::from(input.try_get_u8().unwrap_or(0)));
    let cut = usize::from(input.try_get_u16_le().unwrap_or(0)).min(input.len());
    let meta = input.split_to(cut);
    let run = Run {
        first: RecordId::default(),
        meta: pack::seal(PackKind::Meta, metas, &meta),
        value: if values == 0 { Bytes::new() } else { pack::seal(PackKind::Value, values, &input) },
    };
    let Ok(records) = run.records() else { return };
    let mut builder = RunBuilder::new(PACK_BYTES);
    let mut again = Vec::new();
    for record in &records {
        let stored = Stored::new(record.clone());
        assert_eq!(
            record::take_meta(&mut stored.meta.clone()).map(|meta| meta.key).ok(),
            Some(record.key.clone())
        );
        again.extend(builder.add(stored.entry()));
    }
    again.extend(builder.finish());
    let again: Vec<_> = again.iter().flat_map(|run| run.records().expect("it was just built")).collect();
    assert_eq!(again, records);
}

fn again<T: Cold + PartialEq + std::fmt::Debug>(input: &[u8]) {
    // As it is, and behind a proper header.
    let header = [b'H', b'F', T::VERSION, T::KIND as u8];
    for bytes in [input, &[&header, input].concat()] {
        if let Ok(found) = codec::decode::<T>(bytes) {
            assert_eq!(codec::decode::<T>(&codec::encode(&found)).ok(), Some(found));
        }
    }
}

/// A file in memory.
#[derive(Clone, Default)]
pub(crate) struct File(Arc<Mutex<Vec<u8>>>);

impl File {
    pub(crate) fn holding(bytes: &[u8]) -> Self {
        Self(Arc::new(Mutex::new(bytes.to_vec())))
    }
}

#[cfg(test)]
impl File {
    /// What is in it.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.lock().clone()
    }
}

impl DiskFile for File {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = self.0.lock();
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let found = bytes.get(from..).and_then(|rest| rest.get(..buffer.len()));
        buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        let mut bytes = self.0.lock();
        let from = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let to = from + data.len();
        if bytes.len() < to {
            bytes.resize(to, 0);
        }
        bytes[from..to].copy_from_slice(data);
        Ok(())
    }
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().len() as u64)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().resize(usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?, 0);
        Ok(())
    }
    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
    fn sync_all(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[path = "../../holdfast-sim/fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::replay;

    #[test]
    fn the_kept_snapshots_do_no_harm() {
        replay::replay("snapshot", super::snapshot);
    }

    #[test]
    fn the_kept_checkpoints_do_no_harm() {
        replay::replay("checkpoint", super::checkpoint);
    }

    #[test]
    fn the_kept_stored_values_do_no_harm() {
        replay::replay("stored", super::stored);
    }
}
