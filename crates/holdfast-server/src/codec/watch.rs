//! Watch requests from the wire, and watch responses to it.
//!
//! A change is encoded once, as the bytes that stand for it in a response, and these bytes are shared by all watchers
//! that get it. [`WatchEncoder`] writes what differs around them: header, watch id, flags. The result equals what prost
//! would have made of the same response, field by field.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use holdfast_mvcc::types::{Change, KeyRange, KeyValue, Record, Revision};
use holdfast_proto::{etcdserverpb as pb, mvccpb};
use holdfast_watch::{Filter, PrevKv};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use tonic::Status;
use tonic::codec::{Codec, Decoder, EncodeBuf, Encoder};
use tonic_prost::ProstCodec;

use super::request::key_range;
use super::response::{compact_revision, key_value, signed};

/// The wire id of what concerns a whole stream, and of creates that failed.
pub const NO_WATCH: i64 = -1;

/// Field numbers of a watch response and its header.
mod tag {
    pub(super) const HEADER: u32 = 1;
    pub(super) const WATCH_ID: u32 = 2;
    pub(super) const CREATED: u32 = 3;
    pub(super) const CANCELED: u32 = 4;
    pub(super) const COMPACT_REVISION: u32 = 5;
    pub(super) const CANCEL_REASON: u32 = 6;
    pub(super) const FRAGMENT: u32 = 7;
    pub(super) const EVENTS: u32 = 11;
    pub(super) const CLUSTER_ID: u32 = 1;
    pub(super) const MEMBER_ID: u32 = 2;
    pub(super) const REVISION: u32 = 3;
    pub(super) const RAFT_TERM: u32 = 4;
}

/// What a client asks a new watcher to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Create {
    /// The keys.
    pub range: KeyRange,
    /// The first revision wanted; 0 for the next one, below that for none that exists.
    pub start_revision: i64,
    /// The id wanted; 0 for any.
    pub watch_id: i64,
    /// Which changes are wanted.
    pub filter: Filter,
    /// Whether the states before the changes are wanted.
    pub prev_kv: PrevKv,
    /// Whether large responses are cut into fragments.
    pub fragment: bool,
    /// Whether progress is told from time to time.
    pub progress_notify: bool,
}

/// What a client asks a new watcher to be. An empty key is the smallest one; unknown filters filter nothing.
pub fn create(request: &pb::WatchCreateRequest) -> Create {
    use pb::watch_create_request::FilterType;
    let filtered = |filter: FilterType| request.filters.contains(&(filter as i32));
    let filter = Filter { puts: !filtered(FilterType::Noput), deletes: !filtered(FilterType::Nodelete) };
    // Not slices of the request, which a watcher would keep in memory for as long as it lives.
    let key =
        if request.key.is_empty() { Bytes::from_static(&[0]) } else { Bytes::copy_from_slice(&request.key) };
    Create {
        range: key_range(key, Bytes::copy_from_slice(&request.range_end)),
        start_revision: request.start_revision,
        watch_id: request.watch_id,
        filter,
        prev_kv: if request.prev_kv { PrevKv::Wanted } else { PrevKv::Omitted },
        fragment: request.fragment,
        progress_notify: request.progress_notify,
    }
}

/// Appends a change as it stands in a response, with its field's key and length. A deleted key has only its name and
/// the revision of the delete.
pub fn put_event(buffer: &mut BytesMut, record: &Record, prev_kv: Option<KeyValue>) {
    let deleted = |revision: Revision| mvccpb::KeyValue {
        key: record.key.clone(),
        mod_revision: signed(revision.get()),
        ..Default::default()
    };
    let (kind, kv) = match &record.change {
        Change::Delete => (mvccpb::event::EventType::Delete, deleted(record.id.revision)),
        Change::Put(put) => (
            mvccpb::event::EventType::Put,
            mvccpb::KeyValue {
                key: record.key.clone(),
                create_revision: signed(put.create_revision.get()),
                mod_revision: signed(record.id.revision.get()),
                version: signed(put.version),
                value: put.value.clone(),
                lease: put.lease.map_or(0, |lease| lease.0),
            },
        ),
    };
    let event = mvccpb::Event { r#type: kind.into(), kv: Some(kv), prev_kv: prev_kv.map(key_value) };
    prost::encoding::message::encode(tag::EVENTS, &event, buffer);
}

/// One response to one watcher, or to a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The watcher's id on its stream, or [`NO_WATCH`].
    pub watch_id: i64,
    /// The header's revision.
    pub revision: Revision,
    /// What it tells.
    pub content: Content,
}

