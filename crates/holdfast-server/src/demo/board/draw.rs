//! Draws the board. Pure: the same board and size make the same picture.

use std::time::Duration;

use super::canvas::{At, Canvas, Size, Style};
use super::state::Board;
use crate::demo::members::Process;
use crate::demo::model::{Member, Model, Mood, Role};
use crate::demo::probe::{Positions, Seen};

/// Below this nothing useful fits.
const SIZE_MIN: Size = Size { columns: 78, rows: 20 };
/// From so many rows on, the chart of throughput has several.
const ROWS_FOR_CHART: usize = 32;
/// The rows of that chart.
const CHART_ROWS: usize = 5;
/// What is not known.
const UNKNOWN: &str = "-";

/// The keys, and what they do.
const KEYS: &[(&str, &str)] = &[
    ("↑↓", ""),
    ("k", "kill"),
    ("p", "pause"),
    ("r", "restart"),
    ("d", "dump"),
    ("t", "traffic"),
    ("+-", "rate"),
    ("?", "help"),
    ("q", "quit"),
];

const HELP: &[(&str, &str)] = &[
    ("↑ ↓ 1 2 3", "select a member"),
    ("k", "kill it: SIGKILL, as a crash"),
    ("p", "pause it: SIGSTOP, as a hang; again: SIGCONT"),
    ("r", "stop it in order and start it, or start it again"),
    ("d", "dump: a snapshot now (SIGUSR1)"),
    ("t", "traffic on and off"),
    ("+ -", "twice and half the rate"),
    ("q, Ctrl-C", "end all; nothing is left behind"),
    ("", ""),
    ("last", "the newest entry in this member's log"),
    ("committed", "on disk at a majority"),
    ("applied", "visible to readers here"),
    ("stable", "in the stable store; behind by design"),
    ("snapshot", "up to here the snapshot holds everything"),
    ("purged", "up to here the log is gone"),
    ("watch lag", "from a put's sending to its event, p99"),
];

/// The picture of this size.
pub(super) fn draw(board: &Board, size: Size) -> Canvas {
    let mut canvas = Canvas::new(size);
    if size.columns < SIZE_MIN.columns || size.rows < SIZE_MIN.rows {
        let text = format!(
            "at least {} x {}, please: it is {} x {}",
            SIZE_MIN.columns, SIZE_MIN.rows, size.columns, size.rows
        );
        canvas.text(At { column: 0, row: 0 }, Style::Warn, &text);
        return canvas;
    }
    let mut row = header(&mut canvas, board);
    row = throughput(&mut canvas, board, row);
    row = table(&mut canvas, board, row, POSITIONS);
    row = table(&mut canvas, board, row, WORK);
    events(&mut canvas, &board.model, row);
    footer(&mut canvas);
    if board.shows_help {
        help(&mut canvas);
    }
    canvas
}

fn header(canvas: &mut Canvas, board: &Board) -> usize {
    let (model, columns) = (&board.model, canvas.size().columns);
    let at = |column| At { column, row: 0 };
    let column = canvas.text(at(1), Style::Bold, "holdfast demo");
    let (up, all) = (model.answering(), model.members.len());
    let style = if up == all { Style::Good } else { Style::Bad };
    let column = canvas.text(at(column + 3), style, &format!("{up}/{all} up"));
    canvas.text(at(column + 3), Style::Dim, &clock(model.now));
    let changes = match model.leader_changes {
        1 => "1 leader change".to_owned(),
        changes => format!("{changes} leader changes"),
    };
    let (style, leader) = match model.leader {
        Some(place) => (Style::Good, format!("{} leads", model.members[place].name)),
        None => (Style::Bad, "no leader".to_owned()),
    };
    let about = format!("   term {}   {changes} ", model.term);
    canvas.text_before(at(columns), Style::Dim, &about);
    canvas.text_before(at(columns - about.chars().count()), style, &leader);
    let hint = format!("etcdctl --endpoints={} put k v", model.endpoints());
    canvas.text(At { column: 1, row: 1 }, Style::Dim, &hint);
    3
}

fn throughput(canvas: &mut Canvas, board: &Board, row: usize) -> usize {
    let traffic = &board.model.traffic;
    let (asked_style, asked) = match board.rate {
        0 => (Style::Warn, "off".to_owned()),
        rate => (Style::Plain, format!("{rate}/s")),
    };
    let parts = [
        (Style::Dim, " traffic ".to_owned()),
        (asked_style, asked),
        (Style::Bold, format!("   {} puts/s  {} gets/s", traffic.puts, traffic.gets)),
        (if traffic.errors > 0 { Style::Bad } else { Style::Dim }, format!("  {} errors", traffic.errors)),
        (Style::Dim, "   p50 ".to_owned()),
        (Style::Bold, time(traffic.put_p50)),
        (Style::Dim, "  p99 ".to_owned()),
        (Style::Bold, time(traffic.put_p99)),
    ];
    let mut column = 0;
    for (style, text) in parts {
        column = canvas.text(At { column, row }, style, &text);
    }
    let rows = if canvas.size().rows >= ROWS_FOR_CHART { CHART_ROWS } else { 1 };
    chart(canvas, &board.model, row + 1, rows);
    row + rows + 2
}

