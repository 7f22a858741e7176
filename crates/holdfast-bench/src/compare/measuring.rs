//! Does a work while the servers are watched, and says what it cost.

use std::time::Duration;

use super::work::{Figures, Work};
use crate::error::Error;
use crate::load::aside::Aside;
use crate::load::fanout::{Audience, Fill, Watching, Writes};
use crate::load::keys::KeySpace;
use crate::load::leases::Holding;
use crate::load::lists::{Listers, Listing};
use crate::load::place::Place;
use crate::load::{self, Connections, Load, Outcome};
use crate::measure::procfs::forget_peak;
use crate::measure::window::{self, Used};
use crate::report::{Round, Unit};
use crate::systems::cluster::Cluster;

/// More than any server here holds back for one stream: etcd has no bound in bytes, ours has 4 MiB.
const QUEUE_BYTES: u64 = 6 * 1024 * 1024;
/// Long enough to grant all leases on the slowest side.
const LEASE_STEADY_TTL_MIN: Duration = Duration::from_secs(60);
/// Long enough to grant all leases and to renew them once, on the slowest side.
const LEASE_END_TTL: Duration = Duration::from_secs(60);
/// How long before the first of them ends the puts begin.
const LEASE_END_LEAD: Duration = Duration::from_secs(1);
/// Said when calls were not where they should be to the end.
const LEADER_MOVED: &str = "the leader has changed meanwhile";

impl Work {
    /// Does it once on servers that run already, and says what their clients saw.
    pub(crate) async fn drive(
        &self,
        endpoints: &[String],
        connections: &Connections,
    ) -> Result<Outcome, Error> {
        match self {
            Self::Calls { load, place } => {
                let own = own_connections(*place, endpoints, connections).await?;
                load::run(load, own.as_ref().unwrap_or(connections)).await
            }
            Self::BesideLists { load, listers } => {
                let listing = begin_lists(*listers, endpoints).await?;
                let mut outcome = load::run(load, connections).await?;
                if let Some(lists) = end_lists(listing).await? {
                    outcome.add_failures(lists.failures, lists.first_failure);
                }
                Ok(outcome)
            }
            Self::Fanout { audience, writes, figures, .. } => {
                let audience = Listeners::begin(*audience, *figures, endpoints, None).await?;
                let delivered = audience.watching.run(writes, connections).await?;
                Ok(if *figures == Figures::Puts { delivered.into_puts() } else { delivered.events })
            }
            Self::Leases { count, every, duration } => {
                let holding = hold(*count, *every, connections).await?;
                holding.renew(*every, *duration).await
            }
            Self::LeaseEnd { count, load } => {
                let until_end = LEASE_END_TTL.saturating_sub(LEASE_END_LEAD);
                end_at_once(*count, connections, until_end).await?;
                load::run(load, connections).await
            }
            Self::Connections(count) => Ok(load::connect_and_read(endpoints, *count).await?.0),
        }
    }

    /// Warms up, measures, waits until the servers are at rest, and says what it was.
    pub(crate) async fn measure(
        &self,
        cluster: &mut Cluster,
        connections: &Connections,
        warm_up: Duration,
    ) -> Result<Round, Error> {
        match self {
            Self::Calls { load, place } => placed_calls(cluster, connections, (load, *place), warm_up).await,
            Self::BesideLists { load, listers } => {
                beside_lists(cluster, connections, (load, *listers), warm_up).await
            }
            Self::Fanout { audience, writes, figures, .. } => {
                let watched = Watched { audience, writes, figures: *figures };
                fanout(cluster, connections, watched, warm_up).await
            }
            Self::Leases { count, every, duration } => {
                let holding = hold(*count, *every, connections).await?;
                let warm = holding.renew(*every, warm_up).await?;
                window::rest(cluster).await?;
                let before = window::look(cluster).await?;
                let outcome = holding.renew(*every, *duration).await?;
                let after = window::look(cluster).await?;
                let mut round = round_of(&outcome, &before.until(&after)).with_warm_up(&warm);
                let revoked = holding.revoke().await?;
                let words = revoked.first_failure.map(|words| format!("while revoking: {words}"));
                round.add_failures(revoked.failures, words);
                window::rest(cluster).await?;
                Ok(round)
            }
            Self::LeaseEnd { count, load } => {
                let until_end = LEASE_END_TTL.saturating_sub(LEASE_END_LEAD);
                end_at_once(*count, connections, until_end).await?;
                let before = window::look(cluster).await?;
                let outcome = load::run(load, connections).await?;
                let after = window::look(cluster).await?;
                window::rest(cluster).await?;
                Ok(round_of(&outcome, &before.until(&after)))
            }
            Self::Connections(count) => open_connections(cluster, *count).await,
        }
    }
}

