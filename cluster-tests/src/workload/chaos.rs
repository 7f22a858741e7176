//! Everything at once: workloads that share one cluster, faults one after the other, one history by which all of it is
//! judged, and a verdict of one page.
//!
//! Each workload has keys of its own and records what its clients saw. All their commands go to one chronicle, from which
//! the history of every revision is put together; a judge for each workload, and those of watches, leases and members, are
//! given what they need when the run is over.

pub mod book;
mod crew;
pub mod lists;
pub mod locks;
pub mod page;
pub mod registers;
pub mod report;
pub mod scene;
pub mod sets;
pub mod timeline;
pub mod transfers;
pub mod verdict;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rand::RngExt;
use rand::seq::SliceRandom;

use self::crew::Crew;
use self::report::{Finding, Report};
use self::scene::Scene;
use self::verdict::Seen;
use super::watch::compactor;
use super::watch::shared::Shared;
use crate::client::{Client, Contents, TIMEOUT};
use crate::harness::cluster::{Cluster, System};
use crate::harness::disk::SmallDisk;
use crate::nemesis::probe::Probe;
use crate::nemesis::stage::Stage;
use crate::nemesis::{Fault, Incident};

/// How long members may take to serve in the beginning and in the end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between the moment at which all serve again and the next fault, at least and at most.
const CALM: std::ops::Range<Duration> = Duration::from_millis(200)..Duration::from_millis(600);

/// How long a fault lasts in a long run.
pub const LENGTH: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(300)..=Duration::from_millis(2_500);

/// The size of a disk that is to fill up.
const DISK_MEBIBYTES: u32 = 1_024;

/// The revision counts as final when it has not moved for this long.
const STILL: Duration = Duration::from_millis(1_500);

/// Flags of every member, so that snapshots, purges and installs are part of the run.
const HOLDFAST_FLAGS: [&str; 3] =
    ["--dump-log-bytes=8MiB", "--segment-bytes=4MiB", "--experimental-watch-progress-notify-interval=2s"];
const ETCD_FLAGS: [&str; 2] = ["--snapshot-count=10000", "--experimental-watch-progress-notify-interval=2s"];

/// What clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the table of names says what each of them is")]
pub enum Workload {
    Registers,
    Transfers,
    Sets,
    Lists,
    Locks,
    Leases,
    Watchers,
    Compaction,
}

/// Every workload and its name.
pub const WORKLOADS: [(Workload, &str); 8] = [
    (Workload::Registers, "registers"),
    (Workload::Transfers, "transfers"),
    (Workload::Sets, "sets"),
    (Workload::Lists, "lists"),
    (Workload::Locks, "locks"),
    (Workload::Leases, "leases"),
    (Workload::Watchers, "watchers"),
    (Workload::Compaction, "compaction"),
];

impl Workload {
    /// The workloads of these names, or `all`; each once.
    pub fn named(names: &[String]) -> Result<Vec<Self>> {
        let mut workloads = Vec::new();
        for wanted in names {
            let found = WORKLOADS.iter().filter(|(_, name)| wanted == "all" || wanted == name);
            let found: Vec<Self> = found.map(|(workload, _)| *workload).collect();
            if found.is_empty() {
                let all: Vec<&str> = WORKLOADS.iter().map(|(_, name)| *name).collect();
                bail!("no workload is named {wanted}; there are all, {}", all.join(", "));
            }
            workloads.extend(found.into_iter().filter(|one| !workloads.contains(one)).collect::<Vec<_>>());
        }
        Ok(workloads)
    }
}

/// With less than this a run proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Minimum {
    /// Calls.
    pub operations: u64,
    /// Faults of each kind that was asked for.
    pub faults: usize,
}

/// A run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Members.
    pub members: usize,
    /// Faults.
    pub faults: Vec<Fault>,
    /// Workloads.
    pub workloads: Vec<Workload>,
    /// How long load and faults go on.
    pub duration: Duration,
    /// How long a fault lasts.
    pub length: std::ops::RangeInclusive<Duration>,
    /// How often each fault comes at most; none: until the time is over.
    pub rounds: Option<usize>,
    /// Calls a second, of all clients together, about.
    pub rate: u32,
    /// Watchers.
    pub watchers: usize,
    /// A build to which every second rolling restart goes.
    pub other_binary: Option<PathBuf>,
    /// What makes the run count.
    pub minimum: Minimum,
    /// Makes faults and clients repeatable; the members' timing is their own.
    pub seed: u64,
}

