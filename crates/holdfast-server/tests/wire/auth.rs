//! Auth over the wire: who may do what, with and without a token, on one member and on three.

use std::time::Duration;

use holdfast_proto::authpb;
use holdfast_proto::etcdserverpb as pb;
use holdfast_server::auth::rules::{self, Rule};
use holdfast_testserver::{CALM, TestCluster};
use pb::auth_client::AuthClient;
use pb::cluster_client::ClusterClient;
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use pb::maintenance_client::MaintenanceClient;
use pb::watch_client::WatchClient;
use tonic::transport::Channel;
use tonic::{Code, IntoRequest, Request, Status, Streaming};

use crate::common::*;
use crate::watching::PATIENCE;

/// Passwords are not what is tested: the cheapest that there is.
const CHEAP: &str = "--bcrypt-cost=4";

const EMPTY: (Code, &str) = (Code::InvalidArgument, "etcdserver: user name is empty");
const DENIED: (Code, &str) = (Code::PermissionDenied, "etcdserver: permission denied");
const BAD_TOKEN: (Code, &str) = (Code::Unauthenticated, "etcdserver: invalid auth token");

/// A client of one member, with a token or without.
#[derive(Clone)]
struct Client {
    channel: Channel,
    token: Option<String>,
}

impl Client {
    fn nobody(url: &str) -> Self {
        Self { channel: channel(url), token: None }
    }

    /// Logs in.
    async fn login(url: &str, user: &str, password: &str) -> Result<Self, Status> {
        let nobody = Self::nobody(url);
        let request = pb::AuthenticateRequest { name: user.into(), password: password.into() };
        let answer = nobody.auth().authenticate(request).await?.into_inner();
        assert!(answer.header.is_some());
        Ok(Self { token: Some(answer.token), ..nobody })
    }

    /// The same one at another member.
    fn at(&self, url: &str) -> Self {
        Self { channel: channel(url), token: self.token.clone() }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.parse().unwrap());
        }
        request
    }

    fn auth(&self) -> AuthClient<Channel> {
        AuthClient::new(self.channel.clone())
    }

    fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone())
    }

    fn leases(&self) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel.clone())
    }

    async fn put(&self, key: &str, value: &str) -> Result<pb::PutResponse, Status> {
        self.kv().put(self.request(put_request(key, value))).await.map(tonic::Response::into_inner)
    }

    async fn range(&self, request: pb::RangeRequest) -> Result<pb::RangeResponse, Status> {
        self.kv().range(self.request(request)).await.map(tonic::Response::into_inner)
    }

    async fn txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, Status> {
        self.kv().txn(self.request(request)).await.map(tonic::Response::into_inner)
    }

    /// A stream of watches that asks for one.
    async fn watch(&self, key: &str, end: &str) -> Streaming<pb::WatchResponse> {
        let create = pb::WatchCreateRequest { key: bytes(key), range_end: bytes(end), ..Default::default() };
        let union = pb::watch_request::RequestUnion::CreateRequest(create);
        let asked = futures::stream::iter([pb::WatchRequest { request_union: Some(union) }]);
        let asked = futures::StreamExt::chain(asked, futures::stream::pending());
        let mut client = WatchClient::new(self.channel.clone());
        client.watch(self.request(asked)).await.unwrap().into_inner()
    }

    async fn keep_alive(&self, id: i64) -> Result<i64, Status> {
        let asked = futures::stream::iter([pb::LeaseKeepAliveRequest { id }]);
        let mut answers = self.leases().lease_keep_alive(self.request(asked)).await?.into_inner();
        Ok(answers.message().await?.expect("one answer for each request").ttl)
    }

    async fn time_to_live(&self, id: i64, keys: bool) -> Result<pb::LeaseTimeToLiveResponse, Status> {
        let request = self.request(pb::LeaseTimeToLiveRequest { id, keys });
        self.leases().lease_time_to_live(request).await.map(tonic::Response::into_inner)
    }

    async fn grant_role(&self, user: &str, role: &str) {
        let request = pb::AuthUserGrantRoleRequest { user: user.into(), role: role.into() };
        self.auth().user_grant_role(self.request(request)).await.unwrap();
    }

    async fn add_user(&self, name: &str, password: &str) {
        let request =
            pb::AuthUserAddRequest { name: name.into(), password: password.into(), ..Default::default() };
        self.auth().user_add(self.request(request)).await.unwrap();
    }

    async fn permit(&self, role: &str, kind: authpb::permission::Type, key: &str, end: &str) {
        let perm = authpb::Permission { perm_type: kind.into(), key: bytes(key), range_end: bytes(end) };
        let request = pb::AuthRoleGrantPermissionRequest { name: role.into(), perm: Some(perm) };
        self.auth().role_grant_permission(self.request(request)).await.unwrap();
    }

    async fn revoke(&self, role: &str, key: &str, end: &str) {
        let request =
            pb::AuthRoleRevokePermissionRequest { role: role.into(), key: bytes(key), range_end: bytes(end) };
        self.auth().role_revoke_permission(self.request(request)).await.unwrap();
    }

    async fn status(&self) -> (bool, u64) {
        let status = self.auth().auth_status(pb::AuthStatusRequest {}).await.unwrap().into_inner();
        (status.enabled, status.auth_revision)
    }
}

