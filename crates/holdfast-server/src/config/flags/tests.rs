//! The table, the file, and the page made from them.

use std::collections::BTreeSet;
use std::process::{Command as Process, Stdio};

use super::file::{FileError, parse as parse_file};
use super::table::Origin;
use super::*;

fn parse_args(args: &[&str]) -> Result<Cli, clap::Error> {
    parse(std::iter::once("holdfast").chain(args.iter().copied()).map(OsString::from), &|_| None)
}

fn server(args: &[&str]) -> ServerFlags {
    parse_args(args).unwrap_or_else(|error| panic!("{args:?}: {error}")).server
}

fn refusal(args: &[&str]) -> String {
    parse_args(args).expect_err("it must be refused").to_string()
}

/// A value that is neither the default nor one that needs no warning.
fn telling_value(flag: &Flag) -> String {
    let candidates: Vec<&str> = match flag.kind {
        Kind::Switch => vec!["true", "false"],
        Kind::Number | Kind::Count => vec!["7"],
        Kind::Bytes => vec!["16MiB"],
        Kind::Millis | Kind::Duration => vec!["3s"],
        Kind::Choice(words) => words.to_vec(),
        Kind::Text => vec!["something"],
    };
    let is_silent = |value: &&str| match flag.treatment {
        Treatment::WithoutEffect { silent, .. } => silent.contains(value),
        Treatment::Refused(..) => flag.refusal(value).is_none(),
        Treatment::Served(_) => false,
    };
    let telling = candidates.into_iter().find(|value| !is_silent(value));
    telling.unwrap_or_else(|| panic!("--{}: no value of it means anything", flag.name)).to_owned()
}

#[test]
fn the_table_names_each_flag_once_and_says_what_becomes_of_it() {
    let mut names = BTreeSet::new();
    for flag in table::all() {
        for name in flag.names() {
            assert!(names.insert(name), "--{name} is there twice");
        }
        if !flag.default.is_empty() {
            flag.kind.read(flag.default).unwrap_or_else(|rule| panic!("--{}: {rule}", flag.name));
        }
        let texts = match flag.treatment {
            Treatment::Served(does) => vec![does],
            Treatment::WithoutEffect { there, here, .. } => vec![there, here],
            Treatment::Refused(refusal, _) => vec![refusal.why, refusal.next],
        };
        for text in texts {
            assert!(!text.is_empty() && !text.ends_with('.'), "--{}: \"{text}\"", flag.name);
        }
    }
    command().debug_assert();
}

#[test]
fn a_flag_without_effect_is_warned_about_exactly_once() {
    for flag in table::all() {
        let Treatment::WithoutEffect { there, here, silent } = flag.treatment else { continue };
        for name in flag.names() {
            let warnings = server(&[&format!("--{name}={}", telling_value(flag))]).warnings;
            assert_eq!(warnings.len(), 1, "--{name}: {warnings:?}");
            assert!(warnings[0].contains(there) && warnings[0].contains(here), "{warnings:?}");
        }
        for value in silent {
            assert_eq!(server(&[&format!("--{}={value}", flag.name)]).warnings, [""; 0], "--{}", flag.name);
        }
    }
}

#[test]
fn a_refused_flag_says_why_and_what_next_and_its_default_is_taken() {
    for flag in table::all() {
        let Treatment::Refused(refused, harmless) = flag.treatment else { continue };
        for name in flag.names() {
            let text = refusal(&[&format!("--{name}={}", telling_value(flag))]);
            assert!(
                text.contains(flag.name) && text.contains(refused.why) && text.contains(refused.next),
                "{text}"
            );
        }
        for value in harmless.iter().chain([&flag.default]) {
            server(&[&format!("--{}={value}", flag.name)]);
        }
    }
}

