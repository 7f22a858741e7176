//! One watcher: what it asked for, what it received, and what was due to it.
//!
//! What is due follows from the full history, which a recorder (a watcher of everything) has received, and from the
//! request alone.

use bytes::Bytes;
use holdfast_proto::etcdserverpb::WatchCreateRequest;
use holdfast_proto::etcdserverpb::watch_create_request::FilterType;
use holdfast_proto::mvccpb::Event;
use holdfast_proto::mvccpb::event::EventType;
use prost_reflect::DynamicMessage;

use super::normalise::render;
use super::placeholder::Revisions;

/// One event as a watcher received it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occurrence {
    /// The revision of the change.
    pub revision: i64,
    /// The key that was changed.
    pub key: Bytes,
    /// Whether it was deleted.
    pub is_delete: bool,
    /// The whole event as text.
    pub text: String,
    /// The same without the previous state of the key.
    pub bare: String,
}

impl Occurrence {
    /// Takes the same event twice: typed, and with everything that the wire carried.
    pub(super) fn new(event: &Event, full: &DynamicMessage) -> Self {
        let kv = event.kv.clone().unwrap_or_default();
        let mut bare = full.clone();
        bare.clear_field_by_name("prev_kv");
        Self {
            revision: kv.mod_revision,
            key: kv.key,
            is_delete: event.r#type == EventType::Delete as i32,
            text: render(full),
            bare: render(&bare),
        }
    }
}

/// What a create request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// The first key.
    pub key: Bytes,
    /// Empty for the one key, a zero byte for no end, else exclusive.
    pub end: Bytes,
    /// As asked: zero for now.
    pub start: i64,
    /// Whether puts are wanted.
    pub puts: bool,
    /// Whether deletes are wanted.
    pub deletes: bool,
    /// Whether the previous state is wanted.
    pub prev_kv: bool,
    /// Whether large responses may come in pieces.
    pub fragment: bool,
}

impl Spec {
    /// Reads a request. An empty key stands for the first key there can be.
    pub(super) fn new(request: &WatchCreateRequest) -> Self {
        let has = |filter: FilterType| request.filters.contains(&(filter as i32));
        Self {
            key: if request.key.is_empty() { Bytes::from_static(b"\0") } else { request.key.clone() },
            end: request.range_end.clone(),
            start: request.start_revision,
            puts: !has(FilterType::Noput),
            deletes: !has(FilterType::Nodelete),
            prev_kv: request.prev_kv,
            fragment: request.fragment,
        }
    }

    fn wants(&self, event: &Occurrence) -> bool {
        let in_range = match self.end.as_ref() {
            b"" => event.key == self.key,
            b"\0" => event.key >= self.key,
            end => event.key >= self.key && event.key.as_ref() < end,
        };
        in_range && if event.is_delete { self.deletes } else { self.puts }
    }
}

/// A watcher that was created.
#[derive(Debug, Clone)]
pub struct Watcher {
    /// Which call of the script created it.
    pub call: usize,
    /// What it asked for.
    pub spec: Spec,
    /// What it received, in that order.
    pub received: Vec<Occurrence>,
    /// What was due to it so far, in order of revision.
    pub due: Vec<Occurrence>,
    /// Where the store was when it was created.
    pub origin: Revisions,
    /// Whether a change was made for its sake.
    pub(super) is_touched: bool,
    /// The highest revision in a header that came with its events.
    pub(super) header_max: i64,
    /// Revisions that progress named, each with how many events had been received then.
    pub(super) promises: Vec<(i64, usize)>,
    first: i64,
    history_read: usize,
}

impl Watcher {
    /// A watcher whose created message is still to come.
    pub(super) fn new(call: usize, request: &WatchCreateRequest, origin: Revisions) -> Self {
        let spec = Spec::new(request);
        Self {
            call,
            first: spec.start.max(1),
            spec,
            received: Vec::new(),
            due: Vec::new(),
            origin,
            is_touched: false,
            header_max: 0,
            promises: Vec::new(),
            history_read: 0,
        }
    }

    /// The created message has come, and its header names this revision.
    pub(super) fn created_at(&mut self, revision: i64) {
        if self.spec.start == 0 {
            self.first = revision + 1;
        }
    }

    /// Whether it starts beyond what has happened.
    pub(super) fn starts_after(&self, head: i64) -> bool {
        self.first > head && self.spec.start != 0
    }

    /// Whether it has history to go through before it is at the head.
    pub(super) fn starts_in_the_past(&self) -> bool {
        self.first <= self.origin.head
    }

    /// Adds to what is due whatever the history has beyond what was looked at.
    pub(super) fn read_history(&mut self, history: &[Occurrence]) {
        for event in &history[self.history_read..] {
            if event.revision >= self.first && self.spec.wants(event) {
                let has_prev = self.spec.prev_kv && event.revision > self.origin.compacted;
                let text = if has_prev { &event.text } else { &event.bare };
                self.due.push(Occurrence { text: text.clone(), ..event.clone() });
            }
        }
        self.history_read = history.len();
    }

    /// Whether anybody knows what is due. What etcd 3.5 sends to a watcher from a negative revision has no rule; newer ones
    /// refuse it.
    pub(super) fn is_ruled(&self) -> bool {
        self.spec.start >= 0
    }

    /// Whether etcd 3.5 may leave this event out: a delete at exactly the compacted revision at which the watcher starts.
    pub(super) fn is_lost_by_compaction(&self, event: &Occurrence) -> bool {
        event.is_delete && event.revision == self.origin.compacted
    }

    /// The last event that must come.
    pub(super) fn last_due(&self) -> Option<&Occurrence> {
        self.due.iter().rev().find(|event| !self.is_lost_by_compaction(event))
    }

    /// Whether everything that is due has come.
    pub(super) fn is_served(&self) -> bool {
        let position = |event: &Occurrence| (event.revision, event.key.clone());
        self.last_due()
            .is_none_or(|last| self.received.last().is_some_and(|have| position(have) == position(last)))
    }

    /// The first event that was due and did not come, or came and was not due; what etcd 3.5 loses is forgiven.
    pub(super) fn first_mistake(&self) -> Option<String> {
        let needed = |event: &&Occurrence| !self.is_lost_by_compaction(event);
        let mut due = self.due.iter().filter(needed);
        let mut received = self.received.iter().filter(needed);
        loop {
            match (due.next(), received.next()) {
                (None, None) => return None,
                (Some(due), Some(received)) if due.text == received.text => {}
                (due, received) => {
                    let text = |event: Option<&Occurrence>| {
                        event.map_or_else(|| "nothing".to_owned(), |event| event.text.clone())
                    };
                    return Some(format!("due {}, received {}", text(due), text(received)));
                }
            }
        }
    }

    /// The first progress that named a revision up to which not everything had come.
    pub(super) fn broken_promise(&self) -> Option<String> {
        let upto = |events: &[Occurrence], revision: i64| {
            let counts =
                |event: &&Occurrence| event.revision <= revision && !self.is_lost_by_compaction(event);
            events.iter().filter(counts).count()
        };
        self.promises.iter().find_map(|(revision, received)| {
            let came = upto(&self.received[..*received], *revision);
            let due = upto(&self.due, *revision);
            (came < due).then(|| format!("progress named {revision} after {came} of {due} events up to it"))
        })
    }
}
