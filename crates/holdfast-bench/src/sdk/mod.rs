//! What the SDK costs its user: CPU of calls beside a bare stub, and how fast an informer has everything, in how much
//! memory, beside paged lists from etcd.
//!
//! The stub is what tonic generates, used as its documentation shows it. Both make the same calls on the same server, from this
//! process and in turns. What is compared is CPU of this process.
//!
//! Module map: [`calls`] puts and gets, [`sync`] the informer, [`report`] tables.

mod calls;
pub(crate) mod report;
mod sync;

use std::io::Write;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::Serialize;
use tonic::transport::{Channel, Endpoint};

use crate::cli::ServerFlags;
use crate::error::Error;
use crate::load::Connections;
use crate::load::keys::KeySpace;
use crate::systems::System;
use crate::systems::cluster::{Cluster, Layout};

pub(crate) use calls::{Call, Through};
pub(crate) use sync::Synced;

/// Flags of the SDK's costs.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SdkFlags {
    /// Rounds; in each, every side takes its turn
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// How long calls go on in a round
    #[arg(long, default_value = "3s", value_parser = humantime::parse_duration)]
    pub(crate) duration: Duration,
    /// Calls under way at a time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) clients: u32,
    /// Bytes of a value
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub(crate) value_bytes: u32,
    /// Different keys of the calls
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) keys: u64,
    /// Objects that an informer takes in; 0 leaves that out
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) objects: u64,
    /// Keys of a page of the lists from etcd
    #[arg(long, default_value = "10000")]
    pub(crate) page_keys: NonZeroU32,
    /// What is started: one member each
    #[command(flatten)]
    pub(crate) servers: ServerFlags,
    /// Write all figures to this file
    #[arg(long)]
    pub(crate) json: Option<std::path::PathBuf>,
}

/// What was found.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Found {
    /// Of every round.
    pub(crate) calls: Vec<Call>,
    /// Of every round.
    pub(crate) synced: Vec<Synced>,
}

/// Measures all of it. Says on standard error how far it is.
pub(crate) async fn run(flags: &SdkFlags) -> Result<Found, Error> {
    let mut found = Found::default();
    {
        let server = Server::start(System::Holdfast, flags, flags.keys).await?;
        for round in 1..=flags.rounds {
            for call in calls::round(&server, flags, round).await? {
                tell(&report::call_line(&call));
                found.calls.push(call);
            }
        }
    }
    if flags.objects > 0 {
        let ours = Server::start(System::Holdfast, flags, flags.objects).await?;
        let etcd = Server::start(System::Etcd, flags, flags.objects).await?;
        for round in 1..=flags.rounds {
            for synced in
                [sync::informer(&ours, flags, round).await?, sync::pages(&etcd, flags, round).await?]
            {
                tell(&report::sync_line(&synced));
                found.synced.push(synced);
            }
        }
    }
    Ok(found)
}

/// A member alone, with keys.
struct Server {
    /// Ends when it is dropped.
    cluster: Cluster,
    space: KeySpace,
}

impl Server {
    async fn start(system: System, flags: &SdkFlags, keys: u64) -> Result<Self, Error> {
        tell(&format!("{}: loading {keys} keys", system.name()));
        let layout = Layout { members: 1, parent: flags.servers.data_parent.clone() };
        let cluster = Cluster::start(system, &flags.servers.programs(flags.value_bytes), &layout).await?;
        let space = KeySpace::new(keys, flags.value_bytes as usize);
        let connections = Connections::open(&cluster.endpoints(), 15).await?;
        crate::load::preload(&space, &connections).await?;
        Ok(Self { cluster, space })
    }

    fn url(&self) -> String {
        format!("http://{}", self.cluster.endpoints().swap_remove(0))
    }

    /// As tonic's documentation connects.
    async fn channel(&self) -> Result<Channel, Error> {
        let endpoint =
            Endpoint::from_shared(self.url()).map_err(|error| Error::Setting(error.to_string()))?;
        endpoint.connect().await.map_err(|error| Error::Setting(error.to_string()))
    }

    fn sdk(&self) -> Result<holdfast_client::Client, Error> {
        holdfast_client::Client::new([self.url()]).map_err(|error| sdk_error(&error))
    }
}

fn sdk_error(error: &holdfast_client::Error) -> Error {
    Error::Setting(format!("the SDK: {error}"))
}

fn status_error(status: &tonic::Status) -> Error {
    let code = u16::try_from(i32::from(status.code())).unwrap_or(u16::MAX);
    Error::Refused { code, message: status.message().to_owned() }
}

/// Progress; without a standard error there is nobody to tell.
fn tell(line: &str) {
    drop(writeln!(std::io::stderr(), "{line}"));
}
