//! The demo's load: a few clients that put and get at a steady rate, and a watcher on each member.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_env::{Clock, Monotonic};
use holdfast_proto::etcdserverpb as pb;
use parking_lot::Mutex;
use pb::kv_client::KvClient;
use pb::watch_client::WatchClient;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_stream::StreamExt;
use tonic::transport::Channel;

/// Clients, each with one request under way. So a stuck cluster holds up eight requests and no more.
const CLIENTS: u32 = 8;
/// Keys that the load goes round.
const KEYS: u64 = 1000;
/// What all its keys begin with, and the first key behind them.
const PREFIX: (&str, &str) = ("demo/", "demo0");
/// One request in so many is a get.
const GET_EVERY: u64 = 4;
/// Latencies kept per second; more than that are counted but not measured.
const LATENCIES_MAX: usize = 20_000;
/// Pause before a watch that ended is made again.
const WATCH_RETRY: Duration = Duration::from_secs(1);

/// What happened within one second.
#[derive(Debug, Clone, Default)]
pub(super) struct Second {
    pub puts: u64,
    pub gets: u64,
    pub errors: u64,
    pub put_latencies: Latencies,
    /// From the sending of a put to its event, for the watcher on each member.
    pub watch_lags: Vec<Latencies>,
}

/// A bounded collection of times.
#[derive(Debug, Clone, Default)]
pub(super) struct Latencies(Vec<Duration>);

impl Latencies {
    pub(super) fn note(&mut self, took: Duration) {
        if self.0.len() < LATENCIES_MAX {
            self.0.push(took);
        }
    }

    /// The time below which this share of them lies.
    pub(super) fn quantile(&self, share: f64) -> Option<Duration> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a share of a short list"
        )]
        let at = ((sorted.len() as f64 * share) as usize).min(sorted.len().checked_sub(1)?);
        sorted.get(at).copied()
    }
}

/// The running load; ends when it is dropped.
pub(super) struct Traffic {
    second: Arc<Mutex<Second>>,
    rate: watch::Sender<u32>,
    _tasks: JoinSet<()>,
}

impl Traffic {
    /// Starts `rate` requests per second over the members behind `channels`, and a watcher on each of them.
    pub(super) fn start(rate: u32, channels: &[Channel], clock: &Arc<dyn Clock>) -> Self {
        let second = Arc::new(Mutex::new(Second::default()));
        let (rate, asked) = watch::channel(rate);
        let mut tasks = JoinSet::new();
        for number in 0..CLIENTS {
            let client = Client {
                channels: channels.to_vec(),
                at: number as usize % channels.len(),
                clock: Arc::clone(clock),
                second: Arc::clone(&second),
                rate: asked.clone(),
                number,
                next: u64::from(number),
            };
            tasks.spawn(client.run());
        }
        for (member, channel) in channels.iter().enumerate() {
            let watcher = Watcher {
                member,
                channel: channel.clone(),
                clock: Arc::clone(clock),
                second: Arc::clone(&second),
            };
            tasks.spawn(watcher.run());
        }
        Self { second, rate, _tasks: tasks }
    }

    /// Asks for another rate; 0 for none.
    pub(super) fn set_rate(&self, rate: u32) {
        self.rate.send_replace(rate);
    }

    /// What happened since the last call.
    pub(super) fn take_second(&self) -> Second {
        std::mem::take(&mut self.second.lock())
    }
}

struct Client {
    channels: Vec<Channel>,
    /// Which member this client talks to; the next one after an error.
    at: usize,
    clock: Arc<dyn Clock>,
    second: Arc<Mutex<Second>>,
    rate: watch::Receiver<u32>,
    number: u32,
    next: u64,
}

