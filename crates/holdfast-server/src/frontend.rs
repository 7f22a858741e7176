//! The client-facing side of one member: what all services share.
//!
//! It checks what every call is checked for (leader wanted, learner, deadline), sends commands to consensus, and
//! answers reads from local state after the confirmation they need. Services translate; this decides.

mod cold;
mod guard;

use std::sync::Arc;
use std::time::Duration;

use holdfast_env::{Clock, Monotonic, Rng, UnixMillis};
use holdfast_mvcc::auth::Caller;
use holdfast_mvcc::command::{Alarm, AlarmKind, Command, Range, RangeResponse, ReadAt, Refusal};
use holdfast_mvcc::types::{LeaseId, MemberId, RangeEnd, Revision};
use holdfast_proto::etcdserverpb as pb;
use holdfast_raft::{ChangeError, ChangeRules, LeaseLeft, Log, Member, MemberChange, Node};
use holdfast_storage::{Answer, ReadError, Storage, Visible};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::{Response, Status};

use crate::auth::certificates::Certificates;
use crate::auth::signed::Signer;
use crate::auth::tokens::Tokens;
use crate::auth::{AuthConfig, Who};
use crate::backup::room::Room;
use crate::codec::response::signed;
use crate::config::RequestLimits;
use crate::identity::{self, Identity};
use crate::limits;
use crate::metrics::watch::WatchFigures;
use crate::metrics::{Metrics, RequestKind, Scrape};
use crate::quota;
use crate::receiving::Receiving;
use crate::status::{Failure, within};
use crate::tls::Tls;
use crate::watch::{LeaderWanted, Watches};

/// What a member with a poisoned store tells whoever asks how it is.
pub const STORE_FAILED: &str =
    "the stable store failed: the log says what to do (mostly: restart the member)";

/// What all services share. Behind an `Arc`; nothing in it changes but through the parts' own handles.
pub struct Frontend {
    /// Who this member is.
    pub identity: Identity,
    /// What is refused.
    pub limits: RequestLimits,
    /// What changes of the membership must not do.
    pub change_rules: ChangeRules,
    /// Consensus.
    pub node: Node,
    /// Local state.
    pub storage: Storage,
    /// The Raft log, for its figures alone.
    pub log: Log,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Watch streams.
    pub watches: Watches,
    /// Where snapshots for clients are written.
    pub snapshots: Arc<Room>,
    /// What clients are sending.
    pub receiving: Arc<Receiving>,
    /// The shortest time to live that a lease is granted, in seconds.
    pub lease_seconds_min: u64,
    /// Randomness.
    pub rng: Arc<dyn Rng>,
    /// Cancelled when the member begins to stop.
    pub stop: CancellationToken,
    clock: Arc<dyn Clock>,
    budget: Duration,
    /// Permits for what blocks a thread for a short time ...
    short_reads: Arc<Semaphore>,
    /// ... and for what waits there for its turn with others.
    long_reads: Arc<Semaphore>,
    cold_reads: cold::ColdReads,
    /// The tokens that are good here.
    tokens: Tokens,
    /// With signed tokens: what signs and checks them.
    pub signer: Option<Signer>,
    /// The files and ports of TLS.
    pub tls: Arc<Tls>,
    /// Names in the certificates of open connections.
    pub certificates: Arc<Certificates>,
    bcrypt_cost: u32,
    /// Passwords that are made into hashes, and that are compared.
    hashing: guard::Slow,
    comparing: guard::Slow,
    ready: watch::Receiver<bool>,
    /// True from the first confirmation by a leader on; sent by the greeting.
    caught_up: watch::Sender<bool>,
}

