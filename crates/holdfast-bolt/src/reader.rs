//! Reads a database that may be damaged.

use std::io;

use crate::error::ReadError;
use crate::format::{BUCKET, ELEMENT, HEADER, Header, IS_BUCKET, Kind, META, Meta, long, word};

/// How deep a tree may be: 64 levels of two pages each are more than a file can have.
const DEPTH_MAX: usize = 64;

/// Where a database is read from.
pub trait Source {
    /// Its length in bytes.
    ///
    /// # Errors
    /// Whatever the system says.
    fn bytes(&self) -> io::Result<u64>;
    /// Fills `buffer` from `at`.
    ///
    /// # Errors
    /// Also when it ends before.
    fn read(&self, at: u64, buffer: &mut [u8]) -> io::Result<()>;
}

impl Source for [u8] {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(at).ok().and_then(|at| self.get(at..)?.get(..buffer.len()));
        buffer.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl<S: Source + ?Sized> Source for &S {
    fn bytes(&self) -> io::Result<u64> {
        (**self).bytes()
    }

    fn read(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        (**self).read(at, buffer)
    }
}

/// A database that can be read.
pub struct Reader<S> {
    source: S,
    pub(crate) meta: Meta,
}

/// Where a bucket is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    pub(crate) root: Rooted,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rooted {
    Page(u64),
    Inline(Vec<u8>),
}

/// A key and its value.
pub type OwnedPair = (Vec<u8>, Vec<u8>);

/// A pair of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair<'a> {
    /// Its key.
    pub key: &'a [u8],
    /// Its value; that of a nested bucket begins with where the bucket is.
    pub value: &'a [u8],
    /// True when the value is a bucket.
    pub is_bucket: bool,
}

/// A page in memory, with the pages it goes on in.
pub(crate) struct Page {
    pub(crate) id: u64,
    pub(crate) header: Header,
    pub(crate) bytes: Vec<u8>,
}

impl Page {
    pub(crate) fn damaged(&self, what: &'static str) -> ReadError {
        ReadError::Damaged { page: self.id, what }
    }

    fn element(&self, index: usize) -> Option<usize> {
        let at = HEADER + index * ELEMENT;
        (index < usize::from(self.header.count) && at + ELEMENT <= self.bytes.len()).then_some(at)
    }

    fn slice(&self, at: usize, pos: u32, skip: usize, len: usize) -> Result<&[u8], ReadError> {
        let from = at.checked_add(pos as usize).and_then(|from| from.checked_add(skip));
        let found = from.and_then(|from| self.bytes.get(from..from.checked_add(len)?));
        found.ok_or_else(|| self.damaged("an element points behind its end"))
    }

    fn pair(&self, index: usize) -> Result<Option<Pair<'_>>, ReadError> {
        let Some(at) = self.element(index) else { return self.at_end(index) };
        let number = |n: usize| word(&self.bytes, at + 4 * n).unwrap_or_default();
        let (key, value) = (number(2) as usize, number(3) as usize);
        self.check_behind_the_last(index)?;
        Ok(Some(Pair {
            key: self.slice(at, number(1), 0, key)?,
            value: self.slice(at, number(1), key, value)?,
            is_bucket: number(0) & IS_BUCKET != 0,
        }))
    }

    pub(crate) fn child(&self, index: usize) -> Result<Option<(&[u8], u64)>, ReadError> {
        let Some(at) = self.element(index) else { return self.at_end(index) };
        let number = |n: usize| word(&self.bytes, at + 4 * n).unwrap_or_default();
        self.check_behind_the_last(index)?;
        let key = self.slice(at, number(0), 0, number(1) as usize)?;
        Ok(Some((key, long(&self.bytes, at + 8).unwrap_or_default())))
    }

    /// That an element's bytes begin behind those of the one before: otherwise a small page could name a lot of bytes.
    fn check_behind_the_last(&self, index: usize) -> Result<(), ReadError> {
        let last = index.checked_sub(1).and_then(|last| self.span(last));
        let is_behind = last.zip(self.span(index)).is_none_or(|((_, end), (start, _))| end <= start);
        if is_behind { Ok(()) } else { Err(self.damaged("elements share bytes")) }
    }

    /// Where an element says that its bytes begin and end.
    fn span(&self, index: usize) -> Option<(usize, usize)> {
        let at = self.element(index)?;
        let number = |n: usize| word(&self.bytes, at + 4 * n).map(|number| number as usize);
        let (start, bytes) = match self.header.kind {
            Kind::Branch => (number(0)?, number(1)?),
            _ => (number(1)?, number(2)? + number(3)?),
        };
        Some((at + start, at + start + bytes))
    }

    fn at_end<T>(&self, index: usize) -> Result<Option<T>, ReadError> {
        if index < usize::from(self.header.count) {
            return Err(self.damaged("it has more elements than room"));
        }
        Ok(None)
    }
}

