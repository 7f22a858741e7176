//! A running member: proposals, linearizable reads, health, and the tasks behind them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use holdfast_env::{BoxFuture, Env, Incoming, LogId, LogIndex, TaskHandle, Term};
use holdfast_log::Log;
use holdfast_mvcc::auth::Caller;
use holdfast_mvcc::command::Command;
use holdfast_mvcc::types::{LeaseId, MemberId};
use holdfast_mvcc::validate::{TXN_DEPTH_MAX, is_too_deep};
use holdfast_storage::{Answer, Storage, StorageError, Visible};
use openraft::async_runtime::watch::WatchReceiver;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::codec::{self, Proposal};
use crate::config::{Member, NodeConfig, openraft_config};
use crate::digest::{self, Comparison};
use crate::dump;
use crate::error::{NodeError, StartError, TimeoutCause};
use crate::health::{self, Health};
use crate::lease::{AskLoop, Asker, Asks, LeaseLeft, Leases, Lessor, Question};
use crate::limits::within;
use crate::log_store::LogStore;
use crate::lost_leader;
use crate::membership::{self, ChangeError, ChangeRules, Changes, MemberChange, TransferError};
use crate::pace::Pace;
use crate::peer::hello::Identity;
use crate::peer::network::{NetworkFactory, Peers};
use crate::peer::roster::{Departure, Roster};
use crate::peer::server::PeerServer;
use crate::proposals::{Leftover, Proposals, Stage};
use crate::proposer::Proposer;
use crate::reads::{ReadLoop, Reads};
use crate::shared::{Counters, Shared};
use crate::state_machine::StateMachine;
use crate::types::{PeerNode, Raft, from_raft};

/// A running member. Cheap to clone.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    raft: Raft,
    peers: Arc<Peers>,
    reads: Arc<Reads>,
    leases: Arc<Leases>,
    asks: Arc<Asks>,
    changes: Changes,
    /// Taken by the first shutdown.
    tasks: Mutex<Vec<TaskHandle>>,
}

