//! holdfastctl prints what etcdctl 3.5.1 prints, byte for byte, and ends with the same exit code.
//!
//! Two programs run the same commands, each against a fresh server. Both servers have had the same ports, and so the same
//! ids: what still differs by nature is the id of a lease that the server chose, and what is left of its time. Commands
//! that change nothing are run against the same server.

#![expect(clippy::unwrap_used, reason = "in a test a failure to set the scene is a panic")]

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use cluster_tests::conformance::etcdctl::{CommandLine, Printed, parse, play, programs};
use cluster_tests::conformance::members::Members;
use cluster_tests::conformance::runner::data_dir;
use cluster_tests::harness::binary;
use cluster_tests::harness::cluster::{Cluster, System};
use cluster_tests::harness::ports::free_port;
use cluster_tests::watch::console::{self, Ended, PATIENCE};
use cluster_tests::watch::printed::normalise;
use cluster_tests::watch::script;
use holdfast_proto::etcdserverpb as pb;
use pb::alarm_request::AlarmAction;
use pb::maintenance_client::MaintenanceClient;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::Mutex;

/// Servers that compete for a small machine answer late; that is not what is tested here.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// How long a server may take to be ready; a busy machine takes a while.
const READY_MAX: Duration = Duration::from_secs(60);

const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// Changes, each printed in a format; and what changes nothing.
const CHANGES: &str = "holdfastctl.commands";
const LOOKS: &str = "holdfastctl-looks.commands";

/// Command lines that are checked in.
fn list(name: &str) -> Vec<CommandLine> {
    let text = std::fs::read_to_string(data_dir().join(name)).expect("the list is checked in");
    parse(&text).expect("the list is well formed")
}

/// A server of one member on given ports, until it is dropped.
struct Server {
    _dir: tempfile::TempDir,
    endpoint: String,
    process: Child,
}

