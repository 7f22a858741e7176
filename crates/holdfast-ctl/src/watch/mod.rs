//! `watch`: changes as they come, or from a revision on; one watch, or several from standard input, with a command for each
//! change where one is given.
//!
//! A watch whose connection breaks goes on from where it was, on another endpoint when there is one, until the user ends it.

mod interactive;
mod view;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use holdfast_proto::etcdserverpb as pb;
use holdfast_proto::mvccpb::{Event, event::EventType};
use pb::watch_request::RequestUnion;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use crate::client::{Client, broke, service, with_leader};
use crate::error::{CtlError, Done};
use crate::output::quote::quoted;
use crate::output::{self, Out, tell};
use crate::range::{Keys, Reach, bytes};
use view::Changes;

/// Between two attempts to go on, at first; it doubles up to the other one.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// Flags of `watch`.
#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// A key, and the end of a range, exclusive
    #[arg(value_name = "KEY [END]")]
    words: Vec<OsString>,
    /// A command that is run for each change, with ETCD_WATCH_* in its environment
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
    /// Read watches from standard input: lines `watch KEY ...` and `progress`
    #[arg(long, short)]
    interactive: bool,
    /// All keys that begin so
    #[arg(long)]
    prefix: bool,
    /// From this revision on; 0 is from now on
    #[arg(long, default_value_t = 0)]
    rev: i64,
    /// The pair as it was before each change, too
    #[arg(long)]
    prev_kv: bool,
    /// Have the member say now and then how far the watch has come
    #[arg(long)]
    progress_notify: bool,
}

/// Key and range end from the environment.
#[derive(Debug, Clone, Default)]
struct Given {
    key: Option<OsString>,
    end: Option<OsString>,
}

impl Given {
    fn from_environment() -> Result<Self, CtlError> {
        let variable = |name: &str| {
            let named = ["HOLDFASTCTL_WATCH_", "ETCDCTL_WATCH_"].map(|prefix| format!("{prefix}{name}"));
            named.iter().filter_map(std::env::var_os).find(|value| !value.is_empty())
        };
        let given = Self { key: variable("KEY"), end: variable("RANGE_END") };
        if given.key.is_none() && given.end.is_some() {
            return Err(CtlError::Arguments(
                "the environment has WATCH_RANGE_END, and no WATCH_KEY".to_owned(),
            ));
        }
        Ok(given)
    }
}

/// What is watched.
#[derive(Debug, Clone)]
struct Plan {
    keys: Keys,
    start_revision: i64,
    prev_kv: bool,
    progress_notify: bool,
    command: Vec<OsString>,
}

impl Watch {
    /// Of words and flags, or the environment. `line` is all of it, to see a `--` with nothing behind.
    fn plan(&self, given: &Given, line: &[OsString]) -> Result<Plan, CtlError> {
        let wrong = |text: &str| CtlError::Arguments(text.to_owned());
        if line.last().is_some_and(|last| last == "--") {
            return Err(wrong("behind -- a command is missing"));
        }
        let words = match (&given.key, self.words.is_empty()) {
            (Some(_), false) => return Err(wrong("the environment has WATCH_KEY already: give no key")),
            (Some(key), true) => [Some(key.clone()), given.end.clone()].into_iter().flatten().collect(),
            (None, _) => self.words.clone(),
        };
        let keys = match &words[..] {
            [] => return Err(wrong("a key is missing")),
            [_, _] if self.prefix => {
                return Err(wrong("--prefix says where the range ends: leave the end out"));
            }
            [key, ..] if self.prefix => Keys::with_prefix(bytes(key)),
            [key, end] => Keys { key: bytes(key), end: bytes(end) },
            [key, ..] => Keys::of_words(std::slice::from_ref(key), Reach::Words)?,
        };
        Ok(Plan {
            keys,
            start_revision: self.rev,
            prev_kv: self.prev_kv,
            progress_notify: self.progress_notify,
            command: self.command.clone(),
        })
    }
}

