//! Tables of every rule, and the laws of changes.

use std::sync::Arc;

use bytes::Bytes;

use super::permissions::Permissions;
use super::*;
use crate::State;
use crate::command::{
    Alarm, AlarmKind, Command, Compact, Compare, DeleteRange, LeaseCheckpoint, LeaseExpire, LeaseGrant,
    MemberAttributes, Op, Operand, Put, Range, Refusal, Relation, Txn,
};
use crate::state::Values;
use crate::types::{
    EntryId, KeyRange, LeaseId, LogIndex, MemberId, PutRecord, RangeEnd, RecordId, Revision, Term,
};

struct NoValues;

impl Values for NoValues {
    type Error = std::convert::Infallible;

    fn record(&mut self, _: &Bytes, _: RecordId) -> Result<PutRecord, Self::Error> {
        Ok(PutRecord { create_revision: Revision::NONE, version: 0, lease: None, value: Bytes::new() })
    }
}

const ENTRY: EntryId = EntryId { term: Term(1), index: LogIndex(7) };

/// `a` is one key, `a-c` all up to the second, `a-` all behind it.
fn range(text: &str) -> KeyRange {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    match text.split_once('-') {
        None => KeyRange { start: bytes(text), end: RangeEnd::Single },
        Some((start, "")) => KeyRange { start: bytes(start), end: RangeEnd::Unbounded },
        Some((start, end)) => KeyRange { start: bytes(start), end: RangeEnd::Before(bytes(end)) },
    }
}

fn permission(access: Access, text: &str) -> Permission {
    Permission { access, range: range(text) }
}

fn add_user(name: &str) -> AuthChange {
    AuthChange::UserAdd { name: name.into(), password_hash: Some("hash".into()) }
}

fn grant(user: &str, role: &str) -> AuthChange {
    AuthChange::UserGrantRole { user: user.into(), role: role.into() }
}

fn add_role(name: &str) -> AuthChange {
    AuthChange::RoleAdd { name: name.into() }
}

fn permit(role: &str, access: Access, text: &str) -> AuthChange {
    AuthChange::RoleGrantPermission { role: role.into(), permission: permission(access, text) }
}

fn revoke(role: &str, text: &str) -> AuthChange {
    AuthChange::RoleRevokePermission { role: role.into(), range: range(text) }
}

fn evaluate(state: &mut State, caller: &Caller, command: &Command) -> Result<(), Refusal> {
    let Ok(outcome) = state.evaluate_for(caller, ENTRY, command, &mut NoValues);
    outcome.response.map(drop)
}

fn change(state: &mut State, change: AuthChange) -> Result<(), AuthRefusal> {
    match evaluate(state, &Caller::Server, &Command::Auth(change)) {
        Ok(()) => Ok(()),
        Err(Refusal::Auth(refusal)) => Err(refusal),
        Err(other) => panic!("{other}"),
    }
}

/// Auth is on. `bob` may read `r-s`, write `w-x`, and both with `b-c`.
fn guarded() -> State {
    let mut state = State::new();
    for step in [
        add_user("root"),
        grant("root", "root"),
        add_user("bob"),
        add_role("some"),
        grant("bob", "some"),
        permit("some", Access::Read, "r-s"),
        permit("some", Access::Write, "w-x"),
        permit("some", Access::ReadWrite, "b-c"),
        AuthChange::Enable,
    ] {
        change(&mut state, step).unwrap();
    }
    state
}

fn caller(state: &State, user: &str) -> Caller {
    Caller::User(Checked { user: user.into(), at: state.head().auth.revision() })
}

fn put(key: &str) -> Put {
    Put {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::new(),
        lease: None,
        prev_kv: false,
        ignore_value: false,
        ignore_lease: false,
    }
}

fn delete(text: &str, prev_kv: bool) -> DeleteRange {
    DeleteRange { range: range(text), prev_kv }
}

fn read(text: &str) -> Range {
    Range::of(range(text))
}

fn compare(text: &str) -> Compare {
    Compare { range: range(text), relation: Relation::Equal, operand: Operand::Version(0) }
}

