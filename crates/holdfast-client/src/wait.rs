//! Waiting for a revision.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::client::{Client, jittered};
use crate::codec::KeyValue;
use crate::error::{Class, Error};
use crate::range::KeyRange;
use crate::read::{Read, ReadLevel};

/// Pause between two looks; doubles up to [`PAUSE_MAX`], and half of it is random.
const PAUSE_MIN: Duration = Duration::from_millis(5);
/// The longest such pause.
const PAUSE_MAX: Duration = Duration::from_millis(200);

impl Client {
    /// Waits until the cluster has come to a revision. Gives the revision that it has then.
    ///
    /// Errors: [`Error::FutureRevision`], with the newest one, when that takes longer than `time_max`; others as
    /// [`Error`] says.
    pub async fn wait(&self, revision: u64, time_max: Duration) -> Result<u64, Error> {
        let deadline = Instant::now() + time_max;
        let mut pause = PAUSE_MIN;
        loop {
            // The answer's size does not depend on what there is.
            match self.get(&b"\0"[..], ReadLevel::AtLeast(revision)).await {
                Err(error) if error.class() == Class::Retry && Instant::now() < deadline => {
                    let resume = Instant::now() + jittered(pause);
                    pause = (pause * 2).min(PAUSE_MAX);
                    sleep_until(resume.min(deadline)).await;
                }
                result => return Ok(result?.revision),
            }
        }
    }

    /// Waits until the cluster has come to a revision, and gives all keys of a range as of then or later, all of one
    /// revision.
    ///
    /// Errors: as [`Client::wait`] and [`Client::list_all`].
    pub async fn wait_and_list(
        &self,
        range: KeyRange,
        revision: u64,
        time_max: Duration,
    ) -> Result<Read<Vec<KeyValue>>, Error> {
        self.wait(revision, time_max).await?;
        self.list_all(range, ReadLevel::AtLeast(revision)).await
    }
}
