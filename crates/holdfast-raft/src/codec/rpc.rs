//! Peer messages: openraft's requests and answers as protobuf, and back.

use bytes::Bytes;
use holdfast_proto::internal as pb;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, TransferLeaderRequest, VoteRequest, VoteResponse,
};
use prost::Message;

pub(crate) use pb::peer_message::Body;

use super::{
    CodecError, decode_entry, decode_membership, encode_membership, encode_payload, log_id_from_proto,
    log_id_to_proto, vote_from_proto, vote_to_proto,
};
use crate::types::{RaftLogId, RaftVote, SnapshotMeta, StoredMembership, TypeConfig};

/// What became of an append: the position up to which the receiver matches, durably, or why not.
pub(crate) type AppendResult = Result<Option<RaftLogId>, StreamAppendError<TypeConfig>>;

/// The frame of a message. `request_id` 0 means that no answer is expected.
pub(crate) fn encode_message(request_id: u64, body: Body) -> Bytes {
    pb::PeerMessage { request_id, body: Some(body) }.encode_to_vec().into()
}

/// The request id and the content of a frame. Byte fields share the frame's memory.
pub(crate) fn decode_message(frame: Bytes) -> Result<(u64, Body), CodecError> {
    let message = pb::PeerMessage::decode(frame)?;
    Ok((message.request_id, message.body.ok_or(CodecError::Missing("message body"))?))
}

pub(crate) fn log_id(id: holdfast_env::LogId) -> pb::LogId {
    pb::LogId { term: id.term().get(), index: id.index().get() }
}

pub(crate) fn log_id_from(proto: pb::LogId) -> holdfast_env::LogId {
    crate::types::from_raft(&log_id_from_proto(proto))
}

fn required_vote(proto: Option<pb::Vote>) -> Result<RaftVote, CodecError> {
    Ok(vote_from_proto(proto.ok_or(CodecError::Missing("vote"))?))
}

pub(crate) fn append_request(request: AppendEntriesRequest<TypeConfig>, answer_can_wait: bool) -> Body {
    let entries = request
        .entries
        .into_iter()
        .map(|entry| pb::LogEntry {
            id: Some(log_id_to_proto(&entry.log_id)),
            payload: encode_payload(entry.payload),
        })
        .collect();
    Body::AppendRequest(pb::AppendRequest {
        vote: Some(vote_to_proto(&request.vote)),
        prev_log_id: request.prev_log_id.as_ref().map(log_id_to_proto),
        entries,
        leader_commit: request.leader_commit.as_ref().map(log_id_to_proto),
        answer_can_wait,
    })
}

