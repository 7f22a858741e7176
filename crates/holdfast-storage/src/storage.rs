//! The handle to the running storage.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use holdfast_env::{BoxFuture, Env, Helper, TaskHandle};
use holdfast_mvcc::auth::Auth;
use holdfast_mvcc::command::{Alarm, MemberAttributes, Range, RangeResponse, Txn, TxnResponse};
use holdfast_mvcc::types::{KeyValue, Lease, LeaseChange, LeaseId, Record, Revision};
use holdfast_mvcc::{Pairs, Piece, PieceMax, State};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::auth::IssuedToken;
use crate::changes;
use crate::config::StorageConfig;
use crate::engine::{self, EngineFactory};
use crate::error::{ExportError, ReadError, StorageError};
use crate::export::{self, Export};
use crate::figures::DispatchFigures;
use crate::limits::{DUMP_FREE_FACTOR, LOCK_KEYS_MAX, QUEUE_BYTES_MAX, SHUTDOWN};
use crate::open::{self, Running};
use crate::pieces::{self, PieceRequest, ReadPiece};
use crate::pipeline::control::{Control, QueueItem, ShardJob};
use crate::pipeline::dump_control::Urgency;
use crate::pipeline::scrub::Scrub;
use crate::pipeline::shared::Shared;
use crate::read;
use crate::snapshot::install::IncomingSnapshot;
use crate::types::{
    Applied, CancelReason, Changes, ChangesMax, DispatchItem, DispatcherState, EventSink, HistoryHash,
    LeaseFigures, Seal, Snapshot, StorageStatus, Visible,
};
use crate::view::{Keeping, View};
use crate::weight;

/// A handle to the running storage. Cheap to clone. When the last one is dropped the pipeline ends, too.
#[derive(Clone)]
pub struct Storage {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    queue: mpsc::Sender<QueueItem>,
    control: mpsc::Sender<Control>,
    dispatcher: Helper,
    /// One permit per KiB that may wait in the queue.
    queue_space: Arc<Semaphore>,
    /// To the workers; the pipeline ends when the dispatcher drops its own.
    worker_queues: Vec<mpsc::WeakSender<ShardJob>>,
    /// Keys, leases and logical bytes as they were read last.
    figures: Mutex<IndexFigures>,
    /// Held by who reads a snapshot through: who sends the same one waits for the outcome.
    checking: tokio::sync::Mutex<()>,
    /// Taken by the shutdown.
    tasks: Mutex<Vec<TaskHandle>>,
}

/// What is told of the index.
#[derive(Debug, Clone, Copy)]
struct IndexFigures {
    keys: usize,
    leases: usize,
    logical_bytes: u64,
}

impl IndexFigures {
    fn of(state: &State) -> Self {
        Self { keys: state.keys(), leases: state.lease_count(), logical_bytes: state.logical_bytes() }
    }
}

impl std::fmt::Debug for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Storage").field("dir", &self.inner.shared.config.dir).finish_non_exhaustive()
    }
}

impl Storage {
    /// Opens the stable store (rebuilding it from the newest good snapshot when it is missing or damaged), loads the
    /// index and starts the pipeline. Entries behind [`Storage::applied`] must be dispatched again from the log.
    ///
    /// # Errors
    /// Nothing runs and, beside a damaged store that was set aside, nothing was changed.
    pub async fn open(
        env: &Env,
        config: StorageConfig,
        events: Arc<dyn EventSink>,
    ) -> Result<Self, StorageError> {
        let engines = engine::factory(&env.disk, &config);
        Self::open_with(env, config, events, engines).await
    }

    /// As [`Storage::open`], with the stable store in a journal on the disk of `env` and `config.engine` naming any
    /// engine with files. For simulations, whose disk sled and redb cannot use: it never shrinks.
    pub async fn open_on_journal(
        env: &Env,
        config: StorageConfig,
        events: Arc<dyn EventSink>,
    ) -> Result<Self, StorageError> {
        let engines = engine::journal_factory(&env.disk);
        Self::open_with(env, config, events, engines).await
    }