#[test]
fn what_tls_cannot_do_is_refused() {
    for (flag, next) in [
        ("--auto-tls", "holdfastctl cert"),
        ("--peer-auto-tls=true", "holdfastctl cert"),
        ("--client-crl-file=a", "docs/tls.md"),
        ("--cipher-suites=A", "--tls-min-version"),
        ("--tls-min-version=TLS1.1", "TLS1.2"),
    ] {
        assert!(refusal(&[flag]).contains(next), "{flag}");
    }
    server(&["--auto-tls=false", "--cert-file=", "--client-cert-auth=false"]);
}

#[test]
fn an_unknown_flag_is_refused_with_the_nearest_known_one() {
    for (unknown, nearest) in [
        ("--listen-client-url=http://h:1", "--listen-client-urls"),
        ("--snapshot-cuont=7", "--snapshot-count"),
        ("--peer-trusted-ca=x", "--peer-trusted-ca-file"),
    ] {
        let text = refusal(&[unknown]);
        assert!(text.contains("unexpected argument") && text.contains(nearest), "{text}");
    }
}

#[test]
fn flags_win_over_variables_and_these_over_the_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "name: from-file\nmax-txn-ops: 9\nelection-timeout: 2000\n").unwrap();
    let path = file.path().to_string_lossy().into_owned();
    let environment = |name: &str| match name {
        "ETCD_CONFIG_FILE" => Some(OsString::from(&path)),
        "HOLDFAST_MAX_TXN_OPS" => Some(OsString::from("8")),
        "ETCD_MAX_TXN_OPS" => Some(OsString::from("7")),
        _ => None,
    };
    let args = ["holdfast", "--name=from-flag"].map(OsString::from);
    let flags = parse(args, &environment).unwrap().server;
    assert_eq!((flags.name.as_str(), flags.max_txn_ops), ("from-flag", 8));
    assert_eq!(flags.election_timeout, Duration::from_secs(2));
    assert!(matches!(flags.place_elsewhere("election-timeout"), Some(Place::File { .. })));
    assert!(matches!(flags.place_elsewhere("max-txn-ops"), Some(Place::Variable(_))));
    assert_eq!(flags.place_elsewhere("name"), None);
}

fn settings(text: &str) -> Result<Vec<(String, String)>, FileError> {
    let settings = parse_file(Path::new("etcd.yaml"), text)?;
    Ok(settings.into_iter().map(|set| (set.flag.name.to_owned(), set.text)).collect())
}

#[test]
fn a_file_as_etcd_takes_it_is_read() {
    let text = "
# Comments and empty values are nothing.
name: 'n1'
data-dir:
initial-cluster: \"n1=http://10.0.0.1:2380,n2=http://10.0.0.2:2380\"
listen-client-urls: http://10.0.0.1:2379
log-outputs: [stderr, /var/log/holdfast.log]
strict-reconfig-check: false
quota-backend-bytes: 0
grpc-keepalive-interval: 7200000000000
grpc-keepalive-timeout: 20s
proxy: off
discovery: ''
client-transport-security:
  cert-file:
  client-cert-auth: false
peer-transport-security:
  auto-tls: true
  allowed-cn: peers
socket-options:
  reuse-port: false
cipher-suites: [A, B]
";
    let expected = [
        ("name", "n1"),
        ("initial-cluster", "n1=http://10.0.0.1:2380,n2=http://10.0.0.2:2380"),
        ("listen-client-urls", "http://10.0.0.1:2379"),
        ("log-outputs", "stderr,/var/log/holdfast.log"),
        ("strict-reconfig-check", "false"),
        ("quota-backend-bytes", "0"),
        ("grpc-keepalive-interval", "7200000000000ns"),
        ("grpc-keepalive-timeout", "20s"),
        ("proxy", "off"),
        ("client-cert-auth", "false"),
        ("peer-auto-tls", "true"),
        ("peer-cert-allowed-cn", "peers"),
        ("socket-reuse-port", "false"),
        ("cipher-suites", "A,B"),
    ];
    let found = settings(text).unwrap();
    let found: Vec<(&str, &str)> = found.iter().map(|(flag, text)| (flag.as_str(), text.as_str())).collect();
    assert_eq!(found, expected);
    assert_eq!(Kind::Duration.read("7200000000000ns"), Kind::Duration.read("2h"));
    assert_eq!(settings("{\"name\": \"n1\"}").unwrap().len(), 1, "JSON is YAML");
    assert_eq!(settings("").unwrap().len(), 0);
}

