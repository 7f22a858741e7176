//! The demo's load: a few clients that put and get at a steady rate.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_env::Clock;
use holdfast_proto::etcdserverpb as pb;
use parking_lot::Mutex;
use pb::kv_client::KvClient;
use tokio::task::JoinSet;
use tonic::transport::Channel;

/// Clients, each with one request under way. So a stuck cluster holds up eight requests and no more.
const CLIENTS: u32 = 8;
/// Keys that the load goes round.
const KEYS: u64 = 1000;
/// One request in so many is a get.
const GET_EVERY: u64 = 4;
/// Latencies kept per second; more than that are counted but not measured.
const LATENCIES_MAX: usize = 20_000;

/// What happened within one second.
#[derive(Debug, Default)]
pub(super) struct Second {
    pub puts: u64,
    pub gets: u64,
    pub errors: u64,
    put_latencies: Vec<Duration>,
}

impl Second {
    /// The put latency below which this share of them lies.
    pub(super) fn put_quantile(&self, share: f64) -> Option<Duration> {
        let mut sorted = self.put_latencies.clone();
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
    _clients: JoinSet<()>,
}

impl Traffic {
    /// Starts `rate` requests per second over the members behind `channels`.
    pub(super) fn start(rate: u32, channels: &[Channel], clock: &Arc<dyn Clock>) -> Self {
        let second = Arc::new(Mutex::new(Second::default()));
        let mut clients = JoinSet::new();
        if rate > 0 {
            let pause = Duration::from_secs(1) * CLIENTS / rate;
            for number in 0..CLIENTS {
                let client = Client {
                    channels: channels.to_vec(),
                    at: number as usize % channels.len(),
                    clock: Arc::clone(clock),
                    second: Arc::clone(&second),
                    next: u64::from(number),
                };
                clients.spawn(client.run(pause, pause * number / CLIENTS));
            }
        }
        Self { second, _clients: clients }
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
    next: u64,
}

impl Client {
    /// Begins after `offset` and holds the rate over time: a slow answer is made up for, at most one second of it.
    async fn run(mut self, pause: Duration, offset: Duration) {
        let mut due = self.clock.now().after(offset);
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
        let key = Bytes::from(format!("demo/{:04}", self.next % KEYS));
        // The clients take turns, so that each second sees the same mixture.
        let turn = self.next / u64::from(CLIENTS) + self.next % u64::from(CLIENTS);
        let is_get = turn.is_multiple_of(GET_EVERY);
        let began = self.clock.now();
        let answered = if is_get {
            kv.range(pb::RangeRequest { key, ..Default::default() }).await.map(drop)
        } else {
            let value = Bytes::from(format!("value {}", self.next));
            kv.put(pb::PutRequest { key, value, ..Default::default() }).await.map(drop)
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
                if second.put_latencies.len() < LATENCIES_MAX {
                    second.put_latencies.push(took);
                }
            }
        }
    }
}