/// What the frontend is made of.
pub struct Parts {
    /// Who this member is.
    pub identity: Identity,
    /// What is refused.
    pub limits: RequestLimits,
    /// What changes of the membership must not do.
    pub change_rules: ChangeRules,
    /// The shortest time to live that a lease is granted, in seconds.
    pub lease_seconds_min: u64,
    /// Cancelled when the member begins to stop.
    pub stop: CancellationToken,
    /// The time a request may take inside the server.
    pub budget: Duration,
    /// The files and ports of TLS.
    pub tls: Arc<Tls>,
    /// Consensus.
    pub node: Node,
    /// Local state.
    pub storage: Storage,
    /// The Raft log, for its figures alone.
    pub log: Log,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Watch streams.
    pub watches: Watches,
    /// Where snapshots for clients are written.
    pub snapshots: Arc<Room>,
    /// What clients are sending.
    pub receiving: Arc<Receiving>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub rng: Arc<dyn Rng>,
    /// How callers are checked.
    pub auth: AuthConfig,
    /// With signed tokens: what signs and checks them.
    pub signer: Option<Signer>,
    /// True once the member has caught up after its start.
    pub ready: watch::Receiver<bool>,
}

/// Whether a learner answers a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Voters alone.
    Voters,
    /// Learners too.
    Everyone,
}

/// Whether a read needs a quorum's confirmation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// It sees every write acknowledged before it began.
    Linearizable,
    /// Local state, possibly stale.
    Serializable,
}

/// What kind of work occupies a thread that may block. Neither waits for the other one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocking {
    /// Mostly over at once.
    Short,
    /// Takes turns.
    Long,
}

/// What a read has found.
pub enum Read<T> {
    /// One key or none, from memory, and the store's current revision.
    Hot(RangeResponse, Revision),
    /// Whatever was asked for.
    Cold(T),
}

/// One call's own terms.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    began: Monotonic,
    /// How long the client waits, less what our answer needs to be there before.
    client_deadline: Option<Duration>,
    budget: Duration,
    who: Who,
}

impl Frontend {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Self {
        Self {
            identity: parts.identity,
            limits: parts.limits,
            change_rules: parts.change_rules,
            node: parts.node,
            storage: parts.storage,
            log: parts.log,
            metrics: parts.metrics,
            watches: parts.watches,
            snapshots: parts.snapshots,
            receiving: parts.receiving,
            cold_reads: cold::ColdReads::new(Arc::clone(&parts.clock)),
            clock: parts.clock,
            rng: parts.rng,
            budget: parts.budget,
            lease_seconds_min: parts.lease_seconds_min,
            stop: parts.stop,
            short_reads: Arc::new(Semaphore::new(limits::BLOCKING_READS_MAX)),
            long_reads: Arc::new(Semaphore::new(limits::LONG_READS_MAX)),
            tokens: Tokens::new(parts.auth.token_ttl),
            signer: parts.signer,
            tls: parts.tls,
            certificates: Arc::default(),
            bcrypt_cost: parts.auth.bcrypt_cost,
            hashing: guard::Slow::default(),
            comparing: guard::Slow::default(),
            ready: parts.ready,
            caught_up: watch::Sender::new(false),
        }
    }

    fn admit_anybody(&self, metadata: &MetadataMap, service: Service) -> Result<Call, Failure> {
        if metadata.get("client-api-version").is_some_and(|v| std::str::from_utf8(v.as_bytes()).is_err()) {
            return Err(Failure::ClientApiVersion);
        }
        if service == Service::Voters && self.node.is_learner() {
            return Err(Failure::Learner);
        }
        if Self::leader_wanted(metadata) == LeaderWanted::Yes && self.node.health().leader.is_none() {
            return Err(Failure::LeaderRequired);
        }
        let client_deadline =
            metadata.get("grpc-timeout").and_then(|v| v.to_str().ok()).and_then(grpc_timeout);
        let client_deadline = client_deadline.map(answered_before);
        let budget = client_deadline.map_or(self.budget, |deadline| deadline.min(self.budget));
        Ok(Call { began: self.clock.now(), client_deadline, budget, who: Who::Nobody })
    }

    /// True when the alarm for differing data is active for this member.
    pub fn is_corrupt(&self) -> bool {
        let own = Alarm { member: self.identity.member_id, kind: AlarmKind::Corrupt };
        self.storage.alarms().contains(&own)
    }

    /// Whether a client wants to be refused while no leader is known.
    pub fn leader_wanted(metadata: &MetadataMap) -> LeaderWanted {
        match metadata.get("hasleader") {
            Some(value) if value.as_bytes() == b"true" => LeaderWanted::Yes,
            _ => LeaderWanted::No,
        }
    }

