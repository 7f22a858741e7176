//! How long a test waits for its server: the median of 20 starts, and of 20 stops.
//!
//! ```text
//! cargo run --release -p holdfast-testserver --example start_times
//! ```
#![allow(clippy::print_stdout, reason = "it is what it is for")]
#![allow(clippy::disallowed_methods, reason = "it measures this machine, not a simulated one")]

use std::time::{Duration, Instant};

use anyhow::Result;
use holdfast_testserver::{TestCluster, TestServer};

const ROUNDS: usize = 20;

#[tokio::main]
async fn main() -> Result<()> {
    measure("TestServer::start", async || {
        let server = TestServer::start().await?;
        Ok(async move || server.stop().await)
    })
    .await?;
    measure("TestServer::three", async || {
        let server = TestServer::three().await?;
        Ok(async move || server.stop().await)
    })
    .await?;
    measure("TestCluster::single", async || {
        let cluster = TestCluster::single().await?;
        Ok(async move || cluster.stop().await)
    })
    .await
}

async fn measure<Stop: AsyncFnOnce()>(what: &str, start: impl AsyncFn() -> Result<Stop>) -> Result<()> {
    let (mut starts, mut stops) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let stop = start().await?;
        starts.push(began.elapsed());
        let began = Instant::now();
        stop().await;
        stops.push(began.elapsed());
    }
    println!("{what}: ready after {:?}, stopped after {:?}", median(starts), median(stops));
    Ok(())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