fn is<T: std::fmt::Debug>(answer: Result<T, Status>, (code, text): (Code, &str)) {
    assert_eq!(refusal(answer), refused(code, text));
}

async fn next(stream: &mut Streaming<pb::WatchResponse>) -> pb::WatchResponse {
    tokio::time::timeout(PATIENCE, stream.message()).await.expect("in time").unwrap().expect("it goes on")
}

/// Auth is on: `root`/`pw`; `bob`/`b` may read and write `b..c`, and read `r..s`.
async fn guarded(url: &str) -> (Client, Client) {
    use authpb::permission::Type;
    let nobody = Client::nobody(url);
    nobody.add_user("root", "pw").await;
    nobody.grant_role("root", "root").await;
    nobody.add_user("bob", "b").await;
    nobody.auth().role_add(pb::AuthRoleAddRequest { name: "some".into() }).await.unwrap();
    nobody.permit("some", Type::Readwrite, "b", "c").await;
    nobody.permit("some", Type::Read, "r", "s").await;
    nobody.grant_role("bob", "some").await;
    let enabled = nobody.auth().auth_enable(pb::AuthEnableRequest {}).await.unwrap().into_inner();
    assert!(enabled.header.is_some());
    (Client::login(url, "root", "pw").await.unwrap(), Client::login(url, "bob", "b").await.unwrap())
}

