//! Waiting for a revision.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::client::{Client, jittered};
use crate::codec::KeyValue;
use crate::error::{Class, Error};
use crate::range::KeyRange;
use crate::read::{Read, ReadLevel};

/// The lowest key that there can be.
pub(crate) const LOWEST_KEY: &[u8] = b"\0";

/// Pause between two looks; doubles up to [`PAUSE_MAX`], and half of it is random.
const PAUSE_MIN: Duration = Duration::from_millis(5);
/// The longest such pause.
const PAUSE_MAX: Duration = Duration::from_millis(200);

impl Client {
    /// Waits until the cluster has come to a revision. Gives the revision that it has then.
    ///
    /// Without any time it looks once, for as long as a call may take. It reads the lowest key there can be, which the
    /// client's user may have to be allowed.
    ///
    /// Errors: [`Error::FutureRevision`], with the newest one if a member has told it, when that takes longer than
    /// `time_max`, or [`Error::Unavailable`] when nobody has answered at last; others as [`Error`] says.
    pub async fn wait(&self, revision: u64, time_max: Duration) -> Result<u64, Error> {
        self.wait_at(Bytes::from_static(LOWEST_KEY), revision, time_max).await
    }

    /// The same, reading this key.
    pub(crate) async fn wait_at(&self, key: Bytes, revision: u64, time_max: Duration) -> Result<u64, Error> {
        let mut looks = Looks::until(time_max);
        let cut = if time_max.is_zero() { deadline(Duration::MAX) } else { looks.deadline };
        let mut last = Error::FutureRevision { current: None };
        loop {
            // The answer's size does not depend on what there is.
            let look = self.count(KeyRange::key(key.clone()), ReadLevel::AtLeast(revision));
            match timeout_at(cut, look).await {
                Ok(Ok(read)) => return Ok(read.revision),
                Ok(Err(error)) => last = looks.again(error).await?,
                Err(_) => return Err(last),
            }
        }
    }

    /// Waits until the cluster has come to a revision, and gives all keys of a range as of then or later, all of one
    /// revision. When it has come already, this is no more than [`Client::list_all`].
    ///
    /// Errors: as [`Client::wait`] and [`Client::list_all`].
    pub async fn wait_and_list(
        &self,
        range: KeyRange,
        revision: u64,
        time_max: Duration,
    ) -> Result<Read<Vec<KeyValue>>, Error> {
        let mut looks = Looks::until(time_max);
        loop {
            match self.list_all(range.clone(), ReadLevel::AtLeast(revision)).await {
                Ok(read) => return Ok(read),
                Err(error) => drop(looks.again(error).await?),
            }
        }
    }
}

/// When a time has passed that begins now. What the clock cannot show is in thirty years.
pub(crate) fn deadline(time_max: Duration) -> Instant {
    const FOREVER: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);
    let now = Instant::now();
    now.checked_add(time_max).unwrap_or_else(|| now + FOREVER)
}

/// When to look next.
#[derive(Debug)]
struct Looks {
    deadline: Instant,
    pause: Duration,
}

impl Looks {
    fn until(time_max: Duration) -> Self {
        Self { deadline: deadline(time_max), pause: PAUSE_MIN }
    }

    /// Waits for the next look, and gives the error back.
    ///
    /// Errors: this one, when the time is over, or when it is not that the revision has not come, or that nobody answers.
    async fn again(&mut self, error: Error) -> Result<Error, Error> {
        if error.class() != Class::Retry || Instant::now() >= self.deadline {
            return Err(error);
        }
        let resume = Instant::now() + jittered(self.pause);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        sleep_until(resume.min(self.deadline)).await;
        Ok(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Config;

    /// A member that takes the connection and says nothing holds the wait for no longer than was asked for.
    #[tokio::test]
    async fn a_member_that_says_nothing_does_not_make_a_wait_longer() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", silent.local_addr().unwrap());
        let patience = Duration::from_secs(60);
        let config = Config { call_timeout: patience, connect_timeout: patience, ..Config::default() };
        let client = Client::with_config([endpoint], config).unwrap();
        let began = Instant::now();
        let late = client.wait(1, Duration::from_millis(50)).await.unwrap_err();
        assert!(matches!(late, Error::FutureRevision { current: None }), "{late}");
        assert!(began.elapsed() < patience / 2);
    }

    #[test]
    fn a_time_without_an_end_has_a_deadline() {
        let now = Instant::now();
        assert!(deadline(Duration::ZERO) < now + Duration::from_secs(60));
        assert!(deadline(Duration::MAX) > now + Duration::from_secs(60 * 60 * 24 * 365));
    }
}
