//! Members come and go through the Cluster service, and learners refuse what etcd's refuse.

use holdfast_proto::etcdserverpb as pb;
use holdfast_raft::Departure;
use holdfast_testserver::{CALM, TestCluster};
use pb::cluster_client::ClusterClient;
use pb::maintenance_client::MaintenanceClient;
use pb::watch_client::WatchClient;
use tonic::Code;
use tonic::transport::Channel;

use crate::common::*;
use crate::three::leader;
use crate::watching::{Watching, watcher};
use pb::watch_request::RequestUnion;

fn members(cluster: &TestCluster, member: usize) -> ClusterClient<Channel> {
    ClusterClient::new(channel(&cluster.endpoint(member)))
}

fn maintenance(cluster: &TestCluster, member: usize) -> MaintenanceClient<Channel> {
    MaintenanceClient::new(channel(&cluster.endpoint(member)))
}

fn add(url: &str, is_learner: bool) -> pb::MemberAddRequest {
    pb::MemberAddRequest { peer_ur_ls: vec![url.to_owned()], is_learner }
}

async fn eventually(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    while !check().await {
        assert!(tokio::time::Instant::now() < deadline, "waited too long for {what}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

// covers: Cluster.MemberAdd MemberAddRequest.peerURLs MemberAddRequest.isLearner MemberAddResponse.header
// covers: Cluster.MemberAdd MemberAddResponse.member MemberAddResponse.members Member.name Member.isLearner
// covers: Cluster.MemberPromote MemberPromoteRequest.ID
#[tokio::test(flavor = "multi_thread")]
async fn a_learner_refuses_what_etcds_refuse_until_it_is_promoted() {
    let mut cluster = TestCluster::single().await.unwrap();
    put(&mut kv(&cluster.endpoint(0)), "a", "1").await;
    let learner = cluster.newcomer(&[]).unwrap();
    let added =
        members(&cluster, 0).member_add(add(&cluster.peer_url(learner), true)).await.unwrap().into_inner();
    let id = added.member.as_ref().unwrap().id;
    let described = added.member.clone().unwrap();
    assert_eq!((described.name.as_str(), described.is_learner), ("", true));
    assert_eq!((added.members.len(), added.header.unwrap().revision), (2, 0));
    let promote = || pb::MemberPromoteRequest { id };
    let early = refusal(members(&cluster, 0).member_promote(promote()).await);
    let not_ready = "etcdserver: can only promote a learner member which is in sync with leader";
    assert_eq!(early, refused(Code::FailedPrecondition, not_ready));
    cluster.start_member(learner).await.unwrap();
    assert_eq!(cluster.member_id(learner), id, "it found its id by its peer URL");

    let unsupported = refused(Code::FailedPrecondition, "etcdserver: rpc not supported for learner");
    let mut at_learner = kv(&cluster.endpoint(learner));
    assert_eq!(refusal(at_learner.range(range_request("a", "")).await), unsupported);
    assert_eq!(refusal(at_learner.put(put_request("b", "2")).await), unsupported);
    let local = pb::RangeRequest { serializable: true, ..range_request("a", "") };
    assert_eq!(at_learner.range(local).await.unwrap().into_inner().count, 1);
    let streamed = at_learner.range_stream(pb::RangeRequest { serializable: true, ..range_request("a", "") });
    assert_eq!(refusal(streamed.await.map(drop)), unsupported);
    let mut watch = WatchClient::new(channel(&cluster.endpoint(learner)));
    let create = pb::WatchCreateRequest { key: bytes("a"), ..Default::default() };
    let create =
        pb::WatchRequest { request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)) };
    let watched = match watch.watch(tokio_stream::iter([create])).await {
        Ok(stream) => refusal(stream.into_inner().message().await),
        Err(status) => (status.code(), status.message().to_owned()),
    };
    assert_eq!(watched, unsupported);
    let list = members(&cluster, learner).member_list(pb::MemberListRequest { linearizable: false }).await;
    assert_eq!(refusal(list), unsupported);
    let status = maintenance(&cluster, learner).status(pb::StatusRequest {}).await.unwrap().into_inner();
    assert!(status.is_learner);
    let (ready, said) = http_get(&cluster.endpoint(learner), "/readyz?verbose").await;
    assert!(ready == 503 && said.contains("[-]non_learner"), "{ready} {said}");
    let full = refusal(members(&cluster, 0).member_add(add("http://127.0.0.1:1", true)).await);
    assert_eq!(full, refused(Code::FailedPrecondition, "etcdserver: too many learner members in cluster"));

    members(&cluster, 0).member_promote(promote()).await.unwrap();
    // It hears of it a little later than the leader, which has answered.
    eventually("a voter", async || {
        let status = maintenance(&cluster, learner).status(pb::StatusRequest {}).await.unwrap();
        !status.into_inner().is_learner
    })
    .await;
    assert_eq!(get(&mut at_learner, "a").await.as_deref(), Some("1"));
    assert_eq!(put(&mut at_learner, "b", "2").await, 3);
    let again = refusal(members(&cluster, learner).member_promote(promote()).await);
    assert_eq!(again, refused(Code::FailedPrecondition, "etcdserver: can only promote a learner member"));
    cluster.stop().await;
}

/// A header as etcd gives it with a change of members: all but the revision.
fn is_whole(header: Option<&pb::ResponseHeader>, cluster: &TestCluster) {
    let header = header.expect("there is a header");
    assert!(header.cluster_id != 0 && header.raft_term > 0, "{header:?}");
    assert_eq!((header.member_id, header.revision), (cluster.member_id(0), 0));
}

// covers: Cluster.MemberAdd ResponseHeader.cluster_id ResponseHeader.member_id ResponseHeader.revision
// covers: Cluster.MemberAdd ResponseHeader.raft_term Member.ID Member.peerURLs Member.clientURLs
// covers: Cluster.MemberUpdate MemberUpdateResponse.header ResponseHeader.cluster_id ResponseHeader.member_id
// covers: Cluster.MemberUpdate ResponseHeader.revision ResponseHeader.raft_term Member.ID Member.name Member.peerURLs
// covers: Cluster.MemberUpdate Member.clientURLs Member.isLearner
// covers: Cluster.MemberPromote MemberPromoteResponse.header MemberPromoteResponse.members ResponseHeader.cluster_id
// covers: Cluster.MemberPromote ResponseHeader.member_id ResponseHeader.revision ResponseHeader.raft_term Member.ID
// covers: Cluster.MemberPromote Member.name Member.peerURLs Member.clientURLs Member.isLearner
// covers: Cluster.MemberRemove MemberRemoveResponse.header ResponseHeader.cluster_id ResponseHeader.member_id
// covers: Cluster.MemberRemove ResponseHeader.revision ResponseHeader.raft_term Member.ID Member.name Member.peerURLs
// covers: Cluster.MemberRemove Member.clientURLs Member.isLearner
// covers: Cluster.MemberList Member.isLearner ResponseHeader.revision
#[tokio::test(flavor = "multi_thread")]
async fn answers_about_members_are_whole() {
    let mut cluster = TestCluster::single().await.unwrap();
    let mut at = members(&cluster, 0);
    let own = at.member_list(pb::MemberListRequest { linearizable: false }).await.unwrap().into_inner();
    let first = own.members[0].clone();
    assert_eq!((first.id, own.header.unwrap().revision), (cluster.member_id(0), 0));
    assert!(!first.name.is_empty() && !first.is_learner);
    assert_eq!(
        (&first.peer_ur_ls, &first.client_ur_ls),
        (&vec![cluster.peer_url(0)], &vec![cluster.endpoint(0)])
    );

    let newcomer = cluster.newcomer(&[]).unwrap();
    let added = at.member_add(add("http://127.0.0.1:9", true)).await.unwrap().into_inner();
    is_whole(added.header.as_ref(), &cluster);
    let mut learner = added.member.unwrap();
    let expected = pb::Member {
        id: learner.id,
        peer_ur_ls: vec!["http://127.0.0.1:9".into()],
        is_learner: true,
        ..Default::default()
    };
    assert_eq!(learner, expected);
    let sorted = |mut members: Vec<pb::Member>| {
        members.sort_by_key(|member| member.id != first.id);
        members
    };
    assert_eq!(sorted(added.members), [first.clone(), learner.clone()]);

    learner.peer_ur_ls = vec![cluster.peer_url(newcomer)];
    let update = pb::MemberUpdateRequest { id: learner.id, peer_ur_ls: learner.peer_ur_ls.clone() };
    let updated = at.member_update(update).await.unwrap().into_inner();
    is_whole(updated.header.as_ref(), &cluster);
    assert_eq!(sorted(updated.members), [first.clone(), learner.clone()]);

    cluster.start_member(newcomer).await.unwrap();
    let mut promoted = None;
    eventually("a learner in sync", async || {
        promoted = at.member_promote(pb::MemberPromoteRequest { id: learner.id }).await.ok();
        promoted.is_some()
    })
    .await;
    let promoted = promoted.unwrap().into_inner();
    is_whole(promoted.header.as_ref(), &cluster);
    let members = sorted(promoted.members);
    assert_eq!(members[0], first);
    learner = pb::Member { is_learner: false, ..members[1].clone() };
    assert_eq!((learner.id, members[1].is_learner), (expected.id, false));
    assert_eq!(learner.peer_ur_ls, [cluster.peer_url(newcomer)]);

    let removed = at.member_remove(pb::MemberRemoveRequest { id: learner.id }).await.unwrap().into_inner();
    is_whole(removed.header.as_ref(), &cluster);
    assert_eq!(removed.members, [first]);
    cluster.stop().await;
}

// covers: Cluster.MemberUpdate MemberUpdateRequest.ID MemberUpdateRequest.peerURLs MemberUpdateResponse.members
// covers: Cluster.MemberRemove MemberRemoveRequest.ID MemberRemoveResponse.members
// covers: Maintenance.MoveLeader MoveLeaderRequest.targetID MoveLeaderResponse.header
#[tokio::test(flavor = "multi_thread")]
async fn changes_that_must_not_be_are_refused_in_etcds_words() {
    let cluster = TestCluster::single().await.unwrap();
    let mut at = members(&cluster, 0);
    let (own, id) = (cluster.peer_url(0), cluster.member_id(0));
    for bad in ["foo", "127.0.0.1:2380", "http://127.0.0.1", "http://127.0.0.1:2380/path", ""] {
        let answer = refusal(at.member_add(add(bad, false)).await);
        assert_eq!(
            answer,
            refused(Code::InvalidArgument, "etcdserver: given member URLs are invalid"),
            "{bad}"
        );
    }
    let none = refusal(at.member_add(pb::MemberAddRequest::default()).await);
    assert_eq!(none, refused(Code::InvalidArgument, "etcdserver: given member URLs are invalid"));
    let taken = refused(Code::FailedPrecondition, "etcdserver: Peer URLs already exists");
    assert_eq!(refusal(at.member_add(add(&own, false)).await), taken);
    let not_found = refused(Code::NotFound, "etcdserver: member not found");
    assert_eq!(refusal(at.member_remove(pb::MemberRemoveRequest { id: 5 }).await), not_found);
    assert_eq!(refusal(at.member_promote(pb::MemberPromoteRequest { id: 5 }).await), not_found);
    let update = |id, url: &str| pb::MemberUpdateRequest { id, peer_ur_ls: vec![url.to_owned()] };
    assert_eq!(refusal(at.member_update(update(5, "http://127.0.0.1:1")).await), not_found);
    let mut maintenance = maintenance(&cluster, 0);
    let mover = |target_id| pb::MoveLeaderRequest { target_id };
    let bad = refused(Code::FailedPrecondition, "etcdserver: bad leader transferee");
    assert_eq!(refusal(maintenance.move_leader(mover(5)).await), bad);
    assert!(maintenance.move_leader(mover(id)).await.unwrap().into_inner().header.is_none());

    // A voter that is not there does not stop a cluster of one, and counts for further changes.
    let added = at.member_add(add("http://127.0.0.1:2", false)).await.unwrap().into_inner();
    assert_eq!((added.members.len(), added.member.clone().unwrap().is_learner), (2, false));
    put(&mut kv(&cluster.endpoint(0)), "a", "1").await;
    let unstarted = "etcdserver: re-configuration failed due to not enough started members";
    let more = refusal(at.member_add(add("http://127.0.0.1:3", false)).await);
    assert_eq!(more, refused(Code::FailedPrecondition, unstarted));
    let unhealthy = refusal(at.member_add(add("http://127.0.0.1:3", true)).await);
    assert_eq!(unhealthy, refused(Code::Unavailable, "etcdserver: unhealthy cluster"));
    let moved =
        at.member_update(update(added.member.clone().unwrap().id, "http://127.0.0.1:4")).await.unwrap();
    let moved = moved.into_inner().members;
    assert!(moved.iter().any(|member| member.peer_ur_ls == ["http://127.0.0.1:4"]), "{moved:?}");
    let removed = at.member_remove(pb::MemberRemoveRequest { id: added.member.unwrap().id }).await.unwrap();
    assert_eq!(removed.into_inner().members.len(), 1);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_member_learns_of_it_and_leadership_moves() {
    let cluster = TestCluster::start(3, &CALM).await.unwrap();
    let first = leader(&cluster, 0).await;
    let (second, third) = ((first + 1) % 3, (first + 2) % 3);
    let to = pb::MoveLeaderRequest { target_id: cluster.member_id(second) };
    let refused_there = refusal(maintenance(&cluster, third).move_leader(to).await);
    assert_eq!(refused_there, refused(Code::FailedPrecondition, "etcdserver: not leader"));
    maintenance(&cluster, first).move_leader(to).await.unwrap();
    eventually("the new leader", async || {
        let status = maintenance(&cluster, second).status(pb::StatusRequest {}).await.unwrap();
        status.into_inner().leader == cluster.member_id(second)
    })
    .await;
    put(&mut kv(&cluster.endpoint(first)), "a", "1").await;

    let remove = pb::MemberRemoveRequest { id: cluster.member_id(third) };
    let left = members(&cluster, first).member_remove(remove).await.unwrap().into_inner();
    assert_eq!(left.members.len(), 2);
    let departed = tokio::time::timeout(std::time::Duration::from_secs(30), cluster.server(third).departed());
    assert_eq!(departed.await.unwrap(), Departure::Removed);
    put(&mut kv(&cluster.endpoint(first)), "b", "2").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn alarms_are_raised_listed_and_cleared_and_forbid_what_etcds_forbid() {
    let cluster = TestCluster::single().await.unwrap();
    let mut at = maintenance(&cluster, 0);
    let mut kv = kv(&cluster.endpoint(0));
    put(&mut kv, "a", "1").await;
    let ask = |action: pb::alarm_request::AlarmAction, member_id, alarm: pb::AlarmType| pb::AlarmRequest {
        action: action.into(),
        member_id,
        alarm: alarm.into(),
    };
    use pb::AlarmType::{Corrupt, None as All, Nospace};
    use pb::alarm_request::AlarmAction::{Activate, Deactivate, Get};
    let raised = at.alarm(ask(Activate, 0, Nospace)).await.unwrap().into_inner();
    assert_eq!(raised.alarms, [pb::AlarmMember { member_id: 0, alarm: Nospace.into() }]);
    let no_space = refused(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded");
    assert_eq!(refusal(kv.put(put_request("b", "2")).await), no_space);
    kv.delete_range(delete_request("b", "")).await.unwrap();
    let (code, said) = http_get(&cluster.endpoint(0), "/health").await;
    assert!(code == 503 && said.contains("ALARM NOSPACE"), "{code} {said}");
    assert_eq!(at.alarm(ask(Activate, 7, All)).await.unwrap().into_inner().alarms, []);
    at.alarm(ask(Activate, 7, Corrupt)).await.unwrap();
    let listed = at.alarm(ask(Get, 0, All)).await.unwrap().into_inner().alarms;
    assert_eq!(listed.len(), 2, "{listed:?}");
    assert_eq!(at.alarm(ask(Get, 0, Corrupt)).await.unwrap().into_inner().alarms.len(), 1);
    let corrupt = refused(Code::DataLoss, "etcdserver: corrupt cluster");
    assert_eq!(refusal(kv.delete_range(delete_request("a", "")).await), corrupt);
    assert_eq!(get(&mut kv, "a").await.as_deref(), Some("1"), "another member's data differs, not ours");
    let status = at.status(pb::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.errors, ["alarm:NOSPACE ", "memberID:7 alarm:CORRUPT "]);
    assert_eq!(
        at.alarm(ask(Deactivate, 0, Corrupt)).await.unwrap().into_inner().alarms,
        [],
        "the exact pair"
    );
    at.alarm(ask(Deactivate, 7, Corrupt)).await.unwrap();
    at.alarm(ask(Deactivate, 0, Nospace)).await.unwrap();
    put(&mut kv, "b", "2").await;

    // The member that differs gives no data, and says why.
    let own = cluster.member_id(0);
    let mut watching = Watching::open(&cluster.endpoint(0)).await;
    watching.create(watcher("a", "")).await;
    at.alarm(ask(Activate, own, Corrupt)).await.unwrap();
    let told = "etcdserver: this member's data cannot be trusted: use another member";
    assert_eq!(
        refusal(watching.answer().await),
        refused(Code::Unavailable, told),
        "watchers resume elsewhere"
    );
    assert_eq!(refusal(kv.range(range_request("a", "")).await), corrupt);
    let local = pb::RangeRequest { serializable: true, ..range_request("a", "") };
    assert_eq!(refusal(kv.range(local).await), corrupt);
    assert_eq!(http_get(&cluster.endpoint(0), "/readyz").await.0, 503);
    at.alarm(ask(Deactivate, own, Corrupt)).await.unwrap();
    assert_eq!(get(&mut kv, "a").await.as_deref(), Some("1"));
    // It may take a moment until it is noticed.
    eventually("a watch", async || {
        let create = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(watcher("a", ""))) };
        let mut watch = WatchClient::new(channel(&cluster.endpoint(0)));
        let mut answers = watch.watch(tokio_stream::iter([create])).await.unwrap().into_inner();
        matches!(answers.message().await, Ok(Some(answer)) if answer.created)
    })
    .await;
    cluster.stop().await;
}
