//! openraft's own storage suite on the log and the state machine, with every engine.

use std::sync::Arc;
use std::time::Duration;

use holdfast_env::{BoxFuture, Duplex, Env, Incoming, Lane, LogId, LogIndex, Net, NetError, Term};
use holdfast_log::{Log, LogConfig};
use holdfast_mvcc::types::{MemberId, Record, Revision};
use holdfast_storage::{EngineKind, EventSink, Storage, StorageConfig};
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::log_size::LogSize;
use crate::log_store::LogStore;
use crate::peer::roster::Roster;
use crate::proposals::Proposals;
use crate::shared::{Counters, Shared};
use crate::state_machine::StateMachine;
use crate::types::TypeConfig;
use crate::{Node, NodeConfig, StartError};

struct NoEvents;

impl EventSink for NoEvents {
    fn publish(&self, _: Vec<Record>, _: Revision) {}
    fn replaced(&self, _: Revision) {}
}

/// A network that nobody is on.
struct NoNet;

impl Net for NoNet {
    fn connect(&self, address: &str, _: Lane) -> BoxFuture<'static, Result<Duplex, NetError>> {
        let error =
            NetError::Unreachable { address: address.to_owned(), reason: "there is no network".to_owned() };
        Box::pin(std::future::ready(Err(error)))
    }

    fn listen(&self, address: &str) -> BoxFuture<'static, Result<mpsc::Receiver<Incoming>, NetError>> {
        let error =
            NetError::Listen { address: address.to_owned(), reason: "there is no network".to_owned() };
        Box::pin(std::future::ready(Err(error)))
    }
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

impl StoreBuilder<TypeConfig, LogStore, StateMachine, Guard> for Builder {
    async fn build(&self) -> Result<(Guard, LogStore, StateMachine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::real(tokio::runtime::Handle::current(), Arc::new(NoNet));
        let log = LogConfig { segment_bytes: 64 << 10, ..LogConfig::new(dir.path().join("log")) };
        let log = Log::open(&env, log).unwrap();
        let storage = StorageConfig {
            dir: dir.path().join("store"),
            engine: self.0,
            workers: 1,
            memory_bytes: 16 << 20,
        };
        let storage = Storage::open(&env, storage, Arc::new(NoEvents)).await.unwrap();
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
            stop: CancellationToken::new(),
            is_poisoned: std::sync::atomic::AtomicBool::new(false),
            leadership: parking_lot::Mutex::default(),
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
