//! Whether a file is whole: every page has one place, in a tree or in the freelist, and keys ascend.

use crate::error::ReadError;
use crate::format::{COUNT_FOLLOWS, HEADER, Kind, NO_FREELIST, long};
use crate::reader::{Bucket, Reader, Rooted, Source, Visited, bucket};

/// How deep buckets may lie in each other. etcd's do not.
const NESTED_MAX: usize = 8;

impl<S: Source> Reader<S> {
    /// Reads all of the database and checks that it is whole. What bbolt's own check complains about is found, and a
    /// changed byte in a value is not: the format has no checksum for those.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), ReadError> {
        let mut visited = Visited::new(self.meta.pages);
        visited.enter(0, 1);
        let visited = self.check_bucket(&Bucket { root: Rooted::Page(self.meta.root) }, visited, 0)?;
        self.check_free(visited)
    }

    fn check_bucket(&self, of: &Bucket, visited: Visited, depth: usize) -> Result<Visited, ReadError> {
        let wrong = |what| ReadError::Damaged { page: self.meta.root, what };
        let mut nested = Vec::new();
        let mut scan = self.scan_with(of, visited);
        while let Some(pair) = scan.next()? {
            if pair.is_bucket {
                nested.push(bucket(pair.value).ok_or_else(|| wrong("a bucket has no place"))?);
            }
        }
        let mut visited = scan.visited;
        if depth == NESTED_MAX && !nested.is_empty() {
            return Err(wrong("buckets lie too deep in each other"));
        }
        for inner in nested {
            visited = self.check_bucket(&inner, visited, depth + 1)?;
        }
        Ok(visited)
    }

    fn check_free(&self, mut visited: Visited) -> Result<(), ReadError> {
        if self.meta.freelist == NO_FREELIST {
            return Ok(());
        }
        let page = self.page(self.meta.freelist)?;
        if page.header.kind != Kind::Freelist {
            return Err(page.damaged("it is no freelist"));
        }
        if !visited.enter(page.id, page.header.overflow) {
            return Err(page.damaged("two ways lead to it"));
        }
        let (first, count) = match page.header.count {
            COUNT_FOLLOWS => (HEADER + 8, long(&page.bytes, HEADER).unwrap_or(u64::MAX)),
            count => (HEADER, u64::from(count)),
        };
        for index in 0..count {
            let at = usize::try_from(index).ok().and_then(|index| first.checked_add(index.checked_mul(8)?));
            let free = at.and_then(|at| long(&page.bytes, at));
            let free = free.ok_or_else(|| page.damaged("it has more elements than room"))?;
            if free >= self.meta.pages || !visited.enter(free, 0) {
                return Err(ReadError::Damaged { page: free, what: "it is free, and in use or not there" });
            }
        }
        match visited.first_missing() {
            Some(page) => Err(ReadError::Damaged { page, what: "nothing leads to it" }),
            None => Ok(()),
        }
    }
}
