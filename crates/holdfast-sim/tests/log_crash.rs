//! The Raft log on a disk that loses, tears and reorders what was not synced: a crash at every step loses nothing
//! that was acknowledged and invents nothing; damage inside is refused. And the proof that these tests can fail.

#[path = "log_crash/script.rs"]
mod script;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use holdfast_env::{BoxFuture, Env, Faults, LogId, LogIndex, NoNet, Rng, Spawn, TaskHandle, Term};
use holdfast_log::{Durable, Entry, Log, LogConfig, LogError};
use holdfast_sim::disk::{Fate, Lie, SECTOR_BYTES, SimDisk, Unit};
use holdfast_sim::world::{self, SimClock, SimRng, SimSpawn};
use script::{Act, Script};

/// Segments small enough that a script passes through many, large enough for writes of more than ten pages.
const SEGMENT_BYTES: u64 = 64 * 1024;
/// Up to so many unsynced units, every subset is tried.
const UNITS_EXHAUSTIVE_MAX: usize = 10;
/// How many random choices are tried beyond that.
const SAMPLES: usize = 1000;
/// How many torn images are tried beside the exhaustive ones.
const TORN_SAMPLES: usize = 16;

/// Starts nothing: for logs that are only looked at.
struct NoSpawn;

impl Spawn for NoSpawn {
    fn task(&self, name: &str, _: BoxFuture<'static, ()>) -> TaskHandle {
        TaskHandle::new(name, tokio::sync::oneshot::channel().1)
    }
    fn dedicated(&self, name: &str, future: BoxFuture<'static, ()>) -> TaskHandle {
        self.task(name, future)
    }
    fn halt(&self, reason: &str) {
        panic!("a log that is only looked at halts: {reason}");
    }
}

fn env(disk: &Arc<SimDisk>, spawn: Arc<dyn Spawn>) -> Env {
    Env {
        disk: disk.mount(),
        clock: Arc::new(SimClock::new()),
        net: Arc::new(NoNet),
        rng: Arc::new(SimRng::new(1)),
        spawn,
        faults: Faults::of_tests(),
    }
}

fn config() -> LogConfig {
    LogConfig { dir: PathBuf::from("/data/log"), segment_bytes: SEGMENT_BYTES, cache_bytes_max: 4096 }
}

/// Opens the log only to look at it.
fn look(disk: &Arc<SimDisk>) -> Result<Log, LogError> {
    Log::open(&env(disk, Arc::new(NoSpawn)), config())
}

/// How far a script has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Progress {
    /// Records whose callback ran.
    durable: usize,
    /// Records handed to the log.
    submitted: usize,
}

/// Runs the script on a fresh log until its end, or until the disk or the log fails.
async fn run_script(script: &Script, disk: &Arc<SimDisk>) -> Progress {
    let spawn = SimSpawn::default();
    let durable = Arc::new(AtomicUsize::new(0));
    let mut progress = Progress { durable: 0, submitted: 0 };
    let Ok(log) = Log::open(&env(disk, Arc::new(spawn.clone())), config()) else {
        // The disk failed while the log was created or recovered.
        return progress;
    };
    for (act, records) in &script.acts {
        let done = || -> Durable {
            let (durable, records) = (Arc::clone(&durable), *records);
            Box::new(move || durable.store(records, Ordering::SeqCst))
        };
        let outcome = match act {
            Act::Append(entries) => log.append(entries.clone(), done()),
            Act::Vote(vote) => log.save_vote(vote.clone(), done()),
            Act::Truncate(last) => log.truncate_after(*last),
            Act::Purge(through) => log.purge(*through),
            Act::Committed(committed) => log.save_committed(*committed),
            Act::Settle => {
                settle(&log).await;
                Ok(())
            }
        };
        if outcome.is_err() || spawn.halt_reason().is_some() {
            break;
        }
        progress.submitted = *records;
    }
    settle(&log).await;
    progress.durable = durable.load(Ordering::SeqCst);
    spawn.kill();
    progress
}

