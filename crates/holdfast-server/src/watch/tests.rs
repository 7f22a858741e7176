//! The dispatch loop over a real storage, stepped: what it leaves to history, and what ids it gives.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::stream::StreamExt;
use holdfast_env::{Faults, LogId, LogIndex, Term};
use holdfast_mvcc::auth::Caller;
use holdfast_mvcc::command::{Command, Put};
use holdfast_mvcc::types::Revision;
use holdfast_raft::{PeerNet, PeerNetConfig};
use holdfast_storage::{DispatchBody, DispatchItem, EngineKind, EventSink, StorageConfig};
use prost::Message;

use super::*;
use crate::codec;
use crate::codec::watch::Response;
use crate::metrics::{Fixed, Metrics};

const PATIENCE: Duration = Duration::from_secs(30);
const STREAM: StreamId = StreamId::new(1);

/// A dispatch loop that does not run yet, its storage, and one stream.
struct Fixture {
    env: Env,
    storage: Storage,
    inbox: Arc<Inbox>,
    metrics: Metrics,
    dispatch: Dispatch,
    reads: mpsc::Receiver<catch_up::Read>,
    header: Arc<Header>,
    responses: Responses,
    _directory: tempfile::TempDir,
}

async fn fixture(inbox_bytes_max: usize) -> Fixture {
    let runtime = tokio::runtime::Handle::current();
    let net = Arc::new(PeerNet::new(runtime.clone(), PeerNetConfig::default()));
    let env = Env::real(runtime, net);
    let directory = tempfile::tempdir().unwrap();
    let metrics = Metrics::new(&Fixed { member_id: 1, quota_bytes: 1 });
    let counts = metrics.watch.clone();
    let inbox = Arc::new(Inbox::new(inbox_bytes_max, metrics.events.clone(), counts.clone()));
    let config = StorageConfig {
        dir: directory.path().to_owned(),
        engine: EngineKind::Memory,
        workers: 1,
        memory_bytes: 64 << 20,
        checkpoint_revisions: 64 << 10,
    };
    let sink = Arc::<Inbox>::clone(&inbox);
    let storage = Storage::open(&env, config, sink).await.unwrap();
    let header = Arc::new(Header::new(&pb::ResponseHeader::default()));
    let (done, reads) = mpsc::channel(1);
    let (give, take) = mpsc::channel(1);
    // It ends with its sender, which is the loop's.
    drop(env.spawn.dedicated("reader", Box::pin(catch_up::run(0, storage.clone(), take, done))));
    let bytes = OutboundBytes { queue_max: 4 << 20, fragment: 1 << 20 };
    let outbound = Outbound::new(STREAM, bytes, Arc::clone(&header), Arc::clone(&inbox), counts.clone());
    let outbound = Arc::new(outbound);
    let mut dispatch = Dispatch {
        hub: Hub::new(Revision::FRESH),
        table: Table::new(counts.clone()),
        inbox: Arc::clone(&inbox),
        visible: storage.visible(),
        storage: storage.clone(),
        header: Arc::clone(&header),
        term: Box::new(|| 3),
        clock: Arc::clone(&env.clock),
        rng: Arc::clone(&env.rng),
        progress_interval: Duration::from_secs(600),
        readers: vec![give],
        idle: vec![0],
        want_previous: 0,
        asked: Vec::new(),
        due: BTreeSet::new(),
        paused_until: None,
        gathering_until: None,
        oldest_missed: None,
        look_again: Monotonic::default(),
        counts,
        seen: Arc::default(),
        faults: Faults::of_tests(),
    };
    inbox.stream_opened();
    dispatch.answer(STREAM, Request::Open(Arc::clone(&outbound)));
    let responses = Responses::new(outbound);
    Fixture { env, storage, inbox, metrics, dispatch, reads, header, responses, _directory: directory }
}

fn put(index: u64) -> DispatchItem {
    let put = Put {
        key: Bytes::from_static(b"k"),
        value: Bytes::from(index.to_string()),
        lease: None,
        prev_kv: false,
        ignore_value: false,
        ignore_lease: false,
    };
    let log_id = LogId::new(Term::new(1), LogIndex::new(index));
    let body = DispatchBody::Command { command: Command::Put(put), caller: Caller::Server, respond: None };
    DispatchItem { log_id, body }
}

