//! What the tests of the log share: a real world without a network, and shorthands.
#![allow(dead_code, reason = "each test uses its part")]

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use holdfast_env::{Env, Faults, LogId, LogIndex, NoNet, Term};
use holdfast_log::{Durable, Entry, Log, LogConfig};
use tokio::sync::oneshot;

/// The real world.
pub(crate) fn env() -> Env {
    Env { faults: Faults::of_tests(), ..Env::real(tokio::runtime::Handle::current(), Arc::new(NoNet)) }
}

/// A log with the smallest segments and a small cache.
pub(crate) fn config(dir: &Path) -> LogConfig {
    LogConfig { dir: dir.to_owned(), segment_bytes: 16 * 1024, cache_bytes_max: 2048 }
}

pub(crate) fn id(term: u64, index: u64) -> LogId {
    LogId::new(Term::new(term), LogIndex::new(index))
}

/// An entry whose payload tells its id.
pub(crate) fn entry(term: u64, index: u64, bytes: usize) -> Entry {
    let text = format!("{term}-{index};").repeat(bytes / 4 + 1);
    Entry { id: id(term, index), payload: Bytes::copy_from_slice(&text.as_bytes()[..bytes]) }
}

/// A callback, and what completes when it was called.
pub(crate) fn done() -> (Durable, oneshot::Receiver<()>) {
    let (send, recv) = oneshot::channel();
    (Box::new(move || send.send(()).unwrap_or_default()), recv)
}

/// Appends and waits until it is durable.
pub(crate) async fn append(log: &Log, entries: Vec<Entry>) {
    let (callback, durable) = done();
    log.append(entries, callback).expect("the log takes entries");
    durable.await.expect("the callback runs");
}

/// Saves a vote and waits until it is durable.
pub(crate) async fn vote(log: &Log, text: &'static str) {
    let (callback, durable) = done();
    log.save_vote(Bytes::from_static(text.as_bytes()), callback).expect("the log takes votes");
    durable.await.expect("the callback runs");
}

/// All entries of the log.
pub(crate) fn all(log: &Log) -> Vec<Entry> {
    log.read(LogIndex::new(0), LogIndex::new(u64::MAX), usize::MAX).expect("the log is readable")
}
