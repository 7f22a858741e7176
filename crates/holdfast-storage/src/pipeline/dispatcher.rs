//! The dispatcher: the only writer of the state, and the owner of the pipeline's phase.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use holdfast_env::{Failpoint, Fault, Monotonic};
use holdfast_mvcc::command::{Command, LEASES_MAX};
use holdfast_mvcc::types::{Record, Revision};
use tokio::sync::{mpsc, oneshot};

use super::control::{
    CommitPosition, Control, DumpOrder, DumpWaiter, Fence, QueueItem, Sequenced, ShardJob, Slice, step,
};
use super::dump_control::Urgency;
use super::evaluate::{Evaluated, Recent, evaluate};
use super::phase::{Merging, Normal, Pending, Phase, Poisoned, tell};
use super::sequencer::{hand_on, make_visible};
use super::shared::{Positions, Shared};
use crate::error::StorageError;
use crate::figures::{DumpEnd, DumpResult};
use crate::limits::{INLINE_BYTES_MAX, SLICE_ENTRIES_MAX, SLICE_LEASES_MAX};
use crate::memtable::{Memtable, shard_of};
use crate::record::Stored;
use crate::ring::Ring;
use crate::snapshot::install::Prepared;
use crate::types::{Applied, CancelReason, DispatchBody, DispatchItem, Seal, Snapshot, Visible};
use crate::view::View;

/// The loop's state.
pub(crate) struct Dispatcher {
    shared: Arc<Shared>,
    queue: mpsc::Receiver<QueueItem>,
    control: mpsc::Receiver<Control>,
    shards: Vec<mpsc::Sender<ShardJob>>,
    sequencer: mpsc::Sender<Sequenced>,
    /// Taken only for the duration of a transition.
    phase: Option<Phase>,
    /// The last entry evaluated.
    applied: Applied,
    recent: Recent,
    /// Taken from the queue, not yet evaluated.
    waiting: VecDeque<QueueItem>,
    stopping: bool,
}

/// The other ends, as the dispatcher needs them.
pub(crate) struct Channels {
    /// Entries and dump requests.
    pub(crate) queue: mpsc::Receiver<QueueItem>,
    /// Events that go first.
    pub(crate) control: mpsc::Receiver<Control>,
    /// To the workers.
    pub(crate) shards: Vec<mpsc::Sender<ShardJob>>,
    /// To the sequencer.
    pub(crate) sequencer: mpsc::Sender<Sequenced>,
}

enum Input {
    Control(Option<Control>),
    Queue(Option<QueueItem>),
    Space,
    Damage,
}

/// The pipeline has lost a part; only at the end of the process or of the storage.
struct Broken;

impl Dispatcher {
    /// Begins behind this entry.
    pub(crate) fn new(shared: Arc<Shared>, channels: Channels, applied: Applied) -> Self {
        let Channels { queue, control, shards, sequencer } = channels;
        let (phase, waiting) = (Some(Phase::Normal(Normal::default())), VecDeque::new());
        let recent = Recent::default();
        Self { shared, queue, control, shards, sequencer, phase, applied, recent, waiting, stopping: false }
    }

    /// Works until shutdown, or until all handles are gone.
    pub(crate) async fn run(mut self) {
        loop {
            self.heed_readers();
            while let Ok(event) = self.control.try_recv() {
                if self.on_control(event).await.is_err() {
                    return;
                }
            }
            if self.may_evaluate() && !self.waiting.is_empty() {
                if self.step().await.is_err() {
                    return;
                }
                continue;
            }
            if self.is_done() {
                return self.end();
            }
            let handled = match self.next_input().await {
                Input::Control(Some(event)) => self.on_control(event).await,
                Input::Control(None) => return self.end(),
                Input::Queue(Some(item)) => {
                    self.take_queue(item);
                    Ok(())
                }
                Input::Queue(None) => {
                    self.stopping = true;
                    Ok(())
                }
                Input::Space | Input::Damage => Ok(()),
            };
            if handled.is_err() {
                return;
            }
        }
    }

