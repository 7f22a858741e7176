//! Clients that hold leases.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use holdfast_proto::etcdserverpb::kv_client::KvClient;
use holdfast_proto::etcdserverpb::lease_client::LeaseClient;
use holdfast_proto::etcdserverpb::{LeaseGrantRequest, LeaseKeepAliveRequest, PutRequest};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tonic::transport::Channel;

use super::PATIENCE;
use super::book::Book;
use super::observer::channel;
use crate::judge::lease::Held;

/// What begins the keys of all leases.
pub(crate) const PREFIX: &str = "lease-";

/// How long one call may take before the next member is asked.
pub(super) const CALL: Duration = Duration::from_millis(400);

/// Between two tries that failed.
const RETRY: Duration = Duration::from_millis(30);

/// Between two keep-alives of a lease, as a share of its time to live.
const RENEWALS: u32 = 5;

/// One holder of one lease after the other.
pub(crate) struct Holder {
    channels: Vec<Channel>,
    book: Arc<Book>,
    rng: StdRng,
    /// The member that is asked next.
    at: usize,
}

impl Holder {
    pub(crate) fn new(endpoints: &[String], book: Arc<Book>, seed: u64) -> Result<Self> {
        let channels = endpoints.iter().map(|url| channel(url)).collect::<Result<_>>()?;
        Ok(Self { channels, book, rng: StdRng::seed_from_u64(seed), at: 0 })
    }

    /// Keeps one lease alive until the book is finished, and lets it die then. One that is lost is replaced by another.
    pub(crate) async fn keep(mut self, ttl_seconds: i64) -> Result<()> {
        while !self.book.is_finished() {
            let (id, mut held) = self.grant(ttl_seconds).await?;
            while !self.book.is_finished() && held.told_gone.is_none() && !self.book.is_deleted(&held.key) {
                self.keep_alive(id, &mut held).await;
                tokio::time::sleep(held.ttl / RENEWALS).await;
            }
            self.book.add(held);
        }
        Ok(())
    }

    /// Waits, grants a lease, keeps it alive for up to its time to live, and lets it die.
    pub(crate) async fn let_die(mut self, ttl_seconds: i64, after: Duration) -> Result<()> {
        tokio::time::sleep(after).await;
        let (id, mut held) = self.grant(ttl_seconds).await?;
        for _ in 0..self.rng.random_range(0..RENEWALS) {
            tokio::time::sleep(held.ttl / RENEWALS).await;
            self.keep_alive(id, &mut held).await;
        }
        self.book.add(held);
        Ok(())
    }

    /// The next member that is not stopped, mostly another than before.
    fn next_member(&mut self) -> usize {
        self.at = (self.at + self.rng.random_range(0..self.channels.len())) % self.channels.len();
        while self.book.is_stopped(self.at) {
            self.at = (self.at + 1) % self.channels.len();
        }
        self.at
    }

    /// A lease with a key. What is not acknowledged is left alone: it has no key, or one that nobody judges.
    async fn grant(&mut self, ttl_seconds: i64) -> Result<(i64, Held)> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let mut last = None;
        while tokio::time::Instant::now() < deadline {
            match self.try_grant(ttl_seconds).await {
                Ok(granted) => return Ok(granted),
                Err(error) => last = Some(error),
            }
            tokio::time::sleep(RETRY).await;
        }
        bail!("no lease within {PATIENCE:?}: {last:?}")
    }

    async fn try_grant(&mut self, ttl_seconds: i64) -> Result<(i64, Held)> {
        let member = self.next_member();
        let channel = self.channels[member].clone();
        let asked = self.book.now();
        let grant = LeaseGrantRequest { ttl: ttl_seconds, id: 0 };
        let granted = tokio::time::timeout(CALL, LeaseClient::new(channel.clone()).lease_grant(grant)).await;
        let granted = granted.context("no grant in time")??.into_inner();
        let last_try = self.book.now();
        let key = format!("{PREFIX}{}", granted.id);
        let put = PutRequest { key: key.clone().into(), lease: granted.id, ..PutRequest::default() };
        tokio::time::timeout(CALL, KvClient::new(channel).put(put)).await.context("no put in time")??;
        let ttl = Duration::from_secs(granted.ttl.unsigned_abs());
        let renewed = vec![asked];
        Ok((
            granted.id,
            Held { key, ttl, renewed, last_try, told_gone: None, deleted: None, found_gone: None },
        ))
    }

    /// Tries until it is answered, or its time is over for certain, or nobody is to keep it alive any more.
    async fn keep_alive(&mut self, id: i64, held: &mut Held) {
        while self.book.now() < held.last_try + PATIENCE {
            let member = self.next_member();
            let asked = self.book.now();
            let answer = tokio::time::timeout(CALL, self.try_keep_alive(member, id)).await;
            match answer {
                Ok(Ok(ttl)) if ttl > 0 => {
                    held.last_try = self.book.now();
                    held.renewed.push(asked);
                    return;
                }
                Ok(Ok(_)) => {
                    held.told_gone.get_or_insert(self.book.now());
                    return;
                }
                // It may have had its effect, or have it yet when the member goes on.
                Ok(Err(_)) | Err(_) => held.last_try = self.book.now(),
            }
            if self.book.is_finished() {
                return;
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// One keep-alive on a stream of its own.
    async fn try_keep_alive(&self, member: usize, id: i64) -> Result<i64> {
        let requests = tokio_stream::iter([LeaseKeepAliveRequest { id }]);
        let mut leases = LeaseClient::new(self.channels[member].clone());
        let mut answers = leases.lease_keep_alive(requests).await?.into_inner();
        Ok(answers.message().await?.context("the stream ended without an answer")?.ttl)
    }
}