/// Grants leases and renews each once, so that they are all of one age.
async fn hold(count: u32, every: Duration, connections: &Connections) -> Result<Holding, Error> {
    // As clients choose it, three renewals in it; but none may end while the others are granted.
    let ttl = LEASE_STEADY_TTL_MIN.max(3 * every);
    let holding = Holding::begin(count, ttl, connections).await?;
    holding.renew_all().await?;
    Ok(holding)
}

/// Grants leases that all end within a second or two, and waits until `until_end` after the last renewal.
async fn end_at_once(count: u32, connections: &Connections, until_end: Duration) -> Result<(), Error> {
    if count > 0 {
        let holding = Holding::begin(count, LEASE_END_TTL, connections).await?;
        let began = tokio::time::Instant::now();
        holding.renew_all().await?;
        tokio::time::sleep_until(began + until_end).await;
    }
    Ok(())
}

/// Connections to some of the members alone, as many as there are to all; none where all are meant.
async fn own_connections(
    place: Place,
    endpoints: &[String],
    connections: &Connections,
) -> Result<Option<Connections>, Error> {
    if place == Place::Everywhere {
        return Ok(None);
    }
    let endpoints = place.endpoints(endpoints).await?;
    Ok(Some(Connections::open(&endpoints, connections.count()).await?))
}

async fn placed_calls(
    cluster: &mut Cluster,
    connections: &Connections,
    (load, place): (&Load, Place),
    warm_up: Duration,
) -> Result<Round, Error> {
    let all = cluster.endpoints();
    let before = place.endpoints(&all).await?;
    let own = own_connections(place, &all, connections).await?;
    let mut round = calls(cluster, own.as_ref().unwrap_or(connections), load, warm_up).await?;
    if place.endpoints(&all).await? != before {
        round.add_failures(1, Some(LEADER_MOVED.to_owned()));
    }
    Ok(round)
}

/// Makes calls by the load alone, and counts what is put off for them.
pub(crate) async fn calls(
    cluster: &mut Cluster,
    connections: &Connections,
    load: &Load,
    warm_up: Duration,
) -> Result<Round, Error> {
    let resident_before_bytes =
        if load.operation.lists_all() { Some(forget_peaks(cluster).await?) } else { None };
    let warm = warm(load, connections, warm_up).await?;
    if warm.is_some() {
        window::rest(cluster).await?;
    }
    window::flush(cluster).await?;
    let before = window::look(cluster).await?;
    let outcome = load::run(load, connections).await?;
    let own_cpu = window::own_cpu()?;
    if load.operation.writes() {
        window::rest(cluster).await?;
        window::flush(cluster).await?;
    }
    // Waiting for rest is not the load generator's work.
    let after = window::Usage { own_cpu, ..window::look(cluster).await? };
    let round = Round { resident_before_bytes, ..round_of(&outcome, &before.until(&after)) };
    Ok(warm.iter().fold(round, Round::with_warm_up))
}

