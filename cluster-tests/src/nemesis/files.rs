//! What happens to the files of a member that is down. The formats are not known here: what was written last to a log is where
//! two looks at it differ, and all else is chance.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use rand::RngExt;
use rand::rngs::StdRng;

/// How much of a store is overwritten.
const DAMAGE_BYTES: usize = 4096;

/// A store is damaged beyond its beginning, where an engine keeps what it checks at once.
const SPARED_PART: u64 = 8;

/// The part of a log, from its end, in which no bit rots.
const SPARED_END: usize = 10;

/// How much of the end of a log is torn away at most.
const TORN_BYTES_MAX: usize = 600;

/// The kinds of files, by the ends of their names: holdfast's and etcd's.
const LOGS: [&str; 2] = ["seg", "wal"];
const SNAPSHOTS: [&str; 1] = ["snap"];

/// The newest log file as it was at some moment.
#[derive(Debug)]
pub(super) struct LogCopy {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl LogCopy {
    /// Of a member that runs under load.
    pub(super) fn of(data: &Path) -> Result<Self> {
        let path = newest(data, &LOGS)?.context("there is no log")?;
        let bytes = std::fs::read(&path).context("reading the log")?;
        Ok(Self { path, bytes })
    }

    /// Where it was written to since; `None` if that was in another file, or nowhere.
    fn written(&self, now: &[u8]) -> Option<std::ops::Range<usize>> {
        let differs = |at: &usize| self.bytes.get(*at) != now.get(*at);
        let first = (0..now.len()).find(differs)?;
        (first..now.len()).rev().find(differs).map(|last| first..last + 1)
    }
}

/// The end of what was written since is as if it had never come to the disk. Gives how many bytes are missing.
pub(super) fn tear(rng: &mut StdRng, before: &LogCopy) -> Result<usize> {
    let now = std::fs::read(&before.path).context("reading the log")?;
    let Some(written) = before.written(&now) else { return Ok(0) };
    let torn = rng.random_range(1..=TORN_BYTES_MAX.min(written.len()));
    write_at(&before.path, written.end - torn, &vec![0; torn])?;
    Ok(torn)
}

/// A bit changes somewhere in what a log file holds; which file, and where.
pub(super) fn rot_log(rng: &mut StdRng, data: &Path) -> Result<String> {
    let logs = files(data, &LOGS)?;
    let (_, path) = logs.get(rng.random_range(0..logs.len().max(1))).context("there is no log")?;
    let bytes = std::fs::read(path).context("reading the log")?;
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1);
    // Not in the end: what rots there cannot be told from a write that was torn.
    let at = rng.random_range(0..(used - used / SPARED_END).max(1));
    flip(rng, path, &bytes, at)
}

/// A bit of the newest snapshot changes; `None` if there is none.
pub(super) fn rot_snapshot(rng: &mut StdRng, data: &Path) -> Result<Option<String>> {
    let Some(path) = newest(data, &SNAPSHOTS)? else { return Ok(None) };
    let bytes = std::fs::read(&path).context("reading the snapshot")?;
    let at = rng.random_range(0..bytes.len().max(1));
    flip(rng, &path, &bytes, at).map(Some)
}

/// Noise in the middle of the store's largest file; which one, and where.
pub(super) fn rot_store(rng: &mut StdRng, data: &Path) -> Result<String> {
    let kept_apart = [&LOGS[..], &SNAPSHOTS[..], &["spare", "log"]].concat();
    let all = walk(data)?;
    let store = all.into_iter().filter(|path| !has_end(path, &kept_apart) && below_store(data, path));
    let largest = store.max_by_key(|path| path.metadata().map_or(0, |metadata| metadata.len()));
    let path = largest.context("there is no store")?;
    let bytes = path.metadata().context("looking at the store")?.len();
    let at = rng.random_range(bytes / SPARED_PART..bytes.max(1));
    let noise: Vec<u8> = (0..DAMAGE_BYTES).map(|_| rng.random()).collect();
    let fitting = usize::try_from(bytes - at).unwrap_or(usize::MAX).min(DAMAGE_BYTES);
    write_at(&path, usize::try_from(at)?, &noise[..fitting])?;
    Ok(format!("{fitting} bytes at {at} of {}", name(&path)))
}

/// Whether a file belongs to the store: below `store/gen-*` of holdfast, or etcd's `db`.
fn below_store(data: &Path, path: &Path) -> bool {
    let below = path.strip_prefix(data).unwrap_or(path).to_string_lossy().into_owned();
    below.contains("gen-") || below.ends_with("snap/db")
}

fn flip(rng: &mut StdRng, path: &Path, bytes: &[u8], at: usize) -> Result<String> {
    let byte = bytes.get(at).context("an empty file")? ^ (1 << rng.random_range(0..8));
    write_at(path, at, &[byte])?;
    Ok(format!("a bit at {at} of {}", name(path)))
}

fn write_at(path: &Path, at: usize, bytes: &[u8]) -> Result<()> {
    let file = std::fs::OpenOptions::new().write(true).open(path).context("opening a file to damage it")?;
    file.write_all_at(bytes, at as u64).context("damaging a file")
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn has_end(path: &Path, ends: &[&str]) -> bool {
    path.extension().is_some_and(|end| ends.iter().any(|wanted| end == *wanted))
}

fn newest(data: &Path, ends: &[&str]) -> Result<Option<PathBuf>> {
    Ok(files(data, ends)?.pop().map(|(_, path)| path))
}

/// The files of these kinds, the one that was changed last behind all others.
fn files(data: &Path, ends: &[&str]) -> Result<Vec<(SystemTime, PathBuf)>> {
    let mut found = Vec::new();
    for path in walk(data)?.into_iter().filter(|path| has_end(path, ends)) {
        found.push((path.metadata().and_then(|metadata| metadata.modified()).context("a file's age")?, path));
    }
    found.sort();
    Ok(found)
}

fn walk(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = std::fs::read_dir(directory).with_context(|| format!("listing {}", directory.display()))?;
    for entry in entries {
        let path = entry.context("listing a directory")?.path();
        if path.is_dir() { found.extend(walk(&path)?) } else { found.push(path) }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn the_end_of_the_last_write_is_torn_away_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("1.seg");
        let mut bytes = vec![0; 8192];
        // Something older lies behind what is written now, as in a file that is used again.
        bytes[6000..6010].fill(9);
        bytes[..1000].fill(1);
        std::fs::write(&log, &bytes).unwrap();
        let before = LogCopy::of(dir.path()).unwrap();
        bytes[2900..3000].fill(2);
        std::fs::write(&log, &bytes).unwrap();
        let torn = tear(&mut StdRng::seed_from_u64(1), &before).unwrap();
        assert!((1..=100).contains(&torn));
        bytes[3000 - torn..3000].fill(0);
        assert_eq!(std::fs::read(&log).unwrap(), bytes);
    }

    #[test]
    fn one_bit_rots() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("1.seg"), [7; 100]).unwrap();
        rot_log(&mut StdRng::seed_from_u64(1), dir.path()).unwrap();
        let bytes = std::fs::read(dir.path().join("1.seg")).unwrap();
        let differing: u32 = bytes.iter().map(|byte| (byte ^ 7).count_ones()).sum();
        assert_eq!(differing, 1);
        assert_eq!(rot_snapshot(&mut StdRng::seed_from_u64(1), dir.path()).unwrap(), None);
    }
}
