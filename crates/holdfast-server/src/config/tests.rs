//! What flags and environment give, and what is refused with which words.

use std::collections::HashMap;
use std::ffi::OsString;

use super::flags::{self, Cli};
use super::*;

fn parse_with(environment: &[(&str, &str)], args: &[&str]) -> Result<Cli, clap::Error> {
    let environment: HashMap<String, OsString> =
        environment.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect();
    let args = std::iter::once("holdfast").chain(args.iter().copied()).map(OsString::from);
    flags::parse(args, &|name| environment.get(name).cloned())
}

fn config(args: &[&str]) -> Result<Config, ConfigError> {
    Config::from_flags(&parse_with(&[], args).unwrap().server)
}

fn urls(urls: &[MemberUrl]) -> String {
    join(urls)
}

#[test]
fn without_flags_it_is_a_single_member_on_etcds_ports() {
    let config = config(&[]).unwrap();
    assert_eq!(config.name, "default");
    assert_eq!(config.data_dir, PathBuf::from("default.holdfast"));
    assert_eq!(urls(&config.listen_client_urls), "http://localhost:2379");
    assert_eq!(urls(&config.advertise_client_urls), "http://localhost:2379");
    assert_eq!(urls(&config.listen_peer_urls), "http://localhost:2380");
    assert_eq!(config.initial_cluster.len(), 1);
    assert_eq!(urls(&config.initial_cluster[0].peer_urls), "http://localhost:2380");
    assert_eq!(config.limits.request_bytes_max, 1_572_864);
    assert_eq!(config.limits.quota_backend_bytes, Some(2_147_483_648));
    assert_eq!(config.request_budget(), Duration::from_secs(7));
    assert!(config.warnings.is_empty());
}

#[test]
fn a_member_of_three_finds_itself_in_the_cluster() {
    let cluster = "n2=http://10.0.0.2:2380,n1=http://10.0.0.1:2380,n3=http://10.0.0.3:2380";
    let config = config(&[
        "--name=n2",
        "--initial-cluster",
        cluster,
        "--listen-peer-urls=http://0.0.0.0:2380",
        "--initial-advertise-peer-urls=http://10.0.0.2:2380",
        "--listen-client-urls=http://0.0.0.0:2379",
        "--advertise-client-urls=http://10.0.0.2:2379",
        "--election-timeout=500",
        "--heartbeat-interval=50",
    ])
    .unwrap();
    let names: Vec<_> = config.initial_cluster.iter().map(|member| member.name.as_str()).collect();
    assert_eq!(names, ["n1", "n2", "n3"]);
    assert_eq!(config.election_timeout, Duration::from_millis(500));
    assert_eq!(config.data_dir, PathBuf::from("n2.holdfast"));
}

#[test]
fn a_flag_wins_over_holdfast_variables_and_these_over_etcds() {
    let environment =
        [("ETCD_NAME", "e"), ("HOLDFAST_NAME", "h"), ("ETCD_MAX_TXN_OPS", "7"), ("ETCD_DATA_DIR", "")];
    let name = |args: &[&str]| parse_with(&environment, args).unwrap().server.name;
    assert_eq!(name(&[]), "h");
    assert_eq!(name(&["--name", "f"]), "f");
    let server = parse_with(&environment, &[]).unwrap().server;
    assert_eq!(server.max_txn_ops, 7);
    assert_eq!(server.data_dir, None, "an empty variable is not set");
    let warnings = parse_with(&[("ETCD_PRE_VOTE", "false")], &[]).unwrap().server.warnings;
    assert!(warnings[0].contains("environment variable ETCD_PRE_VOTE=false has no effect"), "{warnings:?}");
}

#[test]
fn a_bad_value_in_the_environment_names_the_variable() {
    for (variable, value) in [("ETCD_MAX_REQUEST_BYTES", "many"), ("HOLDFAST_ENGINE", "rocksdb")] {
        let error = parse_with(&[(variable, value)], &["--name=n1"]).unwrap_err();
        let text = error.to_string();
        assert_eq!(error.exit_code(), 2);
        assert!(
            text.contains(&format!("environment variable {variable}: ")) && text.contains(value),
            "{text}"
        );
    }
}

