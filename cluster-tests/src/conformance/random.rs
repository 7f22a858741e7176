//! Writes scripts of random calls, for combinations that nobody thought of. Same seed, same script.
//!
//! Few keys and short lives, so that calls meet: ranges over what was just deleted, compares on keys at their second
//! life, reads close to the compacted revision, watchers that start there. Left out is only what has no one answer (a
//! limit that cuts between equal sort values) and what `differences.txt` explains already.

use std::fmt::Write as _;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

pub use self::auth::Auth;
use self::auth::{AUTH_PERCENT, Accounts, Who};
use self::lease::Leases;
use self::rest::{Places, REST_PERCENT};
use self::watch::Watches;

mod auth;
mod lease;
mod rest;
mod watch;

/// Keys, and ends of ranges.
const KEYS: [&str; 6] = ["a", "b", "ba", "c", "d", "e"];

/// How deep transactions nest.
const DEPTH_MAX: usize = 2;

/// Calls for leases, of a hundred.
const LEASE_PERCENT: u32 = 8;

/// Calls on watch streams, of a hundred, if there are watchers at all.
const WATCH_PERCENT: u32 = 14;

/// What a script is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Author {
    /// How many calls.
    pub calls: usize,
    /// How many watchers live at any time, about; none for a script without watches.
    pub watchers: usize,
    /// What transactions read.
    pub txn_reads: TxnReads,
    /// Whether members are asked which leases there are: one of etcd's lists them as it knows them, and may lag.
    pub lists_leases: bool,
    /// Bytes that every value is padded with.
    pub padding_bytes: usize,
    /// Whether there are users and roles.
    pub auth: Auth,
}

/// Which revisions are read inside transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TxnReads {
    /// Past, compacted and future ones too.
    Any,
    /// The newest: three members of etcd 3.5 disagree for good after a transaction that is refused for another.
    Newest,
}

/// A script, as text.
pub fn script(seed: u64, author: Author) -> String {
    let mut calls = Calls {
        rng: StdRng::seed_from_u64(seed),
        nested_put: false,
        is_outside: false,
        author,
        values: 0,
        leases: Leases::default(),
        accounts: Accounts::default(),
        who: Who::Anybody,
        places: Places::default(),
        lines: Vec::new(),
    };
    let mut watches = Watches::new(author.watchers);
    if author.auth == Auth::Switched {
        calls.begin_auth();
        watches.begin_anew(&mut calls);
    }
    while calls.lines.len() < author.calls {
        let is_on = calls.accounts.is_on;
        calls.next(&mut watches);
        if calls.accounts.is_on != is_on {
            watches.begin_anew(&mut calls);
        }
    }
    calls.lines.truncate(author.calls);
    calls.lines.join("\n")
}

/// Where an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It is a call.
    Alone,
    /// In a transaction.
    Inside,
}

struct Calls {
    rng: StdRng,
    /// What nested transactions of the present call write: puts, or deletes. Both together are refused in an order of
    /// siblings of their own.
    nested_put: bool,
    /// The range that is being written stands alone.
    is_outside: bool,
    author: Author,
    leases: Leases,
    accounts: Accounts,
    /// Who makes the call that is being written.
    who: Who,
    places: Places,
    lines: Vec<String>,
    /// Values written so far: each is another, so that sorting by value has one answer.
    values: u64,
}

impl Calls {
    fn line(&mut self, line: String) {
        self.lines.push(line);
    }

    /// Writes the next call, and what belongs to it.
    fn next(&mut self, watches: &mut Watches) {
        if self.author.auth == Auth::Switched && self.chance(AUTH_PERCENT) {
            return self.auth_call();
        }
        if self.author.watchers > 0 && self.chance(WATCH_PERCENT) {
            let call = watches.call(self);
            return self.line(call);
        }
        self.who = self.someone();
        let call = if self.chance(REST_PERCENT) && self.who.may_all() {
            self.rest_call()
        } else if self.chance(LEASE_PERCENT) {
            self.lease_call()
        } else {
            self.call()
        };
        self.line(format!("{}{call}", self.who.prefix()));
    }

