//! The words of the scripts.
//!
//! ```text
//! put KEY VALUE [lease=N] [prev] [ignore_value] [ignore_lease]
//! del KEY [END] [prev]                                      END: a key, or * for all from KEY on
//! get KEY [END] [rev=N] [limit=N] [order=asc|desc] [by=key|version|create|mod|value] [keys] [count]
//!               [min_mod=N] [max_mod=N] [min_create=N] [max_create=N]
//! txn COMPARE, COMPARE ...; OP, OP ...; OP, OP ...          the compares, the success and the failure list
//!   COMPARE: version|create|mod|value|lease KEY [END] =|!=|<|> OPERAND
//!   OP: put ..., del ..., get ..., txn(COMPARES; OPS; OPS), unset
//! ```
//! `''` is the empty string; `\0` and `\xff` in a word are those bytes.

use bytes::Bytes;
use holdfast_mvcc::command::*;
use holdfast_mvcc::types::*;

type Parsed<T> = Result<T, String>;

/// Words, and `name=value` words apart.
struct Words<'a> {
    plain: Vec<&'a str>,
    named: Vec<(&'a str, &'a str)>,
}

impl<'a> Words<'a> {
    fn new(text: &'a str) -> Self {
        let is_named = |word: &&str| word.len() > 2 && word.contains('=') && *word != "!=";
        let (named, plain): (Vec<&str>, Vec<&str>) = text.split_whitespace().partition(is_named);
        Self { plain, named: named.iter().filter_map(|word| word.split_once('=')).collect() }
    }

    fn flag(&mut self, name: &str) -> bool {
        let place = self.plain.iter().position(|word| *word == name);
        place.map(|place| self.plain.remove(place)).is_some()
    }

    fn take(&mut self, what: &str) -> Parsed<&'a str> {
        if self.plain.is_empty() { Err(format!("{what} is missing")) } else { Ok(self.plain.remove(0)) }
    }

    fn text(&mut self, name: &str) -> Option<&'a str> {
        let place = self.named.iter().position(|(other, _)| *other == name)?;
        Some(self.named.remove(place).1)
    }

    fn number(&mut self, name: &str) -> Parsed<Option<u64>> {
        self.text(name)
            .map(|text| text.parse().map_err(|_| format!("{name}={text} is no number")))
            .transpose()
    }

    fn range(&mut self) -> Parsed<KeyRange> {
        let start = bytes(self.take("key")?);
        let end = match self.plain.first().copied() {
            None => RangeEnd::Single,
            Some("*") => RangeEnd::Unbounded,
            Some(end) => RangeEnd::Before(bytes(end)),
        };
        self.plain = self.plain.split_off(1.min(self.plain.len()));
        Ok(KeyRange { start, end })
    }

    fn end(&self) -> Parsed<()> {
        if self.plain.is_empty() && self.named.is_empty() {
            return Ok(());
        }
        Err(format!("not understood: {:?} {:?}", self.plain, self.named))
    }
}

fn bytes(word: &str) -> Bytes {
    if word == "''" {
        return Bytes::new();
    }
    let mut out = Vec::new();
    let mut rest = word;
    while let Some(c) = rest.chars().next() {
        if let Some(tail) = rest.strip_prefix("\\0") {
            out.push(0);
            rest = tail;
        } else if let Some(tail) = rest.strip_prefix("\\xff") {
            out.push(0xff);
            rest = tail;
        } else {
            out.extend(rest[..c.len_utf8()].bytes());
            rest = &rest[c.len_utf8()..];
        }
    }
    Bytes::from(out)
}

pub(crate) fn put(text: &str) -> Parsed<Put> {
    let mut words = Words::new(text);
    let put = Put {
        prev_kv: words.flag("prev"),
        ignore_value: words.flag("ignore_value"),
        ignore_lease: words.flag("ignore_lease"),
        lease: words
            .text("lease")
            .map(|id| id.parse().map(LeaseId).map_err(|_| "no lease id"))
            .transpose()?,
        key: bytes(words.take("key")?),
        value: words.take("value").map(bytes).unwrap_or_default(),
    };
    words.end().map(|()| put)
}

