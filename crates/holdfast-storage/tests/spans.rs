//! The steps of the start and the end of a dump, as traces show them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use common::*;
use holdfast_storage::*;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Keeps the steps that were told within a span.
#[derive(Default)]
struct Notes(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    names: HashMap<u64, &'static str>,
    steps: Vec<(&'static str, u64, String)>,
}

/// What an event says.
#[derive(Default)]
struct Told {
    step: Option<u64>,
    what: String,
}

impl Visit for Told {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "step" {
            self.step = Some(value);
        }
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "what" {
            value.clone_into(&mut self.what);
        }
    }
    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

/// The subscriber is the program's; what it noted is ours.
struct Listener(Arc<Notes>);

impl Subscriber for Listener {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut inner = self.0.0.lock().unwrap();
        let id = inner.names.len() as u64 + 1;
        inner.names.insert(id, span.metadata().name());
        Id::from_u64(id)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut told = Told::default();
        event.record(&mut told);
        let mut inner = self.0.0.lock().unwrap();
        let parent = event.parent().and_then(|id| inner.names.get(&id.into_u64()).copied());
        if let (Some(parent), Some(step)) = (parent, told.step) {
            inner.steps.push((parent, step, told.what));
        }
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// WH14 and WH15: seven steps to begin a dump and six to end it, in their order, though three threads take them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_begins_in_seven_steps_and_ends_in_six() {
    let notes = Arc::new(Notes::default());
    tracing::subscriber::set_global_default(Listener(Arc::clone(&notes))).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut member = Member::open(dir.path(), EngineKind::Redb).await;
    for round in 0..20 {
        member.run(vec![put("k", &round.to_string())]).await;
        let dump = within(member.storage.start_dump()).await.unwrap();
        member.run(vec![put("during", &round.to_string())]).await;
        within(dump).await.unwrap();
        member.until("merged", |s| s.state == DispatcherState::Normal).await;
        let steps: Vec<_> = std::mem::take(&mut notes.0.lock().unwrap().steps);
        let numbers: Vec<_> = steps.iter().map(|(span, step, _)| (*span, *step)).collect();
        let begin = (1..=7).map(|step| ("dump.start", step));
        let end = (1..=6).map(|step| ("dump.finish", step));
        assert_eq!(numbers, begin.chain(end).collect::<Vec<_>>(), "{steps:#?}");
        if round == 0 {
            assert_eq!(steps[1].2, "the memtable is sealed, the overlay takes its place");
            assert_eq!(steps[12].2, "the overlay is let go, the state is NORMAL");
        }
    }
    let figures = member.storage.status().dispatch;
    assert_eq!((figures.start_stall.count(), figures.finish_stall.count()), (20, 20));
    let transitions: Vec<_> = figures.transitions.iter().map(|t| (t.reason, t.count)).collect();
    assert_eq!(transitions, [("demanded", 20), ("ok", 20), ("merged", 20)]);
    let last = figures.last_dump.unwrap();
    assert!(last.result == DumpResult::Ok && last.bytes > 0 && last.mib_per_second() > 0.0, "{last:?}");
    member.close().await;
}
