//! How long a test waits for its server: medians of starts and of stops.
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
/// Three members wait for an election: a few times are enough to see how long.
const ROUNDS_OF_THREE: usize = 5;

#[tokio::main]
async fn main() -> Result<()> {
    measure("TestServer::start", ROUNDS, async || {
        let server = TestServer::start().await?;
        Ok(async move || server.stop().await)
    })
    .await?;
    measure("TestServer::three", ROUNDS_OF_THREE, async || {
        let server = TestServer::three().await?;
        Ok(async move || server.stop().await)
    })
    .await?;
    measure("TestCluster::single", ROUNDS, async || {
        let cluster = TestCluster::single().await?;
        Ok(async move || cluster.stop().await)
    })
    .await
}

async fn measure<Stop: AsyncFnOnce()>(
    what: &str,
    rounds: usize,
    start: impl AsyncFn() -> Result<Stop>,
) -> Result<()> {
    let (mut starts, mut stops) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
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