    /// A call of the server itself, with the whole budget.
    pub fn internal_call(&self) -> Call {
        Call { began: self.clock.now(), client_deadline: None, budget: self.budget, who: Who::Server }
    }

    /// The next step of a call that takes longer than one has time for: by who has made it, with the whole budget.
    pub fn prolonged(&self, call: Call) -> Call {
        Call { who: call.who, ..self.internal_call() }
    }

    /// Completes at the client's own deadline; never, if it has none. Cancel-safe.
    pub async fn client_deadline(&self, call: Call) {
        match call.client_deadline {
            Some(deadline) => {
                let passed = self.clock.now().since(call.began);
                self.clock.sleep(deadline.saturating_sub(passed)).await;
            }
            None => std::future::pending().await,
        }
    }

    /// The time now.
    pub fn now(&self) -> Monotonic {
        self.clock.now()
    }

    /// Waits for this long.
    pub async fn rest(&self, time: Duration) {
        self.clock.sleep(time).await;
    }

    /// Waits for something that must come soon, at most the call's time.
    pub async fn within_budget<T>(&self, call: Call, work: impl Future<Output = T>) -> Result<T, Failure> {
        tokio::select! {
            // The timer holds nothing; what is waited for is given up.
            done = work => Ok(done),
            () = self.clock.sleep(self.remaining(call)) => {
                let late = holdfast_raft::NodeError::ApplyTimedOut;
                Err(within(late, call.client_deadline, self.budget))
            }
        }
    }

    /// Waits for this long, and up to as much again, so that those who wait for the same thing do not go on together.
    pub async fn pause(&self, least: Duration) {
        let most = u64::try_from(least.as_nanos()).unwrap_or(u64::MAX).max(1);
        let more = Duration::from_nanos(self.rng.next_u64() % most);
        self.clock.sleep(least + more).await;
    }

    #[tracing::instrument(name = "propose", level = "debug", skip_all)]
    async fn propose_for(&self, caller: Caller, command: Command, call: Call) -> Result<Answer, Failure> {
        if self.reaches_quota(&command) {
            return Err(Box::pin(self.refuse_for_quota(call)).await);
        }
        tracing::debug!(since_arrival = ?self.clock.now().since(call.began), "checked, to be proposed");
        let proposed = self.node.propose_for(caller, command, self.remaining(call)).await;
        match &proposed {
            Ok(answer) => {
                tracing::debug!(since_arrival = ?self.clock.now().since(call.began), log_id = %answer.log_id, "committed and visible here");
            }
            Err(error) => {
                tracing::debug!(since_arrival = ?self.clock.now().since(call.began), %error, "not committed as far as known");
            }
        }
        proposed.map_err(|error| within(error, call.client_deadline, self.budget))
    }

    /// True for what would reach the quota.
    fn reaches_quota(&self, command: &Command) -> bool {
        let Some(quota) = self.limits.quota_backend_bytes else { return false };
        let cost = quota::cost(command);
        cost > 0 && self.storage.logical_bytes().saturating_add(cost) >= quota
    }

    /// Raises the alarm, if it is not active, and gives what the client is told.
    async fn refuse_for_quota(&self, call: Call) -> Failure {
        let alarm = Alarm { member: self.identity.member_id, kind: AlarmKind::NoSpace };
        if !self.storage.alarms().contains(&alarm) {
            tracing::error!(
                bytes = self.storage.logical_bytes(),
                quota = self.limits.quota_backend_bytes,
                "the data has reached the quota: all that needs space is refused until a compaction (etcdctl compact, or \
                 --auto-compaction-retention) has taken enough history away, or --quota-backend-bytes is raised"
            );
            let raise =
                self.node.propose_for(Caller::Server, Command::RaiseAlarm(alarm), self.remaining(call));
            if let Err(error) = raise.await {
                tracing::warn!(%error, "the alarm NOSPACE could not be raised");
            }
        }
        Failure::Refused(Refusal::NoSpace)
    }

