//! What a client with the right certificate gets.

use std::time::Duration;

use holdfast_client::{Client, Config};
use holdfast_server::config::flags::{ClientTlsFlags, HealthcheckFlags};
use holdfast_server::healthcheck::{self, Found};
use holdfast_server::monitoring;
use holdfast_testserver::TestCluster;

use crate::certs::{Authority, Certs, LOCAL, as_strs, client_port, files, put};

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_a_certificate_is_served_grpc_and_http_on_one_port() {
    let (ca, certs) = (Authority::new(), Certs::new());
    let trust = certs.trust("ca.crt", &[&ca]);
    let pair = certs.issue("server", &ca, LOCAL);
    let own = certs.issue("alice", &ca, LOCAL);
    let cluster = TestCluster::start(1, &as_strs(&client_port(&pair, Some(&trust)))).await.unwrap();
    let url = cluster.endpoint(0);
    assert!(url.starts_with("https://"), "{url}");
    put(&url, &files(&trust, Some(&own)), "a").await.unwrap();
    // By name, too, and with the SDK.
    let by_name = url.replace("127.0.0.1", "localhost");
    let config = Config { tls: files(&trust, Some(&own)), ..Config::default() };
    let client = Client::with_config([by_name], config).unwrap();
    client.set_if_not_exists("b", "1").await.unwrap();
    let flags = HealthcheckFlags {
        endpoint: url.clone(),
        timeout: Duration::from_secs(10),
        tls: ClientTlsFlags {
            cacert: Some(trust.clone()),
            cert: Some(own.cert.clone()),
            key: Some(own.key.clone()),
            insecure_skip_tls_verify: false,
        },
    };
    assert_eq!(healthcheck::run(&flags).await.unwrap(), Found::Ready);
    let unbelieved = HealthcheckFlags { tls: ClientTlsFlags { cacert: None, ..flags.tls.clone() }, ..flags };
    let Found::NotReady(why) = healthcheck::run(&unbelieved).await.unwrap() else { panic!("it is believed") };
    assert!(why.contains("CA"), "{why}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_have_a_port_with_tls_and_say_when_certificates_expire() {
    let (ca, certs) = (Authority::new(), Certs::new());
    let trust = certs.trust("ca.crt", &[&ca]);
    let pair = certs.issue("server", &ca, LOCAL);
    let cluster = TestCluster::start(1, &as_strs(&client_port(&pair, None))).await.unwrap();
    let port = holdfast_testserver::free_ports(1).unwrap()[0];
    let url =
        holdfast_server::config::MemberUrl::parse("test", &format!("https://127.0.0.1:{port}")).unwrap();
    let bound = monitoring::bind(&[url]).await.unwrap();
    let serving = bound.serve(&cluster.server(0).http_routes(), cluster.server(0).tls());
    let page = page(&format!("https://127.0.0.1:{port}/metrics"), &files(&trust, None)).await;
    // 2100-01-01.
    assert!(page.contains("holdfast_tls_certificate_expires_seconds{which=\"client\"} 4102444800"), "{page}");
    assert!(page.contains("holdfast_tls_handshakes_failed_total{cause=\"late\",port=\"peer\"} 0"), "{page}");
    serving.stop().await;
    cluster.stop().await;
}

async fn page(url: &str, files: &holdfast_tls::ClientFiles) -> String {
    use http_body_util::BodyExt;
    let settings = holdfast_tls::ClientTls::load(files).unwrap();
    let connector = holdfast_tls::Connector::http1(std::sync::Arc::new(settings));
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new());
    let client = client.build::<_, http_body_util::Empty<bytes::Bytes>>(connector);
    let answer = client.get(url.parse().unwrap()).await.unwrap();
    String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}
