//! Systems side by side: every case in rounds, in each round every system in turn.
//!
//! What disturbs the machine for a while disturbs all sides alike, and the medians leave it out. All systems run all
//! the time of a case; while one is measured, the others rest. Each case begins with fresh data.
//!
//! Module map: [`work`] is what one measurement does, [`measuring`] does it.

pub(crate) mod measuring;
pub(crate) mod work;

use std::io::Write;
use std::num::NonZeroU32;

use crate::cli::{Case, CompareFlags};
use crate::error::Error;
use crate::load::{self, Connections};
use crate::measure::window;
use crate::report::{self, Round, Summary};
use crate::systems::cluster::{Cluster, Layout};
use crate::systems::{Programs, System};
use work::{Work, connections, works};

/// Of the busy case, in the maximum.
const BUSY_SHARE: f64 = 0.3;

/// Runs all cases. Says on standard error how far it is, and to `save` all that was measured behind each case: an hour of
/// measuring is not lost with what comes after it.
pub(crate) async fn run(
    flags: &CompareFlags,
    save: impl Fn(&[Round]) -> Result<(), Error>,
) -> Result<Vec<Round>, Error> {
    let programs = flags.servers.programs(flags.work.size.value_bytes);
    for system in &flags.systems {
        programs.of(*system)?;
    }
    let mut rounds = Vec::new();
    for case in &flags.cases {
        let busy = busy_rate(&report::summaries(&rounds));
        rounds.extend(run_case(*case, flags, &programs, busy).await?);
        save(&rounds)?;
    }
    Ok(rounds)
}

/// 30 % of what the slowest store reached in the case put; `None` before that case.
fn busy_rate(summaries: &[Summary]) -> Option<NonZeroU32> {
    let is_store =
        |summary: &&Summary| summary.case == Case::Put.name() && summary.side != System::Ceiling.name();
    let slowest =
        summaries.iter().filter(is_store).map(|summary| summary.per_second).min_by(f64::total_cmp)?;
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "far fewer than 2^32 puts a second, and none is negative"
    )]
    NonZeroU32::new((slowest * BUSY_SHARE) as u32)
}

/// A system that takes part in a case.
struct Side {
    system: System,
    cluster: Cluster,
    connections: Connections,
}

async fn run_case(
    case: Case,
    flags: &CompareFlags,
    programs: &Programs,
    busy: Option<NonZeroU32>,
) -> Result<Vec<Round>, Error> {
    let layout = Layout { members: flags.members as usize, parent: flags.servers.data_parent.clone() };
    let works = works(case, &flags.work, busy)?;
    let preloaded = works.iter().filter_map(Work::preloaded).max_by_key(|space| space.keys);
    let mut sides = Vec::new();
    for system in flags.systems.iter().copied().filter(|system| works.iter().all(|work| work.is_for(*system)))
    {
        tell(&format!("{}: starting {}", case.name(), system.name()));
        let mut cluster = Cluster::start(system, programs, &layout).await?;
        let count = connections(case, &flags.work.size);
        let connections = Connections::open(&cluster.endpoints(), count).await?;
        if let Some(space) = preloaded.filter(|_| system != System::Ceiling) {
            load::preload(space, &connections).await?;
        }
        window::rest(&mut cluster).await?;
        sides.push(Side { system, cluster, connections });
    }
    let mut rounds = Vec::new();
    for number in 1..=flags.rounds {
        for side in &mut sides {
            for work in in_turn(&works, number) {
                let mut round = work.measure(&mut side.cluster, &side.connections, flags.warm_up).await?;
                round.case = case.name();
                round.side = format!("{}{}", side.system.name(), work.label());
                round.round = number;
                tell(&line(&round));
                rounds.push(round);
            }
        }
    }
    Ok(rounds)
}

/// The works of a round: every other round begins with the last, so that neither always comes after the other.
fn in_turn(works: &[Work], round: u32) -> Vec<&Work> {
    if round.is_multiple_of(2) { works.iter().rev().collect() } else { works.iter().collect() }
}

fn line(round: &Round) -> String {
    #[allow(clippy::cast_precision_loss, reason = "a figure for people")]
    let cpu = round.server_cpu_us as f64 / round.units.max(1) as f64;
    let lists = if round.lists > 0 { format!(", beside {} lists", round.lists) } else { String::new() };
    let failure = (round.failures > 0).then(|| {
        format!("; {} failed: {}", round.failures, round.first_failure.as_deref().unwrap_or("no words"))
    });
    format!(
        "{} round {} {}: {:.0}/s, p50 {} us, p99 {} us, {cpu:.2} us of server CPU each{lists}{}",
        round.case,
        round.round,
        round.side,
        round.per_second,
        round.latency.p50_us,
        round.latency.p99_us,
        failure.unwrap_or_default()
    )
}

/// Progress; without a standard error there is nobody to tell.
fn tell(line: &str) {
    drop(writeln!(std::io::stderr(), "{line}"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::round;

    #[test]
    fn busy_is_a_share_of_the_slowest_store() {
        assert_eq!(busy_rate(&[]), None);
        let rounds = [round("holdfast", 1, 40_000), round("etcd", 1, 20_000), round("ceiling", 1, 100)];
        assert_eq!(busy_rate(&report::summaries(&rounds)), NonZeroU32::new(3000));
        let reads = Round { case: "get-linearizable".to_owned(), ..round("etcd", 1, 10) };
        assert_eq!(busy_rate(&report::summaries(&[reads])), None);
    }
}
