//! What came on one watch stream, sorted: answers to requests, and the events of each watcher.
//!
//! Checks on the way what holds for every response, however changes were batched into it:
//! - the created message of a watcher comes before its events, and nothing comes after its cancellation;
//! - events ascend by revision, no revision is spread over two responses, nothing comes twice;
//! - the header's revision is at least that of the last event, and never falls;
//! - fragments are of one watcher and one header, and end.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_proto::etcdserverpb::{WatchCreateRequest, WatchResponse};
use prost::Message;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use tonic::{Code, Status};

use super::placeholder::Revisions;
use super::watcher::{Occurrence, Watcher};

/// Stands for the whole stream, or for a watcher that was not made.
const NO_WATCHER: i64 = -1;

/// One stream's responses, sorted.
#[derive(Debug)]
pub struct Inbox {
    descriptor: MessageDescriptor,
    /// Created and canceled, not yet taken.
    pub(super) answers: Vec<DynamicMessage>,
    /// Progress of the whole stream, not yet taken.
    pub(super) progress: Vec<DynamicMessage>,
    /// How many created messages there were.
    pub(super) created: usize,
    /// Watchers that were neither cancelled nor lost with the stream, by id.
    pub(super) live: BTreeMap<i64, Watcher>,
    /// The others.
    pub(super) gone: Vec<Watcher>,
    /// How the stream ended.
    pub(super) end: Option<(Code, String)>,
    /// What was wrong, if anything.
    pub(super) faults: Vec<String>,
    /// Ids of watchers that a compaction has cancelled: the client still has to give them back.
    kept: BTreeSet<i64>,
    expected: Option<Watcher>,
    fragments: Option<Fragments>,
}

/// A response that is not complete yet.
#[derive(Debug)]
struct Fragments {
    watch_id: i64,
    revision: i64,
    events: Vec<Occurrence>,
}

impl Inbox {
    /// An inbox of a stream of `WatchResponse`, which the descriptor describes.
    pub fn new(descriptor: MessageDescriptor) -> Self {
        Self {
            descriptor,
            answers: Vec::new(),
            progress: Vec::new(),
            created: 0,
            live: BTreeMap::new(),
            gone: Vec::new(),
            end: None,
            faults: Vec::new(),
            kept: BTreeSet::new(),
            expected: None,
            fragments: None,
        }
    }

    /// The request of the next watcher, which call it is, and where the store stands.
    pub fn expect(&mut self, call: usize, request: &WatchCreateRequest, origin: Revisions) {
        self.expected = Some(Watcher::new(call, request, origin));
    }

    /// Takes what came. Gives the response, for those who look at all of its fields, unless it came by luck.
    pub fn accept(&mut self, what: Result<&[u8], &Status>) -> Option<DynamicMessage> {
        let bytes = match what {
            Ok(bytes) => bytes,
            Err(status) => {
                self.end = Some((status.code(), status.message().to_owned()));
                self.lose_watchers();
                return None;
            }
        };
        let full = DynamicMessage::decode(self.descriptor.clone(), bytes);
        let (Ok(response), Ok(full)) = (WatchResponse::decode(bytes), full) else {
            self.faults.push("a response does not decode".to_owned());
            return None;
        };
        let is_luck = self.is_luck(&response);
        self.sort(&response, &full);
        (!is_luck).then_some(full)
    }

    /// When etcd 3.5 sends anything to a watcher from a negative revision, or cancels it, depends on timing.
    fn is_luck(&self, response: &WatchResponse) -> bool {
        let watcher = self.live.get(&response.watch_id).filter(|_| !response.created);
        watcher.is_some_and(|watcher| !watcher.is_ruled())
            && (!response.canceled || response.compact_revision != 0)
    }

    /// The answers since the last time.
    pub(super) fn take_answers(&mut self) -> Vec<DynamicMessage> {
        self.expected = None;
        std::mem::take(&mut self.answers)
    }

    /// The stream is over.
    pub(super) fn lose_watchers(&mut self) {
        let lost = std::mem::take(&mut self.live);
        self.gone.extend(lost.into_values());
    }

