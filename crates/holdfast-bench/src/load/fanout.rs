//! Fan-out: many watchers, of everything or each of a key of its own, while puts come by a timetable.
//!
//! Each value begins with the moment at which its put was due, so that every event tells how late it is. A run ends
//! when every watcher that reads has every event.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdfast_proto::etcdserverpb::watch_request::RequestUnion;
use holdfast_proto::etcdserverpb::{PutRequest, WatchCreateRequest, WatchRequest};
use tokio::task::JoinSet;

use super::keys::{KeyNumber, KeySpace, Random};
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
const SETUP_MAX: Duration = Duration::from_secs(120);
/// In front of each value: nanoseconds from the epoch of the run.
const STAMP_BYTES: usize = 8;

/// Who watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Audience {
    /// Watchers of everything that read.
    pub(crate) readers: u32,
    /// Watchers that read, each of the key with its number: of the keys that are written, all must be among them.
    pub(crate) own_keys: u32,
    /// Watchers of everything that never read what they are sent, each on a stream of its own.
    pub(crate) silent: u32,
    /// Watchers that read and share a stream.
    pub(crate) per_stream: u32,
    /// Connections that those streams share, spread over all members.
    pub(crate) connections: u32,
}

impl Audience {
    fn reading(&self) -> u32 {
        self.readers + self.own_keys
    }

    /// Events that a put is, for all that read.
    fn events_per_put(&self) -> u64 {
        u64::from(self.readers) + u64::from(self.own_keys > 0)
    }

    /// The request that makes the watcher with this number; those of everything come first.
    fn create(&self, number: u32) -> Frame {
        let (key, range_end) = match number.checked_sub(self.readers) {
            None => KeySpace::everything(),
            Some(key) => (KeySpace::key(KeyNumber(u64::from(key))), Bytes::new()),
        };
        create(key, range_end)
    }
}

fn create(key: Bytes, range_end: Bytes) -> Frame {
    let create = WatchCreateRequest { key, range_end, ..WatchCreateRequest::default() };
    Frame::of(&WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) })
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
    /// Of the puts. What failed of them is among the events' failures, too.
    pub(crate) puts: Outcome,
}

impl Delivered {
    /// Of the puts, with the failures of both: an event that did not arrive is one.
    pub(crate) fn into_puts(self) -> Outcome {
        let Self { events, mut puts } = self;
        (puts.failures, puts.first_failure) = (0, None);
        puts.add_failures(events.failures, events.first_failure);
        puts
    }
}

/// Watchers that are there and read, or do not.
pub(crate) struct Watching {
    tally: Arc<Mutex<Tally>>,
    epoch: Instant,
    events_per_put: u64,
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
            events_per_put: audience.events_per_put(),
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
            let (key, range_end) = KeySpace::everything();
            self._unread.push(open(connection, vec![create(key, range_end)]).await?);
        }
        Ok(())
    }

    async fn add_readers(&mut self, audience: &Audience, endpoints: &[String]) -> Result<(), Error> {
        let streams = audience.reading().div_ceil(audience.per_stream.max(1));
        let connections =
            self.connect(endpoints, audience.connections.min(streams), Reading::Everything).await?;
        let mut first = 0;
        for connection in connections.iter().cycle().take(streams as usize) {
            let end = audience.reading().min(first + audience.per_stream);
            let stream =
                open(connection, (first..end).map(|number| audience.create(number)).collect()).await?;
            first = end;
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
        let expected = written.operations * self.events_per_put;
        self.wait_for(expected).await?;
        let mut tally = lock(&self.tally);
        let mut events = std::mem::replace(&mut tally.outcome, Outcome::new());
        events.elapsed = tally.last.max(began) - began;
        let missing = expected.saturating_sub(events.operations);
        events.add_failures(written.failures, written.first_failure.clone());
        let words = (missing > 0).then(|| format!("{missing} events have not arrived"));
        events.add_failures(missing, words);
        Ok(Delivered { events, puts: written })
    }

    async fn write(&self, writes: &Writes, connections: &Connections) -> Result<Outcome, Error> {
        let (starts, pacer) = pace::begin(Pace::Open(writes.per_second), writes.duration)?;
        let began = Instant::now();
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
        let mut outcome = std::mem::replace(&mut *outcome, Outcome::new());
        outcome.elapsed = began.elapsed();
        Ok(outcome)
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

/// Opens a stream, makes these watchers, at least one, and reads until all of them are confirmed.
async fn open(connection: &Connection, watchers: Vec<Frame>) -> Result<Stream, Error> {
    let count = watchers.len();
    let mut watchers = watchers.into_iter();
    let first = watchers.next().ok_or(Error::Answer("a stream without watchers"))?;
    let mut stream = connection.stream(WATCH, first, Requests::Many).await?;
    for watcher in watchers {
        stream.send(watcher)?;
    }
    let mut confirmed = 0;
    while confirmed < count {
        let mut each = |message: &[u8]| {
            let seen = scan::response(message, |_| {})?;
            if seen.canceled {
                return Err(Error::Answer("a watcher was not made"));
            }
            confirmed += usize::from(seen.created);
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
    fn watchers_of_everything_come_first_and_each_other_has_its_key() {
        let audience = Audience { readers: 2, own_keys: 3, silent: 5, per_stream: 10, connections: 1 };
        assert_eq!((audience.reading(), audience.events_per_put()), (5, 3));
        let key = |number: u64| create(KeySpace::key(KeyNumber(number)), Bytes::new());
        let (first, end) = KeySpace::everything();
        assert_eq!(audience.create(1), create(first, end));
        assert_eq!((audience.create(2), audience.create(4)), (key(0), key(2)));
        assert_eq!(Audience { own_keys: 0, ..audience }.events_per_put(), 2);
    }

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
