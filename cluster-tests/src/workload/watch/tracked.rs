//! One watcher as its client keeps it: the record of its life, and the revision to ask for next.

use std::time::Duration;

use holdfast_proto::etcdserverpb::WatchResponse;
use holdfast_proto::mvccpb::event::EventType;
use holdfast_proto::mvccpb::{Event, KeyValue};

use crate::judge::watch::record::{
    Content, End, KeyTable, Kind, Life, Message, Pair, Print, Seen, Session, Whose, Wish,
};

/// What the client knows of the watcher on its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It has none there.
    Away,
    /// It has asked for it.
    Asked,
    /// It has been created.
    Live,
    /// The client has asked for its end.
    Leaving,
}

/// A watcher.
#[derive(Debug)]
pub struct Tracked {
    /// Its number in the run.
    pub number: usize,
    /// Its standing on the current stream.
    pub standing: Standing,
    /// Lives that the client gave up.
    pub former: Vec<Life>,
    life: Life,
    /// Where the events begin whose last fragment has not come.
    open: Option<usize>,
    next: i64,
}

impl Tracked {
    /// A watcher without a session.
    pub fn new(number: usize, wish: Wish) -> Self {
        let life = Life { wish, sessions: Vec::new(), is_to_the_end: true };
        Self { number, standing: Standing::Away, former: Vec::new(), life, open: None, next: 0 }
    }

    /// What it wants.
    pub fn wish(&self) -> &Wish {
        &self.life.wish
    }

    /// The revision to ask for next; 0 is "from now on".
    pub fn next(&self) -> i64 {
        self.next
    }

    /// Gives up the life so far; the new one asks for `start` first.
    pub fn begin(&mut self, start: i64) {
        let new = Life { wish: self.life.wish.clone(), sessions: Vec::new(), is_to_the_end: true };
        let old = std::mem::replace(&mut self.life, new);
        if !old.sessions.is_empty() {
            self.former.push(Life { is_to_the_end: false, ..old });
        }
        self.next = start;
    }

    /// All its lives.
    pub fn into_lives(mut self) -> Vec<Life> {
        self.drop_open();
        if !self.life.sessions.is_empty() {
            self.former.push(self.life);
        }
        self.former
    }

    /// It is asked of this member, at the next revision.
    pub fn ask(&mut self, member: usize) {
        self.life.sessions.push(Session::asked_of(member, self.next));
        self.standing = Standing::Asked;
    }

    /// Its create request was answered.
    pub fn created(&mut self, header: i64) {
        self.session().created = Some(header);
        if self.next == 0 {
            self.next = header + 1;
        }
        self.standing = Standing::Live;
    }

    /// The stream is gone.
    pub fn left(&mut self) {
        self.drop_open();
        self.standing = Standing::Away;
    }

    /// The server has ended it.
    pub fn ended(&mut self, response: &WatchResponse, at: Duration) {
        let was = self.standing;
        self.left();
        self.session().end = match (response.compact_revision, was) {
            (0, Standing::Leaving) => End::Canceled,
            (0, _) => End::Refused,
            (start, _) => End::Compacted { start, at },
        };
        self.next = self.next.max(response.compact_revision);
    }

    /// Progress was told.
    pub fn progress(&mut self, revision: i64, of: Whose, at: Duration) {
        self.session().messages.push(Message { at, content: Content::Progress { revision, of } });
        self.next = self.next.max(revision + 1);
    }

    /// Events came. Fragments are put together before they count.
    pub fn events(&mut self, response: &WatchResponse, keys: &mut KeyTable, at: Duration) {
        let header = response.header.as_ref().map_or(0, |header| header.revision);
        let open = self.open;
        let session = self.session();
        let first = open.unwrap_or(session.events.len());
        session.events.extend(response.events.iter().map(|event| seen(event, keys)));
        if response.fragment {
            self.open = Some(first);
            return;
        }
        let end = session.events.len();
        session.messages.push(Message { at, content: Content::Events { header, first, end } });
        let newest = session.events[first..].iter().map(|event| event.revision + 1).max();
        self.open = None;
        self.next = self.next.max(newest.unwrap_or(0));
    }

    fn drop_open(&mut self) {
        if let Some(first) = self.open.take() {
            self.session().events.truncate(first);
        }
    }

    fn session(&mut self) -> &mut Session {
        self.life.sessions.last_mut().expect("only a watcher that was asked for gets responses")
    }
}

fn seen(event: &Event, keys: &mut KeyTable) -> Seen {
    let none = KeyValue::default();
    let kv = event.kv.as_ref().unwrap_or(&none);
    Seen {
        revision: kv.mod_revision,
        key: keys.id(&kv.key),
        kind: if event.r#type == i32::from(EventType::Delete) { Kind::Delete } else { Kind::Put },
        state: print(kv),
        previous: event.prev_kv.as_ref().map(print),
    }
}

fn print(kv: &KeyValue) -> Print {
    let KeyValue { create_revision, mod_revision, version, lease, .. } = *kv;
    Pair { value: &kv.value, create_revision, mod_revision, version, lease }.print()
}