impl<S: Source> Reader<S> {
    /// Looks for the newest meta.
    ///
    /// # Errors
    /// There is none, or the file ends before its pages do.
    pub fn open(source: S) -> Result<Self, ReadError> {
        let bytes = source.bytes().map_err(ReadError::Io)?;
        let first = meta_at(&source, bytes, 0)?;
        // The second meta is where the first one says, or, when that is damaged, at one of the sizes that there are.
        let sizes = match first {
            Some(meta) => vec![u64::from(meta.page_bytes)],
            None => (10..=16).map(|power| 1 << power).collect(),
        };
        let mut newest = first;
        for size in sizes {
            let second = meta_at(&source, bytes, size)?.filter(|meta| u64::from(meta.page_bytes) == size);
            newest = newest.into_iter().chain(second).max_by_key(|meta| meta.transaction);
        }
        let meta =
            newest.ok_or(ReadError::NotBolt { what: "neither of its first pages is a valid meta page" })?;
        let expected = meta.pages.saturating_mul(u64::from(meta.page_bytes));
        if expected > bytes {
            return Err(ReadError::Cut { bytes, expected });
        }
        Ok(Self { source, meta })
    }

    /// The length of the database in bytes; the file may be longer.
    pub fn bytes(&self) -> u64 {
        self.meta.pages * u64::from(self.meta.page_bytes)
    }

    /// The buckets, ascending by name.
    ///
    /// # Errors
    /// The file is damaged or cannot be read.
    pub fn buckets(&self) -> Result<Vec<(Vec<u8>, Bucket)>, ReadError> {
        let mut found = Vec::new();
        let mut scan = self.scan(&Bucket { root: Rooted::Page(self.meta.root) });
        while let Some(pair) = scan.next()? {
            if pair.is_bucket {
                let bucket = bucket(pair.value);
                found
                    .push((pair.key.to_vec(), bucket.ok_or_else(|| self.bad_root("a bucket has no place"))?));
            }
        }
        Ok(found)
    }

    /// The bucket with this name.
    ///
    /// # Errors
    /// The file is damaged or cannot be read.
    pub fn bucket(&self, name: &[u8]) -> Result<Option<Bucket>, ReadError> {
        Ok(self.buckets()?.into_iter().find(|(other, _)| other == name).map(|(_, bucket)| bucket))
    }

    /// The value of a key; reads the bucket up to there. `None` when there is no such pair.
    ///
    /// # Errors
    /// The file is damaged or cannot be read.
    pub fn value(&self, bucket: &Bucket, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        let mut scan = self.scan(bucket);
        while let Some(pair) = scan.next()? {
            if pair.key >= key {
                return Ok((pair.key == key && !pair.is_bucket).then(|| pair.value.to_vec()));
            }
        }
        Ok(None)
    }

