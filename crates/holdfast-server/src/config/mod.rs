//! The one typed configuration, read from flags, environment and file and checked before anything else happens.
//!
//! Nothing below this module reads the environment. [`Config::from_flags`] refuses every combination that cannot work
//! and can be seen without touching the machine; [`crate::data_dir`] and the listeners check the rest.

mod address;
mod auth_token;
mod compaction;
mod error;
pub mod flags;
#[cfg(test)]
mod tests;
mod tls;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use address::{MemberUrl, join};
pub use compaction::AutoCompaction;
pub use error::ConfigError;
use holdfast_env::Faults;
use holdfast_env::sabotage::{self, KillAt, Planted, Sabotage};
use holdfast_raft::ChangeRules;
use holdfast_storage::EngineKind;
pub use tls::{PeerFiles, TlsConfig};

use crate::auth::{AuthConfig, password};
use crate::limits;
use address::parse_urls;
use flags::{ClusterStateFlag, EngineFlag, ServerFlags};

/// How one member runs.
#[derive(Debug, Clone)]
pub struct Config {
    /// This member's name.
    pub name: String,
    /// Where all its data is.
    pub data_dir: PathBuf,
    /// Where clients are served.
    pub listen_client_urls: Vec<MemberUrl>,
    /// Where peers are served.
    pub listen_peer_urls: Vec<MemberUrl>,
    /// Where metrics and health are served beside the client URLs.
    pub listen_metrics_urls: Vec<MemberUrl>,
    /// Where clients reach this member, as told in MemberList.
    pub advertise_client_urls: Vec<MemberUrl>,
    /// The first members of the cluster, this one among them, ascending by name.
    pub initial_cluster: Vec<InitialMember>,
    /// What a member without data does.
    pub cluster_state: ClusterState,
    /// Tells clusters with equal URLs apart.
    pub cluster_token: String,
    /// What changes of the membership must not do.
    pub change_rules: ChangeRules,
    /// The members are compared so often; `None` for never.
    pub corrupt_check_time: Option<Duration>,
    /// How much history is kept by itself; `None` for all.
    pub auto_compaction: Option<AutoCompaction>,
    /// Time between heartbeats.
    pub heartbeat_interval: Duration,
    /// Silence of the leader before a campaign.
    pub election_timeout: Duration,
    /// What is refused.
    pub limits: RequestLimits,
    /// How callers are checked, when auth is on.
    pub auth: AuthConfig,
    /// Which ends speak TLS.
    pub tls: TlsConfig,
    /// Sizes and engine of log and storage.
    pub engine: EngineConfig,
    /// How watches are served.
    pub watch: WatchConfig,
    /// Pings to idle clients; `None` for never.
    pub keepalive_interval: Option<Duration>,
    /// How long a pinged client may stay silent.
    pub keepalive_timeout: Duration,
    /// The least time between two pings of a client; zero when it does not matter.
    pub keepalive_time_min: Duration,
    /// Whether the API is served as JSON, too.
    pub has_json_gateway: bool,
    /// What the log should say once about flags without effect.
    pub warnings: Vec<String>,
    /// Where a test kills this process, or what it plants in it; nothing in a release build.
    pub faults: Faults,
}

/// A first member of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitialMember {
    /// Its name.
    pub name: String,
    /// Where its peers reach it, ascending; at least one.
    pub peer_urls: Vec<MemberUrl>,
}

/// What a member without data does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterState {
    /// It forms the cluster with the others.
    New,
    /// It asks the others who it is; one with data is who its data says.
    Existing,
}

/// What is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestLimits {
    /// Largest encoded request in bytes.
    pub request_bytes_max: usize,
    /// Most operations in one transaction.
    pub txn_ops_max: usize,
    /// Most streams per client connection.
    pub concurrent_streams_max: u32,
    /// Most bytes of requests that are being received, over all connections.
    pub receiving_bytes_max: usize,
    /// Most calls that wait for locks and elections.
    pub waiting_calls_max: usize,
    /// Most snapshots for clients at a time.
    pub snapshot_streams_max: usize,
    /// The quota on data in bytes; `None` for no quota.
    pub quota_backend_bytes: Option<u64>,
}

/// How watches are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchConfig {
    /// An idle watcher that asked for it is told so often how far it has seen.
    pub progress_notify_interval: Duration,
    /// Bytes of events that may wait for one watch stream.
    pub stream_bytes_max: usize,
}

