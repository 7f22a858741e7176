//! One session of an import: from two connections until something breaks, or the end.
//!
//! It knows nothing but what the position in the target says. So a connection that breaks, a member that goes away, a
//! program that is killed and a second one that takes over are all the same: another session.

use std::sync::Arc;

use anyhow::anyhow;

use super::copy::copy;
use super::fault::Fault;
use super::finish::finish;
use super::flags::ImportFlags;
use super::follow::Follow;
use super::leases::Leases;
use super::pages::{count, count_range};
use super::plan::TxnLimits;
use super::position::Position;
use super::progress::Progress;
use super::ranges::{RESERVED, Ranges, prefix_end};
use super::remote::{Access, Remote};
use super::writer::{Turn, Writer};

/// What is to be imported, and how.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) source: Access,
    pub(crate) target: Access,
    pub(crate) ranges: Ranges,
    pub(crate) flags: ImportFlags,
}

/// What was done, over all sessions of a run.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    /// Keys that copies put.
    pub(crate) put: u64,
    /// Keys that copies deleted.
    pub(crate) deleted: u64,
    /// Events that were applied.
    pub(crate) events: u64,
    /// Revisions of the source that were applied in parts.
    pub(crate) cut: u64,
    /// Sessions that came as far as to write.
    pub(crate) sessions: u64,
    /// A lease has ended on the target that lives on the source, and not all was compared since.
    pub(crate) has_lapsed: bool,
}

/// How an import ends, with what is to be said.
#[derive(Debug)]
pub(crate) enum End {
    /// All is over there.
    Finished(String),
    /// The two differ.
    Different(String),
}

/// Two connections, and where the import stands.
pub(crate) struct Session<'a> {
    pub(crate) setup: &'a Setup,
    pub(crate) source: Remote,
    pub(crate) target: Remote,
    pub(crate) leases: Arc<Leases>,
    pub(crate) writer: Writer,
    /// As it was written last.
    pub(crate) position: Position,
    pub(crate) progress: &'a mut Progress,
    pub(crate) totals: &'a mut Totals,
}

impl Setup {
    /// What a transaction has room for, beside the position.
    pub(crate) fn txn_limits(&self) -> TxnLimits {
        let limits = &self.flags.limits;
        TxnLimits { changes: limits.txn_ops as usize - 1, bytes: limits.txn_bytes as usize }
    }

    /// Bytes of a page, about.
    pub(crate) fn page_bytes(&self) -> usize {
        self.flags.limits.page_bytes as usize
    }

    /// Bytes of events that may wait.
    pub(crate) fn backlog_bytes(&self) -> usize {
        self.flags.limits.backlog_bytes as usize
    }

    /// Transactions of a copy that are under way at a time.
    pub(crate) fn writers(&self) -> usize {
        self.flags.limits.writers as usize
    }
}

/// Runs one session. The attempt says whose turn it is among the members.
pub(crate) async fn run(
    setup: &Setup,
    attempt: usize,
    progress: &mut Progress,
    totals: &mut Totals,
) -> Result<End, Fault> {
    let source = setup.source.connect(attempt).await?;
    let target = setup.target.connect(attempt).await?;
    let (source_id, source_revision) = source.now().await?;
    let (target_id, target_revision) = target.now().await?;
    if source_id == target_id {
        return Err(Fault::Refused(anyhow!("--from and --endpoints are of the same cluster, {source_id:x}")));
    }
    if let Some(end) = finished(setup, source_id, &target).await? {
        return Ok(end);
    }
    let before = found(setup, source_id, &target).await?;
    check_gap(setup, (source_revision, target_revision), progress)?;
    let leases = Arc::new(Leases::new(&source, &target, &setup.ranges));
    let turn = if totals.sessions == 0 { Turn::First } else { Turn::Again };
    let writer = Writer::take_over(target.clone(), Arc::clone(&leases), turn).await?;
    // Once more: until now another import may have gone on, to its end perhaps.
    if let Some(end) = finished(setup, source_id, &target).await? {
        return Ok(end);
    }
    let position = match Position::read(&target).await? {
        Some(position) => {
            position.check(source_id, &setup.ranges).map_err(Fault::Refused)?;
            position
        }
        None => before,
    };
    let kept = Arc::clone(&leases);
    let mut session = Session { setup, source, target, leases, writer, position, progress, totals };
    session.totals.sessions += 1;
    let goes_on = session.goes_on(source_revision).await?;
    // Both in this task: leases are looked after while the rest waits for the network.
    let end = tokio::select! {
        end = Box::pin(session.work(goes_on)) => end,
        fault = kept.keep() => Err(fault),
    };
    // What was found and not acted on is for the next session.
    totals.has_lapsed |= kept.has_lapsed();
    end
}

/// How it ends here when an import from this source was finished on the target before: what clients have written since must
/// not become what the source has.
async fn finished(setup: &Setup, source_id: u64, target: &Remote) -> Result<Option<End>, Fault> {
    let Some(position) = Position::read_finished(target).await? else { return Ok(None) };
    if position.check(source_id, &setup.ranges).is_err() {
        return Ok(None);
    }
    let told = format!(
        "The import from cluster {source_id:x} was finished before, at its revision {}",
        position.revision
    );
    if setup.flags.finish {
        return Ok(Some(End::Finished(format!("{told}: nothing was done\n"))));
    }
    Err(Fault::Refused(anyhow!(
        "{told}: clients may have written to the target since. To begin anew, and lose that, delete the key {} there and \
         give --overwrite",
        Position::finished_key().escape_ascii()
    )))
}

