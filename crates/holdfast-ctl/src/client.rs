//! A client of the cluster: asks the first endpoint that can be reached, as whom the flags say.

use std::error::Error;
use std::sync::Arc;

use anyhow::Context;
use holdfast_proto::etcdserverpb::{AuthenticateRequest, auth_client::AuthClient};
use tokio::sync::{Mutex, OnceCell};
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::cause;
use crate::connect;
use crate::error::{CtlError, Unreached};
use crate::global::Global;
use crate::terminal;

/// A member that is stopped, or whose machine hangs, may have a system that takes connections for it.
const SAYS_NOTHING: &str =
    "it takes the connection and says nothing: is the process stopped, or its machine out of memory?";

/// What servers say to a login where there are no users.
const AUTH_IS_OFF: &str = "etcdserver: authentication is not enabled";

/// What servers say of a login that is none of theirs.
pub(crate) const LOGIN_IS_WRONG: &str = "etcdserver: authentication failed, invalid user ID or password";

/// What servers say of a login that they do not know any more: its member has restarted, or rights have changed.
const LOGIN_IS_OVER: [&str; 2] =
    ["etcdserver: invalid auth token", "etcdserver: revision of auth store is old"];

/// A connection that says who asks.
pub(crate) type Conn = InterceptedService<Channel, Asker>;

/// What is added to each request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asker {
    token: Option<AsciiMetadataValue>,
}

impl Interceptor for Asker {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.clone());
        }
        Ok(request)
    }
}

/// A request that has to end when its member has no leader, as a watch should.
pub(crate) fn with_leader<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("hasleader", AsciiMetadataValue::from_static("true"));
    request
}

/// Whether a request may be sent again when nobody knows if it was served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It changes nothing.
    Free,
    /// It would be done twice.
    Never,
}

/// Name and password.
type Login = (String, String);

/// Asks the endpoints of the flags.
pub(crate) struct Client {
    global: Global,
    endpoints: Vec<String>,
    /// As whom, once that is known: a person is asked for a password once.
    login: Arc<OnceCell<Option<Login>>>,
    /// The connection in use, and the endpoint that is tried first when there is none.
    current: Mutex<Current>,
}

#[derive(Default)]
struct Current {
    at: usize,
    conn: Option<Conn>,
}

impl Client {
    /// Of the flags' endpoints. Nothing is connected before something is asked.
    pub(crate) fn new(global: &Global) -> Result<Self, CtlError> {
        let endpoints = global.endpoints.iter().map(|endpoint| endpoint.trim().to_owned());
        let endpoints: Vec<String> = endpoints.filter(|endpoint| !endpoint.is_empty()).collect();
        if endpoints.is_empty() {
            return Err(CtlError::Arguments("--endpoints names nobody to ask".to_owned()));
        }
        Ok(Self::made(global.clone(), endpoints, Arc::default()))
    }

    fn made(global: Global, endpoints: Vec<String>, login: Arc<OnceCell<Option<Login>>>) -> Self {
        Self { global, endpoints, login, current: Mutex::default() }
    }

    /// Of one endpoint, with the same flags.
    pub(crate) fn of(&self, endpoint: &str) -> Self {
        Self::made(self.global.clone(), vec![endpoint.to_owned()], Arc::clone(&self.login))
    }

    /// The same without a login: for what everybody may ask.
    pub(crate) fn as_nobody(&self) -> Self {
        let mut global = self.global.clone();
        (global.user, global.password) = (None, None);
        Self::made(global, self.endpoints.clone(), Arc::default())
    }

    /// As they were given.
    pub(crate) fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    /// A connection to the first endpoint that can be reached, and which one that is.
    ///
    /// Errors: why each cannot; or that the login was refused.
    pub(crate) async fn connection(&self) -> Result<(Conn, String), CtlError> {
        let mut current = self.current.lock().await;
        if let Some(conn) = &current.conn {
            return Ok((conn.clone(), self.endpoints[current.at].clone()));
        }
        let mut all = Vec::new();
        for turn in 0..self.endpoints.len() {
            let at = (current.at + turn) % self.endpoints.len();
            match self.dial(&self.endpoints[at]).await {
                Ok(conn) => {
                    *current = Current { at, conn: Some(conn.clone()) };
                    return Ok((conn, self.endpoints[at].clone()));
                }
                Err(CtlError::Unreachable(unreached)) => all.extend(unreached),
                Err(error) => return Err(error),
            }
        }
        Err(CtlError::Unreachable(all))
    }