/// `watch`. `line` is the whole command line.
pub(crate) async fn watch(client: &Arc<Client>, out: Out, flags: &Watch, line: &[OsString]) -> Done {
    let given = Given::from_environment()?;
    if flags.interactive {
        out.has::<Changes>()?;
        return interactive::interactive(client, out, &given).await;
    }
    let plan = flags.plan(&given, line)?;
    out.has::<Changes>()?;
    // Nobody asks for progress.
    let (_asks, asked) = watch::channel(0);
    follow(client, out, plan, asked).await
}

/// Why a stream is no more.
enum End {
    /// The member has ended the watch: there is nothing to go on with.
    Canceled,
    /// It may go on elsewhere.
    Lost(String),
}

/// Writes changes until the member ends the watch. A new value of `asked` asks for progress.
async fn follow(client: &Client, out: Out, plan: Plan, mut asked: watch::Receiver<u64>) -> Done {
    let mut next = plan.start_revision;
    let mut wait = RETRY_FIRST;
    // Whoever cannot be reached at the beginning is an error, and is waited for later.
    let mut has_begun = false;
    loop {
        let before = next;
        let why = match stream(client, out, &plan, &mut next, &mut asked).await {
            Ok(End::Canceled) => return Err(CtlError::WatchEnded),
            Ok(End::Lost(why)) => why,
            Err(error @ CtlError::Unreachable(_)) if has_begun => error.to_string(),
            Err(error) => return Err(error),
        };
        has_begun = true;
        if next != before {
            wait = RETRY_FIRST;
        }
        let from = if next > 0 { format!(" from revision {next} on") } else { String::new() };
        tell(&format!("holdfastctl: the watch is interrupted, and goes on{from}: {why}"));
        client.leave().await;
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RETRY_MAX);
    }
}

/// One stream, to its end. `next` is the revision to go on from.
async fn stream(
    client: &Client,
    out: Out,
    plan: &Plan,
    next: &mut i64,
    asked: &mut watch::Receiver<u64>,
) -> Result<End, CtlError> {
    let (conn, endpoint) = client.connection().await?;
    let (send, requests) = mpsc::channel(4);
    let create = pb::WatchCreateRequest {
        key: plan.keys.key.clone(),
        range_end: plan.keys.end.clone(),
        start_revision: *next,
        prev_kv: plan.prev_kv,
        progress_notify: plan.progress_notify,
        ..Default::default()
    };
    let request = |union| pb::WatchRequest { request_union: Some(union) };
    let queue_is_open = "the stream holds its end of the queue";
    send.send(request(RequestUnion::CreateRequest(create))).await.expect(queue_is_open);
    let opened = service::watch(conn).watch(with_leader(ReceiverStream::new(requests))).await;
    let mut responses = match opened {
        Ok(responses) => responses.into_inner(),
        Err(status) => return lost(client, &endpoint, status).await,
    };
    asked.mark_unchanged();
    loop {
        // Both are cancel-safe: what has come stays in the stream, and in the channel.
        let response = tokio::select! {
            response = responses.message() => response,
            Ok(()) = asked.changed() => {
                let progress = request(RequestUnion::ProgressRequest(pb::WatchProgressRequest {}));
                // A stream that is gone says so itself.
                drop(send.send(progress).await);
                continue;
            }
        };
        match response {
            Ok(Some(response)) => {
                if let Some(end) = take(out, plan, next, response).await? {
                    return Ok(end);
                }
            }
            Ok(None) => return Ok(End::Lost(format!("{endpoint} has ended the stream"))),
            Err(status) => return lost(client, &endpoint, status).await,
        }
    }
}

async fn lost(client: &Client, endpoint: &str, status: tonic::Status) -> Result<End, CtlError> {
    let may_pass =
        matches!(status.code(), tonic::Code::Unavailable | tonic::Code::Unknown | tonic::Code::Internal);
    if may_pass || broke(&status) {
        return Ok(End::Lost(client.stream_end(endpoint, &status).await));
    }
    Err(CtlError::Refused { what: "", status })
}

