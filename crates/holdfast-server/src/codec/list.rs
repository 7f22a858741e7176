//! A list that is put into bytes while it is read.
//!
//! The pairs of a long list, put together first and encoded later, are fetched from main memory twice more, once to measure
//! them and once to copy them: that takes longer than to read them from the store. Here each is encoded as soon as it is
//! found, by the thread that has found it.
//!
//! The length of a message stands in front of it. It follows from what the index knows, mostly: then the list is sent while
//! it is read, and what its client has taken is gone from memory. Reading never waits for the client: what it does not take is
//! kept, up to the whole list.

use std::ops::ControlFlow;

use bytes::{Bytes, BytesMut};
use holdfast_mvcc::command::RangeResponse;
use holdfast_mvcc::types::{KeyValue, LeaseId};
use holdfast_mvcc::{Announced, IndexedKey, IndexedLease, Pairs};
use holdfast_proto::codec::aside;
use holdfast_proto::{etcdserverpb as pb, mvccpb};
use prost::Message;
use prost::encoding::{encoded_len_varint, key_len, message};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use super::response::{key_value, signed};

/// What a piece has at most, unless one pair has more: what the allocator keeps at hand.
const PIECE_BYTES: usize = 32 * 1024;

/// Shorter lists are put together before they are sent.
const SENT_WHILE_READ_MIN: usize = 2 * PIECE_BYTES;

/// The number of the pairs' field in the message.
const KVS: u32 = 2;

/// The numbers of fields of a pair.
const KEY: u32 = 1;
const VALUE: u32 = 5;

/// The message of a list, in pieces.
#[derive(Debug)]
pub struct EncodedList {
    /// The length of the message.
    pub bytes: usize,
    /// One behind the other they are the message, when no error has ended it before; none is empty.
    pub pieces: Pieces,
}

/// Where the pieces of a list are.
#[derive(Debug)]
pub enum Pieces {
    /// All of them.
    Here(Vec<Bytes>),
    /// They come as they are read.
    Coming(mpsc::Receiver<Bytes>),
}

/// Takes the pairs of an answer and puts them into its message.
pub struct ListWriter {
    header: pb::ResponseHeader,
    open: BytesMut,
    full: Full,
    /// Nobody takes what is sent any more, or nothing is missing in it.
    is_over: bool,
}

/// What becomes of a piece.
enum Full {
    /// It is kept; the list is handed over when it has turned out that it can be sent while it is read.
    Kept(Vec<Bytes>, Option<oneshot::Sender<EncodedList>>),
    /// It is sent.
    Sent(mpsc::Sender<Bytes>),
}

impl ListWriter {
    /// For an answer with this header. The list goes to `early` if it is sent while it is read; without that it is kept.
    pub fn new(header: pb::ResponseHeader, early: Option<oneshot::Sender<EncodedList>>) -> Self {
        Self { header, open: BytesMut::new(), full: Full::Kept(Vec::new(), early), is_over: false }
    }

    /// What is left of the answer; `None` when it was sent.
    pub fn finish(answer: RangeResponse<Self>) -> Option<EncodedList> {
        let RangeResponse { kvs: mut writer, more, count } = answer;
        let tail = tail(more, count).encode_to_vec();
        if !tail.is_empty() {
            writer.close();
            writer.open.extend_from_slice(&tail);
        }
        writer.close();
        writer.is_over = true;
        let Full::Kept(pieces, _) = &mut writer.full else { return None };
        let mut pieces = std::mem::take(pieces);
        let head = head(writer.header).encode_to_vec();
        if !head.is_empty() {
            pieces.insert(0, head.into());
        }
        let bytes = pieces.iter().map(Bytes::len).sum();
        Some(EncodedList { bytes, pieces: Pieces::Here(pieces) })
    }

    /// The piece is full.
    fn close(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let piece = std::mem::take(&mut self.open).freeze();
        match &mut self.full {
            Full::Kept(pieces, _) => pieces.push(piece),
            Full::Sent(pieces) => match pieces.try_send(piece) {
                Ok(()) => {}
                Err(TrySendError::Closed(_)) => self.is_over = true,
                Err(TrySendError::Full(_)) => unreachable!("the channel has room for the whole list"),
            },
        }
    }
}

