//! One member, from the wire: what clients of the etcd API see. Numbers are the contract's conformance vectors.

use crate::common::*;
use bytes::Bytes;
use holdfast_mvcc::validate::TXN_DEPTH_MAX;
use holdfast_proto::etcdserverpb as pb;
use holdfast_testserver::TestCluster;
use pb::maintenance_client::MaintenanceClient;
use pb::response_op;
use tonic::{Code, Request, Status};

async fn single() -> (TestCluster, Kv) {
    let cluster = TestCluster::single().await.unwrap();
    let kv = kv(&cluster.endpoint(0));
    (cluster, kv)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_store_counts_from_one() {
    let (cluster, mut kv) = single().await;
    let empty = kv.range(range_request("a", "")).await.unwrap().into_inner();
    assert_eq!((empty.header.as_ref().unwrap().revision, empty.count, empty.more), (1, 0, false));
    let deleted = kv.delete_range(delete_request("a", "")).await.unwrap().into_inner();
    assert_eq!((deleted.header.unwrap().revision, deleted.deleted), (1, 0));
    assert_eq!(put(&mut kv, "a", "1").await, 2);
    assert_eq!(put(&mut kv, "a", "1").await, 3, "a put of the same value is a change");
    let deleted = kv.delete_range(delete_request("a", "z")).await.unwrap().into_inner();
    assert_eq!((deleted.header.unwrap().revision, deleted.deleted), (4, 1));
    assert_eq!(put(&mut kv, "a", "2").await, 5);
    let range = kv.range(range_request("a", "")).await.unwrap().into_inner();
    let found = &range.kvs[0];
    assert_eq!(
        (found.create_revision, found.mod_revision, found.version),
        (5, 5, 1),
        "a new life begins at 1"
    );
    let header = range.header.unwrap();
    assert_eq!(header.member_id, cluster.member_id(0));
    assert!(header.cluster_id != 0 && header.raft_term > 0);
    cluster.stop().await;
}

/// Long answers are sent while they are read, when the index knows how long they are.
#[tokio::test(flavor = "multi_thread")]
async fn long_answers_are_whole_however_they_are_read() {
    let (cluster, mut kv) = single().await;
    let value = |number: usize| format!("{:04}", number * 37 % 300).repeat(250 + number);
    let key = |number: usize| format!("key/{number:04}");
    for number in 0..300 {
        put(&mut kv, &key(number), &value(number)).await;
    }
    let big = "b".repeat(200_000);
    let then = put(&mut kv, "big", &big).await;
    put(&mut kv, &key(7), "new").await;
    let read = async |request: pb::RangeRequest, kv: &mut Kv| kv.range(request).await.unwrap().into_inner();
    let one = read(pb::RangeRequest { revision: then, ..range_request("big", "") }, &mut kv).await;
    assert!(one.kvs.len() == 1 && one.kvs[0].value == big, "one key in the past");
    let all = || range_request("key/", "key0");
    let expected = |number: usize| if number == 7 { "new".to_owned() } else { value(number) };
    let check = |found: &pb::RangeResponse, numbers: &[usize]| {
        assert_eq!(found.count, 300);
        assert_eq!(found.kvs.len(), numbers.len());
        for (pair, number) in found.kvs.iter().zip(numbers) {
            assert!(pair.key == key(*number) && pair.value == expected(*number), "{number}");
        }
    };
    let numbers: Vec<usize> = (0..300).collect();
    check(&read(all(), &mut kv).await, &numbers);
    let page = read(pb::RangeRequest { limit: 200, ..all() }, &mut kv).await;
    assert!(page.more);
    check(&page, &numbers[..200]);
    let mut backwards = numbers.clone();
    backwards.reverse();
    check(&read(pb::RangeRequest { sort_order: 2, ..all() }, &mut kv).await, &backwards);
    let mut by_value = numbers.clone();
    by_value.sort_by_key(|number| expected(*number));
    check(&read(pb::RangeRequest { sort_target: 4, sort_order: 1, ..all() }, &mut kv).await, &by_value);
    let names = read(pb::RangeRequest { keys_only: true, ..all() }, &mut kv).await;
    assert!(names.kvs.len() == 300 && names.kvs.iter().all(|pair| pair.value.is_empty()));
    // Not all of it is the newest there.
    let past = read(pb::RangeRequest { revision: then, ..all() }, &mut kv).await;
    assert!(past.kvs[7].value == value(7) && past.kvs[299].value == value(299));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_are_cut_sorted_counted_and_read_in_the_past() {
    let (cluster, mut kv) = single().await;
    for (key, value) in [("a", "1"), ("b", "9"), ("c", "5"), ("a", "2")] {
        put(&mut kv, key, value).await;
    }
    let read = async |request: pb::RangeRequest, kv: &mut Kv| kv.range(request).await.unwrap().into_inner();
    let all = || range_request("a", "d");
    let cut = read(pb::RangeRequest { limit: 1, ..all() }, &mut kv).await;
    assert_eq!((keys(&cut), cut.more, cut.count), (vec!["a".to_owned()], true, 3));
    let whole = read(pb::RangeRequest { limit: 3, ..all() }, &mut kv).await;
    assert_eq!((whole.kvs.len(), whole.more), (3, false));
    let by_mod = read(pb::RangeRequest { sort_target: 3, ..all() }, &mut kv).await;
    assert_eq!(keys(&by_mod), ["b", "c", "a"]);
    let filtered = read(pb::RangeRequest { min_mod_revision: 4, ..all() }, &mut kv).await;
    assert_eq!((keys(&filtered), filtered.count), (vec!["a".to_owned(), "c".to_owned()], 3));
    let past = read(pb::RangeRequest { revision: 2, ..range_request("a", "") }, &mut kv).await;
    assert_eq!((past.kvs[0].value.as_ref(), past.header.unwrap().revision), (&b"1"[..], 5));
    let counted = read(pb::RangeRequest { count_only: true, ..range_request("\0", "\0") }, &mut kv).await;
    assert_eq!((counted.kvs.len(), counted.count), (0, 3));
    let names = read(pb::RangeRequest { keys_only: true, ..all() }, &mut kv).await;
    assert!(names.kvs.iter().all(|kv| kv.value.is_empty() && kv.mod_revision > 1));
    let local = read(pb::RangeRequest { serializable: true, ..all() }, &mut kv).await;
    assert_eq!(local.count, 3);
    let negative = read(pb::RangeRequest { revision: -1, ..range_request("a", "") }, &mut kv).await;
    assert_eq!(negative.kvs[0].value.as_ref(), b"2");
    assert_eq!(read(range_request("d", "a"), &mut kv).await.count, 0);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_the_contracts_codes_and_texts() {
    let (cluster, mut kv) = single().await;
    put(&mut kv, "a", "1").await;
    let invalid = |text: &str| refused(Code::InvalidArgument, text);
    let no_key = invalid("etcdserver: key is not provided");
    assert_eq!(refusal(kv.put(put_request("", "v")).await), no_key);
    assert_eq!(refusal(kv.range(range_request("", "")).await), no_key);
    assert_eq!(refusal(kv.range(pb::RangeRequest { sort_order: 9, ..range_request("", "") }).await), no_key);
    assert_eq!(refusal(kv.delete_range(delete_request("", "")).await), no_key);
    let sorted = pb::RangeRequest { sort_order: 9, ..range_request("a", "") };
    assert_eq!(refusal(kv.range(sorted).await), invalid("etcdserver: invalid sort option"));
    let put_with = |change: fn(&mut pb::PutRequest)| {
        let mut request = put_request("zz", "");
        change(&mut request);
        request
    };
    let kept = put_with(|r| r.ignore_value = true);
    assert_eq!(refusal(kv.put(kept).await), invalid("etcdserver: key not found"));
    let both = pb::PutRequest { ignore_value: true, ..put_request("a", "v") };
    assert_eq!(refusal(kv.put(both).await), invalid("etcdserver: value is provided"));
    let both = put_with(|r| (r.ignore_lease, r.lease) = (true, 5));
    assert_eq!(refusal(kv.put(both).await), invalid("etcdserver: lease is provided"));
    let leased = put_with(|r| r.lease = 78);
    assert_eq!(
        refusal(kv.put(leased).await),
        refused(Code::NotFound, "etcdserver: requested lease not found")
    );
    let future = pb::RangeRequest { revision: 1000, ..range_request("a", "") };
    let text = "etcdserver: mvcc: required revision is a future revision";
    assert_eq!(refusal(kv.range(future).await), refused(Code::OutOfRange, text));
    assert_eq!(put(&mut kv, "b", "1").await, 3, "no refusal has changed anything");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_compare_run_and_are_validated() {
    let (cluster, mut kv) = single().await;
    for key in ["a", "b", "c", "d"] {
        put(&mut kv, key, "v").await;
    }
    let ran = kv.txn(txn(vec![
        op_put("x", "1"),
        op_range(range_request("x", "")),
        op_delete("c", ""),
        op_range(range_request("c", "")),
    ]));
    let ran = ran.await.unwrap().into_inner();
    assert_eq!((ran.header.unwrap().revision, ran.succeeded), (6, true));
    assert_eq!(inner_range(&ran.responses[1]).kvs[0].mod_revision, 6);
    assert_eq!(inner_range(&ran.responses[3]).count, 0);
    let Some(response_op::Response::ResponsePut(inner)) = &ran.responses[0].response else {
        panic!("{ran:?}")
    };
    assert_eq!(inner.header, Some(pb::ResponseHeader { revision: 6, ..Default::default() }));
    let mut compare = pb::Compare { result: 0, target: 3, key: bytes("nope"), ..Default::default() };
    compare.target_union = Some(pb::compare::TargetUnion::Value(Bytes::new()));
    let not_equal = pb::Compare { result: 3, ..compare.clone() };
    for compare in [compare, not_equal] {
        let request = pb::TxnRequest { compare: vec![compare], ..txn(vec![]) };
        assert!(
            !kv.txn(request).await.unwrap().into_inner().succeeded,
            "a missing key has no value to compare"
        );
    }
    let nested =
        kv.txn(txn(vec![op_txn(txn(vec![op_put("n1", "")])), op_put("n2", "")])).await.unwrap().into_inner();
    assert_eq!(nested.header.unwrap().revision, 7);
    let Some(response_op::Response::ResponseTxn(inner)) = &nested.responses[0].response else {
        panic!("{nested:?}")
    };
    assert_eq!(inner.header, Some(pb::ResponseHeader::default()));
    let empty = kv.txn(txn(vec![])).await.unwrap().into_inner();
    assert_eq!((empty.succeeded, empty.header.unwrap().revision), (true, 7));
    let invalid = |text: &str| refused(Code::InvalidArgument, text);
    let duplicate = invalid("etcdserver: duplicate key given in txn request");
    assert_eq!(refusal(kv.txn(txn(vec![op_put("x", ""), op_put("x", "")])).await), duplicate);
    assert_eq!(refusal(kv.txn(txn(vec![op_put("x", ""), op_delete("w", "z")])).await), duplicate);
    let unset = txn(vec![pb::RequestOp { request: None }]);
    assert_eq!(refusal(kv.txn(unset).await), invalid("etcdserver: key not found"));
    let many = txn((0..129).map(|n| op_put(&format!("k{n}"), "")).collect());
    assert_eq!(refusal(kv.txn(many).await), invalid("etcdserver: too many operations in txn request"));
    let future = txn(vec![op_range(pb::RangeRequest { revision: 999, ..range_request("x", "") })]);
    let text = "etcdserver: mvcc: required revision is a future revision";
    assert_eq!(refusal(kv.txn(future).await), refused(Code::OutOfRange, text));
    assert_eq!(put(&mut kv, "end", "").await, 8);
    cluster.stop().await;
}

/// `innermost` in so many transactions, one in the other.
fn nested(depth: usize, innermost: pb::RequestOp) -> pb::TxnRequest {
    (1..depth).fold(txn(vec![innermost]), |inner, _| txn(vec![op_txn(inner)]))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deeply_nested_transaction_stops_nobody() {
    let (mut cluster, mut kv) = single().await;
    let deepest = nested(TXN_DEPTH_MAX, op_delete("a", "\0"));
    assert!(kv.txn(deepest).await.unwrap().into_inner().succeeded);
    let too_many = refused(Code::InvalidArgument, "etcdserver: too many operations in txn request");
    // From 48 on the log entry could not be read again; up to 50 the request can.
    for depth in [TXN_DEPTH_MAX + 1, 47, 48, 49, 50] {
        for op in [op_delete("a", "\0"), op_range(range_request("a", "\0")), op_put("a", "1")] {
            assert_eq!(refusal(kv.txn(nested(depth, op)).await), too_many, "{depth} deep");
        }
    }
    for depth in [51, 100] {
        kv.txn(nested(depth, op_put("a", "1"))).await.unwrap_err();
    }
    assert_eq!(put(&mut kv, "b", "2").await, 2, "nothing was written before");
    cluster.stop_member(0).await;
    cluster.start_member(0).await.unwrap();
    let mut kv = crate::common::kv(&cluster.endpoint(0));
    assert_eq!(get(&mut kv, "b").await.as_deref(), Some("2"));
    assert_eq!(get(&mut kv, "a").await, None);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_transaction_sees_one_revision_and_writes_no_log() {
    let (cluster, mut kv) = single().await;
    put(&mut kv, "a", "1").await;
    put(&mut kv, "b", "2").await;
    let index = async || {
        let mut maintenance = MaintenanceClient::new(channel(&cluster.endpoint(0)));
        maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner().raft_index
    };
    let before = index().await;
    let old = pb::RangeRequest { revision: 2, ..range_request("a", "z") };
    let reads = txn(vec![op_range(range_request("a", "z")), op_range(old)]);
    let answer = kv.txn(reads).await.unwrap().into_inner();
    assert_eq!((answer.header.unwrap().revision, answer.succeeded), (3, true));
    assert_eq!((inner_range(&answer.responses[0]).count, inner_range(&answer.responses[1]).count), (2, 1));
    assert_eq!(index().await, before);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_moves_the_floor() {
    let (cluster, mut kv) = single().await;
    for value in ["1", "2", "3"] {
        put(&mut kv, "a", value).await;
    }
    let compact = |revision, physical| pb::CompactionRequest { revision, physical };
    let compacted = refused(Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted");
    let future = refused(Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision");
    assert_eq!(refusal(kv.compact(compact(10_000, false)).await), future);
    let answer = kv.compact(compact(3, true)).await.unwrap().into_inner();
    assert_eq!(answer.header.unwrap().revision, 4);
    assert_eq!(refusal(kv.compact(compact(3, false)).await), compacted);
    assert_eq!(refusal(kv.compact(compact(0, false)).await), compacted);
    let at = |revision| pb::RangeRequest { revision, ..range_request("a", "") };
    assert_eq!(refusal(kv.range(at(2)).await), compacted);
    assert_eq!(kv.range(at(3)).await.unwrap().into_inner().kvs[0].value.as_ref(), b"2");
    let mut maintenance = MaintenanceClient::new(channel(&cluster.endpoint(0)));
    let hash = async |revision, client: &mut MaintenanceClient<_>| {
        client.hash_kv(pb::HashKvRequest { revision }).await.map(tonic::Response::into_inner)
    };
    assert_eq!(refusal(hash(2, &mut maintenance).await), compacted);
    assert_eq!(refusal(hash(99, &mut maintenance).await), future);
    // covers: Maintenance.HashKV HashKVResponse.hash_revision
    let hashed = hash(0, &mut maintenance).await.unwrap();
    assert_eq!((hashed.compact_revision, hashed.hash_revision), (3, 4));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_requests_meet_two_limits() {
    let (cluster, mut kv) = single().await;
    let put =
        |bytes: usize| pb::PutRequest { key: bytes_of(1), value: bytes_of(bytes), ..Default::default() };
    assert_eq!(
        refusal(kv.put(put(1_572_864)).await),
        refused(Code::InvalidArgument, "etcdserver: request is too large")
    );
    let (code, text) = refusal(kv.put(put(2_187_264)).await);
    assert_eq!(code, Code::ResourceExhausted);
    assert!(
        text.starts_with("grpc: received message larger than max (2187") && text.ends_with(" vs. 2097152)"),
        "{text}"
    );
    kv.put(put(1_500_000)).await.unwrap();
    for n in 0_u8..8 {
        kv.put(pb::PutRequest { key: Bytes::from(vec![b'l', n]), ..put(1_000_000) }).await.unwrap();
    }
    let all = kv.range(range_request("l", "m")).await.unwrap().into_inner();
    assert_eq!(all.kvs.iter().map(|kv| kv.value.len()).sum::<usize>(), 8_000_000, "answers have no limit");
    cluster.stop().await;
}

fn bytes_of(length: usize) -> Bytes {
    Bytes::from(vec![b'x'; length])
}

/// A call of any name, with an empty message.
async fn call(url: &str, path: &'static str) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(channel(url));
    client.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<pb::StatusRequest, pb::StatusResponse>::default();
    let path = http::uri::PathAndQuery::from_static(path);
    client.unary(Request::new(pb::StatusRequest {}), path, codec).await.map(drop)
}

/// Clients take it for "not there", fall back and do not retry: any other code would stop them.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_answers_unimplemented() {
    let (cluster, _) = single().await;
    let url = cluster.endpoint(0);
    for path in [
        "/etcdserverpb.KV/RangeBackwards",
        "/etcdserverpb.Watch/Unwatch",
        "/etcdserverpb.Lease/LeaseBorrow",
        "/etcdserverpb.Maintenance/DowngradeVersionTest",
        "/etcdserverpb.Cluster/MemberPraise",
        "/etcdserverpb.Nothing/Range",
        "/etcdserverpb.KV",
        "/nothing.at.All/Call",
    ] {
        let status = call(&url, path).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{path}: {status:?}");
    }
    call(&url, "/etcdserverpb.Maintenance/Status").await.expect("what is there is served");
    let mut maintenance = MaintenanceClient::new(channel(&url));
    let alarms = maintenance.alarm(pb::AlarmRequest::default()).await.unwrap().into_inner();
    assert!(alarms.alarms.is_empty() && alarms.header.is_some());
    // covers: Maintenance.Defragment DefragmentResponse.header
    let defragmented = maintenance.defragment(pb::DefragmentRequest {}).await.unwrap().into_inner();
    assert!(defragmented.header.is_none(), "as in etcd");
    cluster.stop().await;
}

// covers: Maintenance.Status StatusResponse.storageVersion StatusResponse.dbSizeQuota StatusResponse.downgradeInfo
// covers: Maintenance.Status DowngradeInfo.enabled DowngradeInfo.targetVersion StatusResponse.errors StatusResponse.isLearner
#[tokio::test(flavor = "multi_thread")]
async fn status_tells_what_clients_look_for() {
    let (cluster, mut kv) = single().await;
    put(&mut kv, "a", "1").await;
    let mut maintenance = MaintenanceClient::new(channel(&cluster.endpoint(0)));
    let mut request = Request::new(pb::StatusRequest {});
    request.metadata_mut().insert("hasleader", "true".parse().unwrap());
    let status = maintenance.status(request).await.unwrap().into_inner();
    assert_eq!((status.version.as_str(), status.storage_version.as_str()), ("3.7.0", "3.7.0"));
    assert!(status.db_size > 0 && status.db_size_in_use > 0);
    assert_eq!(status.db_size_quota, 2_147_483_648);
    assert_eq!(status.leader, cluster.member_id(0));
    assert_eq!(status.header.unwrap().revision, 2);
    assert!(status.raft_index >= status.raft_applied_index && status.raft_applied_index > 0);
    assert!(status.errors.is_empty() && !status.is_learner);
    assert_eq!(status.downgrade_info, Some(pb::DowngradeInfo::default()));
    let fresh = maintenance.hash_kv(pb::HashKvRequest { revision: 0 }).await.unwrap().into_inner();
    assert_eq!((fresh.compact_revision, fresh.hash != 0), (-1, true));
    assert_ne!(maintenance.hash(pb::HashRequest {}).await.unwrap().into_inner().hash, 0);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_everything() {
    let (mut cluster, mut kv) = single().await;
    for n in 0..50 {
        put(&mut kv, &format!("k{n:02}"), "v").await;
    }
    kv.compact(pb::CompactionRequest { revision: 20, physical: false }).await.unwrap();
    let mut maintenance = MaintenanceClient::new(channel(&cluster.endpoint(0)));
    let before = maintenance.hash_kv(pb::HashKvRequest { revision: 0 }).await.unwrap().into_inner();
    cluster.stop_member(0).await;
    cluster.start_member(0).await.unwrap();
    let mut kv = crate::common::kv(&cluster.endpoint(0));
    let mut maintenance = MaintenanceClient::new(channel(&cluster.endpoint(0)));
    let after = maintenance.hash_kv(pb::HashKvRequest { revision: 0 }).await.unwrap().into_inner();
    assert_eq!((before.hash, before.compact_revision), (after.hash, after.compact_revision));
    let all = kv.range(range_request("k", "l")).await.unwrap().into_inner();
    assert_eq!((all.count, all.header.unwrap().revision), (50, 51));
    assert_eq!(put(&mut kv, "next", "").await, 52);
    cluster.stop().await;
}
