//! Elections: one of many leads, and everybody can see who.

use std::collections::HashMap;

use bytes::Bytes;

use crate::client::Client;
use crate::codec::KeyValue;
use crate::codec::watch::Event;
use crate::error::Error;
use crate::held::HoldState;
use crate::place::{First, Place, lost_lease, queue};
use crate::range::KeyRange;
use crate::read::{ListOptions, Order, Read, ReadLevel, SortBy};
use crate::session::Session;
use crate::txn::{Compare, Txn};
use crate::watch::{Watch, WatchEvent, WatchOptions};
use crate::write::Put;

/// The place of the leader; made by [`Session::campaign`]. Dropping it gives it up, in the background;
/// [`Leadership::resign`] waits for that. It ends with its session, and when its key is deleted by others.
#[derive(Debug)]
pub struct Leadership {
    first: First,
}

impl Session {
    /// Waits until it leads the election of this name, with a value that tells the others who does. Who asks first leads
    /// first. It takes part with etcd's clients, and with the election service, which queue in the same way.
    ///
    /// Dropping the future gives the place in the queue up, in the background.
    ///
    /// Errors: as [`Error`] says; [`Error::SessionLost`] when the session ends before. In any case it does not lead.
    pub async fn campaign(
        &self,
        election: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> Result<Leadership, Error> {
        let place = Place::take(self, &election.into(), value.into()).await?;
        place.first().await?;
        Ok(Leadership { first: First::keep(place) })
    }
}

impl Leadership {
    /// The fencing token: higher than that of everybody who led before.
    pub fn token(&self) -> u64 {
        self.first.place().revision()
    }

    /// The leader's key.
    pub fn key(&self) -> &Bytes {
        self.first.place().key()
    }

    /// A claim that holds as long as it leads, for transactions that must not happen otherwise.
    pub fn is_leader(&self) -> Compare {
        self.first.place().is_there()
    }

    /// Whether it leads now, as far as this process knows.
    pub fn state(&self) -> HoldState {
        self.first.state()
    }

    /// Waits until it does not lead any more. Cancel-safe.
    pub async fn lost(&mut self) {
        self.first.lost().await;
    }

    /// Shows another value to the others. Gives its revision.
    ///
    /// Errors: as [`Error`] says; [`Error::SessionLost`] when it does not lead any more.
    pub async fn proclaim(&self, value: impl Into<Bytes>) -> Result<u64, Error> {
        let place = self.first.place();
        let put = Put::new(place.key().clone(), value).lease(place.session().lease());
        let txn = Txn::new().when(place.is_there()).then(put);
        let answer = place.client().txn(txn).await.map_err(lost_lease)?;
        if answer.succeeded { Ok(answer.revision) } else { Err(Error::SessionLost) }
    }

    /// Gives it up, and returns when others can lead.
    ///
    /// Errors: nobody could be told. It is tried again in the background, and ends with the session.
    pub async fn resign(self) -> Result<(), Error> {
        self.first.leave().await
    }
}

/// Who leads an election, as it changes; made by [`Client::observe`].
#[derive(Debug)]
pub struct Observe {
    client: Client,
    range: KeyRange,
    /// All that take part, by their keys.
    candidates: HashMap<Bytes, KeyValue>,
    /// `None` before they are read.
    watch: Option<Watch>,
    /// The leader that was told last, and whether any was.
    told: Option<Option<KeyValue>>,
}

impl Client {
    /// Who leads the election of this name; `None` when nobody does.
    ///
    /// Errors: as [`Client::get`].
    pub async fn leader(
        &self,
        election: impl Into<Bytes>,
        level: ReadLevel,
    ) -> Result<Read<Option<KeyValue>>, Error> {
        let options = ListOptions::new().limit(1).sorted(SortBy::CreateRevision, Order::Ascending);
        let read = self.list(KeyRange::prefix(queue(&election.into())), options, level).await?;
        Ok(read.map(|page| page.items.into_iter().next()))
    }

    /// Tells who leads the election of this name, and each change of that, in order.
    pub fn observe(&self, election: impl Into<Bytes>) -> Observe {
        let range = KeyRange::prefix(queue(&election.into()));
        Observe { client: self.clone(), range, candidates: HashMap::new(), watch: None, told: None }
    }
}

impl Observe {
    /// Who leads, at once when that is first asked, and then when another one leads or the leader shows another value;
    /// `None` when nobody does. Cancel-safe.
    ///
    /// A change is left out only when it was compacted before it could be seen.
    ///
    /// Errors: as [`Client::list_all`] and [`Watch::next`]. It may be called again: it goes on where it was.
    pub async fn next(&mut self) -> Result<Option<KeyValue>, Error> {
        loop {
            match &mut self.watch {
                None => {
                    let read = self.client.list_all(self.range.clone(), ReadLevel::Linearizable).await?;
                    self.candidates = read.value.into_iter().map(|kv| (kv.key.clone(), kv)).collect();
                    let from = WatchOptions::new().from(read.revision + 1);
                    self.watch = Some(self.client.watch(self.range.clone(), from));
                }
                Some(watch) => match watch.next().await? {
                    WatchEvent::Changes { events, .. } => self.change(events),
                    WatchEvent::Progress { .. } => {}
                    WatchEvent::Lost { .. } => self.watch = None,
                },
            }
            let leader = self.candidates.values().min_by_key(|kv| kv.create_revision).cloned();
            // Between two reads of all, nobody knows who leads.
            if self.watch.is_some() && self.told.as_ref() != Some(&leader) {
                self.told = Some(leader.clone());
                return Ok(leader);
            }
        }
    }

    fn change(&mut self, events: Vec<Event>) {
        for event in events {
            match event {
                Event::Put { kv, .. } => drop(self.candidates.insert(kv.key.clone(), kv)),
                Event::Delete { key, .. } => drop(self.candidates.remove(&key)),
            }
        }
    }
}
