//! Fan-out: many watchers of the same keys, while puts come by a timetable.
//!
//! Each value begins with the moment at which its put was due, so that every event tells how late it is. A run ends
//! when every watcher that reads has every event.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use holdfast_proto::etcdserverpb::watch_request::RequestUnion;
use holdfast_proto::etcdserverpb::{PutRequest, WatchCreateRequest, WatchRequest};
use tokio::task::JoinSet;

use super::keys::{KeySpace, Random};
use super::pace::{self, Pace};
use super::{Connections, Outcome, scan};
use crate::error::Error;
use crate::grpc::{Caller, Connection, Driver, Frame, PUT, Reading, Requests, Stream, WATCH};

/// Puts under way at a time; a timetable that is held up makes them wait, and counts it.
const WRITERS: u64 = 64;
/// Streams of watchers that do not read, on one connection.
const SILENT_PER_CONNECTION: u32 = 10;
/// How long nothing may arrive before what is missing counts as lost.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// How long making all watchers may take.
const SETUP_MAX: Duration = Duration::from_secs(60);
/// In front of each value: nanoseconds from the epoch of the run.
const STAMP_BYTES: usize = 8;

/// Who watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Audience {
    /// Watchers that read.
    pub(crate) readers: u32,
    /// Watchers that never read what they are sent, each on a stream of its own.
    pub(crate) silent: u32,
    /// Readers that share a stream.
    pub(crate) per_stream: u32,
    /// Connections that the readers' streams share, spread over all members.
    pub(crate) connections: u32,
}

/// What is written while they watch.
#[derive(Debug, Clone)]
pub(crate) struct Writes {
    /// How many a second.
    pub(crate) per_second: NonZeroU32,
    /// For how long.
    pub(crate) duration: Duration,
    /// Which keys.
    pub(crate) space: KeySpace,
}

/// Keys that are written once, before anybody reads.
#[derive(Clone, Copy)]
pub(crate) struct Fill<'a> {
    /// Which keys.
    pub(crate) space: &'a KeySpace,
    /// Over which connections.
    pub(crate) connections: &'a Connections,
}

/// What a fan-out saw.
#[derive(Debug)]
pub(crate) struct Delivered {
    /// Of the events: each counts as an operation, an event that did not arrive as a failure.
    pub(crate) events: Outcome,
    /// Puts that were done.
    pub(crate) puts: u64,
}

/// Watchers that are there and read, or do not.
pub(crate) struct Watching {
    tally: Arc<Mutex<Tally>>,
    epoch: Instant,
    readers: u32,
    _reading: JoinSet<()>,
    _unread: Vec<Stream>,
    _drivers: Vec<Driver>,
}

/// What the readers have seen. Written by them, under its lock.
struct Tally {
    outcome: Outcome,
    last: Instant,
    ended: Option<String>,
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watching {
    /// Makes the watchers; when it returns, the servers have confirmed all of them. Those that do not read are there
    /// first, and `fill` is written to them before the others come.
    pub(crate) async fn begin(
        audience: &Audience,
        endpoints: &[String],
        fill: Option<Fill<'_>>,
    ) -> Result<Self, Error> {
        let now = Instant::now();
        let mut watching = Self {
            tally: Arc::new(Mutex::new(Tally { outcome: Outcome::new(), last: now, ended: None })),
            epoch: now,
            readers: audience.readers,
            _reading: JoinSet::new(),
            _unread: Vec::new(),
            _drivers: Vec::new(),
        };
        within_setup_max(watching.add_silent(audience, endpoints)).await?;
        if let Some(Fill { space, connections }) = fill {
            super::preload(space, connections).await?;
        }
        within_setup_max(watching.add_readers(audience, endpoints)).await?;
        Ok(watching)
    }

    async fn add_silent(&mut self, audience: &Audience, endpoints: &[String]) -> Result<(), Error> {
        let count = audience.silent.div_ceil(SILENT_PER_CONNECTION);
        let connections = self.connect(endpoints, count, Reading::Nothing).await?;
        for connection in connections.iter().cycle().take(audience.silent as usize) {
            self._unread.push(open(connection, 1).await?);
        }
        Ok(())
    }

    async fn add_readers(&mut self, audience: &Audience, endpoints: &[String]) -> Result<(), Error> {
        let streams = audience.readers.div_ceil(audience.per_stream.max(1));
        let connections =
            self.connect(endpoints, audience.connections.min(streams), Reading::Everything).await?;
        let mut left = audience.readers;
        for connection in connections.iter().cycle().take(streams as usize) {
            let watchers = left.min(audience.per_stream);
            left -= watchers;
            let stream = open(connection, watchers).await?;
            self._reading.spawn(read(stream, Arc::clone(&self.tally), self.epoch));
        }
        Ok(())
    }

    async fn connect(
        &mut self,
        endpoints: &[String],
        count: u32,
        reading: Reading,
    ) -> Result<Vec<Connection>, Error> {
        let mut connections = Vec::new();
        for endpoint in endpoints.iter().cycle().take(count as usize) {
            let (connection, driver) = Connection::open(endpoint, reading).await?;
            connections.push(connection);
            self._drivers.push(driver);
        }
        Ok(connections)
    }

    /// Writes by a timetable, and waits until all events have arrived.
    pub(crate) async fn run(&self, writes: &Writes, connections: &Connections) -> Result<Delivered, Error> {
        let began = Instant::now();
        lock(&self.tally).last = began;
        let written = self.write(writes, connections).await?;
        let expected = written.operations * u64::from(self.readers);
        self.wait_for(expected).await?;
        let mut tally = lock(&self.tally);
        let mut events = std::mem::replace(&mut tally.outcome, Outcome::new());
        events.elapsed = tally.last.max(began) - began;
        events.failures = expected.saturating_sub(events.operations) + written.failures;
        if events.failures > 0 {
            let missing = || format!("{} events have not arrived", events.failures);
            events.first_failure = Some(written.first_failure.unwrap_or_else(missing));
        }
        Ok(Delivered { events, puts: written.operations })
    }

    async fn write(&self, writes: &Writes, connections: &Connections) -> Result<Outcome, Error> {
        let (starts, pacer) = pace::begin(Pace::Open(writes.per_second), writes.duration)?;
        let mut writers = JoinSet::new();
        let outcome = Arc::new(Mutex::new(Outcome::new()));
        for number in 0..WRITERS {
            let mut put = connections.of(number).caller(PUT);
            let (starts, outcome, epoch) = (starts.clone(), Arc::clone(&outcome), self.epoch);
            let (space, mut random) = (writes.space.clone(), Random::seeded(number));
            writers.spawn(async move {
                while let Some(due) = starts.next().await {
                    let done = put_stamped(&mut put, &space, &mut random, due.duration_since(epoch)).await;
                    outcome.lock().unwrap_or_else(PoisonError::into_inner).count(due, &done);
                }
            });
        }
        while writers.join_next().await.is_some() {}
        drop(pacer);
        let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::replace(&mut *outcome, Outcome::new()))
    }

