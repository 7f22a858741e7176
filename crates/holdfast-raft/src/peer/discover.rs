//! Who the members of a running cluster are, for someone who does not belong to it yet.

use holdfast_env::{Clock, Duplex, Env, Lane};
use holdfast_mvcc::types::MemberId;
use holdfast_proto::internal as pb;

use crate::codec::rpc::{Body, decode_message, encode_message};
use crate::config::Member;
use crate::limits::{CONNECT_TIMEOUT, REFUSAL_LINGER, within};

/// A running cluster, as one of its members knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundCluster {
    /// Its id.
    pub cluster_id: u64,
    /// Its members, ascending by id.
    pub members: Vec<FoundMember>,
}

/// A member of a running cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundMember {
    /// Who it is.
    pub member: Member,
    /// True when it is known to have had a log: it cannot begin with an empty one.
    pub had_log: bool,
}

/// Asks at these peer URLs, one after the other, who the members of the cluster are.
///
/// # Errors
/// Why the last one gave no answer.
pub async fn discover(env: &Env, peer_urls: &[String]) -> Result<FoundCluster, String> {
    let mut last_error = "no peer URL of another member is given".to_owned();
    for url in peer_urls {
        match ask(env, url).await {
            Ok(found) => return Ok(found),
            Err(error) => last_error = format!("{url}: {error}"),
        }
    }
    Err(last_error)
}

async fn ask(env: &Env, url: &str) -> Result<FoundCluster, String> {
    let exchange = async {
        let mut duplex = env.net.connect(url, Lane::Raft).await.map_err(|error| error.to_string())?;
        let question = encode_message(0, Body::MembersRequest(pb::MembersRequest {}));
        duplex.send.send(question).await.map_err(|_| "the connection broke".to_owned())?;
        duplex.recv.recv().await.ok_or_else(|| "the connection ended without an answer".to_owned())
    };
    let frame = within(&*env.clock, CONNECT_TIMEOUT, exchange)
        .await
        .unwrap_or_else(|| Err("no answer".to_owned()))?;
    match decode_message(frame) {
        Ok((_, Body::MembersResponse(found))) => Ok(FoundCluster {
            cluster_id: found.cluster_id,
            members: found.members.into_iter().map(from_proto).collect(),
        }),
        Ok((_, Body::Refused(refused))) => Err(refused.reason),
        Ok(_) | Err(_) => Err("an answer of another kind: is that a peer port of holdfast?".to_owned()),
    }
}

/// Answers someone who asked in place of a greeting.
pub(crate) async fn answer(clock: &dyn Clock, duplex: &mut Duplex, members: pb::MembersResponse) {
    if duplex.send.send(encode_message(0, Body::MembersResponse(members))).await.is_ok() {
        // The asker closes; closing before could lose the answer.
        drop(within(clock, REFUSAL_LINGER, duplex.recv.recv()).await);
    }
}

pub(crate) fn from_proto(known: pb::KnownMember) -> FoundMember {
    let member = Member { id: MemberId(known.id), peer_urls: known.peer_urls, is_learner: known.is_learner };
    FoundMember { member, had_log: known.had_log }
}

pub(crate) fn to_proto(member: Member, had_log: bool) -> pb::KnownMember {
    pb::KnownMember { id: member.id.0, peer_urls: member.peer_urls, is_learner: member.is_learner, had_log }
}
