//! Configuration with live reload: a program follows its settings, and keeps the last good ones when somebody stores bad ones.
//!
//! ```text
//! cargo run -p holdfast-client --example config_reload -- --endpoints http://127.0.0.1:2379
//! etcdctl put config/app '{"log_level":"debug","workers":8}'
//! ```
#![allow(clippy::print_stdout, reason = "a program for a terminal")]

use anyhow::Result;
use clap::Parser;
use holdfast_client::informer::InformerOptions;
use holdfast_client::store::{Codec, Json};
use holdfast_client::{Client, KeyRange};
use serde::{Deserialize, Serialize};

/// What the program can be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// How much it logs.
    pub log_level: String,
    /// How many threads it has.
    pub workers: u32,
}

/// What became of the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reload {
    /// They are these from now on.
    Apply(Settings),
    /// There are none: the program goes on with its defaults.
    Defaults,
    /// What is stored is not understood, for this reason: the program goes on with what it has.
    Keep(String),
}

/// Tells what the settings at `key` are, and then each change of them, over connections and members that fail. Ends only
/// when it is dropped.
pub async fn run(client: Client, key: &str, mut tell: impl FnMut(Reload)) {
    let decode = InformerOptions::decode_with(|kv| {
        let settings: Settings = Json.decode(&kv.value)?;
        Ok(settings)
    });
    let informer = client.informer(KeyRange::key(key.to_owned()), decode);
    let mut changes = informer.reader().subscribe();
    // Also when changes were lost to a compaction: then it says how things stand now.
    while let Some(event) = changes.next().await {
        tell(match event.snapshot().get(key) {
            Ok(Some(settings)) => Reload::Apply(settings.value().clone()),
            Ok(None) => Reload::Defaults,
            Err(unreadable) => Reload::Keep(unreadable.to_string()),
        });
    }
}

#[derive(Parser)]
struct Args {
    /// Client URLs of the members.
    #[arg(long, value_delimiter = ',', default_value = "http://127.0.0.1:2379")]
    endpoints: Vec<String>,
    /// Where the settings are.
    #[arg(long, default_value = "config/app")]
    key: String,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    run(Client::new(args.endpoints)?, &args.key, |reload| println!("{reload:?}")).await;
    Ok(())
}
