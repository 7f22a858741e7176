//! Watch streams: from the storage's changes to each client's queue.
//!
//! ```text
//!   storage ── changes ──► inbox ──► dispatch loop ── deliveries ──► outbound queue ──► transport ──► client
//!              (never waits)         owns the hub      (refused when     of each stream   (reads when the
//!                                      ▲     │          there is no room)      │           client does)
//!                          requests    │     │ groups behind the head          │
//!   client ──► session ────────────────┘     ▼                                 │
//!                                    catch-up readers ── slices of history     │
//!                                      ▲                                       │
//!                                      └──────── room again ◄──────────────────┘
//! ```
//!
//! # Invariants
//! - A watch never slows a write: the storage puts changes into a bounded inbox and goes on. When dispatch cannot follow,
//!   what waits is dropped there, and the watchers read it from history.
//! - A client that does not read costs its queue, which is bounded in bytes, and nothing else: its watchers become
//!   cursors. Only compaction cancels them.
//! - Everything a stream tells goes through its one queue, in the order in which it is true: created before events,
//!   progress behind all events that it speaks of.
//! - A change is encoded once, whoever gets it; a stream is woken once per batch; there is no task per watcher.
//! - Nothing polls: a stream that was full tells when it has room.
//!
//! # Module map
//! `inbox` from storage and streams, `dispatch` the loop, `table` ids and options as clients see them, `encoded` shared
//! bytes, `catch_up` the readers of history, `outbound` the queue of a stream, `session` its requests, `following` the
//! streams of the member itself, `leader` notices a lost leader, `figures` what is told of all this. Who gets what is
//! decided in `holdfast-watch`.

mod catch_up;
mod dispatch;
mod encoded;
mod figures;
mod fitness;
mod following;
mod inbox;
mod leader;
mod outbound;
mod session;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::Stream;
use holdfast_env::{Env, Monotonic, TaskHandle};
use holdfast_mvcc::command::{Alarm, AlarmKind};
use holdfast_mvcc::types::{KeyRange, MemberId};
use holdfast_proto::etcdserverpb as pb;
use holdfast_raft::Node;
use holdfast_storage::{Storage, Visible};
use holdfast_watch::{Hub, StreamId};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;

pub use following::{Followed, Following};
pub use inbox::Inbox;
pub use outbound::Responses;

use crate::codec::watch::Header;
use crate::limits;
use crate::metrics::watch::{WatchCounts, WatchFigures};
use dispatch::{Dispatch, Request};
use figures::Seen;
use outbound::{Outbound, OutboundBytes};
use session::Session;
use table::Table;

/// The watch streams of a member.
pub struct Watches {
    env: Env,
    inbox: Arc<Inbox>,
    header: Arc<Header>,
    counts: WatchCounts,
    bytes: OutboundBytes,
    next_stream: AtomicU64,
    dispatch: mpsc::Sender<(StreamId, Request)>,
    visible: watch::Receiver<Visible>,
    monitors: Monitors,
    seen: Arc<Mutex<Seen>>,
    sessions: TaskTracker,
    /// Ends the sessions.
    stop: CancellationToken,
    /// Ends the loops behind them.
    ended: CancellationToken,
    /// Taken by the first stop.
    tasks: Mutex<Vec<TaskHandle>>,
}

/// What watch streams are made from.
pub struct WatchParts {
    /// The sink that the storage publishes to.
    pub inbox: Arc<Inbox>,
    /// History.
    pub storage: Storage,
    /// Who leads, in which term.
    pub node: Node,
    /// This member, as in all headers; its revision does not matter.
    pub header: pb::ResponseHeader,
    /// Where things are counted.
    pub counts: WatchCounts,
    /// How watches are served.
    pub terms: WatchTerms,
}

/// How watches are served.
#[derive(Debug, Clone, Copy)]
pub struct WatchTerms {
    /// An idle watcher that asked for it is told so often how far it has seen.
    pub progress_interval: Duration,
    /// Bytes that may wait for one stream.
    pub stream_bytes_max: usize,
    /// From this size on a response is cut, if its watcher wants that.
    pub fragment_bytes: usize,
    /// Silence of a leader before a campaign.
    pub election_timeout: Duration,
}

/// Whether the client of a stream may watch a range, and why not.
pub type Permit = Arc<dyn Fn(&KeyRange) -> Result<(), &'static str> + Send + Sync>;

/// Whether a stream ends when the leader is lost for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaderWanted {
    /// It does.
    Yes,
    /// It goes on, silently.
    No,
}

/// Why streams end by themselves.
struct Monitors {
    /// Counts up whenever the leader has been lost for too long.
    leader_lost: watch::Receiver<u64>,
    /// True while this member is no source of events.
    unfit: watch::Receiver<bool>,
}

impl Monitors {
    fn start(
        env: &Env,
        node: &Node,
        storage: &Storage,
        (member, election_timeout): (MemberId, Duration),
        ended: &CancellationToken,
        tasks: &mut Vec<TaskHandle>,
    ) -> Self {
        let (lost, leader_lost) = watch::channel(0);
        let leader = leader::run(node.clone(), Arc::clone(&env.clock), election_timeout, lost, ended.clone());
        tasks.push(env.spawn.task("watch-leader", Box::pin(leader)));
        let (changed, unfit) = watch::channel(false);
        let corrupt = Alarm { member, kind: AlarmKind::Corrupt };
        let pause = election_timeout / 4;
        let fitness =
            fitness::run(storage.clone(), corrupt, Arc::clone(&env.clock), pause, changed, ended.clone());
        tasks.push(env.spawn.task("watch-fitness", Box::pin(fitness)));
        Self { leader_lost, unfit }
    }
}

