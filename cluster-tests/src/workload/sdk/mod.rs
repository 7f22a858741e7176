//! The SDK under faults: informers, watches and sessions in a process of their own, on members that are killed, stopped and
//! cut off, behind connections that break, while history is compacted under them.
//!
//! The child is a program that is built with the SDK, and shares no code with this harness. What it was told is held against
//! what the writers here have done, by the laws of [`crate::judge::sdk`].

pub mod blows;
pub mod child;
pub mod onlooker;
pub mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use self::blows::{Blow, Scene};
use self::child::{Child, Config, InformerEnd, WatchEnd, Wish, lines};
use self::onlooker::Onlooker;
use self::report::{Locks, Report, Writes};
use crate::client::{Client, Contents, TIMEOUT};
use crate::harness::binary;
use crate::harness::cluster::{Cluster, System};
use crate::harness::network::Network;
use crate::judge::sdk::locks::{self, Contender, Look, Names};
use crate::judge::sdk::told::{self, Breach, Finding, Kinds, Line, Tally};
use crate::judge::sdk::world::{Digest, Range, World};
use crate::judge::watch::history::History;
use crate::judge::watch::record::Compaction;
use crate::nemesis::probe::Probe;
use crate::nemesis::stage::Stage;
use crate::workload::watch::calls::{Fate, Window, connections};
use crate::workload::watch::compactor::{self, Compactor};
use crate::workload::watch::shared::Shared;
use crate::workload::watch::writers::{Load, SLOTS, Writers, Written, slot_key};

/// Members.
const MEMBERS: usize = 3;

/// How long members may take to serve, and the child to begin.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the child's informers and watches may take to come to the last revision, in seconds; the child itself takes a
/// little more.
const FINISH_S: u64 = 60;

/// The members send progress unasked this often, so that who watches what does not change loses nothing to compactions.
const PROGRESS_INTERVAL: &str = "--experimental-watch-progress-notify-interval=2s";

/// The revision counts as final when it has not moved for this long: longer than the lease of a session that nobody could end.
const STILL: Duration = Duration::from_millis(4_000);

/// The time to live of sessions, in seconds.
const TTL_S: u64 = 2;

/// The lock, and what is written under it.
const LOCK: &str = "locks/sdk";
const FACT: &str = "facts/last";

/// A run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How long faults and load go on.
    pub duration: Duration,
    /// Informers.
    pub informers: usize,
    /// Watches.
    pub watches: usize,
    /// Sessions that take a lock in turns.
    pub sessions: usize,
    /// The load.
    pub load: Load,
    /// Between two compactions.
    pub compact_every: Duration,
    /// Makes writers, compactions and faults repeatable; the timing of processes is their own.
    pub seed: u64,
}

impl Plan {
    /// What the child is told.
    fn config(&self, dir: &Path) -> Config {
        let writers = self.load.writers.max(1);
        Config {
            informers: (0..self.informers).map(|number| informed(number, writers)).collect(),
            watches: (0..self.watches).map(|number| watched(number, writers)).collect(),
            sessions: self.sessions,
            ttl_s: TTL_S,
            lock: LOCK.to_owned(),
            fact: FACT.to_owned(),
            dir: dir.to_owned(),
            finish_s: FINISH_S,
        }
    }
}

/// What an informer keeps: much, one writer's, some writers', what is deleted in groups, everything.
fn informed(number: usize, writers: usize) -> Range {
    let writer = number / 5 % writers;
    match number % 5 {
        0 => Range::Prefix("data/".to_owned()),
        1 => Range::Prefix(format!("data/{writer:02}/")),
        2 => Range::Between(format!("data/{writer:02}/05"), format!("data/{:02}/07", writer + 2)),
        3 => Range::Prefix(format!("data/{writer:02}/group/")),
        _ => Range::Prefix(String::new()),
    }
}

/// What a watch follows: mostly sub-ranges, some of which hardly change.
fn watched(number: usize, writers: usize) -> Wish {
    let (writer, slot) = (number / 10 % writers, number / 10 % SLOTS);
    let range = match number % 10 {
        0 => Range::Key(String::from_utf8_lossy(&slot_key(writer, slot, 0)).into_owned()),
        1..=4 => Range::Prefix(format!("data/{writer:02}/{:02}/", (slot + number) % SLOTS)),
        5 => Range::Prefix(format!("data/{writer:02}/")),
        6 => Range::Prefix(format!("data/{writer:02}/group/")),
        7 => Range::Between(format!("data/{writer:02}/03"), format!("data/{writer:02}/08")),
        8 if number % 20 == 8 => Range::Prefix("locks/".to_owned()),
        8 => Range::Prefix("nothing/".to_owned()),
        _ => Range::Prefix(String::new()),
    };
    let kinds = match number / 10 % 6 {
        3 => Kinds::Puts,
        5 => Kinds::Deletes,
        _ => Kinds::All,
    };
    Wish { range, kinds, from: if number.is_multiple_of(2) { 2 } else { 0 } }
}