impl Plan {
    /// Whether a workload is part of it.
    pub fn has(&self, workload: Workload) -> bool {
        self.workloads.contains(&workload)
    }
}

/// Runs the plan, and says each fault.
///
/// Errors: the cluster could not be set up. That it does not serve any more is a finding.
pub async fn run(mut system: System, mut plan: Plan, mut say: impl FnMut(String)) -> Result<Report> {
    let is_holdfast = system.label == "holdfast";
    let flags: &[&str] = if is_holdfast { &HOLDFAST_FLAGS } else { &ETCD_FLAGS };
    let own = system.extra_args.split_off(usize::from(is_holdfast));
    system.extra_args.extend(flags.iter().map(|flag| (*flag).to_owned()));
    system.extra_args.extend(own);
    if !is_holdfast && plan.faults.iter().any(|fault| fault.is_for_holdfast_alone()) {
        say("etcd takes no snapshot when it is told to: no dump".to_owned());
        plan.faults.retain(|fault| !fault.is_for_holdfast_alone());
    }
    let label = system.label.clone();
    let mut cluster = Cluster::prepare(system, plan.members)?;
    let disks = match disks(&mut cluster, &plan) {
        Ok(disks) => disks,
        Err(error) => {
            say(format!("no disk-full: {error:#}"));
            plan.faults.retain(|fault| *fault != Fault::DiskFull);
            Vec::new()
        }
    };
    let outcome = Box::pin(drive(&mut cluster, &disks, label, plan, &mut say)).await;
    match outcome {
        Ok(report) if report.findings.is_empty() => Ok(report),
        Ok(report) => Ok(Report { kept: Some(keep(&mut cluster, &disks)), ..report }),
        Err(error) => {
            Err(error.context(format!("data and logs are in {}", keep(&mut cluster, &disks).display())))
        }
    }
}

/// A small disk for each member, if one is to fill up.
fn disks(cluster: &mut Cluster, plan: &Plan) -> Result<Vec<SmallDisk>> {
    if !plan.faults.contains(&Fault::DiskFull) {
        return Ok(Vec::new());
    }
    let mut disks = Vec::new();
    for index in 0..plan.members {
        let mount = cluster.path().join(format!("n{}", index + 1));
        std::fs::create_dir(&mount).context("a place for a disk")?;
        disks.push(SmallDisk::mount(DISK_MEBIBYTES, &mount, &mount.with_extension("mount"))?);
    }
    for (index, disk) in disks.iter().enumerate() {
        let mount = cluster.path().join(format!("n{}", index + 1));
        cluster.set_disk(index, &mount, disk);
    }
    Ok(disks)
}

/// Keeps data and logs; what lies on small disks is copied from them.
fn keep(cluster: &mut Cluster, disks: &[SmallDisk]) -> PathBuf {
    let sources: Vec<(PathBuf, PathBuf)> =
        cluster.members().iter().map(|member| (member.files(), member.data_dir.clone())).collect();
    for (source, target) in sources.iter().filter(|_| !disks.is_empty()) {
        // What cannot be copied is lost; the logs are there in any case.
        drop(std::process::Command::new("cp").arg("-r").arg(source).arg(target).output());
    }
    cluster.keep()
}

