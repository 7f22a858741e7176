//! Which programs are under test: ours, and real etcd as the control.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

use anyhow::{Context, Result, anyhow, bail};

/// The binary `holdfast`, of the same profile as this crate was built with.
///
/// `HOLDFAST_BIN` names it. Else the one beside the running program is taken if no source is newer than it, as after
/// `cargo test --workspace`; else cargo builds it. A binary that merely lies there may be older than the code under test.
/// Without a cargo the newest one is taken.
pub fn holdfast() -> Result<PathBuf> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| HOLDFAST.find().map_err(|error| format!("{error:#}")));
    found.clone().map_err(|error| anyhow!(error))
}

/// The binary `holdfastctl`, found as [`holdfast`] is; `HOLDFASTCTL_BIN` names it.
pub fn holdfastctl() -> Result<PathBuf> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| HOLDFASTCTL.find().map_err(|error| format!("{error:#}")));
    found.clone().map_err(|error| anyhow!(error))
}

/// The child of `cluster-tests sdk`, an example of the client, found as [`holdfast`] is; `HOLDFAST_SDK_BIN` names it.
pub fn sdk() -> Result<PathBuf> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| SDK.find().map_err(|error| format!("{error:#}")));
    found.clone().map_err(|error| anyhow!(error))
}

/// The children of `cluster-tests collector`, an example of the client, found as [`holdfast`] is; `HOLDFAST_COLLECT_BIN` names
/// it.
pub fn collector() -> Result<PathBuf> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| COLLECTOR.find().map_err(|error| format!("{error:#}")));
    found.clone().map_err(|error| anyhow!(error))
}

/// A program of ours.
struct Program {
    name: &'static str,
    package: &'static str,
    /// What cargo calls it: a binary or an example, and the folder beside binaries that it is put into.
    kind: (&'static str, &'static str),
    /// The variable that names it.
    variable: &'static str,
}

const BINARY: (&str, &str) = ("--bin", "");
const EXAMPLE: (&str, &str) = ("--example", "examples");
const HOLDFAST: Program =
    Program { name: "holdfast", package: "holdfast-server", kind: BINARY, variable: "HOLDFAST_BIN" };
const HOLDFASTCTL: Program =
    Program { name: "holdfastctl", package: "holdfast-ctl", kind: BINARY, variable: "HOLDFASTCTL_BIN" };
const SDK: Program = Program {
    name: "sdk_under_faults",
    package: "holdfast-client",
    kind: EXAMPLE,
    variable: "HOLDFAST_SDK_BIN",
};
const COLLECTOR: Program = Program {
    name: "collect_under_faults",
    package: "holdfast-client",
    kind: EXAMPLE,
    variable: "HOLDFAST_COLLECT_BIN",
};

/// Real etcd: `ETCD_BIN`, or what `scripts/fetch-peers` has put down; `None` when there is none.
pub fn etcd() -> Option<PathBuf> {
    let named = std::env::var_os("ETCD_BIN").map(PathBuf::from);
    named.or_else(|| Some(workspace().join("target/peers/etcd"))).filter(|path| path.is_file())
}

/// The etcdctl of real etcd: `ETCDCTL_BIN`, or what `scripts/fetch-peers` has put down; `None` when there is none.
pub fn etcdctl() -> Option<PathBuf> {
    let named = std::env::var_os("ETCDCTL_BIN").map(PathBuf::from);
    named.or_else(|| Some(workspace().join("target/peers/etcdctl"))).filter(|path| path.is_file())
}

/// The root of the checkout.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace's root")
}

