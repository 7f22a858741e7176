//! Watch caches: a list, then a watch from behind it with `hasleader`, the pairs before the changes and progress; and
//! consistent reads from them, which ask for the store's revision and wait until the cache has seen progress there.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use holdfast_proto::etcdserverpb::watch_client::WatchClient;
use holdfast_proto::etcdserverpb::watch_request::RequestUnion;
use holdfast_proto::etcdserverpb::{WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse};
use holdfast_proto::mvccpb::event::EventType;
use rand::RngExt;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming};

use super::api::Api;
use super::calls;
use super::lister::list;
use crate::judge::apiserver::{CacheRead, Held, Span, Way};
use crate::judge::watch::record::{Stray, Whose, Wish};
use crate::workload::watch::tracked::{Standing, Tracked};

/// While readers wait, progress is asked for so often: the API server's interval.
const PROGRESS: Duration = Duration::from_millis(100);

/// So long a reader of an API server waits for its cache, before it asks the store for everything.
const WAIT_MAX: Duration = Duration::from_secs(3);

/// Longest pause between two reads.
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// How long a stream may take to open.
const OPEN_MAX: Duration = Duration::from_secs(3);

/// A response of any size is taken.
const RESPONSE_BYTES_MAX: usize = 64 << 20;

/// A cache of some keys.
#[derive(Debug, Clone)]
pub struct Cache {
    span: Span,
    wish: Wish,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    /// The revision that it has reached, told after the state.
    reached: watch::Sender<i64>,
    /// Readers that wait.
    waiting: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    pairs: BTreeMap<Bytes, Held>,
    revision: i64,
}

/// Why a watch was over.
enum Over {
    /// The cache has come to the end of the run.
    Run,
    /// The watcher is gone: all is listed again.
    Watcher,
    /// The stream is.
    Stream(String),
}

impl Cache {
    /// A cache of the keys from `from` up to `end`.
    pub fn of_span((from, end): (Bytes, Bytes)) -> Self {
        let wish = Wish {
            key: from.clone(),
            range_end: end.clone(),
            prev_kv: true,
            progress_notify: true,
            ..Wish::default()
        };
        let inner =
            Inner { state: Mutex::default(), reached: watch::channel(0).0, waiting: AtomicUsize::new(0) };
        Self { span: Span { from, end }, wish, inner: Arc::new(inner) }
    }

    /// A cache of one key.
    pub fn of_key(key: Bytes) -> Self {
        let behind = [&key[..], b"\0"].concat().into();
        let cache = Self::of_span((key, behind));
        Self { wish: Wish { range_end: Bytes::new(), ..cache.wish }, ..cache }
    }

    /// The revision of an object, if the cache has it.
    pub fn mod_revision(&self, key: &Bytes) -> Option<i64> {
        self.state().pairs.get(key).map(|held| held.mod_revision)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().expect("no holder of the lock panics")
    }

    /// Lists and watches until it has come to the revision that `finish` names in the end; gives its record.
    pub async fn run(self, api: Api, number: usize, mut finish: watch::Receiver<i64>) {
        let mut tracked = Tracked::new(number, self.wish.clone());
        let (mut is_listed, mut lists) = (false, number);
        while !self.is_finished(&finish) {
            if !is_listed {
                let way = if lists.is_multiple_of(2) { Way::Stream } else { Way::Pages(5) };
                lists += 1;
                let span = (self.span.from.clone(), self.span.end.clone());
                let Some(all) = list(&api, span, way, false).await else {
                    api.move_on().await;
                    continue;
                };
                tracked.begin(all.revision + 1);
                self.replace(all.pairs, all.revision);
                is_listed = true;
            }
            match self.follow(&api, &mut tracked, &mut finish).await {
                Over::Run => break,
                Over::Watcher => is_listed = false,
                Over::Stream(why) => {
                    tracked.left();
                    *api.world.record().counts.stream_ends.entry(why).or_default() += 1;
                    api.move_on().await;
                }
            }
        }
        api.world.record().lives.extend(tracked.into_lives());
    }

    fn is_finished(&self, finish: &watch::Receiver<i64>) -> bool {
        let target = *finish.borrow();
        target > 0 && self.state().revision >= target
    }

    fn replace(&self, pairs: Vec<(Bytes, Held)>, revision: i64) {
        *self.state() = State { pairs: pairs.into_iter().collect(), revision };
        self.inner.reached.send_replace(revision);
    }

    /// One watch on one stream.
    async fn follow(&self, api: &Api, tracked: &mut Tracked, finish: &mut watch::Receiver<i64>) -> Over {
        let (ask, asked) = mpsc::channel(64);
        tracked.ask(api.member());
        let mut stream = match self.open(api, tracked.next(), &ask, asked).await {
            Ok(stream) => stream,
            Err(why) => return Over::Stream(why),
        };
        api.world.record().counts.streams += 1;
        let mut tick = interval(PROGRESS);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.is_finished(finish) {
            tokio::select! {
                // All arms only wait, and a message is taken whole or not at all.
                message = stream.message() => match message {
                    Ok(Some(response)) => if self.take(api, tracked, &response) {
                        return Over::Watcher;
                    },
                    Ok(None) => return Over::Stream("ended".to_owned()),
                    Err(status) => return Over::Stream(words(&status)),
                },
                _ = finish.changed() => {}
                _ = tick.tick() => {
                    let is_wanted = self.inner.waiting.load(Ordering::SeqCst) > 0 || *finish.borrow() > 0;
                    if is_wanted && tracked.standing == Standing::Live {
                        let request = RequestUnion::ProgressRequest(WatchProgressRequest {});
                        // A stream that takes no more will say so itself.
                        if ask.try_send(WatchRequest { request_union: Some(request) }).is_ok() {
                            api.world.record().counts.progress_requests += 1;
                        }
                    }
                }
            }
        }
        Over::Run
    }

