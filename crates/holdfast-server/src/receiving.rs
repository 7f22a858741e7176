//! What is being received: messages that have begun and not ended, over all connections together.
//!
//! Anybody may open connections, and begin a message on each of many streams: what has come of it waits in memory, before
//! anything is known of who sends it. So all of them together may take so many bytes (`--max-receiving-bytes`), and
//! each has to be whole within [`MESSAGE_TIMEOUT`]. What comes in one piece, as nearly all requests do, costs nothing here.
//!
//! A body of gRPC is messages, each with its length in front: what is whole is not counted any more, so that streams may be
//! open for ever. Of other bodies all counts until they are dropped.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use holdfast_env::Clock;
use http_body::{Body, Frame, SizeHint};
use tonic::Status;

use crate::limits::MESSAGE_TIMEOUT;

/// What is in front of a message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// The bytes that are being received, over all connections.
pub struct Receiving {
    bytes: AtomicUsize,
    bytes_max: usize,
    clock: Arc<dyn Clock>,
}

impl Receiving {
    /// At most so many bytes at a time.
    pub fn new(bytes_max: usize, clock: Arc<dyn Clock>) -> Self {
        Self { bytes: AtomicUsize::new(0), bytes_max, clock }
    }

    /// How many there are now.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Counts what has come, unless that would be too much.
    fn take(&self, bytes: usize) -> Result<(), Status> {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes <= self.bytes_max {
            return Ok(());
        }
        self.give_back(bytes);
        Err(Status::resource_exhausted(format!(
            "requests that are being received take {before} bytes already: at most {} may be (--max-receiving-bytes); \
             try again",
            self.bytes_max
        )))
    }

