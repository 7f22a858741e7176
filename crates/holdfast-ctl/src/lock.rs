//! `lock` and `elect`: held until a signal, or until a command has ended.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;
use std::sync::Arc;

use bytes::Bytes;
use clap::Args;
use holdfast_proto::etcdserverpb as pb;
use holdfast_proto::v3electionpb::{CampaignRequest, LeaderKey, LeaderRequest, ResignRequest};
use holdfast_proto::v3lockpb::{LockRequest, UnlockRequest};
use tonic::Status;

use crate::client::{Client, broke, service};
use crate::error::{CtlError, Done};
use crate::output::{Out, tell};
use crate::range::bytes;
use crate::session::Session;
use crate::stop::{INTERRUPTED, Stop};

/// How long a candidate lives without being kept alive, in seconds.
const CANDIDATE_TTL: i64 = 60;

/// Flags of `lock`.
#[derive(Debug, Args)]
pub(crate) struct Lock {
    /// The lock's name, and a command that is run while it is held; without a command it is held until Ctrl-C
    #[arg(value_name = "NAME [COMMAND]...")]
    words: Vec<OsString>,
    /// How many seconds it is held when this program cannot reach the cluster any more
    #[arg(long, default_value_t = 10)]
    ttl: i64,
}

/// Flags of `elect`.
#[derive(Debug, Args)]
pub(crate) struct Elect {
    /// The election's name, and what to propose
    #[arg(value_name = "NAME [PROPOSAL]")]
    words: Vec<OsString>,
    /// Take no part: write who leads, whenever that changes
    #[arg(long, short)]
    listen: bool,
}

/// Why a stream, or a call that waits, has ended.
async fn ended(client: &Client, endpoint: &str, status: Status) -> CtlError {
    if broke(&status) {
        let cause = client.stream_end(endpoint, &status).await;
        return CtlError::Broken { endpoint: endpoint.to_owned(), cause };
    }
    CtlError::Refused { what: "", status }
}

/// A call that waits for its turn as long as it takes.
///
/// Errors: a signal, or the end of the session.
async fn waited<R>(
    client: &Client,
    session: &Session,
    stop: &mut Stop,
    call: impl Future<Output = Result<tonic::Response<R>, Status>>,
    endpoint: &str,
) -> Result<R, CtlError> {
    // A call that is dropped is given up by the server, which takes its place in the line away.
    let answer = tokio::select! {
        answer = call => answer,
        () = stop.asked() => return Err(CtlError::Exit(INTERRUPTED)),
        () = session.lost() => return Err(CtlError::Word("the lease has expired while waiting".to_owned())),
    };
    match answer {
        Ok(answer) => Ok(answer.into_inner()),
        Err(status) => Err(ended(client, endpoint, status).await),
    }
}

/// `lock`.
pub(crate) async fn lock(client: &Arc<Client>, out: Out, flags: &Lock) -> Done {
    let Some((name, command)) = flags.words.split_first() else {
        return Err(CtlError::Arguments("lock takes a name, and a command if there is one".to_owned()));
    };
    out.has::<pb::RangeResponse>()?;
    let mut stop = Stop::listen()?;
    let session = Session::begin(client, flags.ttl).await?;
    let held = hold(client, &session, &mut stop, out, (bytes(name), command)).await;
    session.end().await;
    held
}

/// Waits for the lock, and holds it.
async fn hold(
    client: &Arc<Client>,
    session: &Session,
    stop: &mut Stop,
    out: Out,
    (name, command): (Bytes, &[OsString]),
) -> Done {
    let (conn, endpoint) = client.connection().await?;
    let request = LockRequest { name, lease: session.id };
    let mut locks = service::lock(conn);
    let locked = waited(client, session, stop, locks.lock(request), &endpoint).await?;
    let key = locked.key;
    let done = if command.is_empty() {
        until_signal(client, session, stop, out, key.clone()).await
    } else {
        let revision = locked.header.map_or(0, |header| header.revision);
        run(command, session, &key, revision).await
    };
    let unlock = UnlockRequest { key };
    let unlocked = client.write(async |conn| service::lock(conn).unlock(unlock.clone()).await).await;
    done.and(unlocked.map(drop))
}

/// Shows the key, and holds it until a signal.
async fn until_signal(client: &Client, session: &Session, stop: &mut Stop, out: Out, key: Bytes) -> Done {
    let pair = read(client, key).await?;
    if pair.kvs.is_empty() {
        return Err(CtlError::Word("the lock was lost at once".to_owned()));
    }
    out.show(&pair)?;
    tokio::select! {
        () = stop.asked() => Ok(()),
        () = session.lost() => Err(CtlError::Word("the lease has expired: the lock is lost".to_owned())),
    }
}

