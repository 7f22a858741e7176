//! Carries a change out: here when this member leads, otherwise through the leader.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use holdfast_env::LogId;
use holdfast_mvcc::types::MemberId;
use holdfast_proto::internal as pb;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{ChangeMembers, ServerState};
use pb::change_members_request::Change as WireChange;

use super::plan::{Plan, View};
use super::{ChangeError, ChangeRules, MemberChange, best_successor, members_of, transfer_to};
use crate::codec::rpc::{self, Body};
use crate::config::Member;
use crate::error::{NodeError, TimeoutCause};
use crate::limits::{RETRY_PAUSE, within};
use crate::peer::discover;
use crate::peer::link::LinkError;
use crate::peer::network::Peers;
use crate::shared::Shared;
use crate::types::{PeerNode, Raft, StoredMembership, from_raft};

/// What changes the membership. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Changes {
    pub(crate) shared: Arc<Shared>,
    pub(crate) raft: Raft,
    pub(crate) peers: Arc<Peers>,
    /// One change at a time on this member; openraft sees to it that there is one at a time in the cluster.
    pub(crate) turn: Arc<tokio::sync::Mutex<()>>,
}

/// A change that was carried out.
#[derive(Debug)]
pub(super) struct Changed {
    log_id: Option<LogId>,
    members: Vec<Member>,
}

/// What became of a try.
#[derive(Debug)]
pub(super) enum Outcome {
    Done(Changed),
    Refused(ChangeError),
    /// Certainly nothing happened; ask the leader of then.
    NotLeader,
    /// It may have happened, or may still happen.
    Unknown,
}

impl Changes {
    /// Carries a change out, through whoever leads, and waits until it is committed and known here. Gives the members
    /// after it. Tries again until the budget is used up: a change that was carried out twice is the same as once.
    pub(crate) async fn run(
        &self,
        change: &MemberChange,
        rules: ChangeRules,
        budget: Duration,
    ) -> Result<Vec<Member>, ChangeError> {
        let clock = &*self.shared.env.clock;
        let began = clock.now();
        let mut again = false;
        loop {
            let left = budget.saturating_sub(clock.now().since(began));
            if left.is_zero() {
                return Err(ChangeError::Node(if again {
                    NodeError::TimedOut(TimeoutCause::Plain)
                } else {
                    NodeError::NoLeader
                }));
            }
            match self.attempt(change, rules, left, again).await {
                Outcome::Done(changed) => {
                    let left = budget.saturating_sub(clock.now().since(began));
                    self.until_known(changed.log_id, left).await;
                    return Ok(changed.members);
                }
                Outcome::Refused(refusal) => return Err(refusal),
                Outcome::NotLeader => {}
                Outcome::Unknown => again = true,
            }
            if self.shared.stop.is_cancelled() {
                return Err(ChangeError::Node(NodeError::Stopped));
            }
            clock.sleep(RETRY_PAUSE).await;
        }
    }

    async fn attempt(
        &self,
        change: &MemberChange,
        rules: ChangeRules,
        left: Duration,
        again: bool,
    ) -> Outcome {
        let leader = self.raft.server_metrics().borrow_watched().current_leader;
        match leader {
            Some(leader) if leader == self.shared.config.id.0 => {
                self.carry_out(change, rules, left, again).await
            }
            Some(leader) => self.ask(leader, change, rules, left, again).await,
            None => Outcome::NotLeader,
        }
    }

    /// Waits until this member has the entry, too, so that whoever asks it next sees the change. It may never come: a
    /// removed member gets nothing any more.
    async fn until_known(&self, log_id: Option<LogId>, left: Duration) {
        let mut visible = self.shared.visible.clone();
        let known = visible.wait_for(|visible| visible.log_id >= log_id);
        let limit = left.min(self.shared.config.election_timeout);
        // Either way the change is committed.
        drop(within(&*self.shared.env.clock, limit, known).await);
    }

    async fn ask(
        &self,
        leader: u64,
        change: &MemberChange,
        rules: ChangeRules,
        left: Duration,
        again: bool,
    ) -> Outcome {
        let Some(link) = self.peers.get(leader) else { return Outcome::NotLeader };
        let request = pb::ChangeMembersRequest {
            change: Some(change_to_proto(change)),
            strict: rules.strict,
            learners_max: rules.learners_max,
            budget_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            again,
        };
        match link.request(Body::ChangeMembersRequest(request), left).await {
            Ok(Body::ChangeMembersResponse(response)) => outcome_from_proto(response),
            Err(LinkError::Down) => Outcome::NotLeader,
            Ok(_) | Err(LinkError::Broken | LinkError::TimedOut) => Outcome::Unknown,
        }
    }

