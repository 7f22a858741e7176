//! A leader whose process has ended is replaced at once, and not when an election timeout has passed.
//!
//! The kernel closes the connections of a process that ends, and refuses new ones. Who follows that leader sees it: its
//! connection to us is gone, ours to it is gone, and the next try fails. Then this member no longer holds to the leader's
//! lease, in which it would neither campaign nor vote for anybody, and asks the others in turn for their votes, first without
//! a new term (pre-vote). Those who still hear of the leader, or have not seen its end yet, deny them: whoever is cut off from
//! a healthy leader alone does not disturb it. Safety rests on votes and logs as ever; no time is trusted.
//!
//! A false alarm costs little: openraft gives a leader's lease again only with the next vote, so that until then this member
//! votes for others, and campaigns, after half as long a silence.
//!
//! Where all members start at the same time, nobody hears of any leader, and nothing is lost either. So a member also campaigns
//! once it has reached a majority after its start and has had time to hear of a leader, in the same way: by turns, and with
//! pre-votes, which those who follow somebody deny. Where a majority starts anew at once, it may so replace a leader that has
//! stayed and does not reach them within a heartbeat.
//!
//! A leader that stands still, or whose machine or network is lost, closes nothing: then the election timeout decides.

use std::sync::Arc;

use futures::stream::{FuturesUnordered, StreamExt};
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::RaftServerMetrics;
use openraft::raft::TransferLeaderRequest;

use crate::limits::{LOST_LEADER_CAMPAIGNS, LOST_LEADER_STEPS};
use crate::peer::link::Link;
use crate::peer::network::Peers;
use crate::shared::Shared;
use crate::types::{Raft, RaftVote, TypeConfig};

/// A leader that this member follows.
struct Followed {
    vote: RaftVote,
    leader: u64,
    link: Link,
    /// Who goes first, second, ... once it is gone; `None` when this member does not vote.
    turn: Option<Turn>,
}

/// A place among those who may lead next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Turn {
    place: u32,
    of: u32,
}

/// Runs until the node stops.
pub(crate) async fn run(shared: Arc<Shared>, raft: Raft, peers: Arc<Peers>) {
    let watch = async {
        let mut metrics = raft.server_metrics();
        loop {
            let followed = followed(&shared, &peers, &metrics.borrow_and_update());
            let lost_and_back = async {
                let Some(followed) = &followed else { return std::future::pending().await };
                followed.link.until_gone_is(true).await;
                campaign(&shared, &raft, followed).await;
                followed.link.until_gone_is(false).await;
            };
            tokio::select! {
                biased;
                changed = metrics.changed() => if changed.is_err() {
                    return;
                },
                () = lost_and_back => {}
            }
        }
    };
    let both = async { tokio::join!(watch, campaign_behind_start(&shared, &raft, &peers)) };
    tokio::select! {
        biased;
        () = shared.stop.cancelled() => {}
        ((), ()) = both => {}
    }
}

/// Campaigns behind a start, as long as nobody else was faster. Who follows a leader denies its vote.
async fn campaign_behind_start(shared: &Shared, raft: &Raft, peers: &Peers) {
    let started = raft.server_metrics().borrow_watched().clone();
    let (membership, term) = (started.membership_config.membership(), started.vote.leader_id.term);
    let here = shared.config.id.0;
    let Some(turn) = turn(here, None, term, membership.voter_ids()) else { return };
    let others = membership.voter_ids().filter(|voter| *voter != here);
    let mut connecting: FuturesUnordered<_> = others
        .filter_map(|voter| Some(peers.link(voter, membership.get_node(&voter)?)))
        .map(|link| async move { link.until_connected().await })
        .collect();
    for _ in 0..turn.of / 2 {
        connecting.next().await;
    }
    shared.env.clock.sleep(shared.config.heartbeat_interval).await;
    let is_open = || {
        let now = raft.server_metrics();
        let now = now.borrow_watched();
        now.vote == started.vote && now.state != ServerState::Leader
    };
    by_turns(shared, raft, turn, is_open).await;
}

fn followed(shared: &Shared, peers: &Peers, metrics: &RaftServerMetrics<TypeConfig>) -> Option<Followed> {
    let (vote, here) = (metrics.vote, shared.config.id.0);
    let leader = vote.leader_id.voted_for;
    if !vote.committed || leader == here || metrics.state == ServerState::Leader {
        return None;
    }
    let membership = metrics.membership_config.membership();
    let link = peers.link(leader, membership.get_node(&leader)?);
    let turn = turn(here, Some(leader), vote.leader_id.term, membership.voter_ids());
    Some(Followed { vote, leader, link, turn })
}

/// Whose turn it is goes round with the terms: should the first one never get anywhere, it is not the first one each time.
fn turn(here: u64, lost: Option<u64>, term: u64, voters: impl Iterator<Item = u64>) -> Option<Turn> {
    let mut voters: Vec<u64> = voters.filter(|voter| Some(*voter) != lost).collect();
    voters.sort_unstable();
    let place = voters.iter().position(|voter| *voter == here)? as u64;
    let of = voters.len() as u64;
    let place = (place + term % of) % of;
    Some(Turn { place: u32::try_from(place).ok()?, of: u32::try_from(of).ok()? })
}

/// Tries to become the leader in the place of one that is gone. Dropped as soon as another vote is known here.
async fn campaign(shared: &Shared, raft: &Raft, followed: &Followed) {
    let Followed { vote, leader, link, turn } = followed;
    tracing::warn!(
        leader = format!("{leader:x}"),
        "the leader has closed its connections and takes none: another one is elected without waiting for a timeout"
    );
    // As when a leader hands over to another member: ends its lease here, as long as it is the one that we know.
    let ends = TransferLeaderRequest::new(*vote, *leader, None);
    if raft.handle_transfer_leader(ends).await.is_err() {
        return;
    }
    if let Some(turn) = turn {
        by_turns(shared, raft, *turn, || link.is_gone()).await;
    }
}

/// Asks for votes when it is this member's turn, a few times, as long as `is_open` says that it is still about that.
async fn by_turns(shared: &Shared, raft: &Raft, Turn { place, of }: Turn, is_open: impl Fn() -> bool) {
    let step = shared.config.heartbeat_interval / LOST_LEADER_STEPS;
    let mut pause = step * (2 * place + 1);
    for _ in 0..LOST_LEADER_CAMPAIGNS {
        shared.env.clock.sleep(pause).await;
        if !is_open() || raft.trigger().elect(true).await.is_err() {
            return;
        }
        pause = step * 2 * of;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(lost: u64, term: u64) -> Vec<Option<u32>> {
        (1..=5)
            .map(|here| turn(here, Some(lost), term, [5, 3, 2, 1].into_iter()).map(|turn| turn.place))
            .collect()
    }

    #[test]
    fn each_voter_but_the_lost_one_has_a_turn_of_its_own() {
        assert_eq!(turns(3, 3), [Some(0), Some(1), None, None, Some(2)]);
        assert_eq!(turns(3, 4), [Some(1), Some(2), None, None, Some(0)]);
        assert_eq!(turns(9, u64::MAX), [Some(3), Some(0), Some(1), None, Some(2)]);
        assert_eq!(turn(1, Some(2), 7, [1, 2].into_iter()), Some(Turn { place: 0, of: 1 }));
    }
}
