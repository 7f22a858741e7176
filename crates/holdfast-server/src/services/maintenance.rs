//! The Maintenance service.

use std::sync::Arc;

use holdfast_mvcc::command::{Alarm, AlarmKind, Command, Response as Changed};
use holdfast_mvcc::types::{MemberId, Revision};
use holdfast_proto::etcdserverpb as pb;
use holdfast_storage::HistoryHash;
use pb::alarm_request::AlarmAction;
use tonic::{Request, Response, Status};

use super::snapshot::{self, Blobs};
use crate::auth::Asking;
use crate::auth::rules;
use crate::codec::response::{compact_revision, signed};
use crate::frontend::{Blocking, Call, Frontend, STORE_FAILED, Service};
use crate::status::{Failure, NoDowngrade};
use crate::version;

/// Serves [`pb::maintenance_server::Maintenance`].
pub struct MaintenanceService {
    frontend: Arc<Frontend>,
}

impl MaintenanceService {
    /// Serves through `frontend`.
    pub fn new(frontend: Arc<Frontend>) -> Self {
        Self { frontend }
    }

    fn describe(&self) -> pb::StatusResponse {
        let health = self.frontend.node.health();
        let storage = self.frontend.storage.status();
        let mut errors = Vec::new();
        if health.leader.is_none() {
            errors.push("etcdserver: no leader".to_owned());
        }
        if self.frontend.is_poisoned() {
            errors.push(format!("holdfast: {STORE_FAILED}"));
        }
        errors.extend(self.frontend.storage.alarms().iter().map(worded));
        // Never 0, also not on a store without keys: clients take 0 for "unknown".
        let bytes = signed(storage.logical_bytes.max(1));
        pb::StatusResponse {
            header: Some(self.frontend.header(storage.visible.revision)),
            version: version::ETCD_API.to_owned(),
            db_size: bytes,
            leader: health.leader.map_or(0, |id| id.0),
            raft_index: health.committed.map_or(0, |id| id.index().get()),
            raft_term: health.term.get(),
            raft_applied_index: storage.visible.log_id.map_or(0, |id| id.index().get()),
            errors,
            db_size_in_use: bytes,
            is_learner: health.is_learner,
            storage_version: version::ETCD_API.to_owned(),
            db_size_quota: signed(self.frontend.limits.quota_backend_bytes.unwrap_or(0)),
            downgrade_info: Some(pb::DowngradeInfo::default()),
        }
    }

    async fn alarms(&self, request: pb::AlarmRequest, call: Call) -> Result<Vec<pb::AlarmMember>, Failure> {
        let kind = match request.alarm() {
            pb::AlarmType::None => None,
            pb::AlarmType::Nospace => Some(AlarmKind::NoSpace),
            pb::AlarmType::Corrupt => Some(AlarmKind::Corrupt),
        };
        // The member is taken as given, as in etcd.
        let alarm = kind.map(|kind| Alarm { member: MemberId(request.member_id), kind });
        let command = match (AlarmAction::try_from(request.action), alarm) {
            (Ok(AlarmAction::Get), _) => {
                // As in etcd, a list contains what was raised before.
                self.frontend.linearize(call).await?;
                self.frontend.pass(call, |_| Ok(()))?;
                let active = self.frontend.storage.alarms();
                let wanted = active.iter().filter(|alarm| kind.is_none_or(|kind| alarm.kind == kind));
                return Ok(wanted.map(described).collect());
            }
            (Ok(AlarmAction::Activate), Some(alarm)) => Command::RaiseAlarm(alarm),
            (Ok(AlarmAction::Deactivate), Some(alarm)) => Command::ClearAlarm(alarm),
            (Ok(AlarmAction::Activate | AlarmAction::Deactivate) | Err(_), _) => return Ok(Vec::new()),
        };
        let answer = self.frontend.propose(command, call).await?;
        match answer.outcome.response? {
            Changed::Alarm(alarm) => Ok(alarm.iter().map(described).collect()),
            other => unreachable!("an alarm is answered as an alarm, not as {other:?}"),
        }
    }

    async fn hash_at(&self, revision: i64, call: Call) -> Result<HistoryHash, Failure> {
        let revision = u64::try_from(revision).ok().filter(|revision| *revision > 0).map(Revision::new);
        let _timer = self.frontend.metrics.hash_seconds.start_timer();
        let mut hashed = self
            .frontend
            .read_blocking(call, Blocking::Short, move |storage| storage.history_hash(revision))
            .await?;
        // Clients take 0 for "no hash". Equal histories still give equal hashes.
        hashed.hash = hashed.hash.max(1);
        Ok(hashed)
    }
}

