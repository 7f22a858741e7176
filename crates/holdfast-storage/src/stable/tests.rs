//! Tests of the stable store on the memory engine.

use holdfast_env::{LogId, LogIndex, Sabotage, Term};
use holdfast_mvcc::types::{Change, LogIndex as GrantIndex, PutRecord, Record};

use super::*;
use crate::config::EngineKind;
use crate::pack::{Values, metas};

fn stable() -> Stable {
    let disk: Arc<dyn holdfast_env::Disk> = Arc::new(holdfast_env::RealDisk);
    Stable::new(crate::engine::open(EngineKind::Memory, &disk, std::path::Path::new("unused"), 0).unwrap())
}

/// Snapshots have the packs of other engines.
#[test]
fn a_run_is_cut_to_what_the_engine_wants() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn holdfast_env::Disk> = Arc::new(holdfast_env::RealDisk);
    let sled = Stable::new(crate::engine::open(EngineKind::Sled, &disk, dir.path(), 1 << 20).unwrap());
    let records: Vec<Record> = (2..32).map(|revision| put(revision, 0, 1000)).collect();
    let run = runs_of(&records).remove(0);
    let small = sled.cut(run.clone()).unwrap();
    assert!(small.len() > 3 && small.iter().all(|run| run.value.len() <= sled.pack_bytes()));
    let read: Vec<Record> = small.iter().flat_map(|run| run.records().unwrap()).collect();
    assert_eq!(read, run.records().unwrap());
    assert_eq!(sled.cut(small[0].clone()).unwrap(), [small[0].clone()]);
    assert_eq!(stable().cut(run.clone()).unwrap(), [run]);
    // One record cannot be cut.
    let large = runs_of(&[put(2, 0, 30_000)]).remove(0);
    assert_eq!(sled.cut(large.clone()).unwrap(), [large]);
}

fn put(revision: u64, sub: u32, value_bytes: usize) -> Record {
    Record {
        id: RecordId::new(Revision::new(revision), sub),
        key: Bytes::from(format!("k{revision}-{sub}")),
        change: Change::Put(PutRecord {
            create_revision: Revision::new(revision),
            version: 1,
            lease: None,
            value: vec![7; value_bytes].into(),
        }),
    }
}

fn head(revision: u64) -> Head {
    Head {
        revision: Revision::new(revision),
        compact_revision: None,
        members: Vec::new(),
        alarms: Vec::new(),
        auth: Arc::default(),
    }
}

fn applied(index: u64) -> Applied {
    Applied { log_id: Some(LogId::new(Term::new(1), LogIndex::new(index))), membership: None }
}

fn runs_of(records: &[Record]) -> Vec<Run> {
    stable().build_runs(records.iter().cloned().map(Stored::new))
}

fn all(stable: &Stable) -> Vec<Record> {
    let mut from = RecordId::default();
    let mut records = Vec::new();
    loop {
        let page = stable.runs(from, stable.slice()).unwrap();
        let Some(last) = page.last() else { return records };
        from = following(last.run.first);
        for placed in &page {
            records.extend(placed.run.records().unwrap());
        }
    }
}

#[test]
fn a_fresh_store_has_no_position() {
    assert_eq!(stable().position().unwrap(), None);
}

#[test]
fn what_was_committed_is_read_back() {
    let stable = stable();
    let records: Vec<Record> = (2..300).map(|n| put(n, 0, 500)).collect();
    stable.commit(&runs_of(&records), &[], &head(299), &applied(7), &Faults::default()).unwrap();
    assert_eq!(stable.position().unwrap(), Some((head(299), applied(7))));
    assert_eq!(all(&stable), records);
    let (_, pack) = stable.value_pack(RecordId::new(Revision::new(150), 0)).unwrap().unwrap();
    let found = Values::new(&pack).unwrap().seek(RecordId::new(Revision::new(150), 0)).unwrap().unwrap();
    assert_eq!(found.put.value.len(), 500);
    let restored: usize =
        stable.meta_packs(RecordId::default()).unwrap().iter().map(|(_, p)| metas(p).unwrap().len()).sum();
    assert_eq!(restored, 298);
}

