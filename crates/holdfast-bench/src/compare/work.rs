//! What a case does in one measuring window, and the figures that come out.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::cli::{Case, WorkFlags};
use crate::error::Error;
use crate::load::fanout::{Audience, Fill, Watching, Writes};
use crate::load::keys::KeySpace;
use crate::load::leases::Holding;
use crate::load::operation::Operation;
use crate::load::pace::Pace;
use crate::load::{self, Connections, Load, Outcome};
use crate::measure::window::{self, Used};
use crate::report::{Round, Unit};
use crate::systems::System;
use crate::systems::cluster::Cluster;

/// A list answers with a thousand keys: one client in so many of the other cases' keeps servers as busy.
const CLIENTS_PER_LISTER: u32 = 16;
/// More than any server here holds back for one stream: etcd has no bound in bytes, ours has 4 MiB.
const QUEUE_BYTES: u64 = 6 * 1024 * 1024;
/// Long enough to grant all leases and to renew them once, on the slowest side.
const LEASE_END_TTL: Duration = Duration::from_secs(60);
/// How long before the first of them ends the puts begin.
const LEASE_END_LEAD: Duration = Duration::from_secs(1);
/// Of the case that asks how late events are.
const LATENCY_WATCHERS: u32 = 10;

/// One measurement: what is done while the servers are watched.
#[derive(Debug, Clone)]
pub(crate) enum Work {
    /// Calls.
    Calls(Load),
    /// Puts that are watched; with what distinguishes the audience in tables, and what figures are per.
    Fanout {
        /// Who watches.
        audience: Audience,
        /// What they are shown.
        writes: Writes,
        /// Behind the system's name.
        label: String,
        /// What figures are per.
        unit: Unit,
    },
    /// Leases that live, and are renewed.
    Leases {
        /// How many.
        count: u32,
        /// How often each is renewed.
        every: Duration,
        /// For how long.
        duration: Duration,
    },
    /// Puts by a timetable while leases end, or while none does.
    LeaseEnd {
        /// How many leases; none in the calm half.
        count: u32,
        /// The puts.
        load: Load,
    },
    /// So many connections that do nothing after a first read.
    Connections(u32),
}

/// The measurements of a case, to be made in turn. `busy` is the rate of the busy case, when it is known.
///
/// Errors: the busy case without its rate.
pub(crate) fn works(
    case: Case,
    flags: &WorkFlags,
    space: &KeySpace,
    busy: Option<NonZeroU32>,
) -> Result<Vec<Work>, Error> {
    let load = |operation, clients, pace| {
        vec![Work::Calls(Load {
            operation,
            clients,
            pace,
            duration: flags.size.duration,
            space: space.clone(),
        })]
    };
    let clients = flags.size.clients;
    let calls = |operation, clients| load(operation, clients, flags.size.pace());
    Ok(match case {
        Case::Put => calls(Operation::Put, clients),
        Case::PutSteady => load(Operation::Put, clients, Pace::Open(flags.steady_rate)),
        Case::PutBusy => {
            let rate = busy.ok_or_else(|| {
                Error::Setting("put-busy needs the case put before it, to know how fast 30 % is".to_owned())
            })?;
            load(Operation::Put, clients, Pace::Open(rate))
        }
        Case::GetLinearizable => calls(Operation::GetLinearizable, clients),
        Case::GetSteady => load(Operation::GetLinearizable, clients, Pace::Open(flags.steady_rate)),
        Case::GetSerializable => calls(Operation::GetSerializable, clients),
        Case::Cas => calls(Operation::Cas, clients),
        Case::Mixed => calls(Operation::Mixed, clients),
        Case::List => calls(Operation::List, clients.div_ceil(CLIENTS_PER_LISTER)),
        Case::ListPaged => calls(Operation::ListPaged, clients.div_ceil(CLIENTS_PER_LISTER)),
        Case::WatchLatency => {
            vec![fanout(flags, space, Watchers { all: LATENCY_WATCHERS, silent: 0 }, Unit::Event)]
        }
        Case::WatchFanout => {
            vec![fanout(flags, space, Watchers { all: flags.watch.watchers, silent: 0 }, Unit::Event)]
        }
        Case::SlowWatchers => {
            let (all, silent) = (flags.watch.watchers, flags.watch.silent.min(flags.watch.watchers));
            [Watchers { all: all - silent, silent: 0 }, Watchers { all, silent }]
                .map(|watchers| fanout(flags, space, watchers, Unit::Put))
                .to_vec()
        }
        Case::LeaseGrant => calls(Operation::LeaseGrant, clients),
        Case::LeaseKeepalive => calls(Operation::LeaseKeepAlive, clients),
        Case::LeaseSteady => {
            let (count, every, duration) =
                (flags.lease.leases, flags.lease.lease_renewal, flags.size.duration);
            vec![Work::Leases { count, every, duration }]
        }
        Case::LeaseEnd => {
            let puts = load(Operation::Put, clients, Pace::Open(flags.steady_rate));
            let of = |count| puts.iter().map(move |work| (count, work.clone()));
            of(0).chain(of(flags.lease.leases)).filter_map(lease_end).collect()
        }
        Case::Connections => vec![Work::Connections(flags.idle_connections)],
    })
}

