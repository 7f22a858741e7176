//! Reads a script of calls.
//!
//! ```text
//! # a comment
//! Put key: "a" value: "1"
//! [first-page] Range key: "a" range_end: "d"
//!     limit: 1                                  (an indented line continues the one above)
//! Txn @repeat(129){success {request_put {key: "k#"}}}
//! Range key: "a" @raw(ff)
//! Watch@s1 create_request {key: "a" start_revision: @head-3}
//! Watch@s1 @leave
//! ```
//! A call is a method name, unique among etcd's services, then its request in protobuf's text format. `[label]` names
//! the call for the table of differences. `@repeat(n){..}` writes its body n times, `#` standing for 0, 1, 2, …;
//! `@raw(hex)` appends bytes to the encoded request, for what no well-behaved client sends. `@head` and `@compacted`
//! stand for the store's revision and the compacted revision when the call is made, `@head-3` and `@compacted+1` for
//! what lies beside them, never below zero.
//!
//! `Watch@NAME` sends one request on the watch stream of that name, which is opened by the first of them; `@leave` instead
//! of a request drops it, as a client that goes away; the name then stands for a new stream.
//!
//! ```text
//! Lock@two name: "L" lease: 2
//! Unlock key: "L/1"
//! Lock@two @answer
//! ```
//! A call that may wait has a name too: it is made and left waiting. `@answer` instead of a request waits for its answer,
//! of `Observe` for the next one; `@leave` goes away from it.
//!
//! ```text
//! Authenticate@alice name: "alice" password: "secret"
//! as(alice) Put key: "a" value: "1"
//! ```
//! The token of a login is kept under its name, and `as(NAME)` sends it with a call, or with the stream that the call opens,
//! as long as auth is on. A name without a login sends a token that nobody has given out. The player itself writes as the
//! user root, whose password has to be [`ROOT_PASSWORD`], once auth is on.

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor};

use super::observed::methods;
use super::placeholder::{Revisions, fill_in};

/// A script: its calls, in order.
#[derive(Debug)]
pub struct Script {
    /// File name without folder and extension; the first half of a call's name.
    pub name: String,
    /// In the order in which they are sent.
    pub calls: Vec<Call>,
}

/// One call of a script.
#[derive(Debug, Clone)]
pub struct Call {
    /// `script.label`, or `script:line` for a call without a label.
    pub name: String,
    /// The line as written, for reports.
    pub text: String,
    /// The method, by reflection.
    pub method: MethodDescriptor,
    /// What is asked.
    pub ask: Ask,
    /// Whose token is sent while auth is on.
    pub user: Option<String>,
    body: String,
    raw: Vec<u8>,
}

/// The password of the user root in scripts that switch auth on.
pub const ROOT_PASSWORD: &str = "r";

/// How a call is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// One request, one answer.
    Unary,
    /// A request on the watch stream of this name.
    Stream(String),
    /// The client goes away from the watch stream of this name.
    Leave(String),
    /// One request, whose answers are asked for by this name.
    Begin(String),
    /// The next answer to the request of this name.
    Await(String),
    /// The client goes away from the request of this name.
    Quit(String),
    /// A login, whose token is kept under this name.
    Login(String),
}

/// Methods that may wait before they answer.
const WAITING: [&str; 3] = ["Lock", "Campaign", "Observe"];

impl Call {
    /// The request, as it reads when the store is at these revisions.
    pub fn message(&self, revisions: Revisions) -> anyhow::Result<DynamicMessage> {
        Ok(DynamicMessage::parse_text_format(self.method.input(), &fill_in(&self.body, revisions)?)?)
    }

    /// The encoded request.
    pub fn request(&self, revisions: Revisions) -> anyhow::Result<Bytes> {
        let mut encoded = self.message(revisions)?.encode_to_vec();
        encoded.extend_from_slice(&self.raw);
        Ok(encoded.into())
    }

    /// Whether the request is made of more than its text says.
    pub fn is_raw(&self) -> bool {
        !self.raw.is_empty()
    }

