//! A disk that keeps only what was made durable.
//!
//! It has two contents: what a running process reads (the page cache), and what survives the power. Written pages,
//! changed lengths and changed names go from the first to the second by `sync_data`, `sync_all` and `sync_dir`. At a
//! crash each of those that was not synced is lost, kept or, for a page, torn between its sectors, independently of
//! the others: so writes are lost and reordered, and names too, except that a rename stays one step.
//!
//! Every operation that changes something is a *step*, with a number. The power can be cut at a step, and a step can
//! be made to fail. A failed sync drops what it should have made durable, as Linux does: the process reads it back,
//! and it is not on the disk.
//!
//! What it does not model: bit rot (but see [`SimDisk::flip`]), sectors written in part, and the time a disk takes.

mod image;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_env::{Disk, DiskFile, DiskLock, OpenMode};
use image::{Image, InodeId};
pub use image::{PAGE_BYTES, SECTOR_BYTES, SECTORS_PER_PAGE, Unit};
use parking_lot::{Mutex, MutexGuard};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// What happens to one unsynced unit at a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It never reached the disk.
    Lost,
    /// It reached the disk.
    Kept,
    /// Of a page, the sectors whose bits are set reached the disk; other units are kept.
    Torn(u8),
}

/// Which syncs a lying disk ignores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// Those of data and lengths.
    Data,
    /// Those of names.
    Names,
}

/// A simulated disk. All handles share it; it outlives the processes that use it.
pub struct SimDisk {
    shared: Arc<Mutex<State>>,
    /// The life this handle belongs to; `None` when it works in all.
    life: Option<u64>,
}

struct State {
    image: Image,
    rng: StdRng,
    /// Handles of earlier lives do not work any more.
    life: u64,
    is_off: bool,
    steps: u64,
    power_off_at: Option<u64>,
    failures: BTreeMap<u64, io::ErrorKind>,
    /// Bytes that files may take together.
    capacity: Option<u64>,
    /// Files whose path begins so cannot grow.
    full: Option<String>,
    lie: Option<Lie>,
    locks: BTreeSet<PathBuf>,
    /// Writes to each file so far.
    writes: BTreeMap<InodeId, u64>,
}

struct SimFile {
    shared: Arc<Mutex<State>>,
    inode: InodeId,
    life: u64,
    mode: OpenMode,
}

struct SimLock {
    shared: Arc<Mutex<State>>,
    path: PathBuf,
    life: u64,
}

