//! Watches that write down what they are told.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use holdfast_client::{Client, Event, Watch, WatchEvent, WatchOptions};
use serde::Serialize;
use tokio::time::timeout;

use crate::lines::Lines;
use crate::{Finish, Kinds, Wish};

/// A watch in the end.
#[derive(Debug, Serialize)]
pub(crate) struct WatchReport {
    watch: usize,
    /// All up to this revision was told.
    revision: u64,
    lines: u64,
}

pub(crate) struct Watcher {
    number: usize,
    watch: Watch,
    lines: Lines,
}

impl Watcher {
    pub(crate) async fn start(client: &Client, number: usize, wish: &Wish, dir: &Path) -> Result<Self> {
        let mut options = WatchOptions::new().progress();
        options = match wish.kinds {
            Kinds::All => options,
            Kinds::Puts => options.only_puts(),
            Kinds::Deletes => options.only_deletes(),
        };
        if wish.from > 0 {
            options = options.from(wish.from);
        }
        let mut watch = client.watch(wish.range.range(), options);
        let mut lines = Lines::new(dir, "watch", number)?;
        let first = watch.started().await?;
        lines.line(format_args!("S {first}"));
        Ok(Self { number, watch, lines })
    }

    pub(crate) async fn run(mut self, mut finish: Finish, time_max: Duration) -> Result<WatchReport> {
        while *finish.borrow() == 0 {
            // Both arms are cancel-safe.
            tokio::select! {
                told = self.watch.next() => self.note(told),
                finished = finish.changed() => finished.context("nobody will say what the end is")?,
            }
        }
        let last = *finish.borrow();
        let coming = async {
            while self.watch.next_revision().is_none_or(|next| next <= last) {
                let told = self.watch.next().await;
                self.note(told);
            }
        };
        // Who does not come to it in time has a report that says so.
        drop(timeout(time_max, coming).await);
        self.lines.flush()?;
        let revision = self.watch.next_revision().map_or(0, |next| next.saturating_sub(1));
        Ok(WatchReport { watch: self.number, revision, lines: self.lines.count })
    }

    fn note(&mut self, told: Result<WatchEvent, holdfast_client::Error>) {
        let lines = &mut self.lines;
        match told {
            Ok(WatchEvent::Changes { events, .. }) => {
                for event in &events {
                    match event {
                        Event::Put { kv, .. } => lines.put(kv.mod_revision, &kv.key, &kv.value),
                        Event::Delete { key, revision, .. } => lines.delete(*revision, key),
                    }
                }
            }
            Ok(WatchEvent::Progress { revision }) => lines.line(format_args!("C {revision}")),
            Ok(WatchEvent::Lost { from, resumes_at }) => lines.line(format_args!("L {from} {resumes_at}")),
            Err(error) => lines.line(format_args!("E {error}")),
        }
    }
}