/// A message with bytes in its first field.
#[derive(Clone, PartialEq, prost::Message)]
struct Keyed {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

/// Calls any method; its first answer is read and not looked at.
async fn raw(client: &Client, path: &str, key: &[u8]) -> Result<(), Status> {
    let mut grpc = tonic::client::Grpc::new(client.channel.clone());
    grpc.ready().await.unwrap();
    let path = format!("/{path}").parse().unwrap();
    let codec = tonic_prost::ProstCodec::<Keyed, ()>::default();
    let request = client.request(Keyed { key: key.to_vec() }).into_request();
    grpc.server_streaming(request, path, codec).await?.into_inner().message().await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rpc_is_closed_to_who_has_not_logged_in_unless_it_is_open() {
    let cluster = TestCluster::start(1, &[CHEAP]).await.unwrap();
    let url = cluster.endpoint(0);
    guarded(&url).await;
    let nobody = Client::nobody(&url);
    let stranger = Client { token: Some("abcdefghijklmnop.1".into()), ..nobody.clone() };
    for rpc in rules::ALL.iter().filter(|rpc| *rpc != &rules::WATCH) {
        let key: &[u8] = match *rpc {
            rules::RANGE | rules::RANGE_STREAM | rules::PUT | rules::DELETE_RANGE | rules::UNLOCK => b"k",
            // Who is elected, with a key.
            rules::PROCLAIM | rules::RESIGN => &[0x12, 1, b'k'],
            _ => b"",
        };
        let (unknown, known) = (raw(&nobody, rpc.path, key).await, raw(&stranger, rpc.path, key).await);
        if rpc.rule == Rule::Open {
            let text = |answer: &Result<(), Status>| answer.as_ref().err().map(|e| e.message().to_owned());
            let shut = [EMPTY.1, BAD_TOKEN.1].map(|text| Some(text.to_owned()));
            assert!(!shut.contains(&text(&unknown)) && !shut.contains(&text(&known)), "{}", rpc.path);
            continue;
        }
        assert_eq!(unknown.unwrap_err().message(), EMPTY.1, "{}", rpc.path);
        assert_eq!(known.unwrap_err().message(), BAD_TOKEN.1, "{}", rpc.path);
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_right_sees_nothing() {
    let cluster = TestCluster::start(1, &[CHEAP]).await.unwrap();
    let url = cluster.endpoint(0);
    let (root, bob) = guarded(&url).await;
    for key in ["a", "b1", "r1", "z"] {
        root.put(key, "v").await.unwrap();
    }
    is(bob.put("a", "v").await, DENIED);
    is(bob.put("r1", "v").await, DENIED);
    bob.put("b2", "v").await.unwrap();
    // Ranges, in every form.
    assert_eq!(keys(&bob.range(range_request("b", "c")).await.unwrap()), ["b1", "b2"]);
    for (key, end) in [("a", ""), ("a", "c"), ("b", "d"), ("b", "\0"), ("\0", "\0")] {
        let range = range_request(key, end);
        is(bob.range(range.clone()).await, DENIED);
        is(bob.range(pb::RangeRequest { serializable: true, ..range.clone() }).await, DENIED);
        is(bob.range(pb::RangeRequest { count_only: true, ..range.clone() }).await, DENIED);
        is(bob.range(pb::RangeRequest { revision: 2, ..range.clone() }).await, DENIED);
        is(bob.kv().range_stream(bob.request(range)).await, DENIED);
    }
    // Transactions, also where a branch does not run, and nested ones.
    let nested = |op: pb::RequestOp| {
        let inner = pb::TxnRequest { failure: vec![op], ..Default::default() };
        pb::RequestOp { request: Some(pb::request_op::Request::RequestTxn(inner)) }
    };
    let read = |key: &str| op_range(range_request(key, ""));
    bob.txn(pb::TxnRequest { success: vec![read("b1"), nested(read("r1"))], ..Default::default() })
        .await
        .unwrap();
    for op in [read("a"), nested(read("a")), op_put("a", "w"), nested(op_put("r1", "w"))] {
        is(bob.txn(pb::TxnRequest { failure: vec![op], ..Default::default() }).await, DENIED);
    }
    assert_eq!(root.range(range_request("a", "")).await.unwrap().kvs[0].value, bytes("v"));
    // Leases: those that have keys of others.
    for (id, key) in [(1, "a"), (2, "b3")] {
        let grant = pb::LeaseGrantRequest { ttl: 600, id };
        root.leases().lease_grant(root.request(grant)).await.unwrap();
        let put = pb::PutRequest { lease: id, ..put_request(key, "leased") };
        root.kv().put(root.request(put)).await.unwrap();
    }
    is(bob.time_to_live(1, true).await, DENIED);
    assert_eq!(bob.time_to_live(1, false).await.unwrap().keys.len(), 0);
    assert_eq!(bob.time_to_live(2, true).await.unwrap().keys, [bytes("b3")]);
    is(bob.leases().lease_leases(bob.request(pb::LeaseLeasesRequest {})).await, DENIED);
    is(bob.keep_alive(1).await, DENIED);
    assert_eq!(bob.keep_alive(2).await.unwrap(), 600);
    is(bob.leases().lease_revoke(bob.request(pb::LeaseRevokeRequest { id: 1 })).await, DENIED);
    let attach = pb::PutRequest { lease: 1, ..put_request("b4", "") };
    is(bob.kv().put(bob.request(attach)).await, DENIED);
    bob.leases().lease_revoke(bob.request(pb::LeaseRevokeRequest { id: 2 })).await.unwrap();
    assert_eq!(root.time_to_live(1, true).await.unwrap().keys, [bytes("a")]);
    // What only root may.
    let compact = |revision| pb::CompactionRequest { revision, physical: false };
    is(bob.kv().compact(bob.request(compact(2))).await, DENIED);
    let mut maintenance = MaintenanceClient::new(channel(&url));
    is(maintenance.hash(bob.request(pb::HashRequest {})).await, DENIED);
    root.kv().compact(root.request(compact(2))).await.unwrap();
    maintenance.hash(root.request(pb::HashRequest {})).await.unwrap();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_are_judged_when_they_are_created() {
    let cluster = TestCluster::start(1, &[CHEAP]).await.unwrap();
    let url = cluster.endpoint(0);
    let (root, bob) = guarded(&url).await;
    let refused = |answer: pb::WatchResponse, reason: &str| {
        assert!(answer.created && answer.canceled);
        assert_eq!((answer.watch_id, answer.cancel_reason.as_str()), (-1, reason));
    };
    let denied = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
    refused(next(&mut bob.watch("a", "c").await).await, denied);
    refused(next(&mut bob.watch("", "\0").await).await, denied);
    let empty = "rpc error: code = InvalidArgument desc = etcdserver: user name is empty";
    refused(next(&mut Client::nobody(&url).watch("b", "").await).await, empty);
    let stranger = Client { token: Some("nonsense".into()), ..bob.clone() };
    let invalid = "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token";
    refused(next(&mut stranger.watch("b", "").await).await, invalid);
    let mut open = bob.watch("b", "c").await;
    assert!(!next(&mut open).await.canceled);
    // What is revoked later ends no watch, as in etcd; there are no new ones.
    root.revoke("some", "b", "c").await;
    refused(next(&mut bob.watch("b", "c").await).await, denied);
    is(bob.range(range_request("b", "c")).await, DENIED);
    root.put("b1", "v").await.unwrap();
    let event = next(&mut open).await.events.remove(0).kv.unwrap();
    assert_eq!((event.key, event.value), (bytes("b1"), bytes("v")));
    cluster.stop().await;
}

// covers: Auth.AuthEnable AuthEnableResponse.header
// covers: Auth.Authenticate AuthenticateRequest.name AuthenticateRequest.password
// covers: Auth.Authenticate AuthenticateResponse.header AuthenticateResponse.token
// covers: Auth.AuthStatus AuthStatusResponse.enabled AuthStatusResponse.authRevision
#[tokio::test(flavor = "multi_thread")]
async fn tokens_end_with_the_password_and_with_auth() {
    let cluster = TestCluster::start(1, &[CHEAP]).await.unwrap();
    let url = cluster.endpoint(0);
    let off = (Code::FailedPrecondition, "etcdserver: authentication is not enabled");
    is(Client::login(&url, "root", "pw").await.map(drop), off);
    let (root, bob) = guarded(&url).await;
    let wrong = (Code::InvalidArgument, "etcdserver: authentication failed, invalid user ID or password");
    for (user, password) in [("root", "b"), ("root", ""), ("nobody", "pw"), ("", "")] {
        is(Client::login(&url, user, password).await.map(drop), wrong);
    }
    let parts = bob.token.clone().unwrap();
    let (letters, index) = parts.split_once('.').unwrap();
    assert!(letters.len() == 16 && index.parse::<u64>().is_ok(), "{parts}");
    // The gateway's name for it, and the word in front of it.
    let mut request = Request::new(range_request("b", ""));
    request.metadata_mut().insert("authorization", format!("Bearer {parts}").parse().unwrap());
    bob.kv().range(request).await.unwrap();
    // A change elsewhere ends no token; the own password does.
    root.add_user("other", "x").await;
    bob.range(range_request("b", "")).await.unwrap();
    let request = pb::AuthUserChangePasswordRequest {
        name: "bob".into(),
        password: "new".into(),
        ..Default::default()
    };
    root.auth().user_change_password(root.request(request)).await.unwrap();
    is(bob.range(range_request("b", "")).await, BAD_TOKEN);
    is(bob.put("b", "").await, BAD_TOKEN);
    is(Client::login(&url, "bob", "b").await.map(drop), wrong);
    let bob = Client::login(&url, "bob", "new").await.unwrap();
    bob.put("b", "").await.unwrap();
    // While auth is off, nobody looks at tokens; then all are new.
    root.auth().auth_disable(root.request(pb::AuthDisableRequest {})).await.unwrap();
    bob.put("a", "").await.unwrap();
    Client::nobody(&url).auth().auth_enable(pb::AuthEnableRequest {}).await.unwrap();
    is(bob.put("b", "").await, BAD_TOKEN);
    is(root.put("b", "").await, BAD_TOKEN);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_users_are_told_of_themselves() {
    let cluster = TestCluster::start(1, &[CHEAP]).await.unwrap();
    let url = cluster.endpoint(0);
    let (root, bob) = guarded(&url).await;
    let user = |who: &Client, name: &str| {
        let (mut client, request) =
            (who.auth(), who.request(pb::AuthUserGetRequest { name: name.to_owned() }));
        async move { client.user_get(request).await.map(|answer| answer.into_inner().roles) }
    };
    let role = |who: &Client, role: &str| {
        let (mut client, request) =
            (who.auth(), who.request(pb::AuthRoleGetRequest { role: role.to_owned() }));
        async move { client.role_get(request).await.map(|answer| answer.into_inner().perm.len()) }
    };
    assert_eq!(user(&bob, "bob").await.unwrap(), ["some"]);
    is(user(&bob, "root").await, DENIED);
    is(user(&bob, "none").await, DENIED);
    is(user(&root, "none").await, (Code::FailedPrecondition, "etcdserver: user name not found"));
    assert_eq!(role(&bob, "some").await.unwrap(), 2);
    is(role(&bob, "root").await, DENIED);
    is(role(&root, "root").await, (Code::FailedPrecondition, "etcdserver: role name not found"));
    is(bob.auth().user_list(bob.request(pb::AuthUserListRequest {})).await, DENIED);
    is(bob.auth().role_list(bob.request(pb::AuthRoleListRequest {})).await, DENIED);
    let users = root.auth().user_list(root.request(pb::AuthUserListRequest {})).await.unwrap().into_inner();
    assert_eq!(users.users, ["bob", "root"]);
    assert_eq!(Client::nobody(&url).status().await, (true, 8));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_and_elections_need_what_their_keys_need() {
    use holdfast_proto::v3electionpb as election;
    use holdfast_proto::v3lockpb as lock;
    let cluster = TestCluster::start(1, &[CHEAP]).await.unwrap();
    let (root, bob) = guarded(&cluster.endpoint(0)).await;
    let mut locks = lock::lock_client::LockClient::new(bob.channel.clone());
    let request = |name: &str| lock::LockRequest { name: bytes(name), lease: 0 };
    // In etcd a client inside the server asks, and codes are lost on the way.
    let denied = (Code::Unknown, DENIED.1);
    is(locks.lock(bob.request(request("a"))).await, denied);
    is(locks.lock(bob.request(request("r"))).await, denied);
    let key = locks.lock(bob.request(request("b"))).await.unwrap().into_inner().key;
    locks.unlock(bob.request(lock::UnlockRequest { key: key.clone() })).await.unwrap();
    // Who waits in line and loses the right to it is told so when it is its turn; its key goes all the same.
    let held = locks.lock(bob.request(request("b"))).await.unwrap().into_inner().key;
    let mut waiting = tokio::spawn({
        let (mut locks, request) = (locks.clone(), bob.request(request("b")));
        async move { locks.lock(request).await }
    });
    let line = || async { root.range(range_request("b/", "b0")).await.unwrap().count };
    let in_line = async {
        while line().await < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, in_line).await.expect("it stands in line");
    root.revoke("some", "b", "c").await;
    assert!(futures::FutureExt::now_or_never(&mut waiting).is_none());
    let unlock = lock::UnlockRequest { key: held };
    locks.unlock(root.request(unlock)).await.unwrap();
    let answer = tokio::time::timeout(PATIENCE, waiting).await.expect("in time").unwrap();
    assert_eq!(refusal(answer).1, DENIED.1);
    assert_eq!(line().await, 0);
    let mut elections = election::election_client::ElectionClient::new(bob.channel.clone());
    let leader = election::LeaderRequest { name: bytes("a") };
    assert_eq!(refusal(elections.leader(bob.request(leader)).await).1, DENIED.1);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_users_and_forgets_tokens() {
    let mut cluster = TestCluster::start(1, &[CHEAP]).await.unwrap();
    let (root, bob) = guarded(&cluster.endpoint(0)).await;
    root.put("b1", "v").await.unwrap();
    cluster.server(0).dump().await.unwrap();
    root.add_user("late", "l").await;
    let before = root.status().await;
    cluster.stop_member(0).await;
    cluster.start_member(0).await.unwrap();
    let url = cluster.endpoint(0);
    assert_eq!(Client::nobody(&url).status().await, before);
    is(Client::nobody(&url).range(range_request("b1", "")).await, EMPTY);
    is(bob.at(&url).range(range_request("b1", "")).await, BAD_TOKEN);
    let bob = Client::login(&url, "bob", "b").await.unwrap();
    assert_eq!(bob.range(range_request("b1", "")).await.unwrap().count, 1);
    is(bob.range(range_request("a", "")).await, DENIED);
    Client::login(&url, "late", "l").await.unwrap();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_good_everywhere_and_a_revocation_holds_everywhere() {
    let flags: Vec<&str> = CALM.into_iter().chain([CHEAP]).collect();
    let cluster = TestCluster::start(3, &flags).await.unwrap();
    let urls = cluster.endpoints();
    let (root, bob) = guarded(&urls[0]).await;
    root.at(&urls[1]).put("b1", "v").await.unwrap();
    for url in &urls {
        assert_eq!(bob.at(url).range(range_request("b1", "")).await.unwrap().count, 1);
        bob.at(url).put("b2", "v").await.unwrap();
    }
    root.at(&urls[1]).revoke("some", "b", "c").await;
    for url in &urls {
        is(bob.at(url).range(range_request("b1", "")).await, DENIED);
        is(bob.at(url).put("b2", "v").await, DENIED);
    }
    // What is granted through one member is permitted through the others at once.
    for round in 0..3 {
        let key = format!("n{round}");
        root.at(&urls[round % 3]).permit("some", authpb::permission::Type::Readwrite, &key, "").await;
        bob.at(&urls[(round + 1) % 3]).put(&key, "v").await.unwrap();
        assert_eq!(bob.at(&urls[(round + 2) % 3]).range(range_request(&key, "")).await.unwrap().count, 1);
    }
    // Users and roles change all the time, and nobody who has the right is refused.
    let changing = tokio::spawn(async move {
        for round in 0..20 {
            root.permit("some", authpb::permission::Type::Read, &format!("x{round}"), "").await;
        }
    });
    while !changing.is_finished() {
        for url in &urls {
            bob.at(url).put("n0", "v").await.unwrap();
            bob.at(url).range(range_request("n0", "")).await.unwrap();
        }
    }
    changing.await.unwrap();
    cluster.stop().await;
}

/// It was down when auth was switched on, and nobody is there who could tell it.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_cannot_know_yet_does_not_take_auth_for_off() {
    let mut cluster = TestCluster::start(3, &[&CALM[..], &[CHEAP]].concat()).await.unwrap();
    cluster.stop_member(2).await;
    let (root, _) = guarded(&cluster.endpoint(0)).await;
    root.put("secret", "1").await.unwrap();
    for member in [0, 1] {
        cluster.stop_member(member).await;
    }
    cluster.start_member_without_waiting(2).await.unwrap();
    let url = cluster.endpoint(2);
    let nobody = Client::nobody(&url);
    let soon = |mut request: Request<_>| {
        request.set_timeout(Duration::from_secs(2));
        request
    };
    let member = pb::MemberAddRequest { peer_ur_ls: vec!["http://127.0.0.1:1".into()], ..Default::default() };
    let added = ClusterClient::new(nobody.channel.clone()).member_add(soon(Request::new(member))).await;
    assert!(added.is_err(), "{added:?}");
    let watch = tokio::time::timeout(Duration::from_secs(2), async {
        nobody.watch("secret", "").await.message().await
    });
    // A stream that is opened says that a watcher is there, or that it is not.
    if let Ok(Ok(Some(answer))) = watch.await {
        panic!("a watcher of a member that cannot judge: {answer:?}");
    }
    for member in [0, 1] {
        cluster.start_member_without_waiting(member).await.unwrap();
    }
    // Who has a token is not refused because this member does not know yet what it is for.
    let behind = root.at(&url);
    behind.put("secret", "2").await.unwrap();
    assert_eq!(behind.range(range_request("secret", "")).await.unwrap().count, 1);
    cluster.wait_ready().await.unwrap();
    let mut watch = nobody.watch("secret", "").await;
    let answer = next(&mut watch).await;
    assert!(answer.canceled && answer.cancel_reason.contains("user name is empty"), "{answer:?}");
    cluster.stop().await;
}

/// `--auth-token` with keys of the tests.
fn signed(ttl: &str) -> String {
    let keys = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/es256");
    format!("--auth-token=jwt,pub-key={keys}.pub,priv-key={keys}.key,sign-method=ES256,ttl={ttl}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_token_is_good_everywhere_until_what_it_says_does_not_hold() {
    let flag = signed("10m");
    let cluster = TestCluster::start(3, &[&CALM[..], &[CHEAP, &flag]].concat()).await.unwrap();
    let (root, bob) = guarded(&cluster.endpoint(0)).await;
    assert_eq!(bob.token.as_ref().unwrap().split('.').count(), 3, "it is a JSON Web Token");
    for member in 0..3 {
        let bob = bob.at(&cluster.endpoint(member));
        bob.put("b1", "v").await.unwrap();
        is(bob.put("a1", "v").await, DENIED);
        // A user that another member has not seen yet is waited for.
        let name = format!("new{member}");
        root.add_user(&name, "n").await;
        let new =
            Client::login(&cluster.endpoint(0), &name, "n").await.unwrap().at(&cluster.endpoint(member));
        let own = pb::AuthUserGetRequest { name };
        new.auth().user_get(new.request(own)).await.unwrap();
    }
    let mut watch = bob.watch("b", "c").await;
    assert!(next(&mut watch).await.created);
    // Other changes do not matter; the password does.
    bob.put("b2", "v").await.unwrap();
    let changed =
        pb::AuthUserChangePasswordRequest { name: "bob".into(), password: "c".into(), ..Default::default() };
    root.auth().user_change_password(root.request(changed)).await.unwrap();
    for member in 0..3 {
        is(bob.at(&cluster.endpoint(member)).put("b1", "v").await, BAD_TOKEN);
    }
    let again = Client::login(&cluster.endpoint(1), "bob", "c").await.unwrap();
    again.put("b1", "v").await.unwrap();
    // Nor does it outlive that auth was off.
    root.auth().auth_disable(root.request(pb::AuthDisableRequest {})).await.unwrap();
    again.put("b1", "v").await.unwrap();
    let nobody = Client::nobody(&cluster.endpoint(0));
    nobody.auth().auth_enable(pb::AuthEnableRequest {}).await.unwrap();
    is(again.put("b1", "v").await, BAD_TOKEN);
    is(root.put("b1", "v").await, BAD_TOKEN);
    // A random token of another cluster is none here.
    let stranger = Client { token: Some("abcdefghijklmnop.1".into()), ..nobody };
    is(stranger.put("b1", "v").await, BAD_TOKEN);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_token_ends_by_its_time_however_much_it_is_used() {
    let flag = signed("2s");
    let cluster = TestCluster::start(1, &[CHEAP, &flag]).await.unwrap();
    let (_, bob) = guarded(&cluster.endpoint(0)).await;
    let ended = async {
        loop {
            match bob.put("b1", "v").await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(refusal) => return refusal,
            }
        }
    };
    let refusal = tokio::time::timeout(PATIENCE, ended).await.expect("in time");
    is::<()>(Err(refusal), BAD_TOKEN);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_without_the_private_key_checks_tokens_and_gives_out_none() {
    let keys = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/es256");
    let flag = format!("--auth-token=jwt,pub-key={keys}.pub,sign-method=ES256");
    let cluster = TestCluster::start(1, &[CHEAP, &flag]).await.unwrap();
    let url = cluster.endpoint(0);
    let nobody = Client::nobody(&url);
    nobody.add_user("root", "pw").await;
    nobody.grant_role("root", "root").await;
    nobody.auth().auth_enable(pb::AuthEnableRequest {}).await.unwrap();
    let refused = Client::login(&url, "root", "pw").await.map(|_| ());
    is(refused, (Code::Unknown, "auth: token signing attempted with verify-only key"));
}
