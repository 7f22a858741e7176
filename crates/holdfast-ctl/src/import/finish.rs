//! The switch: the target has all that the source has, and says so to those who ask with what they knew of the source.
//!
//! Everything is compared, key by key, at one revision of the source and the one of the target that it became. Then the
//! target's revision is above all that any client has seen on the source, and everything before it is compacted: who
//! resumes a watch, or reads, at a revision of the source is told that it is compacted, and begins anew with a list. So
//! nobody waits for revisions that were, or misses what came in between.

use std::collections::BTreeSet;

use anyhow::anyhow;
use holdfast_proto::mvccpb::KeyValue;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::diff::{Diff, Step, is_same};
use super::fault::Fault;
use super::flags::{COMPARISONS_MAX, DIFFERENCES_SHOWN, QUIET_FOR, QUIET_PAUSE};
use super::follow::{Follow, Paused};
use super::pages::{Pages, bytes_of};
use super::progress::Meter;
use super::session::{End, Session};

/// What a comparison came to.
#[derive(Debug)]
struct Compared {
    /// The source's revision.
    at: i64,
    meter: Meter,
    source: Sha256,
    target: Sha256,
    different: u64,
    /// The first keys that differ, and how.
    shown: Vec<String>,
}

/// Brings the import to its end; `None` when the target has to be compared and copied once more.
pub(crate) async fn finish(session: &mut Session<'_>, follow: &mut Follow) -> Result<Option<End>, Fault> {
    for turn in 1..=COMPARISONS_MAX {
        let (_, goal) = session.source.now().await?;
        if follow.run(session, Some(goal)).await? == Paused::Lapsed {
            return Ok(None);
        }
        let compared = compare(session, goal).await?;
        let is_quiet = compared.different == 0 && is_quiet(session, goal).await?;
        if is_quiet {
            session.leases.round().await?;
            end_other_leases(session).await?;
            // From here on nobody keeps them alive: each has all of its time.
            session.leases.renew_all().await?;
            if session.leases.has_lapsed() {
                return Ok(None);
            }
            let Some(closed) = close(session, goal).await? else { return Err(still_written()) };
            return Ok(Some(End::Finished(summary(session, &compared, closed))));
        }
        let (_, now) = session.source.now().await?;
        if compared.different > 0 && (now == goal || turn == COMPARISONS_MAX) {
            // The next run copies what differs.
            session.note(0).await?;
            return Ok(Some(End::Different(different(&compared))));
        }
        // What was written on the source meanwhile, as by leases that ended there, is compared the next time.
    }
    Err(still_written())
}

/// Whether the source is at this revision, and stays there for a while.
async fn is_quiet(session: &Session<'_>, at: i64) -> Result<bool, Fault> {
    let begun = Instant::now();
    loop {
        let (_, now) = session.source.now().await?;
        if now != at || begun.elapsed() >= QUIET_FOR {
            return Ok(now == at);
        }
        tokio::time::sleep(QUIET_PAUSE).await;
    }
}

fn still_written() -> Fault {
    Fault::Refused(anyhow!(
        "the source still takes writes, which would be lost by the switch: stop the writers, and run this again with --finish"
    ))
}

/// Compares all keys of the source at a revision with those that the target has now.
async fn compare(session: &mut Session<'_>, at: i64) -> Result<Compared, Fault> {
    let (_, revision) = session.target.now().await?;
    let setup = session.setup;
    let total = super::pages::count(&session.source, &setup.ranges, at).await?;
    let pages = |remote, revision| Pages::new(remote, &setup.ranges, revision, setup.page_bytes());
    let mut diff = Diff::new(pages(&session.source, at), pages(&session.target, revision));
    let mut compared = Compared {
        at,
        meter: Meter::new(total),
        source: Sha256::new(),
        target: Sha256::new(),
        different: 0,
        shown: Vec::new(),
    };
    while let Some(step) = diff.next().await? {
        compared.add(&step);
        session.progress.show(|| compared.meter.line("comparing"));
    }
    let line = compared.meter.line("comparing");
    session.progress.say(&format!("{line}; {} differ", compared.different));
    Ok(compared)
}

impl Compared {
    fn add(&mut self, step: &Step) {
        let (source, target) = match step {
            Step::Source(kv) => (Some(kv), None),
            Step::Target(kv) => (None, Some(kv)),
            Step::Both(source, target) => (Some(source), Some(target)),
        };
        if let Some(kv) = source {
            self.meter.done += 1;
            self.meter.bytes += bytes_of(kv) as u64;
            digest(&mut self.source, kv);
        }
        if let Some(kv) = target {
            digest(&mut self.target, kv);
        }
        let (key, how) = match step {
            Step::Both(source, target) if is_same(source, target) => return,
            Step::Both(source, target) if source.value == target.value => (
                &source.key,
                format!("lease {:x} on the source, {:x} on the target", source.lease, target.lease),
            ),
            Step::Both(source, _) => (&source.key, "another value on the target".to_owned()),
            Step::Source(kv) => (&kv.key, "missing on the target".to_owned()),
            Step::Target(kv) => (&kv.key, "only on the target".to_owned()),
        };
        self.different += 1;
        if self.shown.len() < DIFFERENCES_SHOWN {
            self.shown.push(format!("{}: {how}", key.escape_ascii()));
        }
    }
}