/// Requests per second as bars, the latest at the right, eight steps to a row.
fn chart(canvas: &mut Canvas, model: &Model, top: usize, rows: usize) {
    const STEPS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let left = 10;
    let width = canvas.size().columns.saturating_sub(left + 1);
    let shown: Vec<u64> = model.history.iter().rev().take(width).rev().copied().collect();
    let most = shown.iter().max().copied().unwrap_or(0);
    canvas.text(At { column: 1, row: top }, Style::Dim, &format!("{most:>6}/s"));
    if rows > 1 {
        canvas.text(At { column: 1, row: top + rows - 1 }, Style::Dim, "     0");
    }
    let steps_max = rows as u64 * 8;
    for (place, value) in shown.iter().enumerate() {
        // A second with a single request still shows.
        let steps = if most == 0 { 0 } else { (value * steps_max).div_ceil(most) };
        for row in 0..rows {
            let below = (rows - 1 - row) as u64 * 8;
            let step = usize::try_from(steps.saturating_sub(below).min(8)).unwrap_or(8);
            let column = left + width - shown.len() + place;
            canvas.text(At { column, row: top + row }, Style::Accent, STEPS[step].encode_utf8(&mut [0; 4]));
        }
    }
}

/// One column of a table: its heading, how wide it is at least, and what stands in it.
struct Column {
    heading: &'static str,
    width: usize,
    side: Side,
    cell: fn(&Row<'_>) -> String,
}

/// Where a cell's text stands: words at the left, figures at the right.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

/// What a cell is made from.
struct Row<'a> {
    member: &'a Member,
    seen: Option<&'a Seen>,
    now: Duration,
}

impl Row<'_> {
    fn position(&self, of: fn(&Positions) -> Option<u64>) -> String {
        self.seen.and_then(|seen| of(&seen.log)).map_or_else(unknown, |index| index.to_string())
    }
}

const POSITIONS: &[Column] = &[
    Column { heading: "role", width: 11, side: Side::Left, cell: |row| role(row.member.role(row.now)).1 },
    Column {
        heading: "term",
        width: 6,
        side: Side::Right,
        cell: |row| row.seen.map_or_else(unknown, |seen| seen.term.to_string()),
    },
    Column { heading: "last", width: 9, side: Side::Right, cell: |row| row.position(|log| log.last) },
    Column {
        heading: "committed",
        width: 11,
        side: Side::Right,
        cell: |row| row.position(|log| log.committed),
    },
    Column { heading: "applied", width: 9, side: Side::Right, cell: |row| row.position(|log| log.applied) },
    Column { heading: "stable", width: 9, side: Side::Right, cell: |row| row.position(|log| log.stable) },
    Column { heading: "snapshot", width: 9, side: Side::Right, cell: |row| row.position(|log| log.snapshot) },
    Column { heading: "purged", width: 8, side: Side::Right, cell: |row| row.position(|log| log.purged) },
];

const WORK: &[Column] = &[
    Column {
        heading: "dispatcher",
        width: 11,
        side: Side::Left,
        cell: |row| row.seen.map_or_else(unknown, |seen| seen.dispatcher.clone()),
    },
    Column {
        heading: "revision",
        width: 9,
        side: Side::Right,
        cell: |row| row.seen.map_or_else(unknown, |seen| seen.revision.to_string()),
    },
    Column {
        heading: "req/s",
        width: 7,
        side: Side::Right,
        cell: |row| row.member.requests_per_second().map_or_else(unknown, |rate| format!("{rate:.0}")),
    },
    Column { heading: "watchers", width: 9, side: Side::Right, cell: watchers },
    Column { heading: "watch lag", width: 10, side: Side::Right, cell: |row| time(row.member.watch_lag) },
    Column {
        heading: "memory",
        width: 9,
        side: Side::Right,
        cell: |row| row.seen.map_or_else(unknown, |seen| bytes(seen.memory_bytes)),
    },
    Column {
        heading: "cpu",
        width: 6,
        side: Side::Right,
        cell: |row| row.member.cpu_percent().map_or_else(unknown, |share| format!("{share:.0}%")),
    },
    Column { heading: "pid", width: 9, side: Side::Right, cell: pid },
];

fn watchers(row: &Row<'_>) -> String {
    match row.seen.map(|seen| (seen.watchers, seen.lagging)) {
        Some((Some(watchers), Some(lagging))) if lagging > 0 => format!("{watchers} ({lagging})"),
        Some((Some(watchers), _)) => watchers.to_string(),
        _ => unknown(),
    }
}

fn pid(row: &Row<'_>) -> String {
    match row.member.process {
        Process::Running { pid } | Process::Paused { pid } => pid.to_string(),
        Process::Ended => unknown(),
    }
}

