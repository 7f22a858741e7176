//! Several watches at once, begun by lines of standard input.

use std::ffi::OsString;
use std::io::BufRead;
use std::sync::Arc;

use clap::{CommandFactory, FromArgMatches, Parser};
use tokio::sync::{mpsc, watch};

use super::{Given, Plan, Watch, follow};
use crate::client::Client;
use crate::error::{CtlError, Done};
use crate::global::as_pflag;
use crate::output::{Out, tell};
use crate::words::words;

/// A line that begins a watch.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
struct Line {
    #[command(flatten)]
    watch: Watch,
}

/// Follows what the lines say, until standard input ends.
pub(super) async fn interactive(client: &Arc<Client>, out: Out, given: &Given) -> Done {
    let (send, mut lines) = mpsc::channel(1);
    // Ends with standard input, or with the process.
    tokio::task::spawn_blocking(move || {
        let mut stdin = std::io::stdin().lock();
        loop {
            let mut line = Vec::new();
            let read = stdin.read_until(b'\n', &mut line);
            let is_end = !matches!(read, Ok(count) if count > 0 && line.ends_with(b"\n"));
            if is_end || send.blocking_send(line).is_err() {
                return;
            }
        }
    });
    let (asks, asked) = watch::channel(0_u64);
    let (failed, mut failures) = mpsc::channel(1);
    loop {
        // Both are cancel-safe: what is not taken stays in its channel.
        let line = tokio::select! {
            line = lines.recv() => line,
            Some(error) = failures.recv() => return Err(error),
        };
        let Some(line) = line else {
            return Err(CtlError::Input("standard input has ended: the watches end with it".to_owned()));
        };
        let words = words(&line)?;
        match words.first().and_then(|word| word.to_str()) {
            Some("watch") => {
                let Some(plan) = begun(&words, given)? else { continue };
                let (client, asked, failed) = (Arc::clone(client), asked.clone(), failed.clone());
                tokio::task::spawn_local(async move {
                    let ended = follow(&client, out, plan, asked).await;
                    // A watch that the member has ended leaves the others alone; that was told.
                    if let Err(error) = ended
                        && !matches!(error, CtlError::WatchEnded)
                    {
                        drop(failed.send(error).await);
                    }
                });
            }
            Some("progress") => asks.send_modify(|asks| *asks += 1),
            _ => tell("holdfastctl: give a line that begins with watch, or progress"),
        }
    }
}

/// What a line begins; `None` when it makes no watch, which is told.
fn begun(words: &[OsString], given: &Given) -> Result<Option<Plan>, CtlError> {
    if words.len() < 2 && given.key.is_none() {
        tell("holdfastctl: a key is missing");
        return Ok(None);
    }
    let matches = as_pflag(Line::command()).try_get_matches_from(&words[1..]);
    let line = matches.and_then(|matches| Line::from_arg_matches(&matches));
    let line = line.map_err(|error| CtlError::Arguments(error.render().to_string().trim_end().to_owned()))?;
    if line.watch.prefix && line.watch.words.len() == 2 {
        tell("holdfastctl: --prefix says where the range ends: leave the end out");
        return Ok(None);
    }
    line.watch.plan(given, words).map(Some)
}
