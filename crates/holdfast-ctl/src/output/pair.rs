//! Pairs of key and value, and the answers that consist of them.

use holdfast_proto::etcdserverpb as pb;
use holdfast_proto::etcdserverpb::response_op::Response;
use holdfast_proto::mvccpb::KeyValue;
use prost::Message;

use super::answer::header;
use super::quote::quoted;
use super::{Format, Look, NO_TABLE, View, json, push};

/// Key and value, each on a line of its own.
pub(crate) fn simple(text: &mut Vec<u8>, kv: &KeyValue, look: Look) {
    let mut line = |bytes: &[u8]| {
        if look.hex {
            text.extend(hex(bytes).into_bytes());
        } else {
            text.extend_from_slice(bytes);
        }
        text.push(b'\n');
    };
    if !look.values_only {
        line(&kv.key);
    }
    line(&kv.value);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        text.push_str(&format!("\\x{byte:02x}"));
        text
    })
}

/// The fields of a pair; `prefix` is in front of their names.
pub(crate) fn fields(text: &mut Vec<u8>, prefix: &str, kv: &KeyValue) {
    let mut field = |name: &str, value: String| push(text, &format!("\"{prefix}{name}\" : {value}"));
    field("Key", quoted(&kv.key));
    field("CreateRevision", kv.create_revision.to_string());
    field("ModRevision", kv.mod_revision.to_string());
    field("Version", kv.version.to_string());
    field("Value", quoted(&kv.value));
    field("Lease", kv.lease.to_string());
}

impl View for pb::RangeResponse {
    const FORMATS: &'static [Format] =
        &[Format::Simple, Format::Fields, Format::Json, Format::Protobuf, Format::Raw];

    fn simple(&self, text: &mut Vec<u8>, look: Look) {
        self.kvs.iter().for_each(|kv| simple(text, kv, look));
    }

    fn fields(&self, text: &mut Vec<u8>) {
        header(text, self.header.as_ref());
        self.kvs.iter().for_each(|kv| fields(text, "", kv));
        push(text, &format!("\"More\" : {}", self.more));
        push(text, &format!("\"Count\" : {}", self.count));
    }

    fn json(&self, _: Look) -> String {
        json::message(self)
    }

    fn protobuf(&self) -> Vec<u8> {
        self.encode_to_vec()
    }

    fn raw(&self) -> Vec<u8> {
        self.kvs.iter().flat_map(|kv| kv.value.iter().copied()).collect()
    }
}

impl View for pb::PutResponse {
    const FORMATS: &'static [Format] = NO_TABLE;

    fn simple(&self, text: &mut Vec<u8>, look: Look) {
        push(text, "OK");
        self.prev_kv.iter().for_each(|kv| simple(text, kv, look));
    }

    fn fields(&self, text: &mut Vec<u8>) {
        header(text, self.header.as_ref());
        self.prev_kv.iter().for_each(|kv| fields(text, "Prev", kv));
    }

    fn json(&self, _: Look) -> String {
        json::message(self)
    }

    fn protobuf(&self) -> Vec<u8> {
        self.encode_to_vec()
    }
}

impl View for pb::DeleteRangeResponse {
    const FORMATS: &'static [Format] = NO_TABLE;

    fn simple(&self, text: &mut Vec<u8>, look: Look) {
        push(text, &self.deleted.to_string());
        self.prev_kvs.iter().for_each(|kv| simple(text, kv, look));
    }

    fn fields(&self, text: &mut Vec<u8>) {
        header(text, self.header.as_ref());
        push(text, &format!("\"Deleted\" : {}", self.deleted));
        self.prev_kvs.iter().for_each(|kv| fields(text, "Prev", kv));
    }

    fn json(&self, _: Look) -> String {
        json::message(self)
    }

    fn protobuf(&self) -> Vec<u8> {
        self.encode_to_vec()
    }
}

impl View for pb::TxnResponse {
    const FORMATS: &'static [Format] = NO_TABLE;

    fn simple(&self, text: &mut Vec<u8>, look: Look) {
        push(text, if self.succeeded { "SUCCESS" } else { "FAILURE" });
        for response in self.responses.iter().filter_map(|op| op.response.as_ref()) {
            push(text, "");
            match response {
                Response::ResponseRange(range) => range.simple(text, look),
                Response::ResponsePut(put) => put.simple(text, look),
                Response::ResponseDeleteRange(delete) => delete.simple(text, look),
                Response::ResponseTxn(txn) => txn.simple(text, look),
            }
        }
    }

    fn fields(&self, text: &mut Vec<u8>) {
        header(text, self.header.as_ref());
        push(text, &format!("\"Succeeded\" : {}", self.succeeded));
        for response in self.responses.iter().filter_map(|op| op.response.as_ref()) {
            match response {
                Response::ResponseRange(range) => range.fields(text),
                Response::ResponsePut(put) => put.fields(text),
                Response::ResponseDeleteRange(delete) => delete.fields(text),
                Response::ResponseTxn(txn) => txn.fields(text),
            }
        }
    }

    fn json(&self, _: Look) -> String {
        json::message(self)
    }

    fn protobuf(&self) -> Vec<u8> {
        self.encode_to_vec()
    }
}
