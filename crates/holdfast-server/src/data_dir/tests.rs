//! Whose a directory is, and that a refusal leaves it as it was.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use holdfast_env::NoNet;
use tempfile::TempDir;

use super::*;

struct World {
    env: Env,
    dir: TempDir,
    _runtime: tokio::runtime::Runtime,
}

impl World {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let env = Env::real(runtime.handle().clone(), Arc::new(NoNet));
        Self { env, dir: TempDir::new().unwrap(), _runtime: runtime }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn lock(&self, identity: &Identity) -> Result<DataDir, DataDirError> {
        DataDir::lock(&self.env, &self.path(), identity)
    }

    /// A directory that belongs to `identity`.
    fn made_by(identity: &Identity) -> Self {
        let world = Self::new();
        world.lock(identity).unwrap().mark().unwrap();
        world
    }

    fn content(&self) -> BTreeMap<String, Vec<u8>> {
        let Ok(entries) = std::fs::read_dir(self.path()) else { return BTreeMap::new() };
        let file = |entry: std::fs::DirEntry| {
            (
                entry.file_name().to_string_lossy().into_owned(),
                std::fs::read(entry.path()).unwrap_or_default(),
            )
        };
        entries.map(|entry| file(entry.unwrap())).collect()
    }

    /// The refusal of `identity`, after a check that it changed nothing.
    fn refusal(&self, identity: &Identity) -> String {
        let before = self.content();
        let refused = self.lock(identity).map(|_| ()).unwrap_err().to_string();
        assert_eq!(before, self.content(), "a refusal changes nothing");
        assert!(refused.contains(&self.path().display().to_string()), "{refused}");
        refused
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::create_dir_all(self.path()).unwrap();
        std::fs::write(self.path().join(name), text).unwrap();
    }
}

fn ours() -> Identity {
    Identity { cluster_id: 0xc1, member_id: MemberId(0xa1), name: "n1".to_owned(), origin: Origin::Founder }
}

#[test]
fn a_new_directory_is_marked_and_known_again() {
    let world = World::new();
    let first = world.lock(&ours()).unwrap();
    assert!(first.is_fresh());
    first.mark().unwrap();
    drop(first);
    let again = world.lock(&ours()).unwrap();
    assert!(!again.is_fresh());
    let before = world.content();
    again.mark().unwrap();
    assert_eq!(before, world.content(), "marking is done once");
}

#[test]
fn a_directory_whose_log_went_back_is_refused_for_good() {
    let world = World::made_by(&ours());
    world.lock(&ours()).unwrap().retire().unwrap();
    let refused = world.refusal(&ours());
    assert!(refused.contains("holdfast join --replace"), "{refused}");
    let owner = DataDir::owner(&world.env, &world.path()).unwrap();
    assert_eq!(owner, Some(ours()), "whoever replaces it has to know whose it was");
}

#[test]
fn the_identity_file_has_its_written_form() {
    let expected = "holdfast data directory\nformat 1\ncluster 00000000000000c1\nmember 00000000000000a1\nname n1\nsum 1f7685aa6b15a781\n";
    assert_eq!(encode_identity(&ours()), expected);
}

#[test]
fn a_second_process_is_refused_until_the_first_ends() {
    let world = World::new();
    let first = world.lock(&ours()).unwrap();
    assert!(world.refusal(&ours()).contains("another process is using it: stop that one first"));
    drop(first);
    world.lock(&ours()).unwrap();
}

#[test]
fn anothers_directory_is_refused() {
    let world = World::made_by(&ours());
    let other_cluster = Identity { cluster_id: 0xc2, ..ours() };
    let message = world.refusal(&other_cluster);
    assert!(
        message.contains("belongs to cluster 00000000000000c1") && message.contains("--initial-cluster"),
        "{message}"
    );
    let other_member = Identity { member_id: MemberId(0xa2), name: "n2".to_owned(), ..ours() };
    let message = world.refusal(&other_member);
    assert!(message.contains("belongs to member \"n1\", not to \"n2\""), "{message}");
    let renamed = Identity { name: "n9".to_owned(), ..ours() };
    assert!(world.refusal(&renamed).contains("start with --name n1"));
}

