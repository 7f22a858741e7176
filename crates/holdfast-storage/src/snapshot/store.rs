//! The directory of snapshots: one verified snapshot, plus those that somebody still reads.
//!
//! Only renamed files count: `*.tmp` is removed at start. A file that does not verify is renamed to `*.bad`.
//!
//! # What is read at a start
//! A snapshot was read back and verified in full before it was published, and the log was purged only behind it. So a
//! start that does not need its content checks header, length and footer alone: those tell a file of another release,
//! and one that was cut, and name its position. What can have changed since is the content, by rot, and that is found
//! before it does harm: whoever builds a store from it verifies it first ([`SnapshotStore::check_now`]), and whoever
//! sends it ([`SnapshotStore::check_in_steps`]); a member that receives it verifies it again, no dump is spared because it
//! is there, and the committer reads it through in pieces when it has nothing else to do ([`SnapshotStore::unchecked`]).
//! One that a receiver has refused counts as not read through again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use holdfast_env::disk::create_dir_synced;
use holdfast_env::{Disk, DiskFile, Env, Failpoint, Faults, OpenMode};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::format::{Reader, Verification};
use crate::error::StorageError;
use crate::limits::VERIFY_FRAMES;
use crate::pipeline::breathe;
use crate::types::Snapshot;

/// The snapshots of one storage.
pub(crate) struct SnapshotStore {
    disk: Arc<dyn Disk>,
    faults: Faults,
    dir: PathBuf,
    /// Written by the committer (dump) and the dispatcher (install).
    current: Mutex<Option<Snapshot>>,
    /// A snapshot that this process has not read through. Written by the start, the committer, and whoever sends
    /// snapshots; never held together with `current`.
    unchecked: Mutex<Option<Unchecked>>,
    /// Held while a file gets its name, and while one that was checked loses it: a check on one thread must not put out of
    /// the way what a dump has just given the same name.
    naming: Mutex<()>,
    /// How many current snapshots were found damaged since the start.
    damaged: watch::Sender<u64>,
    tmp: AtomicU64,
    /// True once a file that was a snapshot was found damaged: the log may have been purged up to it.
    lost: AtomicBool,
}

/// A snapshot that this process has not read through.
#[derive(Debug)]
struct Unchecked {
    id: String,
    /// False once a dump has given another file its name.
    is_in_place: bool,
}

impl Unchecked {
    fn new(id: String) -> Self {
        Self { id, is_in_place: true }
    }
}

/// What a start found beside the newest snapshot, still untouched.
#[derive(Debug, Default)]
pub(crate) struct LeftOver {
    useless: Vec<PathBuf>,
    bad: Vec<(PathBuf, String)>,
}

impl SnapshotStore {
    /// Opens the directory and looks at the snapshot; of several all are verified. Changes nothing: the rest waits for
    /// [`SnapshotStore::clean_up`], until it is known that nothing here is of a newer release.
    pub(crate) fn open(env: &Env, dir: PathBuf) -> Result<(Self, LeftOver), StorageError> {
        let disk = &env.disk;
        create_dir_synced(&**disk, &dir).map_err(StorageError::io(&dir, "create"))?;
        let store = Self {
            disk: Arc::clone(disk),
            faults: env.faults.clone(),
            dir,
            current: Mutex::new(None),
            unchecked: Mutex::new(None),
            naming: Mutex::new(()),
            damaged: watch::Sender::new(0),
            tmp: AtomicU64::new(0),
            lost: AtomicBool::new(false),
        };
        let (mut names, mut found, mut left_over) = (Vec::new(), Vec::new(), LeftOver::default());
        for path in disk.read_dir(&store.dir).map_err(StorageError::io(&store.dir, "list"))? {
            match path.extension().and_then(|e| e.to_str()) {
                Some("tmp") => left_over.useless.push(path),
                Some("bad") => store.lost.store(true, Ordering::Relaxed),
                Some("snap") => names.push(path),
                _ => {}
            }
        }
        // Several are there when a process ended between a dump and the removal of the one before.
        let is_alone = names.len() == 1;
        for path in names {
            match if is_alone { store.examined(&path) } else { store.verified(&path) } {
                Ok(snapshot) => found.push((snapshot, path)),
                Err(StorageError::BadSnapshot { path, detail }) => left_over.bad.push((path, detail)),
                Err(other) => return Err(other),
            }
        }
        found.sort_by_key(|(snapshot, _)| snapshot.applied.log_id);
        if let Some((newest, _)) = found.pop() {
            left_over.useless.extend(found.into_iter().map(|(_, older)| older));
            *store.unchecked.lock() = is_alone.then(|| Unchecked::new(newest.id.clone()));
            *store.current.lock() = Some(newest);
        }
        Ok((store, left_over))
    }

