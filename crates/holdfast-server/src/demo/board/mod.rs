//! The demo on a terminal: a live board, and keys to torment the members.
//!
//! Module map: `state` what is selected and what keys do, `draw` the picture, `canvas` what it is drawn on, `keys` the
//! bytes of a terminal: all pure. `terminal` takes the terminal over and gives it back; here is the loop around them.

mod canvas;
mod draw;
mod keys;
mod state;
mod terminal;
#[cfg(test)]
mod tests;

use std::io;

use tokio::signal::unix::{SignalKind, signal};

use super::members::Restarts;
use super::model::Mood;
use super::{DemoError, Show};
use state::{Board, Wish};
use terminal::Terminal;

pub(super) use terminal::is_there;

/// Shows the board until somebody quits. The terminal is given back in any case.
pub(super) async fn run(show: &mut Show<'_>) -> Result<(), DemoError> {
    let mut resized = signal(SignalKind::window_change()).map_err(DemoError::Terminal)?;
    let mut terminal = Terminal::enter().map_err(DemoError::Terminal)?;
    let mut board = Board::new(show.model(), show.rate());
    loop {
        terminal.show(&draw::draw(&board, terminal.size())).map_err(DemoError::Terminal)?;
        tokio::select! {
            // All are cancel-safe: what is not taken now is taken in the next turn.
            pressed = terminal.keys() => {
                let Some(pressed) = pressed else {
                    return Err(DemoError::Terminal(io::ErrorKind::UnexpectedEof.into()));
                };
                for key in pressed {
                    match board.press(key) {
                        None => {}
                        Some(Wish::Quit) => return Ok(()),
                        Some(wish) => fulfil(show, &mut board, wish),
                    }
                }
            }
            _ = resized.recv() => {}
            seen = show.sampler.next() => {
                for line in show.members.look_after(Restarts::OnDemand)? {
                    board.model.note(Mood::Neutral, line);
                }
                let round = show.round(seen);
                board.model.observe(round);
            }
        }
    }
}

fn fulfil(show: &mut Show<'_>, board: &mut Board, wish: Wish) {
    match wish {
        Wish::Quit => {}
        Wish::Rate(rate) => show.set_rate(rate),
        Wish::Do(deed) => match show.members.act(board.selected, deed) {
            Ok(done) => board.model.note(Mood::Neutral, done),
            Err(error) => {
                let name = board.model.members[board.selected].name;
                board.model.note(Mood::Bad, format!("{name}: {error}"));
            }
        },
    }
}