fn txn(compares: Vec<Compare>, success: Vec<Op>, failure: Vec<Op>) -> Command {
    Command::Txn(Txn { compares, success, failure })
}

fn nested(op: Op) -> Command {
    txn(vec![], vec![], vec![Op::Txn(Txn { compares: vec![], success: vec![], failure: vec![op] })])
}

const DENIED: Result<(), Refusal> = Err(Refusal::Auth(AuthRefusal::PermissionDenied));

#[test]
fn every_rule_of_data_for_who_has_some_rights() {
    let mut state = guarded();
    evaluate(
        &mut state,
        &Caller::Server,
        &Command::LeaseGrant(LeaseGrant { id: LeaseId(5), ttl_seconds: 9 }),
    )
    .unwrap();
    let theirs = Command::Put(Put { lease: Some(LeaseId(5)), ..put("secret") });
    evaluate(&mut state, &Caller::Server, &theirs).unwrap();
    let prev_kv = |key| Put { prev_kv: true, ..put(key) };
    let leased = |key| Put { lease: Some(LeaseId(5)), ..put(key) };
    let table = [
        ("put", Command::Put(put("w")), true),
        ("put what may only be read", Command::Put(put("r")), false),
        ("put elsewhere", Command::Put(put("x")), false),
        ("put with prev_kv", Command::Put(prev_kv("b")), true),
        ("put with prev_kv what may only be written", Command::Put(prev_kv("w")), false),
        ("put with a lease that has another's key", Command::Put(leased("w")), false),
        ("delete", Command::DeleteRange(delete("w", false)), true),
        ("delete all", Command::DeleteRange(delete("w-x", false)), true),
        ("delete too much", Command::DeleteRange(delete("w-y", false)), false),
        ("delete to the end", Command::DeleteRange(delete("w-", false)), false),
        ("delete what may only be read", Command::DeleteRange(delete("r", false)), false),
        ("delete with prev_kv", Command::DeleteRange(delete("b-c", true)), true),
        ("delete with prev_kv what may only be written", Command::DeleteRange(delete("w", true)), false),
        ("compare", txn(vec![compare("r-s")], vec![], vec![]), true),
        ("compare what may only be written", txn(vec![compare("w")], vec![], vec![]), false),
        ("compare too much", txn(vec![compare("r-t")], vec![], vec![]), false),
        ("read in a txn", txn(vec![], vec![Op::Range(read("r"))], vec![]), true),
        ("read elsewhere in a txn", txn(vec![], vec![Op::Range(read("w"))], vec![]), false),
        ("read in the branch that does not run", txn(vec![], vec![], vec![Op::Range(read("w"))]), false),
        ("put in a txn", txn(vec![], vec![Op::Put(put("w"))], vec![]), true),
        ("put elsewhere in a txn", txn(vec![], vec![Op::Put(put("r"))], vec![]), false),
        ("put with prev_kv in a txn", txn(vec![], vec![Op::Put(prev_kv("w"))], vec![]), false),
        ("put with another's lease in a txn", txn(vec![], vec![Op::Put(leased("w"))], vec![]), false),
        ("delete in a txn", txn(vec![], vec![Op::DeleteRange(delete("w", false))], vec![]), true),
        (
            "delete with prev_kv in a txn",
            txn(vec![], vec![Op::DeleteRange(delete("w", true))], vec![]),
            false,
        ),
        ("delete elsewhere in a txn", txn(vec![], vec![], vec![Op::DeleteRange(delete("r", false))]), false),
        ("put in a txn in a txn", nested(Op::Put(put("b"))), true),
        ("put elsewhere in a txn in a txn", nested(Op::Put(put("a"))), false),
        ("read elsewhere in a txn in a txn", nested(Op::Range(read("a"))), false),
        ("grant a lease", Command::LeaseGrant(LeaseGrant { id: LeaseId(6), ttl_seconds: 9 }), true),
        ("revoke a lease without keys", Command::LeaseRevoke(LeaseId(6)), true),
        ("revoke a lease with another's key", Command::LeaseRevoke(LeaseId(5)), false),
    ];
    for (what, command, is_permitted) in table {
        let bob = caller(&state, "bob");
        let before = state.digest();
        let done = evaluate(&mut state, &bob, &command);
        assert_eq!(done, if is_permitted { Ok(()) } else { DENIED }, "{what}");
        if !is_permitted {
            assert_eq!(state.digest(), before, "{what}: a refusal changes nothing");
            assert_eq!(evaluate(&mut state.clone(), &Caller::Server, &command), Ok(()), "{what}");
            let root = caller(&state, "root");
            assert_eq!(evaluate(&mut state.clone(), &root, &command), Ok(()), "{what}");
        }
        let nobody = Err(Refusal::Auth(AuthRefusal::UserNameEmpty));
        assert_eq!(evaluate(&mut state.clone(), &Caller::Nobody, &command), nobody, "{what}");
    }
}

