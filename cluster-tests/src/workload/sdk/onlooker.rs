//! Looks at the places in a lock's queue, on each member by itself, again and again: what a member shows has happened.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use holdfast_proto::etcdserverpb::RangeRequest;
use rustix::time::{ClockId, clock_gettime};
use tokio::task::JoinSet;

use crate::client::Client;
use crate::judge::sdk::locks::Look;

/// Between two looks at one member.
const EVERY: Duration = Duration::from_millis(20);

/// How long a look may take.
const LOOK_MAX: Duration = Duration::from_millis(500);

/// Looks as long as it is not stopped.
#[derive(Debug)]
pub struct Onlooker {
    tasks: JoinSet<Vec<Look>>,
    stop: Arc<AtomicBool>,
}

impl Onlooker {
    /// Looks at all keys that begin with `queue`, which ends with a stroke, on all members of `client`.
    pub fn start(client: &Client, queue: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for member in 0..client.len() {
            tasks.spawn(look(
                client.clone(),
                member,
                Bytes::copy_from_slice(queue.as_bytes()),
                Arc::clone(&stop),
            ));
        }
        Self { tasks, stop }
    }

    /// Stops, and gives what was seen: of each member, each state that is another one than before.
    pub async fn stop(mut self) -> Result<Vec<Look>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        while let Some(looks) = self.tasks.join_next().await {
            all.extend(looks.context("an onlooker panicked")?);
        }
        Ok(all)
    }
}

async fn look(client: Client, member: usize, queue: Bytes, stop: Arc<AtomicBool>) -> Vec<Look> {
    // A zero follows a stroke in ASCII: the keys up to it begin with the queue.
    let range_end = [&queue[..queue.len() - 1], b"0"].concat().into();
    let request = RangeRequest {
        key: queue,
        range_end,
        keys_only: true,
        serializable: true,
        ..RangeRequest::default()
    };
    let mut looks: Vec<Look> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        // What cannot be seen now is seen later.
        if let Ok(answer) = client.range(member, request.clone(), LOOK_MAX).await {
            let at = now();
            let revision = answer.header.map_or(0, |header| header.revision);
            let tokens: BTreeSet<i64> = answer.kvs.iter().map(|kv| kv.create_revision).collect();
            if looks.last().is_none_or(|last| last.tokens != tokens) {
                looks.push(Look { at, revision, tokens });
            }
        }
        tokio::time::sleep(EVERY).await;
    }
    looks
}

/// Nanoseconds of the monotonic clock, which all processes of a machine share.
fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let part = |part: i64| u64::try_from(part).unwrap_or(0);
    part(time.tv_sec) * 1_000_000_000 + part(time.tv_nsec)
}
