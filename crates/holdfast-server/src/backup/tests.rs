//! Files as etcd writes them, and as nobody should, restored.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_bolt::Writer;
use holdfast_env::{Env, NoNet};
use holdfast_mvcc::auth::{Access, Auth, AuthRevision, AuthSwitch, Permission, Role, User};
use holdfast_mvcc::command::{Range, RangeResponse, ReadAt, Refusal};
use holdfast_mvcc::types::{KeyRange, LeaseId, RangeEnd, Record, Revision};
use holdfast_proto::{authpb, mvccpb};
use holdfast_storage::{EngineKind, EventSink, ReadError, Storage, StorageConfig};
use prost::Message;
use tempfile::TempDir;

use super::file::{Checksum, Database, FileError};
use super::history::Bump;
use super::restore::{Request, RestoreError, Restored, Rights, restore};
use super::rights;
use super::schema::{self, RecordKey, bucket, name};
use crate::config::{Config, flags};

/// What a file of a test holds.
#[derive(Default)]
struct File {
    records: Vec<(Vec<u8>, Vec<u8>)>,
    leases: Vec<(i64, i64)>,
    finished: Option<u64>,
    scheduled: Option<u64>,
    auth: Auth,
}

fn key(revision: u64, sub: u32, is_delete: bool) -> Vec<u8> {
    let id = holdfast_mvcc::types::RecordId::new(Revision::new(revision), sub);
    RecordKey { id, is_delete }.encode()
}

fn put(revision: u64, key_: &str, create: i64, version: i64, lease: i64) -> (Vec<u8>, Vec<u8>) {
    let kv = mvccpb::KeyValue {
        key: key_.to_owned().into(),
        create_revision: create,
        mod_revision: i64::try_from(revision).unwrap(),
        version,
        value: format!("{key_}@{revision}").into(),
        lease,
    };
    (key(revision, 0, false), kv.encode_to_vec())
}

fn delete(revision: u64, key_: &str) -> (Vec<u8>, Vec<u8>) {
    let kv = mvccpb::KeyValue { key: key_.to_owned().into(), ..Default::default() };
    (key(revision, 0, true), kv.encode_to_vec())
}

impl File {
    /// Without a checksum, as in a data directory.
    fn write(&self, dir: &TempDir) -> PathBuf {
        let mut writer = Writer::new();
        rights::write(&mut writer, &self.auth).unwrap();
        writer.bucket(bucket::KEY).unwrap();
        for (key, value) in &self.records {
            writer.put(key, value).unwrap();
        }
        writer.bucket(bucket::LEASE).unwrap();
        for (id, seconds) in &self.leases {
            let lease = holdfast_mvcc::types::Lease {
                granted_at: holdfast_mvcc::types::LogIndex(1),
                granted_seconds: u64::try_from(*seconds).unwrap(),
                remaining_seconds: None,
            };
            let (key, value) = schema::lease(LeaseId(*id), &lease);
            writer.put(&key, &value).unwrap();
        }
        writer.bucket(bucket::META).unwrap();
        for (key, revision) in
            [(name::FINISHED_COMPACTION, self.finished), (name::SCHEDULED_COMPACTION, self.scheduled)]
        {
            if let Some(revision) = revision {
                writer.put(key, &schema::revision(Revision::new(revision))).unwrap();
            }
        }
        let finished = writer.finish().unwrap();
        let path = dir.path().join("file.db");
        std::fs::write(&path, finished.rest).unwrap();
        path
    }
}

struct Silent;

impl EventSink for Silent {
    fn publish(&self, _: &[&Record], _: Revision) {}
    fn replaced(&self, _: Revision) {}
}

fn env() -> Env {
    Env::real(tokio::runtime::Handle::current(), Arc::new(NoNet))
}

fn config(dir: &Path) -> Config {
    let args = ["holdfast", "--name=n", "--initial-cluster=n=http://127.0.0.1:1,m=http://127.0.0.1:2"];
    let args = args.into_iter().map(Into::into).chain([format!("--data-dir={}", dir.display()).into()]);
    Config::from_flags(&flags::parse(args, &|_| None).unwrap().server).unwrap()
}

struct Scene {
    dir: TempDir,
    config: Config,
}

