//! Do the members hold the same data? The leader asks each for the digest of the history up to one revision.
//!
//! Digests can be compared only among members that have compacted up to the same revision; the others are left out
//! this time. What most members say counts as right, and with no majority what the leader says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use holdfast_mvcc::types::{MemberId, Revision};
use holdfast_proto::internal as pb;
use holdfast_storage::HistoryHash;
use tokio::sync::oneshot;

use crate::codec::rpc::Body;
use crate::limits::{DIGEST_WAIT, within};
use crate::peer::network::Peers;
use crate::shared::Shared;

/// What a comparison found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// The revision at which the members were compared.
    pub revision: Revision,
    /// Who was compared, this member among them.
    pub compared: Vec<MemberId>,
    /// Whose data differs from that of the others.
    pub differing: Vec<MemberId>,
}

/// What members say of the history up to one revision.
type Digest = (u32, Option<Revision>);

/// Compares this member with these peers.
pub(crate) async fn compare(
    shared: &Arc<Shared>,
    peers: &Peers,
    others: Vec<u64>,
    limit: Duration,
) -> Result<Comparison, String> {
    let revision = shared.visible.borrow().revision;
    let own = hash_here(shared, revision).await?;
    let asked =
        others.into_iter().filter_map(|peer| Some((peer, peers.get(peer)?))).map(|(peer, link)| async move {
            let request = Body::DigestRequest(pb::DigestRequest { revision: revision.get() });
            match link.request(request, limit).await {
                Ok(Body::DigestResponse(response)) if response.failed.is_empty() => {
                    let compacted = response.compact_revision_plus_one.checked_sub(1).map(Revision::new);
                    Some((MemberId(peer), (response.hash, compacted)))
                }
                Ok(Body::DigestResponse(response)) => {
                    tracing::info!(
                        peer = format!("{peer:x}"),
                        why = response.failed,
                        "a member gives no digest now"
                    );
                    None
                }
                Ok(_) | Err(_) => None,
            }
        });
    let theirs = futures::future::join_all(asked).await.into_iter().flatten();
    let own_id = shared.config.id;
    let digests = std::iter::once((own_id, (own.hash, own.compact_revision))).chain(theirs).collect();
    Ok(judge(revision, own_id, &digests))
}

fn judge(revision: Revision, own: MemberId, digests: &BTreeMap<MemberId, Digest>) -> Comparison {
    let (own_hash, compacted) = digests[&own];
    let comparable: Vec<(MemberId, u32)> = digests
        .iter()
        .filter(|(_, digest)| digest.1 == compacted)
        .map(|(id, digest)| (*id, digest.0))
        .collect();
    let votes = |hash: u32| comparable.iter().filter(|(_, other)| *other == hash).count();
    let right = comparable.iter().map(|(_, hash)| *hash).find(|hash| votes(*hash) * 2 > comparable.len());
    let right = right.unwrap_or(own_hash);
    Comparison {
        revision,
        compared: comparable.iter().map(|(id, _)| *id).collect(),
        differing: comparable.iter().filter(|(_, hash)| *hash != right).map(|(id, _)| *id).collect(),
    }
}

/// Answers the leader.
pub(crate) async fn serve(shared: &Arc<Shared>, request: pb::DigestRequest) -> pb::DigestResponse {
    match hash_here(shared, Revision::new(request.revision)).await {
        Ok(hashed) => pb::DigestResponse {
            failed: String::new(),
            hash: hashed.hash,
            compact_revision_plus_one: hashed.compact_revision.map_or(0, |revision| revision.get() + 1),
        },
        Err(failed) => pb::DigestResponse { failed, ..Default::default() },
    }
}

/// Waits until the revision is here, and hashes on a thread of its own: it reads everything.
async fn hash_here(shared: &Arc<Shared>, revision: Revision) -> Result<HistoryHash, String> {
    let mut visible = shared.visible.clone();
    let is_here = visible.wait_for(|visible| visible.revision >= revision);
    if !matches!(within(&*shared.env.clock, DIGEST_WAIT, is_here).await, Some(Ok(_))) {
        return Err(format!("revision {} is not here yet", revision.get()));
    }
    let (done, is_done) = oneshot::channel();
    let storage = shared.storage.clone();
    let hash = Box::pin(async move {
        // Whoever asked may be gone.
        done.send(storage.history_hash(Some(revision))).ok();
    });
    // The thread ends with its answer, which is what we wait for.
    drop(shared.env.spawn.dedicated("digest", hash));
    is_done.await.map_err(|_| "the member is stopping".to_owned())?.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(own: u64, digests: &[(u64, u32, Option<u64>)]) -> (Vec<u64>, Vec<u64>) {
        let digests = digests.iter();
        let digests = digests.map(|(id, hash, at)| (MemberId(*id), (*hash, at.map(Revision::new)))).collect();
        let found = judge(Revision::new(9), MemberId(own), &digests);
        let ids = |ids: Vec<MemberId>| ids.into_iter().map(|id| id.0).collect();
        (ids(found.compared), ids(found.differing))
    }

    #[test]
    fn the_majority_is_right_also_against_the_leader() {
        assert_eq!(judged(1, &[(1, 5, None), (2, 5, None), (3, 5, None)]), (vec![1, 2, 3], vec![]));
        assert_eq!(judged(1, &[(1, 5, None), (2, 5, None), (3, 6, None)]).1, [3]);
        assert_eq!(judged(1, &[(1, 6, None), (2, 5, None), (3, 5, None)]).1, [1]);
    }

    #[test]
    fn without_a_majority_the_leader_is_right() {
        assert_eq!(judged(2, &[(1, 5, None), (2, 6, None)]).1, [1]);
        assert_eq!(judged(1, &[(1, 5, None), (2, 6, None), (3, 7, None)]).1, [2, 3]);
    }

    #[test]
    fn only_equal_compactions_are_compared() {
        let found = judged(1, &[(1, 5, Some(3)), (2, 6, Some(4)), (3, 5, Some(3)), (4, 7, None)]);
        assert_eq!(found, (vec![1, 3], vec![]));
    }
}
