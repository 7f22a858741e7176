//! A worker of which one works at a time: it is elected, and shows a fencing token to whoever must not listen to an
//! earlier leader.
//!
//! ```text
//! cargo run -p holdfast-client --example leader_worker -- --name a
//! cargo run -p holdfast-client --example leader_worker -- --name b
//! ```
//! Stop the one that prints; the other one goes on where it was.
//!
//! A process that was stopped for a while believes that it leads until it looks at a clock. So what it changes in the store
//! is a transaction that happens only while its election stands, and what it does elsewhere carries its token.
#![allow(clippy::print_stdout, reason = "a program for a terminal")]

use std::sync::Mutex;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use holdfast_client::{Class, Client, Compare, Error, Leadership, Op, ReadLevel, Session, Txn};

const ELECTION: &str = "example/worker/leader";
/// How many jobs are done, in decimal.
const DONE: &str = "example/worker/done";
/// After this time without a sign of life another worker takes over.
const TTL: Duration = Duration::from_secs(5);

/// Something outside of the store that workers do things to: here, a printer. It takes nothing from who was leader before
/// somebody else that it knows of.
#[derive(Debug, Default)]
pub struct Printer {
    /// The highest token that was shown, and what is on paper.
    state: Mutex<(u64, Vec<String>)>,
}

impl Printer {
    /// Prints a line, unless a higher token was shown before.
    pub fn print(&self, token: u64, line: String) -> bool {
        let mut state = self.state.lock().expect("nobody panics with the lock");
        let (highest, paper) = &mut *state;
        if token < *highest {
            return false;
        }
        *highest = token;
        println!("{token}: {line}");
        paper.push(line);
        true
    }

    /// The highest token that was shown; 0 before any was.
    pub fn token(&self) -> u64 {
        self.state.lock().expect("nobody panics with the lock").0
    }

    /// What is on paper.
    pub fn paper(&self) -> Vec<String> {
        self.state.lock().expect("nobody panics with the lock").1.clone()
    }
}

/// What the workers have to do.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    /// How many jobs there are.
    pub jobs: u64,
    /// How long each takes.
    pub pace: Duration,
}

/// Takes part until all jobs are done by this worker or others, and then returns.
///
/// Each job is noted once. It is printed at least once: a worker that ends between the two has printed what the next one
/// prints again.
pub async fn run(client: &Client, name: &str, work: Work, printer: &Printer) -> Result<(), Error> {
    loop {
        let session = client.session(TTL).await?;
        match lead(client, &session, name, work, printer).await {
            // It did not lead any more, or its session was lost: others may lead by now.
            Ok(false) | Err(Error::SessionLost) => {}
            Ok(true) => return session.end().await,
            Err(error) => return Err(error),
        }
    }
}

/// Works as long as this worker leads. Whether all is done.
async fn lead(
    client: &Client,
    session: &Session,
    name: &str,
    work: Work,
    printer: &Printer,
) -> Result<bool, Error> {
    let leadership = session.campaign(ELECTION, name.to_owned()).await?;
    let mut lease = session.clone();
    loop {
        let read = client.get(DONE, ReadLevel::Linearizable).await?.value;
        let (done, noted_at) = read.map_or((0, 0), |kv| (number(&kv.value), kv.mod_revision));
        if done >= work.jobs {
            leadership.resign().await?;
            return Ok(true);
        }
        let job = async {
            tokio::time::sleep(work.pace).await;
            if !printer.print(leadership.token(), format!("job {done} by {name}")) {
                return Ok(false);
            }
            note(client, &leadership, done + 1, noted_at).await
        };
        let still_leads = tokio::select! {
            // A job that is dropped half-way is as one of a process that ends: the next leader finds how far it came.
            () = lease.lost() => false,
            noted = job => noted?,
        };
        if !still_leads {
            return Ok(false);
        }
    }
}

/// Notes that so many jobs are done, if this worker still leads. Whether it does.
async fn note(client: &Client, leadership: &Leadership, done: u64, noted_at: u64) -> Result<bool, Error> {
    let txn = Txn::new()
        .when(leadership.is_leader())
        .when(Compare::mod_revision(DONE).equals(noted_at))
        .then(Op::put(DONE, done.to_string()));
    match client.txn(txn).await {
        Ok(answer) => Ok(answer.succeeded),
        // It may be noted. What is stored will tell, and none is noted twice: the revision is compared.
        Err(error) if error.class() == Class::Unknown => Ok(true),
        Err(error) => Err(error),
    }
}

fn number(value: &[u8]) -> u64 {
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[derive(Parser)]
struct Args {
    /// Client URLs of the members.
    #[arg(long, value_delimiter = ',', default_value = "http://127.0.0.1:2379")]
    endpoints: Vec<String>,
    /// Who this worker is.
    #[arg(long, default_value = "worker")]
    name: String,
    /// How many jobs there are; one each second.
    #[arg(long, default_value_t = 100)]
    jobs: u64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let work = Work { jobs: args.jobs, pace: Duration::from_secs(1) };
    run(&Client::new(args.endpoints)?, &args.name, work, &Printer::default()).await?;
    Ok(())
}