    /// Removes what is of no use, and puts bad files out of the way.
    pub(crate) fn clean_up(&self, left_over: LeftOver) -> Result<(), StorageError> {
        for path in left_over.useless {
            self.disk.remove_file(&path).map_err(StorageError::io(&path, "remove"))?;
        }
        for (path, detail) in left_over.bad {
            self.set_aside(&path, &detail)?;
        }
        self.disk.sync_dir(&self.dir).map_err(StorageError::io(&self.dir, "sync"))
    }

    /// True when a snapshot is here or never was: then it and the log hold everything.
    pub(crate) fn can_rebuild(&self) -> bool {
        self.current.lock().is_some() || !self.lost.load(Ordering::Relaxed)
    }

    /// Reads a file whole and checks it.
    pub(crate) fn verified(&self, path: &Path) -> Result<Snapshot, StorageError> {
        let (snapshot, reader) = self.reader(path)?;
        reader.verify()?;
        Ok(snapshot)
    }

    /// Checks header, length and footer of a file.
    fn examined(&self, path: &Path) -> Result<Snapshot, StorageError> {
        Ok(self.reader(path)?.0)
    }

    /// What a file says that it is, and what reads it, for who verifies in steps.
    pub(crate) fn reader(&self, path: &Path) -> Result<(Snapshot, Reader), StorageError> {
        let file = self.disk.open(path, OpenMode::Read).map_err(StorageError::io(path, "open"))?;
        let file: Arc<dyn DiskFile> = Arc::from(file);
        let bytes = file.len().map_err(StorageError::io(path, "measure"))?;
        let reader = Reader::new(Arc::clone(&file), path.to_owned())?;
        let (applied, id) = (reader.applied(), reader.id());
        Ok((Snapshot { applied, id, bytes, file }, reader))
    }

    /// The verification of a snapshot that this process has not read through, with its id.
    pub(crate) fn unchecked(&self) -> Result<Option<(String, Verification)>, StorageError> {
        let Some(id) = self.unchecked_id() else { return Ok(None) };
        let (_, reader) = self.reader(&self.path(&id))?;
        match reader.verification() {
            Ok(verification) => Ok(Some((id, verification))),
            Err(error) => self.checked(&id, Err(error)).map(|()| None),
        }
    }

    fn unchecked_id(&self) -> Option<String> {
        self.unchecked.lock().as_ref().map(|unchecked| unchecked.id.clone())
    }

    /// True when the snapshot was read through and found good by this process.
    pub(crate) fn is_checked(&self, id: &str) -> bool {
        self.unchecked.lock().as_ref().is_none_or(|unchecked| unchecked.id != id)
    }

    /// Notes how the check of a snapshot ended: a bad one is put out of the way.
    pub(crate) fn checked(&self, id: &str, outcome: Result<(), StorageError>) -> Result<(), StorageError> {
        let _naming = self.naming.lock();
        let taken = self.unchecked.lock().take_if(|unchecked| unchecked.id == id);
        // None: a dump has made the same anew meanwhile, or another check was faster.
        let Some(Unchecked { is_in_place, .. }) = taken else { return Ok(()) };
        match outcome {
            Err(StorageError::BadSnapshot { path, detail }) => {
                let is_current = self.current.lock().take_if(|current| current.id == id).is_some();
                let aside = if is_in_place { self.set_aside(&path, &detail) } else { Ok(()) };
                if is_current {
                    self.damaged.send_modify(|damaged| *damaged += 1);
                }
                aside
            }
            other => other,
        }
    }

    /// Reads a snapshot through unless this process has, letting other tasks run in between. What cannot be read is as
    /// bad as what is damaged.
    ///
    /// # Errors
    /// [`StorageError::BadSnapshot`] when it was found bad, and [`StorageError::NotCurrent`] when there is no such
    /// snapshot any more.
    pub(crate) async fn check_in_steps(&self, id: &str) -> Result<(), StorageError> {
        if !self.is_checked(id) {
            let outcome = match self.verify_in_steps(id).await {
                Err(StorageError::Io { path, source, .. }) => {
                    Err(StorageError::BadSnapshot { path, detail: source.to_string() })
                }
                outcome => outcome,
            };
            let told = match &outcome {
                Err(StorageError::BadSnapshot { path, detail }) => {
                    Err(StorageError::BadSnapshot { path: path.clone(), detail: detail.clone() })
                }
                _ => Ok(()),
            };
            self.checked(id, outcome)?;
            told?;
        }
        match &*self.current.lock() {
            Some(current) if current.id == id => Ok(()),
            _ => Err(StorageError::NotCurrent { id: id.to_owned() }),
        }
    }

    async fn verify_in_steps(&self, id: &str) -> Result<(), StorageError> {
        let (_, reader) = self.reader(&self.path(id))?;
        let mut verification = reader.verification()?;
        while !verification.step(VERIFY_FRAMES)? {
            breathe().await;
        }
        Ok(())
    }