async fn warm(load: &Load, connections: &Connections, warm_up: Duration) -> Result<Option<Outcome>, Error> {
    if warm_up.is_zero() {
        return Ok(None);
    }
    load::run(&Load { duration: warm_up, ..load.clone() }, connections).await.map(Some)
}

/// Lets the members' peaks of memory count from now on, and says what is resident.
async fn forget_peaks(cluster: &Cluster) -> Result<u64, Error> {
    for pid in cluster.pids() {
        forget_peak(pid)?;
    }
    Ok(window::look(cluster).await?.servers.resident_bytes)
}

async fn begin_lists(listers: Option<Listers>, endpoints: &[String]) -> Result<Option<Listing>, Error> {
    match listers {
        Some(listers) => Listing::begin(listers, endpoints).await.map(Some),
        None => Ok(None),
    }
}

async fn end_lists(listing: Option<Listing>) -> Result<Option<Outcome>, Error> {
    match listing {
        Some(listing) => listing.end().await.map(Some),
        None => Ok(None),
    }
}

async fn beside_lists(
    cluster: &mut Cluster,
    connections: &Connections,
    (load, listers): (&Load, Option<Listers>),
    warm_up: Duration,
) -> Result<Round, Error> {
    let listing = begin_lists(listers, &cluster.endpoints()).await?;
    let warm = warm(load, connections, warm_up).await?;
    let before = window::look(cluster).await?;
    let outcome = load::run(load, connections).await?;
    // While lists go on, servers are never at rest.
    let after = window::look(cluster).await?;
    let lists = end_lists(listing).await?;
    window::rest(cluster).await?;
    let mut round = warm.iter().fold(round_of(&outcome, &before.until(&after)), Round::with_warm_up);
    if let Some(lists) = lists {
        round.lists = lists.operations;
        round.add_failures(lists.failures, lists.first_failure.map(|words| format!("of the lists: {words}")));
    }
    Ok(round)
}

/// Watchers, with the thread that reads for them where it is not the load's.
struct Listeners {
    watching: Watching,
    _aside: Option<Aside>,
}

impl Listeners {
    /// Where puts are timed, the events are read on another thread: the puts must not wait behind them in the client.
    async fn begin(
        audience: Audience,
        figures: Figures,
        endpoints: &[String],
        fill: Option<Fill<'_>>,
    ) -> Result<Self, Error> {
        if figures != Figures::Puts {
            return Ok(Self { watching: Watching::begin(&audience, endpoints, fill).await?, _aside: None });
        }
        let (aside, endpoints) = (Aside::begin("watchers")?, endpoints.to_vec());
        let watching = aside.run(async move { Watching::begin(&audience, &endpoints, None).await }).await?;
        Ok(Self { watching, _aside: Some(aside) })
    }
}

/// As many keys as fill what servers hold back for a watcher that does not read: that happens once to each, and what
/// it costs from then on is the question.
fn full_queues(space: &KeySpace) -> KeySpace {
    let value_bytes = space.value().len();
    KeySpace::new(QUEUE_BYTES / value_bytes.max(64) as u64, value_bytes)
}

/// Puts, who watches them, and what is asked for.
#[derive(Clone, Copy)]
pub(crate) struct Watched<'a> {
    /// Who watches.
    pub(crate) audience: &'a Audience,
    /// What they are shown.
    pub(crate) writes: &'a Writes,
    /// What is asked for.
    pub(crate) figures: Figures,
}

/// Makes the watchers, then the puts, and counts what both cost until all events are there.
pub(crate) async fn fanout(
    cluster: &mut Cluster,
    connections: &Connections,
    Watched { audience, writes, figures }: Watched<'_>,
    warm_up: Duration,
) -> Result<Round, Error> {
    let alone = window::look(cluster).await?;
    let full = full_queues(&writes.space);
    // With and without silent watchers alike, so that the stores are.
    let fill = (figures == Figures::EventsByPut).then_some(Fill { space: &full, connections });
    let listeners = Listeners::begin(*audience, figures, &cluster.endpoints(), fill).await?;
    let shown = Shown { watching: &listeners.watching, writes, figures };
    let round = events(cluster, connections, &shown, warm_up).await?;
    // What watchers hold in memory, they hold from the moment they are there.
    let with_watchers = alone.until(&window::look(cluster).await?);
    Ok(Round { resident_growth_bytes: with_watchers.resident_growth_bytes, ..round })
}

