//! The plain HTTP side and the gRPC services that are not etcd's: health, metrics, reflection.

use crate::common::*;
use holdfast_testserver::TestCluster;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

#[tokio::test(flavor = "multi_thread")]
async fn health_checks_answer_as_etcds_do() {
    let cluster = TestCluster::single().await.unwrap();
    let url = cluster.endpoint(0);
    assert_eq!(http_get(&url, "/health").await, (200, r#"{"health":"true","reason":""}"#.to_owned()));
    assert_eq!(http_get(&url, "/health?serializable=true").await.0, 200);
    assert_eq!(http_get(&url, "/livez").await, (200, "ok\n".to_owned()));
    assert_eq!(http_get(&url, "/livez?verbose").await, (200, "[+]serializable_read ok\nok\n".to_owned()));
    let verbose =
        "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n[+]non_learner ok\nok\n";
    assert_eq!(http_get(&url, "/readyz?verbose").await, (200, verbose.to_owned()));
    let (_, without) = http_get(&url, "/readyz?verbose&exclude=linearizable_read").await;
    assert!(!without.contains("linearizable_read") && without.contains("non_learner"), "{without}");
    assert_eq!(http_get(&url, "/readyz/linearizable_read").await, (200, "ok\n".to_owned()));
    assert_eq!(http_get(&url, "/livez/linearizable_read").await.0, 404, "no check of livez");
    assert_eq!(http_request("POST", &url, "/health").await.0, 405);
    assert_eq!(http_get(&url, "/nothing").await.0, 404);
    let (status, version) = http_get(&url, "/version").await;
    assert_eq!(status, 200);
    for part in [r#""etcdserver":"3.7.0""#, r#""etcdcluster":"3.7.0""#, r#""holdfast":"#] {
        assert!(version.contains(part), "{version}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_a_member_lives_but_is_not_ready() {
    // A short budget, so that the failing checks fail soon.
    let mut cluster =
        TestCluster::start(3, &["--election-timeout=500", "--heartbeat-interval=50"]).await.unwrap();
    cluster.stop_member(0).await;
    cluster.stop_member(1).await;
    let url = cluster.endpoint(2);
    let (status, body) = http_get(&url, "/readyz").await;
    assert_eq!(status, 503);
    assert!(body.contains("[+]serializable_read ok\n[-]linearizable_read failed: etcdserver: "), "{body}");
    assert_eq!(http_get(&url, "/livez").await, (200, "ok\n".to_owned()));
    assert_eq!(http_get(&url, "/health?serializable=true").await.0, 200);
    let (status, body) = http_get(&url, "/health").await;
    assert_eq!(status, 503);
    assert!(body.contains(r#""health":"false""#), "{body}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_have_etcds_names() {
    let cluster = TestCluster::single().await.unwrap();
    let url = cluster.endpoint(0);
    let mut kv = kv(&url);
    put(&mut kv, "a", "1").await;
    put(&mut kv, "a", "2").await;
    get(&mut kv, "a").await;
    kv.delete_range(delete_request("a", "")).await.unwrap();
    drop(kv.put(put_request("", "")).await.unwrap_err());
    let (status, page) = http_get(&url, "/metrics").await;
    assert_eq!(status, 200);
    let rpc = |method: &str, code: &str| {
        format!(
            "grpc_server_handled_total{{grpc_code=\"{code}\",grpc_method=\"{method}\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"}}"
        )
    };
    for line in [
        "etcd_server_has_leader 1".to_owned(),
        "etcd_server_is_leader 1".to_owned(),
        "etcd_mvcc_put_total 2".to_owned(),
        "etcd_mvcc_delete_total 1".to_owned(),
        "etcd_debugging_mvcc_current_revision 4".to_owned(),
        "etcd_server_version{server_version=\"3.7.0\"} 1".to_owned(),
        format!("etcd_server_id{{server_id=\"{:x}\"}} 1", cluster.member_id(0)),
        "holdfast_dispatcher_state{state=\"normal\"} 1".to_owned(),
        "holdfast_log_is_full 0".to_owned(),
        "holdfast_overlay_keys{kind=\"frozen\"} 0".to_owned(),
        "holdfast_guard_skips_total{reason=\"entry\"} 0".to_owned(),
        "holdfast_backpressure_total{level=\"hold\"} 0".to_owned(),
        "holdfast_dump_switch_stall_seconds_count{at=\"start\"} 0".to_owned(),
        format!("{} 2", rpc("Put", "OK")),
        format!("{} 1", rpc("Put", "InvalidArgument")),
        format!("{} 1", rpc("Range", "OK")),
        format!("{} 1", rpc("DeleteRange", "OK")),
    ] {
        assert!(page.lines().any(|found| found == line), "no \"{line}\" in\n{page}");
    }
    for name in [
        "etcd_disk_wal_fsync_duration_seconds_bucket",
        "etcd_server_leader_changes_seen_total ",
        "etcd_server_proposals_committed_total ",
        "etcd_server_proposals_applied_total ",
        "etcd_server_proposals_pending ",
        "etcd_server_proposals_failed_total ",
        "etcd_mvcc_db_total_size_in_bytes ",
        "process_resident_memory_bytes ",
        "process_start_time_seconds ",
        "holdfast_stable_lag_entries ",
        "holdfast_dispatch_queue_depth ",
        "holdfast_dispatch_queue_bytes ",
        "holdfast_dump_bytes ",
        "holdfast_dump_mib_per_second ",
        "holdfast_memtable_bytes ",
    ] {
        assert!(page.lines().any(|line| line.starts_with(name)), "no {name} in\n{page}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_health_and_reflection_answer() {
    let cluster = TestCluster::single().await.unwrap();
    let mut health = HealthClient::new(channel(&cluster.endpoint(0)));
    let check = |service: &str| HealthCheckRequest { service: service.to_owned() };
    let status = health.check(check("")).await.unwrap().into_inner().status();
    assert_eq!(status, ServingStatus::Serving);
    assert_eq!(health.check(check("nobody")).await.map(drop).unwrap_err().code(), tonic::Code::NotFound);
    let mut reflection = ServerReflectionClient::new(channel(&cluster.endpoint(0)));
    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = reflection.server_reflection_info(tokio_stream::once(list)).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(services) = answer else { panic!("{answer:?}") };
    let names: Vec<_> = services.service.iter().map(|service| service.name.as_str()).collect();
    for name in ["etcdserverpb.KV", "etcdserverpb.Watch", "v3lockpb.Lock", "grpc.health.v1.Health"] {
        assert!(names.contains(&name), "{names:?}");
    }
    cluster.stop().await;
}
