//! Plays command lines with an etcdctl against a cluster, and normalises what it prints.
//!
//! ```text
//! # a comment
//! put "key with spaces" value --prev-kv
//! txn
//! | value("a") = "1"                (standard input of the command above)
//! @bare endpoint hashkv
//! ```
//! `@bare` names the endpoint as `host:port` instead of `http://host:port`.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::members::Members;
use super::printed::Mask;
use crate::harness::binary;
use crate::skip::skipped;

const COMMAND_TIMEOUT: Duration = Duration::from_secs(20);

/// One command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// The words, without the program.
    pub args: Vec<String>,
    /// What it reads; empty for nothing.
    pub stdin: String,
    /// The endpoint is given without its scheme.
    pub is_bare: bool,
}

/// What a command printed, normalised, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Printed {
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// The exit code; `None` after a signal.
    pub code: Option<i32>,
}

/// The version of an etcdctl, such as `3.5.1`, or why there is none to use.
pub fn version(program: &Path) -> Result<String, String> {
    let output = std::process::Command::new(program)
        .arg("version")
        .env("ETCDCTL_API", "3")
        .output()
        .map_err(|error| format!("{} does not run: {error}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.lines().find_map(|line| line.strip_prefix("etcdctl version: "));
    version
        .map(|version| version.trim().to_owned())
        .ok_or_else(|| format!("{} says no version", program.display()))
}

/// The etcdctl of a line (3.4 as it is installed, 3.5 as it was fetched), and real etcd to compare with. When one of them is
/// missing, says that `what` is left out.
pub fn programs(line: &str, what: &str) -> Option<(PathBuf, PathBuf)> {
    let leave_out = |why: &str| {
        skipped(&format!("etcdctl {line} {what}"), why);
        None
    };
    let program = match line {
        "3.4" => Some(PathBuf::from("/usr/bin/etcdctl")).filter(|program| program.is_file()),
        _ => binary::etcdctl(),
    };
    let Some(program) = program else {
        return leave_out("it is missing; install etcd-client for 3.4, run scripts/fetch-peers for 3.5");
    };
    match version(&program) {
        Ok(found) if found.starts_with(line) => {}
        Ok(found) => return leave_out(&format!("{} is version {found}", program.display())),
        Err(why) => return leave_out(&why),
    }
    match binary::etcd() {
        Some(etcd) => Some((program, etcd)),
        None => leave_out("real etcd is missing; run scripts/fetch-peers, or set ETCD_BIN"),
    }
}

/// Reads a list of command lines. Errors name the line.
pub fn parse(text: &str) -> anyhow::Result<Vec<CommandLine>> {
    let mut commands: Vec<CommandLine> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if let Some(input) = line.strip_prefix('|') {
            let command =
                commands.last_mut().with_context(|| format!("line {}: no command above", index + 1))?;
            command.stdin.push_str(input.strip_prefix(' ').unwrap_or(input));
            command.stdin.push('\n');
        } else if !line.trim().is_empty() && !line.starts_with('#') {
            let (is_bare, line) = line.strip_prefix("@bare ").map_or((false, line), |rest| (true, rest));
            let args = words(line).with_context(|| format!("line {}: {line}", index + 1))?;
            commands.push(CommandLine { args, stdin: String::new(), is_bare });
        }
    }
    Ok(commands)
}

/// The words of a line: between blanks, or in double quotes.
pub fn words(line: &str) -> anyhow::Result<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() {
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_word(quoted)?,
            None => {
                let (word, after) = rest.split_once(' ').unwrap_or((rest, ""));
                (word.to_owned(), after)
            }
        };
        words.push(word);
        rest = after.trim_start();
    }
    Ok(words)
}

fn quoted_word(text: &str) -> anyhow::Result<(String, &str)> {
    let mut word = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => {
                let after = &text[at + 1..];
                ensure!(after.is_empty() || after.starts_with(' '), "a quoted word must end at a space");
                return Ok((word, after));
            }
            '\\' => match characters.next() {
                Some((_, 'n')) => word.push('\n'),
                Some((_, '\\')) => word.push('\\'),
                Some((_, 't')) => word.push('\t'),
                other => bail!("unknown escape {other:?}"),
            },
            plain => word.push(plain),
        }
    }
    bail!("the closing quote is missing")
}

/// Runs every command in turn, around the members, and gives what each printed.
pub async fn play(
    program: &Path,
    commands: &[CommandLine],
    members: &Members,
) -> anyhow::Result<Vec<Printed>> {
    let mask = Mask::new(&members.endpoints(), &members.peer_urls());
    let endpoints = members.endpoints();
    let mut all = Vec::with_capacity(commands.len());
    for (number, command) in commands.iter().enumerate() {
        let at = number % endpoints.len();
        // Answers from a member's own state must not look like errors because the member lags.
        members.catch_up(at).await.with_context(|| format!("{} before {:?}", members.name, command.args))?;
        let output = run(program, command, &endpoints[at]).await?;
        all.push(mask.apply(command, &output));
    }
    Ok(all)
}

async fn run(program: &Path, command: &CommandLine, endpoint: &str) -> anyhow::Result<std::process::Output> {
    let what = || format!("{} {}", program.display(), command.args.join(" "));
    let bare = endpoint.split_once("://").map_or(endpoint, |(_, bare)| bare);
    let endpoint = if command.is_bare { bare } else { endpoint };
    let mut child = Command::new(PathBuf::from(program))
        .env_clear()
        .env("ETCDCTL_API", "3")
        .arg(format!("--endpoints={endpoint}"))
        .args(&command.args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(what)?;
    let mut stdin = child.stdin.take().context("the pipe was asked for")?;
    // A command that does not read may have closed its end already; what it prints is what counts.
    if let Err(error) = stdin.write_all(command.stdin.as_bytes()).await {
        ensure!(error.kind() == std::io::ErrorKind::BrokenPipe, "{}: {error}", what());
    }
    drop(stdin);
    let ended = tokio::time::timeout(COMMAND_TIMEOUT, child.wait_with_output()).await;
    ended.with_context(|| format!("{} does not end", what()))?.with_context(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_quotes_and_input_are_read() {
        let commands = parse("# c\nput \"a b\" \"x\\ny\" --prev-kv\ntxn\n| one\n|\n| two\n").unwrap();
        assert_eq!(commands[0].args, ["put", "a b", "x\ny", "--prev-kv"]);
        assert_eq!(commands[1].stdin, "one\n\ntwo\n");
        assert!(parse("put \"a").is_err());
        assert!(parse("| x").is_err());
    }
}
