//! Each rule, and what it lets through.

use holdfast_mvcc::types::MemberId;

use super::*;
use crate::config::Member;

const STRICT: ChangeRules = ChangeRules { strict: true, learners_max: 1 };
const LOOSE: ChangeRules = ChangeRules { strict: false, learners_max: 1 };

fn node(id: u64, votes_later: bool) -> PeerNode {
    PeerNode { peer_urls: vec![format!("http://h:{id}")].into(), votes_later }
}

fn membership(voters: &[u64], learners: &[u64]) -> Membership {
    let nodes: BTreeMap<u64, PeerNode> =
        voters.iter().chain(learners).map(|id| (*id, node(*id, false))).collect();
    Membership::new(vec![voters.iter().copied().collect()], nodes).unwrap()
}

/// All have started, are connected, and match the leader, who is 1.
fn view(membership: &Membership) -> View<'_> {
    let ids: BTreeSet<u64> = membership.nodes().map(|(id, _)| *id).collect();
    View {
        membership,
        removed: &|id| id == 99,
        started: ids.clone(),
        connected: ids.clone(),
        matching: ids.into_iter().map(|id| (id, 1000)).collect(),
        here: 1,
    }
}

fn add(id: u64, is_learner: bool) -> MemberChange {
    MemberChange::Add(Member { id: MemberId(id), peer_urls: vec![format!("http://h:{id}")], is_learner })
}

#[test]
fn a_new_voter_begins_as_a_learner_that_votes_later() {
    let one = membership(&[1], &[]);
    let plan = view(&one).plan(&add(2, false), STRICT, false).unwrap();
    assert_eq!(plan, Plan::Change(ChangeMembers::AddNodes([(2, node(2, true))].into())));
    let plan = view(&one).plan(&add(2, true), STRICT, false).unwrap();
    assert_eq!(plan, Plan::Change(ChangeMembers::AddNodes([(2, node(2, false))].into())));
}

#[test]
fn ids_and_urls_are_not_taken_twice() {
    let three = membership(&[1, 2, 3], &[]);
    let view = view(&three);
    assert_eq!(view.plan(&add(99, false), STRICT, false), Err(ChangeError::IdTaken), "a removed id");
    assert_eq!(view.plan(&add(99, false), STRICT, true), Err(ChangeError::IdTaken), "also the second time");
    assert_eq!(view.plan(&add(3, false), STRICT, false), Err(ChangeError::IdTaken));
    assert_eq!(view.plan(&add(3, false), STRICT, true), Ok(Plan::Done), "the first try did it");
    let member = Member { id: MemberId(4), peer_urls: vec!["http://h:2".to_owned()], is_learner: false };
    assert_eq!(view.plan(&MemberChange::Add(member), STRICT, false), Err(ChangeError::UrlsTaken));
    let to = |id, port| MemberChange::Move { id: MemberId(id), peer_urls: vec![format!("http://h:{port}")] };
    assert_eq!(view.plan(&to(1, 2), STRICT, false), Err(ChangeError::UrlsTaken));
    assert_eq!(view.plan(&to(4, 9), STRICT, false), Err(ChangeError::NotFound));
    assert!(view.plan(&to(1, 1), STRICT, false).is_ok(), "its own");
}

#[test]
fn learners_are_bounded_and_promoted_only_when_they_have_caught_up() {
    let with_learner = membership(&[1], &[2]);
    let mut view = view(&with_learner);
    assert_eq!(view.plan(&add(3, true), STRICT, false), Err(ChangeError::TooManyLearners));
    let promote = |id| MemberChange::Promote(MemberId(id));
    assert_eq!(view.plan(&promote(3), STRICT, false), Err(ChangeError::NotFound));
    assert_eq!(view.plan(&promote(1), STRICT, false), Err(ChangeError::NotLearner));
    assert_eq!(view.plan(&promote(1), STRICT, true), Ok(Plan::Done));
    view.matching.insert(2, 899);
    assert_eq!(view.plan(&promote(2), STRICT, false), Err(ChangeError::NotReady));
    view.matching.insert(2, 900);
    assert_eq!(
        view.plan(&promote(2), STRICT, false),
        Ok(Plan::Change(ChangeMembers::AddVoterIds([2].into())))
    );
}

#[test]
fn a_quorum_of_started_and_connected_voters_stays() {
    let three = membership(&[1, 2, 3], &[4]);
    let mut view = view(&three);
    let remove = |id| MemberChange::Remove(MemberId(id));
    assert_eq!(view.plan(&remove(9), STRICT, false), Err(ChangeError::NotFound));
    assert_eq!(view.plan(&remove(99), STRICT, true), Ok(Plan::Done), "the first try did it");
    assert!(view.plan(&remove(3), STRICT, false).is_ok());
    view.connected.remove(&2);
    assert_eq!(view.plan(&remove(3), STRICT, false), Err(ChangeError::Unhealthy));
    assert!(view.plan(&remove(3), LOOSE, false).is_ok());
    assert!(view.plan(&remove(2), STRICT, false).is_ok(), "the one that is down");
    assert!(view.plan(&remove(4), STRICT, false).is_ok(), "a learner");
    assert_eq!(view.plan(&add(5, false), STRICT, false), Err(ChangeError::Unhealthy));
    view.started.remove(&2);
    view.started.remove(&3);
    assert_eq!(view.plan(&remove(3), STRICT, false), Err(ChangeError::NotEnoughStarted));
    assert_eq!(view.plan(&add(5, false), STRICT, false), Err(ChangeError::NotEnoughStarted));
}

#[test]
fn one_that_votes_later_counts_as_a_voter_that_has_not_started() {
    let nodes = BTreeMap::from([(1, node(1, false)), (2, node(2, true))]);
    let growing = Membership::new(vec![[1].into()], nodes).unwrap();
    let mut view = view(&growing);
    view.started.remove(&2);
    view.connected.remove(&2);
    assert_eq!(view.plan(&add(3, false), STRICT, false), Err(ChangeError::NotEnoughStarted));
    assert_eq!(view.plan(&MemberChange::Promote(MemberId(2)), STRICT, false), Err(ChangeError::NotLearner));
    let plan = view.plan(&MemberChange::Remove(MemberId(2)), STRICT, false);
    assert_eq!(plan, Ok(Plan::Change(ChangeMembers::RemoveNodes([2].into()))));
}

#[test]
fn the_last_voter_stays() {
    let one = membership(&[1], &[]);
    let plan = view(&one).plan(&MemberChange::Remove(MemberId(1)), STRICT, false);
    assert_eq!(plan, Err(ChangeError::NotEnoughStarted));
}