    async fn wait_for(&self, expected: u64) -> Result<(), Error> {
        loop {
            {
                let tally = lock(&self.tally);
                if let Some(words) = &tally.ended {
                    return Err(Error::Setting(format!("a watch stream has ended: {words}")));
                }
                if tally.outcome.operations >= expected || tally.last.elapsed() > SILENCE_MAX {
                    return Ok(());
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn within_setup_max(setup: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    let setup = tokio::time::timeout(SETUP_MAX, setup).await;
    setup.map_err(|_| Error::Late { what: "all watchers made".to_owned(), patience: SETUP_MAX })?
}

/// Opens a stream with so many watchers of everything, and reads until all of them are confirmed.
async fn open(connection: &Connection, watchers: u32) -> Result<Stream, Error> {
    let (key, range_end) = KeySpace::everything();
    let create = WatchCreateRequest { key, range_end, ..WatchCreateRequest::default() };
    let request = Frame::of(&WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) });
    let mut stream = connection.stream(WATCH, request.clone(), Requests::Many).await?;
    for _ in 1..watchers {
        stream.send(request.clone())?;
    }
    let mut confirmed = 0;
    while confirmed < watchers {
        let mut each = |message: &[u8]| {
            let seen = scan::response(message, |_| {})?;
            if seen.canceled {
                return Err(Error::Answer("a watcher was not made"));
            }
            confirmed += u32::from(seen.created);
            Ok(())
        };
        if !stream.messages.receive(&mut each).await? {
            return Err(Error::Answer("the watch stream has ended"));
        }
    }
    Ok(stream)
}

async fn read(mut stream: Stream, tally: Arc<Mutex<Tally>>, epoch: Instant) {
    loop {
        let mut each = |message: &[u8]| {
            let now = Instant::now();
            let mut tally = lock(&tally);
            let latencies = &mut tally.outcome.latencies;
            let seen = scan::response(message, |value| latencies.record(age(value, now - epoch)))?;
            tally.outcome.operations += seen.events;
            tally.last = now;
            if seen.canceled { Err(Error::Answer("a watcher was canceled")) } else { Ok(()) }
        };
        let words = match stream.messages.receive(&mut each).await {
            Ok(true) => continue,
            Ok(false) => "by the server".to_owned(),
            Err(error) => error.chain(),
        };
        lock(&tally).ended.get_or_insert(words);
        return;
    }
}

/// How long ago the put behind this value was due.
fn age(value: &[u8], now: Duration) -> Duration {
    let stamp = value.first_chunk::<STAMP_BYTES>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    now.saturating_sub(Duration::from_nanos(stamp))
}

fn stamped(value: &[u8], due: Duration) -> Vec<u8> {
    let nanos = u64::try_from(due.as_nanos()).unwrap_or(u64::MAX);
    let mut bytes = nanos.to_le_bytes().to_vec();
    bytes.extend_from_slice(value.get(STAMP_BYTES..).unwrap_or_default());
    bytes
}

async fn put_stamped(
    put: &mut Caller,
    space: &KeySpace,
    random: &mut Random,
    due: Duration,
) -> Result<(), Error> {
    let request = PutRequest {
        key: KeySpace::key(space.any(random)),
        value: stamped(&space.value(), due).into(),
        ..PutRequest::default()
    };
    put.call(Frame::of(&request)).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_tells_its_age() {
        let due = Duration::from_millis(1500);
        let value = stamped(&[7; 20], due);
        assert_eq!(value.len(), 20);
        assert_eq!(age(&value, Duration::from_millis(1750)), Duration::from_millis(250));
        assert_eq!(age(&value, Duration::ZERO), Duration::ZERO, "clocks of one process do not run backwards");
        assert_eq!(stamped(b"ab", due).len(), STAMP_BYTES);
    }
}
