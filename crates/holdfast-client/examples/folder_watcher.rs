//! A folder that is kept in step with the store: what is there, then each change, also when a part of the history is gone.
//!
//! ```text
//! cargo run -p holdfast-client --example folder_watcher -- --folder areas/
//! etcdctl put areas/eu/berlin open
//! ```
#![allow(clippy::print_stdout, reason = "a program for a terminal")]

use std::collections::BTreeMap;

use anyhow::Result;
use bytes::Bytes;
use clap::Parser;
use holdfast_client::{Client, Error, FolderEvent, KeyValue};

/// A copy of a folder.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mirror {
    /// Values under their keys.
    pub entries: BTreeMap<Bytes, Bytes>,
    /// The revision up to which that is so; 0 as long as it is being read.
    pub revision: u64,
}

impl Mirror {
    /// Takes what a watched folder tells.
    pub fn apply(&mut self, event: FolderEvent) {
        match event {
            // What is there follows; what is not among it is gone.
            FolderEvent::Lost { .. } => *self = Self::default(),
            FolderEvent::Fresh(KeyValue { key, value, .. }) => drop(self.entries.insert(key, value)),
            FolderEvent::Ready { revision } => self.revision = revision,
            FolderEvent::Created(kv) | FolderEvent::Modified(kv) => {
                self.revision = kv.mod_revision;
                self.entries.insert(kv.key, kv.value);
            }
            FolderEvent::Deleted { key, revision } => {
                self.revision = revision;
                self.entries.remove(&key);
            }
        }
    }
}

/// Keeps a copy of a folder, and shows it with each event that led to it. Returns when the cluster refuses.
pub async fn run(client: &Client, folder: &str, mut tell: impl FnMut(&FolderEvent, &Mirror)) -> Error {
    let mut watched = client.watch_folder(folder.to_owned());
    let mut mirror = Mirror::default();
    loop {
        match watched.next().await {
            Ok(event) => {
                mirror.apply(event.clone());
                tell(&event, &mirror);
            }
            // It goes on where it was.
            Err(error @ Error::Unavailable { .. }) => println!("{error}"),
            Err(error) => return error,
        }
    }
}

#[derive(Parser)]
struct Args {
    /// Client URLs of the members.
    #[arg(long, value_delimiter = ',', default_value = "http://127.0.0.1:2379")]
    endpoints: Vec<String>,
    /// What the keys begin with.
    #[arg(long, default_value = "areas/")]
    folder: String,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let error = run(&Client::new(args.endpoints)?, &args.folder, |event, mirror| {
        println!("{event:?}: {} entries at {}", mirror.entries.len(), mirror.revision);
    })
    .await;
    Err(error.into())
}