    /// As [`Storage::open`], on other engines.
    pub(crate) async fn open_with(
        env: &Env,
        config: StorageConfig,
        events: Arc<dyn EventSink>,
        engines: EngineFactory,
    ) -> Result<Self, StorageError> {
        let (world, loading) = (env.clone(), config.clone());
        let loaded = aside(env, "hf-open", move || open::load(&world, &loading, engines)).await?;
        let Running { shared, queue, control, dispatcher, queues, tasks } =
            open::start(env, config, events, loaded);
        let queue_space = Arc::new(Semaphore::new(QUEUE_BYTES_MAX / 1024));
        let figures = {
            let view = shared.view.load();
            let state = view.state.read();
            Mutex::new(IndexFigures::of(&state))
        };
        let (checking, tasks) = (tokio::sync::Mutex::default(), Mutex::new(tasks));
        let inner = Inner {
            shared,
            queue,
            control,
            dispatcher,
            queue_space,
            worker_queues: queues,
            figures,
            checking,
            tasks,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What the stable store contained when it was opened, or contains since the last install.
    pub fn applied(&self) -> Applied {
        self.shared().applied.lock().clone()
    }

    /// Hands entries to the dispatcher, in log order; waits while its queue is full (bounded in bytes). Entries that
    /// the state contains already are skipped, and their waiters dropped. Calls must not overlap.
    ///
    /// # Errors
    /// [`StorageError::Poisoned`] and [`StorageError::Closed`]: nothing is applied by this process any more; if these
    /// entries still were, their waiters are answered, else dropped.
    pub async fn dispatch(&self, items: Vec<DispatchItem>) -> Result<(), StorageError> {
        self.check_poisoned()?;
        let bytes = items.iter().map(weight::cost).sum::<usize>();
        let kib = bytes.clamp(1024, QUEUE_BYTES_MAX).div_ceil(1024);
        let kib =
            u32::try_from(kib.min(QUEUE_BYTES_MAX / 1024)).expect("the queue's bound is far below 4 TiB");
        let space = Arc::clone(&self.inner.queue_space).acquire_many_owned(kib).await;
        let space = space.map_err(|_| StorageError::Closed)?;
        // Who reads or scrubs the index may hold it for longer than a thread takes to wake up.
        let is_light = weight::are_light(&items, bytes) && !self.shared().view.load().state.is_locked();
        let entries = QueueItem::Entries { items: VecDeque::from(items), space };
        let left = if is_light { self.hand_over(entries) } else { Some(entries) };
        if let Some(entries) = left {
            self.inner.queue.send(entries).await.map_err(|_| StorageError::Closed)?;
        }
        self.check_poisoned()
    }

    /// Hands entries to a dispatcher that waits, and evaluates them here. Gives back what there is no room for, or what is
    /// better left to the dispatcher's thread, because that is at work.
    fn hand_over(&self, entries: QueueItem) -> Option<QueueItem> {
        let mut entries = Some(entries);
        self.inner.dispatcher.help(|| {
            entries = entries.take().and_then(|entries| self.inner.queue.try_send(entries).err()).map(unsent);
        });
        entries
    }

    /// True once the stable store has failed and nothing is applied by this process any more.
    pub fn is_poisoned(&self) -> bool {
        self.shared().poisoned.get().is_some()
    }

    /// How far readers see; changes with every visible entry.
    pub fn visible(&self) -> watch::Receiver<Visible> {
        self.shared().visible.subscribe()
    }

    /// Answers a range from local state, in small steps under the index lock; the revision beside it is the newest
    /// one visible when the read began. Blocks on the stable store when values are cold: call it where blocking is
    /// allowed, or try [`Storage::range_if_hot`] first.
    pub fn range(&self, request: &Range) -> Result<(RangeResponse, Revision), ReadError> {
        read::range_into(self.shared(), request, Keeping::Pairs, |_| Vec::new())
    }

    /// As [`Storage::range`], with the pairs handed on as they are found, to what `pairs` makes of the newest visible revision.
    /// That must not keep their keys and values, which may be parts of something larger.
    pub fn range_into<P: Pairs>(
        &self,
        request: &Range,
        pairs: impl FnOnce(Revision) -> P,
    ) -> Result<RangeResponse<P>, ReadError> {
        read::range_into(self.shared(), request, Keeping::Nothing, pairs).map(|(response, _)| response)
    }

    /// Answers a transaction that only reads ([`Txn::is_read_only`], else it panics), at the newest visible revision,
    /// which is returned beside it. Blocks as [`Storage::range`] does.
    pub fn read_txn(&self, txn: &Txn) -> Result<(TxnResponse, Revision), ReadError> {
        read::read_txn(self.shared(), txn)
    }

    /// As [`Storage::range`], but never blocks: `None` when it would have to, because a value is not in memory or
    /// because a command is being evaluated. Meant for small ranges: what was read before the first cold value is lost.
    pub fn range_if_hot(&self, request: &Range) -> Option<Result<(RangeResponse, Revision), ReadError>> {
        read::range_if_hot(self.shared(), request)
    }

    /// True for a read of many keys, which takes turns with others; false also when that cannot be told without waiting. Blocks
    /// on nothing.
    pub fn is_long(&self, request: &Range) -> bool {
        read::is_long(self.shared(), request)
    }

    /// As [`Storage::is_long`], for a transaction that only reads.
    pub fn is_long_txn(&self, txn: &Txn) -> bool {
        read::is_long_txn(self.shared(), txn)
    }

    /// The next pairs of a list in key order, so that a list of any length is read without being held. Nothing stays
    /// behind between two pieces, and nothing holds the scrub back: blocks as [`Storage::range`] does.
    ///
    /// # Errors
    /// As those of [`Storage::range`]; for a later piece also because its revision was compacted meanwhile.
    pub fn range_piece(&self, request: &PieceRequest, max: &PieceMax) -> Result<ReadPiece<Piece>, ReadError> {
        pieces::piece(self.shared(), request, max)
    }

    /// How many keys of such a list are left; values are not read.
    ///
    /// # Errors
    /// As those of [`Storage::range_piece`].
    pub fn range_count(&self, request: &PieceRequest) -> Result<ReadPiece<u64>, ReadError> {
        pieces::count(self.shared(), request)
    }

    /// All changes from a revision on (inclusive), ascending, as many whole revisions as `max` allows. Near the head it
    /// reads memory only; further back it blocks on the stable store. Lets no change be missed: a scrub, an install and
    /// a dump change nothing of what is returned.
    ///
    /// # Errors
    /// `from` lies below the compact revision; at exactly the compact revision everything is still there. Or the
    /// stable store failed.
    pub fn changes(&self, from: Revision, max: ChangesMax) -> Result<Changes, ReadError> {
        changes::changes(self.shared(), from, max)
    }

    /// The state of each record's key just before it, in the records' order; `None` for a creation, and when that state
    /// is compacted. Blocks on the stable store when values are cold.
    pub fn previous(&self, records: &[Record]) -> Result<Vec<Option<KeyValue>>, ReadError> {
        changes::previous(self.shared(), records)
    }

    /// As [`Storage::previous`] for one record, but never reads the stable store: the outer `None` says that the value is
    /// not in memory. Waits for the index no longer than one slice is evaluated.
    pub fn previous_if_hot(&self, record: &Record) -> Option<Option<KeyValue>> {
        changes::previous_if_hot(self.shared(), record)
    }

    /// Hashes the history up to `revision` (the newest when `None`). Reads everything: call it where blocking is fine.
    pub fn history_hash(&self, revision: Option<Revision>) -> Result<HistoryHash, ReadError> {
        read::history_hash(self.shared(), revision)
    }

    /// Begins to read out everything that is kept, as of a moment between this call and its end: also entries that were
    /// committed and not yet visible when it began. While the export lives, no compaction frees space. Cancel-safe.
    ///
    /// # Errors
    /// [`ExportError::Closed`].
    pub async fn export(&self) -> Result<Export, ExportError> {
        let export = Export::begin(Arc::clone(&self.inner.shared));
        let mut visible = self.visible();
        let mut ended = self.shared().ended.subscribe();
        // Both arms are cancel-safe: they only watch.
        tokio::select! {
            biased;
            _ = ended.wait_for(|&ended| ended) => return Err(ExportError::Closed),
            seen = visible.wait_for(|seen| seen.revision >= export::revision(&export)) => {
                seen.map_err(|_| ExportError::Closed)?;
            }
        }
        Ok(export)
    }

    /// A checksum over the index and head as evaluated so far: equal on members that stand at the same log entry.
    /// Compare it while nothing is dispatched.
    pub fn state_digest(&self) -> u64 {
        self.shared().view.load().state.read().digest()
    }

    /// The members' attributes as of the visible state.
    pub fn members(&self) -> Vec<MemberAttributes> {
        self.shared().view.load().gate.members()
    }

    /// The alarms that are active as of the visible state.
    pub fn alarms(&self) -> Arc<[Alarm]> {
        self.shared().view.load().gate.alarms()
    }

    /// True when permissions are checked, as of the visible state. One relaxed load.
    pub fn is_auth_enabled(&self) -> bool {
        self.shared().auth.is_enabled()
    }

    /// Users and roles as of the visible state.
    pub fn auth(&self) -> Arc<Auth> {
        self.shared().auth.current()
    }

    /// The tokens that commands have brought since the last call, in order; also those that are not visible yet. The oldest
    /// are missing when there were very many.
    pub fn take_tokens(&self) -> VecDeque<IssuedToken> {
        self.shared().auth.take_tokens()
    }

    /// A lease as of what is evaluated, which is committed and may be a little ahead of what is visible.
    pub fn lease(&self, id: LeaseId) -> Option<Lease> {
        self.shared().view.load().state.read().lease(id)
    }

    /// The ids of all leases, ascending. Read in small steps under the index lock.
    pub fn lease_ids(&self) -> Vec<LeaseId> {
        let view = self.shared().view.load();
        let mut ids = Vec::new();
        loop {
            let before = ids.len();
            let after = ids.last().copied();
            ids.extend(view.state.read().leases_behind(after).take(LOCK_KEYS_MAX).map(|(id, _)| id));
            if ids.len() == before {
                return ids;
            }
        }
    }

    /// The keys that are attached to a lease, ascending. Read in small steps under the index lock.
    pub fn lease_keys(&self, id: LeaseId) -> Vec<Bytes> {
        let view = self.shared().view.load();
        let mut keys: Vec<Bytes> = Vec::new();
        loop {
            let before = keys.len();
            {
                let state = view.state.read();
                let last = keys.last().cloned().unwrap_or_default();
                let some = state.attached_keys_behind(id, &last).take(LOCK_KEYS_MAX);
                keys.extend(some.map(Bytes::copy_from_slice));
            }
            if keys.len() == before {
                return keys;
            }
        }
    }

    /// True when no key is attached to the lease.
    pub fn is_lease_empty(&self, id: LeaseId) -> bool {
        self.shared().view.load().state.read().attached_keys(id).next().is_none()
    }

    /// All leases; what happens to them from here on is kept for [`Storage::take_lease_changes`]. One follows at a time.
    pub fn follow_leases(&self) -> Vec<(LeaseId, Lease)> {
        let view = self.shared().view.load();
        let state = view.state.read();
        self.shared().leases.follow();
        state.leases().collect()
    }

    /// What happened to leases since the last call, in order; also what is not visible yet. `None` when the thread is lost,
    /// because too much happened or the state was replaced: follow anew.
    pub fn take_lease_changes(&self) -> Option<Vec<LeaseChange>> {
        self.shared().leases.take()
    }

    /// Resolves after the next change of a lease; one that came before counts. Cancel-safe.
    pub async fn lease_changed(&self) {
        self.shared().leases.changed().await;
    }

    /// Ends what [`Storage::follow_leases`] began.
    pub fn unfollow_leases(&self) {
        self.shared().leases.cut();
    }

    /// Figures for status and metrics. Takes only short locks: while commands are evaluated, keys and logical bytes are
    /// those of the last time that they could be read.
    pub fn status(&self) -> StorageStatus {
        let shared = self.shared();
        let positions = *shared.positions.lock();
        let view = shared.view.load();
        let IndexFigures { keys, leases, logical_bytes } = self.index_figures(&view);
        StorageStatus {
            state: *shared.state.lock(),
            poisoned: shared.poisoned.get().cloned(),
            visible: *shared.visible.borrow(),
            stable: positions.stable,
            durable: positions.durable,
            snapshot: shared.snapshots.current().and_then(|snapshot| snapshot.applied.log_id),
            logical_bytes,
            disk_bytes: shared.disk_bytes.load(Ordering::Relaxed),
            keys,
            leases: LeaseFigures {
                count: leases,
                granted: shared.leases.granted.load(Ordering::Relaxed),
                ended: shared.leases.ended.load(Ordering::Relaxed),
            },
            memtable_bytes: shared.memtable_bytes.load(Ordering::Relaxed),
            active: view.active.figures(),
            frozen: view.frozen.as_ref().map_or_else(Default::default, |frozen| frozen.figures()),
            queue_messages: self.inner.queue.max_capacity() - self.inner.queue.capacity(),
            queue_bytes: QUEUE_BYTES_MAX - self.inner.queue_space.available_permits() * 1024,
            worker_queues: self.inner.worker_queues.iter().map(waiting_for).collect(),
            dispatch: DispatchFigures {
                overlay_reads: shared.cache.overlay_reads(),
                ..shared.figures.read()
            },
            evaluation_reads: shared.evaluation_reads.load(Ordering::Relaxed),
        }
    }

    /// Bytes of all retained records, as of what is evaluated or a moment before; the same on all members. Takes only short
    /// locks.
    pub fn logical_bytes(&self) -> u64 {
        self.index_figures(&self.shared().view.load()).logical_bytes
    }

    /// As they were read last.
    fn index_figures(&self, view: &View) -> IndexFigures {
        let mut figures = self.inner.figures.lock();
        if let Some(state) = view.state.try_read() {
            *figures = IndexFigures::of(&state);
        }
        *figures
    }

    /// A dump must not take the space that the log needs.
    fn check_space(&self) -> Result<(), StorageError> {
        let shared = self.shared();
        let dir = &shared.config.dir;
        let logical_bytes = self.index_figures(&shared.view.load()).logical_bytes;
        let needed_bytes = logical_bytes.saturating_mul(DUMP_FREE_FACTOR);
        let free_bytes =
            shared.env.disk.free_bytes(dir).map_err(StorageError::io(dir, "measure the free space"))?;
        if free_bytes < needed_bytes {
            return Err(StorageError::NoSpaceForDump { path: dir.clone(), free_bytes, needed_bytes });
        }
        Ok(())
    }

    /// Waits until what compaction made unreadable is removed from this member's index and stable store. Waits on
    /// while a dump runs, and while readers are below `compact_revision`.
    pub async fn scrubbed(&self, compact_revision: Revision) -> Result<(), StorageError> {
        let mut scrubbed = self.shared().scrubbed.subscribe();
        self.shared().backlog.wake();
        let mut ended = self.shared().ended.subscribe();
        // Both arms are cancel-safe: they only watch.
        tokio::select! {
            biased;
            done = scrubbed.wait_for(|&at| at >= compact_revision.get()) => done.map(drop).map_err(|_| StorageError::Closed),
            _ = ended.wait_for(|&ended| ended) => self.check_poisoned().and(Err(StorageError::Closed)),
        }
    }

    /// The compact revision behind which this member's index and stable store hold nothing unreadable any more; changes
    /// at the end of each scrub. 0 when nothing was ever scrubbed.
    pub fn scrubs(&self) -> watch::Receiver<u64> {
        self.shared().scrubbed.subscribe()
    }

    /// Starts a dump as of everything dispatched so far; the first future resolves when the state is sealed (writes
    /// go on), the second when the snapshot is verified and durable. A running dump is joined when nothing was
    /// dispatched since it began; else one more dump follows it, for all who ask meanwhile.
    ///
    /// For who needs the snapshot, now: the dump does not end because of what is written meanwhile; entries are held
    /// back instead, when they fill half of the memory budget.
    ///
    /// # Errors
    /// No dump was begun: [`StorageError::NoSpaceForDump`], [`StorageError::Poisoned`], [`StorageError::Closed`]. The
    /// second future ends with an error when the dump did: the newest older snapshot stays in force.
    pub async fn start_dump(
        &self,
    ) -> Result<BoxFuture<'static, Result<Snapshot, StorageError>>, StorageError> {
        self.request_dump(Urgency::Demanded).await
    }

    /// As [`Storage::start_dump`], for who only wants the log to become shorter. The dump leaves half of its time to
    /// others, and is cancelled when what is written meanwhile fills half of the memory budget.
    ///
    /// # Errors
    /// As [`Storage::start_dump`], and [`StorageError::DumpPostponed`] for a while after a dump that did not succeed:
    /// 30 s, then twice as long after each further one, up to 10 min.
    pub async fn start_dump_by_policy(
        &self,
    ) -> Result<BoxFuture<'static, Result<Snapshot, StorageError>>, StorageError> {
        if let Some(wait) = self.shared().dump.wait(self.shared().env.clock.now()) {
            return Err(StorageError::DumpPostponed { wait });
        }
        self.request_dump(Urgency::Policy).await
    }

