//! Lists, as an API server makes them: in pages from continue keys at the revision of the first page, or as a stream.

use std::time::Duration;

use bytes::Bytes;
use holdfast_proto::etcdserverpb::{RangeRequest, RangeResponse};
use rand::RngExt;
use tokio::time::timeout;

use super::api::Api;
use super::calls::{self, Missed, TIMEOUT};
use super::writer::{KINDS, span};
use crate::judge::apiserver::{Held, Listed, Part, Refused, Span, Way};

/// Keys of a page.
const PAGE: usize = 7;

/// Between two lists.
const PAUSE: Duration = Duration::from_millis(150);

/// A list, and what it was read at.
pub struct List {
    /// What came, in order.
    pub pairs: Vec<(Bytes, Held)>,
    /// Its revision.
    pub revision: i64,
}

/// Lists until the load is over.
pub async fn run(api: Api) {
    let mut rng = api.world.rng(2, api.number);
    while !api.world.is_over() {
        let way = if rng.random_range(0..2) == 0 { Way::Pages(PAGE) } else { Way::Stream };
        let kind = KINDS[rng.random_range(0..KINDS.len())];
        if list(&api, span(kind), way, rng.random_range(0..3) == 0).await.is_none() {
            api.move_on().await;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Lists once, and records what came; `None` when it broke off.
///
/// With `dawdle` it takes its time between two pages, so that much happens meanwhile.
pub async fn list(api: &Api, (from, end): (Bytes, Bytes), way: Way, dawdle: bool) -> Option<List> {
    let floor = api.world.newest();
    let mut way = way;
    let mut listing = Listing::new(api);
    let mut outcome = listing.go(&from, &end, way, dawdle).await;
    if outcome == Err(Missed::NotThere) {
        // As API servers do where there are no streams.
        way = Way::Pages(PAGE);
        listing = Listing::new(api);
        outcome = listing.go(&from, &end, way, dawdle).await;
    }
    let mut record = api.world.record();
    match outcome {
        Ok(()) => {
            let Listing { parts, pairs, revision, .. } = listing;
            record.seen.lists.push(Listed { span: Span { from, end }, way, floor, parts });
            Some(List { pairs, revision })
        }
        Err(Missed::Compacted) => {
            record.counts.compacted_lists += 1;
            // A stream that is refused before its end has not said its revision: it was not below this one.
            let revision = if listing.revision > 0 { listing.revision } else { floor };
            record.seen.refused.push(Refused { revision, at: api.world.elapsed() });
            None
        }
        Err(Missed::Broken(_) | Missed::NotThere) => {
            record.counts.broken_lists += 1;
            None
        }
    }
}

struct Listing<'a> {
    api: &'a Api,
    parts: Vec<Part>,
    pairs: Vec<(Bytes, Held)>,
    revision: i64,
}

impl<'a> Listing<'a> {
    fn new(api: &'a Api) -> Self {
        Self { api, parts: Vec::new(), pairs: Vec::new(), revision: 0 }
    }

    async fn go(&mut self, from: &Bytes, end: &Bytes, way: Way, dawdle: bool) -> Result<(), Missed> {
        match way {
            Way::Pages(limit) => self.pages(from, end, limit, dawdle).await,
            Way::Stream => self.stream(from, end).await,
        }
    }

    async fn pages(&mut self, from: &Bytes, end: &Bytes, limit: usize, dawdle: bool) -> Result<(), Missed> {
        let mut request = RangeRequest {
            key: from.clone(),
            range_end: end.clone(),
            limit: i64::try_from(limit).unwrap_or(i64::MAX),
            ..RangeRequest::default()
        };
        loop {
            let page = calls::within(calls::kv(self.api.channel()).range(request.clone())).await?;
            let page = page.into_inner();
            let (more, last) = (page.more, page.kvs.last().map(|pair| pair.key.clone()));
            self.take(page);
            let Some(last) = last.filter(|_| more) else { return Ok(()) };
            request.key = [&last[..], b"\0"].concat().into();
            request.revision = self.revision;
            if dawdle {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    async fn stream(&mut self, from: &Bytes, end: &Bytes) -> Result<(), Missed> {
        let request = RangeRequest { key: from.clone(), range_end: end.clone(), ..RangeRequest::default() };
        let mut pieces =
            calls::within(calls::kv(self.api.channel()).range_stream(request)).await?.into_inner();
        loop {
            let next = timeout(TIMEOUT, pieces.message()).await;
            let next = next.map_err(|_| Missed::Broken("a stream that stands still".to_owned()))?;
            match calls::within(std::future::ready(next)).await? {
                Some(piece) => self.take(piece.range_response.unwrap_or_default()),
                None => return Ok(()),
            }
        }
    }

    fn take(&mut self, part: RangeResponse) {
        let header = part.header.as_ref().map(|header| header.revision);
        if self.revision == 0 {
            self.revision = header.unwrap_or(0);
        }
        let held: Vec<Held> = part.kvs.iter().map(|pair| self.api.world.held(pair)).collect();
        self.pairs.extend(part.kvs.into_iter().map(|pair| pair.key).zip(held.iter().copied()));
        self.parts.push(Part { header, pairs: held, more: part.more, count: part.count });
    }
}
