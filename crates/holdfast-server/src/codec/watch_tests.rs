//! Watch responses byte by byte: what is written by hand equals what prost writes.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use holdfast_mvcc::types::{Change, KeyValue, LeaseId, PutRecord, RangeEnd, Record, RecordId, Revision};
use holdfast_proto::{etcdserverpb as pb, mvccpb};
use holdfast_watch::{Filter, PrevKv};
use prost::Message;

use super::watch::{Content, Events, Header, NO_WATCH, Response, create, put_event};

fn header_of(revision: i64) -> pb::ResponseHeader {
    pb::ResponseHeader { cluster_id: u64::MAX, member_id: 7, revision, raft_term: 300 }
}

fn header() -> Arc<Header> {
    Arc::new(Header::new(&header_of(0)))
}

fn encoded(response: &Response) -> Vec<u8> {
    let mut buffer = BytesMut::new();
    response.encode(&header(), &mut buffer);
    buffer.to_vec()
}

fn response(watch_id: i64, revision: u64, content: Content) -> Response {
    Response { watch_id, revision: Revision::new(revision), content }
}

/// What prost makes of the same, beginning with its header.
fn wire(watch_id: i64, revision: i64) -> pb::WatchResponse {
    pb::WatchResponse { header: Some(header_of(revision)), watch_id, ..Default::default() }
}

fn put(revision: u64, value: &str) -> Record {
    Record {
        id: RecordId::new(Revision::new(revision), 0),
        key: Bytes::from_static(b"key"),
        change: Change::Put(PutRecord {
            create_revision: Revision::new(3),
            version: 2,
            lease: Some(LeaseId(-9)),
            value: Bytes::copy_from_slice(value.as_bytes()),
        }),
    }
}

fn delete(revision: u64) -> Record {
    Record { change: Change::Delete, ..put(revision, "") }
}

fn before() -> KeyValue {
    KeyValue {
        key: Bytes::from_static(b"key"),
        create_revision: Revision::new(3),
        mod_revision: Revision::new(4),
        version: 1,
        lease: None,
        value: Bytes::from_static(b"old"),
    }
}

