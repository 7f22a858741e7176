//! How costs grow with what a store holds and with what is asked of it.
//!
//! A curve is measured on one system after the other, each alone on the machine, from its smallest size to its largest;
//! what matters is how steep it is, not how two systems compare at one size. Where the store is what grows, it is written
//! to in transactions between the sizes, and what that put off is waited for before anything is measured. CPU is that of
//! all members, counted as in a comparison.
//!
//! Module map: [`flags`]; [`store`] has the curves over what is stored, [`traffic`] those over what is asked; [`subject`]
//! is the system under load; [`curve`] is what comes out, [`report`] makes text and goals of it.

pub(crate) mod curve;
pub(crate) mod flags;
pub(crate) mod report;
mod store;
mod subject;
mod traffic;

use std::io::Write;

use crate::error::Error;
use crate::systems::System;
use curve::{Curve, Growth};
use flags::{CurveName, GrowthFlags};
use subject::programs;

/// Measures all curves that are asked for. Says on standard error how far it is.
pub(crate) async fn run(flags: &GrowthFlags) -> Result<Growth, Error> {
    if flags.systems.contains(&System::Ceiling) {
        return Err(Error::Setting("the empty server stores nothing: nothing grows in it".to_owned()));
    }
    for system in &flags.systems {
        programs(flags).of(*system)?;
    }
    let mut growth = Growth::default();
    for name in flags.chosen() {
        let mut curve = empty(name);
        for system in &flags.systems {
            tell(&format!("{}: {}", curve.name, system.name()));
            measure(name, *system, flags, &mut curve).await?;
        }
        growth.curves.push(curve);
    }
    Ok(growth)
}

async fn measure(
    name: CurveName,
    system: System,
    flags: &GrowthFlags,
    curve: &mut Curve,
) -> Result<(), Error> {
    match name {
        CurveName::Keys => store::keys(system, flags, curve).await,
        CurveName::KeyMemory => store::key_memory(system, flags, curve).await,
        CurveName::RevisionMemory => store::revision_memory(system, flags, curve).await,
        CurveName::Revisions => store::revisions(system, flags, curve).await,
        CurveName::Watchers => traffic::watchers(system, flags, curve).await,
        CurveName::Values => traffic::values(system, flags, curve).await,
        CurveName::Members => traffic::members(system, flags, curve).await,
        CurveName::Clients => traffic::clients(system, flags, curve).await,
    }
}

fn empty(name: CurveName) -> Curve {
    let (over, how) = match name {
        CurveName::Keys => (
            "keys",
            "Puts, linearizable and serializable gets of random keys. Then the first member is killed and started again: \
             *back* is the time until it answers a linearizable read, *restarted* what it holds at rest. \
             A round in which members wrote a checkpoint of the index, which with many keys comes once for as many puts, is \
             measured again, twice at most.",
        ),
        CurveName::KeyMemory => (
            "keys",
            "One member, holdfast with `--memory-bytes=64MiB`. *Restarted*: what is resident after a kill and a start, at \
             rest. *A key* is what that grew by since the size before, divided by the keys that came, less the key itself.",
        ),
        CurveName::RevisionMemory => (
            "revisions of each key",
            "The same with 10,000 keys. *A revision* is what resident memory grew by since the size before, divided by the \
             revisions that came.",
        ),
        CurveName::Revisions => ("revisions of each key", "Puts and gets of 1,000 keys."),
        CurveName::Watchers => (
            "watchers",
            "Puts by a timetable, each of a watched key. *Own keys*: each watcher has a key of its own; *one prefix*: all \
             watch everything; *mixed*: one in a hundred watches everything, the others a key of their own.",
        ),
        CurveName::Values => {
            ("bytes of a value", "Puts of 1,000 keys, with fewer clients where values are large.")
        }
        CurveName::Members => ("members", "Puts and gets of 10,000 keys."),
        CurveName::Clients => ("clients", "Puts of 10,000 keys; up to 20 clients share a connection."),
    };
    Curve::new(&name.name(), over, how)
}

/// Progress; without a standard error there is nobody to tell.
fn tell(line: &str) {
    drop(writeln!(std::io::stderr(), "{line}"));
}
