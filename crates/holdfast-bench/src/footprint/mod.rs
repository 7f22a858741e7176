//! What a store of some size takes of disk and memory, and how soon a member that was killed answers again.
//!
//! All systems are loaded with the same puts in turns, then each has its first member killed and started again, then
//! each is compacted to the head and left alone. Sizes are those of the member that has most. Memory and directories
//! are watched all the time, so that what swells between two looks is seen.
//!
//! Module map: [`directory`] is sizes on disk, [`watch`] looks at a cluster all the time, [`report`] is the table.

mod directory;
pub(crate) mod report;
mod watch;

use std::io::Write;
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdfast_proto::etcdserverpb::{CompactionRequest, RangeRequest, RangeResponse};
use prost::Message;
use serde::Serialize;

use crate::cli::FootprintFlags;
use crate::error::Error;
use crate::grpc::{COMPACT, Connection, Frame, RANGE, Reading};
use crate::load::keys::KeySpace;
use crate::load::{self, Connections, Stretch};
use crate::measure::window;
use crate::systems::System;
use crate::systems::cluster::{Cluster, Layout};
use watch::{Seen, Watch};

/// How long a member that was killed may take until it answers.
const BACK_MAX: Duration = Duration::from_secs(120);
/// Between two attempts to reach it.
const POLL: Duration = Duration::from_millis(5);
/// How long one attempt may take.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// Keys of a page when all of them are listed.
const PAGE_KEYS: i64 = 1000;

/// What was found out about one system.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Side {
    /// Its name.
    pub(crate) name: &'static str,
    /// Members.
    pub(crate) members: usize,
    /// Revisions written.
    pub(crate) revisions: u64,
    /// Time spent writing them.
    pub(crate) load: Duration,
    /// CPU of all members for them, what was put off included.
    pub(crate) load_cpu: Duration,
    /// Bytes the disk was sent for them, by all members, what was put off included.
    pub(crate) device_bytes: u64,
    /// Snapshots that members took meanwhile, at most one counted for each stretch and member.
    pub(crate) dumps: u64,
    /// During and at the end of the load.
    pub(crate) loaded: Seen,
    /// During and after a list of everything, in pages.
    pub(crate) listed: Seen,
    /// From each kill to the first answer to a linearizable read.
    pub(crate) back: Vec<Duration>,
    /// The member that was killed, from its last start until it is at rest.
    pub(crate) restarted: Seen,
    /// From the compaction on until its time is over.
    pub(crate) compacted: Seen,
}

struct Running {
    cluster: Cluster,
    connections: Connections,
    side: Side,
}

/// Does all of it. Says on standard error how far it is.
pub(crate) async fn run(flags: &FootprintFlags) -> Result<Vec<Side>, Error> {
    let programs = flags.servers.programs(flags.value_bytes);
    for system in &flags.systems {
        if *system == System::Ceiling {
            return Err(Error::Setting("the empty server stores nothing".to_owned()));
        }
        programs.of(*system)?;
    }
    let layout = Layout { members: flags.members as usize, parent: flags.servers.data_parent.clone() };
    let mut all = Vec::new();
    for system in &flags.systems {
        tell(&format!("starting {}", system.name()));
        let cluster = Cluster::start(*system, &programs, &layout).await?;
        let connections = Connections::open(&cluster.endpoints(), flags.connections).await?;
        let (name, members) = (system.name(), layout.members);
        all.push(Running { cluster, connections, side: Side { name, members, ..Side::default() } });
    }
    for number in 0..flags.stretches {
        for running in &mut all {
            running.load(flags, number).await?;
        }
    }
    for running in &mut all {
        running.list().await?;
    }
    for _ in 0..flags.restarts {
        for running in &mut all {
            running.restart().await?;
        }
    }
    for running in &mut all {
        running.compact().await?;
    }
    tell("compacted; waiting");
    tokio::time::sleep(flags.after_compaction).await;
    for running in &mut all {
        running.side.compacted = Watch::begin(&running.cluster)?.end(&running.cluster).await?;
    }
    Ok(all.into_iter().map(|running| running.side).collect())
}

