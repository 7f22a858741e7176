//! A long list as the body of an answer: piece by piece, when its client has room for the next one.

use std::task::{Context, Poll, ready};
use std::vec;

use bytes::{BufMut, Bytes, BytesMut};
use holdfast_env::BoxFuture;
use tokio::sync::mpsc;
use tonic::Status;

use super::PREFIX_BYTES;
use crate::codec::list::{EncodedList, Pieces, broken_off};

/// So many pieces are sent in one turn: some hundred microseconds. Then the other tasks of this thread have theirs, and what has
/// come from elsewhere; a socket that takes everything would keep them waiting until the list is sent.
const TURN_PIECES: usize = 4;

/// What is left of a list.
pub struct List {
    /// The prefix of the message.
    prefix: Option<Bytes>,
    pieces: Left,
    /// Bytes of the message that are still to come.
    bytes: usize,
    /// Pieces that were taken in this turn.
    taken: usize,
    /// Until the others have had their turn.
    rest: Option<BoxFuture<'static, ()>>,
}

enum Left {
    Here(vec::IntoIter<Bytes>),
    Coming(mpsc::Receiver<Bytes>),
}

impl List {
    /// All of it; `None` for one that is too long for a message.
    pub(super) fn new(list: EncodedList) -> Option<Box<Self>> {
        let EncodedList { bytes, pieces } = list;
        let prefix = Some(prefix(bytes)?);
        let pieces = match pieces {
            Pieces::Here(pieces) => Left::Here(pieces.into_iter()),
            Pieces::Coming(pieces) => Left::Coming(pieces),
        };
        Some(Box::new(Self { prefix, pieces, bytes, taken: 0, rest: None }))
    }

    /// The next bytes; `None` behind the last. Pending until they are read, and now and then for the others' sake.
    ///
    /// Errors: the read has failed.
    pub(super) fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Status>> {
        if self.taken == TURN_PIECES {
            // Not a wake-up of ours alone: the runtime would find this task ready again and again, and look for what has come
            // from its sockets only now and then.
            let rest = self.rest.get_or_insert_with(|| Box::pin(tokio::task::yield_now()));
            ready!(rest.as_mut().poll(context));
            (self.taken, self.rest) = (0, None);
        }
        if let Some(prefix) = self.prefix.take() {
            return Poll::Ready(Ok(Some(prefix)));
        }
        let piece = match &mut self.pieces {
            Left::Here(pieces) => pieces.next(),
            Left::Coming(pieces) => ready!(pieces.poll_recv(context)),
        };
        self.taken += 1;
        let left = self.bytes.checked_sub(piece.as_ref().map_or(0, Bytes::len));
        Poll::Ready(match left {
            Some(left) if piece.is_some() || left == 0 => {
                self.bytes = left;
                Ok(piece)
            }
            Some(_) | None => Err(broken_off()),
        })
    }
}

/// A short list as one message with its prefix; `None` when it has to be sent in pieces.
pub(super) fn whole(list: &EncodedList) -> Option<Bytes> {
    let Pieces::Here(pieces) = &list.pieces else { return None };
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + list.bytes);
    bytes.extend_from_slice(&prefix(list.bytes)?);
    pieces.iter().for_each(|piece| bytes.extend_from_slice(piece));
    Some(bytes.freeze())
}

fn prefix(bytes: usize) -> Option<Bytes> {
    let len = u32::try_from(bytes).ok()?;
    let mut prefix = BytesMut::with_capacity(PREFIX_BYTES);
    prefix.put_u8(0);
    prefix.put_u32(len);
    Some(prefix.freeze())
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    fn pieces() -> Vec<Bytes> {
        (0..11).map(|number| Bytes::from(vec![number; 1_000])).collect()
    }

    fn list(bytes: usize) -> EncodedList {
        EncodedList { bytes, pieces: Pieces::Here(pieces()) }
    }

    fn coming(bytes: usize) -> EncodedList {
        let (send, coming) = mpsc::channel(11);
        pieces().into_iter().for_each(|piece| send.try_send(piece).unwrap());
        EncodedList { bytes, pieces: Pieces::Coming(coming) }
    }

    #[tokio::test]
    async fn a_turn_ends_after_some_pieces_and_others_have_theirs() {
        for list_of in [list, coming] {
            let mut left = List::new(list_of(11_000)).unwrap();
            let mut found = Vec::new();
            let mut turns = 0;
            while let Some(piece) = poll_fn(|context| {
                let polled = left.poll_piece(context);
                turns += usize::from(polled.is_pending());
                polled
            })
            .await
            .unwrap()
            {
                found.push(piece);
                assert!(found.len() <= (turns + 1) * TURN_PIECES + 1);
            }
            assert!(found.concat() == whole(&list(11_000)).unwrap());
            assert_eq!(found[0], &[0, 0, 0, 0x2a, 0xf8][..]);
            assert_eq!(turns, 11 / TURN_PIECES);
        }
    }

    #[tokio::test]
    async fn a_list_that_breaks_off_or_is_too_long_ends_in_an_error() {
        for bytes in [10_999, 11_001] {
            let mut left = List::new(coming(bytes)).unwrap();
            let ended = loop {
                match poll_fn(|context| left.poll_piece(context)).await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("{bytes} bytes have not come"),
                    Err(status) => break status,
                }
            };
            assert_eq!(ended.code(), tonic::Code::Unavailable);
        }
    }

    #[test]
    fn what_is_too_long_for_a_message_is_no_list() {
        assert!(whole(&list(1 << 32)).is_none() && List::new(list(1 << 32)).is_none());
    }
}
