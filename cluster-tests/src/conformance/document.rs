//! Writes `docs/conformance.md`: each method and field of etcd's contract, and what covers it.
//!
//! Nothing in it is claimed by hand. Methods and fields come from the descriptors; what covers a field of a request is
//! read off the scripts, of a response off `observed.txt`, which the comparison with real etcd keeps true; and a test
//! elsewhere that covers something says so above itself:
//!
//! ```text
//! // covers: Watch.Watch WatchCreateRequest.progress_notify
//! ```
//! A tag names a method, and fields if it is about fields. A name that the contract does not have is an error.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use prost_reflect::{Kind, MessageDescriptor, MethodDescriptor};

use super::call::descriptors;
use super::contract::{ERRORS, ErrorText, GATEWAY_PATHS, HTTP_PATHS, UNSET};
use super::coverage::{Field, Seen};
use super::normalise::is_masked;
use super::observed::{Observed, methods};
use super::placeholder::Revisions;
use super::runner::{data_dir, scripts};
use super::script::Script;
use crate::harness::binary::workspace;

/// Where the document lies, from the root of the repository.
pub const DOCUMENT: &str = "docs/conformance.md";

/// The only place where a client-facing status is made, with the test of its table.
const STATUS_TABLE: &str = "holdfast-server/src/status.rs";

/// How a test says what it covers.
const TAG: &str = "// covers: ";

/// What covers what.
#[derive(Debug, Default)]
struct Coverage {
    methods: BTreeMap<String, BTreeSet<String>>,
    fields: BTreeMap<Field, BTreeSet<String>>,
    unserved: BTreeSet<String>,
    errors: BTreeMap<(String, String), BTreeSet<String>>,
    /// The files of tests, with their texts.
    tests: BTreeMap<String, String>,
}

/// The document as it should be.
pub fn document() -> anyhow::Result<String> {
    let path = data_dir().join("observed.txt");
    let observed = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let mut coverage = Coverage::default();
    for script in scripts()? {
        coverage.add_script(&script)?;
    }
    coverage.add_observed(Observed::parse(&observed)?);
    for folder in ["crates", "cluster-tests"] {
        coverage.add_tags(&workspace().join(folder))?;
    }
    Ok(coverage.render())
}

impl Coverage {
    fn cover(&mut self, field: Field, by: &str) {
        self.methods.entry(field.method.clone()).or_default().insert(by.to_owned());
        self.fields.entry(field).or_default().insert(by.to_owned());
    }

    /// The methods a script calls, and the fields its requests have.
    fn add_script(&mut self, script: &Script) -> anyhow::Result<()> {
        for call in &script.calls {
            self.methods.entry(call.method.full_name().to_owned()).or_default().insert(script.name.clone());
            let mut seen = Seen::default();
            seen.add(&call.method, &call.message(Revisions { head: 100, compacted: 50 })?);
            seen.fields.into_iter().for_each(|field| self.cover(field, &script.name));
        }
        Ok(())
    }

    fn add_observed(&mut self, observed: Observed) {
        for (field, scripts) in observed.fields {
            scripts.iter().for_each(|script| self.cover(field.clone(), script));
        }
        self.unserved = observed.unserved;
        self.errors = observed.errors;
    }