impl Client {
    /// Holds the rate until it changes, again and again. Ends with the sender of the rate.
    async fn run(mut self) {
        loop {
            let rate = *self.rate.borrow_and_update();
            let mut changed = self.rate.clone();
            tokio::select! {
                // A request that is cut off may have happened; nobody counts on it.
                () = self.hold(rate) => {}
                changed = changed.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Holds the rate over time: a slow answer is made up for, at most one second of it.
    async fn hold(&mut self, rate: u32) {
        if rate == 0 {
            return std::future::pending().await;
        }
        let pause = Duration::from_secs(1) * CLIENTS / rate;
        let mut due = self.clock.now().after(pause * self.number / CLIENTS);
        loop {
            due = due.after(pause);
            let wait = due.since(self.clock.now());
            if wait.is_zero() {
                let late = self.clock.now().since(due);
                due = due.after(late.saturating_sub(Duration::from_secs(1)));
            } else {
                self.clock.sleep(wait).await;
            }
            self.request().await;
            self.next += u64::from(CLIENTS);
        }
    }

    async fn request(&mut self) {
        let mut kv = KvClient::new(self.channels[self.at].clone());
        let key = Bytes::from(format!("{}{:04}", PREFIX.0, self.next % KEYS));
        // The clients take turns, so that each second sees the same mixture.
        let turn = self.next / u64::from(CLIENTS) + self.next % u64::from(CLIENTS);
        let is_get = turn.is_multiple_of(GET_EVERY);
        let began = self.clock.now();
        let answered = if is_get {
            kv.range(pb::RangeRequest { key, ..Default::default() }).await.map(drop)
        } else {
            kv.put(pb::PutRequest { key, value: stamped(began), ..Default::default() }).await.map(drop)
        };
        let took = self.clock.now().since(began);
        let mut second = self.second.lock();
        match answered {
            Err(_) => {
                second.errors += 1;
                self.at = (self.at + 1) % self.channels.len();
            }
            Ok(()) if is_get => second.gets += 1,
            Ok(()) => {
                second.puts += 1;
                second.put_latencies.note(took);
            }
        }
    }
}

/// A value that says when it was sent, by this process's clock.
fn stamped(at: Monotonic) -> Bytes {
    Bytes::from(format!("sent at {} ns", at.since_start().as_nanos()))
}

/// When a value was sent, unless somebody else made it.
fn sent_at(value: &[u8]) -> Option<Monotonic> {
    let text = std::str::from_utf8(value).ok()?;
    let nanoseconds = text.strip_prefix("sent at ")?.strip_suffix(" ns")?.parse().ok()?;
    Some(Monotonic::from_start(Duration::from_nanos(nanoseconds)))
}

/// Watches all keys of the load on one member.
struct Watcher {
    member: usize,
    channel: Channel,
    clock: Arc<dyn Clock>,
    second: Arc<Mutex<Second>>,
}

impl Watcher {
    async fn run(self) {
        loop {
            // A member that cannot watch, or is gone, is asked again later; its lag is unknown until then.
            drop(self.watch().await);
            self.clock.sleep(WATCH_RETRY).await;
        }
    }

    async fn watch(&self) -> Result<(), tonic::Status> {
        let create = pb::WatchCreateRequest {
            key: Bytes::from(PREFIX.0),
            range_end: Bytes::from(PREFIX.1),
            ..Default::default()
        };
        let create =
            pb::WatchRequest { request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)) };
        let requests = tokio_stream::once(create).chain(tokio_stream::pending());
        let mut answers = WatchClient::new(self.channel.clone()).watch(requests).await?.into_inner();
        while let Some(answer) = answers.message().await? {
            if answer.canceled {
                break;
            }
            let now = self.clock.now();
            let mut second = self.second.lock();
            if second.watch_lags.len() <= self.member {
                second.watch_lags.resize_with(self.member + 1, Latencies::default);
            }
            let sent = answer.events.iter().filter_map(|event| sent_at(&event.kv.as_ref()?.value));
            sent.for_each(|sent| second.watch_lags[self.member].note(now.since(sent)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_says_when_it_was_sent() {
        let at = Monotonic::from_start(Duration::from_nanos(1_234_567_890));
        assert_eq!(sent_at(&stamped(at)), Some(at));
        assert_eq!(sent_at(b"hello"), None);
    }

    #[test]
    fn quantiles_are_of_what_was_noted() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.quantile(0.5), None);
        (1..=100).rev().for_each(|ms| latencies.note(Duration::from_millis(ms)));
        assert_eq!(latencies.quantile(0.5), Some(Duration::from_millis(51)));
        assert_eq!(latencies.quantile(0.99), Some(Duration::from_millis(100)));
    }
}
