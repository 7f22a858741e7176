//! What the demo knows: every round of answers goes in, and rows, figures and events come out. Pure: time comes in too.

use std::collections::VecDeque;
use std::time::Duration;

use super::members::Process;
use super::probe::Seen;
use super::traffic::Second;

/// Events kept for the board.
const EVENTS_MAX: usize = 200;
/// Seconds of throughput kept for the chart; wider terminals than this are rare.
const HISTORY_MAX: usize = 240;
/// Rates are taken over so many rounds: a member counts its CPU time in steps.
const WINDOW: usize = 10;

/// One second of the demo.
pub(super) struct Round {
    /// Since the demo's start.
    pub at: Duration,
    /// What each member said; `None` for silence.
    pub seen: Vec<Option<Seen>>,
    pub processes: Vec<Process>,
    pub traffic: Second,
}

/// All that is known.
#[derive(Debug, Clone)]
pub(super) struct Model {
    pub members: Vec<Member>,
    /// Since the demo's start.
    pub now: Duration,
    pub traffic: Traffic,
    /// Requests answered per second, the latest last.
    pub history: VecDeque<u64>,
    /// The latest last.
    pub events: VecDeque<Event>,
    pub term: u64,
    /// Place of the leader.
    pub leader: Option<usize>,
    pub leader_changes: u64,
    is_first: bool,
}

/// One member.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub name: &'static str,
    /// Of its client port.
    pub url: String,
    pub process: Process,
    /// The latest it said, if it ever did.
    pub seen: Option<Seen>,
    /// Since when it has not answered.
    pub silent_since: Option<Duration>,
    /// From the sending of a put to its event.
    pub watch_lag: Option<Duration>,
    window: VecDeque<Point>,
}

#[derive(Debug, Clone, Copy)]
struct Point {
    at: Duration,
    cpu_seconds: f64,
    requests: u64,
}

/// The demo's own load within the last second.
#[derive(Debug, Clone, Default)]
pub(super) struct Traffic {
    pub puts: u64,
    pub gets: u64,
    pub errors: u64,
    pub put_p50: Option<Duration>,
    pub put_p99: Option<Duration>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// Since the demo's start.
    pub at: Duration,
    pub text: String,
    pub mood: Mood,
}

/// Whether an event is a good one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Good,
    Bad,
    Neutral,
}

/// What a member is to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Leader,
    Follower,
    Learner,
    /// It knows of no leader.
    Leaderless,
    /// It has not answered yet.
    Starting,
    /// It does not answer, for so long.
    Silent(Duration),
    /// By the user.
    Paused,
    /// Its process is gone.
    Ended,
}

impl Model {
    /// Members that have not been asked yet, with their client URLs.
    pub(super) fn new(members: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        let member = |(name, url)| Member {
            name,
            url,
            process: Process::Ended,
            seen: None,
            silent_since: None,
            watch_lag: None,
            window: VecDeque::new(),
        };
        Self {
            members: members.into_iter().map(member).collect(),
            now: Duration::ZERO,
            traffic: Traffic::default(),
            history: VecDeque::new(),
            events: VecDeque::new(),
            term: 0,
            leader: None,
            leader_changes: 0,
            is_first: true,
        }
    }

    /// Takes in one round. The events that it makes are at the end of `events`.
    pub(super) fn observe(&mut self, round: Round) {
        let Round { at, seen, processes, traffic } = round;
        self.now = at;
        for (place, (said, process)) in seen.into_iter().zip(processes).enumerate() {
            let lag = traffic.watch_lags.get(place).and_then(|lags| lags.quantile(0.99));
            self.members[place].watch_lag = lag;
            self.hear(place, said, process);
        }
        self.find_leader();
        self.history.push_back(traffic.puts + traffic.gets);
        if self.history.len() > HISTORY_MAX {
            self.history.pop_front();
        }
        self.traffic = Traffic {
            puts: traffic.puts,
            gets: traffic.gets,
            errors: traffic.errors,
            put_p50: traffic.put_latencies.quantile(0.5),
            put_p99: traffic.put_latencies.quantile(0.99),
        };
        self.is_first = false;
    }

    /// Adds an event.
    pub(super) fn note(&mut self, mood: Mood, text: String) {
        self.events.push_back(Event { at: self.now, text, mood });
        if self.events.len() > EVENTS_MAX {
            self.events.pop_front();
        }
    }

    /// The client addresses for etcdctl.
    pub(super) fn endpoints(&self) -> String {
        let addresses = self.members.iter().map(|member| member.url.trim_start_matches("http://"));
        addresses.collect::<Vec<_>>().join(",")
    }

    /// How many members answer.
    pub(super) fn answering(&self) -> usize {
        self.members.iter().filter(|member| member.answers()).count()
    }

