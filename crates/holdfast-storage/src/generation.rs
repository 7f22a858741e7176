//! Generations of the stable store: one directory each, and a file `CURRENT` that names the one in force.
//!
//! An install builds generation n+1 beside n and switches by renaming a new `CURRENT` over the old one. The old
//! directory goes when its last reader has left. At start, directories that are not current are removed; what was
//! set aside because it is damaged (a start could not read it, or a file `DAMAGED` in it says so) is kept for a look (`gen-<n>.bad`), one at a time.
//!
//! The memory engine has no directories: it is rebuilt at every start.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use holdfast_env::disk::create_dir_synced;
use holdfast_env::{Disk, OpenMode};

use crate::config::{EngineKind, StorageConfig};
use crate::engine::EngineFactory;
use crate::error::{StorageError, StoreError};
use crate::stable::Stable;

/// In the directory of a generation: it is damaged.
const DAMAGED: &str = "DAMAGED";

/// Where generations live and what they are made of.
#[derive(Clone)]
pub(crate) struct Generations {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    kind: EngineKind,
    engines: EngineFactory,
    /// The greatest number seen or given out.
    last: Arc<AtomicU64>,
}

/// One stable store and its directory.
pub(crate) struct Generation {
    number: u64,
    /// Always there until the drop, which has to close the engine before it removes its directory.
    stable: Option<Stable>,
    place: Option<(Arc<dyn Disk>, PathBuf)>,
    obsolete: AtomicBool,
    /// It is noted that it is damaged.
    marked: AtomicBool,
}

impl Generation {
    /// Its store.
    pub(crate) fn stable(&self) -> &Stable {
        self.stable.as_ref().expect("the store is there until the drop")
    }
    /// Its number.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }
    /// Its directory, or the storage's own for the memory engine.
    pub(crate) fn path(&self) -> &Path {
        self.place.as_ref().map_or(Path::new("(memory)"), |(_, path)| path)
    }
    /// Notes durably that it is damaged, so that the next start does not open it but rebuilds it: a start reads no
    /// values, and would not find most damage by itself.
    pub(crate) fn mark_damaged(&self, reason: &str) -> Result<(), StorageError> {
        if let Some((disk, dir)) = &self.place {
            write_mark(&**disk, dir, reason)?;
        }
        self.marked.store(true, Ordering::Release);
        Ok(())
    }
    /// True when that was noted since it was opened.
    pub(crate) fn is_marked(&self) -> bool {
        self.marked.load(Ordering::Acquire)
    }
    /// True when its content survives the process.
    pub(crate) fn is_durable(&self) -> bool {
        self.place.is_some()
    }
    /// Removes the directory once nobody uses it any more.
    pub(crate) fn make_obsolete(&self) {
        self.obsolete.store(true, Ordering::Release);
    }
    /// It has become the current one: the directory stays.
    pub(crate) fn keep(&self) {
        self.obsolete.store(false, Ordering::Release);
    }
}

fn write_mark(disk: &dyn Disk, dir: &Path, reason: &str) -> Result<(), StorageError> {
    let path = dir.join(DAMAGED);
    let io = |action| StorageError::io(&path, action);
    if !disk.exists(&path).map_err(io("look for"))? {
        let file = disk.open(&path, OpenMode::CreateNew).map_err(io("create"))?;
        file.write_all_at(reason.as_bytes(), 0).map_err(io("write"))?;
        file.sync_all().map_err(io("sync"))?;
    }
    disk.sync_dir(dir).map_err(StorageError::io(dir, "sync"))
}

impl Drop for Generation {
    fn drop(&mut self) {
        drop(self.stable.take());
        if !self.obsolete.load(Ordering::Acquire) {
            return;
        }
        if let Some((disk, path)) = &self.place
            && let Err(error) = disk.remove_dir_all(path)
        {
            tracing::warn!(path = %path.display(), %error, "an old generation stays until the next start");
        }
    }
}

impl Generations {
    /// In the directory of the storage.
    pub(crate) fn new(disk: &Arc<dyn Disk>, config: &StorageConfig, engines: EngineFactory) -> Self {
        let (disk, dir, last) = (Arc::clone(disk), config.dir.clone(), Arc::default());
        Self { disk, dir, kind: config.engine, engines, last }
    }

