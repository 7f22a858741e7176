//! Replay of any log gives an equal state, with and without restarts, dumps and installs in between.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::collections::BTreeMap;

use common::*;
use holdfast_mvcc::auth::{Access, AuthChange, Permission};
use holdfast_mvcc::command::*;
use holdfast_mvcc::types::{KeyRange, LeaseId, LeaseRef, LogIndex, RangeEnd, Term};
use holdfast_storage::*;
use proptest::prelude::*;

/// A command over few keys, so that they meet.
fn command() -> impl Strategy<Value = Command> {
    let key = (0..12_u32).prop_map(|n| format!("key/{n}"));
    let value = prop_oneof![Just(String::new()), "[a-c]{1,3}", (1..20_000_usize).prop_map(|n| "z".repeat(n))];
    let put = (key.clone(), value, any::<bool>()).prop_map(|(key, value, keep)| {
        let ignore_value = keep && value.is_empty();
        Command::Put(Put { ignore_value, ..put_op(&key, &value) })
    });
    let swap = (key.clone(), "[a-c]{1,2}", "[a-c]{1,2}").prop_map(|(k, a, b)| swap(&k, &a, &b));
    let delete_some = (key.clone(), key.clone()).prop_map(|(from, to)| {
        let range = KeyRange { start: from.into(), end: RangeEnd::Before(to.into()) };
        Command::DeleteRange(DeleteRange { range, prev_kv: false })
    });
    let lease = (-1..4_i64).prop_filter_map("0 is no lease", |id| (id != 0).then_some(LeaseId(id)));
    let leased = (key.clone(), lease.clone())
        .prop_map(|(key, lease)| Command::Put(Put { lease: Some(lease), ..put_op(&key, "leased") }));
    let grant = (lease.clone(), 1..9_u64)
        .prop_map(|(id, ttl_seconds)| Command::LeaseGrant(LeaseGrant { id, ttl_seconds }));
    // One in five is of another term than the log's.
    let term = (0..5_u64).prop_map(|n| Term(if n == 0 { 2 } else { 1 }));
    let expire = (term.clone(), proptest::collection::vec(lease.clone(), 0..3)).prop_map(|(term, ids)| {
        let leases = ids.into_iter().map(unnamed).collect();
        Command::LeaseExpire(LeaseExpire { term, leases })
    });
    let checkpoint = (term, lease.clone(), proptest::option::of(0..9_u64)).prop_map(|(term, id, seconds)| {
        let remaining = vec![LeaseRemaining { lease: unnamed(id), seconds }];
        Command::LeaseCheckpoint(LeaseCheckpoint { term, remaining })
    });
    prop_oneof![
        6 => put,
        3 => swap,
        1 => delete_some,
        1 => key.prop_map(|key| delete(&key)),
        2 => leased,
        3 => grant,
        1 => lease.prop_map(Command::LeaseRevoke),
        1 => expire,
        1 => checkpoint,
        1 => (0..200_u64).prop_map(compact),
        2 => auth_change().prop_map(Command::Auth),
    ]
}

/// A change over few users and roles, so that many are not refused.
fn auth_change() -> impl Strategy<Value = AuthChange> {
    let name = || prop_oneof![Just("root".to_owned()), Just("some".to_owned())];
    let hash = proptest::option::of(Just("hash".to_owned()));
    let permission = (name(), "[a-c]").prop_map(|(role, key)| {
        let range = KeyRange { start: key.into(), end: RangeEnd::Unbounded };
        let permission = Permission { access: Access::ReadWrite, range };
        AuthChange::RoleGrantPermission { role, permission }
    });
    prop_oneof![
        1 => Just(AuthChange::Enable),
        1 => Just(AuthChange::Disable),
        3 => (name(), hash).prop_map(|(name, password_hash)| AuthChange::UserAdd { name, password_hash }),
        1 => name().prop_map(|name| AuthChange::UserDelete { name }),
        3 => (name(), name()).prop_map(|(user, role)| AuthChange::UserGrantRole { user, role }),
        2 => name().prop_map(|name| AuthChange::RoleAdd { name }),
        1 => name().prop_map(|name| AuthChange::RoleDelete { name }),
        2 => permission,
    ]
}

/// A lease whose grant [`name_grants`] fills in.
fn unnamed(id: LeaseId) -> LeaseRef {
    LeaseRef { id, granted_at: LogIndex(u64::MAX) }
}

