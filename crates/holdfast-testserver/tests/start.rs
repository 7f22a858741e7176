//! A server of one's own for each test.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]
#![allow(clippy::disallowed_methods, reason = "the time is that of this machine")]

use std::time::{Duration, Instant};

use holdfast_testserver::TestServer;

/// What a start may take. The fastest of many has to meet it, for other tests run beside this one.
const START_MAX: Duration = Duration::from_millis(100);
const STARTS: usize = 20;

/// A member is ready in less than 100 ms: no timeout is waited for, and no disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_ready_in_a_tenth_of_a_second() {
    let mut fastest = Duration::MAX;
    for _ in 0..STARTS {
        let began = Instant::now();
        let server = TestServer::start().await.unwrap();
        fastest = fastest.min(began.elapsed());
        server.stop().await;
    }
    assert!(fastest < START_MAX, "{fastest:?}");
}

/// Servers side by side are strangers, and nothing of them stays.
#[tokio::test(flavor = "multi_thread")]
async fn servers_side_by_side_share_nothing() {
    let mut servers = Vec::new();
    for _ in 0..4 {
        servers.push(TestServer::start().await.unwrap());
    }
    let mut directories: Vec<_> = servers.iter_mut().map(|server| server.cluster().data_dir(0)).collect();
    let mut endpoints: Vec<_> = servers.iter().map(TestServer::endpoint).collect();
    endpoints.sort_unstable();
    endpoints.dedup();
    assert_eq!(endpoints.len(), 4);
    directories.sort_unstable();
    directories.dedup();
    assert!(directories.len() == 4 && directories.iter().all(|directory| directory.exists()));
    for server in servers {
        server.stop().await;
    }
    assert!(directories.iter().all(|directory| !directory.exists()));
}

/// Three members are one cluster, of which each is ready.
#[tokio::test(flavor = "multi_thread")]
async fn three_members_are_one_cluster() {
    let mut server = TestServer::three().await.unwrap();
    assert_eq!(server.endpoints().len(), 3);
    let clusters: Vec<u64> =
        (0..3).map(|member| server.cluster().server(member).identity().cluster_id).collect();
    assert_eq!(clusters, vec![clusters[0]; 3]);
    server.stop().await;
}
