//! Who looks on: a watcher of all leases' keys on each member, and a question to each member whether it leads.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use holdfast_proto::etcdserverpb::kv_client::KvClient;
use holdfast_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use holdfast_proto::etcdserverpb::watch_client::WatchClient;
use holdfast_proto::etcdserverpb::watch_request::RequestUnion;
use holdfast_proto::etcdserverpb::{RangeRequest, StatusRequest, WatchCreateRequest, WatchRequest};
use holdfast_proto::mvccpb::event::EventType;
use tonic::transport::{Channel, Endpoint};

use super::book::Book;
use super::holder::PREFIX;

/// Between two questions.
const POLL: Duration = Duration::from_millis(15);

/// A member that does not answer in time is asked again.
const CALL: Duration = Duration::from_millis(250);

/// A channel to one member.
pub(crate) fn channel(url: &str) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(url.to_owned()).with_context(|| format!("{url} is no endpoint"))?;
    Ok(endpoint.connect_timeout(Duration::from_secs(1)).tcp_nodelay(true).connect_lazy())
}

/// Asks one member whether it leads, until the task is dropped.
pub(crate) async fn watch_leader(url: String, book: Arc<Book>) -> Result<()> {
    let channel = channel(&url)?;
    loop {
        let asked = book.now();
        let mut maintenance = MaintenanceClient::new(channel.clone());
        let answer = tokio::time::timeout(CALL, maintenance.status(StatusRequest {})).await;
        if let Ok(Ok(status)) = answer {
            let status = status.into_inner();
            let own = status.header.map_or(0, |header| header.member_id);
            if own != 0 && status.leader == own {
                book.leads(status.raft_term, own, asked);
            }
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Watches the keys of all leases on one member, until the task is dropped.
pub(crate) async fn watch_deletes(url: String, book: Arc<Book>) -> Result<()> {
    let channel = channel(&url)?;
    let mut next = 1;
    loop {
        // A stream that breaks goes on where it was.
        if let Err(error) = follow(&channel, &book, &mut next).await {
            tokio::time::sleep(POLL).await;
            drop(error);
        }
    }
}

/// Notes which leases' keys are there, now that a compaction has taken the events before; the revision that it was at.
async fn look(channel: &Channel, book: &Book) -> Result<i64> {
    let asked = book.now();
    let range = RangeRequest {
        key: PREFIX.into(),
        range_end: behind_prefix().into(),
        keys_only: true,
        ..RangeRequest::default()
    };
    let answer = tokio::time::timeout(CALL, KvClient::new(channel.clone()).range(range)).await;
    let found = answer.context("no keys in time")??.into_inner();
    let revision = found.header.context("an answer without a header")?.revision;
    book.looked(asked, found.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned()).collect());
    Ok(revision)
}

/// The end of the range of all leases' keys.
fn behind_prefix() -> Vec<u8> {
    let mut end = PREFIX.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

async fn follow(channel: &Channel, book: &Book, next: &mut i64) -> Result<()> {
    let create = WatchCreateRequest {
        key: PREFIX.into(),
        range_end: behind_prefix().into(),
        start_revision: *next,
        ..WatchCreateRequest::default()
    };
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let (sender, requests) = tokio::sync::mpsc::channel(1);
    sender.send(request).await.context("the stream takes no request")?;
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let mut answers = WatchClient::new(channel.clone()).watch(requests).await?.into_inner();
    while let Some(answer) = answers.message().await? {
        if answer.canceled {
            if answer.compact_revision > 0 {
                *next = look(channel, book).await? + 1;
            }
            bail!("canceled: {}", answer.cancel_reason);
        }
        for event in answer.events {
            let is_delete = event.r#type() == EventType::Delete;
            let Some(kv) = event.kv else { continue };
            *next = (*next).max(kv.mod_revision + 1);
            if is_delete {
                book.deleted(String::from_utf8_lossy(&kv.key).into_owned());
            }
        }
    }
    bail!("the stream ended")
}