/// Why there is no downgrade: a version of holdfast reads the data of its own format alone, so that there is none to go to, and
/// none under way. In the order in which etcd checks.
fn no_downgrade(request: &pb::DowngradeRequest) -> NoDowngrade {
    use pb::downgrade_request::DowngradeAction;
    match DowngradeAction::try_from(request.action) {
        Ok(DowngradeAction::Validate | DowngradeAction::Enable) if is_version(&request.version) => {
            NoDowngrade::InvalidTarget
        }
        Ok(DowngradeAction::Validate | DowngradeAction::Enable) => NoDowngrade::NotAVersion,
        Ok(DowngradeAction::Cancel) => NoDowngrade::NoneInProgress,
        Err(_) => NoDowngrade::UnknownAction,
    }
}

/// `3.6`, or a semantic version.
fn is_version(text: &str) -> bool {
    let numbers = text.split_once(['-', '+']).map_or(text, |(numbers, _)| numbers);
    let parts: Vec<&str> = numbers.split('.').collect();
    (2..=3).contains(&parts.len()) && parts.iter().all(|part| part.parse::<u64>().is_ok())
}

fn described(alarm: &Alarm) -> pb::AlarmMember {
    let kind = match alarm.kind {
        AlarmKind::NoSpace => pb::AlarmType::Nospace,
        AlarmKind::Corrupt => pb::AlarmType::Corrupt,
    };
    pb::AlarmMember { member_id: alarm.member.0, alarm: kind.into() }
}

/// An alarm in the words of etcd's Status.
fn worded(alarm: &Alarm) -> String {
    let kind = match alarm.kind {
        AlarmKind::NoSpace => "NOSPACE",
        AlarmKind::Corrupt => "CORRUPT",
    };
    match alarm.member.0 {
        0 => format!("alarm:{kind} "),
        member => format!("memberID:{member} alarm:{kind} "),
    }
}

#[tonic::async_trait]
impl pb::maintenance_server::Maintenance for MaintenanceService {
    type SnapshotStream = Blobs;

    async fn status(
        &self,
        request: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        self.frontend.admit(Asking::of(&request), rules::STATUS, Service::Everyone).await?;
        Ok(Response::new(self.describe()))
    }

    async fn hash_kv(
        &self,
        request: Request<pb::HashKvRequest>,
    ) -> Result<Response<pb::HashKvResponse>, Status> {
        let call = self.frontend.admit(Asking::of(&request), rules::HASH_KV, Service::Voters).await?;
        let hashed = self.hash_at(request.get_ref().revision, call).await?;
        Ok(Response::new(pb::HashKvResponse {
            header: Some(self.frontend.header(self.frontend.current_revision())),
            hash: hashed.hash,
            compact_revision: compact_revision(hashed.compact_revision),
            hash_revision: signed(hashed.revision.get()),
        }))
    }

    async fn hash(&self, request: Request<pb::HashRequest>) -> Result<Response<pb::HashResponse>, Status> {
        let call = self.frontend.admit(Asking::of(&request), rules::HASH, Service::Voters).await?;
        let hashed = self.hash_at(0, call).await?;
        let header = Some(self.frontend.header(self.frontend.current_revision()));
        Ok(Response::new(pb::HashResponse { header, hash: hashed.hash }))
    }

    async fn alarm(&self, request: Request<pb::AlarmRequest>) -> Result<Response<pb::AlarmResponse>, Status> {
        let call = self.frontend.admit(Asking::of(&request), rules::ALARM, Service::Voters).await?;
        let alarms = self.alarms(*request.get_ref(), call).await?;
        let header = Some(self.frontend.header(self.frontend.current_revision()));
        Ok(Response::new(pb::AlarmResponse { header, alarms }))
    }

    /// Does nothing: space goes back to the disk by itself, a piece at a time, and jobs that defragment members of etcd
    /// one after the other go on working.
    async fn defragment(
        &self,
        request: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        self.frontend.admit(Asking::of(&request), rules::DEFRAGMENT, Service::Voters).await?;
        // etcd's answer has no header either.
        Ok(Response::new(pb::DefragmentResponse::default()))
    }

    async fn snapshot(
        &self,
        request: Request<pb::SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        let call = self.frontend.admit(Asking::of(&request), rules::SNAPSHOT, Service::Everyone).await?;
        Ok(Response::new(snapshot::open(&self.frontend, call)?))
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        let call = self.frontend.admit(Asking::of(&request), rules::MOVE_LEADER, Service::Voters).await?;
        let to = MemberId(request.get_ref().target_id);
        self.frontend.transfer_leader(to, call).await?;
        // etcd's answer has no header either.
        Ok(Response::new(pb::MoveLeaderResponse::default()))
    }

    async fn downgrade(
        &self,
        request: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        self.frontend.admit(Asking::of(&request), rules::DOWNGRADE, Service::Voters).await?;
        Err(Failure::Downgrade(no_downgrade(request.get_ref())).into())
    }
}
