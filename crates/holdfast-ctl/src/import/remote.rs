//! One of the two clusters: a connection to one of its members, and the calls that an import makes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use holdfast_proto::etcdserverpb as pb;
use holdfast_tls::{ClientFiles, ClientTls, Connector, PairFiles};
use pb::auth_client::AuthClient;
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use pb::watch_client::WatchClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};

use super::fault::{Fault, Side};
use super::flags::{ANSWER_BYTES_MAX, CALL_TIMEOUT, PING_INTERVAL};

/// The files of TLS, and when it is used.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    pub(crate) cacert: Option<PathBuf>,
    pub(crate) cert: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    pub(crate) insecure_skip_verify: bool,
    /// Plain text for endpoints without a scheme when no file is given.
    pub(crate) insecure_transport: bool,
}

/// How a cluster is reached.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    pub(crate) side: Side,
    pub(crate) endpoints: Vec<String>,
    /// Name and password.
    pub(crate) login: Option<(String, String)>,
    pub(crate) tls: Tls,
    pub(crate) dial_timeout: Duration,
}

/// A connection to one member. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Remote {
    side: Side,
    channel: Channel,
    credentials: Credentials,
    /// The newest revision that an answer has told.
    revision: Arc<AtomicI64>,
}

/// Puts the token on requests.
#[derive(Debug, Clone, Default)]
struct Credentials {
    token: Option<MetadataValue<Ascii>>,
}

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.clone());
        }
        Ok(request)
    }
}

type Called = InterceptedService<Channel, Credentials>;

/// A watch of all keys.
#[derive(Debug)]
pub(crate) struct Watch {
    responses: Streaming<pb::WatchResponse>,
    /// The stream lives as long as requests may come.
    _requests: mpsc::Sender<pb::WatchRequest>,
    side: Side,
}

/// A lease as its cluster tells it.
#[derive(Debug)]
pub(crate) struct LeaseState {
    /// What was granted, in seconds.
    pub(crate) granted: i64,
    /// The keys that are attached, when they were asked for.
    pub(crate) keys: Vec<Bytes>,
}

/// What became of a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grant {
    /// There was none with this id.
    New,
    /// There is one.
    Exists,
}

impl Access {
    /// A connection to the member that has its turn at the given try, or to the next one that can be reached.
    pub(crate) async fn connect(&self, attempt: usize) -> Result<Remote, Fault> {
        let mut failed = None;
        for turn in 0..self.endpoints.len() {
            let endpoint = &self.endpoints[(attempt + turn) % self.endpoints.len()];
            match self.dial(endpoint).await {
                Ok(channel) => return self.log_in(channel).await,
                Err(error) => failed = Some((endpoint, error)),
            }
        }
        let (endpoint, error) = failed.expect("there is at least one endpoint");
        Err(Fault::Connection { side: self.side, endpoint: endpoint.clone(), why: format!("{error:#}") })
    }

    async fn dial(&self, endpoint: &str) -> anyhow::Result<Channel> {
        let url = self.tls.with_scheme(endpoint);
        let dialled = Endpoint::from_shared(url.clone())?
            .connect_timeout(self.dial_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(CALL_TIMEOUT)
            .keep_alive_while_idle(true);
        Ok(if url.starts_with("https://") {
            let settings = ClientTls::load(&self.tls.files()?)?;
            dialled.connect_with_connector(Connector::new(Arc::new(settings))).await?
        } else {
            dialled.connect().await?
        })
    }

    async fn log_in(&self, channel: Channel) -> Result<Remote, Fault> {
        let side = self.side;
        let mut remote =
            Remote { side, channel, credentials: Credentials::default(), revision: Arc::default() };
        let Some((name, password)) = self.login.clone() else { return Ok(remote) };
        let mut auth = AuthClient::new(remote.channel.clone());
        let request = pb::AuthenticateRequest { name, password };
        match remote.unary("log in", auth.authenticate(request)).await {
            Ok(answer) => {
                let token = answer.token.parse().context("the member's token");
                remote.credentials.token = Some(token.map_err(Fault::Refused)?);
            }
            // Everybody may do everything then.
            Err(fault)
                if fault.says(Code::FailedPrecondition, "etcdserver: authentication is not enabled") => {}
            Err(fault) => return Err(fault),
        }
        Ok(remote)
    }
}

impl Tls {
    /// TLS is meant where a file is given, or plain text is switched off.
    fn with_scheme(&self, endpoint: &str) -> String {
        if endpoint.contains("://") {
            return endpoint.to_owned();
        }
        let has_file = [&self.cacert, &self.cert, &self.key].iter().any(|file| file.is_some());
        let is_tls = !self.insecure_transport || has_file || self.insecure_skip_verify;
        format!("{}://{endpoint}", if is_tls { "https" } else { "http" })
    }

