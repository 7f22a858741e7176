//! Fuzz targets: what peers say, and what log entries carry. Run by `scripts/fuzz`; the inputs that are kept run with the
//! tests.

use bytes::Bytes;
use holdfast_mvcc::validate::is_too_deep;

use crate::codec::rpc::{self, Body};
use crate::codec::{self, EntryBody, Proposal};
use crate::lease::{question_to_proto, questions_from_proto};

/// A frame of a peer. It is refused, or what was understood says the same when it is said again.
pub fn peer_message(input: &[u8]) {
    let Ok((request_id, body)) = rpc::decode_message(Bytes::copy_from_slice(input)) else { return };
    let frame = rpc::encode_message(request_id, body.clone());
    assert_eq!(rpc::decode_message(frame).ok(), Some((request_id, body.clone())));
    let Some(understood) = understood(body) else { return };
    assert_eq!(self::understood(understood.clone()), Some(understood));
}

/// Into what members work with, and back.
fn understood(body: Body) -> Option<Body> {
    Some(match body {
        Body::AppendRequest(request) => {
            let answer_can_wait = request.answer_can_wait;
            rpc::append_request(rpc::append_request_from(request).ok()?, answer_can_wait)
        }
        Body::AppendResponse(response) => rpc::append_response(rpc::append_response_from(response)),
        Body::VoteRequest(request) => {
            let pre_vote = request.pre_vote;
            rpc::vote_request(&rpc::vote_request_from(request).ok()?, pre_vote)
        }
        Body::VoteResponse(response) => rpc::vote_response(rpc::vote_response_from(response)),
        Body::TransferLeaderRequest(request) => {
            rpc::transfer_request(&rpc::transfer_request_from(request).ok()?)
        }
        Body::ReadIndexRequest(request) => {
            rpc::read_index_request(rpc::read_index_request_from(request).as_ref())
        }
        Body::ReadIndexResponse(response) => {
            rpc::read_index_response(rpc::read_index_response_from(response))
        }
        Body::SnapshotBegin(begin) => {
            let (vote, meta) = rpc::snapshot_begin_from(&begin).ok()?;
            rpc::snapshot_begin(&vote, &meta, begin.id, begin.bytes)
        }
        Body::SnapshotResponse(response) => rpc::snapshot_response(rpc::snapshot_response_from(response)),
        Body::LeaseRequest(request) => question_to_proto(&questions_from_proto(request)),
        Body::ForwardRequest(request) => {
            request.payloads.into_iter().for_each(|payload| log_entry(&payload));
            return None;
        }
        _ => return None,
    })
}

/// The bytes of a log entry, of a vote, of a membership with those who left. They are refused, or they say the same when
/// they are written again.
pub fn log_entry(input: &[u8]) {
    let bytes = Bytes::copy_from_slice(input);
    if let Ok(vote) = codec::decode_vote(bytes.clone()) {
        assert_eq!(codec::decode_vote(codec::encode_vote(&vote)).ok(), Some(vote));
    }
    let log_id = crate::types::to_raft(holdfast_env::LogId::default());
    let entry = |bytes| codec::decode_entry(log_id, bytes).map(|entry| entry.payload);
    if let (Ok(payload), Ok(same)) = (entry(bytes.clone()), entry(bytes.clone())) {
        let again = entry(codec::encode_payload(same)).expect("what was written is read");
        assert!(again == payload, "an entry says something else when it is written again");
    }
    match codec::decode_body(bytes.clone()) {
        Ok(EntryBody::Membership(membership)) => {
            let again = codec::decode_membership(codec::encode_membership(&membership));
            assert_eq!(again.ok().as_ref(), Some(&membership));
            let removed = codec::decode_removed(bytes).expect("it is a membership");
            let stored = codec::encode_applied_membership(&membership, &removed);
            assert_eq!(codec::decode_removed(stored).ok(), Some(removed));
        }
        // Such a one is never proposed.
        Ok(EntryBody::Proposal(Proposal { command, .. })) if is_too_deep(&command) => {}
        Ok(EntryBody::Proposal(proposal)) => {
            let again = codec::encode_proposal(proposal.clone());
            match codec::decode_body(again) {
                Ok(EntryBody::Proposal(again)) => assert_eq!(again, proposal),
                other => panic!("a proposal is {other:?} when it is read again"),
            }
        }
        Ok(EntryBody::Blank) | Err(_) => {}
    }
}

#[cfg(test)]
#[path = "../../holdfast-sim/fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::replay;

    #[test]
    fn the_kept_messages_do_no_harm() {
        replay::replay("peer_message", super::peer_message);
    }

    #[test]
    fn the_kept_entries_do_no_harm() {
        replay::replay("log_entry", super::log_entry);
    }
}