    /// The last pair of a bucket, without reading the others.
    ///
    /// # Errors
    /// The file is damaged or cannot be read.
    pub fn last(&self, bucket: &Bucket) -> Result<Option<OwnedPair>, ReadError> {
        let mut page = self.root_page(bucket)?;
        for _ in 0..DEPTH_MAX {
            // Nothing but a root is empty.
            let Some(last) = usize::from(page.header.count).checked_sub(1) else { return Ok(None) };
            if page.header.kind == Kind::Leaf {
                return Ok(page.pair(last)?.map(|pair| (pair.key.to_vec(), pair.value.to_vec())));
            }
            let Some((_, next)) = page.child(last)? else { return Ok(None) };
            page = self.child_page(next)?;
        }
        Err(page.damaged("the tree is too deep"))
    }

    /// All pairs of a bucket, ascending.
    pub fn scan(&self, bucket: &Bucket) -> Scan<'_, S> {
        let visited = Visited::new(self.meta.pages);
        Scan { reader: self, start: Some(bucket.clone()), stack: Vec::new(), last_key: Vec::new(), visited }
    }

    /// As [`Reader::scan`], going on with what other walks have visited.
    pub(crate) fn scan_with(&self, bucket: &Bucket, visited: Visited) -> Scan<'_, S> {
        Scan { visited, ..self.scan(bucket) }
    }

    fn root_page(&self, bucket: &Bucket) -> Result<Page, ReadError> {
        match &bucket.root {
            Rooted::Page(page) => self.tree_page(*page),
            Rooted::Inline(bytes) => {
                let wrong = || self.bad_root("a bucket in a value is no leaf");
                let header = Header::decode(bytes).filter(|header| header.kind == Kind::Leaf);
                Ok(Page { id: self.meta.root, header: header.ok_or_else(wrong)?, bytes: bytes.clone() })
            }
        }
    }

    fn tree_page(&self, id: u64) -> Result<Page, ReadError> {
        let page = self.page(id)?;
        match page.header.kind {
            Kind::Branch if page.header.count == 0 => Err(page.damaged("a branch without children")),
            Kind::Branch | Kind::Leaf => Ok(page),
            Kind::Meta | Kind::Freelist => Err(page.damaged("it belongs into no tree")),
        }
    }

    /// A page that a branch leads to. Only a bucket without pairs has an empty leaf, and that is its root.
    fn child_page(&self, id: u64) -> Result<Page, ReadError> {
        let page = self.tree_page(id)?;
        if page.header.count == 0 {
            Err(page.damaged("a branch leads to it, and it is empty"))
        } else {
            Ok(page)
        }
    }

    pub(crate) fn page(&self, id: u64) -> Result<Page, ReadError> {
        let damaged = |what| ReadError::Damaged { page: id, what };
        if id < 2 || id >= self.meta.pages {
            return Err(damaged("there is no such page"));
        }
        let page_bytes = u64::from(self.meta.page_bytes);
        let mut start = [0; HEADER];
        // Both products are below the length of the file.
        self.source.read(id * page_bytes, &mut start).map_err(ReadError::Io)?;
        let header = Header::decode(&start).ok_or_else(|| damaged("it is of no kind"))?;
        if header.id != id {
            return Err(damaged("it has another number"));
        }
        let pages = u64::from(header.overflow) + 1;
        if pages > self.meta.pages - id {
            return Err(damaged("it goes on behind the end of the file"));
        }
        let bytes = usize::try_from(pages * page_bytes).map_err(|_| damaged("it is too long"))?;
        let mut content = vec![0; bytes];
        self.source.read(id * page_bytes, &mut content).map_err(ReadError::Io)?;
        Ok(Page { id, header, bytes: content })
    }

    fn bad_root(&self, what: &'static str) -> ReadError {
        ReadError::Damaged { page: self.meta.root, what }
    }
}

/// Where the bucket of a value is; `None` when that is cut.
pub(crate) fn bucket(value: &[u8]) -> Option<Bucket> {
    let root = match long(value, 0)? {
        0 => Rooted::Inline(value.get(BUCKET..)?.to_vec()),
        page => Rooted::Page(page),
    };
    Some(Bucket { root })
}

