//! Judges how much a member writes for its dumps, and how long its log gets.
//!
//! While a store grows from empty, dumps write at most 2.3 times the users' bytes; at a steady size at most 1.2 times the
//! bytes of the log. The log stays below the larger of the threshold and the newest snapshot, what arrives during a dump
//! (until the log can become shorter by it), and three segments.

use std::fmt;

/// Whether the store grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Every put makes a new key.
    Growing,
    /// Every put replaces one, and history is compacted.
    Steady,
}

impl Stage {
    /// What dumps may write for a hundred bytes that came in. Of the log's bytes only the users' are counted, which makes
    /// the second bound a little stricter than the promise.
    fn percent_max(self) -> u64 {
        match self {
            Self::Growing => 230,
            Self::Steady => 120,
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Growing => "growing",
            Self::Steady => "steady",
        })
    }
}

/// A snapshot that a member wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dump {
    /// Whether the store grew then.
    pub stage: Stage,
    /// Its length.
    pub bytes: u64,
    /// Users' bytes that arrived from its seal until the log was let go behind it.
    pub arrived_bytes: u64,
}

/// A look at the log's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLook {
    /// Bytes of all its files.
    pub bytes: u64,
    /// The length of the newest snapshot then behind which the log had been let go.
    pub snapshot_bytes: u64,
}

/// A run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// The threshold of the policy.
    pub dump_log_bytes: u64,
    /// Length of a segment.
    pub segment_bytes: u64,
    /// Users' bytes that came in while the store grew.
    pub growing_bytes: u64,
    /// Users' bytes that came in afterwards.
    pub steady_bytes: u64,
    /// All dumps.
    pub dumps: Vec<Dump>,
    /// All looks at the log.
    pub looks: Vec<LogLook>,
}

impl Record {
    /// What dumps wrote in a stage, and what came in.
    pub fn written(&self, stage: Stage) -> (u64, u64) {
        let of_stage = self.dumps.iter().filter(|dump| dump.stage == stage);
        let came = if stage == Stage::Growing { self.growing_bytes } else { self.steady_bytes };
        (of_stage.map(|dump| dump.bytes).sum(), came)
    }

    /// The longest that the log may be at this look.
    pub fn log_bytes_max(&self, look: &LogLook) -> u64 {
        let arrived = self.dumps.iter().map(|dump| dump.arrived_bytes).max().unwrap_or(0);
        self.dump_log_bytes.max(look.snapshot_bytes) + arrived + 3 * self.segment_bytes
    }
}

/// Something that must not be.
#[expect(missing_docs, reason = "the line of a variant names what its fields hold")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// Dumps wrote more than the policy allows.
    TooMuch { stage: Stage, dumped: u64, came: u64 },
    /// The log was longer than the policy allows.
    TooLong { look: LogLook, bytes_max: u64 },
    /// Too little happened to judge this stage by.
    TooFew { stage: Stage, dumps: usize },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMuch { stage, dumped, came } => {
                write!(f, "{stage}: dumps wrote {dumped} bytes for {came} that came in")
            }
            Self::TooLong { look, bytes_max } => {
                write!(f, "the log had {} bytes, {bytes_max} are allowed: {look:?}", look.bytes)
            }
            Self::TooFew { stage, dumps } => write!(f, "{stage}: {dumps} dumps are too few to judge by"),
        }
    }
}

/// Everything that is wrong with a run.
pub fn judge(record: &Record) -> Vec<Finding> {
    let mut findings = Vec::new();
    for stage in [Stage::Growing, Stage::Steady] {
        let (dumped, came) = record.written(stage);
        let dumps = record.dumps.iter().filter(|dump| dump.stage == stage).count();
        if dumps < 2 {
            findings.push(Finding::TooFew { stage, dumps });
        }
        if u128::from(dumped) * 100 > u128::from(came) * u128::from(stage.percent_max()) {
            findings.push(Finding::TooMuch { stage, dumped, came });
        }
    }
    let worst = record.looks.iter().max_by_key(|look| look.bytes.saturating_sub(record.log_bytes_max(look)));
    findings.extend(
        worst
            .filter(|look| look.bytes > record.log_bytes_max(look))
            .map(|look| Finding::TooLong { look: *look, bytes_max: record.log_bytes_max(look) }),
    );
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn honest() -> Record {
        let dump = |stage, bytes| Dump { stage, bytes, arrived_bytes: 5 };
        Record {
            dump_log_bytes: 100,
            segment_bytes: 10,
            growing_bytes: 400,
            steady_bytes: 2_000,
            dumps: vec![
                dump(Stage::Growing, 100),
                dump(Stage::Growing, 200),
                dump(Stage::Growing, 400),
                dump(Stage::Steady, 1_100),
                dump(Stage::Steady, 1_200),
            ],
            looks: vec![
                LogLook { bytes: 135, snapshot_bytes: 0 },
                LogLook { bytes: 435, snapshot_bytes: 400 },
            ],
        }
    }

    #[test]
    fn a_run_within_the_bounds_passes() {
        assert_eq!(judge(&honest()), []);
    }

    #[test]
    fn dumps_that_write_too_much_are_found() {
        let mut growing = honest();
        growing.dumps[0].bytes = 321;
        let found = judge(&growing);
        assert_eq!(found, [Finding::TooMuch { stage: Stage::Growing, dumped: 921, came: 400 }]);
        let mut steady = honest();
        steady.dumps[4].bytes = 1_301;
        let found = judge(&steady);
        assert_eq!(found, [Finding::TooMuch { stage: Stage::Steady, dumped: 2_401, came: 2_000 }]);
    }

    #[test]
    fn a_log_that_is_too_long_is_found() {
        let mut record = honest();
        record.looks[0].bytes = 136;
        let found = judge(&record);
        assert!(matches!(found[..], [Finding::TooLong { bytes_max: 135, .. }]), "{found:?}");
    }

    #[test]
    fn a_run_with_too_few_dumps_does_not_pass() {
        let mut record = honest();
        record.dumps.truncate(4);
        assert_eq!(judge(&record), [Finding::TooFew { stage: Stage::Steady, dumps: 1 }]);
    }
}
