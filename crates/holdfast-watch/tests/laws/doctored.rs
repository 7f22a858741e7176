//! Each checker refuses a stream that breaks its law, and takes the sound one it was made from.

use bytes::Bytes;
use holdfast_mvcc::types::{Change, Record, RecordId, Revision};

use crate::checkers::{LAWS, Seen, Story, resumable};

fn record(revision: u64, sub: u32) -> Record {
    let id = RecordId::new(Revision::new(revision), sub);
    Record { id, key: Bytes::from_static(b"k"), change: Change::Delete }
}

fn events(ids: &[(u64, u32)]) -> Seen {
    Seen::Events(ids.iter().map(|&(revision, sub)| record(revision, sub)).collect())
}

fn progress(revision: u64) -> Seen {
    Seen::Progress(Revision::new(revision))
}

/// Revision 3 has two records, 4 and 6 one each; 5 is another key's.
fn sound() -> Story {
    Story {
        from: Revision::new(3),
        seen: vec![events(&[(3, 0), (3, 1)]), progress(3), events(&[(4, 0), (6, 0)]), progress(7)],
        wanted: vec![record(3, 0), record(3, 1), record(4, 0), record(6, 0)],
        is_complete: true,
    }
}

/// What the laws say, by name; empty when all are kept.
fn broken(story: &Story) -> Vec<&'static str> {
    LAWS.iter().filter(|(_, law)| law(story).is_err()).map(|(name, _)| *name).collect()
}

fn with_seen(seen: Vec<Seen>) -> Story {
    Story { seen, ..sound() }
}

#[test]
fn a_sound_stream_is_taken() {
    assert!(broken(&sound()).is_empty());
    let cut = Story { is_complete: false, ..with_seen(vec![events(&[(3, 0), (3, 1)])]) };
    assert!(broken(&cut).is_empty());
}

#[test]
fn what_nobody_asked_for_is_refused() {
    let doctored = with_seen(vec![events(&[(3, 0), (3, 1)]), events(&[(4, 0), (5, 0), (6, 0)])]);
    assert_eq!(broken(&doctored), ["asked for"]);
}

#[test]
fn a_wrong_order_is_refused() {
    let within = with_seen(vec![events(&[(3, 1), (3, 0)]), events(&[(4, 0), (6, 0)])]);
    assert_eq!(broken(&within), ["ordered"]);
    let across = with_seen(vec![events(&[(4, 0), (6, 0)]), events(&[(3, 0), (3, 1)])]);
    assert_eq!(broken(&across), ["ordered"]);
}

#[test]
fn an_event_that_comes_twice_is_refused() {
    let doctored =
        with_seen(vec![events(&[(3, 0), (3, 1)]), events(&[(4, 0)]), events(&[(4, 0)]), events(&[(6, 0)])]);
    assert_eq!(broken(&doctored), ["unique"]);
}

#[test]
fn a_gap_is_refused() {
    let middle = with_seen(vec![events(&[(3, 0), (3, 1)]), events(&[(6, 0)])]);
    assert_eq!(broken(&middle), ["reliable"]);
    let start = with_seen(vec![events(&[(4, 0), (6, 0)])]);
    assert_eq!(broken(&start), ["reliable"]);
    let end = with_seen(vec![events(&[(3, 0), (3, 1)]), events(&[(4, 0)])]);
    assert_eq!(broken(&end), ["reliable"]);
}

#[test]
fn half_a_revision_is_refused() {
    let doctored = with_seen(vec![events(&[(3, 0)]), events(&[(3, 1), (4, 0), (6, 0)])]);
    assert_eq!(broken(&doctored), ["atomic"]);
    let empty = with_seen(vec![events(&[(3, 0), (3, 1)]), events(&[]), events(&[(4, 0), (6, 0)])]);
    assert_eq!(broken(&empty), ["atomic"]);
}

#[test]
fn progress_that_lies_is_refused() {
    let early = with_seen(vec![events(&[(3, 0), (3, 1)]), progress(4), events(&[(4, 0), (6, 0)])]);
    assert_eq!(broken(&early), ["progress sound"]);
    let before_the_start = with_seen(vec![progress(1), events(&[(3, 0), (3, 1)]), events(&[(4, 0), (6, 0)])]);
    assert_eq!(broken(&before_the_start), ["progress sound"]);
}

#[test]
fn a_cancel_without_compaction_is_refused() {
    let canceled = |compact| Seen::Canceled(Revision::new(compact));
    let seen = |compact| with_seen(vec![events(&[(3, 0), (3, 1)]), canceled(compact)]);
    assert!(broken(&seen(5)).is_empty(), "it needed 4");
    assert_eq!(broken(&seen(4)), ["canceled by compaction only"], "4 is readable");
    let goes_on = with_seen(vec![events(&[(3, 0), (3, 1)]), canceled(9), events(&[(4, 0), (6, 0)])]);
    assert_eq!(broken(&goes_on), ["canceled by compaction only"]);
}

#[test]
fn a_resume_that_loses_or_repeats_is_refused() {
    let first = Story { is_complete: false, ..with_seen(vec![events(&[(3, 0), (3, 1)])]) };
    let resumed = |from: u64, seen: Vec<Seen>| {
        let wanted = sound().wanted.into_iter().filter(|record| record.id.revision.get() >= from).collect();
        Story { from: Revision::new(from), seen, wanted, is_complete: true }
    };
    let sound = resumed(4, vec![events(&[(4, 0), (6, 0)])]);
    assert_eq!(resumable(&first, &sound), Ok(()));
    let loses = resumed(4, vec![events(&[(6, 0)])]);
    assert!(resumable(&first, &loses).is_err());
    let repeats = resumed(4, vec![events(&[(3, 1), (4, 0), (6, 0)])]);
    assert!(resumable(&first, &repeats).is_err());
    let skips = resumed(5, vec![events(&[(6, 0)])]);
    assert!(resumable(&first, &skips).is_err());
}
