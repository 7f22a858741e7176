//! Connections to the members, and the decision what is sent again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use holdfast_proto::etcdserverpb::kv_client::KvClient;
use holdfast_tls::{ClientFiles, ClientTls, Connector, Reloading};
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use crate::auth::{self, Credentials, Token, Tokens};
use crate::error::{Attempt, Error, Verdict, cause_of, judge, refusal};
use crate::namespace::Namespace;
use crate::wait::deadline as after;
use crate::watch_stream::Streams;

/// Answers may be larger than gRPC's default limit of 4 MiB: a page of large values, the changes of a busy folder.
pub(crate) const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Pause after all endpoints have failed once; doubles up to [`PAUSE_MAX`], and half of it is random.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// The longest such pause.
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A silent connection is asked for a sign of life so often: servers take it badly more often than each 5 s.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// And given up when none comes for so long.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// A call for which there is more time has so much: gRPC has no words for very long times.
const CALL_TIMEOUT_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// How a client behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// How long a call may take, with all its attempts. 5 s unless set.
    pub call_timeout: Duration,
    /// How long a connection may take to be made. 1 s unless set.
    pub connect_timeout: Duration,
    /// What `https://` endpoints are connected to with: the CAs of this machine, and no certificate, unless set. Files that
    /// change are used from the next connection on.
    pub tls: ClientFiles,
    /// Who the client is, where servers ask for that. Nobody, unless set. The password goes to the members as it is: let
    /// their endpoints be `https://`.
    pub credentials: Option<Credentials>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            call_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(1),
            tls: ClientFiles::default(),
            credentials: None,
        }
    }
}

/// A client of a cluster. Cheap to clone; clones share their connections.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
    namespace: Namespace,
}

#[derive(Debug)]
struct Inner {
    members: Vec<Member>,
    /// Counts up; the member that is asked first is this one, modulo their number. Moved on when a member fails.
    first: AtomicUsize,
    config: Config,
    /// What carries watches.
    streams: Streams,
    /// Of a client with credentials.
    tokens: Option<Tokens>,
}

#[derive(Debug)]
struct Member {
    endpoint: String,
    channel: Channel,
}

/// What it means to send a request twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Nothing: it reads.
    Harmless,
    /// The same as once: it asks for what is so already then. Who gets no answer does not know, though.
    Idempotent,
    /// Something else: only when nothing happened.
    Harmful,
}

/// How a call is made.
#[derive(Debug, Clone, Copy)]
struct How {
    shows: Shows,
    repeat: Repeat,
    /// With all its attempts.
    deadline: Instant,
}

impl How {
    fn may_be_repeated(self, verdict: Verdict) -> bool {
        verdict == Verdict::Nothing || self.repeat != Repeat::Harmful
    }

    /// The error of a call that is given up.
    fn given_up(self, attempts: Vec<Attempt>, is_unknown: bool) -> Error {
        if is_unknown && self.repeat != Repeat::Harmless {
            Error::Unknown { attempts }
        } else {
            Error::Unavailable { attempts }
        }
    }
}

/// Whether a call says whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shows {
    /// If the client has credentials.
    Token,
    /// It asks for the token.
    Nothing,
}

impl Client {
    /// A client of the members with these URLs, such as `http://127.0.0.1:2379`. Connects when it is first used. Must be
    /// called within a tokio runtime.
    ///
    /// Errors: no endpoint, or a text that is none.
    pub fn new<E: Into<String>>(endpoints: impl IntoIterator<Item = E>) -> Result<Self, Error> {
        Self::with_config(endpoints, Config::default())
    }

    /// As [`Client::new`], with other times.
    ///
    /// Errors: no endpoint, or a text that is none; certificate files that cannot be used.
    pub fn with_config<E: Into<String>>(
        endpoints: impl IntoIterator<Item = E>,
        config: Config,
    ) -> Result<Self, Error> {
        let endpoints: Vec<String> = endpoints.into_iter().map(Into::into).collect();
        let tls = if endpoints.iter().any(|url| is_tls(url)) {
            Some(Arc::new(ClientTls::load(&config.tls).map_err(Error::Tls)?))
        } else {
            None
        };
        let members: Vec<_> =
            endpoints.into_iter().map(|url| member(url, &config, tls.as_ref())).collect::<Result<_, _>>()?;
        if members.is_empty() {
            return Err(Error::NoEndpoint);
        }
        // Clients that start together do not all ask the same member.
        let first = AtomicUsize::new(rand::random_range(0..members.len()));
        let tokens = config.credentials.clone().map(Tokens::new);
        let inner = Inner { members, first, config, streams: Streams::new(), tokens };
        Ok(Self { inner: Arc::new(inner), namespace: Namespace::default() })
    }

