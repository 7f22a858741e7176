//! Bytes of log entries, votes and memberships, and the conversions of peer messages.
//!
//! Every stored value starts with one format byte. A log entry's payload is that byte and an encoded
//! `holdfast.internal.v1.Entry`; the same bytes are on disk, on the wire and before the dispatcher.

mod auth;
mod command;
pub(crate) mod rpc;

use std::collections::BTreeSet;

use bytes::{BufMut, Bytes, BytesMut};
use holdfast_mvcc::auth::Caller;
use holdfast_mvcc::command::Command;
use holdfast_proto::internal as pb;
use openraft::EntryPayload;
use prost::Message;
use prost::bytes::Buf;

use crate::types::{Membership, Payload, PeerNode, RaftEntry, RaftLogId, RaftVote, from_raft, to_raft, vote};

/// The format of everything written here. A reader refuses any other.
const FORMAT: u8 = 1;

/// Why bytes could not be understood.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CodecError {
    /// There is not even a format byte.
    #[error("empty value")]
    Empty,
    /// Written by another version of the program.
    #[error("format {found} is not known here, only {FORMAT}: run the version that wrote it")]
    Format {
        /// The byte found.
        found: u8,
    },
    /// Not the expected message.
    #[error("malformed message: {0}")]
    Message(#[from] prost::DecodeError),
    /// A field that must be there is not.
    #[error("{0} is missing or unknown")]
    Missing(&'static str),
}

/// What a log entry carries, decoded.
#[derive(Debug)]
pub(crate) enum EntryBody {
    /// A new leader's first entry.
    Blank,
    /// A membership.
    Membership(Membership),
    /// A command and where it came from.
    Proposal(Proposal),
}

/// A command with its return address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proposal {
    /// The member where the request arrived.
    pub(crate) origin: u64,
    /// That member's number for it.
    pub(crate) sequence: u64,
    /// What was asked for.
    pub(crate) command: Command,
    /// Who wants it.
    pub(crate) caller: Caller,
}

impl Proposal {
    /// By this member itself.
    pub(crate) fn of_server(origin: u64, sequence: u64, command: Command) -> Self {
        Self { origin, sequence, command, caller: Caller::Server }
    }
}

fn encode(message: &impl Message) -> Bytes {
    let mut bytes = BytesMut::with_capacity(message.encoded_len() + 1);
    bytes.put_u8(FORMAT);
    message.encode_raw(&mut bytes);
    bytes.freeze()
}

fn decode<M: Message + Default>(mut bytes: Bytes) -> Result<M, CodecError> {
    if bytes.is_empty() {
        return Err(CodecError::Empty);
    }
    match bytes.get_u8() {
        FORMAT => Ok(M::decode(bytes)?),
        found => Err(CodecError::Format { found }),
    }
}

fn encode_body(body: pb::entry::Body) -> Bytes {
    encode(&pb::Entry { body: Some(body) })
}

/// A proposal's log bytes. The command is not too deep ([`holdfast_mvcc::validate::is_too_deep`]): they can be decoded.
pub(crate) fn encode_proposal(proposal: Proposal) -> Bytes {
    let Proposal { origin, sequence, command, caller } = proposal;
    let command = Some(command::to_proto(command));
    let caller = auth::caller_to_proto(caller);
    encode_body(pb::entry::Body::Proposal(pb::Proposal { origin, sequence, command, caller }))
}

/// A membership's log bytes.
pub(crate) fn encode_membership(membership: &Membership) -> Bytes {
    encode_body(pb::entry::Body::Membership(membership_to_proto(membership)))
}

/// A membership as it is stored with the state: with everybody who was a member before.
pub(crate) fn encode_applied_membership(membership: &Membership, removed: &BTreeSet<u64>) -> Bytes {
    let removed = removed.iter().copied().collect();
    let stored = pb::Membership { removed, ..membership_to_proto(membership) };
    encode_body(pb::entry::Body::Membership(stored))
}

/// Who was a member before and is not any more, as stored by [`encode_applied_membership`].
pub(crate) fn decode_removed(bytes: Bytes) -> Result<BTreeSet<u64>, CodecError> {
    let entry: pb::Entry = decode(bytes)?;
    match entry.body {
        Some(pb::entry::Body::Membership(membership)) => Ok(membership.removed.into_iter().collect()),
        _ => Err(CodecError::Missing("membership")),
    }
}

/// The membership in bytes written by [`encode_membership`].
pub(crate) fn decode_membership(bytes: Bytes) -> Result<Membership, CodecError> {
    match decode_body(bytes)? {
        EntryBody::Membership(membership) => Ok(membership),
        EntryBody::Blank | EntryBody::Proposal(_) => Err(CodecError::Missing("membership")),
    }
}

