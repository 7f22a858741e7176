//! KV.RangeStream: its pieces, put together, are what Range answers; and a client that does not read costs nothing.

use holdfast_proto::etcdserverpb as pb;
use holdfast_testserver::TestCluster;
use prost::Message;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};

use crate::common::*;
use crate::watch_cluster::HURRIED;
use crate::watching::{Watching, watcher};

/// All pieces, up to the end or the first error.
async fn pieces(kv: &mut Kv, request: pb::RangeRequest) -> Result<Vec<pb::RangeResponse>, Status> {
    let mut stream = kv.range_stream(request).await?.into_inner();
    let mut pieces = Vec::new();
    while let Some(piece) = stream.message().await? {
        pieces.push(piece.range_response.unwrap());
    }
    Ok(pieces)
}

/// Put together as protobuf puts messages together: numbers are replaced, lists are joined.
fn merged(pieces: &[pb::RangeResponse]) -> pb::RangeResponse {
    let mut merged = pb::RangeResponse::default();
    for piece in pieces {
        merged.merge(piece.encode_to_vec().as_slice()).unwrap();
    }
    merged
}

/// Streams a list, holds it against Range, and gives the number of its pieces.
async fn check(kv: &mut Kv, request: pb::RangeRequest) -> usize {
    let pieces = pieces(kv, request.clone()).await.unwrap();
    let (last, others) = pieces.split_last().expect("an empty list is one piece");
    for piece in others {
        assert!(!piece.kvs.is_empty(), "a piece of nothing");
        assert_eq!((&piece.header, piece.more, piece.count), (&None, false, 0), "only the last one says it");
    }
    assert!(last.header.is_some());
    let whole = kv.range(request.clone()).await.unwrap().into_inner();
    assert_eq!(merged(&pieces), whole, "{request:?}");
    pieces.len()
}

/// 48 keys of 64 KiB, which take several pieces, and their store's revision.
async fn long_list(kv: &mut Kv, value: u8) -> i64 {
    let mut revision = 0;
    for n in 0..48 {
        let value = vec![value; 64 * 1024].into();
        let put = pb::PutRequest { value, ..put_request(&format!("long/{n:02}"), "") };
        revision = kv.put(put).await.unwrap().into_inner().header.unwrap().revision;
    }
    revision
}

fn long() -> pb::RangeRequest {
    range_request("long/", "long0")
}

