//! Curves over what is stored: keys, and revisions of keys.

use super::curve::{Curve, float, sizes};
use super::flags::GrowthFlags;
use super::subject::{RESIDENT, Setup, Subject, mib};
use crate::error::Error;
use crate::load::keys::{KeyNumber, KeySpace};
use crate::systems::System;

/// Where the curves over keys begin.
const KEYS_MIN: u64 = 10_000;
/// Keys whose revisions grow, where CPU is asked for.
const REVISED_KEYS: u64 = 1000;
/// The same where memory is asked for: more, so that a byte for each shows.
const REMEMBERED_KEYS: u64 = 10_000;
/// So little memory for values that it is full before the keys count.
const LITTLE_MEMORY: &str = "--memory-bytes=64MiB";

pub(super) const KEY_BYTES: &str = "bytes a key beside itself";
pub(super) const REVISION_BYTES: &str = "bytes a revision";
const RESTARTED: &str = "MiB of the member restarted";

fn space(flags: &GrowthFlags, keys: u64) -> KeySpace {
    KeySpace::new(keys, flags.value_bytes as usize)
}

/// CPU of puts and gets, memory, and the time of a restart over the keys there are.
pub(super) async fn keys(system: System, flags: &GrowthFlags, curve: &mut Curve) -> Result<(), Error> {
    let mut subject = Subject::start(system, flags, Setup::of(flags)).await?;
    for keys in sizes(KEYS_MIN, flags.range.keys_max, 10) {
        let space = space(flags, keys);
        subject.write(&space, subject.at..keys).await?;
        subject.at = keys;
        subject.puts_and_gets(curve, &space).await?;
        subject.add(curve, RESIDENT, mib(subject.resident_most()?));
        let back = subject.restart().await?;
        subject.add(curve, "seconds until a member is back", back.as_secs_f64());
        subject.add(curve, RESTARTED, mib(subject.resident_first()?));
    }
    Ok(())
}

/// Memory of a member alone over the keys it has.
pub(super) async fn key_memory(system: System, flags: &GrowthFlags, curve: &mut Curve) -> Result<(), Error> {
    let mut subject = Subject::start(system, flags, alone(flags)).await?;
    let own = float(KeySpace::key(KeyNumber(0)).len() as u64);
    let mut before = None;
    for keys in sizes(KEYS_MIN, flags.range.keys_max, 10) {
        subject.write(&space(flags, keys), subject.at..keys).await?;
        subject.at = keys;
        let now = restarted(&mut subject, curve).await?;
        grown(&subject, curve, KEY_BYTES, &Step { before, now: (keys, now), own });
        before = Some((keys, now));
    }
    Ok(())
}

/// Memory of a member alone over the revisions that each of its keys has.
pub(super) async fn revision_memory(
    system: System,
    flags: &GrowthFlags,
    curve: &mut Curve,
) -> Result<(), Error> {
    let mut subject = Subject::start(system, flags, alone(flags)).await?;
    let space = space(flags, REMEMBERED_KEYS);
    let mut before = None;
    for revisions in sizes(1, flags.range.revisions_max, 10) {
        revise(&mut subject, &space, revisions).await?;
        let now = restarted(&mut subject, curve).await?;
        let all = revisions * space.keys;
        grown(&subject, curve, REVISION_BYTES, &Step { before, now: (all, now), own: 0.0 });
        before = Some((all, now));
    }
    Ok(())
}

/// CPU of puts and gets over the revisions that each key has.
pub(super) async fn revisions(system: System, flags: &GrowthFlags, curve: &mut Curve) -> Result<(), Error> {
    let mut subject = Subject::start(system, flags, Setup::of(flags)).await?;
    let space = space(flags, REVISED_KEYS);
    for revisions in sizes(1, flags.range.revisions_max, 10) {
        revise(&mut subject, &space, revisions).await?;
        subject.puts_and_gets(curve, &space).await?;
        subject.add(curve, RESIDENT, mib(subject.resident_most()?));
    }
    Ok(())
}

fn alone(flags: &GrowthFlags) -> Setup {
    Setup { members: 1, holdfast_defaults: vec![LITTLE_MEMORY.to_owned()], ..Setup::of(flags) }
}

/// Writes every key until it has so many revisions.
async fn revise(subject: &mut Subject<'_>, space: &KeySpace, revisions: u64) -> Result<(), Error> {
    for _ in subject.at..revisions {
        subject.write_on(space, 0..space.keys).await?;
    }
    subject.at = revisions;
    subject.rest().await
}

/// Memory as it was loaded and as it is after a restart; gives the second.
async fn restarted(subject: &mut Subject<'_>, curve: &mut Curve) -> Result<f64, Error> {
    subject.add(curve, RESIDENT, mib(subject.resident_first()?));
    subject.restart().await?;
    let now = subject.resident_first()?;
    subject.add(curve, RESTARTED, mib(now));
    Ok(now)
}

/// From one size of a curve to the next: how many there were of what takes memory, and how many bytes were resident.
struct Step {
    before: Option<(u64, f64)>,
    now: (u64, f64),
    /// Bytes of each that are not counted.
    own: f64,
}

impl Step {
    /// Bytes that each of those took that came.
    fn each(&self) -> Option<f64> {
        let (count_before, before) = self.before?;
        let (count, now) = self.now;
        Some((now - before) / float(count.saturating_sub(count_before).max(1)) - self.own)
    }
}

fn grown(subject: &Subject<'_>, curve: &mut Curve, figure: &str, step: &Step) {
    match step.each() {
        Some(bytes) => subject.add(curve, figure, bytes),
        None => subject.add_unknown(curve, figure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_each_takes_is_the_growth_less_its_own_bytes() {
        let step = |before| Step { before, now: (1000, 150_000.0), own: 19.0 };
        assert_eq!(step(None).each(), None, "there is nothing to hold the first size against");
        let each = step(Some((100, 60_000.0))).each().unwrap();
        assert!((each - 81.0).abs() < 1e-9, "{each}");
    }
}
