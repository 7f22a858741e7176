//! A collector of three sources in a process of its own: restarted, cut off and rolled back at random, on members that fail,
//! while somebody else writes to the sources and to the collection at once.
//!
//! The origin, in which the sources are, is a cluster of its own that nobody breaks. Nobody compacts the cluster that is
//! collected in, so that its whole past can be read in the end: [`crate::judge::collector`].

pub mod child;
pub mod origin;
pub mod past;
pub mod troubles;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;

use self::child::{Child, Raced};
use self::origin::{Origin, OriginWriter};
use self::troubles::{Running, Scene, Trouble};
use crate::client::{Client, TIMEOUT};
use crate::harness::binary;
use crate::harness::cluster::{Cluster, System};
use crate::harness::network::Network;
use crate::judge::collector::{Envelope, Finding, Tally, judge};
use crate::nemesis::probe::Probe;
use crate::nemesis::stage::Stage;
use crate::workload::watch::shared::Shared;

/// Members of the cluster that is collected in.
const MEMBERS: usize = 3;

/// How long members may take to serve, and children to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the collector may take in the end to have everything: it rests for up to 30 s when something fails again and again.
const CONVERGE_MAX: Duration = Duration::from_secs(180);

/// Between two looks at whether it has.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a collector may have in memory: 64 MiB, and a page of 500 objects, which have up to a KiB with all that is around them.
const MEMORY_MAX: u64 = (64 << 20) + 500 * 1_024;

/// Watchers are told this often how far a member is, so that cursors move on.
const PROGRESS_INTERVAL: &str = "--experimental-watch-progress-notify-interval=2s";

/// What is collected.
const RESOURCE: &str = "objects";

/// How many findings are printed.
const SHOWN_MAX: usize = 20;

/// A run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How long troubles and writes go on.
    pub duration: Duration,
    /// Objects of each source.
    pub objects: u64,
    /// Writes to the origin, a second.
    pub rate: u32,
    /// Writes to the origin and to the collection, a second.
    pub direct_rate: u32,
    /// Makes writes and troubles repeatable; the timing of processes is their own.
    pub seed: u64,
}

/// What a run came to.
#[derive(Debug)]
pub struct Report {
    /// The plan.
    pub plan: Plan,
    /// What happened.
    pub troubles: Vec<Trouble>,
    /// Changes of the origin.
    pub changes: usize,
    /// What was collected.
    pub tally: Tally,
    /// What the direct writer did.
    pub raced: Raced,
    /// From the last write until all was there, if it ever was.
    pub converged: Option<Duration>,
    /// The most memory that a collector had.
    pub peak_bytes: u64,
    /// What is wrong.
    pub findings: Vec<String>,
    /// Where everything is kept, after a run with findings.
    pub kept: Option<PathBuf>,
}

/// Runs the plan.
///
/// Errors: a cluster or a child could not be run, or stopped serving. Findings are no errors.
pub async fn run(mut system: System, plan: Plan) -> Result<Report> {
    system.extra_args.push(PROGRESS_INTERVAL.to_owned());
    let program = binary::collector()?;
    let mut origin = Origin::start(system.clone(), plan.objects).await?;
    let mut cluster = Cluster::prepare(system, MEMBERS)?;
    match Box::pin(drive(&mut cluster, &mut origin, program, plan)).await {
        Ok(report) if report.findings.is_empty() => Ok(report),
        Ok(report) => {
            origin.keep();
            Ok(Report { kept: Some(cluster.keep()), ..report })
        }
        Err(error) => Err(error.context(format!("data and logs are in {}", cluster.keep().display()))),
    }
}