    /// The tags of all Rust files below `folder`.
    fn add_tags(&mut self, folder: &Path) -> anyhow::Result<()> {
        for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                self.add_tags(&path)?;
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(workspace()).unwrap_or(&path).display().to_string();
                let text = fs::read_to_string(&path).with_context(|| name.clone())?;
                if name.contains("/tests") || name.ends_with(STATUS_TABLE) {
                    self.tests.insert(name.clone(), text.clone());
                }
                for tag in text.lines().filter_map(|line| line.trim_start().strip_prefix(TAG)) {
                    self.add_tag(tag, &name).with_context(|| format!("{name}: {TAG}{tag}"))?;
                }
            }
        }
        Ok(())
    }

    fn add_tag(&mut self, tag: &str, by: &str) -> anyhow::Result<()> {
        let mut words = tag.split_whitespace();
        let name = words.next().context("a tag names a method")?;
        let all = methods(&descriptors());
        let ends = |method: &&MethodDescriptor| {
            method.full_name().split_once('.').is_some_and(|(_, rest)| rest == name)
        };
        let method = all.iter().find(ends).with_context(|| format!("no method {name}"))?;
        self.methods.entry(method.full_name().to_owned()).or_default().insert(by.to_owned());
        for word in words {
            let fields = fields(&method.input()).into_iter().chain(fields(&method.output()));
            let mut fields = fields.filter(|(message, field)| word == format!("{}.{field}", short(message)));
            let Some((message, field)) = fields.next() else { bail!("{name} has no field {word}") };
            self.cover(Field { method: method.full_name().to_owned(), message, field }, by);
        }
        Ok(())
    }

    fn status(&self, method: &MethodDescriptor) -> &'static str {
        if self.unserved.contains(method.full_name()) {
            "answers Unimplemented"
        } else if self.methods.contains_key(method.full_name()) {
            "covered"
        } else {
            "served, not covered"
        }
    }

    fn render(&self) -> String {
        let mut out = HEAD.to_owned();
        let all = methods(&descriptors());
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for method in &all {
            *counts.entry(self.status(method)).or_default() += 1;
        }
        let counts: Vec<String> = counts.iter().map(|(status, count)| format!("{count} {status}")).collect();
        line(&mut out, &format!("{} methods: {}.", all.len(), counts.join(", ")));
        let mut service = String::new();
        for method in &all {
            if method.parent_service().full_name() != service {
                method.parent_service().full_name().clone_into(&mut service);
                line(&mut out, &format!("\n## {service}"));
            }
            self.render_method(&mut out, method);
        }
        self.render_paths(&mut out);
        self.render_errors(&mut out);
        out
    }

    /// The tests in whose text something stands.
    fn tests_with(&self, text: &str) -> BTreeSet<String> {
        self.tests.iter().filter(|(_, test)| test.contains(text)).map(|(name, _)| name.clone()).collect()
    }

    fn render_paths(&self, out: &mut String) {
        line(out, "\n## HTTP\n\n| path | status | by |\n| --- | --- | --- |");
        let gateway = GATEWAY_PATHS.iter().map(|path| format!("/v3/{path}"));
        for path in HTTP_PATHS.iter().map(|path| (*path).to_owned()).chain(gateway) {
            let by = self.tests_with(&format!("\"{path}"));
            line(out, &format!("| {path} | {} | {} |", covered(&by), list(&by)));
        }
    }

    fn render_errors(&self, out: &mut String) {
        line(out, "\n## Errors\n\n| code | text | status | by |\n| --- | --- | --- | --- |");
        for ErrorText { code, text, never } in ERRORS {
            let mut by = self.errors.get(&(code.to_owned(), text.to_owned())).cloned().unwrap_or_default();
            by.extend(self.tests_with(text));
            let (status, by) = match never {
                "" => (covered(&by), list(&by)),
                why => ("never given", why.to_owned()),
            };
            line(out, &format!("| {code} | {text} | {status} | {by} |"));
        }
    }

    fn render_method(&self, out: &mut String, method: &MethodDescriptor) {
        let status = self.status(method);
        let by = self.methods.get(method.full_name()).map(list).unwrap_or_default();
        line(
            out,
            &format!("\n### {}\n\n{status}{}{by}", method.name(), if by.is_empty() { "" } else { ": " }),
        );
        let mut done = BTreeSet::new();
        let directions = [("request", method.input()), ("response", method.output())];
        if status == "answers Unimplemented" {
            for (direction, message) in directions {
                let names = fields(&message)
                    .into_iter()
                    .map(|(message, field)| format!("{}.{field}", short(&message)));
                let names: Vec<String> = names.collect();
                line(
                    out,
                    &format!(
                        "\n{direction}: {}",
                        if names.is_empty() { "no fields".to_owned() } else { names.join(", ") }
                    ),
                );
            }
            return;
        }
        line(out, "\n| | field | status | by |\n| --- | --- | --- | --- |");
        for (direction, message) in directions {
            for (message, field) in fields(&message) {
                let name = format!("{}.{field}", short(&message));
                let note = if is_masked(&message, &field) { ", its presence alone" } else { "" };
                let key = Field { method: method.full_name().to_owned(), message, field };
                if !done.insert(key.clone()) {
                    continue;
                }
                let by = self.fields.get(&key).map(list).unwrap_or_default();
                let unset =
                    UNSET.iter().find(|(of, begin, _)| *of == method.name() && name.starts_with(begin));
                let (status, by) = match (by.is_empty(), unset) {
                    (false, _) => (format!("covered{note}"), by),
                    (true, Some((_, _, why))) => ("never set".to_owned(), (*why).to_owned()),
                    (true, None) => ("served, not covered".to_owned(), by),
                };
                line(out, &format!("| {direction} | {name} | {status} | {by} |"));
            }
        }
    }
}

