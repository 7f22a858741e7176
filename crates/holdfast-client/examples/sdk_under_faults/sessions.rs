//! Sessions that take one lock in turns, and write down when they held it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use holdfast_client::{Client, HoldState, Lock, Op, Session, Txn};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::Config;

/// How often each lock is asked whether it is held.
const CLAIM_EVERY: Duration = Duration::from_millis(1);
/// Pause after something failed.
const RETRY: Duration = Duration::from_millis(50);
/// Between two facts of a holder.
const FACT_EVERY: Duration = Duration::from_millis(60);
/// How often a session holds the lock before it ends.
const TURNS: u64 = 5;

/// One of those who took the lock in turns.
#[derive(Debug, Default, Serialize)]
pub(crate) struct SessionReport {
    session: u64,
    /// Sessions that were opened, and those that were lost.
    opened: u64,
    lost: u64,
    beliefs: Vec<Belief>,
    /// Facts that were acknowledged.
    facts: Vec<Fact>,
    /// Facts that were told not to be, because the lock was not held any more.
    refused: Vec<String>,
    /// Facts of which nobody knows.
    unknown: u64,
}

/// From when until when a lock was told to be held: it was at `from`, and each time somebody asked up to `until`.
#[derive(Debug, Clone, Copy, Serialize)]
struct Belief {
    token: u64,
    from: u64,
    until: u64,
}

#[derive(Debug, Serialize)]
struct Fact {
    revision: u64,
    value: String,
}

fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let part = |part: i64| u64::try_from(part).unwrap_or(0);
    part(time.tv_sec) * 1_000_000_000 + part(time.tv_nsec)
}

/// A lock that somebody has, and from when until when it was told to be held.
struct Claim {
    lock: Arc<Lock>,
    told: Option<(u64, u64)>,
}

impl Claim {
    /// Asks now.
    fn ask(&mut self) {
        let asked_at = now();
        if self.lock.state() != HoldState::Lost {
            self.told = Some((self.told.map_or(asked_at, |(from, _)| from), asked_at));
        }
    }
}

/// Locks, by the place of who has them.
type Claims = Mutex<Vec<Option<Claim>>>;

/// Asks all of them again and again, on a thread of its own: what a stopped process does first when it goes on is not for
/// the runtime to choose.
fn ask_locks(claims: &Claims) -> ! {
    loop {
        claims.lock().expect("nobody panics with the lock").iter_mut().flatten().for_each(Claim::ask);
        std::thread::sleep(CLAIM_EVERY);
    }
}

struct Contender {
    client: Client,
    number: u64,
    place: usize,
    config: Arc<Config>,
    claims: Arc<Claims>,
    stop: watch::Receiver<bool>,
    report: SessionReport,
}

impl Contender {
    async fn run(mut self) -> SessionReport {
        while !*self.stop.borrow() {
            let opened = self.client.session(Duration::from_secs(self.config.ttl_s)).await;
            let Ok(session) = opened else {
                sleep(RETRY).await;
                continue;
            };
            self.report.opened += 1;
            if !self.take_turns(&session).await {
                self.report.lost += 1;
            }
            // It ends by itself when that cannot be told.
            drop(session.end().await);
        }
        self.report
    }

    /// Whether the session was not lost.
    async fn take_turns(&mut self, session: &Session) -> bool {
        for _ in 0..TURNS {
            let mut stop = self.stop.clone();
            let lock = tokio::select! {
                // Who goes away gives the place up.
                lock = session.lock(self.config.lock.clone()) => lock,
                _ = stop.wait_for(|stop| *stop) => return true,
            };
            match lock {
                Ok(lock) => self.hold(lock).await,
                Err(holdfast_client::Error::SessionLost) => return false,
                Err(_) => sleep(RETRY).await,
            }
        }
        true
    }

    /// Holds the lock for a while, or until it is lost, and writes facts.
    async fn hold(&mut self, lock: Lock) {
        let (token, lock) = (lock.token(), Arc::new(lock));
        let mut claim = Claim { lock: Arc::clone(&lock), told: None };
        claim.ask();
        self.claim(Some(claim));
        let until = tokio::time::Instant::now() + Duration::from_millis(rand::random_range(50..500));
        while tokio::time::Instant::now() < until && lock.state() != HoldState::Lost {
            self.write(&lock).await;
            sleep(FACT_EVERY).await;
        }
        if let Some((from, until)) = self.claim(None).and_then(|claim| claim.told) {
            self.report.beliefs.push(Belief { token, from, until });
        }
        // Nobody else has it any more. Dropped, it is given up all the same.
        if let Some(lock) = Arc::into_inner(lock) {
            drop(lock.unlock().await);
        }
    }

    fn claim(&self, claim: Option<Claim>) -> Option<Claim> {
        let mut claims = self.claims.lock().expect("nobody panics with the lock");
        std::mem::replace(&mut claims[self.place], claim)
    }

    async fn write(&mut self, lock: &Lock) {
        self.number += 1;
        let value = format!("{}/{}/{}", lock.token(), self.place, self.number);
        let put = Op::put(self.config.fact.clone(), value.clone());
        match self.client.txn(Txn::new().when(lock.is_held()).then(put)).await {
            Ok(answer) if answer.succeeded => {
                self.report.facts.push(Fact { revision: answer.revision, value });
            }
            Ok(_) => self.report.refused.push(value),
            Err(_) => self.report.unknown += 1,
        }
    }
}

pub(crate) struct Sessions {
    stop: watch::Sender<bool>,
    contenders: JoinSet<SessionReport>,
}

impl Sessions {
    pub(crate) fn start(client: &Client, config: &Arc<Config>) -> Result<Self> {
        let count = usize::try_from(config.sessions)?;
        let claims: Arc<Claims> = Arc::new(Mutex::new((0..count).map(|_| None).collect()));
        let asked = Arc::clone(&claims);
        // It ends with the process.
        drop(std::thread::Builder::new().name("claims".to_owned()).spawn(move || ask_locks(&asked))?);
        let (stop, stopped) = watch::channel(false);
        let mut contenders = JoinSet::new();
        for place in 0..count {
            let report = SessionReport { session: place as u64, ..SessionReport::default() };
            let contender = Contender {
                client: client.clone(),
                number: 0,
                place,
                config: Arc::clone(config),
                claims: Arc::clone(&claims),
                stop: stopped.clone(),
                report,
            };
            contenders.spawn(contender.run());
        }
        Ok(Self { stop, contenders })
    }

    pub(crate) async fn end(&mut self) -> Result<()> {
        self.stop.send_replace(true);
        while let Some(report) = self.contenders.join_next().await {
            println!("{}", serde_json::to_string(&report?)?);
        }
        println!("{{\"sessions_ended\":true}}");
        Ok(())
    }
}
