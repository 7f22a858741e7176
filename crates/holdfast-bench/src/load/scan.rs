//! Reads of watch responses and lists what a benchmark needs, and no more.
//!
//! A fan-out delivers some hundred thousand events a second to a client that shares the machine with the servers, and a
//! list some ten megabytes. Decoding them into messages would cost more than sending them; here fields are skipped in
//! place.

use crate::error::Error;

/// Field numbers of `etcdserverpb.WatchResponse`, `mvccpb.Event` and `mvccpb.KeyValue`.
const CREATED: u64 = 3;
const CANCELED: u64 = 4;
const EVENTS: u64 = 11;
const EVENT_KV: u64 = 2;
const KV_VALUE: u64 = 5;
/// Of `etcdserverpb.RangeResponse`, its header and its keys.
const HEADER: u64 = 1;
const KVS: u64 = 2;
const MORE: u64 = 3;
const HEADER_REVISION: u64 = 3;
const KV_KEY: u64 = 1;
/// gRPC's, in front of a message.
const PREFIX_BYTES: u64 = 5;

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

/// What a page of a list says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Page<'a> {
    /// How many keys are in it.
    pub(crate) keys: u64,
    /// The last of them; empty if there is none.
    pub(crate) last: &'a [u8],
    /// Whether there are more behind it.
    pub(crate) more: bool,
    /// The header's.
    pub(crate) revision: u64,
}

/// Walks a `RangeResponse`.
pub(crate) fn page(message: &[u8]) -> Result<Page<'_>, Error> {
    let mut page = Page::default();
    let mut last = None;
    let mut fields = Fields(message);
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (HEADER, Field::Bytes(header)) => page.revision = number_field(header, HEADER_REVISION)?,
            (KVS, Field::Bytes(pair)) => {
                page.keys += 1;
                last = Some(pair);
            }
            (MORE, Field::Number(value)) => page.more = value != 0,
            _ => {}
        }
    }
    page.last = last.map_or(Ok(&[][..]), |pair| bytes_field(pair, KV_KEY))?;
    Ok(page)
}

/// Counts the keys of one `RangeResponse` that arrives in pieces, its prefix in front of it. Keeps none of them.
#[derive(Debug)]
pub(crate) struct KeyCount {
    /// Bytes of the prefix, or of a field, that are still to come.
    skip: u64,
    /// What has come of a number, and by how much its next byte is shifted.
    number: (u64, u32),
    /// What the field is that has begun: its number and type, as they are sent.
    field: Option<u64>,
    keys: u64,
    more: bool,
}

impl KeyCount {
    /// Nothing has come yet.
    pub(crate) fn new() -> Self {
        Self { skip: PREFIX_BYTES, number: (0, 0), field: None, keys: 0, more: false }
    }

    /// Takes the next piece.
    pub(crate) fn take(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while let Some((byte, behind)) = bytes.split_first() {
            if self.skip > 0 {
                let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
                self.skip -= skipped as u64;
                bytes = &bytes[skipped..];
                continue;
            }
            bytes = behind;
            let (value, shift) = self.number;
            if shift >= 64 {
                return Err(TOO_LONG);
            }
            let value = value | u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                self.number = (0, 0);
                self.take_number(value)?;
            } else {
                self.number = (value, shift + 7);
            }
        }
        Ok(())
    }

    fn take_number(&mut self, value: u64) -> Result<(), Error> {
        let Some(field) = self.field.take() else {
            self.field = Some(value);
            return Ok(());
        };
        match field & 7 {
            0 => self.more |= field >> 3 == MORE && value != 0,
            2 => {
                self.keys += u64::from(field >> 3 == KVS);
                self.skip = value;
            }
            _ => return Err(UNKNOWN_TYPE),
        }
        Ok(())
    }

    /// How many keys there were, if the response is there to its end, and says that there are no more.
    pub(crate) fn whole(&self) -> Result<u64, Error> {
        if self.skip > 0 || self.number != (0, 0) || self.field.is_some() {
            return Err(CUT);
        }
        if self.more { Err(Error::Answer("a whole list with more behind it")) } else { Ok(self.keys) }
    }
}

/// The value of the field with this number, 0 if there is none.
fn number_field(message: &[u8], wanted: u64) -> Result<u64, Error> {
    let mut fields = Fields(message);
    while let Some((number, field)) = fields.next()? {
        if let (true, Field::Number(value)) = (number == wanted, field) {
            return Ok(value);
        }
    }
    Ok(0)
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
const UNKNOWN_TYPE: Error = Error::Answer("a field of a type that etcd's messages do not have");
const TOO_LONG: Error = Error::Answer("a number that is too long");

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
            _ => return Err(UNKNOWN_TYPE),
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
        Err(TOO_LONG)
    }
}

#[cfg(test)]
mod tests {
    use holdfast_proto::etcdserverpb::{RangeResponse, ResponseHeader, WatchResponse};
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

    fn list(keys: usize, more: bool) -> RangeResponse {
        let pair = |number| KeyValue {
            key: format!("k{number}").into(),
            value: vec![0xff; 300].into(),
            mod_revision: 1 << 40,
            ..KeyValue::default()
        };
        RangeResponse {
            header: Some(ResponseHeader { revision: 77, member_id: u64::MAX, ..ResponseHeader::default() }),
            kvs: (0..keys).map(pair).collect(),
            more,
            count: 1000,
        }
    }

    #[test]
    fn a_page_says_where_the_next_begins() {
        let message = list(3, true).encode_to_vec();
        assert_eq!(page(&message).unwrap(), Page { keys: 3, last: b"k2", more: true, revision: 77 });
        assert_eq!(page(&[]).unwrap(), Page::default());
    }

    #[test]
    fn keys_are_counted_however_the_list_was_cut() {
        let mut wire = vec![0; 5];
        wire.extend_from_slice(&list(3, false).encode_to_vec());
        for cut in 0..=wire.len() {
            let mut count = KeyCount::new();
            count.take(&wire[..cut]).unwrap();
            count.take(&wire[cut..]).unwrap();
            assert_eq!(count.whole().unwrap(), 3, "cut at {cut}");
        }
        let mut count = KeyCount::new();
        count.take(&wire[..wire.len() - 4]).unwrap();
        assert!(count.whole().is_err(), "a cut list is none");
        let mut count = KeyCount::new();
        wire.truncate(5);
        wire.extend_from_slice(&list(3, true).encode_to_vec());
        count.take(&wire).unwrap();
        assert!(count.whole().is_err(), "there are more");
        assert!(KeyCount::new().take(&[0xff; 20]).is_err(), "no number is that long");
    }
}