// covers: KV.RangeStream RangeRequest.key RangeRequest.range_end RangeRequest.limit RangeRequest.revision
// covers: KV.RangeStream RangeRequest.serializable RangeRequest.keys_only RangeRequest.count_only
// covers: KV.RangeStream RangeRequest.sort_order RangeRequest.sort_target
// covers: KV.RangeStream RangeStreamResponse.range_response RangeResponse.header RangeResponse.kvs RangeResponse.more
// covers: KV.RangeStream RangeResponse.count ResponseHeader.cluster_id ResponseHeader.member_id
// covers: KV.RangeStream ResponseHeader.revision ResponseHeader.raft_term KeyValue.key KeyValue.create_revision
// covers: KV.RangeStream KeyValue.mod_revision KeyValue.version KeyValue.value KeyValue.lease
#[tokio::test(flavor = "multi_thread")]
async fn the_pieces_together_are_what_range_answers() {
    let cluster = TestCluster::single().await.unwrap();
    let mut kv = kv(&cluster.endpoint(0));
    assert_eq!(check(&mut kv, range_request("a", "z")).await, 1, "nothing");
    let before = put(&mut kv, "long/00", "was here before").await;
    long_list(&mut kv, 1).await;
    put(&mut kv, "other", "key").await;
    let mut leases = pb::lease_client::LeaseClient::new(channel(&cluster.endpoint(0)));
    leases.lease_grant(pb::LeaseGrantRequest { ttl: 500, id: 7 }).await.unwrap();
    kv.put(pb::PutRequest { lease: 7, ..put_request("long/02", "leased") }).await.unwrap();
    kv.delete_range(delete_request("long/07", "")).await.unwrap();
    assert!(check(&mut kv, long()).await > 5, "three MiB in pieces of a quarter");
    for limit in [1, 2, 5, 46, 47, 48, 1000, -1] {
        check(&mut kv, pb::RangeRequest { limit, ..long() }).await;
    }
    check(&mut kv, range_request("\0", "\0")).await;
    check(&mut kv, pb::RangeRequest { limit: 3, ..range_request("long/20", "\0") }).await;
    check(&mut kv, range_request("other", "")).await;
    check(&mut kv, range_request("none", "")).await;
    assert_eq!(check(&mut kv, range_request("z", "a")).await, 1);
    assert_eq!(check(&mut kv, pb::RangeRequest { keys_only: true, ..long() }).await, 1);
    assert_eq!(check(&mut kv, pb::RangeRequest { count_only: true, ..long() }).await, 1);
    check(&mut kv, pb::RangeRequest { count_only: true, limit: 3, ..long() }).await;
    check(&mut kv, pb::RangeRequest { serializable: true, ..long() }).await;
    check(&mut kv, pb::RangeRequest { sort_order: 1, ..long() }).await;
    // The header is of now, the list of then.
    check(&mut kv, pb::RangeRequest { revision: before + 20, ..long() }).await;
    let past = pieces(&mut kv, pb::RangeRequest { revision: before, ..long() }).await.unwrap();
    let past = merged(&past);
    assert_eq!((past.count, past.kvs[0].value.as_ref()), (1, &b"was here before"[..]));
    assert!(past.header.unwrap().revision > before);
    cluster.stop().await;
}

