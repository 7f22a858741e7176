//! What a run leaves behind for the judge: each watcher's life as its client saw it, and the compactions.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use bytes::Bytes;

/// A key by its number in the [`KeyTable`]: records hold millions of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(u32);

impl KeyId {
    /// Its place among the keys.
    pub fn place(self) -> usize {
        self.0 as usize
    }
}

/// All keys of a run.
#[derive(Debug, Default, Clone)]
pub struct KeyTable {
    ids: HashMap<Bytes, KeyId>,
    keys: Vec<Bytes>,
}

impl KeyTable {
    /// The number of a key, a new one if it has none yet.
    pub fn id(&mut self, key: &[u8]) -> KeyId {
        if let Some(id) = self.ids.get(key) {
            return *id;
        }
        let id = KeyId(u32::try_from(self.keys.len()).expect("no run has 2^32 keys"));
        let key = Bytes::copy_from_slice(key);
        self.ids.insert(key.clone(), id);
        self.keys.push(key);
        id
    }

    /// The keys, in the order of their numbers.
    pub fn keys(&self) -> &[Bytes] {
        &self.keys
    }

    /// A key, fit for a report.
    pub fn name(&self, id: KeyId) -> String {
        String::from_utf8_lossy(&self.keys[id.place()]).into_owned()
    }
}

/// All that is stored under a key, as one number. Two different states share one with a chance of 2^-64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Print(u64);

/// A key's pair as it came over the wire.
#[derive(Debug, Clone, Copy, Hash)]
pub struct Pair<'a> {
    /// The value.
    pub value: &'a [u8],
    /// Revision of the creation.
    pub create_revision: i64,
    /// Revision of the latest change.
    pub mod_revision: i64,
    /// Changes since the creation.
    pub version: i64,
    /// The lease.
    pub lease: i64,
}

impl Pair<'_> {
    /// Its print.
    pub fn print(&self) -> Print {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        Print(hasher.finish())
    }

    /// What a delete at this revision shows of its key.
    pub fn deleted(mod_revision: i64) -> Self {
        Self { value: b"", create_revision: 0, mod_revision, version: 0, lease: 0 }
    }
}

/// Put or delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The key was put.
    Put,
    /// The key was deleted.
    Delete,
}

/// What a watcher asks for, its start aside.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wish {
    /// The key, or the first one of a range.
    pub key: Bytes,
    /// Empty: that key alone. One zero byte: all from it on. Else the first key behind the range.
    pub range_end: Bytes,
    /// Puts are filtered away.
    pub no_puts: bool,
    /// Deletes are filtered away.
    pub no_deletes: bool,
    /// The pair before each change comes along.
    pub prev_kv: bool,
    /// Progress is sent unasked.
    pub progress_notify: bool,
    /// Large responses may come in pieces.
    pub fragment: bool,
}

impl Wish {
    /// Whether the range holds the key.
    pub fn covers(&self, key: &[u8]) -> bool {
        match self.range_end.as_ref() {
            [] => key == self.key.as_ref(),
            [0] => key >= self.key.as_ref(),
            end => key >= self.key.as_ref() && key < end,
        }
    }

    /// Whether changes of this kind pass the filters.
    pub fn wants(&self, kind: Kind) -> bool {
        match kind {
            Kind::Put => !self.no_puts,
            Kind::Delete => !self.no_deletes,
        }
    }
}

/// One event as it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Its revision.
    pub revision: i64,
    /// The key.
    pub key: KeyId,
    /// Put or delete.
    pub kind: Kind,
    /// What the key is now.
    pub state: Print,
    /// What it was, where that came along.
    pub previous: Option<Print>,
}

/// A response of one watcher, fragments put together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// When it had arrived, since the run began.
    pub at: Duration,
    /// What it says.
    pub content: Content,
}

/// What a response says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Events: those of the session from `first` up to, and without, `end`.
    Events {
        /// The header's revision.
        header: i64,
        /// Place of its first event in the session.
        first: usize,
        /// Place behind its last event.
        end: usize,
    },
    /// All up to this revision has been sent.
    Progress {
        /// The revision.
        revision: i64,
        /// Whether it was said of this watcher or of all watchers of the stream.
        of: Whose,
    },
}

/// Whom a progress message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// One watcher.
    Watcher,
    /// All watchers of the stream.
    Stream,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The client went away, or the stream broke.
    Left,
    /// The client canceled the watcher and the server confirmed it.
    Canceled,
    /// The server ended the watcher for a compaction and says that it could start again at `start`.
    Compacted {
        /// The compact revision of the message.
        start: i64,
        /// When the message came.
        at: Duration,
    },
    /// The server ended the watcher for no reason that the client knows of.
    Refused,
}

/// One watcher on one stream: from its create request to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The member that was asked.
    pub member: usize,
    /// First revision asked for; 0 is "from now on".
    pub asked: i64,
    /// The header's revision of the answer to the create request.
    pub created: Option<i64>,
    /// Responses in the order of their arrival.
    pub messages: Vec<Message>,
    /// The events of all responses.
    pub events: Vec<Seen>,
    /// Its end.
    pub end: End,
}

impl Session {
    /// A session that was asked for and not answered yet.
    pub fn asked_of(member: usize, asked: i64) -> Self {
        Self { member, asked, created: None, messages: Vec::new(), events: Vec::new(), end: End::Left }
    }

    /// First revision that it may deliver; `None` while "now" is not known.
    pub fn start(&self) -> Option<i64> {
        if self.asked == 0 { self.created.map(|now| now + 1) } else { Some(self.asked) }
    }

    /// The revision that a client asks for next; 0 while it knows of none.
    pub fn next(&self) -> i64 {
        match self.end {
            End::Compacted { start, .. } => self.reached().max(start),
            End::Left | End::Canceled | End::Refused => self.reached(),
        }
    }

    /// The first revision that it was not sent, a compaction's word aside; 0 while it knows of none.
    pub fn reached(&self) -> i64 {
        let reached = self.messages.iter().map(|message| match message.content {
            Content::Progress { revision, .. } => revision + 1,
            Content::Events { first, end, .. } => {
                self.events[first..end].iter().map(|event| event.revision + 1).max().unwrap_or(0)
            }
        });
        reached.max().unwrap_or(0).max(self.start().unwrap_or(0))
    }
}

/// A watcher through all its sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    /// What it asks for.
    pub wish: Wish,
    /// Its sessions; each takes up where the one before ended.
    pub sessions: Vec<Session>,
    /// Whether it lasted until everything had the time to arrive; else its client gave it up before.
    pub is_to_the_end: bool,
}

/// A response for a watcher that the stream does not have, or has no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stray {
    /// The member that sent it.
    pub member: usize,
    /// The id it names.
    pub watch_id: i64,
}

/// A request to compact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compaction {
    /// Lowest revision that stays readable.
    pub revision: i64,
    /// When it was asked for, since the run began.
    pub asked_at: Duration,
}
