//! Changes of a range of keys, from a revision on, across connections and members.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::{FutureExt, Stream};
use holdfast_proto::{etcdserverpb as pb, mvccpb};
use pb::watch_create_request::FilterType;
use tokio::time::{Sleep, sleep};
use tonic::Status;

use crate::client::{Client, PAUSE_MAX, jittered};
use crate::codec::signed;
use crate::codec::watch::Event;
use crate::error::{Error, refusal};
use crate::range::KeyRange;
use crate::watch_stream::{Delivery, PAUSE_MIN, Seat};

/// What of the changes of a range is wanted: all of them, from now on, unless set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WatchOptions {
    from: Option<u64>,
    previous: bool,
    kinds: Kinds,
    progress: bool,
}

/// Which changes are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Kinds {
    #[default]
    All,
    Puts,
    Deletes,
}

impl WatchOptions {
    /// All changes, from now on.
    pub fn new() -> Self {
        Self::default()
    }

    /// From this revision on, inclusive, whether it has come or not. A [`crate::Read`] is followed from its revision + 1.
    #[must_use]
    pub fn from(mut self, revision: u64) -> Self {
        self.from = Some(revision);
        self
    }

    /// Each change has the key as it was before, as long as the server knows.
    #[must_use]
    pub fn previous(mut self) -> Self {
        self.previous = true;
        self
    }

    /// Keys that are set, and not those that are deleted.
    #[must_use]
    pub fn only_puts(mut self) -> Self {
        self.kinds = Kinds::Puts;
        self
    }

    /// Keys that are deleted, and not those that are set.
    #[must_use]
    pub fn only_deletes(mut self) -> Self {
        self.kinds = Kinds::Deletes;
        self
    }

    /// Tells from time to time how far it has come when nothing happens: [`WatchEvent::Progress`]. How often is the
    /// server's choice: 10 minutes unless it is told otherwise.
    #[must_use]
    pub fn progress(mut self) -> Self {
        self.progress = true;
        self
    }
}

/// What a watch tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEvent {
    /// What has happened in a revision: all changes of it that are wanted, in order, never none.
    Changes {
        /// Higher than all before.
        revision: u64,
        /// One for each key.
        events: Vec<Event>,
    },
    /// All changes up to this revision, inclusive, were told.
    Progress {
        /// Never below what was told before.
        revision: u64,
    },
    /// Changes were compacted before they could be told. The watch goes on behind them.
    Lost {
        /// The first revision whose changes may be missing.
        from: u64,
        /// The first revision, behind it, whose changes are all told again.
        resumes_at: u64,
    },
}

/// The changes of a range, in the order of their revisions, each once; made by [`Client::watch`].
///
/// It goes on over connections and members that fail. What cannot be told any more, because it was compacted meanwhile, is
/// told to be [`WatchEvent::Lost`]. What is not taken waits in a buffer of bounded size, and behind that on the server.
/// All watches of a client share one stream to one member; one that is not read does not hold up the others.
///
/// Dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    client: Client,
    range: KeyRange,
    options: WatchOptions,
    /// The first revision that was not told yet, once that is known.
    next_revision: Option<u64>,
    /// What is to be told before anything else.
    ready: VecDeque<WatchEvent>,
    seat: Option<Seat>,
    /// Before the next seat is taken, when the last one was of no use.
    pause: Duration,
    resting: Option<Pin<Box<Sleep>>>,
}

impl Client {
    /// Watches the changes of a range of keys.
    ///
    /// Nothing is asked for before it is first read: [`Watch::started`] makes sure that changes from now on are seen.
    ///
    /// ```no_run
    /// # async fn example(client: holdfast_client::Client) -> Result<(), holdfast_client::Error> {
    /// use holdfast_client::{KeyRange, ReadLevel, WatchEvent, WatchOptions};
    ///
    /// let range = KeyRange::prefix("services/");
    /// let read = client.list_all(range.clone(), ReadLevel::Linearizable).await?;
    /// let mut watch = client.watch(range, WatchOptions::new().from(read.revision + 1));
    /// loop {
    ///     match watch.next().await? {
    ///         WatchEvent::Changes { revision, events } => println!("{revision}: {events:?}"),
    ///         WatchEvent::Progress { .. } => {}
    ///         WatchEvent::Lost { from, resumes_at } => println!("{from} to {resumes_at} are not known"),
    ///     }
    /// }
    /// # }
    /// ```
    pub fn watch(&self, range: KeyRange, options: WatchOptions) -> Watch {
        Watch {
            client: self.clone(),
            range,
            next_revision: options.from,
            options,
            ready: VecDeque::new(),
            seat: None,
            pause: PAUSE_MIN,
            resting: None,
        }
    }
}

impl Watch {
    /// Waits for what comes next, as long as it takes: a member that is gone or cut off is left for the next one.
    /// Cancel-safe.
    ///
    /// Errors: the server refuses the watch: [`Error::Refused`]. It may be called again, and asks again then.
    pub async fn next(&mut self) -> Result<WatchEvent, Error> {
        poll_fn(|context| self.poll_told(context)).await
    }

