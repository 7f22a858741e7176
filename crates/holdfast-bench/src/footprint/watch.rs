//! Looks at a cluster's memory and directories over and over, on a thread of its own.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Serialize;

use super::directory::Sizes;
use crate::error::Error;
use crate::measure::procfs::{ProcessUsage, forget_peak};
use crate::systems::cluster::Cluster;

/// Between two looks at the directories.
const INTERVAL: Duration = Duration::from_millis(100);

/// What was seen of a cluster over a while: each figure is that of the member that has most of it.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Seen {
    /// Resident bytes at the end.
    pub(crate) resident: u64,
    /// The most there ever were.
    pub(crate) resident_peak: u64,
    /// Sizes on disk at the end.
    pub(crate) sizes: Sizes,
    /// The largest total.
    pub(crate) bytes_max: u64,
}

impl Seen {
    /// This while and one behind it.
    pub(crate) fn followed_by(self, later: Self) -> Self {
        Self {
            resident_peak: self.resident_peak.max(later.resident_peak),
            bytes_max: self.bytes_max.max(later.bytes_max),
            ..later
        }
    }
}

/// A while that is not over.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    /// Gives the largest total of each directory.
    looker: JoinHandle<Vec<u64>>,
}

impl Watch {
    /// Begins to look.
    pub(crate) fn begin(cluster: &Cluster) -> Result<Self, Error> {
        for pid in cluster.pids() {
            forget_peak(pid)?;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, directories) = (Arc::clone(&stop), cluster.data_directories());
        let looker = std::thread::Builder::new().name("looker".to_owned());
        let looker = looker.spawn(move || look(&stopped, &directories));
        Ok(Self { stop, looker: looker.map_err(Error::io("start a thread"))? })
    }

    /// Ends it, for all members.
    pub(crate) async fn end(self, cluster: &Cluster) -> Result<Seen, Error> {
        self.end_of(cluster, usize::MAX).await
    }

    /// Ends it, for the first member alone.
    pub(crate) async fn end_of_first(self, cluster: &Cluster) -> Result<Seen, Error> {
        self.end_of(cluster, 1).await
    }

    async fn end_of(self, cluster: &Cluster, members: usize) -> Result<Seen, Error> {
        self.stop.store(true, Ordering::Relaxed);
        let looker = self.looker;
        let joined = tokio::task::spawn_blocking(move || looker.join()).await;
        let most = joined.ok().and_then(Result::ok).ok_or(Error::Interrupted)?;
        let mut seen =
            Seen { bytes_max: most.into_iter().take(members).max().unwrap_or(0), ..Seen::default() };
        for directory in cluster.data_directories().iter().take(members) {
            let sizes = Sizes::of(directory).map_err(Error::io("look at a data directory"))?;
            if sizes.total() > seen.sizes.total() {
                seen.sizes = sizes;
            }
        }
        for pid in cluster.pids().into_iter().take(members) {
            let usage = ProcessUsage::read(pid)?;
            seen.resident = seen.resident.max(usage.resident_bytes);
            seen.resident_peak = seen.resident_peak.max(usage.resident_peak_bytes);
        }
        seen.bytes_max = seen.bytes_max.max(seen.sizes.total());
        Ok(seen)
    }
}

fn look(stop: &AtomicBool, directories: &[PathBuf]) -> Vec<u64> {
    let mut most = vec![0; directories.len()];
    while !stop.load(Ordering::Relaxed) {
        for (most, directory) in most.iter_mut().zip(directories) {
            // What cannot be read now is read a moment later.
            *most = Sizes::of(directory).map_or(*most, |sizes| sizes.total().max(*most));
        }
        std::thread::sleep(INTERVAL);
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whiles_add_up_to_the_last_end_and_the_highest_peak() {
        let seen = |resident, resident_peak, bytes_max| Seen {
            resident,
            resident_peak,
            bytes_max,
            ..Seen::default()
        };
        let both = seen(5, 9, 20).followed_by(seen(3, 7, 30));
        assert_eq!((both.resident, both.resident_peak, both.bytes_max), (3, 9, 30));
    }
}