    /// Changes who takes part; gives the members after it.
    #[tracing::instrument(level = "debug", skip_all)]
    pub async fn change_members(&self, change: &MemberChange, call: Call) -> Result<Vec<Member>, Failure> {
        let changed = self.node.change_members(change, self.change_rules, self.remaining(call)).await;
        changed.map_err(|error| match error {
            ChangeError::Node(error) => within(error, call.client_deadline, self.budget),
            refusal => Failure::Change(refusal),
        })
    }

    /// Moves leadership to a voter.
    pub async fn transfer_leader(&self, to: MemberId, call: Call) -> Result<(), Failure> {
        Ok(self.node.transfer_leader(to, self.remaining(call)).await?)
    }

    /// An id that no member ever had.
    pub fn new_member_id(&self, peer_urls: &[String]) -> MemberId {
        let cluster_id = self.identity.cluster_id;
        identity::added_member_id(cluster_id, peer_urls, self.clock.wall(), self.rng.next_u64())
    }

    /// Gives leases all of their time again; see [`Node::keep_all_alive`].
    pub async fn keep_alive(&self, ids: &[LeaseId], call: Call) -> Result<Vec<Option<u64>>, Failure> {
        let kept = self.node.keep_all_alive(ids, self.remaining(call)).await;
        kept.map_err(|error| within(error, call.client_deadline, self.budget))
    }

    /// How much time a lease has left; see [`Node::lease_left`].
    pub async fn lease_left(&self, id: LeaseId, call: Call) -> Result<Option<LeaseLeft>, Failure> {
        let left = self.node.lease_left(id, self.remaining(call)).await;
        left.map_err(|error| within(error, call.client_deadline, self.budget))
    }

    /// Makes a local read that follows linearizable.
    #[tracing::instrument(level = "debug", skip_all)]
    pub async fn linearize(&self, call: Call) -> Result<Visible, Failure> {
        self.node.linearize(self.remaining(call)).await.map_err(|error| {
            self.metrics.read_indexes_failed.inc();
            within(error, call.client_deadline, self.budget)
        })
    }

    /// Makes a local read that follows as consistent as its client wants it.
    pub async fn make_consistent(&self, consistency: Consistency, call: Call) -> Result<(), Failure> {
        match consistency {
            Consistency::Linearizable => self.linearize(call).await.map(drop),
            Consistency::Serializable if *self.caught_up.borrow() => Ok(()),
            Consistency::Serializable => Box::pin(self.until_caught_up(call)).await,
        }
    }

    /// Waits until this member has applied what was committed when it started, at most the call's time: before, it may
    /// show its clients less than it has shown them in its life before.
    async fn until_caught_up(&self, call: Call) -> Result<(), Failure> {
        if *self.caught_up.borrow() {
            return Ok(());
        }
        let mut caught_up = self.caught_up.subscribe();
        tokio::select! {
            // Both arms only wait. The sender lives as long as we do.
            _ = caught_up.wait_for(|caught_up| *caught_up) => Ok(()),
            () = self.clock.sleep(self.remaining(call)) => {
                Err(within(holdfast_raft::NodeError::ApplyTimedOut, call.client_deadline, self.budget))
            }
        }
    }

    /// A leader has confirmed what was committed after this member started, and that is applied.
    pub fn note_caught_up(&self) {
        self.caught_up.send_replace(true);
    }

    /// Answers a read; the revision is the store's current one.
    pub async fn read(
        &self,
        range: Range,
        consistency: Consistency,
        call: Call,
    ) -> Result<(RangeResponse, Revision), Failure> {
        let reading = |storage: &Storage, range: &Range| storage.range(range).map(Some);
        let never = || oneshot::channel().1;
        Ok(match self.read_by(range, consistency, call, |_| (reading, never())).await? {
            Read::Hot(pairs, revision) | Read::Cold((pairs, revision)) => (pairs, revision),
        })
    }

