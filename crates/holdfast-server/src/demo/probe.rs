//! Asks the members how they are, as any user could: by Status and by `/metrics`.

use std::sync::Arc;
use std::time::Duration;

use holdfast_env::Clock;
use holdfast_proto::etcdserverpb as pb;
use http::{StatusCode, Uri};
use pb::maintenance_client::MaintenanceClient;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use super::page::Page;
use crate::healthcheck;

/// How long a member may take to say how it is.
const ANSWER_MAX: Duration = Duration::from_millis(500);
/// A page of metrics is a hundred kilobytes; ten times that is none of ours.
const PAGE_BYTES_MAX: usize = 1024 * 1024;
/// How often the members are asked.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);

/// What one member said.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Seen {
    pub id: u64,
    /// 0 when it knows of none.
    pub leader: u64,
    pub term: u64,
    pub is_learner: bool,
    pub revision: u64,
    pub log: Positions,
    pub dispatcher: String,
    /// KV requests since its start.
    pub requests: u64,
    pub watchers: Option<u64>,
    /// Watchers that read from history because they cannot keep up.
    pub lagging: Option<u64>,
    pub memory_bytes: u64,
    pub cpu_seconds: f64,
}

/// Log indexes; what the member does not tell is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Positions {
    pub last: Option<u64>,
    pub committed: Option<u64>,
    pub applied: Option<u64>,
    pub stable: Option<u64>,
    pub snapshot: Option<u64>,
    pub purged: Option<u64>,
}

/// Where one member is asked.
#[derive(Clone)]
pub(super) struct Probe {
    channel: Channel,
    metrics: Uri,
}

impl Probe {
    /// Of the member behind `channel`, which serves metrics at `url`. `None` when that is no URL.
    pub(super) fn new(channel: Channel, url: &str) -> Option<Self> {
        Some(Self { channel, metrics: format!("{url}/metrics").parse().ok()? })
    }

    /// What it says, or `None` when it does not answer in time.
    async fn ask(&self) -> Option<Seen> {
        let mut client = MaintenanceClient::new(self.channel.clone());
        let both = async {
            tokio::join!(
                client.status(pb::StatusRequest {}),
                healthcheck::get(self.metrics.clone(), PAGE_BYTES_MAX)
            )
        };
        let (status, page) = tokio::time::timeout(ANSWER_MAX, both).await.ok()?;
        match page {
            Ok((StatusCode::OK, page)) => Some(seen(status.ok()?.get_ref(), &Page::parse(&page))),
            _ => None,
        }
    }
}

/// Asks all at once.
pub(super) async fn ask_all(probes: &[Probe]) -> Vec<Option<Seen>> {
    futures::future::join_all(probes.iter().map(Probe::ask)).await
}

/// Asks all of them again and again; ends when it is dropped.
pub(super) struct Sampler {
    answers: mpsc::Receiver<Vec<Option<Seen>>>,
    _task: JoinSet<()>,
}

impl Sampler {
    pub(super) fn start(probes: Vec<Probe>, clock: &Arc<dyn Clock>) -> Self {
        // One round may wait; with nobody to take it, nobody is asked.
        let (tell, answers) = mpsc::channel(1);
        let clock = Arc::clone(clock);
        let mut task = JoinSet::new();
        task.spawn(async move {
            loop {
                let began = clock.now();
                if tell.send(ask_all(&probes).await).await.is_err() {
                    return;
                }
                clock.sleep(INTERVAL.saturating_sub(clock.now().since(began))).await;
            }
        });
        Self { answers, _task: task }
    }

    /// The next round of answers, in the members' order. Cancel-safe.
    pub(super) async fn next(&mut self) -> Vec<Option<Seen>> {
        match self.answers.recv().await {
            Some(round) => round,
            // The task only ends with this value.
            None => std::future::pending().await,
        }
    }
}

fn seen(status: &pb::StatusResponse, page: &Page<'_>) -> Seen {
    let header = status.header.unwrap_or_default();
    let applied = page.count("etcd_server_proposals_applied_total");
    let lag = page.count("holdfast_stable_lag_entries");
    Seen {
        id: header.member_id,
        leader: status.leader,
        term: status.raft_term,
        is_learner: status.is_learner,
        revision: u64::try_from(header.revision).unwrap_or_default(),
        log: Positions {
            last: page.count("holdfast_log_last_index"),
            committed: page.count("etcd_server_proposals_committed_total"),
            applied,
            stable: applied.zip(lag).map(|(applied, lag)| applied.saturating_sub(lag)),
            snapshot: page.count("holdfast_snapshot_index"),
            purged: page.count("holdfast_log_purged_index"),
        },
        dispatcher: page.label_of_one("holdfast_dispatcher_state", "state").unwrap_or("-").to_owned(),
        requests: page.sum("grpc_server_started_total", "grpc_service=\"etcdserverpb.KV\""),
        watchers: page.count("etcd_debugging_mvcc_watcher_total"),
        lagging: page.count("etcd_debugging_mvcc_slow_watcher_total"),
        memory_bytes: page.count("process_resident_memory_bytes").unwrap_or_default(),
        cpu_seconds: page
            .value("holdfast_process_cpu_seconds_total")
            .or_else(|| page.value("process_cpu_seconds_total"))
            .unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_and_a_status_become_what_the_board_shows() {
        let page = "\
# HELP etcd_server_proposals_applied_total x
etcd_server_proposals_applied_total 120
etcd_server_proposals_committed_total 121
holdfast_stable_lag_entries 20
holdfast_snapshot_index 64
holdfast_dispatcher_state{state=\"normal\"} 0
holdfast_dispatcher_state{state=\"dumping\"} 1
grpc_server_started_total{grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 30
grpc_server_started_total{grpc_method=\"Range\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 12
grpc_server_started_total{grpc_method=\"Status\",grpc_service=\"etcdserverpb.Maintenance\",grpc_type=\"unary\"} 9
process_resident_memory_bytes 1.048576e+06
process_cpu_seconds_total 3
";
        let status = pb::StatusResponse { leader: 7, raft_term: 2, ..Default::default() };
        let seen = seen(&status, &Page::parse(page));
        let log = Positions {
            last: None,
            committed: Some(121),
            applied: Some(120),
            stable: Some(100),
            snapshot: Some(64),
            purged: None,
        };
        assert_eq!((seen.leader, seen.term, seen.log), (7, 2, log));
        assert_eq!((seen.dispatcher.as_str(), seen.requests, seen.watchers), ("dumping", 42, None));
        assert_eq!((seen.memory_bytes, seen.cpu_seconds), (1 << 20, 3.0));
    }
}