#[test]
fn a_file_that_cannot_be_taken_says_where_and_why() {
    for (text, parts) in [
        ("nmae: n1", &["etcd.yaml: nmae", "did you mean name?"][..]),
        ("exit-with-stdin: true", &["no such key"]),
        ("config-file: other.yaml", &["no such key"]),
        ("client-transport-security:\n  name: n1", &["client-transport-security.name", "no such key"]),
        ("client-transport-security: yes", &["indented"]),
        ("name: n1\nname: n2", &["not YAML", "duplicated key"]),
        ("name: {a: b}", &["etcd.yaml: name", "write text"]),
        ("- name", &["key: value"]),
        ("name: [", &["not YAML"]),
        ("name: a\n---\nname: b", &["more than one document"]),
    ] {
        let error = settings(text).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "{text:?}: \"{error}\" does not say \"{part}\"");
        }
    }
    let missing = refusal(&["--config-file=/no/such/file.yaml"]);
    assert!(missing.contains("--config-file") && missing.contains("/no/such/file.yaml"), "{missing}");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "peer-transport-security:\n  auto-tls: true\n").unwrap();
    let refused = refusal(&[&format!("--config-file={}", file.path().display())]);
    assert!(
        refused.contains("peer-transport-security.auto-tls=true") && refused.contains("holdfastctl cert"),
        "{refused}"
    );
}

#[test]
fn the_page_about_flags_is_what_the_table_makes() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/flags.md")).unwrap();
    assert!(
        page == document::markdown(),
        "docs/flags.md is stale; the page itself names the command that makes it"
    );
}

/// The list is what the releases from 3.4.0 to 3.7.1 define in their sources.
#[test]
fn every_flag_of_every_release_is_known() {
    let names: Vec<&str> = include_str!("etcd-3.4-to-3.7.txt").lines().collect();
    assert!(names.len() > 140, "{}", names.len());
    for name in &names {
        assert!(table::find(name).is_some(), "etcd has --{name}, and we do not know it");
    }
    for flag in table::all() {
        let is_etcds = flag.origin == Origin::Etcd;
        for name in flag.names() {
            assert_eq!(names.contains(&name), is_etcds, "whether etcd has --{name}");
        }
    }
}

/// Every flag that a real etcd lists is known, with the default it has there.
#[test]
fn every_flag_of_a_real_etcd_is_known() {
    let etcd = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/peers/etcd");
    let Ok(output) = Process::new(etcd).arg("--help").stdin(Stdio::null()).output() else {
        eprintln!("skipped: the flags of a real etcd: there is none; run scripts/fetch-peers");
        return;
    };
    let help = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let lines = help.lines().filter_map(|line| line.strip_prefix("  --"));
    let mut known = 0;
    for line in lines {
        let (name, default) = line.split_once(' ').unwrap_or((line, ""));
        let default = default.trim().trim_matches('\'');
        let flag = table::find(name).unwrap_or_else(|| panic!("etcd has --{name}, and we do not know it"));
        assert_eq!(flag.origin, Origin::Etcd, "--{name}");
        // Ours depends on another flag, or is not given in the text.
        let depends = ["data-dir", "advertise-client-urls", "initial-advertise-peer-urls", "initial-cluster"];
        // There it is off: members are compared by hand.
        let is_ours = flag.name == "corrupt-check-time";
        if !depends.contains(&name) && !is_ours && !default.is_empty() {
            assert_eq!(flag.kind.read(flag.default), flag.kind.read(default), "the default of --{name}");
        }
        known += 1;
    }
    assert!(known > 80, "only {known} flags were found in etcd's help text");
}