// covers: KV.RangeStream RangeRequest.min_mod_revision RangeRequest.max_mod_revision RangeRequest.min_create_revision
// covers: KV.RangeStream RangeRequest.max_create_revision
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_streamed_is_refused() {
    let cluster = TestCluster::single().await.unwrap();
    let mut kv = kv(&cluster.endpoint(0));
    put(&mut kv, "a", "1").await;
    let all = || range_request("a", "z");
    let sorted = refused(Code::Unimplemented, "RangeStream does not support custom sort orders");
    let filtered = refused(Code::Unimplemented, "RangeStream does not support revision filters");
    let invalid = |text: &str| refused(Code::InvalidArgument, text);
    let cases = [
        (pb::RangeRequest { sort_order: 2, ..all() }, sorted.clone()),
        (pb::RangeRequest { sort_order: 1, sort_target: 4, ..all() }, sorted.clone()),
        (pb::RangeRequest { sort_target: 3, ..all() }, sorted),
        (pb::RangeRequest { min_mod_revision: 1, ..all() }, filtered.clone()),
        (pb::RangeRequest { max_mod_revision: -1, ..all() }, filtered.clone()),
        (pb::RangeRequest { min_create_revision: 1, ..all() }, filtered.clone()),
        (pb::RangeRequest { max_create_revision: 9, ..all() }, filtered),
        (
            pb::RangeRequest { sort_order: 2, ..range_request("", "") },
            invalid("etcdserver: key is not provided"),
        ),
        (pb::RangeRequest { sort_order: 9, ..all() }, invalid("etcdserver: invalid sort option")),
        (
            pb::RangeRequest { revision: 99, ..all() },
            refused(Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision"),
        ),
    ];
    for (request, expected) in cases {
        assert_eq!(refusal(pieces(&mut kv, request.clone()).await), expected, "{request:?}");
    }
    put(&mut kv, "a", "2").await;
    kv.compact(pb::CompactionRequest { revision: 3, physical: false }).await.unwrap();
    let compacted = refused(Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted");
    assert_eq!(refusal(pieces(&mut kv, pb::RangeRequest { revision: 2, ..all() }).await), compacted);
    cluster.stop().await;
}

/// A client that takes no more than 64 KiB before it has read them.
fn narrow(url: &str) -> Kv {
    let endpoint = Endpoint::from_shared(url.to_owned()).unwrap();
    let endpoint = endpoint.initial_stream_window_size(65_535).initial_connection_window_size(65_535);
    Kv::new(endpoint.connect_lazy()).max_decoding_message_size(ANSWER_BYTES_MAX)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_of_one_revision_whatever_is_written_meanwhile() {
    let cluster = TestCluster::single().await.unwrap();
    let mut kv = kv(&cluster.endpoint(0));
    let began = long_list(&mut kv, 1).await;
    let mut stream = narrow(&cluster.endpoint(0)).range_stream(long()).await.unwrap().into_inner();
    let mut all = vec![stream.message().await.unwrap().unwrap().range_response.unwrap()];
    long_list(&mut kv, 2).await;
    kv.delete_range(delete_request("long/4", "long/5")).await.unwrap();
    while let Some(piece) = stream.message().await.unwrap() {
        all.push(piece.range_response.unwrap());
    }
    let list = merged(&all);
    assert_eq!((list.count, list.kvs.len(), list.header.unwrap().revision), (48, 48, began));
    assert!(list.kvs.iter().all(|kv| kv.value[0] == 1));
    cluster.stop().await;
}

/// It also shows that pieces are read when they are wanted: those that had been read before would still come.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_a_compaction_overtakes_ends_with_compacted() {
    let cluster = TestCluster::single().await.unwrap();
    let mut kv = kv(&cluster.endpoint(0));
    long_list(&mut kv, 1).await;
    let mut stream = narrow(&cluster.endpoint(0)).range_stream(long()).await.unwrap().into_inner();
    let mut keys = stream.message().await.unwrap().unwrap().range_response.unwrap().kvs.len();
    let now = put(&mut kv, "long/00", "new").await;
    kv.compact(pb::CompactionRequest { revision: now, physical: true }).await.unwrap();
    let ended = loop {
        match stream.message().await {
            Ok(Some(piece)) => keys += piece.range_response.unwrap().kvs.len(),
            Ok(None) => panic!("all {keys} keys came: they were read ahead"),
            Err(status) => break status,
        }
    };
    let text = "etcdserver: mvcc: required revision has been compacted";
    assert_eq!(refusal::<()>(Err(ended)), refused(Code::OutOfRange, text));
    assert!(keys < 20, "{keys} keys of 64 KiB came before a client with a window of 64 KiB had read one");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_leader_only_the_list_ends_that_wants_one() {
    let mut cluster = TestCluster::start(3, &HURRIED).await.unwrap();
    let url = cluster.endpoint(2);
    long_list(&mut kv(&url), 1).await;
    let mut wants = Request::new(long());
    wants.metadata_mut().insert("hasleader", "true".parse().unwrap());
    let mut wants = narrow(&url).range_stream(wants).await.unwrap().into_inner();
    let mut bears = narrow(&url).range_stream(long()).await.unwrap().into_inner();
    wants.message().await.unwrap().unwrap();
    bears.message().await.unwrap().unwrap();
    let mut watching = Watching::with_leader(&url).await.unwrap();
    watching.create(watcher("k", "")).await;
    cluster.stop_member(0).await;
    cluster.stop_member(1).await;
    let no_leader = refused(Code::Unavailable, "etcdserver: no leader");
    assert_eq!(refusal(watching.answer().await), no_leader, "the member has noticed");
    let ended = loop {
        match wants.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the list came to its end without a leader"),
            Err(status) => break status,
        }
    };
    assert_eq!(refusal::<()>(Err(ended)), no_leader);
    let mut pieces = 1;
    while bears.message().await.unwrap().is_some() {
        pieces += 1;
    }
    assert!(pieces > 1, "the one that does not care is read to its end");
    cluster.stop().await;
}
