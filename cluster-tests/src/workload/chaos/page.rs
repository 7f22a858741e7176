//! The verdict as one page of text, and as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::book::Tally;
use super::report::{Finding, Report};
use crate::judge::latency::Spread;
use crate::nemesis::Notes;

/// How many findings of one judge are printed.
const SHOWN_MAX: usize = 5;

/// The longest finding that is printed.
const LINE_MAX: usize = 400;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { ok, failed, unknown } = self.total();
        let secs = self.lasted.as_secs_f64();
        writeln!(f, "{} {}, {} members, {secs:.0} s", self.system, self.version, self.plan.members)?;
        writeln!(
            f,
            "  operations: {ok} ok, {failed} failed, {unknown} unknown, {:.0} a second",
            ok as f64 / secs
        )?;
        for (workload, Tally { ok, failed, unknown }) in &self.tallies {
            writeln!(f, "    {workload:<12}{ok:>9} ok {failed:>7} failed {unknown:>6} unknown")?;
        }
        for note in &self.notes {
            writeln!(f, "  {note}")?;
        }
        writeln!(f, "  faults: {}; compactions: {}", self.incidents.len(), self.compactions)?;
        self.fmt_times(f)?;
        let sum = |of: fn(&Notes) -> usize| {
            self.incidents.iter().map(|incident| of(&incident.notes)).sum::<usize>()
        };
        let (refused, silent, rejoined) =
            (sum(|notes| notes.refused), sum(|notes| notes.silent), sum(|notes| notes.rejoined));
        writeln!(
            f,
            "  damaged members: ended and said why {refused} times, ran and did not serve {silent} times, came back \
             under a new id {rejoined} times"
        )?;
        if !self.standstills.is_empty() {
            let longest = self.standstills.iter().map(|(from, to)| *to - *from).max().unwrap_or_default();
            let count = self.standstills.len();
            writeln!(
                f,
                "  the harness itself stood still {count} times, for up to {longest:.1?}: times mean little"
            )?;
        }
        self.fmt_findings(f)?;
        if let Some(kept) = &self.kept {
            writeln!(f, "  data and logs are in {}", kept.display())?;
        }
        write!(f, "  again: {}", self.command())
    }
}

impl Report {
    fn fmt_times(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |spread: Option<Spread>| {
            spread.map_or_else(
                || "none".to_owned(),
                |Spread { min, median, p99, max, .. }| {
                    let ms = |time: Duration| time.as_millis();
                    format!("{} {} {} {}", ms(min), ms(median), ms(p99), ms(max))
                },
            )
        };
        writeln!(
            f,
            "    {:<16}{:>5}  {:<24}{:<24}all serve after it was mended; min median p99 max, ms",
            "fault", "count", "to the first write", "longest gap of writes"
        )?;
        for (fault, times) in self.times() {
            let (ack, gap, served) = (line(times.first_ack), line(times.gap), line(times.served));
            writeln!(f, "    {:<16}{:>5}  {ack:<24}{gap:<24}{served}", fault.name(), times.count)?;
        }
        Ok(())
    }

    fn fmt_findings(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut by_judge: BTreeMap<&str, Vec<&Finding>> = BTreeMap::new();
        for finding in &self.findings {
            by_judge.entry(finding.judge).or_default().push(finding);
        }
        for (judge, findings) in &by_judge {
            writeln!(f, "  {judge}: {} findings", findings.len())?;
            for finding in findings.iter().take(SHOWN_MAX) {
                let text: String = finding.text.chars().take(LINE_MAX).collect();
                writeln!(f, "    {text}")?;
            }
        }
        let void = self.void();
        match self.findings.len() {
            _ if !void.is_empty() => {
                writeln!(f, "  verdict: VOID, {} findings: {}", self.findings.len(), void.join("; "))
            }
            0 => writeln!(f, "  verdict: no finding"),
            count => writeln!(f, "  verdict: {count} FINDINGS"),
        }
    }

    /// The same for programs.
    pub fn json(&self) -> Value {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let spread = |spread: Option<Spread>| {
            spread.map(|spread| {
                let Spread { count, min, median, p99, max, .. } = spread;
                json!({ "count": count, "min_ms": ms(min), "median_ms": ms(median), "p99_ms": ms(p99), "max_ms": ms(max) })
            })
        };
        let tally =
            |tally: &Tally| json!({ "ok": tally.ok, "failed": tally.failed, "unknown": tally.unknown });
        let kinds: serde_json::Map<String, Value> = self
            .times()
            .into_iter()
            .map(|(fault, times)| {
                let value = json!({
                    "count": times.count,
                    "first_ack": spread(times.first_ack),
                    "longest_gap": spread(times.gap),
                    "all_serve": spread(times.served),
                });
                (fault.name().to_owned(), value)
            })
            .collect();
        let incidents: Vec<Value> = self
            .incidents
            .iter()
            .map(|incident| {
                json!({
                    "fault": incident.fault.name(),
                    "victims": incident.victims.iter().map(|victim| victim + 1).collect::<Vec<_>>(),
                    "began_ms": ms(incident.began),
                    "mended_ms": ms(incident.mended),
                    "served_ms": ms(incident.served),
                    "first_ack_ms": incident.first_ack.map(ms),
                    "notes": incident.notes.lines,
                })
            })
            .collect();
        let findings: Vec<Value> = self
            .findings
            .iter()
            .map(|finding| json!({ "judge": finding.judge, "at_ms": finding.at.map(ms), "text": finding.text }))
            .collect();
        let leaders: Vec<Value> = self
            .leaders
            .iter()
            .map(|(at, leader)| json!({ "at_ms": ms(*at), "member": leader.map(|leader| leader + 1) }))
            .collect();
        json!({
            "system": self.system,
            "version": self.version,
            "members": self.plan.members,
            "seed": self.plan.seed,
            "lasted_ms": ms(self.lasted),
            "operations": tally(&self.total()),
            "workloads": self.tallies.iter().map(|(name, all)| ((*name).to_owned(), tally(all))).collect::<serde_json::Map<_, _>>(),
            "compactions": self.compactions,
            "faults": kinds,
            "incidents": incidents,
            "leaders": leaders,
            "standstills": self.standstills.iter().map(|(from, to)| json!([ms(*from), ms(*to)])).collect::<Vec<_>>(),
            "notes": self.notes,
            "findings": findings,
            "void": self.void(),
            "command": self.command(),
        })
    }
}
