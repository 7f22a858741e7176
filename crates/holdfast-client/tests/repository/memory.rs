//! What only a repository in memory does: no runtime, limits, snapshots, counters.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::executor::block_on;
use holdfast_client::repo::{
    Counters, Filter, Labels, MemoryRepository, Metrics, Operation, RepoError, Repository, RepositoryWatch,
    Scope, SnapshotError, Summary,
};
use holdfast_client::store::{ChangeKind, Limit, Limits, TooLarge, WhenFull};
use tokio::time::Instant;

use crate::report::{Report, cluster_report, key, report};

type Repo = MemoryRepository<Report>;

fn repo() -> Repo {
    MemoryRepository::new(Scope::Namespaced)
}

fn limited(limits: Limits) -> Repo {
    MemoryRepository::with_limits(Scope::Namespaced, limits)
}

fn create(repo: &Repo, name: &str, text: &str) -> Result<u64, RepoError<Report>> {
    block_on(repo.create(report("n", name, text))).map(|stored| stored.version)
}

fn names(repo: &Repo) -> Vec<String> {
    let listed = block_on(repo.list(&Filter::all())).unwrap();
    listed.items.iter().map(|item| item.object.name.clone()).collect()
}

/// RS12: a thousand repositories share nothing.
#[test]
fn rs12_a_thousand_repositories_share_nothing() {
    let all: Vec<_> = (0..1_000).map(|_| repo()).collect();
    for (n, one) in all.iter().enumerate() {
        create(one, "a", &n.to_string()).unwrap();
    }
    for (n, one) in all.iter().enumerate() {
        let stored = block_on(one.get(&key("n", "a"))).unwrap();
        assert_eq!((stored.object.text.as_str(), stored.version), (n.to_string().as_str(), 2));
    }
}

/// RS12: one is made in less than 10 us, which also says that nothing is set up, read or started. The best of many
/// batches counts: others run on this machine.
#[test]
fn rs12_a_repository_is_made_in_ten_microseconds() {
    let batch = || {
        let began = Instant::now();
        let made: Vec<Repo> = (0..20).map(|_| repo()).collect();
        let took = began.elapsed() / 20;
        drop(made);
        took
    };
    let best = (0..200).map(|_| batch()).min().unwrap();
    assert!(best < Duration::from_micros(10), "{best:?}");
}

/// RS13: no runtime, no setup: all of it is done when the call returns, the same each time.
#[test]
fn rs13_the_same_calls_give_the_same_versions_without_a_runtime() {
    let run = || {
        let repo = repo();
        create(&repo, "b", "1").unwrap();
        create(&repo, "a", "1").unwrap();
        block_on(repo.update(report("n", "b", "2"), Some(2))).unwrap();
        block_on(repo.delete(&key("n", "a"), None)).unwrap();
        let listed = block_on(repo.list(&Filter::all())).unwrap();
        (listed.version, listed.items.iter().map(|item| item.version).collect::<Vec<_>>())
    };
    assert_eq!(run(), (5, vec![4]));
    assert_eq!(run(), run());
}

/// Metrics of one's own.
#[derive(Default)]
struct Noted(Mutex<Vec<Labels>>);

impl Metrics for Noted {
    fn record(&self, labels: Labels, _took: Duration) {
        self.0.lock().unwrap().push(labels);
    }
}

/// RS15, RS19: each operation is counted with its result and how long it took, here and where one wants it beside.
#[test]
fn rs15_operations_are_counted_with_backend_type_operation_and_result() {
    let noted = Arc::new(Noted::default());
    let repo = repo().with_metrics(Arc::clone(&noted) as _);
    create(&repo, "a", "1").unwrap();
    create(&repo, "a", "1").unwrap_err();
    create(&repo.clone(), "b", "1").unwrap();
    block_on(repo.get(&key("n", "x"))).unwrap_err();
    let counters: &Counters = repo.counters();
    let count = |operation, result| counters.count(operation, result);
    assert_eq!(count(Operation::Create, "ok"), 2);
    assert_eq!(count(Operation::Create, "already_exists"), 1);
    assert_eq!(count(Operation::Get, "not_found"), 1);
    assert_eq!(count(Operation::Get, "ok"), 0);
    let creates = counters.read().into_iter().find(|of| of.labels.result == "ok").unwrap();
    assert_eq!((creates.labels.backend, creates.labels.of), ("memory", std::any::type_name::<Report>()));
    assert!(creates.p50 > Duration::ZERO && creates.p99 >= creates.p50);
    assert_eq!(noted.0.lock().unwrap().len(), 4);
}

