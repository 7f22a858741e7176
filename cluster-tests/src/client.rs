//! A client of etcd's v3 API that reports each outcome without interpreting it away: no retry, no endpoint of its own
//! choosing.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use holdfast_proto::etcdserverpb::kv_client::KvClient;
use holdfast_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use holdfast_proto::etcdserverpb::{
    HashKvRequest, HashKvResponse, PutRequest, RangeRequest, RangeResponse, StatusRequest, StatusResponse,
};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// How long a call may take where the caller has no wish of its own.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// Pairs in one page of a full read.
const PAGE_KEYS: i64 = 2_000;

/// Answers may be larger than gRPC's default limit of 4 MiB.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// A list of a million keys is larger still.
const LIST_BYTES_MAX: usize = 1 << 30;

/// What a put came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Acknowledged, with the revision of the response header.
    Acked(i64),
    /// The server or the connection says that nothing happened.
    Refused(String),
    /// It may have happened, or may still happen.
    Unknown(String),
}

/// One key as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The value.
    pub value: Bytes,
    /// Revision of the key's creation.
    pub create_revision: i64,
    /// Revision of the key's last change.
    pub mod_revision: i64,
    /// Changes since the creation, the creation included.
    pub version: i64,
}

/// All pairs at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// The revision that was read.
    pub revision: i64,
    /// The pairs.
    pub pairs: BTreeMap<Bytes, Stored>,
}

/// Connections to some members, addressed by their place.
#[derive(Debug, Clone)]
pub struct Client {
    channels: Vec<Channel>,
}

impl Client {
    /// Connects to each endpoint when it is first used. Must be called within a tokio runtime.
    pub fn new(endpoints: &[String]) -> Result<Self> {
        let channels = endpoints.iter().map(|url| channel(url)).collect::<Result<_>>()?;
        Ok(Self { channels })
    }

    /// How many endpoints there are.
    pub fn len(&self) -> usize {
        self.channels.len()
    }

