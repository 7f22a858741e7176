//! What can be wrong with a file, and with what is to become one.

use std::io;

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The source failed.
    #[error("cannot read the file: {0}")]
    Io(#[source] io::Error),
    /// Neither of its first pages describes a database.
    #[error("not a bolt database: {what}")]
    NotBolt {
        /// What is missing.
        what: &'static str,
    },
    /// It ends before its last page.
    #[error("the file is cut: it has {bytes} bytes, and its pages take {expected}")]
    Cut {
        /// What it has.
        bytes: u64,
        /// What it should have.
        expected: u64,
    },
    /// A page is not what it must be.
    #[error("the file is damaged: page {page}: {what}")]
    Damaged {
        /// Which page.
        page: u64,
        /// What is wrong.
        what: &'static str,
    },
}

/// Why a pair or a bucket cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Keys and names ascend, and none comes twice.
    #[error("a key does not follow the one before it")]
    OutOfOrder,
    /// A key must have a byte.
    #[error("a key is empty")]
    EmptyKey,
    /// A key or value is above the format's bound.
    #[error("a key or value of {bytes} bytes is longer than the format takes")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// A pair belongs into a bucket.
    #[error("a pair comes before the first bucket")]
    NoBucket,
}
