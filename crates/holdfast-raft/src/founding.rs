//! The place in the log of a state that a cluster is founded with, as when a backup is restored.
//!
//! A cluster that begins with nothing has one entry at index 0 in its members' logs: who takes part. One that begins with
//! a state has none: the state stands for the log up to an index that is made of its revision and of a digest, in term 0, and
//! contains who takes part. No leader has ever had term 0, so that no entry of any other cluster, and none of members that
//! were started without the state, can be taken for it; it is ahead of their index 0, so that a member with the state is
//! elected over one without. And when members were given different states by mistake, they do not take them for one: whoever is
//! elected sends its state to those with a lower index, and one with a higher one, that comes when the others have gone on
//! already, stops with a panic.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_env::{LogId, LogIndex, Term};
use holdfast_mvcc::types::Revision;
use holdfast_storage::Applied;

use crate::codec;
use crate::config::Member;
use crate::types::{Membership, PeerNode};

/// Bits of the digest in the index: revisions have less than 48.
const DIGEST_BITS: u32 = 14;

/// Where a state of this revision stands that these members, all of them voters, begin with; the digest is of all of the state.
/// The same for each of them.
pub fn founding_position(members: &[Member], revision: Revision, digest: u16) -> Applied {
    let digest = u64::from(digest) % (1 << DIGEST_BITS);
    let at = LogId::new(Term::new(0), LogIndex::new(revision.get().max(1) << DIGEST_BITS | digest));
    let ids: BTreeSet<u64> = members.iter().map(|member| member.id.0).collect();
    let node = |member: &Member| PeerNode { peer_urls: member.peer_urls.clone().into(), votes_later: false };
    let nodes: BTreeMap<u64, PeerNode> = members.iter().map(|member| (member.id.0, node(member))).collect();
    let membership = Membership::new(vec![ids], nodes).expect("every voter has its node");
    let content = codec::encode_applied_membership(&membership, &BTreeSet::new());
    Applied { log_id: Some(at), membership: Some((at, content)) }
}
