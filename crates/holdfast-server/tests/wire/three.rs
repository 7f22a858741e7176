//! Three members: any of them serves, and one may go.

use std::time::Duration;

use crate::common::*;
use holdfast_proto::etcdserverpb as pb;
use holdfast_testserver::TestCluster;
use pb::cluster_client::ClusterClient;
use pb::maintenance_client::MaintenanceClient;
use tonic::{Code, Request};

async fn status(cluster: &TestCluster, member: usize) -> pb::StatusResponse {
    let mut client = MaintenanceClient::new(channel(&cluster.endpoint(member)));
    client.status(pb::StatusRequest {}).await.unwrap().into_inner()
}

pub(crate) async fn leader(cluster: &TestCluster, asked: usize) -> usize {
    let leader = status(cluster, asked).await.leader;
    (0..3).find(|member| cluster.member_id(*member) == leader).expect("a ready member knows the leader")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_anywhere_is_read_everywhere() {
    let cluster = TestCluster::three().await.unwrap();
    for writer in 0..3 {
        let mut at_writer = kv(&cluster.endpoint(writer));
        let key = format!("from-{writer}");
        put(&mut at_writer, &key, "v").await;
        for reader in 0..3 {
            assert_eq!(
                get(&mut kv(&cluster.endpoint(reader)), &key).await.as_deref(),
                Some("v"),
                "{writer} to {reader}"
            );
        }
    }
    let mut hashes = Vec::new();
    for member in 0..3 {
        let mut client = MaintenanceClient::new(channel(&cluster.endpoint(member)));
        hashes.push(client.hash_kv(pb::HashKvRequest { revision: 4 }).await.unwrap().into_inner().hash);
    }
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_member_list_has_names_and_urls() {
    let cluster = TestCluster::three().await.unwrap();
    let mut client = ClusterClient::new(channel(&cluster.endpoint(1)));
    let list = client.member_list(pb::MemberListRequest { linearizable: true }).await.unwrap().into_inner();
    let header = list.header.unwrap();
    assert_eq!(header.revision, 0, "membership calls tell no revision");
    assert_eq!(header.member_id, cluster.member_id(1));
    assert_eq!(list.members.len(), 3);
    assert!(list.members.is_sorted_by_key(|member| member.id));
    for at in 0..3 {
        let member = list.members.iter().find(|member| member.id == cluster.member_id(at)).unwrap();
        assert_eq!(
            (member.name.clone(), member.client_ur_ls.clone()),
            (format!("n{at}"), vec![cluster.endpoint(at)])
        );
        assert_eq!((member.peer_ur_ls.len(), member.is_learner), (1, false));
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cluster_goes_on_without_its_leader_and_takes_it_back() {
    let mut cluster = TestCluster::start(3, &[]).await.unwrap();
    let first = leader(&cluster, 0).await;
    let other = (first + 1) % 3;
    let mut at_other = kv(&cluster.endpoint(other));
    put(&mut at_other, "before", "1").await;
    cluster.stop_member(first).await;
    put(&mut at_other, "during", "2").await;
    assert_eq!(get(&mut at_other, "before").await.as_deref(), Some("1"));
    assert_ne!(leader(&cluster, other).await, first);
    cluster.start_member(first).await.unwrap();
    let mut back = kv(&cluster.endpoint(first));
    assert_eq!(get(&mut back, "during").await.as_deref(), Some("2"));
    assert_eq!(put(&mut back, "after", "3").await, 4);
    cluster.stop().await;
}

/// The refusal of a write whose client waits for 400 ms only. The client's own transport gives up at that time too: on
/// a machine that stands still for the last of them, its words come first, so a few attempts are allowed.
async fn hurried(kv: &mut Kv) -> (Code, String) {
    let mut refused = (Code::Ok, String::new());
    for _ in 0..5 {
        let mut impatient = Request::new(put_request("c", ""));
        impatient.set_timeout(Duration::from_millis(400));
        refused = refusal(kv.put(impatient).await);
        if refused.0 != Code::Cancelled {
            break;
        }
    }
    refused
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_nothing_is_confirmed_and_the_texts_say_so() {
    let mut cluster =
        TestCluster::start(3, &["--election-timeout=500", "--heartbeat-interval=50"]).await.unwrap();
    let mut kv = kv(&cluster.endpoint(2));
    put(&mut kv, "a", "1").await;
    cluster.stop_member(0).await;
    cluster.stop_member(1).await;
    let local = pb::RangeRequest { serializable: true, ..range_request("a", "") };
    assert_eq!(kv.range(local).await.unwrap().into_inner().count, 1, "local reads go on");
    let (code, text) = refusal(kv.put(put_request("b", "")).await);
    assert_eq!(code, Code::Unavailable);
    assert!(text == "etcdserver: no leader" || text.starts_with("etcdserver: request timed out"), "{text}");
    let (code, text) = refusal(kv.range(range_request("a", "")).await);
    assert_eq!(code, Code::Unavailable, "{text}");
    let mut wants_leader = Request::new(range_request("a", ""));
    wants_leader.metadata_mut().insert("hasleader", "true".parse().unwrap());
    assert_eq!(refusal(kv.range(wants_leader).await), refused(Code::Unavailable, "etcdserver: no leader"));
    assert_eq!(status(&cluster, 2).await.errors, ["etcdserver: no leader"]);
    let ours = [
        refused(Code::DeadlineExceeded, "etcdserver: context deadline exceeded"),
        refused(Code::Unavailable, "etcdserver: no leader"),
    ];
    let hurried = hurried(&mut kv).await;
    assert!(ours.contains(&hurried), "{hurried:?}");
    cluster.stop().await;
}
