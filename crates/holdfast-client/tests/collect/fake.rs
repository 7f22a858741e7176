//! A source in memory, whose versions count.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::Stream;
use holdfast_client::collect::{
    ObjectName, OriginObject, OriginVersion, PageToken, Source, SourceError, SourceEvent, SourceId,
    SourcePage,
};
use tokio::sync::watch;

/// Objects of a page.
const PAGE: usize = 70;

#[derive(Clone)]
pub(crate) struct Fake {
    id: SourceId,
    state: Arc<Mutex<State>>,
    version: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<ObjectName, (u64, Bytes)>,
    history: Vec<(u64, SourceEvent)>,
    /// Versions before it are not known any more.
    floor: u64,
    lists: usize,
}

pub(crate) fn name(namespace: &str, name: &str) -> ObjectName {
    ObjectName::new(namespace, name).unwrap()
}

pub(crate) fn origin(version: u64) -> OriginVersion {
    version.to_string().into()
}

impl Fake {
    pub(crate) fn new(id: &str) -> Self {
        let id = SourceId::new(id).unwrap();
        Self { id, state: Arc::default(), version: watch::Sender::new(100) }
    }

    /// Puts an object, and gives it as the source has it then.
    pub(crate) fn put(&self, name: &ObjectName, bytes: &str) -> OriginObject {
        let bytes = Bytes::copy_from_slice(bytes.as_bytes());
        let mut state = self.state.lock().unwrap();
        let version = *self.version.borrow() + 1;
        let object = OriginObject { name: name.clone(), origin: origin(version), bytes: bytes.clone() };
        state.objects.insert(name.clone(), (version, bytes));
        state.history.push((version, SourceEvent::Put(object.clone())));
        self.version.send_replace(version);
        object
    }

    /// Deletes an object, and gives the version.
    pub(crate) fn delete(&self, name: &ObjectName) -> OriginVersion {
        let mut state = self.state.lock().unwrap();
        let version = *self.version.borrow() + 1;
        if state.objects.remove(name).is_some() {
            let event = SourceEvent::Deleted { name: name.clone(), origin: origin(version) };
            state.history.push((version, event));
            self.version.send_replace(version);
        }
        origin(*self.version.borrow())
    }

    /// Forgets all history.
    pub(crate) fn expire(&self) {
        let mut state = self.state.lock().unwrap();
        state.floor = *self.version.borrow();
        state.history.clear();
    }

    pub(crate) fn version(&self) -> OriginVersion {
        origin(*self.version.borrow())
    }

    pub(crate) fn lists(&self) -> usize {
        self.state.lock().unwrap().lists
    }

    /// Names with versions and bytes.
    pub(crate) fn all(&self) -> Vec<(ObjectName, OriginVersion, Bytes)> {
        let state = self.state.lock().unwrap();
        state.objects.iter().map(|(name, (at, bytes))| (name.clone(), origin(*at), bytes.clone())).collect()
    }
}

type Told = Result<SourceEvent, SourceError>;

impl Source for Fake {
    type Watch = Pin<Box<dyn Stream<Item = Told> + Send>>;

    fn id(&self) -> &SourceId {
        &self.id
    }

    async fn list(&self, page: Option<PageToken>) -> Result<SourcePage, SourceError> {
        let mut state = self.state.lock().unwrap();
        // What changes between two pages is told by a watch from the first one's version.
        let (version, behind) = match &page {
            None => {
                state.lists += 1;
                (self.version(), None)
            }
            Some(token) => {
                let (version, last) = token.split_once(' ').unwrap();
                let (namespace, object) = last.split_once('/').unwrap();
                (version.into(), Some(name(namespace, object)))
            }
        };
        let from = behind.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let some = state.objects.range::<ObjectName, _>((from, Bound::Unbounded)).take(PAGE);
        let objects: Vec<_> = some
            .map(|(name, (at, bytes))| OriginObject {
                name: name.clone(),
                origin: origin(*at),
                bytes: bytes.clone(),
            })
            .collect();
        let last = objects.last().filter(|_| objects.len() == PAGE);
        let next = last.map(|last| format!("{version} {}", last.name));
        Ok(SourcePage { objects, next, version })
    }

    async fn watch(&self, from: &OriginVersion) -> Result<Self::Watch, SourceError> {
        let from: u64 = from.as_str().parse().unwrap();
        if from < self.state.lock().unwrap().floor {
            return Err(SourceError::Expired);
        }
        let (state, version) = (Arc::clone(&self.state), self.version.subscribe());
        let next = async move |(at, state, mut version): (u64, Arc<Mutex<State>>, watch::Receiver<u64>)| {
            loop {
                let found = {
                    let state = state.lock().unwrap();
                    if at < state.floor {
                        return Some((Err(SourceError::Expired), (at, Arc::default(), version)));
                    }
                    let behind = state.history.partition_point(|(version, _)| *version <= at);
                    state.history.get(behind).cloned()
                };
                match found {
                    Some((told, event)) => return Some((Ok(event), (told, state, version))),
                    None => version.changed().await.ok()?,
                }
            }
        };
        Ok(Box::pin(futures::stream::unfold((from, state, version), next)))
    }

    fn compare(&self, a: &OriginVersion, b: &OriginVersion) -> Option<Ordering> {
        a.compare_numbers(b)
    }
}