    /// Whether there are no endpoints.
    pub fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }

    /// The connection to one member.
    pub fn channel(&self, member: usize) -> Channel {
        self.channels[member].clone()
    }

    /// One put, through one member. Never retried.
    pub async fn put(&self, member: usize, key: Bytes, value: Bytes, timeout: Duration) -> Outcome {
        let request = PutRequest { key, value, ..PutRequest::default() };
        let mut kv = self.kv(member);
        match tokio::time::timeout(timeout, kv.put(request)).await {
            Ok(Ok(response)) => {
                Outcome::Acked(response.into_inner().header.map_or(0, |header| header.revision))
            }
            Ok(Err(status)) if nothing_happened(&status) => Outcome::Refused(describe(&status)),
            Ok(Err(status)) => Outcome::Unknown(describe(&status)),
            Err(_) => Outcome::Unknown(format!("no answer within {timeout:?}")),
        }
    }

    /// The current revision, by a linearizable read through one member.
    pub async fn revision(&self, member: usize, timeout: Duration) -> Result<i64> {
        let request =
            RangeRequest { key: Bytes::from_static(b"\0"), count_only: true, ..RangeRequest::default() };
        header_revision(&self.range(member, request, timeout).await?)
    }

    /// The revision that one member shows to those who ask it alone: a serializable read.
    pub async fn local_revision(&self, member: usize, timeout: Duration) -> Result<i64> {
        let request = RangeRequest {
            key: Bytes::from_static(b"\0"),
            count_only: true,
            serializable: true,
            ..RangeRequest::default()
        };
        header_revision(&self.range(member, request, timeout).await?)
    }

    /// Lists all keys through one member, in one answer; how many there are.
    pub async fn list_keys(&self, member: usize, timeout: Duration) -> Result<u64> {
        let all = Bytes::from_static(b"\0");
        let request =
            RangeRequest { key: all.clone(), range_end: all, keys_only: true, ..RangeRequest::default() };
        let mut kv = KvClient::new(self.channels[member].clone()).max_decoding_message_size(LIST_BYTES_MAX);
        let answer = tokio::time::timeout(timeout, kv.range(request)).await;
        let answer = answer.with_context(|| format!("no list within {timeout:?}"))?.context("no list")?;
        Ok(answer.into_inner().kvs.len().try_into()?)
    }

    /// What one member holds locally at `revision`, or now when it is zero; page by page at one revision.
    pub async fn contents(&self, member: usize, revision: i64) -> Result<Contents> {
        let mut contents = Contents { revision, pairs: BTreeMap::new() };
        let mut from = Bytes::from_static(b"\0");
        loop {
            let request = RangeRequest {
                key: from,
                range_end: Bytes::from_static(b"\0"),
                limit: PAGE_KEYS,
                revision: contents.revision,
                serializable: true,
                ..RangeRequest::default()
            };
            let page = self.range(member, request, Duration::from_secs(30)).await?;
            if contents.revision == 0 {
                contents.revision = header_revision(&page)?;
            }
            let Some(last) = page.kvs.last() else { return Ok(contents) };
            from = [last.key.as_ref(), b"\0"].concat().into();
            let pairs = page.kvs.into_iter().map(|kv| {
                let (create_revision, mod_revision, version) =
                    (kv.create_revision, kv.mod_revision, kv.version);
                (kv.key, Stored { value: kv.value, create_revision, mod_revision, version })
            });
            contents.pairs.extend(pairs);
            if !page.more {
                return Ok(contents);
            }
        }
    }

    /// One key as it was at a past revision, by a linearizable read; `None` if it did not exist then.
    pub async fn past(&self, member: usize, key: &Bytes, revision: i64) -> Result<Option<Stored>> {
        let request = RangeRequest { key: key.clone(), revision, ..RangeRequest::default() };
        let answer = self.range(member, request, TIMEOUT).await?;
        ensure!(answer.kvs.len() <= 1, "{} pairs for one key", answer.kvs.len());
        Ok(answer.kvs.into_iter().next().map(|kv| Stored {
            value: kv.value,
            create_revision: kv.create_revision,
            mod_revision: kv.mod_revision,
            version: kv.version,
        }))
    }

    /// What a member says of itself.
    pub async fn status(&self, member: usize) -> Result<StatusResponse> {
        let mut maintenance = MaintenanceClient::new(self.channels[member].clone());
        let call = maintenance.status(StatusRequest {});
        Ok(tokio::time::timeout(TIMEOUT, call)
            .await
            .context("no status in time")?
            .context("no status")?
            .into_inner())
    }

    /// A member's hash of its history up to `revision`.
    pub async fn hash_kv(&self, member: usize, revision: i64) -> Result<HashKvResponse> {
        let mut maintenance = MaintenanceClient::new(self.channels[member].clone());
        let call = maintenance.hash_kv(HashKvRequest { revision });
        let answer = tokio::time::timeout(Duration::from_secs(30), call).await.context("no hash in time")?;
        Ok(answer.context("no hash")?.into_inner())
    }

    /// Any range, through one member.
    pub async fn range(
        &self,
        member: usize,
        request: RangeRequest,
        timeout: Duration,
    ) -> Result<RangeResponse> {
        let mut kv = self.kv(member);
        let answer = tokio::time::timeout(timeout, kv.range(request)).await;
        Ok(answer.with_context(|| format!("no answer within {timeout:?}"))??.into_inner())
    }

    fn kv(&self, member: usize) -> KvClient<Channel> {
        KvClient::new(self.channels[member].clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }
}

fn channel(url: &str) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(url.to_owned()).with_context(|| format!("{url} is no endpoint"))?;
    Ok(endpoint.connect_timeout(Duration::from_secs(1)).tcp_nodelay(true).connect_lazy())
}

fn header_revision(answer: &RangeResponse) -> Result<i64> {
    Ok(answer.header.as_ref().context("a range without a header")?.revision)
}

/// Whether a failed put certainly had no effect: it was refused before it was proposed, or never left this process.
/// In doubt it is unknown: an oracle that believes too much would accuse the innocent.
pub(crate) fn nothing_happened(status: &Status) -> bool {
    let refused =
        matches!(status.code(), Code::InvalidArgument | Code::ResourceExhausted | Code::FailedPrecondition);
    refused || never_sent(status)
}

fn never_sent(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        let refused = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        if refused == Some(std::io::ErrorKind::ConnectionRefused) {
            return true;
        }
        cause = error.source();
    }
    false
}

fn describe(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}
