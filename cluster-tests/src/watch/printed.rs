//! What a watch has printed, made comparable: how events are divided among responses, and what a header says of its
//! cluster, is the server's own affair.

use prost::Message;
use serde_json::Value;

use holdfast_proto::etcdserverpb::WatchResponse;

use super::console::Ended;

/// Fields of a header in the `fields` format.
const HEADER_FIELDS: [&str; 4] = ["\"ClusterID\" :", "\"MemberID\" :", "\"Revision\" :", "\"RaftTerm\" :"];

/// Whether the text was printed: plain, or in base64 as JSON has it, or in hexadecimal escapes.
pub fn holds(printed: &[u8], text: &str) -> bool {
    end_of(printed, text).is_some()
}

/// Where the text first ends, in any encoding.
fn end_of(printed: &[u8], text: &str) -> Option<usize> {
    let hex: String = text.bytes().map(|byte| format!("\\x{byte:02x}")).collect();
    let forms = [text.to_owned(), base64(text.as_bytes()), hex];
    let ends = forms.iter().filter_map(|form| {
        let at = printed.windows(form.len()).position(|window| window == form.as_bytes())?;
        Some(at + form.len())
    });
    ends.min()
}

/// What was printed, fit for comparison: events only, up to the text that ends the script. `format` is that of `-w`.
pub fn normalise(ended: &Ended, format: &str, last: Option<&str>) -> Ended {
    let stdout = match format {
        "json" => json(&ended.stdout),
        "protobuf" => protobuf(&ended.stdout),
        "fields" => lines(&ended.stdout, |line| !HEADER_FIELDS.iter().any(|field| line.starts_with(field))),
        _ => lines(&ended.stdout, |_| true),
    };
    let end = last.and_then(|last| end_of(&stdout, last)).unwrap_or(stdout.len());
    Ended { stdout: stdout[..end].to_vec(), ..ended.clone() }
}

fn lines(printed: &[u8], kept: impl Fn(&str) -> bool) -> Vec<u8> {
    let text = String::from_utf8_lossy(printed);
    let lines = text.lines().filter(|line| kept(line));
    // The revision that a command is told is that of the response's header, which may be ahead of the event.
    let masked = lines.map(|line| match line.strip_prefix("ETCD_WATCH_REVISION=") {
        Some(_) => "ETCD_WATCH_REVISION=masked",
        None => line,
    });
    masked.collect::<Vec<_>>().join("\n").into_bytes()
}

/// One event a line; all else of a response, its header aside, where it is not empty.
fn json(printed: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(printed);
    let mut out = Vec::new();
    for line in text.lines() {
        let Ok(mut response) = serde_json::from_str::<Value>(line) else {
            out.push(line.to_owned());
            continue;
        };
        let events = response.get_mut("Events").map(Value::take).unwrap_or_default();
        out.extend(events.as_array().into_iter().flatten().map(Value::to_string));
        let rest = ["CompactRevision", "Canceled", "Created"].map(|field| response[field].to_string());
        let said = format!("compact revision, canceled, created: {}", rest.join(", "));
        if out.last() != Some(&said) && rest != ["0", "false", "false"] {
            out.push(said);
        }
    }
    out.join("\n").into_bytes()
}

/// Responses one after the other are one response to protobuf, with the events of all.
fn protobuf(printed: &[u8]) -> Vec<u8> {
    match WatchResponse::decode(printed) {
        Ok(response) => {
            let events: Vec<String> = response.events.iter().map(|event| format!("{event:?}")).collect();
            events.join("\n").into_bytes()
        }
        Err(error) => format!("not a response: {error}").into_bytes(),
    }
}

/// Base64 with padding, as encoding/json has it.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let group =
            chunk.iter().fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let six = (group >> (18 - 6 * digit)) & 63;
            out.push(if digit > chunk.len() { '=' } else { char::from(DIGITS[six as usize]) });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(stdout: &[u8]) -> Ended {
        Ended { stdout: stdout.to_vec(), stderr: String::new(), code: None }
    }

    #[test]
    fn base64_is_that_of_json() {
        assert_eq!(
            ["", "a", "ab", "abc", "abcd"].map(|text| base64(text.as_bytes())),
            ["", "YQ==", "YWI=", "YWJj", "YWJjZA=="]
        );
    }

    #[test]
    fn a_text_is_found_in_each_encoding() {
        assert!(holds(b"PUT\na\nend\n", "end") && holds(b"{\"value\":\"ZW5k\"}", "end"));
        assert!(holds(b"\\x65\\x6e\\x64", "end") && !holds(b"en", "end"));
    }

    #[test]
    fn how_events_are_divided_does_not_matter() {
        let event = |number: u32| format!("{{\"kv\":{{\"key\":\"YQ==\",\"version\":{number}}}}}");
        let response = |revision: u32, events: &[String]| {
            let rest = "\"CompactRevision\":0,\"Canceled\":false,\"Created\":false";
            format!("{{\"Header\":{{\"revision\":{revision}}},\"Events\":[{}],{rest}}}\n", events.join(","))
        };
        let one = response(9, &[event(1), event(2)]);
        let two = response(2, &[event(1)]) + &response(3, &[event(2)]);
        assert_eq!(json(one.as_bytes()), json(two.as_bytes()));
        assert_ne!(json(one.as_bytes()), json(response(9, &[event(2), event(1)]).as_bytes()));
    }

    #[test]
    fn what_comes_behind_the_last_text_does_not_count() {
        let cut = normalise(&ended(b"PUT\na\nend\nPUT"), "simple", Some("end"));
        assert_eq!(cut.stdout, b"PUT\na\nend");
    }
}
