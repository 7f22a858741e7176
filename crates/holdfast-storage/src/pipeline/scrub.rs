//! The scrub: removes what compaction made unreadable from the index and the stable store, in slices, and joins small
//! runs on the way.

use bytes::Bytes;
use holdfast_env::give_way;
use holdfast_mvcc::Head;
use holdfast_mvcc::types::{RecordId, Revision};

use super::shared::Shared;
use crate::error::StoreError;
use crate::generation::Generation;
use crate::limits::{BATCH_BESIDE_BYTES, LOCK_KEYS_MAX};
use crate::pack::Run;
use crate::record::Stored;
use crate::retention::Retention;
use crate::stable::{PlacedRun, following};
use crate::types::DispatcherState;

/// How far the scrub is. One pass removes what one compact revision made unreadable, first from the index, then, in
/// order of revision, from the store: so a delete never goes before the puts it hides.
#[derive(Debug, Default)]
pub(crate) struct Scrub {
    pass: Option<Pass>,
}

#[derive(Debug)]
struct Pass {
    compact_revision: Revision,
    step: Step,
}

#[derive(Debug)]
enum Step {
    Index(Option<Bytes>),
    Store(RecordId),
}

impl Scrub {
    /// True when there is something to remove, perhaps not at once.
    pub(crate) fn is_wanted(shared: &Shared) -> bool {
        let compact_revision = shared.view.load().gate.compact_revision();
        compact_revision.is_some_and(|c| c.get() > *shared.scrubbed.borrow())
    }

    /// True when it may be removed now: the compaction is stored, no dump runs, no reader is in the way.
    pub(crate) fn is_allowed(shared: &Shared, stored: &Head) -> bool {
        !shared.scrubbing.is_locked() && allowed(shared, stored).is_some()
    }

    /// Does a bounded piece of work; answers how many bytes it has written.
    pub(crate) fn slice(
        &mut self,
        shared: &Shared,
        generation: &Generation,
        stored: &Head,
    ) -> Result<usize, StoreError> {
        let Some(_alone) = shared.scrubbing.try_write() else { return Ok(0) };
        let Some(compact_revision) = allowed(shared, stored) else { return Ok(0) };
        let pass = match self.pass.take() {
            Some(pass) if pass.compact_revision == compact_revision => pass,
            _ => {
                tracing::debug!(compact_revision = compact_revision.get(), "scrub: begins");
                Pass { compact_revision, step: Step::Index(None) }
            }
        };
        let (step, written) = match pass.step {
            Step::Index(after) => (scrub_index(shared, compact_revision, after.as_ref()), 0),
            Step::Store(from) => scrub_store(shared, generation, compact_revision, from)?,
        };
        if let Some(step) = step {
            self.pass = Some(Pass { compact_revision, step });
            return Ok(written);
        }
        generation.stable().set_scrubbed(compact_revision)?;
        shared.scrubbed.send_replace(compact_revision.get());
        tracing::debug!(compact_revision = compact_revision.get(), "scrub: done");
        Ok(written)
    }
}

/// The compact revision that may be scrubbed: visible, nobody reads below, and evaluation is not ahead of it. And stored:
/// a start replays what is not, in front of the compaction, and must find what was readable there.
fn allowed(shared: &Shared, stored: &Head) -> Option<Revision> {
    let view = shared.view.load();
    let compact_revision = view.gate.scrubbable()?;
    let evaluated = view.state.read().head().compact_revision;
    // Asked last: a dump that starts from here on contains this compaction, and one that runs suspends the scrub.
    let normal = *shared.state.lock() == DispatcherState::Normal;
    (normal && evaluated == Some(compact_revision) && stored.compact_revision == evaluated)
        .then_some(compact_revision)
}

fn scrub_index(shared: &Shared, compact_revision: Revision, after: Option<&Bytes>) -> Option<Step> {
    let view = shared.view.load();
    give_way();
    let mut state = view.state.write();
    if state.head().compact_revision != Some(compact_revision) {
        // A newer compaction was evaluated since we looked: begin again when it is visible.
        return Some(Step::Index(after.cloned()));
    }
    match state.drop_compacted(after, LOCK_KEYS_MAX) {
        Some(next) => Some(Step::Index(Some(next))),
        None => Some(Step::Store(RecordId::default())),
    }
}

fn scrub_store(
    shared: &Shared,
    generation: &Generation,
    compact_revision: Revision,
    from: RecordId,
) -> Result<(Option<Step>, usize), StoreError> {
    let stable = generation.stable();
    let mut page = stable.runs(from, stable.slice())?;
    page.retain(|placed| placed.run.first.revision <= compact_revision);
    let Some(last) = page.last() else { return Ok((None, 0)) };
    let next = following(last.run.first);
    let mut group: Vec<PlacedRun> = Vec::new();
    let mut written = 0;
    for placed in page {
        if placed.is_in_pieces() {
            written += rewrite(shared, generation, compact_revision, &std::mem::take(&mut group))?;
            written += rewrite(shared, generation, compact_revision, &[placed])?;
        } else {
            group.push(placed);
        }
    }
    written += rewrite(shared, generation, compact_revision, &group)?;
    Ok((Some(Step::Store(next)), written))
}

/// Replaces adjacent runs by what is retained of them, when that saves something. Answers about how many bytes it has written.
fn rewrite(
    shared: &Shared,
    generation: &Generation,
    compact_revision: Revision,
    group: &[PlacedRun],
) -> Result<usize, StoreError> {
    if group.is_empty() {
        return Ok(0);
    }
    let Some((kept, dropped)) = retained(shared, compact_revision, group)? else { return Ok(0) };
    let bytes: usize = group.iter().map(|placed| placed.run.bytes()).sum();
    let small = group.len() > 1 && bytes < group.len() * generation.stable().pack_bytes() / 4;
    if dropped == 0 && !small {
        return Ok(0);
    }
    if kept.is_empty() || !group[0].is_in_pieces() {
        let new: Vec<Run> = generation.stable().build_runs(kept.into_iter());
        generation.stable().replace(group, &new)?;
        return Ok(BATCH_BESIDE_BYTES + new.iter().map(Run::bytes).sum::<usize>());
    }
    Ok(0)
}

/// The records that stay, and how many go; `None` when a newer compaction was evaluated meanwhile.
fn retained(
    shared: &Shared,
    compact_revision: Revision,
    group: &[PlacedRun],
) -> Result<Option<(Vec<Stored>, usize)>, StoreError> {
    let view = shared.view.load_full();
    let retention = Retention::new(&view, Some(compact_revision));
    let (mut kept, mut dropped) = (Vec::new(), 0);
    for placed in group {
        give_way();
        let records = placed.run.records()?;
        let all = records.len();
        let some = retention.filter(records);
        dropped += all - some.len();
        kept.extend(some.into_iter().map(Stored::new));
    }
    let same = view.state.read().head().compact_revision == Some(compact_revision);
    Ok(same.then_some((kept, dropped)))
}
