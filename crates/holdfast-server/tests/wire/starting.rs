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