pub(crate) fn delete(text: &str) -> Parsed<DeleteRange> {
    let mut words = Words::new(text);
    let delete = DeleteRange { prev_kv: words.flag("prev"), range: words.range()? };
    words.end().map(|()| delete)
}

pub(crate) fn get(text: &str) -> Parsed<Range> {
    let mut words = Words::new(text);
    let mut revision = |name| words.number(name).map(|number| number.map_or(Revision::NONE, Revision::new));
    let [min_mod_revision, max_mod_revision] = [revision("min_mod")?, revision("max_mod")?];
    let [min_create_revision, max_create_revision] = [revision("min_create")?, revision("max_create")?];
    let range = Range {
        min_mod_revision,
        max_mod_revision,
        min_create_revision,
        max_create_revision,
        limit: words.number("limit")?,
        at: words.number("rev")?.map_or(ReadAt::Latest, |revision| ReadAt::Revision(Revision::new(revision))),
        order: match words.text("order") {
            None => SortOrder::None,
            Some("asc") => SortOrder::Ascend,
            Some("desc") => SortOrder::Descend,
            Some(other) => return Err(format!("no order: {other}")),
        },
        target: match words.text("by") {
            None | Some("key") => SortTarget::Key,
            Some("version") => SortTarget::Version,
            Some("create") => SortTarget::Create,
            Some("mod") => SortTarget::Mod,
            Some("value") => SortTarget::Value,
            Some(other) => return Err(format!("no sort target: {other}")),
        },
        keys_only: words.flag("keys"),
        count_only: words.flag("count"),
        range: words.range()?,
    };
    words.end().map(|()| range)
}

/// Splits at a separator outside of parentheses; an empty text has no parts.
fn split(text: &str, separator: char) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            c if c == separator && depth == 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts
}

fn list(text: &str) -> Vec<&str> {
    if text.is_empty() { Vec::new() } else { split(text, ',') }
}

pub(crate) fn txn(text: &str) -> Parsed<Txn> {
    let [compares, success, failure] = split(text, ';')[..] else {
        return Err(format!("a transaction has three lists: {text}"));
    };
    Ok(Txn {
        compares: list(compares).into_iter().map(compare).collect::<Parsed<_>>()?,
        success: list(success).into_iter().map(op).collect::<Parsed<_>>()?,
        failure: list(failure).into_iter().map(op).collect::<Parsed<_>>()?,
    })
}

fn op(text: &str) -> Parsed<Op> {
    if let Some(nested) = text.strip_prefix("txn(").and_then(|rest| rest.strip_suffix(')')) {
        return txn(nested).map(Op::Txn);
    }
    match text.split_once(' ') {
        Some(("put", rest)) => put(rest).map(Op::Put),
        Some(("del", rest)) => delete(rest).map(Op::DeleteRange),
        Some(("get", rest)) => get(rest).map(Op::Range),
        _ if text == "unset" => Ok(Op::Unset),
        _ => Err(format!("no operation: {text}")),
    }
}

fn compare(text: &str) -> Parsed<Compare> {
    let mut words: Vec<&str> = text.split_whitespace().collect();
    let given = words.pop().ok_or("the operand is missing")?;
    let number = || given.parse::<i64>().map_err(|_| format!("no number: {given}"));
    let relation = match words.pop() {
        Some("=") => Relation::Equal,
        Some("!=") => Relation::NotEqual,
        Some("<") => Relation::Less,
        Some(">") => Relation::Greater,
        other => return Err(format!("no relation: {other:?}")),
    };
    let mut words = Words { plain: words, named: Vec::new() };
    let operand = match words.take("target")? {
        "version" => Operand::Version(number()?),
        "create" => Operand::Create(number()?),
        "mod" => Operand::Mod(number()?),
        "lease" => Operand::Lease(number()?),
        "value" => Operand::Value(bytes(given)),
        other => return Err(format!("no target: {other}")),
    };
    let compare = Compare { range: words.range()?, relation, operand };
    words.end().map(|()| compare)
}
