//! A thread beside the load's own, for a load that is not what is timed.
//!
//! Load comes from one thread, because each wake of another core is taken from the servers. But where the latency of
//! puts is asked for while somebody else reads a great deal, the puts would wait behind that reading in the client.

use std::thread;

use tokio::runtime::{self, Handle};
use tokio::sync::oneshot;

use crate::error::Error;

/// The thread, which runs what is spawned on it; ended and awaited when dropped.
pub(crate) struct Aside {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Drop for Aside {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed, and its tasks have failed.
            drop(thread.join());
        }
    }
}

impl Aside {
    /// Starts the thread.
    pub(crate) fn begin(name: &str) -> Result<Self, Error> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(Error::io("start a runtime"))?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            // An error is the sender's end, which is how it is told.
            drop(runtime.block_on(stopped));
        });
        let thread = thread.map_err(Error::io("start a thread"))?;
        Ok(Self { handle, stop: Some(stop), thread: Some(thread) })
    }

    /// Where to spawn what shall run there.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Runs something there to its end. What it spawns stays there.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        self.handle.spawn(work).await.map_err(|_| Error::Interrupted)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_runs_on_the_other_thread_and_ends_with_it() {
        let aside = Aside::begin("other").unwrap();
        let name = aside.run(async { Ok(thread::current().name().map(str::to_owned)) }).await.unwrap();
        assert_eq!(name.as_deref(), Some("other"));
        let forever = aside.handle().spawn(std::future::pending::<()>());
        drop(aside);
        assert!(forever.await.unwrap_err().is_cancelled());
    }
}