    /// The connection is no good: the next one is to another endpoint, if there is one.
    pub(crate) async fn leave(&self) {
        let mut current = self.current.lock().await;
        *current = Current { at: (current.at + 1) % self.endpoints.len(), conn: None };
    }

    async fn dial(&self, endpoint: &str) -> Result<Conn, CtlError> {
        let unreached =
            |cause| CtlError::Unreachable(vec![Unreached { endpoint: endpoint.to_owned(), cause }]);
        let (url, channel) = match connect::open(&self.global, endpoint).await? {
            (url, Ok(channel)) => (url, channel),
            (url, Err(error)) => return Err(unreached(cause::of(&url, &error).await)),
        };
        // Before anything is asked for: what this one cannot serve, another one may.
        self.greet(&url, &channel).await.map_err(unreached)?;
        let login = self.login.get_or_try_init(async || login(&self.global).await).await?;
        let Some((name, password)) = login.clone() else {
            return Ok(InterceptedService::new(channel, Asker::default()));
        };
        let request = AuthenticateRequest { name, password };
        let mut auth = AuthClient::new(channel.clone());
        let answer = tokio::time::timeout(self.global.command_timeout, auth.authenticate(request)).await;
        let token = match answer {
            Ok(Ok(answer)) => Some(answer.into_inner().token.parse().context("the member's token")?),
            Ok(Err(status)) if status.message() == AUTH_IS_OFF => None,
            Ok(Err(status)) if broke(&status) => return Err(unreached(cause::of(&url, &status).await)),
            Ok(Err(status)) => return Err(CtlError::Refused { what: "", status }),
            Err(_) => return Err(self.late(endpoint)),
        };
        Ok(InterceptedService::new(channel, Asker { token }))
    }

    /// Waits for a first word. Any answer will do, also that there is no such service.
    ///
    /// Errors: why there is none, in words.
    async fn greet(&self, url: &str, channel: &Channel) -> Result<(), String> {
        let check = HealthCheckRequest { service: String::new() };
        let mut health = HealthClient::new(channel.clone());
        match tokio::time::timeout(self.global.dial_timeout, health.check(check)).await {
            Ok(Err(status)) if broke(&status) => Err(cause::of(url, &status).await),
            Ok(Ok(_) | Err(_)) => Ok(()),
            Err(_) => Err(SAYS_NOTHING.to_owned()),
        }
    }

    /// Asks for something that changes nothing: of the next endpoint, when one cannot serve it.
    pub(crate) async fn read<R>(
        &self,
        call: impl AsyncFn(Conn) -> Result<Response<R>, Status>,
    ) -> Result<R, CtlError> {
        self.ask(Repeat::Free, call).await
    }

    /// Asks for a change, once: of the next endpoint only when it is certain that one has not served it.
    pub(crate) async fn write<R>(
        &self,
        call: impl AsyncFn(Conn) -> Result<Response<R>, Status>,
    ) -> Result<R, CtlError> {
        self.ask(Repeat::Never, call).await
    }

