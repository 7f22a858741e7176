//! All changes of a store, read by one watch of everything while nobody breaks it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use holdfast_proto::etcdserverpb::watch_client::WatchClient;
use holdfast_proto::etcdserverpb::watch_request::RequestUnion;
use holdfast_proto::etcdserverpb::{WatchCreateRequest, WatchRequest};
use holdfast_proto::mvccpb::event::EventType;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::judge::sdk::world::Change;

/// How long the next changes may take to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// A response may be large.
const ANSWER_BYTES_MAX: usize = 1 << 30;

/// The changes from a revision on up to another one, both inclusive, in order.
///
/// Errors: the member does not tell them, for example because they were compacted.
pub async fn read(channel: &Channel, from: i64, until: i64) -> Result<Vec<Change>> {
    let mut changes: Vec<Change> = Vec::new();
    if from > until {
        return Ok(changes);
    }
    let (ask, asked) = mpsc::channel(1);
    let all = bytes::Bytes::from_static(b"\0");
    let create = WatchCreateRequest {
        key: all.clone(),
        range_end: all,
        start_revision: from,
        ..WatchCreateRequest::default()
    };
    ask.send(WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }).await?;
    let mut watch = WatchClient::new(channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX);
    let mut told = watch.watch(ReceiverStream::new(asked)).await.context("no watch")?.into_inner();
    // Each revision has a change.
    while changes.last().is_none_or(|last| last.revision < until) {
        let response = timeout(PATIENCE, told.message()).await.context("no changes in time")??;
        let response = response.context("the watch has ended")?;
        ensure!(!response.canceled, "the watch was canceled: {response:?}");
        for event in response.events {
            let is_delete = event.r#type == i32::from(EventType::Delete);
            let kv = event.kv.context("a change of no key")?;
            let value = (!is_delete).then_some(kv.value);
            changes.push(Change { revision: kv.mod_revision, key: kv.key, value });
        }
    }
    changes.retain(|change| change.revision <= until);
    Ok(changes)
}
