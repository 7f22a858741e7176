//! A folder: all keys that begin the same, as they are and as they change.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::client::Client;
use crate::codec::KeyValue;
use crate::codec::watch::Event;
use crate::error::Error;
use crate::pages::Pages;
use crate::range::KeyRange;
use crate::read::ReadLevel;
use crate::watch::{Watch, WatchEvent, WatchOptions};

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
    range: KeyRange,
    ready: VecDeque<FolderEvent>,
    at: At,
}

#[derive(Debug)]
enum At {
    /// Reading what is there.
    Listing(Box<Pages>),
    /// Following what happens.
    Following(Box<Watch>),
}

impl Client {
    /// Gives what is in a folder, then each change, in order and once. It goes on over connections and members that fail.
    ///
    /// The folder is all keys that begin with `prefix`: let it end with a slash. A key that is created, deleted and
    /// created again is created twice. Dropping the folder ends the watch.
    pub fn watch_folder(&self, prefix: impl Into<Bytes>) -> Folder {
        let range = KeyRange::prefix(prefix);
        let at = At::Listing(Box::new(self.pages(range.clone(), ReadLevel::Linearizable)));
        Folder { client: self.clone(), range, ready: VecDeque::new(), at }
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
                At::Listing(pages) => match (pages.next().await, pages.revision()) {
                    (Ok(Some(page)), _) => self.ready.extend(page.into_iter().map(FolderEvent::Fresh)),
                    (Ok(None), revision) => {
                        self.follow(revision.expect("a list that is read has a revision"));
                    }
                    // Compacted between two pages: what was given may be gone by now.
                    (Err(Error::Compacted { .. }), Some(revision)) => self.lose(revision + 1),
                    (Err(error), _) => return Err(error),
                },
                At::Following(watch) => match watch.next().await? {
                    WatchEvent::Changes { events, .. } => self.ready.extend(events.into_iter().map(event)),
                    WatchEvent::Progress { .. } => {}
                    WatchEvent::Lost { from, .. } => self.lose(from),
                },
            }
        }
    }

    /// All that was there at this revision is given.
    fn follow(&mut self, revision: u64) {
        self.ready.push_back(FolderEvent::Ready { revision });
        let watch = self.client.watch(self.range.clone(), WatchOptions::new().from(revision + 1));
        self.at = At::Following(Box::new(watch));
    }

    fn lose(&mut self, from: u64) {
        self.ready.push_back(FolderEvent::Lost { from });
        self.at = At::Listing(Box::new(self.client.pages(self.range.clone(), ReadLevel::Linearizable)));
    }
}

fn event(event: Event) -> FolderEvent {
    let is_create = event.is_create();
    match event {
        Event::Put { kv, .. } if is_create => FolderEvent::Created(kv),
        Event::Put { kv, .. } => FolderEvent::Modified(kv),
        Event::Delete { key, revision, .. } => FolderEvent::Deleted { key, revision },
    }
}