    /// The URLs that the client was given.
    pub fn endpoints(&self) -> impl Iterator<Item = &str> {
        self.inner.members.iter().map(|member| member.endpoint.as_str())
    }

    /// How long a call may take.
    pub(crate) fn call_timeout(&self) -> Duration {
        self.inner.config.call_timeout.min(CALL_TIMEOUT_MAX)
    }

    /// All endpoints and their channels, in the order in which they were given.
    pub(crate) fn channels(&self) -> impl Iterator<Item = (&str, Channel)> {
        self.inner.members.iter().map(|member| (member.endpoint.as_str(), member.channel.clone()))
    }

    /// This endpoint is asked first from now on.
    pub(crate) fn ask_first(&self, at: usize) {
        self.inner.first.store(at, Ordering::Relaxed);
    }

    pub(crate) fn streams(&self) -> &Streams {
        &self.inner.streams
    }

    pub(crate) fn tokens(&self) -> Option<&Tokens> {
        self.inner.tokens.as_ref()
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The same connections, with another namespace.
    pub(crate) fn with_namespace(&self, namespace: Namespace) -> Self {
        Self { inner: Arc::clone(&self.inner), namespace }
    }

    /// The channel to the member that is asked first now, and its number for [`Client::failed`].
    pub(crate) fn channel(&self) -> (usize, Channel) {
        let at = self.inner.first.load(Ordering::Relaxed);
        (at, self.member(at).channel.clone())
    }

    fn member(&self, at: usize) -> &Member {
        &self.inner.members[at % self.inner.members.len()]
    }

    /// The next one is asked first from now on, unless somebody has found that out already.
    pub(crate) fn failed(&self, at: usize) {
        let next = at.wrapping_add(1);
        // Whoever comes second finds it done.
        if self.inner.first.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            tracing::debug!(endpoint = self.member(next).endpoint, "asking another member first");
        }
    }

    /// Makes a call, on one member after the other as long as it may be made again, within the client's time for calls.
    /// An answer that makes no sense, as `decode` says, is an attempt that failed.
    pub(crate) async fn call<Q: Clone, A, T>(
        &self,
        repeat: Repeat,
        request: Q,
        send: impl AsyncFn(Channel, Request<Q>) -> Result<Response<A>, Status>,
        decode: impl Fn(A) -> Result<T, Status>,
    ) -> Result<T, Error> {
        let deadline = after(self.call_timeout());
        self.call_until(deadline, repeat, request, send, decode).await
    }

    /// As [`Client::call`], for what is of no use behind the deadline, if that comes earlier.
    pub(crate) async fn call_until<Q: Clone, A, T>(
        &self,
        deadline: Instant,
        repeat: Repeat,
        request: Q,
        send: impl AsyncFn(Channel, Request<Q>) -> Result<Response<A>, Status>,
        decode: impl Fn(A) -> Result<T, Status>,
    ) -> Result<T, Error> {
        let deadline = deadline.min(after(self.call_timeout()));
        self.call_so(How { shows: Shows::Token, repeat, deadline }, request, send, decode).await
    }

    /// As [`Client::call`], as nobody.
    pub(crate) async fn call_without_token<Q: Clone, A, T>(
        &self,
        repeat: Repeat,
        request: Q,
        send: impl AsyncFn(Channel, Request<Q>) -> Result<Response<A>, Status>,
        decode: impl Fn(A) -> Result<T, Status>,
    ) -> Result<T, Error> {
        let deadline = after(self.call_timeout());
        self.call_so(How { shows: Shows::Nothing, repeat, deadline }, request, send, decode).await
    }