fn lease_end((count, puts): (u32, Work)) -> Option<Work> {
    match puts {
        Work::Calls(load) => Some(Work::LeaseEnd { count, load }),
        _ => None,
    }
}

#[derive(Debug, Clone, Copy)]
struct Watchers {
    all: u32,
    silent: u32,
}

fn fanout(flags: &WorkFlags, space: &KeySpace, watchers: Watchers, unit: Unit) -> Work {
    let audience = Audience {
        readers: watchers.all - watchers.silent,
        silent: watchers.silent,
        per_stream: flags.watch.watchers_per_stream,
        connections: flags.size.connections,
    };
    let writes =
        Writes { per_second: flags.watch.watch_rate, duration: flags.size.duration, space: space.clone() };
    let label = match unit {
        Unit::Put => format!(" {} reading + {} silent", audience.readers, audience.silent),
        Unit::Operation | Unit::Event | Unit::Connection => String::new(),
    };
    Work::Fanout { audience, writes, label, unit }
}

/// As many keys as fill what servers hold back for a watcher that does not read: that happens once to each, and what
/// it costs from then on is the question.
fn full_queues(space: &KeySpace) -> KeySpace {
    let value_bytes = space.value().len();
    KeySpace::new(QUEUE_BYTES / value_bytes.max(64) as u64, value_bytes)
}

impl Work {
    /// Whether the empty server can take part: it holds no lists, and has nothing to hold back for silent watchers.
    pub(super) fn is_for(&self, system: System) -> bool {
        let needs_a_store = match self {
            Self::Calls(load) => matches!(
                load.operation,
                Operation::List | Operation::ListPaged | Operation::LeaseGrant | Operation::LeaseKeepAlive
            ),
            Self::Leases { .. } | Self::LeaseEnd { .. } => true,
            Self::Fanout { unit, .. } => *unit == Unit::Put,
            Self::Connections(_) => false,
        };
        !needs_a_store || system != System::Ceiling
    }

    /// Whether the keys must be there before.
    pub(crate) fn needs_keys(&self) -> bool {
        match self {
            Self::Calls(load) => load.operation.needs_keys(),
            Self::Fanout { .. } | Self::Connections(_) | Self::Leases { .. } | Self::LeaseEnd { .. } => false,
        }
    }

    /// Behind the system's name in tables.
    pub(crate) fn label(&self) -> &str {
        match self {
            Self::Fanout { label, .. } => label,
            Self::LeaseEnd { count: 0, .. } => " calm",
            Self::LeaseEnd { .. } => " leases end",
            Self::Calls(_) | Self::Connections(_) | Self::Leases { .. } => "",
        }
    }

