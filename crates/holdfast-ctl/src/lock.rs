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
use tokio::signal::unix::{SignalKind, signal};
use tonic::Status;

use crate::client::{Client, broke, service};
use crate::error::{CtlError, Done};
use crate::output::{Out, tell};
use crate::range::bytes;
use crate::session::Session;

/// The exit code after an interrupt, for what did not get so far as to be held.
const INTERRUPTED: u8 = 130;

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

/// Returns at the first interrupt or request to end.
async fn signalled() {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        // Then signals end the process, as they do by themselves.
        return std::future::pending().await;
    };
    // Both are cancel-safe: a signal that is not taken here ends nothing.
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// A call that waits for its turn as long as it takes; `None` after a signal or the end of the session.
async fn waited<R>(
    client: &Client,
    session: &Session,
    call: impl Future<Output = Result<tonic::Response<R>, Status>>,
    endpoint: &str,
) -> Result<R, CtlError> {
    // A call that is dropped is given up by the server, which takes its place in the line away.
    let answer = tokio::select! {
        answer = call => answer,
        () = signalled() => return Err(CtlError::Exit(INTERRUPTED)),
        () = session.lost() => return Err(CtlError::Word("the lease has expired while waiting".to_owned())),
    };
    match answer {
        Ok(answer) => Ok(answer.into_inner()),
        Err(status) if broke(&status) => {
            let cause = client.stream_end(endpoint, &status).await;
            Err(CtlError::Broken { endpoint: endpoint.to_owned(), cause })
        }
        Err(status) => Err(CtlError::Refused { what: "", status }),
    }
}

/// `lock`.
pub(crate) async fn lock(client: &Arc<Client>, out: Out, flags: &Lock) -> Done {
    let Some((name, command)) = flags.words.split_first() else {
        return Err(CtlError::Arguments("lock takes a name, and a command if there is one".to_owned()));
    };
    out.has::<pb::RangeResponse>()?;
    let session = Session::begin(client, flags.ttl).await?;
    let held = hold(client, &session, out, bytes(name), command).await;
    session.end().await;
    held
}

async fn hold(client: &Arc<Client>, session: &Session, out: Out, name: Bytes, command: &[OsString]) -> Done {
    let (conn, endpoint) = client.connection().await?;
    let request = LockRequest { name, lease: session.id };
    let mut locks = service::lock(conn);
    let locked = waited(client, session, locks.lock(request), &endpoint).await?;
    let key = locked.key;
    let done = if command.is_empty() {
        until_signal(client, session, out, key.clone()).await
    } else {
        let revision = locked.header.map_or(0, |header| header.revision);
        run(command, &key, revision).await
    };
    let unlock = UnlockRequest { key };
    let unlocked = client.write(async |conn| service::lock(conn).unlock(unlock.clone()).await).await;
    done.and(unlocked.map(drop))
}

/// Shows the key, and holds it until a signal.
async fn until_signal(client: &Client, session: &Session, out: Out, key: Bytes) -> Done {
    let pair = read(client, key).await?;
    if pair.kvs.is_empty() {
        return Err(CtlError::Word("the lock was lost at once".to_owned()));
    }
    out.show(&pair)?;
    tokio::select! {
        () = signalled() => Ok(()),
        () = session.lost() => Err(CtlError::Word("the lease has expired: the lock is lost".to_owned())),
    }
}

async fn read(client: &Client, key: Bytes) -> Result<pb::RangeResponse, CtlError> {
    let request = pb::RangeRequest { key, ..Default::default() };
    client.read(async |conn| service::kv(conn).range(request.clone()).await).await
}

/// Runs a command, and ends as it ends. A signal is for the command, as both have it from the terminal.
async fn run(command: &[OsString], key: &Bytes, revision: i64) -> Done {
    let (program, args) =
        command.split_first().ok_or_else(|| CtlError::Arguments("no command".to_owned()))?;
    let mut child = std::process::Command::new(program);
    child.args(args).stdin(Stdio::null()).env("ETCD_LOCK_KEY", OsStr::from_bytes(key));
    child.env("ETCD_LOCK_REV", revision.to_string());
    let ended = tokio::task::spawn_blocking(move || child.status());
    let ended = tokio::select! {
        ended = ended => ended.map_err(anyhow::Error::from)?,
        () = signalled() => return Err(CtlError::Exit(INTERRUPTED)),
    };
    let ended = ended
        .map_err(|error| CtlError::Word(format!("cannot run {}: {error}", program.to_string_lossy())))?;
    if ended.success() {
        return Ok(());
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
            let session = Session::begin(client, CANDIDATE_TTL).await?;
            let held = campaign(client, &session, out, bytes(name), bytes(proposal)).await;
            session.end().await;
            held
        }
        ([_], false) => Err(CtlError::Arguments("give a proposal, or --listen".to_owned())),
        ([_, _], true) => Err(CtlError::Arguments("--listen takes no proposal".to_owned())),
        _ => Err(CtlError::Arguments("elect takes a name, and a proposal if there is one".to_owned())),
    }
}

async fn campaign(client: &Arc<Client>, session: &Session, out: Out, name: Bytes, value: Bytes) -> Done {
    let (conn, endpoint) = client.connection().await?;
    let request = CampaignRequest { name, lease: session.id, value };
    let mut elections = service::election(conn);
    let elected = waited(client, session, elections.campaign(request), &endpoint).await?;
    let leader: LeaderKey = elected.leader.unwrap_or_default();
    out.show(&read(client, leader.key.clone()).await?)?;
    tokio::select! {
        () = signalled() => {}
        () = session.lost() => return Err(CtlError::Word("the lease has expired: somebody else may lead".to_owned())),
    }
    let request = ResignRequest { leader: Some(leader) };
    client.write(async |conn| service::election(conn).resign(request.clone()).await).await.map(drop)
}

/// Shows who leads, until a signal.
async fn observe(client: &Client, out: Out, name: Bytes) -> Done {
    let request = LeaderRequest { name };
    let (conn, endpoint) = client.connection().await?;
    let observed = async {
        let mut leaders = service::election(conn).observe(request).await?.into_inner();
        while let Some(leader) = leaders.message().await? {
            let kvs = leader.kv.into_iter().collect();
            // What cannot be written ends the observation below, where the reason is asked for again.
            if out.show(&pb::RangeResponse { header: leader.header, kvs, ..Default::default() }).is_err() {
                return Err(Status::cancelled("standard output is closed"));
            }
        }
        Ok(())
    };
    let ended: Result<(), Status> = tokio::select! {
        ended = observed => ended,
        () = signalled() => return Ok(()),
    };
    match ended {
        Ok(()) => Err(CtlError::Word("the member has ended the observation".to_owned())),
        Err(status) => {
            let cause = client.stream_end(&endpoint, &status).await;
            Err(CtlError::Broken { endpoint, cause })
        }
    }
}