fn meta_at(source: &impl Source, bytes: u64, at: u64) -> Result<Option<Meta>, ReadError> {
    let mut page = [0; HEADER + META];
    if at + page.len() as u64 > bytes {
        return Ok(None);
    }
    source.read(at, &mut page).map_err(ReadError::Io)?;
    Ok(Header::decode(&page)
        .filter(|header| header.kind == Kind::Meta)
        .and_then(|_| Meta::decode(&page[HEADER..])))
}

/// Which pages a walk has seen: a page that is reached twice would let a small file be read for ever.
pub(crate) struct Visited {
    bits: Vec<u64>,
    pages: u64,
}

impl Visited {
    pub(crate) fn new(pages: u64) -> Self {
        // A bit per page, of pages that are there.
        let words = usize::try_from(pages.div_ceil(64)).unwrap_or(usize::MAX);
        Self { bits: vec![0; words], pages }
    }

    /// False when one of them was visited before.
    pub(crate) fn enter(&mut self, id: u64, overflow: u32) -> bool {
        for page in id..=id.saturating_add(u64::from(overflow)).min(self.pages.saturating_sub(1)) {
            let Some(word) = usize::try_from(page / 64).ok().and_then(|word| self.bits.get_mut(word)) else {
                return false;
            };
            let bit = 1 << (page % 64);
            if *word & bit != 0 {
                return false;
            }
            *word |= bit;
        }
        true
    }

    pub(crate) fn first_missing(&self) -> Option<u64> {
        (0..self.pages).find(|page| {
            let word = usize::try_from(page / 64).ok().and_then(|word| self.bits.get(word));
            word.is_none_or(|word| word & (1 << (page % 64)) == 0)
        })
    }
}

/// The pairs of a bucket, one after the other. Holds one page per level of its tree.
pub struct Scan<'a, S> {
    reader: &'a Reader<S>,
    start: Option<Bucket>,
    stack: Vec<(Page, usize)>,
    last_key: Vec<u8>,
    pub(crate) visited: Visited,
}

impl<S: Source> Scan<'_, S> {
    /// The next pair; `None` behind the last one.
    ///
    /// # Errors
    /// The file is damaged or cannot be read. What came before is right as far as it can be told.
    #[expect(
        clippy::should_implement_trait,
        reason = "what it gives borrows from it, which an iterator cannot say"
    )]
    pub fn next(&mut self) -> Result<Option<Pair<'_>>, ReadError> {
        if let Some(bucket) = self.start.take() {
            let root = self.reader.root_page(&bucket)?;
            match bucket.root {
                Rooted::Page(_) => self.enter(root)?,
                // Part of a page that is visited by itself.
                Rooted::Inline(_) => self.stack.push((root, 0)),
            }
        }
        self.descend()?;
        let Some((page, index)) = self.stack.last_mut() else { return Ok(None) };
        let at = *index;
        *index += 1;
        let Some(pair) = page.pair(at)? else { return Ok(None) };
        if pair.key <= &self.last_key[..] {
            return Err(page.damaged("its keys do not ascend"));
        }
        self.last_key.clear();
        self.last_key.extend_from_slice(pair.key);
        Ok(Some(pair))
    }

    /// Goes on until a leaf with a pair is on top, or nothing is left.
    fn descend(&mut self) -> Result<(), ReadError> {
        while let Some((page, index)) = self.stack.last_mut() {
            if *index >= usize::from(page.header.count) {
                self.stack.pop();
                continue;
            }
            if page.header.kind == Kind::Leaf {
                return Ok(());
            }
            let at = *index;
            *index += 1;
            let Some((key, child)) = page.child(at)? else { continue };
            if at > 0 && key <= &self.last_key[..] {
                return Err(page.damaged("its keys do not ascend"));
            }
            let next = self.reader.child_page(child)?;
            self.enter(next)?;
        }
        Ok(())
    }

    fn enter(&mut self, page: Page) -> Result<(), ReadError> {
        if self.stack.len() >= DEPTH_MAX {
            return Err(page.damaged("the tree is too deep"));
        }
        if !self.visited.enter(page.id, page.header.overflow) {
            return Err(page.damaged("two ways lead to it"));
        }
        self.stack.push((page, 0));
        Ok(())
    }
}
