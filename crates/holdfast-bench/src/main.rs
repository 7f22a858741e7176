//! The load generator, and measurements side by side with etcd.
//!
//! What it is: `compare` starts holdfast, etcd and an empty gRPC server with fresh data, gives each the same work in
//! turn, and prints what a unit of work cost the servers; `footprint` prints what a store of some size takes of disk
//! and memory, and how fast a member is back after a kill; `list-memory` what a list of everything adds to a server's
//! memory; `sdk` what the SDK costs its user; `growth` draws curves of what costs grow with; `page` makes a page of what was measured; `load` loads servers
//! that run already; `ceiling` is the empty server. What it is not: a judge of correctness, though an answer that cannot be right ends as a failure.
//!
//! Invariants
//! - All sides get the same load from the same code, within one run, in turns; figures are medians.
//! - Server CPU is what the kernel counted for all members. Around writes it is counted until the servers have nothing
//!   left to do.
//! - With a timetable, latencies count from the moment an operation was due.
//! - Everything that was started is stopped, and every directory removed, when the program ends or is interrupted.
//!
//! Module map: [`cli`]; [`mod@compare`] runs the rounds; [`mod@growth`] the curves; [`mod@footprint`]; [`listing`]; [`mod@sdk`];
//! [`mod@load`] makes load over [`grpc`]; [`systems`] starts servers; [`measure`] reads what they used; [`latency`] and
//! [`report`] make figures of it, [`documents`] files.

mod cli;
mod compare;
mod documents;
mod error;
mod footprint;
mod growth;
mod grpc;
mod latency;
mod listing;
mod load;
mod measure;
mod report;
mod sdk;
mod systems;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};

use cli::{CeilingFlags, Cli, Command, CompareFlags, FootprintFlags, ListingFlags, LoadFlags};
use compare::work::{connections, works};
use error::Error;
use growth::flags::GrowthFlags;
use load::{Connections, Outcome};
use report::Round;
use sdk::SdkFlags;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match runtime(&cli.command).and_then(|runtime| runtime.block_on(until_interrupted(cli.command))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without a standard error the exit code alone has to say it.
            drop(writeln!(std::io::stderr(), "holdfast-bench: {}", error.chain()));
            ExitCode::FAILURE
        }
    }
}

/// The load comes from one thread: on a small machine every wake of another core is taken from the servers. The empty
/// server gets what the real one has.
fn runtime(command: &Command) -> Result<runtime::Runtime, Error> {
    let mut builder = match command {
        Command::Ceiling(_) => runtime::Builder::new_multi_thread(),
        Command::Compare(_)
        | Command::Growth(_)
        | Command::Page(_)
        | Command::Footprint(_)
        | Command::ListMemory(_)
        | Command::Sdk(_)
        | Command::Load(_) => runtime::Builder::new_current_thread(),
    };
    builder.enable_all().build().map_err(Error::io("start the runtime"))
}

async fn until_interrupted(command: Command) -> Result<(), Error> {
    let listen = |kind| signal(kind).map_err(Error::io("listen for signals"));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let work = async {
        match command {
            Command::Compare(flags) => compare(&flags).await,
            Command::Growth(flags) => growth(&flags).await,
            Command::Page(flags) => documents::page(&flags),
            Command::Footprint(flags) => footprint(&flags).await,
            Command::ListMemory(flags) => list_memory(&flags).await,
            Command::Sdk(flags) => sdk(&flags).await,
            Command::Load(flags) => load(&flags).await,
            Command::Ceiling(CeilingFlags { listen, value_bytes }) => {
                systems::ceiling::serve(listen, value_bytes as usize).await
            }
        }
    };
    // Dropping the work stops the servers it has started.
    tokio::select! {
        done = work => done,
        _ = interrupt.recv() => Err(Error::Interrupted),
        _ = terminate.recv() => Err(Error::Interrupted),
    }
}

async fn compare(flags: &CompareFlags) -> Result<(), Error> {
    let kept = documents::kept(flags)?;
    let save = |rounds: &[Round]| documents::comparison(flags, &kept.and(rounds));
    let rounds = compare::run(flags, save).await?;
    print(&report::table::render(&report::summaries(&rounds), None))
}

async fn growth(flags: &GrowthFlags) -> Result<(), Error> {
    let growth = documents::signed(growth::run(flags).await?);
    documents::curves(flags, &growth)?;
    print(&growth::report::render(&growth, None))
}

async fn footprint(flags: &FootprintFlags) -> Result<(), Error> {
    let sides = footprint::run(flags).await?;
    documents::figures(flags.json.as_deref(), "sides", &sides)?;
    print(&footprint::report::render(&sides))
}

async fn list_memory(flags: &ListingFlags) -> Result<(), Error> {
    let sides = listing::run(flags).await?;
    documents::figures(flags.json.as_deref(), "sides", &sides)?;
    print(&listing::report::render(&sides))
}

async fn sdk(flags: &SdkFlags) -> Result<(), Error> {
    let found = sdk::run(flags).await?;
    documents::figures(flags.json.as_deref(), "found", &found)?;
    print(&sdk::report::render(&found))
}

async fn load(flags: &LoadFlags) -> Result<(), Error> {
    let size = &flags.work.size;
    let connections = Connections::open(&flags.endpoints, connections(flags.case, size)).await?;
    for work in works(flags.case, &flags.work, None)? {
        if let Some(space) = work.preloaded() {
            load::preload(space, &connections).await?;
        }
        let outcome = work.drive(&flags.endpoints, &connections).await?;
        print(&format!("{}{}: {}", flags.case.name(), work.label(), said(&outcome)))?;
    }
    Ok(())
}

/// What clients saw, in two or three lines.
fn said(outcome: &Outcome) -> String {
    let found = outcome.latencies.percentiles();
    let mut text = format!(
        "{} done in {:.2?}, {:.0}/s\nlatency us: mean {} p50 {} p90 {} p99 {} p99.9 {} max {}\n",
        outcome.operations,
        outcome.elapsed,
        outcome.per_second(),
        found.mean_us,
        found.p50_us,
        found.p90_us,
        found.p99_us,
        found.p999_us,
        found.max_us
    );
    if outcome.failures > 0 {
        let words = outcome.first_failure.as_deref().unwrap_or("without words");
        text.push_str(&format!("{} failed, the first: {words}\n", outcome.failures));
    }
    text
}

fn print(text: &str) -> Result<(), Error> {
    std::io::stdout().write_all(text.as_bytes()).map_err(Error::io("write to standard output"))
}
