//! What all clients of a run share, and how they call: one member, one try, one outcome.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use holdfast_proto::etcdserverpb::kv_client::KvClient;
use holdfast_proto::etcdserverpb::{Compare, RangeRequest, RangeResponse, RequestOp, TxnRequest};
use rand::RngExt;
use rand::rngs::StdRng;
use tonic::Response;
use tonic::transport::Channel;

use super::book::{Book, End};
use crate::client::{Client, nothing_happened};
use crate::judge::watch::history::Step;
use crate::workload::watch::calls::{Fate, operation};
use crate::workload::watch::shared::Shared;

/// How long a call may take.
const CALL: Duration = Duration::from_millis(1_500);

/// Pause after a call that failed, so that a dead cluster is asked often and not flooded.
const PAUSE: Duration = Duration::from_millis(30);

/// One run.
#[derive(Debug)]
pub struct Scene {
    /// Clock, keys, chronicle.
    pub shared: Arc<Shared>,
    /// What is counted.
    pub book: Book,
    /// Connections to the members that vote all the time.
    pub client: Client,
    /// Set when clients are to end.
    pub stop: AtomicBool,
    /// Set when nothing is waited for any more.
    pub is_done: AtomicBool,
    number: AtomicU64,
}

/// What a write came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It took effect at this revision.
    At(i64),
    /// Its conditions did not hold, at this revision.
    Not(i64),
    /// Certainly nothing happened, and nobody looked at its conditions.
    Refused,
    /// Nobody knows.
    Unknown,
}

impl Scene {
    /// A run that begins now.
    pub fn new(shared: Arc<Shared>, client: Client) -> Self {
        let (book, stop, is_done) = (Book::default(), AtomicBool::new(false), AtomicBool::new(false));
        Self { shared, book, client, stop, is_done, number: AtomicU64::new(0) }
    }

    /// A number that nobody else has.
    pub fn number(&self) -> u64 {
        self.number.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Whether clients are to end.
    pub fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Time since the run began.
    pub fn now(&self) -> Duration {
        self.shared.elapsed()
    }

    /// Steps as one transaction, if all conditions hold.
    pub async fn write(
        &self,
        workload: &'static str,
        member: usize,
        compare: Vec<Compare>,
        steps: &[Step],
    ) -> Written {
        self.shared.chronicle().begin(steps);
        let success = steps.iter().map(|step| RequestOp { request: Some(operation(step)) }).collect();
        let request = TxnRequest { compare, success, ..TxnRequest::default() };
        let mut kv = self.kv(member);
        let answer = tokio::time::timeout(CALL, kv.txn(request)).await;
        let (written, end) = match answer.map(|answer| answer.map(Response::into_inner)) {
            Ok(Ok(answer)) => {
                let revision = answer.header.map_or(0, |header| header.revision);
                if answer.succeeded {
                    (Written::At(revision), End::Written)
                } else {
                    (Written::Not(revision), End::Ok)
                }
            }
            Ok(Err(status)) if nothing_happened(&status) => (Written::Refused, End::Failed),
            Ok(Err(_)) | Err(_) => (Written::Unknown, End::Unknown),
        };
        let fate = match written {
            Written::At(revision) => Fate::At(revision),
            Written::Not(_) | Written::Refused => Fate::Nothing,
            Written::Unknown => Fate::Unknown,
        };
        self.shared.chronicle().end(steps, fate);
        if let Written::At(revision) | Written::Not(revision) = written {
            self.shared.saw(revision);
        }
        self.book.count(workload, end, self.now());
        if end != End::Written && end != End::Ok {
            tokio::time::sleep(PAUSE).await;
        }
        written
    }

    /// A range; the error that it came to counts as failed.
    pub async fn read(
        &self,
        workload: &'static str,
        member: usize,
        request: RangeRequest,
    ) -> Result<RangeResponse, String> {
        let mut kv = self.kv(member);
        let is_serializable = request.serializable;
        let answer = tokio::time::timeout(CALL, kv.range(request)).await;
        let answer = match answer {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(status.message().to_owned()),
            Err(_) => Err("no answer in time".to_owned()),
        };
        let is_answer = answer.is_ok() || answer.as_ref().is_err_and(|error| error.contains("compacted"));
        self.book.count(workload, if is_answer { End::Ok } else { End::Failed }, self.now());
        match &answer {
            Ok(answer) if !is_serializable => {
                self.shared.saw(answer.header.as_ref().map_or(0, |header| header.revision));
            }
            Ok(_) => {}
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
        answer
    }

    fn kv(&self, member: usize) -> KvClient<Channel> {
        KvClient::new(self.client.channel(member))
    }
}

/// Where a client calls: the same member as before, now and then and after a failure another one.
#[derive(Debug)]
pub struct Chooser {
    members: usize,
    at: usize,
}

impl Chooser {
    /// Begins anywhere.
    pub fn new(rng: &mut StdRng, members: usize) -> Self {
        Self { members, at: rng.random_range(0..members) }
    }

    /// The member to call next.
    pub fn next(&mut self, rng: &mut StdRng) -> usize {
        if rng.random_bool(0.1) {
            self.failed();
        }
        self.at
    }

    /// The last call failed.
    pub fn failed(&mut self) {
        self.at = (self.at + 1) % self.members;
    }
}

/// Waits for about as long as a client does between two calls.
pub async fn think(rng: &mut StdRng, mean: Duration) {
    tokio::time::sleep(mean.mul_f64(rng.random_range(0.5..1.5))).await;
}