#[test]
fn a_large_value_is_cut_into_pieces_and_many_batches() {
    let stable = stable();
    let records = [put(2, 0, 10), put(3, 0, 3 << 20), put(4, 0, 10)];
    stable.commit(&runs_of(&records), &[], &head(4), &applied(1), &Faults::default()).unwrap();
    assert_eq!(all(&stable), records);
    let mut page = stable.runs(RecordId::new(Revision::new(3), 0), stable.slice()).unwrap();
    let large = page.remove(0);
    assert!(large.value_pieces > 0);
    stable.replace(&[large], &[]).unwrap();
    assert_eq!(all(&stable), [records[0].clone(), records[2].clone()]);
}

/// Some runs have no values, and a crash may have left values without a run: a walk takes each run's own, however it is paged.
#[test]
fn a_walk_gives_each_run_its_own_values() {
    let stable = stable();
    let delete = |revision| Record { change: Change::Delete, ..put(revision, 0, 0) };
    let runs: Vec<Vec<Record>> = vec![
        vec![put(2, 0, 100), delete(3)],
        vec![delete(10), delete(11)],
        vec![put(20, 0, 20_000), put(21, 0, 20_000)],
        vec![delete(30)],
        vec![put(40, 0, 100)],
        vec![delete(50)],
    ];
    for records in &runs {
        stable.commit(&runs_of(records), &[], &head(50), &applied(1), &Faults::default()).unwrap();
    }
    let mut batch = Batch::default();
    for revision in [1, 5, 15, 30, 45, 60] {
        let id = RecordId::new(Revision::new(revision), 1);
        batch.put(pack_key(PackKind::Value, id), runs_of(&[put(revision, 1, 10)])[0].value.to_vec());
    }
    stable.engine.apply(batch).unwrap();
    let expected: Vec<Record> = runs.concat();
    assert_eq!(all(&stable), expected);
    for max in [PageMax::ONE, PageMax { runs: 2, bytes: 1 }, PageMax { runs: 100, bytes: 150 }] {
        let mut records = Vec::new();
        let mut from = RecordId::default();
        while let Some(page) = Some(stable.runs(from, max).unwrap()).filter(|page| !page.is_empty()) {
            from = following(page.last().unwrap().run.first);
            records.extend(page.iter().flat_map(|placed| placed.run.records().unwrap()));
        }
        assert_eq!(records, expected);
    }
}

#[test]
fn trim_removes_what_an_interrupted_commit_left() {
    for bound in 1..=12 {
        let stable = stable();
        let records: Vec<Record> = (2..=10).flat_map(|n| [put(n, 0, 9000), put(n, 1, 9000)]).collect();
        stable.commit(&runs_of(&records), &[], &head(10), &applied(1), &Faults::default()).unwrap();
        stable.trim(Revision::new(bound)).unwrap();
        let kept: Vec<Record> = records.into_iter().filter(|r| r.id.revision.get() <= bound).collect();
        assert_eq!(all(&stable), kept, "bound {bound}");
    }
}

#[test]
fn a_missing_piece_is_damage() {
    let stable = stable();
    stable.commit(&runs_of(&[put(2, 0, 100_000)]), &[], &head(2), &applied(1), &Faults::default()).unwrap();
    let mut batch = Batch::default();
    batch.delete(piece_key(PackKind::Value, RecordId::new(Revision::new(2), 0), 1));
    stable.engine.apply(batch).unwrap();
    assert!(matches!(stable.runs(RecordId::default(), stable.slice()), Err(StoreError::Damaged(_))));
}

/// Stops a commit behind its first batch, as a crash would.
struct StopMidBatch(Option<Fault>);

