//! What is read out while writes go on founds a member with the same state.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::path::Path;

use common::*;
use holdfast_mvcc::command::*;
use holdfast_mvcc::types::{LeaseId, Record, Revision};
use holdfast_storage::*;

fn some_commands(from: u64, to: u64) -> Vec<Command> {
    let command = |n: u64| match n % 7 {
        6 => delete(&format!("k{}", n % 11)),
        _ => put(&format!("k{}", n % 13), &format!("{n}-{}", "x".repeat(usize::try_from(n % 997).unwrap()))),
    };
    (from..to).map(command).collect()
}

fn leased(key: &str, lease: i64) -> Command {
    Command::Put(Put { lease: Some(LeaseId(lease)), ..put_op(key, "leased") })
}

fn grant(id: i64) -> Command {
    Command::LeaseGrant(LeaseGrant { id: LeaseId(id), ttl_seconds: 600 })
}

/// All that is left to read, in small pages.
fn rest(export: &mut Export) -> Vec<Record> {
    let mut records = Vec::new();
    while let Some(page) = export.page(5_000).unwrap() {
        records.extend(page);
    }
    records
}

fn found(dir: &Path, export: &Export, records: &[Record]) {
    let applied = Applied { log_id: Some(log_id(1)), membership: None };
    let mut founding = Founding::begin(&env(), dir, export.head().clone(), applied).unwrap();
    founding.leases(export.leases()).unwrap();
    for record in records {
        founding.record(record.clone()).unwrap();
    }
    founding.finish().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_founds_a_member_with_the_same_state() {
    for engine in [EngineKind::Sled, EngineKind::Memory] {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let mut source = Member::open(dirs[0].path(), engine).await;
        source.run(some_commands(0, 400)).await;
        source
            .run(vec![grant(7), grant(9), leased("l", 7), leased("m", 9), leased("k1", 9), compact(200)])
            .await;
        source.run(some_commands(400, 600)).await;
        let image = source.image();

        let mut export = within(source.storage.export()).await.unwrap();
        let first = export.page(5_000).unwrap().unwrap();
        // What comes later is not in it, and a compaction takes nothing away from it.
        source.run(some_commands(600, 900)).await;
        let newest = source.storage.status().visible.revision;
        source.run(vec![compact(newest.get()), put("later", "1")]).await;
        source.drained().await;
        let mut scrubs = source.storage.scrubs();
        assert!(*scrubs.borrow_and_update() < newest.get(), "the scrub waits for the export");
        let mut records = first;
        records.extend(rest(&mut export));
        assert!(records.windows(2).all(|pair| pair[0].id < pair[1].id));
        assert!(records.iter().all(|record| record.id.revision <= export.head().revision));
        found(dirs[1].path(), &export, &records);
        drop(export);
        within(source.storage.scrubbed(newest)).await.unwrap();
        source.close().await;

        let target = Member::open(dirs[1].path(), engine).await;
        assert_eq!(target.image().1, image.1, "the history");
        assert_eq!(target.image().2, image.2, "the newest state");
        assert_eq!(target.storage.lease_ids(), [LeaseId(7), LeaseId(9)]);
        assert_eq!(target.storage.lease_keys(LeaseId(9)).len(), 1, "k1 was put again without a lease");
        let status = target.storage.status();
        assert_eq!(status.visible.log_id, Some(log_id(1)));
        target.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_store_is_exported_too() {
    let dir = tempfile::tempdir().unwrap();
    let source = Member::open(dir.path(), EngineKind::Memory).await;
    let mut export = within(source.storage.export()).await.unwrap();
    assert_eq!((export.head().revision, rest(&mut export)), (Revision::FRESH, Vec::new()));
    source.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_ends_when_the_state_is_replaced() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut source = Member::open(dirs[0].path(), EngineKind::Memory).await;
    source.run(some_commands(0, 300)).await;
    let snapshot = source.dump().await;
    let mut target = Member::open(dirs[1].path(), EngineKind::Memory).await;
    target.run(some_commands(0, 100)).await;
    let mut export = within(target.storage.export()).await.unwrap();
    export.page(1).unwrap().unwrap();
    install(&snapshot, &target.storage).await.unwrap();
    assert!(matches!(export.page(1), Err(ExportError::Replaced)));
    source.close().await;
    target.close().await;
}

#[test]
fn records_of_a_founding_ascend_and_are_not_of_the_future() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    let dir = tempfile::tempdir().unwrap();
    let head = holdfast_mvcc::Head {
        revision: Revision::new(5),
        compact_revision: None,
        members: Vec::new(),
        alarms: Vec::new(),
        auth: std::sync::Arc::default(),
    };
    let mut founding = Founding::begin(&env(), dir.path(), head, Applied::default()).unwrap();
    let record = |revision, sub| Record {
        id: holdfast_mvcc::types::RecordId::new(Revision::new(revision), sub),
        key: "k".into(),
        change: holdfast_mvcc::types::Change::Delete,
    };
    founding.record(record(4, 1)).unwrap();
    assert!(founding.record(record(4, 1)).is_err());
    assert!(founding.record(record(6, 0)).is_err());
    founding.record(record(5, 0)).unwrap();
}
