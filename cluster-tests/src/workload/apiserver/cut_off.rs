//! A member whose two others are stopped: a watch with `hasleader` must end in time and in the right words, new calls with
//! it must be refused, and what asks for no leader must go on.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use holdfast_proto::etcdserverpb::kv_client::KvClient;
use holdfast_proto::etcdserverpb::watch_client::WatchClient;
use holdfast_proto::etcdserverpb::watch_request::RequestUnion;
use holdfast_proto::etcdserverpb::{RangeRequest, WatchCreateRequest, WatchRequest, WatchResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

use super::channels;
use super::world::REGISTRY;
use crate::client::Client;
use crate::harness::cluster::Cluster;

/// The members' default.
const ELECTION: Duration = Duration::from_secs(1);

/// What a busy machine may add to three election timeouts.
const SLACK: Duration = Duration::from_millis(500);

/// Between two questions.
const POLL: Duration = Duration::from_millis(10);

/// How long anything may take at all.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a client sees of a member that has no leader.
const NO_LEADER: &str = "etcdserver: no leader";

/// What was seen.
#[derive(Debug, Clone)]
pub struct CutOff {
    /// From the stop of the others until the member said that it has no leader.
    pub leaderless_after: Duration,
    /// From then on, until the watch with `hasleader` ended.
    pub ended_after: Duration,
    /// How it ended.
    pub ended: (Code, String),
    /// What a new read with `hasleader` was told.
    pub refused: Option<(Code, String)>,
    /// Whether a local read without it was answered.
    pub local_read: bool,
    /// Whether a watch without it was still open when the other one had ended.
    pub other_watch: bool,
}

impl CutOff {
    /// What is wrong.
    pub fn findings(&self) -> Vec<String> {
        let mut findings = Vec::new();
        let expected = (Code::Unavailable, NO_LEADER.to_owned());
        if self.ended != expected {
            findings.push(format!("the watch ended with {:?}", self.ended));
        }
        if self.ended_after > 3 * ELECTION + SLACK {
            findings.push(format!("the watch ended {:?} after the leader was lost", self.ended_after));
        }
        if self.refused.as_ref() != Some(&expected) {
            findings.push(format!("a new read with hasleader was told {:?}", self.refused));
        }
        if !self.local_read {
            findings.push("a local read without hasleader was refused".to_owned());
        }
        if !self.other_watch {
            findings.push("a watch without hasleader was ended".to_owned());
        }
        findings
    }
}

impl fmt::Display for CutOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no leader {} ms after the others stopped, the watch with hasleader ended {} ms later",
            self.leaderless_after.as_millis(),
            self.ended_after.as_millis()
        )
    }
}

/// Cuts off the last member, and lets the others go on.
pub async fn run(cluster: &mut Cluster) -> Result<CutOff> {
    let left = cluster.members().len() - 1;
    let client = Client::new(&cluster.endpoints())?;
    let channel = channels(&cluster.endpoints())?.swap_remove(left);
    let (_asking, mut wanting) = watch(&channel, true).await?;
    let (_also_asking, mut other) = watch(&channel, false).await?;
    for member in 0..left {
        cluster.member(member).process()?.pause()?;
    }
    let seen = look(&client, left, &channel, &mut wanting, &mut other).await;
    for member in 0..left {
        cluster.member(member).process()?.resume()?;
    }
    cluster.wait_ready(PATIENCE).await?;
    seen
}

async fn look(
    client: &Client,
    member: usize,
    channel: &Channel,
    wanting: &mut Streaming<WatchResponse>,
    other: &mut Streaming<WatchResponse>,
) -> Result<CutOff> {
    let stopped = Instant::now();
    while client.status(member).await?.leader != 0 {
        if stopped.elapsed() > PATIENCE {
            bail!("a member without the others still names a leader");
        }
        tokio::time::sleep(POLL).await;
    }
    let leaderless = Instant::now();
    let refused = read(channel, true).await.err();
    let local_read = read(channel, false).await.is_ok();
    let ended = tokio::time::timeout(PATIENCE, ending(wanting)).await.context("the watch never ended")?;
    let ended_after = leaderless.elapsed();
    let other_watch = tokio::time::timeout(POLL, ending(other)).await.is_err();
    Ok(CutOff {
        leaderless_after: leaderless.duration_since(stopped),
        ended_after,
        ended,
        refused,
        local_read,
        other_watch,
    })
}

/// Opens a watch of everything that API servers keep, and waits until it is there.
async fn watch(
    channel: &Channel,
    has_leader: bool,
) -> Result<(mpsc::Sender<WatchRequest>, Streaming<WatchResponse>)> {
    let (ask, asked) = mpsc::channel(1);
    let create = WatchCreateRequest {
        key: REGISTRY.into(),
        range_end: "/registry0".into(),
        prev_kv: true,
        progress_notify: true,
        ..WatchCreateRequest::default()
    };
    ask.send(WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }).await?;
    let mut request = Request::new(ReceiverStream::new(asked));
    if has_leader {
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
    }
    let mut stream = WatchClient::new(channel.clone()).watch(request).await?.into_inner();
    let created = stream.message().await?.context("the stream ended at once")?;
    anyhow::ensure!(created.created, "the first response is {created:?}");
    Ok((ask, stream))
}

/// How a watch ends.
async fn ending(stream: &mut Streaming<WatchResponse>) -> (Code, String) {
    loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => return (Code::Ok, String::new()),
            Err(status) => return told(&status),
        }
    }
}

async fn read(channel: &Channel, has_leader: bool) -> Result<(), (Code, String)> {
    let read = RangeRequest { key: REGISTRY.into(), serializable: true, ..RangeRequest::default() };
    let mut request = Request::new(read);
    if has_leader {
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
    }
    KvClient::new(channel.clone()).range(request).await.map(drop).map_err(|status| told(&status))
}

fn told(status: &Status) -> (Code, String) {
    (status.code(), status.message().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_as_it_must_be_is_found() {
        let no_leader = (Code::Unavailable, NO_LEADER.to_owned());
        let right = CutOff {
            leaderless_after: ELECTION,
            ended_after: 3 * ELECTION,
            ended: no_leader.clone(),
            refused: Some(no_leader),
            local_read: true,
            other_watch: true,
        };
        assert_eq!(right.findings(), [""; 0]);
        let doctored = [
            CutOff { ended_after: 4 * ELECTION, ..right.clone() },
            CutOff { ended: (Code::Unavailable, "etcdserver: leader changed".to_owned()), ..right.clone() },
            CutOff { ended: (Code::Internal, NO_LEADER.to_owned()), ..right.clone() },
            CutOff { refused: None, ..right.clone() },
            CutOff { local_read: false, ..right.clone() },
            CutOff { other_watch: false, ..right },
        ];
        for cut_off in doctored {
            assert_eq!(cut_off.findings().len(), 1, "{cut_off:?}");
        }
    }
}
