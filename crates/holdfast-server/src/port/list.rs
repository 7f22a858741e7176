//! A long list as the body of an answer: put into bytes piece by piece, when its client has room for the next one.
//!
//! Whole, the bytes of a list of 30 MiB cost its memory once more, fresh from the system, which takes longer than to fill it.

use std::task::{Context, Poll};
use std::vec;

use bytes::{BufMut, Bytes, BytesMut};
use holdfast_proto::codec::{LONG_LIST_PAIRS, TURN_PAIRS, aside};
use holdfast_proto::etcdserverpb as pb;
use holdfast_proto::mvccpb::KeyValue;
use prost::Message;
use prost::encoding::message;

use super::PREFIX_BYTES;

/// What a piece has at most, unless one pair has more: what the allocator keeps at hand.
const PIECE_BYTES: usize = 32 * 1024;

/// The number of the pairs' field in the message.
const KVS: u32 = 2;

/// So many pieces are put into bytes and sent in one turn: some hundred microseconds. Then the other tasks of this thread have
/// theirs; a socket that takes everything would keep them waiting until the list is sent.
const TURN_PIECES: usize = 4;

/// What is left of a list.
pub struct List {
    /// The prefix of the message, and the fields in front of the pairs.
    head: Option<Bytes>,
    pairs: vec::IntoIter<KeyValue>,
    /// The fields behind the pairs.
    tail: Option<pb::RangeResponse>,
    /// Pieces that were taken in this turn.
    taken: usize,
}

impl List {
    /// All of it; gives a list back that is too long for a message.
    pub(super) fn new(list: pb::RangeResponse) -> Result<Box<Self>, pb::RangeResponse> {
        // Looking at each of a hundred thousand pairs takes milliseconds.
        let pairs_len = if list.kvs.len() < LONG_LIST_PAIRS {
            pairs_len(&list.kvs)
        } else {
            aside(|| in_turns(&list.kvs))
        };
        let head = pb::RangeResponse { header: list.header, ..pb::RangeResponse::default() };
        let tail = pb::RangeResponse { more: list.more, count: list.count, ..pb::RangeResponse::default() };
        let Ok(len) = u32::try_from(head.encoded_len() + pairs_len + tail.encoded_len()) else {
            return Err(list);
        };
        let mut begin = BytesMut::with_capacity(PREFIX_BYTES + head.encoded_len());
        begin.put_u8(0);
        begin.put_u32(len);
        head.encode(&mut begin).expect("a buffer that grows has room");
        let (head, pairs, tail) = (Some(begin.freeze()), list.kvs.into_iter(), Some(tail));
        Ok(Box::new(Self { head, pairs, tail, taken: 0 }))
    }

    /// The next bytes; `None` behind the last. Pending now and then, only for the others' sake.
    pub(super) fn poll_piece(&mut self, context: &Context<'_>) -> Poll<Option<Bytes>> {
        if self.taken == TURN_PIECES {
            self.taken = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.taken += 1;
        Poll::Ready(self.next_piece())
    }

    fn next_piece(&mut self) -> Option<Bytes> {
        if self.head.is_none() && self.tail.is_none() {
            return None;
        }
        let mut piece = BytesMut::with_capacity(PIECE_BYTES);
        piece.extend_from_slice(&self.head.take().unwrap_or_default());
        while let Some(pair) = self.pairs.as_slice().first() {
            let bytes = message::encoded_len(KVS, pair);
            if !piece.is_empty() && piece.len() + bytes > PIECE_BYTES {
                return Some(piece.freeze());
            }
            message::encode(KVS, pair, &mut piece);
            // Encoded pairs are freed.
            drop(self.pairs.next());
        }
        if let Some(tail) = self.tail.take() {
            tail.encode(&mut piece).expect("a buffer that grows has room");
        }
        Some(piece.freeze())
    }
}

fn pairs_len(pairs: &[KeyValue]) -> usize {
    pairs.iter().map(|pair| message::encoded_len(KVS, pair)).sum()
}

/// The same, and others run in between.
fn in_turns(pairs: &[KeyValue]) -> usize {
    let turn = |pairs| {
        holdfast_env::give_way();
        pairs_len(pairs)
    };
    pairs.chunks(TURN_PAIRS).map(turn).sum()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use super::super::framed;
    use super::*;

    fn list(values: impl Iterator<Item = usize>) -> pb::RangeResponse {
        let pair = |(number, bytes): (usize, usize)| KeyValue {
            key: format!("key/{number}").into(),
            value: vec![7; bytes].into(),
            mod_revision: 9,
            ..KeyValue::default()
        };
        let header = Some(pb::ResponseHeader { revision: 9, ..pb::ResponseHeader::default() });
        pb::RangeResponse { header, kvs: values.enumerate().map(pair).collect(), more: true, count: 2_000 }
    }

    fn pieces(list: pb::RangeResponse) -> Vec<Bytes> {
        let mut left = List::new(list).unwrap();
        std::iter::from_fn(|| left.next_piece()).collect()
    }

    #[test]
    fn pieces_are_the_message_and_none_is_long() {
        for list in [
            list(std::iter::empty()),
            list(std::iter::once(10)),
            list(std::iter::repeat_n(300, 3 * LONG_LIST_PAIRS)),
            list([0, 1, PIECE_BYTES / 2, PIECE_BYTES / 2, 5].into_iter()),
        ] {
            let expected = framed(&list);
            let pieces = pieces(list);
            assert!(pieces.concat() == expected, "{} pieces of {} bytes", pieces.len(), expected.len());
            assert!(pieces.iter().all(|piece| !piece.is_empty() && piece.len() <= PIECE_BYTES + 64));
        }
    }

    #[test]
    fn a_turn_ends_after_some_pieces_and_another_is_asked_for() {
        let mut left = List::new(list(std::iter::repeat_n(10_000, 40))).unwrap();
        let (waker, woken) = counting_waker();
        let context = Context::from_waker(&waker);
        let mut pieces = Vec::new();
        loop {
            match left.poll_piece(&context) {
                Poll::Ready(Some(piece)) => pieces.push(piece),
                Poll::Ready(None) => break,
                Poll::Pending => assert_eq!(pieces.len() % TURN_PIECES, 0),
            }
        }
        assert!(pieces.concat() == framed(&list(std::iter::repeat_n(10_000, 40))));
        assert_eq!(woken.load(Ordering::Relaxed), pieces.len() / TURN_PIECES);
    }

    /// A waker that counts.
    fn counting_waker() -> (Waker, Arc<AtomicUsize>) {
        struct Counting(Arc<AtomicUsize>);
        impl Wake for Counting {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let woken = Arc::<AtomicUsize>::default();
        (Arc::new(Counting(Arc::clone(&woken))).into(), woken)
    }

    #[test]
    fn a_long_value_is_one_piece() {
        let list = list([10, 5 * PIECE_BYTES, 10].into_iter());
        let expected = framed(&list);
        let pieces = pieces(list);
        assert_eq!(pieces.len(), 3);
        assert!(pieces.concat() == expected);
    }
}