    /// Waits for whatever may come next. All arms are cancel-safe: what is not taken stays where it is.
    async fn next_input(&mut self) -> Input {
        let takes =
            self.waiting.is_empty() && !self.stopping && !matches!(self.phase, Some(Phase::Installing(_)));
        tokio::select! {
            biased;
            event = self.control.recv() => Input::Control(event),
            () = self.shared.damage.is_told() => Input::Damage,
            () = self.shared.space.notified(), if !self.waiting.is_empty() => Input::Space,
            item = self.queue.recv(), if takes => Input::Queue(item),
        }
    }

    /// Takes all that waits: what is evaluated together is answered and committed together.
    fn take_queue(&mut self, first: QueueItem) {
        self.accept(first);
        while let Ok(item) = self.queue.try_recv() {
            self.accept(item);
        }
    }

    fn accept(&mut self, item: QueueItem) {
        let Some(Phase::Poisoned(poisoned)) = &self.phase else { return self.waiting.push_back(item) };
        if let QueueItem::StartDump { sealed, .. } = item {
            let reason = poisoned.reason().to_owned();
            drop(sealed.send(Err(StorageError::Poisoned { reason })));
        }
    }

    fn may_evaluate(&self) -> bool {
        let applies = match self.phase() {
            Phase::Normal(_) | Phase::Dumping(_) | Phase::Merging(_) => true,
            Phase::Installing(_) | Phase::Poisoned(_) => false,
        };
        let held =
            self.shared.memtable_bytes.load(Ordering::Acquire) >= self.shared.config.memtable_bytes_max();
        applies && !held
    }

    /// When stopping, what is queued is still taken, unless it would have to wait for space or an install.
    fn is_done(&self) -> bool {
        self.stopping && (self.waiting.is_empty() || !self.may_evaluate())
    }

    fn end(self) {
        self.shared.dump.cancel(CancelReason::Shutdown);
        tracing::debug!("the dispatcher ends");
    }

    fn phase(&self) -> &Phase {
        self.phase.as_ref().expect("a phase is missing only within a transition")
    }

    fn change(&mut self, reason: &'static str, transition: impl FnOnce(Phase) -> Phase) {
        let phase = transition(self.phase.take().expect("a phase is missing only within a transition"));
        let mut state = self.shared.state.lock();
        if *state != phase.state() {
            tracing::debug!(from = ?*state, to = ?phase.state(), reason, "dispatcher state");
            self.shared.figures.transition(*state, phase.state(), reason);
            *state = phase.state();
        }
        drop(state);
        self.phase = Some(phase);
    }

    /// One slice of entries, or one dump request.
    async fn step(&mut self) -> Result<(), Broken> {
        let items = self.next_entries();
        if items.is_empty() {
            return match self.waiting.pop_front() {
                Some(QueueItem::StartDump { urgency, sealed, done }) => {
                    self.on_dump_request(urgency, sealed, done).await
                }
                Some(QueueItem::Entries { .. }) | None => Ok(()),
            };
        }
        let view = self.shared.view.load_full();
        self.recent.forget(view.gate.revision());
        let evaluated = {
            let _span = tracing::debug_span!("dispatch", entries = items.len()).entered();
            evaluate(&self.shared, &view, items, &mut self.recent, &mut self.applied)
        };
        match evaluated {
            Ok(evaluated) => {
                self.shared.env.faults.hit(Failpoint::ApplyAfterCommit);
                self.send(&view, evaluated).await
            }
            Err(error) => {
                let reason = self.shared.store_failed(&view.generation, &error);
                self.poison(&format!("evaluation: {reason}"));
                Ok(())
            }
        }
    }

