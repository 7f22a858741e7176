//! `import`: a live cluster that speaks etcd v3 moves into another one, with writers going on, and is kept in step until
//! the switch.
//!
//! # How
//! First a copy: both sides are read in the order of their keys, the source at one revision, and what differs is written.
//! Then the source is watched from there on, and what happens is applied in its order, what one transaction changed in
//! one transaction. At the switch everything is compared. Where the import stands is one key of the target, written with
//! the data that it tells of: an import that was killed goes on from there.
//!
//! # What holds
//! - What the source changed in one revision is visible on the target together, from the end of the copy on. The exception is
//!   a transaction that is larger than the target takes.
//! - The target's revision is above the source's whenever something of the source is written, and at the end all that came
//!   before is compacted: what a client knows of the source's revisions never means something else on the target.
//! - Memory is bounded, whatever the source holds: a page of each side and some transactions, or the backlog.
//! - Two imports cannot mix: the second takes over, and the first ends, also when it has nothing to write. The exception is a
//!   pair that is nearly as large as a request may be, which has no room beside it for the guard.
//! - An import that was finished does not begin again by itself: a key of the target says so.
//!
//! # What is left out
//! Users, roles and passwords, which cannot be read; alarms; history; members. Create and mod revisions and versions of keys
//! are the target's own.
//!
//! Module map, from above: [`session`] (one pair of connections), [`copy`], [`follow`], [`finish`]; [`diff`] and
//! [`pages`] (both sides side by side), [`plan`] (from events to transactions), [`writer`], [`leases`], [`position`];
//! [`remote`] (calls), [`fault`] (what they may come to), [`ranges`], [`progress`], [`flags`].

mod copy;
mod diff;
mod fault;
mod finish;
pub(crate) mod flags;
mod follow;
mod leases;
mod pages;
mod plan;
mod position;
mod progress;
mod ranges;
mod remote;
mod session;
mod writer;

use anyhow::anyhow;
use tokio::time::Instant;

use crate::client::login;
use crate::error::{CtlError, Done, Unreached};
use crate::global::Global;
use crate::output;
use crate::stop::{INTERRUPTED, Stop};
use fault::{Fault, Side};
use flags::{ImportFlags, RETRY_PAUSE, SESSION_WORKED};
use progress::Progress;
use ranges::Ranges;
use remote::{Access, Tls};
use session::{End, Setup, Totals};

/// `import`: into the cluster of the flags that every command has.
pub(crate) async fn import(global: &Global, flags: &ImportFlags) -> Done {
    let setup = Setup {
        source: source(global, flags)?,
        target: target(global).await?,
        ranges: Ranges::new(&flags.prefix)?,
        flags: flags.clone(),
    };
    let mut stops = Stop::listen()?;
    let mut progress = Progress::new(flags.limits.progress_interval);
    let end = tokio::select! {
        end = sessions(&setup, &mut progress) => Some(end?),
        () = stops.asked() => None,
    };
    match end {
        Some(End::Finished(text)) => output::write(text.as_bytes()),
        Some(End::Different(text)) => Err(CtlError::Unhealthy(text.trim_end().to_owned())),
        None => {
            progress.say("stopped. Where the import stands is kept in the target: run it again to go on");
            // Nothing is lost, and nothing was switched.
            Err(CtlError::Exit(INTERRUPTED))
        }
    }
}

/// One session after the other, as long as that helps.
async fn sessions(setup: &Setup, progress: &mut Progress) -> Result<End, CtlError> {
    let mut totals = Totals::default();
    let mut failing: Option<Instant> = None;
    for attempt in 0.. {
        let (before, begun) = ((totals.events, totals.put), Instant::now());
        let fault = match Box::pin(session::run(setup, attempt, progress, &mut totals)).await {
            Ok(end) => return Ok(end),
            // What has never worked is no matter of patience.
            Err(fault) if fault.is_transient() && totals.sessions > 0 => fault,
            Err(fault) => return Err(last_word(fault)),
        };
        if before != (totals.events, totals.put) || begun.elapsed() > SESSION_WORKED {
            failing = None;
        }
        let since = failing.get_or_insert_with(Instant::now);
        if since.elapsed() > setup.flags.limits.retry_for {
            let seconds = since.elapsed().as_secs();
            return Err(anyhow!("{fault}; nothing has worked for {seconds} s").into());
        }
        progress.say(&format!("{fault}: trying again"));
        tokio::time::sleep(RETRY_PAUSE).await;
    }
    unreachable!("there is always another attempt")
}

fn last_word(fault: Fault) -> CtlError {
    match fault {
        Fault::Connection { side, endpoint, why } => {
            CtlError::Unreachable(vec![Unreached { endpoint: format!("{side} at {endpoint}"), cause: why }])
        }
        Fault::Refused(error) => error.into(),
        other if other.says(tonic::Code::InvalidArgument, "etcdserver: user name is empty") => anyhow!(
            "{other}: authentication is on there; give --from-user for the source, --user for the target"
        )
        .into(),
        other => anyhow::Error::from(other).into(),
    }
}

/// How the source is reached.
fn source(global: &Global, flags: &ImportFlags) -> Result<Access, CtlError> {
    let login = match (&flags.from_user, &flags.from_password) {
        (None, _) => None,
        (Some(user), Some(password)) => Some((user.clone(), password.clone())),
        (Some(user), None) => {
            let (name, password) = user.split_once(':').ok_or_else(|| {
                CtlError::Arguments(format!(
                    "there is no password for {user}: give --from-user={user}:PASSWORD, or --from-password"
                ))
            })?;
            Some((name.to_owned(), password.to_owned()))
        }
    };
    let tls = Tls {
        cacert: flags.from_cacert.clone(),
        cert: flags.from_cert.clone(),
        key: flags.from_key.clone(),
        insecure_skip_verify: flags.from_insecure_skip_tls_verify,
        insecure_transport: true,
    };
    access(Side::Source, &flags.from, login, tls, global)
}

/// How the target is reached.
async fn target(global: &Global) -> Result<Access, CtlError> {
    let flags = &global.tls;
    let tls = Tls {
        cacert: flags.cacert.clone(),
        cert: flags.cert.clone(),
        key: flags.key.clone(),
        insecure_skip_verify: flags.insecure_skip_tls_verify,
        insecure_transport: flags.insecure_transport,
    };
    access(Side::Target, &global.endpoints, login(global).await?, tls, global)
}

fn access(
    side: Side,
    endpoints: &[String],
    login: Option<(String, String)>,
    tls: Tls,
    global: &Global,
) -> Result<Access, CtlError> {
    let endpoints = endpoints.iter().map(|endpoint| endpoint.trim().to_owned());
    let endpoints: Vec<String> = endpoints.filter(|endpoint| !endpoint.is_empty()).collect();
    if endpoints.is_empty() {
        return Err(CtlError::Arguments(format!("the endpoints of {side} name nobody to ask")));
    }
    Ok(Access { side, endpoints, login, tls, dial_timeout: global.dial_timeout })
}
