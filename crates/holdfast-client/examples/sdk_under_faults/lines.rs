//! What watches and informers write down, and the digest of a state.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use holdfast_client::informer::Snapshot;

/// FNV-1a.
struct Hash(u64);

impl Hash {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn of(bytes: &[u8]) -> u64 {
        let mut hash = Self::new();
        hash.add(bytes);
        hash.0
    }
}

pub(crate) fn digest(snapshot: &Snapshot<Vec<u8>>) -> u64 {
    let mut hash = Hash::new();
    for object in snapshot.iter() {
        hash.add(&(object.key().len() as u64).to_le_bytes());
        hash.add(object.key());
        hash.add(&object.mod_revision().to_le_bytes());
        hash.add(&(object.value().len() as u64).to_le_bytes());
        hash.add(object.value());
    }
    hash.0
}

/// A file of lines.
pub(crate) struct Lines {
    file: BufWriter<File>,
    pub(crate) count: u64,
}

impl Lines {
    pub(crate) fn new(dir: &Path, name: &str, number: usize) -> Result<Self> {
        let file = File::create(dir.join(format!("{name}-{number}"))).context("a file for what is told")?;
        Ok(Self { file: BufWriter::new(file), count: 0 })
    }

    pub(crate) fn line(&mut self, line: std::fmt::Arguments<'_>) {
        self.count += 1;
        // Without its lines the judge finds what is missing.
        drop(writeln!(self.file, "{line}"));
    }

    pub(crate) fn put(&mut self, revision: u64, key: &[u8], value: &[u8]) {
        self.line(format_args!("P {revision} {:016x} {}", Hash::of(value), key.escape_ascii()));
    }

    pub(crate) fn flush(&mut self) -> Result<()> {
        self.file.flush().context("what was told is not written")
    }

    pub(crate) fn delete(&mut self, revision: u64, key: &[u8]) {
        self.line(format_args!("D {revision} {}", key.escape_ascii()));
    }
}
