//! The compactors of the API servers: of all that want to compact, one takes the turn, by a compare-and-swap on the version
//! of a key; it compacts to where the store was when the turn before was taken.

use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use holdfast_proto::mvccpb::KeyValue;
use rand::RngExt;

use super::api::{Api, Settled, Settling, step};
use super::calls::{self, Expected, OnFailure, Outcome, Write};
use super::world::World;
use crate::judge::apiserver::Turn;

/// The key of API servers for this, in etcd's own words.
pub const TURN_KEY: &[u8] = b"compact_rev_key";

/// Compacts until the load is over, about so often.
pub async fn run(api: Api, every: Duration) -> Result<()> {
    let mut rng = api.world.rng(3, api.number);
    let key = Bytes::from_static(TURN_KEY);
    let (mut version, mut revision) = (0, 0);
    while !api.world.is_over() {
        tokio::time::sleep(rng.random_range(every / 2..every * 3 / 2)).await;
        let (won, next_version, now) = turn(&api, &key, version, revision).await?;
        if won && revision > 0 {
            let to = api.world.compact_to(revision);
            // What was not compacted is with the next turn.
            if calls::compact(api.channel(), to).await.is_err() {
                api.move_on().await;
            }
        }
        (version, revision) = (next_version, now);
    }
    Ok(())
}

/// Tries to take the turn behind `version`; whether it did, the version there is now, and the store's revision.
async fn turn(api: &Api, key: &Bytes, version: i64, revision: i64) -> Result<(bool, i64, i64)> {
    let world = &*api.world;
    let hold = world.hold();
    let write = Write::Put(turn_value(world, revision), 0);
    let expected = Expected::Version(version);
    match calls::swap(api.channel(), key, expected, &write, OnFailure::Show).await {
        Outcome::Won(at) => Ok(won(world, key, version, &write, at)),
        Outcome::Lost(header, shown) => {
            let shown = shown.context("a compactor that loses is shown the key")?;
            Ok(lost(world, version, header, shown.as_ref()))
        }
        Outcome::Unknown => {
            world.record().counts.unknown += 1;
            api.move_on().await;
            let settling = Settling { api, key, expected, hold: &hold };
            match settling.run(vec![write]).await? {
                Settled::Applied { revision, write, .. } => {
                    won(world, key, version, &write, revision);
                }
                Settled::Nothing => {}
            }
            look(api, key).await
        }
    }
}

fn won(world: &World, key: &Bytes, version: i64, write: &Write, at: i64) -> (bool, i64, i64) {
    world.applied(at, step(key, write));
    world.record().seen.turns.push(Turn { expected: version, outcome: Ok(at) });
    (true, version + 1, at)
}

fn lost(world: &World, version: i64, header: i64, shown: Option<&KeyValue>) -> (bool, i64, i64) {
    world.saw(header);
    let now = shown.map_or(0, |pair| pair.version);
    world.record().seen.turns.push(Turn { expected: version, outcome: Err((header, now)) });
    (false, now, header)
}

/// Where the turns are; this one is not used to compact.
async fn look(api: &Api, key: &Bytes) -> Result<(bool, i64, i64)> {
    let (header, pair) = api.get(key, 0).await?;
    Ok((false, pair.map_or(0, |pair| pair.version), header))
}

/// The revision, as API servers write it, and something of its own.
fn turn_value(world: &World, revision: i64) -> Bytes {
    format!("{revision}/{}", world.number()).into()
}
