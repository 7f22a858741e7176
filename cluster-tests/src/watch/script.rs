//! Scripts of watches with etcdctl, and how they are played.
//!
//! ```text
//! watch a --prev-kv          the watch, words as in `etcdctl.commands`
//! @ 2                        wait until the member has two watchers
//! $ put a 1                  another etcdctl changes something
//! > progress                 a line for its standard input, now
//! ? text                     wait until this was printed, in whatever encoding the output format has
//! !                          it must end by itself
//! ```
//! Each begins on a fresh key space: it has a prefix of its own, which stands for `%` in all words. What is printed
//! behind the last text that is waited for does not count.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::console::{Console, Ended, PATIENCE};
use super::printed::holds;
use crate::conformance::etcdctl::words;

/// Between two questions.
const POLL: Duration = Duration::from_millis(20);

/// What is done while the watch runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Wait for this many watchers.
    Watchers(usize),
    /// Run another etcdctl.
    Change(Vec<String>),
    /// Give the watch a line.
    Write(String),
    /// Wait for this text.
    Text(String),
    /// It ends by itself.
    End,
}

/// One watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// Its command line.
    pub args: Vec<String>,
    /// What happens, in order.
    pub acts: Vec<Act>,
}

/// Reads scripts. Errors name the line.
pub fn parse(text: &str) -> Result<Vec<Script>> {
    let mut scripts: Vec<Script> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let at = || format!("line {}: {line}", index + 1);
        let Some(act) = act(line).with_context(at)? else {
            scripts.push(Script { args: words(line).with_context(at)?, acts: Vec::new() });
            continue;
        };
        scripts.last_mut().with_context(at)?.acts.push(act);
    }
    Ok(scripts)
}

fn act(line: &str) -> Result<Option<Act>> {
    let (sign, rest) = line.split_at(1);
    let rest = rest.trim();
    Ok(Some(match sign {
        "@" => Act::Watchers(rest.parse().context("a number of watchers")?),
        "$" => Act::Change(words(rest)?),
        ">" => Act::Write(rest.to_owned()),
        "?" => Act::Text(rest.to_owned()),
        "!" => Act::End,
        _ => return Ok(None),
    }))
}

impl Script {
    /// With the prefix in place of `%`.
    #[must_use]
    pub fn under(&self, prefix: &str) -> Self {
        let fill = |word: &String| word.replace('%', prefix);
        let acts = self.acts.iter().map(|act| match act {
            Act::Change(words) => Act::Change(words.iter().map(fill).collect()),
            Act::Write(line) => Act::Write(fill(line)),
            Act::Text(text) => Act::Text(fill(text)),
            Act::Watchers(_) | Act::End => act.clone(),
        });
        Self { args: self.args.iter().map(fill).collect(), acts: acts.collect() }
    }

    /// The last text that is waited for.
    pub fn last_text(&self) -> Option<&str> {
        self.acts.iter().rev().find_map(|act| match act {
            Act::Text(text) => Some(text.as_str()),
            Act::Watchers(_) | Act::Change(_) | Act::Write(_) | Act::End => None,
        })
    }
}

/// Plays a script against one member, given as `host:port`.
pub async fn play(program: &Path, script: &Script, endpoint: &str) -> Result<Ended> {
    // Watchers of the script before may still be on their way out.
    wait_for_watchers(endpoint, 0).await?;
    let mut console = Console::start(program, endpoint, &script.args)?;
    for act in &script.acts {
        match act {
            Act::Watchers(count) => wait_for_watchers(endpoint, *count).await?,
            Act::Change(words) => change(program, endpoint, words).await?,
            Act::Write(line) => console.write(line).await?,
            Act::Text(text) => console.wait_for(|printed| holds(printed, text)).await?,
            Act::End => return console.end(PATIENCE).await,
        }
    }
    console.stop().await
}

async fn change(program: &Path, endpoint: &str, words: &[String]) -> Result<()> {
    let ended = Console::start(program, endpoint, words)?.end(PATIENCE).await?;
    ensure!(ended.code == Some(0), "{words:?} ended with {:?}: {}", ended.code, ended.stderr);
    Ok(())
}

/// Waits until the member's own count of watchers is `wanted`.
async fn wait_for_watchers(endpoint: &str, wanted: usize) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = watchers(endpoint).await;
        if matches!(found, Ok(found) if found == wanted) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!("waited for {wanted} watchers, found {found:?}");
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The member's metric of watchers.
async fn watchers(endpoint: &str) -> Result<usize> {
    let mut stream = TcpStream::connect(endpoint).await?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {endpoint}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let text = String::from_utf8_lossy(&answer);
    let value = text.lines().find_map(|line| line.strip_prefix("etcd_debugging_mvcc_watcher_total "));
    let value = value.context("no metric of watchers")?.trim();
    value.parse().with_context(|| format!("{value} watchers"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_read() {
        let scripts = parse("# c\nwatch % --prefix\n@ 1\n$ put %a \"x y\"\n? x y\nwatch\n!\n").unwrap();
        let first = scripts[0].under("p/");
        assert_eq!(first.args, ["watch", "p/", "--prefix"]);
        assert_eq!(first.acts[1], Act::Change(vec!["put".to_owned(), "p/a".to_owned(), "x y".to_owned()]));
        assert_eq!(first.last_text(), Some("x y"));
        assert_eq!(scripts[1].acts, [Act::End]);
        assert!(parse("@ 1").is_err() && parse("watch\n@ x").is_err());
    }
}