    async fn ask<R>(
        &self,
        repeat: Repeat,
        call: impl AsyncFn(Conn) -> Result<Response<R>, Status>,
    ) -> Result<R, CtlError> {
        let mut unreached = Vec::new();
        let mut refused = None;
        let mut may_log_in_again = self.global.user.is_some();
        let mut turns = self.endpoints.len();
        while turns > 0 {
            turns -= 1;
            let (conn, endpoint) = match self.connection().await {
                Ok(connection) => connection,
                // An answer says more than none.
                Err(error @ CtlError::Unreachable(_)) => return Err(refused.unwrap_or(error)),
                Err(error) => return Err(error),
            };
            let answer = tokio::time::timeout(self.global.command_timeout, call(conn)).await;
            let status = match answer {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) => status,
                Err(_) => {
                    // What is asked next may be served by another one.
                    self.leave().await;
                    return Err(self.late(&endpoint));
                }
            };
            if broke(&status) {
                let cause = cause::of(&self.global.tls.with_scheme(&endpoint), &status).await;
                if repeat == Repeat::Never {
                    self.leave().await;
                    return Err(CtlError::Broken { endpoint, cause });
                }
                unreached.push(Unreached { endpoint, cause });
            } else if may_log_in_again && LOGIN_IS_OVER.contains(&status.message()) {
                // Refused before anything was done: the same again, with another login.
                may_log_in_again = false;
                turns += 1;
                self.current.lock().await.conn = None;
                continue;
            } else if repeat == Repeat::Free && status.code() == Code::Unavailable {
                refused = Some(CtlError::Refused { what: "", status });
            } else {
                return Err(CtlError::Refused { what: "", status });
            }
            self.leave().await;
        }
        Err(refused.unwrap_or(CtlError::Unreachable(unreached)))
    }

    fn late(&self, endpoint: &str) -> CtlError {
        CtlError::Late { endpoint: endpoint.to_owned(), limit: self.global.command_timeout }
    }

    /// What has ended a stream, for people.
    pub(crate) async fn stream_end(&self, endpoint: &str, status: &Status) -> String {
        if broke(status) {
            cause::of(&self.global.tls.with_scheme(endpoint), status).await
        } else {
            status.message().to_owned()
        }
    }
}

/// Whether the status is of our end: the server has said nothing, or nothing that is gRPC.
pub(crate) fn broke(status: &Status) -> bool {
    // Nothing but the library's words tells an HTTP server from a member.
    status.source().is_some() || status.message().starts_with("grpc-status header missing")
}

/// Name and password, when they are given; asks for a password on a terminal.
pub(crate) async fn login(global: &Global) -> Result<Option<Login>, CtlError> {
    let Some(user) = global.user.as_ref().filter(|user| !user.is_empty()) else { return Ok(None) };
    if let Some(password) = global.password.as_ref().filter(|password| !password.is_empty()) {
        return Ok(Some((user.clone(), password.clone())));
    }
    if let Some((name, password)) = user.split_once(':') {
        return Ok(Some((name.to_owned(), password.to_owned())));
    }
    let password = terminal::password("Password: ").await?.ok_or_else(|| {
        CtlError::Word(format!("there is no password for {user}: give --user={user}:PASSWORD, or --password"))
    })?;
    Ok(Some((user.clone(), password)))
}

/// Makes the functions that give a client of a service on a connection; answers may be of any size.
macro_rules! services {
    ($($(#[$doc:meta])* $name:ident: $client:path),* $(,)?) => {
        $($(#[$doc])* pub(crate) fn $name(conn: Conn) -> $client {
            <$client>::new(conn).max_decoding_message_size(usize::MAX)
        })*
    };
}

/// Clients of the services.
pub(crate) mod service {
    use holdfast_proto::{etcdserverpb as pb, v3electionpb, v3lockpb};

    use super::Conn;

    type Kv = pb::kv_client::KvClient<Conn>;
    type Watch = pb::watch_client::WatchClient<Conn>;
    type Lease = pb::lease_client::LeaseClient<Conn>;
    type Cluster = pb::cluster_client::ClusterClient<Conn>;
    type Maintenance = pb::maintenance_client::MaintenanceClient<Conn>;
    type Auth = pb::auth_client::AuthClient<Conn>;
    type Lock = v3lockpb::lock_client::LockClient<Conn>;
    type Election = v3electionpb::election_client::ElectionClient<Conn>;

    services! {
        /// Keys and values.
        kv: Kv,
        /// Watches.
        watch: Watch,
        /// Leases.
        lease: Lease,
        /// Members.
        cluster: Cluster,
        /// What each member is asked for by itself.
        maintenance: Maintenance,
        /// Users and roles.
        auth: Auth,
        /// Locks.
        lock: Lock,
        /// Elections.
        election: Election,
    }
}
