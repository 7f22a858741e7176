//! Watches: which watcher gets which event; cursors, progress, lagging.
//!
//! Pure: no async, clock, disk, socket, randomness or hash order.

mod hub;
mod types;

pub use hub::Hub;
pub use types::{Delivery, Figures, Filter, Group, PrevKv, StreamId, Taken, WatcherId, WatcherSpec};
