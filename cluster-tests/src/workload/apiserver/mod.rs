//! API servers on a cluster whose leader is killed again and again: each keeps watch caches and reads from them
//! consistently, writes with transactions on revisions, lists in pages and as streams, and takes turns compacting. All
//! calls have the shapes that kube-apiserver sends. What everybody saw is judged by [`crate::judge::apiserver`] and
//! [`crate::judge::watch`]; then a member is cut off ([`cut_off`]), and keys with leases die ([`leased`]).
//!
//! Module map: [`calls`] one call each; [`world`] what is shared and recorded; [`api`] transactions with an outcome;
//! [`writer`], [`lister`], [`cache`], [`compactor`] what an API server does; [`report`] the verdict.

pub mod api;
pub mod cache;
pub mod calls;
pub mod compactor;
pub mod cut_off;
pub mod leased;
pub mod lister;
pub mod report;
pub mod world;
pub mod writer;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

use self::api::Api;
use self::cache::Cache;
use self::compactor::TURN_KEY;
use self::report::Report;
use self::world::{Record, World};
use self::writer::{KINDS, span};
use crate::client::{Client, Contents};
use crate::harness::cluster::{Cluster, System};
use crate::judge::apiserver::{self, Measure};
use crate::judge::watch::history::History;
use crate::judge::watch::{self as watches};

/// Members, and API servers.
pub const SIZE: usize = 3;

/// How long a killed member may take to serve again.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long caches may take in the end to get to the last revision.
const CATCH_UP_MAX: Duration = Duration::from_secs(60);

/// As an API server configures its connections.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));

/// A run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How long load and faults go on.
    pub duration: Duration,
    /// Writers of each API server.
    pub writers: usize,
    /// Between two turns of a compactor, about.
    pub compact_every: Duration,
    /// Makes load and faults repeatable; the members' timing is their own.
    pub seed: u64,
}

/// Runs the plan on three members.
///
/// Errors: the cluster could not be run, or stopped serving. Findings are no errors.
pub async fn run(system: System, plan: Plan) -> Result<Report> {
    let label = system.label.clone();
    let mut cluster = Cluster::start(system, SIZE).await?;
    match drive(&mut cluster, label, plan).await {
        Ok(report) if report.is_clean() => Ok(report),
        Ok(report) => Ok(Report { kept: Some(cluster.keep()), ..report }),
        Err(error) => Err(error.context(format!("data and logs are in {}", cluster.keep().display()))),
    }
}

async fn drive(cluster: &mut Cluster, system: String, plan: Plan) -> Result<Report> {
    let world = Arc::new(World::new(plan.seed));
    let endpoints = cluster.endpoints();
    let servers = Servers { world: Arc::clone(&world), endpoints: endpoints.clone() };
    writer::create_shared(&servers.api(0)?).await?;
    let (finish, finishing) = watch::channel(0);
    let mut load: JoinSet<Result<()>> = JoinSet::new();
    let mut caches: JoinSet<()> = JoinSet::new();
    for number in 0..SIZE {
        servers.start(number, &plan, &mut load, &mut caches, &finishing)?;
    }
    let kills = kill_leaders(cluster, world.rng(5, 0), plan.duration).await?;
    world.end();
    while let Some(ended) = load.join_next().await {
        ended.context("a part of an API server panicked")??;
    }
    let client = Client::new(&endpoints)?;
    let end = final_contents(&client).await?;
    finish.send_replace(end.revision);
    let arrived = tokio::time::timeout(CATCH_UP_MAX, all_ended(&mut caches)).await;
    let record = world.take_record();
    let mut report = Report::of(system, plan, kills, &record);
    match arrived {
        Ok(ended) => ended?,
        Err(_) => report.lasting.push("a watch cache never came to the last revision".to_owned()),
    }
    let keys_of = Arc::clone(&world);
    let mut report = tokio::task::spawn_blocking(move || {
        judge(&keys_of, &record, &end, &mut report);
        report
    })
    .await
    .context("the judge panicked")?;
    report.cut_off = Some(cut_off::run(cluster).await.context("a member that is cut off")?);
    report.leased = Some(leased::run(cluster).await.context("keys with leases")?);
    Ok(report)
}