#[test]
fn what_only_root_may() {
    let state = guarded();
    let alarm = Alarm { member: MemberId(1), kind: AlarmKind::NoSpace };
    let changes = [
        AuthChange::Enable,
        AuthChange::Disable,
        add_user("new"),
        AuthChange::UserDelete { name: "bob".into() },
        AuthChange::UserChangePassword { name: "bob".into(), password_hash: String::new() },
        grant("bob", "root"),
        AuthChange::UserRevokeRole { user: "bob".into(), role: "some".into() },
        add_role("new"),
        AuthChange::RoleDelete { name: "some".into() },
        permit("some", Access::Read, "a-"),
        revoke("some", "r-s"),
    ];
    let others =
        [Command::Compact(Compact { revision: 1 }), Command::RaiseAlarm(alarm), Command::ClearAlarm(alarm)];
    for command in changes.map(Command::Auth).into_iter().chain(others) {
        let outcome = |who: &Caller| evaluate(&mut state.clone(), who, &command);
        assert_eq!(outcome(&caller(&state, "bob")), DENIED, "{command:?}");
        assert_eq!(outcome(&caller(&state, "root")), Ok(()), "{command:?}");
        assert_eq!(outcome(&Caller::Nobody), Err(Refusal::Auth(AuthRefusal::UserNameEmpty)));
        assert_eq!(outcome(&caller(&state, "ghost")), Err(Refusal::Auth(AuthRefusal::UserNotFound)));
        // As for keys; etcd does not look at the auth revision here.
        let late = Caller::User(Checked { user: "root".into(), at: AuthRevision::FRESH });
        assert_eq!(outcome(&late), Err(Refusal::Auth(AuthRefusal::OldRevision)), "{command:?}");
    }
}

#[test]
fn what_only_members_propose_no_client_may() {
    let state = guarded();
    let attributes = MemberAttributes { id: MemberId(1), name: String::new(), client_urls: vec![] };
    let commands = [
        Command::PublishMember(attributes),
        Command::LeaseExpire(LeaseExpire { term: Term(1), leases: vec![] }),
        Command::LeaseCheckpoint(LeaseCheckpoint { term: Term(1), remaining: vec![] }),
    ];
    for command in commands {
        for who in [Caller::Nobody, caller(&state, "bob"), caller(&state, "root")] {
            assert_eq!(evaluate(&mut state.clone(), &who, &command), DENIED);
        }
        assert_eq!(evaluate(&mut state.clone(), &Caller::Server, &command), Ok(()));
        assert_eq!(evaluate(&mut State::new(), &Caller::Nobody, &command), Ok(()), "auth is off");
    }
}

