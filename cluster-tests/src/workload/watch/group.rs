//! The watchers of one stream, their stream, and the client's moods: leaves, comes back elsewhere, cancels, asks for
//! progress, stops reading.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use holdfast_proto::etcdserverpb::watch_client::WatchClient;
use holdfast_proto::etcdserverpb::watch_create_request::FilterType;
use holdfast_proto::etcdserverpb::watch_request::RequestUnion;
use holdfast_proto::etcdserverpb::{
    WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use super::population::{Beginning, Plan, beginning};
use super::shared::Shared;
use super::tracked::{Standing, Tracked};
use crate::judge::watch::record::{Life, Stray, Whose};

/// Requests that may wait for the stream to open: more than the watchers of a stream.
const REQUESTS_MAX: usize = 256;

/// How long a stream may take to open.
const OPEN_TIMEOUT: Duration = Duration::from_secs(3);

/// Pause after a stream that did not open.
const PAUSE: Duration = Duration::from_millis(100);

/// A response of any size is taken.
const RESPONSE_BYTES_MAX: usize = 256 << 20;

/// What the watchers are to do.
#[derive(Debug, Clone)]
pub enum Phase {
    /// Come and go.
    Roam,
    /// Stay until each has passed the revision under its number.
    Finish(Arc<Vec<i64>>),
    /// End now, wherever they are.
    Stop,
}

/// What a group did and met.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    /// Streams that opened.
    pub streams: u64,
    /// Streams that the client left.
    pub left: u64,
    /// Streams that ended otherwise, by what was said.
    pub ends: BTreeMap<String, u64>,
    /// Streams that did not open.
    pub not_opened: u64,
    /// Times that the client stopped reading.
    pub naps: u64,
    /// Progress that was asked for.
    pub progress_asked: u64,
}

impl Tally {
    /// Adds another group's.
    pub fn add(&mut self, other: Self) {
        self.streams += other.streams;
        self.left += other.left;
        self.not_opened += other.not_opened;
        self.naps += other.naps;
        self.progress_asked += other.progress_asked;
        for (said, count) in other.ends {
            *self.ends.entry(said).or_default() += count;
        }
    }
}

/// What a group leaves behind.
#[derive(Debug)]
pub struct Outcome {
    /// The lives of its watchers.
    pub lives: Vec<Life>,
    /// Whether the stream's reader is slow.
    pub is_slow: bool,
    /// Responses that fitted no watcher.
    pub strays: Vec<Stray>,
    /// Counts.
    pub tally: Tally,
}

/// A group.
#[derive(Debug)]
pub struct Group {
    shared: Arc<Shared>,
    channels: Vec<Channel>,
    plan: Plan,
    rng: StdRng,
    tracked: Vec<Tracked>,
    member: usize,
    /// Place of a watcher by its id on the current stream.
    ids: HashMap<i64, usize>,
    /// Watchers whose create requests have not been answered, in the order of the requests.
    unanswered: VecDeque<usize>,
    id_next: i64,
    strays: Vec<Stray>,
    tally: Tally,
}

/// Why a stream was left.
#[derive(Debug, PartialEq, Eq)]
enum Parting {
    Roaming,
    Done,
}

