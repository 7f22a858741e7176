//! Leases: many that live, renewed as etcd's own client does it, and many that end at about the same time.
//!
//! That client looks twice a second which of its leases are due, and sends a keep-alive for each of them on one stream.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use holdfast_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseRevokeRequest,
};
use prost::Message;
use tokio::task::JoinSet;

use super::{Connections, Outcome};
use crate::error::Error;
use crate::grpc::{Connection, Frame, LEASE_GRANT, LEASE_KEEP_ALIVE, LEASE_REVOKE, Requests};

/// Between two looks for leases that are due.
const LOOK: Duration = Duration::from_millis(500);
/// Grants under way at a time.
const GRANTERS: u64 = 256;
/// Revocations under way at a time on a connection.
const REVOKERS_PER_CONNECTION: usize = 16;
/// How long answers may take that are still missing at the end.
const ANSWERS_MAX: Duration = Duration::from_secs(30);
/// Keep-alives of one stream that wait for their answers, when all are renewed at once.
const UNANSWERED_MAX: usize = 256;

/// Grants one lease. Its time to live is the server's to raise.
pub(crate) async fn grant(connection: &Connection, ttl: Duration) -> Result<i64, Error> {
    let ttl = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
    let request = LeaseGrantRequest { ttl, id: 0 };
    let answer = connection.caller(LEASE_GRANT).call(Frame::of(&request)).await?;
    Ok(LeaseGrantResponse::decode(answer)?.id)
}

/// The frame that keeps a lease alive.
pub(crate) fn keep_alive(id: i64) -> Frame {
    Frame::of(&LeaseKeepAliveRequest { id })
}

/// Whether the answer says that the lease lives.
pub(crate) fn check(answer: &[u8]) -> Result<(), Error> {
    match LeaseKeepAliveResponse::decode(answer)?.ttl {
        0 => Err(Error::Answer("a lease is gone that was kept alive")),
        _ => Ok(()),
    }
}

/// Leases, and the connection on which each is renewed.
pub(crate) struct Holding {
    by_connection: Vec<(Connection, Vec<i64>)>,
}

impl Holding {
    /// Grants so many leases, spread over all connections.
    pub(crate) async fn begin(count: u32, ttl: Duration, connections: &Connections) -> Result<Self, Error> {
        let left = Arc::new(AtomicU32::new(count));
        let mut granters = JoinSet::new();
        for number in 0..GRANTERS {
            let (left, connection) = (Arc::clone(&left), connections.of(number).clone());
            let take =
                move || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            granters.spawn(async move {
                let mut ids = Vec::new();
                while take().is_ok() {
                    ids.push(grant(&connection, ttl).await?);
                }
                Ok::<_, Error>(ids)
            });
        }
        let mut all = Vec::new();
        while let Some(granted) = granters.join_next().await {
            all.extend(granted.map_err(|_| Error::Interrupted)??);
        }
        let per_connection = all.len().div_ceil(connections.open.len()).max(1);
        let parts = all.chunks(per_connection).map(<[i64]>::to_vec);
        Ok(Self { by_connection: connections.open.iter().cloned().zip(parts).collect() })
    }

    /// Renews each lease once in `every`, for `duration`.
    pub(crate) async fn renew(&self, every: Duration, duration: Duration) -> Result<Outcome, Error> {
        let slots = every.as_nanos().div_ceil(LOOK.as_nanos()).max(1);
        let slots = usize::try_from(slots).unwrap_or(usize::MAX);
        let streams = u32::try_from(self.by_connection.len()).unwrap_or(u32::MAX);
        let (began, outcome) = (Instant::now(), Arc::new(Mutex::new(Outcome::new())));
        let mut renewers = JoinSet::new();
        for (number, (connection, ids)) in (0_u32..).zip(&self.by_connection) {
            let renewer = Renewer { connection: connection.clone(), ids: ids.clone(), slots };
            // Clients do not look at the same moment.
            let first = began + LOOK * number / streams.max(1);
            renewers.spawn(renewer.run(first, began + duration, Arc::clone(&outcome)));
        }
        while let Some(ended) = renewers.join_next().await {
            ended.map_err(|_| Error::Interrupted)??;
        }
        let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
        let mut outcome = std::mem::replace(&mut *outcome, Outcome::new());
        outcome.elapsed = began.elapsed();
        Ok(outcome)
    }