fn unknown() -> String {
    UNKNOWN.to_owned()
}

/// Draws one table over the whole width; returns the row behind it and a blank one.
fn table(canvas: &mut Canvas, board: &Board, top: usize, columns: &[Column]) -> usize {
    const NAME_WIDTH: usize = 7;
    let least: usize = columns.iter().map(|column| column.width).sum();
    let spare = canvas.size().columns.saturating_sub(NAME_WIDTH + least + 1) / columns.len();
    canvas.text(At { column: 1, row: top }, Style::Dim, "member");
    let mut end = NAME_WIDTH;
    for column in columns {
        let start = end + 1;
        end += column.width + spare.min(6);
        let mut cell = |row, style, text: &str| match column.side {
            Side::Left => drop(canvas.text(At { column: start, row }, style, text)),
            Side::Right => canvas.text_before(At { column: end, row }, style, text),
        };
        cell(top, Style::Dim, column.heading);
        for (place, member) in board.model.members.iter().enumerate() {
            let row = Row { member, seen: member.seen.as_ref(), now: board.model.now };
            let style = cell_style(column, member, board.model.now);
            cell(top + 1 + place, style, &(column.cell)(&row));
        }
    }
    for (place, member) in board.model.members.iter().enumerate() {
        let row = top + 1 + place;
        canvas.text(At { column: 1, row }, Style::Bold, member.name);
        if place == board.selected {
            canvas.restyle(row, Style::Selected);
            canvas.text(At { column: 0, row }, Style::Selected, "▸");
        }
    }
    top + board.model.members.len() + 2
}

fn cell_style(column: &Column, member: &Member, now: Duration) -> Style {
    if column.heading == "role" {
        role(member.role(now)).0
    } else if member.answers() {
        Style::Plain
    } else {
        // What it said last; it may have changed since.
        Style::Dim
    }
}

fn role(role: Role) -> (Style, String) {
    match role {
        Role::Leader => (Style::Good, "leader".to_owned()),
        Role::Follower => (Style::Plain, "follower".to_owned()),
        Role::Learner => (Style::Plain, "learner".to_owned()),
        Role::Leaderless => (Style::Warn, "no leader".to_owned()),
        Role::Starting => (Style::Dim, "starting".to_owned()),
        Role::Silent(time) => (Style::Bad, format!("silent {}s", time.as_secs())),
        Role::Paused => (Style::Warn, "paused".to_owned()),
        Role::Ended => (Style::Bad, "ended".to_owned()),
    }
}

/// The latest events, the newest at the bottom.
fn events(canvas: &mut Canvas, model: &Model, top: usize) {
    canvas.text(At { column: 1, row: top }, Style::Dim, "events");
    let room = canvas.size().rows.saturating_sub(top + 2);
    let first = model.events.len().saturating_sub(room);
    for (row, event) in model.events.iter().skip(first).enumerate() {
        let row = top + 1 + row;
        canvas.text(At { column: 1, row }, Style::Dim, &clock(event.at));
        let style = match event.mood {
            Mood::Good => Style::Good,
            Mood::Bad => Style::Bad,
            Mood::Neutral => Style::Plain,
        };
        canvas.text(At { column: 10, row }, style, &event.text);
    }
}

fn footer(canvas: &mut Canvas) {
    let row = canvas.size().rows - 1;
    let mut column = 1;
    for (key, does) in KEYS {
        column = canvas.text(At { column, row }, Style::Bold, key);
        column = canvas.text(At { column, row }, Style::Dim, &format!(" {does}  "));
    }
}

/// A box in the middle, over everything else.
fn help(canvas: &mut Canvas) {
    let inner =
        HELP.iter().map(|(key, does)| key.chars().count().max(12) + does.chars().count()).max().unwrap_or(0)
            + 2;
    let Size { columns, rows } = canvas.size();
    let (left, top) = ((columns.saturating_sub(inner + 2)) / 2, (rows.saturating_sub(HELP.len() + 2)) / 2);
    let line = "─".repeat(inner);
    canvas.text(At { column: left, row: top }, Style::Accent, &format!("┌{line}┐"));
    for (place, (key, does)) in HELP.iter().enumerate() {
        let row = top + 1 + place;
        canvas.text(At { column: left, row }, Style::Accent, &format!("│{}│", " ".repeat(inner)));
        canvas.text(At { column: left + 2, row }, Style::Bold, key);
        canvas.text(At { column: left + 14, row }, Style::Plain, does);
    }
    canvas.text(At { column: left, row: top + 1 + HELP.len() }, Style::Accent, &format!("└{line}┘"));
}

/// Hours, minutes and seconds.
fn clock(at: Duration) -> String {
    let seconds = at.as_secs();
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn time(time: Option<Duration>) -> String {
    crate::demo::plain::time(time)
}

fn bytes(bytes: u64) -> String {
    match bytes {
        0 => unknown(),
        _ if bytes < 10 << 30 => format!("{} MiB", bytes >> 20),
        _ => format!("{} GiB", bytes >> 30),
    }
}
