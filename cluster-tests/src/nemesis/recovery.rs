//! After a fault everybody has to serve again. A member whose files were damaged may refuse to: then it is restarted, or
//! comes back without its files under a new id, as its operator would have it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::time::sleep;

use super::stage::{PATIENCE, POLL, Stage};
use super::{Broken, Fault, Notes};

/// How long a member that runs may take to serve; and one whose files were damaged, before it is started again.
const SERVES_WITHIN: Duration = Duration::from_secs(30);
const DAMAGED_SERVES_WITHIN: Duration = Duration::from_secs(15);

/// How much of what a damaged member says is kept.
const SAID_MAX: usize = 300;

/// How long one question may take.
const CALL: Duration = Duration::from_millis(1_000);

/// How often a member is started again before its files are given up.
const STARTS_MAX: usize = 2;

/// Whether a member serves.
enum Serves {
    Yes,
    Ended(String),
    Silent(String),
}

impl Stage<'_> {
    /// Waits until all members serve, and starts those that do not run. What no fault explains is written down.
    ///
    /// Those that have ended are started before anybody is waited for: without them there may be no quorum.
    pub(super) async fn recover(&mut self, fault: Fault, victims: &[usize], notes: &mut Notes) -> Result<()> {
        let deadline = Instant::now() + 3 * PATIENCE;
        let mut starts = vec![0; self.voters];
        self.rejoined.clear();
        for index in 0..self.voters {
            if let Some(said) = self.ended(index)? {
                let broken = Broken::Ended { member: index, fault, said };
                self.bring_back(broken, index, victims, &mut starts, notes).await?;
            }
            if !self.cluster.members()[index].is_started() {
                self.cluster.spawn(index)?;
            }
        }
        for index in 0..self.voters {
            let mut is_told = false;
            loop {
                let is_excused = self.is_excused(fault, victims, index);
                let within = if is_excused { DAMAGED_SERVES_WITHIN } else { SERVES_WITHIN };
                let broken = match self.serves(index, within).await? {
                    Serves::Yes => break,
                    Serves::Ended(said) => Broken::Ended { member: index, fault, said },
                    Serves::Silent(said) => Broken::Silent { member: index, fault, said },
                };
                ensure!(Instant::now() < deadline, "{broken}");
                if matches!(broken, Broken::Silent { .. }) && !is_excused {
                    // It is not killed: perhaps it is needed by the others.
                    if !is_told {
                        self.findings.push(broken);
                    }
                    is_told = true;
                } else {
                    self.bring_back(broken, index, victims, &mut starts, notes).await?;
                }
            }
        }
        Ok(())
    }

    fn is_excused(&self, fault: Fault, victims: &[usize], index: usize) -> bool {
        fault.may_end_members() && victims.contains(&index) && !self.rejoined.contains(&index)
            || self.damaged.contains(&index)
    }

    /// Starts a member again; one that was started often enough, or whose log is damaged, without its files.
    async fn bring_back(
        &mut self,
        broken: Broken,
        index: usize,
        victims: &[usize],
        starts: &mut [usize],
        notes: &mut Notes,
    ) -> Result<()> {
        let fault = broken.fault();
        if self.is_excused(fault, victims, index) {
            match broken {
                Broken::Ended { .. } => notes.refused += 1,
                Broken::Silent { .. } | Broken::Unreadable { .. } => notes.silent += 1,
            }
            notes.push(excuse(&broken));
        } else {
            self.findings.push(broken);
        }
        self.cluster.kill(index)?;
        starts[index] += 1;
        if starts[index] >= STARTS_MAX || matches!(fault, Fault::TornTail | Fault::RotLog) {
            notes.rejoined += 1;
            notes.push(format!("n{} comes back under a new id", index + 1));
            return self.rejoin(index).await;
        }
        self.cluster.spawn(index)
    }

    /// What a member has said last, if it was started and has ended.
    fn ended(&mut self, index: usize) -> Result<Option<String>> {
        if !self.cluster.members()[index].is_started() {
            return Ok(None);
        }
        let process = self.cluster.member(index).process()?;
        let status = process.try_wait()?;
        Ok(status.map(|status| format!("{status}: {}", process.log_tail(3))))
    }

    async fn serves(&mut self, index: usize, within: Duration) -> Result<Serves> {
        let began = Instant::now();
        loop {
            let answer = self.client.revision(index, CALL).await;
            let Err(error) = answer else { return Ok(Serves::Yes) };
            if let Some(said) = self.ended(index)? {
                return Ok(Serves::Ended(said));
            }
            if began.elapsed() > within {
                return Ok(Serves::Silent(format!("{error:#}: {}", self.tail(index))));
            }
            sleep(POLL).await;
        }
    }

    /// All of a member is read, so that damage is come upon. One that says that it is damaged is started again.
    pub(super) async fn read_all(&mut self, index: usize, fault: Fault, notes: &mut Notes) -> Result<()> {
        for attempt in 0..=STARTS_MAX {
            let read = self.client.contents(index, 0).await;
            let Err(error) = read else { return Ok(()) };
            if attempt == STARTS_MAX {
                self.findings.push(Broken::Unreadable { member: index, fault, said: format!("{error:#}") });
                return Ok(());
            }
            notes.refused += 1;
            notes.push(format!("n{} says that it is damaged, and is started again", index + 1));
            self.cluster.kill(index)?;
            self.recover(fault, &[index], notes).await.context("started again after its files failed")?;
        }
        Ok(())
    }

    /// The last lines that a member has printed.
    pub(super) fn tail(&mut self, index: usize) -> String {
        self.cluster
            .member(index)
            .process()
            .map_or_else(|error| format!("{error:#}"), |process| process.log_tail(5))
    }
}

/// The short form of what a damaged member may do.
fn excuse(broken: &Broken) -> String {
    let (member, what, said) = match broken {
        Broken::Ended { member, said, .. } => (member, "refuses", said),
        Broken::Silent { member, said, .. } | Broken::Unreadable { member, said, .. } => {
            (member, "does not serve and is started again", said)
        }
    };
    let last = said.lines().next_back().unwrap_or_default();
    let last: String = last.chars().take(SAID_MAX).collect();
    format!("n{} {what} ({last})", member + 1)
}