impl Node {
    /// Starts consensus over an open log and an open storage. On a fresh log it forms the initial cluster.
    pub async fn start(
        env: &Env,
        config: NodeConfig,
        log: Log,
        storage: Storage,
    ) -> Result<Self, StartError> {
        check_gap(&log, &storage)?;
        cover_what_is_gone(&log, &storage).await?;
        let raft_config = Arc::new(openraft_config(&config)?);
        let mut incoming = Vec::new();
        for url in &config.listen_peer_urls {
            incoming.push(env.net.listen(url).await?);
        }
        let roster = Arc::new(Roster::new(Some((log.clone(), storage.clone()))));
        let shared = Arc::new(Shared {
            env: env.clone(),
            roster: Arc::clone(&roster),
            proposals: Arc::new(Proposals::new(env.rng.next_u64(), config.proposal_bytes_max)),
            visible: storage.visible(),
            log_size: Mutex::new(dump::size_at_start(&storage, &log)),
            dump_hint: Notify::new(),
            demanded: Mutex::new(None),
            pace: Pace::default(),
            stop: CancellationToken::new(),
            counters: Counters::default(),
            leadership: Mutex::default(),
            vote_given: Mutex::default(),
            log,
            storage,
            config,
        });
        let config = &shared.config;
        let identity = Identity { cluster_id: config.cluster_id, member: config.id.0 };
        let peers = Arc::new(Peers::new(env.clone(), identity, roster, shared.stop.clone()));
        let network = NetworkFactory { peers: Arc::clone(&peers), append_timeout: config.election_timeout };
        let log_store = LogStore::new(Arc::clone(&shared));
        let state_machine = StateMachine::new(Arc::clone(&shared))
            .map_err(|error| StartError::Raft(format!("the stored membership: {error}")))?;
        let raft = Raft::new(config.id.0, raft_config, network, log_store, state_machine)
            .await
            .map_err(|error| StartError::Raft(error.to_string()))?;
        let reads = Arc::new(Reads::default());
        let changes = Changes {
            shared: Arc::clone(&shared),
            raft: raft.clone(),
            peers: Arc::clone(&peers),
            turn: Arc::default(),
        };
        let leases = Arc::new(Leases::default());
        let asks = Arc::new(Asks::default());
        let tasks = Mutex::new(Vec::new());
        let inner = Inner { shared, raft, peers, reads, leases, asks, changes, tasks };
        inner.start_tasks(incoming);
        inner.form_cluster().await?;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// As [`Node::propose_for`], for the members themselves.
    pub async fn propose(&self, command: Command, budget: Duration) -> Result<Answer, NodeError> {
        self.propose_for(Caller::Server, command, budget).await
    }

    /// Proposes a command on any member and waits until its effects are visible here, at most `budget`. Whether the
    /// caller may have it carried out is judged when it is evaluated.
    #[tracing::instrument(level = "debug", skip_all)]
    pub async fn propose_for(
        &self,
        caller: Caller,
        command: Command,
        budget: Duration,
    ) -> Result<Answer, NodeError> {
        let shared = &self.inner.shared;
        // Such an entry would be committed unread, and then stop every member that applies it, at each start again.
        if is_too_deep(&command) {
            return Err(NodeError::TooDeep { depth_max: TXN_DEPTH_MAX });
        }
        if shared.storage.is_poisoned() {
            // Nothing is applied here, so nothing could be answered: another member can do it.
            return Err(NodeError::NoLeader);
        }
        if shared.is_overloaded() {
            return Err(NodeError::TooManyRequests);
        }
        let changes_before = shared.leader_changes();
        let bytes_max = shared.config.request_bytes_max;
        let (ticket, answered) = shared.proposals.submit(|sequence| {
            let origin = shared.config.id.0;
            let payload = codec::encode_proposal(Proposal { origin, sequence, command, caller });
            let bytes = payload.len();
            if bytes > bytes_max { Err(NodeError::TooLarge { bytes, bytes_max }) } else { Ok(payload) }
        })?;
        if let Some(Ok(answer)) = within(&*shared.env.clock, budget, answered).await {
            return Ok(answer);
        }
        shared.counters.proposals_failed.fetch_add(1, Ordering::Relaxed);
        let leader_changed = shared.leader_changes() != changes_before;
        let leader_known = self.inner.leader().is_some();
        Err(match ticket.give_up() {
            Leftover { verdict: Some(verdict), .. } => verdict,
            Leftover { stage: Stage::Queued, .. } if leader_known && leader_changed => {
                NodeError::LeaderChanged
            }
            // Also when we lead and cannot reach a quorum any more.
            Leftover { stage: Stage::Queued, .. } => NodeError::NoLeader,
            Leftover { stage: Stage::Sent, .. } if leader_changed => {
                NodeError::TimedOut(TimeoutCause::LeaderFailure)
            }
            Leftover { stage: Stage::Sent, .. } if !leader_known => {
                NodeError::TimedOut(TimeoutCause::ConnectionLost)
            }
            Leftover { stage: Stage::Sent, .. } => NodeError::TimedOut(TimeoutCause::Plain),
        })
    }

    /// Confirms with a quorum, in a round that starts after this call, and waits until the local state contains all
    /// that was committed before: a local read behind it is linearizable. Works on any member.
    #[tracing::instrument(level = "debug", skip_all)]
    pub async fn linearize(&self, budget: Duration) -> Result<Visible, NodeError> {
        let shared = &self.inner.shared;
        if shared.stop.is_cancelled() {
            return Err(NodeError::Stopped);
        }
        let changes_before = shared.leader_changes();
        let waiting = self.inner.reads.join();
        let ended = tokio::select! {
            biased;
            answer = within(&*shared.env.clock, budget, waiting) => answer,
            () = shared.stop.cancelled() => return Err(NodeError::Stopped),
        };
        match ended {
            Some(Ok(visible)) => Ok(visible),
            Some(Err(_)) => Err(NodeError::Stopped),
            None if self.inner.leader().is_none() => Err(NodeError::NoLeader),
            None if shared.leader_changes() != changes_before => Err(NodeError::LeaderChanged),
            None if shared.apply_lag() > 0 => Err(NodeError::ApplyTimedOut),
            None => Err(NodeError::TimedOut(TimeoutCause::Plain)),
        }
    }

    /// Gives a lease all of its time again, on any member: how many seconds that is; `None` when there is no such lease.
    /// Answered once a quorum has confirmed the leader in a round that starts after this call. A lease whose time is over is
    /// waited for until it is gone. On an error it may have been done.
    #[tracing::instrument(level = "debug", skip_all)]
    pub async fn keep_alive(&self, id: LeaseId, budget: Duration) -> Result<Option<u64>, NodeError> {
        let kept = self.keep_all_alive(&[id], budget).await?;
        Ok(kept.first().copied().flatten())
    }

    /// As [`Node::keep_alive`] for each of some leases, in their order, with one question to the leader.
    #[tracing::instrument(level = "debug", skip_all)]
    pub async fn keep_all_alive(
        &self,
        ids: &[LeaseId],
        budget: Duration,
    ) -> Result<Vec<Option<u64>>, NodeError> {
        let questions: Vec<Question> = ids.iter().map(|id| Question::Renew(*id)).collect();
        let left = self.ask(&questions, budget).await?;
        Ok(left.into_iter().map(|left| left.map(|left| left.granted_seconds)).collect())
    }

    /// How much time a lease has left, confirmed as in [`Node::keep_alive`]; `None` when there is no such lease. The local
    /// state has its keys.
    #[tracing::instrument(level = "debug", skip_all)]
    pub async fn lease_left(&self, id: LeaseId, budget: Duration) -> Result<Option<LeaseLeft>, NodeError> {
        let left = self.ask(&[Question::Left(id)], budget).await?;
        Ok(left.into_iter().next().flatten())
    }

    async fn ask(
        &self,
        questions: &[Question],
        budget: Duration,
    ) -> Result<Vec<Option<LeaseLeft>>, NodeError> {
        let Inner { shared, raft, asks, reads, .. } = &*self.inner;
        let asker = Asker { shared, reads, asks, metrics: raft.server_metrics() };
        // Boxed, so that the futures of those who call it stay small.
        let asking: BoxFuture<'_, _> = Box::pin(asker.ask(questions, budget));
        asking.await
    }

    /// What this member knows now.
    pub fn health(&self) -> Health {
        let Inner { shared, raft, .. } = &*self.inner;
        let leader = self.inner.leader();
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        Health {
            term: Term::new(metrics.current_term),
            leader,
            is_leader: leader == Some(shared.config.id),
            // openraft also calls a member a learner that knows no membership yet, as each does when it starts.
            is_learner: membership::is_learner_in(metrics.membership_config.membership(), shared.config.id),
            votes: {
                // Within a change, the voters before it and those behind it.
                let configs = metrics.committed_membership_config.membership().get_joint_config();
                !configs.is_empty() && configs.iter().all(|voters| voters.contains(&shared.config.id.0))
            },
            last_log: metrics.last_log_index.map(LogIndex::new),
            committed: metrics.local_committed.as_ref().map(from_raft),
            leader_changes: shared.leader_changes(),
            proposals_pending: shared.proposals.pending() as u64,
            proposals_failed: shared.counters.proposals_failed.load(Ordering::Relaxed),
            proposals_committed: shared.counters.proposals_committed.load(Ordering::Relaxed),
            writes_paced: shared.pace.waited(),
            leases_expired: self.inner.leases.expired.load(Ordering::Relaxed),
            leases_renewed: self.inner.leases.renewed.load(Ordering::Relaxed),
        }
    }

    /// The current term.
    pub fn term(&self) -> Term {
        Term::new(self.inner.raft.metrics().borrow_watched().current_term)
    }

    /// True when this member does not vote and is not to.
    pub fn is_learner(&self) -> bool {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        membership::is_learner_in(metrics.membership_config.membership(), self.inner.shared.config.id)
    }

    /// The members in the newest membership known here, ascending by id.
    pub fn members(&self) -> Vec<Member> {
        let metrics = self.inner.raft.server_metrics();
        let stored = Arc::clone(&metrics.borrow_watched().membership_config);
        membership::members_of(stored.membership())
    }

    /// The ids of those who were members and are not any more, as of the applied state, ascending.
    pub fn removed_members(&self) -> Vec<MemberId> {
        self.inner.shared.roster.removed().into_iter().map(MemberId).collect()
    }

    /// Changes who takes part, on any member, and waits until the change is committed; gives the members after it,
    /// ascending by id. At most `budget`; a [`ChangeError::Node`] says whether it may have happened.
    #[tracing::instrument(level = "debug", skip_all)]
    pub async fn change_members(
        &self,
        change: &MemberChange,
        rules: ChangeRules,
        budget: Duration,
    ) -> Result<Vec<Member>, ChangeError> {
        // Boxed, so that the futures of those who call it stay small.
        let run: BoxFuture<'_, _> = Box::pin(self.inner.changes.run(change, rules, budget));
        run.await
    }

    /// Moves leadership from this member to the voter `to`, within `budget`.
    pub async fn transfer_leader(&self, to: MemberId, budget: Duration) -> Result<(), TransferError> {
        let Inner { shared, raft, .. } = &*self.inner;
        let stored = Arc::clone(&raft.server_metrics().borrow_watched().membership_config);
        if self.inner.leader() != Some(shared.config.id) {
            return Err(TransferError::NotLeader);
        }
        if to == shared.config.id {
            return Ok(());
        }
        if !stored.membership().voter_ids().any(|voter| voter == to.0) {
            return Err(TransferError::NoSuchVoter);
        }
        // Half to catch up, half to be elected.
        let moved = membership::transfer_to(shared, raft, to.0, budget / 2).await;
        let leader = raft.server_metrics().borrow_watched().current_leader;
        if moved && leader == Some(to.0) { Ok(()) } else { Err(TransferError::TimedOut) }
    }

    /// Compares the data of all members at one revision, if this member leads; `None` when it does not. Every member
    /// reads all of its data for it, on a thread of its own; each may take up to `limit`.
    pub async fn compare_digests(&self, limit: Duration) -> Result<Option<Comparison>, NodeError> {
        let Inner { shared, peers, .. } = &*self.inner;
        if self.inner.leader() != Some(shared.config.id) {
            return Ok(None);
        }
        let others = self.members().into_iter().map(|member| member.id.0);
        let others = others.filter(|id| *id != shared.config.id.0).collect();
        match digest::compare(shared, peers, others, limit).await {
            Ok(comparison) => Ok(Some(comparison)),
            Err(reason) => {
                tracing::warn!(reason, "the members cannot be compared now");
                Err(NodeError::ApplyTimedOut)
            }
        }
    }

    /// Turns to why this member has no place in the cluster any more, once it learns of that: it should stop then.
    pub fn departed(&self) -> watch::Receiver<Option<Departure>> {
        self.inner.shared.roster.departed()
    }

    /// Begins a dump now, also when one has just failed; returns when it is on its way. A running one is joined when
    /// nothing was applied since it began; else one more follows it.
    ///
    /// # Errors
    /// Why none was begun: no room for one, a failed stable store, the end of this member.
    pub async fn trigger_dump(&self) -> Result<(), StorageError> {
        self.inner.shared.demand_dump().await
    }

    /// Stops taking part: hands over leadership if it can, then ends all tasks. Waiting proposals end as
    /// [`NodeError::Stopped`]. The log and the storage stay open.
    pub async fn shutdown(&self) {
        if !self.inner.shared.stop.is_cancelled() {
            self.inner.hand_over().await;
        }
        self.abandon().await;
    }

    /// Stops taking part at once, without handing anything over, as a crash does. Ends all tasks.
    pub async fn abandon(&self) {
        let Inner { shared, raft, peers, tasks, .. } = &*self.inner;
        let tasks = std::mem::take(&mut *tasks.lock());
        shared.proposals.close();
        shared.stop.cancel();
        if let Err(error) = raft.shutdown().await {
            tracing::error!(%error, "consensus did not end in order");
        }
        for task in tasks {
            task.join().await;
        }
        peers.join().await;
        shared.roster.close();
    }
}

/// Refuses a log that begins behind what the state contains: openraft notices it only when it knows of something to
/// apply, and a state with a hole would be served.
fn check_gap(log: &Log, storage: &Storage) -> Result<(), StartError> {
    let Some(purged) = log.state().purged else { return Ok(()) };
    let snapshot = storage.current_snapshot().and_then(|snapshot| snapshot.applied.log_id);
    let applied = storage.applied().log_id.max(snapshot);
    if applied.is_some_and(|applied| applied.index() >= purged.index()) {
        Ok(())
    } else {
        Err(StartError::Gap { applied, purged })
    }
}

/// Makes sure that a snapshot covers what is gone from the log, or is about to go: with a hole between them, no follower
/// that needs a snapshot could be helped, and nothing could be rebuilt here.
///
/// That happens in two ways. A member applies what a majority has made durable, also while its own log has not come so
/// far: killed then, its state is ahead of its log, and openraft's first step is to let that log go up to the state. Or
/// the newest snapshot was found damaged, and an older one is still there.
async fn cover_what_is_gone(log: &Log, storage: &Storage) -> Result<(), StartError> {
    let (applied, held) = (storage.applied().log_id, log.state());
    let is_ahead = applied.map(LogId::index) > held.last.map(LogId::index);
    let gone = if is_ahead { applied } else { held.purged };
    let snapshot = storage.current_snapshot().and_then(|snapshot| snapshot.applied.log_id);
    if gone.map(LogId::index) <= snapshot.map(LogId::index) {
        return Ok(());
    }
    tracing::warn!(?gone, ?snapshot, "no snapshot covers what the log does not hold: one is taken first");
    let failed = |error| StartError::Raft(format!("a snapshot of what the log does not hold: {error}"));
    storage.start_dump().await.map_err(failed)?.await.map_err(failed)?;
    Ok(())
}

impl Inner {
    fn leader(&self) -> Option<MemberId> {
        health::live_leader(&self.shared, &self.raft.metrics().borrow_watched()).map(MemberId)
    }

