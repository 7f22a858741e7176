//! `txn`: comparisons, requests for when they hold, and requests for when they do not, from standard input. An empty line
//! ends each of the three.

use std::io::BufRead;

use bytes::Bytes;
use clap::{Args, CommandFactory, FromArgMatches, Parser};
use holdfast_proto::etcdserverpb as pb;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::request_op::Request;

use crate::client::{Client, service};
use crate::error::{CtlError, Done};
use crate::global::as_pflag;
use crate::kv::{Del, Get, Put, lease_id};
use crate::output::quote::unquoted;
use crate::output::{self, Out};
use crate::terminal;
use crate::words::words;

/// Flags of `txn`.
#[derive(Debug, Args)]
pub(crate) struct Txn {
    /// Say what is read next
    #[arg(long, short)]
    pub(crate) interactive: bool,
    #[arg(hide = true)]
    pub(crate) words: Vec<String>,
}

/// A request inside a transaction.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true, disable_help_subcommand = true)]
enum Op {
    /// Reads.
    Get(Get),
    /// Writes.
    Put(Put),
    /// Deletes.
    Del(Del),
}

/// `txn`.
pub(crate) async fn txn(client: &Client, out: Out, flags: &Txn) -> Done {
    if !flags.words.is_empty() {
        return Err(CtlError::Arguments("txn reads standard input, and takes no words".to_owned()));
    }
    out.has::<pb::TxnResponse>()?;
    let is_interactive = flags.interactive;
    let request = terminal::read(move || read(&mut std::io::stdin().lock(), is_interactive)).await?;
    out.show(&client.write(async |conn| service::kv(conn).txn(request.clone()).await).await?)
}

fn read(input: &mut dyn BufRead, is_interactive: bool) -> Result<pb::TxnRequest, CtlError> {
    let prompt = |text: &str| if is_interactive { output::line(text) } else { Ok(()) };
    prompt("compares:")?;
    let compare = part(input, &comparison)?;
    prompt("success requests (get, put, del):")?;
    let success = part(input, &op)?;
    prompt("failure requests (get, put, del):")?;
    let failure = part(input, &op)?;
    Ok(pb::TxnRequest { compare, success, failure })
}

/// Lines up to an empty one.
fn part<T>(
    input: &mut dyn BufRead,
    parse: &dyn Fn(&[u8]) -> Result<T, CtlError>,
) -> Result<Vec<T>, CtlError> {
    let mut all = Vec::new();
    loop {
        let mut line = Vec::new();
        input.read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            return Err(CtlError::Input(
                "the transaction ends early: an empty line ends each part".to_owned(),
            ));
        }
        match line.trim_ascii() {
            [] => return Ok(all),
            line => all.push(parse(line)?),
        }
    }
}

fn op(line: &[u8]) -> Result<pb::RequestOp, CtlError> {
    let wrong = |why: &str| {
        CtlError::Input(format!("{} is no get, put or del: {why}", String::from_utf8_lossy(line)))
    };
    let words = words(line)?;
    if words.len() < 2 {
        return Err(wrong("a key is missing"));
    }
    let matches = as_pflag(Op::command()).try_get_matches_from(words);
    let op = matches.and_then(|matches| Op::from_arg_matches(&matches));
    let request = match op.map_err(|error| wrong(&error.kind().to_string()))? {
        Op::Get(get) => Request::RequestRange(get.request()?),
        // Standard input has the rest of the transaction, and no value.
        Op::Put(put) => Request::RequestPut(put.request(|| Ok(Vec::new()))?),
        Op::Del(del) => Request::RequestDeleteRange(del.request()?),
    };
    Ok(pb::RequestOp { request: Some(request) })
}