/// Writes what a response says.
async fn take(
    out: Out,
    plan: &Plan,
    next: &mut i64,
    response: pb::WatchResponse,
) -> Result<Option<End>, CtlError> {
    let revision = response.header.as_ref().map_or(0, |header| header.revision);
    if response.canceled {
        let why = if response.compact_revision == 0 { &response.cancel_reason } else { view::COMPACTED };
        tell(&format!("holdfastctl: the watch was canceled: {why}"));
        // One that ends for another reason than compaction has nothing to say to programs, as with etcd's Go client.
        if response.created || response.compact_revision != 0 {
            out.show(&Changes(response))?;
        }
        return Ok(Some(End::Canceled));
    }
    if response.created {
        *next = if *next == 0 { revision + 1 } else { *next };
        return Ok(None);
    }
    match response.events.last().and_then(|event| event.kv.as_ref()) {
        Some(kv) => *next = kv.mod_revision + 1,
        None => {
            *next = (*next).max(revision + 1);
            output::line(&format!("progress notify: {revision}"))?;
        }
    }
    let changes = Changes(response);
    out.show(&changes)?;
    if !plan.command.is_empty() {
        let command = plan.command.clone();
        let run = move || changes.0.events.iter().try_for_each(|event| run(&command, event, revision));
        tokio::task::spawn_blocking(run).await.map_err(anyhow::Error::from)??;
    }
    Ok(None)
}

fn event_type(event: &Event) -> &'static str {
    match event.r#type() {
        EventType::Put => "PUT",
        EventType::Delete => "DELETE",
    }
}

/// Runs the command for one change, to its end.
fn run(command: &[OsString], event: &Event, revision: i64) -> Done {
    let Some((program, args)) = command.split_first() else { return Ok(()) };
    let kv = event.kv.clone().unwrap_or_default();
    let mut child = Command::new(program);
    child.args(args).stdin(std::process::Stdio::null()).env("ETCD_WATCH_REVISION", revision.to_string());
    for (name, value) in
        [("EVENT_TYPE", event_type(event).as_bytes()), ("KEY", &kv.key), ("VALUE", &kv.value)]
    {
        child.env(format!("ETCD_WATCH_{name}"), OsStr::from_bytes(quoted(value).as_bytes()));
    }
    let name = || program.to_string_lossy().into_owned();
    let ended = child.status().map_err(|error| CtlError::Word(format!("cannot run {}: {error}", name())))?;
    if ended.success() { Ok(()) } else { Err(CtlError::Word(format!("{} has ended with {ended}", name()))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(words: &[&str], prefix: bool, key: Option<&str>) -> Result<Plan, CtlError> {
        let flags = Watch {
            words: words.iter().map(Into::into).collect(),
            command: Vec::new(),
            interactive: false,
            prefix,
            rev: 0,
            prev_kv: false,
            progress_notify: false,
        };
        flags.plan(&Given { key: key.map(Into::into), end: None }, &[])
    }

    #[test]
    fn a_watch_has_one_key_or_range() {
        let keys = |plan: Plan| (plan.keys.key.to_vec(), plan.keys.end.to_vec());
        assert_eq!(keys(plan(&["a"], false, None).unwrap()), (b"a".to_vec(), b"".to_vec()));
        assert_eq!(keys(plan(&["a", "c"], false, None).unwrap()), (b"a".to_vec(), b"c".to_vec()));
        assert_eq!(keys(plan(&["a"], true, None).unwrap()), (b"a".to_vec(), b"b".to_vec()));
        assert_eq!(keys(plan(&[], false, Some("e")).unwrap()), (b"e".to_vec(), b"".to_vec()));
        for refused in [plan(&[], false, None), plan(&["a", "b"], true, None), plan(&["a"], false, Some("e"))]
        {
            assert_eq!(refused.unwrap_err().exit_code(), 128);
        }
    }

    #[test]
    fn an_end_of_flags_without_a_command_is_refused() {
        let flags = Watch {
            words: vec!["a".into()],
            command: Vec::new(),
            interactive: false,
            prefix: false,
            rev: 0,
            prev_kv: false,
            progress_notify: false,
        };
        let line: Vec<OsString> = ["holdfastctl", "watch", "a", "--"].map(Into::into).into();
        assert_eq!(flags.plan(&Given::default(), &line).unwrap_err().exit_code(), 128);
    }
}