    /// Has a snapshot read through again before it is used: somebody has found it bad.
    pub(crate) fn doubt(&self, id: &str) {
        let is_current = self.current.lock().as_ref().is_some_and(|current| current.id == id);
        if is_current {
            *self.unchecked.lock() = Some(Unchecked::new(id.to_owned()));
        }
    }

    /// How many current snapshots were found damaged since the start.
    pub(crate) fn damaged(&self) -> watch::Receiver<u64> {
        self.damaged.subscribe()
    }

    /// Checks now what was not read through yet: it is going to be used.
    pub(crate) fn check_now(&self) -> Result<(), StorageError> {
        let Some(id) = self.unchecked_id() else { return Ok(()) };
        let outcome = self.verified(&self.path(&id)).map(drop);
        self.checked(&id, outcome)
    }

    /// Renames a bad file, keeping it for a look.
    pub(crate) fn set_aside(&self, path: &Path, detail: &str) -> Result<(), StorageError> {
        self.lost.store(true, Ordering::Relaxed);
        let aside = path.with_extension("bad");
        tracing::error!(path = %aside.display(), detail, "a snapshot is damaged: it is kept under this name and not used");
        self.disk.rename(path, &aside).map_err(StorageError::io(path, "set aside"))?;
        self.disk.sync_dir(&self.dir).map_err(StorageError::io(&self.dir, "sync"))
    }

    /// The newest verified snapshot.
    pub(crate) fn current(&self) -> Option<Snapshot> {
        self.current.lock().clone()
    }

    /// A new file to write into, and its path.
    pub(crate) fn create_tmp(&self, purpose: &str) -> Result<(Box<dyn DiskFile>, PathBuf), StorageError> {
        let number = self.tmp.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join(format!("{purpose}-{number}.tmp"));
        let file = self.disk.open(&path, OpenMode::CreateNew).map_err(StorageError::io(&path, "create"))?;
        Ok((file, path))
    }

    /// Removes a file that did not become a snapshot. Failing is harmless: the next start removes it.
    pub(crate) fn discard(&self, path: &Path) {
        if let Err(error) = self.disk.remove_file(path) {
            tracing::warn!(path = %path.display(), %error, "a left-over file stays until the next start");
        }
    }

    /// Gives a written and synced file its name, durably, and verifies it by reading it back.
    pub(crate) fn accept(&self, tmp: &Path, id: &str) -> Result<Snapshot, StorageError> {
        let path = self.name(tmp, id)?;
        match self.verified(&path) {
            Err(StorageError::BadSnapshot { path, detail }) => {
                self.set_aside(&path, &detail)?;
                Err(StorageError::BadSnapshot { path, detail })
            }
            other => other,
        }
    }

    /// Gives a written and synced file its name, durably.
    pub(crate) fn name(&self, tmp: &Path, id: &str) -> Result<PathBuf, StorageError> {
        let path = self.path(id);
        {
            let _naming = self.naming.lock();
            self.disk.rename(tmp, &path).map_err(StorageError::io(tmp, "rename"))?;
            if let Some(unchecked) = self.unchecked.lock().as_mut().filter(|unchecked| unchecked.id == id) {
                unchecked.is_in_place = false;
            }
        }
        self.faults.hit(Failpoint::DumpFileRenamed);
        self.disk.sync_dir(&self.dir).map_err(StorageError::io(&self.dir, "sync"))?;
        Ok(path)
    }

    /// Makes a snapshot the current one when it is the newest, and removes the file of the other. Who has the other
    /// open can go on reading.
    pub(crate) fn publish(&self, snapshot: Snapshot) {
        let naming = self.naming.lock();
        let mut current = self.current.lock();
        let (other, is_newest) = match &*current {
            Some(old) if old.applied.log_id > snapshot.applied.log_id => (Some(snapshot.id), false),
            same_or_older => {
                let is_same = same_or_older.as_ref().is_some_and(|old| old.id == snapshot.id);
                // Also when it is the same: who reads it now has the file that was verified.
                let old = current.replace(snapshot).map(|old| old.id);
                (old.filter(|_| !is_same), true)
            }
        };
        drop(current);
        if is_newest {
            // What was not read through yet is replaced, or is the same content and now verified.
            *self.unchecked.lock() = None;
        }
        drop(naming);
        if let Some(other) = other {
            self.discard(&self.path(&other));
        }
    }

    /// Removes a snapshot that was accepted but is not needed.
    pub(crate) fn forget(&self, snapshot: &Snapshot) {
        if self.current.lock().as_ref().is_none_or(|current| current.id != snapshot.id) {
            self.discard(&self.path(&snapshot.id));
        }
    }

    /// Where the snapshot with this id is.
    pub(crate) fn path(&self, id: &str) -> PathBuf {
        self.dir.join(format!("{id}.snap"))
    }
}