fn watcher() -> codec::watch::Create {
    codec::watch::create(&pb::WatchCreateRequest { key: Bytes::from_static(b"k"), ..Default::default() })
}

impl Fixture {
    /// Puts so many times, one after the other, and waits until all was published.
    async fn put(&self, count: u64) {
        let before = self.storage.visible().borrow().revision.get();
        let mut visible = self.storage.visible();
        for n in 1..=count {
            self.storage.dispatch(vec![put(before + n)]).await.unwrap();
            let wanted = Revision::new(before + n);
            let seen = visible.wait_for(|visible| visible.revision >= wanted);
            drop(tokio::time::timeout(PATIENCE, seen).await.unwrap().unwrap());
        }
        let published = async {
            while self.metrics.events.puts.get() < before - 1 + count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, published).await.unwrap();
    }

    /// Lets the loop run until the stream has told so many revisions.
    async fn told(self, count: usize) -> Vec<i64> {
        let Self { env, storage, dispatch, reads, header, mut responses, .. } = self;
        let (requests, asked) = mpsc::channel(1);
        let ended = CancellationToken::new();
        let running = env.spawn.dedicated("watch", Box::pin(dispatch.run(asked, reads, ended.clone())));
        let mut told = Vec::new();
        while told.len() < count {
            let response = tokio::time::timeout(PATIENCE, responses.next()).await;
            let decoded = decoded(&response.unwrap().unwrap().unwrap(), &header);
            // Created was queued before the loop ran, and so before it knew the term.
            assert!(decoded.created || decoded.header.unwrap().raft_term == 3, "{decoded:?}");
            told.extend(decoded.events.iter().map(|event| event.kv.as_ref().unwrap().mod_revision));
        }
        ended.cancel();
        running.join().await;
        drop(requests);
        storage.shutdown().await;
        told
    }
}

fn decoded(response: &Response, header: &Header) -> pb::WatchResponse {
    let mut buffer = bytes::BytesMut::new();
    response.encode(header, &mut buffer);
    pb::WatchResponse::decode(buffer.freeze()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_dispatch_is_too_slow_for_is_read_from_history() {
    let mut f = fixture(1).await;
    f.dispatch.answer(STREAM, Request::Create(watcher()));
    assert_eq!(f.dispatch.hub.figures().synced, 1);
    f.put(50).await;
    assert!(f.metrics.watch.overruns.get() > 0, "one byte is not enough for 50 changes");
    let reads = f.metrics.watch.catch_up_reads.clone();
    assert_eq!(f.told(50).await, (2..=51).collect::<Vec<_>>());
    assert!(reads.get() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_snapshot_brought_is_read_from_history() {
    let mut f = fixture(1 << 20).await;
    f.dispatch.answer(STREAM, Request::Create(watcher()));
    f.put(10).await;
    // As an install would: the changes up to here are never published.
    f.inbox.replaced(Revision::new(11));
    f.put(5).await;
    let overruns = f.metrics.watch.overruns.clone();
    assert_eq!(f.told(15).await, (2..=16).collect::<Vec<_>>());
    assert_eq!(overruns.get(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_has_only_so_many_watchers() {
    let mut f = fixture(1 << 20).await;
    for _ in 0..limits::WATCHERS_PER_STREAM_MAX {
        f.dispatch.answer(STREAM, Request::Create(watcher()));
    }
    f.dispatch.answer(STREAM, Request::Create(watcher()));
    let mut last = None;
    while let Some(Some(Ok(response))) = f.responses.next().now_or_never() {
        last = Some(decoded(&response, &f.header));
    }
    let last = last.unwrap();
    assert_eq!((last.watch_id, last.created, last.canceled), (-1, true, true));
    assert!(last.cancel_reason.contains("too many watchers"), "{}", last.cancel_reason);
    // One less, one more.
    f.dispatch.answer(STREAM, Request::Cancel(7));
    f.dispatch.answer(STREAM, Request::Create(watcher()));
    assert_eq!(f.dispatch.hub.figures().watchers, limits::WATCHERS_PER_STREAM_MAX);
    f.dispatch.answer(STREAM, Request::Close);
    assert_eq!((f.dispatch.hub.figures().watchers, f.dispatch.table.watchers.len()), (0, 0));
    f.storage.shutdown().await;
}
