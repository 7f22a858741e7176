//! `snapshot inspect`: what is in a file.

use std::fmt::Write;
use std::path::Path;

use holdfast_server::backup::look::{self, Contents};

use crate::error::Done;
use crate::output::{self, Format, Look, Out, View};

/// `snapshot inspect`.
pub(crate) fn inspect(file: &Path, out: Out) -> Done {
    out.has::<Inside>()?;
    let contents = look::contents(&super::status::open(file)?).map_err(anyhow::Error::from)?;
    out.show(&Inside(contents))
}

/// What is in a file.
struct Inside(Contents);

impl View for Inside {
    const FORMATS: &'static [Format] = &[Format::Simple, Format::Json];

    fn simple(&self, text: &mut Vec<u8>, _: Look) {
        text.extend(describe(&self.0).expect("a string takes all").into_bytes());
    }

    fn json(&self, _: Look) -> String {
        serde_json::to_string_pretty(&self.0).expect("numbers and words are JSON")
    }
}

fn describe(contents: &Contents) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    let number = |number: Option<u64>| number.map_or("none".to_owned(), |number| number.to_string());
    let rows =
        contents.buckets.iter().map(|b| vec![b.name.clone(), b.pairs.to_string(), output::bytes(b.bytes)]);
    text.push_str(&output::table(&["BUCKET", "PAIRS", "BYTES"], &rows.collect::<Vec<_>>()));
    let mut line = |name: &str, value: String| writeln!(text, "{name:<20} {value}");
    line("size", output::bytes(contents.bytes))?;
    line("checksum", if contents.checksum { "right".into() } else { "none".into() })?;
    line("revisions kept", format!("{} to {}", contents.first_revision, contents.last_revision))?;
    line("deletes", contents.deletes.to_string())?;
    line("compact revision", number(contents.compact_revision))?;
    line("compacted through", number(contents.compacted_through))?;
    line("log index", format!("{} of term {}", number(contents.consistent_index), number(contents.term)))?;
    line("cluster version", contents.cluster_version.clone().unwrap_or_else(|| "none".into()))?;
    line("authentication", if contents.auth_enabled { "enabled".into() } else { "off".into() })?;
    line("leases", format!("{}, with {} records", contents.leases, contents.leased_records))?;
    for member in &contents.members {
        let kind = if member.is_learner { ", learner" } else { "" };
        let name = if member.name.is_empty() { "unnamed" } else { &member.name };
        line("member", format!("{:x} {name} {}{kind}", member.id, member.peer_urls.join(",")))?;
    }
    for alarm in &contents.alarms {
        line("alarm", alarm.clone())?;
    }
    Ok(text)
}