    async fn open(
        &self,
        api: &Api,
        start_revision: i64,
        ask: &mpsc::Sender<WatchRequest>,
        asked: mpsc::Receiver<WatchRequest>,
    ) -> Result<Streaming<WatchResponse>, String> {
        let create = WatchCreateRequest {
            key: self.wish.key.clone(),
            range_end: self.wish.range_end.clone(),
            start_revision,
            prev_kv: true,
            progress_notify: true,
            ..WatchCreateRequest::default()
        };
        let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        ask.try_send(create).map_err(|_| "no room for the first request".to_owned())?;
        let mut request = Request::new(ReceiverStream::new(asked));
        request.metadata_mut().insert("hasleader", tonic::metadata::MetadataValue::from_static("true"));
        let mut client =
            WatchClient::new(api.channel().clone()).max_decoding_message_size(RESPONSE_BYTES_MAX);
        match timeout(OPEN_MAX, client.watch(request)).await {
            Ok(Ok(stream)) => Ok(stream.into_inner()),
            Ok(Err(status)) => Err(words(&status)),
            Err(_) => Err("not opened in time".to_owned()),
        }
    }

    /// Takes a response; true when the watcher is gone.
    fn take(&self, api: &Api, tracked: &mut Tracked, response: &WatchResponse) -> bool {
        let header = response.header.as_ref().map_or(0, |header| header.revision);
        let at = api.world.elapsed();
        if response.canceled {
            tracked.ended(response, at);
            return true;
        }
        if response.created {
            tracked.created(header);
            return false;
        }
        let whose = if response.watch_id == -1 { Whose::Stream } else { Whose::Watcher };
        if !response.events.is_empty() {
            if whose == Whose::Stream || response.watch_id != 0 {
                let stray = Stray { member: api.member(), watch_id: response.watch_id };
                api.world.record().strays.push(stray);
                return false;
            }
            tracked.events(response, &mut api.world.keys(), at);
            self.apply(api, response);
        } else {
            tracked.progress(header, whose, at);
            let mut state = self.state();
            state.revision = state.revision.max(header);
            let revision = state.revision;
            drop(state);
            self.inner.reached.send_replace(revision);
        }
        false
    }

    fn apply(&self, api: &Api, response: &WatchResponse) {
        let pairs = response.events.iter().filter_map(|event| {
            let pair = event.kv.as_ref()?;
            let is_delete = event.r#type == i32::from(EventType::Delete);
            Some((pair, (!is_delete).then(|| api.world.held(pair))))
        });
        let changes: Vec<_> = pairs.collect();
        let mut state = self.state();
        for (pair, held) in changes {
            match held {
                Some(held) => state.pairs.insert(pair.key.clone(), held),
                None => state.pairs.remove(&pair.key),
            };
            state.revision = state.revision.max(pair.mod_revision);
        }
        let revision = state.revision;
        drop(state);
        self.inner.reached.send_replace(revision);
    }

    /// Reads consistently until the load is over.
    pub async fn read(self, api: Api) {
        let mut rng = api.world.rng(4, api.number);
        while !api.world.is_over() {
            let floor = api.world.newest();
            match calls::get(api.channel(), &self.span.from, 0).await {
                Ok(answer) => {
                    let wanted = answer.header.map_or(0, |header| header.revision);
                    self.read_at(&api, floor, wanted).await;
                }
                Err(_) => api.move_on().await,
            }
            tokio::time::sleep(rng.random_range(PAUSE_MAX / 4..PAUSE_MAX)).await;
        }
    }

    async fn read_at(&self, api: &Api, floor: i64, wanted: i64) {
        let began = Instant::now();
        let mut reached = self.inner.reached.subscribe();
        self.inner.waiting.fetch_add(1, Ordering::SeqCst);
        let came = timeout(WAIT_MAX, reached.wait_for(|revision| *revision >= wanted)).await;
        self.inner.waiting.fetch_sub(1, Ordering::SeqCst);
        if came.is_err() {
            api.world.record().counts.late_reads += 1;
            return;
        }
        let (pairs, at) = {
            let state = self.state();
            (state.pairs.values().copied().collect(), state.revision)
        };
        let mut record = api.world.record();
        record.counts.waits.push(began.elapsed());
        record.seen.reads.push(CacheRead { span: self.span.clone(), floor, wanted, at, pairs });
    }
}

fn words(status: &Status) -> String {
    // The transport's own texts name ports and frames.
    let is_etcds = status.message().starts_with("etcdserver: ");
    if is_etcds {
        format!("{:?}: {}", status.code(), status.message())
    } else {
        format!("{:?}", status.code())
    }
}