/// An audience that is there, and what it is shown.
struct Shown<'a> {
    watching: &'a Watching,
    writes: &'a Writes,
    figures: Figures,
}

async fn events(
    cluster: &mut Cluster,
    connections: &Connections,
    shown: &Shown<'_>,
    warm_up: Duration,
) -> Result<Round, Error> {
    let mut warm = None;
    if !warm_up.is_zero() {
        let writes = Writes { duration: warm_up, ..shown.writes.clone() };
        warm = Some(shown.watching.run(&writes, connections).await?.events);
    }
    window::rest(cluster).await?;
    let before = window::look(cluster).await?;
    let delivered = shown.watching.run(shown.writes, connections).await?;
    let own_cpu = window::own_cpu()?;
    window::rest(cluster).await?;
    let after = window::Usage { own_cpu, ..window::look(cluster).await? };
    let used = before.until(&after);
    let (puts, arrived) = (delivered.puts.operations, delivered.events.operations);
    let mut round = match shown.figures {
        Figures::Events => Round { unit: Unit::Event, ..round_of(&delivered.events, &used) },
        Figures::EventsByPut => {
            let round = round_of(&delivered.events, &used);
            let per_second = round.per_second * ratio(puts, arrived);
            Round { unit: Unit::Put, units: puts, per_second, ..round }
        }
        Figures::Puts => Round { unit: Unit::Put, ..round_of(&delivered.into_puts(), &used) },
    };
    round.puts = puts;
    Ok(warm.iter().fold(round, Round::with_warm_up))
}

async fn open_connections(cluster: &mut Cluster, count: u32) -> Result<Round, Error> {
    let before = window::look(cluster).await?;
    let outcome = load::connect_and_read(&cluster.endpoints(), count).await?;
    let own_cpu = window::own_cpu()?;
    let after = window::Usage { own_cpu, ..window::look(cluster).await? };
    let round = Round { unit: Unit::Connection, ..round_of(&outcome.0, &before.until(&after)) };
    drop(outcome);
    window::rest(cluster).await?;
    Ok(round)
}

#[allow(clippy::cast_precision_loss, reason = "fewer than 2^52 of anything")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

fn round_of(outcome: &Outcome, used: &Used) -> Round {
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    Round {
        units: outcome.operations,
        failures: outcome.failures,
        first_failure: outcome.first_failure.clone(),
        per_second: outcome.per_second(),
        latency: outcome.latencies.percentiles(),
        server_cpu_us: micros(used.server_cpu),
        client_cpu_us: micros(used.own_cpu),
        foreign_cpu_us: used.foreign_cpu.map(micros),
        window_us: micros(used.window),
        dirtied_bytes: used.dirtied_bytes,
        device_bytes: used.device_bytes,
        watch_queued_bytes: used.watch_queued_bytes,
        write_calls: used.write_calls,
        log_fsyncs: used.log_fsyncs,
        dumps: used.dumps,
        checkpoints: used.checkpoints,
        resident_bytes: used.resident_bytes,
        resident_peak_bytes: used.resident_peak_bytes,
        resident_growth_bytes: used.resident_growth_bytes,
        ..Round::default()
    }
}

impl Round {
    /// What failed before the window is in no figure of it, but it is said.
    fn with_warm_up(mut self, warm: &Outcome) -> Self {
        let words = warm.first_failure.as_ref().map(|words| format!("while warming up: {words}"));
        self.add_failures(warm.failures, words);
        self
    }
}
