//! Reads of a watch response what a benchmark needs, and no more.
//!
//! A fan-out delivers some hundred thousand events a second to a client that shares the machine with the servers.
//! Decoding them into messages would cost more than sending them; here fields are skipped in place.

use crate::error::Error;

/// Field numbers of `etcdserverpb.WatchResponse`, `mvccpb.Event` and `mvccpb.KeyValue`.
const CREATED: u64 = 3;
const CANCELED: u64 = 4;
const EVENTS: u64 = 11;
const EVENT_KV: u64 = 2;
const KV_VALUE: u64 = 5;

/// What a response says beside its events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// A watcher was made.
    pub(crate) created: bool,
    /// A watcher has ended.
    pub(crate) canceled: bool,
    /// How many events.
    pub(crate) events: u64,
}

/// Walks a `WatchResponse` and hands the new value of each event to `each`.
pub(crate) fn response(message: &[u8], mut each: impl FnMut(&[u8])) -> Result<Seen, Error> {
    let mut seen = Seen::default();
    let mut fields = Fields(message);
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (CREATED, Field::Number(value)) => seen.created = value != 0,
            (CANCELED, Field::Number(value)) => seen.canceled = value != 0,
            (EVENTS, Field::Bytes(event)) => {
                seen.events += 1;
                let pair = bytes_field(event, EVENT_KV)?;
                each(bytes_field(pair, KV_VALUE)?);
            }
            _ => {}
        }
    }
    Ok(seen)
}

/// The field with this number, empty if there is none.
fn bytes_field(message: &[u8], wanted: u64) -> Result<&[u8], Error> {
    let mut fields = Fields(message);
    while let Some((number, field)) = fields.next()? {
        if let (true, Field::Bytes(bytes)) = (number == wanted, field) {
            return Ok(bytes);
        }
    }
    Ok(&[])
}

/// The fields of a message that are left.
struct Fields<'a>(&'a [u8]);

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

const CUT: Error = Error::Answer("a cut message");

impl<'a> Fields<'a> {
    fn next(&mut self) -> Result<Option<(u64, Field<'a>)>, Error> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let field = match key & 7 {
            0 => Field::Number(self.varint()?),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| CUT)?;
                let (bytes, behind) = self.0.split_at_checked(length).ok_or(CUT)?;
                self.0 = behind;
                Field::Bytes(bytes)
            }
            _ => return Err(Error::Answer("a field of a type that etcd's messages do not have")),
        };
        Ok(Some((key >> 3, field)))
    }

    fn varint(&mut self) -> Result<u64, Error> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, behind) = self.0.split_first().ok_or(CUT)?;
            self.0 = behind;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Error::Answer("a number that is too long"))
    }
}

#[cfg(test)]
mod tests {
    use holdfast_proto::etcdserverpb::{ResponseHeader, WatchResponse};
    use holdfast_proto::mvccpb::{Event, KeyValue};
    use prost::Message;

    use super::*;

    fn sample() -> WatchResponse {
        let pair = |value: &str| KeyValue {
            key: "k".into(),
            create_revision: 300,
            mod_revision: 1 << 40,
            version: 7,
            value: value.to_owned().into(),
            lease: 1,
        };
        let event =
            |value: &str| Event { kv: Some(pair(value)), prev_kv: Some(pair("old")), ..Event::default() };
        WatchResponse {
            header: Some(ResponseHeader { cluster_id: u64::MAX, member_id: 1, revision: 9, raft_term: 2 }),
            watch_id: -1,
            compact_revision: 3,
            cancel_reason: "why".to_owned(),
            events: vec![event("one"), event(""), event("three")],
            ..WatchResponse::default()
        }
    }

    fn values(message: &[u8]) -> Result<(Seen, Vec<String>), Error> {
        let mut values = Vec::new();
        let seen = response(message, |value| values.push(String::from_utf8_lossy(value).into_owned()))?;
        Ok((seen, values))
    }

    #[test]
    fn events_are_those_of_the_message() {
        let (seen, found) = values(&sample().encode_to_vec()).unwrap();
        assert_eq!(seen, Seen { created: false, canceled: false, events: 3 });
        assert_eq!(found, ["one", "", "three"]);
        let created = WatchResponse { created: true, canceled: true, ..WatchResponse::default() };
        let (seen, found) = values(&created.encode_to_vec()).unwrap();
        assert_eq!((seen.created, seen.canceled, found.len()), (true, true, 0));
    }

    #[test]
    fn a_cut_message_is_an_error_or_a_shorter_one() {
        let whole = sample().encode_to_vec();
        for cut in 0..whole.len() {
            let found = values(&whole[..cut]).map_or(0, |(seen, _)| seen.events);
            assert!(found < 3, "all events in {cut} of {} bytes", whole.len());
        }
    }
}