/// Sizes and engine of log and storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineConfig {
    /// The engine of the stable store.
    pub kind: EngineKind,
    /// How many write workers.
    pub write_workers: usize,
    /// Memory for values in bytes.
    pub memory_bytes: usize,
    /// Log bytes that start a dump.
    pub dump_log_bytes: u64,
    /// Revisions that start a checkpoint of the key index.
    pub checkpoint_revisions: u64,
    /// Bytes of one log segment.
    pub segment_bytes: u64,
}

impl Config {
    /// The checked configuration.
    ///
    /// Errors: the first thing that cannot work, with what to do about it.
    pub fn from_flags(flags: &ServerFlags) -> Result<Self, ConfigError> {
        let checked = Self::checked(flags).and_then(|config| config.with_tls(flags));
        checked.map_err(|error| placed(flags, error))
    }

    /// As [`Config::from_flags`], for who makes a data directory and opens no port: https:// URLs need no certificate.
    ///
    /// Errors: as there.
    pub fn without_ports(flags: &ServerFlags) -> Result<Self, ConfigError> {
        Self::checked(flags).map_err(|error| placed(flags, error))
    }

    fn with_tls(mut self, flags: &ServerFlags) -> Result<Self, ConfigError> {
        let peer_urls: Vec<MemberUrl> =
            self.initial_cluster.iter().flat_map(|member| member.peer_urls.clone()).collect();
        let urls = tls::Urls {
            client: [
                ("listen-client-urls", &self.listen_client_urls),
                ("listen-metrics-urls", &self.listen_metrics_urls),
            ],
            peer: [("listen-peer-urls", &self.listen_peer_urls), ("initial-cluster", &peer_urls)],
        };
        self.tls = TlsConfig::checked(&flags.tls, &urls, &mut self.warnings)?;
        Ok(self)
    }

    fn checked(flags: &ServerFlags) -> Result<Self, ConfigError> {
        check_name(&flags.name)?;
        let listen_client_urls = parse_urls("listen-client-urls", &flags.listen_client_urls)?;
        let listen_peer_urls = parse_urls("listen-peer-urls", &flags.listen_peer_urls)?;
        let listen_metrics_urls = urls_or("listen-metrics-urls", &flags.listen_metrics_urls, Vec::new)?;
        let advertise_client_urls =
            urls_or("advertise-client-urls", &flags.advertise_client_urls, || listen_client_urls.clone())?;
        let reached_by_clients = Advertised {
            flag: "advertise-client-urls",
            who: "clients",
            advice: "it is taken from --listen-client-urls when it is not given",
        };
        reached_by_clients.check(&advertise_client_urls)?;
        let initial_cluster = initial_cluster(flags, &listen_peer_urls)?;
        check_timers(flags)?;
        let warnings = flags.warnings.clone();
        Ok(Self {
            name: flags.name.clone(),
            data_dir: flags
                .data_dir
                .clone()
                .unwrap_or_else(|| PathBuf::from(format!("{}.holdfast", flags.name))),
            listen_client_urls,
            listen_peer_urls,
            listen_metrics_urls,
            advertise_client_urls,
            initial_cluster,
            cluster_state: match flags.initial_cluster_state {
                ClusterStateFlag::New => ClusterState::New,
                ClusterStateFlag::Existing => ClusterState::Existing,
            },
            cluster_token: flags.initial_cluster_token.clone(),
            change_rules: ChangeRules {
                strict: flags.strict_reconfig_check,
                learners_max: u32::try_from(flags.max_learners)
                    .map_err(|_| value("max-learners", flags.max_learners, "it must not be negative"))?,
            },
            corrupt_check_time: Some(flags.corrupt_check_time).filter(|period| !period.is_zero()),
            auto_compaction: compaction::auto_compaction(flags)?,
            heartbeat_interval: flags.heartbeat_interval,
            election_timeout: flags.election_timeout,
            limits: request_limits(flags)?,
            auth: auth(flags)?,
            tls: TlsConfig::default(),
            engine: engine(flags)?,
            watch: watch(flags)?,
            keepalive_interval: Some(flags.grpc_keepalive_interval).filter(|interval| !interval.is_zero()),
            keepalive_timeout: flags.grpc_keepalive_timeout,
            keepalive_time_min: flags.grpc_keepalive_min_time,
            has_json_gateway: flags.enable_grpc_gateway,
            warnings,
            faults: faults(flags)?,
        })
    }