#[test]
fn whoever_was_checked_before_a_change_is_checked_again() {
    let mut state = guarded();
    let bob = caller(&state, "bob");
    let command = Command::Put(put("w"));
    assert_eq!(evaluate(&mut state, &bob, &command), Ok(()));
    change(&mut state, add_role("unrelated")).unwrap();
    assert_eq!(evaluate(&mut state, &bob, &command), Ok(()), "nothing of its own has changed");
    let other = AuthChange::UserChangePassword { name: "bob".into(), password_hash: "x".into() };
    change(&mut state, other).unwrap();
    let old = Err(Refusal::Auth(AuthRefusal::OldRevision));
    assert_eq!(evaluate(&mut state, &bob, &command), old);
    let bob = caller(&state, "bob");
    assert_eq!(evaluate(&mut state, &bob, &command), Ok(()));
    change(&mut state, AuthChange::Disable).unwrap();
    change(&mut state, AuthChange::Enable).unwrap();
    assert_eq!(evaluate(&mut state, &bob, &command), old);
    let bob = caller(&state, "bob");
    assert_eq!(evaluate(&mut state, &bob, &command), Ok(()));
    change(&mut state, revoke("some", "w-x")).unwrap();
    let bob = caller(&state, "bob");
    assert_eq!(evaluate(&mut state, &bob, &command), DENIED);
    change(&mut state, AuthChange::UserDelete { name: "bob".into() }).unwrap();
    let bob = caller(&state, "bob");
    assert_eq!(evaluate(&mut state, &bob, &command), DENIED);
}

#[test]
fn while_auth_is_off_everybody_may() {
    let mut state = guarded();
    change(&mut state, AuthChange::Disable).unwrap();
    for command in
        [Command::Put(put("a")), Command::Auth(add_role("b")), Command::Compact(Compact { revision: 1 })]
    {
        assert_eq!(evaluate(&mut state, &Caller::Nobody, &command), Ok(()));
    }
}

#[test]
fn refusals_of_changes_in_the_order_of_their_checks() {
    use AuthRefusal as R;
    let mut state = State::new();
    let user = |name: &str| AuthChange::UserDelete { name: name.into() };
    let password =
        |name: &str| AuthChange::UserChangePassword { name: name.into(), password_hash: "x".into() };
    let take = |user: &str, role: &str| AuthChange::UserRevokeRole { user: user.into(), role: role.into() };
    let role = |name: &str| AuthChange::RoleDelete { name: name.into() };
    let login = |name: &str| {
        let token = TokenDigest([0; 32]);
        AuthChange::Authenticate(Authenticate { user: name.into(), at: AuthRevision::new(9), token })
    };
    // What is done, whether it is refused, and the auth revision behind it.
    let script = [
        (AuthChange::Enable, Some(R::RootUserMissing), 1),
        (AuthChange::Disable, None, 1),
        (login("root"), Some(R::NotEnabled), 1),
        (add_user(""), Some(R::UserNameEmpty), 1),
        (add_user("root"), None, 2),
        (add_user("root"), Some(R::UserExists), 2),
        (AuthChange::Enable, Some(R::RootRoleMissing), 2),
        (grant("nobody", "none"), Some(R::UserNotFound), 2),
        (grant("root", "none"), Some(R::RoleNotFound), 2),
        (grant("root", "root"), None, 3),
        (grant("root", "root"), None, 3),
        (AuthChange::Enable, None, 3),
        (AuthChange::Enable, None, 3),
        (user("root"), Some(R::InvalidManagement), 3),
        (user("none"), Some(R::UserNotFound), 3),
        (password("none"), Some(R::UserNotFound), 3),
        (password("root"), None, 4),
        (take("root", "root"), Some(R::InvalidManagement), 4),
        (take("none", "root"), Some(R::UserNotFound), 4),
        (take("root", "none"), Some(R::RoleNotGranted), 4),
        (role("root"), Some(R::InvalidManagement), 4),
        (role("none"), Some(R::RoleNotFound), 4),
        (add_role(""), Some(R::RoleNameEmpty), 4),
        (add_role("some"), None, 5),
        (add_role("some"), Some(R::RoleExists), 5),
        (permit("none", Access::Read, "b-a"), Some(R::InvalidManagement), 5),
        (permit("some", Access::Read, "-"), Some(R::InvalidManagement), 5),
        (permit("none", Access::Read, "a"), Some(R::RoleNotFound), 5),
        (permit("some", Access::Read, "a"), None, 6),
        (permit("some", Access::Write, "a"), None, 7),
        (revoke("none", "a"), Some(R::RoleNotFound), 7),
        (revoke("some", "a-b"), Some(R::PermissionNotGranted), 7),
        (revoke("some", "a"), None, 8),
        (grant("root", "some"), None, 9),
        (login("none"), Some(R::AuthenticationFailed), 9),
        (login("root"), None, 9),
        (role("some"), None, 10),
        (login("root"), None, 10),
        (AuthChange::Disable, None, 11),
        (role("root"), Some(R::RoleNotFound), 11),
        (take("root", "root"), None, 12),
        (user("root"), None, 13),
    ];
    for (place, (step, refusal, revision)) in script.into_iter().enumerate() {
        let told = format!("step {place}: {step:?}");
        let digest = state.digest();
        assert_eq!(change(&mut state, step).err(), refusal, "{told}");
        assert!(refusal.is_none() || state.digest() == digest, "{told}");
        assert_eq!(state.head().auth.revision().get(), revision, "{told}");
    }
}