    /// Answers a peer that takes us for the leader.
    pub(crate) async fn serve(&self, request: pb::ChangeMembersRequest) -> pb::ChangeMembersResponse {
        let rules = ChangeRules { strict: request.strict, learners_max: request.learners_max };
        let budget = Duration::from_millis(request.budget_ms);
        let outcome = match request.change.map(change_from_proto) {
            Some(change) => self.carry_out(&change, rules, budget, request.again).await,
            None => Outcome::Refused(ChangeError::NotFound),
        };
        outcome_to_proto(outcome)
    }

    /// Who the members are, for someone who does not belong to the cluster yet.
    pub(crate) fn members_response(&self) -> pb::MembersResponse {
        let members = members_of(self.membership().membership()).into_iter().map(|member| {
            let had_log = self.peers.roster().had_log(member.id.0);
            discover::to_proto(member, had_log)
        });
        pb::MembersResponse { cluster_id: self.shared.config.cluster_id, members: members.collect() }
    }

    fn membership(&self) -> Arc<StoredMembership> {
        Arc::clone(&self.raft.server_metrics().borrow_watched().membership_config)
    }

    async fn carry_out(
        &self,
        change: &MemberChange,
        rules: ChangeRules,
        budget: Duration,
        again: bool,
    ) -> Outcome {
        let work = async {
            let _turn = self.turn.lock().await;
            loop {
                if let Some(outcome) = self.step(change, rules, again).await {
                    return outcome;
                }
                self.shared.env.clock.sleep(RETRY_PAUSE).await;
            }
        };
        // Given up between its two steps, a change is finished by the keeper.
        within(&*self.shared.env.clock, budget, work).await.unwrap_or(Outcome::Unknown)
    }

    /// One try; `None` when something else has to be finished first.
    async fn step(&self, change: &MemberChange, rules: ChangeRules, again: bool) -> Option<Outcome> {
        if self.raft.server_metrics().borrow_watched().state != ServerState::Leader {
            return Some(Outcome::NotLeader);
        }
        let stored = self.membership();
        if stored.membership().get_joint_config().len() > 1 {
            self.finish_joint().await;
            return None;
        }
        let plan = match self.view(&stored, |view| view.plan(change, rules, again)) {
            Ok(plan) => plan,
            Err(refusal) => return Some(Outcome::Refused(refusal)),
        };
        let change_members = match plan {
            Plan::Done => return Some(Outcome::Done(self.changed(None))),
            Plan::Change(change_members) => change_members,
        };
        if *change == MemberChange::Remove(self.shared.config.id)
            && let Some(successor) = best_successor(&self.shared, &self.raft, &self.peers)
        {
            // Another one leads the removal, and this member hears of it as any other.
            let limit = self.shared.config.election_timeout;
            transfer_to(&self.shared, &self.raft, successor, limit).await;
            return Some(Outcome::NotLeader);
        }
        self.propose(change_members).await
    }

    /// Makes a joint membership uniform: an empty change goes on to where the joint one leads.
    pub(super) async fn finish_joint(&self) {
        let nothing = ChangeMembers::AddVoterIds(BTreeSet::new());
        if let Some(outcome) = self.propose(nothing).await {
            tracing::info!(?outcome, "finished a change of members that was left half done");
        }
    }

    /// Commits a change; `None` when another one is still on its way.
    pub(super) async fn propose(&self, change: ChangeMembers<u64, PeerNode>) -> Option<Outcome> {
        let written = self.raft.change_membership(change, false).await;
        Some(match written {
            Ok(response) => {
                let log_id = Some(from_raft(&response.log_id));
                // What openraft shows to all may be from before the change for a moment longer.
                let members = match &response.membership {
                    Some(membership) => members_of(membership),
                    None => self.changed(log_id).members,
                };
                Outcome::Done(Changed { log_id, members })
            }
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => Outcome::NotLeader,
            Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(error))) => match error {
                ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_) => {
                    return None;
                }
                ChangeMembershipError::LearnerNotFound(_) => Outcome::Refused(ChangeError::NotFound),
                ChangeMembershipError::EmptyMembership(_) => Outcome::Refused(ChangeError::NotEnoughStarted),
                ChangeMembershipError::UnsupportedMembershipTransition(_)
                | ChangeMembershipError::NodeMetadataChanged(_) => return None,
            },
            Err(RaftError::APIError(
                ClientWriteError::LogEntryDiscarded(_) | ClientWriteError::PreconditionFailed(_),
            )) => Outcome::Unknown,
            Err(RaftError::Fatal(_)) => Outcome::Refused(ChangeError::Node(NodeError::Stopped)),
        })
    }

    fn changed(&self, log_id: Option<LogId>) -> Changed {
        Changed { log_id, members: members_of(self.membership().membership()) }
    }

    /// What the leader knows now.
    fn view<T>(&self, stored: &StoredMembership, decide: impl FnOnce(View<'_>) -> T) -> T {
        let here = self.shared.config.id.0;
        let metrics = self.raft.metrics().borrow_watched().clone();
        let mut matching: std::collections::BTreeMap<u64, u64> = metrics
            .replication
            .unwrap_or_default()
            .into_iter()
            .filter_map(|(id, matching)| Some((id, matching?.index)))
            .collect();
        matching.insert(here, metrics.last_log_index.unwrap_or(0));
        let ids = || stored.membership().nodes().map(|(id, _)| *id);
        let is_connected =
            |id: &u64| *id == here || self.peers.get(*id).is_some_and(|link| link.is_connected());
        let published = self.shared.storage.members();
        decide(View {
            membership: stored.membership(),
            removed: &|id| self.peers.roster().is_removed(id),
            started: published
                .iter()
                .filter(|known| !known.name.is_empty())
                .map(|known| known.id.0)
                .collect(),
            connected: ids().filter(is_connected).collect(),
            matching,
            here,
        })
    }
}

