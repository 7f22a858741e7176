//! Pages of metrics that are on their way: a page takes time to make, and who asks for one and does not read it holds its memory.
//!
//! So who asks while the last page is still on its way to somebody, and was made just now, gets that one; and only so many
//! are held at a time. Who reads what he asks for gets a page of his own each time.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use holdfast_env::Monotonic;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::{PAGE_SHARED_FOR, PAGES_MAX};

/// The pages of one port.
#[derive(Clone)]
pub struct Pages(Arc<Inner>);

struct Inner {
    places: Arc<Semaphore>,
    last: Mutex<Option<Arc<Page>>>,
}

/// A page, made at a time.
struct Page {
    made: Monotonic,
    text: Bytes,
    _place: OwnedSemaphorePermit,
}

impl Default for Pages {
    fn default() -> Self {
        Self(Arc::new(Inner { places: Arc::new(Semaphore::new(PAGES_MAX)), last: Mutex::new(None) }))
    }
}

impl Pages {
    /// A page; `None` when too many are on their way. Its place is free again once everybody who has it has been sent all of it,
    /// or is gone.
    ///
    /// Errors: what `make` gives.
    pub fn get<E>(
        &self,
        now: Monotonic,
        make: impl FnOnce() -> Result<String, E>,
    ) -> Result<Option<Body>, E> {
        let mut last = self.0.last.lock();
        let page = match last.take().filter(|page| is_shared(page, now)) {
            Some(page) => page,
            None => {
                let Ok(place) = Arc::clone(&self.0.places).try_acquire_owned() else { return Ok(None) };
                Arc::new(Page { made: now, text: make()?.into(), _place: place })
            }
        };
        *last = Some(Arc::clone(&page));
        Ok(Some(Body::new(Held { body: Body::from(page.text.clone()), _page: page })))
    }
}

/// Whether it is on its way to somebody else, and no older than it may be then.
fn is_shared(page: &Arc<Page>, now: Monotonic) -> bool {
    Arc::strong_count(page) > 1 && now.since(page.made) < PAGE_SHARED_FOR
}

struct Held {
    body: Body,
    _page: Arc<Page>,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use http_body_util::BodyExt;

    use super::*;

    fn at(ms: u64) -> Monotonic {
        Monotonic::from_start(Duration::from_millis(ms))
    }

    /// The page of this number, asked for at this time.
    fn get(pages: &Pages, now: Monotonic, number: u64) -> Option<Body> {
        pages.get(now, || Ok::<_, Infallible>(number.to_string())).unwrap()
    }

    async fn read(body: Option<Body>) -> String {
        let bytes = body.unwrap().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn who_reads_gets_a_page_of_his_own() {
        let pages = Pages::default();
        for number in 0..5 {
            assert_eq!(read(get(&pages, at(1), number)).await, number.to_string());
        }
    }

    #[tokio::test]
    async fn while_a_page_is_on_its_way_others_get_the_same_for_a_moment() {
        let pages = Pages::default();
        let held = get(&pages, at(1000), 1);
        let shared = u64::try_from(PAGE_SHARED_FOR.as_millis()).unwrap();
        assert_eq!(read(get(&pages, at(1000 + shared - 1), 2)).await, "1");
        assert_eq!(read(get(&pages, at(1000 + shared), 3)).await, "3");
        assert_eq!(read(held).await, "1");
    }

    #[test]
    fn a_place_is_taken_as_long_as_its_page_is_there() {
        let pages = Pages::default();
        let often = |number: usize| at(number as u64 * 1000);
        let mut held: Vec<Body> =
            (0..PAGES_MAX).map(|number| get(&pages, often(number), 0).unwrap()).collect();
        assert!(get(&pages, often(PAGES_MAX), 0).is_none());
        held.pop();
        assert!(get(&pages, often(PAGES_MAX), 0).is_some());
    }
}
