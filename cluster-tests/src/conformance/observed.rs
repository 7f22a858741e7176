//! What a comparison with real etcd has seen, as a file: `conformance/observed.txt`.
//!
//! ```text
//! etcdserverpb.KV.Range etcdserverpb.RangeResponse.more: range vectors
//! etcdserverpb.Lease.LeaseGrant answers Unimplemented
//! error InvalidArgument etcdserver: key is not provided: put range
//! ```
//! A line says in which scripts a field of a response had a value on both sides, which method is not served, or in which
//! scripts both sides refused something with a code and a text. The
//! comparison writes it (`conformance-doc --observe`) and fails when the file says something else than what it sees; from there
//! `docs/conformance.md` has it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::{Context, bail};
use bytes::Bytes;
use prost_reflect::{DescriptorPool, MethodDescriptor};
use tonic::Code;

use super::call::{Answer, descriptors, send_to};
use super::coverage::Field;
use super::members::Members;
use super::player::{Transcript, play};
use super::runner::scripts;
use super::script::Script;
use crate::harness::cluster::System;

/// Packages whose services are etcd's.
const PACKAGES: [&str; 3] = ["etcdserverpb", "v3lockpb", "v3electionpb"];

/// What a line about a refusal begins with.
const REFUSAL: &str = "error ";

/// How a method that is not served is marked.
const UNSERVED: &str = " answers Unimplemented";

/// What was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// Fields of responses, each with the scripts in whose answers it had a value, here and in etcd's.
    pub fields: BTreeMap<Field, BTreeSet<String>>,
    /// Full names of the methods that answer Unimplemented.
    pub unserved: BTreeSet<String>,
    /// Codes and texts of refusals, each with the scripts in which it was given, here and by etcd.
    pub errors: BTreeMap<(String, String), BTreeSet<String>>,
}

impl Observed {
    /// Adds the fields that had a value both in what etcd and in what we answered to a script.
    pub fn add(&mut self, script: &Script, etcd: &Transcript, ours: &Transcript) {
        for field in etcd.seen.fields.intersection(&ours.seen.fields) {
            self.fields.entry(field.clone()).or_default().insert(script.name.clone());
        }
        for error in etcd.seen.errors.intersection(&ours.seen.errors) {
            self.errors.entry(error.clone()).or_default().insert(script.name.clone());
        }
    }

    /// Asks for every method that no script calls, with an empty request, and notes those that are not there.
    pub async fn probe(&mut self, scripts: &[Script], members: &Members) {
        let is_called = |method: &MethodDescriptor| {
            scripts.iter().flat_map(|script| &script.calls).any(|call| call.method == *method)
        };
        for method in methods(&descriptors()).into_iter().filter(|method| !is_called(method)) {
            if let Answer::Err(Code::Unimplemented, _) =
                send_to(members.channel(0), &method, Bytes::new(), None).await
            {
                self.unserved.insert(method.full_name().to_owned());
            }
        }
    }

    /// As the file has it.
    pub fn text(&self) -> String {
        let mut out = String::from(
            "# Written by `cargo run -p cluster-tests -- conformance-doc --observe`: which fields of responses had a value\n\
             # in which scripts, on etcd and on holdfast, which methods holdfast does not serve, and which refusals both gave.\n\n",
        );
        for (Field { method, message, field }, scripts) in &self.fields {
            let scripts: Vec<&str> = scripts.iter().map(String::as_str).collect();
            writeln!(out, "{method} {message}.{field}: {}", scripts.join(" "))
                .expect("writing to a string does not fail");
        }
        for method in &self.unserved {
            writeln!(out, "{method}{UNSERVED}").expect("writing to a string does not fail");
        }
        for ((code, text), scripts) in &self.errors {
            let scripts: Vec<&str> = scripts.iter().map(String::as_str).collect();
            writeln!(out, "{REFUSAL}{code} {text}: {}", scripts.join(" "))
                .expect("writing to a string does not fail");
        }
        out
    }

    /// Reads the file. Errors name the line.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let mut observed = Self::default();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(method) = line.strip_suffix(UNSERVED) {
                observed.unserved.insert(method.to_owned());
                continue;
            }
            if let Some(refusal) = line.strip_prefix(REFUSAL) {
                let (error, scripts) =
                    refusal.rsplit_once(": ").with_context(|| format!("no scripts: {line}"))?;
                let (code, text) = error.split_once(' ').with_context(|| format!("no text: {line}"))?;
                let scripts = scripts.split_whitespace().map(str::to_owned).collect();
                observed.errors.insert((code.to_owned(), text.to_owned()), scripts);
                continue;
            }
            let (name, scripts) = line.split_once(": ").with_context(|| format!("no scripts: {line}"))?;
            let Some((method, field)) = name.split_once(' ') else { bail!("no method: {line}") };
            let (message, field) = field.rsplit_once('.').with_context(|| format!("no field: {line}"))?;
            let field =
                Field { method: method.to_owned(), message: message.to_owned(), field: field.to_owned() };
            observed.fields.insert(field, scripts.split_whitespace().map(str::to_owned).collect());
        }
        Ok(observed)
    }
}

/// Plays every script on one member of etcd and one of ours, and notes what there is to see.
pub async fn observe(etcd: &System, ours: &System) -> anyhow::Result<Observed> {
    let mut observed = Observed::default();
    let scripts = scripts()?;
    for script in &scripts {
        let (theirs, mine) = tokio::join!(play_fresh(etcd, script), play_fresh(ours, script));
        observed.add(script, &theirs?, &mine?);
    }
    observed.probe(&scripts, &Members::start(ours.clone(), 1).await?).await;
    Ok(observed)
}

async fn play_fresh(system: &System, script: &Script) -> anyhow::Result<Transcript> {
    let members = Members::start(system.clone(), 1).await?;
    play(script, &members).await
}

/// All methods of etcd, in the order of the contract.
pub(super) fn methods(pool: &DescriptorPool) -> Vec<MethodDescriptor> {
    let services = pool.services().filter(|service| PACKAGES.contains(&service.package_name()));
    services.flat_map(|service| service.methods().collect::<Vec<_>>()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_reads_as_it_was_written() {
        let mut observed = Observed::default();
        let field = Field { method: "p.S.M".to_owned(), message: "p.R".to_owned(), field: "f".to_owned() };
        observed.fields.insert(field, ["one".to_owned(), "two".to_owned()].into());
        observed.unserved.insert("p.S.N".to_owned());
        let error = ("NotFound".to_owned(), "etcdserver: mvcc: gone".to_owned());
        observed.errors.insert(error, ["one".to_owned()].into());
        assert_eq!(Observed::parse(&observed.text()).unwrap(), observed);
        assert!(Observed::parse("p.S.M p.R.f").is_err());
    }
}
