//! The lines of Rust in the README, so that they are compiled and run.
//!
//! ```text
//! cargo run -p holdfast-client --example readme -- --endpoints http://127.0.0.1:2379
//! ```
#![allow(clippy::print_stdout, reason = "a program for a terminal")]

use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use holdfast_client::{Client, KeyRange, Op, ReadLevel, Txn, WatchOptions};

/// What the README shows, on these endpoints. A test compares the two.
pub async fn run(endpoints: Vec<String>) -> Result<()> {
    // README.md
    let client = Client::new(endpoints)?;
    let revision = client.put("greeting", "hello").await?;
    let read = client.get("greeting", ReadLevel::AtLeast(revision)).await?;
    assert_eq!(read.value.map(|kv| kv.value), Some("hello".into()));
    let session = client.session(Duration::from_secs(10)).await?;
    let lock = session.lock("locks/greeting").await?;
    let change = Txn::new().when(lock.is_held()).then(Op::put("greeting", "hi"));
    assert!(client.txn(change).await?.succeeded);
    let mut watch = client.watch(KeyRange::key("greeting"), WatchOptions::new().from(revision));
    println!("{:?}, {:?}", watch.next().await?, watch.next().await?);
    // End.
    Ok(())
}

#[derive(Parser)]
struct Args {
    /// Client URLs of the members.
    #[arg(long, value_delimiter = ',', default_value = "http://127.0.0.1:2379")]
    endpoints: Vec<String>,
}

#[tokio::main]
async fn main() -> Result<()> {
    run(Args::parse().endpoints).await
}