    /// Does it once on servers that run already, and says what their clients saw.
    pub(crate) async fn drive(
        &self,
        endpoints: &[String],
        connections: &Connections,
    ) -> Result<Outcome, Error> {
        match self {
            Self::Calls(load) => load::run(load, connections).await,
            Self::Fanout { audience, writes, .. } => {
                let watching = Watching::begin(audience, endpoints, None).await?;
                Ok(watching.run(writes, connections).await?.events)
            }
            Self::Leases { count, every, duration } => {
                let holding = Holding::begin(*count, ttl_of(*every), connections).await?;
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
    pub(super) async fn measure(
        &self,
        cluster: &mut Cluster,
        connections: &Connections,
        warm_up: Duration,
    ) -> Result<Round, Error> {
        match self {
            Self::Calls(load) => calls(cluster, connections, load, warm_up).await,
            Self::Fanout { audience, writes, unit, .. } => {
                let alone = window::look(cluster).await?;
                let full = full_queues(&writes.space);
                // With and without silent watchers alike, so that the stores are.
                let fill = (*unit == Unit::Put).then_some(Fill { space: &full, connections });
                let watching = Watching::begin(audience, &cluster.endpoints(), fill).await?;
                let shown = Shown { watching: &watching, writes, unit: *unit };
                let round = events(cluster, connections, &shown, warm_up).await?;
                // What watchers hold in memory, they hold from the moment they are there.
                let with_watchers = alone.until(&window::look(cluster).await?);
                Ok(Round { resident_growth_bytes: with_watchers.resident_growth_bytes, ..round })
            }
            Self::Leases { count, every, duration } => {
                let holding = Holding::begin(*count, ttl_of(*every), connections).await?;
                holding.renew(*every, warm_up).await?;
                window::rest(cluster).await?;
                let before = window::look(cluster).await?;
                let outcome = holding.renew(*every, *duration).await?;
                let after = window::look(cluster).await?;
                Ok(round_of(&outcome, &before.until(&after)))
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

/// As clients choose it: three renewals in it.
fn ttl_of(every: Duration) -> Duration {
    3 * every
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

async fn calls(
    cluster: &mut Cluster,
    connections: &Connections,
    load: &Load,
    warm_up: Duration,
) -> Result<Round, Error> {
    if !warm_up.is_zero() {
        load::run(&Load { duration: warm_up, ..load.clone() }, connections).await?;
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
    Ok(round_of(&outcome, &before.until(&after)))
}

/// An audience that is there, and what it is shown.
struct Shown<'a> {
    watching: &'a Watching,
    writes: &'a Writes,
    unit: Unit,
}

async fn events(
    cluster: &mut Cluster,
    connections: &Connections,
    shown: &Shown<'_>,
    warm_up: Duration,
) -> Result<Round, Error> {
    if !warm_up.is_zero() {
        let writes = Writes { duration: warm_up, ..shown.writes.clone() };
        shown.watching.run(&writes, connections).await?;
    }
    window::rest(cluster).await?;
    let before = window::look(cluster).await?;
    let delivered = shown.watching.run(shown.writes, connections).await?;
    let own_cpu = window::own_cpu()?;
    window::rest(cluster).await?;
    let after = window::Usage { own_cpu, ..window::look(cluster).await? };
    let mut round = round_of(&delivered.events, &before.until(&after));
    (round.unit, round.puts) = (shown.unit, delivered.puts);
    if shown.unit == Unit::Put {
        round.units = delivered.puts;
        round.per_second *= ratio(delivered.puts, delivered.events.operations);
    }
    Ok(round)
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
        resident_bytes: used.resident_bytes,
        resident_peak_bytes: used.resident_peak_bytes,
        resident_growth_bytes: used.resident_growth_bytes,
        ..Round::default()
    }
}