pub(crate) fn append_request_from(
    proto: pb::AppendRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, CodecError> {
    let entries = proto
        .entries
        .into_iter()
        .map(|entry| {
            let id = log_id_from_proto(entry.id.ok_or(CodecError::Missing("log id"))?);
            // A slice would keep the whole frame in memory for as long as one of its values is cached.
            decode_entry(id, Bytes::copy_from_slice(&entry.payload))
        })
        .collect::<Result<_, _>>()?;
    Ok(AppendEntriesRequest {
        vote: required_vote(proto.vote)?,
        prev_log_id: proto.prev_log_id.map(log_id_from_proto),
        entries,
        leader_commit: proto.leader_commit.map(log_id_from_proto),
    })
}

/// The answer to an append; a failure is one that says nothing about the receiver's log.
pub(crate) fn append_response(result: Result<AppendResult, String>) -> Body {
    use pb::append_response::Result as To;
    let result = match result {
        Ok(Ok(log_id)) => To::Matching(pb::Matching { log_id: log_id.as_ref().map(log_id_to_proto) }),
        Ok(Err(StreamAppendError::Conflict(at))) => To::Conflict(log_id_to_proto(&at)),
        Ok(Err(StreamAppendError::HigherVote(vote))) => To::HigherVote(vote_to_proto(&vote)),
        Err(failed) => To::Failed(failed),
    };
    Body::AppendResponse(pb::AppendResponse { result: Some(result) })
}

pub(crate) fn append_response_from(proto: pb::AppendResponse) -> Result<AppendResult, String> {
    use pb::append_response::Result as From;
    match proto.result {
        Some(From::Matching(matching)) => Ok(Ok(matching.log_id.map(log_id_from_proto))),
        Some(From::Conflict(at)) => Ok(Err(StreamAppendError::Conflict(log_id_from_proto(at)))),
        Some(From::HigherVote(vote)) => Ok(Err(StreamAppendError::HigherVote(vote_from_proto(vote)))),
        Some(From::Failed(failed)) => Err(failed),
        None => Err("the answer has no result".to_owned()),
    }
}

pub(crate) fn vote_request(request: &VoteRequest<TypeConfig>, pre_vote: bool) -> Body {
    Body::VoteRequest(pb::VoteRequest {
        vote: Some(vote_to_proto(&request.vote)),
        last_log_id: request.last_log_id.as_ref().map(log_id_to_proto),
        leadership_transfer: request.leadership_transfer,
        pre_vote,
    })
}

pub(crate) fn vote_request_from(proto: pb::VoteRequest) -> Result<VoteRequest<TypeConfig>, CodecError> {
    let mut request = VoteRequest::new(required_vote(proto.vote)?, proto.last_log_id.map(log_id_from_proto));
    request.leadership_transfer = proto.leadership_transfer;
    Ok(request)
}

pub(crate) fn vote_response(result: Result<VoteResponse<TypeConfig>, String>) -> Body {
    Body::VoteResponse(match result {
        Ok(response) => pb::VoteResponse {
            vote: Some(vote_to_proto(&response.vote)),
            last_log_id: response.last_log_id.as_ref().map(log_id_to_proto),
            granted: response.vote_granted,
            failed: String::new(),
        },
        Err(failed) => pb::VoteResponse { failed, ..Default::default() },
    })
}

pub(crate) fn vote_response_from(proto: pb::VoteResponse) -> Result<VoteResponse<TypeConfig>, String> {
    match proto.vote {
        Some(vote) if proto.failed.is_empty() => Ok(VoteResponse::new(
            vote_from_proto(vote),
            proto.last_log_id.map(log_id_from_proto),
            proto.granted,
        )),
        Some(_) | None => Err(proto.failed),
    }
}

pub(crate) fn transfer_request(request: &TransferLeaderRequest<TypeConfig>) -> Body {
    Body::TransferLeaderRequest(pb::TransferLeaderRequest {
        from_leader: Some(vote_to_proto(request.from_leader())),
        to: *request.to_node_id(),
        last_log_id: request.last_log_id().map(log_id_to_proto),
    })
}

pub(crate) fn transfer_request_from(
    proto: pb::TransferLeaderRequest,
) -> Result<TransferLeaderRequest<TypeConfig>, CodecError> {
    let last_log_id = proto.last_log_id.map(log_id_from_proto);
    Ok(TransferLeaderRequest::new(required_vote(proto.from_leader)?, proto.to, last_log_id))
}

pub(crate) fn snapshot_begin(vote: &RaftVote, meta: &SnapshotMeta, id: String, bytes: u64) -> Body {
    Body::SnapshotBegin(pb::SnapshotBegin {
        vote: Some(vote_to_proto(vote)),
        id,
        bytes,
        last_log_id: meta.last_log_id.as_ref().map(log_id_to_proto),
        membership_log_id: meta.last_membership.log_id().as_ref().map(log_id_to_proto),
        membership: encode_membership(meta.last_membership.membership()),
    })
}

pub(crate) fn snapshot_begin_from(proto: &pb::SnapshotBegin) -> Result<(RaftVote, SnapshotMeta), CodecError> {
    let membership = decode_membership(proto.membership.clone())?;
    let membership_log_id = proto.membership_log_id.map(log_id_from_proto);
    let meta = SnapshotMeta {
        last_log_id: proto.last_log_id.map(log_id_from_proto),
        last_membership: StoredMembership::new(membership_log_id, membership),
    };
    Ok((required_vote(proto.vote)?, meta))
}

pub(crate) fn snapshot_response(result: Result<RaftVote, String>) -> Body {
    Body::SnapshotResponse(match result {
        Ok(vote) => pb::SnapshotResponse { vote: Some(vote_to_proto(&vote)), failed: String::new() },
        Err(failed) => pb::SnapshotResponse { vote: None, failed },
    })
}

pub(crate) fn snapshot_response_from(proto: pb::SnapshotResponse) -> Result<RaftVote, String> {
    match proto.vote {
        Some(vote) if proto.failed.is_empty() => Ok(vote_from_proto(vote)),
        Some(_) | None => Err(proto.failed),
    }
}

pub(crate) fn read_index_request(vote: Option<&RaftVote>) -> Body {
    Body::ReadIndexRequest(pb::ReadIndexRequest { vote: vote.map(vote_to_proto) })
}

pub(crate) fn read_index_request_from(proto: pb::ReadIndexRequest) -> Option<RaftVote> {
    proto.vote.map(vote_from_proto)
}

pub(crate) fn read_index_response(result: Result<RaftLogId, String>) -> Body {
    use pb::read_index_response::Result as To;
    let result = match result {
        Ok(log_id) => To::ReadIndex(pb::ReadIndex { log_id: Some(log_id_to_proto(&log_id)) }),
        Err(failed) => To::Failed(failed),
    };
    Body::ReadIndexResponse(pb::ReadIndexResponse { result: Some(result) })
}

pub(crate) fn read_index_response_from(proto: pb::ReadIndexResponse) -> Result<RaftLogId, String> {
    use pb::read_index_response::Result as From;
    match proto.result {
        Some(From::ReadIndex(index)) => {
            index.log_id.map(log_id_from_proto).ok_or_else(|| "the answer has no position".to_owned())
        }
        Some(From::Failed(failed)) => Err(failed),
        None => Err("the answer has no result".to_owned()),
    }
}