    /// Whether the answer may come from the member's own state, which can lag behind the calls before.
    pub fn reads_locally(&self) -> bool {
        // A transaction without operations is a serializable read of its compares.
        let only_compares = self.method.name() == "Txn" && !self.text.contains("request_");
        only_compares
            || self.text.contains("serializable: true")
            || self.method.parent_service().name() == "Maintenance"
            || self.method.parent_service().name() == "Cluster"
            // Its header is the member's own, of before.
            || self.method.name() == "LeaseKeepAlive"
    }
}

impl Script {
    /// Whether any call is made on a watch stream.
    pub fn watches(&self) -> bool {
        self.calls.iter().any(|call| matches!(call.ask, Ask::Stream(_) | Ask::Leave(_)))
    }

    /// Parses the text of a script. Errors name the line.
    pub fn parse(name: &str, text: &str, pool: &DescriptorPool) -> anyhow::Result<Self> {
        let mut calls = Vec::new();
        for (line, statement) in statements(text)? {
            let call = parse_call(name, line, &statement, pool)
                .with_context(|| format!("script {name}, line {line}: {}", clip(&statement)))?;
            calls.push(call);
        }
        Ok(Self { name: name.to_owned(), calls })
    }
}

/// Lines joined with their continuations, each with the number of its first line.
fn statements(text: &str) -> anyhow::Result<Vec<(usize, String)>> {
    let mut statements: Vec<(usize, String)> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        if !line.starts_with(char::is_whitespace) {
            statements.push((index + 1, line.trim_end().to_owned()));
            continue;
        }
        let Some((_, statement)) = statements.last_mut() else {
            bail!("line {}: a continuation with nothing above it", index + 1);
        };
        statement.push(' ');
        statement.push_str(line.trim());
    }
    Ok(statements)
}

fn parse_call(script: &str, line: usize, statement: &str, pool: &DescriptorPool) -> anyhow::Result<Call> {
    let (label, rest) = match statement.strip_prefix('[') {
        Some(rest) => {
            let (label, rest) = rest.split_once(']').context("the label's ] is missing")?;
            (Some(label), rest.trim_start())
        }
        None => (None, statement),
    };
    let (user, rest) = match rest.strip_prefix("as(") {
        Some(rest) => {
            let (user, rest) = rest.split_once(')').context("the ) behind the user is missing")?;
            (Some(user.to_owned()), rest.trim_start())
        }
        None => (None, rest),
    };
    let (method, body) = rest.split_once(' ').unwrap_or((rest, ""));
    let (method, name) = method.split_once('@').map_or((method, None), |(m, name)| (m, Some(name)));
    let method = find_method(pool, method)?;
    let ask = parse_ask(&method, name, body.trim())?;
    let has_request = matches!(ask, Ask::Unary | Ask::Login(_) | Ask::Stream(_) | Ask::Begin(_));
    let (body, raw) = split_raw(if has_request { body } else { "" })?;
    let name = label.map_or_else(|| format!("{script}:{line}"), |label| format!("{script}.{label}"));
    let call = Call { name, text: statement.to_owned(), method, ask, user, body: expand(body)?, raw };
    call.message(Revisions::default())?;
    Ok(call)
}

fn parse_ask(method: &MethodDescriptor, name: Option<&str>, body: &str) -> anyhow::Result<Ask> {
    let (is_watch, may_wait) = (method.name() == "Watch", WAITING.contains(&method.name()));
    let logs_in = method.name() == "Authenticate";
    let Some(name) = name.map(str::to_owned) else {
        ensure!(!is_watch && method.name() != "Observe", "a stream has a name: {}@NAME", method.name());
        return Ok(Ask::Unary);
    };
    ensure!(is_watch || may_wait || logs_in, "{} does not wait, and has no name", method.name());
    Ok(match body {
        _ if logs_in => Ask::Login(name),
        "@leave" if is_watch => Ask::Leave(name),
        _ if is_watch => Ask::Stream(name),
        "@leave" => Ask::Quit(name),
        "@answer" => Ask::Await(name),
        _ => Ask::Begin(name),
    })
}

fn find_method(pool: &DescriptorPool, name: &str) -> anyhow::Result<MethodDescriptor> {
    methods(pool)
        .into_iter()
        .find(|method| method.name() == name)
        .with_context(|| format!("etcd has no method {name:?}"))
}