/// Where an import of this source stands in the target; at its beginning when there was none, and there is room for it.
async fn found(setup: &Setup, source_id: u64, target: &Remote) -> Result<Position, Fault> {
    if let Some(position) = Position::read(target).await? {
        position.check(source_id, &setup.ranges).map_err(Fault::Refused)?;
        return Ok(position);
    }
    check_is_empty(setup, target).await?;
    Ok(Position { cluster_id: source_id, revision: 0, prefixes: setup.ranges.prefixes().to_vec() })
}

async fn check_is_empty(setup: &Setup, target: &Remote) -> Result<(), Fault> {
    let all = count(target, &setup.ranges, 0).await?;
    let own = if setup.ranges.have_reserved() {
        let (start, end) = (RESERVED.as_bytes().into(), prefix_end(RESERVED.as_bytes()));
        count_range(target, (start, end), 0).await?
    } else {
        0
    };
    if all > own && !setup.flags.overwrite {
        return Err(Fault::Refused(anyhow!(
            "the target has {} keys there that no import wrote. With --overwrite they become what the source has, and those \
             that it does not have are deleted: right for a target that was restored from a snapshot of the source",
            all - own
        )));
    }
    Ok(())
}

impl Session<'_> {
    /// Whether the target has a revision of the source from which it can be followed.
    async fn goes_on(&mut self, source_revision: i64) -> Result<bool, Fault> {
        let revision = self.position.revision;
        if revision == 0 || self.totals.has_lapsed {
            return Ok(false);
        }
        if revision > source_revision {
            self.progress.say(&format!(
                "the target has the source's revision {revision}, and the source is at {source_revision}: it was restored \
                 from something older; everything is compared"
            ));
            return Ok(false);
        }
        if self.leases.resume(&self.setup.ranges).await? {
            self.progress
                .say("a lease may have ended on the target while no import ran: everything is compared");
            return Ok(false);
        }
        self.progress.say(&format!("going on behind the source's revision {revision}"));
        Ok(true)
    }

    /// Copies and follows until the end, or a fault.
    async fn work(&mut self, goes_on: bool) -> Result<End, Fault> {
        let mut needs_copy = !goes_on;
        loop {
            match self.turn(needs_copy).await {
                Ok(Some(end)) => return Ok(end),
                Ok(None) => self
                    .progress
                    .say("a lease ended on the target that lives on the source: everything is compared"),
                Err(Fault::Compacted) => self.progress.say(
                    "the source has compacted what was to be read next: everything is compared, and what differs is copied",
                ),
                Err(fault) => return Err(fault),
            }
            needs_copy = true;
        }
    }

    /// A copy if it needs one, and what follows; `None` when it needs one again.
    async fn turn(&mut self, needs_copy: bool) -> Result<Option<End>, Fault> {
        if needs_copy {
            copy(self).await?;
            self.totals.has_lapsed = false;
        }
        let mut follow = Follow::behind(self, self.position.revision).await?;
        if self.setup.flags.finish {
            return finish(self, &mut follow).await;
        }
        follow.run(self, None).await?;
        Ok(None)
    }

    /// Writes where the import stands; 0 for nowhere: a copy begins.
    pub(crate) async fn note(&mut self, revision: i64) -> Result<(), Fault> {
        self.position.revision = revision;
        self.writer.write(&[], Some(&self.position)).await
    }

    /// Before what the source did at a revision is written: the target's revision is above it. So what a client knows of
    /// the source is never taken for something that the target has.
    pub(crate) async fn lift(&mut self, source_revision: i64) -> Result<(), Fault> {
        let is_above = self.target.revision_seen() > source_revision;
        if is_above || self.setup.flags.accept_lower_revisions {
            return Ok(());
        }
        self.raise(source_revision + self.setup.flags.limits.headroom).await
    }

    /// Raises the target's revision. It is spoken of when it takes a while.
    pub(crate) async fn raise(&mut self, goal: i64) -> Result<(), Fault> {
        let begun = self.target.revision_seen();
        let is_long = goal - begun > 10 * self.setup.flags.limits.headroom;
        let progress = &mut *self.progress;
        let tell = |now| {
            if is_long {
                progress.show(|| format!("raising the target's revision: {now} of {goal}"));
            }
        };
        self.writer.raise(goal, tell).await?;
        if is_long {
            self.progress.say(&format!("raised the target's revision from {begun} to {goal}"));
        }
        Ok(())
    }
}

/// Whether the target's revision can be raised above the source's, and in good time.
fn check_gap(setup: &Setup, (source, target): (i64, i64), progress: &mut Progress) -> Result<(), Fault> {
    let limits = &setup.flags.limits;
    let gap = source + limits.headroom - target;
    if gap > 0 && setup.flags.accept_lower_revisions {
        progress.say(&format!(
            "WARNING: the target's revision is below the source's by {gap}, and stays so: clients that resume a watch after \
             the switch may miss changes and are not told"
        ));
        return Ok(());
    }
    if gap > limits.raise_max {
        return Err(Fault::Refused(anyhow!(
            "the target's revision {target} is below the source's {source}: clients that resume a watch after the switch would \
             miss changes. Raising it takes {gap} writes, and --raise-max is {}. Better: make the target from a snapshot of \
             the source with `snapshot restore --bump-revision 1000000000 --mark-compacted`, and import into it with \
             --overwrite",
            limits.raise_max
        )));
    }
    Ok(())
}
