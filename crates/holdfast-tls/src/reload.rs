//! What is made from files, and made anew when their contents change.
//!
//! Contents are compared, not times: a mounted secret changes by a symbolic link, and a restored file has an old time.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::error::TlsError;
use crate::files::Contents;
use crate::limits::RELOAD_INTERVAL;

/// What a look at the files came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// They are what is in use, or were refused before.
    None,
    /// They changed, and are in use now.
    Taken,
    /// They cannot be used; what was read before stays in use. Said once, from the second look on: while files are
    /// being replaced one after the other, the first may find half of them.
    Refused(TlsError),
}

type Make<T> = Box<dyn Fn(&[Contents]) -> Result<T, TlsError> + Send + Sync>;

/// A value made from files.
pub struct Reloading<T> {
    paths: Vec<PathBuf>,
    make: Make<T>,
    current: ArcSwap<T>,
    /// Written by whoever looks; the lock is held while files are read, so that they are read by one.
    looked: Mutex<Looked>,
}

struct Looked {
    at: Instant,
    used: Vec<Contents>,
    refused: Option<Refused>,
}

struct Refused {
    why: TlsError,
    is_told: bool,
}

impl<T> Reloading<T> {
    /// Reads the files.
    ///
    /// Errors: why nothing can be made of them.
    pub(crate) fn new(paths: Vec<PathBuf>, make: Make<T>) -> Result<Self, TlsError> {
        let used = read(&paths)?;
        let current = ArcSwap::from_pointee(make(&used)?);
        let looked = Mutex::new(Looked { at: Instant::now(), used, refused: None });
        Ok(Self { paths, make, current, looked })
    }

    /// What was made from the files when they were last good.
    pub fn current(&self) -> Arc<T> {
        self.current.load_full()
    }

    /// The files.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.paths.iter().map(PathBuf::as_path)
    }

    /// Looks at the files. Blocks on the disk.
    pub fn look(&self) -> Change {
        let mut looked = self.looked.lock();
        looked.at = Instant::now();
        let made = match read(&self.paths) {
            Ok(contents) if contents == looked.used => {
                looked.refused = None;
                return Change::None;
            }
            Ok(contents) => (self.make)(&contents).map(|made| (made, contents)),
            Err(error) => Err(error),
        };
        match made {
            Ok((made, contents)) => {
                self.current.store(Arc::new(made));
                looked.used = contents;
                looked.refused = None;
                Change::Taken
            }
            Err(why) => looked.refuse(why),
        }
    }

    /// Looks at the files unless somebody did so within [`RELOAD_INTERVAL`]: for those without a task of their own.
    pub fn look_if_due(&self) -> Change {
        let is_due = self.looked.try_lock().is_some_and(|looked| looked.at.elapsed() >= RELOAD_INTERVAL);
        if is_due { self.look() } else { Change::None }
    }
}

impl Looked {
    fn refuse(&mut self, why: TlsError) -> Change {
        match &mut self.refused {
            Some(refused) if refused.why == why && refused.is_told => Change::None,
            Some(refused) if refused.why == why => {
                refused.is_told = true;
                Change::Refused(why)
            }
            _ => {
                self.refused = Some(Refused { why, is_told: false });
                Change::None
            }
        }
    }
}

fn read(paths: &[PathBuf]) -> Result<Vec<Contents>, TlsError> {
    paths.iter().map(|path| Contents::read(path)).collect()
}