    /// Ends the running dump early, with [`StorageError::DumpCancelled`] for all who wait for it; false when none runs.
    /// Who waits for the next one goes on waiting.
    pub fn cancel_dump(&self, reason: CancelReason) -> bool {
        self.shared().dump.cancel(reason)
    }

    /// Where the last dump was sealed, while there is work that the next one waits for: until that dump is over, what was
    /// written meanwhile is merged, and the scrub has been through the store, unless it has nothing to remove, or somebody
    /// reads that.
    pub fn behind(&self) -> Option<Seal> {
        let shared = self.shared();
        let seal = shared.dump.seal()?;
        // Taken out first: nothing else is locked under it.
        let state = *shared.state.lock();
        let is_busy = match state {
            DispatcherState::Dumping | DispatcherState::Merging => true,
            DispatcherState::Normal => *shared.scrubbed.borrow() == seal.scrubbed && Scrub::is_due(shared),
            DispatcherState::Installing | DispatcherState::Poisoned => false,
        };
        is_busy.then_some(seal)
    }

    /// Tells that somebody waits for the work that [`Storage::behind`] tells of: it takes no rests for half a second.
    pub fn await_work(&self) {
        self.shared().await_work();
    }

    async fn request_dump(
        &self,
        urgency: Urgency,
    ) -> Result<BoxFuture<'static, Result<Snapshot, StorageError>>, StorageError> {
        self.check_poisoned()?;
        self.check_space()?;
        let (sealed, is_sealed) = oneshot::channel();
        let (done, is_done) = oneshot::channel();
        let request = QueueItem::StartDump { urgency, sealed, done };
        self.inner.queue.send(request).await.map_err(|_| StorageError::Closed)?;
        is_sealed.await.map_err(|_| StorageError::Closed)??;
        Ok(Box::pin(async move { is_done.await.unwrap_or(Err(StorageError::Closed)) }))
    }

    /// The newest snapshot. The one that a start found is read through a while later; see [`Storage::check_snapshot`].
    pub fn current_snapshot(&self) -> Option<Snapshot> {
        self.shared().snapshots.current()
    }

    /// Makes sure that a snapshot is the current one and good, before it is sent: reads it through unless this process has,
    /// in steps. Blocks on files: call it where that is allowed. One that is bad is put out of the way.
    ///
    /// # Errors
    /// [`StorageError::BadSnapshot`] and [`StorageError::NotCurrent`]: take the current one, or a dump.
    pub async fn check_snapshot(&self, id: &str) -> Result<(), StorageError> {
        let _turn = self.inner.checking.lock().await;
        self.shared().snapshots.check_in_steps(id).await
    }

    /// Has a snapshot read through again before it is sent again: a receiver has refused it.
    pub fn doubt_snapshot(&self, id: &str) {
        self.shared().snapshots.doubt(id);
    }

    /// How many snapshots were found damaged while they were current, since the start. A dump replaces the last one.
    pub fn damaged_snapshots(&self) -> watch::Receiver<u64> {
        self.shared().snapshots.damaged()
    }

    /// Begins to receive a snapshot, written aside.
    pub fn receive_snapshot(&self) -> Result<IncomingSnapshot, StorageError> {
        IncomingSnapshot::new(Arc::clone(&self.inner.shared))
    }

    /// Verifies a received snapshot and replaces the state by it; on return it is current, durable and visible.
    /// Waiters for skipped entries are dropped (their outcome is unknown). A snapshot that is not ahead of the state
    /// changes nothing.
    ///
    /// # Errors
    /// The state is as before.
    pub async fn install(&self, incoming: IncomingSnapshot) -> Result<(), StorageError> {
        self.check_poisoned()?;
        let prepared = aside(&self.shared().env, "hf-install", move || incoming.prepare()).await?;
        let (done, is_done) = oneshot::channel();
        let event = Control::Install { prepared: Box::new(prepared), done };
        self.inner.control.send(event).await.map_err(|_| StorageError::Closed)?;
        is_done.await.map_err(|_| StorageError::Closed)?
    }

    /// Drains the pipeline to the stable store (at most 5 s) and ends it. What could not be drained is replayed from
    /// the log at the next start.
    pub async fn shutdown(&self) {
        let tasks = std::mem::take(&mut *self.inner.tasks.lock());
        if self.inner.control.send(Control::Shutdown).await.is_err() {
            tracing::debug!("the pipeline had ended before the shutdown");
        }
        let shared = Arc::clone(&self.inner.shared);
        let ended = async {
            for task in tasks {
                task.join().await;
            }
        };
        let timer = shared.env.clock.sleep(SHUTDOWN);
        // Neither arm is entered again: cancelling is the point.
        tokio::select! {
            biased;
            () = ended => tracing::debug!("the storage has ended"),
            () = timer => {
                shared.abandon.store(true, Ordering::Release);
                shared.backlog.wake();
                tracing::warn!("the storage did not drain in time: the rest is replayed from the log");
            }
        }
        shared.ended.send_replace(true);
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.inner.shared
    }

    fn check_poisoned(&self) -> Result<(), StorageError> {
        match self.shared().poisoned.get() {
            Some(reason) => Err(StorageError::Poisoned { reason: reason.clone() }),
            None => Ok(()),
        }
    }
}

/// How many slices wait for a worker; none once the pipeline has ended.
fn waiting_for(worker: &mpsc::WeakSender<ShardJob>) -> usize {
    worker.upgrade().map_or(0, |queue| queue.max_capacity() - queue.capacity())
}

/// Runs something long that blocks on files where that is allowed.
async fn aside<T: Send + 'static>(
    env: &Env,
    name: &str,
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    let (done, is_done) = oneshot::channel();
    let task = env.spawn.background(
        name,
        Box::pin(async move {
            // The caller may have been cancelled; what was built is dropped then.
            drop(done.send(work()));
        }),
    );
    let result = is_done.await;
    task.join().await;
    result.unwrap_or(Err(StorageError::Closed))
}

/// What a channel did not take.
fn unsent(error: mpsc::error::TrySendError<QueueItem>) -> QueueItem {
    match error {
        // Closed: the caller learns it when it sends.
        mpsc::error::TrySendError::Full(item) | mpsc::error::TrySendError::Closed(item) => item,
    }
}