impl SimDisk {
    /// An empty disk; `seed` decides what [`SimDisk::crash`] loses.
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self::from_image(Image::default(), seed))
    }

    fn from_image(image: Image, seed: u64) -> Self {
        let state = State {
            image,
            rng: StdRng::seed_from_u64(seed),
            life: 0,
            is_off: false,
            steps: 0,
            power_off_at: None,
            failures: BTreeMap::new(),
            capacity: None,
            full: None,
            lie: None,
            locks: BTreeSet::new(),
            writes: BTreeMap::new(),
        };
        Self { shared: Arc::new(Mutex::new(state)), life: None }
    }

    /// The disk as one process sees it: it stops working for good when that process dies, by [`SimDisk::crash`] or
    /// [`SimDisk::kill_processes`], so that no task left over from then can reach what the next one does.
    pub fn mount(&self) -> Arc<Self> {
        let life = self.shared.lock().life;
        Arc::new(Self { shared: Arc::clone(&self.shared), life: Some(life) })
    }

    /// Cuts the power: a random part of what was not synced is lost or torn, and every operation fails until
    /// [`SimDisk::restart`]. Files and locks opened before never work again.
    pub fn crash(&self) {
        let mut state = self.shared.lock();
        let state = &mut *state;
        let rng = &mut state.rng;
        state.image = state.image.survivors(&mut |_| random_fate(rng));
        state.life += 1;
        state.is_off = true;
        state.locks.clear();
    }

    /// Switches the power on again.
    pub fn restart(&self) {
        let mut state = self.shared.lock();
        state.is_off = false;
        state.power_off_at = None;
    }

    /// The processes die, the power stays on: what was written can be read by the next one and is as unsynced as
    /// before. Files and locks opened before never work again, and failures set for later steps are forgotten.
    pub fn kill_processes(&self) {
        let mut state = self.shared.lock();
        state.failures.clear();
        state.life += 1;
        state.locks.clear();
    }

    /// Another disk with what would be left of this one if the power went now; `choose` decides over each unsynced
    /// unit, in a fixed order. Which units there are depends on the names that are kept.
    pub fn survivors(&self, mut choose: impl FnMut(&Unit) -> Fate) -> Arc<Self> {
        let image = self.shared.lock().image.survivors(&mut choose);
        Arc::new(Self::from_image(image, 0))
    }

    /// What is not durable now, in a fixed order. Pages whose loss nobody could see are left out, and so are pages of
    /// files that are on their way to be removed.
    pub fn unsynced(&self) -> Vec<Unit> {
        let mut units = Vec::new();
        self.shared.lock().image.survivors(&mut |unit| {
            units.push(unit.clone());
            Fate::Kept
        });
        units
    }

    /// How many operations that change something were tried.
    pub fn steps(&self) -> u64 {
        self.shared.lock().steps
    }

    /// Cuts the power at this step (steps count from 1): a write or a change of names then just misses its sync, a
    /// sync does nothing; this step and all later operations fail.
    pub fn power_off_at(&self, step: u64) {
        self.shared.lock().power_off_at = Some(step);
    }

    /// True once the power is off.
    pub fn is_off(&self) -> bool {
        self.shared.lock().is_off
    }

    /// Makes this step fail without effect.
    pub fn fail_at(&self, step: u64, kind: io::ErrorKind) {
        self.shared.lock().failures.insert(step, kind);
    }

    /// Bounds the bytes of all files together; `None` lifts the bound.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.shared.lock().capacity = bytes;
    }

    /// From now on files whose path begins so cannot grow: as if they were on a file system of their own, which is full.
    pub fn fill(&self, prefix: &str) {
        self.shared.lock().full = Some(prefix.to_owned());
    }

    /// Lifts every bound on what files may take.
    pub fn relieve(&self) {
        let mut state = self.shared.lock();
        (state.full, state.capacity) = (None, None);
    }

    /// Bytes that all files take.
    pub fn used(&self) -> u64 {
        self.shared.lock().image.used()
    }

    /// Another, empty disk takes the place of this one; the processes have died.
    pub fn wipe(&self) {
        let mut state = self.shared.lock();
        state.image = Image::default();
        state.writes.clear();
        state.failures.clear();
        state.life += 1;
        state.locks.clear();
        (state.full, state.capacity) = (None, None);
    }

    /// From now on syncs of this kind answer without doing anything, as a disk does whose cache lies. For tests that
    /// prove that other tests can fail.
    pub fn lie_about(&self, what: Lie) {
        self.shared.lock().lie = Some(what);
    }

    /// Bit rot: flips the bits of `mask` in one byte, on the disk and in the page cache.
    pub fn flip(&self, path: &Path, offset: u64, mask: u8) -> io::Result<()> {
        self.shared.lock().image.flip(path, offset, mask)
    }

    /// The files and their lengths, by path.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        self.shared.lock().image.files()
    }

    /// How often each file whose path begins so was written to, since it was created.
    pub fn writes(&self, prefix: &str) -> BTreeMap<PathBuf, u64> {
        let state = self.shared.lock();
        let paths = state.image.files().into_iter().map(|(path, _)| path);
        let under = paths.filter(|path| path.to_string_lossy().starts_with(prefix));
        let count = |path: PathBuf| {
            let inode = state.image.find(&path).ok()?;
            Some((path, state.writes.get(&inode).copied().unwrap_or_default()))
        };
        under.filter_map(count).collect()
    }

    /// The disk, when the power is on and this handle's process lives.
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.shared.lock();
        state.check(self.life)?;
        Ok(state)
    }

    fn handle(&self, inode: InodeId, life: u64, mode: OpenMode) -> Box<dyn DiskFile> {
        Box::new(SimFile { shared: Arc::clone(&self.shared), inode, life, mode })
    }
}

impl std::fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.shared.lock();
        f.debug_struct("SimDisk")
            .field("steps", &state.steps)
            .field("is_off", &state.is_off)
            .finish_non_exhaustive()
    }
}

/// Half lost, a quarter kept, a quarter torn: enough of each in every crash with a few pages.
fn random_fate(rng: &mut StdRng) -> Fate {
    match rng.random_range(0..4) {
        0 | 1 => Fate::Lost,
        2 => Fate::Kept,
        _ => Fate::Torn(rng.random()),
    }
}

/// What a step may do.
enum Permit {
    /// All of it.
    Go,
    /// It reaches the page cache or not at all, and the caller hears of an error: the power is off.
    PowerOff,
}

fn power_off() -> io::Error {
    io::Error::other("the power is off")
}