    /// A number that no generation has had since the start.
    pub(crate) fn next_number(&self) -> u64 {
        self.last.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// The number in `CURRENT`; `None` when there is none, or with the memory engine.
    pub(crate) fn current(&self) -> Result<Option<u64>, StorageError> {
        let path = self.dir.join("CURRENT");
        let io = |action| StorageError::io(&path, action);
        if self.kind == EngineKind::Memory || !self.disk.exists(&path).map_err(io("look for"))? {
            return Ok(None);
        }
        let file = self.disk.open(&path, OpenMode::Read).map_err(io("open"))?;
        let len = file.len().map_err(io("measure"))?.min(64);
        let mut text = vec![0; usize::try_from(len).unwrap_or(64)];
        file.read_exact_at(&mut text, 0).map_err(io("read"))?;
        let number =
            std::str::from_utf8(&text).ok().and_then(|t| t.trim().strip_prefix("gen-")?.parse().ok());
        if number.is_none() {
            tracing::error!(path = %path.display(), "does not name a generation: the stable store is rebuilt");
        }
        Ok(number)
    }

    /// Opens or creates a generation.
    pub(crate) fn open(&self, number: u64) -> Result<Arc<Generation>, StoreError> {
        self.last.fetch_max(number, Ordering::AcqRel);
        let path = self.path(number);
        let place = if self.kind == EngineKind::Memory {
            None
        } else {
            create_dir_synced(&*self.disk, &path).map_err(StoreError::Failed)?;
            Some((Arc::clone(&self.disk), path.clone()))
        };
        let stable = Stable::new((self.engines)(&path)?);
        if place.is_some() {
            // The engines sync the content of their files, not all of them the names.
            self.disk.sync_dir(&path).map_err(StoreError::Failed)?;
        }
        let (obsolete, marked) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Arc::new(Generation { number, stable: Some(stable), place, obsolete, marked }))
    }

    /// Makes an empty generation, removing what an interrupted attempt has left at its place. Its directory goes with it
    /// unless [`Generation::keep`] is called.
    pub(crate) fn create(&self, number: u64) -> Result<Arc<Generation>, StoreError> {
        let path = self.path(number);
        if self.kind != EngineKind::Memory && self.disk.exists(&path).map_err(StoreError::Failed)? {
            self.disk.remove_dir_all(&path).map_err(StoreError::Failed)?;
        }
        let generation = self.open(number)?;
        generation.make_obsolete();
        Ok(generation)
    }

    /// True when there is a directory for it.
    pub(crate) fn exists(&self, number: u64) -> Result<bool, StorageError> {
        let path = self.path(number);
        self.disk.exists(&path).map_err(StorageError::io(&path, "look for"))
    }

    /// True when damage was found in it while it was in use. The file alone says so; its content is for a reader.
    pub(crate) fn is_marked_damaged(&self, number: u64) -> Result<bool, StorageError> {
        let path = self.path(number).join(DAMAGED);
        self.disk.exists(&path).map_err(StorageError::io(&path, "look for"))
    }

    /// Makes a generation the current one, durably. Its content must be durable already.
    pub(crate) fn switch_to(&self, number: u64) -> Result<(), StorageError> {
        if self.kind == EngineKind::Memory {
            return Ok(());
        }
        let (path, tmp) = (self.dir.join("CURRENT"), self.dir.join("CURRENT.tmp"));
        let io = |action| StorageError::io(&tmp, action);
        if self.disk.exists(&tmp).map_err(io("look for"))? {
            self.disk.remove_file(&tmp).map_err(io("remove"))?;
        }
        let file = self.disk.open(&tmp, OpenMode::CreateNew).map_err(io("create"))?;
        file.write_all_at(format!("gen-{number}\n").as_bytes(), 0).map_err(io("write"))?;
        file.sync_all().map_err(io("sync"))?;
        drop(file);
        self.disk.rename(&tmp, &path).map_err(io("rename to CURRENT"))?;
        self.disk.sync_dir(&self.dir).map_err(StorageError::io(&self.dir, "sync"))
    }

    /// Puts a damaged generation out of the way, for a look.
    pub(crate) fn set_aside(&self, number: u64) -> Result<(), StorageError> {
        let path = self.path(number);
        let aside = self.dir.join(format!("gen-{number}.bad"));
        if self.disk.exists(&aside).map_err(StorageError::io(&aside, "look for"))? {
            self.disk.remove_dir_all(&aside).map_err(StorageError::io(&aside, "remove"))?;
        }
        self.disk.rename(&path, &aside).map_err(StorageError::io(&path, "set aside"))?;
        self.disk.sync_dir(&self.dir).map_err(StorageError::io(&self.dir, "sync"))?;
        tracing::error!(path = %aside.display(), "the damaged stable store is kept here; remove it when it is of no use");
        Ok(())
    }

    /// Removes all generations but this one.
    pub(crate) fn remove_others(&self, keep: u64) -> Result<(), StorageError> {
        for path in self.disk.read_dir(&self.dir).map_err(StorageError::io(&self.dir, "list"))? {
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            let number = name.strip_prefix("gen-").and_then(|n| n.parse::<u64>().ok());
            if number.is_some_and(|n| n != keep) {
                tracing::info!(path = %path.display(), "removing a generation that is not current");
                self.disk.remove_dir_all(&path).map_err(StorageError::io(&path, "remove"))?;
            }
        }
        Ok(())
    }

    /// The directory of a generation.
    pub(crate) fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("gen-{number}"))
    }
}
