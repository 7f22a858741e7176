//! A range that is read piece by piece, at one revision.

use crate::client::Client;
use crate::codec::KeyValue;
use crate::error::Error;
use crate::range::KeyRange;
use crate::read::{ListOptions, Page, Read, ReadLevel};

/// Keys of the first page. Servers take values of some MiB at most unless they are told otherwise, so that a page fits.
const FIRST_KEYS: u64 = 128;
/// The most keys of a page.
const KEYS_MAX: u64 = 2_048;
/// How large a page should be, with its keys and values.
const PAGE_BYTES: u64 = 2 * 1024 * 1024;
/// How often a list is begun anew when its revision is compacted before it is complete.
const LIST_ATTEMPTS: u32 = 3;

/// The keys of a range, in their order, some at a time and all of one revision; made by [`Client::pages`].
#[derive(Debug)]
pub struct Pages {
    client: Client,
    /// What is left of the range.
    rest: Option<KeyRange>,
    options: ListOptions,
    level: ReadLevel,
    revision: Option<u64>,
    /// Keys of the next page.
    keys: u64,
}

impl Client {
    /// Reads a range in pages of bounded size. All of them show the same revision, which the first one fixes: it is read
    /// with this level, and the others at its revision.
    ///
    /// ```no_run
    /// # async fn example(client: holdfast_client::Client) -> Result<(), holdfast_client::Error> {
    /// use holdfast_client::{KeyRange, ReadLevel};
    ///
    /// let mut pages = client.pages(KeyRange::prefix("services/"), ReadLevel::Any);
    /// while let Some(page) = pages.next().await? {
    ///     for kv in page {
    ///         println!("{:?}", kv.key);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn pages(&self, range: KeyRange, level: ReadLevel) -> Pages {
        let client = self.clone();
        let options = ListOptions::default();
        Pages { client, rest: Some(range), options, level, revision: None, keys: FIRST_KEYS }
    }

    /// All keys of a range, in their order, as of one revision. They are read in pages of bounded size; the answer has
    /// the size that they have.
    ///
    /// Errors: as [`Error`] and [`ReadLevel`] say. When the revision is compacted before all is read it begins anew, some
    /// times, unless the level is [`ReadLevel::Exact`].
    pub async fn list_all(&self, range: KeyRange, level: ReadLevel) -> Result<Read<Vec<KeyValue>>, Error> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            match self.pages(range.clone(), level).collect().await {
                Err(Error::Compacted { .. })
                    if attempts < LIST_ATTEMPTS && !matches!(level, ReadLevel::Exact(_)) => {}
                result => return result,
            }
        }
    }
}

impl Pages {
    /// Values stay on the server: each is empty in the answer.
    #[must_use]
    pub fn keys_only(mut self) -> Self {
        self.options = self.options.keys_only();
        self
    }

    /// The revision that all pages show, once the first one is read.
    pub fn revision(&self) -> Option<u64> {
        self.revision
    }

    /// The next page, which has keys but for the first one of a range that has none; `None` behind the last. Cancel-safe.
    ///
    /// Errors: as [`Error`] and [`ReadLevel`] say; [`Error::Compacted`] when the revision is not kept any more, and some
    /// of the keys can therefore not be read. It may be called again.
    pub async fn next(&mut self) -> Result<Option<Vec<KeyValue>>, Error> {
        let Some(range) = self.rest.clone() else { return Ok(None) };
        let level = self.revision.map_or(self.level, ReadLevel::Exact);
        let read = loop {
            let options = self.options.clone().limit(self.keys);
            match self.client.list(range.clone(), options, level).await {
                // Larger than this client takes.
                Err(error) if error.is_refused_with(tonic::Code::OutOfRange) && self.keys > 1 => {
                    self.keys /= 2;
                }
                result => break result?,
            }
        };
        let Page { items, more, .. } = read.value;
        self.rest = items.last().filter(|_| more).map(|last| range.behind(&last.key));
        self.revision = Some(self.revision.unwrap_or(read.revision));
        self.keys = keys_next(self.keys, &items);
        Ok(Some(items))
    }

    async fn collect(mut self) -> Result<Read<Vec<KeyValue>>, Error> {
        let mut all = Vec::new();
        while let Some(mut page) = self.next().await? {
            all.append(&mut page);
        }
        let revision = self.revision.expect("the first page has told, and there is one always");
        Ok(Read { value: all, revision })
    }
}

/// As many keys as make a page of the size wanted, if the next ones are like these; at most twice as many as now.
fn keys_next(now: u64, items: &[KeyValue]) -> u64 {
    let bytes: usize = items.iter().map(|kv| kv.key.len() + kv.value.len()).sum();
    let (bytes, keys) =
        (u64::try_from(bytes).unwrap_or(u64::MAX), u64::try_from(items.len()).unwrap_or(u64::MAX));
    let fitting = PAGE_BYTES.saturating_mul(keys) / bytes.max(1);
    fitting.clamp(1, KEYS_MAX.min(now.saturating_mul(2)))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn of_size(count: usize, bytes: usize) -> Vec<KeyValue> {
        let kv = KeyValue {
            key: Bytes::from_static(b"k"),
            value: vec![0; bytes - 1].into(),
            create_revision: 1,
            mod_revision: 1,
            version: 1,
            lease: None,
        };
        vec![kv; count]
    }

    #[test]
    fn a_page_has_as_many_keys_as_make_its_size() {
        assert_eq!(keys_next(128, &of_size(128, 16)), 256, "at most twice as many");
        assert_eq!(keys_next(2_048, &of_size(2_048, 16)), KEYS_MAX);
        assert_eq!(keys_next(128, &of_size(128, 256 * 1024)), 8);
        assert_eq!(keys_next(8, &of_size(8, 3 * 1024 * 1024)), 1, "at least one");
    }
}
