//! Watches: which watcher gets which event; cursors, progress, lagging.
//!
//! Pure: no async, clock, disk, socket, randomness or hash order. Empty today: it arrives with the Watch service; until
//! then the storage publishes its events to a sink of the server's choice.
