//! Reads back what a cluster holds after a run, from each member by itself, and has it judged.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use tokio::task::JoinSet;

use crate::client::{Client, Contents, Outcome, TIMEOUT};
use crate::harness::cluster::Cluster;
use crate::judge::durability::{self, Attempt, Finding, PastRead};
use crate::judge::members::{self, Disagreement, Hashed};

/// Reads of the past that are under way at a time.
const READERS: usize = 16;

/// How many findings a report spells out.
const SHOWN_MAX: usize = 20;

/// What the judges say.
#[derive(Debug, Default)]
pub struct Verdict {
    /// About the puts.
    pub findings: Vec<Finding>,
    /// About members that differ.
    pub disagreements: Vec<Disagreement>,
    /// The final revision.
    pub revision: i64,
    /// The hash all members gave at the final revision, if they agree.
    pub hash: Option<u32>,
    /// Pairs each member holds.
    pub pairs: usize,
    /// Reads at past revisions that were judged.
    pub past_reads: usize,
}

impl Verdict {
    /// Whether nothing was found.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty() && self.disagreements.is_empty()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hash = self.hash.map_or_else(|| "no common hash".to_owned(), |hash| format!("hash {hash}"));
        write!(f, "revision {}, {} pairs, {hash}, ", self.revision, self.pairs)?;
        write!(f, "{} reads of the past; findings: ", self.past_reads)?;
        write!(f, "{} of puts, {} of members", self.findings.len(), self.disagreements.len())?;
        for finding in self.findings.iter().take(SHOWN_MAX) {
            write!(f, "\n  {finding}")?;
        }
        for disagreement in self.disagreements.iter().take(SHOWN_MAX) {
            write!(f, "\n  {disagreement}")?;
        }
        Ok(())
    }
}

/// Reads everything from every member at one revision and judges it. All members must be running.
pub async fn verify(cluster: &Cluster, attempts: &[Attempt]) -> Result<Verdict> {
    let client = Client::new(&cluster.endpoints())?;
    let revision = client.revision(0, TIMEOUT).await.context("the final revision")?;
    let names: Vec<String> = cluster.members().iter().map(|member| member.name.clone()).collect();
    let all = read_members(&client, &names, revision).await?;
    let past = read_past(&client, attempts).await?;
    let mut verdict = Verdict { revision, past_reads: past.len(), ..Verdict::default() };
    verdict.disagreements = members::pairs(&all);
    let (_, contents): &(String, Contents) = all.first().context("a cluster without members")?;
    verdict.pairs = contents.pairs.len();
    verdict.findings = durability::judge(attempts, &past, contents);
    for at in [revision, (revision / 2).max(1)] {
        let hashes = hashes(&client, &names, at).await?;
        let disagreements = members::hashes(&hashes);
        if at == revision && disagreements.is_empty() {
            verdict.hash = hashes.first().map(|hashed| hashed.hash);
        }
        verdict.disagreements.extend(disagreements);
    }
    Ok(verdict)
}

/// Whether members agree on all that they hold at a revision, and on its hash, which comes along if they do.
pub async fn agreement(
    client: &Client,
    names: &[String],
    revision: i64,
) -> Result<(Vec<Disagreement>, Option<u32>)> {
    let mut disagreements = members::pairs(&read_members(client, names, revision).await?);
    let hashes = hashes(client, names, revision).await?;
    disagreements.extend(members::hashes(&hashes));
    let hash = hashes.first().filter(|_| disagreements.is_empty()).map(|hashed| hashed.hash);
    Ok((disagreements, hash))
}

async fn read_members(client: &Client, names: &[String], revision: i64) -> Result<Vec<(String, Contents)>> {
    let mut all = Vec::new();
    for (member, name) in names.iter().enumerate() {
        wait_for_revision(client, member, revision).await.with_context(|| format!("{name} lags"))?;
        all.push((
            name.clone(),
            client.contents(member, revision).await.with_context(|| format!("reading {name}"))?,
        ));
    }
    Ok(all)
}

async fn hashes(client: &Client, names: &[String], revision: i64) -> Result<Vec<Hashed>> {
    let mut hashes = Vec::new();
    for (member, name) in names.iter().enumerate() {
        let answer = client.hash_kv(member, revision).await.with_context(|| format!("HashKV of {name}"))?;
        let (hash, compact_revision) = (answer.hash, answer.compact_revision);
        hashes.push(Hashed { member: name.clone(), revision, hash, compact_revision });
    }
    Ok(hashes)
}

async fn wait_for_revision(client: &Client, member: usize, revision: i64) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        // A linearizable read waits until the member has caught up.
        match client.revision(member, TIMEOUT).await {
            Ok(reached) if reached >= revision => return Ok(()),
            answer if Instant::now() >= deadline => bail!("waited for revision {revision}, got {answer:?}"),
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Reads each key that was put more than once at every revision that was acknowledged for it.
async fn read_past(client: &Client, attempts: &[Attempt]) -> Result<Vec<PastRead>> {
    let mut puts_of: HashMap<&Bytes, usize> = HashMap::new();
    for attempt in attempts {
        *puts_of.entry(&attempt.key).or_default() += 1;
    }
    let wanted: Vec<(Bytes, i64)> = attempts
        .iter()
        .filter(|attempt| puts_of[&attempt.key] > 1)
        .filter_map(|attempt| match attempt.outcome {
            Outcome::Acked(revision) => Some((attempt.key.clone(), revision)),
            Outcome::Refused(_) | Outcome::Unknown(_) => None,
        })
        .collect();
    let wanted = Arc::new(wanted);
    let mut readers = JoinSet::new();
    for reader in 0..READERS {
        let (client, wanted) = (client.clone(), Arc::clone(&wanted));
        readers.spawn(async move {
            let mut reads = Vec::new();
            for (key, revision) in wanted.iter().skip(reader).step_by(READERS) {
                let found = client.past(reader % client.len(), key, *revision).await?;
                reads.push(PastRead { key: key.clone(), revision: *revision, found });
            }
            anyhow::Ok(reads)
        });
    }
    let mut past = Vec::new();
    while let Some(reads) = readers.join_next().await {
        past.extend(reads.context("a reader panicked")?.context("a read of the past")?);
    }
    Ok(past)
}