impl Scene {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let config = config(&dir.path().join("data"));
        Self { dir, config }
    }

    fn restore(&self, file: &File, change: impl FnOnce(&mut Request<'_>)) -> Result<Restored, RestoreError> {
        let path = file.write(&self.dir);
        let mut request =
            Request { snapshot: &path, checksum: Checksum::IfThere, bump: None, rights: Rights::Kept };
        change(&mut request);
        restore(&env(), &self.config, &request)
    }

    /// What a member finds when it starts.
    async fn open(&self) -> Storage {
        let config = StorageConfig {
            dir: self.config.data_dir.join("store"),
            engine: EngineKind::Memory,
            workers: 1,
            memory_bytes: 16 << 20,
            checkpoint_revisions: 1 << 20,
        };
        Storage::open(&env(), config, Arc::new(Silent)).await.unwrap()
    }
}

fn all(storage: &Storage, at: ReadAt) -> Result<(RangeResponse, Revision), ReadError> {
    storage.range(&Range { at, ..Range::of(KeyRange { start: "\0".into(), end: RangeEnd::Unbounded }) })
}

/// Key, mod revision, create revision, version and lease.
type Row = (String, u64, u64, u64, i64);

fn rows(storage: &Storage, at: ReadAt) -> Vec<Row> {
    let (answer, _) = all(storage, at).unwrap();
    let row = |kv: holdfast_mvcc::types::KeyValue| {
        let key = String::from_utf8(kv.key.to_vec()).unwrap();
        assert_eq!(kv.value, format!("{key}@{}", kv.mod_revision.get()));
        let lease = kv.lease.map_or(0, |lease| lease.0);
        (key, kv.mod_revision.get(), kv.create_revision.get(), kv.version, lease)
    };
    answer.kvs.into_iter().map(row).collect()
}

fn at(revision: u64) -> ReadAt {
    ReadAt::Revision(Revision::new(revision))
}

/// A compaction at 5 was on its way: some of what it frees is still there. `orphan` has lost its lease.
fn some() -> File {
    File {
        records: vec![
            put(2, "a", 2, 1, 0),
            put(3, "a", 2, 2, 0),
            put(4, "b", 4, 1, 0),
            delete(5, "b"),
            put(6, "a", 2, 3, -9),
            put(7, "b", 7, 1, 8),
            delete(8, "a"),
            put(9, "a", 9, 1, -9),
            put(10, "orphan", 10, 1, 99),
        ],
        leases: vec![(8, 60), (-9, 90)],
        finished: Some(3),
        scheduled: Some(5),
        auth: Auth::default(),
    }
}

#[tokio::test]
async fn a_file_of_etcd_becomes_a_member() {
    let scene = Scene::new();
    let restored = scene.restore(&some(), |_| {}).unwrap();
    // Revision 2 was replaced below the compaction, and b was dead there: its delete at 5 is kept, its put is not.
    assert_eq!((restored.revision, restored.records, restored.leases, restored.orphans), (10, 7, 2, 1));
    let storage = scene.open().await;
    let row =
        |key: &str, modified, created, version, lease| (key.to_owned(), modified, created, version, lease);
    let newest = [row("a", 9, 9, 1, -9), row("b", 7, 7, 1, 8), row("orphan", 10, 10, 1, 0)];
    assert_eq!(rows(&storage, ReadAt::Latest), newest);
    assert_eq!(rows(&storage, at(7)), [row("a", 6, 2, 3, -9), row("b", 7, 7, 1, 8)]);
    assert_eq!(rows(&storage, at(5)), [row("a", 3, 2, 2, 0)]);
    let refused = all(&storage, at(4)).unwrap_err();
    assert!(matches!(refused, ReadError::Refused(Refusal::Compacted { .. })), "{refused:?}");
    assert_eq!(storage.lease_ids(), [LeaseId(-9), LeaseId(8)]);
    assert_eq!(storage.lease(LeaseId(-9)).unwrap().granted_seconds, 90);
    assert_eq!(storage.lease_keys(LeaseId(-9)), ["a"]);
    let applied = storage.applied();
    let position = applied.log_id.unwrap();
    let revision = position.index().get() >> 14;
    assert_eq!((position.term().get(), revision), (0, 10), "where no leader has written");
    assert!(applied.membership.is_some());
    storage.shutdown().await;
}

#[tokio::test]
async fn every_member_gets_the_same_snapshot() {
    let ids = [Scene::new(), Scene::new()].map(|scene| {
        scene.restore(&some(), |_| {}).unwrap();
        let snapshots = std::fs::read_dir(scene.config.data_dir.join("store/snapshots")).unwrap();
        let names: Vec<_> = snapshots.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 1, "{names:?}");
        names
    });
    assert_eq!(ids[0], ids[1]);
}