    /// The next entries before a dump request, without those that are contained already.
    fn next_entries(&mut self) -> Vec<DispatchItem> {
        let at_hand = match self.waiting.front() {
            Some(QueueItem::Entries { items, .. }) => items.len(),
            Some(QueueItem::StartDump { .. }) | None => 0,
        };
        let mut items = Vec::with_capacity(at_hand.min(SLICE_ENTRIES_MAX));
        let mut last = self.applied.log_id;
        let mut leases = 0;
        while items.len() < SLICE_ENTRIES_MAX {
            let Some(QueueItem::Entries { items: entries, .. }) = self.waiting.front_mut() else { break };
            leases += entries.front().map_or(0, lease_changes);
            if leases > SLICE_LEASES_MAX {
                break;
            }
            let Some(item) = entries.pop_front() else {
                self.waiting.pop_front();
                continue;
            };
            if last.is_some_and(|last| item.log_id.index() <= last.index()) {
                tracing::debug!(log_id = %item.log_id, "skipping an entry that is contained already");
                self.shared.figures.skipped_entry();
                continue;
            }
            last = Some(item.log_id);
            items.push(item);
        }
        items
    }

    /// Hands records to the workers and the rest to the sequencer. What is small is encoded here, and made visible here
    /// when nothing is ahead of it: waking a worker, and the sequencer behind it, would cost more.
    async fn send(&mut self, view: &View, evaluated: Evaluated) -> Result<(), Broken> {
        let Evaluated { records, leases, answers, position, bytes } = evaluated;
        self.shared.memtable_bytes.fetch_add(bytes, Ordering::AcqRel);
        let (mut encoded, mut parts) = (Vec::new(), Vec::new());
        if bytes <= INLINE_BYTES_MAX {
            encoded = encode_here(&view.active, records);
        } else {
            parts = self.to_workers(view, records).await?;
        }
        let visible = Visible { log_id: position.applied.log_id, revision: position.head.revision };
        let memtable = Arc::clone(&view.active);
        if parts.is_empty() && self.shared.sequencing.load(Ordering::Acquire) == 0 {
            let slice = Slice {
                encoded: Vec::new(),
                parts,
                answers,
                leases,
                visible,
                commit: position,
                bytes,
                memtable,
            };
            make_visible(&self.shared, slice, encoded);
            return Ok(());
        }
        let slice = Slice { encoded, parts, answers, leases, visible, commit: position, bytes, memtable };
        self.sequence(Sequenced::Slice(Box::new(slice))).await
    }

    async fn sequence(&self, next: Sequenced) -> Result<(), Broken> {
        self.shared.sequencing.fetch_add(1, Ordering::AcqRel);
        self.sequencer.send(next).await.map_err(|_| Broken)
    }

    async fn to_workers(
        &self,
        view: &View,
        records: Vec<Record>,
    ) -> Result<Vec<oneshot::Receiver<Vec<Arc<Stored>>>>, Broken> {
        let mut by_shard: Vec<Vec<Record>> = (0..self.shards.len()).map(|_| Vec::new()).collect();
        for record in records {
            by_shard[shard_of(&record.key, self.shards.len())].push(record);
        }
        let mut parts = Vec::new();
        for (shard, records) in self.shards.iter().zip(by_shard) {
            if !records.is_empty() {
                let (done, part) = oneshot::channel();
                let memtable = Arc::clone(&view.active);
                shard.send(ShardJob::Records { records, memtable, done }).await.map_err(|_| Broken)?;
                parts.push(part);
            }
        }
        Ok(parts)
    }

    /// Sends a fence through all shards and the sequencer to the committer; directly when they have nothing, because each
    /// of them that is woken may take this thread's turn, and writers stand still meanwhile.
    async fn fence(&mut self, fence: Fence) -> Result<(), Broken> {
        if self.shared.sequencing.load(Ordering::Acquire) == 0 {
            hand_on(&self.shared, fence);
            return Ok(());
        }
        let mut reached = Vec::new();
        for shard in &self.shards {
            let (done, part) = oneshot::channel();
            shard.send(ShardJob::Fence(done)).await.map_err(|_| Broken)?;
            reached.push(part);
        }
        self.sequence(Sequenced::Fence { reached, fence }).await
    }

