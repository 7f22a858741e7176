//! The flags of a member, typed.

use std::path::PathBuf;
use std::time::Duration;

use super::given::{Given, Place};

/// Which engine keeps the stable store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum EngineFlag {
    /// sled
    Sled,
    /// redb
    Redb,
    /// In memory, rebuilt from snapshot and log at each start
    Memory,
}

/// `new` or `existing`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterStateFlag {
    /// Form the initial cluster, or start again as its member
    New,
    /// Join a running cluster, or start again as its member
    Existing,
}

/// What `--auto-compaction-retention` counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompactionModeFlag {
    /// Time
    Periodic,
    /// Revisions
    Revision,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormatFlag {
    /// One JSON object per line
    Json,
    /// For people
    Console,
}

/// The flags of one end that speaks TLS.
#[derive(Debug, Clone, Default)]
pub struct EndFlags {
    /// Certificate and key.
    pub pair: (Option<PathBuf>, Option<PathBuf>),
    /// `--client-cert-auth` or its twin for peers.
    pub cert_auth: bool,
    /// CAs of those who connect.
    pub ca: Option<PathBuf>,
    /// Common names, comma-separated.
    pub allowed_cn: String,
    /// Host names and addresses, comma-separated.
    pub allowed_hostname: String,
}

/// The flags about TLS.
#[derive(Debug, Clone, Default)]
pub struct TlsFlags {
    /// Of the client port.
    pub client: EndFlags,
    /// Of the peer port.
    pub peer: EndFlags,
    /// What is shown to other members' peer ports.
    pub peer_client: (Option<PathBuf>, Option<PathBuf>),
    /// Oldest version.
    pub min_version: String,
    /// Newest version; empty for any.
    pub max_version: String,
}

impl TlsFlags {
    fn of(given: &Given) -> Self {
        let text = |name: &str| given.text(name).unwrap_or_default();
        let path = |name: &str| given.text(name).filter(|path| !path.is_empty()).map(PathBuf::from);
        Self {
            client: EndFlags {
                pair: (path("cert-file"), path("key-file")),
                cert_auth: given.is_on("client-cert-auth"),
                ca: path("trusted-ca-file"),
                allowed_cn: String::new(),
                allowed_hostname: text("client-cert-allowed-hostname"),
            },
            peer: EndFlags {
                pair: (path("peer-cert-file"), path("peer-key-file")),
                cert_auth: given.is_on("peer-client-cert-auth"),
                ca: path("peer-trusted-ca-file"),
                allowed_cn: text("peer-cert-allowed-cn"),
                allowed_hostname: text("peer-cert-allowed-hostname"),
            },
            peer_client: (path("peer-client-cert-file"), path("peer-client-key-file")),
            min_version: text("tls-min-version"),
            max_version: text("tls-max-version"),
        }
    }
}

/// The flags of a member, with their defaults, from wherever they were given.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each field is the flag of its name, and the table says what that is")]
pub struct ServerFlags {
    pub name: String,
    pub data_dir: Option<PathBuf>,
    pub listen_client_urls: String,
    pub listen_peer_urls: String,
    pub advertise_client_urls: Option<String>,
    pub listen_metrics_urls: Option<String>,
    pub initial_advertise_peer_urls: Option<String>,
    pub initial_cluster: Option<String>,
    pub initial_cluster_state: ClusterStateFlag,
    pub initial_cluster_token: String,
    pub strict_reconfig_check: bool,
    pub enable_grpc_gateway: bool,
    pub max_learners: i64,
    pub corrupt_check_time: Duration,
    pub auto_compaction_mode: CompactionModeFlag,
    pub auto_compaction_retention: String,
    pub heartbeat_interval: Duration,
    pub election_timeout: Duration,
    pub max_request_bytes: u64,
    pub max_txn_ops: u64,
    pub max_waiting_calls: u64,
    pub max_snapshot_streams: u64,
    pub max_concurrent_streams: u64,
    pub max_receiving_bytes: u64,
    pub quota_backend_bytes: i64,
    pub tls: TlsFlags,
    pub auth_token_ttl: i64,
    /// Which tokens there are.
    pub auth_token: String,
    pub bcrypt_cost: i64,
    pub memory_bytes: u64,
    pub engine: EngineFlag,
    pub serving_threads: Option<u64>,
    pub write_workers: Option<u64>,
    pub dump_log_bytes: u64,
    pub checkpoint_revisions: u64,
    pub segment_bytes: u64,
    pub watch_progress_notify_interval: Duration,
    pub watch_stream_bytes: u64,
    pub log_level: String,
    pub log_format: Option<LogFormatFlag>,
    pub log_outputs: String,
    pub grpc_keepalive_interval: Duration,
    pub grpc_keepalive_timeout: Duration,
    pub grpc_keepalive_min_time: Duration,
    pub exit_with_stdin: bool,
    pub failpoint: Option<String>,
    pub plant: Option<String>,
    /// What is to be said once about flags without effect.
    pub warnings: Vec<String>,
    given: Given,
}

