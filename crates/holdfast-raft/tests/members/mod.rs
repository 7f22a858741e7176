//! Members come, go, move and hand over; whoever has no place any more learns of it.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world has failed")]

use std::time::Duration;

use crate::support::{Cluster, PATIENCE, eventually, get, id, put};
use holdfast_raft::{ChangeError, ChangeRules, Departure, MemberChange, TransferError};

const MIB: u64 = 1 << 20;
const RULES: ChangeRules = ChangeRules { strict: true, learners_max: 1 };

async fn until_departed(cluster: &Cluster, place: usize) -> Departure {
    let mut departed = cluster.member(place).node.departed();
    let departed = tokio::time::timeout(PATIENCE, departed.wait_for(Option::is_some)).await;
    departed.expect("it learns of it in time").unwrap().expect("it is there")
}

/// Waits until the members' connections are there, which strict changes ask for, and until the leader has heard how far
/// a learner is: what the learner shows already may not have reached it.
async fn change(cluster: &Cluster, place: usize, change: MemberChange) -> Vec<u64> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let changed = cluster.member(place).node.change_members(&change, RULES, PATIENCE).await;
        match changed {
            Ok(members) => return members.into_iter().map(|member| member.id.0).collect(),
            Err(ChangeError::Unhealthy | ChangeError::NotReady) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => panic!("{change:?}: {error}"),
        }
    }
}