    fn start_tasks(&self, incoming: Vec<mpsc::Receiver<Incoming>>) {
        let Self { shared, raft, peers, reads, leases, asks, changes, .. } = self;
        let spawn = &shared.env.spawn;
        let proposer = Proposer {
            shared: Arc::clone(shared),
            raft: raft.clone(),
            peers: Arc::clone(peers),
            metrics: raft.server_metrics(),
        };
        let read_loop = ReadLoop {
            shared: Arc::clone(shared),
            raft: raft.clone(),
            peers: Arc::clone(peers),
            reads: Arc::clone(reads),
            metrics: raft.server_metrics(),
            confirmed: BTreeMap::new(),
        };
        let lessor = Lessor {
            shared: Arc::clone(shared),
            raft: raft.clone(),
            leases: Arc::clone(leases),
            metrics: raft.server_metrics(),
        };
        let ask_loop = AskLoop {
            shared: Arc::clone(shared),
            peers: Arc::clone(peers),
            reads: Arc::clone(reads),
            leases: Arc::clone(leases),
            asks: Arc::clone(asks),
            metrics: raft.server_metrics(),
        };
        let watcher =
            health::Watcher { shared: Arc::clone(shared), raft: raft.clone(), peers: Arc::clone(peers) };
        let failed = membership::unfit::run(Arc::clone(shared), raft.clone(), Arc::clone(peers));
        let mut tasks = vec![
            spawn.task("proposer", Box::pin(proposer.run())),
            spawn.task("reads", Box::pin(read_loop.run())),
            spawn.task("lessor", Box::pin(lessor.run())),
            spawn.task("leases", Box::pin(ask_loop.run())),
            spawn.task("dumps", Box::pin(dump::run(Arc::clone(shared), raft.clone()))),
            spawn.task("raft-watcher", Box::pin(watcher.run())),
            spawn.task("members", Box::pin(membership::keeper::run(changes.clone()))),
            spawn.task("failed", Box::pin(failed)),
            spawn.task(
                "lost-leader",
                Box::pin(lost_leader::run(Arc::clone(shared), raft.clone(), Arc::clone(peers))),
            ),
        ];
        let server = PeerServer {
            shared: Arc::clone(shared),
            identity: peers.identity(),
            peers: Arc::clone(peers),
            raft: raft.clone(),
            reads: Arc::clone(reads),
            leases: Arc::clone(leases),
            changes: changes.clone(),
            receiving: Arc::default(),
        };
        tasks.extend(shared.config.listen_peer_urls.iter().zip(incoming).map(|(url, incoming)| {
            spawn.task("peer-server", Box::pin(server.clone().run(url.clone(), incoming)))
        }));
        self.tasks.lock().extend(tasks);
    }

