//! What a run came to.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::Plan;
use super::book::{Book, Tally, longest_gap};
use crate::judge::latency::Spread;
use crate::nemesis::{Fault, Incident};

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Who found it.
    pub judge: &'static str,
    /// When it happened, if that is known.
    pub at: Option<Duration>,
    /// What it is.
    pub text: String,
}

impl Finding {
    /// At a moment that is not known.
    pub fn of(judge: &'static str, text: impl fmt::Display) -> Self {
        Self { judge, at: None, text: text.to_string() }
    }
}

/// Times of one kind of fault.
#[derive(Debug, Clone)]
pub struct Times {
    /// How often it was there.
    pub count: usize,
    /// From its begin to the acknowledgement of the first write that was called after it.
    pub first_ack: Option<Spread>,
    /// The longest time without an acknowledged write from its begin until all served again.
    pub gap: Option<Spread>,
    /// From its end until all served again.
    pub served: Option<Spread>,
}

/// A run.
#[derive(Debug)]
pub struct Report {
    /// Which system.
    pub system: String,
    /// Its version.
    pub version: String,
    /// The plan.
    pub plan: Plan,
    /// How long load and faults went on.
    pub lasted: Duration,
    /// The faults, in order.
    pub incidents: Vec<Incident>,
    /// Calls by workload.
    pub tallies: BTreeMap<&'static str, Tally>,
    /// Calls by second.
    pub seconds: Vec<Tally>,
    /// Who led, from which moment on.
    pub leaders: Vec<(Duration, Option<usize>)>,
    /// When writes were acknowledged.
    pub writes: Vec<Duration>,
    /// Compactions that were asked for.
    pub compactions: usize,
    /// Times in which the harness itself stood still.
    pub standstills: Vec<(Duration, Duration)>,
    /// What else was counted.
    pub notes: Vec<String>,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// Where data and logs are kept, after a run with findings.
    pub kept: Option<PathBuf>,
}

impl Report {
    /// Of a run that has ended and has not been judged.
    pub(super) fn new(
        system: String,
        version: String,
        plan: Plan,
        lasted: Duration,
        incidents: Vec<Incident>,
    ) -> Self {
        Self {
            system,
            version,
            plan,
            lasted,
            incidents,
            tallies: BTreeMap::new(),
            seconds: Vec::new(),
            leaders: Vec::new(),
            writes: Vec::new(),
            compactions: 0,
            standstills: Vec::new(),
            notes: Vec::new(),
            findings: Vec::new(),
            kept: None,
        }
    }

    /// Takes over what was counted.
    pub(super) fn count(&mut self, book: &Book) {
        self.tallies = book.tallies();
        self.seconds = book.seconds();
        self.leaders = book.leaders();
        self.writes = book.writes();
    }

    pub(super) fn add_note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// All calls together.
    pub fn total(&self) -> Tally {
        let add = |sum: Tally, tally: &Tally| Tally {
            ok: sum.ok + tally.ok,
            failed: sum.failed + tally.failed,
            unknown: sum.unknown + tally.unknown,
        };
        self.tallies.values().fold(Tally::default(), add)
    }

    /// Why the run proves nothing; empty if it does.
    pub fn void(&self) -> Vec<String> {
        let minimum = self.plan.minimum;
        let mut why = Vec::new();
        let calls = self.total().all();
        if calls < minimum.operations {
            why.push(format!("{calls} operations, of which there have to be {}", minimum.operations));
        }
        let count = |fault: Fault| self.incidents.iter().filter(|incident| incident.fault == fault).count();
        let rare = self.plan.faults.iter().filter(|fault| count(**fault) < minimum.faults);
        let rare: Vec<String> = rare.map(|fault| format!("{fault} {}", count(*fault))).collect();
        if !rare.is_empty() {
            why.push(format!("fewer than {} times: {}", minimum.faults, rare.join(", ")));
        }
        why
    }

    /// Times by kind of fault.
    pub fn times(&self) -> BTreeMap<Fault, Times> {
        let mut by_kind: BTreeMap<Fault, Vec<&Incident>> = BTreeMap::new();
        for incident in &self.incidents {
            by_kind.entry(incident.fault).or_default().push(incident);
        }
        let times = |incidents: Vec<&Incident>| {
            let spread = |times: Vec<Duration>| Spread::of(&times);
            Times {
                count: incidents.len(),
                first_ack: spread(incidents.iter().filter_map(|incident| incident.first_ack).collect()),
                gap: spread(
                    incidents
                        .iter()
                        .map(|incident| longest_gap(&self.writes, incident.began, incident.served))
                        .collect(),
                ),
                served: spread(incidents.iter().map(|incident| incident.served - incident.mended).collect()),
            }
        };
        by_kind.into_iter().map(|(fault, incidents)| (fault, times(incidents))).collect()
    }

    /// The command that does the same again.
    pub fn command(&self) -> String {
        let Plan { members, faults, workloads, duration, length, seed, rate, watchers, .. } = &self.plan;
        let faults: Vec<&str> = faults.iter().map(|fault| fault.name()).collect();
        let of_all = |workload: &super::Workload| {
            super::WORKLOADS.iter().find(|(one, _)| one == workload).map_or("", |(_, name)| *name)
        };
        let workloads: Vec<&str> = workloads.iter().map(of_all).collect();
        let all = |names: Vec<&str>, count: usize| match names.len() == count {
            true => "all".to_owned(),
            false => names.join(","),
        };
        let lasts = match *length == super::LENGTH {
            true => String::new(),
            false => format!(" --lasts {}s", length.end().as_secs()),
        };
        format!(
            "cargo run --release -p cluster-tests -- run --against {} --nodes {members} --nemesis {} --workload {} \
             --duration {}s{lasts} --rate {rate} --watchers {watchers} --seed {seed}",
            self.system,
            all(faults, crate::nemesis::FAULTS.len()),
            all(workloads, super::WORKLOADS.len()),
            duration.as_secs()
        )
    }
}
