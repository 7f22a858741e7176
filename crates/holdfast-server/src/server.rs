//! One running member: the order in which its parts start and stop.

use std::net::SocketAddr;
use std::sync::Arc;

use holdfast_env::{Env, TaskHandle};
use holdfast_mvcc::command::{Command, MemberAttributes};
use holdfast_proto::etcdserverpb as pb;
use holdfast_raft::{Departure, Log, LogConfig, Member, Node, NodeConfig, PeerNet, PeerNetConfig};
use holdfast_storage::{Storage, StorageConfig, StorageError};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tonic_health::server::HealthReporter;

use crate::auth::signed::Signer;
use crate::backup::room::Room;
use crate::config::Config;
use crate::data_dir::{DataDir, DataDirError};
use crate::error::ServerError;
use crate::frontend::{Frontend, Parts};
use crate::identity::{self, Identity, Origin};
use crate::lines::Lines;
use crate::listener::Bound;
use crate::metrics::watch::WatchFigures;
use crate::metrics::{Fixed, Metrics};
use crate::receiving::Receiving;
use crate::tls::Tls;
use crate::watch::{Inbox, WatchParts, WatchTerms, Watches};
use crate::{auto_compaction, digests, http, joining, limits, listener, quota, serve};

/// A running member. Stop it with [`Server::stop`]; dropping it leaves its tasks running.
pub struct Server {
    frontend: Arc<Frontend>,
    client_addresses: Vec<SocketAddr>,
    stop: CancellationToken,
    serving: Mutex<Option<oneshot::Receiver<()>>>,
    tasks: Mutex<Vec<TaskHandle>>,
    ready: watch::Receiver<bool>,
    env: Env,
    // Last, so that the lock is held until everything else is gone.
    data_dir: DataDir,
}

impl Server {
    /// Starts a member in this order: data directory and addresses, log, storage, consensus, services. Returns when it
    /// serves; it may not be ready yet, see [`Server::ready`].
    ///
    /// Errors: the first thing that does not work. As long as that is the directory or an address, nothing on disk was
    /// changed.
    pub async fn start(config: &Config) -> Result<Self, ServerError> {
        let tls = Arc::new(Tls::load(&config.tls)?);
        let signer = config.auth.signed.as_ref().map(Signer::load).transpose()?;
        let env = connected_world(config, &tls);
        let identity = joining::identify(&env, config).await?;
        let (data_dir, listeners) = claim(&env, config, &identity).await?;
        announce(config, &identity, &data_dir);
        let metrics = Arc::new(Metrics::new(&Fixed {
            member_id: identity.member_id.0,
            quota_bytes: config.limits.quota_backend_bytes.unwrap_or(0),
        }));
        let log = Log::open(&env, log_config(config, &data_dir))?;
        let inbox = Inbox::new(limits::WATCH_INBOX_BYTES_MAX, metrics.events.clone(), metrics.watch.clone());
        let inbox = Arc::new(inbox);
        let events = Arc::<Inbox>::clone(&inbox);
        let storage = Storage::open(&env, storage_config(config, &data_dir), events).await?;
        let node = Node::start(&env, node_config(config, &identity), log.clone(), storage.clone()).await?;
        let watches = Watches::start(
            &env,
            WatchParts {
                inbox,
                storage: storage.clone(),
                node: node.clone(),
                header: header(&identity),
                counts: metrics.watch.clone(),
                terms: watch_terms(config),
            },
        );
        let (ready_now, ready) = watch::channel(false);
        let stop = CancellationToken::new();
        let parts = Parts {
            identity,
            tls,
            limits: config.limits,
            auth: config.auth.clone(),
            signer,
            change_rules: config.change_rules,
            budget: config.request_budget(),
            lease_seconds_min: limits::lease_seconds_min(config.election_timeout),
            stop: stop.clone(),
            node,
            storage,
            log,
            metrics,
            watches,
            snapshots: room(&env, config, &data_dir),
            receiving: Arc::new(Receiving::new(config.limits.receiving_bytes_max, Arc::clone(&env.clock))),
            clock: Arc::clone(&env.clock),
            rng: Arc::clone(&env.rng),
            ready: ready.clone(),
        };
        let frontend = Arc::new(Frontend::new(parts));
        let mut server = Self {
            frontend,
            client_addresses: listener::addresses(&listeners),
            stop,
            serving: Mutex::new(None),
            tasks: Mutex::new(Vec::new()),
            ready,
            env,
            data_dir,
        };
        server.serve(config, listeners, ready_now).await?;
        Ok(server)
    }

