//! Load: many clients that do the same, at a pace, for a while.
//!
//! Module map: [`operation`] is what one client does, [`pace`] when, [`place`] where, [`keys`] to which keys. [`fanout`] is
//! watchers; [`leases`] is leases that are renewed, or end; [`lists`] reads everything there is. [`scan`] reads events and
//! lists, [`aside`] is a thread for load that is not timed, [`bulk`] writes what is not measured.

pub(crate) mod aside;
pub(crate) mod bulk;
pub(crate) mod fanout;
pub(crate) mod keys;
pub(crate) mod leases;
pub(crate) mod lists;
pub(crate) mod operation;
pub(crate) mod pace;
pub(crate) mod place;
mod scan;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use holdfast_proto::etcdserverpb::{PutRequest, RangeRequest};
use tokio::task::JoinSet;

use crate::cli::Values;
use crate::error::Error;
use crate::grpc::{Connection, Driver, Frame, PUT, RANGE, Reading};
use crate::latency::Latencies;
use keys::{KeyNumber, KeySpace, Random};
use operation::{Client, Operation};
use pace::Pace;

/// Requests in flight on one connection stay far below what a server accepts.
const PRELOAD_CLIENTS: u64 = 128;
/// A client whose connection is gone fails at once, and must not spin.
const AFTER_FAILURE: Duration = Duration::from_millis(10);

/// A load: what is done, by how many, how fast, for how long.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    /// What is done.
    pub(crate) operation: Operation,
    /// How many operations are under way at a time, at most.
    pub(crate) clients: u32,
    /// How fast.
    pub(crate) pace: Pace,
    /// How long operations are started.
    pub(crate) duration: Duration,
    /// On which keys.
    pub(crate) space: KeySpace,
}

/// What a load saw.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Operations that were done.
    pub(crate) operations: u64,
    /// Operations that failed; they are in no other figure.
    pub(crate) failures: u64,
    /// Why the first of them failed.
    pub(crate) first_failure: Option<String>,
    /// From the first start to the last answer.
    pub(crate) elapsed: Duration,
    /// Of those that were done.
    pub(crate) latencies: Latencies,
}

impl Outcome {
    fn new() -> Self {
        Self {
            operations: 0,
            failures: 0,
            first_failure: None,
            elapsed: Duration::ZERO,
            latencies: Latencies::new(),
        }
    }

    /// Counts one operation.
    pub(crate) fn count(&mut self, due: Instant, done: &Result<(), Error>) {
        match done {
            Ok(()) => {
                self.operations += 1;
                self.latencies.record(due.elapsed());
            }
            Err(error) => {
                self.failures += 1;
                self.first_failure.get_or_insert_with(|| error.chain());
            }
        }
    }

    /// Adds what failed elsewhere, and its words if nothing else has failed.
    pub(crate) fn add_failures(&mut self, failures: u64, first: Option<String>) {
        self.failures += failures;
        if self.first_failure.is_none() {
            self.first_failure = first;
        }
    }

    /// Operations in a second.
    pub(crate) fn per_second(&self) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "fewer than 2^52 operations")]
        let operations = self.operations as f64;
        operations / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// Connections to all endpoints in turn.
pub(crate) struct Connections {
    open: Vec<Connection>,
    _drivers: Vec<Driver>,
}

impl Connections {
    /// Opens `count` of them, at least one, spread evenly over the endpoints (host:port each).
    pub(crate) async fn open(endpoints: &[String], count: u32) -> Result<Self, Error> {
        let mut connections = Self { open: Vec::new(), _drivers: Vec::new() };
        for endpoint in endpoints.iter().cycle().take(count.max(1) as usize) {
            let (connection, driver) = Connection::open(endpoint, Reading::Everything).await?;
            connections.open.push(connection);
            connections._drivers.push(driver);
        }
        Ok(connections)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.open.len()).unwrap_or(u32::MAX)
    }

    /// The connection of the client with this number.
    pub(crate) fn of(&self, client: u64) -> &Connection {
        let at = client % self.open.len() as u64;
        &self.open[usize::try_from(at).unwrap_or(0)]
    }
}

