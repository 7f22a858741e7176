//! The quota on data: what is refused, and how that ends.

use std::time::Duration;

use holdfast_proto::etcdserverpb as pb;
use holdfast_testserver::{CALM, TestCluster};
use pb::alarm_request::AlarmAction;
use pb::lease_client::LeaseClient;
use pb::maintenance_client::MaintenanceClient;
use tonic::Code;
use tonic::transport::Channel;

use crate::common::*;
use crate::watching::PATIENCE;

/// Some 80 puts of a KiB.
const QUOTA: &str = "--quota-backend-bytes=100000";

fn full() -> (Code, String) {
    refused(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded")
}

async fn alarm(at: &mut MaintenanceClient<Channel>, action: AlarmAction, member_id: u64) -> Vec<u64> {
    let request = pb::AlarmRequest { action: action.into(), member_id, alarm: pb::AlarmType::Nospace.into() };
    let alarms = at.alarm(request).await.unwrap().into_inner().alarms;
    alarms.into_iter().map(|alarm| alarm.member_id).collect()
}

/// Puts until there is no space, and gives how many puts that were.
async fn fill(kv: &mut Kv) -> u32 {
    let value = "v".repeat(1024);
    for puts in 0..200 {
        if let Err(status) = kv.put(put_request(&format!("k{}", puts % 4), &value)).await {
            assert_eq!(refusal::<()>(Err(status)), full());
            return puts;
        }
    }
    panic!("200 KiB are more than the quota");
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_quota_what_needs_space_is_refused_until_history_goes() {
    let flags = [&CALM[..], &[QUOTA]].concat();
    let cluster = TestCluster::start(3, &flags).await.unwrap();
    let (mut here, mut there) = (kv(&cluster.endpoint(0)), kv(&cluster.endpoint(1)));
    let mut at = MaintenanceClient::new(channel(&cluster.endpoint(0)));
    let puts = fill(&mut here).await;
    assert!((60..100).contains(&puts), "{puts}");

    // Everywhere, in the name of the member that refused first.
    let raised = cluster.member_id(0);
    assert_eq!(alarm(&mut at, AlarmAction::Get, 0).await, [raised]);
    assert_eq!(refusal(there.put(put_request("small", "")).await), full());
    let txn = pb::TxnRequest { failure: vec![op_put("small", "")], ..Default::default() };
    assert_eq!(refusal(there.txn(txn).await), full());
    let grant = pb::LeaseGrantRequest { ttl: 60, id: 0 };
    let mut leases = LeaseClient::new(channel(&cluster.endpoint(1)));
    assert_eq!(refusal(leases.lease_grant(grant).await), full());
    let status = at.status(pb::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.errors, [format!("memberID:{raised} alarm:NOSPACE ")]);
    assert_eq!(status.db_size_quota, 100_000);
    // With the quota still reached, nobody gets anywhere by clearing the alarm.
    alarm(&mut at, AlarmAction::Deactivate, raised).await;
    assert_eq!(fill(&mut here).await, 0);

    // What frees space works; the alarm goes by itself then.
    let read = pb::TxnRequest { success: vec![op_range(range_request("k0", ""))], ..Default::default() };
    there.txn(read).await.unwrap();
    let deleted = there.delete_range(delete_request("k3", "")).await.unwrap().into_inner();
    assert_eq!(deleted.deleted, 1);
    let revision = deleted.header.unwrap().revision;
    there.compact(pb::CompactionRequest { revision, physical: false }).await.unwrap();
    tokio::time::timeout(PATIENCE, async {
        while !alarm(&mut at, AlarmAction::Get, 0).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the alarm is cleared");
    put(&mut there, "small", "").await;
    leases.lease_grant(grant).await.unwrap();

    // An operator's own alarm stays.
    assert_eq!(alarm(&mut at, AlarmAction::Activate, 0).await, [0]);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(refusal(there.put(put_request("small", "")).await), full());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_negative_quota_is_none() {
    let flags = [&CALM[..], &["--quota-backend-bytes=-1"]].concat();
    let cluster = TestCluster::start(1, &flags).await.unwrap();
    let mut kv = kv(&cluster.endpoint(0));
    put(&mut kv, "k", "v").await;
    let status = MaintenanceClient::new(channel(&cluster.endpoint(0))).status(pb::StatusRequest {}).await;
    assert_eq!(status.unwrap().into_inner().db_size_quota, 0);
    cluster.stop().await;
}
