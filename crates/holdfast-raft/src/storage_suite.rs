//! openraft's own storage suite on the log and the state machine, with every engine.

use std::sync::Arc;
use std::time::Duration;

use holdfast_env::{Env, LogId, LogIndex, NoNet, Term};
use holdfast_log::{Log, LogConfig};
use holdfast_mvcc::types::{MemberId, Record, Revision};
use holdfast_storage::{DispatchBody, DispatchItem, EngineKind, EventSink, Storage, StorageConfig};
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::log_size::LogSize;
use crate::log_store::LogStore;
use crate::pace::Pace;
use crate::peer::roster::Roster;
use crate::proposals::Proposals;
use crate::shared::{Counters, Shared};
use crate::state_machine::StateMachine;
use crate::types::TypeConfig;
use crate::{Node, NodeConfig, StartError};

struct NoEvents;

impl EventSink for NoEvents {
    fn publish(&self, _: &[&Record], _: Revision) {}
    fn replaced(&self, _: Revision) {}
}

struct Builder(EngineKind);

/// Ends log and storage before their directory goes.
struct Guard {
    log: Log,
    storage: Storage,
    _dir: tempfile::TempDir,
}

impl Drop for Guard {
    fn drop(&mut self) {
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                self.storage.shutdown().await;
                self.log.shutdown().await;
            });
        });
    }
}

fn config() -> NodeConfig {
    NodeConfig {
        id: MemberId(0),
        cluster_id: 1,
        listen_peer_urls: Vec::new(),
        initial_members: Vec::new(),
        heartbeat_interval: Duration::from_millis(100),
        election_timeout: Duration::from_secs(1),
        request_bytes_max: 1 << 20,
        proposal_bytes_max: 1 << 20,
        apply_lag_max: 1000,
        dump_log_bytes: 64 << 20,
    }
}

async fn open_storage(env: &Env, dir: &tempfile::TempDir, engine: EngineKind) -> Storage {
    let config = StorageConfig {
        dir: dir.path().join("store"),
        engine,
        workers: 1,
        memory_bytes: 16 << 20,
        checkpoint_revisions: 64 << 10,
    };
    Storage::open(env, config, Arc::new(NoEvents)).await.unwrap()
}

impl StoreBuilder<TypeConfig, LogStore, StateMachine, Guard> for Builder {
    async fn build(&self) -> Result<(Guard, LogStore, StateMachine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::real(tokio::runtime::Handle::current(), Arc::new(NoNet));
        let log = LogConfig { segment_bytes: 64 << 10, ..LogConfig::new(dir.path().join("log")) };
        let log = Log::open(&env, log).unwrap();
        let storage = open_storage(&env, &dir, self.0).await;
        let shared = Arc::new(Shared {
            roster: Arc::new(Roster::new(None)),
            env,
            config: config(),
            visible: storage.visible(),
            storage: storage.clone(),
            log: log.clone(),
            proposals: Arc::new(Proposals::new(0, 1 << 20)),
            log_size: parking_lot::Mutex::new(LogSize::new(0, 0)),
            dump_hint: Notify::new(),
            demanded: parking_lot::Mutex::new(None),
            pace: Pace::default(),
            stop: CancellationToken::new(),
            leadership: parking_lot::Mutex::default(),
            vote_given: parking_lot::Mutex::default(),
            counters: Counters::default(),
        });
        let store = LogStore::new(Arc::clone(&shared));
        let state_machine = StateMachine::new(shared).unwrap();
        Ok((Guard { log, storage, _dir: dir }, store, state_machine))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openrafts_suite_passes_on_sled() {
    Suite::test_all(Builder(EngineKind::Sled)).await.unwrap();
}

/// WH25: a Raft library, over our log and storage.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openrafts_suite_passes_on_redb() {
    Suite::test_all(Builder(EngineKind::Redb)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openrafts_suite_passes_on_memory() {
    Suite::test_all(Builder(EngineKind::Memory)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_begins_behind_a_lost_state_is_refused() {
    let (guard, _, _) = Builder(EngineKind::Memory).build().await.expect("an empty store opens");
    guard.log.purge(LogId::new(Term::new(1), LogIndex::new(5))).expect("an empty log may begin anywhere");
    let env = Env::real(tokio::runtime::Handle::current(), Arc::new(NoNet));
    let started = Node::start(&env, config(), guard.log.clone(), guard.storage.clone()).await;
    assert!(matches!(started, Err(StartError::Gap { applied: None, .. })), "{:?}", started.err());
}

/// A snapshot of entry 2, a stable store of entry 5, and a log that holds nothing, because the member was killed before
/// it came so far, or because it was purged behind a snapshot that is damaged now.
async fn starts_with_a_snapshot_of_all_that_is_gone(is_purged: bool) {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::real(tokio::runtime::Handle::current(), Arc::new(NoNet));
    let last = LogId::new(Term::new(1), LogIndex::new(5));
    let item = |index| DispatchItem {
        log_id: LogId::new(Term::new(1), LogIndex::new(index)),
        body: DispatchBody::Blank,
    };
    let before = open_storage(&env, &dir, EngineKind::Redb).await;
    before.dispatch((0..=2).map(item).collect()).await.unwrap();
    before.start_dump().await.unwrap().await.unwrap();
    before.dispatch((3..=5).map(item).collect()).await.unwrap();
    before.shutdown().await;
    drop(before);
    let storage = open_storage(&env, &dir, EngineKind::Redb).await;
    assert_eq!(storage.applied().log_id, Some(last));
    let log_config = LogConfig { segment_bytes: 64 << 10, ..LogConfig::new(dir.path().join("log")) };
    let log = Log::open(&env, log_config).unwrap();
    if is_purged {
        log.purge(last).unwrap();
    }
    let node = Node::start(&env, config(), log.clone(), storage.clone()).await.unwrap();
    assert_eq!(log.state().purged, Some(last));
    let snapshot = storage.current_snapshot().and_then(|snapshot| snapshot.applied.log_id);
    assert_eq!(snapshot, Some(last));
    node.shutdown().await;
    storage.shutdown().await;
    log.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_ends_before_the_state_goes_only_behind_a_snapshot() {
    starts_with_a_snapshot_of_all_that_is_gone(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_snapshot_than_the_purged_log_is_replaced_at_the_start() {
    starts_with_a_snapshot_of_all_that_is_gone(true).await;
}