    /// Where the other members reach this one, ascending.
    pub fn own_peer_urls(&self) -> Vec<String> {
        let ours = self.initial_cluster.iter().find(|member| member.name == self.name);
        let ours = ours.expect("a checked configuration contains its own member");
        ours.peer_urls.iter().map(ToString::to_string).collect()
    }

    /// The time a request may take inside the server.
    pub fn request_budget(&self) -> Duration {
        limits::REQUEST_TIME_BASE + 2 * self.election_timeout
    }
}

fn urls_or(
    flag: &'static str,
    given: &Option<String>,
    default: impl FnOnce() -> Vec<MemberUrl>,
) -> Result<Vec<MemberUrl>, ConfigError> {
    given.as_ref().map_or_else(|| Ok(default()), |text| parse_urls(flag, text))
}

fn value(flag: &'static str, value: impl std::fmt::Display, rule: impl Into<String>) -> ConfigError {
    ConfigError::Value { flag, value: value.to_string(), rule: rule.into() }
}

fn check_name(name: &str) -> Result<(), ConfigError> {
    let printable =
        name.chars().all(|c| !c.is_control() && !c.is_whitespace() && !matches!(c, '=' | ',' | '/'));
    if name.is_empty() || name.len() > 255 || !printable {
        return Err(value(
            "name",
            format!("{name:?}"),
            "write 1 to 255 bytes without spaces, =, comma and slash",
        ));
    }
    Ok(())
}

/// URLs that others are told to connect to.
struct Advertised {
    flag: &'static str,
    who: &'static str,
    advice: &'static str,
}

impl Advertised {
    /// Refuses what nobody can connect to: every interface, or any port.
    fn check(&self, urls: &[MemberUrl]) -> Result<(), ConfigError> {
        match urls.iter().find(|url| url.is_wildcard() || url.port() == 0) {
            Some(url) => Err(ConfigError::Unreachable {
                flag: self.flag,
                url: url.to_string(),
                who: self.who,
                advice: self.advice,
            }),
            None => Ok(()),
        }
    }
}

fn initial_cluster(
    flags: &ServerFlags,
    listen_peer_urls: &[MemberUrl],
) -> Result<Vec<InitialMember>, ConfigError> {
    let advertised = flags
        .initial_advertise_peer_urls
        .as_deref()
        .map(|text| parse_urls("initial-advertise-peer-urls", text))
        .transpose()?;
    let Some(text) = flags.initial_cluster.as_deref() else {
        let peer_urls = sorted(advertised.unwrap_or_else(|| listen_peer_urls.to_vec()));
        let reached_by_peers = Advertised {
            flag: "initial-advertise-peer-urls",
            who: "the other members",
            advice: "it is taken from --listen-peer-urls when it is not given",
        };
        reached_by_peers.check(&peer_urls)?;
        return Ok(vec![InitialMember { name: flags.name.clone(), peer_urls }]);
    };
    let members = parse_initial_cluster(text)?;
    let Some(ours) = members.iter().find(|member| member.name == flags.name) else {
        let known = members.iter().map(|m| m.name.as_str()).collect::<Vec<_>>().join(", ");
        return Err(ConfigError::NameNotInCluster { name: flags.name.clone(), known });
    };
    if let Some(advertised) = advertised.map(sorted)
        && advertised != ours.peer_urls
    {
        return Err(ConfigError::PeerUrlsDiffer {
            name: flags.name.clone(),
            advertised: join(&advertised),
            in_cluster: join(&ours.peer_urls),
        });
    }
    Ok(members)
}

fn parse_initial_cluster(text: &str) -> Result<Vec<InitialMember>, ConfigError> {
    let mut members: BTreeMap<String, Vec<MemberUrl>> = BTreeMap::new();
    let mut owners: BTreeMap<MemberUrl, String> = BTreeMap::new();
    for part in text.split(',').map(str::trim) {
        let Some((name, url)) = part.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err(ConfigError::InitialClusterSyntax { part: part.to_owned() });
        };
        let url = MemberUrl::parse("initial-cluster", url)?;
        if let Some(first) = owners.insert(url.clone(), name.to_owned()) {
            return Err(ConfigError::PeerUrlShared { first, second: name.to_owned(), url: url.to_string() });
        }
        members.entry(name.to_owned()).or_default().push(url);
    }
    let reached_by_peers = Advertised {
        flag: "initial-cluster",
        who: "the other members",
        advice: "it may differ from what the member listens on",
    };
    for urls in members.values() {
        reached_by_peers.check(urls)?;
    }
    if members.len() > limits::INITIAL_MEMBERS_MAX {
        let rule = format!("at most {} members vote; 3, 5 or 7 are usual", limits::INITIAL_MEMBERS_MAX);
        return Err(value("initial-cluster", format!("{} members", members.len()), rule));
    }
    Ok(members.into_iter().map(|(name, urls)| InitialMember { name, peer_urls: sorted(urls) }).collect())
}