impl Running {
    async fn load(&mut self, flags: &FootprintFlags, number: u32) -> Result<(), Error> {
        let share = |number: u32| flags.revisions * u64::from(number) / u64::from(flags.stretches);
        let stretch = Stretch {
            puts: share(number)..share(number + 1),
            keys: flags.keys,
            values: flags.values,
            value_bytes: flags.value_bytes as usize,
            clients: flags.clients,
        };
        window::flush(&self.cluster).await?;
        let before = window::look(&self.cluster).await?;
        let watch = Watch::begin(&self.cluster)?;
        let began = Instant::now();
        load::fill(&stretch, &self.connections).await?;
        let took = began.elapsed();
        window::rest(&mut self.cluster).await?;
        window::flush(&self.cluster).await?;
        let used = before.until(&window::look(&self.cluster).await?);
        let seen = watch.end(&self.cluster).await?;
        let puts = stretch.puts.end - stretch.puts.start;
        let side = &mut self.side;
        side.revisions += puts;
        side.load += took;
        side.load_cpu += used.server_cpu;
        side.device_bytes += used.device_bytes.unwrap_or(0);
        side.dumps += used.dumps;
        side.loaded = side.loaded.followed_by(seen);
        tell(&format!(
            "{}: {} revisions, {:.0}/s, {} B to the disk each, {}",
            side.name,
            side.revisions,
            report::per(puts, took),
            used.device_bytes.unwrap_or(0) / puts.max(1),
            report::line(&seen)
        ));
        Ok(())
    }

    /// Lists everything in pages from the first member.
    async fn list(&mut self) -> Result<(), Error> {
        let watch = Watch::begin(&self.cluster)?;
        let (first, end) = KeySpace::everything();
        let mut range = self.connections.of(0).caller(RANGE);
        let mut request =
            RangeRequest { key: first, range_end: end, limit: PAGE_KEYS, ..RangeRequest::default() };
        loop {
            let page = RangeResponse::decode(range.call(Frame::of(&request)).await?)?;
            let Some(last) = page.kvs.last().filter(|_| page.more) else { break };
            request.key = Bytes::from([&last.key[..], &[0]].concat());
            request.revision = page.header.as_ref().map_or(0, |header| header.revision);
        }
        self.side.listed = watch.end(&self.cluster).await?;
        tell(&format!("{}: listed, {}", self.side.name, report::line(&self.side.listed)));
        Ok(())
    }

    /// Kills the first member, and waits until it answers again.
    async fn restart(&mut self) -> Result<(), Error> {
        let endpoint = self.cluster.endpoints().swap_remove(0);
        let began = Instant::now();
        self.cluster.kill_and_restart(0)?;
        let watch = Watch::begin(&self.cluster)?;
        until_it_answers(&mut self.cluster, &endpoint).await?;
        self.side.back.push(began.elapsed());
        window::rest(&mut self.cluster).await?;
        self.side.restarted = watch.end_of_first(&self.cluster).await?;
        let line = report::line(&self.side.restarted);
        tell(&format!(
            "{}: back in {:.2?}, {line}",
            self.side.name,
            self.side.back[self.side.back.len() - 1]
        ));
        Ok(())
    }

    /// Compacts to the head, at the last member, which was never killed.
    async fn compact(&mut self) -> Result<(), Error> {
        let endpoints = self.cluster.endpoints();
        let last = endpoints.last().map_or("", String::as_str);
        let (connection, _driver) = Connection::open(last, Reading::Everything).await?;
        let question = RangeRequest { key: "/".into(), ..RangeRequest::default() };
        let answer = RangeResponse::decode(connection.caller(RANGE).call(Frame::of(&question)).await?)?;
        let revision = answer.header.map_or(0, |header| header.revision);
        let request = CompactionRequest { revision, ..CompactionRequest::default() };
        connection.caller(COMPACT).call(Frame::of(&request)).await.map(drop)
    }
}

/// Waits until a member that was killed answers again.
pub(crate) async fn until_it_answers(cluster: &mut Cluster, endpoint: &str) -> Result<(), Error> {
    let began = Instant::now();
    while !answers(endpoint).await {
        cluster.fail_if_ended()?;
        if began.elapsed() > BACK_MAX {
            let what = format!("{} answers after a kill", cluster.system.name());
            return Err(Error::Late { what, patience: BACK_MAX });
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

async fn answers(endpoint: &str) -> bool {
    let question = RangeRequest { key: "/".into(), ..RangeRequest::default() };
    let ask = async {
        let (connection, _driver) = Connection::open(endpoint, Reading::Everything).await?;
        connection.caller(RANGE).call(Frame::of(&question)).await
    };
    tokio::time::timeout(ANSWER_MAX, ask).await.is_ok_and(|answer| answer.is_ok())
}

/// Progress; without a standard error there is nobody to tell.
fn tell(line: &str) {
    drop(writeln!(std::io::stderr(), "{line}"));
}
