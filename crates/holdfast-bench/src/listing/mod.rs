//! What a server's memory grows by while somebody lists everything it has.
//!
//! All systems are loaded with the same keys; each is then listed in pages and, where there is such a call, as a stream,
//! at one revision; then its first member is killed and started again, so that what it caches is cold, and listed again.
//! A member's growth is the most that was resident during a list less what was resident before it.
//!
//! Module map: [`report`] is the table.

pub(crate) mod report;

use std::io::Write;
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdfast_proto::etcdserverpb::{RangeRequest, RangeResponse, RangeStreamResponse};
use prost::Message;
use serde::Serialize;

use crate::cli::{ListingFlags, Values};
use crate::error::Error;
use crate::footprint::until_it_answers;
use crate::grpc::{Connection, Frame, RANGE, RANGE_STREAM, Reading, Requests};
use crate::load::keys::KeySpace;
use crate::load::{self, Connections, Stretch};
use crate::measure::procfs::{Pid, ProcessUsage, forget_peak};
use crate::measure::window;
use crate::systems::cluster::{Cluster, Layout};
use crate::systems::{Programs, System};

/// How a list was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Way {
    /// Page after page, each from behind the last key, at the revision of the first.
    Pages,
    /// As one stream.
    Stream,
}

/// One list of everything.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Listed {
    /// How.
    pub(crate) way: Way,
    /// Whether the member had just been started.
    pub(crate) is_cold: bool,
    /// Keys that came.
    pub(crate) keys: u64,
    /// How long it took.
    pub(crate) took: Duration,
    /// CPU of the member that was asked.
    pub(crate) cpu: Duration,
    /// Resident bytes of that member before.
    pub(crate) before: u64,
    /// The most there were meanwhile.
    pub(crate) peak: u64,
    /// Those at the end.
    pub(crate) after: u64,
}

/// The lists of one system.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Side {
    /// Its name.
    pub(crate) name: &'static str,
    /// In the order they were made.
    pub(crate) lists: Vec<Listed>,
}

/// Does all of it. Says on standard error how far it is.
pub(crate) async fn run(flags: &ListingFlags) -> Result<Vec<Side>, Error> {
    let programs = flags.servers.programs(flags.value_bytes);
    if flags.systems.contains(&System::Ceiling) {
        return Err(Error::Setting("the empty server stores nothing".to_owned()));
    }
    for system in &flags.systems {
        programs.of(*system)?;
    }
    let layout = Layout { members: flags.members as usize, parent: flags.servers.data_parent.clone() };
    let mut sides = Vec::new();
    for system in &flags.systems {
        // One after the other: what is measured is memory, and two of them would only share the disk.
        let mut running = Running::start(*system, &programs, &layout, flags).await?;
        running.lists(false).await?;
        running.restart().await?;
        running.lists(true).await?;
        sides.push(running.side);
    }
    Ok(sides)
}

struct Running {
    cluster: Cluster,
    keys: u64,
    page_keys: u32,
    side: Side,
}

impl Running {
    async fn start(
        system: System,
        programs: &Programs,
        layout: &Layout,
        flags: &ListingFlags,
    ) -> Result<Self, Error> {
        tell(&format!("{}: loading {} keys", system.name(), flags.keys));
        let cluster = Cluster::start(system, programs, layout).await?;
        let connections = Connections::open(&cluster.endpoints(), flags.connections).await?;
        let everything = Stretch {
            puts: 0..flags.keys,
            keys: flags.keys,
            values: Values::Random,
            value_bytes: flags.value_bytes as usize,
            clients: flags.clients,
        };
        load::fill(&everything, &connections).await?;
        let side = Side { name: system.name(), lists: Vec::new() };
        Ok(Self { cluster, keys: flags.keys, page_keys: flags.page_keys, side })
    }

    async fn restart(&mut self) -> Result<(), Error> {
        let endpoint = self.cluster.endpoints().swap_remove(0);
        self.cluster.kill_and_restart(0)?;
        until_it_answers(&mut self.cluster, &endpoint).await
    }