/// Lets the loops run until they have nothing to do.
async fn settle(_: &Log) {
    // Time is simulated: it passes only once no task can go on.
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// Tries what may be left of a disk: all subsets of a few unsynced units, random choices of many.
struct Images {
    count: usize,
    /// Crashes with too many unsynced units for all subsets.
    sampled: usize,
    rng: SimRng,
}

impl Images {
    fn new() -> Self {
        Self { count: 0, sampled: 0, rng: SimRng::new(7) }
    }

    /// Calls `check` with each image.
    fn try_all(
        &mut self,
        disk: &SimDisk,
        mut check: impl FnMut(Arc<SimDisk>, usize) -> Result<(), String>,
    ) -> Result<(), String> {
        let units = disk.unsynced();
        if units.len() > UNITS_EXHAUSTIVE_MAX {
            self.sampled += 1;
            return self.try_random(disk, SAMPLES, &mut check);
        }
        // Counts through all choices; which units there are may depend on the names kept before them.
        let mut choices: Vec<bool> = Vec::new();
        loop {
            let mut at = 0;
            let image = disk.survivors(|_| {
                if at == choices.len() {
                    choices.push(false);
                }
                at += 1;
                if choices[at - 1] { Fate::Kept } else { Fate::Lost }
            });
            choices.truncate(at);
            self.count += 1;
            check(image, self.count).map_err(|error| format!("kept {choices:?} of {units:?}: {error}"))?;
            while choices.last() == Some(&true) {
                choices.pop();
            }
            match choices.last_mut() {
                Some(last) => *last = true,
                None => break,
            }
        }
        let has_pages = units.iter().any(|unit| matches!(unit, Unit::Page(..)));
        if has_pages { self.try_random(disk, TORN_SAMPLES, &mut check) } else { Ok(()) }
    }

    fn try_random(
        &mut self,
        disk: &SimDisk,
        samples: usize,
        check: &mut impl FnMut(Arc<SimDisk>, usize) -> Result<(), String>,
    ) -> Result<(), String> {
        for _ in 0..samples {
            let mut fates = Vec::new();
            let image = disk.survivors(|unit| {
                let fate = match self.rng.below(3) {
                    0 => Fate::Lost,
                    1 => Fate::Kept,
                    _ => Fate::Torn(u8::try_from(self.rng.below(256)).expect("a byte")),
                };
                fates.push((unit.clone(), fate));
                fate
            });
            self.count += 1;
            check(image, self.count).map_err(|error| format!("with {fates:?}: {error}"))?;
        }
        Ok(())
    }
}

fn check_image(script: &Script, image: &Arc<SimDisk>, progress: Progress) -> Result<Log, String> {
    let log = look(image).map_err(|error| format!("does not open: {error}"))?;
    script.judge(&log, progress.durable, progress.submitted)?;
    Ok(log)
}

/// What a sweep did.
#[derive(Debug)]
struct Swept {
    steps: u64,
    images: usize,
    /// Steps with too many unsynced units for all subsets.
    sampled: usize,
}

/// Crashes a script at each of its steps and checks what may be left.
async fn sweep(script: &Script, prepare: impl Fn(&SimDisk)) -> Result<Swept, String> {
    let mut images = Images::new();
    for step in 1.. {
        let disk = SimDisk::new(step);
        prepare(&disk);
        disk.power_off_at(step);
        let progress = run_script(script, &disk).await;
        if !disk.is_off() {
            return Ok(Swept { steps: step - 1, images: images.count, sampled: images.sampled });
        }
        images
            .try_all(&disk, |image, _| check_image(script, &image, progress).map(drop))
            .map_err(|error| format!("step {step}, {progress:?}: {error}"))?;
    }
    unreachable!("a script ends");
}

#[test]
fn a_crash_at_every_step_loses_nothing_and_invents_nothing() {
    let script = Script::write(3, 60);
    let swept = world::run(sweep(&script, |_| {})).unwrap();
    println!("{} records: {swept:?}", script.records());
    let is_enough = swept.steps >= 200 && swept.images > 10_000 && swept.sampled > 5;
    assert!(is_enough, "the script does too little: {swept:?}");
}

#[test]
fn a_log_on_a_disk_that_lies_about_syncs_is_found_out() {
    let script = Script::write(1, 20);
    for lie in [Lie::Data, Lie::Names] {
        let found = world::run(sweep(&script, |disk| disk.lie_about(lie)));
        assert!(found.is_err(), "the crash test did not see that {lie:?} was never durable: {found:?}");
    }
}

/// How one life of a log ends.
async fn live(disk: &Arc<SimDisk>, rng: &SimRng) -> Result<Arc<SimDisk>, String> {
    let before = look(disk).map_err(|error| format!("does not open: {error}"))?;
    let script = Script::write_on(&before, rng.next_u64(), 12)?;
    drop(before);
    let end = disk.steps() + 1 + rng.below(60);
    let with_power_loss = rng.one_in(2);
    if with_power_loss {
        disk.power_off_at(end);
    } else {
        // The member halts and is started again on the same machine: the page cache shows what is not on the disk.
        disk.fail_at(end, io::ErrorKind::Other);
    }
    let progress = run_script(&script, disk).await;
    let after = if with_power_loss {
        let mut seed = SimRng::new(rng.next_u64());
        random_survivors(disk, &mut seed)
    } else {
        disk.kill_processes();
        Arc::clone(disk)
    };
    check_image(&script, &after, progress).map(drop).map_err(|e| format!("{progress:?}, end {end}: {e}"))?;
    Ok(after)
}

fn random_survivors(disk: &SimDisk, rng: &mut SimRng) -> Arc<SimDisk> {
    disk.survivors(|_| match rng.below(3) {
        0 => Fate::Lost,
        1 => Fate::Kept,
        _ => Fate::Torn(u8::try_from(rng.below(256)).expect("a byte")),
    })
}

#[test]
fn a_log_survives_crash_after_crash_also_during_recovery() {
    for seed in 0..200 {
        world::run(async {
            let rng = SimRng::new(seed);
            let mut disk = SimDisk::new(seed);
            for life in 0..8 {
                disk = live(&disk, &rng)
                    .await
                    .unwrap_or_else(|error| panic!("seed {seed}, life {life}: {error}"));
            }
        });
    }
}

// A write of two pages loses the first one. What is appended then ends exactly where the second page begins: its
// records would follow on, had the cut not overwritten them.
#[test]
fn what_a_torn_write_left_behind_never_comes_back() {
    /// What the first page of records takes beside the segment's head and the headers of an entry.
    const TO_THE_END_OF_THE_PAGE: usize = 4096 - 88 - 40;
    world::run(async {
        let disk = SimDisk::new(0);
        let log = Log::open(&env(&disk, Arc::new(SimSpawn::default())), config()).unwrap();
        settle(&log).await;
        disk.power_off_at(disk.steps() + 2);
        log.append(vec![entry(0, TO_THE_END_OF_THE_PAGE), entry(1, 100)], count(&Arc::default())).unwrap();
        settle(&log).await;
        let units = disk.unsynced();
        assert!(matches!(units.as_slice(), [Unit::Page(_, 1), Unit::Page(_, 2)]), "{units:?}");
        let disk =
            disk.survivors(|unit| if matches!(unit, Unit::Page(_, 2)) { Fate::Kept } else { Fate::Lost });

        let log = Log::open(&env(&disk, Arc::new(SimSpawn::default())), config()).unwrap();
        assert_eq!(log.state().last, None);
        let durable = Arc::new(AtomicUsize::new(0));
        log.append(vec![entry(0, TO_THE_END_OF_THE_PAGE)], count(&durable)).unwrap();
        settle(&log).await;
        assert_eq!(durable.load(Ordering::SeqCst), 1);
        let left = look(&disk.survivors(|_| Fate::Lost)).unwrap();
        assert_eq!(left.state().last, Some(entry(0, 0).id), "entry 1 was never acknowledged and was cut");
    });
}

// What is padded, and what is written again, is a part of a sector and not of a page.
#[test]
fn a_write_takes_no_more_than_its_sectors() {
    world::run(async {
        let disk = SimDisk::new(0);
        let log = Log::open(&env(&disk, Arc::new(SimSpawn::default())), config()).unwrap();
        settle(&log).await;
        for number in 0..20 {
            let before = log.stats().written_bytes;
            log.append(vec![entry(number, 100)], count(&Arc::default())).unwrap();
            settle(&log).await;
            let written = log.stats().written_bytes - before;
            assert!(written <= 2 * SECTOR_BYTES as u64, "entry {number} took {written} bytes");
        }
    });
}

/// A log with all of a script durable.
async fn written(script: &Script) -> Arc<SimDisk> {
    let disk = SimDisk::new(0);
    let progress = run_script(script, &disk).await;
    assert_eq!(progress.submitted, script.records());
    disk.kill_processes();
    disk
}

#[test]
fn damage_inside_is_refused_and_never_read() {
    let script = Script::write_growing(3, 60);
    world::run(async {
        let disk = written(&script).await;
        let last_round = script.records_before_the_last_round();
        let rng = SimRng::new(5);
        let (mut refused, mut cut, mut harmless) = (0, 0, 0);
        for (path, bytes) in disk.files() {
            for _ in 0..100 {
                let offset = rng.below(bytes);
                let damaged = disk.survivors(|_| Fate::Kept);
                damaged.flip(&path, offset, 1 << rng.below(8)).unwrap();
                let at = format!("{} at {offset}", path.display());
                let log = match look(&damaged) {
                    Ok(log) => log,
                    Err(error) => {
                        assert_names_the_way_on(&error, &path);
                        refused += 1;
                        continue;
                    }
                };
                match log.read(LogIndex::new(0), LogIndex::new(u64::MAX), usize::MAX) {
                    Err(error) => {
                        assert_names_the_way_on(&error, &path);
                        refused += 1;
                    }
                    Ok(_) if script.judge(&log, script.records(), script.records()).is_ok() => harmless += 1,
                    // The end of the last write cannot be told from one that was torn.
                    Ok(_) => {
                        script
                            .judge(&log, last_round, script.records())
                            .map_err(|e| format!("{at}: {e}"))
                            .unwrap();
                        cut += 1;
                    }
                }
            }
        }
        println!(
            "{refused} refused, {harmless} outside of what counts, {cut} cut at the end of the last write"
        );
        assert!(refused > 1000 && cut < refused / 10, "{refused} refused, {cut} cut");
    });
}

fn assert_names_the_way_on(error: &LogError, path: &Path) {
    let text = error.to_string();
    match error {
        LogError::Damaged { .. } | LogError::NewerFormat { .. } => {
            assert!(text.contains(&path.display().to_string()), "{text}");
        }
        // The lost end of the last write held a purge, after which this file was recycled.
        LogError::Missing { .. } => {}
        _ => panic!("{text}"),
    }
    assert!(text.contains("under a new id") || text.contains("start the newer version"), "{text}");
}

#[test]
fn a_refused_log_is_left_as_it_is_and_a_missing_segment_is_named() {
    let script = Script::write_growing(3, 60);
    world::run(async {
        let disk = written(&script).await;
        let segments: Vec<PathBuf> = disk
            .files()
            .into_iter()
            .map(|file| file.0)
            .filter(|p| p.extension().is_some_and(|e| e == "seg"))
            .collect();
        assert!(segments.len() > 2, "{segments:?}");
        for path in &segments[..segments.len() - 1] {
            let torn = disk.survivors(|_| Fate::Kept);
            holdfast_env::Disk::remove_file(&*torn.mount(), path).unwrap();
            let steps = torn.steps();
            let outcome = look(&torn).map(drop);
            if let Err(error) = &outcome {
                assert_eq!(torn.steps(), steps, "nothing is changed");
                assert!(error.to_string().contains(&path.display().to_string()), "{error}");
            }
            let current = &segments[segments.len() - 2];
            assert!(outcome.is_err() || path == current, "{} is missing", path.display());
        }
    });
}

fn entry(index: u64, bytes: usize) -> Entry {
    Entry { id: LogId::new(Term::new(1), LogIndex::new(index)), payload: Bytes::from(vec![7; bytes]) }
}

fn count(counter: &Arc<AtomicUsize>) -> Durable {
    let counter = Arc::clone(counter);
    Box::new(move || {
        counter.fetch_add(1, Ordering::SeqCst);
    })
}

/// A log on a disk with room for so many segments, filled with entries of 3000 bytes until it is full: the disk, the
/// log, how many entries it has, and the ones that became durable.
async fn filled(segments: u64, spawn: &SimSpawn) -> (Arc<SimDisk>, Log, u64, Arc<AtomicUsize>) {
    let disk = SimDisk::new(0);
    disk.set_capacity(Some(segments * SEGMENT_BYTES));
    let log = Log::open(&env(&disk, Arc::new(spawn.clone())), config()).expect("a new log opens");
    let durable = Arc::new(AtomicUsize::new(0));
    let mut entries = 0;
    settle(&log).await;
    while !log.is_full() {
        log.append(vec![entry(entries, 3000)], count(&durable))
            .expect("the log takes entries until it is full");
        entries += 1;
        settle(&log).await;
    }
    assert_eq!(durable.load(Ordering::SeqCst) as u64, entries, "it is full before entries have to wait");
    (disk, log, entries, durable)
}

/// Appends more than a segment takes. Returns how many entries the log has then.
async fn overfill(log: &Log, first: u64, durable: &Arc<AtomicUsize>) -> u64 {
    let end = first + 30;
    for index in first..end {
        log.append(vec![entry(index, 3000)], count(durable)).expect("a full disk makes entries wait");
    }
    settle(log).await;
    end
}

#[test]
fn entries_wait_on_a_full_disk_until_it_clears_itself() {
    world::run(async {
        let spawn = SimSpawn::default();
        let (disk, log, first, durable) = filled(3, &spawn).await;
        // What Raft itself needs is not refused.
        let votes = Arc::new(AtomicUsize::new(0));
        log.save_vote(Bytes::from_static(b"vote"), count(&votes)).unwrap();
        settle(&log).await;
        assert_eq!(votes.load(Ordering::SeqCst), 1);
        let end = overfill(&log, first, &durable).await;
        let before = durable.load(Ordering::SeqCst) as u64;
        assert!(first < before && before < end, "{first} {before} {end}");
        assert_eq!(
            look(&disk.survivors(|_| Fate::Lost)).unwrap().state().last,
            Some(entry(before - 1, 0).id)
        );

        disk.set_capacity(None);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(!log.is_full());
        assert_eq!(durable.load(Ordering::SeqCst) as u64, end);
        assert_eq!(spawn.halt_reason(), None);
        let left = look(&disk.survivors(|_| Fate::Lost)).unwrap();
        assert_eq!(left.state().last, Some(entry(end - 1, 0).id));
    });
}

#[test]
fn a_start_on_a_full_disk_with_its_segment_used_up_refuses_nothing() {
    world::run(async {
        let spawn = SimSpawn::default();
        let (disk, log, first, durable) = filled(3, &spawn).await;
        overfill(&log, first, &durable).await;
        let before = durable.load(Ordering::SeqCst) as u64;
        spawn.kill();
        disk.kill_processes();
        let spawn = SimSpawn::default();
        let log = Log::open(&env(&disk, Arc::new(spawn.clone())), config()).unwrap();
        settle(&log).await;
        assert!(log.is_full());
        let durable = Arc::new(AtomicUsize::new(0));
        log.save_vote(Bytes::from_static(b"vote"), count(&durable)).unwrap();
        settle(&log).await;
        assert_eq!(durable.load(Ordering::SeqCst), 1);
        log.append(vec![entry(before, 3000)], count(&durable)).unwrap();
        settle(&log).await;
        assert_eq!(durable.load(Ordering::SeqCst), 1);
        disk.set_capacity(None);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(durable.load(Ordering::SeqCst), 2);
        assert_eq!(spawn.halt_reason(), None);
    });
}

#[test]
fn a_purge_does_not_wait_behind_entries_that_wait_for_space() {
    world::run(async {
        let spawn = SimSpawn::default();
        let (disk, log, first, durable) = filled(3, &spawn).await;
        let end = overfill(&log, first, &durable).await;
        assert!((durable.load(Ordering::SeqCst) as u64) < end);
        let through = entry(first - 1, 0).id;
        log.purge(entry(0, 0).id).unwrap();
        log.purge(through).unwrap();
        settle(&log).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(durable.load(Ordering::SeqCst) as u64, end);
        assert_eq!(spawn.halt_reason(), None);
        let left = look(&disk.survivors(|_| Fate::Lost)).unwrap();
        assert_eq!((left.state().purged, left.state().last), (Some(through), Some(entry(end - 1, 0).id)));
        assert_eq!(
            left.read(LogIndex::new(0), LogIndex::new(end), usize::MAX).unwrap().len() as u64,
            end - first
        );
    });
}

// The writer has taken a batch and waits for a segment. What is queued meanwhile replaces entries of that batch, and
// the committed position speaks of what replaces them.
#[test]
fn a_committed_position_is_never_durable_before_what_was_queued_before_it() {
    world::run(async {
        let mut with_committed = 0;
        for step in 1..40 {
            let spawn = SimSpawn::default();
            let (disk, log, first, durable) = filled(3, &spawn).await;
            let end = overfill(&log, first, &durable).await;
            let replaced = Entry { id: LogId::new(Term::new(2), LogIndex::new(end - 3)), ..entry(0, 100) };
            log.truncate_after(Some(entry(end - 4, 0).id)).unwrap();
            log.append(vec![replaced.clone()], count(&durable)).unwrap();
            log.save_committed(replaced.id).unwrap();
            assert_eq!(log.committed_and_held().unwrap(), Some(replaced.id));
            disk.set_capacity(None);
            disk.power_off_at(disk.steps() + step);
            tokio::time::sleep(Duration::from_secs(2)).await;
            let is_over = !disk.is_off();
            for fate in [Fate::Lost, Fate::Kept] {
                let left = look(&disk.survivors(|_| fate)).unwrap();
                let committed = left.state().committed;
                assert_eq!(left.committed_and_held().unwrap(), committed, "step {step}: {:?}", left.state());
                assert!(committed.is_none() || left.state().last == committed, "{:?}", left.state());
                with_committed += usize::from(committed.is_some());
            }
            if is_over {
                break;
            }
        }
        assert!(with_committed > 0, "the committed position is written");
    });
}

#[test]
fn space_freed_by_a_purge_is_enough() {
    world::run(async {
        let disk = SimDisk::new(0);
        disk.set_capacity(Some(4 * SEGMENT_BYTES));
        let log = Log::open(&env(&disk, Arc::new(SimSpawn::default())), config()).unwrap();
        let durable = Arc::new(AtomicUsize::new(0));
        for index in 0..400 {
            log.append(vec![entry(index, 3000)], count(&durable)).unwrap();
            if index % 10 == 9 {
                log.purge(entry(index - 5, 0).id).unwrap();
            }
            settle(&log).await;
        }
        assert_eq!(durable.load(Ordering::SeqCst), 400);
        assert!(log.stats().segments_recycled > 10);
    });
}

#[test]
fn a_failed_write_or_sync_halts_and_answers_nothing() {
    for after in 1..=2 {
        world::run(async {
            let disk = SimDisk::new(0);
            let spawn = SimSpawn::default();
            let log = Log::open(&env(&disk, Arc::new(spawn.clone())), config()).unwrap();
            settle(&log).await;
            disk.fail_at(disk.steps() + after, io::ErrorKind::Other);
            let durable = Arc::new(AtomicUsize::new(0));
            log.append(vec![entry(0, 10)], count(&durable)).unwrap();
            settle(&log).await;
            assert_eq!(durable.load(Ordering::SeqCst), 0);
            assert!(spawn.halt_reason().is_some());
            let refused = log.append(vec![entry(1, 10)], count(&durable));
            assert!(matches!(refused, Err(LogError::Closed)), "{refused:?}");
        });
    }
}