    /// Starts the tasks that face the clients.
    async fn serve(
        &mut self,
        config: &Config,
        listeners: Vec<Bound>,
        ready: watch::Sender<bool>,
    ) -> Result<(), ServerError> {
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
        let lines = Arc::new(Lines::new(Arc::clone(&self.frontend), Arc::clone(&self.env.spawn)));
        let routes = serve::routes(&self.frontend, &lines, config, health_service)?;
        let tls = Arc::clone(&self.frontend.tls);
        let listeners = listeners.into_iter().map(|listener| {
            let acceptor = tls.acceptor(&tls.ports.client, listener.is_tls);
            (listener, acceptor)
        });
        let connections = listener::connections(listeners.collect(), &self.env.clock);
        let users = config.tls.names_users.then(|| Arc::clone(&self.frontend.certificates));
        let transport = serve::Transport::of(config, Arc::clone(&self.env.clock));
        let frontend = Arc::clone(&self.frontend);
        let (ended, serving) = oneshot::channel::<()>();
        *self.serving.lock() = Some(serving);
        let stop = self.stop.clone();
        let serve = async move {
            transport.serve(&frontend, routes, connections, users, stop).await;
            // Its end is the message.
            drop(ended);
        };
        let greeting = Greeting {
            frontend: Arc::clone(&self.frontend),
            env: self.env.clone(),
            health,
            ready,
            stop: self.stop.clone(),
            client_urls: config.advertise_client_urls.iter().map(ToString::to_string).collect(),
        };
        let digests = config.corrupt_check_time.map(|period| {
            let (frontend, clock) = (Arc::clone(&self.frontend), Arc::clone(&self.env.clock));
            digests::run(frontend, clock, period, self.stop.clone())
        });
        let compaction = config.auto_compaction.map(|kept| {
            let (frontend, clock) = (Arc::clone(&self.frontend), Arc::clone(&self.env.clock));
            auto_compaction::run(frontend, clock, kept, self.stop.clone())
        });
        let quota = config.limits.quota_backend_bytes.map(|quota| {
            let (frontend, clock) = (Arc::clone(&self.frontend), Arc::clone(&self.env.clock));
            quota::run(frontend, clock, quota, self.stop.clone())
        });
        let stopping = self.stop.clone();
        let lines = async move {
            stopping.cancelled().await;
            lines.ended().await;
        };
        let certificates = tls.watch(Arc::clone(&self.env.clock), self.stop.clone());
        let mut tasks = self.tasks.lock();
        tasks.push(self.env.spawn.task("certificates", Box::pin(certificates)));
        tasks.push(self.env.spawn.task("lines", Box::pin(lines)));
        tasks.extend(compaction.map(|run| self.env.spawn.task("compaction", Box::pin(run))));
        tasks.extend(quota.map(|run| self.env.spawn.task("quota", Box::pin(run))));
        tasks.extend(digests.map(|run| self.env.spawn.task("digests", Box::pin(run))));
        tasks.push(self.env.spawn.task("serve", Box::pin(serve)));
        tasks.push(self.env.spawn.task("greet", Box::pin(greeting.run())));
        Ok(())
    }

    /// Where clients are served, with real port numbers.
    pub fn client_addresses(&self) -> &[SocketAddr] {
        &self.client_addresses
    }