    /// Seals the active memtable: from here on records go to a fresh one.
    fn seal(&self) {
        let view = View::clone(&self.shared.view.load());
        let overlay = Memtable::new(view.active.shards());
        self.shared.view.store(Arc::new(View { active: overlay, frozen: Some(view.active), ..view }));
    }

    async fn on_dump_request(
        &mut self,
        urgency: Urgency,
        sealed: oneshot::Sender<Result<(), StorageError>>,
        done: DumpWaiter,
    ) -> Result<(), Broken> {
        self.shared.env.faults.hit(Failpoint::DumpStartQueued);
        self.take_up_dump(urgency, done).await?;
        // Whether the caller still waits makes no difference to the dump.
        drop(sealed.send(Ok(())));
        Ok(())
    }

    async fn take_up_dump(&mut self, urgency: Urgency, done: DumpWaiter) -> Result<(), Broken> {
        let last = self.applied.log_id;
        match self.phase.as_mut() {
            Some(Phase::Dumping(dumping)) => {
                if dumping.join(last, urgency, done) {
                    self.shared.dump.join(urgency);
                }
            }
            Some(Phase::Merging(merging)) => merging.join(urgency, done),
            Some(Phase::Normal(_)) => {
                return self.start_dump(Pending { waiters: vec![done], urgency }).await;
            }
            // Neither takes anything from the queue.
            Some(Phase::Installing(_) | Phase::Poisoned(_)) | None => {}
        }
        Ok(())
    }

    async fn start_dump(&mut self, asked: Pending) -> Result<(), Broken> {
        let Pending { waiters, urgency } = asked;
        let last = self.applied.log_id;
        if let Some(snapshot) = self.shared.snapshots.current()
            && snapshot.applied.log_id == last
            && self.shared.snapshots.is_checked(&snapshot.id)
        {
            tracing::debug!(snapshot = snapshot.id, "the newest snapshot is as new as the state");
            tell(waiters, &Ok(snapshot));
            return Ok(());
        }
        let started = self.shared.env.clock.now();
        let span = tracing::info_span!("dump.start", as_of = ?last, urgency = urgency.label());
        step(&span, 1, "the request is due");
        let scrubbed = *self.shared.scrubbed.borrow();
        self.shared.dump.begin(urgency, Seal { last, at: started, scrubbed });
        let head = self.shared.view.load().state.read().head().clone();
        self.seal();
        step(&span, 2, "the memtable is sealed, the overlay takes its place");
        self.change(urgency.label(), |phase| match phase {
            Phase::Normal(normal) => Phase::Dumping(normal.start_dump(last, waiters)),
            other => other,
        });
        step(&span, 3, "the state is DUMPING");
        self.shared.env.faults.hit(Failpoint::DumpStartSealed);
        step(&span, 4, "the fence is sent to the workers");
        let position = CommitPosition { head, applied: self.applied.clone() };
        let fence = Fence::Dump(Box::new(DumpOrder { position, started, span }));
        if self.shared.env.faults.is_planted(Fault::DumpWithoutFence) {
            self.shared.backlog.push_fence_first(fence);
        } else {
            self.fence(fence).await?;
        }
        self.shared.figures.start_stalled(self.shared.env.clock.now().since(started));
        Ok(())
    }

    async fn on_dump_done(
        &mut self,
        result: Result<Snapshot, StorageError>,
        started: Monotonic,
    ) -> Result<(), Broken> {
        let now = self.shared.env.clock.now();
        let ended = DumpResult::of(&result);
        let bytes = result.as_ref().map_or(0, |snapshot| snapshot.bytes);
        self.shared.figures.dump_ended(DumpEnd { result: ended, bytes, took: now.since(started) });
        self.shared.dump.ended(ended, now);
        if let Some(Phase::Installing(installing)) = self.phase.as_mut() {
            installing.dump_ended();
            return Ok(());
        }
        let span = tracing::info_span!("dump.finish", result = ended.label());
        step(&span, 1, "the dump is over");
        self.seal();
        step(&span, 2, "the overlay is sealed");
        self.change(ended.label(), |phase| match phase {
            Phase::Dumping(dumping) => Phase::Merging(dumping.finish(&result, now)),
            other => other,
        });
        step(&span, 3, "the state is MERGING");
        step(&span, 4, "the fence is sent to the workers");
        self.fence(Fence::Merge(span)).await?;
        self.shared.env.faults.hit(Failpoint::DumpFinishFenced);
        self.shared.figures.finish_stalled(self.shared.env.clock.now().since(now));
        Ok(())
    }

