//! Indexes: extractors, terms, selectors, the ordered index that lists and watch dispatch share.
//!
//! Pure: no async, clock, disk, socket, randomness or hash order. Empty today: the first index arrives with the extension
//! services; the crate exists so that its place among the others is settled.