#[test]
fn variables_that_mean_nothing_are_warned_about() {
    let names = [
        "HOLDFAST_NAME",
        "ETCD_DATA_DIR",
        "HOLDFAST_BIN",
        "ETCD_PORT_2379_TCP",
        "ETCD_SERVICE_HOST",
        "PATH",
        "ETCDCTL_API",
        "ETCD_LISTEN_CLIENT_URL",
        "HOLDFAST_DATADIR",
    ];
    let warnings = flags::unknown_variables(names.map(OsString::from));
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("ETCD_LISTEN_CLIENT_URL ") && warnings[1].contains("HOLDFAST_DATADIR "));
}

#[test]
fn go_style_flags_work() {
    let server =
        parse_with(&[], &["-name", "n1", "-data-dir=/x", "--pre-vote", "--strict-reconfig-check=false"])
            .unwrap();
    assert_eq!(server.server.name, "n1");
    assert_eq!(server.server.data_dir, Some(PathBuf::from("/x")));
    assert!(server.server.warnings.is_empty(), "{:?}", server.server.warnings);
    assert!(!server.server.strict_reconfig_check);
}

#[test]
fn join_takes_the_flags_of_a_member_and_where_to_ask() {
    let args = ["join", "--endpoints=h:1,http://i:2", "--name=x", "--replace"];
    let joining = parse_with(&[("HOLDFAST_ENGINE", "redb")], &args).unwrap();
    let Some(flags::CliCommand::Join(join)) = joining.command else { panic!("{joining:?}") };
    assert_eq!(join.endpoints, "h:1,http://i:2");
    assert!(join.replace && !join.learner);
    assert_eq!((joining.server.name.as_str(), joining.server.engine), ("x", flags::EngineFlag::Redb));
    assert!(parse_with(&[], &["join", "--name=x"]).is_err(), "nobody to ask");
    assert!(parse_with(&[], &["--endpoints=h:1"]).is_err(), "only when joining");
}

#[test]
fn commands_are_told_from_flags_and_take_no_variables() {
    let environment = [("HOLDFAST_NAME", "h"), ("HOLDFAST_ENGINE", "redb")];
    assert!(parse_with(&environment, &["demo", "--duration=3s"]).unwrap().command.is_some());
    assert!(parse_with(&environment, &["healthcheck"]).unwrap().command.is_some());
    assert!(parse_with(&[], &["--name=x", "demo"]).is_err(), "a member's flags mean nothing to the demo");
    assert!(parse_with(&[], &["dance"]).is_err());
}

#[test]
fn flags_that_cannot_be_read_are_refused() {
    for args in [
        &["--no-such-flag"][..],
        &["--max-request-bytes=many"],
        &["--heartbeat-interval=soon"],
        &["--engine=rocksdb"],
        &["--initial-cluster-state=old"],
        &["--pre-vote=perhaps"],
        &["--pre-vote", "false"],
        &["--segment-bytes=1XiB"],
        &["--name"],
    ] {
        let error = parse_with(&[], args).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{args:?}");
    }
}

#[test]
fn sizes_and_durations_take_units() {
    let server =
        parse_with(&[], &["--memory-bytes=1GiB", "--segment-bytes=33554432", "--election-timeout=2s"])
            .unwrap()
            .server;
    assert_eq!((server.memory_bytes, server.segment_bytes), (1 << 30, 32 << 20));
    assert_eq!(server.election_timeout, Duration::from_secs(2));
    assert_eq!(
        parse_with(&[], &["--grpc-keepalive-interval=2h0m0s"]).unwrap().server.grpc_keepalive_interval,
        Duration::from_secs(7200)
    );
}

