//! Objects by what they have in common.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::object::Object;
use super::tree::Tree;

/// What an object is found by.
type Terms<T> = dyn Fn(&Object<T>) -> Vec<Bytes> + Send + Sync;

/// A way to find objects.
pub(super) struct Indexer<T> {
    pub(super) name: &'static str,
    terms: Box<Terms<T>>,
}

impl<T> Indexer<T> {
    pub(super) fn new(
        name: &'static str,
        terms: impl Fn(&Object<T>) -> Vec<Bytes> + Send + Sync + 'static,
    ) -> Self {
        Self { name, terms: Box::new(terms) }
    }

    /// Each once, in order.
    fn terms_of(&self, object: &Object<T>) -> Vec<Bytes> {
        let mut terms = (self.terms)(object);
        terms.sort_unstable();
        terms.dedup();
        terms
    }
}

impl<T> fmt::Debug for Indexer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "by {}", self.name)
    }
}

/// A term with an object that has it; ordered by the term, then the object's key.
pub(super) struct Posting<T> {
    /// One allocation for all objects that have it, mostly.
    term: Arc<[u8]>,
    object: Arc<Object<T>>,
}

/// All objects by one thing.
pub(super) struct Index<T>(Tree<Posting<T>>);

impl<T> Index<T> {
    pub(super) const EMPTY: Self = Self(Tree::EMPTY);

    /// Of these objects.
    pub(super) fn of<'a>(indexer: &Indexer<T>, objects: impl IntoIterator<Item = &'a Arc<Object<T>>>) -> Self
    where
        T: 'a,
    {
        let mut postings = Vec::new();
        for object in objects {
            let terms = indexer.terms_of(object);
            postings.extend(terms.into_iter().map(|term| (term, Arc::clone(object))));
        }
        postings.sort_unstable_by(|(a, x), (b, y)| a.cmp(b).then_with(|| x.key().cmp(y.key())));
        let mut last: Arc<[u8]> = Arc::from([].as_slice());
        let shared = postings.into_iter().map(|(term, object)| {
            if *last != *term {
                last = Arc::from(term.as_ref());
            }
            Posting { term: Arc::clone(&last), object }
        });
        Self(Tree::from_ascending(shared))
    }

    /// One object in the place of another, or of none, or gone.
    pub(super) fn change(
        &mut self,
        indexer: &Indexer<T>,
        before: Option<&Arc<Object<T>>>,
        after: Option<&Arc<Object<T>>>,
    ) {
        let terms = after.map_or_else(Vec::new, |object| indexer.terms_of(object));
        if let Some(object) = before {
            for term in indexer.terms_of(object) {
                if terms.binary_search(&term).is_err() {
                    self.0.remove(|posting| posting.order(&term, object.key()));
                }
            }
        }
        if let Some(object) = after {
            for term in terms {
                let term = self.shared(&term);
                self.0.insert(Posting { term, object: Arc::clone(object) });
            }
        }
    }

    fn shared(&self, term: &Bytes) -> Arc<[u8]> {
        let known = self.0.from(|posting| (*posting.term).cmp(term)).next();
        match known.filter(|posting| *posting.term == **term) {
            Some(posting) => Arc::clone(&posting.term),
            None => Arc::from(term.as_ref()),
        }
    }

    /// The objects that have a term, in the order of their keys.
    pub(super) fn with<'a>(&'a self, term: &'a [u8]) -> impl Iterator<Item = &'a Arc<Object<T>>> {
        let from = self.0.from(move |posting| (*posting.term).cmp(term));
        from.take_while(move |posting| *posting.term == *term).map(|posting| &posting.object)
    }

    /// The terms that objects have, in their order.
    pub(super) fn terms(&self) -> impl Iterator<Item = &[u8]> {
        let mut next = self.0.iter().next();
        std::iter::from_fn(move || {
            let term = &*next?.term;
            next = self.0.from(|posting| (*posting.term).cmp(term).then(Ordering::Less)).next();
            Some(term)
        })
    }

    #[cfg(test)]
    pub(super) fn node_bytes(&self) -> usize {
        self.0.node_bytes()
    }
}

impl<T> Clone for Index<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Posting<T> {
    fn order(&self, term: &[u8], key: &[u8]) -> Ordering {
        (*self.term).cmp(term).then_with(|| self.object.key().cmp(key))
    }
}

impl<T> Clone for Posting<T> {
    fn clone(&self) -> Self {
        Self { term: Arc::clone(&self.term), object: Arc::clone(&self.object) }
    }
}

impl<T> PartialEq for Posting<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for Posting<T> {}

impl<T> PartialOrd for Posting<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Posting<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order(&other.term, other.object.key())
    }
}