#[test]
fn a_role_that_goes_is_gone_for_its_users() {
    let mut state = guarded();
    change(&mut state, AuthChange::RoleDelete { name: "some".into() }).unwrap();
    assert_eq!(state.head().auth.user("bob").unwrap().roles, Vec::<String>::new());
    change(&mut state, add_role("some")).unwrap();
    change(&mut state, permit("some", Access::ReadWrite, "a-")).unwrap();
    let bob = caller(&state, "bob");
    assert_eq!(evaluate(&mut state, &bob, &Command::Put(put("w"))), DENIED);
}

#[test]
fn a_permission_is_known_by_its_range() {
    let mut state = State::new();
    change(&mut state, add_role("some")).unwrap();
    for (access, text) in [
        (Access::Read, "b"),
        (Access::Read, "a-"),
        (Access::Read, "a-c"),
        (Access::Read, "a"),
        (Access::Write, "a-c"),
    ] {
        change(&mut state, permit("some", access, text)).unwrap();
    }
    let auth = &state.head().auth;
    let expected = [(Access::Read, "a"), (Access::Read, "a-"), (Access::Write, "a-c"), (Access::Read, "b")];
    assert_eq!(auth.role("some").unwrap().permissions, expected.map(|(a, text)| permission(a, text)));
}

#[test]
fn tokens_end_with_the_password_the_user_and_auth() {
    let mut state = guarded();
    let session = |state: &State| state.head().auth.session("bob").unwrap();
    let holds = |state: &State, session: &Session| state.head().auth.check(session).is_some();
    let first = session(&state);
    change(&mut state, add_user("other")).unwrap();
    assert_eq!(state.head().auth.check(&first).unwrap().at, state.head().auth.revision());
    change(&mut state, AuthChange::UserChangePassword { name: "bob".into(), password_hash: "x".into() })
        .unwrap();
    assert!(!holds(&state, &first));
    let second = session(&state);
    change(&mut state, AuthChange::UserDelete { name: "bob".into() }).unwrap();
    assert!(!holds(&state, &second));
    change(&mut state, add_user("bob")).unwrap();
    assert!(!holds(&state, &second), "another one with the same name");
    let third = session(&state);
    change(&mut state, AuthChange::Disable).unwrap();
    assert!(!holds(&state, &third) && state.head().auth.session("bob").is_none());
    change(&mut state, AuthChange::Enable).unwrap();
    assert!(!holds(&state, &third));
}

#[test]
fn a_user_without_a_password_stays_without() {
    let mut state = guarded();
    change(&mut state, AuthChange::UserAdd { name: "cert".into(), password_hash: None }).unwrap();
    change(&mut state, AuthChange::UserChangePassword { name: "cert".into(), password_hash: "x".into() })
        .unwrap();
    assert_eq!(state.head().auth.user("cert").unwrap().password_hash, None);
}

#[test]
fn ranges_that_touch_are_one() {
    let covered = |granted: &[&str], asked: &str| {
        let granted: Vec<Permission> = granted.iter().map(|text| permission(Access::Read, text)).collect();
        Permissions::merge(granted.iter()).read.cover(&range(asked))
    };
    for (granted, asked, is_covered) in [
        (&["a-c", "c-e"][..], "a-e", true),
        (&["c-e", "a-c"], "b-d", true),
        (&["a-c", "d-e"], "a-e", false),
        (&["a-c", "b-"], "a-", true),
        (&["a-c", "b-"], "a-z", true),
        (&["a-", "b-c"], "b-z", true),
        (&["a-c"], "a-", false),
        (&["a"], "a", true),
        (&["a"], "a-b", false),
        (&["a", "a\0-b"], "a-b", true),
        (&["a"], "a\0", false),
        (&["b-d"], "b", true),
        (&["b-d"], "d", false),
        (&["b-d"], "a", false),
        // Without keys: its start counts.
        (&["b-d"], "c-b", true),
        (&["b-d"], "c-c", true),
        (&["b-d"], "d-b", false),
        (&["a-z", "c-d"], "b-y", true),
        (&[], "a", false),
    ] {
        assert_eq!(covered(granted, asked), is_covered, "{granted:?} {asked}");
    }
}

