//! The demo without a terminal: a line a second, and one for each event.

use std::time::Duration;

use super::members::Restarts;
use super::model::Model;
use super::{DemoError, Show, say};

/// Prints until the demo ends.
pub(super) async fn run(show: &mut Show<'_>) -> Result<(), DemoError> {
    let mut model = show.model();
    for second in 1_u64.. {
        let seen = show.sampler.next().await;
        for line in show.members.look_after(Restarts::ByItself)? {
            say(format_args!("{line}"))?;
        }
        let round = show.round(seen);
        model.observe(round);
        for event in std::mem::take(&mut model.events) {
            say(format_args!("{}", event.text))?;
        }
        say(format_args!("{}", line(second, &model)))?;
    }
    Ok(())
}

fn line(second: u64, model: &Model) -> String {
    let seen =
        model.members.iter().filter(|member| member.answers()).filter_map(|member| member.seen.as_ref());
    let lag = model.members.iter().filter_map(|member| member.watch_lag).max();
    format!(
        "{second:>4}s  leader {}  term {}  up {}/{}  {} puts/s  {} gets/s  put p50 {}  p99 {}  watch p99 {}  errors {}  \
         revision {}",
        model.leader.map_or("none", |place| model.members[place].name),
        model.term,
        model.answering(),
        model.members.len(),
        model.traffic.puts,
        model.traffic.gets,
        time(model.traffic.put_p50),
        time(model.traffic.put_p99),
        time(lag),
        model.traffic.errors,
        seen.map(|seen| seen.revision).max().unwrap_or(0),
    )
}

/// A time for people, or a dash.
pub(super) fn time(time: Option<Duration>) -> String {
    match time.map(|time| time.as_secs_f64() * 1000.0) {
        None => "-".to_owned(),
        Some(milliseconds) if milliseconds < 1000.0 => format!("{milliseconds:.1} ms"),
        Some(milliseconds) => format!("{:.1} s", milliseconds / 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::members::Process;
    use crate::demo::model::Round;
    use crate::demo::probe::Seen;
    use crate::demo::traffic::{Latencies, Second};

    #[test]
    fn a_second_is_one_line() {
        let mut model = Model::new([("n1", "http://h:1".to_owned()), ("n2", "http://h:2".to_owned())]);
        let mut put_latencies = Latencies::default();
        put_latencies.note(Duration::from_micros(1250));
        let seen = Seen { id: 7, leader: 7, term: 2, revision: 40, ..Seen::default() };
        model.observe(Round {
            at: Duration::from_secs(5),
            seen: vec![Some(seen), None],
            processes: vec![Process::Running { pid: 1 }, Process::Ended],
            traffic: Second { puts: 30, gets: 10, errors: 1, put_latencies, ..Second::default() },
        });
        assert_eq!(
            line(5, &model),
            "   5s  leader n1  term 2  up 1/2  30 puts/s  10 gets/s  put p50 1.2 ms  p99 1.2 ms  watch p99 -  errors 1  \
             revision 40"
        );
        assert_eq!(time(Some(Duration::from_millis(8_049))), "8.0 s");
    }
}
