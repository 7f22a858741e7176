//! Members that know each other by certificates.

use std::path::Path;

use holdfast_server::config::{Config, flags};
use holdfast_server::joining;
use holdfast_server::server::{self, Server};
use holdfast_testserver::{CALM, TestCluster, free_ports};
use holdfast_tls::PairFiles;

use crate::certs::{Authority, Certs, LOCAL, as_strs, client_port, failures, files, flag, put, until};

fn peer_port(pair: &PairFiles, ca: &Path) -> Vec<String> {
    vec![
        flag("peer-cert-file", &pair.cert),
        flag("peer-key-file", &pair.key),
        flag("peer-trusted-ca-file", ca),
        "--peer-client-cert-auth".to_owned(),
    ]
}

fn reloads(cluster: &TestCluster) -> Vec<u64> {
    (0..3).map(|member| cluster.server(member).tls().reloads()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_members_keep_working_while_their_certificates_and_ca_are_replaced() {
    let (old, new, certs) = (Authority::new(), Authority::new(), Certs::new());
    let trust = certs.trust("ca.crt", &[&old]);
    let pair = certs.issue("peer", &old, LOCAL);
    let mut flags: Vec<String> = CALM.iter().map(|flag| (*flag).to_owned()).collect();
    flags.extend(peer_port(&pair, &trust));
    let mut cluster = TestCluster::start(3, &as_strs(&flags)).await.unwrap();
    assert!(cluster.peer_url(0).starts_with("https://"));
    let config = holdfast_client::Config::default();
    let client = holdfast_client::Client::with_config(cluster.endpoints(), config).unwrap();
    client.set_if_not_exists("a", "1").await.unwrap();
    // Both CAs first, then certificates of the new one, then the new one alone.
    for step in 0..3 {
        let before = reloads(&cluster);
        match step {
            0 => drop(certs.trust("ca.crt", &[&old, &new])),
            1 => drop(certs.issue("peer", &new, LOCAL)),
            _ => drop(certs.trust("ca.crt", &[&new])),
        }
        // Both directions take each change.
        until(|| reloads(&cluster).iter().zip(&before).all(|(now, before)| *now >= before + 2)).await;
        // Connections that are open stay; a member that comes back makes new ones, both ways.
        cluster.stop_member(step).await;
        client.set_if_not_exists(format!("during {step}"), "1").await.unwrap();
        cluster.start_member(step).await.unwrap();
        client.set_if_not_exists(format!("behind {step}"), "1").await.unwrap();
    }
    // A certificate of the old CA is out.
    let late = certs.issue("late", &old, LOCAL);
    let url = cluster.peer_url(0);
    put(&url, &files(&trust, Some(&late)), "a").await.unwrap_err();
    assert!(failures(cluster.server(0), "peer", "unknown_ca").await > 0);
    put(&url, &files(&trust, None), "a").await.unwrap_err();
    assert!(failures(cluster.server(0), "peer", "no_certificate").await > 0);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_joins_over_tls() {
    let (ca, certs) = (Authority::new(), Certs::new());
    let trust = certs.trust("ca.crt", &[&ca]);
    let pair = certs.issue("both", &ca, LOCAL);
    let mut tls = peer_port(&pair, &trust);
    tls.extend(client_port(&pair, Some(&trust)));
    let cluster = TestCluster::start(1, &as_strs(&tls)).await.unwrap();
    let ports = free_ports(2).unwrap();
    let mut args = vec![
        "holdfast".to_owned(),
        "join".to_owned(),
        format!("--endpoints={}", cluster.endpoint(0)),
        flag("cacert", &trust),
        flag("cert", &pair.cert),
        flag("key", &pair.key),
        "--name=n9".to_owned(),
        flag("data-dir", &certs.file("n9")),
        format!("--listen-peer-urls=https://127.0.0.1:{}", ports[0]),
        format!("--listen-client-urls=https://127.0.0.1:{}", ports[1]),
        "--segment-bytes=8MiB".to_owned(),
    ];
    args.extend(tls);
    let cli = flags::parse(args.iter().map(Into::into), &|_| None).unwrap();
    let Some(flags::CliCommand::Join(join)) = cli.command else { panic!("it is a join") };
    let config = Config::from_flags(&cli.server).unwrap();
    joining::join(&server::world(&config).unwrap(), &config, &join).await.unwrap();
    let joined = Server::start(&config).await.unwrap();
    joined.ready().wait_for(|ready| *ready).await.unwrap();
    let url = config.advertise_client_urls[0].to_string();
    put(&url, &files(&trust, Some(&pair)), "a").await.unwrap();
    joined.stop().await;
    cluster.stop().await;
}
