//! The binary, against a member of the test server.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::path::Path;
use std::process::{Command, Output};

use holdfast_proto::etcdserverpb as pb;
use holdfast_testserver::TestCluster;

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_holdfastctl")).args(args).output().unwrap()
}

fn said(output: &Output) -> (Option<i32>, String) {
    let all = [&output.stdout[..], &output.stderr].concat();
    (output.status.code(), String::from_utf8(all).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_is_saved_looked_at_and_restored() {
    let cluster = TestCluster::single().await.unwrap();
    let url = cluster.endpoint(0);
    let mut kv = pb::kv_client::KvClient::connect(url.clone()).await.unwrap();
    for n in 0..20 {
        let put = pb::PutRequest { key: format!("k{n}").into(), value: "v".into(), ..Default::default() };
        kv.put(put).await.unwrap();
    }
    let dir = cluster.data_dir(0).with_file_name("files");
    std::fs::create_dir(&dir).unwrap();
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let file = path("backup.db");
    let saved = tokio::task::spawn_blocking({
        let (url, file) = (url.clone(), file.clone());
        move || run(&["--endpoints", &url, "snapshot", "save", &file])
    });
    let (code, text) = said(&saved.await.unwrap());
    assert_eq!((code, text), (Some(0), format!("Snapshot saved at {file}\nServer version 3.5.0\n")));
    assert!(!Path::new(&path("backup.db.part")).exists());

    let (code, text) = said(&run(&["snapshot", "status", &file, "-w", "json"]));
    assert_eq!(code, Some(0), "{text}");
    let status: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(status["revision"], 21);
    let (code, text) = said(&run(&["snapshot", "inspect", &file]));
    assert!(
        code == Some(0) && text.contains("revisions kept       2 to 21") && text.contains(" n0 "),
        "{text}"
    );

    let data = path("data");
    let restore = ["snapshot", "restore", &file, "--name=x", "--data-dir", &data];
    let (code, text) = said(&run(&restore));
    assert!(code == Some(0) && text.contains("Restored revision 21 (20 records, 0 leases)"), "{text}");
    let (code, text) = said(&run(&restore));
    assert!(code == Some(1) && text.contains("belongs to a member already"), "{text}");
    cluster.stop().await;
}

#[test]
fn what_cannot_work_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("none.db");
    let file = file.to_str().unwrap();
    let (code, text) = said(&run(&["--endpoints", "127.0.0.1:1", "snapshot", "save", file]));
    assert!(code == Some(2) && text.contains("127.0.0.1:1: connection refused"), "{text}");
    let (code, text) = said(&run(&["--endpoints", "a:1,b:1", "snapshot", "save", file]));
    assert!(code == Some(1) && text.contains("a snapshot is of one member"), "{text}");
    assert!(!Path::new(file).exists());
    let (code, text) = said(&run(&["snapshot", "status", file]));
    assert_eq!(
        (code, text),
        (Some(1), format!("holdfastctl: {file}: No such file or directory (os error 2)\n"))
    );
    std::fs::write(file, vec![7; 9000]).unwrap();
    let (code, text) = said(&run(&["snapshot", "status", file]));
    assert!(code == Some(1) && text.contains("not a bolt database"), "{text}");
    let restore = ["snapshot", "restore", file, "--name=x", "--initial-cluster=y=http://127.0.0.1:1"];
    let (code, text) = said(&run(&restore));
    assert!(code == Some(1) && text.contains("--initial-cluster"), "{text}");
    assert_eq!(said(&run(&["snapshot", "restore", file, "--bump-revision=3"])).0, Some(128));
}