    /// Lists in each way that the system has.
    async fn lists(&mut self, is_cold: bool) -> Result<(), Error> {
        let ways: &[Way] =
            if self.cluster.system.is_ours() { &[Way::Pages, Way::Stream] } else { &[Way::Pages] };
        for way in ways {
            let listed = self.list(*way, is_cold).await?;
            tell(&format!("{}: {}", self.side.name, report::line(&listed)));
            self.side.lists.push(listed);
        }
        Ok(())
    }

    async fn list(&mut self, way: Way, is_cold: bool) -> Result<Listed, Error> {
        let endpoint = self.cluster.endpoints().swap_remove(0);
        let pid = self.first();
        // What a load or a start has put off must not count for the list.
        window::rest(&mut self.cluster).await?;
        let (connection, _driver) = Connection::open(&endpoint, Reading::Everything).await?;
        forget_peak(pid)?;
        let (before, began) = (ProcessUsage::read(pid)?, Instant::now());
        let keys = match way {
            Way::Pages => pages(&connection, self.page_keys).await?,
            Way::Stream => stream(&connection).await?,
        };
        let (after, took) = (ProcessUsage::read(pid)?, began.elapsed());
        if keys != self.keys {
            return Err(Error::Answer("not all keys are in the list"));
        }
        Ok(Listed {
            way,
            is_cold,
            keys,
            took,
            cpu: after.cpu.saturating_sub(before.cpu),
            before: before.resident_bytes,
            peak: after.resident_peak_bytes,
            after: after.resident_bytes,
        })
    }

    fn first(&self) -> Pid {
        self.cluster.pids().swap_remove(0)
    }
}

fn everything() -> RangeRequest {
    let (key, range_end) = KeySpace::everything();
    RangeRequest { key, range_end, ..RangeRequest::default() }
}

/// How many keys come in pages.
async fn pages(connection: &Connection, page_keys: u32) -> Result<u64, Error> {
    let mut range = connection.caller(RANGE);
    let mut request = RangeRequest { limit: i64::from(page_keys), ..everything() };
    let mut order = Order::default();
    loop {
        let page = RangeResponse::decode(range.call(Frame::of(&request)).await?)?;
        let last = order.note(&page)?;
        if !page.more {
            return Ok(order.keys);
        }
        request.key = [&last[..], &[0]].concat().into();
        request.revision = page.header.as_ref().map_or(0, |header| header.revision);
    }
}

/// How many keys come in a stream.
async fn stream(connection: &Connection) -> Result<u64, Error> {
    let mut stream = connection.stream(RANGE_STREAM, Frame::of(&everything()), Requests::One).await?;
    let mut order = Order::default();
    let mut counted = None;
    let mut each = |message: &[u8]| {
        let piece = RangeStreamResponse::decode(message)?.range_response.unwrap_or_default();
        order.note(&piece)?;
        if piece.header.is_some() {
            counted = u64::try_from(piece.count).ok();
        }
        Ok(())
    };
    while stream.messages.receive(&mut each).await? {}
    if counted != Some(order.keys) {
        return Err(Error::Answer("the stream's last message counts other keys than came"));
    }
    Ok(order.keys)
}

/// Keys ascend, over all pages.
#[derive(Default)]
struct Order {
    keys: u64,
    last: Bytes,
}

impl Order {
    /// Gives the last key so far.
    fn note(&mut self, page: &RangeResponse) -> Result<Bytes, Error> {
        for pair in &page.kvs {
            if pair.key <= self.last {
                return Err(Error::Answer("keys of a list do not ascend"));
            }
            self.last = pair.key.clone();
            self.keys += 1;
        }
        Ok(self.last.clone())
    }
}

/// Progress; without a standard error there is nobody to tell.
fn tell(line: &str) {
    drop(writeln!(std::io::stderr(), "{line}"));
}
