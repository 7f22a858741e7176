//! Writes scripts of random calls, for combinations that nobody thought of. Same seed, same script.
//!
//! Few keys and short lives, so that calls meet: ranges over what was just deleted, compares on keys at their second
//! life, reads close to the compacted revision. Left out is only what has no one answer (the order of equal sort
//! values) and what `differences.txt` explains already.

use std::fmt::Write as _;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Keys, and ends of ranges.
const KEYS: [&str; 6] = ["a", "b", "ba", "c", "d", "e"];

/// How deep transactions nest.
const DEPTH_MAX: usize = 2;

/// A script of `calls` calls, as text.
pub fn script(seed: u64, calls: usize) -> String {
    let mut author = Author { rng: StdRng::seed_from_u64(seed), writes: 0, nested_put: false, values: 0 };
    let mut text = String::new();
    for _ in 0..calls {
        let call = author.call();
        writeln!(text, "{call}").expect("writing to a string does not fail");
    }
    text
}

struct Author {
    rng: StdRng,
    /// About how many revisions there are.
    writes: i64,
    /// What nested transactions of the present call write: puts, or deletes. Both together are refused in an order of
    /// siblings of their own.
    nested_put: bool,
    /// Values written so far: each is another, so that sorting by value has one answer.
    values: u64,
}

impl Author {
    fn call(&mut self) -> String {
        match self.rng.random_range(0..100) {
            0..30 => format!("Put {}", self.put()),
            30..42 => format!("DeleteRange {}", self.delete(true)),
            42..70 => format!("Range {}", self.range(true)),
            70..96 => format!("Txn {}", self.txn(0)),
            96..99 => format!("Compact revision: {}{}", self.revision(), self.flag("physical")),
            _ => "HashKV".to_owned(),
        }
    }

    fn key(&mut self) -> &'static str {
        KEYS[self.rng.random_range(0..KEYS.len())]
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    fn flag(&mut self, name: &str) -> String {
        if self.chance(25) { format!(" {name}: true") } else { String::new() }
    }

    /// A revision in the past mostly, sometimes in the future.
    fn revision(&mut self) -> i64 {
        self.rng.random_range(0..self.writes + 4)
    }

    fn keys(&mut self, may_be_open: bool) -> String {
        let key = self.key();
        let end = match self.rng.random_range(0..10) {
            0..5 => String::new(),
            5 if may_be_open => " range_end: \"\\x00\"".to_owned(),
            _ => format!(" range_end: \"{}\"", self.key()),
        };
        format!("key: \"{key}\"{end}")
    }

    fn put(&mut self) -> String {
        self.writes += 1;
        self.values += 1;
        let key = self.key();
        let prev_kv = self.flag("prev_kv");
        match self.rng.random_range(0..20) {
            0 => format!("key: \"{key}\" ignore_value: true{prev_kv}"),
            1 => format!("key: \"{key}\" value: \"v{}\" ignore_lease: true{prev_kv}", self.values),
            2 => format!("key: \"{key}\" value: \"v{}\" lease: 7", self.values),
            _ => format!("key: \"{key}\" value: \"v{}\"{prev_kv}", self.values),
        }
    }

    fn delete(&mut self, may_be_open: bool) -> String {
        self.writes += 1;
        format!("{}{}", self.keys(may_be_open), self.flag("prev_kv"))
    }

    fn range(&mut self, may_look_back: bool) -> String {
        let mut text = self.keys(true);
        if self.chance(30) {
            write!(text, " limit: {}", self.rng.random_range(0..5))
                .expect("writing to a string does not fail");
        }
        if may_look_back && self.chance(30) {
            write!(text, " revision: {}", self.revision()).expect("writing to a string does not fail");
        }
        for bound in ["min_mod_revision", "max_mod_revision", "min_create_revision", "max_create_revision"] {
            if self.chance(8) {
                write!(text, " {bound}: {}", self.revision()).expect("writing to a string does not fail");
            }
        }
        if self.chance(30) {
            let target = if self.chance(50) { "VALUE" } else { "KEY" };
            let order = ["NONE", "ASCEND", "DESCEND"][self.rng.random_range(0..3)];
            write!(text, " sort_target: {target} sort_order: {order}")
                .expect("writing to a string does not fail");
        }
        text + &self.flag("keys_only") + &self.flag("count_only") + &self.flag("serializable")
    }

    fn txn(&mut self, depth: usize) -> String {
        let mut text = String::new();
        if depth == 0 {
            self.nested_put = self.chance(60);
        }
        for _ in 0..self.rng.random_range(0..3) {
            write!(text, "compare {{{}}} ", self.compare()).expect("writing to a string does not fail");
        }
        for branch in ["success", "failure"] {
            for _ in 0..self.rng.random_range(0..4) {
                write!(text, "{branch} {{{}}} ", self.op(depth)).expect("writing to a string does not fail");
            }
        }
        text.trim_end().to_owned()
    }

    fn op(&mut self, depth: usize) -> String {
        match self.rng.random_range(0..100) {
            0..35 => format!("request_range {{{}}}", self.range(true)),
            35..70 if depth == 0 || self.nested_put => format!("request_put {{{}}}", self.put()),
            35..85 if depth == 0 || !self.nested_put => {
                format!("request_delete_range {{{}}}", self.delete(false))
            }
            _ if depth < DEPTH_MAX => format!("request_txn {{{}}}", self.txn(depth + 1)),
            _ => format!("request_range {{{}}}", self.range(false)),
        }
    }

    fn compare(&mut self) -> String {
        let keys = self.keys(true);
        let result = ["EQUAL", "GREATER", "LESS", "NOT_EQUAL"][self.rng.random_range(0..4)];
        let operand = match self.rng.random_range(0..5) {
            0 => format!("target: VERSION version: {}", self.rng.random_range(0..4)),
            1 => format!("target: CREATE create_revision: {}", self.revision()),
            2 => format!("target: MOD mod_revision: {}", self.revision()),
            3 => format!("target: VALUE value: \"v{}\"", self.rng.random_range(0..=self.values)),
            _ => format!("target: LEASE lease: {}", self.rng.random_range(0..2)),
        };
        format!("{keys} result: {result} {operand}")
    }
}

#[cfg(test)]
mod tests {
    use super::super::call::descriptors;
    use super::super::script::Script;
    use super::*;

    #[test]
    fn scripts_repeat_by_seed_and_parse() {
        assert_eq!(script(3, 50), script(3, 50));
        assert_ne!(script(3, 50), script(4, 50));
        let parsed = Script::parse("random", &script(5, 500), &descriptors()).unwrap();
        assert_eq!(parsed.calls.len(), 500);
    }
}
