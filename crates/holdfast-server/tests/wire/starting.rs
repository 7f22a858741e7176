//! What clients see that come before a member is ready.

use holdfast_proto::etcdserverpb as pb;
use holdfast_testserver::TestCluster;
use pb::cluster_client::ClusterClient;

use crate::common::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_starts_names_itself_in_its_first_list() {
    let cluster = TestCluster::start_without_waiting(1, &[]).await.unwrap();
    let mut client = ClusterClient::new(channel(&cluster.endpoint(0)));
    let list = client.member_list(pb::MemberListRequest { linearizable: false }).await.unwrap().into_inner();
    assert_eq!((list.members[0].name.as_str(), list.members[0].client_ur_ls.len()), ("n0", 1));
    cluster.stop().await;
}

/// What it shows then may be less than it has shown before its end.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_shows_nothing_before_it_has_caught_up() {
    let mut cluster = TestCluster::three().await.unwrap();
    put(&mut kv(&cluster.endpoint(0)), "a", "1").await;
    for member in 0..3 {
        cluster.stop_member(member).await;
    }
    cluster.start_member_without_waiting(0).await.unwrap();
    let mut at_first = kv(&cluster.endpoint(0));
    let local = pb::RangeRequest { serializable: true, ..range_request("a", "") };
    let mut impatient = tonic::Request::new(local.clone());
    impatient.set_timeout(std::time::Duration::from_millis(600));
    assert!(
        at_first.range(impatient).await.is_err(),
        "a local read was answered without a quorum since the start"
    );
    let read = pb::TxnRequest {
        success: vec![pb::RequestOp { request: Some(pb::request_op::Request::RequestRange(local.clone())) }],
        ..Default::default()
    };
    let mut impatient = tonic::Request::new(read);
    impatient.set_timeout(std::time::Duration::from_millis(600));
    assert!(at_first.txn(impatient).await.is_err(), "nor is a transaction of local reads");
    cluster.start_member_without_waiting(1).await.unwrap();
    cluster.start_member(2).await.unwrap();
    assert_eq!(at_first.range(local).await.unwrap().into_inner().count, 1);
    cluster.stop().await;
}