    fn call(&mut self) -> String {
        match self.rng.random_range(0..1000) {
            0..300 => format!("Put {}", self.put(Place::Alone)),
            300..420 => format!("DeleteRange {}", self.delete(true)),
            420..695 => format!("Range {}", self.single_range()),
            695..955 => match self.txn(0) {
                // etcd carries a transaction of nothing out for anybody.
                nothing if nothing.is_empty() && !self.who.may_all() => {
                    format!("Range {}", self.single_range())
                }
                txn => format!("Txn {txn}"),
            },
            955..975 if self.who.may_all() => {
                format!("Compact revision: {}{}", self.revision(), self.flag("physical"))
            }
            975..985 => self.invalid().to_owned(),
            985.. if self.who.may_all() => "HashKV".to_owned(),
            _ => format!("Range {}", self.single_range()),
        }
    }

    /// What is refused before anybody looks at the store.
    fn invalid(&mut self) -> &'static str {
        const INVALID: [&str; 8] = [
            "Put value: \"no key\"",
            "Range range_end: \"z\"",
            "DeleteRange",
            "Put key: \"a\" value: \"v\" ignore_value: true",
            "Put key: \"a\" lease: 4 ignore_lease: true",
            "Txn success {request_put {}}",
            "Txn success {}",
            "Txn success {request_put {key: \"a\"}} success {request_put {key: \"a\"}}",
        ];
        INVALID[self.rng.random_range(0..INVALID.len())]
    }

    fn key(&mut self) -> &'static str {
        KEYS[self.rng.random_range(0..KEYS.len())]
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    fn value(&self, number: u64) -> String {
        match self.author.padding_bytes {
            0 => format!("v{number}"),
            bytes => format!("v{number}@repeat({bytes}){{.}}"),
        }
    }

    fn flag(&mut self, name: &str) -> String {
        if self.chance(25) { format!(" {name}: true") } else { String::new() }
    }

    /// A revision: of late mostly, else anywhere down to what is compacted, sometimes in the future.
    fn revision(&mut self) -> String {
        match self.rng.random_range(0..100) {
            0..50 => format!("@head-{}", self.rng.random_range(0..12)),
            50..72 => format!("@head-{}", self.rng.random_range(0..120)),
            72..76 => "@compacted".to_owned(),
            76..80 => "@compacted-1".to_owned(),
            80..88 => format!("@compacted+{}", self.rng.random_range(1..6)),
            88..94 => format!("@head+{}", self.rng.random_range(1..5)),
            _ => self.rng.random_range(0..20).to_string(),
        }
    }

    /// A range. Whether one that ends before it begins is permitted depends on how etcd's tree of permissions happens to look:
    /// only who may do everything asks for those.
    fn keys(&mut self, may_be_open: bool) -> String {
        let key = self.key();
        let end = match self.rng.random_range(0..10) {
            0..5 => String::new(),
            5 if may_be_open => " range_end: \"\\x00\"".to_owned(),
            _ => match self.key() {
                end if end <= key && !self.who.may_all() => String::new(),
                end => format!(" range_end: \"{end}\""),
            },
        };
        format!("key: \"{key}\"{end}")
    }

    /// A put. In transactions of who may not do everything it has no lease and asks for no previous value.
    fn put(&mut self, place: Place) -> String {
        self.values += 1;
        let key = self.key();
        if place == Place::Inside && !self.who.may_all() {
            return format!("key: \"{key}\" value: \"{}\"", self.value(self.values));
        }
        let (prev_kv, value) = (self.flag("prev_kv"), self.value(self.values));
        match self.rng.random_range(0..20) {
            0 => format!("key: \"{key}\" ignore_value: true{prev_kv}"),
            1 => format!("key: \"{key}\" value: \"{value}\" ignore_lease: true{prev_kv}"),
            2..5 => format!("key: \"{key}\" value: \"{value}\" lease: {}{prev_kv}", self.lease()),
            _ => format!("key: \"{key}\" value: \"{value}\"{prev_kv}"),
        }
    }

    fn delete(&mut self, may_be_open: bool) -> String {
        format!("{}{}", self.keys(may_be_open), self.flag("prev_kv"))
    }

    fn range(&mut self, may_look_back: bool) -> String {
        let mut text = self.keys(true);
        if self.chance(30) {
            write!(text, " limit: {}", self.rng.random_range(-1..5))
                .expect("writing to a string does not fail");
        }
        let may_look_back = may_look_back && (self.is_outside || self.author.txn_reads == TxnReads::Any);
        if may_look_back && self.chance(30) {
            write!(text, " revision: {}", self.revision()).expect("writing to a string does not fail");
        }
        for bound in ["min_mod_revision", "max_mod_revision", "min_create_revision", "max_create_revision"] {
            if self.chance(8) {
                write!(text, " {bound}: {}", self.revision()).expect("writing to a string does not fail");
            }
        }
        if self.chance(30) {
            // Others are often equal: which of those a limit cuts off, or a transaction lists first, nobody says.
            let any = !text.contains("limit") && self.is_outside;
            let targets =
                if any { &["VALUE", "KEY", "VERSION", "CREATE", "MOD"][..] } else { &["VALUE", "KEY"] };
            let target = targets[self.rng.random_range(0..targets.len())];
            let order = ["NONE", "ASCEND", "DESCEND"][self.rng.random_range(0..3)];
            write!(text, " sort_target: {target} sort_order: {order}")
                .expect("writing to a string does not fail");
        }
        text + &self.flag("keys_only") + &self.flag("count_only") + &self.flag("serializable")
    }

    /// A range that is no part of a transaction.
    fn single_range(&mut self) -> String {
        self.is_outside = true;
        let text = self.range(true);
        self.is_outside = false;
        if self.chance(3) && !text.contains(" revision:") { text + " revision: -1" } else { text }
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
            35..70 if depth == 0 || self.nested_put => format!("request_put {{{}}}", self.put(Place::Inside)),
            35..85 if depth == 0 || !self.nested_put => {
                format!("request_delete_range {{{}}}", self.delete(false))
            }
            _ if depth < DEPTH_MAX && self.who.may_all() => {
                format!("request_txn {{{}}}", self.txn(depth + 1))
            }
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
            3 => {
                let number = self.rng.random_range(0..=self.values);
                format!("target: VALUE value: \"{}\"", self.value(number))
            }
            _ if self.chance(30) => "target: LEASE lease: 0".to_owned(),
            _ => format!("target: LEASE lease: {}", self.lease()),
        };
        format!("{keys} result: {result} {operand}")
    }
}

#[cfg(test)]
mod tests {
    use super::super::call::descriptors;
    use super::super::placeholder::Revisions;
    use super::super::script::Script;
    use super::*;

    #[test]
    fn scripts_repeat_by_seed_and_parse() {
        let author = Author {
            calls: 500,
            watchers: 20,
            txn_reads: TxnReads::Any,
            lists_leases: true,
            padding_bytes: 0,
            auth: Auth::Switched,
        };
        assert_eq!(script(3, author), script(3, author));
        assert_ne!(script(3, author), script(4, author));
        let parsed = Script::parse("random", &script(5, author), &descriptors()).unwrap();
        assert_eq!(parsed.calls.len(), 500);
        assert!(parsed.watches());
        let late = Revisions { head: 1_000, compacted: 500 };
        parsed.calls.iter().for_each(|call| drop(call.request(late).unwrap()));
        for name in ["as(u1) Put", "as(root) AuthDisable", "AuthEnable", "Lock name", "as(u2) Watch@"] {
            assert!((1..40).any(|seed| script(seed, author).contains(name)), "{name}");
        }
        let silent = script(5, Author { watchers: 0, ..author });
        assert!(!Script::parse("random", &silent, &descriptors()).unwrap().watches());
    }
}