/// Each line: the flags, and what the refusal must say: where it is, what is wrong, what to do.
#[test]
fn what_cannot_work_is_refused_with_the_next_step() {
    let three = "--initial-cluster=n1=http://a:2380,n2=http://b:2380,n3=http://c:2380";
    let cases: &[(&[&str], &[&str])] = &[
        (
            &["--listen-client-urls=localhost:2379"],
            &["--listen-client-urls", "\"localhost:2379\"", "write http://host:port"],
        ),
        (&["--listen-client-urls=ftp://localhost:2379"], &["--listen-client-urls", "neither http nor https"]),
        (&["--listen-peer-urls=unix:///tmp/s"], &["--listen-peer-urls", "unix sockets"]),
        (&["--listen-peer-urls=http://localhost"], &["--listen-peer-urls", "no port"]),
        (&["--listen-peer-urls=http://localhost:99999"], &["--listen-peer-urls", "65535"]),
        (&["--listen-peer-urls=http://localhost:2380/"], &["--listen-peer-urls", "something follows"]),
        (&["--listen-peer-urls=http://a b:2380"], &["--listen-peer-urls", "host"]),
        (&["--listen-peer-urls=http://[::g]:2380"], &["--listen-peer-urls", "IPv6"]),
        (&["--listen-client-urls=http://h:1,,http://h:2"], &["--listen-client-urls", "\"\""]),
        (&["--listen-client-urls=http://0.0.0.0:2379"], &["--advertise-client-urls", "clients can reach"]),
        (&["--listen-client-urls=http://[::]:2379"], &["--advertise-client-urls", "http://[::]:2379"]),
        (&["--listen-client-urls=http://127.0.0.1:0"], &["--advertise-client-urls", "http://127.0.0.1:0"]),
        (&["--advertise-client-urls=http://h:1,http://0.0.0.0:2"], &["--advertise-client-urls", "0.0.0.0:2"]),
        (&["--advertise-client-urls=http://h:0"], &["--advertise-client-urls", "http://h:0", "port"]),
        (&["--listen-peer-urls=http://127.0.0.1:0"], &["--initial-advertise-peer-urls", "127.0.0.1:0"]),
        (&["--initial-advertise-peer-urls=http://[::]:1"], &["--initial-advertise-peer-urls", "[::]:1"]),
        (
            &["--name=a", "--initial-cluster=a=http://h:1,b=http://0.0.0.0:2"],
            &["--initial-cluster", "http://0.0.0.0:2", "the other members can reach"],
        ),
        (&["--name=a", "--initial-cluster=a=http://h:0"], &["--initial-cluster", "http://h:0"]),
        (
            &["--listen-peer-urls=http://0.0.0.0:2380"],
            &["--initial-advertise-peer-urls", "the other members can reach"],
        ),
        (&["--name=n4", three], &["--initial-cluster", "\"n4\"", "n1, n2, n3"]),
        (
            &["--name=n1", three, "--initial-advertise-peer-urls=http://z:2380"],
            &["--initial-advertise-peer-urls", "http://z:2380", "http://a:2380", "make the two equal"],
        ),
        (&["--initial-cluster=default"], &["--initial-cluster", "\"default\"", "name=http://host:port"]),
        (&["--initial-cluster==http://a:1"], &["--initial-cluster", "name=http://host:port"]),
        (
            &["--name=a", "--initial-cluster=a=http://h:1,b=http://h:1"],
            &["--initial-cluster", "\"a\"", "\"b\"", "http://h:1", "its own"],
        ),
        (&["--name=a b"], &["--name", "without spaces"]),
        (&["--heartbeat-interval=0"], &["--heartbeat-interval", "at least 1 ms"]),
        (&["--election-timeout=400"], &["--election-timeout", "5 times --heartbeat-interval (100 ms)"]),
        (&["--election-timeout=60000"], &["--election-timeout", "50000"]),
        (&["--max-txn-ops=0"], &["--max-txn-ops", "from 1 to"]),
        (&["--max-snapshot-streams=0"], &["--max-snapshot-streams", "from 1 to 64"]),
        (&["--max-waiting-calls=0"], &["--max-waiting-calls", "from 1 to 1000000"]),
        (&["--max-request-bytes=0"], &["--max-request-bytes", "from 4096 to"]),
        (&["--max-request-bytes=4095"], &["--max-request-bytes", "from 4096 to"]),
        (&["--max-concurrent-streams=0"], &["--max-concurrent-streams", "from 1 to"]),
        (&["--max-receiving-bytes=1MiB"], &["--max-receiving-bytes", "from 8388608 to"]),
        (
            &["--auth-token=jwt,sign-method=HS256,priv-key=k,ttl=5"],
            &["--auth-token", "ttl: write a duration"],
        ),
        (&["--watch-progress-notify-interval=99ms"], &["--watch-progress-notify-interval", "at least 100ms"]),
        (&["--watch-stream-bytes=1"], &["--watch-stream-bytes", "from 65536"]),
        (&["--memory-bytes=1MiB"], &["--memory-bytes", "from 16777216"]),
        (&["--write-workers=0"], &["--write-workers", "from 1 to 64"]),
        (&["--segment-bytes=1MiB"], &["--segment-bytes", "from 4194304"]),
        (&["--max-request-bytes=33554432", "--segment-bytes=64MiB"], &["--segment-bytes", "from 68157440"]),
    ];
    refused(cases);
}

