//! What is being received: messages that have begun and not ended, over all connections together.
//!
//! Anybody may open connections, and begin a message on each of many streams: what has come of it waits in memory, before
//! anything is known of who sends it. So all of them together may take so many bytes (`--max-receiving-bytes`), and
//! each has to be whole within [`MESSAGE_TIMEOUT`]. What comes in one piece, as nearly all requests do, does not count.
//!
//! Bodies of gRPC are wrapped ([`Received`]): they are messages, each with its length in front. The gateway counts its own,
//! which are JSON.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

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
}

/// What one body has of it. Given back when it is dropped.
pub struct Share {
    all: Arc<Receiving>,
    bytes: usize,
}

impl Share {
    /// Nothing yet.
    pub fn of(all: Arc<Receiving>) -> Self {
        Self { all, bytes: 0 }
    }

    /// So many bytes of an unfinished message are here now.
    ///
    /// Errors: all bodies together have too much; this one keeps what it had.
    pub fn set(&mut self, bytes: usize) -> Result<(), Status> {
        if bytes > self.bytes {
            let more = bytes - self.bytes;
            let before = self.all.bytes.fetch_add(more, Ordering::Relaxed);
            if before + more > self.all.bytes_max {
                self.all.bytes.fetch_sub(more, Ordering::Relaxed);
                return Err(Status::resource_exhausted(format!(
                    "requests that are being received take {before} bytes already: at most {} may be \
                     (--max-receiving-bytes); try again",
                    self.all.bytes_max
                )));
            }
        } else if bytes < self.bytes {
            self.all.bytes.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.all.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

/// What who does not send the rest of a message is told.
pub fn late() -> Status {
    Status::deadline_exceeded(format!("the request was not sent within {MESSAGE_TIMEOUT:?}"))
}

/// Where a body is in its messages.
#[derive(Debug, Default)]
struct Messages {
    /// Bytes of the message that has begun, its prefix included; none when the last one is whole.
    begun: usize,
    prefix: [u8; PREFIX_BYTES],
    /// How many were whole.
    whole: u64,
}

impl Messages {
    /// More of the body.
    fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let of_prefix = bytes.len().min(PREFIX_BYTES.saturating_sub(self.begun));
            let (prefix, rest) = bytes.split_at(of_prefix);
            if of_prefix > 0 {
                self.prefix[self.begun..self.begun + of_prefix].copy_from_slice(prefix);
            }
            self.begun += of_prefix;
            if self.begun < PREFIX_BYTES {
                return;
            }
            let [_, length @ ..] = self.prefix;
            let whole = PREFIX_BYTES.saturating_add(u32::from_be_bytes(length) as usize);
            let taken = rest.len().min(whole - self.begun);
            self.begun += taken;
            bytes = &rest[taken..];
            if self.begun == whole {
                self.begun = 0;
                self.whole += 1;
            }
        }
    }
}

/// The body of a gRPC request, counted.
pub struct Received<B> {
    body: B,
    share: Share,
    messages: Messages,
    /// Until when what has begun must be whole.
    deadline: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<B> Received<B> {
    /// Nothing has come of it yet.
    pub fn new(body: B, all: Arc<Receiving>) -> Self {
        Self { body, share: Share::of(all), messages: Messages::default(), deadline: None }
    }

    fn count(&mut self, bytes: &Bytes) -> Result<(), Status> {
        let whole = self.messages.whole;
        self.messages.push(bytes);
        self.share.set(self.messages.begun)?;
        if self.messages.begun == 0 {
            self.deadline = None;
        } else if self.deadline.is_none() || self.messages.whole > whole {
            // Of each message anew.
            let clock = Arc::clone(&self.share.all.clock);
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
        // What is here is taken, however late: it may have waited for who reads.
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Pending => {
                let is_late = self.deadline.as_mut().is_some_and(|end| end.as_mut().poll(context).is_ready());
                if !is_late {
                    return Poll::Pending;
                }
                self.deadline = None;
                Poll::Ready(Some(Err(late().into())))
            }
            Poll::Ready(Some(Ok(frame))) => {
                let counted = frame.data_ref().map_or(Ok(()), |bytes| self.count(bytes));
                Poll::Ready(Some(counted.map(|()| frame).map_err(Into::into)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt, stream};
    use holdfast_env::RealClock;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    fn receiving(bytes_max: usize) -> Arc<Receiving> {
        let clock = RealClock::new(tokio::runtime::Handle::current());
        Arc::new(Receiving::new(bytes_max, Arc::new(clock)))
    }

    fn frames(pieces: &[&[u8]]) -> Vec<Result<Frame<Bytes>, std::io::Error>> {
        pieces.iter().map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece)))).collect()
    }

    fn body(pieces: &[&[u8]]) -> impl Body<Data = Bytes, Error = std::io::Error> + Unpin + use<> {
        StreamBody::new(stream::iter(frames(pieces)))
    }

    fn code(refused: &(dyn std::error::Error + Send + Sync + 'static)) -> tonic::Code {
        refused.downcast_ref::<Status>().expect("a status").code()
    }

    /// Whatever the cuts, what is unfinished is what has come behind the last whole message.
    #[test]
    fn what_is_whole_does_not_count() {
        let all: Vec<u8> = [3_u8, 0, 7]
            .iter()
            .flat_map(|len| [&[0, 0, 0, 0, *len], &vec![9; usize::from(*len)][..]].concat())
            .collect();
        for cut in 1..all.len() {
            let mut messages = Messages::default();
            all.chunks(cut).for_each(|piece| messages.push(piece));
            assert_eq!((messages.begun, messages.whole), (0, 3), "pieces of {cut}");
        }
        let mut messages = Messages::default();
        let mut begun = |byte: &u8| {
            messages.push(std::slice::from_ref(byte));
            messages.begun
        };
        let counts: Vec<usize> = all.iter().map(&mut begun).collect();
        assert_eq!(counts, [1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0]);
    }

    #[tokio::test]
    async fn what_is_too_much_is_refused_and_given_back() {
        let all = receiving(10);
        let mut first = Received::new(body(&[&[0, 0, 0, 0, 9, 1, 2], &[3]]), Arc::clone(&all));
        first.frame().await.unwrap().unwrap();
        assert_eq!(all.bytes(), 7);
        let mut second = Received::new(body(&[&[0, 0, 0, 0, 1], &[1]]), Arc::clone(&all));
        let refused = second.frame().await.unwrap().unwrap_err();
        assert_eq!(code(&*refused), tonic::Code::ResourceExhausted);
        first.frame().await.unwrap().unwrap();
        assert_eq!(all.bytes(), 8);
        drop((first, second));
        assert_eq!(all.bytes(), 0);
        // In one piece it may be as large as a message may be.
        let mut whole = Received::new(body(&[&[0, 0, 0, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9]]), all);
        whole.frame().await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_whole_in_time_is_refused() {
        let never = stream::iter(frames(&[&[0, 0]])).chain(stream::pending());
        let mut slow = Received::new(Box::pin(StreamBody::new(never)), receiving(10));
        slow.frame().await.unwrap().unwrap();
        let refused = slow.frame().await.unwrap().unwrap_err();
        assert_eq!(code(&*refused), tonic::Code::DeadlineExceeded);
    }

    /// A stream whose frames never end where a message does may go on for ever; so may one whose reader takes its time.
    #[tokio::test(start_paused = true)]
    async fn each_message_has_its_own_time() {
        let pieces = stream::iter(0..10).then(|number| async move {
            tokio::time::sleep(MESSAGE_TIMEOUT * 2 / 3).await;
            // The end of one message and the beginning of the next.
            let piece: &'static [u8] = if number == 0 { &[0, 0] } else { &[0, 0, 0, 0, 0] };
            Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(piece)))
        });
        let mut steady = Received::new(Box::pin(StreamBody::new(pieces)), receiving(100));
        for _ in 0..10 {
            steady.frame().await.unwrap().unwrap();
        }
        let mut waiting = Received::new(body(&[&[0, 0], &[0, 0, 0]]), receiving(100));
        waiting.frame().await.unwrap().unwrap();
        tokio::time::sleep(MESSAGE_TIMEOUT * 2).await;
        waiting.frame().await.unwrap().unwrap();
    }
}