    async fn on_control(&mut self, event: Control) -> Result<(), Broken> {
        match event {
            Control::DumpDone { result, started, resume } => {
                self.on_dump_done(result, started).await?;
                // The committer may have ended meanwhile.
                resume.send(()).unwrap_or_default();
                Ok(())
            }
            Control::Merged(span) => self.on_merged(&span).await,
            Control::Install { prepared, done } => self.on_install(prepared, done).await,
            Control::Quiesced { resume } => {
                self.switch(resume);
                Ok(())
            }
            Control::Regenerated { generation, resume } => {
                let old = self.shared.view.load_full();
                self.shared.view.store(Arc::new(View { generation, ..View::clone(&old) }));
                // It goes when the last reader of it has left.
                old.generation.make_obsolete();
                resume.send(()).unwrap_or_default();
                Ok(())
            }
            Control::StoreFailed(reason) => {
                self.poison(&reason);
                Ok(())
            }
            Control::Shutdown => {
                self.stopping = true;
                self.shared.dump.cancel(CancelReason::Shutdown);
                self.queue.close();
                while let Ok(item) = self.queue.try_recv() {
                    self.accept(item);
                }
                Ok(())
            }
        }
    }

    async fn on_merged(&mut self, span: &tracing::Span) -> Result<(), Broken> {
        let Phase::Merging(merging) = self.phase() else { return Ok(()) };
        self.shared.figures.merged(self.shared.env.clock.now().since(merging.began()));
        let view = View::clone(&self.shared.view.load());
        self.shared.view.store(Arc::new(View { frozen: None, ..view }));
        let mut pending = Pending::default();
        self.change("merged", |phase| match phase {
            Phase::Merging(merging) => {
                let (normal, waiters) = Merging::merged(merging);
                pending = waiters;
                Phase::Normal(normal)
            }
            other => other,
        });
        step(span, 6, "the overlay is let go, the state is NORMAL");
        self.shared.backlog.wake();
        if pending.waiters.is_empty() { Ok(()) } else { self.start_dump(pending).await }
    }

    async fn on_install(
        &mut self,
        prepared: Box<Prepared>,
        done: oneshot::Sender<Result<(), StorageError>>,
    ) -> Result<(), Broken> {
        let busy = matches!(self.phase(), Phase::Installing(_) | Phase::Poisoned(_));
        self.change("snapshot", |phase| phase.install(prepared, done));
        if busy {
            return Ok(());
        }
        self.shared.dump.cancel(CancelReason::Install);
        self.fence(Fence::Install).await
    }

    /// The pipeline is empty: replaces the state, unless it has meanwhile come as far by itself.
    fn switch(&mut self, resume: oneshot::Sender<Arc<crate::generation::Generation>>) {
        let mut installing = None;
        self.change("quiesced", |phase| match phase {
            Phase::Installing(found) => {
                let (normal, prepared, done) = found.into_parts();
                installing = Some((prepared, done));
                Phase::Normal(normal)
            }
            other => other,
        });
        let Some((prepared, done)) = installing else { return };
        let old = self.shared.view.load_full();
        let (result, generation) = if prepared.applied.log_id <= self.applied.log_id {
            self.shared.figures.skipped_snapshot();
            self.shared.snapshots.publish(prepared.snapshot);
            (Ok(()), Arc::clone(&old.generation))
        } else {
            match self.shared.generations.switch_to(prepared.generation.number()) {
                Ok(()) => {
                    self.shared.env.faults.hit(Failpoint::InstallSwitched);
                    (Ok(()), self.replace(&old, *prepared))
                }
                Err(error) => {
                    self.shared.snapshots.publish(prepared.snapshot);
                    (Err(error), Arc::clone(&old.generation))
                }
            }
        };
        drop(resume.send(generation));
        drop(done.send(result));
    }