fn change_to_proto(change: &MemberChange) -> WireChange {
    match change.clone() {
        MemberChange::Add(Member { id, peer_urls, is_learner }) => {
            WireChange::Add(pb::AddMember { id: id.0, peer_urls, is_learner })
        }
        MemberChange::Remove(id) => WireChange::Remove(id.0),
        MemberChange::Promote(id) => WireChange::Promote(id.0),
        MemberChange::Move { id, peer_urls } => WireChange::Update(pb::UpdateMember { id: id.0, peer_urls }),
    }
}

fn change_from_proto(change: WireChange) -> MemberChange {
    match change {
        WireChange::Add(pb::AddMember { id, peer_urls, is_learner }) => {
            MemberChange::Add(Member { id: MemberId(id), peer_urls, is_learner })
        }
        WireChange::Remove(id) => MemberChange::Remove(MemberId(id)),
        WireChange::Promote(id) => MemberChange::Promote(MemberId(id)),
        WireChange::Update(pb::UpdateMember { id, peer_urls }) => {
            MemberChange::Move { id: MemberId(id), peer_urls }
        }
    }
}

fn outcome_to_proto(outcome: Outcome) -> pb::ChangeMembersResponse {
    use pb::ChangeRefusal as To;
    let refusal = match outcome {
        Outcome::Done(Changed { log_id, members }) => {
            let members = members.into_iter().map(|member| discover::to_proto(member, false)).collect();
            let log_id = log_id.map(rpc::log_id);
            return pb::ChangeMembersResponse { refusal: To::None.into(), log_id, members };
        }
        Outcome::NotLeader => To::NotLeader,
        Outcome::Unknown | Outcome::Refused(ChangeError::Node(_)) => To::Unknown,
        Outcome::Refused(ChangeError::NotFound) => To::NotFound,
        Outcome::Refused(ChangeError::IdTaken) => To::IdTaken,
        Outcome::Refused(ChangeError::UrlsTaken) => To::UrlsTaken,
        Outcome::Refused(ChangeError::TooManyLearners) => To::TooManyLearners,
        Outcome::Refused(ChangeError::NotLearner) => To::NotLearner,
        Outcome::Refused(ChangeError::NotReady) => To::NotReady,
        Outcome::Refused(ChangeError::NotEnoughStarted) => To::NotEnoughStarted,
        Outcome::Refused(ChangeError::Unhealthy) => To::Unhealthy,
    };
    pb::ChangeMembersResponse { refusal: refusal.into(), ..Default::default() }
}

fn outcome_from_proto(response: pb::ChangeMembersResponse) -> Outcome {
    use pb::ChangeRefusal as From;
    Outcome::Refused(match response.refusal() {
        From::None => {
            let members = response.members.into_iter().map(|known| discover::from_proto(known).member);
            let log_id = response.log_id.map(rpc::log_id_from);
            return Outcome::Done(Changed { log_id, members: members.collect() });
        }
        From::NotLeader => return Outcome::NotLeader,
        From::Unknown => return Outcome::Unknown,
        From::NotFound => ChangeError::NotFound,
        From::IdTaken => ChangeError::IdTaken,
        From::UrlsTaken => ChangeError::UrlsTaken,
        From::TooManyLearners => ChangeError::TooManyLearners,
        From::NotLearner => ChangeError::NotLearner,
        From::NotReady => ChangeError::NotReady,
        From::NotEnoughStarted => ChangeError::NotEnoughStarted,
        From::Unhealthy => ChangeError::Unhealthy,
    })
}