impl Sabotage for StopMidBatch {
    fn hit(&self, at: Failpoint) {
        assert!(at != Failpoint::CommitMidBatch, "stopped");
    }
    fn is_planted(&self, fault: Fault) -> bool {
        self.0 == Some(fault)
    }
}

/// K2: behind a part of a commit the position is the one before; with the planted fault it is not, and lies. WH1.
#[test]
fn a_commit_that_stops_in_the_middle_keeps_the_position_before() {
    for planted in [None, Some(Fault::PositionApart)] {
        let stable = stable();
        stable.commit(&runs_of(&[put(2, 0, 10)]), &[], &head(2), &applied(1), &Faults::default()).unwrap();
        // Alike as they are they compress: it takes so many for a second batch.
        let many: Vec<Record> = (3..800).map(|revision| put(revision, 0, 10_000)).collect();
        let faults = Faults::new(Arc::new(StopMidBatch(planted)));
        let commit = || stable.commit(&runs_of(&many), &[], &head(799), &applied(800), &faults);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(commit)).expect_err("it is stopped");
        let (head, applied_now) = stable.position().unwrap().unwrap();
        if planted.is_none() {
            assert_eq!((head.revision.get(), applied_now), (2, applied(1)));
            stable.trim(head.revision).unwrap();
            assert_eq!(all(&stable), [put(2, 0, 10)]);
        } else {
            assert_eq!((head.revision.get(), applied_now), (799, applied(800)));
            assert_eq!(all(&stable), [put(2, 0, 10)], "the position speaks of records that are not there");
        }
    }
}

#[test]
fn a_pack_that_can_be_compressed_is_and_others_are_not() {
    let alike: Bytes = vec![7; PIECE_BYTES].into();
    let stored = whole(&alike);
    let length = u32::try_from(PIECE_BYTES).unwrap().to_le_bytes();
    assert_eq!((stored[0], &stored[1..5]), (PACKED, &length[..]));
    assert!(stored.len() < 1000, "{}", stored.len());
    assert_eq!(unpack(&stored[1..]).unwrap(), alike);
    let mut number = 1_u64;
    let mut noise = || {
        number = number.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        number.to_be_bytes()[0]
    };
    let different: Bytes = (0..PIECE_BYTES).map(|_| noise()).collect();
    let stored = whole(&different);
    assert_eq!((stored[0], &stored[1..]), (WHOLE, &different[..]));
}

#[test]
fn a_packed_pack_that_is_not_whole_is_damage() {
    let stored = whole(&vec![7; 1000].into());
    for end in 1..stored.len() {
        assert!(matches!(unpack(&stored[1..end]), Err(StoreError::Damaged(_))), "{end}");
    }
    let mut longer = stored.clone();
    longer[3] = 1;
    assert!(matches!(unpack(&longer[1..]), Err(StoreError::Damaged(_))), "the length is bounded");
    let mut other = stored;
    other[1] += 1;
    assert!(matches!(unpack(&other[1..]), Err(StoreError::Damaged(_))), "the length is another");
}

fn leases(stable: &Stable) -> Vec<(LeaseId, Lease)> {
    let mut all = Vec::new();
    stable
        .each_lease(|some| {
            all.extend_from_slice(some);
            Ok::<_, StoreError>(())
        })
        .unwrap();
    all
}

fn granted(id: i64, granted_seconds: u64) -> LeaseChange {
    LeaseChange {
        id: LeaseId(id),
        lease: Some(Lease { granted_at: GrantIndex(1), granted_seconds, remaining_seconds: None }),
    }
}

#[test]
fn leases_come_back_in_the_order_of_their_ids() {
    let stable = stable();
    let changes = [granted(3, 7), granted(-3, 8), granted(i64::MAX, 1), granted(i64::MIN, 2)];
    stable.commit(&[], &changes, &head(1), &applied(1), &Faults::default()).unwrap();
    let ids: Vec<i64> = leases(&stable).iter().map(|(id, _)| id.0).collect();
    assert_eq!(ids, [i64::MIN, -3, 3, i64::MAX]);
    let changes = [LeaseChange { id: LeaseId(3), lease: None }, granted(-3, 9)];
    stable.commit(&[], &changes, &head(1), &applied(2), &Faults::default()).unwrap();
    let seconds: Vec<u64> = leases(&stable).iter().map(|(_, lease)| lease.granted_seconds).collect();
    assert_eq!(seconds, [2, 9, 1]);
}

