//! Users and roles are there again after a restart, a dump, an install and a rebuild, and the tokens that came by.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use common::*;
use holdfast_mvcc::auth::{Access, Auth, AuthChange, AuthRefusal, Authenticate, Permission, TokenDigest};
use holdfast_mvcc::command::{Command, Refusal};
use holdfast_mvcc::types::{KeyRange, RangeEnd};
use holdfast_storage::*;

fn some_changes() -> Vec<Command> {
    let user = |name: &str, hash: Option<&str>| AuthChange::UserAdd {
        name: name.into(),
        password_hash: hash.map(str::to_owned),
    };
    let range = KeyRange { start: "k".into(), end: RangeEnd::Unbounded };
    let changes = [
        user("root", Some("hash")),
        AuthChange::UserGrantRole { user: "root".into(), role: "root".into() },
        user("bob", None),
        AuthChange::RoleAdd { name: "some".into() },
        AuthChange::RoleGrantPermission {
            role: "some".into(),
            permission: Permission { access: Access::ReadWrite, range },
        },
        AuthChange::UserGrantRole { user: "bob".into(), role: "some".into() },
        AuthChange::Enable,
    ];
    changes.map(Command::Auth).into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_and_roles_survive() {
    for engine in [EngineKind::Sled, EngineKind::Redb, EngineKind::Memory] {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let mut member = Member::open(dirs[0].path(), engine).await;
        member.run(vec![put("k", "v")]).await;
        let none = member.dump().await;
        for answer in member.run(some_changes()).await {
            assert_eq!(answer.outcome.response.err(), None);
        }
        let (auth, digest) = (member.storage.auth(), member.storage.state_digest());
        assert!(member.storage.is_auth_enabled() && auth.user("bob").is_some());
        member.drained().await;
        // As stored, without a snapshot that has it.
        if engine != EngineKind::Memory {
            member.close().await;
            member = Member::open(dirs[0].path(), engine).await;
            assert_eq!((member.storage.auth(), member.storage.state_digest()), (auth.clone(), digest));
            assert!(member.storage.is_auth_enabled());
        }
        // As dumped and installed elsewhere.
        let dumped = member.dump().await;
        let other = Member::open(dirs[1].path(), EngineKind::Memory).await;
        install(&none, &other.storage).await.unwrap();
        assert_eq!(*other.storage.auth(), Auth::default());
        install(&dumped, &other.storage).await.unwrap();
        assert_eq!((other.storage.auth(), other.storage.state_digest()), (auth.clone(), digest));
        assert!(other.storage.is_auth_enabled());
        other.close().await;
        // As rebuilt from the snapshot.
        let other = Member::open(dirs[1].path(), EngineKind::Sled).await;
        assert_eq!((other.storage.auth(), other.storage.state_digest()), (auth.clone(), digest));
        other.close().await;
        // And it can be changed on.
        member.run(vec![Command::Auth(AuthChange::Disable)]).await;
        assert!(!member.storage.is_auth_enabled());
        member.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_come_by_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut member = Member::open(dir.path(), EngineKind::Memory).await;
    member.run(some_changes()).await;
    let at = member.storage.auth().revision();
    let login = |user: &str, byte: u8| {
        let token = TokenDigest([byte; 32]);
        Command::Auth(AuthChange::Authenticate(Authenticate { user: user.into(), at, token }))
    };
    let answers = member.run(vec![login("root", 1), login("bob", 2), login("root", 3)]).await;
    let refused = Some(Refusal::Auth(AuthRefusal::AuthenticationFailed));
    assert_eq!(answers[1].outcome.response.clone().err(), refused, "bob has no password");
    let issued: Vec<_> = member.storage.take_tokens().into_iter().collect();
    let told: Vec<_> = issued.iter().map(|token| (token.digest, token.index)).collect();
    let expected = [(TokenDigest([1; 32]), &answers[0]), (TokenDigest([3; 32]), &answers[2])];
    assert_eq!(told, expected.map(|(digest, answer)| (digest, answer.log_id.index())));
    assert!(issued.iter().all(|token| &**token.session.user() == "root"));
    assert!(member.storage.take_tokens().is_empty());
    member.close().await;
}