    async fn call_so<Q: Clone, A, T>(
        &self,
        how: How,
        request: Q,
        send: impl AsyncFn(Channel, Request<Q>) -> Result<Response<A>, Status>,
        decode: impl Fn(A) -> Result<T, Status>,
    ) -> Result<T, Error> {
        let deadline = how.deadline;
        let mut attempts = Vec::new();
        let mut is_unknown = false;
        let mut is_renewed = false;
        let mut pause = PAUSE_MIN;
        loop {
            let token = match how.shows {
                Shows::Token => match timeout_at(deadline, self.token()).await {
                    Ok(Ok(token)) => token,
                    Ok(Err(error)) if !is_unknown => return Err(error),
                    Ok(Err(_)) | Err(_) => return Err(how.given_up(attempts, is_unknown)),
                },
                Shows::Nothing => None,
            };
            let (at, channel) = self.channel();
            let until = self.attempt_ends(how);
            let mut attempt = Request::new(request.clone());
            attempt.set_timeout(until.saturating_duration_since(Instant::now()));
            auth::show(&mut attempt, token.as_ref());
            let answer = timeout_at(until, send(channel, attempt)).await;
            let status = match answer.map(|answer| answer.and_then(|answer| decode(answer.into_inner()))) {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded("no answer in time"),
            };
            if !is_renewed && self.forget(token.as_ref(), &status) {
                is_renewed = true;
                continue;
            }
            let verdict = judge(&status, how.repeat);
            if verdict == Verdict::Refused {
                return Err(refusal(&status));
            }
            self.failed(at);
            attempts.push(Attempt { endpoint: self.member(at).endpoint.clone(), cause: cause_of(&status) });
            is_unknown |= verdict == Verdict::Unknown;
            let may_go_on = how.may_be_repeated(verdict);
            if may_go_on && attempts.len().is_multiple_of(self.inner.members.len()) {
                let resume = Instant::now() + jittered(pause);
                pause = (pause * 2).min(PAUSE_MAX);
                sleep_until(resume.min(deadline)).await;
            }
            if !may_go_on || Instant::now() >= deadline {
                return Err(how.given_up(attempts, is_unknown));
            }
        }
    }

    /// Whether the attempt failed for its token, and another one may help. Nothing happened then.
    pub(crate) fn forget(&self, token: Option<&Token>, status: &Status) -> bool {
        let Some((tokens, token)) = self.tokens().zip(token) else { return false };
        let is_token_failure = auth::is_token_failure(status);
        if is_token_failure {
            tokens.forget(token);
        }
        is_token_failure
    }

    /// A call that may be repeated leaves half of its time for another member: the first may be silent.
    fn attempt_ends(&self, how: How) -> Instant {
        let now = Instant::now();
        let left = how.deadline.saturating_duration_since(now);
        match how.repeat {
            Repeat::Harmless | Repeat::Idempotent if self.inner.members.len() > 1 => now + left / 2,
            Repeat::Harmless | Repeat::Idempotent | Repeat::Harmful => how.deadline,
        }
    }
}

/// The service of keys at a member.
pub(crate) fn kv(channel: Channel) -> KvClient<Channel> {
    KvClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}

fn is_tls(url: &str) -> bool {
    url.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"))
}

fn member(url: String, config: &Config, tls: Option<&Arc<Reloading<ClientTls>>>) -> Result<Member, Error> {
    let endpoint = match Endpoint::from_shared(url.clone()) {
        Ok(endpoint) => endpoint,
        Err(source) => return Err(Error::BadEndpoint { endpoint: url, source }),
    };
    let endpoint = endpoint
        .connect_timeout(config.connect_timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    let channel = match tls.filter(|_| is_tls(&url)) {
        Some(tls) => endpoint.connect_with_connector_lazy(Connector::new(Arc::clone(tls))),
        None => endpoint.connect_lazy(),
    };
    Ok(Member { endpoint: url, channel })
}

/// Between half of it and all of it.
pub(crate) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::codec::LeaseId;
    use crate::error::Class;

    /// RS4: a lease that is shorter than the client's time for calls is renewed by another member in time.
    #[tokio::test]
    async fn a_renewal_leaves_a_silent_member_before_it_is_too_late() {
        let silent = [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap()];
        let endpoints = silent.each_ref().map(|member| format!("http://{}", member.local_addr().unwrap()));
        let config = Config { call_timeout: Duration::MAX, ..Config::default() };
        let client = Client::with_config(endpoints.clone(), config).unwrap();
        let until = after(Duration::from_millis(400));
        let Err(Error::Unavailable { attempts }) = client.keep_alive(LeaseId(1), until).await else {
            panic!("nobody has answered");
        };
        let is_asked = |endpoint: &String| attempts.iter().any(|attempt| attempt.endpoint == *endpoint);
        assert!(endpoints.iter().all(is_asked), "{attempts:?}");
    }

    #[test]
    fn only_a_read_that_is_given_up_certainly_does_nothing() {
        let given_up = |repeat, is_unknown| {
            let how = How { shows: Shows::Nothing, repeat, deadline: Instant::now() };
            how.given_up(Vec::new(), is_unknown).class()
        };
        assert_eq!(given_up(Repeat::Harmless, true), Class::Retry);
        for repeat in [Repeat::Idempotent, Repeat::Harmful] {
            assert_eq!(given_up(repeat, true), Class::Unknown);
            assert_eq!(given_up(repeat, false), Class::Retry);
        }
    }
}
