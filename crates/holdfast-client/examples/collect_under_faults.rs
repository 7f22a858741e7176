//! A collector of some sources, or somebody who writes to them and to the collection at once: the children of `cluster-tests
//! collector`, which judges what comes of it and shares no code with it.
//!
//! Sources are parts of one cluster, the origin: each has the keys `<source>/<namespace>/<name>`, and its versions are the
//! origin's revisions. What is collected lies in another cluster, under the resource `objects`.
//!
//! `--write` writes instead of collecting: an object to the origin, then the same with the version that the origin gave it
//! to the collection. Values are `direct/<number>/<object>`; one of five writes is a deletion.
//!
//! It ends when standard input is closed. A writer says before what it has done, as a line of JSON: [`Told`].
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that is read by another")]

use std::convert::Infallible;
use std::io::Read;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use futures::future::select_all;
use holdfast_client::Client;
use holdfast_client::collect::{
    CollectError, Collection, Collector, ObjectName, OriginObject, Resource, SourceId, Written,
};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{interval, sleep};

use self::origin::ClusterSource;

#[path = "collector.rs"]
#[allow(dead_code, unreachable_pub, reason = "a program of its own")]
mod origin;

/// Pause after something failed.
const RETRY: Duration = Duration::from_millis(200);

/// One of so many writes is a deletion.
const DELETE_EACH: u64 = 5;

/// Collects from parts of a cluster, or races the collector.
#[derive(Parser)]
struct Args {
    /// Client URLs of the members of the cluster that is collected in.
    #[arg(long, value_delimiter = ',')]
    endpoints: Vec<String>,
    /// Client URL of the origin.
    #[arg(long)]
    origin: String,
    /// The sources.
    #[arg(long, value_delimiter = ',')]
    sources: Vec<String>,
    /// Write instead of collecting: so many times a second.
    #[arg(long)]
    write: Option<u32>,
    /// How many objects each source has, for who writes.
    #[arg(long, default_value_t = 10_000)]
    objects: u64,
}

/// What a writer has done.
#[derive(Debug, Default, Serialize)]
struct Told {
    /// Direct writes that were applied, that were there already, and that came behind something newer.
    applied: u64,
    same: u64,
    older: u64,
    /// Those that failed, and of which nobody knows.
    failed: u64,
}

struct Origin {
    id: SourceId,
    source: ClusterSource,
}

impl Args {
    fn origins(&self) -> Result<Vec<Origin>> {
        let client = Client::new([self.origin.clone()])?;
        let origin = |name: &String| {
            let source = ClusterSource::new(name, client.clone(), &format!("{name}/"))?;
            Ok(Origin { id: SourceId::new(name)?, source })
        };
        self.sources.iter().map(origin).collect()
    }
}

async fn collection(client: &Client) -> Result<Collection> {
    loop {
        match Collector::open(client.clone()).await {
            Ok(collector) => return Ok(collector.collection(Resource::new("objects")?)),
            Err(_) => sleep(RETRY).await,
        }
    }
}

/// Collects as long as it is polled.
async fn collect(client: &Client, origins: &[Origin]) -> Result<Infallible> {
    let collection = collection(client).await?;
    let follow = async |origin: &Origin| -> Infallible {
        loop {
            // Its cursor was written by somebody else: it goes on from there.
            let error = collection.follow(&origin.source).await;
            eprintln!("{}: {error}", origin.id);
            sleep(RETRY).await;
        }
    };
    let (never, ..) = select_all(origins.iter().map(|origin| Box::pin(follow(origin)))).await;
    match never {}
}

struct Racer {
    client: Client,
    collection: Collection,
    told: Told,
}

impl Racer {
    /// Writes an object at its source, then here.
    async fn write(&mut self, origin: &Origin, number: u64, object: u64) {
        let key = format!("{}/ns/{object:06}", origin.id);
        let Ok(name) = ObjectName::new("ns", &format!("{object:06}")) else { return };
        let written = if number.is_multiple_of(DELETE_EACH) {
            match self.client.delete(key).await {
                Ok(deleted) if deleted.existed => {
                    let version = deleted.revision.to_string().into();
                    self.collection.delete(&origin.source, &name, &version).await
                }
                _ => return,
            }
        } else {
            let value = format!("direct/{number}/{object:06}");
            // When nobody knows, the source will tell.
            let Ok(revision) = self.client.put(key, value.clone()).await else { return };
            let object = OriginObject { name, origin: revision.to_string().into(), bytes: value.into() };
            self.collection.write(&origin.source, &object).await
        };
        self.note(&written);
    }

    fn note(&mut self, written: &Result<Written, CollectError>) {
        *match written {
            Ok(Written::Applied(_)) => &mut self.told.applied,
            Ok(Written::Same(_)) => &mut self.told.same,
            Ok(Written::Older(_)) => &mut self.told.older,
            Err(_) => &mut self.told.failed,
        } += 1;
    }
}

/// Says that standard input is closed, from a thread of its own.
fn until_closed() -> Result<mpsc::Receiver<()>> {
    let (closed, ended) = mpsc::channel(1);
    let reading = move || {
        // An error is an end, too.
        drop(std::io::stdin().read_to_end(&mut Vec::new()));
        drop(closed);
    };
    drop(std::thread::Builder::new().name("stdin".to_owned()).spawn(reading)?);
    Ok(ended)
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let client = Client::new(args.endpoints.clone())?;
    let origins = args.origins()?;
    let mut ended = until_closed()?;
    let Some(rate) = args.write else {
        tokio::select! {
            _ = ended.recv() => return Ok(()),
            failed = collect(&client, &origins) => match failed? {},
        }
    };
    let collection = collection(&client).await?;
    let mut racer = Racer { client: Client::new([args.origin.clone()])?, collection, told: Told::default() };
    let mut tick = interval(Duration::from_secs(1) / rate.max(1));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for number in 1.. {
        tokio::select! {
            // Both are cancel-safe.
            _ = ended.recv() => break,
            _ = tick.tick() => {}
        }
        let origin = &origins[rand::random_range(0..origins.len())];
        racer.write(origin, number, rand::random_range(0..args.objects)).await;
    }
    println!("{}", serde_json::to_string(&racer.told)?);
    Ok(())
}