/// What a server does when it is ready; strict changes ask for it.
async fn publish(cluster: &Cluster, place: usize) {
    use holdfast_mvcc::command::{Command, MemberAttributes};
    let attributes = MemberAttributes { id: id(place), name: format!("n{place}"), client_urls: Vec::new() };
    cluster.member(place).node.propose(Command::PublishMember(attributes), PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_grows_to_three_and_shrinks_again() {
    let mut cluster = Cluster::start(1, 64 * MIB).await;
    cluster.leader(&[]).await;
    publish(&cluster, 0).await;
    put(&cluster.member(0).node, "a", b"1", PATIENCE).await.unwrap();

    // A voter that is not there yet must not stop a cluster of one.
    let second = cluster.newcomer(false);
    assert_eq!(change(&cluster, 0, MemberChange::Add(second.clone())).await, [1, 2]);
    put(&cluster.member(0).node, "b", b"2", PATIENCE).await.unwrap();
    let taken = cluster.member(0).node.change_members(&MemberChange::Add(second), RULES, PATIENCE).await;
    assert!(matches!(taken, Err(ChangeError::IdTaken | ChangeError::NotEnoughStarted)), "{taken:?}");
    cluster.start_newcomer(1).await;
    cluster.sees(1, "b", "2").await;
    publish(&cluster, 1).await;

    // Through a member that does not lead, or is about to be one.
    let third = cluster.newcomer(true);
    assert_eq!(change(&cluster, 1, MemberChange::Add(third)).await, [1, 2, 3]);
    let promote = MemberChange::Promote(id(2));
    let early = cluster.member(1).node.change_members(&promote, RULES, PATIENCE).await;
    assert_eq!(early.unwrap_err(), ChangeError::NotReady);
    cluster.start_newcomer(2).await;
    cluster.sees(2, "b", "2").await;
    assert!(cluster.member(2).node.health().is_learner);
    publish(&cluster, 2).await;
    change(&cluster, 2, promote).await;
    eventually("no learner any more", || (!cluster.member(2).node.health().is_learner).then_some(())).await;

    // Each of them votes: without the first one the others go on.
    for place in 0..3 {
        eventually("three voters", || cluster.member(place).node.health().votes.then_some(())).await;
    }
    cluster.stop(0).await;
    let leader = cluster.leader(&[]).await;
    put(&cluster.member(leader).node, "c", b"3", PATIENCE).await.unwrap();
    // It is down, so removing it is safe; its id is used up.
    assert_eq!(change(&cluster, 1, MemberChange::Remove(id(0))).await, [2, 3]);
    let again =
        holdfast_raft::Member { id: id(0), peer_urls: vec!["http://h:1".to_owned()], is_learner: false };
    let again = cluster.member(2).node.change_members(&MemberChange::Add(again), RULES, PATIENCE).await;
    assert_eq!(again.unwrap_err(), ChangeError::IdTaken);
    // It comes back with its data, and hears that it was removed.
    cluster.restart(0).await;
    assert_eq!(until_departed(&cluster, 0).await, Departure::Removed);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_and_a_leader_can_be_removed() {
    let mut cluster = Cluster::start(3, 64 * MIB).await;
    let leader = cluster.leader(&[]).await;
    for place in 0..3 {
        publish(&cluster, place).await;
    }
    let follower = (leader + 1) % 3;
    let node = &cluster.member(follower).node;
    assert_eq!(node.transfer_leader(id(leader), PATIENCE).await, Err(TransferError::NotLeader));
    let node = &cluster.member(leader).node;
    assert_eq!(node.transfer_leader(id(leader), PATIENCE).await, Ok(()));
    assert_eq!(node.transfer_leader(id(7), PATIENCE).await, Err(TransferError::NoSuchVoter));
    assert_eq!(node.transfer_leader(id(follower), PATIENCE).await, Ok(()));
    assert_eq!(cluster.leader(&[]).await, follower);
    put(&cluster.member(leader).node, "a", b"1", PATIENCE).await.unwrap();

    // The leader is told to remove itself, by itself.
    change(&cluster, follower, MemberChange::Remove(id(follower))).await;
    assert_eq!(until_departed(&cluster, follower).await, Departure::Removed);
    cluster.stop(follower).await;
    let leader = cluster.leader(&[]).await;
    put(&cluster.member(leader).node, "b", b"2", PATIENCE).await.unwrap();
    assert_eq!(cluster.member(leader).node.members().len(), 2);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_log_went_back_is_refused() {
    let mut cluster = Cluster::start(3, 64 * MIB).await;
    let leader = cluster.leader(&[]).await;
    put(&cluster.member(leader).node, "a", b"1", PATIENCE).await.unwrap();
    let victim = (leader + 1) % 3;
    cluster.sees(victim, "a", "1").await;
    cluster.stop(victim).await;
    cluster.back_up(victim);
    // A restart with what it had is no loss, whatever was written meanwhile.
    put(&cluster.member(leader).node, "b", b"2", PATIENCE).await.unwrap();
    cluster.restart(victim).await;
    cluster.sees(victim, "b", "2").await;
    assert_eq!(*cluster.member(victim).node.departed().borrow(), None);
    // What it has, it may not have acknowledged yet. What takes its acknowledgement, it has.
    let bystander = (leader + 2) % 3;
    cluster.stop(bystander).await;
    put(&cluster.member(leader).node, "c", b"3", PATIENCE).await.unwrap();
    cluster.restart(bystander).await;
    cluster.sees(bystander, "c", "3").await;
    cluster.stop(victim).await;
    cluster.restore(victim);
    cluster.restart(victim).await;
    assert_eq!(until_departed(&cluster, victim).await, Departure::WentBack);
    assert_eq!(get(&cluster.member(victim).storage, "b"), None, "it got nothing");
    assert_eq!(cluster.leader(&[victim]).await, leader);
    put(&cluster.member(leader).node, "d", b"4", PATIENCE).await.unwrap();
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_lost_its_disk_is_refused_under_its_old_id() {
    let mut cluster = Cluster::start(3, 64 * MIB).await;
    let leader = cluster.leader(&[]).await;
    for place in 0..3 {
        publish(&cluster, place).await;
    }
    let victim = (leader + 1) % 3;
    cluster.stop(victim).await;
    cluster.wipe(victim);
    cluster.restart(victim).await;
    assert_eq!(until_departed(&cluster, victim).await, Departure::Wiped);
    assert_eq!(cluster.member(victim).log.state().last.map(|id| id.index().get()), Some(0), "it got nothing");
    cluster.stop(victim).await;
    put(&cluster.member(leader).node, "a", b"1", PATIENCE).await.unwrap();
    // The way back: under a new id.
    change(&cluster, leader, MemberChange::Remove(id(victim))).await;
    let newcomer = cluster.newcomer(false);
    change(&cluster, leader, MemberChange::Add(newcomer)).await;
    cluster.start_newcomer(3).await;
    cluster.sees(3, "a", "1").await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_with_other_data_is_found_by_its_digest() {
    let mut cluster = Cluster::start(3, 64 * MIB).await;
    let leader = cluster.leader(&[]).await;
    put(&cluster.member(leader).node, "a", b"1", PATIENCE).await.unwrap();
    let compared = cluster.member(leader).node.compare_digests(PATIENCE).await.unwrap().unwrap();
    assert_eq!((compared.compared.len(), compared.differing.len()), (3, 0));
    let doctored = (leader + 1) % 3;
    assert_eq!(
        cluster.member(doctored).node.compare_digests(PATIENCE).await,
        Ok(None),
        "only the leader asks"
    );
    // While it is down, the others write "b"; it finds another value in the place of that.
    cluster.stop(doctored).await;
    let written = put(&cluster.member(leader).node, "b", b"right", PATIENCE).await.unwrap();
    cluster.doctor(doctored, written.log_id, "b", b"wrong").await;
    cluster.restart(doctored).await;
    put(&cluster.member(leader).node, "c", b"3", PATIENCE).await.unwrap();
    cluster.sees(doctored, "c", "3").await;
    cluster.sees(doctored, "b", "wrong").await;
    let compared = cluster.member(leader).node.compare_digests(PATIENCE).await.unwrap().unwrap();
    assert_eq!(compared.compared.len(), 3, "{compared:?}");
    assert_eq!(compared.differing, [id(doctored)], "{compared:?}");
    cluster.stop_all().await;
}