    fn files(&self) -> anyhow::Result<ClientFiles> {
        let pair = match (self.cert.clone(), self.key.clone()) {
            (Some(cert), Some(key)) => Some(PairFiles { cert, key }),
            (None, None) => None,
            _ => bail!("a certificate and its key belong together: give both, or leave both out"),
        };
        Ok(ClientFiles::of_flags(self.cacert.clone(), pair, self.insecure_skip_verify))
    }
}

impl Remote {
    /// Which of the two it is.
    pub(crate) fn side(&self) -> Side {
        self.side
    }

    /// The newest revision that an answer has told.
    pub(crate) fn revision_seen(&self) -> i64 {
        self.revision.load(Ordering::Relaxed)
    }

    /// Cluster id and revision now, by a linearizable read.
    pub(crate) async fn now(&self) -> Result<(u64, i64), Fault> {
        let key = Bytes::from_static(super::ranges::RESERVED.as_bytes());
        let answer = self.range(pb::RangeRequest { key, count_only: true, ..Default::default() }).await?;
        let header = answer.header.unwrap_or_default();
        Ok((header.cluster_id, header.revision))
    }

    /// A range.
    pub(crate) async fn range(&self, request: pb::RangeRequest) -> Result<pb::RangeResponse, Fault> {
        let answer = self.unary("read", self.kv().range(request)).await?;
        self.note(answer.header.as_ref());
        Ok(answer)
    }

    /// A transaction.
    pub(crate) async fn txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, Fault> {
        let answer = self.unary("write", self.kv().txn(request)).await?;
        self.note(answer.header.as_ref());
        Ok(answer)
    }

    /// A put by itself; its revision.
    pub(crate) async fn put(&self, request: pb::PutRequest) -> Result<i64, Fault> {
        let answer = self.unary("write", self.kv().put(request)).await?;
        self.note(answer.header.as_ref());
        Ok(answer.header.map_or(0, |header| header.revision))
    }

    /// Makes all revisions before this one unreadable.
    pub(crate) async fn compact(&self, revision: i64) -> Result<(), Fault> {
        let request = pb::CompactionRequest { revision, physical: false };
        self.unary("compact", self.kv().compact(request)).await.map(drop)
    }

    /// Grants a lease under an id.
    pub(crate) async fn grant(&self, id: i64, ttl: i64) -> Result<Grant, Fault> {
        let request = pb::LeaseGrantRequest { id, ttl };
        match self.unary("grant a lease", self.lease().lease_grant(request)).await {
            Ok(_) => Ok(Grant::New),
            Err(fault) if fault.says(Code::FailedPrecondition, "etcdserver: lease already exists") => {
                Ok(Grant::Exists)
            }
            Err(fault) => Err(fault),
        }
    }

