//! openraft's network on links: appends pipelined over the long-lived connection, votes beside them, snapshots on a
//! connection of their own.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{Fuse, FusedStream};
use futures::{Stream, StreamExt};
use holdfast_env::{Env, TaskHandle};
use holdfast_proto::internal as pb;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{Backoff, RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::storage::Snapshot;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::hello::Identity;
use super::link::{Link, LinkError, Pending};
use super::roster::Roster;
use super::snapshot;
use crate::codec::rpc::{self, AppendResult, Body};
use crate::limits::{APPENDS_IN_FLIGHT, FAREWELL_LIMIT, SENT_MAX, within};
use crate::state_machine::SnapshotData;
use crate::types::{PeerNode, RaftVote, TypeConfig};

type RpcError = RPCError<TypeConfig>;

/// The links to all peers, each with its task.
pub(crate) struct Peers {
    env: Env,
    identity: Identity,
    roster: Arc<Roster>,
    stop: CancellationToken,
    links: Mutex<BTreeMap<u64, Linked>>,
    tasks: Mutex<Vec<TaskHandle>>,
}

/// A link, and what ends it alone.
struct Linked {
    link: Link,
    stop: CancellationToken,
}

impl Peers {
    pub(crate) fn new(env: Env, identity: Identity, roster: Arc<Roster>, stop: CancellationToken) -> Self {
        let (links, tasks) = (Mutex::default(), Mutex::default());
        Self { env, identity, roster, stop, links, tasks }
    }

    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    pub(crate) fn roster(&self) -> &Roster {
        &self.roster
    }

    /// The link to `peer`, started if it is new.
    pub(crate) fn link(&self, peer: u64, node: &PeerNode) -> Link {
        let mut links = self.links.lock();
        if let Some(linked) = links.get(&peer) {
            linked.link.set_node(node);
            return linked.link.clone();
        }
        let link = Link::new(self.env.clone(), self.identity, Arc::clone(&self.roster), peer, node.clone());
        let stop = self.stop.child_token();
        let task = self.env.spawn.task("peer-link", Box::pin(link.clone().run(stop.clone())));
        self.tasks.lock().push(task);
        links.insert(peer, Linked { link: link.clone(), stop });
        link
    }

    /// The link to `peer`, if one was ever started.
    pub(crate) fn get(&self, peer: u64) -> Option<Link> {
        self.links.lock().get(&peer).map(|linked| linked.link.clone())
    }

    /// Tells peers that were removed so, and ends the links to them.
    pub(crate) fn unlink_removed(&self) {
        let mut links = self.links.lock();
        let gone: Vec<u64> = links.keys().copied().filter(|peer| self.roster.is_removed(*peer)).collect();
        for peer in gone {
            let Some(Linked { link, stop }) = links.remove(&peer) else { continue };
            tracing::info!(peer = format!("{peer:x}"), "the member was removed: no more connections to it");
            let farewell = async move {
                let reason = format!("member {peer:x} was removed from the cluster");
                let refused = pb::Refused { reason, cause: pb::RefusedCause::Removed.into() };
                // Whoever is not reached now hears it at its next greeting.
                link.request(Body::Refused(refused), FAREWELL_LIMIT).await.ok();
                stop.cancel();
            };
            self.tasks.lock().push(self.env.spawn.task("peer-farewell", Box::pin(farewell)));
        }
    }

    /// Waits for the links' tasks; they end when `stop` is cancelled.
    pub(crate) async fn join(&self) {
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for task in tasks {
            task.join().await;
        }
    }
}

/// Gives openraft a network per peer.
pub(crate) struct NetworkFactory {
    pub(crate) peers: Arc<Peers>,
    /// How long an append may stay without an answer before it is sent again.
    pub(crate) append_timeout: Duration,
}

impl NetworkFactory {
    fn network(&self, target: u64, node: &PeerNode, purpose: Purpose) -> PeerNetwork {
        let link = self.peers.link(target, node);
        let (from, roster) = (self.peers.identity.member, Arc::clone(&self.peers.roster));
        PeerNetwork { link, from, roster, purpose, append_timeout: self.append_timeout }
    }
}

impl RaftNetworkFactory<TypeConfig> for NetworkFactory {
    type Network = PeerNetwork;

    async fn new_client(&mut self, target: u64, node: &PeerNode) -> PeerNetwork {
        self.network(target, node, Purpose::Replication)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &PeerNode) -> PeerNetwork {
        self.network(target, node, Purpose::Heartbeat)
    }
}

/// What openraft uses a network for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// The log, and how far it is committed.
    Replication,
    /// Signs of life, on whose answers reads wait.
    Heartbeat,
}

/// One user of the link to a peer: a replication stream, a heartbeat, a vote.
pub(crate) struct PeerNetwork {
    link: Link,
    from: u64,
    purpose: Purpose,
    roster: Arc<Roster>,
    append_timeout: Duration,
}

impl PeerNetwork {
    /// A request of a stream of appends. One of replication that has no entries only says how far the log is committed, and
    /// nobody waits for its answer.
    fn append_request(&self, request: AppendEntriesRequest<TypeConfig>) -> Body {
        let answer_can_wait = self.purpose == Purpose::Replication && request.entries.is_empty();
        rpc::append_request(request, answer_can_wait)
    }

