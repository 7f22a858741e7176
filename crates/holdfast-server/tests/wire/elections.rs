//! Elections: who is elected, what it says, and who observes it.

use crate::common::*;
use crate::lining_up::*;
use crate::three::leader;
use crate::watching::PATIENCE;
use holdfast_proto::etcdserverpb as pb;
use holdfast_proto::v3electionpb as election;
use holdfast_testserver::TestCluster;
use tonic::{Code, Status, Streaming};

struct Observer(Streaming<election::LeaderResponse>);

impl Observer {
    async fn of(member: &Member, name: &str) -> Self {
        let request = election::LeaderRequest { name: bytes(name) };
        Self(member.elections.clone().observe(request).await.unwrap().into_inner())
    }

    async fn answer(&mut self) -> Result<Option<election::LeaderResponse>, Status> {
        tokio::time::timeout(PATIENCE, self.0.message()).await.expect("an answer in time")
    }

    /// Key, value and the header's revision.
    async fn next(&mut self) -> (String, String, i64) {
        let answer = self.answer().await.unwrap().expect("it goes on");
        let kv = answer.kv.unwrap();
        (text(&kv.key), text(&kv.value), answer.header.unwrap().revision)
    }
}

fn seen(key: &str, value: &str, revision: i64) -> (String, String, i64) {
    (key.to_owned(), value.to_owned(), revision)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_elected_proclaims_and_resigns() {
    let cluster = TestCluster::single().await.unwrap();
    let member = Member::at(&cluster.endpoint(0));
    let nobody = refused(Code::Unknown, "election: no leader");
    assert_eq!(refusal(member.leader("E").await), nobody);
    member.grant(0x1f).await;
    let elected = member.campaign("E", 0x1f, "one").await.unwrap();
    let key = elected.leader.clone().unwrap();
    assert_eq!((text(&key.name), text(&key.key), key.rev, key.lease), ("E".into(), "E/1f".into(), 2, 0x1f));
    assert_eq!(elected.header.unwrap().revision, 2);
    assert_eq!(member.leader("E").await.unwrap(), "one");
    assert_eq!(member.proclaim(elected.leader.clone(), "two").await.unwrap(), 3);
    // Who campaigns again with another value says that.
    let again = member.campaign("E", 0x1f, "three").await.unwrap();
    assert_eq!(again.leader.unwrap().rev, 2);
    assert_eq!(member.leader("E").await.unwrap(), "three");
    assert_eq!(member.resign(elected.leader.clone()).await.unwrap(), 5);
    assert_eq!(member.resign(elected.leader.clone()).await.unwrap(), 5, "who is not elected may resign");
    assert_eq!(refusal(member.leader("E").await), nobody);
    let not = refused(Code::Unknown, "election: not leader");
    assert_eq!(refusal(member.proclaim(elected.leader, "four").await), not);
    let missing = refused(Code::Unknown, "\"leader\" field must be provided");
    assert_eq!(refusal(member.proclaim(None, "").await), missing);
    assert_eq!(refusal(member.resign(None).await), missing);
    let lease = refusal(member.campaign("E", 0x99, "").await);
    assert_eq!(lease, refused(Code::Unknown, "etcdserver: requested lease not found"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_proclaims_without_a_lease_gets_one_of_a_minute() {
    let cluster = TestCluster::single().await.unwrap();
    let member = Member::at(&cluster.endpoint(0));
    member.grant(1).await;
    let leader = member.campaign("E", 1, "one").await.unwrap().leader.unwrap();
    let nameless = election::LeaderKey { lease: 0, ..leader.clone() };
    member.proclaim(Some(nameless.clone()), "two").await.unwrap();
    let kv = member.kv.clone().range(range_request("E/1", "")).await.unwrap().into_inner().kvs.remove(0);
    assert!(kv.lease != 0 && kv.lease != 1, "{kv:?}");
    // Who is not elected leaves no lease behind.
    member.resign(Some(leader)).await.unwrap();
    refusal(member.proclaim(Some(nameless), "three").await);
    let leases = member.leases.clone().lease_leases(pb::LeaseLeasesRequest {}).await.unwrap().into_inner();
    let mut ids: Vec<_> = leases.leases.into_iter().map(|lease| lease.id).collect();
    ids.retain(|id| *id != 1 && *id != kv.lease);
    assert_eq!(ids, [0_i64; 0]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn candidates_are_elected_in_turn() {
    let cluster = TestCluster::three().await.unwrap();
    let members: Vec<_> = (0..3).map(|at| Member::at(&cluster.endpoint(at))).collect();
    for id in 1..=3 {
        members[0].grant(id).await;
    }
    let first = members[0].campaign("E", 1, "one").await.unwrap();
    let mut waiting = Vec::new();
    for (at, id, value) in [(1, 2, "two"), (2, 3, "three")] {
        let member = members[at].clone();
        waiting.push(tokio::spawn(async move { member.campaign("E", id, value).await }));
        members[0].until_in_line("E", at + 1).await;
    }
    assert_eq!(members[1].leader("E").await.unwrap(), "one");
    // Who waits may already say something else.
    members[0].resign(first.leader).await.unwrap();
    let second = waiting.remove(0).await.unwrap().unwrap();
    assert_eq!(members[2].leader("E").await.unwrap(), "two");
    assert!(!waiting[0].is_finished());
    members[2].resign(second.leader).await.unwrap();
    let third = waiting.remove(0).await.unwrap().unwrap();
    assert_eq!(text(&third.leader.unwrap().key), "E/3");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_candidate_whose_lease_ends_is_not_elected() {
    let cluster = TestCluster::single().await.unwrap();
    let member = Member::at(&cluster.endpoint(0));
    member.grant(1).await;
    member.grant(2).await;
    let first = member.campaign("E", 1, "one").await.unwrap();
    let waiter = member.clone();
    let waiter = tokio::spawn(async move { waiter.campaign("E", 2, "two").await });
    member.until_in_line("E", 2).await;
    member.revoke(2).await;
    assert_eq!(refusal(waiter.await.unwrap()), refused(Code::Unknown, "election: not leader"));
    member.resign(first.leader).await.unwrap();
    assert_eq!(refusal(member.leader("E").await), refused(Code::Unknown, "election: no leader"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_observer_sees_each_leader_and_each_value() {
    let cluster = TestCluster::single().await.unwrap();
    let member = Member::at(&cluster.endpoint(0));
    for id in 1..=2 {
        member.grant(id).await;
    }
    let mut early = Observer::of(&member, "E").await;
    let first = member.campaign("E", 1, "one").await.unwrap();
    assert_eq!(early.next().await, seen("E/1", "one", 2));
    member.proclaim(first.leader.clone(), "more").await.unwrap();
    assert_eq!(early.next().await, seen("E/1", "more", 3));
    let mut late = Observer::of(&member, "E").await;
    assert_eq!(late.next().await, seen("E/1", "more", 3));
    let waiter = member.clone();
    let waiter = tokio::spawn(async move { waiter.campaign("E", 2, "two").await });
    member.until_in_line("E", 2).await;
    member.resign(first.leader).await.unwrap();
    assert_eq!(early.next().await, seen("E/2", "two", 5));
    assert_eq!(late.next().await, seen("E/2", "two", 5));
    let second = waiter.await.unwrap().unwrap();
    // Nobody, then somebody: what is in between is not told.
    member.resign(second.leader).await.unwrap();
    member.campaign("E", 1, "back").await.unwrap();
    assert_eq!(early.next().await, seen("E/1", "back", 7));
    assert_eq!(late.next().await, seen("E/1", "back", 7));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_observer_outlives_a_change_of_leader_and_ends_with_its_member() {
    let mut cluster = TestCluster::start(3, &[]).await.unwrap();
    let leads = leader(&cluster, 0).await;
    let stays = (leads + 1) % 3;
    let member = Member::at(&cluster.endpoint(stays));
    member.grant(1).await;
    let mut observer = Observer::of(&member, "E").await;
    let elected = member.campaign("E", 1, "one").await.unwrap();
    assert_eq!(observer.next().await, seen("E/1", "one", 2));
    cluster.stop_member(leads).await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    // To say the same twice changes nothing but the revision.
    while member.proclaim(elected.leader.clone(), "two").await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "no new leader");
    }
    let (key, value, _) = observer.next().await;
    assert_eq!((key, value), ("E/1".to_owned(), "two".to_owned()));
    cluster.stop_member(stays).await;
    let end = loop {
        match observer.answer().await {
            Ok(Some(_)) => {}
            end => break end,
        }
    };
    assert_eq!(refusal(end), refused(Code::Unavailable, "etcdserver: server stopped"));
    cluster.stop().await;
}
