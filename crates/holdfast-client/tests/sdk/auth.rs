//! Clients with credentials.

use std::time::Duration;

use holdfast_client::informer::{CachedStore, InformerOptions};
use holdfast_client::store::{ClusterStorage, Codec, Json, Selection, Storage, StorageWatch};
use holdfast_client::{Client, Config, Credentials, Error, KeyRange, ReadLevel, WatchEvent, WatchOptions};
use holdfast_proto::{authpb, etcdserverpb as pb};
use pb::auth_client::AuthClient;
use tonic::transport::Channel;
use tonic::{Code, Request};

use crate::backend::{Backend, PATIENCE, soon};

const NOW: ReadLevel = ReadLevel::Linearizable;

/// `root`, and `alice`, who may read and write below `a/`.
async fn enable(backend: &Backend) {
    let mut auth = AuthClient::new(backend.channel());
    for name in ["root", "alice"] {
        let password = format!("{name}-password");
        let request = pb::AuthUserAddRequest { name: name.into(), password, ..Default::default() };
        auth.user_add(request).await.unwrap();
        auth.role_add(pb::AuthRoleAddRequest { name: name.into() }).await.unwrap();
        let request = pb::AuthUserGrantRoleRequest { user: name.into(), role: name.into() };
        auth.user_grant_role(request).await.unwrap();
    }
    let perm = authpb::Permission {
        perm_type: authpb::permission::Type::Readwrite.into(),
        key: "a/".into(),
        range_end: "a0".into(),
    };
    let grant = pb::AuthRoleGrantPermissionRequest { name: "alice".into(), perm: Some(perm) };
    auth.role_grant_permission(grant).await.unwrap();
    auth.auth_enable(pb::AuthEnableRequest {}).await.unwrap();
}

async fn as_root<T>(channel: &Channel, request: T) -> Request<T> {
    let name_and_password = pb::AuthenticateRequest { name: "root".into(), password: "root-password".into() };
    let answer = AuthClient::new(channel.clone()).authenticate(name_and_password).await.unwrap();
    let mut request = Request::new(request);
    request.metadata_mut().insert("token", answer.into_inner().token.parse().unwrap());
    request
}

fn alice(backend: &Backend, password: &str) -> Client {
    let credentials = Some(Credentials::new("alice", password));
    backend.client_with(Config { credentials, ..Config::default() })
}

fn is_denied(error: &Error) -> bool {
    matches!(error, Error::Refused { code: Code::PermissionDenied, .. })
}

/// A client with credentials is its user in calls, transactions and watches; one without is nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_credentials_may_what_its_user_may() {
    Backend::each("credentials", async |backend| {
        // A server that asks for nothing gets nothing.
        let client = alice(backend, "alice-password");
        client.put("a/0", "before").await.unwrap();
        enable(backend).await;
        client.put("a/1", "1").await.unwrap();
        assert_eq!(client.get("a/1", NOW).await.unwrap().value.unwrap().value, "1");
        assert!(is_denied(&client.put("b", "1").await.unwrap_err()));
        let mut watch = client.watch(KeyRange::prefix("a/"), WatchOptions::new());
        soon(watch.started()).await.unwrap();
        client.put("a/2", "1").await.unwrap();
        assert!(matches!(soon(watch.next()).await.unwrap(), WatchEvent::Changes { .. }));
        let mut denied = client.watch(KeyRange::prefix("b"), WatchOptions::new());
        assert!(is_denied(&soon(denied.started()).await.unwrap_err()));
        // The watch beside it on the same stream goes on.
        client.put("a/3", "1").await.unwrap();
        assert!(matches!(soon(watch.next()).await.unwrap(), WatchEvent::Changes { .. }));
        let nobody = backend.client().put("a/1", "2").await.unwrap_err();
        assert!(matches!(nobody, Error::Refused { code: Code::InvalidArgument, .. }), "{nobody}");
        let stranger = alice(backend, "wrong").put("a/1", "2").await.unwrap_err();
        assert!(matches!(stranger, Error::Refused { code: Code::InvalidArgument, .. }), "{stranger}");
        assert_eq!(client.get("a/1", NOW).await.unwrap().value.unwrap().value, "1");
    })
    .await;
}

/// A token that does not hold any more is replaced once in a call, without the caller's notice; a user that is gone is
/// refused, and not asked for again and again.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_does_not_hold_any_more_is_replaced() {
    Backend::each("tokens", async |backend| {
        enable(backend).await;
        let client = alice(backend, "alice-password");
        client.put("a/1", "1").await.unwrap();
        let mut watch = client.watch(KeyRange::prefix("a/"), WatchOptions::new());
        soon(watch.started()).await.unwrap();
        // A change of the password, to the same one, ends all tokens of a user.
        let channel = backend.channel();
        let change = pb::AuthUserChangePasswordRequest {
            name: "alice".into(),
            password: "alice-password".into(),
            ..Default::default()
        };
        let request = as_root(&channel, change).await;
        AuthClient::new(channel.clone()).user_change_password(request).await.unwrap();
        client.put("a/1", "2").await.unwrap();
        let read = client.get("a/1", NOW).await.unwrap().value.unwrap();
        assert_eq!((read.value.as_ref(), read.version), (b"2".as_ref(), 2), "written once");
        assert!(matches!(soon(watch.next()).await.unwrap(), WatchEvent::Changes { .. }));
        let request = as_root(&channel, pb::AuthUserDeleteRequest { name: "alice".into() }).await;
        AuthClient::new(channel).user_delete(request).await.unwrap();
        let gone = tokio::time::timeout(Duration::from_secs(30), client.put("a/1", "3")).await.unwrap();
        assert!(matches!(gone, Err(Error::Refused { .. })), "{gone:?}");
    })
    .await;
}

/// Who may read below one prefix can watch, wait and read from a cache there.
#[tokio::test(flavor = "multi_thread")]
async fn stores_and_caches_ask_for_nothing_beyond_their_prefix() {
    Backend::each("stores with credentials", async |backend| {
        enable(backend).await;
        let client = alice(backend, "alice-password");
        let revision = client.put("a/1", "1").await.unwrap();
        let storage = ClusterStorage::new(client.clone()).within("a/");
        assert!(storage.wait(revision, PATIENCE).await.unwrap() >= revision);
        let mut now = storage.watch_prefix("a/".into(), None, Selection::all()).await.unwrap();
        let mut since = storage.watch_prefix("a/".into(), Some(revision), Selection::all()).await.unwrap();
        let written = client.put("a/1", "2").await.unwrap();
        for watch in [&mut now, &mut since] {
            assert_eq!(soon(watch.next()).await.unwrap().unwrap().version, written);
        }
        let options = InformerOptions::decode_with(|kv| Ok(Json.decode(&kv.value)?));
        let informer = client.informer(KeyRange::prefix("a/"), options);
        let cached = CachedStore::<u64, Json>::new(informer.reader().clone(), Json).wait_max(PATIENCE);
        let read = cached.get("a/1", NOW).await.unwrap();
        assert_eq!(read.value.map(|object| *object.value()), Some(2));
    })
    .await;
}