#[tokio::test]
async fn a_raised_revision_compacts_all_before_it() {
    let scene = Scene::new();
    let restored = scene.restore(&some(), |request| request.bump = Some(Bump { by: 1000 })).unwrap();
    assert_eq!((restored.revision, restored.records), (1010, 3), "what is alive, and no history");
    let storage = scene.open().await;
    assert_eq!(rows(&storage, at(1010)).len(), 3);
    assert!(matches!(all(&storage, at(1009)), Err(ReadError::Refused(Refusal::Compacted { .. }))));
    storage.shutdown().await;

    let scene = Scene::new();
    let too_high = scene.restore(&some(), |request| request.bump = Some(Bump { by: u64::MAX - 5 }));
    assert!(matches!(too_high, Err(RestoreError::File(FileError::Impossible { .. }))), "{too_high:?}");
}

#[tokio::test]
async fn an_empty_file_is_a_fresh_store() {
    let scene = Scene::new();
    let restored = scene.restore(&File::default(), |_| {}).unwrap();
    assert_eq!((restored.revision, restored.records), (1, 0));
    // A compaction may have taken everything.
    let scene = Scene::new();
    let file = File { finished: Some(44), scheduled: Some(44), ..File::default() };
    assert_eq!(scene.restore(&file, |_| {}).unwrap().revision, 44);
}

#[tokio::test]
async fn what_cannot_be_is_refused_and_the_directory_stays_usable() {
    let wrong: [(&str, File); 8] = [
        ("follow", File { records: vec![put(2, "a", 2, 1, 0), put(3, "a", 2, 3, 0)], ..File::default() }),
        ("follow", File { records: vec![put(2, "a", 2, 1, 0), put(3, "a", 3, 2, 0)], ..File::default() }),
        ("impossible", File { records: vec![put(2, "a", 3, 1, 0)], ..File::default() }),
        ("impossible", File { records: vec![put(2, "a", 2, 0, 0)], ..File::default() }),
        ("below zero", File { records: vec![put(2, "a", 2, -1, 0)], ..File::default() }),
        (
            "deleted again",
            File { records: vec![put(2, "a", 2, 1, 0), delete(3, "a"), delete(4, "a")], ..File::default() },
        ),
        (
            "create",
            File {
                records: vec![put(2, "a", 2, 1, 0), delete(3, "a"), put(4, "a", 2, 2, 0)],
                ..File::default()
            },
        ),
        (
            "another revision",
            File { records: vec![(key(9, 0, false), put(2, "a", 2, 1, 0).1)], ..File::default() },
        ),
    ];
    let scene = Scene::new();
    for (what, file) in wrong {
        let refused = scene.restore(&file, |_| {}).unwrap_err().to_string();
        assert!(refused.contains(what), "{refused}");
    }
    let no_revision = File { records: vec![(b"x".to_vec(), Vec::new())], ..File::default() };
    assert!(scene.restore(&no_revision, |_| {}).is_err());
    let no_message = File { records: vec![(key(2, 0, false), vec![0xff; 9])], ..File::default() };
    assert!(scene.restore(&no_message, |_| {}).is_err());
    // A checksum is wanted unless it is said that it is not.
    let bare = scene.restore(&some(), |request| request.checksum = Checksum::Required);
    assert!(matches!(bare, Err(RestoreError::File(FileError::NoChecksum { .. }))), "{bare:?}");
    scene.restore(&some(), |_| {}).unwrap();
    let again = scene.restore(&some(), |_| {});
    assert!(matches!(again, Err(RestoreError::Taken { .. })), "{again:?}");
}

/// Auth that is on, with a user of each kind.
fn some_auth() -> Auth {
    let since = AuthRevision::new(7);
    let user = |password_hash: Option<&str>, roles: &[&str]| User {
        password_hash: password_hash.map(str::to_owned),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        since,
    };
    let permission = |access, start: &'static str, end| Permission {
        access,
        range: KeyRange { start: start.into(), end },
    };
    let permissions = vec![
        permission(Access::Write, "a", RangeEnd::Single),
        permission(Access::Read, "b", RangeEnd::Before("c".into())),
        permission(Access::ReadWrite, "x", RangeEnd::Unbounded),
    ];
    let users = [
        ("root", user(Some("$2b$04$hash"), &["root"])),
        ("app", user(Some("$2b$04$other"), &["r", "s"])),
        ("cert", user(None, &[])),
    ];
    let roles = [("r", Role { permissions }), ("s", Role::default())];
    let owned = |name: &str| name.to_owned();
    Auth::restore(
        AuthSwitch::On(since),
        since,
        users.map(|(name, user)| (owned(name), user)),
        roles.map(|(name, role)| (owned(name), role)),
    )
    .unwrap()
}