impl State {
    fn check(&self, life: Option<u64>) -> io::Result<()> {
        if self.is_off {
            return Err(power_off());
        }
        match life.is_some_and(|life| life != self.life) {
            true => Err(io::Error::other("the handle belongs to a process that died")),
            false => Ok(()),
        }
    }

    /// Counts a step.
    fn step(&mut self) -> io::Result<Permit> {
        self.steps += 1;
        if let Some(kind) = self.failures.remove(&self.steps) {
            return Err(io::Error::new(kind, "injected"));
        }
        if self.power_off_at.is_some_and(|at| self.steps >= at) {
            self.is_off = true;
            return Ok(Permit::PowerOff);
        }
        Ok(Permit::Go)
    }

    /// A step that changes the page cache or the names: done, then failed when the power goes at it.
    fn change<T>(&mut self, change: impl FnOnce(&mut Image) -> io::Result<T>) -> io::Result<T> {
        let permit = self.step()?;
        let outcome = change(&mut self.image);
        match permit {
            Permit::Go => outcome,
            Permit::PowerOff => Err(power_off()),
        }
    }

    /// A step that makes something durable: not done when the power goes at it.
    fn sync(&mut self, sync: impl FnOnce(&mut Image) -> io::Result<()>) -> io::Result<()> {
        match self.step()? {
            Permit::Go => sync(&mut self.image),
            Permit::PowerOff => Err(power_off()),
        }
    }

    fn check_space(&self, inode: InodeId, end: u64) -> io::Result<()> {
        let grows = end.saturating_sub(self.image.len(inode));
        let is_over = self.capacity.is_some_and(|capacity| self.image.used() + grows > capacity)
            || self.full.as_ref().is_some_and(|prefix| self.image.is_under(inode, prefix));
        if grows > 0 && is_over {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the simulated disk is full"));
        }
        Ok(())
    }
}

impl Disk for SimDisk {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state()?;
        match state.image.is_dir(path) {
            true => Ok(()),
            false => state.change(|image| image.create_dir_all(path)),
        }
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state()?;
        let inode = match mode {
            OpenMode::Read | OpenMode::ReadWrite => state.image.find(path)?,
            OpenMode::CreateNew => state.change(|image| image.create(path))?,
        };
        Ok(self.handle(inode, state.life, mode))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.state()?.change(|image| image.rename(from, to))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.state()?.change(|image| image.remove_file(path))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.state()?.change(|image| image.remove_dir_all(path))
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.state()?;
        state.image.read_dir(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let state = self.state()?;
        Ok(state.image.exists(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state()?;
        let is_lying = state.lie == Some(Lie::Names);
        state.sync(|image| if is_lying { Ok(()) } else { image.sync_dir(path) })
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        let mut state = self.state()?;
        if !state.image.exists(path) {
            state.change(|image| image.create(path))?;
        }
        if !state.locks.insert(path.to_owned()) {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, "another process holds the lock"));
        }
        Ok(Box::new(SimLock { shared: Arc::clone(&self.shared), path: path.to_owned(), life: state.life }))
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let state = self.state()?;
        if state.full.as_ref().is_some_and(|prefix| path.to_string_lossy().starts_with(prefix)) {
            return Ok(0);
        }
        Ok(state.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(state.image.used())))
    }
}

impl DiskLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if state.life == self.life {
            state.locks.remove(&self.path);
        }
    }
}

impl SimFile {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.shared.lock();
        state.check(Some(self.life))?;
        Ok(state)
    }

    fn check_writable(&self) -> io::Result<()> {
        match self.mode {
            OpenMode::Read => Err(io::Error::new(io::ErrorKind::PermissionDenied, "opened for reading")),
            OpenMode::ReadWrite | OpenMode::CreateNew => Ok(()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state()?;
        let is_lying = state.lie == Some(Lie::Data);
        let outcome = state.sync(|image| if is_lying { Ok(()) } else { image.sync(self.inode) });
        if outcome.is_err() && !state.is_off {
            state.image.forget_dirty(self.inode);
        }
        outcome
    }
}

impl DiskFile for SimFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.state()?.image.read(self.inode, buffer, offset)
    }

    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.check_writable()?;
        let mut state = self.state()?;
        state.check_space(self.inode, offset + data.len() as u64)?;
        *state.writes.entry(self.inode).or_default() += 1;
        state.change(|image| image.write(self.inode, data, offset))
    }

    fn write_unit_bytes(&self) -> u64 {
        SECTOR_BYTES as u64
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.state()?.image.len(self.inode))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        let mut state = self.state()?;
        state.check_space(self.inode, len)?;
        state.change(|image| image.set_len(self.inode, len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync()
    }
}

#[cfg(test)]
mod tests;