/// RS16: full is too large, and says what of.
#[test]
fn rs16_a_full_repository_refuses_and_goes_on_when_there_is_room() {
    let repo = limited(Limits { objects_max: 2, ..Limits::default() });
    create(&repo, "a", "1").unwrap();
    create(&repo, "b", "1").unwrap();
    let full = create(&repo, "c", "1").unwrap_err();
    let wanted = TooLarge { limit: Limit::Objects, wanted: 3, max: 2 };
    assert!(matches!(full, RepoError::TooLarge(too_large) if too_large == wanted));
    block_on(repo.update(report("n", "a", "2"), None)).unwrap();
    block_on(repo.delete(&key("n", "a"), None)).unwrap();
    create(&repo, "c", "1").unwrap();
    let bytes = limited(Limits { bytes_max: 200, ..Limits::default() });
    create(&bytes, "a", "1").unwrap();
    let full = create(&bytes, "b", &"x".repeat(100)).unwrap_err();
    assert!(matches!(full, RepoError::TooLarge(TooLarge { limit: Limit::Bytes, .. })));
    assert!(bytes.bytes() <= 200);
}

/// RS16: what is evicted is told to who watches, as that.
#[test]
fn rs16_evictions_are_told_as_evictions() {
    for (when_full, gone) in [(WhenFull::EvictOldest, "a"), (WhenFull::EvictLru, "b")] {
        let repo = limited(Limits { objects_max: 2, when_full, ..Limits::default() });
        create(&repo, "a", "1").unwrap();
        create(&repo, "b", "1").unwrap();
        block_on(repo.get(&key("n", "a"))).unwrap();
        let mut watch = block_on(repo.watch(&Filter::all(), None)).unwrap();
        create(&repo, "c", "1").unwrap();
        let evicted = block_on(watch.next()).unwrap().unwrap();
        assert_eq!((evicted.kind, evicted.key.name()), (ChangeKind::Evicted, gone), "{when_full:?}");
        assert_eq!(evicted.previous.unwrap().object.name, gone);
        let created = block_on(watch.next()).unwrap().unwrap();
        assert_eq!((created.kind, created.version), (ChangeKind::Created, evicted.version + 1));
        assert_eq!(names(&repo).len(), 2);
    }
}

/// A watch that is read too slowly holds nobody up and keeps nothing: it is told, and ends.
#[test]
fn a_watch_that_is_too_slow_ends_as_compacted_and_can_be_resumed_by_a_list() {
    let repo = limited(Limits { changes_max: 10, ..Limits::default() });
    let mut watch = block_on(repo.watch(&Filter::all(), None)).unwrap();
    for n in 0..20 {
        create(&repo, &format!("{n:02}"), "1").unwrap();
    }
    let error = block_on(watch.next()).unwrap().unwrap_err();
    assert!(matches!(error, RepoError::Compacted { wanted: 1, oldest: 11 }), "{error}");
    assert!(block_on(watch.next()).is_none(), "nothing follows an error");
    let refused = block_on(repo.watch(&Filter::all(), Some(10))).map(drop).unwrap_err();
    assert!(matches!(refused, RepoError::Compacted { oldest: 11, .. }));
    let mut watch = block_on(repo.watch(&Filter::all(), Some(11))).unwrap();
    assert_eq!(block_on(watch.next()).unwrap().unwrap().version, 12);
}

fn snapshot(repo: &Repo) -> (Vec<u8>, Summary) {
    let mut bytes = Vec::new();
    let summary = repo.snapshot(&mut bytes).unwrap();
    (bytes, summary)
}

fn stored(repo: &Repo) -> Vec<(Report, u64)> {
    let listed = block_on(repo.list(&Filter::all())).unwrap();
    listed.items.iter().map(|item| ((*item.object).clone(), item.version)).collect()
}

/// RS17: what was saved is there again, with its versions, in a repository that is new.
#[test]
fn rs17_a_new_repository_takes_objects_with_their_versions() {
    let saved = repo();
    for n in 0..100 {
        create(&saved, &format!("{n:03}"), &n.to_string()).unwrap();
    }
    block_on(saved.delete(&key("n", "050"), None)).unwrap();
    let (bytes, summary) = snapshot(&saved);
    assert_eq!(summary, Summary { objects: 99, version: 102 });
    let restored = repo();
    assert_eq!(restored.restore(bytes.as_slice()).unwrap(), summary);
    assert_eq!(stored(&restored), stored(&saved));
    assert_eq!(restored.bytes(), saved.bytes());
    assert_eq!(create(&restored, "new", "1").unwrap(), 103, "versions go on");
    let (again, _) = snapshot(&saved);
    assert_eq!(again, bytes, "the same each time");
}

