//! A socket that gathers what a turn of its connection's task writes, and writes it once at the turn's end.
//!
//! The HTTP/2 transport writes every frame that carries a payload by itself: a system call and a packet each. A burst of
//! events for the streams of one connection is many such frames, ready together; here they leave together.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use crate::pings::PingWatch;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// From so many bytes on they are written without waiting for the end of the turn.
const GATHERED_BYTES_MAX: usize = 64 * 1024;

/// What a connection keeps of its buffer while it has nothing to write: there may be many such connections.
const KEPT_BYTES_MAX: usize = 4 * 1024;

/// The transport's end: its flushes do nothing, the turn's end does.
pub struct Corked<S> {
    shared: Arc<Mutex<Shared<S>>>,
}

/// The end of the one who drives the transport.
pub struct Cork<S> {
    shared: Arc<Mutex<Shared<S>>>,
}

struct Shared<S> {
    stream: S,
    gathered: Vec<u8>,
    /// So much of it is written.
    written: usize,
    /// Writing failed at the end of a turn, and the transport has not been told.
    failed: Option<io::Error>,
    /// Looks at what passes, and may end the connection.
    pings: PingWatch,
}

/// Both ends of a corked `stream`, whose pings are watched.
pub fn cork<S>(stream: S, pings: PingWatch) -> (Corked<S>, Cork<S>) {
    let shared = Shared { stream, gathered: Vec::new(), written: 0, failed: None, pings };
    let shared = Arc::new(Mutex::new(shared));
    (Corked { shared: Arc::clone(&shared) }, Cork { shared })
}

impl<S: AsyncWrite + Unpin> Cork<S> {
    /// Writes what was gathered, as far as the socket takes it; the task of `context` is woken when it takes more. To be
    /// called at the end of each turn of the transport. The transport is told of an error in its next turn.
    pub fn end_turn(&self, context: &mut Context<'_>) {
        let mut shared = self.shared.lock();
        if let Poll::Ready(Err(error)) = shared.poll_drain(context) {
            shared.failed = Some(error);
            context.waker().wake_by_ref();
        }
    }
}

impl<S: AsyncWrite + Unpin> Shared<S> {
    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.gathered.len() {
            let rest = &self.gathered[self.written..];
            match ready!(Pin::new(&mut self.stream).poll_write(context, rest)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(bytes) => self.written += bytes,
                Err(error) => {
                    // Nothing of it can be written any more.
                    self.forget();
                    return Poll::Ready(Err(error));
                }
            }
        }
        self.forget();
        // With TLS, what was written may still be in the session; a plain socket has nothing to do here.
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn forget(&mut self) {
        self.written = 0;
        self.gathered.clear();
        self.gathered.shrink_to(KEPT_BYTES_MAX);
    }

    fn poll_gather(&mut self, context: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        if self.gathered.len() >= GATHERED_BYTES_MAX {
            ready!(self.poll_drain(context))?;
        }
        if self.pings.has_ended() {
            // Nobody would read it.
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        let mut room = GATHERED_BYTES_MAX - self.gathered.len();
        let before = self.gathered.len();
        for slice in slices {
            let taken = &slice[..slice.len().min(room)];
            self.gathered.extend_from_slice(taken);
            room -= taken.len();
        }
        let taken = self.gathered.len() - before;
        self.pings.sent(&self.gathered[before..]);
        self.say_goodbye(context);
        Poll::Ready(Ok(taken))
    }
}

impl<S> Shared<S> {
    /// Ends the connection when a client has to go and no frame is half sent. The transport sees the end when it reads.
    fn say_goodbye(&mut self, context: &mut Context<'_>) {
        if let Some(goodbye) = self.pings.goodbye() {
            self.gathered.extend_from_slice(&goodbye);
            context.waker().wake_by_ref();
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Corked<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut shared = self.shared.lock();
        if let Some(error) = shared.failed.take() {
            return Poll::Ready(Err(error));
        }
        if shared.pings.has_ended() {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut shared.stream).poll_read(context, buffer);
        if matches!(read, Poll::Ready(Ok(()))) {
            shared.pings.received(&buffer.filled()[before..]);
            shared.say_goodbye(context);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Corked<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.shared.lock().poll_gather(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.shared.lock().poll_gather(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Does nothing: the end of the turn flushes.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shared.lock().failed.take().map_or(Ok(()), Err))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut shared = self.shared.lock();
        ready!(shared.poll_drain(context))?;
        Pin::new(&mut shared.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::pings::PingRule;

    fn unwatched() -> PingWatch {
        let clock = std::sync::Arc::new(holdfast_env::RealClock::new(tokio::runtime::Handle::current()));
        PingWatch::new(PingRule { time_min: std::time::Duration::ZERO, clock })
    }

    /// A turn of a task that only writes.
    async fn turn(corked: &mut Corked<DuplexStream>, cork: &Cork<DuplexStream>, frames: &[&[u8]]) {
        for frame in frames {
            corked.write_all(frame).await.unwrap();
            corked.flush().await.unwrap();
        }
        poll_fn(|context| {
            cork.end_turn(context);
            Poll::Ready(())
        })
        .await;
    }

    #[tokio::test]
    async fn what_a_turn_writes_leaves_at_its_end() {
        let (near, mut far) = duplex(1 << 20);
        let (mut corked, cork) = cork(near, unwatched());
        let mut answer = [0; 64];
        corked.write_all(b"one ").await.unwrap();
        corked.flush().await.unwrap();
        assert!(futures::poll!(Box::pin(far.read(&mut answer))).is_pending());
        turn(&mut corked, &cork, &[b"two ", b"three"]).await;
        let bytes = far.read(&mut answer).await.unwrap();
        assert_eq!(&answer[..bytes], b"one two three");
    }

    #[tokio::test]
    async fn a_reader_that_does_not_read_stops_the_writer() {
        let (near, mut far) = duplex(16);
        let (mut corked, cork) = cork(near, unwatched());
        let long = vec![7; GATHERED_BYTES_MAX];
        turn(&mut corked, &cork, &[&long]).await;
        let mut more = Box::pin(async move {
            corked.write_all(b"more").await.unwrap();
            corked.shutdown().await.unwrap();
        });
        assert!(futures::poll!(more.as_mut()).is_pending());
        let mut all = Vec::new();
        // What is held back at a shutdown is written first.
        let ((), read) = tokio::join!(more, far.read_to_end(&mut all));
        assert_eq!(read.unwrap(), GATHERED_BYTES_MAX + 4);
        assert!(all.ends_with(b"more"));
        assert!(cork.shared.lock().gathered.capacity() <= KEPT_BYTES_MAX);
    }

    #[tokio::test]
    async fn an_error_at_the_end_of_a_turn_is_told_in_the_next() {
        let (near, far) = duplex(16);
        let (mut corked, cork) = cork(near, unwatched());
        drop(far);
        turn(&mut corked, &cork, &[b"lost"]).await;
        let error = corked.read(&mut [0; 4]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