/// A crash at any of these points leaves what was before: an entry that is replayed must find the lease as it was.
#[test]
fn leases_change_with_the_position_alone() {
    struct Look(Stable, parking_lot::Mutex<Vec<usize>>);
    impl holdfast_env::Sabotage for Look {
        fn hit(&self, _: Failpoint) {
            self.1.lock().push(leases(&self.0).len());
        }
        fn is_planted(&self, _: Fault) -> bool {
            false
        }
    }
    let stable = stable();
    let look = Arc::new(Look(stable.clone(), parking_lot::Mutex::default()));
    let many: Vec<Record> = (2..800).map(|n| put(n, 0, 10_000)).collect();
    let changes: Vec<LeaseChange> = (1..).map(|id| granted(id, 5)).take(COMMIT_LEASES_MAX).collect();
    stable.commit(&runs_of(&many), &changes, &head(799), &applied(1), &Faults::new(look.clone())).unwrap();
    assert_eq!(leases(&stable).len(), COMMIT_LEASES_MAX);
    let seen = look.1.lock();
    assert!(seen.len() > 1 && seen.iter().all(|count| *count == 0), "{seen:?}");
}

/// What is in the store at each point where a commit could be cut off.
struct AtEachPoint<F>(F);

impl<F: Fn() + Send + Sync + 'static> holdfast_env::Sabotage for AtEachPoint<F> {
    fn hit(&self, _: Failpoint) {
        self.0();
    }
    fn is_planted(&self, _: Fault) -> bool {
        false
    }
}

/// Values that share no batch with each other, and one of them none with what finds it.
fn large() -> Vec<Record> {
    (2..6).map(|revision| put(revision, 0, BATCH_BYTES_MAX / 10 * 9)).collect()
}

/// Readers walk through all runs while a commit goes on: what they find has to be whole, or it would look like damage.
#[test]
fn a_run_that_can_be_found_is_whole_in_the_middle_of_a_commit() {
    let stable = stable();
    let (reader, seen) = (stable.clone(), Arc::new(Mutex::new(Vec::new())));
    let counts = Arc::clone(&seen);
    let look = AtEachPoint(move || counts.lock().push(all(&reader).len()));
    stable.commit(&runs_of(&large()), &[], &head(5), &applied(1), &Faults::new(Arc::new(look))).unwrap();
    let seen = seen.lock();
    assert!(seen.len() >= 3 && seen.contains(&2), "{seen:?}");
}

#[test]
fn what_an_interrupted_commit_has_left_is_in_nobodys_way() {
    let keys = |stable: &Stable, kind: u8| stable.engine.scan(&[kind], usize::MAX, usize::MAX).unwrap().len();
    for point in 1..4 {
        let stable = stable();
        stable.commit(&runs_of(&[put(1, 0, 10)]), &[], &head(1), &applied(1), &Faults::default()).unwrap();
        let hits = std::sync::atomic::AtomicU32::new(0);
        let die = AtEachPoint(move || {
            let before = hits.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            assert!(before + 1 < point, "the process dies here");
        });
        let dying = stable.clone();
        let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            dying.commit(&runs_of(&large()), &[], &head(5), &applied(2), &Faults::new(Arc::new(die)))
        }));
        assert!(died.is_err(), "there are fewer points than {point}");
        let stable = Stable::new(Arc::clone(&stable.engine));
        stable.trim(Revision::new(1)).unwrap();
        assert_eq!(all(&stable).len(), 1);
        assert_eq!([keys(&stable, b'm'), keys(&stable, b'v')], [1, 1], "point {point}");
        // The log is replayed, and cut into other runs.
        let small: Vec<Record> = (2..6).map(|revision| put(revision, 0, 10)).collect();
        stable.commit(&runs_of(&small), &[], &head(5), &applied(2), &Faults::default()).unwrap();
        for record in &small {
            let (_, pack) = stable.value_pack(record.id).unwrap().unwrap();
            assert!(Values::new(&pack).unwrap().seek(record.id).unwrap().is_some(), "point {point}");
        }
    }
}

