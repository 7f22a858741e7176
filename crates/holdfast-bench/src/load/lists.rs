//! Lists of everything there is, whole or in pages, and clients that make them one after the other.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdfast_proto::etcdserverpb::RangeRequest;
use tokio::task::JoinSet;

use super::aside::Aside;
use super::keys::KeySpace;
use super::{AFTER_FAILURE, Connections, Outcome, scan};
use crate::error::Error;
use crate::grpc::{Caller, Frame, RANGE};

/// How a list is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// In one call.
    Whole,
    /// In pages of so many keys, all at the revision of the first.
    Paged(NonZeroU32),
}

/// Lists everything, and counts it.
///
/// Errors: those of the calls, and other keys than `keys` of them.
pub(crate) async fn list(range: &mut Caller, way: Way, keys: u64) -> Result<(), Error> {
    let found = match way {
        Way::Whole => whole(range).await?,
        Way::Paged(page_keys) => paged(range, page_keys).await?,
    };
    if found == keys { Ok(()) } else { Err(Error::Answer("a list has other keys than are there")) }
}

fn everything() -> RangeRequest {
    let (key, range_end) = KeySpace::everything();
    RangeRequest { key, range_end, ..RangeRequest::default() }
}

async fn whole(range: &mut Caller) -> Result<u64, Error> {
    let mut count = scan::KeyCount::new();
    range.call_in_pieces(Frame::of(&everything()), &mut |piece| count.take(piece)).await?;
    count.whole()
}

async fn paged(range: &mut Caller, page_keys: NonZeroU32) -> Result<u64, Error> {
    let mut request = RangeRequest { limit: i64::from(page_keys.get()), ..everything() };
    let mut keys = 0;
    loop {
        let answer = range.call(Frame::of(&request)).await?;
        let page = scan::page(&answer)?;
        keys += page.keys;
        if !page.more {
            return Ok(keys);
        }
        if page.keys == 0 {
            return Err(Error::Answer("an empty page with more behind it"));
        }
        request.key = Bytes::from([page.last, &[0]].concat());
        if request.revision == 0 {
            request.revision = i64::try_from(page.revision).unwrap_or(i64::MAX);
        }
    }
}

/// Clients that list everything over and over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listers {
    /// How many.
    pub(crate) clients: u32,
    /// How each asks.
    pub(crate) way: Way,
    /// How many keys each list must have.
    pub(crate) keys: u64,
}

/// Listers at work, on a thread of their own.
pub(crate) struct Listing {
    stop: Arc<AtomicBool>,
    outcome: Arc<Mutex<Outcome>>,
    began: Instant,
    aside: Aside,
    clients: JoinSet<()>,
    /// Each client's.
    _connections: Connections,
}

/// How long the last lists may take that were begun before the end.
const LAST_LISTS_MAX: Duration = Duration::from_secs(60);

impl Listing {
    /// Lets them begin, each on a connection of its own, spread over all members.
    pub(crate) async fn begin(listers: Listers, endpoints: &[String]) -> Result<Self, Error> {
        let (aside, all) = (Aside::begin("listers")?, endpoints.to_vec());
        let connections = aside.run(async move { Connections::open(&all, listers.clients).await }).await?;
        let mut listing = Self {
            stop: Arc::new(AtomicBool::new(false)),
            outcome: Arc::new(Mutex::new(Outcome::new())),
            began: Instant::now(),
            aside,
            clients: JoinSet::new(),
            _connections: connections,
        };
        for number in 0..u64::from(listers.clients) {
            let range = listing._connections.of(number).caller(RANGE);
            let (stop, outcome) = (Arc::clone(&listing.stop), Arc::clone(&listing.outcome));
            let client = list_until(stop, outcome, range, listers);
            listing.clients.spawn_on(client, listing.aside.handle());
        }
        Ok(listing)
    }

    /// Lets them end the lists they are at, and says what they saw.
    pub(crate) async fn end(mut self) -> Result<Outcome, Error> {
        self.stop.store(true, Ordering::Relaxed);
        let last = async { while self.clients.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST_LISTS_MAX, last).await.is_err() {
            return Err(Error::Late { what: "the last lists".to_owned(), patience: LAST_LISTS_MAX });
        }
        let mut outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        let mut outcome = std::mem::replace(&mut *outcome, Outcome::new());
        outcome.elapsed = self.began.elapsed();
        Ok(outcome)
    }
}

async fn list_until(
    stop: Arc<AtomicBool>,
    outcome: Arc<Mutex<Outcome>>,
    mut range: Caller,
    listers: Listers,
) {
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        let done = list(&mut range, listers.way, listers.keys).await;
        outcome.lock().unwrap_or_else(PoisonError::into_inner).count(began, &done);
        if done.is_err() {
            tokio::time::sleep(AFTER_FAILURE).await;
        }
    }
}
