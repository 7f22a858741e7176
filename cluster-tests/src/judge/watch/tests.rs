//! An honest record passes; each doctored one is refused, for the law that it breaks.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::history::{Applied, Flaw, Step};
use super::record::{Compaction, Content, End, Kind, Message, Pair, Print, Seen, Session, Whose, Wish};
use super::*;
use crate::client::{Contents, Stored};

/// Revisions 2 to 9 on three keys; 5 changes two keys at once, 8 deletes a range of two.
fn commands() -> Vec<Applied> {
    let put = |key: &str, value: &str| Step::Put { key: bytes(key), value: bytes(value), lease: 0 };
    let delete = |key: &str, end: &str| Step::Delete { key: bytes(key), range_end: bytes(end) };
    let steps = [
        vec![put("a", "1")],
        vec![put("b", "2")],
        vec![put("a", "3")],
        vec![put("a", "4"), put("b", "5")],
        vec![delete("a", "")],
        vec![put("a", "6")],
        vec![delete("a", "c")],
        vec![put("c", "7")],
    ];
    (2..).zip(steps).map(|(revision, steps)| Applied { revision, steps }).collect()
}

fn contents() -> Contents {
    let stored = Stored { value: bytes("7"), create_revision: 9, mod_revision: 9, version: 1 };
    Contents { revision: 9, pairs: BTreeMap::from([(bytes("c"), stored)]) }
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn pair(value: &str, create_revision: i64, mod_revision: i64, version: i64) -> Print {
    Pair { value: value.as_bytes(), create_revision, mod_revision, version, lease: 0 }.print()
}

/// A whole run: one watcher of everything with pairs before the change that resumes once, one of the deletes alone, one
/// that starts in the future, one that was compacted away.
struct Run {
    history: History,
    keys: KeyTable,
    lives: Vec<Life>,
    strays: Vec<Stray>,
    compactions: Vec<Compaction>,
}

const EVERYTHING: usize = 0;
const DELETES: usize = 1;
const FUTURE: usize = 2;
const COMPACTED: usize = 3;

impl Run {
    fn honest() -> Self {
        let mut keys = KeyTable::default();
        let history = History::replay(&commands(), &contents(), &mut keys).expect("commands explain all");
        let mut run = Self { history, keys, lives: Vec::new(), strays: Vec::new(), compactions: Vec::new() };
        run.compactions.push(Compaction { revision: 6, asked_at: ms(500) });
        let all = Wish { key: bytes("a"), range_end: bytes("z"), ..Wish::default() };
        let everything = Wish { prev_kv: true, progress_notify: true, ..all.clone() };
        let sessions =
            vec![run.session(&everything, 2, &[2, 3, 4, 5]), run.session(&everything, 6, &[6, 7, 8, 9])];
        run.lives.push(Life { wish: everything, sessions, is_to_the_end: true });
        let deletes = Wish { no_puts: true, ..all.clone() };
        let sessions = vec![run.session(&deletes, 0, &[6, 8])];
        run.lives.push(Life { wish: deletes, sessions, is_to_the_end: true });
        let sessions = vec![run.session(&all, 8, &[8, 9])];
        run.lives.push(Life { wish: all.clone(), sessions, is_to_the_end: true });
        let mut lost = run.session(&all, 2, &[2]);
        lost.end = End::Compacted { start: 6, at: ms(600) };
        let sessions = vec![lost, run.session(&all, 6, &[6, 7, 8, 9])];
        run.lives.push(Life { wish: all, sessions, is_to_the_end: true });
        run.progress(EVERYTHING, 0, 5);
        run.progress(EVERYTHING, 1, 9);
        run
    }

    /// A session created at revision 1 that got these revisions, one response each.
    fn session(&self, wish: &Wish, asked: i64, revisions: &[i64]) -> Session {
        let mut session = Session { created: Some(1), ..Session::asked_of(0, asked) };
        for revision in revisions {
            let first = session.events.len();
            let changes = self.history.changes().iter().filter(|change| change.revision == *revision);
            let wanted = changes.filter(|change| wish.wants(change.kind));
            session.events.extend(wanted.map(|change| Seen {
                revision: change.revision,
                key: change.key,
                kind: change.kind,
                state: change.state,
                previous: change.previous.filter(|_| wish.prev_kv),
            }));
            let content = Content::Events { header: *revision, first, end: session.events.len() };
            let at = ms(100 * u64::try_from(*revision).expect("a small revision"));
            session.messages.push(Message { at, content });
        }
        session
    }

    fn progress(&mut self, life: usize, session: usize, revision: i64) {
        let content = Content::Progress { revision, of: Whose::Watcher };
        self.lives[life].sessions[session].messages.push(Message { at: ms(950), content });
    }

    fn first(&mut self, life: usize) -> &mut Session {
        &mut self.lives[life].sessions[0]
    }

    fn findings(&self) -> Vec<Finding> {
        let Self { history, keys, lives, strays, compactions } = self;
        judge(&Record { history, keys, lives, strays, compactions })
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Drops the responses of a session for which `dropped` says so, with their events.
fn drop_responses(session: &mut Session, dropped: impl Fn(i64) -> bool) {
    let old = std::mem::take(&mut session.events);
    let mut kept = Vec::new();
    for mut message in std::mem::take(&mut session.messages) {
        if let Content::Events { header, first, end } = message.content {
            if dropped(header) {
                continue;
            }
            let at = session.events.len();
            session.events.extend_from_slice(&old[first..end]);
            message.content = Content::Events { header, first: at, end: session.events.len() };
        }
        kept.push(message);
    }
    session.messages = kept;
}

/// The breaches after `change` was done to an honest run.
fn doctored(change: impl FnOnce(&mut Run)) -> Vec<Breach> {
    let mut run = Run::honest();
    change(&mut run);
    run.findings().into_iter().map(|finding| finding.breach).collect()
}

/// Expects exactly this.
fn refused(breach: Breach, change: impl FnOnce(&mut Run)) {
    assert_eq!(doctored(change), vec![breach]);
}

/// Expects this, among what else follows from it.
fn refused_with(law: Law, breach: &Breach, change: impl FnOnce(&mut Run)) {
    let breaches = doctored(change);
    assert!(breaches.contains(breach), "{breaches:?}");
    assert_eq!(breach.law(), law);
}

#[test]
fn an_honest_run_has_no_findings() {
    assert_eq!(doctored(|_| {}), vec![]);
}

#[test]
fn ordered_refuses_swapped_revisions() {
    refused_with(Law::Ordered, &Breach::OutOfOrder { revision: 3, after: 4 }, |run| {
        run.first(EVERYTHING).events.swap(1, 2);
    });
}

#[test]
fn ordered_refuses_swapped_changes_of_one_revision() {
    refused(Breach::OutOfOrder { revision: 5, after: 5 }, |run| run.first(EVERYTHING).events.swap(3, 4));
}

#[test]
fn ordered_refuses_a_header_behind_its_events() {
    refused(Breach::HeaderBehind { header: 3, revision: 4 }, |run| {
        run.first(EVERYTHING).messages[2].content = Content::Events { header: 3, first: 2, end: 3 };
    });
}

#[test]
fn unique_refuses_an_event_twice() {
    refused(Breach::Repeated { revision: 4, key: "a".to_owned() }, |run| {
        let session = run.first(EVERYTHING);
        session.events[3] = session.events[2];
        session.events.truncate(4);
        session.messages.truncate(3);
        session.messages[2].content = Content::Events { header: 4, first: 2, end: 4 };
        // All else as if nothing were missing: the next session begins with revision 5.
        let wish = run.lives[EVERYTHING].wish.clone();
        run.lives[EVERYTHING].sessions[1] = run.session(&wish, 5, &[5, 6, 7, 8, 9]);
    });
}

#[test]
fn a_resume_refuses_what_came_before() {
    refused(Breach::BeforeStart { revision: 5, start: 6 }, |run| {
        let wish = run.lives[COMPACTED].wish.clone();
        let mut again = run.session(&wish, 6, &[5, 6, 7, 8, 9]);
        // One of the two changes of revision 5.
        again.events.remove(0);
        for message in &mut again.messages {
            if let Content::Events { first, end, .. } = &mut message.content {
                *first = first.saturating_sub(1);
                *end -= 1;
            }
        }
        run.lives[COMPACTED].sessions[1] = again;
    });
}

#[test]
fn reliable_refuses_a_gap() {
    refused(Breach::Gap { missing: 7, before: 8 }, |run| {
        drop_responses(&mut run.lives[COMPACTED].sessions[1], |revision| revision == 7);
    });
}

#[test]
fn reliable_refuses_a_lost_delete() {
    refused(Breach::Gap { missing: 8, before: 9 }, |run| {
        drop_responses(&mut run.lives[COMPACTED].sessions[1], |revision| revision == 8);
    });
}

#[test]
fn reliable_refuses_a_watcher_that_never_gets_to_the_end() {
    refused(Breach::Unfinished { missing: 8, next: 7 }, |run| {
        drop_responses(run.first(DELETES), |revision| revision == 8);
    });
}

#[test]
fn a_watcher_that_its_client_gave_up_need_not_get_to_the_end() {
    let breaches = doctored(|run| {
        drop_responses(run.first(DELETES), |revision| revision == 8);
        run.lives[DELETES].is_to_the_end = false;
    });
    assert_eq!(breaches, vec![]);
}

#[test]
fn atomic_refuses_a_revision_in_two_responses() {
    refused(Breach::Split { revision: 5 }, |run| {
        let session = run.first(EVERYTHING);
        session.messages[3].content = Content::Events { header: 5, first: 3, end: 4 };
        let second = Content::Events { header: 5, first: 4, end: 5 };
        session.messages.insert(4, Message { at: ms(501), content: second });
    });
}

#[test]
fn atomic_refuses_half_a_revision() {
    refused(Breach::Torn { revision: 5, got: 1, of: 2 }, |run| {
        let session = run.first(EVERYTHING);
        session.events.truncate(4);
        session.messages[3].content = Content::Events { header: 5, first: 3, end: 4 };
    });
}

#[test]
fn resumable_refuses_a_loss_at_the_resume() {
    refused(Breach::NotResumed { start: 6, missing: 6, first: 7 }, |run| {
        drop_responses(&mut run.lives[COMPACTED].sessions[1], |revision| revision == 6);
    });
}

#[test]
fn resumable_refuses_a_record_with_a_hole() {
    refused(Breach::BrokenRecord { next: 6, asked: 7 }, |run| {
        let wish = run.lives[EVERYTHING].wish.clone();
        run.lives[EVERYTHING].sessions[1] = run.session(&wish, 7, &[7, 8, 9]);
    });
}

#[test]
fn progress_refuses_a_notice_before_the_events() {
    refused_with(Law::Progress, &Breach::TooEarlyProgress { progress: 5, missing: 5 }, |run| {
        run.first(EVERYTHING).messages.swap(3, 4);
    });
}

#[test]
fn progress_refuses_events_after_the_notice() {
    refused_with(Law::Progress, &Breach::EventAfterProgress { progress: 5, revision: 5 }, |run| {
        run.first(EVERYTHING).messages.swap(3, 4);
    });
}

#[test]
fn progress_refuses_a_notice_that_covers_what_never_came() {
    refused_with(Law::Progress, &Breach::TooEarlyProgress { progress: 9, missing: 9 }, |run| {
        drop_responses(&mut run.lives[EVERYTHING].sessions[1], |revision| revision == 9);
    });
}

#[test]
fn progress_refuses_a_notice_below_a_future_start() {
    refused(Breach::ProgressBeforeStart { progress: 6, start: 8 }, |run| {
        let content = Content::Progress { revision: 6, of: Whose::Watcher };
        run.first(FUTURE).messages.insert(0, Message { at: ms(100), content });
    });
}

#[test]
fn a_future_start_refuses_older_events() {
    refused(Breach::BeforeStart { revision: 7, start: 8 }, |run| {
        let wish = run.lives[FUTURE].wish.clone();
        run.lives[FUTURE].sessions[0] = run.session(&wish, 8, &[7, 8, 9]);
    });
}

#[test]
fn a_start_from_now_refuses_what_was_before() {
    refused(Breach::BeforeStart { revision: 6, start: 8 }, |run| run.first(DELETES).created = Some(7));
}

#[test]
fn a_start_refuses_events_before_the_answer() {
    let breaches = doctored(|run| run.first(FUTURE).created = None);
    assert_eq!(breaches, vec![Breach::NotCreated]);
}

#[test]
fn faithful_refuses_events_that_never_were() {
    refused_with(Law::Faithful, &Breach::Phantom { revision: 4, key: "c".to_owned() }, |run| {
        let stranger = run.keys.id(b"c");
        run.first(EVERYTHING).events[2].key = stranger;
    });
}

#[test]
fn faithful_refuses_what_the_filter_stops() {
    refused_with(Law::Faithful, &Breach::Unasked { revision: 7, key: "a".to_owned() }, |run| {
        let all = Wish { no_puts: false, ..run.lives[DELETES].wish.clone() };
        run.lives[DELETES].sessions[0] = run.session(&all, 0, &[6, 7, 8]);
    });
}

#[test]
fn faithful_refuses_keys_out_of_range() {
    refused_with(Law::Faithful, &Breach::Unasked { revision: 9, key: "c".to_owned() }, |run| {
        run.lives[FUTURE].wish.range_end = bytes("c");
    });
}

#[test]
fn faithful_refuses_another_value() {
    refused(Breach::Altered { revision: 4, key: "a".to_owned() }, |run| {
        run.first(EVERYTHING).events[2].state = pair("x", 2, 4, 2);
    });
}

#[test]
fn faithful_refuses_a_delete_told_as_a_put() {
    refused(Breach::Altered { revision: 8, key: "a".to_owned() }, |run| {
        run.first(FUTURE).events[0].kind = Kind::Put;
    });
}

#[test]
fn prev_kv_refuses_a_later_state() {
    refused(Breach::WrongPrevious { revision: 4, key: "a".to_owned() }, |run| {
        run.first(EVERYTHING).events[2].previous = Some(pair("3", 2, 4, 2));
    });
}

#[test]
fn prev_kv_refuses_an_absence_without_compaction() {
    refused(Breach::NoPrevious { revision: 4, key: "a".to_owned() }, |run| {
        run.first(EVERYTHING).events[2].previous = None;
    });
}

#[test]
fn prev_kv_is_excused_by_a_compaction() {
    let breaches = doctored(|run| {
        run.compactions.push(Compaction { revision: 5, asked_at: ms(300) });
        run.first(EVERYTHING).events[2].previous = None;
    });
    assert_eq!(breaches, vec![]);
}

#[test]
fn prev_kv_refuses_one_that_nobody_asked_for() {
    refused(Breach::UnaskedPrevious { revision: 8, key: "a".to_owned() }, |run| {
        run.first(FUTURE).events[0].previous = Some(pair("6", 7, 7, 1));
    });
}

#[test]
fn prev_kv_refuses_one_for_a_creation() {
    refused(Breach::UnaskedPrevious { revision: 2, key: "a".to_owned() }, |run| {
        run.first(EVERYTHING).events[0].previous = Some(pair("1", 2, 2, 1));
    });
}

#[test]
fn cancel_refuses_a_compaction_that_was_not_asked_for() {
    refused(Breach::NoSuchCompaction { compact_revision: 6 }, |run| {
        run.compactions[0].asked_at = ms(601);
    });
}

#[test]
fn cancel_refuses_a_compaction_that_does_not_reach_the_watcher() {
    refused(Breach::NeedlessCancel { compact_revision: 6, next: 6 }, |run| {
        run.first(EVERYTHING).end = End::Compacted { start: 6, at: ms(600) };
    });
}

#[test]
fn cancel_refuses_one_without_a_reason() {
    refused(Breach::CanceledUnasked, |run| run.first(FUTURE).end = End::Refused);
}

#[test]
fn cancel_refuses_responses_for_a_watcher_that_is_gone() {
    refused(Breach::Stray { watch_id: 3 }, |run| run.strays.push(Stray { member: 0, watch_id: 3 }));
}

#[test]
fn ranges_are_those_of_the_contract() {
    let covers = |key: &str, end: &[u8], other: &str| {
        let range_end = Bytes::copy_from_slice(end);
        Wish { key: bytes(key), range_end, ..Wish::default() }.covers(other.as_bytes())
    };
    assert!(covers("a", b"", "a") && !covers("a", b"", "ab"));
    assert!(covers("a", b"c", "a") && covers("a", b"c", "bz") && !covers("a", b"c", "c"));
    assert!(covers("b", b"\0", "z") && !covers("b", b"\0", "a"));
}

/// The flaws of the honest commands and contents after `change`.
fn flaws(change: impl FnOnce(&mut Vec<Applied>, &mut Contents)) -> Vec<Flaw> {
    let (mut commands, mut contents) = (commands(), contents());
    change(&mut commands, &mut contents);
    History::replay(&commands, &contents, &mut KeyTable::default()).err().unwrap_or_default()
}

#[test]
fn a_history_with_an_unexplained_revision_is_none() {
    assert!(flaws(|commands, _| drop(commands.remove(2))).contains(&Flaw::Unexplained { revision: 4 }));
    assert_eq!(flaws(|_, contents| contents.revision = 10), vec![Flaw::Unexplained { revision: 10 }]);
}

#[test]
fn a_history_with_a_shared_revision_is_none() {
    let found = flaws(|commands, _| commands.push(commands[0].clone()));
    assert_eq!(found, vec![Flaw::Shared { revision: 2 }]);
}

#[test]
fn a_history_that_goes_beyond_the_store_is_none() {
    let steps = vec![Step::Put { key: bytes("d"), value: bytes("8"), lease: 0 }];
    let found = flaws(|commands, _| commands.push(Applied { revision: 10, steps }));
    assert_eq!(found, vec![Flaw::Beyond { revision: 10, newest: 9 }]);
}

#[test]
fn a_history_with_a_command_that_does_nothing_is_none() {
    let found = flaws(|commands, _| {
        commands[4].steps = vec![Step::Delete { key: bytes("x"), range_end: Bytes::new() }];
    });
    assert!(found.contains(&Flaw::Idle { revision: 6 }), "{found:?}");
}

#[test]
fn a_history_that_ends_otherwise_than_the_store_is_none() {
    let found = flaws(|_, contents| contents.pairs.clear());
    assert!(matches!(found[..], [Flaw::Differs { found: None, .. }]), "{found:?}");
}