    fn give_back(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Where a body is in its messages.
#[derive(Debug, Default)]
struct Messages {
    /// Bytes of the message that has begun, its prefix included; none when the last one is whole.
    begun: usize,
    prefix: [u8; PREFIX_BYTES],
}

impl Messages {
    /// More of the body. Afterwards so many bytes of an unfinished message have come.
    fn push(&mut self, mut bytes: &[u8]) -> usize {
        while !bytes.is_empty() {
            let of_prefix = bytes.len().min(PREFIX_BYTES.saturating_sub(self.begun));
            let (prefix, rest) = bytes.split_at(of_prefix);
            if of_prefix > 0 {
                self.prefix[self.begun..self.begun + of_prefix].copy_from_slice(prefix);
            }
            self.begun += of_prefix;
            let [_, length @ ..] = self.prefix;
            let whole = PREFIX_BYTES.saturating_add(u32::from_be_bytes(length) as usize);
            if self.begun < PREFIX_BYTES {
                return self.begun;
            }
            let taken = rest.len().min(whole - self.begun);
            self.begun += taken;
            bytes = &rest[taken..];
            if self.begun == whole {
                self.begun = 0;
            }
        }
        self.begun
    }
}

/// A request's body, counted.
pub struct Received<B> {
    body: B,
    all: Arc<Receiving>,
    /// Of a body of gRPC: where it is.
    messages: Option<Messages>,
    /// So many of its bytes are counted.
    counted: usize,
    /// Until when what has begun must be whole.
    deadline: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<B> Received<B> {
    /// A body of gRPC.
    pub fn grpc(body: B, all: Arc<Receiving>) -> Self {
        Self { body, all, messages: Some(Messages::default()), counted: 0, deadline: None }
    }

    /// Any other body.
    pub fn other(body: B, all: Arc<Receiving>) -> Self {
        Self { body, all, messages: None, counted: 0, deadline: None }
    }

    fn count(&mut self, bytes: &Bytes) -> Result<(), Status> {
        let unfinished = match &mut self.messages {
            Some(messages) => messages.push(bytes),
            None => self.counted + bytes.len(),
        };
        if unfinished <= self.counted {
            self.all.give_back(self.counted - unfinished);
        } else {
            self.all.take(unfinished - self.counted)?;
        }
        self.counted = unfinished;
        if unfinished == 0 {
            self.deadline = None;
        } else if self.messages.is_some() && self.deadline.is_none() {
            let clock = Arc::clone(&self.all.clock);
            self.deadline = Some(Box::pin(async move { clock.sleep(MESSAGE_TIMEOUT).await }));
        }
        Ok(())
    }
}

impl<B> Body for Received<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(context).is_ready()
        {
            self.deadline = None;
            let told =
                Status::deadline_exceeded(format!("the request was not sent within {MESSAGE_TIMEOUT:?}"));
            return Poll::Ready(Some(Err(told.into())));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        Poll::Ready(match frame {
            Some(Ok(frame)) => match frame.data_ref().map(|bytes| self.count(bytes)) {
                Some(Err(refused)) => Some(Err(refused.into())),
                Some(Ok(())) | None => Some(Ok(frame)),
            },
            Some(Err(error)) => Some(Err(error.into())),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for Received<B> {
    fn drop(&mut self) {
        self.all.give_back(self.counted);
    }
}

#[cfg(test)]
mod tests {
    use holdfast_env::RealClock;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    fn receiving(bytes_max: usize) -> Arc<Receiving> {
        Arc::new(Receiving::new(bytes_max, Arc::new(RealClock::new(tokio::runtime::Handle::current()))))
    }

    fn body(pieces: &[&[u8]]) -> impl Body<Data = Bytes, Error = std::io::Error> + Unpin + use<> {
        let frames: Vec<_> =
            pieces.iter().map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece)))).collect();
        StreamBody::new(futures::stream::iter(frames))
    }

    /// Whatever the cuts, what is unfinished is what has come behind the last whole message.
    #[test]
    fn what_is_whole_does_not_count() {
        let all: Vec<u8> = [3_u8, 0, 7]
            .iter()
            .flat_map(|len| [&[0, 0, 0, 0, *len][..], &vec![9; usize::from(*len)]].concat())
            .collect();
        for cut in 1..all.len() {
            let mut messages = Messages::default();
            for piece in all.chunks(cut) {
                messages.push(piece);
            }
            assert_eq!(messages.push(&[]), 0, "pieces of {cut}");
        }
        let mut messages = Messages::default();
        let counts: Vec<usize> = all.iter().map(|byte| messages.push(std::slice::from_ref(byte))).collect();
        assert_eq!(counts, [1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0]);
    }

    #[tokio::test]
    async fn what_is_too_much_is_refused_and_given_back() {
        let all = receiving(10);
        let mut first = Received::grpc(body(&[&[0, 0, 0, 0, 9, 1, 2], &[3]]), Arc::clone(&all));
        first.frame().await.unwrap().unwrap();
        assert_eq!(all.bytes(), 7);
        let mut second = Received::grpc(body(&[&[0, 0, 0, 0, 1], &[1]]), Arc::clone(&all));
        let refused = second.frame().await.unwrap().unwrap_err();
        assert_eq!(refused.downcast_ref::<Status>().unwrap().code(), tonic::Code::ResourceExhausted);
        first.frame().await.unwrap().unwrap();
        assert_eq!(all.bytes(), 8);
        drop((first, second));
        assert_eq!(all.bytes(), 0);
        // In one piece it may be as large as a message may be.
        let mut whole =
            Received::grpc(body(&[&[0, 0, 0, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9]]), Arc::clone(&all));
        whole.frame().await.unwrap().unwrap();
        let mut other = Received::other(body(&[b"{", b"}"]), Arc::clone(&all));
        other.frame().await.unwrap().unwrap();
        other.frame().await.unwrap().unwrap();
        assert_eq!(all.bytes(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_whole_in_time_is_refused() {
        let frames =
            futures::stream::iter([Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(&[0, 0])))]);
        let never = futures::StreamExt::chain(frames, futures::stream::pending());
        let mut slow = Received::grpc(Box::pin(StreamBody::new(never)), receiving(10));
        slow.frame().await.unwrap().unwrap();
        let refused = slow.frame().await.unwrap().unwrap_err();
        assert_eq!(refused.downcast_ref::<Status>().unwrap().code(), tonic::Code::DeadlineExceeded);
    }
}