#[tokio::test]
async fn users_and_roles_come_along_unless_they_are_left_out() {
    let scene = Scene::new();
    let file = File { auth: some_auth(), ..some() };
    scene.restore(&file, |_| {}).unwrap();
    assert_eq!(*scene.open().await.auth(), file.auth);
    let scene = Scene::new();
    scene.restore(&file, |request| request.rights = Rights::LeftOut).unwrap();
    assert_eq!(*scene.open().await.auth(), Auth::default());
}

/// etcd 3.5.1 takes permissions on ranges that hold no key; they permit nothing there, and nothing here.
#[tokio::test]
async fn what_permits_nothing_is_left_out_and_what_cannot_be_is_refused() {
    let write = |enabled: u8, roles: Vec<authpb::Role>, users: Vec<authpb::User>| {
        let dir = TempDir::new().unwrap();
        let mut writer = Writer::new();
        writer.bucket(bucket::AUTH).unwrap();
        writer.put(name::AUTH_ENABLED, &[enabled]).unwrap();
        writer.put(name::AUTH_REVISION, &9_u64.to_be_bytes()).unwrap();
        writer.bucket(bucket::AUTH_ROLES).unwrap();
        roles.iter().for_each(|role| writer.put(&role.name, &role.encode_to_vec()).unwrap());
        writer.bucket(bucket::AUTH_USERS).unwrap();
        users.iter().for_each(|user| writer.put(&user.name, &user.encode_to_vec()).unwrap());
        let path = dir.path().join("file.db");
        std::fs::write(&path, writer.finish().unwrap().rest).unwrap();
        rights::read(&Database::open(&env().disk, &path, Checksum::IfThere).unwrap())
    };
    let permission = |key: &'static str, range_end: &'static str| authpb::Permission {
        perm_type: authpb::permission::Type::Read.into(),
        key: key.into(),
        range_end: range_end.into(),
    };
    let role = |key_permission| authpb::Role { name: "r".into(), key_permission };
    let user = |name: &'static str, roles: &[&str]| authpb::User {
        name: name.into(),
        password: "hash".into(),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        options: None,
    };
    let odd = role(vec![permission("z", "a"), permission("", ""), permission("", "\0"), permission("k", "")]);
    let auth = write(0, vec![odd], vec![user("u", &["r", "gone"])]).unwrap();
    let permissions = &auth.role("r").unwrap().permissions;
    assert_eq!(permissions.iter().map(|one| &one.range.start[..]).collect::<Vec<_>>(), [&b"\0"[..], b"k"]);
    assert_eq!((auth.user("u").unwrap().roles.as_slice(), auth.revision().get()), (&["r".to_owned()][..], 9));
    // On, and nobody could switch it off.
    assert!(matches!(write(1, vec![], vec![user("u", &[])]), Err(FileError::Impossible { .. })));
    assert!(write(1, vec![], vec![user("root", &["root"])]).unwrap().is_enabled());
    let kind = authpb::Permission { perm_type: 77, ..permission("k", "") };
    assert!(matches!(write(0, vec![role(vec![kind])], vec![]), Err(FileError::Impossible { .. })));
}

/// The state's place in the log is all by which members tell their states apart.
#[tokio::test]
async fn different_states_of_one_revision_have_different_places() {
    let place = async |file: &File, rights| {
        let scene = Scene::new();
        scene.restore(file, |request| request.rights = rights).unwrap();
        scene.open().await.applied().log_id
    };
    let file = File { auth: some_auth(), ..some() };
    let kept = place(&file, Rights::Kept).await;
    assert_eq!(place(&file, Rights::Kept).await, kept);
    assert_ne!(place(&file, Rights::LeftOut).await, kept);
    let mut longer = some().leases;
    longer[0].1 += 1;
    let more = File { leases: longer, auth: some_auth(), ..some() };
    assert_ne!(place(&more, Rights::Kept).await, kept);
}