    /// Renews all leases once, as fast as it goes, so that all of them end at about the same time.
    pub(crate) async fn renew_all(&self) -> Result<(), Error> {
        let mut renewers = JoinSet::new();
        for (connection, ids) in &self.by_connection {
            let (connection, ids) = (connection.clone(), ids.clone());
            renewers.spawn(async move { renew_once(&connection, &ids).await });
        }
        while let Some(ended) = renewers.join_next().await {
            ended.map_err(|_| Error::Interrupted)??;
        }
        Ok(())
    }

    /// Ends all leases, so that none ends while something else is measured.
    pub(crate) async fn revoke(self) -> Result<Outcome, Error> {
        let outcome = Arc::new(Mutex::new(Outcome::new()));
        let mut revokers = JoinSet::new();
        for (connection, ids) in &self.by_connection {
            for part in ids.chunks(ids.len().div_ceil(REVOKERS_PER_CONNECTION).max(1)) {
                let (connection, part, outcome) = (connection.clone(), part.to_vec(), Arc::clone(&outcome));
                revokers.spawn(async move {
                    for id in part {
                        let began = Instant::now();
                        let request = Frame::of(&LeaseRevokeRequest { id });
                        let done = connection.caller(LEASE_REVOKE).call(request).await.map(drop);
                        outcome.lock().unwrap_or_else(PoisonError::into_inner).count(began, &done);
                    }
                });
            }
        }
        while revokers.join_next().await.is_some() {}
        let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::replace(&mut *outcome, Outcome::new()))
    }
}

async fn renew_once(connection: &Connection, ids: &[i64]) -> Result<(), Error> {
    let Some((first, others)) = ids.split_first() else { return Ok(()) };
    let mut stream = connection.stream(LEASE_KEEP_ALIVE, keep_alive(*first), Requests::Many).await?;
    let mut others = others.iter();
    let (mut sent, mut answered) = (1, 0);
    while answered < ids.len() {
        while sent - answered < UNANSWERED_MAX
            && let Some(id) = others.next()
        {
            stream.send(keep_alive(*id))?;
            sent += 1;
        }
        let mut each = |answer: &[u8]| {
            answered += 1;
            check(answer)
        };
        if !stream.messages.receive(&mut each).await? {
            return Err(Error::Answer("the stream has ended"));
        }
    }
    Ok(())
}

/// A client with its leases.
struct Renewer {
    connection: Connection,
    ids: Vec<i64>,
    /// Looks until all are renewed.
    slots: usize,
}

impl Renewer {
    async fn run(self, first: Instant, end: Instant, outcome: Arc<Mutex<Outcome>>) -> Result<(), Error> {
        let Some(one) = self.ids.first() else { return Ok(()) };
        let mut stream = self.connection.stream(LEASE_KEEP_ALIVE, keep_alive(*one), Requests::Many).await?;
        let mut unanswered = VecDeque::from([Instant::now()]);
        let (mut look, mut slot) = (first, 0);
        loop {
            let now = Instant::now();
            if now >= end && (unanswered.is_empty() || now >= end + ANSWERS_MAX) {
                break;
            }
            let mut each = |answer: &[u8]| {
                let sent = unanswered.pop_front().ok_or(Error::Answer("an answer that nobody asked for"))?;
                let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
                outcome.count(sent, &check(answer));
                Ok(())
            };
            let wake = if now < end { look } else { now + Duration::from_millis(20) };
            tokio::select! {
                received = stream.messages.receive(&mut each) => {
                    if !received? {
                        return Err(Error::Answer("the stream has ended"));
                    }
                }
                () = tokio::time::sleep_until(wake.into()) => if now < end {
                    for id in self.ids.iter().skip(slot).step_by(self.slots) {
                        stream.send(keep_alive(*id))?;
                        unanswered.push_back(Instant::now());
                    }
                    (look, slot) = (look + LOOK, (slot + 1) % self.slots);
                }
            }
        }
        let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
        outcome.failures += unanswered.len() as u64;
        Ok(())
    }
}
