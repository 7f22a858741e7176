//! One script, played on the reference and on some subjects at once, each on a fresh cluster.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::conformance::call::descriptors;
use crate::conformance::differences::{self, Differences};
use crate::conformance::members::Members;
use crate::conformance::player::{Transcript, play};
use crate::conformance::runner::Report;
use crate::conformance::script::Script;
use crate::harness::cluster::System;

/// A play without leader, or without an answer in time, says nothing and is repeated so often.
const PLAYS_MAX: usize = 4;

/// A cluster that can be started.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The program and its flags.
    pub system: System,
    /// How many members.
    pub members: usize,
}

impl Subject {
    /// Such as `holdfast-3`.
    pub fn label(&self) -> String {
        format!("{}-{}", self.system.label, self.members)
    }
}

/// Who is compared with whom, and what is known to differ.
#[derive(Debug, Clone, Copy)]
pub struct Trial<'a> {
    /// Whose answers count as right.
    pub reference: &'a Subject,
    /// Who has to answer alike.
    pub subjects: &'a [Subject],
    /// The explained differences.
    pub table: &'a Differences,
}

/// What a trial came to.
#[derive(Debug)]
pub struct Comparison {
    /// The script that was played.
    pub script: Script,
    /// The reference's first, then the subjects' in their order.
    pub transcripts: Vec<Transcript>,
    /// All subjects in one report.
    pub report: Report,
    /// How long it took.
    pub elapsed: Duration,
    differing: Vec<usize>,
}

impl Comparison {
    /// The subjects that differed.
    pub fn differing<'a>(&self, subjects: &'a [Subject]) -> Vec<&'a Subject> {
        self.differing.iter().map(|at| &subjects[*at]).collect()
    }
}

impl Trial<'_> {
    /// Plays the script once on everybody. A play that ends in an outage is repeated.
    pub async fn play(&self, name: &str, text: &str) -> anyhow::Result<Comparison> {
        let started = Instant::now();
        let script = Script::parse(name, text, &descriptors())?;
        let (etcd, ours) =
            tokio::join!(play_fresh(self.reference, &script), play_all(self.subjects, &script),);
        let (etcd, ours) = (etcd?, ours?);
        let mut report = Report::default();
        let mut differing = Vec::new();
        for (at, transcript) in ours.iter().enumerate() {
            let before = report.differences.len();
            report.add(self.table, &script, &etcd, transcript);
            if report.differences.len() > before {
                differing.push(at);
            }
        }
        let transcripts = std::iter::once(etcd).chain(ours).collect();
        Ok(Comparison { script, transcripts, report, elapsed: started.elapsed(), differing })
    }
}

async fn play_all(subjects: &[Subject], script: &Script) -> anyhow::Result<Vec<Transcript>> {
    match subjects {
        [] => Ok(Vec::new()),
        [one] => Ok(vec![play_fresh(one, script).await?]),
        [first, rest @ ..] => {
            let (first, rest) = tokio::join!(play_fresh(first, script), Box::pin(play_all(rest, script)));
            let mut all = vec![first?];
            all.extend(rest?);
            Ok(all)
        }
    }
}

/// Starts a fresh cluster and plays the script.
async fn play_fresh(subject: &Subject, script: &Script) -> anyhow::Result<Transcript> {
    let mut last = String::new();
    for _ in 0..PLAYS_MAX {
        let mut members = Members::start(subject.system.clone(), subject.members).await?;
        let transcript =
            play(script, &members).await.with_context(|| format!("the log ends:\n{}", members.log_ends()))?;
        match &transcript.outage {
            None => return Ok(transcript),
            Some(outage) => last = format!("{outage}\n{}", members.log_ends()),
        }
    }
    bail!("{} had an outage in each of {PLAYS_MAX} plays, the last: {last}", subject.label())
}

/// Everything that was answered and sent, line by line.
pub fn show(script: &Script, transcript: &Transcript) -> String {
    let mut out = String::new();
    for (number, (call, answer)) in script.calls.iter().zip(&transcript.answers).enumerate() {
        writeln!(out, "{}\n  {}", call.text, differences::text(answer))
            .expect("writing to a string does not fail");
        let events = transcript.watchers.iter().filter(|watcher| watcher.call == number);
        for event in events.flat_map(|watcher| &watcher.received) {
            writeln!(out, "    event {}", event.text).expect("writing to a string does not fail");
        }
    }
    out
}
