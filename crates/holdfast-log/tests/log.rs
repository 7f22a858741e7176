//! The log on the real disk: what it promises to its callers, over restarts.

mod common;

use common::{all, append, config, done, entry, env, id, vote};
use holdfast_env::LogIndex;
use holdfast_log::{Log, LogError, LogState};

#[tokio::test(flavor = "multi_thread")]
async fn a_log_remembers_entries_vote_and_committed() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(&env(), config(dir.path())).unwrap();
    assert_eq!(log.state(), LogState::default());
    append(&log, vec![entry(1, 0, 10), entry(1, 1, 0)]).await;
    vote(&log, "for-7").await;
    log.save_committed(id(1, 1)).unwrap();
    append(&log, vec![entry(2, 2, 3000)]).await;
    let (state, entries) = (log.state(), all(&log));
    log.shutdown().await;

    let log = Log::open(&env(), config(dir.path())).unwrap();
    assert_eq!(log.state(), state);
    assert_eq!(all(&log), entries);
    assert_eq!(entries, [entry(1, 0, 10), entry(1, 1, 0), entry(2, 2, 3000)]);
    assert_eq!(state.committed, Some(id(1, 1)));
    assert_eq!(state.vote.as_deref(), Some(&b"for-7"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_segments_are_written_read_purged_and_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(&env(), config(dir.path())).unwrap();
    vote(&log, "early").await;
    let mut expected = Vec::new();
    for index in 0..100 {
        let entry = entry(1, index, 1000);
        expected.push(entry.clone());
        append(&log, vec![entry]).await;
    }
    assert_eq!(all(&log), expected);
    assert!(log.stats().segments > 5);
    assert!(log.stats().cached_bytes <= 2048);
    let some = log.read(LogIndex::new(30), LogIndex::new(90), 2500).unwrap();
    assert_eq!(some, expected[30..33]);

    log.shutdown().await;
    let log = Log::open(&env(), config(dir.path())).unwrap();
    assert_eq!(all(&log), expected);
    assert_eq!(log.read(LogIndex::new(50), LogIndex::new(51), 0).unwrap(), expected[50..51]);

    log.purge(id(1, 89)).unwrap();
    assert_eq!(all(&log), expected[90..]);
    for index in 100..140 {
        append(&log, vec![entry(1, index, 1000)]).await;
    }
    let stats = log.stats();
    assert!(stats.segments_recycled > 0, "{stats:?}");
    log.shutdown().await;
    let log = Log::open(&env(), config(dir.path())).unwrap();
    assert_eq!(log.state().purged, Some(id(1, 89)));
    assert_eq!(log.state().vote.as_deref(), Some(&b"early"[..]));
    assert_eq!(all(&log).len(), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncation_reaches_into_earlier_segments() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(&env(), config(dir.path())).unwrap();
    let mut expected: Vec<_> = (0..60).map(|index| entry(1, index, 1000)).collect();
    append(&log, expected.clone()).await;
    for (keep, term) in [(45, 2), (20, 3), (19, 4), (50, 5)] {
        expected.truncate(keep);
        log.truncate_after(expected.last().map(|entry| entry.id)).unwrap();
        let more: Vec<_> = (expected.len() as u64..60).map(|index| entry(term, index, 900)).collect();
        expected.extend(more.clone());
        append(&log, more).await;
        assert_eq!(all(&log), expected);
    }
    log.shutdown().await;
    let log = Log::open(&env(), config(dir.path())).unwrap();
    assert_eq!(all(&log), expected);
    log.truncate_after(None).unwrap();
    assert_eq!(log.state().last, None);
    append(&log, vec![entry(9, 0, 10)]).await;
    assert_eq!(all(&log), [entry(9, 0, 10)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_beyond_the_end_starts_the_log_anew() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(&env(), config(dir.path())).unwrap();
    append(&log, vec![entry(1, 0, 10), entry(1, 1, 10)]).await;
    log.purge(id(3, 1000)).unwrap();
    assert_eq!(log.state().last, Some(id(3, 1000)));
    assert!(all(&log).is_empty());
    let (callback, _) = done();
    let refused = log.append(vec![entry(3, 1002, 10)], callback);
    assert!(matches!(refused, Err(LogError::NotNext { .. })));
    append(&log, vec![entry(3, 1001, 10)]).await;
    log.shutdown().await;
    let log = Log::open(&env(), config(dir.path())).unwrap();
    assert_eq!(all(&log), [entry(3, 1001, 10)]);
    assert_eq!(log.state().purged, Some(id(3, 1000)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_log_takes_nothing_and_still_reads() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(&env(), config(dir.path())).unwrap();
    append(&log, vec![entry(1, 0, 10)]).await;
    log.shutdown().await;
    let (callback, _) = done();
    assert!(matches!(log.append(vec![entry(1, 1, 10)], callback), Err(LogError::Closed)));
    assert!(matches!(log.room().await, Err(LogError::Closed)));
    assert_eq!(all(&log), [entry(1, 0, 10)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_fits_no_segment_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(&env(), config(dir.path())).unwrap();
    let (callback, _) = done();
    let refused = log.append(vec![entry(1, 0, 9000)], callback);
    assert!(matches!(refused, Err(LogError::TooLarge { .. })));
    assert_eq!(log.state().last, None);
    append(&log, vec![entry(1, 0, 8000), entry(1, 1, 8000), entry(1, 2, 8000)]).await;
    assert_eq!(all(&log).len(), 3);
}