    /// As [`Frontend::read`], by the way that `begin` gives for what is not one key whose value is in memory: that may send
    /// what it finds to the receiver beside it, when it knows which revision it reads.
    pub async fn read_by<T, R>(
        &self,
        range: Range,
        consistency: Consistency,
        call: Call,
        begin: impl FnOnce(&Range) -> (R, oneshot::Receiver<T>),
    ) -> Result<Read<T>, Failure>
    where
        T: Send + 'static,
        R: FnOnce(&Storage, &Range) -> Result<Option<T>, ReadError> + Send + 'static,
    {
        self.make_consistent(consistency, call).await?;
        self.metrics.ranges.inc();
        let read = async {
            if let Some(answer) = self.read_hot(&range) {
                let (found, revision) = answer?;
                return Ok(Read::Hot(found, revision));
            }
            let (reading, early) = begin(&range);
            let is_single = matches!(range.range.end, RangeEnd::Single);
            let kind = self.blocking_of(&range);
            let range = range.clone();
            let reading = move |storage: &Storage| reading(storage, &range);
            // Boxed, so that the future of a read that needs no disk stays small.
            let found = if is_single {
                Box::pin(self.read_one(call, reading)).await?
            } else {
                Box::pin(self.read_many(call, kind, reading, early)).await?
            };
            Ok(Read::Cold(found.ok_or(Failure::Stopped)?))
        };
        self.read_permitted(call, |granted| granted.read(&range.range), read).await
    }

    /// The answer about one key, when its value is in memory.
    fn read_hot(&self, range: &Range) -> Option<Result<(RangeResponse, Revision), ReadError>> {
        let is_single = matches!(range.range.end, RangeEnd::Single) && range.at == ReadAt::Latest;
        if is_single { self.storage.range_if_hot(range) } else { None }
    }

    /// Runs a short read that may wait for the disk, at most the call's time.
    async fn read_one<T: Send + 'static>(
        &self,
        call: Call,
        read: impl FnOnce(&Storage) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, Failure> {
        let storage = self.storage.clone();
        let found = self.cold_reads.begin(move || read(&storage));
        // The runtime drops such work only when it is shut down; a panic ends the process.
        Ok(self.within_budget(call, found).await?.map_err(|_| Failure::Stopped)??)
    }

