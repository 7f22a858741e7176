//! A response of a watch, in all formats.

use holdfast_proto::etcdserverpb as pb;
use prost::Message;

use super::event_type;
use crate::output::answer::header;
use crate::output::json::{list, message, object};
use crate::output::{Format, Look, NO_TABLE, View, pair, push};

/// What is said of a watch that begins before what is left of the history.
pub(super) const COMPACTED: &str = "its revision has been compacted";

/// A response.
pub(super) struct Changes(pub(super) pb::WatchResponse);

impl Changes {
    /// Of a watch that was refused etcd's Go client tells neither who did it nor that it was created.
    fn is_refusal(&self) -> bool {
        self.0.created && self.0.canceled
    }

    fn header(&self) -> Option<&pb::ResponseHeader> {
        self.0.header.as_ref().filter(|_| !self.is_refusal())
    }
}

impl View for Changes {
    const FORMATS: &'static [Format] = NO_TABLE;

    fn simple(&self, text: &mut Vec<u8>, look: Look) {
        for event in &self.0.events {
            push(text, event_type(event));
            event.prev_kv.iter().chain(&event.kv).for_each(|kv| pair::simple(text, kv, look));
        }
    }

    fn fields(&self, text: &mut Vec<u8>) {
        header(text, self.header());
        for event in &self.0.events {
            push(text, &format!("\"Type\" : {}", event_type(event)));
            event.prev_kv.iter().for_each(|kv| pair::fields(text, "Prev", kv));
            event.kv.iter().for_each(|kv| pair::fields(text, "", kv));
        }
    }

    /// In the shape of etcd's Go client, whose names begin with capitals.
    fn json(&self, _: Look) -> String {
        let events = match self.is_refusal() {
            true => "null".to_owned(),
            false => list(&self.0.events.iter().map(message).collect::<Vec<_>>()),
        };
        object(&[
            ("Header", message(&self.header().copied().unwrap_or_default())),
            ("Events", events),
            ("CompactRevision", self.0.compact_revision.to_string()),
            ("Canceled", self.0.canceled.to_string()),
            ("Created", (self.0.created && !self.is_refusal()).to_string()),
        ])
    }

    fn protobuf(&self) -> Vec<u8> {
        let response = pb::WatchResponse {
            // Not left out, even when it is empty.
            header: Some(self.header().copied().unwrap_or_default()),
            events: self.0.events.clone(),
            compact_revision: self.0.compact_revision,
            canceled: self.0.canceled,
            created: self.0.created && !self.is_refusal(),
            ..Default::default()
        };
        response.encode_to_vec()
    }
}
