//! The crowd: many connections by clients that mean no good, or are broken. A process of its own.
//!
//! Each connection is of one kind and does its act again and again, at moments of its own. A connection that the server
//! closes is made anew at the next act. What the server sends is read and thrown away, but by those that do not read.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::frames;

/// How long a connection may take to be made, and an act to be taken off our hands.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of an unfinished message; a request may have more.
const UNFINISHED_BYTES: usize = 1 << 20;

/// Bytes in a frame: what every server takes.
const FRAME_BYTES: usize = 16 << 10;

/// What somebody on a connection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Calls without a token.
    Nameless,
    /// Sends what is no HTTP/2.
    Garbage,
    /// Begins messages that are larger than any may be.
    Oversized,
    /// Begins a message that it never ends.
    Unfinished,
    /// Asks for pages and does not read them.
    Deaf,
    /// Asks over HTTP/2 for answers that it leaves no room for.
    NoWindow,
    /// Says nothing.
    Silent,
    /// Says hello, a byte at a time.
    Dripping,
}

/// All of them, as often as they stand here.
const KINDS: [Kind; 10] = [
    Kind::Nameless,
    Kind::Nameless,
    Kind::Nameless,
    Kind::Garbage,
    Kind::Oversized,
    Kind::Unfinished,
    Kind::Deaf,
    Kind::NoWindow,
    Kind::Silent,
    Kind::Dripping,
];

/// Who comes, and for how long.
#[derive(Debug, Clone)]
pub struct Crowd {
    /// `host:port` of each member.
    pub members: Vec<String>,
    /// Connections in all.
    pub connections: usize,
    /// Acts a second of all together.
    pub acts_per_second: f64,
    /// How long they stay.
    pub during: Duration,
    /// Seed of moments and bytes.
    pub seed: u64,
}

/// What they did.
#[derive(Debug, Default)]
struct Counts {
    acts: [AtomicU64; KINDS.len()],
    connects: AtomicU64,
    failed: AtomicU64,
    open: AtomicU64,
    open_max: AtomicU64,
}

impl Counts {
    fn opened(&self) {
        self.connects.fetch_add(1, Ordering::Relaxed);
        let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        self.open_max.fetch_max(open, Ordering::Relaxed);
    }

    fn closed(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut acts = BTreeMap::new();
        for (kind, count) in KINDS.iter().zip(&self.acts) {
            *acts.entry(*kind).or_insert(0) += count.load(Ordering::Relaxed);
        }
        let acts: Vec<String> = acts.iter().map(|(kind, count)| format!("{kind:?} {count}")).collect();
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        write!(
            f,
            "{} open at most, {} connects, {} of them in vain; acts: {}",
            of(&self.open_max),
            of(&self.connects) + of(&self.failed),
            of(&self.failed),
            acts.join(", ")
        )
    }
}

impl Crowd {
    /// Comes, stays, and says what it did.
    pub async fn run(self) -> Result<String> {
        let counts = Arc::new(Counts::default());
        let ends = Instant::now() + self.during;
        let mut all = JoinSet::new();
        for number in 0..self.connections {
            let (counts, place) = (Arc::clone(&counts), number % KINDS.len());
            let member = self.members[number / KINDS.len() % self.members.len()].clone();
            let every = Duration::from_secs_f64(self.connections as f64 / self.acts_per_second);
            let rng = StdRng::seed_from_u64(self.seed ^ (number as u64) << 20);
            all.spawn(async move {
                let mut somebody = Somebody { place, member, socket: None, rng, counts, stream: 1 };
                somebody.act_until(ends, every).await;
            });
        }
        while let Some(ended) = all.join_next().await {
            ended.context("one of the crowd panicked")?;
        }
        Ok(counts.to_string())
    }
}

/// One connection.
struct Somebody {
    place: usize,
    member: String,
    socket: Option<TcpStream>,
    rng: StdRng,
    counts: Arc<Counts>,
    /// The next stream.
    stream: u32,
}

