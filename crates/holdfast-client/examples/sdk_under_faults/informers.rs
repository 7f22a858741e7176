//! Informers that write down what their subscriptions tell, and what they hold.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use holdfast_client::Client;
use holdfast_client::informer::{
    Change, Informer, InformerEvent, InformerOptions, Reader, RelistReason, Subscription,
};
use serde::Serialize;
use tokio::time::timeout;

use crate::lines::{Lines, digest};
use crate::{Finish, Range};

/// How often an informer's state is noted.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// How long a subscription may be silent, in the end, before it has told everything.
const SILENT: Duration = Duration::from_millis(500);

/// An informer in the end.
#[derive(Debug, Serialize)]
pub(crate) struct InformerReport {
    informer: usize,
    revision: u64,
    objects: usize,
    digest: String,
    compacted: u64,
    mismatch: u64,
    asked: u64,
}

pub(crate) struct Follower {
    number: usize,
    informer: Informer<Vec<u8>>,
    subscription: Subscription<Vec<u8>>,
    lines: Lines,
    /// Lists that the subscription has told of, beside the first.
    relists: u64,
}

impl Follower {
    pub(crate) fn start(client: &Client, number: usize, range: &Range, dir: &Path) -> Result<Self> {
        let options = InformerOptions::decode_with(|kv| Ok(kv.value.to_vec()));
        let informer = client.informer(range.range(), options);
        let subscription = informer.reader().subscribe();
        Ok(Self { number, informer, subscription, lines: Lines::new(dir, "informer", number)?, relists: 0 })
    }

    pub(crate) fn reader(&self) -> &Reader<Vec<u8>> {
        self.informer.reader()
    }

    pub(crate) async fn run(mut self, mut finish: Finish, time_max: Duration) -> Result<InformerReport> {
        let mut tick = tokio::time::interval(SAMPLE_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while *finish.borrow() == 0 {
            // All arms are cancel-safe.
            tokio::select! {
                Some(event) = self.subscription.next() => self.note(&event),
                _ = tick.tick() => self.sample(),
                finished = finish.changed() => finished.context("nobody will say what the end is")?,
            }
        }
        let last = *finish.borrow();
        let reader = self.reader().clone();
        // Its revision says that it did not come to the last one, if it does not.
        drop(reader.wait_for(last, time_max).await);
        while let Ok(Some(event)) = timeout(SILENT, self.subscription.next()).await {
            self.note(&event);
        }
        self.lines.flush()?;
        let (snapshot, health) = (reader.snapshot(), reader.health());
        Ok(InformerReport {
            informer: self.number,
            revision: snapshot.revision(),
            objects: snapshot.len(),
            digest: format!("{:016x}", digest(&snapshot)),
            compacted: health.relists.compacted,
            mismatch: health.relists.mismatch,
            asked: health.relists.asked,
        })
    }

    fn sample(&mut self) {
        let snapshot = self.reader().snapshot();
        let (revision, objects) = (snapshot.revision(), snapshot.len());
        if revision == 0 {
            return;
        }
        self.lines.line(format_args!("K {revision} {objects} {:016x}", digest(&snapshot)));
        // A list is counted before its state can be seen: this one is older than the next list, if there is one.
        if self.reader().health().relists.total() == self.relists {
            self.lines.line(format_args!("N {revision}"));
        }
    }

    fn note(&mut self, event: &InformerEvent<Vec<u8>>) {
        let revision = event.snapshot().revision();
        match event {
            InformerEvent::Synced { .. } => self.lines.line(format_args!("S {}", revision + 1)),
            InformerEvent::Changed { changes, .. } => {
                for change in changes.iter() {
                    match change {
                        Change::Added { object } | Change::Modified { object, .. } => {
                            self.lines.put(object.mod_revision(), object.key(), object.value());
                        }
                        Change::Deleted { key, revision, .. } => self.lines.delete(*revision, key),
                        Change::Unreadable { unreadable, .. } => {
                            self.lines.line(format_args!("E {unreadable}"));
                        }
                    }
                }
            }
            InformerEvent::Relisted { reason, .. } => {
                self.relists += 1;
                let reason = match reason {
                    RelistReason::Compacted => "compacted",
                    RelistReason::Mismatch => "mismatch",
                    RelistReason::Asked => "asked",
                };
                self.lines.line(format_args!("R {reason} {revision}"));
            }
            InformerEvent::Lagged { from, .. } => {
                self.relists = self.reader().health().relists.total();
                self.lines.line(format_args!("G {from} {revision}"));
            }
        }
    }
}
