//! Starts from a checkpoint of the key index: they end in the same state as starts without one, whatever happened
//! before, and whatever happened to the checkpoint.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use common::*;
use holdfast_env::{Env, Failpoint, Faults};
use holdfast_mvcc::command::*;
use holdfast_mvcc::types::{KeyRange, LeaseId, RangeEnd, Revision};
use holdfast_storage::*;
use proptest::prelude::*;

const ON_DISK: [EngineKind; 2] = [EngineKind::Sled, EngineKind::Redb];
const OK: usize = CheckpointEnd::Ok as usize;

/// Checkpoints are due all the time.
fn eager(dir: &Path, engine: EngineKind) -> StorageConfig {
    StorageConfig { checkpoint_revisions: 4, ..config(dir, engine) }
}

fn file(dir: &Path) -> PathBuf {
    dir.join("gen-1/index.checkpoint")
}

fn source(member: &Member) -> IndexSource {
    member.storage.status().dispatch.checkpoints.source
}

/// How many checkpoints came into force since the start.
fn ended(member: &Member) -> u64 {
    member.storage.status().dispatch.checkpoints.ended[OK]
}

/// Writes until a checkpoint is in force that was begun after this.
async fn checkpointed(member: &mut Member) {
    let before = ended(member);
    let writing = async {
        while ended(member) < before + 2 {
            member.run((0..4).map(|n| put("z", &n.to_string())).collect()).await;
            member.drained().await;
        }
    };
    within(writing).await;
}

/// Everything at every revision that can be read, with all that the index knows, and what compactions would give back.
fn image(member: &Member) -> String {
    let everything = KeyRange { start: "\0".into(), end: RangeEnd::Unbounded };
    let newest = member.storage.visible().borrow().revision.get();
    let mut image = format!("{:?} {:?}\n", member.image(), member.storage.status().logical_bytes);
    for revision in 1..=newest {
        let at = ReadAt::Revision(Revision::new(revision));
        let request = Range { at, ..range(everything.clone()) };
        // One that is compacted answers with the bound.
        image += &format!("{revision}: {:?}\n", member.storage.range(&request));
    }
    image
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8, Option<i64>),
    Delete(u8, u8),
    /// Puts and deletes in one revision.
    Both(u8, u8),
    Compact(u64),
    Drain,
    Scrub,
    Dump,
    Checkpoint,
    /// Puts the last checkpoint aside; it comes back with a later start, as if all since had been lost.
    Keep,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => (0..12_u8, proptest::option::weighted(0.2, 1..4_i64)).prop_map(|(key, lease)| Step::Put(key, lease)),
        4 => (0..12_u8, 1..4_u8).prop_map(|(from, keys)| Step::Delete(from, keys)),
        3 => (0..12_u8, 0..12_u8).prop_map(|(put, gone)| Step::Both(put, gone)),
        1 => (0..12_u64).prop_map(Step::Compact),
        1 => Just(Step::Drain),
        1 => Just(Step::Scrub),
        1 => Just(Step::Dump),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Keep),
    ]
}

fn key(number: u8) -> String {
    format!("key/{number:02}")
}

