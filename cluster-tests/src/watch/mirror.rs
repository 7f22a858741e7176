//! `etcdctl make-mirror`, from one store into another.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use bytes::Bytes;
use tokio::time::Instant;

use super::console::{Console, PATIENCE};
use crate::client::Client;

/// Between two looks at the destination.
const POLL: Duration = Duration::from_millis(50);

/// The pairs of a store, without revisions: those are its own.
pub type Pairs = BTreeMap<Bytes, Bytes>;

/// One end of a mirror.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    /// As `host:port`.
    pub address: &'a str,
    /// A client of the member there.
    pub client: &'a Client,
    /// Its place among the endpoints of that client.
    pub member: usize,
}

impl End<'_> {
    /// All pairs below a prefix.
    pub async fn pairs(&self, prefix: &str) -> Result<Pairs> {
        let contents = self.client.contents(self.member, 0).await?;
        let below = contents.pairs.into_iter().filter(|(key, _)| key.starts_with(prefix.as_bytes()));
        Ok(below.map(|(key, stored)| (key, stored.value)).collect())
    }

    /// Waits until these are the pairs below a prefix.
    pub async fn wait_for(&self, prefix: &str, wanted: &Pairs) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.pairs(prefix).await?;
            if found == *wanted {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("{} has {found:?} below {prefix:?} and should have {wanted:?}", self.address);
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// A mirror from `source` to `destination` with more flags.
pub fn start(program: &Path, source: End<'_>, destination: End<'_>, flags: &[&str]) -> Result<Console> {
    let mut args = vec!["make-mirror".to_owned()];
    args.extend(flags.iter().map(|flag| (*flag).to_owned()));
    args.push(destination.address.to_owned());
    Console::start(program, source.address, &args)
}