/// Makes the ends of leases mean the lease that has the id when they are applied.
fn name_grants(mut log: Vec<Command>) -> Vec<Command> {
    let mut granted = BTreeMap::new();
    for (index, command) in log.iter_mut().enumerate() {
        let name = |lease: &mut LeaseRef| {
            lease.granted_at = granted.get(&lease.id).copied().unwrap_or(lease.granted_at);
        };
        match command {
            Command::LeaseGrant(grant) => {
                granted.entry(grant.id).or_insert(LogIndex(index as u64));
            }
            Command::LeaseRevoke(id) => {
                granted.remove(id);
            }
            Command::LeaseExpire(expire) => {
                expire.leases.iter_mut().for_each(name);
                if expire.term == Term(1) {
                    granted.retain(|id, _| expire.leases.iter().all(|lease| lease.id != *id));
                }
            }
            Command::LeaseCheckpoint(checkpoint) => {
                checkpoint.remaining.iter_mut().map(|left| &mut left.lease).for_each(name);
            }
            _ => {}
        }
    }
    log
}

/// What happens to a member between two parts of its log.
#[derive(Debug, Clone, Copy)]
enum Pause {
    Nothing,
    Dump,
    Restart,
    RestartBehind,
    DumpAndRestart,
    MoveByInstall,
}

fn pause() -> impl Strategy<Value = Pause> {
    prop_oneof![
        Just(Pause::Nothing),
        Just(Pause::Dump),
        Just(Pause::Restart),
        Just(Pause::RestartBehind),
        Just(Pause::DumpAndRestart),
        Just(Pause::MoveByInstall),
    ]
}

fn engine() -> impl Strategy<Value = EngineKind> {
    prop_oneof![Just(EngineKind::Sled), Just(EngineKind::Redb), Just(EngineKind::Memory)]
}

async fn straight(log: &[Command]) -> (u64, HistoryHash, Vec<KeyValue2>) {
    let dir = tempfile::tempdir().unwrap();
    let mut member = Member::open(dir.path(), EngineKind::Memory).await;
    member.run(log.to_vec()).await;
    let image = member.image();
    member.close().await;
    image
}

async fn interrupted(
    log: &[Command],
    pauses: &[(usize, Pause)],
    engine: EngineKind,
) -> (u64, HistoryHash, Vec<KeyValue2>) {
    let mut dirs = vec![tempfile::tempdir().unwrap()];
    let mut member = Member::open(dirs[0].path(), engine).await;
    for (part, pause) in pauses {
        let end = (member.next_index() + part).min(log.len());
        member.feed(&log[..end]).await;
        match pause {
            Pause::Nothing => {}
            Pause::Dump => drop(member.dump().await),
            Pause::Restart | Pause::RestartBehind | Pause::DumpAndRestart => {
                if matches!(pause, Pause::DumpAndRestart) {
                    member.dump().await;
                }
                member.close().await;
                member = Member::open(dirs.last().unwrap().path(), engine).await;
                if matches!(pause, Pause::RestartBehind) {
                    // The log is read again from further back than needed.
                    member.next = member.next.saturating_sub(5);
                }
            }
            Pause::MoveByInstall => {
                let snapshot = member.dump().await;
                dirs.push(tempfile::tempdir().unwrap());
                let next = Member::open(dirs.last().unwrap().path(), engine).await;
                install(&snapshot, &next.storage).await.unwrap();
                member.close().await;
                member = Member::over(next.storage, next.events);
            }
        }
    }
    member.feed(log).await;
    let image = member.image();
    member.close().await;
    image
}

impl Member {
    fn next_index(&self) -> usize {
        usize::try_from(self.next).unwrap()
    }

    /// Dispatches what is missing of the log, and waits until it is visible.
    async fn feed(&mut self, log: &[Command]) {
        if self.next_index() < log.len() {
            let last = log_id(log.len() as u64 - 1);
            // What is contained already has no answer; what matters is what becomes visible.
            drop(self.dispatch(log[self.next_index()..].to_vec()).await);
            let mut visible = self.storage.visible();
            // Or beyond: after a restart, the log may be read again up to before the point it had come to.
            within(visible.wait_for(|v| v.log_id >= Some(last))).await.unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn replay_of_any_log_gives_an_equal_state(
        log in proptest::collection::vec(command(), 1..250).prop_map(name_grants),
        pauses in proptest::collection::vec((1..120_usize, pause()), 0..5),
        engine in engine(),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (expected, image) = runtime.block_on(async {
            (straight(&log).await, interrupted(&log, &pauses, engine).await)
        });
        prop_assert_eq!(image, expected);
    }
}
