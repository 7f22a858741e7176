//! A service registry: each instance says where it is as long as it lives, and knows where the others are.
//!
//! ```text
//! cargo run -p holdfast-client --example service_registry -- --instance 1 --address 10.0.0.7:80
//! cargo run -p holdfast-client --example service_registry -- --instance 2 --address 10.0.0.8:80
//! ```
#![allow(clippy::print_stdout, reason = "a program for a terminal")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use holdfast_client::informer::{InformerEvent, InformerOptions};
use holdfast_client::{Class, Client, Error, KeyRange, Put, ReadLevel};

/// An instance that gives no sign of life for so long is not listed any more.
const TTL: Duration = Duration::from_secs(5);
/// Pause after nobody has answered.
const PAUSE: Duration = Duration::from_millis(500);

/// An instance of a service.
#[derive(Debug, Clone)]
pub struct Instance {
    /// Of which service.
    pub service: String,
    /// Which one; each has its own.
    pub name: String,
    /// Where it is.
    pub address: String,
}

/// The instances of a service: their names and where they are.
pub type Peers = BTreeMap<String, String>;

/// Keeps an instance registered, and tells which ones there are, now and after each change. Ends only when the cluster
/// refuses it, or when it is dropped: then the instance is taken off the list at once.
pub async fn run(client: &Client, own: &Instance, tell: impl FnMut(Peers)) -> Result<Infallible, Error> {
    tokio::select! {
        // Neither ends on its own.
        error = keep_registered(client, own) => Err(error),
        () = follow(client, &own.service, tell) => unreachable!("an informer ends only when it is stopped"),
    }
}

/// Registers the instance, again whenever its session was lost. Gives why it cannot.
async fn keep_registered(client: &Client, own: &Instance) -> Error {
    loop {
        match registered(client, own).await {
            Ok(()) => println!("{}: the session was lost, registering again", own.name),
            Err(error) if error.class() == Class::Rejected => return error,
            // Also when nobody knows: the same entry is made again with another lease, and the lease of before ends.
            Err(error) => {
                println!("{}: {error}", own.name);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Registers the instance; returns when that may not be so any more.
async fn registered(client: &Client, own: &Instance) -> Result<(), Error> {
    let mut session = client.session(TTL).await?;
    let entry = Put::new(format!("{}{}", folder(&own.service), own.name), own.address.clone());
    client.put_with(entry.lease(session.lease())).await?;
    session.lost().await;
    Ok(())
}

/// Tells the instances of a service, now and after each change.
async fn follow(client: &Client, service: &str, mut tell: impl FnMut(Peers)) {
    let decode = InformerOptions::decode_with(|kv| Ok(String::from_utf8(kv.value.to_vec())?));
    let informer = client.informer(KeyRange::prefix(folder(service)), decode);
    let mut changes = informer.reader().subscribe();
    while let Some(event) = changes.next().await {
        // An informer that lists again, or a subscriber that was too slow, may find that nothing is different.
        if matches!(event, InformerEvent::Synced { .. }) || !event.changes().is_empty() {
            let named = |key: &[u8]| String::from_utf8_lossy(&key[folder(service).len()..]).into_owned();
            let instances = event.snapshot().iter();
            tell(instances.map(|instance| (named(instance.key()), instance.value().clone())).collect());
        }
    }
}

/// The instances of a service as they are now, for who does not stay to follow them.
pub async fn look_up(client: &Client, service: &str) -> Result<Peers, Error> {
    let folder = folder(service);
    let read = client.list_all(KeyRange::prefix(folder.clone()), ReadLevel::Linearizable).await?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(read.value.iter().map(|kv| (text(&kv.key[folder.len()..]), text(&kv.value))).collect())
}

fn folder(service: &str) -> String {
    format!("services/{service}/")
}

#[derive(Parser)]
struct Args {
    /// Client URLs of the members.
    #[arg(long, value_delimiter = ',', default_value = "http://127.0.0.1:2379")]
    endpoints: Vec<String>,
    /// The service.
    #[arg(long, default_value = "web")]
    service: String,
    /// Which instance this is.
    #[arg(long, default_value = "1")]
    instance: String,
    /// Where it is.
    #[arg(long, default_value = "127.0.0.1:80")]
    address: String,
}

#[tokio::main]
async fn main() -> Result<()> {
    let Args { endpoints, service, instance, address } = Args::parse();
    let client = Client::new(endpoints)?;
    println!("before: {:?}", look_up(&client, &service).await?);
    let own = Instance { service, name: instance, address };
    match run(&client, &own, |peers| println!("{peers:?}")).await? {}
}