async fn take(member: &mut Member, step: &Step, dir: &Path, kept: &mut Option<Vec<u8>>) {
    let visible = member.storage.visible().borrow().revision.get();
    match step {
        Step::Put(number, lease) => {
            let put =
                Put { lease: lease.map(LeaseId), ..put_op(&key(*number), &"v".repeat(usize::from(*number))) };
            member.run(vec![Command::Put(put)]).await;
        }
        Step::Delete(from, keys) => {
            let range = KeyRange { start: key(*from).into(), end: RangeEnd::Before(key(from + keys).into()) };
            member.run(vec![Command::DeleteRange(DeleteRange { range, prev_kv: false })]).await;
        }
        Step::Both(put, gone) => {
            let mut success =
                vec![Op::DeleteRange(DeleteRange { range: key_range(&key(*gone)), prev_kv: false })];
            if put != gone {
                success.push(Op::Put(put_op(&key(*put), "both")));
            }
            member.run(vec![Command::Txn(Txn { compares: Vec::new(), success, failure: Vec::new() })]).await;
        }
        Step::Compact(back) => drop(member.run(vec![compact(visible.saturating_sub(*back))]).await),
        Step::Drain => member.drained().await,
        Step::Scrub => {
            let window = member.storage.history_hash(None).unwrap();
            if let Some(compact_revision) = window.compact_revision {
                within(member.storage.scrubbed(compact_revision)).await.unwrap();
            }
        }
        Step::Dump => drop(member.dump().await),
        Step::Checkpoint => checkpointed(member).await,
        Step::Keep => *kept = std::fs::read(file(dir)).ok().or(kept.take()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 100, ..ProptestConfig::default() })]

    #[test]
    fn a_start_from_a_checkpoint_is_equal_to_one_from_all_records(
        lives in proptest::collection::vec((proptest::collection::vec(step(), 1..40), 0..3_u8), 1..5),
        is_redb in any::<bool>(),
    ) {
        let engine = if is_redb { EngineKind::Redb } else { EngineKind::Sled };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let mut member = Member::open_with(eager(dir.path(), engine)).await;
            let mut kept = None;
            for (steps, end) in &lives {
                for step in steps {
                    take(&mut member, step, dir.path(), &mut kept).await;
                }
                member.drained().await;
                let before = image(&member);
                member.close().await;
                let newest = std::fs::read(file(dir.path())).ok();
                drop(std::fs::remove_file(file(dir.path())));
                let full = Member::open_with(config(dir.path(), engine)).await;
                assert_eq!(source(&full), IndexSource::Records);
                assert_eq!(image(&full), before, "from all records");
                full.close().await;
                let given = if *end == 0 { &kept } else { &newest };
                if let Some(given) = given {
                    std::fs::write(file(dir.path()), given).unwrap();
                }
                member = Member::open_with(eager(dir.path(), engine)).await;
                let expected = given.is_some();
                assert_eq!(source(&member) != IndexSource::Records, expected);
                assert_eq!(image(&member), before, "{:?}, {end}", source(&member));
            }
            member.close().await;
        });
    }
}

/// A directory with a checkpoint and something behind it, and what a member in it shows.
async fn written(dir: &Path, engine: EngineKind) -> String {
    let mut member = Member::open_with(eager(dir, engine)).await;
    for n in 0..12 {
        member.run(vec![put(&key(n), "1"), put(&key(n / 2), "22"), delete(&key(n / 3))]).await;
    }
    checkpointed(&mut member).await;
    member.close().await;
    let mut member = Member::open_with(config(dir, engine)).await;
    assert_eq!(source(&member), IndexSource::Checkpoint, "{engine:?}");
    member.run(vec![put("behind", "it"), delete(&key(11))]).await;
    member.drained().await;
    let image = image(&member);
    member.close().await;
    image
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_doctored_checkpoint_ends_in_the_full_load() {
    for engine in ON_DISK {
        let dir = tempfile::tempdir().unwrap();
        let expected = written(dir.path(), engine).await;
        let good = std::fs::read(file(dir.path())).unwrap();
        let mut doctored: Vec<Vec<u8>> = Vec::new();
        for at in (0..good.len()).step_by(good.len().div_ceil(60)) {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << (at % 8);
            doctored.push(bytes);
            doctored.push(good[..at].to_vec());
        }
        doctored.push([&good[..], b"x"].concat());
        for bytes in doctored {
            std::fs::write(file(dir.path()), &bytes).unwrap();
            let member = Member::open_with(config(dir.path(), engine)).await;
            assert_eq!(
                source(&member),
                IndexSource::RecordsDespiteCheckpoint,
                "{engine:?}, {} bytes",
                bytes.len()
            );
            assert_eq!(image(&member), expected, "{engine:?}");
            member.close().await;
            assert!(!file(dir.path()).exists(), "it is of no use to anybody");
        }
        std::fs::write(file(dir.path()), &good).unwrap();
        let member = Member::open_with(config(dir.path(), engine)).await;
        assert_eq!((source(&member), image(&member)), (IndexSource::Checkpoint, expected), "{engine:?}");
        member.close().await;
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            std::fs::copy(path, to).unwrap();
        }
    }
}

