//! Writes a database from its start to its end; the metas, which stand first, come last.

use crate::error::WriteError;
use crate::format::{HEADER, Kind, Meta, PAGE_BYTES};
use crate::tree::{Pages, Tree};

/// The first transaction of the two metas. bbolt finds a meta by the transaction's last bit.
const TRANSACTION: u64 = 2;

/// Writes a database. Buckets come ascending by name, the pairs of each ascending by key, unsigned bytewise. What is
/// ready is [taken](Writer::take) and appended to a file; what stands at its start is known at the [end](Writer::finish).
pub struct Writer {
    pages: Pages,
    root: Tree,
    bucket: Option<(Vec<u8>, Tree)>,
}

/// The end of a database.
#[derive(Debug)]
pub struct Finished {
    /// To be appended.
    pub rest: Vec<u8>,
    /// To be written at the start of the file, over what is there. Without them the file is no database.
    pub metas: Vec<u8>,
    /// The length of the file.
    pub bytes: u64,
}

impl Default for Writer {
    fn default() -> Self {
        Self::new()
    }
}

impl Writer {
    /// An empty database. The place of the metas is ready to be taken.
    pub fn new() -> Self {
        let pages = Pages { out: vec![0; 2 * PAGE_BYTES], next: 2 };
        Self { pages, root: Tree::default(), bucket: None }
    }

    /// Begins a bucket, and ends the one before it.
    ///
    /// # Errors
    /// The name is empty, too long, or not above the one before. Nothing was written.
    pub fn bucket(&mut self, name: &[u8]) -> Result<(), WriteError> {
        if name.is_empty() {
            return Err(WriteError::EmptyKey);
        }
        if self.bucket.as_ref().is_some_and(|(before, _)| *name <= before[..]) {
            return Err(WriteError::OutOfOrder);
        }
        self.end_bucket()?;
        self.bucket = Some((name.to_vec(), Tree::default()));
        Ok(())
    }

    /// Adds a pair to the bucket that was begun last.
    ///
    /// # Errors
    /// There is no bucket, or the key is empty, too long, or not above the one before. Nothing was written.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), WriteError> {
        let (_, tree) = self.bucket.as_mut().ok_or(WriteError::NoBucket)?;
        tree.put(&mut self.pages, key, value)
    }

    /// How many bytes are ready.
    pub fn ready_bytes(&self) -> usize {
        self.pages.out.len()
    }

    /// Takes what is ready, to be appended to the file.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.pages.out)
    }

    /// Ends the database.
    ///
    /// # Errors
    /// The name of the last bucket is too long.
    pub fn finish(mut self) -> Result<Finished, WriteError> {
        self.end_bucket()?;
        let root = self.root.finish_on_pages(&mut self.pages);
        let freelist = self.pages.add(Kind::Freelist, 0, &[]);
        let pages = self.pages.next;
        let page_bytes = u32::try_from(PAGE_BYTES).expect("a page is small");
        let metas = Meta { page_bytes, root, freelist, pages, transaction: TRANSACTION }.pages();
        let mut rest = self.pages.out;
        if rest.len() as u64 == pages * PAGE_BYTES as u64 {
            // Nothing was taken yet: then the metas are in their place already.
            rest[..metas.len()].copy_from_slice(&metas);
        }
        Ok(Finished { rest, metas, bytes: pages * PAGE_BYTES as u64 })
    }

    fn end_bucket(&mut self) -> Result<(), WriteError> {
        let Some((name, tree)) = self.bucket.take() else { return Ok(()) };
        let root = tree.finish(&mut self.pages);
        self.root.put_bucket(&mut self.pages, &name, &root)
    }
}

const _: () = assert!(HEADER < PAGE_BYTES);
