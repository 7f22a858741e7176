//! What an operator sees while an import is under way, on standard error: a line that changes on a terminal, and lines now
//! and then elsewhere.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use tokio::time::Instant;

/// Between two looks of a line on a terminal.
const REDRAW: Duration = Duration::from_millis(100);

/// Characters of a bar.
const BAR_WIDTH: u64 = 24;

/// Says how it goes.
#[derive(Debug)]
pub(crate) struct Progress {
    is_terminal: bool,
    interval: Duration,
    shown: Option<Instant>,
    /// Whether the line at the cursor is to be written over.
    is_open: bool,
}

/// How much of something is done, and since when.
#[derive(Debug)]
pub(crate) struct Meter {
    begun: Instant,
    /// How many there are, 0 where that is not known.
    pub(crate) total: u64,
    pub(crate) done: u64,
    pub(crate) bytes: u64,
}

impl Meter {
    pub(crate) fn new(total: u64) -> Self {
        Self { begun: Instant::now(), total, done: 0, bytes: 0 }
    }

    /// How long it has taken.
    pub(crate) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// A bar, keys, bytes and rate.
    pub(crate) fn line(&self, what: &str) -> String {
        let Self { total, done, bytes, .. } = self;
        let rate = u128::from(*done) * 1000 / self.elapsed().as_millis().max(1);
        let (bar, bytes) = (bar(*done, *total), crate::output::bytes(*bytes));
        format!("{what} {bar} {done} of {total} keys, {bytes}, {rate} keys/s")
    }
}

impl Progress {
    /// To standard error; lines come at most so often where that is no terminal.
    pub(crate) fn new(interval: Duration) -> Self {
        Self { is_terminal: std::io::stderr().is_terminal(), interval, shown: None, is_open: false }
    }

    /// A line that stays.
    pub(crate) fn say(&mut self, text: &str) {
        self.put(&format!("{text}\n"), false);
        self.shown = None;
    }

    /// How it goes now; made and shown only when it is time again.
    pub(crate) fn show(&mut self, line: impl FnOnce() -> String) {
        let pause = if self.is_terminal { REDRAW } else { self.interval };
        if self.shown.is_some_and(|shown| shown.elapsed() < pause) {
            return;
        }
        self.shown = Some(Instant::now());
        let line = line();
        let end = if self.is_terminal { "" } else { "\n" };
        self.put(&format!("{line}{end}"), self.is_terminal);
    }

    fn put(&mut self, text: &str, stays_open: bool) {
        let clear = if self.is_open { "\r\x1b[2K" } else { "" };
        self.is_open = stays_open;
        let mut stderr = std::io::stderr();
        // A closed standard error leaves nobody to tell.
        drop(write!(stderr, "{clear}{text}").and_then(|()| stderr.flush()));
    }
}

fn bar(done: u64, total: u64) -> String {
    let filled = (done * BAR_WIDTH).checked_div(total).unwrap_or(0).min(BAR_WIDTH);
    let mark = |at| if at < filled { '=' } else { ' ' };
    format!("[{}]", (0..BAR_WIDTH).map(mark).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_never_longer_than_it_is() {
        assert_eq!(bar(0, 0), format!("[{}]", " ".repeat(24)));
        assert_eq!(bar(1, 2), format!("[{}{}]", "=".repeat(12), " ".repeat(12)));
        assert_eq!(bar(9, 3), format!("[{}]", "=".repeat(24)));
    }
}
