//! The following: what happens on the source happens on the target.
//!
//! One watch of all the source's keys is read, whatever is imported: every revision of the source changes some key, so that
//! this watch alone accounts for each of them without a word about progress, which not every release of etcd can be believed
//! on. What is not imported only moves the position.

use std::pin::Pin;

use tokio::time::Instant;

use super::fault::Fault;
use super::flags::{LAG_INTERVAL, POSITION_INTERVAL, STALL_MAX};
use super::pages::count_range;
use super::plan::{Assembler, Backlog, Batch};
use super::position::Position;
use super::ranges::RESERVED;
use super::remote::Watch;
use super::session::Session;
use super::writer::Writer;

/// Why the following has paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paused {
    /// The target is exactly at the wanted revision.
    AtGoal,
    /// A lease has ended on the target alone: everything has to be compared again.
    Lapsed,
}

/// A batch that is being written.
type Writing = Pin<Box<dyn Future<Output = Result<Batch, Fault>> + Send>>;

/// The source, followed.
pub(crate) struct Follow {
    watch: Watch,
    assembler: Assembler,
    backlog: Backlog,
    /// The last revision of the source that the target has.
    applied: i64,
    /// The last one that the position in the target says.
    noted: i64,
    noted_at: Instant,
    /// The last one that has come from the source.
    received: i64,
    received_at: Instant,
    /// The source's own, as it was asked last.
    source_revision: Option<i64>,
    is_in_step: bool,
}

impl Follow {
    /// Follows from behind a revision that the target has.
    ///
    /// # Errors
    /// [`Fault::Compacted`] when something behind it may be gone.
    pub(crate) async fn behind(session: &Session<'_>, revision: i64) -> Result<Self, Fault> {
        let watch = session.source.watch(revision + 1).await?;
        // At the compact revision itself, releases of etcd lose deletes: one before it must still be there.
        let key = RESERVED.as_bytes().into();
        count_range(&session.source, (key, Default::default()), revision).await?;
        let now = Instant::now();
        session.leases.set_applied(revision);
        Ok(Self {
            watch,
            assembler: Assembler::behind(revision),
            backlog: Backlog::default(),
            applied: revision,
            noted: revision,
            noted_at: now,
            received: revision,
            received_at: now,
            source_revision: None,
            is_in_step: false,
        })
    }

    /// Follows on, up to a goal and not beyond it, or without end.
    pub(crate) async fn run(
        &mut self,
        session: &mut Session<'_>,
        goal: Option<i64>,
    ) -> Result<Paused, Fault> {
        let mut ticks = tokio::time::interval(LAG_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let backlog_bytes_max = session.setup.backlog_bytes();
        let mut writing: Option<Writing> = None;
        loop {
            if writing.is_none() {
                if session.leases.has_lapsed() {
                    return Ok(Paused::Lapsed);
                }
                if goal.is_some_and(|goal| self.applied >= goal) {
                    self.note(session).await?;
                    return Ok(Paused::AtGoal);
                }
                writing = self.begin(session, goal).await?;
            }
            // All three can be dropped while they wait, and go on the next time.
            tokio::select! {
                biased;
                done = written(&mut writing) => {
                    writing = None;
                    let batch = done?;
                    self.noted = batch.at;
                    self.noted_at = Instant::now();
                    self.has_applied(session, &batch);
                }
                _ = ticks.tick() => self.look(session).await?,
                message = self.watch.next(), if self.backlog.bytes() < backlog_bytes_max => {
                    let (events, goes_on) = message?;
                    let whole = self.assembler.add(events, goes_on, &session.setup.ranges);
                    self.received = whole.last().map_or(self.received, |revision| revision.at);
                    self.received_at = Instant::now();
                    self.backlog.extend(whole);
                }
            }
        }
    }

    /// Begins to write what is next, if there is something.
    async fn begin(
        &mut self,
        session: &mut Session<'_>,
        goal: Option<i64>,
    ) -> Result<Option<Writing>, Fault> {
        let limits = session.setup.txn_limits();
        while let Some(batch) = self.backlog.take(limits, goal.unwrap_or(i64::MAX)) {
            if batch.is_empty() && self.noted_at.elapsed() < POSITION_INTERVAL {
                self.has_applied(session, &batch);
                continue;
            }
            session.lift(batch.at).await?;
            let (writer, position) = (session.writer.clone(), session.position.at(batch.at));
            return Ok(Some(Box::pin(write(writer, batch, position))));
        }
        Ok(None)
    }

    fn has_applied(&mut self, session: &mut Session<'_>, batch: &Batch) {
        self.applied = batch.at;
        session.leases.set_applied(batch.at);
        session.totals.events += batch.events as u64;
        session.totals.cut += u64::from(batch.parts.len() > 1);
    }

    /// Writes the position if it is behind.
    async fn note(&mut self, session: &mut Session<'_>) -> Result<(), Fault> {
        if self.noted < self.applied {
            session.note(self.applied).await?;
            self.noted = self.applied;
            self.noted_at = Instant::now();
        }
        Ok(())
    }

    /// Looks how far behind the target is, and whether the watch still says anything.
    async fn look(&mut self, session: &mut Session<'_>) -> Result<(), Fault> {
        // With writers it is never exactly where the source is when the source has answered.
        let is_close = self.source_revision.is_some_and(|before| self.applied >= before);
        session.writer.check_owned().await?;
        let (_, revision) = session.source.now().await?;
        self.source_revision = Some(revision);
        let lag = (revision - self.applied).max(0);
        if !self.is_in_step && (is_close || lag == 0) && !session.setup.flags.finish {
            self.is_in_step = true;
            session.progress.say(&format!(
                "in step, less than {} s behind the source at its revision {revision}. For the switch: stop the writers, and \
                 run the same command with --finish",
                LAG_INTERVAL.as_secs()
            ));
        }
        let events = session.totals.events;
        session.progress.show(|| {
            format!("following: revision {} of {revision}, lag {lag}, {events} events applied", self.applied)
        });
        if self.backlog.bytes() > 0 {
            // It is read no further while too much waits.
            self.received_at = Instant::now();
        }
        if revision > self.received && self.received_at.elapsed() > STALL_MAX {
            return Err(Fault::Silent { side: session.source.side(), what: "watch" });
        }
        Ok(())
    }
}

/// Waits for a batch that is being written; forever when there is none.
async fn written(writing: &mut Option<Writing>) -> Result<Batch, Fault> {
    match writing {
        Some(writing) => writing.await,
        None => std::future::pending().await,
    }
}

/// Writes a batch, and the position with the last of its parts.
async fn write(writer: Writer, batch: Batch, position: Position) -> Result<Batch, Fault> {
    let (last, before) = batch.parts.split_last().expect("a batch has a part");
    for part in before {
        writer.write(part, None).await?;
    }
    writer.write(last, Some(&position)).await?;
    Ok(batch)
}
