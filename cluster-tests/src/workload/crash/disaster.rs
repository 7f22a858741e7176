//! What happens to a member and is no point in the program: its snapshot rots, its stable store is damaged or gone, its
//! disk is lost, its leader changes while it dumps. It must serve again, as the others do.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rand::RngExt;
use tokio::time::sleep;

use super::Broken;
use super::points::Way;
use super::trial::{DUMP_EVERY, Death, PATIENCE, POLL, Stage, Trial};
use crate::harness::scrape::Scrape;
use crate::judge::members::Disagreement;

/// How much of a file is overwritten.
const DAMAGE_BYTES: usize = 4096;

/// How long a member may take until it serves, or has come upon the damage of its store and says so.
const BROKEN_PATIENCE: Duration = Duration::from_secs(15);

/// Lines of a member's log among which it says what to do.
const LOG_LINES: usize = 40;

/// A store that is written all the time is looked at beyond its beginning, where an engine keeps what it checks at once.
const SPARED_PART: u64 = 8;

impl Stage<'_> {
    /// Brings a disaster over a member that does not lead, and waits until all serve again with equal hashes.
    pub(super) async fn suffer(&mut self, trial: Trial, broken: &mut Vec<Broken>) -> Result<Option<Death>> {
        let began = Instant::now();
        let (victim, lived) = match trial.point.way {
            Way::LeaderChange => (self.dump_through_a_change().await?, began.elapsed()),
            _ => {
                let victim = self.take_down(trial).await?;
                let lived = began.elapsed();
                self.damage(victim, trial.point.way).await?;
                (victim, lived)
            }
        };
        let is_broken = trial.point.way == Way::BrokenStore;
        let patience = if is_broken { BROKEN_PATIENCE } else { PATIENCE };
        let mut served = self.serve_again(victim, trial, patience).await;
        if served.is_err() && is_broken {
            // Damage that a start does not come upon is found by whoever reads it: the member says so, and a restart
            // rebuilds the store. One that says nothing is slow.
            let said = self.cluster.member(victim).process()?.log_tail(LOG_LINES);
            if said.contains("restart the member") {
                self.cluster.kill(victim)?;
                self.cluster.spawn(victim)?;
            }
            served = self.serve_again(victim, trial, PATIENCE).await;
        }
        let (serves_again, hashes) = served.with_context(|| format!("after {trial:?}"))?;
        broken.extend(hashes.into_iter().map(|disagreement| Broken::Members { trial, disagreement }));
        Ok(Some(Death { trial, led: false, lived, serves_again }))
    }

    /// Waits until all members serve, and a new one votes; gives how long that took, and how their hashes differ.
    async fn serve_again(
        &mut self,
        victim: usize,
        trial: Trial,
        patience: Duration,
    ) -> Result<(Duration, Vec<Disagreement>)> {
        let restarted = Instant::now();
        self.cluster.wait_ready(patience).await?;
        if trial.point.way == Way::LostDisk {
            self.cluster.until_voting(victim, patience).await?;
        }
        let serves_again = restarted.elapsed();
        Ok((serves_again, self.compare().await.context("comparing hashes")?))
    }

    /// Damages what a member that is down has on disk, and starts it.
    async fn damage(&mut self, victim: usize, way: Way) -> Result<()> {
        let data_dir = self.cluster.members()[victim].data_dir.clone();
        match way {
            Way::Rot => self.rot(victim, &data_dir).await,
            Way::BrokenStore => {
                let generation = newest(&data_dir.join("store"), |name| name.starts_with("gen-"))?;
                let generation = generation.context("there is no stable store")?;
                self.observer.rebuilt(victim);
                if self.rng.random_bool(0.5) {
                    std::fs::remove_dir_all(&generation).context("removing the stable store")?;
                } else {
                    self.overwrite(&largest(&generation)?)?;
                }
                self.cluster.spawn(victim)
            }
            Way::LostDisk => {
                std::fs::remove_dir_all(&data_dir).context("removing everything")?;
                self.observer.replaced(victim);
                self.cluster.replace(victim)
            }
            other => bail!("{other:?} is no disaster"),
        }
    }

    /// A bit of the snapshot changes. The member serves, and has set the file aside or replaced it before long.
    async fn rot(&mut self, victim: usize, data_dir: &Path) -> Result<()> {
        let snapshots = data_dir.join("store/snapshots");
        let snapshot = newest(&snapshots, |name| name.ends_with(".snap"))?.context("there is no snapshot")?;
        let mut bytes = std::fs::read(&snapshot).context("reading the snapshot")?;
        let at = self.rng.random_range(0..bytes.len());
        bytes[at] ^= 1 << self.rng.random_range(0..8);
        std::fs::write(&snapshot, bytes).context("writing the snapshot")?;
        self.cluster.spawn(victim)?;
        self.cluster.wait_ready(PATIENCE).await.context("with a rotten snapshot")?;
        let deadline = Instant::now() + PATIENCE;
        while snapshot.exists() {
            ensure!(Instant::now() < deadline, "{} is rotten and still in force", snapshot.display());
            // As the log grows, it is replaced; the member may be too busy to be asked.
            drop(self.cluster.member(victim).process()?.ask_for_dump());
            sleep(DUMP_EVERY).await;
        }
        Ok(())
    }

    fn overwrite(&mut self, file: &Path) -> Result<()> {
        use std::os::unix::fs::FileExt as _;
        let open = std::fs::OpenOptions::new().write(true).open(file).context("opening the stable store")?;
        let bytes = open.metadata().context("looking at the stable store")?.len();
        let at = self.rng.random_range(bytes / SPARED_PART..=bytes.saturating_sub(1));
        let noise: Vec<u8> = (0..DAMAGE_BYTES).map(|_| self.rng.random()).collect();
        let fitting = usize::try_from(bytes - at).unwrap_or(usize::MAX).min(DAMAGE_BYTES);
        open.write_all_at(&noise[..fitting], at).context("damaging the stable store")
    }

    /// A follower dumps again and again while the leader is paused and another one comes. Its dumps go on.
    async fn dump_through_a_change(&mut self) -> Result<usize> {
        let leader = self.cluster.leader(PATIENCE).await?;
        let others: Vec<usize> = (0..self.cluster.members().len()).filter(|m| *m != leader).collect();
        let victim = others[self.rng.random_range(0..others.len())];
        let url = self.cluster.members()[victim].client_url.clone();
        let before = dumps_of(&url).await?;
        self.cluster.member(leader).process()?.pause()?;
        let deadline = Instant::now() + PATIENCE;
        let changed = loop {
            drop(self.cluster.member(victim).process()?.ask_for_dump());
            let mut is_changed = false;
            for member in &others {
                is_changed |= self.leads(*member).await == Some(true);
            }
            if is_changed || Instant::now() >= deadline {
                break is_changed;
            }
            sleep(POLL).await;
        };
        self.cluster.member(leader).process()?.resume()?;
        ensure!(changed, "nobody else came to lead within {PATIENCE:?}");
        while dumps_of(&url).await? <= before {
            ensure!(Instant::now() < deadline, "no dump was finished over a change of leaders");
            sleep(POLL).await;
        }
        Ok(victim)
    }
}

/// How many dumps a member has finished; one that has never done so has no such line.
async fn dumps_of(url: &str) -> Result<f64> {
    Ok(Scrape::of(url).await?.value("holdfast_dumps_total{result=\"ok\"}").unwrap_or_default())
}

/// The entry of a directory, of those wanted, that was changed last.
fn newest(directory: &Path, wanted: impl Fn(&str) -> bool) -> Result<Option<PathBuf>> {
    let entries = std::fs::read_dir(directory).with_context(|| format!("listing {}", directory.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.context("listing a directory")?;
        if wanted(&entry.file_name().to_string_lossy()) {
            found.push((
                entry.metadata().and_then(|metadata| metadata.modified()).context("a file's age")?,
                entry.path(),
            ));
        }
    }
    Ok(found.into_iter().max().map(|(_, path)| path))
}

fn largest(directory: &Path) -> Result<PathBuf> {
    let entries = std::fs::read_dir(directory).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let entries = entries.with_context(|| format!("listing {}", directory.display()))?;
    let file = entries.into_iter().filter(|entry| entry.path().is_file());
    let file = file.max_by_key(|entry| entry.metadata().map_or(0, |metadata| metadata.len()));
    Ok(file.context("the stable store has no file")?.path())
}
