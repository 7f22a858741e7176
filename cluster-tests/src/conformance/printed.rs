//! Masks what etcdctl prints of ids, addresses, times and sizes, in all its output formats.

use std::collections::HashSet;
use std::process::Output;

use serde_json::Value;

use super::etcdctl::{CommandLine, Printed};

/// JSON keys, and keys of the `fields` format, whose values differ by nature.
const MASKED_KEYS: &[&str] = &[
    "cluster_id",
    "member_id",
    "raft_term",
    "ID",
    "name",
    "peerURLs",
    "clientURLs",
    "hash",
    "took",
    "ts",
    "target",
    "ClusterID",
    "MemberID",
    "RaftTerm",
    "Name",
    "PeerURL",
    "ClientURL",
    "Hash",
    "endpoint",
    "Endpoint",
    "Took",
];

/// Replaces addresses of one cluster, and everything else that differs by nature.
#[derive(Debug)]
pub struct Mask {
    addresses: Vec<(String, &'static str)>,
}

impl Mask {
    /// For a cluster with these URLs.
    pub fn new(client_urls: &[String], peer_urls: &[String]) -> Self {
        let bare = |url: &String| url.split_once("://").map_or(url.clone(), |(_, rest)| rest.to_owned());
        let clients = client_urls.iter().map(|url| (bare(url), "CLIENT"));
        Self { addresses: clients.chain(peer_urls.iter().map(|url| (bare(url), "PEER"))).collect() }
    }

    /// What the command printed, fit for comparison.
    pub fn apply(&self, command: &CommandLine, output: &Output) -> Printed {
        // Clusters of one and of three list one and three here, alike once ids are masked: each line counts once.
        let about_members = command.args.first().is_some_and(|word| word == "member" || word == "endpoint");
        let text = |bytes: &[u8]| self.text(&String::from_utf8_lossy(bytes), about_members);
        Printed { stdout: text(&output.stdout), stderr: text(&output.stderr), code: output.status.code() }
    }

    fn text(&self, text: &str, about_members: bool) -> String {
        let mut text = text.to_owned();
        for (address, name) in &self.addresses {
            text = text.replace(address, name);
        }
        let mut lines: Vec<String> = text.lines().map(|line| mask_line(line, about_members)).collect();
        if about_members {
            let mut seen = HashSet::new();
            lines.retain(|line| seen.insert(line.clone()));
        }
        lines.join("\n")
    }
}

fn mask_line(line: &str, about_members: bool) -> String {
    if let Ok(mut value) = serde_json::from_str::<Value>(line)
        && (value.is_object() || value.is_array())
    {
        mask_json(&mut value);
        return value.to_string();
    }
    // The `fields` format: "Key" : value
    if let Some((key, _)) = line.split_once(" : ")
        && MASKED_KEYS.contains(&key.trim_matches('"'))
    {
        return format!("{key} : masked");
    }
    if about_members { mask_words(line) } else { line.to_owned() }
}

fn mask_json(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map.iter_mut() {
                if MASKED_KEYS.contains(&key.as_str()) {
                    *value = Value::from("masked");
                } else {
                    mask_json(value);
                }
            }
        }
        Value::Array(items) => {
            items.iter_mut().for_each(mask_json);
            if items.iter().all(Value::is_object) {
                items.dedup();
            }
        }
        _ => {}
    }
}

/// Ids, member names and durations; runs of blanks and of dashes, whose lengths follow from them.
fn mask_words(line: &str) -> String {
    let mut out = String::new();
    for word in line.split_whitespace() {
        let bare = word.trim_end_matches(',');
        let comma = &word[bare.len()..];
        let masked = match bare {
            id if id.len() >= 8 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) => "ID",
            number if number.len() >= 6 && number.bytes().all(|byte| byte.is_ascii_digit()) => "NUMBER",
            name if name.len() == 2 && name.starts_with('n') => "NAME",
            time if is_duration(time) => "TIME",
            rule if rule.starts_with("+-") => "+-+",
            other => other,
        };
        out.push_str(masked);
        out.push_str(comma);
        out.push(' ');
    }
    out.truncate(out.trim_end().len());
    out
}

fn is_duration(word: &str) -> bool {
    let unit_at = word.find(|character: char| !character.is_ascii_digit() && character != '.');
    unit_at.is_some_and(|at| at > 0 && ["ns", "µs", "ms", "s"].contains(&&word[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask() -> Mask {
        Mask::new(&["http://127.0.0.1:1234".to_owned()], &["http://127.0.0.1:99".to_owned()])
    }

    #[test]
    fn member_lists_of_one_and_three_look_alike() {
        let one = "8e9e05c52164694d, started, n1, http://127.0.0.1:99, http://127.0.0.1:1234, false\n";
        assert_eq!(mask().text(one, true), "ID, started, NAME, http://PEER, http://CLIENT, false");
        assert_eq!(mask().text(&one.repeat(3), true), mask().text(one, true));
    }

    #[test]
    fn data_is_left_alone() {
        assert_eq!(mask().text("a\n1.5ms\n12345678", false), "a\n1.5ms\n12345678");
        assert_eq!(mask().text("a\na", false), "a\na");
    }

    #[test]
    fn json_and_fields_are_masked_by_key() {
        let json = r#"{"header":{"cluster_id":7,"revision":3},"kvs":[{"key":"YQ==","version":2}]}"#;
        let masked = r#"{"header":{"cluster_id":"masked","revision":3},"kvs":[{"key":"YQ==","version":2}]}"#;
        assert_eq!(mask().text(json, false), masked);
        assert_eq!(mask().text("\"ClusterID\" : 14841639068965178418", false), "\"ClusterID\" : masked");
        assert_eq!(mask().text("\"Revision\" : 7", false), "\"Revision\" : 7");
    }

    #[test]
    fn times_are_masked() {
        let health = "http://127.0.0.1:1234 is healthy: successfully committed proposal: took = 1.25ms";
        assert_eq!(
            mask().text(health, true),
            "http://CLIENT is healthy: successfully committed proposal: took = TIME"
        );
    }
}
