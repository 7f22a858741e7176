//! What rounds of answers become.

use super::*;
use crate::demo::probe::Positions;

fn running(pid: u32) -> Process {
    Process::Running { pid }
}

fn answer(id: u64, leader: u64) -> Seen {
    Seen { id, leader, term: 1, dispatcher: "normal".to_owned(), ..Default::default() }
}

/// A second later: what the three say, and what their processes do.
fn round(model: &mut Model, seen: [Option<Seen>; 3], processes: [Process; 3]) -> Vec<String> {
    model.events.clear();
    let at = model.now + Duration::from_secs(1);
    let (seen, processes) = (Vec::from(seen), Vec::from(processes));
    model.observe(Round { at, seen, processes, traffic: Second::default() });
    model.events.iter().map(|event| event.text.clone()).collect()
}

fn model() -> Model {
    Model::new(["n1", "n2", "n3"].into_iter().enumerate().map(|(at, name)| (name, format!("http://h:{at}"))))
}

fn all(leader: u64) -> [Option<Seen>; 3] {
    [1, 2, 3].map(|id| Some(answer(id, leader)))
}

const UP: [Process; 3] =
    [Process::Running { pid: 1 }, Process::Running { pid: 2 }, Process::Running { pid: 3 }];

#[test]
fn the_first_leader_is_no_change_and_the_next_one_is() {
    let mut model = model();
    assert_eq!(round(&mut model, all(0), UP), [""; 0]);
    assert_eq!((model.leader, model.answering()), (None, 3));
    assert_eq!(round(&mut model, all(2), UP), ["n2 leads in term 1"]);
    assert_eq!(round(&mut model, all(2), UP), [""; 0]);
    assert_eq!((model.leader, model.leader_changes), (Some(1), 0));
    let new = [1, 2, 3].map(|id| Some(Seen { term: 2, ..answer(id, 3) }));
    assert_eq!(round(&mut model, new, UP), ["n3 leads in term 2"]);
    assert_eq!((model.leader, model.term, model.leader_changes), (Some(2), 2, 1));
}

#[test]
fn the_newest_term_says_who_leads() {
    let mut model = model();
    let cut_off = answer(1, 1);
    let others = [2, 3].map(|id| Some(Seen { term: 5, ..answer(id, 2) }));
    round(&mut model, [Some(cut_off), others[0].clone(), others[1].clone()], UP);
    assert_eq!((model.leader, model.term), (Some(1), 5));
}

#[test]
fn a_killed_leader_is_none_at_once_and_its_figures_are_old() {
    let mut model = model();
    round(&mut model, all(1), UP);
    let processes = [Process::Ended, running(2), running(3)];
    let events = round(&mut model, [None, Some(answer(2, 1)), Some(answer(3, 1))], processes);
    assert_eq!(events, ["there is no leader"]);
    let n1 = &model.members[0];
    assert_eq!((n1.role(model.now), n1.answers(), n1.seen.is_some()), (Role::Ended, false, true));
    // Its new process has not spoken yet.
    round(&mut model, [None, Some(answer(2, 3)), Some(answer(3, 3))], [running(9), running(2), running(3)]);
    assert_eq!(model.members[0].role(model.now), Role::Silent(Duration::from_secs(1)));
    let events = round(&mut model, all(3), [running(9), running(2), running(3)]);
    assert_eq!(events, ["n1 answers again after 2 s"]);
    assert_eq!(model.members[0].role(model.now), Role::Follower);
}

#[test]
fn a_paused_member_is_silent_and_marked() {
    let mut model = model();
    round(&mut model, all(1), UP);
    let paused = [running(1), Process::Paused { pid: 2 }, running(3)];
    let events = round(&mut model, [Some(answer(1, 1)), None, Some(answer(3, 1))], paused);
    assert_eq!(events, ["n2 does not answer"]);
    assert_eq!((model.members[1].role(model.now), model.answering()), (Role::Paused, 2));
    assert_eq!(round(&mut model, all(1), UP), ["n2 answers again after 1 s"]);
}

#[test]
fn dumps_and_snapshots_are_told() {
    let mut model = model();
    round(&mut model, all(1), UP);
    let dumping = Seen { dispatcher: "dumping".to_owned(), ..answer(1, 1) };
    let mut said = all(1);
    said[0] = Some(dumping);
    assert_eq!(round(&mut model, said, UP), ["n1: dispatcher normal → dumping"]);
    let log = Positions { snapshot: Some(0), ..Positions::default() };
    let mut before = all(1);
    before[0] = Some(Seen { log, ..answer(1, 1) });
    round(&mut model, before, UP);
    let mut after = all(1);
    after[0] = Some(Seen { log: Positions { snapshot: Some(77), ..log }, ..answer(1, 1) });
    assert_eq!(round(&mut model, after, UP), ["n1 has a new snapshot, up to log index 77"]);
}

#[test]
fn rates_are_of_the_time_between_answers_and_begin_anew_after_silence() {
    let mut model = model();
    for second in 0..15_u32 {
        let mut said = all(1);
        said[0] = Some(Seen {
            requests: u64::from(second) * 40,
            cpu_seconds: f64::from(second) * 0.25,
            ..answer(1, 1)
        });
        round(&mut model, said, UP);
    }
    assert_eq!(model.members[0].requests_per_second(), Some(40.0));
    assert_eq!(model.members[0].cpu_percent(), Some(25.0));
    round(&mut model, [None, Some(answer(2, 1)), Some(answer(3, 1))], UP);
    assert_eq!(model.members[0].requests_per_second(), None);
}

#[test]
fn what_is_kept_is_bounded() {
    let mut model = model();
    for _ in 0..HISTORY_MAX + 10 {
        round(&mut model, all(1), UP);
    }
    assert_eq!(model.history.len(), HISTORY_MAX);
    for number in 0..EVENTS_MAX + 10 {
        model.note(Mood::Neutral, number.to_string());
    }
    assert_eq!((model.events.len(), model.events[0].text.as_str()), (EVENTS_MAX, "10"));
}
