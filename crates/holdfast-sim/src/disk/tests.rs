//! The simulated disk loses what it must, and nothing else.

use std::io;
use std::path::Path;
use std::sync::Arc;

use holdfast_env::{Disk, OpenMode, create_dir_synced};

use super::{Fate, Lie, SimDisk, Unit};

fn dir() -> &'static Path {
    Path::new("/d")
}

fn file() -> &'static Path {
    Path::new("/d/f")
}

/// A disk with a durable file that holds `content`.
fn with_file(content: &[u8]) -> Arc<SimDisk> {
    let disk = SimDisk::new(1);
    create_dir_synced(&*disk, dir()).unwrap();
    let open = disk.open(file(), OpenMode::CreateNew).unwrap();
    open.write_all_at(content, 0).unwrap();
    open.sync_data().unwrap();
    disk.sync_dir(dir()).unwrap();
    disk
}

fn content(disk: &SimDisk, path: &Path) -> io::Result<Vec<u8>> {
    let open = disk.open(path, OpenMode::Read)?;
    let mut bytes = vec![0; usize::try_from(open.len()?).unwrap()];
    open.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

#[test]
fn what_was_synced_stays_and_what_was_not_may_go() {
    let disk = with_file(b"old");
    let open = disk.open(file(), OpenMode::ReadWrite).unwrap();
    open.write_all_at(b"new", 0).unwrap();
    assert_eq!(disk.unsynced().len(), 1);
    assert_eq!(content(&disk, file()).unwrap(), b"new");
    assert_eq!(content(&disk.survivors(|_| Fate::Lost), file()).unwrap(), b"old");
    assert_eq!(content(&disk.survivors(|_| Fate::Kept), file()).unwrap(), b"new");
    open.sync_data().unwrap();
    assert!(disk.unsynced().is_empty());
    assert_eq!(content(&disk.survivors(|_| Fate::Lost), file()).unwrap(), b"new");
}

#[test]
fn pages_are_lost_one_by_one_and_torn_between_sectors() {
    let disk = with_file(&[1; 8192]);
    let open = disk.open(file(), OpenMode::ReadWrite).unwrap();
    open.write_all_at(&[2; 8192], 0).unwrap();
    let units = disk.unsynced();
    assert!(matches!(units.as_slice(), [Unit::Page(_, 0), Unit::Page(_, 1)]), "{units:?}");
    let reordered = disk.survivors(|unit| if *unit == units[1] { Fate::Kept } else { Fate::Lost });
    assert_eq!(content(&reordered, file()).unwrap(), [[1; 4096], [2; 4096]].concat());
    let torn = content(&disk.survivors(|_| Fate::Torn(0b1000_0001)), file()).unwrap();
    let sectors: Vec<u8> = torn.chunks(512).map(|sector| sector[0]).collect();
    assert_eq!(sectors, [2, 1, 1, 1, 1, 1, 1, 2, 2, 1, 1, 1, 1, 1, 1, 2]);
}

#[test]
fn a_length_is_lost_apart_from_the_pages() {
    let disk = with_file(b"old");
    let open = disk.open(file(), OpenMode::ReadWrite).unwrap();
    open.write_all_at(b"tail", 4096).unwrap();
    let only = |keep_length: bool| {
        let left = disk.survivors(|unit| {
            if matches!(unit, Unit::Length(_)) == keep_length { Fate::Kept } else { Fate::Lost }
        });
        content(&left, file()).unwrap()
    };
    assert_eq!(only(false), b"old");
    assert_eq!(only(true).len(), 4100);
    assert_eq!(only(true)[4096..], [0; 4]);
}

#[test]
fn names_are_durable_after_a_sync_of_their_directory_and_a_rename_is_one_step() {
    let disk = with_file(b"x");
    let renamed = Path::new("/d/g");
    disk.rename(file(), renamed).unwrap();
    let lost = disk.survivors(|_| Fate::Lost);
    assert_eq!((lost.exists(file()).unwrap(), lost.exists(renamed).unwrap()), (true, false));
    let kept = disk.survivors(|_| Fate::Kept);
    assert_eq!((kept.exists(file()).unwrap(), kept.exists(renamed).unwrap()), (false, true));
    disk.sync_dir(dir()).unwrap();
    assert_eq!(content(&disk.survivors(|_| Fate::Lost), renamed).unwrap(), b"x");
    disk.remove_file(renamed).unwrap();
    assert!(disk.survivors(|_| Fate::Lost).exists(renamed).unwrap());
    disk.sync_dir(dir()).unwrap();
    assert!(!disk.survivors(|_| Fate::Lost).exists(renamed).unwrap());
}

#[test]
fn a_directory_that_was_never_synced_takes_its_files_along() {
    let disk = SimDisk::new(1);
    disk.create_dir_all(dir()).unwrap();
    let open = disk.open(file(), OpenMode::CreateNew).unwrap();
    open.sync_all().unwrap();
    disk.sync_dir(dir()).unwrap();
    assert_eq!(disk.survivors(|_| Fate::Lost).files(), []);
    disk.sync_dir(Path::new("/")).unwrap();
    assert_eq!(disk.survivors(|_| Fate::Lost).files().len(), 1);
}

#[test]
fn a_directory_is_renamed_and_removed_with_what_it_holds() {
    let disk = with_file(b"x");
    disk.rename(dir(), Path::new("/e")).unwrap();
    assert_eq!(content(&disk, Path::new("/e/f")).unwrap(), b"x");
    assert_eq!(disk.read_dir(Path::new("/")).unwrap(), [Path::new("/e")]);
    disk.remove_dir_all(Path::new("/e")).unwrap();
    assert_eq!(disk.files(), []);
    assert_eq!(disk.survivors(|_| Fate::Lost).files().len(), 1);
}

#[test]
fn the_power_goes_at_the_step_it_was_told() {
    let disk = with_file(b"old");
    let open = disk.open(file(), OpenMode::ReadWrite).unwrap();
    disk.power_off_at(disk.steps() + 2);
    open.write_all_at(b"new", 0).unwrap();
    assert!(open.sync_data().is_err());
    assert!(disk.is_off());
    assert!(disk.exists(file()).is_err());
    assert_eq!(content(&disk.survivors(|_| Fate::Lost), file()).unwrap(), b"old");
}

#[test]
fn a_crash_ends_all_handles_of_that_life() {
    let disk = with_file(b"x");
    let mount = disk.mount();
    let open = mount.open(file(), OpenMode::Read).unwrap();
    let lock = disk.lock(Path::new("/d/lock")).unwrap();
    assert_eq!(disk.lock(Path::new("/d/lock")).err().unwrap().kind(), io::ErrorKind::WouldBlock);
    disk.crash();
    disk.restart();
    assert!(open.len().is_err());
    assert!(mount.exists(file()).is_err());
    assert_eq!(content(&disk, file()).unwrap(), b"x");
    let again = disk.lock(Path::new("/d/lock")).unwrap();
    drop(lock);
    assert!(disk.lock(Path::new("/d/lock")).is_err(), "the lock of an earlier life frees nothing");
    drop(again);
    disk.lock(Path::new("/d/lock")).map(drop).unwrap();
}

#[test]
fn a_failed_sync_leaves_what_it_should_have_written_in_the_page_cache_only() {
    let disk = with_file(b"old");
    let open = disk.open(file(), OpenMode::ReadWrite).unwrap();
    open.write_all_at(b"new", 0).unwrap();
    disk.fail_at(disk.steps() + 1, io::ErrorKind::Other);
    assert!(open.sync_data().is_err());
    open.sync_data().unwrap();
    assert_eq!(content(&disk, file()).unwrap(), b"new");
    assert_eq!(content(&disk.survivors(|_| Fate::Kept), file()).unwrap(), b"old");
}

#[test]
fn a_full_disk_takes_no_more_and_a_lying_one_keeps_nothing() {
    let disk = with_file(b"old");
    disk.set_capacity(Some(5));
    assert_eq!(disk.free_bytes(dir()).unwrap(), 2);
    let open = disk.open(file(), OpenMode::ReadWrite).unwrap();
    assert_eq!(open.write_all_at(b"longer", 0).unwrap_err().kind(), io::ErrorKind::StorageFull);
    open.write_all_at(b"12345", 0).unwrap();
    disk.lie_about(Lie::Data);
    open.sync_all().unwrap();
    assert_eq!(content(&disk.survivors(|_| Fate::Lost), file()).unwrap(), b"old");
}

#[test]
fn a_directory_can_be_full_alone_and_a_new_disk_holds_nothing() {
    let disk = with_file(b"old");
    let other = disk.open(Path::new("/other"), OpenMode::CreateNew).unwrap();
    disk.fill("/d/");
    let open = disk.open(file(), OpenMode::ReadWrite).unwrap();
    assert_eq!(open.write_all_at(b"longer", 0).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(disk.free_bytes(file()).unwrap(), 0);
    open.write_all_at(b"new", 0).unwrap();
    other.write_all_at(b"longer", 0).unwrap();
    disk.relieve();
    open.write_all_at(b"longer", 0).unwrap();
    disk.wipe();
    open.write_all_at(b"late", 0).unwrap_err();
    assert_eq!(disk.files(), []);
    assert_eq!(disk.unsynced(), []);
}
