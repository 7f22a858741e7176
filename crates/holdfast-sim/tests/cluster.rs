//! Seeds of the simulated cluster. `HOLDFAST_SIM_SEED=n` runs one seed, `HOLDFAST_SIM_SEEDS=n` that many.

use std::io::Write;

use holdfast_sim::cluster::{Report, Run, RunConfig, run};
use holdfast_sim::disk::Lie;

const SEEDS: u64 = 100;
/// Every so many seeds, one is run twice.
const REPLAY_EVERY: u64 = 10;

fn setting(name: &str) -> Option<u64> {
    #[expect(clippy::disallowed_methods, reason = "tests are configured by the environment")]
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|error| panic!("{name}={value}: {error}")))
}

fn run_seed(seed: u64) -> Run {
    run(RunConfig::new(seed)).unwrap_or_else(|violation| {
        panic!(
            "{violation}\nreproduce: HOLDFAST_SIM_SEED={seed} cargo test -p holdfast-sim --test cluster seeds"
        )
    })
}

#[test]
fn seeds_of_writes_cuts_and_crashes_keep_every_promise() {
    let seeds = match setting("HOLDFAST_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..setting("HOLDFAST_SIM_SEEDS").unwrap_or(SEEDS),
    };
    let mut sum = Report::default();
    let mut replayed = 0;
    for seed in seeds {
        let Run { report, trace } = run_seed(seed);
        if seed % REPLAY_EVERY == 0 {
            let again = run_seed(seed);
            let differs = trace.iter().zip(&again.trace).find(|(first, second)| first != second);
            assert_eq!(differs, None, "seed {seed} run twice gives two traces");
            assert_eq!(again.report, report, "seed {seed} run twice gives two reports");
            replayed += 1;
        }
        sum.acknowledged += report.acknowledged;
        sum.refused += report.refused;
        sum.unknown += report.unknown;
        sum.reads += report.reads;
        sum.crashes += report.crashes;
        sum.cuts += report.cuts;
        sum.dumps += report.dumps;
        sum.revision += report.revision;
    }
    assert!(sum.acknowledged > 0 && sum.reads > 0, "the clients did nothing: {sum:?}");
    writeln!(std::io::stderr(), "simulated: {sum:?}; {replayed} seeds replayed with equal traces").unwrap();
}

#[test]
fn disks_that_lie_about_syncs_are_found_out() {
    let found =
        (0..40).find_map(|seed| run(RunConfig { lie: Some(Lie::Data), ..RunConfig::new(seed) }).err());
    assert!(found.is_some(), "acknowledged writes must get lost, and the judge must see it");
}
