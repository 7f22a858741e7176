//! The connection that we open to one peer and keep: requests out, answers in.
//!
//! A link connects again by itself, with a bounded, jittered pause. While it is down, requests fail at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_env::{Duplex, Env, Lane};
use openraft_rt::watch::{Watch, WatchReceiver, WatchSender};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::hello::{HelloError, Identity, heed};
use super::roster::Roster;
use crate::codec::rpc::{Body, decode_message, encode_message};
use crate::limits::{CONNECT_TIMEOUT, RECONNECT_MAX, RECONNECT_MIN, within};
use crate::ordered_watch::{self, OrderedWatch};
use crate::types::PeerNode;

/// Why a request got no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LinkError {
    /// There is no connection; nothing was sent.
    #[error("not connected")]
    Down,
    /// The connection broke; the peer may have got the request.
    #[error("the connection broke")]
    Broken,
    /// No answer in time; the peer may have got the request.
    #[error("no answer in time")]
    TimedOut,
}

/// The connection to one peer. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Link {
    inner: Arc<Inner>,
}

struct Inner {
    env: Env,
    identity: Identity,
    roster: Arc<Roster>,
    peer: u64,
    /// What the peer has told the leader of a term that it holds durably; nothing before it has acknowledged an entry.
    /// Written by the users of the link.
    matched: Mutex<Option<Matched>>,
    /// Where the peer is; replaced when the membership says so.
    node: Mutex<PeerNode>,
    state: Mutex<State>,
    /// Written by the link's task, and for connections that the peer opens by the peer server.
    presence: ordered_watch::Sender<Presence>,
    /// Ends the pause before the next try. The link's task waits on it.
    hurry: Notify,
}

/// What connections show of a peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Presence {
    ours: Ours,
    /// Connections for requests that the peer has opened to us.
    theirs: usize,
}

/// Our connection for requests to a peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Ours {
    /// There is none, and the first try to get one is under way.
    #[default]
    Trying,
    /// It is there.
    Connected,
    /// There is none, and the last try failed.
    Refused,
}

impl Presence {
    fn is_connected(&self) -> bool {
        self.ours == Ours::Connected
    }

    /// No connection is left in either direction, and the peer takes none: what the others see when its process has ended.
    fn is_gone(&self) -> bool {
        self.ours == Ours::Refused && self.theirs == 0
    }
}

/// Counts one connection that the peer has opened to us, until it is dropped.
pub(crate) struct Theirs(Link);

/// How far a peer's log is the leader's, as the peer has said in that leader's term.
#[derive(Debug, Clone, Copy)]
struct Matched {
    term: u64,
    index: u64,
    /// True once it was noted that the peer has less.
    went_back: bool,
}

struct State {
    next_request: u64,
    /// Frames to the peer, while connected.
    send: Option<mpsc::Sender<Bytes>>,
    /// Who waits for which answer. Emptied when the connection breaks.
    pending: BTreeMap<u64, oneshot::Sender<Body>>,
}

/// An answer that is awaited. Dropping it forgets the request.
pub(crate) struct Pending {
    link: Link,
    request: u64,
    answer: oneshot::Receiver<Body>,
}