impl Program {
    fn find(&self) -> Result<PathBuf> {
        let Self { name, package, kind, variable } = self;
        if let Some(path) = std::env::var_os(variable).map(PathBuf::from) {
            let path = std::path::absolute(&path).with_context(|| format!("{variable} is no path"))?;
            if !path.is_file() {
                bail!("{variable} names {}, which is no file; unset it to have {name} built", path.display());
            }
            return Ok(path);
        }
        if let Some(path) = self.up_to_date_neighbour() {
            return Ok(path);
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.current_dir(workspace()).args(["build", "--locked", "--package", package]);
        command.args([kind.0, name, "--message-format", "json-render-diagnostics"]);
        if !cfg!(debug_assertions) {
            command.arg("--release");
        }
        match command.output() {
            Ok(output) if output.status.success() => executable(&output.stdout),
            Ok(output) => bail!("{name} does not build:\n{}", String::from_utf8_lossy(&output.stderr)),
            Err(_) => self.newest_built(),
        }
    }

    /// The binary in the directory that cargo put this program in, if it is newer than every source. Built by the same
    /// `cargo test --workspace`, it saves a second build of everything with other features.
    fn up_to_date_neighbour(&self) -> Option<PathBuf> {
        let this = std::env::current_exe().ok()?;
        let dir = this.parent()?;
        let dir = if dir.ends_with("deps") { dir.parent()? } else { dir };
        let path = dir.join(self.kind.1).join(self.name);
        let built = path.metadata().ok()?.modified().ok()?;
        let mut newest = None;
        for part in ["crates", "proto", "Cargo.lock", "Cargo.toml"] {
            newest = newest.max(newest_source(&workspace().join(part)));
        }
        newest.is_some_and(|newest| newest < built).then_some(path)
    }

    fn newest_built(&self) -> Result<PathBuf> {
        let Self { name, kind, variable, .. } = self;
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
        let built = ["release", "debug"].map(|profile| target.join(profile).join(kind.1).join(name));
        let newest =
            built.into_iter().filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path))).max();
        let (_, path) = newest.with_context(|| {
            format!("no cargo to build {name} with, and none in {}; set {variable}", target.display())
        })?;
        Ok(path)
    }
}

/// When the newest source below `path` was changed; of what cannot be read, now.
fn newest_source(path: &Path) -> Option<SystemTime> {
    if !path.is_dir() {
        let is_source =
            path.extension().is_some_and(|end| ["rs", "toml", "proto", "lock"].iter().any(|s| end == *s));
        let changed = path.metadata().and_then(|metadata| metadata.modified());
        return is_source.then(|| changed.unwrap_or_else(|_| SystemTime::now()));
    }
    let Ok(entries) = std::fs::read_dir(path) else { return Some(SystemTime::now()) };
    entries.flatten().filter_map(|entry| newest_source(&entry.path())).max()
}

/// The path of the program in cargo's messages, one JSON object a line.
fn executable(messages: &[u8]) -> Result<PathBuf> {
    let lines = messages.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let mut programs = lines.filter_map(|line| {
        let message: serde_json::Value = serde_json::from_slice(line).ok()?;
        message.get("executable")?.as_str().map(PathBuf::from)
    });
    programs
        .next_back()
        .context("cargo built a program and did not say where; set HOLDFAST_BIN or HOLDFASTCTL_BIN")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_changes_is_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("src")).unwrap();
        assert_eq!(newest_source(dir.path()), None);
        std::fs::write(dir.path().join("src/notes.txt"), "no source").unwrap();
        assert_eq!(newest_source(dir.path()), None);
        let before = SystemTime::now() - std::time::Duration::from_secs(1);
        std::fs::write(dir.path().join("src/lib.rs"), "").unwrap();
        assert!(newest_source(dir.path()).is_some_and(|changed| changed > before));
    }

    #[test]
    fn the_program_is_found_in_cargo_messages() {
        let messages = b"{\"reason\":\"compiler-artifact\",\"executable\":null}\n\
            {\"reason\":\"compiler-artifact\",\"executable\":\"/t/debug/holdfast\"}\n{\"reason\":\"build-finished\"}\n";
        assert_eq!(executable(messages).unwrap(), PathBuf::from("/t/debug/holdfast"));
        assert!(executable(b"{\"reason\":\"build-finished\"}\n").is_err());
    }
}
