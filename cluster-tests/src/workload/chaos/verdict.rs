//! What everybody saw, and what the judges say of it.

use std::time::Duration;

use super::book::End;
use super::report::{Finding, Report};
use super::scene::Scene;
use super::{locks, registers, sets, transfers};
use crate::client::Contents;
use crate::judge::members::Disagreement;
use crate::judge::reads::Read;
use crate::judge::transfers::Balances;
use crate::judge::watch::record::Compaction;
use crate::judge::watch::{Record, judge};
use crate::judge::{fencing, lease, linearizable, reads};
use crate::workload::watch::Judged;
use crate::workload::watch::calls::Fate;
use crate::workload::watch::group::Outcome;
use crate::workload::watch::report::Counts;
use crate::workload::watch::writers::Written;

/// How many findings of one judge are kept.
const KEPT_MAX: usize = 200;

/// What watchers and their writers saw.
#[derive(Debug)]
pub(super) struct Watched {
    /// The commands, by writer.
    pub(super) written: Vec<Vec<Written>>,
    /// What watchers were sent.
    pub(super) outcomes: Vec<Outcome>,
}

/// What everybody saw.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) registers: registers::Records,
    pub(super) balances: Vec<Balances>,
    pub(super) sets: Vec<sets::Record>,
    pub(super) reads: Vec<Read>,
    pub(super) locks: locks::Record,
    pub(super) leases: Option<lease::Record>,
    /// Clients that were given no lease for a long time.
    pub(super) without_lease: Vec<String>,
    pub(super) watched: Option<Watched>,
    pub(super) compactions: Vec<Compaction>,
    pub(super) standstills: Vec<(Duration, Duration)>,
    pub(super) disagreements: Vec<Disagreement>,
    pub(super) hash: Option<u32>,
    /// The history of all revisions, or why there is none.
    pub(super) judged: Option<Judged>,
    /// What the store holds in the end.
    pub(super) end: Option<Contents>,
}

impl Seen {
    /// Has everything judged, and counts what has not been counted yet.
    pub(super) fn judge(self, scene: &Scene, report: &mut Report) {
        let mut findings: Vec<Finding> = Vec::new();
        let mut add = |judge: &'static str, all: Vec<Finding>| {
            let left_out = all.len().saturating_sub(KEPT_MAX);
            findings.extend(all.into_iter().take(KEPT_MAX));
            if left_out > 0 {
                findings.push(Finding::of(judge, format!("and {left_out} more")));
            }
        };
        let searched = self.registers.iter();
        let searched = searched.filter_map(|(key, operations)| linearizable::judge(key, operations));
        let searched = searched.map(|finding| Finding {
            at: finding.at.map(|operation| operation.began),
            ..Finding::of(registers::NAME, &finding)
        });
        add(registers::NAME, searched.collect());
        let totals = crate::judge::transfers::judge(transfers::TOTAL, &self.balances);
        add(transfers::NAME, totals.iter().map(|finding| Finding::of(transfers::NAME, finding)).collect());
        if let Some(end) = &self.end {
            let lists = sets::findings(&self.sets, end).into_iter();
            let lists =
                lists.map(|(list, finding)| Finding::of(sets::NAME, format!("list {list}: {finding}")));
            add(sets::NAME, lists.collect());
        }
        let applied = scene.shared.chronicle().applied();
        let fenced = fencing::judge(&locks::all(), &applied, &self.locks.taken);
        add(locks::NAME, fenced.iter().map(|finding| Finding::of(locks::NAME, finding)).collect());
        add("members", self.disagreements.iter().map(|finding| Finding::of("members", finding)).collect());
        report.add_note(format!(
            "{} locks taken, {} writes fenced off; {} reads of accounts, {} of lists; {} registers; {} revisions read from the past",
            self.locks.taken.len(),
            self.locks.fenced,
            self.balances.len(),
            self.reads.len(),
            self.registers.len(),
            scene.shared.chronicle().readings(),
        ));
        if let Some(hash) = self.hash {
            report.add_note(format!("all members have hash {hash}"));
        }
        if let Some(record) = &self.leases {
            add("leases", record.judge().iter().map(|finding| Finding::of("leases", finding)).collect());
            let renewed: usize = record.leases.iter().map(|lease| lease.renewed.len()).sum();
            let unseen = record.leases.iter().filter(|lease| lease.found_gone.is_some()).count();
            report.add_note(format!(
                "{} leases, {renewed} grants and keep-alives; {unseen} leases ended behind a compaction, where nobody saw when",
                record.leases.len()
            ));
            for at in record.leases.iter().flat_map(|lease| &lease.renewed) {
                scene.book.count("leases", End::Ok, *at);
            }
        }
        add("leases", self.without_lease.iter().map(|said| Finding::of("leases", said)).collect());
        report.compactions = self.compactions.len();
        report.standstills = self.standstills;
        if let Some(judged) = self.judged {
            let all = by_history(judged, scene, &self.reads, &self.compactions, self.watched, report);
            for (judge, found) in all {
                add(judge, found);
            }
        }
        report.findings.extend(findings);
    }
}

/// What is judged by the history of all revisions.
fn by_history(
    judged: Judged,
    scene: &Scene,
    read: &[Read],
    compactions: &[Compaction],
    watched: Option<Watched>,
    report: &mut Report,
) -> Vec<(&'static str, Vec<Finding>)> {
    let (mut lives, mut strays) = (Vec::new(), Vec::new());
    if let Some(Watched { written, outcomes }) = watched {
        for command in written.iter().flatten() {
            let end = match command.fate {
                Fate::At(_) => End::Written,
                Fate::Nothing => End::Ok,
                Fate::Unknown => End::Unknown,
            };
            scene.book.count("writers", end, command.ended);
        }
        for outcome in outcomes {
            lives.extend(outcome.lives);
            strays.extend(outcome.strays);
        }
    }
    let counts = Counts::of(&lives);
    report.add_note(format!(
        "watchers: {} events, {} resumes ({} on another member), {} ended by compactions",
        counts.events, counts.resumes, counts.elsewhere, counts.compacted
    ));
    let history = match judged.into_history() {
        Ok(history) => history,
        Err(flaws) => {
            let flaws = flaws.iter().map(|flaw| Finding::of("history", format!("{flaw:?}")));
            return vec![("history", flaws.collect())];
        }
    };
    report.add_note(format!("history: {} changes, revision {}", history.changes().len(), history.newest()));
    let keys = &*scene.shared.keys();
    let shown = reads::judge(&history, keys, read, compactions);
    let shown = shown.iter().map(|finding| Finding::of("reads", finding)).collect();
    let record = Record { history: &history, keys, lives: &lives, strays: &strays, compactions };
    let broken = judge(&record).iter().map(|finding| Finding::of("watches", finding)).collect();
    vec![("reads", shown), ("watches", broken)]
}
