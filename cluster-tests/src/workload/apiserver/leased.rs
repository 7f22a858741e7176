//! Keys with leases, as API servers keep events: each API server has one lease for many keys, and never renews it. The
//! leader is killed meanwhile. No key may go before its time; then all keys of a lease go in one revision, and every
//! watcher is shown what they were.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use holdfast_proto::etcdserverpb::watch_client::WatchClient;
use holdfast_proto::etcdserverpb::watch_request::RequestUnion;
use holdfast_proto::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use holdfast_proto::mvccpb::event::EventType;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::api::{After, Api};
use super::calls::{self, OnFailure, Write};
use super::world::{REGISTRY, World, value};
use super::{SIZE, channels};
use crate::harness::cluster::Cluster;

/// What the leases are granted, in seconds.
const SECONDS: i64 = 4;

/// Keys of each.
const KEYS: usize = 5;

/// The members' default.
const ELECTION: Duration = Duration::from_secs(1);

/// What a busy machine may add.
const SLACK: Duration = Duration::from_secs(3);

/// How long anything may take at all.
const PATIENCE: Duration = Duration::from_secs(60);

/// One lease.
#[derive(Debug, Clone)]
pub struct Leased {
    /// When it was asked for.
    pub asked: Duration,
    /// Its keys.
    pub keys: BTreeSet<Bytes>,
    /// Its deletes as a watcher saw them.
    pub deletes: Vec<Gone>,
}

/// A delete of one of its keys.
#[derive(Debug, Clone)]
pub struct Gone {
    /// The key.
    pub key: Bytes,
    /// Its revision.
    pub revision: i64,
    /// When it came.
    pub at: Duration,
    /// The lease of the pair before, if there was one.
    pub was_of: Option<i64>,
}

/// What was seen.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// By id.
    pub leases: BTreeMap<i64, Leased>,
    /// When the last leader was lost: a new one gives leases all of their time again.
    pub last_kill: Duration,
}

impl Outcome {
    /// What is wrong.
    pub fn findings(&self) -> Vec<String> {
        self.leases.iter().flat_map(|(id, lease)| self.of(*id, lease)).collect()
    }

    fn of(&self, id: i64, lease: &Leased) -> Vec<String> {
        let time = Duration::from_secs(SECONDS.unsigned_abs());
        let mut findings = Vec::new();
        let gone: BTreeSet<Bytes> = lease.deletes.iter().map(|gone| gone.key.clone()).collect();
        if gone != lease.keys || lease.deletes.len() != lease.keys.len() {
            findings.push(format!(
                "lease {id}: {} deletes for {} keys",
                lease.deletes.len(),
                lease.keys.len()
            ));
        }
        let revisions: BTreeSet<i64> = lease.deletes.iter().map(|gone| gone.revision).collect();
        if revisions.len() > 1 {
            findings.push(format!("lease {id}: its keys went in the revisions {revisions:?}"));
        }
        if lease.deletes.iter().any(|gone| gone.was_of != Some(id)) {
            findings.push(format!("lease {id}: a delete without the pair before"));
        }
        if let Some(early) = lease.deletes.iter().find(|gone| gone.at < lease.asked + time) {
            findings.push(format!("lease {id}: gone {:?} after it was asked for", early.at - lease.asked));
        }
        let due = lease.asked.max(self.last_kill) + time + 2 * ELECTION + SLACK;
        if let Some(late) = lease.deletes.iter().find(|gone| gone.at > due) {
            findings.push(format!("lease {id}: gone at {:?}, due at {due:?}", late.at));
        }
        findings
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} leases of {SECONDS} s:", self.leases.len())?;
        for lease in self.leases.values() {
            let first = lease.deletes.iter().map(|gone| gone.at).min().unwrap_or_default();
            write!(f, " {} keys gone after {:.1?},", lease.keys.len(), first.saturating_sub(lease.asked))?;
        }
        write!(f, " the leader killed meanwhile")
    }
}

/// Plays it.
pub async fn run(cluster: &mut Cluster) -> Result<Outcome> {
    let world = Arc::new(World::new(0));
    let endpoints = cluster.endpoints();
    let mut leases = BTreeMap::new();
    let leader = cluster.leader(PATIENCE).await?;
    // The watcher is on a member that stays.
    let watcher = (leader + 1) % SIZE;
    let (_ask, stream) = watch(&endpoints, watcher).await?;
    for number in 0..SIZE {
        let api = Api::new(Arc::clone(&world), watcher, channels(&endpoints)?);
        let (id, lease) = lease(&api, number).await?;
        leases.insert(id, lease);
    }
    cluster.kill(leader)?;
    let last_kill = world.elapsed();
    let of_key: BTreeMap<Bytes, i64> =
        leases.iter().flat_map(|(id, lease)| lease.keys.iter().map(|key| (key.clone(), *id))).collect();
    let watched = tokio::time::timeout(PATIENCE, collect(stream, &world, &of_key, &mut leases)).await;
    cluster.spawn(leader)?;
    cluster.wait_ready(PATIENCE).await?;
    // Keys that have not gone by now are found as missing deletes.
    if let Ok(collected) = watched {
        collected?;
    }
    Ok(Outcome { leases, last_kill })
}

