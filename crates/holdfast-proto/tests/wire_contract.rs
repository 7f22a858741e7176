//! Pins the names, numbers, types, labels and streaming kinds of the etcd packages against a checked-in table.
//!
//! The table was not derived from the proto files, so that a slip in one of the two shows.

use std::collections::BTreeSet;

use prost_reflect::{
    DescriptorPool, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor,
};

const TABLE: &str = include_str!("wire_contract.txt");
const PACKAGES: [&str; 5] = ["etcdserverpb", "mvccpb", "authpb", "v3lockpb", "v3electionpb"];

fn pool() -> DescriptorPool {
    DescriptorPool::decode(holdfast_proto::FILE_DESCRIPTOR_SET).expect("the embedded descriptors decode")
}

fn is_etcd(package: &str) -> bool {
    PACKAGES.contains(&package)
}

fn type_name(field: &FieldDescriptor) -> String {
    match field.kind() {
        Kind::Message(message) => message.name().to_owned(),
        Kind::Enum(enumeration) => enumeration.name().to_owned(),
        scalar => format!("{scalar:?}").to_lowercase(),
    }
}

fn field_line(field: &FieldDescriptor) -> String {
    let label = match field.containing_oneof() {
        _ if field.is_list() => "repeated".to_owned(),
        Some(oneof) => format!("oneof:{}", oneof.name()),
        None => "single".to_owned(),
    };
    format!("field {} {} {} {label}", field.full_name(), field.number(), type_name(field))
}

fn method_line(method: &MethodDescriptor) -> String {
    let kind = match (method.is_client_streaming(), method.is_server_streaming()) {
        (false, false) => "unary",
        (false, true) => "server-stream",
        (true, false) => "client-stream",
        (true, true) => "bidi-stream",
    };
    format!("rpc {} {} {} {kind}", method.full_name(), method.input().name(), method.output().name())
}

fn message_lines(message: &MessageDescriptor) -> Vec<String> {
    let mut lines = vec![format!("message {}", message.full_name())];
    lines.extend(message.fields().map(|field| field_line(&field)));
    lines
}

/// Values of a nested enum are named below the enum; protobuf itself scopes them beside it.
fn enum_lines(enumeration: &EnumDescriptor) -> Vec<String> {
    let mut lines = vec![format!("enum {}", enumeration.full_name())];
    let name = enumeration.full_name();
    lines.extend(
        enumeration.values().map(|value| format!("value {name}.{} {}", value.name(), value.number())),
    );
    lines
}

fn compiled() -> BTreeSet<String> {
    let pool = pool();
    let mut lines = BTreeSet::new();
    for message in pool.all_messages().filter(|message| is_etcd(message.package_name())) {
        lines.extend(message_lines(&message));
    }
    for enumeration in pool.all_enums().filter(|enumeration| is_etcd(enumeration.package_name())) {
        lines.extend(enum_lines(&enumeration));
    }
    for service in pool.services().filter(|service| is_etcd(service.package_name())) {
        lines.extend(service.methods().map(|method| method_line(&method)));
    }
    lines
}

fn table() -> BTreeSet<String> {
    let lines: Vec<&str> = TABLE.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let set: BTreeSet<String> = lines.iter().map(|line| (*line).to_owned()).collect();
    assert_eq!(set.len(), lines.len(), "a line of the table is there twice");
    set
}

#[test]
fn proto_files_equal_the_wire_contract() {
    let (table, compiled) = (table(), compiled());
    let missing: Vec<_> = table.difference(&compiled).collect();
    let extra: Vec<_> = compiled.difference(&table).collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "missing from proto/: {missing:#?}\nnot in the table: {extra:#?}"
    );
}

#[test]
fn the_table_is_whole() {
    let table = table();
    let count = |kind: &str| table.iter().filter(|line| line.starts_with(kind)).count();
    assert_eq!(count("rpc "), 49, "methods");
    assert_eq!(count("message "), 117, "messages: 98 + 4 + 2 + 4 + 9");
}

#[test]
fn every_service_has_its_path() {
    let names: BTreeSet<String> = pool()
        .services()
        .filter(|service| is_etcd(service.package_name()))
        .map(|service| service.full_name().to_owned())
        .collect();
    let expected = ["KV", "Watch", "Lease", "Cluster", "Maintenance", "Auth"]
        .map(|name| format!("etcdserverpb.{name}"))
        .into_iter()
        .chain(["v3lockpb.Lock".to_owned(), "v3electionpb.Election".to_owned()])
        .collect::<BTreeSet<_>>();
    assert_eq!(names, expected);
}

#[test]
fn bytes_fields_share_their_buffer() {
    let message =
        holdfast_proto::mvccpb::KeyValue { key: bytes::Bytes::from_static(b"k"), ..Default::default() };
    let buffer = bytes::Bytes::from(prost::Message::encode_to_vec(&message));
    let decoded: holdfast_proto::mvccpb::KeyValue =
        prost::Message::decode(buffer.clone()).expect("what was encoded decodes");
    let (key, whole) = (decoded.key.as_ptr_range(), buffer.as_ptr_range());
    assert!(whole.start <= key.start && key.end <= whole.end, "the key was copied");
}
