//! Writers: objects that one writer creates, updates and deletes, and objects that all writers of all API servers update.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use rand::RngExt;
use rand::rngs::StdRng;

use super::api::{After, Api};
use super::cache::Cache;
use super::calls::{OnFailure, Write};
use super::world::{REGISTRY, value};

/// Objects of one writer.
const OWN: usize = 12;

/// Objects that all write.
pub const SHARED: usize = 6;

/// How often an update is tried again on what there is, before it is given up.
const RETRIES: usize = 5;

/// Longest pause between two writes.
const PAUSE_MAX: Duration = Duration::from_millis(60);

/// The kinds of objects; each has a watch cache.
pub const KINDS: [&str; 2] = ["configmaps", "pods"];

/// The first key of a kind, and the first one behind it.
pub fn span(kind: &str) -> (Bytes, Bytes) {
    (format!("{REGISTRY}{kind}/").into(), format!("{REGISTRY}{kind}0").into())
}

/// An object that all write; half of them are of each kind.
pub fn shared_key(number: usize) -> Bytes {
    format!("{REGISTRY}{}/shared/{number}", KINDS[number % KINDS.len()]).into()
}

/// Creates the objects that all write. To be called once, when nothing is broken yet.
pub async fn create_shared(api: &Api) -> Result<()> {
    for number in 0..SHARED {
        let write = Write::Put(value(&api.world), 0);
        api.swap(&shared_key(number), 0, write, OnFailure::Nothing).await?;
    }
    Ok(())
}

/// Writes until the load is over.
pub async fn run(api: Api, number: usize, caches: Vec<Cache>) -> Result<()> {
    let mut rng = api.world.rng(1, api.number * 100 + number);
    // The revision of each object; 0 where there is none.
    let mut own = [0; OWN];
    while !api.world.is_over() {
        if rng.random_range(0..10) < 4 {
            update_shared(&api, &caches, &mut rng).await?;
        } else {
            let slot = rng.random_range(0..OWN);
            let kind = KINDS[slot % KINDS.len()];
            let key = format!("{REGISTRY}{kind}/api-{}/writer-{number}/{slot}", api.number).into();
            own[slot] = write_own(&api, &key, own[slot], &mut rng).await?;
        }
        tokio::time::sleep(rng.random_range(Duration::from_millis(2)..PAUSE_MAX)).await;
    }
    Ok(())
}

/// Creates, updates or deletes; the revision of the object behind it.
async fn write_own(api: &Api, key: &Bytes, revision: i64, rng: &mut StdRng) -> Result<i64> {
    let deletes = revision > 0 && rng.random_range(0..10) < 3;
    let write = if deletes { Write::Delete } else { Write::Put(value(&api.world), 0) };
    let show = if revision == 0 { OnFailure::Nothing } else { OnFailure::Show };
    match api.swap(key, revision, write, show).await? {
        After::Ours(_) if deletes => Ok(0),
        After::Ours(revision) => Ok(revision),
        After::Theirs(Some(shown)) => Ok(shown.map_or(0, |pair| pair.mod_revision)),
        After::Theirs(None) => Ok(api.get(key, 0).await?.1.map_or(0, |pair| pair.mod_revision)),
    }
}

/// As an API server updates: from what its cache has, and if that is old, from what it is shown.
async fn update_shared(api: &Api, caches: &[Cache], rng: &mut StdRng) -> Result<()> {
    let number = rng.random_range(0..SHARED);
    let key = shared_key(number);
    let Some(mut revision) = caches[number % KINDS.len()].mod_revision(&key) else { return Ok(()) };
    for _ in 0..RETRIES {
        match api.swap(&key, revision, Write::Put(value(&api.world), 0), OnFailure::Show).await? {
            After::Theirs(Some(Some(pair))) => revision = pair.mod_revision,
            After::Ours(_) | After::Theirs(_) => break,
        }
    }
    Ok(())
}