/// Reads `value("key") = "text"`.
fn comparison(line: &[u8]) -> Result<pb::Compare, CtlError> {
    let wrong = |why: &str| {
        let line = String::from_utf8_lossy(line);
        CtlError::Input(format!("{line} is no comparison, such as value(\"key\") = \"text\": {why}"))
    };
    let open = line.iter().position(|byte| *byte == b'(').ok_or_else(|| wrong("there is no ("))?;
    let (target, rest) = (&line[..open], line[open + 1..].trim_ascii_start());
    let (key, rest) = unquoted(rest).map_err(|why| wrong(&why))?;
    let rest = rest.strip_prefix(b")").ok_or_else(|| wrong("a ) is missing"))?.trim_ascii_start();
    let end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
    let (operator, rest) = (&rest[..end], rest[end..].trim_ascii_start());
    let (value, _) = unquoted(rest).map_err(|why| wrong(&why))?;
    let result = match operator {
        b"=" => CompareResult::Equal,
        b"!=" => CompareResult::NotEqual,
        b">" => CompareResult::Greater,
        b"<" => CompareResult::Less,
        _ => return Err(wrong("it compares by =, !=, > or <")),
    };
    let text = || str::from_utf8(&value).map_err(|_| wrong("the value is no number"));
    let number = || text()?.parse::<i64>().map_err(|_| wrong("the value is no number"));
    let (target, union) = match target {
        b"ver" | b"version" => (CompareTarget::Version, TargetUnion::Version(number()?)),
        b"c" | b"create" => (CompareTarget::Create, TargetUnion::CreateRevision(number()?)),
        b"m" | b"mod" => (CompareTarget::Mod, TargetUnion::ModRevision(number()?)),
        b"lease" => (CompareTarget::Lease, TargetUnion::Lease(lease_id(text()?)?)),
        b"val" | b"value" => (CompareTarget::Value, TargetUnion::Value(Bytes::from(value.clone()))),
        _ => return Err(wrong("it compares value, version, create, mod or lease")),
    };
    let key = Bytes::from(key);
    Ok(pb::Compare {
        result: result.into(),
        target: target.into(),
        key,
        target_union: Some(union),
        ..Default::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(line: &str) -> Result<(Vec<u8>, CompareTarget, CompareResult, TargetUnion), String> {
        let compare = comparison(line.as_bytes()).map_err(|error| error.to_string())?;
        let union = compare.target_union.clone().unwrap();
        Ok((compare.key.to_vec(), compare.target(), compare.result(), union))
    }

    #[test]
    fn comparisons_are_read() {
        let value = |text: &'static str| TargetUnion::Value(Bytes::from_static(text.as_bytes()));
        let (target, equal) = (CompareTarget::Value, CompareResult::Equal);
        assert_eq!(compared(r#"value("a") = "x y""#), Ok((b"a".to_vec(), target, equal, value("x y"))));
        assert_eq!(compared(r#"val("a(") = """#), Ok((b"a(".to_vec(), target, equal, value(""))));
        let (target, less) = (CompareTarget::Mod, CompareResult::Less);
        assert_eq!(
            compared(r#"m("\x00")  <  "12""#),
            Ok((vec![0], target, less, TargetUnion::ModRevision(12)))
        );
        let (target, other) = (CompareTarget::Lease, CompareResult::NotEqual);
        assert_eq!(
            compared(r#"lease("a") != "1f""#),
            Ok((b"a".to_vec(), target, other, TargetUnion::Lease(31)))
        );
        for wrong in [
            "nonsense",
            r#"value(a) = "1""#,
            r#"value("a" = "1""#,
            r#"value("a") ~ "1""#,
            r#"value("a") = 1"#,
            r#"mod("a") = "x""#,
            r#"size("a") = "1""#,
        ] {
            assert!(compared(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_transaction_has_three_parts() {
        let mut text = &b"version(\"a\") > \"0\"\n\nput a \"b c\" --prev-kv\nget a --limit=1 --prefix=true\n\ndel a b\n\n"[..];
        let txn = read(&mut text, false).unwrap();
        assert_eq!((txn.compare.len(), txn.success.len(), txn.failure.len()), (1, 2, 1));
        let Some(Request::RequestPut(put)) = &txn.success[0].request else { panic!("{txn:?}") };
        assert!(put.prev_kv && put.value[..] == b"b c"[..]);
        let Some(Request::RequestRange(get)) = &txn.success[1].request else { panic!("{txn:?}") };
        assert_eq!((get.limit, &get.range_end[..]), (1, &b"b"[..]));
        let code = |text: &str| read(&mut text.as_bytes(), false).unwrap_err().exit_code();
        assert_eq!((code("\n\nput a b\n"), code("x\n"), code("\nfly away\n\n\n")), (3, 3, 3));
        assert_eq!(code("\nget a b --prefix\n\n\n"), 128);
    }
}