/// All fields of a message and of those in it, each once, in the order of the contract.
fn fields(message: &MessageDescriptor) -> Vec<(String, String)> {
    let (mut found, mut open, mut known) = (Vec::new(), vec![message.clone()], BTreeSet::new());
    known.insert(message.full_name().to_owned());
    while !open.is_empty() {
        let message = open.remove(0);
        for field in message.fields() {
            found.push((message.full_name().to_owned(), field.name().to_owned()));
            if let Kind::Message(inner) = field.kind()
                && known.insert(inner.full_name().to_owned())
            {
                open.push(inner);
            }
        }
    }
    found
}

fn covered(by: &BTreeSet<String>) -> &'static str {
    if by.is_empty() { "served, not covered" } else { "covered" }
}

fn short(message: &str) -> &str {
    message.rsplit('.').next().unwrap_or(message)
}

fn list(by: &BTreeSet<String>) -> String {
    let by: Vec<&str> = by.iter().map(String::as_str).collect();
    by.join(", ")
}

fn line(out: &mut String, text: &str) {
    writeln!(out, "{text}").expect("writing to a string does not fail");
}

const HEAD: &str = "\
# Conformance with etcd's v3 API

<!-- Written by `cargo run -p cluster-tests -- conformance-doc`. Do not edit. -->

Each method and field of the contract, and what covers it. A name without a slash is a script in
`cluster-tests/conformance`: its calls go to real etcd 3.5.1 and to holdfast with one and three members, and every
answer and event is compared, but for what `differences.txt` there explains. A field is covered when it had a value in a
request of a script, or in an answer on both sides. A path is a test. Beside the scripts the same comparison is made
of random calls: `cargo run -p cluster-tests -- differ`. Paths of HTTP and the texts of errors follow the methods; flags
are in [flags.md](flags.md), each with what becomes of it, which `crates/holdfast-server/src/config/flags/tests.rs`
checks.

";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_up_to_date() {
        let path = workspace().join(DOCUMENT);
        let found = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == document().unwrap(),
            "{DOCUMENT} is stale; write it with: cargo run -p cluster-tests -- conformance-doc"
        );
    }

    #[test]
    fn a_script_covers_what_it_asks_for_and_nothing_else() {
        let script = Script::parse("s", "Range key: \"a\" limit: 2", &descriptors()).unwrap();
        let mut coverage = Coverage::default();
        coverage.add_script(&script).unwrap();
        coverage.unserved.insert("etcdserverpb.KV.Put".to_owned());
        let text = coverage.render();
        assert!(text.contains("| request | RangeRequest.limit | covered | s |"));
        assert!(text.contains("| request | RangeRequest.revision | served, not covered |  |"));
        assert!(text.contains("### Put\n\nanswers Unimplemented"));
        assert!(text.contains("### Compact\n\nserved, not covered"));
    }

    #[test]
    fn a_tag_names_what_there_is() {
        let mut coverage = Coverage::default();
        coverage.add_tag("Watch.Watch WatchCreateRequest.progress_notify", "tests/x.rs").unwrap();
        assert!(
            coverage
                .render()
                .contains("| request | WatchCreateRequest.progress_notify | covered | tests/x.rs |")
        );
        assert!(coverage.add_tag("Watch.Look", "x").is_err());
        assert!(coverage.add_tag("Watch.Watch WatchCreateRequest.nothing", "x").is_err());
    }
}
