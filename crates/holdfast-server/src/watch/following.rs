//! A watch stream whose client is the member itself: calls that wait for a key to change use it.
//!
//! It is a stream like any other, with its place in the table and its bounded queue, so that such a call is told what a
//! client would be told, and costs what a client costs.

use std::sync::Arc;

use bytes::BytesMut;
use futures::stream::{self, StreamExt};
use holdfast_proto::{etcdserverpb as pb, mvccpb};
use pb::watch_request::RequestUnion;
use prost::Message;
use tokio_util::sync::CancellationToken;

use super::outbound::Responses;
use super::{LeaderWanted, Watches};
use crate::codec::watch::{Content, Header};
use crate::status::Failure;

/// Some keys, watched. Dropping it ends the watch.
pub struct Following {
    responses: Responses,
    header: Arc<Header>,
    stop: CancellationToken,
}

/// What became of what is watched.
#[derive(Debug, PartialEq)]
pub enum Followed {
    /// It changed: in order, never empty.
    Changed(Vec<mvccpb::Event>),
    /// The changes since the revision asked for are not known any more: read again, and watch from there.
    Lost,
}

impl Watches {
    /// Watches what these requests ask for, each with a first revision.
    pub fn follow(
        &self,
        requests: impl IntoIterator<Item = pb::WatchCreateRequest>,
        leader: LeaderWanted,
    ) -> Following {
        let requests: Vec<_> = requests
            .into_iter()
            .map(|create| Ok(pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }))
            .collect();
        // A client that has asked for all and stays.
        let client = stream::iter(requests).chain(stream::pending());
        Following {
            responses: self.open(client, leader, Arc::new(|_| Ok(()))),
            header: self.header(),
            stop: self.stop.clone(),
        }
    }
}

impl Following {
    /// Waits for the next changes. Cancel-safe.
    ///
    /// Errors: the member stops, or has been without a leader for too long and the caller wanted one.
    pub async fn next(&mut self) -> Result<Followed, Failure> {
        loop {
            let Some(Ok(response)) = self.responses.next().await else {
                let is_stopping = self.stop.is_cancelled();
                return Err(if is_stopping { Failure::Stopped } else { Failure::LeaderRequired });
            };
            match &response.content {
                Content::Created | Content::Progress => {}
                Content::Refused(_) | Content::Canceled | Content::Compacted(_) => return Ok(Followed::Lost),
                Content::Events(_) => {
                    let mut encoded = BytesMut::new();
                    response.encode(&self.header, &mut encoded);
                    let decoded = pb::WatchResponse::decode(encoded.freeze())
                        .expect("what is encoded here can be decoded");
                    return Ok(Followed::Changed(decoded.events));
                }
            }
        }
    }
}