/// As [`head`], with users and roles.
fn with_auth(revision: u64, auth: &Arc<Auth>) -> Head {
    Head { auth: Arc::clone(auth), ..head(revision) }
}

/// Many users: more than fits into one batch.
fn crowd(revision: u64) -> Arc<Auth> {
    use holdfast_mvcc::auth::{AuthRevision, AuthSwitch, User};
    let hash = "h".repeat(2_000);
    let user = |at: u64| {
        let user = User { password_hash: Some(hash.clone()), roles: vec![], since: AuthRevision::new(1) };
        (format!("user{at:04}"), user)
    };
    let revision = AuthRevision::new(revision);
    Arc::new(Auth::restore(AuthSwitch::Off, revision, (0..1000).map(user), []).unwrap())
}

#[test]
fn users_and_roles_are_there_as_committed() {
    let stable = stable();
    let keys = |stable: &Stable| stable.engine.scan(&[AUTH_PIECE], 1000, usize::MAX).unwrap().len();
    stable.commit(&[], &[], &head(1), &applied(1), &Faults::default()).unwrap();
    assert_eq!((keys(&stable), stable.engine.get(AUTH).unwrap()), (0, None));
    let auth = crate::auth::tests::some();
    stable.commit(&[], &[], &with_auth(1, &auth), &applied(2), &Faults::default()).unwrap();
    let at = stable.engine.get(AUTH).unwrap();
    // The same ones, and equal ones, are not written again.
    let equal = Arc::new(Auth::clone(&auth));
    for (index, auth) in [(3, &auth), (4, &equal)] {
        stable.commit(&[], &[], &with_auth(1, auth), &applied(index), &Faults::default()).unwrap();
        assert_eq!(stable.engine.get(AUTH).unwrap(), at);
    }
    let many = crowd(9);
    stable.commit(&[], &[], &with_auth(1, &many), &applied(5), &Faults::default()).unwrap();
    let again = Stable::new(Arc::clone(&stable.engine));
    assert_eq!(again.position().unwrap().unwrap().0.auth, many);
    assert!(keys(&again) > 60);
    again.commit(&[], &[], &with_auth(1, &auth), &applied(6), &Faults::default()).unwrap();
    assert_eq!(again.position().unwrap().unwrap().0.auth, auth);
    assert_eq!(keys(&again), 1, "those from before are gone");
}

#[test]
fn half_a_change_of_users_and_roles_is_none() {
    let stable = stable();
    let auth = crate::auth::tests::some();
    stable.commit(&[], &[], &with_auth(1, &auth), &applied(1), &Faults::default()).unwrap();
    // A crash behind the first batches of a commit: what they hold is there, and nothing names it.
    let mut writer = Writer::new(&stable);
    writer.put_auth(&mut stable.auth.lock(), &crowd(9)).unwrap().unwrap();
    writer.pause().unwrap();
    let again = Stable::new(Arc::clone(&stable.engine));
    assert_eq!(again.position().unwrap().unwrap().0.auth, auth);
    again.trim_auth().unwrap();
    assert_eq!(again.engine.scan(&[AUTH_PIECE], 1000, usize::MAX).unwrap().len(), 1);
    assert_eq!(again.position().unwrap().unwrap().0.auth, auth);
    let missing = auth_key(1, 0);
    let mut batch = Batch::default();
    batch.delete(missing);
    again.engine.apply(batch).unwrap();
    assert!(matches!(again.position(), Err(StoreError::Damaged(_))));
}