    fn hear(&mut self, place: usize, said: Option<Seen>, process: Process) {
        let (now, is_first) = (self.now, self.is_first);
        let member = &mut self.members[place];
        let name = member.name;
        let was_running = member.process != Process::Ended;
        member.process = process;
        let Some(said) = said else {
            if member.silent_since.is_none() && member.seen.is_some() {
                member.silent_since = Some(now);
                member.window.clear();
                if process != Process::Ended {
                    self.note(Mood::Bad, format!("{name} does not answer"));
                }
            }
            return;
        };
        if !was_running && !is_first {
            member.window.clear();
        }
        let before = member.seen.replace(said.clone());
        let was_silent = member.silent_since.take();
        member.window.push_back(Point { at: now, cpu_seconds: said.cpu_seconds, requests: said.requests });
        if member.window.len() > WINDOW {
            member.window.pop_front();
        }
        if let Some(since) = was_silent {
            let seconds = now.saturating_sub(since).as_secs();
            self.note(Mood::Good, format!("{name} answers again after {seconds} s"));
        }
        let Some(before) = before else { return };
        if was_silent.is_none() && before.dispatcher != said.dispatcher {
            let mood = if said.dispatcher == "poisoned" { Mood::Bad } else { Mood::Neutral };
            self.note(mood, format!("{name}: dispatcher {} → {}", before.dispatcher, said.dispatcher));
        }
        if let (Some(old), Some(new)) = (before.log.snapshot, said.log.snapshot)
            && new > old
        {
            self.note(Mood::Neutral, format!("{name} has a new snapshot, up to log index {new}"));
        }
    }

    /// Who leads by the newest term's view: a member that was cut off may still believe in an old leader.
    fn find_leader(&mut self) {
        let answering = self.members.iter().filter(|member| member.answers()).filter_map(|m| m.seen.as_ref());
        let newest = answering.max_by_key(|seen| (seen.term, seen.leader != 0));
        let Some((term, leader)) = newest.map(|seen| (seen.term, seen.leader)) else { return };
        let place = self
            .members
            .iter()
            .position(|member| leader != 0 && member.seen.as_ref().is_some_and(|seen| seen.id == leader));
        // A leader that is known to be gone is none, also while the others still wait for it.
        let place = place.filter(|place| self.members[*place].process != Process::Ended);
        let (old_term, old_leader) = (self.term, self.leader);
        (self.term, self.leader) = (term, place);
        match place {
            Some(leader) if place != old_leader || term != old_term => {
                if old_term != 0 && term != old_term {
                    self.leader_changes += 1;
                }
                let name = self.members[leader].name;
                self.note(Mood::Good, format!("{name} leads in term {term}"));
            }
            None if old_leader.is_some() => self.note(Mood::Bad, "there is no leader".to_owned()),
            _ => {}
        }
    }
}

impl Member {
    /// True while it answers.
    pub(super) fn answers(&self) -> bool {
        self.seen.is_some() && self.silent_since.is_none() && matches!(self.process, Process::Running { .. })
    }

    /// What it is to the others, at `now`.
    pub(super) fn role(&self, now: Duration) -> Role {
        match (self.process, self.silent_since, &self.seen) {
            (Process::Ended, ..) => Role::Ended,
            (Process::Paused { .. }, ..) => Role::Paused,
            (_, Some(since), _) => Role::Silent(now.saturating_sub(since)),
            (_, None, None) => Role::Starting,
            (_, None, Some(seen)) if seen.is_learner => Role::Learner,
            (_, None, Some(seen)) if seen.leader == 0 => Role::Leaderless,
            (_, None, Some(seen)) if seen.leader == seen.id => Role::Leader,
            (_, None, Some(_)) => Role::Follower,
        }
    }

    /// KV requests per second, since it answered before the last time.
    pub(super) fn requests_per_second(&self) -> Option<f64> {
        let before = self.window.len().checked_sub(2)?;
        #[expect(clippy::cast_precision_loss, reason = "requests of a second")]
        self.rate_since(before, |point| point.requests as f64)
    }

    /// The share of one core in percent, over the last rounds.
    pub(super) fn cpu_percent(&self) -> Option<f64> {
        self.rate_since(0, |point| point.cpu_seconds * 100.0)
    }

    fn rate_since(&self, place: usize, of: fn(&Point) -> f64) -> Option<f64> {
        let (first, last) = (self.window.get(place)?, self.window.back()?);
        let seconds = last.at.saturating_sub(first.at).as_secs_f64();
        (seconds > 0.0).then(|| (of(last) - of(first)).max(0.0) / seconds)
    }
}

#[cfg(test)]
mod tests;
