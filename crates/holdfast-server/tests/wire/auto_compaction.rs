//! History that goes by itself, by the leader.

use std::time::Duration;

use holdfast_proto::etcdserverpb as pb;
use holdfast_testserver::{CALM, TestCluster};
use pb::maintenance_client::MaintenanceClient;
use tonic::Code;

use crate::common::*;
use crate::watching::PATIENCE;

async fn compact_revision(url: &str) -> i64 {
    let mut maintenance = MaintenanceClient::new(channel(url));
    let hashed = maintenance.hash_kv(pb::HashKvRequest::default()).await.unwrap();
    hashed.into_inner().compact_revision
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_older_than_the_period_goes_on_all_members() {
    let flags = [&CALM[..], &["--auto-compaction-retention=1s"]].concat();
    let cluster = TestCluster::start(3, &flags).await.unwrap();
    let mut at = kv(&cluster.endpoint(1));
    let first = put(&mut at, "a", "1").await;
    let second = put(&mut at, "a", "2").await;
    let is_gone = async || {
        let past = pb::RangeRequest { revision: first, ..range_request("a", "") };
        match at.clone().range(past).await {
            Ok(answer) => {
                assert_eq!(answer.into_inner().kvs[0].value.as_ref(), b"1");
                false
            }
            Err(status) => {
                assert_eq!(status.code(), Code::OutOfRange, "{status}");
                true
            }
        }
    };
    tokio::time::timeout(PATIENCE, async {
        while !is_gone().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("the first revision is compacted");
    for url in cluster.endpoints() {
        tokio::time::timeout(PATIENCE, async {
            while compact_revision(&url).await != second {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await
        .expect("all members compact to the newest revision, when nothing is written, and no further");
    }
    assert_eq!(get(&mut at, "a").await.as_deref(), Some("2"));
    let now = put(&mut at, "a", "3").await;
    assert_eq!(now, second + 1, "a compaction is no revision");
    cluster.stop().await;
}