fn sorted(mut urls: Vec<MemberUrl>) -> Vec<MemberUrl> {
    urls.sort();
    urls
}

fn check_timers(flags: &ServerFlags) -> Result<(), ConfigError> {
    let heartbeat = flags.heartbeat_interval;
    let election = flags.election_timeout;
    if heartbeat.is_zero() {
        return Err(value("heartbeat-interval", heartbeat.as_millis(), "it must be at least 1 ms"));
    }
    if election < heartbeat * limits::HEARTBEATS_PER_ELECTION_MIN {
        let rule = format!(
            "it must be at least {} times --heartbeat-interval ({} ms)",
            limits::HEARTBEATS_PER_ELECTION_MIN,
            heartbeat.as_millis()
        );
        return Err(value("election-timeout", election.as_millis(), rule));
    }
    if election > limits::ELECTION_TIMEOUT_MAX {
        let rule = format!("it must be at most {} ms", limits::ELECTION_TIMEOUT_MAX.as_millis());
        return Err(value("election-timeout", election.as_millis(), rule));
    }
    Ok(())
}

/// `given` as a `usize`, within inclusive bounds.
fn bounded(flag: &'static str, given: u64, (min, max): (u64, u64)) -> Result<usize, ConfigError> {
    match usize::try_from(given) {
        Ok(number) if (min..=max).contains(&given) => Ok(number),
        _ => Err(value(flag, given, format!("it must be from {min} to {max}"))),
    }
}

fn request_limits(flags: &ServerFlags) -> Result<RequestLimits, ConfigError> {
    let (min, max) = limits::REQUEST_BYTES_BOUNDS;
    Ok(RequestLimits {
        request_bytes_max: bounded("max-request-bytes", flags.max_request_bytes, (min as u64, max as u64))?,
        txn_ops_max: bounded("max-txn-ops", flags.max_txn_ops, (1, limits::TXN_OPS_BOUND))?,
        waiting_calls_max: bounded(
            "max-waiting-calls",
            flags.max_waiting_calls,
            limits::WAITING_CALLS_BOUNDS,
        )?,
        snapshot_streams_max: bounded(
            "max-snapshot-streams",
            flags.max_snapshot_streams,
            limits::SNAPSHOT_STREAMS_BOUNDS,
        )?,
        receiving_bytes_max: bounded(
            "max-receiving-bytes",
            flags.max_receiving_bytes,
            limits::RECEIVING_BYTES_BOUNDS,
        )?,
        concurrent_streams_max: u32::try_from(flags.max_concurrent_streams)
            .ok()
            .filter(|streams| *streams > 0)
            .ok_or_else(|| {
                let rule = format!("it must be from 1 to {}", u32::MAX);
                value("max-concurrent-streams", flags.max_concurrent_streams, rule)
            })?,
        // As in etcd: 0 for the default, less for none.
        quota_backend_bytes: match u64::try_from(flags.quota_backend_bytes) {
            Ok(0) => Some(limits::QUOTA_BACKEND_BYTES),
            Ok(quota) => Some(quota),
            Err(_) => None,
        },
    })
}

/// etcd takes its default for a time to live that is none, and for a cost that bcrypt does not know; we refuse both.
fn auth(flags: &ServerFlags) -> Result<AuthConfig, ConfigError> {
    let seconds = u64::try_from(flags.auth_token_ttl).ok().filter(|seconds| *seconds > 0);
    let seconds =
        seconds.ok_or_else(|| value("auth-token-ttl", flags.auth_token_ttl, "it must be at least 1"))?;
    let cost = u32::try_from(flags.bcrypt_cost).ok().filter(|cost| password::COSTS.contains(cost));
    let bcrypt_cost = cost.ok_or_else(|| {
        let rule = format!("it must be from {} to {}", password::COSTS.start(), password::COSTS.end());
        value("bcrypt-cost", flags.bcrypt_cost, rule)
    })?;
    Ok(AuthConfig {
        token_ttl: Duration::from_secs(seconds),
        bcrypt_cost,
        signed: auth_token::signed(&flags.auth_token)?,
    })
}