    /// Turns true once the member has caught up with what was committed when it started.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.clone()
    }

    /// Who this member is.
    pub fn identity(&self) -> &Identity {
        &self.frontend.identity
    }

    /// The plain HTTP routes alone, for a listener beside the client port.
    pub fn http_routes(&self) -> axum::Router {
        http::routes(Arc::clone(&self.frontend))
    }

    /// The files and ports of TLS.
    pub fn tls(&self) -> &Arc<Tls> {
        &self.frontend.tls
    }

    /// How the watchers of this member are doing.
    pub fn watch_figures(&self) -> WatchFigures {
        self.frontend.watch_figures()
    }

    /// Begins a dump now, and returns when it is on its way.
    ///
    /// Errors: why none was begun.
    pub async fn dump(&self) -> Result<(), StorageError> {
        self.frontend.node.trigger_dump().await
    }

    /// Completes when this member has no place in the cluster any more, and says why: it should be stopped then.
    pub async fn departed(&self) -> Departure {
        let mut departed = self.frontend.node.departed();
        match departed.wait_for(Option::is_some).await.map(|why| *why) {
            Ok(Some(why)) => why,
            // Consensus has ended: there is nobody left who could tell.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// Notes in the data directory that no member may start from it again: see [`Departure::WentBack`].
    ///
    /// Errors: the disk refused; then a later start is not refused.
    pub fn retire_data_dir(&self) -> Result<(), DataDirError> {
        self.data_dir.retire()
    }

    /// Completes if serving ends without [`Server::stop`]: something went wrong, and the process should end.
    pub async fn serving_ended(&self) {
        let serving = self.serving.lock().take();
        match serving {
            // Either outcome means that the task is gone.
            Some(ended) => drop(ended.await),
            None => std::future::pending().await,
        }
    }

    /// Stops in order: no new connections, streams end, requests under way get [`limits::STOP_GRACE`], then consensus
    /// hands over, storage drains, the log is synced.
    pub async fn stop(self) {
        tracing::info!("stopping: no new connections");
        self.stop.cancel();
        // Watch streams have no end of their own to wait for.
        self.frontend.watches.end_streams();
        let tasks = std::mem::take(&mut *self.tasks.lock());
        let ended = async {
            for task in tasks {
                task.join().await;
            }
        };
        let answered = async {
            // Streams get as long as their clients need to read the end, if they read.
            self.env.clock.sleep(limits::STREAM_STOP_GRACE).await;
            self.frontend.metrics.rpc.answered().await;
        };
        tokio::select! {
            // No arm loses anything: the tasks go on by themselves when another one wins.
            () = ended => {}
            () = answered => {
                tracing::warn!("some clients do not read their streams; they will see the connection break");
            }
            () = self.env.clock.sleep(limits::STOP_GRACE) => {
                tracing::warn!("some requests were not answered in time; their connection will break");
            }
        }
        self.frontend.node.shutdown().await;
        self.frontend.watches.stop().await;
        self.frontend.storage.shutdown().await;
        self.frontend.log.shutdown().await;
        tracing::info!("stopped");
    }
}

fn announce(config: &Config, identity: &Identity, data_dir: &DataDir) {
    tracing::info!(
        name = identity.name,
        member_id = format!("{:x}", identity.member_id.0),
        cluster_id = format!("{:x}", identity.cluster_id),
        data_dir = %config.data_dir.display(),
        is_fresh = data_dir.is_fresh(),
        "starting a member"
    );
}

/// Takes the data directory and the client addresses. A directory that is ours is locked first, so that a second
/// process on it hears of that and not of the addresses; one that is new is made only when the addresses are free.
async fn claim(
    env: &Env,
    config: &Config,
    identity: &Identity,
) -> Result<(DataDir, Vec<Bound>), ServerError> {
    let lock = || DataDir::lock(env, &config.data_dir, identity);
    let locked = DataDir::owner(env, &config.data_dir)?.map(|_| lock()).transpose()?;
    let listeners = listener::bind("listen-client-urls", &config.listen_client_urls).await?;
    // Consensus listens for itself; asking here finds a taken address before anything is written.
    drop(listener::bind("listen-peer-urls", &config.listen_peer_urls).await?);
    let data_dir = match locked {
        Some(locked) => locked,
        None => lock()?,
    };
    data_dir.mark()?;
    Ok((data_dir, listeners))
}

/// What a member does once after its start: catch up, say so, and tell the others its name.
struct Greeting {
    frontend: Arc<Frontend>,
    env: Env,
    health: HealthReporter,
    ready: watch::Sender<bool>,
    stop: CancellationToken,
    client_urls: Vec<String>,
}

impl Greeting {
    async fn run(self) {
        tokio::select! {
            // Dropping the greeting at any point is fine: a proposal under way may still happen, and does no harm.
            () = self.stop.cancelled() => {}
            () = self.greet() => self.stop.cancelled().await,
        }
        self.ready.send_replace(false);
        self.health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
    }

    async fn greet(&self) {
        while self.frontend.linearize(self.frontend.internal_call()).await.is_err() {
            self.env.clock.sleep(limits::READY_RETRY).await;
        }
        self.frontend.note_caught_up();
        self.publish().await;
        // First, so that whoever waits for a ready member finds that it says so here, too.
        self.health.set_service_status("", tonic_health::ServingStatus::Serving).await;
        self.ready.send_replace(true);
        tracing::info!(client_urls = ?self.client_urls, "ready to serve client requests");
    }

    /// Publishes name and URLs, unless the cluster knows them as they are.
    async fn publish(&self) {
        let Identity { member_id, name, .. } = &self.frontend.identity;
        let attributes =
            MemberAttributes { id: *member_id, name: name.clone(), client_urls: self.client_urls.clone() };
        while !self.frontend.storage.members().contains(&attributes) {
            let command = Command::PublishMember(attributes.clone());
            match self.frontend.propose(command, self.frontend.internal_call()).await {
                Ok(_) => return,
                Err(failure) => {
                    tracing::warn!(?failure, "cannot publish this member's name yet, trying again");
                }
            }
            self.env.clock.sleep(limits::PUBLISH_RETRY).await;
        }
    }
}

fn log_config(config: &Config, data_dir: &DataDir) -> LogConfig {
    LogConfig {
        segment_bytes: config.engine.segment_bytes,
        cache_bytes_max: config.engine.memory_bytes / limits::LOG_CACHE_SHARE,
        ..LogConfig::new(data_dir.log_dir())
    }
}

fn storage_config(config: &Config, data_dir: &DataDir) -> StorageConfig {
    StorageConfig {
        dir: data_dir.store_dir(),
        engine: config.engine.kind,
        workers: config.engine.write_workers,
        memory_bytes: config.engine.memory_bytes,
        checkpoint_revisions: config.engine.checkpoint_revisions,
    }
}

/// What all headers of this member share; the term is filled in later.
fn header(identity: &Identity) -> pb::ResponseHeader {
    pb::ResponseHeader {
        cluster_id: identity.cluster_id,
        member_id: identity.member_id.0,
        ..Default::default()
    }
}

fn watch_terms(config: &Config) -> WatchTerms {
    WatchTerms {
        progress_interval: config.watch.progress_notify_interval,
        stream_bytes_max: config.watch.stream_bytes_max,
        // etcd cuts at the size of the largest request that its transport takes.
        fragment_bytes: config.limits.request_bytes_max + limits::GRPC_OVERHEAD_BYTES,
        election_timeout: config.election_timeout,
    }
}

/// Where snapshots for clients are written, without what an earlier process has left there.
fn room(env: &Env, config: &Config, data_dir: &DataDir) -> Arc<Room> {
    let room = Room::new(Arc::clone(&env.disk), data_dir.backup_dir(), config.limits.snapshot_streams_max);
    if let Err(error) = room.clean_up() {
        tracing::warn!(%error, "what earlier snapshots for clients have left behind stays");
    }
    Arc::new(room)
}

/// The founders of a cluster, as consensus knows them.
pub fn initial_members(config: &Config) -> Vec<Member> {
    let member = |initial: &crate::config::InitialMember| Member {
        id: identity::member_id(&config.cluster_token, initial),
        peer_urls: initial.peer_urls.iter().map(ToString::to_string).collect(),
        is_learner: false,
    };
    config.initial_cluster.iter().map(member).collect()
}

fn node_config(config: &Config, identity: &Identity) -> NodeConfig {
    NodeConfig {
        id: identity.member_id,
        cluster_id: identity.cluster_id,
        listen_peer_urls: config.listen_peer_urls.iter().map(ToString::to_string).collect(),
        initial_members: match identity.origin {
            Origin::Founder => initial_members(config),
            Origin::Joined => Vec::new(),
        },
        heartbeat_interval: config.heartbeat_interval,
        election_timeout: config.election_timeout,
        request_bytes_max: config.limits.request_bytes_max,
        proposal_bytes_max: limits::PROPOSAL_BYTES_MAX,
        apply_lag_max: limits::APPLY_LAG_MAX,
        dump_log_bytes: config.engine.dump_log_bytes,
    }
}

/// The real world, as this member uses it.
///
/// Errors: certificate files that cannot be used.
pub fn world(config: &Config) -> Result<Env, ServerError> {
    Ok(connected_world(config, &Tls::load(&config.tls)?))
}

fn connected_world(config: &Config, tls: &Tls) -> Env {
    let runtime = tokio::runtime::Handle::current();
    Env { faults: config.faults.clone(), ..Env::real(runtime, peer_net(config, tls)) }
}

/// The network to the other members. Its frames hold the largest request and whatever goes with it.
fn peer_net(config: &Config, tls: &Tls) -> Arc<dyn holdfast_env::Net> {
    let defaults = PeerNetConfig::default();
    let frame_bytes_max =
        defaults.frame_bytes_max.max(config.limits.request_bytes_max + limits::PEER_FRAME_OVERHEAD_BYTES);
    let net_config = PeerNetConfig { frame_bytes_max, ..defaults };
    let net = PeerNet::new(tokio::runtime::Handle::current(), net_config);
    Arc::new(net.with_tls(tls.peer(), Arc::clone(&tls.ports.peer)))
}