impl Link {
    /// A link to `peer`, not connected until [`Link::run`] runs.
    pub(crate) fn new(env: Env, identity: Identity, roster: Arc<Roster>, peer: u64, node: PeerNode) -> Self {
        let state = State { next_request: 1, send: None, pending: BTreeMap::new() };
        let inner = Inner {
            env,
            identity,
            roster,
            peer,
            matched: Mutex::default(),
            node: Mutex::new(node),
            state: Mutex::new(state),
            presence: OrderedWatch::channel(Presence::default()).0,
            hurry: Notify::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    pub(crate) fn peer(&self) -> u64 {
        self.inner.peer
    }

    pub(crate) fn env(&self) -> &Env {
        &self.inner.env
    }

    pub(crate) fn set_node(&self, node: &PeerNode) {
        let mut known = self.inner.node.lock();
        if *known != *node {
            *known = node.clone();
        }
    }

    /// Opens a further connection to the peer, greeted.
    pub(crate) async fn open(&self, lane: Lane) -> Result<Duplex, String> {
        let Inner { env, identity, roster, peer, node, .. } = &*self.inner;
        let urls = Arc::clone(&node.lock().peer_urls);
        let mut last_error = "it has no peer URL".to_owned();
        for url in urls.iter() {
            match within(&*env.clock, CONNECT_TIMEOUT, env.net.connect(url, lane)).await {
                Some(Ok(mut duplex)) => {
                    match identity.introduce(roster, &*env.clock, &mut duplex, *peer).await {
                        Ok(()) => return Ok(duplex),
                        Err(error) => {
                            if let HelloError::RefusedByPeer(_)
                            | HelloError::Refused(_)
                            | HelloError::NotHello = error
                            {
                                tracing::error!(peer = format!("{peer:x}"), url, %error, "the peer cannot be used");
                            }
                            last_error = error.to_string();
                        }
                    }
                }
                Some(Err(error)) => last_error = error.to_string(),
                None => last_error = format!("{url} does not answer"),
            }
        }
        Err(last_error)
    }

    /// Notes that the peer has told the leader of `term` that it has this entry durably in its log, and that it is not the
    /// first one.
    pub(crate) fn acknowledged(&self, term: u64, index: u64) {
        let mut known = self.inner.matched.lock();
        let is_first = known.is_none();
        match &mut *known {
            Some(matched) if matched.term == term => matched.index = matched.index.max(index),
            // An answer to an earlier leader says nothing about this one.
            Some(matched) if matched.term > term => {}
            _ => *known = Some(Matched { term, index, went_back: false }),
        }
        drop(known);
        if is_first {
            self.inner.roster.acknowledged(self.inner.peer);
        }
    }

    /// True when the peer tells the leader of `term` that it does not have an entry that it has acknowledged to it. Within
    /// a term nobody else can have had it dropped: its log has lost it.
    pub(crate) fn went_back(&self, term: u64, conflict: u64) -> bool {
        let mut known = self.inner.matched.lock();
        let is_lost = |matched: &&mut Matched| term == matched.term && conflict <= matched.index;
        let Some(matched) = known.as_mut().filter(is_lost) else { return false };
        if !std::mem::replace(&mut matched.went_back, true) {
            tracing::error!(
                peer = format!("{:x}", self.inner.peer),
                acknowledged = matched.index,
                missing = conflict,
                "the peer's log has lost entries that it had acknowledged: it is told so, and ends. Let it take part as a new \
                 member: holdfast join --replace, with its flags"
            );
        }
        true
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.inner.presence.borrow_watched().is_connected()
    }

    /// True when there is no connection in either direction, and the peer takes none.
    pub(crate) fn is_gone(&self) -> bool {
        self.inner.presence.borrow_watched().is_gone()
    }

    /// Waits until [`Link::is_gone`] is `gone`.
    pub(crate) async fn until_gone_is(&self, gone: bool) {
        let mut presence = self.inner.presence.subscribe();
        // The sender is ours, so there is no other end.
        presence.wait_until(|presence| presence.is_gone() == gone).await.ok();
    }

    /// Waits until the link is connected, as long as that takes.
    pub(crate) async fn until_connected(&self) {
        let mut presence = self.inner.presence.subscribe();
        // The sender is ours, so there is no other end.
        presence.wait_until(Presence::is_connected).await.ok();
    }

    /// Notes a connection for requests that the peer has opened to us.
    pub(crate) fn opened_by_peer(&self) -> Theirs {
        self.change_presence(|presence| presence.theirs += 1);
        Theirs(self.clone())
    }

    fn change_presence(&self, change: impl FnOnce(&mut Presence)) {
        self.inner.presence.send_if_modified(|presence| {
            let before = *presence;
            change(presence);
            *presence != before
        });
    }

    fn set_ours(&self, ours: Ours) {
        self.change_presence(|presence| presence.ours = ours);
    }

    /// Tries to connect now, if the link is down: the peer was heard of.
    pub(crate) fn hurry(&self) {
        if !self.is_connected() {
            self.inner.hurry.notify_one();
        }
    }

    /// Waits until the link is connected, at most `limit`.
    pub(crate) async fn wait_connected(&self, limit: Duration) -> Result<(), LinkError> {
        within(&*self.inner.env.clock, limit, self.until_connected()).await.ok_or(LinkError::Down)
    }

    /// Sends a request; its answer is awaited separately. Requests arrive in the order in which this returns.
    pub(crate) async fn begin(&self, body: Body) -> Result<Pending, LinkError> {
        let (answer_to, answer) = oneshot::channel();
        let (request, send) = {
            let mut state = self.inner.state.lock();
            let send = state.send.clone().ok_or(LinkError::Down)?;
            let request = state.next_request;
            state.next_request += 1;
            state.pending.insert(request, answer_to);
            (request, send)
        };
        let pending = Pending { link: self.clone(), request, answer };
        send.send(encode_message(request, body)).await.map_err(|_| LinkError::Down)?;
        Ok(pending)
    }

    /// Sends a request and waits for its answer.
    pub(crate) async fn request(&self, body: Body, limit: Duration) -> Result<Body, LinkError> {
        let exchange = async { self.begin(body).await?.answer().await };
        within(&*self.inner.env.clock, limit, exchange).await.unwrap_or(Err(LinkError::TimedOut))
    }

    /// Connects, and connects again, until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut pause = RECONNECT_MIN;
        let mut reported = false;
        loop {
            let opened = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                opened = self.open(Lane::Raft) => opened,
                // The peer has reached us: a try that began before may wait for a lost packet.
                () = self.inner.hurry.notified() => continue,
            };
            match opened {
                Ok(duplex) => {
                    tracing::info!(peer = format!("{:x}", self.peer()), "connected to the peer");
                    (pause, reported) = (RECONNECT_MIN, false);
                    let connected = self.inner.env.clock.now();
                    self.serve(duplex, &stop).await;
                    tracing::info!(peer = format!("{:x}", self.peer()), "the connection to the peer ended");
                    // Whether the peer is still there is worth knowing at once.
                    if self.inner.env.clock.now().since(connected) >= RECONNECT_MAX {
                        continue;
                    }
                }
                Err(error) => {
                    self.set_ours(Ours::Refused);
                    let peer = format!("{:x}", self.peer());
                    if std::mem::replace(&mut reported, true) {
                        tracing::debug!(peer, error, "still cannot reach it");
                    } else {
                        tracing::warn!(peer, error, "cannot reach the peer; trying on");
                    }
                }
            }
            // Half to all of the pause, so that members that lost each other do not come back in step.
            let nanos = u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX);
            let jittered = Duration::from_nanos(nanos / 2 + self.inner.env.rng.next_u64() % (nanos / 2 + 1));
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.inner.env.clock.sleep(jittered) => {}
                () = self.inner.hurry.notified() => {}
            }
            pause = (pause * 2).min(RECONNECT_MAX);
        }
    }

    /// Hands answers to those who wait, until the connection ends.
    async fn serve(&self, mut duplex: Duplex, stop: &CancellationToken) {
        self.inner.state.lock().send = Some(duplex.send);
        self.set_ours(Ours::Connected);
        loop {
            let frame = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                frame = duplex.recv.recv() => frame,
            };
            let Some(frame) = frame else { break };
            match decode_message(frame) {
                Ok((request, body)) => {
                    if let Body::Refused(refused) = &body {
                        heed(&self.inner.roster, refused);
                    }
                    let waiting = self.inner.state.lock().pending.remove(&request);
                    if let Some(waiting) = waiting {
                        // The asker may have given up meanwhile.
                        waiting.send(body).ok();
                    }
                }
                Err(error) => {
                    tracing::error!(peer = format!("{:x}", self.peer()), %error, "a malformed message; connecting anew");
                    break;
                }
            }
        }
        self.set_ours(Ours::Trying);
        let mut state = self.inner.state.lock();
        state.send = None;
        state.pending.clear();
    }
}

impl Pending {
    /// Waits for the answer. Cancel-safe: may be dropped and awaited again.
    pub(crate) async fn answer(&mut self) -> Result<Body, LinkError> {
        (&mut self.answer).await.map_err(|_| LinkError::Broken)
    }
}

impl Drop for Theirs {
    fn drop(&mut self) {
        self.0.change_presence(|presence| presence.theirs -= 1);
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.link.inner.state.lock().pending.remove(&self.request);
    }
}
