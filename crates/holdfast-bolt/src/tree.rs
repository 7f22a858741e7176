//! The tree of one bucket, built from ascending keys: one open page per level.

use crate::error::WriteError;
use crate::format::{
    BUCKET, ELEMENT, HEADER, Header, IS_BUCKET, KEY_BYTES_MAX, Kind, PAGE_BYTES, VALUE_BYTES_MAX,
};

/// A bucket whose leaf takes up to this much stays in the value that names it. bbolt's rule.
const INLINE_BYTES_MAX: usize = PAGE_BYTES / 4;

/// Pages on their way out, in order.
pub(crate) struct Pages {
    /// What the caller has not taken yet.
    pub(crate) out: Vec<u8>,
    /// The number of the next page.
    pub(crate) next: u64,
}

impl Pages {
    /// Adds a page, with those it overflows into; gives its number.
    pub(crate) fn add(&mut self, kind: Kind, count: u16, content: &[&[u8]]) -> u64 {
        let id = self.next;
        let bytes = HEADER + content.iter().map(|part| part.len()).sum::<usize>();
        let pages = bytes.div_ceil(PAGE_BYTES);
        let overflow =
            u32::try_from(pages - 1).expect("a page holds one pair that is above its size, at most 2 GiB");
        self.out.extend_from_slice(&Header { id, kind, count, overflow }.encode());
        content.iter().for_each(|part| self.out.extend_from_slice(part));
        self.out.resize(self.out.len() + pages * PAGE_BYTES - bytes, 0);
        self.next += pages as u64;
        id
    }
}

/// What an element says beside its place.
#[derive(Debug, Clone, Copy)]
enum Element {
    Leaf { flags: u32, key: usize, value: usize },
    Branch { key: usize, page: u64 },
}

/// A page that is being filled.
#[derive(Debug, Default)]
struct Open {
    elements: Vec<Element>,
    data: Vec<u8>,
}

impl Open {
    fn bytes(&self) -> usize {
        HEADER + self.elements.len() * ELEMENT + self.data.len()
    }

    /// True when there is no room for so many bytes more.
    fn is_full_for(&self, bytes: usize) -> bool {
        !self.elements.is_empty() && self.bytes() + ELEMENT + bytes > PAGE_BYTES
    }

    fn first_key(&self) -> &[u8] {
        match self.elements.first() {
            Some(Element::Leaf { key, .. } | Element::Branch { key, .. }) => &self.data[..*key],
            None => &[],
        }
    }

    fn count(&self) -> u16 {
        u16::try_from(self.elements.len()).expect("a page of 4 KiB holds at most 255 elements of 16 bytes")
    }

    fn elements(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.elements.len() * ELEMENT);
        let mut at = self.elements.len() * ELEMENT;
        for element in &self.elements {
            let pos = number(at - bytes.len());
            match *element {
                Element::Leaf { flags, key, value } => {
                    for word in [flags, pos, number(key), number(value)] {
                        bytes.extend_from_slice(&word.to_le_bytes());
                    }
                    at += key + value;
                }
                Element::Branch { key, page } => {
                    bytes.extend_from_slice(&pos.to_le_bytes());
                    bytes.extend_from_slice(&number(key).to_le_bytes());
                    bytes.extend_from_slice(&page.to_le_bytes());
                    at += key;
                }
            }
        }
        bytes
    }
}

fn number(length: usize) -> u32 {
    u32::try_from(length).expect("a page holds one pair that is above its size, at most 2 GiB")
}

/// A tree that is being built.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    leaf: Open,
    /// From the one above the leaves upwards; none is empty.
    branches: Vec<Open>,
    last_key: Vec<u8>,
}

/// The value of the root bucket that names a bucket.
pub(crate) enum Root {
    /// Its tree begins at this page.
    Page(u64),
    /// It is short, and follows.
    Inline(Vec<u8>),
}

impl Root {
    pub(crate) fn value(&self) -> Vec<u8> {
        let mut value = vec![0; BUCKET];
        match self {
            Self::Page(page) => value[..8].copy_from_slice(&page.to_le_bytes()),
            Self::Inline(leaf) => value.extend_from_slice(leaf),
        }
        value
    }
}

impl Tree {
    pub(crate) fn put(&mut self, pages: &mut Pages, key: &[u8], value: &[u8]) -> Result<(), WriteError> {
        self.add(pages, 0, key, value)
    }

    pub(crate) fn put_bucket(
        &mut self,
        pages: &mut Pages,
        name: &[u8],
        root: &Root,
    ) -> Result<(), WriteError> {
        self.add(pages, IS_BUCKET, name, &root.value())
    }

    fn add(&mut self, pages: &mut Pages, flags: u32, key: &[u8], value: &[u8]) -> Result<(), WriteError> {
        if key.is_empty() {
            return Err(WriteError::EmptyKey);
        }
        for (bytes, bytes_max) in [(key.len(), KEY_BYTES_MAX), (value.len(), VALUE_BYTES_MAX)] {
            if bytes > bytes_max {
                return Err(WriteError::TooLong { bytes });
            }
        }
        if *key <= self.last_key[..] {
            return Err(WriteError::OutOfOrder);
        }
        if self.leaf.is_full_for(key.len() + value.len()) {
            self.close_leaf(pages);
        }
        self.leaf.elements.push(Element::Leaf { flags, key: key.len(), value: value.len() });
        self.leaf.data.extend_from_slice(key);
        self.leaf.data.extend_from_slice(value);
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        Ok(())
    }

    fn close_leaf(&mut self, pages: &mut Pages) {
        let leaf = std::mem::take(&mut self.leaf);
        let page = pages.add(Kind::Leaf, leaf.count(), &[&leaf.elements(), &leaf.data]);
        self.place(pages, 0, leaf.first_key(), page);
    }

    fn close_branch(&mut self, pages: &mut Pages, level: usize) {
        let branch = std::mem::take(&mut self.branches[level]);
        let page = pages.add(Kind::Branch, branch.count(), &[&branch.elements(), &branch.data]);
        self.place(pages, level + 1, branch.first_key(), page);
    }

    /// Names a page in the branch above it.
    fn place(&mut self, pages: &mut Pages, level: usize, key: &[u8], page: u64) {
        if self.branches.len() == level {
            self.branches.push(Open::default());
        }
        // At least two, as in bbolt: with one of each, long keys would make levels without end.
        if self.branches[level].elements.len() >= 2 && self.branches[level].is_full_for(key.len()) {
            self.close_branch(pages, level);
        }
        let branch = &mut self.branches[level];
        branch.elements.push(Element::Branch { key: key.len(), page });
        branch.data.extend_from_slice(key);
    }

    /// Ends the tree; where its root is.
    pub(crate) fn finish(mut self, pages: &mut Pages) -> Root {
        if self.branches.is_empty() && self.leaf.bytes() <= INLINE_BYTES_MAX {
            let header = Header { id: 0, kind: Kind::Leaf, count: self.leaf.count(), overflow: 0 }.encode();
            return Root::Inline([&header[..], &self.leaf.elements(), &self.leaf.data].concat());
        }
        Root::Page(self.finish_on_pages(pages))
    }

    /// As [`Tree::finish`], never inline.
    pub(crate) fn finish_on_pages(&mut self, pages: &mut Pages) -> u64 {
        self.close_leaf(pages);
        let mut level = 0;
        loop {
            let is_top = level + 1 == self.branches.len();
            match (&self.branches[level].elements[..], is_top) {
                ([Element::Branch { page, .. }], true) => return *page,
                _ => self.close_branch(pages, level),
            }
            level += 1;
        }
    }
}
