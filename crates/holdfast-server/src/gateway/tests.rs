//! Tests of the translation alone; the gateway as a whole is in `tests/wire/gateway.rs`, and beside etcd's in
//! `cluster-tests/tests/gateway.rs`.

use std::collections::BTreeSet;

use holdfast_proto::etcdserverpb as pb;
use proptest::prelude::*;
use prost::Message;
use prost_reflect::DescriptorPool;

use super::json::{Objects, decode, encode, encode_here};
use super::paths::{PATHS, method};

fn decoded(path: &str, text: &str) -> Result<bytes::Bytes, String> {
    decode(&method(path).unwrap().input, text.as_bytes())
}

#[test]
fn every_method_of_etcd_has_a_path() {
    let pool = DescriptorPool::decode(holdfast_proto::FILE_DESCRIPTOR_SET).unwrap();
    let is_etcds = |package: &str| matches!(package, "etcdserverpb" | "v3lockpb" | "v3electionpb");
    let services = pool.services().filter(|service| is_etcds(service.package_name()));
    let all: BTreeSet<String> =
        services.flat_map(|s| s.methods().map(|m| m.full_name().to_owned()).collect::<Vec<_>>()).collect();
    let served: BTreeSet<String> =
        PATHS.iter().map(|(_, service, name)| format!("{service}.{name}")).collect();
    let without: Vec<&String> = all.difference(&served).collect();
    // etcd has no path for it either.
    assert_eq!(without, ["etcdserverpb.KV.RangeStream"]);
}

#[test]
fn requests_are_taken_in_every_form_that_etcd_takes() {
    let expected = pb::RangeRequest {
        key: "foo".into(),
        range_end: vec![0].into(),
        limit: 7,
        sort_order: pb::range_request::SortOrder::Descend.into(),
        ..Default::default()
    };
    for text in [
        r#"{"key":"Zm9v","range_end":"AA==","limit":"7","sort_order":"DESCEND"}"#,
        r#"{"key":"Zm9v","rangeEnd":"AA==","limit":7,"sortOrder":2}"#,
        r#" {"key":"Zm9v","range_end":"AA==","limit":7,"sort_order":"DESCEND","new":{"a":[1]},"sort":"SIDEWAYS"} behind it"#,
    ] {
        let request = pb::RangeRequest::decode(decoded("kv/range", text).unwrap()).unwrap();
        assert_eq!(request, expected, "{text}");
    }
    assert!(decoded("kv/range", " \n").unwrap().is_empty());
    assert!(decoded("kv/put", r#"{"key":null}"#).unwrap().is_empty(), "null is what is not there");
    for (text, why) in [
        (r#"{"key":5}"#, "expected"),
        ("{bad", "key must be a string"),
        ("[]", "invalid type"),
        (r#"{"key":"*"}"#, "base64"),
        (r#"{"limit":1.5}"#, "expected"),
        (r#"{"sort_order":"SIDEWAYS"}"#, "SIDEWAYS"),
    ] {
        let said = decoded("kv/range", text).unwrap_err();
        assert!(said.contains("etcdserverpb.RangeRequest") && said.contains(why), "{text}: {said}");
    }
}

#[test]
fn answers_look_as_etcds_do() {
    let header = pb::ResponseHeader { cluster_id: u64::MAX, member_id: 1, revision: 3, raft_term: 0 };
    let answer = pb::WatchResponse {
        header: Some(header),
        watch_id: -1,
        created: true,
        events: vec![holdfast_proto::mvccpb::Event { r#type: 1, ..Default::default() }],
        ..Default::default()
    };
    let text = encode(&method("watch").unwrap().output, answer.encode_to_vec().into()).unwrap();
    let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let expected = serde_json::json!({
        "header": {"cluster_id": "18446744073709551615", "member_id": "1", "revision": "3"},
        "watch_id": "-1",
        "created": true,
        "events": [{"type": "DELETE"}],
    });
    assert_eq!(value, expected);
}

/// All objects of a body that comes in pieces of these sizes.
fn cut(body: &str, sizes: impl Iterator<Item = usize>) -> (Vec<String>, Option<String>) {
    let (mut objects, mut found, mut left) = (Objects::default(), Vec::new(), body.as_bytes());
    let text = |bytes: bytes::Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    for size in sizes {
        let (piece, behind) = left.split_at(size.min(left.len()));
        objects.push(piece);
        found.extend(std::iter::from_fn(|| objects.next()).map(text));
        left = behind;
    }
    (found, objects.rest().map(text))
}

#[test]
fn a_body_is_cut_where_its_objects_end() {
    let body = "\n{\"a\":\"}{\\\"\"} {}\r\n{\"b\":[{},\n{}]}{\"c\":\"\\\\\"}";
    let all = cut(body, std::iter::once(body.len()));
    let expected = ["{\"a\":\"}{\\\"\"}", "{}", "{\"b\":[{},\n{}]}", "{\"c\":\"\\\\\"}"];
    assert_eq!(all, (expected.map(str::to_owned).to_vec(), None));
    assert_eq!(
        cut("{}{\"a\":", std::iter::repeat_n(1, 7)),
        (vec!["{}".to_owned()], Some("{\"a\":".to_owned()))
    );
    assert_eq!(
        cut("no\n{}", std::iter::repeat_n(2, 3)).0,
        ["no\n", "{}"],
        "what is no object is refused by itself"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_makes_no_difference_in_which_pieces_a_body_comes(
        texts in proptest::collection::vec(proptest::string::string_regex("[a{}\\[\\]\"\\\\ \n]{0,12}").unwrap(), 1..5),
        size in 1_usize..20,
    ) {
        let objects: Vec<String> = texts.iter().map(|text| serde_json::json!({ "k": [text] }).to_string()).collect();
        let body = objects.join(" ");
        let pieces = std::iter::repeat_n(size, body.len());
        prop_assert_eq!(cut(&body, pieces), (objects, None));
    }

    #[test]
    fn a_message_comes_back_from_its_json(bytes in proptest::collection::vec(any::<u8>(), 0..64), limit in any::<i64>()) {
        let request = pb::RangeRequest { key: bytes.into(), limit, keys_only: true, ..Default::default() };
        let kind = &method("kv/range").unwrap().input;
        let text = encode(kind, request.encode_to_vec().into()).unwrap();
        prop_assert_eq!(decode(kind, &text).unwrap(), request.encode_to_vec());
    }
}

/// Lists are put together pair by pair; the text is that of the whole.
#[test]
fn a_list_reads_as_one_message() {
    let kind = &method("kv/range").unwrap().output;
    let header = Some(pb::ResponseHeader { revision: 9, ..pb::ResponseHeader::default() });
    let pair = |number: usize| holdfast_proto::mvccpb::KeyValue {
        key: format!("k{number}").into(),
        version: 1,
        ..Default::default()
    };
    for (header, pairs, more, count) in [
        (None, 0, false, 0),
        (header, 0, false, 0),
        (None, 2, false, 2),
        (header, 3, true, 9),
        (header, 0, false, 7),
    ] {
        let list = pb::RangeResponse { header, kvs: (0..pairs).map(pair).collect(), more, count };
        let message: bytes::Bytes = list.encode_to_vec().into();
        assert_eq!(encode(kind, message.clone()), encode_here(kind, message), "{list:?}");
    }
}