fn split_raw(body: &str) -> anyhow::Result<(&str, Vec<u8>)> {
    let Some((body, raw)) = body.split_once("@raw(") else { return Ok((body, Vec::new())) };
    let hex = raw.trim_end().strip_suffix(')').context("@raw(..) must come last")?;
    let digits = hex.as_bytes().chunks(2);
    let bytes = digits.map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?));
    Ok((body, bytes.collect::<anyhow::Result<_>>()?))
}

/// Writes out `@repeat(n){..}`; the body may hold braces, in pairs, but no further @repeat.
fn expand(text: &str) -> anyhow::Result<String> {
    let Some((before, rest)) = text.split_once("@repeat(") else { return Ok(text.to_owned()) };
    let (count, rest) = rest.split_once("){").context("@repeat is written @repeat(n){..}")?;
    let count: usize = count.parse().context("@repeat needs a number")?;
    let end = closing_brace(rest).context("@repeat's } is missing")?;
    let (body, after) = (&rest[..end], &rest[end + 1..]);
    let mut out = before.to_owned();
    for index in 0..count {
        out.push_str(&body.replace('#', &index.to_string()));
    }
    out.push_str(&expand(after)?);
    Ok(out)
}

fn closing_brace(text: &str) -> Option<usize> {
    let mut open = 0_usize;
    for (at, character) in text.char_indices() {
        match character {
            '{' => open += 1,
            '}' if open == 0 => return Some(at),
            '}' => open -= 1,
            _ => {}
        }
    }
    None
}

/// Enough of a long line to find it.
pub(super) fn clip(text: &str) -> String {
    const CHARS: usize = 600;
    match text.char_indices().nth(CHARS) {
        Some((at, _)) => format!("{}… ({} bytes)", &text[..at], text.len()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> anyhow::Result<Script> {
        Script::parse("s", text, &super::super::call::descriptors())
    }

    #[test]
    fn a_call_is_read_with_label_and_continuation() {
        let script = parse("# c\n\n[x] Range key: \"a\"\n  limit: 3\nPut key: \"k\"\n").unwrap();
        let names: Vec<_> = script.calls.iter().map(|call| call.name.as_str()).collect();
        assert_eq!(names, ["s.x", "s:5"]);
        assert_eq!(script.calls[0].request(Revisions::default()).unwrap().as_ref(), b"\x0a\x01a\x18\x03");
        assert_eq!(script.calls[0].method.full_name(), "etcdserverpb.KV.Range");
    }

    #[test]
    fn repeat_counts_and_raw_appends() {
        let script = parse("Put key: \"@repeat(3){k#}\" @raw(28ff)").unwrap();
        assert_eq!(
            script.calls[0].request(Revisions::default()).unwrap().as_ref(),
            b"\x0a\x06k0k1k2\x28\xff"
        );
    }

    #[test]
    fn a_watch_names_its_stream() {
        let script =
            parse("Watch@s1 create_request {key: \"a\" start_revision: @head-2}\nWatch@s1 @leave\n").unwrap();
        assert_eq!(script.calls[0].ask, Ask::Stream("s1".to_owned()));
        assert_eq!(script.calls[1].ask, Ask::Leave("s1".to_owned()));
        let revisions = Revisions { head: 9, compacted: 0 };
        assert_eq!(script.calls[0].request(revisions).unwrap().as_ref(), b"\x0a\x05\x0a\x01a\x18\x07");
    }

    #[test]
    fn a_call_that_waits_has_a_name() {
        let script =
            parse("Lock@a name: \"L\"\nLock@a @answer\nObserve@b @leave\nLock name: \"L\"\n").unwrap();
        let asks: Vec<_> = script.calls.iter().map(|call| call.ask.clone()).collect();
        let [a, b] = ["a".to_owned(), "b".to_owned()];
        assert_eq!(asks, [Ask::Begin(a.clone()), Ask::Await(a), Ask::Quit(b), Ask::Unary]);
        assert_eq!(script.calls[0].method.full_name(), "v3lockpb.Lock.Lock");
        assert!(!script.watches());
    }

    #[test]
    fn mistakes_are_refused() {
        let bad = ["Fly key: \"a\"", "Range nokey: 1", "  Range", "Put key: \"@repeat(x){}\"", "[x Put"];
        let unnamed = ["Watch create_request {}", "Put@s key: \"a\"", "Observe name: \"E\""];
        for text in bad.into_iter().chain(unnamed) {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