#[test]
fn tokens_that_cannot_work_are_refused_with_the_next_step() {
    refused(&[
        (&["--auth-token=saml"], &["--auth-token", "simple, or jwt"]),
        (&["--auth-token=jwt"], &["--auth-token", "sign-method is missing"]),
        (&["--auth-token=jwt,sign-method=ES512"], &["--auth-token", "one of RS256, "]),
        (&["--auth-token=jwt,sign-method=RS256,priv-key=k"], &["--auth-token", "openssl pkey -pubout"]),
        (&["--auth-token=jwt,sign-method=HS256,pub-key=k"], &["--auth-token", "priv-key, with the secret"]),
        (&["--auth-token=jwt,sign-method=HS256,priv-key=k,ttl=0"], &["--auth-token", "at least a second"]),
        (&["--auth-token=jwt,key=k"], &["--auth-token", "key is none of"]),
        (&["--auth-token=jwt,key"], &["--auth-token", "no name=value"]),
    ]);
}

#[test]
fn tls_that_cannot_work_is_refused_with_the_next_step() {
    refused(&[
        (
            &["--listen-client-urls=https://localhost:2379"],
            &["--listen-client-urls", "https://localhost:2379", "--cert-file and --key-file"],
        ),
        (
            &["--initial-cluster=default=https://localhost:2380"],
            &["--initial-cluster", "--peer-cert-file and --peer-key-file"],
        ),
        (&["--cert-file=a.pem"], &["--cert-file needs --key-file"]),
        (&["--peer-key-file=a.pem"], &["--peer-key-file needs --peer-cert-file"]),
        (&["--client-cert-auth"], &["--client-cert-auth needs --trusted-ca-file"]),
        (&["--trusted-ca-file=a.pem"], &["--trusted-ca-file needs --cert-file"]),
        (&["--peer-cert-allowed-cn=a"], &["--peer-cert-allowed-cn needs --peer-trusted-ca-file"]),
        (
            &["--peer-cert-allowed-cn=a", "--peer-cert-allowed-hostname=b"],
            &["--peer-cert-allowed-hostname", "together with --peer-cert-allowed-cn"],
        ),
        (&["--tls-min-version=TLS1.3", "--tls-max-version=TLS1.2"], &["--tls-max-version", "older"]),
        (&["--listen-metrics-urls=https://h:1"], &["--listen-metrics-urls", "--cert-file"]),
    ]);
}

/// Each line: the flags, and what the refusal must say.
fn refused(cases: &[(&[&str], &[&str])]) {
    for (args, parts) in cases {
        let message = config(args).map(|_| ()).unwrap_err().to_string();
        for part in *parts {
            assert!(message.contains(part), "{args:?}: \"{message}\" does not say \"{part}\"");
        }
    }
}

#[test]
fn flags_without_effect_are_warned_about_once() {
    let config =
        config(&["--snapshot-count=10000", "--pre-vote=true", "--logger=zap", "--quota-backend-bytes=1000"])
            .unwrap();
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
}

#[test]
fn no_quota_is_the_default_one_and_a_negative_one_is_none() {
    for (given, quota) in [("1000", Some(1000)), ("0", Some(2_147_483_648)), ("-1", None)] {
        let config = config(&[&format!("--quota-backend-bytes={given}")]).unwrap();
        assert_eq!(config.limits.quota_backend_bytes, quota, "{given}");
    }
}

#[test]
fn what_cannot_work_names_the_variable_it_came_from() {
    let flags = parse_with(&[("ETCD_ELECTION_TIMEOUT", "400")], &[]).unwrap().server;
    let text = Config::from_flags(&flags).unwrap_err().to_string();
    assert!(
        text.contains("5 times") && text.contains("environment variable ETCD_ELECTION_TIMEOUT"),
        "{text}"
    );
}

