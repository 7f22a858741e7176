//! Several clusters in one: what each of them has under a prefix is collected here, under one order, with the version that
//! it has at home.
//!
//! ```text
//! cargo run -p holdfast-client --example collector -- --endpoints http://127.0.0.1:2379 \
//!     --source east=http://10.1.0.1:2379 --source west=http://10.2.0.1:2379 --prefix pods/
//! ```
//! Keys of the sources are `<prefix><namespace>/<name>`.
#![allow(clippy::print_stdout, reason = "a program for a terminal")]

use std::cmp::Ordering;
use std::convert::Infallible;

use anyhow::{Context, Result};
use clap::Parser;
use futures::future::select_all;
use futures::stream::{self, BoxStream, StreamExt};
use holdfast_client::collect::{
    CollectEvent, Collector, ObjectName, OriginObject, OriginVersion, PageToken, Resource, Scope, Source,
    SourceError, SourceEvent, SourceId, SourcePage,
};
use holdfast_client::{
    Client, Error, Event, KeyRange, KeyValue, ListOptions, ReadLevel, WatchEvent, WatchOptions,
};

/// Objects that are read from a source at a time.
const PAGE: u64 = 500;

/// Another cluster, or a part of one. Its versions are its revisions.
#[derive(Debug, Clone)]
pub struct ClusterSource {
    id: SourceId,
    client: Client,
    prefix: String,
}

impl ClusterSource {
    /// What a cluster has under a prefix.
    pub fn new(name: &str, client: Client, prefix: &str) -> Result<Self> {
        Ok(Self { id: SourceId::new(name)?, client, prefix: prefix.to_owned() })
    }

    /// The name of an object; `None` for a key that is none.
    fn name(&self, key: &[u8]) -> Option<ObjectName> {
        let (namespace, name) =
            std::str::from_utf8(key.strip_prefix(self.prefix.as_bytes())?).ok()?.split_once('/')?;
        ObjectName::new(namespace, name).ok()
    }

    fn object(&self, kv: KeyValue) -> Option<OriginObject> {
        Some(OriginObject { name: self.name(&kv.key)?, origin: origin(kv.mod_revision), bytes: kv.value })
    }

    fn event(&self, event: Event) -> SourceEvent {
        let revision = event.revision();
        let told = match event {
            Event::Put { kv, .. } => self.object(kv).map(SourceEvent::Put),
            Event::Delete { key, .. } => {
                self.name(&key).map(|name| SourceEvent::Deleted { name, origin: origin(revision) })
            }
        };
        told.unwrap_or_else(|| SourceEvent::Progress(origin(revision)))
    }
}

impl Source for ClusterSource {
    type Watch = BoxStream<'static, Result<SourceEvent, SourceError>>;

    fn id(&self) -> &SourceId {
        &self.id
    }

    /// A token is the revision of the list and the last key of the page before.
    async fn list(&self, page: Option<PageToken>) -> Result<SourcePage, SourceError> {
        let all = KeyRange::prefix(self.prefix.clone());
        let (range, level) = match page.as_deref().and_then(|token| token.split_once(' ')) {
            None => (all, ReadLevel::Linearizable),
            Some((revision, key)) => {
                (all.behind(key.as_bytes()), ReadLevel::Exact(revision.parse().map_err(failed)?))
            }
        };
        let read =
            self.client.list(range, ListOptions::new().limit(PAGE), level).await.map_err(source_error)?;
        let last = read.value.items.last().filter(|_| read.value.more);
        let next = match last.map(|kv| std::str::from_utf8(&kv.key).map_err(failed)) {
            Some(key) => Some(format!("{} {}", read.revision, key?)),
            None => None,
        };
        let objects = read.value.items.into_iter().filter_map(|kv| self.object(kv)).collect();
        Ok(SourcePage { objects, next, version: origin(read.revision) })
    }

    async fn watch(&self, from: &OriginVersion) -> Result<Self::Watch, SourceError> {
        let from: u64 = from.as_str().parse().map_err(failed)?;
        let options = WatchOptions::new().from(from + 1).progress();
        let watch = self.client.watch(KeyRange::prefix(self.prefix.clone()), options);
        let source = self.clone();
        let events = watch.flat_map(move |told| {
            let events: Vec<Result<SourceEvent, SourceError>> = match told {
                Ok(WatchEvent::Changes { events, .. }) => {
                    events.into_iter().map(|event| Ok(source.event(event))).collect()
                }
                Ok(WatchEvent::Progress { revision }) => vec![Ok(SourceEvent::Progress(origin(revision)))],
                Ok(WatchEvent::Lost { .. }) => vec![Err(SourceError::Expired)],
                Err(error) => vec![Err(source_error(error))],
            };
            stream::iter(events)
        });
        Ok(events.boxed())
    }

    fn compare(&self, a: &OriginVersion, b: &OriginVersion) -> Option<Ordering> {
        a.compare_numbers(b)
    }
}

fn origin(revision: u64) -> OriginVersion {
    revision.to_string().into()
}

fn source_error(error: Error) -> SourceError {
    match error {
        Error::Compacted { .. } => SourceError::Expired,
        error => failed(error),
    }
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> SourceError {
    SourceError::Failed(Box::new(error))
}

/// Collects what the sources have, at least one of them, and tells what changes here. Ends only when one of them cannot be collected any more, or
/// when it is dropped; called again, it goes on where it was.
pub async fn run(
    client: Client,
    resource: &str,
    sources: &[ClusterSource],
    mut tell: impl FnMut(&CollectEvent),
) -> Result<Infallible> {
    let collection = Collector::open(client).await?.collection(Resource::new(resource)?);
    let mut changes = collection.watch(&Scope::all(), None, |_, a, b| a.compare_numbers(b)).await?;
    let collecting = select_all(sources.iter().map(|source| Box::pin(collection.follow(source))));
    tokio::pin!(collecting);
    loop {
        tokio::select! {
            (error, which, _) = &mut collecting => {
                return Err(error).with_context(|| format!("collecting from {}", sources[which].id));
            }
            // Cancel-safe, and nothing is cancelled here but at the end.
            event = changes.next() => tell(&event?),
        }
    }
}

#[derive(Parser)]
struct Args {
    /// Client URLs of the members of the cluster that is collected in.
    #[arg(long, value_delimiter = ',', default_value = "http://127.0.0.1:2379")]
    endpoints: Vec<String>,
    /// The clusters that are collected from: a name and a client URL of each.
    #[arg(long, value_name = "NAME=URL", required = true)]
    source: Vec<String>,
    /// What the keys of objects begin with.
    #[arg(long, default_value = "pods/")]
    prefix: String,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let source = |source: &String| {
        let (name, url) = source.split_once('=').context("a source is NAME=URL")?;
        ClusterSource::new(name, Client::new([url])?, &args.prefix)
    };
    let sources: Vec<_> = args.source.iter().map(source).collect::<Result<_>>()?;
    match run(Client::new(args.endpoints.clone())?, "objects", &sources, |event| println!("{event:?}"))
        .await? {}
}