/// RS17: no version goes backwards by a restore, also not of the same key, and watches are told to list again.
#[test]
fn rs17_versions_never_go_backwards_by_a_restore() {
    let repo = repo();
    let old = create(&repo, "a", "1").unwrap();
    let (bytes, _) = snapshot(&repo);
    for n in 0..10 {
        block_on(repo.update(report("n", "a", &n.to_string()), None)).unwrap();
    }
    create(&repo, "b", "1").unwrap();
    let mut watch = block_on(repo.watch(&Filter::all(), None)).unwrap();
    let before = repo.version();
    let restored = repo.restore(bytes.as_slice()).unwrap();
    assert_eq!(restored, Summary { objects: 1, version: before + 1 });
    assert_eq!(stored(&repo), [(report("n", "a", "1"), before + 1)]);
    let update = block_on(repo.update(report("n", "a", "2"), Some(old)));
    assert!(matches!(update, Err(RepoError::Conflict { .. })), "a version from before is no version of now");
    let lost = block_on(watch.next()).unwrap();
    assert!(matches!(lost, Err(RepoError::Compacted { oldest, .. }) if oldest == before + 1));
    // A snapshot that is ahead of the repository.
    let (ahead, summary) = snapshot(&repo);
    let other = MemoryRepository::<Report>::new(Scope::Namespaced);
    create(&other, "x", "1").unwrap();
    assert_eq!(other.restore(ahead.as_slice()).unwrap().version, summary.version + 1);
}

/// RS17: each byte is under the checksum; nothing changes when it does not agree, or when something is missing.
#[test]
fn rs17_a_damaged_snapshot_changes_nothing() {
    let saved = repo();
    create(&saved, "a", "1").unwrap();
    create(&saved, "b", "2").unwrap();
    let (bytes, _) = snapshot(&saved);
    let target = repo();
    create(&target, "kept", "1").unwrap();
    let before = (stored(&target), target.version());
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        assert!(target.restore(damaged.as_slice()).is_err(), "byte {at} changed");
        assert!(target.restore(&bytes[..at]).is_err(), "cut to {at} bytes");
    }
    let mut sum = bytes.clone();
    *sum.last_mut().unwrap() ^= 1;
    assert!(matches!(target.restore(sum.as_slice()), Err(SnapshotError::Checksum { .. })));
    assert!(matches!(target.restore(&b"no snapshot"[..]), Err(SnapshotError::Malformed)));
    assert_eq!((stored(&target), target.version()), before);
}

/// RS17, RS16: what has no room or no place is refused as a whole.
#[test]
fn rs17_a_snapshot_that_does_not_fit_changes_nothing() {
    let saved = repo();
    for name in ["a", "b", "c"] {
        create(&saved, name, "1").unwrap();
    }
    let (bytes, _) = snapshot(&saved);
    let small = limited(Limits { objects_max: 2, ..Limits::default() });
    create(&small, "kept", "1").unwrap();
    assert!(matches!(small.restore(bytes.as_slice()), Err(SnapshotError::TooLarge(_))));
    assert_eq!((names(&small), small.version()), (vec!["kept".to_owned()], 2));
    let cluster = MemoryRepository::<Report>::new(Scope::Cluster);
    assert!(matches!(cluster.restore(bytes.as_slice()), Err(SnapshotError::Name(_))));
    block_on(cluster.create(cluster_report("a", "1"))).unwrap();
}

/// RS17, RS18: a part is saved and restored alone.
#[test]
fn rs18_a_cluster_id_is_saved_and_restored_alone() {
    let whole = repo();
    let (one, two) = (whole.for_cluster("one").unwrap(), whole.for_cluster("two").unwrap());
    create(&whole, "whole", "1").unwrap();
    create(&one, "one", "1").unwrap();
    create(&two, "two", "1").unwrap();
    let (bytes, summary) = snapshot(&one);
    assert_eq!(summary.objects, 1);
    two.restore(bytes.as_slice()).unwrap();
    assert_eq!(
        (names(&whole), names(&one), names(&two)),
        (vec!["whole".into()], vec!["one".into()], vec!["one".into()])
    );
}

/// RS11: eight threads that read and four that write, at once: nothing is lost, and each counter is right in the end.
#[test]
fn rs11_threads_that_write_at_once_lose_nothing() {
    const EACH: u32 = 500;
    let repo = repo();
    create(&repo, "sum", "0").unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..EACH {
                    let mut seen = block_on(repo.get(&key("n", "sum"))).unwrap();
                    loop {
                        let sum = seen.object.text.parse::<u32>().unwrap() + 1;
                        let object = report("n", "sum", &sum.to_string());
                        match block_on(repo.update(object, Some(seen.version))) {
                            Ok(_) => break,
                            Err(RepoError::Conflict { current, .. }) => seen = current,
                            Err(error) => panic!("{error:?}"),
                        }
                    }
                }
            });
        }
        for _ in 0..8 {
            scope.spawn(|| {
                let mut last = 0;
                for _ in 0..EACH {
                    let listed = block_on(repo.list(&Filter::all())).unwrap();
                    let sum = listed.items[0].object.text.parse::<u32>().unwrap();
                    assert!(sum >= last);
                    last = sum;
                }
            });
        }
    });
    let sum = block_on(repo.get(&key("n", "sum"))).unwrap();
    assert_eq!(sum.object.text, (4 * EACH).to_string());
    assert_eq!(repo.version(), u64::from(4 * EACH) + 2, "a conflict is no change");
}