impl Somebody {
    async fn act_until(&mut self, ends: Instant, every: Duration) {
        // Who comes acts: the rate is the same from the beginning on.
        let mut next = Instant::now() + every.mul_f64(self.rng.random_range(0.0..1.0));
        while next < ends {
            tokio::time::sleep_until(next).await;
            if timeout(PATIENCE, self.act()).await.is_ok_and(|done| done.is_ok()) {
                self.counts.acts[self.place].fetch_add(1, Ordering::Relaxed);
            } else if self.socket.take().is_some() {
                self.counts.closed();
            } else {
                self.counts.failed.fetch_add(1, Ordering::Relaxed);
            }
            next = Instant::now() + every.mul_f64(self.rng.random_range(0.5..1.5));
            self.read_until(next.min(ends)).await;
        }
        tokio::time::sleep_until(ends).await;
        if self.socket.take().is_some() {
            self.counts.closed();
        }
    }

    fn kind(&self) -> Kind {
        KINDS[self.place]
    }

    async fn act(&mut self) -> Result<()> {
        if self.socket.is_none() {
            self.connect().await?;
            self.stream = 1;
            let hello = match self.kind() {
                Kind::Silent | Kind::Dripping | Kind::Deaf => Vec::new(),
                Kind::NoWindow => [frames::PREFACE, &frames::settings(0)].concat(),
                _ => [frames::PREFACE, &frames::settings(1 << 16)].concat(),
            };
            self.send(&hello).await?;
        }
        let stream = self.stream;
        self.stream += 2;
        match self.kind() {
            Kind::Silent => Ok(()),
            Kind::Dripping => {
                let at = (stream / 2) as usize % frames::PREFACE.len();
                self.send(&frames::PREFACE[at..=at]).await
            }
            Kind::Garbage => {
                let garbage = frames::garbage(&mut self.rng);
                self.send(&garbage).await
            }
            Kind::Nameless => {
                let path = ["/etcdserverpb.KV/Range", "/etcdserverpb.KV/Put", "/etcdserverpb.Watch/Watch"]
                    [self.rng.random_range(0..3)];
                // Key "k".
                self.send(&frames::call(stream, path)).await?;
                self.send(&frames::message(stream, 3, b"\x0a\x01k")).await
            }
            Kind::Oversized => {
                self.send(&frames::call(stream, "/etcdserverpb.KV/Put")).await?;
                self.send(&frames::message(stream, 64 << 20, &[7; FRAME_BYTES / 2])).await
            }
            Kind::Unfinished if stream > 1 => Ok(()),
            Kind::Unfinished => self.begin_message(stream).await,
            Kind::Deaf => self.send(b"GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n").await,
            Kind::NoWindow => {
                self.send(&frames::call(stream, "/etcdserverpb.Cluster/MemberList")).await?;
                self.send(&frames::message(stream, 0, &[])).await
            }
        }
    }

    /// As much of a message as the server takes.
    async fn begin_message(&mut self, stream: u32) -> Result<()> {
        self.send(&frames::call(stream, "/etcdserverpb.KV/Put")).await?;
        let bytes = u32::try_from(UNFINISHED_BYTES).unwrap_or(u32::MAX);
        self.send(&frames::message(stream, bytes + 1000, &[])).await?;
        // No window is waited for: what goes beyond it the server refuses, as it should.
        for _ in 0..UNFINISHED_BYTES / FRAME_BYTES {
            self.send(&frames::more(stream, &[7; FRAME_BYTES])).await?;
        }
        Ok(())
    }

    async fn connect(&mut self) -> Result<()> {
        let socket = TcpSocket::new_v4()?;
        if self.kind() == Kind::Deaf {
            socket.set_recv_buffer_size(4096)?;
        }
        self.socket = Some(socket.connect(self.member.parse()?).await?);
        self.counts.opened();
        Ok(())
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let socket = self.socket.as_mut().context("there is no connection")?;
        socket.write_all(bytes).await?;
        Ok(())
    }

    /// Throws away what comes until then. A connection that the server closes is let go.
    async fn read_until(&mut self, until: Instant) {
        let is_deaf = matches!(self.kind(), Kind::Deaf);
        let Some(socket) = self.socket.as_mut().filter(|_| !is_deaf) else { return };
        let mut buffer = [0; 1024];
        let closed = async { while socket.read(&mut buffer).await.is_ok_and(|read| read > 0) {} };
        if tokio::time::timeout_at(until, closed).await.is_ok() && self.socket.take().is_some() {
            self.counts.closed();
        }
    }
}