async fn all_ended(caches: &mut JoinSet<()>) -> Result<()> {
    while let Some(ended) = caches.join_next().await {
        ended.context("a watch cache panicked")?;
    }
    Ok(())
}

/// The API servers of a run.
struct Servers {
    world: Arc<World>,
    endpoints: Vec<String>,
}

impl Servers {
    /// A way to the cluster with connections of its own.
    fn api(&self, number: usize) -> Result<Api> {
        Ok(Api::new(Arc::clone(&self.world), number, channels(&self.endpoints)?))
    }

    fn start(
        &self,
        number: usize,
        plan: &Plan,
        load: &mut JoinSet<Result<()>>,
        watching: &mut JoinSet<()>,
        finish: &watch::Receiver<i64>,
    ) -> Result<()> {
        let mut caches: Vec<Cache> = KINDS.iter().map(|kind| Cache::of_span(span(kind))).collect();
        for writer in 0..plan.writers {
            load.spawn(writer::run(self.api(number)?, writer, caches.clone()));
        }
        let lister = self.api(number)?;
        load.spawn(async move {
            lister::run(lister).await;
            Ok(())
        });
        load.spawn(compactor::run(self.api(number)?, plan.compact_every));
        for cache in &caches {
            let (cache, api) = (cache.clone(), self.api(number)?);
            load.spawn(async move {
                cache.read(api).await;
                Ok(())
            });
        }
        caches.push(Cache::of_key(Bytes::from_static(TURN_KEY)));
        for (place, cache) in caches.into_iter().enumerate() {
            watching.spawn(cache.run(self.api(number)?, number * 10 + place, finish.clone()));
        }
        Ok(())
    }
}

/// A connection to each member, made when it is first used, with an API server's keep-alive.
pub fn channels(endpoints: &[String]) -> Result<Vec<Channel>> {
    let connect = |url: &String| {
        let endpoint = Endpoint::from_shared(url.clone()).with_context(|| format!("{url} is no endpoint"))?;
        let endpoint = endpoint.connect_timeout(Duration::from_secs(1)).tcp_nodelay(true);
        let endpoint = endpoint.http2_keep_alive_interval(KEEP_ALIVE.0).keep_alive_timeout(KEEP_ALIVE.1);
        anyhow::Ok(endpoint.connect_lazy())
    };
    endpoints.iter().map(connect).collect()
}

/// Kills the leader again and again, and leaves all members serving. How often it did.
async fn kill_leaders(cluster: &mut Cluster, mut rng: StdRng, duration: Duration) -> Result<usize> {
    let deadline = Instant::now() + duration;
    let mut kills = 0;
    loop {
        let calm = rng.random_range(Duration::from_millis(1_500)..Duration::from_secs(5));
        tokio::time::sleep(calm.min(deadline.saturating_duration_since(Instant::now()))).await;
        if Instant::now() >= deadline {
            return Ok(kills);
        }
        let leader = cluster.leader(PATIENCE).await?;
        cluster.kill(leader)?;
        kills += 1;
        tokio::time::sleep(rng.random_range(Duration::from_millis(100)..Duration::from_millis(2_500))).await;
        cluster.spawn(leader)?;
        cluster.wait_ready(PATIENCE).await?;
    }
}

/// What the store holds once nothing is under way any more: every transaction has an outcome.
async fn final_contents(client: &Client) -> Result<Contents> {
    let revision = client.revision(0, PATIENCE).await.context("the last revision")?;
    client.contents(0, revision).await.context("the last contents")
}

fn judge(world: &World, record: &Record, end: &Contents, report: &mut Report) {
    let mut keys = world.keys();
    match History::replay(&record.applied, end, &mut keys) {
        Err(flaws) => report.flaws = flaws,
        Ok(history) => {
            let turn_key = Some(keys.id(TURN_KEY));
            let (history, keys) = (&history, &*keys);
            let Record { compactions, lives, strays, seen, .. } = record;
            let watched = watches::Record { history, keys, lives, strays, compactions };
            report.watch_findings = watches::judge(&watched);
            report.findings = apiserver::judge(&Measure { history, keys, turn_key, compactions }, seen);
        }
    }
}