/// Runs the plan.
///
/// Errors: the cluster or the child could not be run, or stopped serving. Findings are no errors.
pub async fn run(mut system: System, plan: Plan) -> Result<Report> {
    system.extra_args.push(PROGRESS_INTERVAL.to_owned());
    let program = binary::sdk()?;
    let mut cluster = Cluster::prepare(system, MEMBERS)?;
    match Box::pin(drive(&mut cluster, &program, plan)).await {
        Ok(report) if report.is_clean() => Ok(report),
        Ok(report) => Ok(Report { kept: Some(cluster.keep()), ..report }),
        Err(error) => Err(error.context(format!("data and logs are in {}", cluster.keep().display()))),
    }
}

/// What is left to be judged when all is over.
struct Seen {
    plan: Plan,
    config: Config,
    blows: Vec<Blow>,
    written: Vec<Vec<Written>>,
    compactions: Vec<Compaction>,
    contenders: Vec<Contender>,
    looks: Vec<Look>,
    end: Contents,
    informers: Vec<InformerEnd>,
    /// What the store holds at the revision of each informer that is at another one than the last.
    others: BTreeMap<i64, Contents>,
    watches: Vec<WatchEnd>,
}

async fn drive(cluster: &mut Cluster, program: &Path, plan: Plan) -> Result<Report> {
    let network = cluster.connect(0).await?;
    (0..MEMBERS).try_for_each(|member| cluster.spawn(member))?;
    cluster.wait_ready(PATIENCE).await?;
    let (endpoints, dir) = (cluster.endpoints(), cluster.path().join("sdk"));
    std::fs::create_dir(&dir).context("a directory for the child")?;
    let shared = Arc::new(Shared::new(plan.seed));
    let client = Client::new(&endpoints)?;
    let writers = Writers::start(&shared, &connections(&endpoints, Window::Usual)?, plan.load);
    // The last place is the child's: nobody calls it.
    let places = [endpoints.clone(), vec!["http://127.0.0.1:1".to_owned()]].concat();
    let way = Network::to(&places).await?;
    let routes: Vec<String> = (0..MEMBERS).map(|member| way.route(member).to_owned()).collect();
    let mut child = Child::start(program, &routes, &dir.with_extension("log"))?;
    way.set_process(MEMBERS, Some(child.pid()?));
    let config = plan.config(&dir);
    child.begin(&config, PATIENCE).await?;
    let onlooker = Onlooker::start(&client, &format!("{LOCK}/"));
    let channels = connections(&endpoints, Window::Usual)?;
    let compactor = Compactor::start(Arc::clone(&shared), client.clone(), channels, plan.compact_every);
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
    let mut scene = Scene { stage, network: &way, child: &child };
    let blows = scene.run(shared.elapsed() + plan.duration).await?;
    let broken: Vec<String> = scene.stage.findings.iter().map(ToString::to_string).collect();
    let written = writers.stop().await?;
    let compactions = compactor.stop().await?;
    let contenders = child.end_sessions(PATIENCE).await?;
    let looks = onlooker.stop().await?;
    let end = final_contents(&client, &shared).await?;
    let (informers, watches) = child.finish(end.revision, PATIENCE + Duration::from_secs(FINISH_S)).await?;
    let others = states(&client, &informers, end.revision).await?;
    let seen = Seen {
        plan,
        config,
        blows,
        written,
        compactions,
        contenders,
        looks,
        end,
        informers,
        others,
        watches,
    };
    let judging = tokio::task::spawn_blocking(move || seen.judge(&shared, broken));
    judging.await.context("the judge panicked")?
}

/// What the store holds once nothing moves any more, and the chronicle is settled.
async fn final_contents(client: &Client, shared: &Shared) -> Result<Contents> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let before = client.revision(0, TIMEOUT).await.context("the final revision")?;
        tokio::time::sleep(STILL).await;
        let after = compactor::settle(shared, client, 0).await.context("the last open commands")?;
        if before == after {
            return client.contents(0, after).await.context("the final contents");
        }
        ensure!(Instant::now() < deadline, "the revision still moves after everybody has ended");
    }
}

/// What the store holds at other revisions than the last that informers have come to.
async fn states(client: &Client, informers: &[InformerEnd], last: i64) -> Result<BTreeMap<i64, Contents>> {
    let others: BTreeSet<i64> = informers.iter().map(|informer| informer.revision).collect();
    let mut states = BTreeMap::new();
    for revision in others.into_iter().filter(|revision| *revision > last) {
        let state = client.contents(0, revision).await.context("what an informer has come to")?;
        states.insert(revision, state);
    }
    Ok(states)
}

impl Seen {
    fn judge(self, shared: &Shared, broken: Vec<String>) -> Result<Report> {
        let applied = shared.chronicle().applied();
        let flaws = History::replay(&applied, &self.end, &mut shared.keys()).err().unwrap_or_default();
        let world = World::replay(&applied, self.end.revision);
        let mut report = Report {
            plan: self.plan.clone(),
            blows: self.blows.clone(),
            compactions: self.compactions.len(),
            writes: self.writes(&world),
            watches: Tally::default(),
            informers: Tally::default(),
            samples: 0,
            locks: Locks::of(&self.contenders, self.looks.len()),
            flaws,
            findings: broken,
            kept: None,
        };
        if !report.flaws.is_empty() {
            return Ok(report);
        }
        let mut findings = self.judge_watches(&world, &mut report)?;
        findings.extend(self.judge_informers(&world, &mut report)?);
        report.findings.extend(findings.iter().map(ToString::to_string));
        let names = Names { queue: format!("{LOCK}/"), fact: FACT.to_owned() };
        let locks = locks::judge(&world, &names, &self.contenders, &self.looks);
        report.findings.extend(locks.iter().map(ToString::to_string));
        Ok(report)
    }