    /// On a fresh log, writes the initial membership as the first entry. Every initial member does the same with the
    /// same list, so that the entry is the same everywhere, whoever is elected first.
    async fn form_cluster(&self) -> Result<(), StartError> {
        let failed = |error: String| StartError::Raft(format!("forming the cluster: {error}"));
        if self.raft.is_initialized().await.map_err(|error| failed(error.to_string()))? {
            return Ok(());
        }
        let config = &self.shared.config;
        let voters: BTreeMap<u64, PeerNode> = config
            .initial_members
            .iter()
            .filter(|member| !member.is_learner)
            .map(|member| {
                (member.id.0, PeerNode { peer_urls: member.peer_urls.clone().into(), votes_later: false })
            })
            .collect();
        for (&peer, node) in voters.iter().filter(|(peer, _)| **peer != config.id.0) {
            self.peers.link(peer, node);
        }
        if !voters.contains_key(&config.id.0) {
            tracing::info!("not among the initial voters; waiting to be added by the leader");
            return Ok(());
        }
        match self.raft.initialize(voters).await {
            Ok(()) => Ok(()),
            // A leader was faster and has written to our log meanwhile.
            Err(openraft::errors::RaftError::APIError(openraft::errors::InitializeError::NotAllowed(_))) => {
                Ok(())
            }
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// Gives leadership to the voter with the longest log, so that clients do not wait for an election.
    async fn hand_over(&self) {
        let Self { shared, raft, peers, .. } = self;
        if let Some(to) = membership::best_successor(shared, raft, peers) {
            membership::transfer_to(shared, raft, to, shared.config.election_timeout).await;
        }
    }
}
