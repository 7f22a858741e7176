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
use crate::pack::{Run, metas};
use crate::record::Stored;
use crate::retention::Retention;
use crate::stable::{PlacedMeta, Stable, following};
use crate::types::DispatcherState;

/// How far the scrub is. One pass removes what one compact revision made unreadable, first from the index, then, in
/// order of revision, from the store: so a delete never goes before the puts it hides. Later compactions wait for the next
/// pass: where they come often, none would ever end.
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

    /// True when there is something to remove that nobody reads.
    pub(crate) fn is_due(shared: &Shared) -> bool {
        let gate = &shared.view.load().gate;
        let compact_revision = gate.compact_revision();
        compact_revision.is_some_and(|c| c.get() > *shared.scrubbed.borrow() && gate.may_scrub(c))
    }

    /// True when it may be removed now: the compaction is stored, no dump runs, no reader is in the way.
    pub(crate) fn is_allowed(&self, shared: &Shared, stored: &Head) -> bool {
        !shared.scrubbing.is_locked() && self.allowed(shared, stored).is_some()
    }

    /// The compact revision of the pass, or of the next one, when it may be scrubbed: visible, nobody reads below. And stored:
    /// a start replays what is not, in front of the compaction, and must find what was readable there.
    fn allowed(&self, shared: &Shared, stored: &Head) -> Option<Revision> {
        let begun = self.pass.as_ref().map(|pass| pass.compact_revision);
        let compact_revision = begun.or(stored.compact_revision)?;
        let left = compact_revision.get() > *shared.scrubbed.borrow();
        let free = left && shared.view.load().gate.may_scrub(compact_revision);
        // Asked last: a dump that starts from here on contains this compaction, and one that runs suspends the scrub.
        let normal = *shared.state.lock() == DispatcherState::Normal;
        (normal && free).then_some(compact_revision)
    }

    /// Does a bounded piece of work; answers how many bytes it has written.
    pub(crate) fn slice(
        &mut self,
        shared: &Shared,
        generation: &Generation,
        stored: &Head,
    ) -> Result<usize, StoreError> {
        let Some(_alone) = shared.scrubbing.try_write() else { return Ok(0) };
        let Some(compact_revision) = self.allowed(shared, stored) else { return Ok(0) };
        let pass = self.pass.take().unwrap_or_else(|| {
            tracing::debug!(compact_revision = compact_revision.get(), "scrub: begins");
            Pass { compact_revision, step: Step::Index(None) }
        });
        let (step, written) = match pass.step {
            Step::Index(after) => (Some(scrub_index(shared, compact_revision, after.as_ref())), 0),
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

fn scrub_index(shared: &Shared, compact_revision: Revision, after: Option<&Bytes>) -> Step {
    let view = shared.view.load();
    give_way();
    let next = view.state.write().drop_compacted(compact_revision, after, LOCK_KEYS_MAX);
    next.map_or(Step::Store(RecordId::default()), |next| Step::Index(Some(next)))
}

fn scrub_store(
    shared: &Shared,
    generation: &Generation,
    compact_revision: Revision,
    from: RecordId,
) -> Result<(Option<Step>, usize), StoreError> {
    let stable = generation.stable();
    let retention = Retention::new(&shared.view.load_full(), Some(compact_revision));
    let max = stable.slice();
    let mut page = Vec::new();
    let mut touched = 0;
    for placed in stable.placed_metas(from, max.runs)? {
        if placed.first.revision > compact_revision || touched > max.bytes {
            break;
        }
        give_way();
        let run = Weighed::new(placed, &retention)?;
        if run.fate != Fate::Stays {
            touched += run.bytes;
        }
        page.push(run);
    }
    let Some(last) = page.last() else { return Ok((None, 0)) };
    let next = following(last.placed.first);
    let bytes: usize = page.iter().map(|run| run.bytes).sum();
    if page.len() > 1 && bytes < page.len() * stable.pack_bytes() / 4 {
        page.iter_mut().filter(|run| run.fate == Fate::Stays).for_each(|run| run.fate = Fate::Shrinks);
    }
    let mut written = 0;
    let mut adjacent = Vec::new();
    for run in page {
        if run.fate == Fate::Stays {
            written += rewrite(stable, &retention, std::mem::take(&mut adjacent))?;
        } else {
            adjacent.push(run);
        }
    }
    written += rewrite(stable, &retention, adjacent)?;
    Ok((Some(Step::Store(next)), written))
}

/// What is to become of a run. Mostly its meta pack alone tells: most values need not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// All of it is retained.
    Stays,
    /// Some of it is retained, or it is small and is joined with its neighbours.
    Shrinks,
    /// Nothing of it is retained.
    Goes,
}

struct Weighed {
    placed: PlacedMeta,
    fate: Fate,
    /// Of both packs, about.
    bytes: usize,
}

impl Weighed {
    fn new(placed: PlacedMeta, retention: &Retention) -> Result<Self, StoreError> {
        let metas = metas(&placed.meta)?;
        let fate = match retention.count(&metas) {
            0 => Fate::Goes,
            some if some < metas.len() => Fate::Shrinks,
            _ => Fate::Stays,
        };
        let values = metas.iter().filter_map(|meta| meta.put).map(|put| put.value_bytes as usize);
        let bytes = placed.meta.len() + values.sum::<usize>();
        Ok(Self { placed, fate, bytes })
    }
}

/// Replaces adjacent runs by what is retained of them. Answers about how many bytes it has written.
fn rewrite(stable: &Stable, retention: &Retention, adjacent: Vec<Weighed>) -> Result<usize, StoreError> {
    if adjacent.is_empty() {
        return Ok(0);
    }
    let (mut old, mut kept) = (Vec::new(), Vec::new());
    for Weighed { placed, fate, .. } in adjacent {
        give_way();
        if fate == Fate::Goes {
            old.push(stable.without_value(placed)?);
            continue;
        }
        let placed = stable.with_value(placed)?;
        kept.extend(retention.filter(placed.run.records()?).into_iter().map(Stored::new));
        old.push(placed);
    }
    let new: Vec<Run> = stable.build_runs(kept.into_iter());
    stable.replace(&old, &new)?;
    Ok(BATCH_BESIDE_BYTES + new.iter().map(Run::bytes).sum::<usize>())
}