    fn writes(&self, world: &World) -> Writes {
        let commands = self.written.iter().flatten();
        let count = |is: fn(Fate) -> bool| commands.clone().filter(|command| is(command.fate)).count();
        Writes {
            acknowledged: count(|fate| matches!(fate, Fate::At(_))),
            unknown: count(|fate| fate == Fate::Unknown),
            changes: world.changes().len(),
            revision: self.end.revision,
        }
    }

    fn asked(&self) -> BTreeSet<i64> {
        self.compactions.iter().map(|compaction| compaction.revision).collect()
    }

    fn judge_watches(&self, world: &World, report: &mut Report) -> Result<Vec<Finding>> {
        let (asked, last, mut findings) = (self.asked(), self.end.revision, Vec::new());
        for (number, wish) in self.config.watches.iter().enumerate() {
            let told = lines(&self.config.dir, "watch", number)?;
            let wanted = told::Wish {
                range: wish.range.clone(),
                kinds: wish.kinds,
                from: Some(wish.from).filter(|from| *from > 0),
            };
            let (tally, mut breaches) = told::judge(world, &wanted, &told, &asked, last);
            report.watches.add(tally);
            let end = self.watches.iter().find(|end| end.watch == number);
            let reached = end.map_or(0, |end| end.revision);
            if reached < last {
                breaches.push(Breach::Short { reached, last });
            }
            let who = format!("watch {number} of {:?}", wish.range);
            findings.extend(breaches.into_iter().map(|breach| Finding { who: who.clone(), breach }));
        }
        Ok(findings)
    }

    fn judge_informers(&self, world: &World, report: &mut Report) -> Result<Vec<Finding>> {
        let (asked, last, mut findings) = (self.asked(), self.end.revision, Vec::new());
        let ranges = &self.config.informers;
        let all: Vec<Vec<Line>> = (0..ranges.len())
            .map(|number| lines(&self.config.dir, "informer", number))
            .collect::<Result<_>>()?;
        let held = |line: &Line| match line {
            Line::Held { revision, digest } if *revision <= last => Some((*revision, *digest)),
            _ => None,
        };
        let samples: Vec<(usize, i64, Digest)> = all
            .iter()
            .enumerate()
            .flat_map(|(number, told)| told.iter().filter_map(held).map(move |(at, held)| (number, at, held)))
            .collect();
        let places: BTreeSet<(i64, usize)> = samples.iter().map(|(number, at, _)| (*at, *number)).collect();
        let stored = world.digests(ranges, &places);
        report.samples = samples.len();
        for (number, range) in ranges.iter().enumerate() {
            let wanted = told::Wish { range: range.clone(), kinds: Kinds::All, from: None };
            let (tally, mut breaches) = told::judge(world, &wanted, &all[number], &asked, last);
            report.informers.add(tally);
            for (_, revision, held) in samples.iter().filter(|(of, ..)| *of == number) {
                let stored = stored[&(*revision, number)];
                if *held != stored {
                    breaches.push(Breach::Differs { revision: *revision, held: *held, stored });
                }
            }
            breaches.extend(self.judge_end(number, range, tally));
            let who = format!("informer {number} of {range:?}");
            findings.extend(breaches.into_iter().map(|breach| Finding { who: who.clone(), breach }));
        }
        Ok(findings)
    }

    /// What an informer has in the end against what the server has at the same revision.
    fn judge_end(&self, number: usize, range: &Range, tally: Tally) -> Vec<Breach> {
        let last = self.end.revision;
        let Some(end) = self.informers.iter().find(|end| end.informer == number) else {
            return vec![Breach::Silent];
        };
        let (revision, mut breaches) = (end.revision, Vec::new());
        if revision < last {
            breaches.push(Breach::Short { reached: revision, last });
        } else if let Some(contents) =
            if revision == last { Some(&self.end) } else { self.others.get(&revision) }
        {
            let within = contents.pairs.iter().filter(|(key, _)| range.contains(key));
            let stored = Digest::of(within.map(|(key, stored)| (key, stored.mod_revision, &stored.value)));
            let hash = u64::from_str_radix(&end.digest, 16).unwrap_or_default();
            let held = Digest { objects: end.objects, hash };
            if held != stored {
                breaches.push(Breach::Differs { revision, held, stored });
            }
        }
        let counted = end.compacted + end.mismatch + end.asked;
        if counted < tally.relists || counted > tally.relists + tally.skips || counted > end.compacted {
            breaches.push(Breach::Relists { counted, told: tally.relists });
        }
        breaches
    }
}
