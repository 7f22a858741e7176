//! Messages as JSON, byte for byte as etcdctl writes them: fields under their names in the proto files and in the order of
//! their numbers, those that are zero left out, numbers bare, bytes in base64, enumerations as numbers.
//!
//! The names come from the descriptors: a message is encoded and read again by name.

use std::sync::LazyLock;

use holdfast_proto::FILE_DESCRIPTOR_SET;
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, MapKey, ReflectMessage, Value};

use super::answer::Answer;

/// Fields that came after 3.5, whose output is kept to.
const LATER: &[(&str, &[&str])] = &[
    ("etcdserverpb.StatusResponse", &["storageVersion", "dbSizeQuota", "downgradeInfo"]),
    ("etcdserverpb.HashKVResponse", &["hash_revision"]),
];

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static DESCRIPTORS: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(FILE_DESCRIPTOR_SET)
        .expect("the descriptors were made by the build of holdfast-proto")
});

/// A message, without the end of the line.
pub(crate) fn message<M: Answer>(message: &M) -> String {
    let descriptor =
        DESCRIPTORS.get_message_by_name(M::NAME).expect("answers name messages of the proto files");
    let bytes = message.encode_to_vec();
    let message = DynamicMessage::decode(descriptor, &bytes[..]).expect("what was just encoded");
    let mut text = String::new();
    push_message(&mut text, &message);
    text
}

fn push_message(text: &mut String, message: &DynamicMessage) {
    let descriptor = message.descriptor();
    let later =
        LATER.iter().find(|(name, _)| *name == descriptor.full_name()).map_or(&[][..], |(_, names)| names);
    let mut object = Object::begin(text);
    for field in descriptor.fields() {
        if !message.has_field(&field) || later.contains(&field.name()) {
            continue;
        }
        let value = message.get_field(&field);
        match in_oneof(&field) {
            // The choice is an object of its own, under the choice's name with a capital.
            Some(name) => {
                let text = object.key(&name);
                let mut choice = Object::begin(text);
                push_value(choice.key(field.name()), &value);
                choice.end();
            }
            None => push_value(object.key(field.name()), &value),
        }
    }
    object.end();
}

fn in_oneof(field: &FieldDescriptor) -> Option<String> {
    let oneof = field.containing_oneof()?;
    let mut characters = oneof.name().chars();
    let first = characters.next()?;
    Some(first.to_uppercase().chain(characters).collect())
}

fn push_value(text: &mut String, value: &Value) {
    match value {
        Value::Bool(value) => push(text, value),
        Value::I32(value) | Value::EnumNumber(value) => push(text, value),
        Value::I64(value) => push(text, value),
        Value::U32(value) => push(text, value),
        Value::U64(value) => push(text, value),
        Value::F32(value) => push(text, value),
        Value::F64(value) => push(text, value),
        Value::String(value) => text.push_str(&string(value)),
        Value::Bytes(value) => push(text, format_args!("\"{}\"", base64(value))),
        Value::Message(value) => push_message(text, value),
        Value::List(values) => {
            text.push('[');
            for (at, value) in values.iter().enumerate() {
                text.push_str(if at == 0 { "" } else { "," });
                push_value(text, value);
            }
            text.push(']');
        }
        Value::Map(values) => {
            let mut object = Object::begin(text);
            for (key, value) in values {
                let key = if let MapKey::String(key) = key { key.clone() } else { format!("{key:?}") };
                push_value(object.key(&key), value);
            }
            object.end();
        }
    }
}

fn push(text: &mut String, value: impl std::fmt::Display) {
    text.push_str(&format!("{value}"));
}

/// An object that is being written.
struct Object<'a> {
    text: &'a mut String,
    is_empty: bool,
}

impl<'a> Object<'a> {
    fn begin(text: &'a mut String) -> Self {
        text.push('{');
        Self { text, is_empty: true }
    }

    /// Where the value of this key goes.
    fn key(&mut self, name: &str) -> &mut String {
        if !self.is_empty {
            self.text.push(',');
        }
        self.is_empty = false;
        push(self.text, format_args!("{}:", string(name)));
        self.text
    }

    fn end(self) {
        self.text.push('}');
    }
}

/// An object of given values, which are JSON already.
pub(crate) fn object(fields: &[(&str, String)]) -> String {
    let mut text = String::new();
    let mut object = Object::begin(&mut text);
    for (name, value) in fields {
        object.key(name).push_str(value);
    }
    object.end();
    text
}

/// A list of values, which are JSON already.
pub(crate) fn list(values: &[String]) -> String {
    format!("[{}]", values.join(","))
}

/// A text as Go writes it: fit for HTML.
pub(crate) fn string(text: &str) -> String {
    let mut json = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            '\0'..' ' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                push(&mut json, format_args!("\\u{:04x}", u32::from(character)));
            }
            plain => json.push(plain),
        }
    }
    json.push('"');
    json
}

/// With padding.
pub(crate) fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let three = [chunk[0], chunk.get(1).copied().unwrap_or(0), chunk.get(2).copied().unwrap_or(0)];
        let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        for at in 0..4 {
            let index = (bits >> (18 - 6 * at)) & 63;
            text.push(if at <= chunk.len() { char::from(BASE64[index as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use holdfast_proto::{etcdserverpb as pb, mvccpb};

    use super::*;

    #[test]
    fn base64_is_padded() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("<&>?", "PCY+Pw==")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn texts_are_fit_for_html() {
        assert_eq!(string("a\"<&>\u{1}\u{2028}\n"), r#""a\"\u003c\u0026\u003e\u0001\u2028\n""#);
    }

    /// What etcdctl 3.5.1 prints.
    #[test]
    fn messages_are_etcdctls() {
        let header = Some(pb::ResponseHeader {
            cluster_id: 15_118_495_548_433_857_066,
            revision: 3,
            ..Default::default()
        });
        let kv = mvccpb::KeyValue { key: "a".into(), version: 2, ..Default::default() };
        let range = pb::RangeResponse { header: None, kvs: vec![kv], count: 1, ..Default::default() };
        let response = pb::response_op::Response::ResponseRange(range);
        let responses = vec![pb::ResponseOp { response: Some(response) }];
        let txn = pb::TxnResponse { header, succeeded: true, responses };
        assert_eq!(
            message(&txn),
            "{\"header\":{\"cluster_id\":15118495548433857066,\"revision\":3},\"succeeded\":true,\"responses\":[\
             {\"Response\":{\"response_range\":{\"kvs\":[{\"key\":\"YQ==\",\"version\":2}],\"count\":1}}}]}"
        );
        let newer = pb::HashKvResponse { hash: 7, hash_revision: 9, ..Default::default() };
        assert_eq!(message(&newer), "{\"hash\":7}");
    }
}