/// As a store is behind its checkpoint that has lost what was not flushed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_ahead_of_its_store_is_refused() {
    for engine in ON_DISK {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let expected = written(dirs[1].path(), engine).await;
        copy(dirs[1].path(), dirs[0].path());
        let mut member = Member::open_with(eager(dirs[1].path(), engine)).await;
        checkpointed(&mut member).await;
        member.close().await;
        std::fs::copy(file(dirs[1].path()), file(dirs[0].path())).unwrap();
        let member = Member::open_with(config(dirs[0].path(), engine)).await;
        assert_eq!(source(&member), IndexSource::RecordsDespiteCheckpoint, "{engine:?}");
        assert_eq!(image(&member), expected, "{engine:?}");
        member.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_that_compaction_has_passed_goes_with_the_scrub() {
    for engine in ON_DISK {
        let dir = tempfile::tempdir().unwrap();
        written(dir.path(), engine).await;
        let mut member = Member::open_with(config(dir.path(), engine)).await;
        let newest = *member.storage.visible().borrow();
        member.run(vec![compact(newest.revision.get())]).await;
        assert!(file(dir.path()).exists());
        within(member.storage.scrubbed(newest.revision)).await.unwrap();
        let gone = async {
            while file(dir.path()).exists() {
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
        };
        within(gone).await;
        member.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_costs_the_checkpoint_and_nothing_else() {
    for engine in ON_DISK {
        let dir = tempfile::tempdir().unwrap();
        let (env, gate) = gated_env("index.checkpoint");
        let mut member = Member::open_in(&env, eager(dir.path(), engine)).await;
        gate.fail(Some(std::io::ErrorKind::StorageFull));
        member.run((0..20).map(|n| put(&key(n), "v")).collect()).await;
        let failed = CheckpointEnd::Failed as usize;
        member.until("a failed checkpoint", |s| s.dispatch.checkpoints.ended[failed] > 0).await;
        assert_eq!(member.storage.status().state, DispatcherState::Normal);
        gate.fail(None);
        checkpointed(&mut member).await;
        member.close().await;
        let member = Member::open_with(config(dir.path(), engine)).await;
        assert_eq!(source(&member), IndexSource::Checkpoint, "{engine:?}");
        member.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_comes_to_its_points_in_order() {
    for engine in ON_DISK {
        let dir = tempfile::tempdir().unwrap();
        let noted = std::sync::Arc::new(Noted::default());
        let sabotage = std::sync::Arc::clone(&noted) as std::sync::Arc<dyn holdfast_env::Sabotage>;
        let env = Env { faults: Faults::new(sabotage), ..env() };
        let mut member = Member::open_in(&env, eager(dir.path(), engine)).await;
        checkpointed(&mut member).await;
        member.close().await;
        let mut hits = noted.hits.lock().unwrap().clone();
        let points =
            [Failpoint::CheckpointWriteBlock, Failpoint::CheckpointSynced, Failpoint::CheckpointRenamed];
        hits.retain(|hit| points.contains(hit));
        // A block for each part.
        hits.dedup();
        assert_eq!(hits[..3], points, "{engine:?}");
    }
}

/// There is always something to commit, and the checkpoint is written all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_never_pause_do_not_hold_a_checkpoint_back() {
    for engine in ON_DISK {
        let dir = tempfile::tempdir().unwrap();
        let mut member = Member::open_with(eager(dir.path(), engine)).await;
        let value = "v".repeat(8 << 10);
        let mut answers = VecDeque::new();
        let writing = async {
            while ended(&member) == 0 {
                let batch = (0..64).map(|n| put(&key(n), &value)).collect();
                answers.extend(member.dispatch(batch).await);
                while answers.len() > 512 {
                    answers.pop_front().unwrap().await.unwrap();
                }
            }
        };
        within(writing).await;
        member.close().await;
    }
}
