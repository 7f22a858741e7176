//! Puts and gets of random keys, through the SDK and through a bare stub.

use std::future::Future;
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdfast_client::{Client, ReadLevel};
use holdfast_proto::etcdserverpb::kv_client::KvClient;
use holdfast_proto::etcdserverpb::{PutRequest, RangeRequest};
use serde::Serialize;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use super::{SdkFlags, Server, sdk_error, status_error};
use crate::error::Error;
use crate::load::keys::{KeySpace, Random};
use crate::measure::window::own_cpu;

/// What is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum What {
    /// Sets a key.
    Put,
    /// Reads one, linearizable.
    Get,
}

/// What calls go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Through {
    /// What tonic generates.
    Stub,
    /// `holdfast-client`.
    Sdk,
}

/// Calls of a round.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Call {
    /// What was called.
    pub(crate) what: What,
    /// Through what.
    pub(crate) through: Through,
    /// Counted from 1.
    pub(crate) round: u32,
    /// How many there were.
    pub(crate) calls: u64,
    /// In how long.
    pub(crate) took: Duration,
    /// CPU of this process meanwhile.
    pub(crate) cpu: Duration,
}

impl Call {
    /// CPU of this process for each, in microseconds.
    #[allow(clippy::cast_precision_loss, reason = "fewer than 2^52 calls")]
    pub(crate) fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.calls.max(1) as f64
    }
}

/// Both sides of both calls once; every other round begins with the other side.
pub(super) async fn round(server: &Server, flags: &SdkFlags, round: u32) -> Result<Vec<Call>, Error> {
    let stub = KvClient::new(server.channel().await?);
    let sdk = server.sdk()?;
    let mut sides = [Through::Stub, Through::Sdk];
    if round.is_multiple_of(2) {
        sides.reverse();
    }
    let mut found = Vec::new();
    for what in [What::Put, What::Get] {
        for through in sides {
            let (before, began) = (own_cpu()?, Instant::now());
            let calls = match through {
                Through::Stub => drive(&stub, what, &server.space, flags).await?,
                Through::Sdk => drive(&sdk, what, &server.space, flags).await?,
            };
            let (took, cpu) = (began.elapsed(), own_cpu()?.saturating_sub(before));
            found.push(Call { what, through, round, calls, took, cpu });
        }
    }
    Ok(found)
}

/// Who makes the calls.
trait Caller: Clone + Send + 'static {
    fn put(&mut self, key: Bytes, value: Bytes) -> impl Future<Output = Result<(), Error>> + Send;
    fn get(&mut self, key: Bytes) -> impl Future<Output = Result<(), Error>> + Send;
}

impl Caller for KvClient<Channel> {
    async fn put(&mut self, key: Bytes, value: Bytes) -> Result<(), Error> {
        let request = PutRequest { key, value, ..Default::default() };
        Self::put(self, request).await.map(drop).map_err(|status| status_error(&status))
    }

    async fn get(&mut self, key: Bytes) -> Result<(), Error> {
        let request = RangeRequest { key, ..Default::default() };
        self.range(request).await.map(drop).map_err(|status| status_error(&status))
    }
}

impl Caller for Client {
    async fn put(&mut self, key: Bytes, value: Bytes) -> Result<(), Error> {
        Self::put(self, key, value).await.map(drop).map_err(|error| sdk_error(&error))
    }

    async fn get(&mut self, key: Bytes) -> Result<(), Error> {
        Self::get(self, key, ReadLevel::Linearizable).await.map(drop).map_err(|error| sdk_error(&error))
    }
}

/// Calls of all clients, each one after the other, for the time of a round; says how many there were.
async fn drive<C: Caller>(caller: &C, what: What, space: &KeySpace, flags: &SdkFlags) -> Result<u64, Error> {
    let until = Instant::now() + flags.duration;
    let mut clients = JoinSet::new();
    for number in 0..flags.clients {
        let (mut caller, space, mut random) = (caller.clone(), space.clone(), Random::seeded(number.into()));
        clients.spawn(async move {
            let mut calls = 0;
            while Instant::now() < until {
                let key = KeySpace::key(space.any(&mut random));
                match what {
                    What::Put => caller.put(key, space.value()).await?,
                    What::Get => caller.get(key).await?,
                }
                calls += 1;
            }
            Ok::<u64, Error>(calls)
        });
    }
    let mut all = 0;
    while let Some(done) = clients.join_next().await {
        all += done.map_err(|_| Error::Interrupted)??;
    }
    Ok(all)
}
