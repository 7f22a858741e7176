//! Messages and their JSON, in etcd's form: names as in the `.proto`, 64-bit numbers in quotes, bytes in base64, enums by
//! name, nothing that has its default.

use bytes::{Buf, Bytes, BytesMut};
use holdfast_proto::codec::aside;
use holdfast_proto::etcdserverpb::RangeResponse;
use prost::Message;
use prost_reflect::{DynamicMessage, Kind, MessageDescriptor, SerializeOptions};
use serde::Deserialize;
use serde_json::Value;

/// Texts and messages from this many bytes on are translated aside: that takes a thread some milliseconds, which others on
/// it (a heartbeat, an answer) would have to wait for.
const ASIDE_BYTES: usize = 64 << 10;

/// Does what is long aside.
fn by_length<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    if bytes < ASIDE_BYTES { work() } else { aside(work) }
}

/// The message that a JSON text begins with; the empty one for no text. Both forms of a field's name are taken, numbers
/// with and without quotes, enums by name and number; names that are not known are passed over.
///
/// # Errors
/// Why it is no such message.
pub(super) fn decode(kind: &MessageDescriptor, text: &[u8]) -> Result<Bytes, String> {
    if text.iter().all(u8::is_ascii_whitespace) {
        return Ok(Bytes::new());
    }
    by_length(text.len(), || decode_here(kind, text))
}

fn decode_here(kind: &MessageDescriptor, text: &[u8]) -> Result<Bytes, String> {
    let refused = |error| format!("the body is not a {} in JSON: {error}", kind.full_name());
    // What follows the message is not looked at, as etcd's gateway does it.
    let mut json = Value::deserialize(&mut serde_json::Deserializer::from_slice(text)).map_err(refused)?;
    drop_unknown(kind, &mut json);
    let message = DynamicMessage::deserialize(kind.clone(), json).map_err(refused)?;
    Ok(message.encode_to_vec().into())
}

/// Takes out the fields that a message does not have. The library would do it, but with them it passes over names that an
/// enum does not have, and a misspelt comparison would be another one.
fn drop_unknown(kind: &MessageDescriptor, json: &mut Value) {
    let Value::Object(fields) = json else { return };
    fields.retain(|name, value| {
        let Some(field) = kind.get_field_by_json_name(name).or_else(|| kind.get_field_by_name(name)) else {
            return false;
        };
        if let Kind::Message(inner) = field.kind() {
            match value {
                Value::Array(values) => values.iter_mut().for_each(|value| drop_unknown(&inner, value)),
                value => drop_unknown(&inner, value),
            }
        }
        true
    });
}

/// The JSON of a message.
///
/// # Errors
/// It is no such message.
pub(super) fn encode(kind: &MessageDescriptor, message: Bytes) -> Result<Bytes, String> {
    by_length(message.len(), || {
        if kind.full_name() == LIST { encode_list(kind, message) } else { encode_here(kind, message) }
    })
}

/// What may hold any number of pairs.
const LIST: &str = "etcdserverpb.RangeResponse";

/// A list, pair by pair: a message that is known by its description alone takes many times the memory of its bytes.
fn encode_list(kind: &MessageDescriptor, message: Bytes) -> Result<Bytes, String> {
    let RangeResponse { header, kvs, more, count } =
        RangeResponse::decode(message).map_err(|error| error.to_string())?;
    let field = kind.get_field_by_name("kvs").ok_or("a list without pairs")?;
    let Kind::Message(pair) = field.kind() else { return Err("a list of no messages".to_owned()) };
    let part = |part: &RangeResponse| encode_here(kind, part.encode_to_vec().into());
    let mut text = part(&RangeResponse { header, ..RangeResponse::default() })?.to_vec();
    // Objects one behind the other become one when the braces between them go.
    let open = |text: &mut Vec<u8>| {
        text.pop();
        if text.len() > 1 {
            text.push(b',');
        }
    };
    let has_pairs = !kvs.is_empty();
    if has_pairs {
        open(&mut text);
        text.extend_from_slice(b"\"kvs\":[");
        for kv in kvs {
            text.extend_from_slice(&encode_here(&pair, kv.encode_to_vec().into())?);
            text.push(b',');
        }
        text.pop();
        text.extend_from_slice(b"]}");
    }
    let rest = part(&RangeResponse { more, count, ..RangeResponse::default() })?;
    if rest.len() > 2 {
        open(&mut text);
        text.extend_from_slice(&rest[1..]);
    }
    Ok(text.into())
}

/// As [`encode`], in one piece.
pub(super) fn encode_here(kind: &MessageDescriptor, message: Bytes) -> Result<Bytes, String> {
    let message = DynamicMessage::decode(kind.clone(), message).map_err(|error| error.to_string())?;
    let mut text = Vec::new();
    let options = SerializeOptions::new().use_proto_field_name(true);
    message
        .serialize_with_options(&mut serde_json::Serializer::new(&mut text), &options)
        .map_err(|error| error.to_string())?;
    Ok(text.into())
}

/// Cuts a body into the JSON objects in it, as they come, whatever is between two of them. Looks at each byte once.
#[derive(Debug, Default)]
pub(super) struct Objects {
    waiting: BytesMut,
    /// So many bytes of what waits were looked at.
    seen: usize,
    /// How many braces and brackets are open.
    depth: usize,
    in_string: bool,
    is_escaped: bool,
}

impl Objects {
    /// More of the body.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.waiting.extend_from_slice(bytes);
    }

    /// The next object, when all of it is here. What is no object is taken up to where one may begin, for who decodes it to
    /// refuse.
    pub(super) fn next(&mut self) -> Option<Bytes> {
        if self.seen == 0 {
            let blank = self.waiting.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            self.waiting.advance(blank);
        }
        while let Some(byte) = self.waiting.get(self.seen).copied() {
            self.seen += 1;
            if self.in_string {
                let ends = byte == b'"' && !self.is_escaped;
                self.is_escaped = byte == b'\\' && !self.is_escaped;
                self.in_string = !ends;
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
            let is_whole = self.depth == 0 && matches!(byte, b'}' | b']' | b'\n');
            if is_whole {
                return Some(self.take());
            }
        }
        None
    }

    /// What is left at the end of the body; `None` when that is nothing.
    pub(super) fn rest(&mut self) -> Option<Bytes> {
        let rest = self.take_all();
        (!rest.iter().all(u8::is_ascii_whitespace)).then_some(rest)
    }

    /// How much waits for its end.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn take(&mut self) -> Bytes {
        let end = std::mem::take(&mut self.seen);
        self.waiting.split_to(end).freeze()
    }

    fn take_all(&mut self) -> Bytes {
        self.seen = 0;
        self.waiting.split().freeze()
    }
}
