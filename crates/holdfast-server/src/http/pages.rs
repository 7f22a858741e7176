//! Pages that are on their way: who asks for them and does not read them holds the memory of each.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::PAGES_MAX;

/// The places for pages of one port.
#[derive(Clone)]
pub struct Pages(Arc<Semaphore>);

impl Default for Pages {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(PAGES_MAX)))
    }
}

impl Pages {
    /// A place for one page; none when too many are on their way.
    pub fn place(&self) -> Option<Place> {
        Arc::clone(&self.0).try_acquire_owned().ok().map(Place)
    }
}

/// Taken until it is dropped.
pub struct Place(OwnedSemaphorePermit);

impl Place {
    /// The page; the place is free again once all of it was sent, or nobody reads it any more.
    pub fn hold(self, page: String) -> Body {
        Body::new(Held { page: Body::from(page), _place: self.0 })
    }
}

struct Held {
    page: Body,
    _place: OwnedSemaphorePermit,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.page).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.page.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.page.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_taken_as_long_as_its_page_is_there() {
        let pages = Pages::default();
        let mut held: Vec<Body> =
            (0..PAGES_MAX).map(|_| pages.place().unwrap().hold("page".to_owned())).collect();
        assert!(pages.place().is_none());
        held.pop();
        assert!(pages.place().is_some());
    }
}