/// Of keys, values and leases: what clients see, revisions left out.
fn digest(sha: &mut Sha256, kv: &KeyValue) {
    for bytes in [&kv.key[..], &kv.value, &kv.lease.to_le_bytes()] {
        sha.update((bytes.len() as u64).to_le_bytes());
        sha.update(bytes);
    }
}

/// Leases that the source does not have, as those of a snapshot that ended since: nobody may keep them alive. They have no
/// keys, as all keys are the source's.
async fn end_other_leases(session: &Session<'_>) -> Result<(), Fault> {
    if !session.setup.ranges.is_everything() {
        return Ok(());
    }
    let source: BTreeSet<i64> = session.source.leases().await?.into_iter().collect();
    for id in session.target.leases().await? {
        // The list is of one member, which may be a moment behind.
        if !source.contains(&id) && session.source.lease_state(id, false).await?.is_none() {
            let has_keys =
                session.target.lease_state(id, true).await?.is_some_and(|state| !state.keys.is_empty());
            if !has_keys {
                session.target.revoke(id).await?;
            }
        }
    }
    Ok(())
}

/// What the switch came to.
struct Closed {
    /// Everything before it is compacted; `None` where that could not be done.
    compacted: Option<i64>,
    /// Members that could not be asked whether they have it.
    unasked: Vec<String>,
}

/// Sees to it that no revision of the source means anything on the target. `None`, with nothing removed, when the source has
/// changed.
async fn close(session: &mut Session<'_>, last: i64) -> Result<Option<Closed>, Fault> {
    let goal = last + session.setup.flags.limits.headroom;
    let may_be_lower = session.setup.flags.accept_lower_revisions;
    if session.target.revision_seen() <= goal && !may_be_lower {
        session.raise(goal + 1).await?;
    }
    let (_, revision) = session.target.now().await?;
    if revision > goal {
        session.target.compact(revision).await?;
    }
    // A member that is behind would make a watcher wait that it should tell of the compaction. Who is asked has it then.
    let mut unasked = Vec::new();
    for (turn, endpoint) in session.setup.target.endpoints.iter().enumerate() {
        let asked = match session.setup.target.connect(turn).await {
            Ok(member) => member.now().await.map(drop),
            Err(fault) => Err(fault),
        };
        if asked.is_err() {
            unasked.push(endpoint.clone());
        }
    }
    if session.source.now().await?.1 != last {
        return Ok(None);
    }
    // Last, so that an end that is cut off is made again.
    session.writer.finish(&session.position.at(last)).await?;
    Ok(Some(Closed { compacted: (revision > goal).then_some(revision), unasked }))
}

fn different(compared: &Compared) -> String {
    let Compared { at, different, shown, .. } = compared;
    let mut text = format!(
        "{different} keys differ at the source's revision {at}. Run the import again: it copies what differs\n"
    );
    for line in shown {
        text.push_str(&format!("  {line}\n"));
    }
    text
}

fn summary(session: &Session<'_>, compared: &Compared, closed: Closed) -> String {
    let totals = &session.totals;
    let Compared { at, meter, source, .. } = compared;
    let hash = source.clone().finalize();
    let hash: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let mut text = format!(
        "Imported cluster {:x}: {} keys, {}, and {} leases are the same on both sides at the source's revision {at} (hash {hash})\n",
        session.position.cluster_id,
        meter.done,
        crate::output::bytes(meter.bytes),
        session.leases.count(),
    );
    text.push_str(&format!(
        "This run copied {} keys, deleted {}, and applied {} events up to revision {at}\n",
        totals.put, totals.deleted, totals.events
    ));
    if totals.cut > 0 {
        text.push_str(&format!(
            "{} transactions of the source were larger than --txn-ops or --txn-bytes, and were applied in parts\n",
            totals.cut
        ));
    }
    text.push_str(&match closed.compacted {
        Some(revision) => format!(
            "Revisions before {revision} are compacted on the target: who resumes at a revision of the source is told so, and \
             lists again\n"
        ),
        None => "WARNING: the target's revision is not above the source's: clients that resume a watch there may miss changes \
                 and are not told; restart them, so that they list again\n"
            .to_owned(),
    });
    for endpoint in closed.unasked {
        text.push_str(&format!(
            "WARNING: {endpoint} could not be asked: as long as it is behind, a watcher that resumes there may not be told\n"
        ));
    }
    text.push_str("Not imported: users, roles and passwords, alarms, and what keys were before\n");
    if let Some(ttl) = session.leases.shortest() {
        text.push_str(&format!(
            "Start the clients now: leases are no longer kept alive, and the shortest ends {} s after this\n",
            ttl.as_secs()
        ));
    }
    text
}