async fn drive(cluster: &mut Cluster, origin: &mut Origin, program: PathBuf, plan: Plan) -> Result<Report> {
    let network = cluster.connect(0).await?;
    (0..MEMBERS).try_for_each(|member| cluster.spawn(member))?;
    cluster.wait_ready(PATIENCE).await?;
    let (endpoints, log) = (cluster.endpoints(), cluster.path().join("collector.log"));
    let client = Client::new(&endpoints)?;
    let shared = Arc::new(Shared::new(plan.seed));
    let (ways, way) = (ways(&endpoints).await?, ways(&[origin.url()]).await?);
    let more = [
        "--write".to_owned(),
        plan.direct_rate.to_string(),
        "--objects".to_owned(),
        plan.objects.to_string(),
    ];
    let mut collector = Running::start(program.clone(), ways, way, log.clone())?;
    let racer = Child::start(&program, &endpoints, &origin.url(), &more, &log)?;
    let writer = OriginWriter::start(origin.channel(), shared.rng("origin", 0), plan.objects, plan.rate);
    let stage = Stage {
        cluster,
        network,
        disks: &[],
        probe: Probe::new(client.clone(), Arc::clone(&shared)),
        client: client.clone(),
        shared: Arc::clone(&shared),
        voters: MEMBERS,
        rng: shared.rng("nemesis", 0),
        other_binary: None,
        damaged: BTreeSet::new(),
        rejoined: BTreeSet::new(),
        findings: Vec::new(),
    };
    let end = shared.elapsed() + plan.duration;
    let mut scene =
        Scene { stage, origin, collector: &mut collector, resource: RESOURCE, cursors: HashMap::new() };
    let troubles = scene.run(end).await?;
    let broken: Vec<String> = scene.stage.findings.iter().map(ToString::to_string).collect();
    writer.stop().await?;
    let raced: Raced = serde_json::from_str(&racer.end(PATIENCE).await?).context("what the writer says")?;
    let converged = converge(&client, origin).await?;
    collector.kill().await?;
    origin.learn().await?;
    let last = client.revision(0, TIMEOUT).await?;
    let collected = past::read(&client.channel(0), 2, last).await.context("what was collected")?;
    let (tally, mut findings) = judge(origin.past(), &collected, RESOURCE);
    if collector.peak_bytes > MEMORY_MAX {
        findings.push(Finding::Memory { bytes: collector.peak_bytes, allowed: MEMORY_MAX });
    }
    let findings = broken.into_iter().chain(findings.iter().map(ToString::to_string)).collect();
    let (changes, peak_bytes) = (origin.past().len(), collector.peak_bytes);
    Ok(Report { plan, troubles, changes, tally, raced, converged, peak_bytes, findings, kept: None })
}

/// A way to each of these, with a place behind them for who takes it.
async fn ways(endpoints: &[String]) -> Result<Network> {
    Network::to(&[endpoints, &["http://127.0.0.1:1".to_owned()]].concat()).await
}

/// Waits until everything is collected; how long that took. `None` when it never was: the judge will say what is missing.
async fn converge(client: &Client, origin: &Origin) -> Result<Option<Duration>> {
    let began = Instant::now();
    let wanted = origin.contents().await?;
    let wanted: BTreeMap<Bytes, i64> =
        wanted.pairs.into_iter().map(|(key, stored)| (key, stored.mod_revision)).collect();
    ensure!(!wanted.is_empty(), "there is nothing to collect");
    let root = format!("/c/{RESOURCE}/");
    while began.elapsed() < CONVERGE_MAX {
        // From revision 0, that is now.
        let contents = client.contents(0, 0).await?;
        let has: BTreeMap<Bytes, i64> = contents
            .pairs
            .into_iter()
            .filter_map(|(key, stored)| {
                let name = key.strip_prefix(root.as_bytes())?;
                let is_object = name.iter().filter(|byte| **byte == b'/').count() == 2;
                is_object.then_some(())?;
                Some((key.slice_ref(name), Envelope::read(&stored.value)?.version))
            })
            .collect();
        if has == wanted {
            return Ok(Some(began.elapsed()));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(None)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { duration, objects, rate, direct_rate, seed } = &self.plan;
        let seconds = duration.as_secs();
        writeln!(f, "collector: 3 sources of {objects} objects, {seconds} s")?;
        let mut troubles: BTreeMap<Trouble, usize> = BTreeMap::new();
        self.troubles.iter().for_each(|trouble| *troubles.entry(*trouble).or_default() += 1);
        let troubles: Vec<String> =
            troubles.iter().map(|(trouble, count)| format!("{trouble} {count}")).collect();
        writeln!(f, "  troubles: {}", troubles.join(", "))?;
        let Tally { puts, gone, objects: left } = self.tally;
        writeln!(
            f,
            "  changes of the origin: {}; collected: {puts} puts, {gone} deletions, {left} objects in the end",
            self.changes
        )?;
        let Raced { applied, same, older, failed } = self.raced;
        writeln!(
            f,
            "  direct writes: {applied} applied, {same} there already, {older} behind a newer one, {failed} failed"
        )?;
        match self.converged {
            Some(time) => write!(f, "  all was there {} ms after the last write", time.as_millis())?,
            None => write!(f, "  not all was there in the end")?,
        }
        writeln!(f, "; memory at most {:.1} MiB", self.peak_bytes as f64 / f64::from(1 << 20))?;
        self.findings.iter().take(SHOWN_MAX).try_for_each(|finding| writeln!(f, "  {finding}"))?;
        match self.findings.len() {
            0 => writeln!(f, "  verdict: no finding")?,
            count => writeln!(f, "  verdict: {count} FINDINGS")?,
        }
        if let Some(kept) = &self.kept {
            writeln!(f, "  data and logs are in {}", kept.display())?;
        }
        write!(
            f,
            "  again: cargo run --release -p cluster-tests -- collector --duration {seconds}s --objects {objects} --rate \
             {rate} --direct-rate {direct_rate} --seed {seed}"
        )
    }
}
