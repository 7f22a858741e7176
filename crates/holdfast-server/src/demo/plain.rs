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