    /// Waits until it is certain which changes are told, and gives the first revision whose changes are. With
    /// [`WatchOptions::from`] that is certain from the start. Cancel-safe.
    ///
    /// Errors: as [`Watch::next`].
    pub async fn started(&mut self) -> Result<u64, Error> {
        poll_fn(|context| {
            loop {
                if let Some(next) = self.next_revision {
                    return Poll::Ready(Ok(next));
                }
                ready!(self.poll_delivery(context))?;
            }
        })
        .await
    }

    /// The first revision that may have changes that were not told yet: where another watch goes on. `None` before a
    /// watch from now on has started.
    pub fn next_revision(&self) -> Option<u64> {
        match self.ready.front() {
            Some(WatchEvent::Changes { revision, .. }) => Some(*revision),
            Some(WatchEvent::Lost { from, .. }) => Some(*from),
            Some(WatchEvent::Progress { .. }) | None => self.next_revision,
        }
    }

    /// Has the server asked how far it has come, for who waits for a revision that may change nothing in the range: with
    /// [`WatchOptions::progress`] it is told as [`WatchEvent::Progress`] then. Servers need not answer.
    pub(crate) fn ask_progress(&self) {
        if let Some(seat) = &self.seat {
            seat.ask_progress();
        }
    }

    fn poll_told(&mut self, context: &mut Context<'_>) -> Poll<Result<WatchEvent, Error>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Poll::Ready(Ok(event));
            }
            ready!(self.poll_delivery(context))?;
        }
    }

    /// Takes what is told next, if anything is; goes to a stream when it is on none.
    fn poll_delivery(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if let Some(resting) = &mut self.resting {
            ready!(resting.poll_unpin(context));
            self.resting = None;
        }
        let seat = match &mut self.seat {
            Some(seat) => seat,
            None => self.seat.insert(self.client.streams().join(&self.client, self.request())),
        };
        match ready!(seat.poll_next(context)) {
            Some(delivery) => Poll::Ready(self.take(delivery)),
            None => {
                // The stream broke, or this watch was too slow for it.
                self.seat = None;
                Poll::Ready(Ok(()))
            }
        }
    }

    fn take(&mut self, delivery: Delivery) -> Result<(), Error> {
        match delivery {
            Delivery::Created(revision) => {
                self.next_revision.get_or_insert(revision + 1);
            }
            Delivery::Events(events) => {
                if let Err(status) = self.take_events(events) {
                    self.rest(&status);
                }
            }
            Delivery::Progress(revision) => {
                self.pause = PAUSE_MIN;
                if self.next_revision.is_none_or(|next| next <= revision) {
                    self.next_revision = Some(revision + 1);
                }
                if self.options.progress && self.next_revision == Some(revision + 1) {
                    self.ready.push_back(WatchEvent::Progress { revision });
                }
            }
            Delivery::Compacted(resumes_at) => {
                self.seat = None;
                let from = self.next_revision.unwrap_or(resumes_at).min(resumes_at);
                self.next_revision = Some(resumes_at);
                self.ready.push_back(WatchEvent::Lost { from, resumes_at });
            }
            Delivery::Canceled(status) => self.rest(&status),
            Delivery::Refused(status) => {
                self.rest(&status);
                return Err(refusal(&status));
            }
        }
        Ok(())
    }

    /// Errors: they make no sense.
    fn take_events(&mut self, events: Vec<mvccpb::Event>) -> Result<(), Status> {
        let namespace = self.client.namespace();
        let mut changes: Vec<(u64, Vec<Event>)> = Vec::new();
        for event in events {
            let event = Event::decode(event, namespace)?;
            match changes.last_mut() {
                Some((revision, events)) if *revision == event.revision() => events.push(event),
                _ => changes.push((event.revision(), vec![event])),
            }
        }
        self.pause = PAUSE_MIN;
        for (revision, events) in changes {
            // A server has no reason to go back; if it does, nothing is told twice.
            if self.next_revision.is_none_or(|next| revision >= next) {
                self.next_revision = Some(revision + 1);
                self.ready.push_back(WatchEvent::Changes { revision, events });
            }
        }
        Ok(())
    }

    /// Leaves the stream for a while.
    fn rest(&mut self, status: &Status) {
        tracing::debug!(%status, next_revision = self.next_revision, "a watch is not on a stream");
        self.seat = None;
        self.resting = Some(Box::pin(sleep(jittered(self.pause))));
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }

    fn request(&self) -> pb::WatchCreateRequest {
        let (key, range_end) = self.client.namespace().range(&self.range);
        let filters = match self.options.kinds {
            Kinds::All => vec![],
            Kinds::Puts => vec![FilterType::Nodelete.into()],
            Kinds::Deletes => vec![FilterType::Noput.into()],
        };
        pb::WatchCreateRequest {
            key,
            range_end,
            start_revision: self.next_revision.map_or(0, signed),
            // Also when nobody wants to hear of it: who knows how far it has come loses nothing to a compaction.
            progress_notify: true,
            filters,
            prev_kv: self.options.previous,
            // A response of a large revision fits into no buffer otherwise.
            fragment: true,
            ..Default::default()
        }
    }
}

/// Never ends, also behind an error.
impl Stream for Watch {
    type Item = Result<WatchEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_told(context).map(Some)
    }
}
