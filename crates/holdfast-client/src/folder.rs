//! A folder: all keys that begin the same, as they are and as they change.

use std::collections::VecDeque;

use bytes::Bytes;
use holdfast_proto::etcdserverpb as pb;
use holdfast_proto::mvccpb::{Event, event::EventType};
use tonic::Code;

use crate::client::Client;
use crate::codec::{KeyValue, prefix_end, revision, signed, unsigned};
use crate::error::Error;
use crate::watch::{Change, Changes};

/// Keys that are read at once.
const PAGE_KEYS: i64 = 1_000;

/// What there is in a folder, and what happens in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FolderEvent {
    /// This was there when the watch began.
    Fresh(KeyValue),
    /// All that was there has been given, as of this revision. Changes follow, from the next revision on.
    Ready {
        /// The revision of what is known now.
        revision: u64,
    },
    /// This came into being.
    Created(KeyValue),
    /// This was changed.
    Modified(KeyValue),
    /// This key is gone.
    Deleted {
        /// The key.
        key: Bytes,
        /// When.
        revision: u64,
    },
    /// Changes were compacted before they could be given: what is known is out of date. All that is there follows, as
    /// fresh, up to the next ready. What is not among it is gone.
    Lost {
        /// The first revision whose changes may be missing.
        from: u64,
    },
}

/// A watched folder; made by [`Client::watch_folder`].
#[derive(Debug)]
pub struct Folder {
    client: Client,
    prefix: Bytes,
    ready: VecDeque<FolderEvent>,
    at: At,
}

#[derive(Debug)]
enum At {
    /// Reading what is there.
    Listing(Listing),
    /// Following what happens.
    Following(Box<Changes>),
}

/// How far the list has come.
#[derive(Debug, Clone, Default)]
struct Listing {
    /// What all pages show; none before the first one.
    revision: Option<u64>,
    /// The first key of the next page.
    from: Bytes,
}

impl Client {
    /// Gives what is in a folder, then each change, in order and once. It goes on over connections and members that fail.
    ///
    /// The folder is all keys that begin with `prefix`: let it end with a slash. A key that is created, deleted and
    /// created again is created twice. Dropping the folder ends the watch.
    pub fn watch_folder(&self, prefix: impl Into<Bytes>) -> Folder {
        let prefix = prefix.into();
        let at = At::Listing(Listing { revision: None, from: prefix.clone() });
        Folder { client: self.clone(), prefix, ready: VecDeque::new(), at }
    }
}

impl Folder {
    /// The next event. Waits as long as it takes. Cancel-safe.
    ///
    /// Errors: the list could not be read in the client's time for calls, or the server refuses the list or the watch. It
    /// may be called again: it goes on where it was.
    pub async fn next(&mut self) -> Result<FolderEvent, Error> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            match &mut self.at {
                At::Listing(listing) => {
                    let listing = listing.clone();
                    self.list(listing).await?;
                }
                At::Following(changes) => {
                    let from = changes.next_revision();
                    match changes.next().await? {
                        Change::Events(events) => self.ready.extend(events.into_iter().filter_map(event)),
                        Change::Compacted => self.lose(from),
                    }
                }
            }
        }
    }

    /// Reads one page.
    async fn list(&mut self, listing: Listing) -> Result<(), Error> {
        let request = pb::RangeRequest {
            // The server takes no empty key: the smallest one is a zero byte.
            key: if listing.from.is_empty() { Bytes::from_static(b"\0") } else { listing.from.clone() },
            range_end: prefix_end(&self.prefix),
            limit: PAGE_KEYS,
            revision: listing.revision.map_or(0, signed),
            ..Default::default()
        };
        let page = match (self.client.range(request).await, listing.revision) {
            (Ok(page), _) => page,
            // Compacted between two pages: what was given may be gone by now.
            (Err(error), Some(revision)) if error.is_refused_with(Code::OutOfRange) => {
                self.lose(revision + 1);
                return Ok(());
            }
            (Err(error), _) => return Err(error),
        };
        let revision = listing.revision.unwrap_or_else(|| revision(page.header.as_ref()));
        let last = page.kvs.last().map(|kv| kv.key.clone());
        self.ready.extend(page.kvs.into_iter().map(|kv| FolderEvent::Fresh(kv.into())));
        self.at = match last.filter(|_| page.more) {
            Some(last) => {
                // The next key there can be.
                let from = [last.as_ref(), b"\0"].concat().into();
                At::Listing(Listing { revision: Some(revision), from })
            }
            None => {
                self.ready.push_back(FolderEvent::Ready { revision });
                let key =
                    if self.prefix.is_empty() { Bytes::from_static(b"\0") } else { self.prefix.clone() };
                let changes = Changes::new(&self.client, key, prefix_end(&self.prefix), revision + 1);
                At::Following(Box::new(changes))
            }
        };
        Ok(())
    }

    fn lose(&mut self, from: u64) {
        self.ready.push_back(FolderEvent::Lost { from });
        self.at = At::Listing(Listing { revision: None, from: self.prefix.clone() });
    }
}

fn event(event: Event) -> Option<FolderEvent> {
    let is_delete = event.r#type == i32::from(EventType::Delete);
    let kv = event.kv?;
    Some(if is_delete {
        FolderEvent::Deleted { key: kv.key, revision: unsigned(kv.mod_revision) }
    } else if kv.create_revision == kv.mod_revision {
        FolderEvent::Created(kv.into())
    } else {
        FolderEvent::Modified(kv.into())
    })
}
