//! Informers, watches and sessions with a lock, on a cluster that somebody else breaks: the child of `cluster-tests sdk`,
//! which judges what is written here and shares no code with it.
//!
//! It is told what to do by lines on standard input, and ends when that is closed:
//!
//! | line | what happens | lines on standard output |
//! | --- | --- | --- |
//! | a [`Config`] in JSON, first | all begins | `{"ready":true}` when every informer has synced and every watch has begun |
//! | `end sessions` | locks are given up, sessions end | a [`sessions::SessionReport`] each, then `{"sessions_ended":true}` |
//! | `finish REVISION` | informers and watches come to that revision | an [`informers::InformerReport`] each, a [`watches::WatchReport`] each, then `{"finished":true}` |
//!
//! Times are nanoseconds of the machine's monotonic clock, which all processes share.
//!
//! # What is written to files
//! A watch writes what it tells into `DIR/watch-N`, an informer what its subscription tells into `DIR/informer-N`; N counts
//! from 0. One line each, fields between spaces, keys escaped as `u8::escape_ascii` does it, hashes in hexadecimal:
//!
//! | line | what it says |
//! | --- | --- |
//! | `S R` | all changes from revision R on, inclusive, will be told |
//! | `P R H K` | key K was set at R to a value with the hash H |
//! | `D R K` | key K was deleted at R |
//! | `C R` | all changes up to R were told |
//! | `L F T` | a watch: changes from F to T, exclusive, may be missing |
//! | `R WHY T` | an informer: all was listed again, at T |
//! | `G F T` | an informer: its subscription was too slow, and left out what was between F, exclusive, and T, inclusive |
//! | `N R` | an informer: it has come to R, and has not listed again since the last line that says so |
//! | `K R N H` | an informer: at R it had N objects with the digest H |
//! | `E TEXT` | a watch was refused |
//!
//! A hash is FNV-1a of 64 bits. A digest is the hash of, for each object in the order of the keys: the length of the key, the
//! key, the mod revision, the length of the value, the value; numbers as 8 bytes, the lowest first.
#![allow(clippy::print_stdout, reason = "a program that is read by another")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use holdfast_client::{Client, KeyRange};
use serde::Deserialize;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use self::informers::{Follower, InformerReport};
use self::sessions::Sessions;
use self::watches::{WatchReport, Watcher};

mod informers;
mod lines;
mod sessions;
mod watches;

/// What is to be done.
#[derive(Debug, Deserialize)]
struct Config {
    informers: Vec<Range>,
    watches: Vec<Wish>,
    /// How many sessions take the lock in turns.
    sessions: u64,
    /// Their time to live, in seconds.
    ttl_s: u64,
    /// The name of the lock.
    lock: String,
    /// The key that is written under it, with `TOKEN/SESSION/NUMBER`.
    fact: String,
    /// Where files are written.
    dir: PathBuf,
    /// How long all may take to come to the last revision, in seconds.
    finish_s: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Range {
    Key(String),
    Prefix(String),
    Between(String, String),
}

#[derive(Debug, Clone, Deserialize)]
struct Wish {
    range: Range,
    kinds: Kinds,
    /// From this revision on; 0: from now on.
    from: u64,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kinds {
    All,
    Puts,
    Deletes,
}

impl Range {
    fn range(&self) -> KeyRange {
        match self.clone() {
            Self::Key(key) => KeyRange::key(key),
            Self::Prefix(prefix) => KeyRange::prefix(prefix),
            Self::Between(start, end) => KeyRange::between(start, end),
        }
    }
}

/// A revision that everybody is to come to; 0 until it is known.
type Finish = watch::Receiver<u64>;

/// Informers and watches that run.
struct Running {
    finish: watch::Sender<u64>,
    informers: JoinSet<Result<InformerReport>>,
    watches: JoinSet<Result<WatchReport>>,
}

impl Running {
    async fn start(client: &Client, config: &Config) -> Result<Self> {
        let time_max = Duration::from_secs(config.finish_s);
        let (finish, finished) = watch::channel(0);
        let (mut informers, mut watches) = (JoinSet::new(), JoinSet::new());
        let mut readers = Vec::new();
        for (number, range) in config.informers.iter().enumerate() {
            let follower = Follower::start(client, number, range, &config.dir)?;
            readers.push(follower.reader().clone());
            informers.spawn(follower.run(finished.clone(), time_max));
        }
        for (number, wish) in config.watches.iter().enumerate() {
            let watcher = Watcher::start(client, number, wish, &config.dir).await?;
            watches.spawn(watcher.run(finished.clone(), time_max));
        }
        for reader in readers {
            reader.wait_for(1, time_max).await?;
        }
        Ok(Self { finish, informers, watches })
    }

    async fn finish(&mut self, revision: u64) -> Result<()> {
        self.finish.send_replace(revision);
        while let Some(report) = self.informers.join_next().await {
            println!("{}", serde_json::to_string(&report??)?);
        }
        while let Some(report) = self.watches.join_next().await {
            println!("{}", serde_json::to_string(&report??)?);
        }
        println!("{{\"finished\":true}}");
        Ok(())
    }
}

/// The lines of standard input, read on a thread of its own, which ends with it.
fn orders() -> Result<mpsc::Receiver<String>> {
    let (order, orders) = mpsc::channel(1);
    let reading = move || {
        for line in std::io::stdin().lines() {
            let Ok(line) = line else { break };
            if order.blocking_send(line).is_err() {
                break;
            }
        }
    };
    drop(std::thread::Builder::new().name("orders".to_owned()).spawn(reading)?);
    Ok(orders)
}

/// Informers, watches and sessions for `cluster-tests sdk`.
#[derive(Parser)]
struct Args {
    /// Client URLs of the members.
    #[arg(long, value_delimiter = ',')]
    endpoints: Vec<String>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let mut orders = orders()?;
    let config = orders.recv().await.context("no line that says what to do")?;
    let config: Arc<Config> = Arc::new(serde_json::from_str(&config)?);
    ensure!(config.finish_s > 0, "no time to finish in");
    let client = Client::new(args.endpoints)?;
    let mut running = Running::start(&client, &config).await?;
    // Connections of their own, as services beside it would have.
    let apart = Client::new(client.endpoints().map(str::to_owned).collect::<Vec<_>>())?;
    let mut sessions = Sessions::start(&apart, &config)?;
    println!("{{\"ready\":true}}");
    while let Some(order) = orders.recv().await {
        match order.split_once(' ') {
            Some(("end", "sessions")) => sessions.end().await?,
            Some(("finish", revision)) => running.finish(revision.parse()?).await?,
            _ => anyhow::bail!("{order} is nothing to do"),
        }
    }
    Ok(())
}
