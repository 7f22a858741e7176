//! What the board adds to the model: what is selected, and what keys do. Pure.

use super::keys::Key;
use crate::demo::members::Deed;
use crate::demo::model::Model;

/// The rate that switching the traffic on asks for, when none was asked for before.
const RATE_DEFAULT: u32 = 50;
/// The highest rate, as of `--rate`.
const RATE_MAX: u32 = 100_000;

/// The board.
#[derive(Debug, Clone)]
pub(super) struct Board {
    pub model: Model,
    /// Place of the selected member.
    pub selected: usize,
    /// Requests per second asked for; 0 for none.
    pub rate: u32,
    /// The rate before the traffic was switched off.
    rate_before: u32,
    pub shows_help: bool,
}

/// What a key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// Something done to the selected member.
    Do(Deed),
    /// Another rate of requests.
    Rate(u32),
    Quit,
}

impl Board {
    pub(super) fn new(model: Model, rate: u32) -> Self {
        Self { model, selected: 0, rate, rate_before: RATE_DEFAULT, shows_help: false }
    }

    /// Takes a key. `None` when only the picture changes.
    pub(super) fn press(&mut self, key: Key) -> Option<Wish> {
        if self.shows_help && !matches!(key, Key::Interrupt | Key::Letter('q')) {
            self.shows_help = false;
            return None;
        }
        match key {
            Key::Interrupt | Key::Letter('q') => Some(Wish::Quit),
            Key::Up => self.select(self.selected.saturating_sub(1)),
            Key::Down => self.select(self.selected + 1),
            Key::Letter(digit @ '1'..='9') => self.select(digit as usize - '1' as usize),
            Key::Letter('k') => Some(Wish::Do(Deed::Kill)),
            Key::Letter('p') => Some(Wish::Do(Deed::PauseOrResume)),
            Key::Letter('r') => Some(Wish::Do(Deed::Restart)),
            Key::Letter('d') => Some(Wish::Do(Deed::Dump)),
            Key::Letter('t') if self.rate > 0 => {
                self.rate_before = self.rate;
                self.ask_for(0)
            }
            Key::Letter('t') => self.ask_for(self.rate_before),
            Key::Letter('+' | '=') => self.ask_for((self.rate * 2).clamp(1, RATE_MAX)),
            Key::Letter('-') => self.ask_for((self.rate / 2).max(1)),
            Key::Letter('?' | 'h') => {
                self.shows_help = true;
                None
            }
            Key::Letter(_) | Key::Escape => None,
        }
    }

    fn select(&mut self, place: usize) -> Option<Wish> {
        if place < self.model.members.len() {
            self.selected = place;
        }
        None
    }

    fn ask_for(&mut self, rate: u32) -> Option<Wish> {
        self.rate = rate;
        Some(Wish::Rate(rate))
    }
}