    /// Ends a lease. None with this id is no error.
    pub(crate) async fn revoke(&self, id: i64) -> Result<(), Fault> {
        match self.unary("revoke a lease", self.lease().lease_revoke(pb::LeaseRevokeRequest { id })).await {
            Ok(_) => Ok(()),
            Err(fault) if fault.says(Code::NotFound, "etcdserver: requested lease not found") => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    /// A lease, if there is one with this id.
    pub(crate) async fn lease_state(&self, id: i64, keys: bool) -> Result<Option<LeaseState>, Fault> {
        let request = pb::LeaseTimeToLiveRequest { id, keys };
        match self.unary("look at a lease", self.lease().lease_time_to_live(request)).await {
            Ok(answer) if answer.ttl < 0 => Ok(None),
            Ok(answer) => Ok(Some(LeaseState { granted: answer.granted_ttl, keys: answer.keys })),
            Err(fault) if fault.says(Code::NotFound, "etcdserver: requested lease not found") => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// The ids of all leases, as one member knows them.
    pub(crate) async fn leases(&self) -> Result<Vec<i64>, Fault> {
        let answer = self.unary("list leases", self.lease().lease_leases(pb::LeaseLeasesRequest {})).await?;
        Ok(answer.leases.into_iter().map(|lease| lease.id).collect())
    }

    /// Keeps leases alive; those that are over.
    pub(crate) async fn keep_alive(&self, ids: &[i64]) -> Result<Vec<i64>, Fault> {
        let requests: Vec<_> = ids.iter().map(|id| pb::LeaseKeepAliveRequest { id: *id }).collect();
        let mut over = Vec::new();
        if requests.is_empty() {
            return Ok(over);
        }
        let what = "keep leases alive";
        let mut leases = self.lease();
        let opened = leases.lease_keep_alive(tokio_stream::iter(requests));
        let mut answers = self.unary(what, opened).await?;
        for _ in ids {
            let answer = self.within(what, answers.message()).await?;
            let Some(answer) = answer else { break };
            if answer.ttl <= 0 {
                over.push(answer.id);
            }
        }
        Ok(over)
    }

    /// Watches all keys from a revision on, inclusive.
    pub(crate) async fn watch(&self, start_revision: i64) -> Result<Watch, Fault> {
        let create = pb::WatchCreateRequest {
            key: Bytes::from_static(b"\0"),
            range_end: Bytes::from_static(b"\0"),
            start_revision,
            fragment: true,
            ..Default::default()
        };
        let (sender, receiver) = mpsc::channel(1);
        let request_union = Some(pb::watch_request::RequestUnion::CreateRequest(create));
        sender.try_send(pb::WatchRequest { request_union }).expect("there is room for one");
        let mut request = Request::new(ReceiverStream::new(receiver));
        // A member that is cut off from its leader says so, and another one can be asked.
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        let mut client = WatchClient::with_interceptor(self.channel.clone(), self.credentials.clone())
            .max_decoding_message_size(ANSWER_BYTES_MAX);
        let responses = self.unary("watch", client.watch(request)).await?;
        Ok(Watch { responses, _requests: sender, side: self.side })
    }

    /// One call, with a limit of time.
    async fn unary<T>(
        &self,
        what: &'static str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Fault> {
        Ok(self.within(what, call).await?.into_inner())
    }

    async fn within<T>(
        &self,
        what: &'static str,
        call: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Fault> {
        let side = self.side;
        match tokio::time::timeout(CALL_TIMEOUT, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(status)) => Err(Fault::Call { side, what, status: Box::new(status) }),
            Err(_) => Err(Fault::Silent { side, what }),
        }
    }

    fn note(&self, header: Option<&pb::ResponseHeader>) {
        self.revision.fetch_max(header.map_or(0, |header| header.revision), Ordering::Relaxed);
    }

    fn kv(&self) -> KvClient<Called> {
        KvClient::with_interceptor(self.channel.clone(), self.credentials.clone())
            .max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    fn lease(&self) -> LeaseClient<Called> {
        LeaseClient::with_interceptor(self.channel.clone(), self.credentials.clone())
            .max_decoding_message_size(ANSWER_BYTES_MAX)
    }
}

impl Watch {
    /// The next message that has events, and whether the next one goes on with it. Cancel-safe: nothing is lost when it is
    /// dropped while it waits.
    pub(crate) async fn next(&mut self) -> Result<(Vec<holdfast_proto::mvccpb::Event>, bool), Fault> {
        let (side, what) = (self.side, "watch");
        loop {
            let message = self.responses.message().await;
            let message = message.map_err(|status| Fault::Call { side, what, status: Box::new(status) })?;
            let Some(message) = message else { return Err(Fault::Silent { side, what }) };
            if message.compact_revision != 0 {
                return Err(Fault::Compacted);
            }
            if message.canceled {
                let why = anyhow::anyhow!("{side}: the watch was refused: {}", message.cancel_reason);
                return Err(Fault::Refused(why));
            }
            if !message.events.is_empty() {
                return Ok((message.events, message.fragment));
            }
        }
    }
}