    /// Runs a read that may wait for the disk, on a thread that may block, until it is done or has given something to `early`;
    /// then it goes on by itself.
    async fn read_many<T: Send + 'static>(
        &self,
        call: Call,
        kind: Blocking,
        read: impl FnOnce(&Storage) -> Result<Option<T>, ReadError> + Send + 'static,
        mut early: oneshot::Receiver<T>,
    ) -> Result<Option<T>, Failure> {
        let done = tokio::select! {
            biased;
            // What is sent is lost only with the call.
            Ok(found) = &mut early => return Ok(Some(found)),
            done = Box::pin(self.read_blocking(call, kind, read)) => done?,
        };
        // It may have come between the two.
        Ok(done.or_else(|| early.try_recv().ok()))
    }

    /// What kind of work a read is.
    pub fn blocking_of(&self, range: &Range) -> Blocking {
        if self.storage.is_long(range) { Blocking::Long } else { Blocking::Short }
    }

    /// Runs a read that may wait for the disk, on a thread that may block.
    pub async fn read_blocking<T: Send + 'static>(
        &self,
        call: Call,
        kind: Blocking,
        read: impl FnOnce(&Storage) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, Failure> {
        Ok(self.blocking(call, kind, read).await??)
    }

    /// Runs something that may wait for the disk, on a thread that may block. Once it runs it is not cancelled.
    pub async fn blocking<T: Send + 'static>(
        &self,
        call: Call,
        kind: Blocking,
        work: impl FnOnce(&Storage) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let permits = match kind {
            Blocking::Short => &self.short_reads,
            Blocking::Long => &self.long_reads,
        };
        let permit = Arc::clone(permits).acquire_owned();
        let permit = tokio::select! {
            // Both arms are cancel-safe: a permit is taken only on completion, a timer holds nothing.
            permit = permit => permit.map_err(|_| Failure::Stopped)?,
            () = self.clock.sleep(self.remaining(call)) => {
                let late = holdfast_raft::NodeError::ApplyTimedOut;
                return Err(within(late, call.client_deadline, self.budget));
            }
        };
        let storage = self.storage.clone();
        let work = tokio::task::spawn_blocking(move || {
            // Held until it is over, also when nobody waits for it any more.
            let _permit = permit;
            work(&storage)
        });
        // The runtime drops blocking work only when it is shut down; a panic ends the process.
        work.await.map_err(|_| Failure::Stopped)
    }

    /// Waits until the cluster knows this member's name and URLs, at most the call's time. Only a member that starts
    /// for the first time has to wait; clients that find it then expect to find it whole.
    pub async fn until_published(&self, call: Call) {
        let own = self.identity.member_id;
        if self.storage.members().iter().any(|attributes| attributes.id == own) {
            return;
        }
        let mut ready = self.ready.clone();
        tokio::select! {
            // Both only wait; what they end with makes no difference.
            _ = ready.wait_for(|ready| *ready) => {}
            () = self.clock.sleep(self.remaining(call)) => {}
        }
    }

    /// The header of an answer at `revision`.
    pub fn header(&self, revision: Revision) -> pb::ResponseHeader {
        pb::ResponseHeader {
            cluster_id: self.identity.cluster_id,
            member_id: self.identity.member_id.0,
            revision: signed(revision.get()),
            raft_term: self.node.term().get(),
        }
    }

    /// The header of an answer that tells nothing about the store: membership calls.
    pub fn header_without_revision(&self) -> pb::ResponseHeader {
        self.header(Revision::NONE)
    }

    /// The store's revision as readers here see it now.
    pub fn current_revision(&self) -> Revision {
        self.storage.visible().borrow().revision
    }

    /// Notes a finished request, and answers it.
    pub fn answer<T>(
        &self,
        kind: RequestKind,
        call: Call,
        result: Result<T, Failure>,
    ) -> Result<Response<T>, Status> {
        self.metrics.observe_request(kind, result.is_ok(), self.clock.now().since(call.began));
        Ok(Response::new(result?))
    }

    /// True once the member has applied what was committed when it started, and until it stops.
    pub fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// True when the stable store has failed for good.
    pub fn is_poisoned(&self) -> bool {
        self.storage.is_poisoned()
    }

    /// What a metrics page is made from.
    pub fn scrape(&self) -> Scrape {
        let log = self.log.state();
        Scrape {
            health: self.node.health(),
            storage: self.storage.status(),
            log: self.log.stats(),
            log_last: log.last,
            log_purged: log.purged,
            watch: self.watch_figures(),
            tls: self.tls.figures(),
            receiving_bytes: self.receiving.bytes(),
        }
    }

    /// The wall clock, by which signed tokens end.
    pub fn wall(&self) -> UnixMillis {
        self.clock.wall()
    }

    /// How the watchers of this member are doing.
    pub fn watch_figures(&self) -> WatchFigures {
        self.watches.figures()
    }

    fn remaining(&self, call: Call) -> Duration {
        call.budget.saturating_sub(self.clock.now().since(call.began))
    }
}

/// The time that is ours when a client waits for so long. It is a little shorter: at the client's own deadline the
/// transport on either side cuts the call off with words of its own, and the client would not learn ours.
fn answered_before(client_deadline: Duration) -> Duration {
    client_deadline - (client_deadline / 10).min(limits::DEADLINE_HEADROOM_MAX)
}

/// Reads gRPC's timeout header: at most 8 digits and a unit.
fn grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let number = digits.parse::<u64>().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 60 * 60)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_time_ends_a_little_before_the_clients() {
        let ms = Duration::from_millis;
        for (clients, ours) in [(0, 0), (10, 9), (100, 90), (200, 180), (5_000, 4_980)] {
            assert_eq!(answered_before(ms(clients)), ms(ours));
        }
    }

    #[test]
    fn a_timeout_header_is_read_as_grpc_writes_it() {
        assert_eq!(grpc_timeout("1S"), Some(Duration::from_secs(1)));
        assert_eq!(grpc_timeout("4999817u"), Some(Duration::from_micros(4_999_817)));
        assert_eq!(grpc_timeout("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for bad in ["", "S", "1", "1x", "123456789S", "-1S", "1é"] {
            assert_eq!(grpc_timeout(bad), None, "{bad}");
        }
    }
}