async fn read(client: &Client, key: Bytes) -> Result<pb::RangeResponse, CtlError> {
    let request = pb::RangeRequest { key, ..Default::default() };
    client.read(async |conn| service::kv(conn).range(request.clone()).await).await
}

/// Runs a command, and ends as it ends. A signal is for the command, as both have it from the terminal: what it does under the
/// lock it does until it has ended, and the lock is not given away before. If it is lost meanwhile, that is told at once, and
/// the end is an error.
async fn run(command: &[OsString], session: &Session, key: &Bytes, revision: i64) -> Done {
    let (program, args) =
        command.split_first().ok_or_else(|| CtlError::Arguments("no command".to_owned()))?;
    let mut child = std::process::Command::new(program);
    child.args(args).stdin(Stdio::null()).env("ETCD_LOCK_KEY", OsStr::from_bytes(key));
    child.env("ETCD_LOCK_REV", revision.to_string());
    let mut running = tokio::task::spawn_blocking(move || child.status());
    // Cancel-safe: the task goes on, and is awaited below.
    let (ended, is_lost) = tokio::select! {
        ended = &mut running => (ended, false),
        () = session.lost() => {
            tell("holdfastctl: the lease has expired: the lock is lost, and the command still runs");
            (running.await, true)
        }
    };
    let ended = ended
        .map_err(anyhow::Error::from)?
        .map_err(|error| CtlError::Word(format!("cannot run {}: {error}", program.to_string_lossy())))?;
    if ended.success() {
        let lost = || CtlError::Word("the lock was lost before the command had ended".to_owned());
        return if is_lost { Err(lost()) } else { Ok(()) };
    }
    tell(&format!("holdfastctl: the command has ended with {ended}"));
    Err(CtlError::Exit(ended.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(255)))
}

/// `elect`.
pub(crate) async fn elect(client: &Arc<Client>, out: Out, flags: &Elect) -> Done {
    out.has::<pb::RangeResponse>()?;
    match (&flags.words[..], flags.listen) {
        ([name], true) => observe(client, out, bytes(name)).await,
        ([name, proposal], false) => {
            let mut stop = Stop::listen()?;
            let session = Session::begin(client, CANDIDATE_TTL).await?;
            let held = campaign(client, &session, &mut stop, out, (bytes(name), bytes(proposal))).await;
            session.end().await;
            held
        }
        ([_], false) => Err(CtlError::Arguments("give a proposal, or --listen".to_owned())),
        ([_, _], true) => Err(CtlError::Arguments("--listen takes no proposal".to_owned())),
        _ => Err(CtlError::Arguments("elect takes a name, and a proposal if there is one".to_owned())),
    }
}

async fn campaign(
    client: &Arc<Client>,
    session: &Session,
    stop: &mut Stop,
    out: Out,
    (name, value): (Bytes, Bytes),
) -> Done {
    let (conn, endpoint) = client.connection().await?;
    let request = CampaignRequest { name, lease: session.id, value };
    let mut elections = service::election(conn);
    let elected = waited(client, session, stop, elections.campaign(request), &endpoint).await?;
    let leader: LeaderKey = elected.leader.unwrap_or_default();
    out.show(&read(client, leader.key.clone()).await?)?;
    tokio::select! {
        () = stop.asked() => {}
        () = session.lost() => return Err(CtlError::Word("the lease has expired: somebody else may lead".to_owned())),
    }
    let request = ResignRequest { leader: Some(leader) };
    client.write(async |conn| service::election(conn).resign(request.clone()).await).await.map(drop)
}

/// Shows who leads, until a signal.
async fn observe(client: &Client, out: Out, name: Bytes) -> Done {
    let mut stop = Stop::listen()?;
    let (conn, endpoint) = client.connection().await?;
    let mut elections = service::election(conn);
    let opened = tokio::select! {
        opened = elections.observe(LeaderRequest { name }) => opened,
        () = stop.asked() => return Ok(()),
    };
    let mut leaders = match opened {
        Ok(leaders) => leaders.into_inner(),
        Err(status) => return Err(ended(client, &endpoint, status).await),
    };
    loop {
        // Both are cancel-safe: what has come stays in the stream, and a signal in its listener.
        let leader = tokio::select! {
            leader = leaders.message() => leader,
            () = stop.asked() => return Ok(()),
        };
        match leader {
            Ok(Some(leader)) => {
                let kvs = leader.kv.into_iter().collect();
                out.show(&pb::RangeResponse { header: leader.header, kvs, ..Default::default() })?;
            }
            Ok(None) => return Err(CtlError::Word("the member has ended the observation".to_owned())),
            Err(status) => return Err(ended(client, &endpoint, status).await),
        }
    }
}