impl ServerFlags {
    /// As given, or the defaults.
    pub(super) fn of(given: Given) -> Self {
        let text = |name: &str| given.text(name).unwrap_or_default();
        let count = |name: &str| given.count(name).unwrap_or_default();
        Self {
            name: text("name"),
            data_dir: given.text("data-dir").filter(|dir| !dir.is_empty()).map(PathBuf::from),
            listen_client_urls: text("listen-client-urls"),
            listen_peer_urls: text("listen-peer-urls"),
            advertise_client_urls: given.text("advertise-client-urls"),
            listen_metrics_urls: given.text("listen-metrics-urls"),
            initial_advertise_peer_urls: given.text("initial-advertise-peer-urls"),
            initial_cluster: given.text("initial-cluster"),
            initial_cluster_state: match text("initial-cluster-state").as_str() {
                "existing" => ClusterStateFlag::Existing,
                _ => ClusterStateFlag::New,
            },
            initial_cluster_token: text("initial-cluster-token"),
            strict_reconfig_check: given.is_on("strict-reconfig-check"),
            enable_grpc_gateway: given.is_on("enable-grpc-gateway"),
            max_learners: given.number("max-learners"),
            corrupt_check_time: given.time("corrupt-check-time"),
            auto_compaction_mode: match text("auto-compaction-mode").as_str() {
                "revision" => CompactionModeFlag::Revision,
                _ => CompactionModeFlag::Periodic,
            },
            auto_compaction_retention: text("auto-compaction-retention"),
            heartbeat_interval: given.time("heartbeat-interval"),
            election_timeout: given.time("election-timeout"),
            max_request_bytes: count("max-request-bytes"),
            max_txn_ops: count("max-txn-ops"),
            max_waiting_calls: count("max-waiting-calls"),
            max_snapshot_streams: count("max-snapshot-streams"),
            max_concurrent_streams: count("max-concurrent-streams"),
            max_receiving_bytes: count("max-receiving-bytes"),
            quota_backend_bytes: given.number("quota-backend-bytes"),
            tls: TlsFlags::of(&given),
            auth_token_ttl: given.number("auth-token-ttl"),
            auth_token: given.text("auth-token").unwrap_or_default(),
            bcrypt_cost: given.number("bcrypt-cost"),
            memory_bytes: count("memory-bytes"),
            engine: match text("engine").as_str() {
                "redb" => EngineFlag::Redb,
                "memory" => EngineFlag::Memory,
                _ => EngineFlag::Sled,
            },
            serving_threads: given.count("serving-threads"),
            write_workers: given.count("write-workers"),
            dump_log_bytes: count("dump-log-bytes"),
            checkpoint_revisions: count("checkpoint-revisions"),
            segment_bytes: count("segment-bytes"),
            watch_progress_notify_interval: given.time("watch-progress-notify-interval"),
            watch_stream_bytes: count("watch-stream-bytes"),
            log_level: text("log-level"),
            log_format: given.text("log-format").map(|form| match form.as_str() {
                "json" => LogFormatFlag::Json,
                _ => LogFormatFlag::Console,
            }),
            log_outputs: text("log-outputs"),
            grpc_keepalive_interval: given.time("grpc-keepalive-interval"),
            grpc_keepalive_timeout: given.time("grpc-keepalive-timeout"),
            grpc_keepalive_min_time: given.time("grpc-keepalive-min-time"),
            exit_with_stdin: given.is_on("exit-with-stdin"),
            failpoint: given.text("failpoint").filter(|point| !point.is_empty()),
            plant: given.text("plant").filter(|fault| !fault.is_empty()),
            warnings: given.warnings().to_vec(),
            given,
        }
    }

    /// Where a flag's value comes from, unless that is the flag itself or its default.
    pub fn place_elsewhere(&self, name: &str) -> Option<&Place> {
        self.given.place(name).filter(|place| !matches!(place, Place::CommandLine(_)))
    }
}
