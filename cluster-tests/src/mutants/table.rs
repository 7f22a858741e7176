//! Which mistakes there are, and what may find each of them, the cheapest first.

use std::fmt;

use clap::ValueEnum;

/// What kind of trial it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Layer {
    /// Tests of single crates: `cargo test`
    Tests,
    /// Whole members in one thread, seed after seed
    Simulation,
    /// Real processes: a command of this harness
    Processes,
}

impl Layer {
    /// As it is told.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tests => "tests",
            Self::Simulation => "simulation",
            Self::Processes => "processes",
        }
    }
}

/// One way to look for a mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trial {
    /// What kind.
    pub layer: Layer,
    /// For cargo test, or for this harness.
    pub arguments: &'static [&'static str],
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = if self.layer == Layer::Processes { "cluster-tests" } else { "cargo test" };
        write!(f, "{program} {}", self.arguments.join(" "))
    }
}

/// A mistake.
#[derive(Debug)]
pub struct Mutant {
    /// Its name in the product.
    pub name: &'static str,
    /// The cheapest first.
    pub trials: &'static [Trial],
}

impl Mutant {
    /// The one with this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        MUTANTS.iter().find(|mutant| mutant.name == name)
    }
}

/// Arguments name the whole workspace, and one of its tests: for a crate alone cargo would build all dependencies again, with
/// the features that this one asks for.
const fn tests(arguments: &'static [&'static str]) -> Trial {
    Trial { layer: Layer::Tests, arguments }
}

const fn processes(arguments: &'static [&'static str]) -> Trial {
    Trial { layer: Layer::Processes, arguments }
}

/// A log on a disk that loses what was not synced, cut off at every step.
const LOG_CRASH: Trial = tests(&["--workspace", "--test", "log_crash"]);
/// Dumps and merges of a running storage, and what a restart finds.
const DUMPS: Trial = tests(&["--workspace", "--test", "dumps", "--test", "thousand_dumps"]);
/// What history a storage tells of itself, beside a naive one.
const HISTORY: Trial = tests(&["--workspace", "--test", "history"]);
/// What a start makes of what it finds.
const STARTS: Trial = tests(&["--workspace", "--lib", "open::tests"]);
/// Watches of a member, over its wire.
const WATCHING: Trial = tests(&["--workspace", "--test", "wire", "watch"]);
/// Seeds of whole members.
const SEEDS: Trial =
    Trial { layer: Layer::Simulation, arguments: &["--workspace", "--test", "cluster", "seeds_of_writes"] };
/// Watchers that resume on any member, under kills, pauses and compactions.
const WATCHES: Trial = processes(&["watch", "--duration", "40s", "--watchers", "120", "--rate", "100"]);
/// Leaders stopped for longer than any lease lives.
const FENCING: Trial = processes(&["lease-fencing", "--rounds", "12"]);
/// Acknowledged puts under SIGKILL.
const KILLS: Trial = processes(&["kill", "--kills", "20", "--writers", "16"]);
/// Registers while leaders are paused.
const REGISTERS: Trial =
    processes(&["run", "--workload", "registers", "--nemesis", "pause-leader", "--duration", "120s"]);

/// All of them, in the order of the binary.
pub const MUTANTS: &[Mutant] = &[
    Mutant { name: "no-fsync", trials: &[LOG_CRASH, SEEDS] },
    Mutant { name: "ack-before-fsync", trials: &[LOG_CRASH, SEEDS] },
    Mutant { name: "vote-not-saved", trials: &[LOG_CRASH, SEEDS] },
    Mutant { name: "position-apart", trials: &[SEEDS] },
    Mutant { name: "dump-without-fence", trials: &[DUMPS, SEEDS] },
    Mutant { name: "merge-without-guard", trials: &[HISTORY, SEEDS] },
    Mutant { name: "purge-beyond-snapshot", trials: &[SEEDS, KILLS] },
    Mutant { name: "read-index-off", trials: &[SEEDS, REGISTERS] },
    Mutant { name: "read-joins-older-round", trials: &[SEEDS, REGISTERS] },
    Mutant { name: "keep-alive-unconfirmed", trials: &[SEEDS, FENCING] },
    Mutant { name: "lease-expiry-unfenced", trials: &[SEEDS, FENCING] },
    Mutant { name: "replay-sees-future", trials: &[STARTS, KILLS] },
    Mutant { name: "watch-resume-off-by-one", trials: &[WATCHING, WATCHES] },
    Mutant { name: "progress-before-events", trials: &[WATCHING, WATCHES] },
];
