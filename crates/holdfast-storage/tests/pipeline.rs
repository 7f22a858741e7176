//! The write pipeline from the outside: order, visibility, answers, restarts.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use common::*;
use holdfast_mvcc::command::*;
use holdfast_mvcc::types::{MemberId, Revision};
use holdfast_storage::*;

const ENGINES: [EngineKind; 3] = [EngineKind::Sled, EngineKind::Redb, EngineKind::Memory];

fn at(revision: u64) -> ReadAt {
    ReadAt::Revision(Revision::new(revision))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answered_write_is_visible() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let mut member = Member::open(dir.path(), engine).await;
        for n in 0..100 {
            let answer = member.run(vec![put("k", &n.to_string())]).await.remove(0);
            assert_eq!(answer.outcome.revision, Revision::new(2 + n));
            assert_eq!(member.get("k"), Some(n.to_string()), "{engine:?}");
            let visible = *member.storage.visible().borrow();
            assert_eq!((visible.log_id, visible.revision), (Some(log_id(n)), answer.outcome.revision));
        }
        member.close().await;
    }
}

/// Whoever brings a light entry evaluates it, when the dispatcher waits: its answer is there when it has been dispatched.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn light_entries_are_evaluated_by_who_brings_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut member = Member::open(dir.path(), EngineKind::Memory).await;
    let mut at_once = 0;
    for n in 0..200 {
        let light = Command::Put(Put { prev_kv: false, ..put_op("k", &n.to_string()) });
        let mut answer = member.dispatch(vec![light]).await.remove(0);
        at_once += usize::from(answer.try_recv().is_ok());
        member.until("it is visible", |status| status.visible.log_id == Some(log_id(n))).await;
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    assert!(at_once >= 100, "{at_once} of 200 answers were there at once");
    member.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_come_once_in_order_and_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut member = Member::open(dir.path(), EngineKind::Memory).await;
    let pair = |n: u32| {
        let ops = vec![Op::Put(put_op(&format!("a{n}"), "1")), Op::Put(put_op(&format!("b{n}"), "2"))];
        Command::Txn(Txn { compares: Vec::new(), success: ops, failure: Vec::new() })
    };
    let commands: Vec<Command> = (0..500).map(pair).collect();
    member.run(commands).await;
    // Published behind the answers, and before it goes to the committer.
    member.drained().await;
    let published = member.events.0.lock().unwrap();
    let ids: Vec<(u64, u32)> =
        published.iter().flat_map(|(r, _)| r).map(|r| (r.id.revision.get(), r.id.sub)).collect();
    let expected: Vec<(u64, u32)> = (2..502).flat_map(|r| [(r, 0), (r, 1)]).collect();
    assert_eq!(ids, expected);
    for (records, revision) in published.iter() {
        assert_eq!(records.last().unwrap().id.revision, *revision);
        assert_eq!(records.len() % 2, 0, "a revision is never cut");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_see_what_went_before_in_the_same_batch() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let mut member = Member::open(dir.path(), engine).await;
        let answers = member
            .run(vec![put("k", "a"), swap("k", "a", "b"), swap("k", "b", "c"), swap("k", "a", "d")])
            .await;
        let succeeded: Vec<bool> = answers[1..]
            .iter()
            .map(|a| match &a.outcome.response {
                Ok(Response::Txn(txn)) => txn.succeeded,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(succeeded, [true, true, false], "{engine:?}");
        assert_eq!(member.get("k"), None);
        assert_eq!(member.get_at("k", at(4)).unwrap(), Some("c".into()));
        assert!(answers.iter().all(|a| a.outcome.records.is_empty()));
        member.close().await;
    }
}

fn is_hot(member: &Member, key: &str) -> bool {
    member.storage.range_if_hot(&range(key_range(key))).is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cold_values_are_fetched_for_commands_and_reads() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        // So small a cache holds next to nothing.
        let tiny = StorageConfig { memory_bytes: 64 << 10, ..config(dir.path(), engine) };
        let mut member = Member::open_with(tiny).await;
        let value = |n: u32| format!("{n}-{}", "x".repeat(1000));
        for chunk in (0..300_u32).collect::<Vec<_>>().chunks(20) {
            member.run(chunk.iter().map(|n| put(&format!("k{n:03}"), &value(*n))).collect()).await;
        }
        member.drained().await;
        assert!(!is_hot(&member, "k000"), "{engine:?}");
        assert!(is_hot(&member, "not there"));
        let answer = member.run(vec![swap("k000", &value(0), "new")]).await.remove(0);
        assert!(matches!(answer.outcome.response, Ok(Response::Txn(txn)) if txn.succeeded));
        assert_eq!(member.storage.status().evaluation_reads, 0, "{engine:?}: it was fetched before");
        let all = member.all();
        assert_eq!(all.len(), 300);
        assert_eq!(all[299].1, value(299));
        assert_eq!(member.get("k000"), Some("new".into()));
        assert!(is_hot(&member, "k000"));
        member.close().await;
    }
}

/// WH5: snapshot and log cover the store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restart_replays_without_applying_twice() {
    for engine in [EngineKind::Sled, EngineKind::Redb] {
        let dir = tempfile::tempdir().unwrap();
        let log: Vec<Command> = (0..200)
            .map(|n| match n % 4 {
                0 => put(&format!("k{}", n % 7), &n.to_string()),
                1 => swap(&format!("k{}", n % 5), &(n - 5).to_string(), "swapped"),
                2 => delete(&format!("k{}", n % 3)),
                _ => put(&format!("k{}", n % 3), &n.to_string()),
            })
            .collect();
        let mut member = Member::open(dir.path(), engine).await;
        member.run(log[..120].to_vec()).await;
        member.close().await;
        let mut member = Member::open(dir.path(), engine).await;
        assert_eq!(member.storage.applied().log_id, Some(log_id(119)), "{engine:?}");
        // The log does not know how far we are: it starts further back.
        member.next = 40;
        let answers = member.dispatch(log[40..].to_vec()).await;
        let mut answered = 0;
        for answer in answers {
            answered += usize::from(within(answer).await.is_ok());
        }
        assert_eq!(answered, 80, "{engine:?}: what is contained already has no answer");
        let replayed =
            (member.storage.state_digest(), member.storage.history_hash(None).unwrap(), member.all());
        member.close().await;

        let fresh = tempfile::tempdir().unwrap();
        let mut straight = Member::open(fresh.path(), EngineKind::Memory).await;
        straight.run(log).await;
        let expected =
            (straight.storage.state_digest(), straight.storage.history_hash(None).unwrap(), straight.all());
        assert_eq!(replayed, expected, "{engine:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn membership_and_attributes_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let attributes = MemberAttributes { id: MemberId(9), name: "n".into(), client_urls: vec!["u".into()] };
    let mut member = Member::open(dir.path(), EngineKind::Redb).await;
    let membership = DispatchBody::Membership(b"members".to_vec().into());
    let items = vec![
        DispatchItem { log_id: log_id(0), body: membership },
        DispatchItem { log_id: log_id(1), body: DispatchBody::Blank },
    ];
    member.storage.dispatch(items).await.unwrap();
    member.next = 2;
    member.run(vec![Command::PublishMember(attributes.clone())]).await;
    assert_eq!(member.storage.members(), std::slice::from_ref(&attributes));
    member.close().await;
    let member = Member::open(dir.path(), EngineKind::Redb).await;
    let applied = member.storage.applied();
    assert_eq!(applied.log_id, Some(log_id(2)));
    assert_eq!(applied.membership, Some((log_id(0), b"members".to_vec().into())));
    assert_eq!(member.storage.members(), [attributes]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_values_and_keys_survive_a_restart() {
    for engine in [EngineKind::Sled, EngineKind::Redb] {
        let dir = tempfile::tempdir().unwrap();
        let (key, value) = ("k".repeat(100_000), "v".repeat(2 << 20));
        let mut member = Member::open(dir.path(), engine).await;
        member.run(vec![put("a", "1"), put(&key, &value), put("b", "2")]).await;
        member.close().await;
        let member = Member::open(dir.path(), engine).await;
        assert_eq!(member.get(&key).as_deref(), Some(&value[..]), "{engine:?}");
        assert_eq!((member.get("a"), member.get("b")), (Some("1".into()), Some("2".into())));
        member.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_is_logical_at_once_and_physical_later() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let mut member = Member::open(dir.path(), engine).await;
        for n in 0..300 {
            let value = format!("{n}-{}", "x".repeat(500));
            member.run(vec![put(&format!("k{}", n % 3), &value)]).await;
        }
        member.run(vec![delete("k2")]).await;
        let revision = member.storage.status().visible.revision;
        member.drained().await;
        let before = member.storage.status();
        member.run(vec![compact(revision.get() - 10)]).await;
        let hash = member.storage.history_hash(None).unwrap();
        assert!(matches!(
            member.get_at("k0", at(5)),
            Err(ReadError::Refused(Refusal::Compacted { requested: 5, .. }))
        ));
        within(member.storage.scrubbed(Revision::new(revision.get() - 10))).await.unwrap();
        assert_eq!(
            member.storage.history_hash(None).unwrap(),
            hash,
            "{engine:?}: a scrub changes nothing readable"
        );
        assert_eq!(member.get_at("k2", at(revision.get() - 1)).unwrap().map(|v| v.len() > 500), Some(true));
        assert_eq!(member.get("k2"), None);
        let after = member.storage.status();
        assert!(after.logical_bytes < before.logical_bytes / 10);
        let digest = member.storage.state_digest();
        member.close().await;
        if engine != EngineKind::Memory {
            let member = Member::open(dir.path(), engine).await;
            assert_eq!(member.storage.state_digest(), digest, "{engine:?}");
            assert_eq!(member.storage.history_hash(None).unwrap(), hash, "{engine:?}");
            within(member.storage.scrubbed(Revision::new(revision.get() - 10))).await.unwrap();
            member.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_the_future_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut member = Member::open(dir.path(), EngineKind::Memory).await;
    member.run(vec![put("k", "v")]).await;
    assert!(matches!(member.get_at("k", at(3)), Err(ReadError::Refused(Refusal::FutureRevision { .. }))));
    assert_eq!(member.get_at("k", at(1)).unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn read_only_transactions_see_one_revision() {
    let dir = tempfile::tempdir().unwrap();
    let mut member = Member::open(dir.path(), EngineKind::Memory).await;
    member.run(vec![put("k", "v")]).await;
    let txn = Txn {
        compares: vec![Compare {
            range: key_range("k"),
            relation: Relation::Equal,
            operand: Operand::Value("v".into()),
        }],
        success: vec![Op::Range(range(key_range("k")))],
        failure: Vec::new(),
    };
    let (response, revision) = member.storage.read_txn(&txn).unwrap();
    assert!(response.succeeded);
    assert_eq!((response.responses.len(), revision), (1, Revision::new(2)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_memtable_over_its_budget_holds_entries_back_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let tiny = StorageConfig { memory_bytes: 128 << 10, ..config(dir.path(), EngineKind::Redb) };
    let mut member = Member::open_with(tiny).await;
    let value = "x".repeat(4000);
    let waiting = member.dispatch((0..400).map(|n| put(&format!("k{n}"), &value)).collect()).await;
    let mut highest = 0;
    for answer in waiting {
        within(answer).await.unwrap();
        highest = highest.max(member.storage.status().memtable_bytes);
    }
    // The budget is passed by at most one slice.
    assert!(highest < (64 << 10) + 64 * 4400, "{highest}");
    member.drained().await;
    assert_eq!(member.storage.status().memtable_bytes, 0);
    member.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_storage_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let member = Member::open(dir.path(), EngineKind::Memory).await;
    member.storage.shutdown().await;
    let items = vec![DispatchItem { log_id: log_id(0), body: DispatchBody::Blank }];
    assert!(matches!(member.storage.dispatch(items).await, Err(StorageError::Closed)));
    assert!(matches!(member.storage.start_dump().await, Err(StorageError::Closed)));
    member.storage.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_is_told_that_the_store_is_in_use() {
    for engine in [EngineKind::Sled, EngineKind::Redb] {
        let dir = tempfile::tempdir().unwrap();
        let _member = Member::open(dir.path(), engine).await;
        let again =
            Storage::open(&env(), config(dir.path(), engine), std::sync::Arc::new(Events::default())).await;
        assert!(matches!(again, Err(StorageError::InUse { .. })), "{engine:?}");
    }
}

/// Two keys are always written together. Readers at any revision see both or are told that it is compacted, whatever
/// writes, compactions, scrubs and dumps do meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_see_whole_revisions_while_everything_moves() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let small = StorageConfig { memory_bytes: 512 << 10, ..config(dir.path(), engine) };
        let mut member = Member::open_with(small).await;
        let both = |n: u64| {
            let value = format!("{n}-{}", "x".repeat(2000));
            let ops = vec![Op::Put(put_op("a", &value)), Op::Put(put_op("b", &value))];
            Command::Txn(Txn { compares: Vec::new(), success: ops, failure: Vec::new() })
        };
        member.run(vec![both(0)]).await;
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let readers: Vec<_> = (0..2)
            .map(|back| {
                let (storage, stop) = (member.storage.clone(), std::sync::Arc::clone(&stop));
                tokio::task::spawn_blocking(move || read_pairs(&storage, back * 20, &stop))
            })
            .collect();
        for round in 0..30 {
            member.run((0..20).map(|n| both(round * 20 + n)).collect()).await;
            let revision = member.storage.visible().borrow().revision.get();
            if round % 3 == 2 {
                member.run(vec![compact(revision - 10)]).await;
            }
            if round % 10 == 9 {
                member.dump().await;
            }
        }
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        for reader in readers {
            assert!(within(reader).await.unwrap() > 10, "{engine:?}: the readers read");
        }
        member.close().await;
    }
}

/// Reads both keys as of `back` revisions ago, until told to stop; counts the answers.
fn read_pairs(storage: &Storage, back: u64, stop: &std::sync::atomic::AtomicBool) -> u64 {
    let mut answers = 0;
    let mut newest = 0;
    while !stop.load(std::sync::atomic::Ordering::SeqCst) {
        let revision = storage.visible().borrow().revision.get();
        assert!(revision >= newest, "the visible revision stepped back");
        newest = revision;
        let read_at = if back == 0 { ReadAt::Latest } else { at((revision.max(back + 2)) - back) };
        let keys = holdfast_mvcc::types::KeyRange {
            start: "a".into(),
            end: holdfast_mvcc::types::RangeEnd::Before("c".into()),
        };
        match storage.range(&Range { at: read_at, ..range(keys) }) {
            Ok((response, _)) => {
                assert_eq!(response.kvs.len(), 2);
                assert_eq!(response.kvs[0].value, response.kvs[1].value);
                assert_eq!(response.kvs[0].mod_revision, response.kvs[1].mod_revision);
                answers += 1;
            }
            Err(ReadError::Refused(Refusal::Compacted { .. })) if back > 0 => {}
            Err(error) => panic!("{read_at:?}: {error}"),
        }
    }
    answers
}