async fn drive(
    cluster: &mut Cluster,
    disks: &[SmallDisk],
    system: String,
    plan: Plan,
    say: &mut impl FnMut(String),
) -> Result<Report> {
    let endpoints = cluster.endpoints();
    let network = cluster.connect(1).await?;
    (0..plan.members).try_for_each(|member| cluster.spawn(member))?;
    cluster.wait_ready(PATIENCE).await?;
    let client = Client::new(&endpoints)?;
    let version = client.status(0).await?.version;
    let shared = Arc::new(Shared::new(plan.seed));
    let scene = Arc::new(Scene::new(Arc::clone(&shared), client.clone()));
    let crew = Crew::start(&scene, &endpoints, &plan).await?;
    let probe = Probe::new(client.clone(), Arc::clone(&shared));
    let mut stage = Stage {
        cluster,
        network,
        disks,
        client: client.clone(),
        probe,
        shared: Arc::clone(&shared),
        voters: plan.members,
        rng: shared.rng("nemesis", 0),
        other_binary: plan.other_binary.clone(),
        damaged: BTreeSet::new(),
        rejoined: BTreeSet::new(),
        findings: Vec::new(),
    };
    let (incidents, stuck) = break_it(&mut stage, &plan, say).await;
    let broken = std::mem::take(&mut stage.findings);
    let lasted = shared.elapsed();
    scene.stop.store(true, Ordering::SeqCst);
    say("faults are over; reading what is there".to_owned());
    let names: Vec<String> =
        cluster.members()[..plan.members].iter().map(|member| member.name.clone()).collect();
    let ended = match stuck {
        Some(error) => Err(error),
        None => crew.finish(&incidents, &names).await,
    };
    let mut report = Report::new(system, version, plan, lasted, incidents);
    report.findings.extend(broken.iter().map(|broken| Finding::of("members", broken)));
    match ended {
        Ok(seen) => judge(report, scene, seen).await,
        Err(error) => {
            report.findings.push(Finding::of("serving", format!("not judged: {error:#}")));
            report.count(&scene.book);
            Ok(report)
        }
    }
}

async fn judge(mut report: Report, scene: Arc<Scene>, seen: Seen) -> Result<Report> {
    tokio::task::spawn_blocking(move || {
        seen.judge(&scene, &mut report);
        report.count(&scene.book);
        report
    })
    .await
    .context("a judge panicked")
}

/// One fault after the other, in a random order that lets each come, until the time is over.
async fn break_it(
    stage: &mut Stage<'_>,
    plan: &Plan,
    say: &mut impl FnMut(String),
) -> (Vec<Incident>, Option<anyhow::Error>) {
    let (mut bag, mut incidents, mut rounds) = (Vec::new(), Vec::new(), 0);
    while stage.shared.elapsed() < plan.duration {
        tokio::time::sleep(stage.rng.random_range(CALM)).await;
        if plan.faults.is_empty() {
            continue;
        }
        if bag.is_empty() {
            if plan.rounds.is_some_and(|most| rounds == most) {
                break;
            }
            rounds += 1;
            bag.clone_from(&plan.faults);
            bag.shuffle(&mut stage.rng);
        }
        let Some(fault) = bag.pop() else { break };
        let length = stage.rng.random_range(plan.length.clone());
        match Box::pin(stage.suffer(fault, length)).await {
            Ok(incident) => {
                say(incident.to_string());
                incidents.push(incident);
            }
            Err(error) => return (incidents, Some(error.context(fault.name()))),
        }
    }
    (incidents, None)
}

/// What the store holds once nothing moves any more, and the chronicle is settled.
async fn final_contents(client: &Client, shared: &Shared) -> Result<Contents> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let before = client.revision(0, TIMEOUT).await;
        tokio::time::sleep(STILL).await;
        let after = compactor::settle(shared, client, 0).await.context("the last open commands");
        match (before, after) {
            (Ok(before), Ok(after)) if before == after => {
                return client.contents(0, after).await.context("the final contents");
            }
            // What has been read stays read: a busy machine comes to an end of it.
            (Err(error), _) | (_, Err(error)) if tokio::time::Instant::now() >= deadline => {
                return Err(error);
            }
            _ => {}
        }
        ensure!(
            tokio::time::Instant::now() < deadline,
            "the revision still moves after all clients have ended"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workloads_have_names() {
        let of = |names: &[&str]| {
            Workload::named(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(of(&["all"]).unwrap().len(), WORKLOADS.len());
        assert_eq!(of(&["locks", "sets", "locks"]).unwrap(), [Workload::Locks, Workload::Sets]);
        assert!(of(&["sleep"]).unwrap_err().to_string().contains("no workload is named sleep"));
    }
}