    fn error(&self, error: LinkError, action: RPCTypes, timeout: Duration) -> RpcError {
        match error {
            LinkError::Down => RPCError::Unreachable(Unreachable::new(&error)),
            LinkError::Broken => RPCError::Network(NetworkError::new(&error)),
            LinkError::TimedOut => {
                RPCError::Timeout(Timeout { action, id: self.from, target: self.link.peer(), timeout })
            }
        }
    }

    /// Asks, waiting for a connection first: members that start together vote before they are connected.
    async fn ask(&self, body: Body, action: RPCTypes, limit: Duration) -> Result<Body, RpcError> {
        let exchange = async {
            self.link.wait_connected(limit).await?;
            self.link.request(body, limit).await
        };
        let answer = within(&*self.link.env().clock, limit, exchange).await;
        answer.unwrap_or(Err(LinkError::Down)).map_err(|error| self.error(error, action, limit))
    }

    async fn ask_vote(
        &self,
        request: &VoteRequest<TypeConfig>,
        pre_vote: bool,
        option: &RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        match self.ask(rpc::vote_request(request, pre_vote), RPCTypes::Vote, option.soft_ttl()).await? {
            Body::VoteResponse(response) => rpc::vote_response_from(response).map_err(failed),
            other => Err(unexpected(&other)),
        }
    }

    /// The result of an append. Cancel-safe, as [`Pending::answer`] is: nothing is awaited behind the answer.
    async fn next_result(&self, Sent { term, answer, .. }: &mut Sent) -> Result<AppendResult, RpcError> {
        let answer = within(&*self.link.env().clock, self.append_timeout, answer.answer()).await;
        match answer.unwrap_or(Err(LinkError::TimedOut)) {
            Ok(Body::AppendResponse(response)) => {
                let result = rpc::append_response_from(response).map_err(failed);
                match &result {
                    Ok(Ok(Some(matching))) if matching.index > 0 => {
                        self.link.acknowledged(*term, matching.index);
                    }
                    Ok(Err(StreamAppendError::Conflict(at))) if self.link.went_back(*term, at.index) => {
                        return Err(self.refuse_who_went_back());
                    }
                    _ => {}
                }
                result
            }
            Ok(other) => Err(unexpected(&other)),
            Err(error) => Err(self.error(error, RPCTypes::AppendEntries, self.append_timeout)),
        }
    }

    /// Tells the peer that it has no place any more. openraft is not told of the conflict: it takes for granted that what
    /// was acknowledged stays.
    fn refuse_who_went_back(&self) -> RpcError {
        let link = self.link.clone();
        let reason = format!("the log of member {:x} has lost what it had acknowledged", link.peer());
        let refused = pb::Refused { reason: reason.clone(), cause: pb::RefusedCause::WentBack.into() };
        let farewell = async move {
            // Told again at the next append, when this is lost.
            link.request(Body::Refused(refused), FAREWELL_LIMIT).await.ok();
        };
        drop(self.link.env().spawn.task("peer-farewell", Box::pin(farewell)));
        failed(reason)
    }
}

fn failed(reason: String) -> RpcError {
    RPCError::Unreachable(Unreachable::from_string(reason))
}

fn unexpected(body: &Body) -> RpcError {
    RPCError::Network(NetworkError::from_string(format!("an answer of another kind: {body:?}")))
}

/// An append that was sent.
struct Sent {
    /// The term of the leader that sent it.
    term: u64,
    /// Without, its answer may be held back.
    has_entries: bool,
    answer: Pending,
}

/// The state of a pipelined append stream.
struct Pipeline<'a, S: Stream> {
    network: &'a PeerNetwork,
    input: Fuse<S>,
    /// Sent, in order, not answered.
    in_flight: VecDeque<Sent>,
}

impl<S> Pipeline<'_, S>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin,
{
    /// True while few enough are on their way. Those whose answers are held back take nobody's place, up to a bound.
    fn may_send(&self) -> bool {
        let with_entries = self.in_flight.iter().filter(|sent| sent.has_entries).count();
        with_entries < APPENDS_IN_FLIGHT && self.in_flight.len() < SENT_MAX
    }

    /// The next result, in the order of the requests; sends more meanwhile. `None` at the end.
    async fn next(&mut self) -> Option<Result<AppendResult, RpcError>> {
        loop {
            let may_send = self.may_send() && !self.input.is_terminated();
            let request = match (self.in_flight.front_mut(), may_send) {
                (None, false) => return None,
                (None, true) => self.input.next().await,
                (Some(front), false) => {
                    let result = self.network.next_result(front).await;
                    self.in_flight.pop_front();
                    return Some(result);
                }
                // Both are cancel-safe: an answer stays in its channel, a request in the stream.
                (Some(front), true) => tokio::select! {
                    biased;
                    result = self.network.next_result(front) => {
                        self.in_flight.pop_front();
                        return Some(result);
                    }
                    request = self.input.next() => request,
                },
            };
            let Some(request) = request else { continue };
            let span = tracing::debug_span!(
                "replicate",
                peer = self.network.link.peer(),
                entries = request.entries.len()
            );
            let (term, has_entries) = (request.vote.leader_id.term, !request.entries.is_empty());
            let request = self.network.append_request(request);
            let sent = self.network.link.begin(request).instrument(span).await;
            match sent {
                Ok(answer) => self.in_flight.push_back(Sent { term, has_entries, answer }),
                Err(error) => {
                    let error =
                        self.network.error(error, RPCTypes::AppendEntries, self.network.append_timeout);
                    return Some(Err(error));
                }
            }
        }
    }
}

