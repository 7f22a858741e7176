//! Pictures of the board, held against golden ones, and what keys do.
//!
//! A picture that changes on purpose is copied from the failing test's output into `golden/`.

use std::time::Duration;

use super::canvas::{At, Canvas, Size, Style};
use super::draw::draw;
use super::keys::Key;
use super::state::{Board, Wish};
use crate::demo::members::{Deed, Process};
use crate::demo::model::{Model, Mood, Round};
use crate::demo::probe::{Positions, Seen};
use crate::demo::traffic::{Latencies, Second};

const USUAL: Size = Size { columns: 80, rows: 24 };
const LARGE: Size = Size { columns: 120, rows: 40 };

fn assert_picture(board: &Board, size: Size, golden: &str) {
    let drawn = draw(board, size).to_text();
    assert!(drawn == golden, "drawn:\n{drawn}\nexpected:\n{golden}");
}

fn latencies(milliseconds: &[u64]) -> Latencies {
    let mut latencies = Latencies::default();
    milliseconds.iter().for_each(|ms| latencies.note(Duration::from_millis(*ms)));
    latencies
}

fn seen(id: u64, second: u64) -> Seen {
    let applied = second * 75;
    Seen {
        id,
        leader: 2,
        term: 3,
        is_learner: false,
        revision: applied - 3,
        log: Positions {
            last: Some(applied + id),
            committed: Some(applied),
            applied: Some(applied),
            stable: Some(applied - 8 * id),
            snapshot: Some(64),
            purged: Some(0),
        },
        dispatcher: if id == 3 { "dumping".to_owned() } else { "normal".to_owned() },
        requests: second * (10 + id),
        watchers: Some(id),
        lagging: Some(id / 3),
        memory_bytes: (60 + id) << 20,
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        cpu_seconds: (second * id) as f64 * 0.04,
    }
}

/// Three members that have run for a while; n2 leads.
fn running() -> Board {
    let ports = [2379, 22379, 32379].map(|port| format!("http://127.0.0.1:{port}"));
    let mut model = Model::new(["n1", "n2", "n3"].into_iter().zip(ports));
    for second in 1..=70_u64 {
        let traffic = Second {
            puts: 30 + second % 7,
            gets: second,
            errors: 0,
            put_latencies: latencies(&[1, 2, 3, 40]),
            watch_lags: vec![latencies(&[2]), latencies(&[3]), Latencies::default()],
        };
        model.observe(Round {
            at: Duration::from_secs(second),
            seen: [1, 2, 3].map(|id| Some(seen(id, second))).to_vec(),
            processes: [101, 102, 103].map(|pid| Process::Running { pid }).to_vec(),
            traffic,
        });
    }
    Board::new(model, 50)
}

/// As [`running`], but n1 is paused and n2 was killed.
fn troubled() -> Board {
    let mut board = running();
    board.model.note(Mood::Neutral, "n2 is killed (SIGKILL)".to_owned());
    for second in 71..=74 {
        let n3 = Seen { leader: 0, ..seen(3, 70) };
        board.model.observe(Round {
            at: Duration::from_secs(second),
            seen: vec![None, None, Some(n3)],
            processes: vec![Process::Paused { pid: 101 }, Process::Ended, Process::Running { pid: 103 }],
            traffic: Second { errors: 4, ..Second::default() },
        });
    }
    board.selected = 1;
    board
}

#[test]
fn the_usual_terminal() {
    assert_picture(&running(), USUAL, include_str!("golden/running-80x24.txt"));
}

#[test]
fn a_large_terminal() {
    assert_picture(&running(), LARGE, include_str!("golden/running-120x40.txt"));
}

#[test]
fn members_in_trouble() {
    assert_picture(&troubled(), USUAL, include_str!("golden/troubled-80x24.txt"));
}

#[test]
fn help_is_over_everything_else() {
    let mut board = running();
    assert_eq!(board.press(Key::Letter('?')), None);
    assert_picture(&board, USUAL, include_str!("golden/help-80x24.txt"));
    assert_eq!(board.press(Key::Letter('k')), None, "any key closes the help, and does nothing else");
    assert!(!board.shows_help);
}

#[test]
fn a_terminal_that_is_too_small_says_so_and_none_is_too_small_to_draw_on() {
    let board = running();
    let text = draw(&board, Size { columns: 60, rows: 10 }).to_text();
    assert!(text.starts_with("at least 78 x 20, please: it is 60 x 10\n"), "{text}");
    for size in [(0, 0), (1, 1), (78, 20), (79, 500), (500, 21)] {
        draw(&board, Size { columns: size.0, rows: size.1 }).to_ansi();
    }
}

#[test]
fn keys_do_what_the_footer_says() {
    let mut board = running();
    assert_eq!(board.press(Key::Up), None);
    assert_eq!(board.selected, 0);
    for (key, selected) in
        [(Key::Down, 1), (Key::Down, 2), (Key::Down, 2), (Key::Up, 1), (Key::Letter('3'), 2)]
    {
        assert_eq!(board.press(key), None);
        assert_eq!(board.selected, selected);
    }
    assert_eq!(board.press(Key::Letter('9')), None);
    assert_eq!(board.selected, 2);
    for (key, deed) in
        [('k', Deed::Kill), ('p', Deed::PauseOrResume), ('r', Deed::Restart), ('d', Deed::Dump)]
    {
        assert_eq!(board.press(Key::Letter(key)), Some(Wish::Do(deed)));
    }
    for (key, rate) in [('+', 100), ('-', 50), ('t', 0), ('t', 50), ('-', 25), ('t', 0), ('+', 1), ('-', 1)] {
        assert_eq!(board.press(Key::Letter(key)), Some(Wish::Rate(rate)), "{key}");
    }
    board.rate = 90_000;
    assert_eq!(board.press(Key::Letter('+')), Some(Wish::Rate(100_000)));
    for key in [Key::Letter('q'), Key::Interrupt] {
        assert_eq!(board.press(key), Some(Wish::Quit));
    }
    board.shows_help = true;
    assert_eq!(board.press(Key::Interrupt), Some(Wish::Quit));
}

#[test]
fn a_picture_for_a_terminal_changes_colour_only_where_it_has_to() {
    let mut canvas = Canvas::new(Size { columns: 4, rows: 2 });
    canvas.text(At { column: 1, row: 0 }, Style::Good, "abcdef");
    canvas.text_before(At { column: 4, row: 1 }, Style::Plain, "x");
    canvas.text(At { column: 0, row: 7 }, Style::Bad, "below");
    assert_eq!(canvas.to_ansi(), "\x1b[1;1H\x1b[0m \x1b[0;1;32mabc\x1b[2;1H\x1b[0m   x\x1b[0m");
    assert_eq!(canvas.to_text(), " abc\n   x\n");
}