impl Watches {
    /// Starts the loops. They end with [`Watches::stop`].
    pub fn start(env: &Env, parts: WatchParts) -> Self {
        let WatchParts { inbox, storage, node, header, counts, terms } = parts;
        let member = MemberId(header.member_id);
        let header = Arc::new(Header::new(&header));
        let ended = CancellationToken::new();
        let mut tasks = Vec::new();
        let monitors =
            Monitors::start(env, &node, &storage, (member, terms.election_timeout), &ended, &mut tasks);
        let (dispatch, requests) = mpsc::channel(limits::WATCH_REQUESTS_WAITING_MAX);
        let (done, reads) = mpsc::channel(limits::WATCH_READERS);
        let mut readers = Vec::new();
        for reader in 0..limits::WATCH_READERS {
            let (give, take) = mpsc::channel(1);
            let read = catch_up::run(reader, storage.clone(), take, done.clone());
            tasks.push(env.spawn.dedicated("watch-history", Box::pin(read)));
            readers.push(give);
        }
        let seen = Arc::new(Mutex::new(Seen::default()));
        let visible = storage.visible();
        let head = visible.borrow().revision;
        let term = node.clone();
        let looped = Dispatch {
            hub: Hub::new(head),
            table: Table::new(counts.clone()),
            inbox: Arc::clone(&inbox),
            visible: visible.clone(),
            storage,
            header: Arc::clone(&header),
            term: Box::new(move || term.health().term.get()),
            clock: Arc::clone(&env.clock),
            rng: Arc::clone(&env.rng),
            progress_interval: terms.progress_interval,
            idle: (0..readers.len()).collect(),
            readers,
            want_previous: 0,
            asked: Vec::new(),
            due: BTreeSet::new(),
            paused_until: None,
            gathering_until: None,
            oldest_missed: None,
            look_again: Monotonic::default(),
            counts: counts.clone(),
            seen: Arc::clone(&seen),
            faults: env.faults.clone(),
        };
        tasks.push(env.spawn.dedicated("watch", Box::pin(looped.run(requests, reads, ended.clone()))));
        Self {
            env: env.clone(),
            inbox,
            header,
            counts,
            bytes: OutboundBytes { queue_max: terms.stream_bytes_max, fragment: terms.fragment_bytes },
            next_stream: AtomicU64::new(1),
            dispatch,
            visible,
            monitors,
            seen,
            sessions: TaskTracker::new(),
            stop: CancellationToken::new(),
            ended,
            tasks: Mutex::new(tasks),
        }
    }

    /// Opens a stream for a client: what it is told, while a session reads what it asks for.
    pub fn open(
        &self,
        client: impl Stream<Item = Result<pb::WatchRequest, Status>> + Send + Sync + Unpin + 'static,
        leader: LeaderWanted,
        permit: Permit,
    ) -> Responses {
        let stream = StreamId::new(self.next_stream.fetch_add(1, Ordering::Relaxed));
        let outbound = Arc::new(Outbound::new(
            stream,
            self.bytes,
            Arc::clone(&self.header),
            Arc::clone(&self.inbox),
            self.counts.clone(),
        ));
        self.inbox.stream_opened();
        let leader_lost = (leader == LeaderWanted::Yes).then(|| self.leader_lost());
        let session = Session {
            stream,
            outbound: Arc::clone(&outbound),
            client,
            permit,
            dispatch: self.dispatch.clone(),
            leader_lost,
            unfit: self.monitors.unfit.clone(),
            stop: self.stop.clone(),
        };
        let run = self.sessions.track_future(session.run());
        // Owned by the tracker: a stop waits for all of them.
        drop(self.env.spawn.task("watch-session", Box::pin(run)));
        Responses::new(outbound)
    }

    /// Counts up whenever the member has been without a leader for too long.
    pub fn leader_lost(&self) -> watch::Receiver<u64> {
        let mut lost = self.monitors.leader_lost.clone();
        lost.mark_unchanged();
        lost
    }

    /// What codecs write into headers.
    pub fn header(&self) -> Arc<Header> {
        Arc::clone(&self.header)
    }

    /// How the watchers are doing.
    pub fn figures(&self) -> WatchFigures {
        let Seen { figures, streams, head, oldest_missed } = *self.seen.lock();
        let next = self.visible.borrow().revision.next().get();
        let missed = oldest_missed.unwrap_or(head.next()).get();
        let lag_revisions = if figures.watchers == 0 { 0 } else { next.saturating_sub(missed) };
        WatchFigures {
            streams,
            watchers: figures.watchers,
            lagging: figures.lagging,
            lag_revisions,
            queued_bytes: u64::try_from(self.counts.bytes_pending.get()).unwrap_or(0),
        }
    }

    /// Ends all streams at once with "server stopped".
    pub fn end_streams(&self) {
        self.stop.cancel();
    }

    /// Ends all streams, and then the loops.
    pub async fn stop(&self) {
        self.end_streams();
        self.sessions.close();
        self.sessions.wait().await;
        self.ended.cancel();
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for task in tasks {
            task.join().await;
        }
    }
}
