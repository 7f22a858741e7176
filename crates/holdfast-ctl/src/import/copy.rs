//! The copy: what the target has becomes what the source had at one revision.
//!
//! Both sides are read in the order of their keys, and what differs is written: into an empty target everything, into one
//! that was restored from a snapshot what has changed since, after a copy that was cut off what is missing. The target has
//! some of one state and some of another until the end; the position says so.

use std::collections::BTreeSet;

use holdfast_proto::mvccpb::KeyValue;
use tokio::task::JoinSet;

use super::diff::{Diff, Step, is_same};
use super::fault::Fault;
use super::flags::LEASES_BEFORE_RENEWAL;
use super::pages::{Pages, bytes_of, count};
use super::plan::{Change, KeyChange};
use super::progress::Meter;
use super::session::Session;
use super::writer::joined;

/// Changes on their way to the target.
struct Lot {
    changes: Vec<KeyChange>,
    bytes: usize,
    under_way: JoinSet<Result<(), Fault>>,
}

/// Copies; the source's revision that the target has then.
pub(crate) async fn copy(session: &mut Session<'_>) -> Result<i64, Fault> {
    let (_, revision) = session.source.now().await?;
    session.note(0).await?;
    session.lift(revision).await?;
    let setup = session.setup;
    let page_bytes = setup.page_bytes();
    let mut meter = Meter::new(count(&session.source, &setup.ranges, revision).await?);
    session.progress.say(&format!("copying {} keys at the source's revision {revision}", meter.total));
    let mut diff = Diff::new(
        Pages::new(&session.source, &setup.ranges, revision, page_bytes),
        Pages::new(&session.target, &setup.ranges, 0, page_bytes),
    );
    let mut lot = Lot { changes: Vec::new(), bytes: 0, under_way: JoinSet::new() };
    let mut leases = BTreeSet::new();
    while let Some(step) = diff.next().await? {
        if let Step::Source(kv) | Step::Both(kv, _) = &step {
            meter.done += 1;
            meter.bytes += bytes_of(kv) as u64;
            // Those of pairs that are the same already are looked after, too.
            if kv.lease != 0 && leases.insert(kv.lease) && leases.len() >= LEASES_BEFORE_RENEWAL {
                session.leases.ensure(&std::mem::take(&mut leases)).await?;
            }
        }
        if let Some(change) = change(step, session) {
            lot.add(change, session).await?;
        }
        session.progress.show(|| meter.line("copying"));
    }
    session.leases.ensure(&leases).await?;
    lot.send(session).await?;
    while let Some(done) = lot.under_way.join_next().await {
        joined(done)??;
    }
    session.note(revision).await?;
    let seconds = meter.elapsed().as_secs_f64();
    session.progress.say(&format!("{}; copied in {seconds:.1} s", meter.line("copying")));
    Ok(revision)
}

/// What makes the target the same, if it is not.
fn change(step: Step, session: &mut Session<'_>) -> Option<KeyChange> {
    let totals = &mut *session.totals;
    match step {
        Step::Both(source, target) if is_same(&source, &target) => None,
        Step::Source(kv) | Step::Both(kv, _) => {
            totals.put += 1;
            let KeyValue { key, value, lease, .. } = kv;
            Some(KeyChange { key, change: Change::Put { value, lease } }.detached())
        }
        Step::Target(kv) => {
            totals.deleted += 1;
            Some(KeyChange { key: kv.key, change: Change::Delete }.detached())
        }
    }
}

impl Lot {
    async fn add(&mut self, change: KeyChange, session: &Session<'_>) -> Result<(), Fault> {
        let limits = session.setup.txn_limits();
        let bytes = change.bytes();
        if self.changes.len() >= limits.changes || self.bytes + bytes > limits.bytes {
            self.send(session).await?;
        }
        self.changes.push(change);
        self.bytes += bytes;
        Ok(())
    }

    /// Sends what there is, when there is room for one more that is under way.
    async fn send(&mut self, session: &Session<'_>) -> Result<(), Fault> {
        if self.changes.is_empty() {
            return Ok(());
        }
        while self.under_way.len() >= session.setup.writers()
            && let Some(done) = self.under_way.join_next().await
        {
            joined(done)??;
        }
        let writer = session.writer.clone();
        let changes = std::mem::take(&mut self.changes);
        self.bytes = 0;
        self.under_way.spawn(async move { writer.write(&changes, None).await });
        Ok(())
    }
}