/// The content of a log entry.
pub(crate) fn decode_body(bytes: Bytes) -> Result<EntryBody, CodecError> {
    let entry: pb::Entry = decode(bytes)?;
    match entry.body.ok_or(CodecError::Missing("entry body"))? {
        pb::entry::Body::Blank(_) => Ok(EntryBody::Blank),
        pb::entry::Body::Membership(membership) => {
            Ok(EntryBody::Membership(membership_from_proto(membership)?))
        }
        pb::entry::Body::Proposal(proposal) => {
            let command = command::from_proto(proposal.command.ok_or(CodecError::Missing("command"))?)?;
            Ok(EntryBody::Proposal(Proposal {
                origin: proposal.origin,
                sequence: proposal.sequence,
                command,
                caller: auth::caller_from_proto(proposal.caller)?,
            }))
        }
    }
}

/// The log bytes of an openraft payload. A proposal's are the ones it was proposed with.
pub(crate) fn encode_payload(payload: EntryPayload<Payload, u64, PeerNode>) -> Bytes {
    match payload {
        EntryPayload::Normal(Payload(bytes)) => bytes,
        EntryPayload::Blank => encode_body(pb::entry::Body::Blank(pb::Blank {})),
        EntryPayload::Membership(membership) => encode_membership(&membership),
    }
}

/// An openraft entry from a log id and log bytes. Proposals stay encoded.
pub(crate) fn decode_entry(log_id: RaftLogId, bytes: Bytes) -> Result<RaftEntry, CodecError> {
    let payload = match bytes.first() {
        None => return Err(CodecError::Empty),
        Some(&FORMAT) if is_proposal(&bytes) => EntryPayload::Normal(Payload(bytes)),
        Some(_) => match decode_body(bytes)? {
            EntryBody::Blank => EntryPayload::Blank,
            EntryBody::Membership(membership) => EntryPayload::Membership(membership),
            EntryBody::Proposal(_) => return Err(CodecError::Missing("canonical proposal")),
        },
    };
    Ok(RaftEntry { log_id, payload })
}

/// True when the bytes behind the format byte start with an entry's `proposal` field.
fn is_proposal(bytes: &[u8]) -> bool {
    /// Field 3, length-delimited.
    const PROPOSAL_KEY: u8 = 3 << 3 | 2;
    bytes.get(1) == Some(&PROPOSAL_KEY)
}

/// A vote's stored bytes.
pub(crate) fn encode_vote(vote: &RaftVote) -> Bytes {
    encode(&vote_to_proto(vote))
}

/// The vote in bytes written by [`encode_vote`].
pub(crate) fn decode_vote(bytes: Bytes) -> Result<RaftVote, CodecError> {
    Ok(vote_from_proto(decode(bytes)?))
}

fn vote_to_proto(vote: &RaftVote) -> pb::Vote {
    pb::Vote { term: vote.leader_id.term, voted_for: vote.leader_id.voted_for, committed: vote.committed }
}

fn vote_from_proto(proto: pb::Vote) -> RaftVote {
    vote(proto.term, proto.voted_for, proto.committed)
}

fn log_id_to_proto(id: &RaftLogId) -> pb::LogId {
    let id = from_raft(id);
    pb::LogId { term: id.term().get(), index: id.index().get() }
}

fn log_id_from_proto(proto: pb::LogId) -> RaftLogId {
    to_raft(holdfast_env::LogId::new(
        holdfast_env::Term::new(proto.term),
        holdfast_env::LogIndex::new(proto.index),
    ))
}

fn membership_to_proto(membership: &Membership) -> pb::Membership {
    let configs = membership
        .get_joint_config()
        .iter()
        .map(|ids| pb::Voters { ids: ids.iter().copied().collect() })
        .collect();
    let nodes = membership
        .nodes()
        .map(|(id, node)| pb::MemberNode {
            id: *id,
            peer_urls: node.peer_urls.to_vec(),
            votes_later: node.votes_later,
        })
        .collect();
    pb::Membership { configs, nodes, removed: Vec::new() }
}

fn membership_from_proto(proto: pb::Membership) -> Result<Membership, CodecError> {
    let configs = proto.configs.into_iter().map(|voters| voters.ids.into_iter().collect()).collect();
    let nodes: std::collections::BTreeMap<u64, PeerNode> = proto
        .nodes
        .into_iter()
        .map(|node| (node.id, PeerNode { peer_urls: node.peer_urls.into(), votes_later: node.votes_later }))
        .collect();
    Membership::new(configs, nodes).map_err(|_| CodecError::Missing("a voter's node"))
}

#[cfg(test)]
mod tests;