    fn replace(&mut self, old: &View, prepared: Prepared) -> Arc<crate::generation::Generation> {
        let Prepared { generation, state, applied, snapshot } = prepared;
        tracing::info!(snapshot = snapshot.id, "install: the state is replaced");
        let visible = Visible { log_id: applied.log_id, revision: state.head().revision };
        self.shared.auth.show(&state.head().auth);
        let gate = crate::gate::Gate::new(state.head());
        let ring = Ring::behind(state.head().revision, self.shared.config.ring_bytes());
        let compact_revision = state.head().compact_revision;
        let state = Arc::new(parking_lot::RwLock::new(state));
        let active = Memtable::new(old.active.shards());
        let view = View { state, active, frozen: None, ring, generation: Arc::clone(&generation), gate };
        self.shared.view.store(Arc::new(view));
        self.shared.leases.cut();
        generation.keep();
        old.generation.make_obsolete();
        self.recent = Recent::default();
        let scrubbed = compact_revision.map_or(0, Revision::get);
        self.shared.scrubbed.send_replace(scrubbed);
        let durable = applied.log_id;
        *self.shared.positions.lock() = Positions { stable: applied.log_id, durable };
        self.shared.disk_bytes.store(generation.stable().disk_bytes(), Ordering::Relaxed);
        *self.shared.applied.lock() = applied.clone();
        self.shared.snapshots.publish(snapshot);
        self.applied = applied;
        self.shared.visible.send_replace(visible);
        // The sequencer stands still: what it has published comes before this, what it will publish behind.
        self.shared.events.replaced(visible.revision);
        generation
    }

    /// Ends the applying when a reader came across damage, unless the store that has it was replaced meanwhile. An install
    /// is about to do that: it is waited for.
    fn heed_readers(&mut self) {
        if matches!(self.phase(), Phase::Installing(_)) {
            return;
        }
        let Some((generation, reason)) = self.shared.damage.take() else { return };
        if Arc::ptr_eq(&generation, &self.shared.view.load().generation) {
            self.poison(&format!("a read: {reason}"));
        }
    }

    fn poison(&mut self, reason: &str) {
        tracing::error!(reason, "the stable store failed: nothing is applied any more");
        // The first reason is the cause.
        self.shared.poisoned.get_or_init(|| reason.to_owned());
        self.change("store_failed", |phase| phase.poison(reason.to_owned()));
        let dropped: Vec<QueueItem> = self.waiting.drain(..).collect();
        for item in dropped {
            self.accept(item);
        }
        debug_assert!(matches!(self.phase(), Phase::Poisoned(Poisoned { .. })));
    }
}

/// How many leases an entry changes at most.
fn lease_changes(item: &DispatchItem) -> usize {
    let DispatchBody::Command { command, .. } = &item.body else { return 0 };
    match command {
        Command::LeaseGrant(_) | Command::LeaseRevoke(_) => 1,
        Command::LeaseExpire(expire) => expire.leases.len().min(LEASES_MAX),
        Command::LeaseCheckpoint(checkpoint) => checkpoint.remaining.len().min(LEASES_MAX),
        Command::Put(_)
        | Command::DeleteRange(_)
        | Command::Txn(_)
        | Command::Compact(_)
        | Command::PublishMember(_)
        | Command::RaiseAlarm(_)
        | Command::ClearAlarm(_)
        | Command::Auth(_) => 0,
    }
}

/// Does what the workers do.
fn encode_here(memtable: &Memtable, records: Vec<Record>) -> Vec<Arc<Stored>> {
    let encoded: Vec<Arc<Stored>> = records.into_iter().map(|record| Arc::new(Stored::new(record))).collect();
    for stored in &encoded {
        memtable.insert(shard_of(&stored.record.key, memtable.shards()), std::slice::from_ref(stored));
    }
    encoded
}