impl RaftNetworkV2<TypeConfig> for PeerNetwork {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RpcError> {
        match self.ask(rpc::append_request(rpc, false), RPCTypes::AppendEntries, option.soft_ttl()).await? {
            Body::AppendResponse(response) => {
                Ok(AppendEntriesResponse::from(rpc::append_response_from(response).map_err(failed)?))
            }
            other => Err(unexpected(&other)),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<AppendResult, RpcError>>, RpcError>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        let network: &'s Self = self;
        Box::pin(async move {
            let pipeline = Pipeline { network, input: input.fuse(), in_flight: VecDeque::new() };
            // Ends behind the first result that is not a match: what follows it was built on it.
            let results = futures::stream::unfold(Some(pipeline), |state| async move {
                let mut pipeline = state?;
                let result = pipeline.next().await?;
                let goes_on = matches!(result, Ok(Ok(_)));
                Some((result, goes_on.then_some(pipeline)))
            });
            let results: BoxStream<'s, _> = Box::pin(results);
            Ok(results)
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.ask_vote(&rpc, false, &option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.ask_vote(&rpc, true, &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: RaftVote,
        snapshot: Snapshot<
            openraft::type_config::alias::CommittedLeaderIdOf<TypeConfig>,
            u64,
            PeerNode,
            SnapshotData,
        >,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let SnapshotData::Local(local) = snapshot.snapshot else {
            return Err(StreamingError::Unreachable(Unreachable::from_string(
                "there is no snapshot to send",
            )));
        };
        let (link, roster) = (self.link.clone(), Arc::clone(&self.roster));
        let sent = snapshot::send(link, roster, vote, snapshot.meta, local, cancel).await?;
        sent.map(SnapshotResponse::new).map_err(|reason| {
            tracing::warn!(
                peer = format!("{:x}", self.link.peer()),
                reason,
                "the snapshot did not get through"
            );
            StreamingError::Unreachable(Unreachable::from_string(reason))
        })
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        match self.ask(rpc::transfer_request(&req), RPCTypes::TransferLeader, option.soft_ttl()).await? {
            Body::TransferLeaderResponse(response) if response.failed.is_empty() => Ok(Ok(())),
            Body::TransferLeaderResponse(response) => Err(failed(response.failed)),
            other => Err(unexpected(&other)),
        }
    }

    /// Trying while the link is down costs nothing, and a peer that is back should hear from us soon.
    fn backoff(&self) -> Option<Backoff> {
        const PAUSES_MS: [u64; 3] = [20, 50, 100];
        let pauses = PAUSES_MS.into_iter().chain(std::iter::repeat(PAUSES_MS[2]));
        Some(Backoff::new(pauses.map(Duration::from_millis)))
    }
}

#[cfg(test)]
mod tests {
    use openraft::entry::RaftEntry as _;

    use super::*;
    use crate::types::{RaftEntry, to_raft};

    fn factory() -> NetworkFactory {
        let env = Env::real(tokio::runtime::Handle::current(), Arc::new(holdfast_env::NoNet));
        let identity = Identity { cluster_id: 1, member: 1 };
        let peers =
            Arc::new(Peers::new(env, identity, Arc::new(Roster::new(None)), CancellationToken::new()));
        NetworkFactory { peers, append_timeout: Duration::from_secs(1) }
    }

    fn request(entries: Vec<RaftEntry>) -> AppendEntriesRequest<TypeConfig> {
        let vote = RaftVote::new(1, 1);
        AppendEntriesRequest { vote, prev_log_id: None, entries, leader_commit: None }
    }

    /// Reads wait for the answers to heartbeats, and writes for those to entries.
    #[tokio::test]
    async fn only_answers_that_nobody_waits_for_may_wait() {
        let mut factory = factory();
        let replication = factory.new_client(2, &PeerNode::default()).await;
        let heartbeat = factory.new_heartbeat_client(2, &PeerNode::default()).await;
        let can_wait = |network: &PeerNetwork, entries| match network.append_request(request(entries)) {
            Body::AppendRequest(append) => append.answer_can_wait,
            other => panic!("not an append: {other:?}"),
        };
        let id = holdfast_env::LogId::new(holdfast_env::Term::new(1), holdfast_env::LogIndex::new(1));
        let entry = || vec![RaftEntry::new_blank(to_raft(id))];
        assert!(can_wait(&replication, Vec::new()));
        assert!(!can_wait(&replication, entry()));
        assert!(!can_wait(&heartbeat, Vec::new()));
    }
}