fn wire_put(revision: i64, value: &str) -> mvccpb::Event {
    let kv = mvccpb::KeyValue {
        key: Bytes::from_static(b"key"),
        create_revision: 3,
        mod_revision: revision,
        version: 2,
        value: Bytes::copy_from_slice(value.as_bytes()),
        lease: -9,
    };
    mvccpb::Event { r#type: 0, kv: Some(kv), prev_kv: None }
}

fn wire_delete(revision: i64) -> mvccpb::Event {
    let key = Bytes::from_static(b"key");
    let kv = mvccpb::KeyValue { key: key.clone(), mod_revision: revision, ..Default::default() };
    let old = Bytes::from_static(b"old");
    let prev = mvccpb::KeyValue {
        key,
        create_revision: 3,
        mod_revision: 4,
        version: 1,
        value: old,
        ..Default::default()
    };
    mvccpb::Event { r#type: 1, kv: Some(kv), prev_kv: Some(prev) }
}

fn event(record: &Record, prev_kv: Option<KeyValue>) -> Bytes {
    let mut buffer = BytesMut::new();
    put_event(&mut buffer, record, prev_kv);
    buffer.freeze()
}

#[test]
fn each_response_is_what_prost_would_write() {
    let cases = [
        (response(0, 5, Content::Created), pb::WatchResponse { created: true, ..wire(0, 5) }),
        (response(9, 5, Content::Canceled), pb::WatchResponse { canceled: true, ..wire(9, 5) }),
        (response(NO_WATCH, 8, Content::Progress), wire(-1, 8)),
        (
            response(NO_WATCH, 5, Content::Refused("because")),
            pb::WatchResponse {
                created: true,
                canceled: true,
                cancel_reason: "because".to_owned(),
                ..wire(-1, 5)
            },
        ),
        (
            response(300, 0, Content::Compacted(Some(Revision::new(77)))),
            pb::WatchResponse { canceled: true, compact_revision: 77, ..wire(300, 0) },
        ),
        (
            response(3, 0, Content::Compacted(None)),
            pb::WatchResponse { canceled: true, compact_revision: -1, ..wire(3, 0) },
        ),
    ];
    for (ours, prosts) in cases {
        assert_eq!(encoded(&ours), prosts.encode_to_vec(), "{ours:?}");
    }
}

#[test]
fn events_are_what_prost_would_write() {
    let long = "x".repeat(20_000);
    let mut events = Events::new(event(&put(5, "v"), None));
    events.append(event(&delete(6), Some(before())));
    events.append(event(&put(7, &long), None));
    let ours = response(2, 7, Content::Events(events));
    let prosts = pb::WatchResponse {
        events: vec![wire_put(5, "v"), wire_delete(6), wire_put(7, &long)],
        ..wire(2, 7)
    };
    assert_eq!(encoded(&ours), prosts.encode_to_vec());
}

#[test]
fn the_term_in_a_header_is_the_newest() {
    let header = header();
    header.set_term(u64::MAX);
    let mut buffer = BytesMut::new();
    response(NO_WATCH, 8, Content::Progress).encode(&header, &mut buffer);
    let decoded = pb::WatchResponse::decode(buffer.freeze()).unwrap();
    assert_eq!(decoded.header.unwrap().raft_term, u64::MAX);
}

/// The pieces of a response, decoded.
fn pieces(events: &[Bytes], bytes_max: usize) -> Vec<pb::WatchResponse> {
    // Two in one part, the others alone: where parts end makes no difference.
    let mut joined = Events::new(Bytes::from(events[..2].concat()));
    events[2..].iter().for_each(|event| joined.append(event.clone()));
    let cut = response(4, 9, Content::Events(joined)).into_fragments(&header(), bytes_max);
    for piece in &cut {
        let len = encoded(piece).len();
        let decoded = pb::WatchResponse::decode(&encoded(piece)[..]).unwrap();
        assert!(len < bytes_max || decoded.events.len() == 1, "{len} bytes in a piece of several events");
    }
    cut.iter().map(|piece| pb::WatchResponse::decode(&encoded(piece)[..]).unwrap()).collect()
}

#[test]
fn a_large_response_is_cut_between_events() {
    let value = "y".repeat(1000);
    let events: Vec<_> = (5..12).map(|revision| event(&put(revision, &value), None)).collect();
    let all: Vec<_> = (5..12).map(|revision| wire_put(revision, &value)).collect();
    for (bytes_max, count) in [(100_000, 1), (3_000, 4), (1_000, 7)] {
        let pieces = pieces(&events, bytes_max);
        assert_eq!(pieces.len(), count, "at most {bytes_max} bytes");
        let fragments: Vec<_> = pieces.iter().map(|piece| piece.fragment).collect();
        let (last, others) = fragments.split_last().unwrap();
        assert!(!last && others.iter().all(|more| *more), "{fragments:?}");
        for piece in &pieces {
            assert_eq!((piece.watch_id, piece.header), (4, Some(header_of(9))));
        }
        assert_eq!(pieces.into_iter().flat_map(|piece| piece.events).collect::<Vec<_>>(), all);
    }
}

#[test]
fn a_create_request_means_what_etcd_takes_it_for() {
    let key = |key: &'static [u8], end: &'static [u8]| {
        let request = pb::WatchCreateRequest {
            key: Bytes::from_static(key),
            range_end: Bytes::from_static(end),
            ..Default::default()
        };
        create(&request).range
    };
    assert_eq!((key(b"", b"").start.as_ref(), key(b"", b"").end), (&b"\0"[..], RangeEnd::Single));
    assert_eq!((key(b"", b"\0").start.as_ref(), key(b"", b"\0").end), (&b"\0"[..], RangeEnd::Unbounded));
    assert_eq!(key(b"a", b"b").end, RangeEnd::Before(Bytes::from_static(b"b")));
    let filters =
        |filters: Vec<i32>| create(&pb::WatchCreateRequest { filters, ..Default::default() }).filter;
    assert_eq!(filters(vec![]), Filter::ALL);
    assert_eq!(filters(vec![0, 9]), Filter { puts: false, deletes: true });
    assert_eq!(filters(vec![1, 1, 0]), Filter { puts: false, deletes: false });
    let request =
        pb::WatchCreateRequest { prev_kv: true, watch_id: -3, start_revision: -1, ..Default::default() };
    let create = create(&request);
    assert_eq!((create.prev_kv, create.watch_id, create.start_revision), (PrevKv::Wanted, -3, -1));
}
