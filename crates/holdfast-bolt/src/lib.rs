//! Database files as bbolt has them, the embedded database under etcd: written from sorted keys in one pass, and read
//! without trusting a byte.
//!
//! # The format
//! A file is a row of pages of equal size (4096 bytes when we write), numbered from 0. Numbers are little-endian.
//! ```text
//! page     id u64 | kind u16: 1 branch, 2 leaf, 4 meta, 16 freelist | count u16 | overflow u32 | content
//! meta     magic ED0CDAED u32 | version 2 u32 | page size u32 | flags u32 | root bucket (16) | freelist's page u64
//!          | pages u64 | transaction u64 | FNV-1a (64 bit) of all this u64                      pages 0 and 1
//! bucket   page of its root u64 | sequence u64            with root 0 a leaf page follows in the same value
//! leaf     (flags u32: 1 bucket | pos u32 | key length u32 | value length u32) × count | keys and values
//! branch   (pos u32 | key length u32 | page u64) × count | keys
//! freelist page u64 × count                               when count is FFFF the first number is the count
//! ```
//! `pos` counts from the element it stands in. Content that is longer than a page goes on in the `overflow` pages behind
//! it. Of the two metas the valid one with the higher transaction counts. The root bucket is a leaf (or a tree) whose
//! values are buckets; in etcd's files those hold pairs of key and value. A freelist at page FFFFFFFFFFFFFFFF is none:
//! then every page that is not reachable is free. Source: bbolt's own documentation and etcd's files.
//!
//! # What it is not
//! No database: nothing is changed in place, there are no transactions. It does no I/O: the [`Writer`] hands out bytes,
//! and the [`Reader`] asks a [`Source`]. It knows nothing of what etcd keeps in such a file.
//!
//! # Invariants
//! - A writer holds one page per level of the tree and what its caller has not taken yet.
//! - A reader never panics, visits no page twice in a walk, and holds at most as many bytes as the file has.
//!
//! # Module map
//! `format` pages and metas; `writer` and the `tree` of one bucket; `reader` walks; `check` whether a file is whole.

mod check;
mod error;
mod format;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod reader;
mod tree;
mod writer;

pub use error::{ReadError, WriteError};
pub use format::{KEY_BYTES_MAX, PAGE_BYTES, VALUE_BYTES_MAX};
pub use reader::{Bucket, OwnedPair, Pair, Reader, Scan, Source};
pub use writer::{Finished, Writer};