/// What a response tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// There is a new watcher.
    Created,
    /// There is no new watcher, and why.
    Refused(&'static str),
    /// The watcher is gone, because its client wanted that.
    Canceled,
    /// The watcher is gone: it needs a revision below this one, which is the lowest that is left; or one that never was,
    /// of a store that was never compacted.
    Compacted(Option<Revision>),
    /// All changes up to the header's revision have been told.
    Progress,
    /// Changes.
    Events(Events),
}

/// Encoded changes of one response, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Events {
    /// Each part holds one or more whole events, as [`put_event`] makes them.
    parts: Parts,
    bytes: usize,
    /// True when more of the same response follows.
    is_fragment: bool,
}

/// Nearly always there is one part; a list would cost an allocation for each response.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Parts {
    One(Bytes),
    Many(Vec<Bytes>),
}

impl Default for Parts {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl Events {
    /// Events from bytes that [`put_event`] made.
    pub fn new(encoded: Bytes) -> Self {
        Self { bytes: encoded.len(), parts: Parts::One(encoded), is_fragment: false }
    }

    /// Their encoded size.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds later events.
    pub fn append(&mut self, encoded: Bytes) {
        self.bytes += encoded.len();
        match &mut self.parts {
            Parts::Many(parts) => parts.push(encoded),
            Parts::One(first) => self.parts = Parts::Many(vec![std::mem::take(first), encoded]),
        }
    }

    fn parts(&self) -> &[Bytes] {
        match &self.parts {
            Parts::One(part) => std::slice::from_ref(part),
            Parts::Many(parts) => parts,
        }
    }
}

impl Response {
    /// Cuts a response so that none of its fragments is as large as `bytes_max`, unless one event alone is. The cuts are
    /// between events; all fragments but the last say that more follows.
    pub fn into_fragments(self, header: &Header, bytes_max: usize) -> Vec<Self> {
        let term = header.term();
        if self.encoded_len(header, term) < bytes_max {
            return vec![self];
        }
        let Content::Events(events) = &self.content else { return vec![self] };
        let around = self.encoded_len(header, term) - events.bytes + 2;
        let mut pieces: Vec<Events> = Vec::new();
        for event in events.parts().iter().flat_map(each_event) {
            match pieces.last_mut() {
                Some(piece) if around + piece.bytes + event.len() < bytes_max => piece.append(event),
                _ => pieces.push(Events::new(event)),
            }
        }
        let last = pieces.len() - 1;
        let numbered = pieces.into_iter().enumerate().map(|(at, mut events)| {
            events.is_fragment = at < last;
            Self { content: Content::Events(events), ..self }
        });
        numbered.collect()
    }

    fn encoded_len(&self, header: &Header, term: u64) -> usize {
        let header_len = header.len(self.revision, term);
        let mut len = key_len(tag::HEADER) + encoded_len_varint(header_len as u64) + header_len;
        len += number_len(tag::WATCH_ID, wire(self.watch_id));
        len + match &self.content {
            Content::Created => number_len(tag::CREATED, 1),
            Content::Canceled => number_len(tag::CANCELED, 1),
            Content::Refused(reason) => {
                number_len(tag::CREATED, 1)
                    + number_len(tag::CANCELED, 1)
                    + text_len(tag::CANCEL_REASON, reason)
            }
            Content::Compacted(revision) => {
                let revision = wire(compact_revision(*revision));
                number_len(tag::CANCELED, 1) + number_len(tag::COMPACT_REVISION, revision)
            }
            Content::Progress => 0,
            Content::Events(events) => {
                number_len(tag::FRAGMENT, u64::from(events.is_fragment)) + events.bytes
            }
        }
    }

