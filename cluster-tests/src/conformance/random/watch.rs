//! Random requests on watch streams. None starts at a negative revision: etcd 3.5.1 reads history for all watchers that are
//! behind from the least of their revisions on, and has none from there, so that all of them miss it.
//!
//! The author keeps a rough account of which ids are in use, so that most cancels hit something. Where it errs the
//! request asks for an id that is free or taken, which is worth asking too.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use rand::RngExt;

use super::Calls;
use super::auth::{Auth, Who};

/// Streams that live side by side.
const STREAMS: usize = 5;

/// The highest id that a client chooses.
const CHOSEN_ID_MAX: i64 = 12;

/// Ids above this one are chosen where watchers may be refused, each once.
const REFUSED_IDS: i64 = 100;

/// The author's account of the streams.
pub(super) struct Watches {
    wanted: usize,
    streams: Vec<Stream>,
    opened: usize,
}

struct Stream {
    name: String,
    /// Whose stream it is.
    who: Who,
    live: BTreeSet<i64>,
    next_id: i64,
}

impl Watches {
    pub(super) fn new(wanted: usize) -> Self {
        let mut watches = Self { wanted, streams: Vec::new(), opened: 0 };
        for _ in 0..STREAMS {
            let stream = watches.stream();
            watches.streams.push(stream);
        }
        watches
    }

    fn stream(&mut self) -> Stream {
        self.opened += 1;
        let name = format!("s{}", self.opened);
        Stream { name, who: Who::Anybody, live: BTreeSet::new(), next_id: 0 }
    }

    /// Auth was switched. On: half of the streams stay, which were opened in nobody's name. Off: all that were opened in
    /// somebody's name are left.
    pub(super) fn begin_anew(&mut self, calls: &mut Calls) {
        for at in 0..self.streams.len() {
            if self.streams[at].who == Who::Anybody && (!calls.accounts.is_on || calls.chance(50)) {
                continue;
            }
            self.streams[at] = self.stream();
            if calls.accounts.is_on {
                self.streams[at].who = calls.someone();
            }
        }
    }

    pub(super) fn call(&mut self, calls: &mut Calls) -> String {
        let (who, request) = self.request(calls);
        format!("{}{request}", who.prefix())
    }

    /// The next request, and in whose name it is.
    fn request(&mut self, calls: &mut Calls) -> (Who, String) {
        let live: usize = self.streams.iter().map(|stream| stream.live.len()).sum();
        let at = calls.rng.random_range(0..self.streams.len());
        let creates = if live < self.wanted { 75 } else { 30 };
        let who = self.streams[at].who;
        calls.who = who;
        let request = match calls.rng.random_range(0..100) {
            0..3 => self.leave(at, calls),
            3..5 => self.odd(at, calls),
            _ if calls.chance(creates) => self.create(at, calls),
            _ if calls.chance(55) => self.cancel(at, calls),
            _ => format!("Watch@{} progress_request {{}}", self.streams[at].name),
        };
        (who, request)
    }

    fn create(&mut self, at: usize, calls: &mut Calls) -> String {
        let stream = &mut self.streams[at];
        let id = if calls.author.auth == Auth::Switched && stream.who != Who::Root {
            // etcd 3.5.1 refuses a watcher under the id that was asked for, 0 for none, and stops sending to the one that has it.
            stream.next_id += 1;
            REFUSED_IDS + stream.next_id
        } else if calls.chance(25) {
            calls.rng.random_range(1..=CHOSEN_ID_MAX)
        } else {
            0
        };
        // With an open end etcd 3.5.1 asks for permission of the first key alone; we do for all.
        let may_be_open = stream.who.may_all();
        let keys = match calls.chance(3) && may_be_open {
            true => "range_end: \"\\x00\"".to_owned(),
            false => calls.keys(may_be_open),
        };
        let start = start(calls);
        let mut text = format!("Watch@{} create_request {{{keys}{start}", stream.name);
        if id != 0 {
            write!(text, " watch_id: {id}").expect("writing to a string does not fail");
        }
        // A watcher that wants nothing shows nothing of where it is: it starts at the head.
        let both = start.is_empty() && calls.chance(4);
        let filters = match calls.rng.random_range(0..100) {
            _ if both => " filters: NOPUT filters: NODELETE",
            0..12 => " filters: NOPUT",
            12..24 => " filters: NODELETE",
            24..26 => " filters: NODELETE filters: NODELETE",
            _ => "",
        };
        text += filters;
        for flag in ["prev_kv", "fragment", "progress_notify"] {
            text += &calls.flag(flag);
        }
        stream.take(id);
        text + "}"
    }

    fn cancel(&mut self, at: usize, calls: &mut Calls) -> String {
        let stream = &mut self.streams[at];
        let live: Vec<i64> = stream.live.iter().copied().collect();
        let id = if live.is_empty() || calls.chance(10) {
            calls.rng.random_range(-1..=CHOSEN_ID_MAX)
        } else {
            live[calls.rng.random_range(0..live.len())]
        };
        stream.live.remove(&id);
        format!("Watch@{} cancel_request {{watch_id: {id}}}", stream.name)
    }

    fn leave(&mut self, at: usize, calls: &mut Calls) -> String {
        let mut fresh = self.stream();
        fresh.who = calls.someone();
        let old = std::mem::replace(&mut self.streams[at], fresh);
        format!("Watch@{} @leave", old.name)
    }

    /// Requests that ask for nothing, and ranges that hold nothing.
    fn odd(&mut self, at: usize, calls: &mut Calls) -> String {
        let name = &self.streams[at].name;
        match calls.rng.random_range(0..4) {
            0 => format!("Watch@{name}"),
            1 => format!("Watch@{name} create_request {{key: \"b\" range_end: \"a\"}}"),
            2 => format!(
                "Watch@{name} create_request {{key: \"a\" range_end: \"a\" watch_id: 3 start_revision: @head}}"
            ),
            _ => format!("Watch@{name} cancel_request {{watch_id: 77}}"),
        }
    }
}

impl Stream {
    /// Accounts for a watcher as a server would.
    fn take(&mut self, chosen: i64) {
        if chosen != 0 {
            self.live.insert(chosen);
            return;
        }
        while self.live.contains(&self.next_id) {
            self.next_id += 1;
        }
        self.live.insert(self.next_id);
        self.next_id += 1;
    }
}

fn start(calls: &mut Calls) -> String {
    let revision = match calls.rng.random_range(0..100) {
        0..35 => return String::new(),
        35..55 => format!("@head-{}", calls.rng.random_range(0..30)),
        55..65 => format!("@head-{}", calls.rng.random_range(0..400)),
        65..72 => "@compacted".to_owned(),
        72..77 => "@compacted-1".to_owned(),
        77..83 => format!("@compacted+{}", calls.rng.random_range(1..4)),
        83..87 => "1".to_owned(),
        87..90 => "@head+1".to_owned(),
        90..97 => format!("@head+{}", calls.rng.random_range(2..15)),
        _ => calls.rng.random_range(1..60).to_string(),
    };
    format!(" start_revision: {revision}")
}