#[test]
fn a_newer_format_is_refused_whatever_follows() {
    let world = World::new();
    world.write("IDENTITY", "holdfast data directory\nformat 3\nsomething new\n");
    assert!(
        world
            .refusal(&ours())
            .contains("it has format 3, this version reads up to 2: use the holdfast version")
    );
}

#[test]
fn a_damaged_identity_is_refused() {
    let whole = encode_identity(&ours());
    let flipped = whole.replace("name n1", "name n7");
    let cases = [
        ("", "first line"),
        ("holdfast", "first line"),
        ("holdfast data directory\nformat x\n", "no format"),
        ("holdfast data directory\nformat 1\ncluster zz\n", "no cluster"),
        (&whole[..whole.len() - 4], "checksum"),
        (&flipped, "checksum"),
    ];
    for (text, what) in cases {
        let world = World::new();
        world.write("IDENTITY", text);
        let message = world.refusal(&ours());
        assert!(message.contains("damaged") && message.contains(what), "{text:?}: {message}");
    }
}

#[test]
fn a_directory_with_foreign_files_is_refused() {
    let world = World::new();
    world.write("member", "an etcd member's directory, say");
    let message = world.refusal(&ours());
    assert!(
        message.contains("it holds member but no IDENTITY file") && message.contains("--data-dir"),
        "{message}"
    );
}

#[test]
fn what_a_cut_start_left_behind_does_no_harm() {
    let world = World::new();
    world.write("LOCK", "");
    world.write("IDENTITY.new", "holdfast data dir");
    let data_dir = world.lock(&ours()).unwrap();
    data_dir.mark().unwrap();
    drop(data_dir);
    assert!(!world.lock(&ours()).unwrap().is_fresh());
}

#[test]
fn a_member_that_was_added_is_known_by_its_directory_alone() {
    let added = Identity { origin: Origin::Joined, ..ours() };
    let text = encode_identity(&added);
    assert!(text.contains("\nformat 2\n") && text.contains("\nname n1\njoined\nsum "), "{text}");
    let world = World::made_by(&added);
    assert_eq!(DataDir::owner(&world.env, &world.path()).unwrap(), Some(added));
    assert_eq!(DataDir::owner(&world.env, &world.dir.path().join("other")).unwrap(), None);
    let world = World::new();
    world.write("IDENTITY", &text.replace("joined\n", ""));
    assert!(world.refusal(&ours()).contains("checksum"));
}

#[test]
fn a_file_in_the_place_of_the_directory_is_refused() {
    let world = World::new();
    std::fs::write(world.path(), "not a directory").unwrap();
    let message = world.lock(&ours()).map(|_| ()).unwrap_err().to_string();
    assert!(message.contains("give a directory with --data-dir"), "{message}");
}

#[test]
fn a_directory_that_cannot_be_written_is_refused_with_advice() {
    let world = World::new();
    std::fs::create_dir(world.path()).unwrap();
    std::fs::set_permissions(world.path(), std::fs::Permissions::from_mode(0o500)).unwrap();
    if std::fs::write(world.path().join("probe"), "").is_ok() {
        use std::io::Write;
        writeln!(std::io::stderr(), "skipped: unwritable data directory: this user may write everywhere")
            .unwrap();
        return;
    }
    let message = world.lock(&ours()).map(|_| ()).unwrap_err().to_string();
    assert!(message.contains("change its owner"), "{message}");
}

#[test]
fn a_full_or_read_only_disk_has_its_advice() {
    let error = |kind: io::ErrorKind| DataDirError::Io {
        path: PathBuf::from("/data"),
        action: "create it",
        source: io::Error::from(kind),
    };
    assert!(error(io::ErrorKind::StorageFull).to_string().contains("free space on that disk"));
    assert!(
        error(io::ErrorKind::ReadOnlyFilesystem).to_string().contains("mount the file system for writing")
    );
}