    fn sort(&mut self, response: &WatchResponse, full: &DynamicMessage) {
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        let events = events(response, full);
        if response.created || response.canceled {
            if !events.is_empty() {
                self.faults.push("a created or canceled message carries events".to_owned());
            }
            if self.fragments.is_some() {
                self.faults.push("a created or canceled message stands between fragments".to_owned());
            }
            if !self.is_luck(response) {
                self.answers.push(full.clone());
            }
            self.appear_or_go(response, revision);
        } else if response.fragment || self.fragments.is_some() {
            self.join(response, revision, events);
        } else if events.is_empty() {
            self.take_progress(response.watch_id, revision, full);
        } else {
            self.deliver(response.watch_id, revision, events);
        }
    }

    fn appear_or_go(&mut self, response: &WatchResponse, revision: i64) {
        let id = response.watch_id;
        self.created += usize::from(response.created);
        match (response.created, response.canceled) {
            (true, false) => match self.expected.take() {
                Some(mut watcher) => {
                    watcher.created_at(revision);
                    if self.live.insert(id, watcher).is_some() {
                        self.faults.push(format!("id {id} was given while in use"));
                    }
                }
                None => self.faults.push(format!("watcher {id} was created without a request")),
            },
            (true, true) => {
                // Of those that are not permitted etcd 3.5 says the id that was asked for: one of the table's rules.
                if id != NO_WATCHER && !response.cancel_reason.contains("permission denied") {
                    self.faults.push(format!("a refused watcher has id {id}"));
                }
            }
            _ => match self.live.remove(&id) {
                Some(watcher) => {
                    self.gone.push(watcher);
                    if response.compact_revision != 0 {
                        self.kept.insert(id);
                    }
                }
                None if self.kept.remove(&id) => {}
                None => self.faults.push(format!("id {id} was cancelled and is not in use")),
            },
        }
    }

    fn join(&mut self, response: &WatchResponse, revision: i64, events: Vec<Occurrence>) {
        let mut fragments = self.fragments.take().unwrap_or(Fragments {
            watch_id: response.watch_id,
            revision,
            events: Vec::new(),
        });
        if response.fragment
            && !self.live.get(&response.watch_id).is_some_and(|watcher| watcher.spec.fragment)
        {
            self.faults.push(format!("a fragment for {}, which asked for none", response.watch_id));
        }
        if (fragments.watch_id, fragments.revision) != (response.watch_id, revision) {
            self.faults.push(format!("fragments of {} and {} mix", fragments.watch_id, response.watch_id));
        }
        fragments.events.extend(events);
        if response.fragment {
            self.fragments = Some(fragments);
        } else {
            self.deliver(fragments.watch_id, revision, fragments.events);
        }
    }

    fn take_progress(&mut self, id: i64, revision: i64, full: &DynamicMessage) {
        if id == NO_WATCHER {
            self.progress.push(full.clone());
        } else if !self.live.contains_key(&id) {
            self.faults.push(format!("progress for id {id}, which is not in use"));
        }
        for (watch_id, watcher) in &mut self.live {
            if id == NO_WATCHER || id == *watch_id {
                watcher.promises.push((revision, watcher.received.len()));
            }
        }
    }

    fn deliver(&mut self, id: i64, revision: i64, events: Vec<Occurrence>) {
        let Some(watcher) = self.live.get_mut(&id) else {
            self.faults.push(format!("events for id {id}, which is not in use: {}", events[0].text));
            return;
        };
        let last = watcher.received.last().map_or(0, |event| event.revision);
        let newest = events.iter().map(|event| event.revision).max().unwrap_or(0);
        if events[0].revision <= last {
            self.faults.push(format!("after revision {last} came again {}", events[0].text));
        }
        if !events.is_sorted_by_key(|event| event.revision) {
            self.faults.push(format!("events of one response do not ascend, from {}", events[0].text));
        }
        if revision < newest || revision < watcher.header_max {
            let before = watcher.header_max;
            self.faults.push(format!("header.revision {revision} with an event of {newest}, after {before}"));
        }
        watcher.header_max = revision;
        watcher.received.extend(events);
    }
}

fn events(response: &WatchResponse, full: &DynamicMessage) -> Vec<Occurrence> {
    let list = full.get_field_by_name("events").expect("WatchResponse has events");
    let list = list.as_list().unwrap_or_default();
    let both = response.events.iter().zip(list);
    both.filter_map(|(event, full)| Some(Occurrence::new(event, full.as_message()?))).collect()
}

#[cfg(test)]
#[path = "inbox_tests.rs"]
mod tests;