/// How many threads serve clients and the other members: half the CPUs unless the flag says it.
///
/// Errors: it says zero, or more than [`limits::SERVING_THREADS_MAX`].
pub fn serving_threads(flags: &ServerFlags) -> Result<usize, ConfigError> {
    let threads = flags.serving_threads.unwrap_or_else(|| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        cores.div_ceil(limits::SERVING_THREADS_SHARE) as u64
    });
    bounded("serving-threads", threads, (1, limits::SERVING_THREADS_MAX as u64))
        .map_err(|error| placed(flags, error))
}

/// An error with the place of its flag, when that is not the command line.
fn placed(flags: &ServerFlags, error: ConfigError) -> ConfigError {
    match flags.place_elsewhere(error.flag()) {
        Some(place) => ConfigError::Elsewhere { place: place.to_string(), error: Box::new(error) },
        None => error,
    }
}

fn engine(flags: &ServerFlags) -> Result<EngineConfig, ConfigError> {
    let workers = flags.write_workers.unwrap_or_else(|| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        cores.min(limits::WRITE_WORKERS_DEFAULT_MAX) as u64
    });
    // The log takes no entry that is larger than half a segment.
    let (min, max) = limits::SEGMENT_BYTES_BOUNDS;
    let min = min.max(2 * (flags.max_request_bytes + limits::GRPC_OVERHEAD_BYTES as u64));
    bounded("segment-bytes", flags.segment_bytes, (min, max))?;
    bounded("dump-log-bytes", flags.dump_log_bytes, (1024 * 1024, u64::MAX))?;
    bounded("checkpoint-revisions", flags.checkpoint_revisions, (1, u64::MAX))?;
    Ok(EngineConfig {
        kind: match flags.engine {
            EngineFlag::Sled => EngineKind::Sled,
            EngineFlag::Redb => EngineKind::Redb,
            EngineFlag::Memory => EngineKind::Memory,
        },
        write_workers: bounded("write-workers", workers, (1, limits::WRITE_WORKERS_MAX as u64))?,
        memory_bytes: bounded(
            "memory-bytes",
            flags.memory_bytes,
            (limits::MEMORY_BYTES_MIN as u64, u64::MAX),
        )?,
        dump_log_bytes: flags.dump_log_bytes,
        checkpoint_revisions: flags.checkpoint_revisions,
        segment_bytes: flags.segment_bytes,
    })
}

fn watch(flags: &ServerFlags) -> Result<WatchConfig, ConfigError> {
    let interval = flags.watch_progress_notify_interval;
    if interval < limits::PROGRESS_NOTIFY_INTERVAL_MIN {
        let rule = format!("it must be at least {:?}", limits::PROGRESS_NOTIFY_INTERVAL_MIN);
        return Err(value("watch-progress-notify-interval", format!("{interval:?}"), rule));
    }
    let (min, max) = limits::WATCH_STREAM_BYTES_BOUNDS;
    Ok(WatchConfig {
        progress_notify_interval: interval,
        stream_bytes_max: bounded("watch-stream-bytes", flags.watch_stream_bytes, (min, max))?,
    })
}

fn faults(flags: &ServerFlags) -> Result<Faults, ConfigError> {
    let (flag, given) = match (&flags.failpoint, &flags.plant) {
        (None, None) => return Ok(Faults::default()),
        (Some(_), Some(name)) => {
            let rule = "it cannot be given together with --failpoint".to_owned();
            return Err(value("plant", name.clone(), rule));
        }
        (Some(point), None) => ("failpoint", point),
        (None, Some(name)) => ("plant", name),
    };
    let refused = |rule| value(flag, given.clone(), rule);
    if !sabotage::ENABLED {
        let rule = "this build has no failpoints: use a debug build, or build with --features failpoints";
        return Err(refused(rule.to_owned()));
    }
    let sabotage: Arc<dyn Sabotage> = match flag {
        "plant" => Arc::new(Planted::parse(given).map_err(refused)?),
        _ => Arc::new(KillAt::parse(given).map_err(refused)?),
    };
    Ok(Faults::new(sabotage))
}