/// A lease and its keys, each created by a transaction.
async fn lease(api: &Api, number: usize) -> Result<(i64, Leased)> {
    let asked = api.world.elapsed();
    let deadline = Instant::now() + PATIENCE;
    let id = loop {
        match calls::grant(api.channel(), SECONDS).await {
            Ok(id) => break id,
            Err(why) => ensure!(Instant::now() < deadline, "no lease: {why:?}"),
        }
        api.move_on().await;
    };
    let mut keys = BTreeSet::new();
    for event in 0..KEYS {
        let key = Bytes::from(format!("{REGISTRY}events/api-{number}/{event}"));
        let write = Write::Put(value(&api.world), id);
        let after = api.swap(&key, 0, write, OnFailure::Nothing).await?;
        ensure!(matches!(after, After::Ours(_)), "an event was not created: {after:?}");
        keys.insert(key);
    }
    Ok((id, Leased { asked, keys, deletes: Vec::new() }))
}

async fn watch(
    endpoints: &[String],
    member: usize,
) -> Result<(mpsc::Sender<WatchRequest>, Streaming<WatchResponse>)> {
    let (ask, asked) = mpsc::channel(1);
    let create = WatchCreateRequest {
        key: format!("{REGISTRY}events/").into(),
        range_end: format!("{REGISTRY}events0").into(),
        prev_kv: true,
        ..WatchCreateRequest::default()
    };
    ask.send(WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }).await?;
    let channel = channels(endpoints)?.swap_remove(member);
    let mut stream = WatchClient::new(channel).watch(ReceiverStream::new(asked)).await?.into_inner();
    let created = stream.message().await?.context("the stream ended at once")?;
    ensure!(created.created, "the first response is {created:?}");
    Ok((ask, stream))
}

/// Collects deletes until each key had one.
async fn collect(
    mut stream: Streaming<WatchResponse>,
    world: &World,
    of_key: &BTreeMap<Bytes, i64>,
    leases: &mut BTreeMap<i64, Leased>,
) -> Result<()> {
    let mut left = of_key.len();
    while left > 0 {
        let response = stream.message().await?.context("the watch ended")?;
        let at = world.elapsed();
        for event in response.events.iter().filter(|event| event.r#type == i32::from(EventType::Delete)) {
            let Some(pair) = &event.kv else { continue };
            let Some(lease) = of_key.get(&pair.key).and_then(|id| leases.get_mut(id)) else { continue };
            let was_of = event.prev_kv.as_ref().map(|previous| previous.lease);
            lease.deletes.push(Gone { key: pair.key.clone(), revision: pair.mod_revision, at, was_of });
            left = left.saturating_sub(1);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn right() -> Outcome {
        let gone = |key: &'static str| Gone {
            key: key.into(),
            revision: 9,
            at: Duration::from_secs(7),
            was_of: Some(3),
        };
        let lease = Leased {
            asked: Duration::from_secs(1),
            keys: ["a", "b"].map(Bytes::from).into_iter().collect(),
            deletes: vec![gone("a"), gone("b")],
        };
        Outcome { leases: [(3, lease)].into_iter().collect(), last_kill: Duration::from_secs(2) }
    }

    #[test]
    fn what_is_not_as_it_must_be_is_found() {
        assert_eq!(right().findings(), [""; 0]);
        let doctored: [fn(&mut Leased); 6] = [
            |lease| drop(lease.deletes.pop()),
            |lease| lease.deletes.push(lease.deletes[0].clone()),
            |lease| lease.deletes[0].revision = 10,
            |lease| lease.deletes[0].was_of = None,
            |lease| lease.deletes[0].at = Duration::from_secs(4),
            |lease| lease.deletes[0].at = Duration::from_secs(12),
        ];
        for doctor in doctored {
            let mut outcome = right();
            doctor(outcome.leases.get_mut(&3).unwrap());
            assert_eq!(outcome.findings().len(), 1, "{outcome:?}");
        }
    }
}