impl Group {
    /// A group that has no stream yet.
    pub fn new(shared: Arc<Shared>, channels: Vec<Channel>, plan: Plan) -> Self {
        let rng = shared.rng("group", plan.number);
        let tracked =
            plan.watchers.iter().map(|(number, wish)| Tracked::new(*number, wish.clone())).collect();
        Self {
            shared,
            channels,
            plan,
            rng,
            tracked,
            member: 0,
            ids: HashMap::new(),
            unanswered: VecDeque::new(),
            id_next: 1,
            strays: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// Watches, on one stream after the other, until the phase lets it end.
    pub async fn run(mut self, mut phase: watch::Receiver<Phase>) -> Outcome {
        for at in 0..self.tracked.len() {
            self.begin(at);
        }
        while !self.is_done(&phase.borrow_and_update()) {
            self.member = self.rng.random_range(0..self.channels.len());
            match self.open().await {
                Ok((requests, stream)) => {
                    self.tally.streams += 1;
                    let parting = self.watch(requests, stream, &mut phase).await;
                    self.part(parting);
                }
                Err(()) => {
                    self.tally.not_opened += 1;
                    sleep(PAUSE).await;
                }
            }
            self.ids.clear();
            self.unanswered.clear();
            self.tracked.iter_mut().for_each(Tracked::left);
        }
        let lives = self.tracked.into_iter().flat_map(Tracked::into_lives).collect();
        Outcome { lives, is_slow: self.plan.temper.is_slow, strays: self.strays, tally: self.tally }
    }

    fn part(&mut self, parting: Result<Parting, Option<Status>>) {
        match parting {
            Ok(Parting::Done) => self.tally.left += 1,
            Ok(Parting::Roaming) => {
                self.tally.left += 1;
                for at in 0..self.tracked.len() {
                    if self.rng.random_bool(0.1) {
                        self.begin(at);
                    }
                }
            }
            Err(end) => {
                let said = end.map_or_else(
                    || "ended without a status".to_owned(),
                    |status| format!("{:?}: {}", status.code(), status.message()),
                );
                *self.tally.ends.entry(said).or_default() += 1;
            }
        }
    }

    /// Begins a new life of a watcher.
    fn begin(&mut self, at: usize) {
        let newest = self.shared.newest();
        let start = match beginning(&mut self.rng) {
            Beginning::Now => 0,
            Beginning::Past(back) => (newest - back).max(1),
            Beginning::Future(ahead) => newest + ahead,
        };
        self.tracked[at].begin(start);
    }

    fn is_done(&self, phase: &Phase) -> bool {
        match phase {
            Phase::Roam => false,
            Phase::Stop => true,
            Phase::Finish(targets) => {
                self.tracked.iter().all(|tracked| tracked.next() > targets[tracked.number])
            }
        }
    }

    /// Opens a stream with all watchers asked for.
    async fn open(&mut self) -> Result<(mpsc::Sender<WatchRequest>, Streaming<WatchResponse>), ()> {
        let (send, receive) = mpsc::channel(REQUESTS_MAX);
        for at in 0..self.tracked.len() {
            self.ask(at, &send);
        }
        let mut request = Request::new(ReceiverStream::new(receive));
        if self.plan.temper.needs_leader {
            request.metadata_mut().insert("hasleader", "true".parse().expect("plain ASCII"));
        }
        let channel = self.channels[self.member].clone();
        let mut client = WatchClient::new(channel).max_decoding_message_size(RESPONSE_BYTES_MAX);
        match timeout(OPEN_TIMEOUT, client.watch(request)).await {
            Ok(Ok(response)) => Ok((send, response.into_inner())),
            Ok(Err(_)) | Err(_) => Err(()),
        }
    }

    /// Asks for a watcher where it stopped. What does not fit the queue is asked for with the next stream.
    fn ask(&mut self, at: usize, requests: &mpsc::Sender<WatchRequest>) {
        let watch_id = if self.plan.temper.chooses_ids { self.id_next } else { 0 };
        let request = RequestUnion::CreateRequest(create(&self.tracked[at], watch_id));
        if requests.try_send(WatchRequest { request_union: Some(request) }).is_ok() {
            self.id_next += 1;
            self.tracked[at].ask(self.member);
            self.unanswered.push_back(at);
        }
    }

    /// Takes responses and has moods, until the client leaves or the stream ends.
    async fn watch(
        &mut self,
        requests: mpsc::Sender<WatchRequest>,
        mut stream: Streaming<WatchResponse>,
        phase: &mut watch::Receiver<Phase>,
    ) -> Result<Parting, Option<Status>> {
        let leave_at =
            Instant::now() + Duration::from_millis(self.rng.random_range(500..self.plan.stay_ms_max));
        let mut mood_at = self.next_mood();
        loop {
            let roams = matches!(*phase.borrow(), Phase::Roam);
            // Each arm can be dropped: a message is taken whole or not at all, timers and the phase keep nothing.
            tokio::select! {
                message = stream.message() => match message {
                    Ok(Some(response)) => self.take(&response, &requests),
                    Ok(None) => return Err(None),
                    Err(status) => return Err(Some(status)),
                },
                () = sleep_until(mood_at) => {
                    if roams { self.mood(&requests).await } else { self.ask_progress(&requests) }
                    mood_at = self.next_mood();
                }
                () = sleep_until(leave_at), if roams => return Ok(Parting::Roaming),
                changed = phase.changed() => {
                    if changed.is_err() { return Ok(Parting::Done) }
                }
            }
            if !roams && self.is_done(&phase.borrow()) {
                return Ok(Parting::Done);
            }
        }
    }

    fn next_mood(&mut self) -> Instant {
        let spread = if self.plan.temper.is_slow { 100..1_500 } else { 200..8_000 };
        Instant::now() + Duration::from_millis(self.rng.random_range(spread))
    }

    async fn mood(&mut self, requests: &mpsc::Sender<WatchRequest>) {
        let is_slow = self.plan.temper.is_slow;
        match self.rng.random_range(0..10) {
            0..7 if is_slow => {
                self.tally.naps += 1;
                sleep(Duration::from_millis(self.rng.random_range(500..10_000))).await;
            }
            0..5 => self.ask_progress(requests),
            _ => self.cancel_one(requests),
        }
    }

    fn ask_progress(&mut self, requests: &mpsc::Sender<WatchRequest>) {
        let request = RequestUnion::ProgressRequest(WatchProgressRequest {});
        if requests.try_send(WatchRequest { request_union: Some(request) }).is_ok() {
            self.tally.progress_asked += 1;
        }
    }

    fn cancel_one(&mut self, requests: &mpsc::Sender<WatchRequest>) {
        let mut live: Vec<(i64, usize)> = self.ids.iter().map(|(id, at)| (*id, *at)).collect();
        live.retain(|(_, at)| self.tracked[*at].standing == Standing::Live);
        live.sort_unstable();
        if live.is_empty() {
            return;
        }
        let (watch_id, at) = live[self.rng.random_range(0..live.len())];
        let request = RequestUnion::CancelRequest(WatchCancelRequest { watch_id });
        if requests.try_send(WatchRequest { request_union: Some(request) }).is_ok() {
            self.tracked[at].standing = Standing::Leaving;
        }
    }

    fn take(&mut self, response: &WatchResponse, requests: &mpsc::Sender<WatchRequest>) {
        let at = self.shared.elapsed();
        let header = response.header.as_ref().map_or(0, |header| header.revision);
        if response.created {
            return self.take_created(response, header);
        }
        if response.watch_id == -1 && response.events.is_empty() && !response.canceled {
            for place in self.ids.values() {
                self.tracked[*place].progress(header, Whose::Stream, at);
            }
            return;
        }
        let Some(place) = self.ids.get(&response.watch_id).copied() else {
            self.strays.push(Stray { member: self.member, watch_id: response.watch_id });
            return;
        };
        let tracked = &mut self.tracked[place];
        if response.canceled {
            self.ids.remove(&response.watch_id);
            tracked.ended(response, at);
            self.ask(place, requests);
        } else if response.events.is_empty() && !response.fragment {
            tracked.progress(header, Whose::Watcher, at);
        } else {
            tracked.events(response, &mut self.shared.keys(), at);
        }
    }

    fn take_created(&mut self, response: &WatchResponse, header: i64) {
        let Some(place) = self.unanswered.pop_front() else {
            self.strays.push(Stray { member: self.member, watch_id: response.watch_id });
            return;
        };
        if response.canceled {
            return self.tracked[place].ended(response, self.shared.elapsed());
        }
        self.ids.insert(response.watch_id, place);
        self.tracked[place].created(header);
    }
}

fn create(tracked: &Tracked, watch_id: i64) -> WatchCreateRequest {
    let wish = tracked.wish();
    let filters = [(wish.no_puts, FilterType::Noput), (wish.no_deletes, FilterType::Nodelete)];
    WatchCreateRequest {
        key: wish.key.clone(),
        range_end: wish.range_end.clone(),
        start_revision: tracked.next(),
        progress_notify: wish.progress_notify,
        filters: filters.into_iter().filter(|(on, _)| *on).map(|(_, filter)| filter.into()).collect(),
        prev_kv: wish.prev_kv,
        watch_id,
        fragment: wish.fragment,
    }
}