impl Server {
    async fn start(program: &Path, ports: [u16; 2]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let [client, peer] = ports.map(|port| format!("http://127.0.0.1:{port}"));
        let process = Command::new(program)
            .args(["--name=n1", "--data-dir"])
            .arg(dir.path().join("data"))
            .args([&format!("--listen-client-urls={client}"), &format!("--advertise-client-urls={client}")])
            .args([&format!("--listen-peer-urls={peer}"), &format!("--initial-advertise-peer-urls={peer}")])
            .arg(format!("--initial-cluster=n1={peer}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let endpoint = format!("127.0.0.1:{}", ports[0]);
        let server = Self { _dir: dir, endpoint, process };
        let ready = tokio::time::timeout(READY_MAX, async {
            let program = binary::holdfastctl().expect("holdfastctl is built");
            while !run(&program, &server.endpoint, &["endpoint", "health"].map(str::to_owned), "")
                .await
                .status
                .success()
            {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        ready.await.expect("the server is ready in time");
        server
    }

    /// One of holdfast, on ports of its own.
    async fn of_ours() -> Self {
        let ports = [free_port().unwrap(), free_port().unwrap()];
        Self::start(&binary::holdfast().expect("holdfast is built"), ports).await
    }

    /// Ends it, so that its ports can be had again.
    async fn stop(mut self) {
        self.process.kill().await.unwrap();
    }
}

async fn run(program: &Path, endpoint: &str, args: &[String], stdin: &str) -> Output {
    let mut child = console::command(program, endpoint, args).spawn().unwrap();
    // A command that does not read may have closed its end already.
    drop(child.stdin.take().unwrap().write_all(stdin.as_bytes()).await);
    let ended = tokio::time::timeout(COMMAND_TIMEOUT, child.wait_with_output()).await;
    ended.unwrap_or_else(|_| panic!("{} {args:?} does not end", program.display())).unwrap()
}

/// Our exit code where it is not etcdctl's, and the command.
fn expected(command: &CommandLine) -> (Option<i32>, Vec<String>) {
    match command.args[0].strip_prefix('~') {
        Some(code) => (Some(code.parse().unwrap()), command.args[1..].to_vec()),
        None => (None, command.args.clone()),
    }
}

/// Standard output with leases by number and without what is left of their time, and the exit code.
type Told = (Vec<u8>, Option<i32>);

/// Runs all changes against a fresh server.
async fn tell(program: &Path, server: &Path, ports: [u16; 2]) -> Vec<Told> {
    let server = Server::start(server, ports).await;
    let mut leases: Vec<i64> = Vec::new();
    let mut told = Vec::new();
    for command in list(CHANGES) {
        let (_, args) = expected(&command);
        let last = format!("{:x}", leases.last().copied().unwrap_or(1));
        let args: Vec<String> = args.iter().map(|arg| arg.replace("%L", &last)).collect();
        let output = run(program, &server.endpoint, &args, &command.stdin).await;
        if args.starts_with(&["lease".to_owned(), "grant".to_owned()]) {
            leases.extend(granted(&String::from_utf8_lossy(&output.stdout)));
        }
        told.push((without_leases(output.stdout, &leases), output.status.code()));
    }
    server.stop().await;
    told
}

/// The id in what `lease grant` prints in any format.
fn granted(text: &str) -> Option<i64> {
    if let Some(rest) = text.strip_prefix("lease ") {
        return i64::from_str_radix(rest.split(' ').next()?, 16).ok();
    }
    let at = text.find("\"ID\"")? + 4;
    let digits = text[at..].trim_start_matches([':', ' ']);
    digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn without_leases(bytes: Vec<u8>, leases: &[i64]) -> Vec<u8> {
    let Ok(mut text) = String::from_utf8(bytes.clone()) else { return bytes };
    for (number, lease) in leases.iter().enumerate() {
        for form in [format!("{lease:016x}"), format!("{lease:x}"), lease.to_string()] {
            text = text.replace(&form, &format!("LEASE{number}"));
        }
    }
    // Granted for 100000 seconds, asked for within a minute.
    for left in 99_940..=99_999 {
        text = text.replace(&left.to_string(), "100000");
    }
    text.into_bytes()
}

fn shown((stdout, code): &Told) -> String {
    format!("{code:?} {:?}", String::from_utf8_lossy(stdout))
}

fn differences(etcdctl: &[Told], ours: &[Told]) -> Vec<String> {
    let commands = list(CHANGES);
    assert_eq!([commands.len(); 2], [etcdctl.len(), ours.len()]);
    let all = commands.iter().zip(etcdctl.iter().zip(ours));
    all.filter(|(command, (etcdctl, ours))| {
        let code = expected(command).0.map_or(etcdctl.1, Some);
        (&etcdctl.0, code) != (&ours.0, ours.1)
    })
    .map(|(command, (etcdctl, ours))| {
        format!("{:?}\n  etcdctl {}\n  ours    {}", command.args, shown(etcdctl), shown(ours))
    })
    .collect()
}

/// etcdctl, and holdfastctl.
fn tools(what: &str) -> Option<(PathBuf, PathBuf, PathBuf)> {
    let (etcdctl, etcd) = programs("3.5", what)?;
    Some((etcdctl, binary::holdfastctl().expect("holdfastctl is built"), etcd))
}

async fn compare(etcdctl: &Path, ours: &Path, server: &Path) {
    let ports = [free_port().unwrap(), free_port().unwrap()];
    let theirs = tell(etcdctl, server, ports).await;
    let ours = tell(ours, server, ports).await;
    let found = differences(&theirs, &ours);
    assert!(found.is_empty(), "{} outputs differ\n{}", found.len(), found.join("\n"));
}

#[tokio::test]
async fn changes_print_the_same_bytes_on_holdfast() {
    let Some((etcdctl, ours, _)) = tools("compared with holdfastctl") else { return };
    let _turn = ONE_AT_A_TIME.lock().await;
    compare(&etcdctl, &ours, &binary::holdfast().expect("holdfast is built")).await;
}

#[tokio::test]
async fn changes_print_the_same_bytes_on_etcd() {
    let Some((etcdctl, ours, etcd)) = tools("compared with holdfastctl on etcd") else { return };
    let _turn = ONE_AT_A_TIME.lock().await;
    compare(&etcdctl, &ours, &etcd).await;
}

#[test]
fn a_changed_byte_or_code_is_reported() {
    let commands = list(CHANGES);
    let code = |command| expected(command).0.or(Some(0));
    let etcdctl: Vec<Told> = commands.iter().map(|_| (b"OK\n".to_vec(), Some(0))).collect();
    let mut ours: Vec<Told> = commands.iter().map(|command| (b"OK\n".to_vec(), code(command))).collect();
    assert_eq!(differences(&etcdctl, &ours), Vec::<String>::new());
    ours[3].0 = b"OK".to_vec();
    ours[5].1 = Some(1);
    assert_eq!(differences(&etcdctl, &ours).len(), 2);
}

/// How long a request took is nobody's to choose.
fn without_times(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::new();
    for line in text.lines() {
        for mark in ["took = ", "\"took\":\"", "\"Took\" : "] {
            if let Some((before, after)) = line.split_once(mark) {
                let end = after.find(['"', ' ']).unwrap_or(after.len());
                out.push_str(&format!("{before}{mark}TIME{}\n", &after[end..]));
            }
        }
        if !line.to_lowercase().contains("took") {
            out.push_str(&format!("{line}\n"));
        }
    }
    out
}

/// Raises the alarm NOSPACE of the one member.
async fn raise(endpoint: &str) {
    let mut maintenance = MaintenanceClient::connect(format!("http://{endpoint}")).await.unwrap();
    let status = maintenance.status(pb::StatusRequest {}).await.unwrap().into_inner();
    let request = pb::AlarmRequest {
        action: AlarmAction::Activate.into(),
        member_id: status.leader,
        alarm: pb::AlarmType::Nospace.into(),
    };
    maintenance.alarm(request).await.unwrap();
}

/// Commands that print something else, each run by both programs against the same server.
async fn looked_at(commands: &[CommandLine], etcdctl: &Path, ours: &Path, endpoint: &str) -> Vec<String> {
    let mut found = Vec::new();
    for command in commands {
        let mut last = None;
        // Sizes and positions move by themselves now and then: what counts is what stands still.
        for _ in 0..5 {
            let look = async |program: &Path| {
                let output = run(program, endpoint, &command.args, "").await;
                (without_times(&output.stdout), output.status.code())
            };
            let (before, between, after) = (look(etcdctl).await, look(ours).await, look(etcdctl).await);
            last = Some((before.clone(), between.clone()));
            if before == after {
                break;
            }
        }
        let (theirs, ours) = last.unwrap();
        if theirs != ours {
            found.push(format!("{:?}\n  etcdctl {theirs:?}\n  ours    {ours:?}", command.args));
        }
    }
    found
}

#[tokio::test]
async fn looks_print_the_same_bytes_on_both_servers() {
    let Some((etcdctl, ours, etcd)) = tools("compared with holdfastctl side by side") else { return };
    let _turn = ONE_AT_A_TIME.lock().await;
    let mut found = Vec::new();
    for server in [binary::holdfast().expect("holdfast is built"), etcd] {
        let server = Server::start(&server, [free_port().unwrap(), free_port().unwrap()]).await;
        for n in 0..5 {
            run(&ours, &server.endpoint, &["put".into(), format!("a{n}"), "x".into()], "").await;
        }
        found.extend(looked_at(&list(LOOKS), &etcdctl, &ours, &server.endpoint).await);
        let add = ["member", "add", "n2", "--peer-urls=http://127.0.0.1:1", "--learner"].map(str::to_owned);
        run(&ours, &server.endpoint, &add, "").await;
        let members: Vec<CommandLine> =
            list(LOOKS).into_iter().filter(|command| command.args[0].starts_with("mem")).collect();
        found.extend(looked_at(&members, &etcdctl, &ours, &server.endpoint).await);
        raise(&server.endpoint).await;
        let about = |command: &CommandLine| ["alarm", "endpoint"].contains(&command.args[0].as_str());
        let alarmed: Vec<CommandLine> = list(LOOKS).into_iter().filter(about).collect();
        found.extend(looked_at(&alarmed, &etcdctl, &ours, &server.endpoint).await);
        let mut disarmed = Vec::new();
        for program in [&etcdctl, &ours] {
            for format in ["simple", "json", "protobuf"] {
                let args = ["alarm", "disarm", "-w", format].map(str::to_owned);
                // holdfast clears the alarm itself where there is space, and may have been faster.
                let mut printed = Vec::new();
                for _ in 0..10 {
                    raise(&server.endpoint).await;
                    printed = run(program, &server.endpoint, &args, "").await.stdout;
                    if !printed.is_empty() && printed != b"{}\n" {
                        break;
                    }
                }
                disarmed.push(printed);
            }
        }
        assert_eq!(disarmed[..3], disarmed[3..]);
        server.stop().await;
    }
    assert!(found.is_empty(), "{} outputs differ\n{}", found.len(), found.join("\n"));
}

/// Exit codes of lists that are written for etcdctl, which has 2 for a login that is refused, as if nothing could be reached.
fn codes_agree(etcdctl: &Printed, ours: &Printed) -> bool {
    let is_refusal = !ours.stderr.contains("reached") && !ours.stderr.contains("broke");
    etcdctl.code == ours.code || is_refusal && etcdctl.code == Some(2) && ours.code == Some(1)
}

/// What holdfastctl does otherwise on purpose: docs/holdfastctl.md.
fn is_otherwise(command: &CommandLine) -> bool {
    let has = |word: &str| command.args.iter().any(|arg| arg == word);
    let is_about_members = ["member", "endpoint"].contains(&command.args[0].as_str());
    has("version") || has("table") && !is_about_members || has("--count-only") && has("json")
}

#[tokio::test]
async fn the_lists_for_etcdctl_are_printed_the_same() {
    let Some((etcdctl, ours, _)) = tools("compared with holdfastctl by its own lists") else { return };
    let _turn = ONE_AT_A_TIME.lock().await;
    let mut found = Vec::new();
    for name in ["etcdctl.commands", "etcdctl-auth.commands"] {
        let commands: Vec<CommandLine> =
            list(name).into_iter().filter(|command| !is_otherwise(command)).collect();
        let mut printed = Vec::new();
        for program in [&etcdctl, &ours] {
            let system = System::holdfast(&[]).expect("holdfast is built");
            let members = Members::start(system, 1).await.expect("the member starts");
            printed.push(play(program, &commands, &members).await.expect("every command ends"));
        }
        let [theirs, ours] = &printed[..] else { unreachable!("two programs") };
        for (command, (theirs, ours)) in commands.iter().zip(theirs.iter().zip(ours)) {
            if theirs.stdout != ours.stdout || !codes_agree(theirs, ours) {
                found.push(format!("{name}: {:?}\n  etcdctl {theirs:?}\n  ours    {ours:?}", command.args));
            }
        }
    }
    assert!(found.is_empty(), "{} outputs differ\n{}", found.len(), found.join("\n"));
}

/// What is said of a new member, with its id, which is made of the time, by name; and the members in order, which theirs is by id.
fn of_member(output: &Output, id: &mut String) -> (String, Option<i32>) {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if let Some(rest) = text.strip_prefix("Member ")
        && text.contains(" added to ")
    {
        *id = rest.split_whitespace().next().unwrap().to_owned();
    }
    let number = u64::from_str_radix(id, 16).unwrap().to_string();
    // An id has 16 places, and a blank in front when it needs fewer.
    let padded = format!("Member {id:>16}");
    let text =
        text.replace(&padded, "Member MEMBER").replace(id.as_str(), "MEMBER").replace(&number, "MEMBER");
    let sorted = text.lines().map(|line| match line.strip_prefix("ETCD_INITIAL_CLUSTER=") {
        Some(members) => {
            let mut members: Vec<&str> = members.trim_matches('"').split(',').collect();
            members.sort_unstable();
            format!("ETCD_INITIAL_CLUSTER={members:?}\n")
        }
        None => format!("{line}\n"),
    });
    (sorted.collect(), output.status.code())
}

#[tokio::test]
async fn members_come_and_go_in_the_same_words() {
    let Some((etcdctl, ours, etcd)) = tools("member compared with holdfastctl") else { return };
    let _turn = ONE_AT_A_TIME.lock().await;
    for server in [binary::holdfast().expect("holdfast is built"), etcd] {
        let ports = [free_port().unwrap(), free_port().unwrap()];
        let mut told = Vec::new();
        for program in [&etcdctl, &ours] {
            let server = Server::start(&server, ports).await;
            let mut id = "1".to_owned();
            let mut lines = Vec::new();
            for line in [
                "member add n2 --peer-urls=http://127.0.0.1:1 --learner",
                "member add n3 --peer-urls=http://127.0.0.1:2 --learner",
                "member update %M --peer-urls=http://127.0.0.1:3",
                "member promote %M",
                "member remove %M",
                "member remove %M",
                "member add n2 --peer-urls=http://127.0.0.1:1,http://127.0.0.1:4 --learner",
                "member remove %M -w json",
            ] {
                let args: Vec<String> = line.replace("%M", &id).split(' ').map(str::to_owned).collect();
                let output = run(program, &server.endpoint, &args, "").await;
                lines.push((line, of_member(&output, &mut id)));
            }
            told.push(lines);
            server.stop().await;
        }
        assert_eq!(told[0], told[1]);
    }
}

#[tokio::test]
async fn leadership_is_moved_in_the_same_words() {
    let Some((etcdctl, ours, _)) = tools("move-leader compared with holdfastctl") else { return };
    let _turn = ONE_AT_A_TIME.lock().await;
    let members = Members::start(System::holdfast(&[]).expect("holdfast is built"), 3).await.unwrap();
    let endpoints = members.endpoints().join(",");
    let mut told = Vec::new();
    for program in [&etcdctl, &ours] {
        for format in ["simple", "json"] {
            let status = ["endpoint", "status"].map(str::to_owned);
            let rows = String::from_utf8(run(&ours, &endpoints, &status, "").await.stdout).unwrap();
            let rows: Vec<Vec<&str>> = rows.lines().map(|row| row.split(", ").collect()).collect();
            let leader = rows.iter().find(|row| row[4] == "true").expect("there is a leader")[1];
            let target = rows.iter().find(|row| row[4] == "false").expect("there is a follower")[1];
            let args = ["move-leader", target, "-w", format].map(str::to_owned);
            let output = run(program, &endpoints, &args, "").await;
            let text = String::from_utf8(output.stdout).unwrap();
            let text = text.replace(leader, "LEADER").replace(target, "TARGET");
            // The answer's header is the old leader's.
            told.push((text.split("\"member_id\"").next().unwrap().to_owned(), output.status.code()));
        }
    }
    assert_eq!(told[..2], told[2..]);
    assert_eq!(told[0], ("Leadership transferred from LEADER to TARGET\n".to_owned(), Some(0)));
    let looks = "endpoint health --cluster\nendpoint status --cluster -w table\nmember list\nendpoint hashkv --cluster";
    let found = looked_at(&parse(looks).unwrap(), &etcdctl, &ours, &endpoints).await;
    // Which endpoint is the first to be healthy is nobody's to say.
    let found: Vec<&String> = found.iter().filter(|difference| !difference.contains("health")).collect();
    assert!(found.is_empty(), "{found:?}");
}

#[tokio::test]
async fn watches_are_written_the_same() {
    let Some((etcdctl, ours, _)) = tools("watch compared with holdfastctl") else { return };
    let _turn = ONE_AT_A_TIME.lock().await;
    let mut text = std::fs::read_to_string(data_dir().join("etcdctl-watch.commands")).unwrap();
    text.push_str("watch -i\n> watch %a\n@ 1\n$ put %a one\n? one\n> progress\n? progress notify\n");
    let mut all = Vec::new();
    for program in [&etcdctl, &ours] {
        let members = Members::start(System::holdfast(&[]).expect("holdfast is built"), 1).await.unwrap();
        let url = members.endpoints().remove(0);
        let endpoint = url.split_once("://").unwrap().1.to_owned();
        let mut ended: Vec<Ended> = Vec::new();
        for (number, script) in script::parse(&text).unwrap().into_iter().enumerate() {
            let script = script.under(&format!("s{number:02}/"));
            let printed = script::play(program, &script, &endpoint).await;
            let printed = printed.unwrap_or_else(|error| panic!("{program:?} {:?}: {error:#}", script.args));
            let mut words = script.args.iter();
            let format =
                words.find(|word| *word == "-w").and_then(|_| words.next()).map_or("simple", String::as_str);
            ended.push(normalise(&printed, format, script.last_text()));
        }
        all.push(ended);
    }
    let [theirs, ours] = &all[..] else { unreachable!("two programs") };
    let scripts = script::parse(&text).unwrap();
    let different: Vec<String> = scripts
        .iter()
        .zip(theirs.iter().zip(ours))
        // A flag that there is not: etcdctl writes its whole help to standard output.
        .filter(|(script, _)| !script.args.contains(&"--nonsense".to_owned()))
        .filter(|(_, (theirs, ours))| (&theirs.stdout, theirs.code) != (&ours.stdout, ours.code))
        .map(|(script, (theirs, ours))| {
            format!("{:?}\n  etcdctl {theirs:?}\n  ours    {ours:?}", script.args)
        })
        .collect();
    assert!(different.is_empty(), "{} outputs differ\n{}", different.len(), different.join("\n"));
}

/// A lock of one program keeps the other one waiting, and both write the same of it.
#[tokio::test]
async fn locks_and_elections_are_the_same_ones() {
    let Some((etcdctl, ours, _)) = tools("lock and elect beside holdfastctl") else { return };
    let _turn = ONE_AT_A_TIME.lock().await;
    let server = Server::of_ours().await;
    let start = |program: &Path, line: &str| Running::start(program, &server.endpoint, line);
    for (first, second) in [(&etcdctl, &ours), (&ours, &etcdctl)] {
        let mut holder = start(first, "lock both");
        holder.until("\n\n").await;
        assert!(holder.printed.starts_with(b"both/"));
        let waiting = start(second, "lock both -- echo mine");
        // The wait is visible as a second key.
        until_keys(&ours, &server.endpoint, "both/", 2).await;
        assert_eq!(holder.interrupt().await.1, Some(0));
        assert_eq!(waiting.end().await, (b"mine\n".to_vec(), Some(0)));
        let mut leader = start(first, "elect who first");
        leader.until("\nfirst\n").await;
        let mut observer = start(second, "elect who --listen");
        observer.until("\nfirst\n").await;
        assert_eq!(leader.interrupt().await.1, Some(0));
        assert_eq!(observer.interrupt().await.1, Some(0));
    }
    server.stop().await;
}

/// What holdfastctl prints, what it tells, and its exit code.
async fn said(endpoints: &str, line: &str, stdin: &str) -> (String, String, Option<i32>) {
    let args: Vec<String> = line.split(' ').map(str::to_owned).collect();
    let output = run(&binary::holdfastctl().expect("holdfastctl is built"), endpoints, &args, stdin).await;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.code())
}

/// The kernel takes connections for a process that is stopped.
#[tokio::test]
async fn an_endpoint_that_says_nothing_is_passed_over() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().map(|address| (address, silent)).unwrap();
    let server = Server::of_ours().await;
    let endpoints = format!("{},{}", silent.0, server.endpoint);
    for line in ["put k v", "get k"] {
        let line = format!("{line} --dial-timeout=300ms");
        assert_eq!(said(&endpoints, &line, "").await.2, Some(0), "{line}");
    }
    let (_, told, code) = said(&silent.0.to_string(), "put k v --dial-timeout=300ms", "").await;
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("says nothing"), "{told}");
    server.stop().await;
}

/// Whoever relies on a lock has to hear that it is gone, and its command must not end as if it had been held.
#[tokio::test]
async fn a_lock_that_is_lost_under_its_command_is_told() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let server = Server::of_ours().await;
    let line = ["lock", "l", "--ttl=2", "--", "sh", "-c", "echo held; sleep 8"].map(str::to_owned);
    let ours = binary::holdfastctl().expect("holdfastctl is built");
    let mut locked = console::command(&ours, &server.endpoint, &line).spawn().unwrap();
    let mut held = [0; 5];
    locked.stdout.as_mut().unwrap().read_exact(&mut held).await.unwrap();
    server.stop().await;
    let ended = tokio::time::timeout(PATIENCE, locked.wait_with_output()).await.expect("it ends").unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert!(told.contains("the lock is lost, and the command still runs"), "{told}");
    assert!(told.contains("the lock was lost before the command had ended"), "{told}");
    assert_eq!(ended.status.code(), Some(1));
}

/// A login takes a leader: what can be seen without one is seen, and what is wrong is said.
#[tokio::test]
async fn status_sees_what_it_can_where_nobody_can_log_in() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let mut cluster = Cluster::start(System::holdfast(&[]).expect("holdfast is built"), 3).await.unwrap();
    cluster.wait_ready(READY_MAX).await.unwrap();
    let all = cluster.endpoints().join(",");
    for line in ["user add root:r", "user grant-role root root", "auth enable"] {
        let (_, told, code) = said(&all, line, "").await;
        assert_eq!(code, Some(0), "{line}: {told}");
    }
    let (printed, _, code) = said(&all, "status --user=root:r", "").await;
    assert!(code == Some(0) && printed.contains("Nothing is wrong"), "{printed}");
    let (_, told, code) = said(&all, "status --user=root:wrong", "").await;
    assert!(code == Some(1) && told.contains("authentication failed"), "{told}");
    cluster.kill(0).unwrap();
    cluster.kill(1).unwrap();
    // Who is left may have led, and leads for an election timeout more.
    let gives_up = tokio::time::Instant::now() + PATIENCE;
    loop {
        let (printed, told, code) = said(&all, "status --user=root:r --command-timeout=3s", "").await;
        assert_eq!(code, Some(5), "{printed}{told}");
        if printed.contains("3 voters, no leader seen") {
            break;
        }
        assert!(tokio::time::Instant::now() < gives_up, "{printed}{told}");
    }
}

#[tokio::test]
async fn words_that_do_not_fit_have_their_own_exit_codes() {
    let _turn = ONE_AT_A_TIME.lock().await;
    let server = Server::of_ours().await;
    let of = async |line: &'static str, stdin: &'static str| said(&server.endpoint, line, stdin).await.2;
    assert_eq!(of("status extra", "").await, Some(128));
    assert_eq!(of("status --extra", "").await, Some(1));
    assert_eq!(of("user add u --interactive=0", "word\n").await, Some(0));
    // Before there is a file to look for.
    assert_eq!(of("snapshot status nowhere -w protobuf", "").await, Some(4));
    server.stop().await;
}

async fn until_keys(program: &Path, endpoint: &str, prefix: &str, count: usize) {
    let args = ["get", prefix, "--prefix", "--keys-only"].map(str::to_owned);
    let found = tokio::time::timeout(PATIENCE, async {
        loop {
            let output = run(program, endpoint, &args, "").await;
            // A key and an empty value each.
            if output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count() == count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    found.await.unwrap_or_else(|_| panic!("there are not {count} keys below {prefix}"));
}

/// A program that goes on until it is interrupted.
struct Running {
    child: Child,
    stdout: ChildStdout,
    printed: Vec<u8>,
}

impl Running {
    fn start(program: &Path, endpoint: &str, line: &str) -> Self {
        let mut child = Command::new(program)
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={endpoint}"))
            .args(line.split(' '))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        Self { child, stdout, printed: Vec::new() }
    }

    /// Reads until all that was printed ends so.
    async fn until(&mut self, end: &str) {
        let read = tokio::time::timeout(PATIENCE, async {
            while !self.printed.ends_with(end.as_bytes()) {
                let count = self.stdout.read_buf(&mut self.printed).await.unwrap();
                assert!(count > 0, "it ended after {:?}", String::from_utf8_lossy(&self.printed));
            }
        });
        read.await.unwrap_or_else(|_| panic!("{end:?} is not printed"));
    }

    /// Waits for its end: all that was printed, and the exit code.
    async fn end(mut self) -> Told {
        let ended = tokio::time::timeout(PATIENCE, async {
            self.stdout.read_to_end(&mut self.printed).await.unwrap();
            self.child.wait().await.unwrap()
        });
        let code = ended.await.expect("it ends").code();
        (self.printed, code)
    }

    /// Ends it as Ctrl-C does.
    async fn interrupt(self) -> Told {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::INT).unwrap();
        self.end().await
    }
}