/// Runs a load to its end.
pub(crate) async fn run(load: &Load, connections: &Connections) -> Result<Outcome, Error> {
    let outcome = Arc::new(Mutex::new(Outcome::new()));
    let (starts, pacer) = pace::begin(load.pace, load.duration)?;
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for number in 0..u64::from(load.clients.max(1)) {
        let mut client = Client::new(load.operation, &load.space, connections.of(number), number);
        let (starts, outcome) = (starts.clone(), Arc::clone(&outcome));
        clients.spawn(async move {
            while let Some(due) = starts.next().await {
                let done = client.operate().await;
                outcome.lock().unwrap_or_else(PoisonError::into_inner).count(due, &done);
                if done.is_err() {
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
            }
        });
    }
    while clients.join_next().await.is_some() {}
    let elapsed = began.elapsed();
    drop(pacer);
    let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
    let mut outcome = std::mem::replace(&mut *outcome, Outcome::new());
    outcome.elapsed = elapsed;
    Ok(outcome)
}

/// Writes every key of the space once.
pub(crate) async fn preload(space: &KeySpace, connections: &Connections) -> Result<(), Error> {
    let mut clients = JoinSet::new();
    for number in 0..PRELOAD_CLIENTS {
        let mut client = Client::new(Operation::Put, space, connections.of(number), number);
        let keys = (number..space.keys).step_by(usize::try_from(PRELOAD_CLIENTS).unwrap_or(1));
        clients.spawn(async move {
            for key in keys {
                client.put(KeyNumber(key)).await?;
            }
            Ok::<(), Error>(())
        });
    }
    while let Some(done) = clients.join_next().await {
        done.map_err(|_| Error::Interrupted)??;
    }
    Ok(())
}

/// Some of the puts that make up a store: the first ones write every key once, the others random keys. Values are all
/// different.
#[derive(Debug, Clone)]
pub(crate) struct Stretch {
    /// Which puts, counted from the first.
    pub(crate) puts: std::ops::Range<u64>,
    /// Keys of the store.
    pub(crate) keys: u64,
    /// What values are made of.
    pub(crate) values: Values,
    /// Size of a value.
    pub(crate) value_bytes: usize,
    /// Puts under way at a time.
    pub(crate) clients: u32,
}

/// Writes a stretch to its end.
pub(crate) async fn fill(stretch: &Stretch, connections: &Connections) -> Result<(), Error> {
    let next = Arc::new(AtomicU64::new(stretch.puts.start));
    let mut clients = JoinSet::new();
    for number in 0..u64::from(stretch.clients) {
        let mut put = connections.of(number).caller(PUT);
        let (next, stretch) = (Arc::clone(&next), stretch.clone());
        clients.spawn(async move {
            loop {
                let ordinal = next.fetch_add(1, Ordering::Relaxed);
                if ordinal >= stretch.puts.end {
                    return Ok::<(), Error>(());
                }
                put.call(Frame::of(&nth_put(ordinal, &stretch))).await?;
            }
        });
    }
    while let Some(done) = clients.join_next().await {
        done.map_err(|_| Error::Interrupted)??;
    }
    Ok(())
}

fn nth_put(ordinal: u64, stretch: &Stretch) -> PutRequest {
    let mut random = Random::seeded(ordinal.wrapping_mul(0x2545_f491_4f6c_dd1d));
    let number = if ordinal < stretch.keys { ordinal } else { random.below(stretch.keys) };
    let mut value = Vec::with_capacity(stretch.value_bytes + 256);
    while value.len() < stretch.value_bytes {
        match stretch.values {
            Values::Random => value.extend_from_slice(&random.next().to_le_bytes()),
            Values::Json => value.extend_from_slice(object(&mut random).as_bytes()),
        }
    }
    value.truncate(stretch.value_bytes);
    PutRequest { key: KeySpace::key(KeyNumber(number)), value: value.into(), ..PutRequest::default() }
}

/// One endpoint of a service, of about 250 bytes, of which a quarter is its own.
fn object(random: &mut Random) -> String {
    let (id, address, number) = (random.next(), random.next(), random.below(1000));
    let [a, b, c, d, port @ ..] = address.to_le_bytes();
    let port = u16::from_le_bytes([port[0], port[1]]);
    format!(
        "{{\"kind\":\"Endpoint\",\"service\":\"service-{number}\",\"uid\":\"{id:016x}\",\"address\":\"{a}.{b}.{c}.{d}:{port}\",\
         \"ready\":true,\"zone\":\"zone-{}\",\"labels\":{{\"app\":\"service-{number}\",\"tier\":\"backend\"}},\
         \"updated\":\"2026-11-25T{:02}:{:02}:{:02}Z\"}}",
        number % 3,
        id % 24,
        id / 24 % 60,
        id / 1440 % 60
    )
}

/// Opens `count` connections one after the other and reads once over each; they stay open as long as the result lives.
pub(crate) async fn connect_and_read(
    endpoints: &[String],
    count: u32,
) -> Result<(Outcome, Connections), Error> {
    let began = Instant::now();
    let mut outcome = Outcome::new();
    let mut connections = Connections { open: Vec::new(), _drivers: Vec::new() };
    let question = Frame::of(&RangeRequest {
        key: KeySpace::key(KeyNumber(0)),
        serializable: true,
        ..RangeRequest::default()
    });
    for endpoint in endpoints.iter().cycle().take(count as usize) {
        let due = Instant::now();
        let (connection, driver) = Connection::open(endpoint, Reading::Everything).await?;
        let answer = connection.caller(RANGE).call(question.clone()).await;
        outcome.count(due, &answer.map(drop));
        connections.open.push(connection);
        connections._drivers.push(driver);
    }
    outcome.elapsed = began.elapsed();
    Ok((outcome, connections))
}