/// The table has the defaults as text; their reasons are in `limits`.
#[test]
fn the_defaults_of_the_table_are_those_of_limits() {
    let config = config(&[]).unwrap();
    assert_eq!(config.limits.request_bytes_max, limits::REQUEST_BYTES_MAX);
    assert_eq!(config.limits.txn_ops_max, limits::TXN_OPS_MAX);
    assert_eq!(config.limits.snapshot_streams_max, limits::SNAPSHOT_STREAMS_MAX);
    assert_eq!(config.limits.concurrent_streams_max, limits::CONCURRENT_STREAMS_MAX);
    assert_eq!(config.limits.receiving_bytes_max as u64, limits::RECEIVING_BYTES);
    let (token_ttl, bcrypt_cost) = (limits::AUTH_TOKEN_TTL, limits::BCRYPT_COST);
    let auth = AuthConfig { signed: None, token_ttl, bcrypt_cost };
    assert_eq!(config.auth, auth);
    assert_eq!(config.heartbeat_interval, limits::HEARTBEAT_INTERVAL);
    assert_eq!(config.election_timeout, limits::ELECTION_TIMEOUT);
    assert_eq!(config.engine.memory_bytes, limits::MEMORY_BYTES);
    assert_eq!(config.engine.dump_log_bytes, limits::DUMP_LOG_BYTES);
    assert_eq!(config.engine.checkpoint_revisions, limits::CHECKPOINT_REVISIONS);
    assert_eq!(config.engine.segment_bytes, limits::SEGMENT_BYTES);
    assert_eq!(config.keepalive_interval, Some(limits::KEEPALIVE_INTERVAL));
    assert_eq!(config.keepalive_timeout, limits::KEEPALIVE_TIMEOUT);
    assert_eq!(config.keepalive_time_min, limits::KEEPALIVE_TIME_MIN);
    assert_eq!(config.auto_compaction, None);
    assert_eq!(config.watch.progress_notify_interval, limits::PROGRESS_NOTIFY_INTERVAL);
    assert_eq!(config.watch.stream_bytes_max, limits::WATCH_STREAM_BYTES);
}

#[test]
fn a_retention_is_read_as_etcd_reads_it() {
    let read = |mode: &str, retention: &str| {
        let flags =
            [format!("--auto-compaction-mode={mode}"), format!("--auto-compaction-retention={retention}")];
        config(&flags.each_ref().map(String::as_str)).map(|config| config.auto_compaction)
    };
    let periodic = |seconds| Ok(Some(AutoCompaction::Periodic(Duration::from_secs(seconds))));
    assert_eq!(read("periodic", "1"), periodic(3600));
    assert_eq!(read("periodic", "1h30m"), periodic(5400));
    assert_eq!(read("periodic", "10s"), periodic(10));
    assert_eq!(read("revision", "1000"), Ok(Some(AutoCompaction::Revisions(1000))));
    for nothing in ["0", "0s", "0h"] {
        assert_eq!((read("periodic", nothing), read("revision", nothing)), (Ok(None), Ok(None)), "{nothing}");
    }
    for (mode, retention, part) in [
        ("periodic", "-1", "hours"),
        ("periodic", "soon", "hours"),
        ("periodic", "500ms", "from 1s"),
        ("revision", "1h", "number of revisions"),
        ("revision", "-5", "number of revisions"),
    ] {
        let refused = read(mode, retention).unwrap_err().to_string();
        assert!(refused.contains("--auto-compaction-retention") && refused.contains(part), "{refused}");
    }
}

#[test]
fn half_of_the_cpus_serve_unless_a_flag_says_it() {
    let threads = |args: &[&str]| serving_threads(&parse_with(&[], args).unwrap().server);
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(threads(&[]).unwrap(), cores.div_ceil(2));
    assert_eq!(threads(&["--serving-threads=3"]).unwrap(), 3);
    for refused in ["0", "257"] {
        let error = threads(&[&format!("--serving-threads={refused}")]).unwrap_err().to_string();
        assert!(error.contains("--serving-threads") && error.contains("from 1 to 256"), "{error}");
    }
}

#[test]
fn a_certificate_without_tls_is_pointed_out() {
    let plain = config(&["--cert-file=a", "--key-file=b"]).unwrap();
    assert!(plain.warnings.iter().any(|warning| warning.contains("--cert-file has no effect")), "{plain:?}");
    let tls = ["--listen-metrics-urls=https://h:1", "--cert-file=a", "--key-file=b", "--trusted-ca-file=c"];
    let tls = config(&tls).unwrap();
    assert!(tls.warnings.is_empty() && !tls.tls.names_users, "{tls:?}");
    assert!(tls.tls.client.unwrap().ca.is_some());
}
