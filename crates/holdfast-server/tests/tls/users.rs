//! The common name of a certificate is who its client is.

use holdfast_client::{Client, Config};
use holdfast_proto::{authpb, etcdserverpb as pb};
use holdfast_testserver::TestCluster;
use pb::auth_client::AuthClient;
use pb::kv_client::KvClient;
use tonic::{Code, Request};

use crate::certs::{Authority, Certs, LOCAL, Leaf, as_strs, channel, client_port, files};

fn put_request(key: &str) -> pb::PutRequest {
    pb::PutRequest { key: key.to_owned().into(), value: "v".into(), ..Default::default() }
}

fn user(name: &str) -> pb::AuthUserAddRequest {
    let options = Some(authpb::UserAddOptions { no_password: true });
    pb::AuthUserAddRequest { name: name.into(), options, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_a_token_is_of_the_user_in_its_certificate() {
    let (ca, certs) = (Authority::new(), Certs::new());
    let trust = certs.trust("ca.crt", &[&ca]);
    let pair = certs.issue("server", &ca, LOCAL);
    let cluster = TestCluster::start(1, &as_strs(&client_port(&pair, Some(&trust)))).await.unwrap();
    let url = cluster.endpoint(0);
    let named = |name: &'static str| {
        let pair = certs.issue(name, &ca, Leaf { common_name: name, ..LOCAL });
        files(&trust, Some(&pair))
    };
    let (root, alice, stranger) = (named("root"), named("alice"), named("stranger"));
    let mut auth = AuthClient::new(channel(&url, &root));
    for name in ["root", "alice"] {
        auth.user_add(user(name)).await.unwrap();
    }
    auth.user_grant_role(pb::AuthUserGrantRoleRequest { user: "root".into(), role: "root".into() })
        .await
        .unwrap();
    auth.role_add(pb::AuthRoleAddRequest { name: "writer".into() }).await.unwrap();
    let perm = authpb::Permission {
        perm_type: authpb::permission::Type::Readwrite.into(),
        key: "a/".into(),
        range_end: "a0".into(),
    };
    let grant = pb::AuthRoleGrantPermissionRequest { name: "writer".into(), perm: Some(perm) };
    auth.role_grant_permission(grant).await.unwrap();
    auth.user_grant_role(pb::AuthUserGrantRoleRequest { user: "alice".into(), role: "writer".into() })
        .await
        .unwrap();
    auth.auth_enable(pb::AuthEnableRequest {}).await.unwrap();

    let mut kv = KvClient::new(channel(&url, &alice));
    kv.put(put_request("a/1")).await.unwrap();
    let denied = kv.put(put_request("b")).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied, "{denied:?}");
    let denied = KvClient::new(channel(&url, &stranger)).put(put_request("a/1")).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied, "{denied:?}");
    // A token that is named is looked at, whatever the certificate says.
    let mut with_token = Request::new(put_request("a/1"));
    with_token.metadata_mut().insert("token", "abc.1".parse().unwrap());
    let refused = KvClient::new(channel(&url, &alice)).put(with_token).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}");
    // Locks and watches are calls like others.
    let client =
        Client::with_config([url.clone()], Config { tls: alice.clone(), ..Config::default() }).unwrap();
    client.set_if_not_exists("a/2", "1").await.unwrap();
    // root is root, and a right that is taken back is gone.
    let mut auth = AuthClient::new(channel(&url, &root));
    auth.user_revoke_role(pb::AuthUserRevokeRoleRequest { name: "alice".into(), role: "writer".into() })
        .await
        .unwrap();
    assert_eq!(kv.put(put_request("a/1")).await.unwrap_err().code(), Code::PermissionDenied);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_client_cert_auth_a_certificate_names_nobody() {
    let (ca, certs) = (Authority::new(), Certs::new());
    let trust = certs.trust("ca.crt", &[&ca]);
    let pair = certs.issue("server", &ca, LOCAL);
    let mut flags = client_port(&pair, None);
    flags.push(crate::certs::flag("trusted-ca-file", &trust));
    let cluster = TestCluster::start(1, &as_strs(&flags)).await.unwrap();
    let root = certs.issue("root", &ca, Leaf { common_name: "root", ..LOCAL });
    let files = files(&trust, Some(&root));
    let mut auth = AuthClient::new(channel(&cluster.endpoint(0), &files));
    auth.user_add(user("root")).await.unwrap();
    auth.user_grant_role(pb::AuthUserGrantRoleRequest { user: "root".into(), role: "root".into() })
        .await
        .unwrap();
    auth.auth_enable(pb::AuthEnableRequest {}).await.unwrap();
    let refused =
        KvClient::new(channel(&cluster.endpoint(0), &files)).put(put_request("a")).await.unwrap_err();
    assert_eq!(refused.message(), "etcdserver: user name is empty");
    cluster.stop().await;
}
