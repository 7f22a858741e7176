//! Messages and their JSON, in etcd's form: names as in the `.proto`, 64-bit numbers in quotes, bytes in base64, enums by
//! name, nothing that has its default.

use bytes::{Buf, Bytes, BytesMut};
use prost::Message;
use prost_reflect::{DynamicMessage, Kind, MessageDescriptor, SerializeOptions};
use serde::Deserialize;
use serde_json::Value;

/// The message that a JSON text begins with; the empty one for no text. Both forms of a field's name are taken, numbers
/// with and without quotes, enums by name and number; names that are not known are passed over.
///
/// # Errors
/// Why it is no such message.
pub(super) fn decode(kind: &MessageDescriptor, text: &[u8]) -> Result<Bytes, String> {
    if text.iter().all(u8::is_ascii_whitespace) {
        return Ok(Bytes::new());
    }
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