#[test]
fn what_is_restored_is_what_was_there_or_is_refused() {
    let state = guarded();
    let auth = &*state.head().auth;
    let users = || auth.users().map(|(name, user)| (name.to_owned(), user.clone()));
    let roles = || auth.roles().map(|(name, role)| (name.to_owned(), role.clone()));
    let restored = Auth::restore(auth.switch(), auth.revision(), users(), roles()).unwrap();
    assert_eq!(restored, *auth);
    assert_eq!(restored.bytes, auth.bytes);
    assert!(Auth::restore(auth.switch(), AuthRevision::new(3), users(), roles()).is_none());
    assert!(Auth::restore(auth.switch(), auth.revision(), [], roles()).is_none(), "on without root");
    assert!(Auth::restore(auth.switch(), auth.revision(), users(), []).is_none(), "a role that is not there");
    assert!(Auth::restore(AuthSwitch::Off, auth.revision(), [], []).is_some());
}

#[test]
fn there_is_an_end_to_it() {
    let mut state = State::new();
    let long = "x".repeat(1 << 20);
    change(&mut state, add_role("r")).unwrap();
    let key = |at: usize| KeyRange { start: format!("{at}{long}").into(), end: RangeEnd::Single };
    let permit = |at| AuthChange::RoleGrantPermission {
        role: "r".into(),
        permission: Permission { access: Access::Read, range: key(at) },
    };
    let refused =
        (0..9).map(|at| change(&mut state, permit(at))).position(|done| done == Err(AuthRefusal::TooMuch));
    assert_eq!(refused, Some(7));
    change(&mut state, AuthChange::RoleRevokePermission { role: "r".into(), range: key(0) }).unwrap();
    change(&mut state, permit(9)).unwrap();
}

#[test]
fn a_thousand_roles_are_merged_once() {
    let mut auth = Auth::default();
    let done = |auth: &mut Auth, step: AuthChange| auth.apply(&step).unwrap();
    for step in [add_user("root"), grant("root", "root"), add_user("bob"), AuthChange::Enable] {
        done(&mut auth, step);
    }
    for at in 0..1000 {
        let name = format!("role{at:04}");
        done(&mut auth, add_role(&name));
        done(&mut auth, permit(&name, Access::ReadWrite, &format!("k{at:04}")));
        done(&mut auth, grant("bob", &name));
    }
    let bob = Caller::User(Checked { user: Arc::from("bob"), at: auth.revision() });
    let granted = auth.granted(&bob).unwrap();
    assert_eq!(granted.read(&range("k0999")), Ok(()));
    assert_eq!(granted.read(&range("k1000")), Err(AuthRefusal::PermissionDenied));
    assert!(auth.users["bob"].merged.get().is_some());
    done(&mut auth, revoke("role0999", "k0999"));
    assert!(auth.users["bob"].merged.get().is_none(), "it is merged anew");
}

/// A name is a key in files that are made of the state, and those are bounded.
#[test]
fn names_are_bounded() {
    let mut state = guarded();
    let name = "n".repeat(NAME_BYTES_MAX);
    assert_eq!(change(&mut state, add_user(&name)), Ok(()));
    assert_eq!(change(&mut state, add_role(&name)), Ok(()));
    let longer = format!("{name}n");
    assert_eq!(change(&mut state, add_user(&longer)), Err(AuthRefusal::NameTooLong));
    assert_eq!(change(&mut state, add_role(&longer)), Err(AuthRefusal::NameTooLong));
}