impl Pairs for ListWriter {
    fn begin(&mut self, announced: &Announced<'_>) {
        let Full::Kept(_, early) = &mut self.full else { return };
        let (head, tail) = (head(self.header), tail(announced.more, announced.count));
        let Some(pairs) = pairs_len(announced) else { return };
        let bytes = head.encoded_len() + pairs + tail.encoded_len();
        if bytes < SENT_WHILE_READ_MIN {
            return;
        }
        let Some(early) = early.take() else { return };
        // Two that follow each other have more than one holds: so there are never more.
        let (send, pieces) = mpsc::channel(2 * bytes / PIECE_BYTES + 3);
        self.full = Full::Sent(send);
        self.open.extend_from_slice(&head.encode_to_vec());
        // Who asked may have given up.
        drop(early.send(EncodedList { bytes, pieces: Pieces::Coming(pieces) }));
    }

    fn push(&mut self, pair: KeyValue) -> ControlFlow<()> {
        let pair = key_value(pair);
        let bytes = message::encoded_len(KVS, &pair);
        if !self.open.is_empty() && self.open.len() + bytes > PIECE_BYTES {
            self.close();
            self.open.reserve(bytes.max(PIECE_BYTES));
        }
        message::encode(KVS, &pair, &mut self.open);
        if self.is_over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

impl Drop for ListWriter {
    fn drop(&mut self) {
        if matches!(self.full, Full::Sent(_)) && !self.is_over {
            tracing::error!("a list breaks off while it is sent, because a read of the stable store failed");
        }
    }
}

// Messages one behind the other are one message with the fields of all; in this order prost's own.

fn head(header: pb::ResponseHeader) -> pb::RangeResponse {
    pb::RangeResponse { header: Some(header), ..pb::RangeResponse::default() }
}

fn tail(more: bool, count: u64) -> pb::RangeResponse {
    pb::RangeResponse { more, count: signed(count), ..pb::RangeResponse::default() }
}

/// The length of all pairs in the message; `None` when the index does not know enough.
fn pairs_len(announced: &Announced<'_>) -> Option<usize> {
    let pair = |key: &IndexedKey| pair_len(key, announced.keys_only);
    announced.keys.iter().map(pair).sum()
}

fn pair_len(key: &IndexedKey, keys_only: bool) -> Option<usize> {
    let IndexedLease::Known(lease) = key.lease else { return None };
    let value_bytes = if keys_only { 0 } else { key.value_bytes? as usize };
    let numbers = mvccpb::KeyValue {
        create_revision: signed(key.create_revision.get()),
        mod_revision: signed(key.id.revision.get()),
        version: signed(key.version),
        lease: lease.map_or(0, |LeaseId(lease)| lease),
        ..mvccpb::KeyValue::default()
    };
    let bytes = numbers.encoded_len() + bytes_len(KEY, key.key.len()) + bytes_len(VALUE, value_bytes);
    Some(key_len(KVS) + encoded_len_varint(bytes as u64) + bytes)
}

/// The length of a field of so many bytes; an empty one is left out.
fn bytes_len(number: u32, bytes: usize) -> usize {
    if bytes == 0 { 0 } else { key_len(number) + encoded_len_varint(bytes as u64) + bytes }
}

impl EncodedList {
    /// All of it as a message; `None` when it does not come to its end. Its keys and values are parts of the pieces.
    pub async fn decode(self) -> Option<pb::RangeResponse> {
        let mut response = pb::RangeResponse::default();
        let mut left = self.bytes;
        // A pair is never cut in two.
        let mut merge = |piece: Bytes| {
            left = left.checked_sub(piece.len())?;
            response.merge(piece).ok()
        };
        match self.pieces {
            Pieces::Here(pieces) => aside(|| pieces.into_iter().try_for_each(merge))?,
            Pieces::Coming(mut coming) => {
                while let Some(piece) = coming.recv().await {
                    merge(piece)?;
                }
            }
        }
        (left == 0).then_some(response)
    }
}

/// What is counted when a list ends in its middle, and what is told to who has not had the begin of it. The others see their
/// stream reset.
pub fn broken_off() -> Status {
    Status::unavailable("the stable store of this member failed while the list was read: ask another member")
}

#[cfg(test)]
mod tests {
    use holdfast_mvcc::types::{RecordId, Revision};

    use super::super::response;
    use super::*;

    fn pairs(values: &[usize]) -> Vec<KeyValue> {
        let pair = |(number, bytes): (usize, &usize)| KeyValue {
            key: format!("key/{number}").into(),
            create_revision: Revision::new(3 * number as u64),
            mod_revision: Revision::new(90 * number as u64),
            version: number as u64 / 3,
            lease: (number % 5 == 1).then_some(LeaseId(i64::MIN >> (number % 60))),
            value: vec![7; *bytes].into(),
        };
        values.iter().enumerate().map(pair).collect()
    }

    /// What the index knows of them.
    fn indexed(pairs: &[KeyValue]) -> Vec<IndexedKey> {
        let indexed = |pair: &KeyValue| IndexedKey {
            key: pair.key.clone(),
            id: RecordId::new(pair.mod_revision, 0),
            create_revision: pair.create_revision,
            version: pair.version,
            lease: IndexedLease::Known(pair.lease),
            value_bytes: u32::try_from(pair.value.len()).ok(),
        };
        pairs.iter().map(indexed).collect()
    }

    const HEADER: pb::ResponseHeader =
        pb::ResponseHeader { revision: 9, cluster_id: 0, member_id: 0, raft_term: 0 };

    /// Writes a list; what was announced with it, if anything.
    fn written(
        kvs: &[KeyValue],
        announced: Option<&Announced<'_>>,
        (more, count): (bool, u64),
    ) -> (bool, EncodedList) {
        let (early, mut came) = oneshot::channel();
        let mut writer = ListWriter::new(HEADER, Some(early));
        if let Some(announced) = announced {
            writer.begin(announced);
        }
        let pushed = kvs.iter().cloned().all(|pair| writer.push(pair).is_continue());
        assert!(pushed);
        let left = ListWriter::finish(RangeResponse { kvs: writer, more, count });
        match (left, came.try_recv()) {
            (Some(list), Err(_)) => (false, list),
            (None, Ok(list)) => (true, list),
            both => panic!("in one of two ways: {both:?}"),
        }
    }

    #[tokio::test]
    async fn sent_or_kept_it_is_the_message_with_its_length() {
        for values in
            [&[][..], &[10], &[300; 10_000], &[0, 1, PIECE_BYTES / 2, PIECE_BYTES / 2, 5], &[3 * PIECE_BYTES]]
        {
            for (more, count) in [(false, 0), (true, 70_000)] {
                let kvs = pairs(values);
                let keys = indexed(&kvs);
                let announced = Announced { keys: &keys, keys_only: false, more, count };
                let answer = RangeResponse { kvs: kvs.clone(), more, count };
                let whole = response::range(answer, HEADER).encode_to_vec();
                for announced in [None, Some(&announced)] {
                    let (is_sent, list) = written(&kvs, announced, (more, count));
                    assert_eq!(is_sent, announced.is_some() && whole.len() >= SENT_WHILE_READ_MIN);
                    assert_eq!(list.bytes, whole.len());
                    assert!(list.decode().await == pb::RangeResponse::decode(&*whole).ok());
                }
                let (_, list) = written(&kvs, None, (more, count));
                let Pieces::Here(pieces) = list.pieces else { panic!("kept") };
                assert!(pieces.concat() == whole, "{} pairs", values.len());
                assert!(pieces.iter().all(|piece| !piece.is_empty()));
            }
        }
    }

    #[test]
    fn what_the_index_does_not_know_is_not_sent_early() {
        let kvs = pairs(&[300; 10_000]);
        for spoil in [
            |key: &mut IndexedKey| key.value_bytes = None,
            |key: &mut IndexedKey| key.lease = IndexedLease::InRecord,
        ] {
            let mut keys = indexed(&kvs);
            spoil(&mut keys[7_000]);
            let announced = Announced { keys: &keys, keys_only: false, more: false, count: 1 };
            assert!(!written(&kvs, Some(&announced), (false, 1)).0);
        }
    }

    #[tokio::test]
    async fn a_list_that_breaks_off_is_not_taken_for_one() {
        let kvs = pairs(&[300; 10_000]);
        let keys = indexed(&kvs);
        let (early, came) = oneshot::channel();
        let mut writer = ListWriter::new(HEADER, Some(early));
        writer.begin(&Announced { keys: &keys, keys_only: false, more: false, count: 1 });
        assert!(kvs.into_iter().take(9_999).all(|pair| writer.push(pair).is_continue()));
        drop(writer);
        assert!(came.await.unwrap().decode().await.is_none());
    }

    #[test]
    fn nothing_is_read_for_who_is_gone() {
        let kvs = pairs(&[300; 10_000]);
        let keys = indexed(&kvs);
        let (early, came) = oneshot::channel();
        let mut writer = ListWriter::new(HEADER, Some(early));
        writer.begin(&Announced { keys: &keys, keys_only: false, more: false, count: 1 });
        drop(came);
        let taken = kvs.into_iter().take_while(|pair| writer.push(pair.clone()).is_continue()).count();
        assert!(taken < 200, "{taken}");
    }
}
