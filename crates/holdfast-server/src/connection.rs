//! One client's connection: its transport and all its calls, as one task.
//!
//! hyper would make every call a task of its own, which wakes the connection's task for each answer: a thread switch
//! and a write to the socket per call. Here the calls are polled where the connection is, before it is: whatever is
//! ready together leaves in one write, and a burst of events for many streams wakes one task per connection. Reads
//! of many keys, and whatever else blocks, are on other threads already. What remains is the encoding of a large answer:
//! it holds up the other calls of its own connection, and no others.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use holdfast_env::BoxFuture;
use holdfast_tls::ServerStream;
use hyper::rt::Executor;
use hyper_util::server::graceful::GracefulConnection;
use parking_lot::Mutex;

use crate::cork::Cork;

/// Calls that the transport has begun, on their way to the connection's task.
#[derive(Clone, Default)]
pub struct Calls {
    begun: Arc<Mutex<Vec<BoxFuture<'static, ()>>>>,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Calls {
    fn execute(&self, call: F) {
        self.begun.lock().push(Box::pin(call));
    }
}

/// A connection with its calls; completes when the connection is closed, and drops calls that are left then, as their
/// client is gone.
pub struct Connection<C> {
    transport: Pin<Box<C>>,
    calls: Calls,
    cork: Cork<ServerStream>,
    running: FuturesUnordered<BoxFuture<'static, ()>>,
}

impl<C: GracefulConnection> Connection<C> {
    /// Runs `transport`, whose executor is `calls` and whose socket is held by `cork`.
    pub fn new(transport: C, calls: Calls, cork: Cork<ServerStream>) -> Self {
        Self { transport: Box::pin(transport), calls, cork, running: FuturesUnordered::new() }
    }

    /// Takes no further calls; completes when those under way are done.
    pub fn close(&mut self) {
        self.transport.as_mut().graceful_shutdown();
    }
}

impl<C: GracefulConnection> Future for Connection<C> {
    type Output = Result<(), C::Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let turned = self.turn(context);
        self.cork.end_turn(context);
        turned
    }
}

impl<C: GracefulConnection> Connection<C> {
    fn turn(&mut self, context: &mut Context<'_>) -> Poll<Result<(), C::Error>> {
        loop {
            // Answers first: the transport then writes them together.
            while let Poll::Ready(Some(())) = self.running.poll_next_unpin(context) {}
            if let Poll::Ready(ended) = self.transport.as_mut().poll(context) {
                return Poll::Ready(ended);
            }
            // A call begins here, in the same turn; the transport stops by itself when it has read for long enough.
            let begun = std::mem::take(&mut *self.calls.begun.lock());
            if begun.is_empty() {
                return Poll::Pending;
            }
            self.running.extend(begun);
        }
    }
}