    /// Writes the response as protobuf.
    pub fn encode(&self, header: &Header, buffer: &mut impl BufMut) {
        header.encode(self.revision, buffer);
        put_number(tag::WATCH_ID, wire(self.watch_id), buffer);
        match &self.content {
            Content::Created => put_number(tag::CREATED, 1, buffer),
            Content::Canceled => put_number(tag::CANCELED, 1, buffer),
            Content::Refused(reason) => {
                put_number(tag::CREATED, 1, buffer);
                put_number(tag::CANCELED, 1, buffer);
                encode_key(tag::CANCEL_REASON, WireType::LengthDelimited, buffer);
                encode_varint(reason.len() as u64, buffer);
                buffer.put_slice(reason.as_bytes());
            }
            Content::Compacted(revision) => {
                put_number(tag::CANCELED, 1, buffer);
                put_number(tag::COMPACT_REVISION, wire(compact_revision(*revision)), buffer);
            }
            Content::Progress => {}
            Content::Events(events) => {
                put_number(tag::FRAGMENT, u64::from(events.is_fragment), buffer);
                events.parts().iter().for_each(|part| buffer.put_slice(part));
            }
        }
    }
}

/// The single events of a part, each with its field's key and length.
fn each_event(part: &Bytes) -> impl Iterator<Item = Bytes> {
    let mut rest = part.clone();
    std::iter::from_fn(move || {
        let mut ahead = &rest[..];
        prost::encoding::decode_varint(&mut ahead).ok()?;
        let len = usize::try_from(prost::encoding::decode_varint(&mut ahead).ok()?).ok()?;
        let around = rest.remaining() - ahead.remaining();
        Some(rest.split_to(around + len))
    })
}

/// A signed number as protobuf writes it.
fn wire(number: i64) -> u64 {
    number.cast_unsigned()
}

/// A number that is zero is not written.
fn put_number(tag: u32, number: u64, buffer: &mut impl BufMut) {
    if number != 0 {
        encode_key(tag, WireType::Varint, buffer);
        encode_varint(number, buffer);
    }
}

fn number_len(tag: u32, number: u64) -> usize {
    if number == 0 { 0 } else { key_len(tag) + encoded_len_varint(number) }
}

fn text_len(tag: u32, text: &str) -> usize {
    key_len(tag) + encoded_len_varint(text.len() as u64) + text.len()
}

/// What all headers of a member share.
#[derive(Debug)]
pub struct Header {
    cluster_id: u64,
    member_id: u64,
    /// Written by the dispatch loop and the sessions.
    term: AtomicU64,
}

impl Header {
    /// Headers of this member.
    pub fn new(header: &pb::ResponseHeader) -> Self {
        Self {
            cluster_id: header.cluster_id,
            member_id: header.member_id,
            term: AtomicU64::new(header.raft_term),
        }
    }

    /// The member's term from now on.
    pub fn set_term(&self, term: u64) {
        self.term.store(term, Ordering::Relaxed);
    }

    fn term(&self) -> u64 {
        self.term.load(Ordering::Relaxed)
    }

    fn len(&self, revision: Revision, term: u64) -> usize {
        number_len(tag::CLUSTER_ID, self.cluster_id)
            + number_len(tag::MEMBER_ID, self.member_id)
            + number_len(tag::REVISION, revision.get())
            + number_len(tag::RAFT_TERM, term)
    }

    fn encode(&self, revision: Revision, buffer: &mut impl BufMut) {
        // Read once: length and content must agree.
        let term = self.term();
        encode_key(tag::HEADER, WireType::LengthDelimited, buffer);
        encode_varint(self.len(revision, term) as u64, buffer);
        put_number(tag::CLUSTER_ID, self.cluster_id, buffer);
        put_number(tag::MEMBER_ID, self.member_id, buffer);
        put_number(tag::REVISION, revision.get(), buffer);
        put_number(tag::RAFT_TERM, term, buffer);
    }
}

/// Writes [`Response`]s and reads requests.
#[derive(Debug)]
pub struct WatchCodec {
    header: Arc<Header>,
}

impl WatchCodec {
    /// A codec for a member's streams.
    pub fn new(header: Arc<Header>) -> Self {
        Self { header }
    }
}

/// Reads requests.
pub type WatchDecoder = <ProstCodec<pb::WatchResponse, pb::WatchRequest> as Codec>::Decoder;

impl Codec for WatchCodec {
    type Encode = Response;
    type Decode = pb::WatchRequest;
    type Encoder = WatchEncoder;
    type Decoder = WatchDecoder;

    fn encoder(&mut self) -> WatchEncoder {
        WatchEncoder { header: Arc::clone(&self.header) }
    }

    fn decoder(&mut self) -> WatchDecoder {
        ProstCodec::<pb::WatchResponse, pb::WatchRequest>::default().decoder()
    }
}

const _: fn() = || {
    fn reads_requests<D: Decoder<Item = pb::WatchRequest>>() {}
    reads_requests::<WatchDecoder>();
};

/// Writes responses.
#[derive(Debug)]
pub struct WatchEncoder {
    header: Arc<Header>,
}

impl Encoder for WatchEncoder {
    type Item = Response;
    type Error = Status;

    fn encode(&mut self, response: Response, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        // Small ones fit into what the buffer grows by anyway.
        if let Content::Events(events) = &response.content {
            buffer.reserve(events.bytes() + ENVELOPE_BYTES);
        }
        response.encode(&self.header, buffer);
        Ok(())
    }
}

/// At most so many bytes are around a response's events: a header of four numbers, an id and a flag.
const ENVELOPE_BYTES: usize = 64;
