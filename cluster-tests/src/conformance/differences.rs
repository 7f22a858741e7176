//! The table of explained differences between etcd's answers and ours.
//!
//! ```text
//! difference fields-since-3.6
//!   message StatusResponse
//!   fields  storageVersion dbSizeQuota downgradeInfo
//!   because the fields came with etcd 3.6; we fill them, 3.5.1 does not know them
//!
//! difference bad-sort-order
//!   call    range.bad-order
//!   etcd    Ok: header{..} count:3
//!   ours    InvalidArgument: etcdserver: invalid sort option
//!   because ...
//!
//! difference negative-start
//!   rule    watch-from-negative-revision
//!   because ...
//! ```
//! An entry explains fields of a message, which are then left out on both sides, or one named call with both answers
//! spelled out, or whatever one of the rules in `rules.rs` recognises, for what random calls meet again and again.
//! Every entry says why, and every entry must be needed.

use std::collections::BTreeSet;

use anyhow::{Context, bail, ensure};
use prost_reflect::Value;

use super::call::Answer;
use super::normalise::{mask, remove_fields, render};
use super::rules::{Rule, Situation};
use super::script::Call;
use super::watcher::Watcher;

/// The table.
#[derive(Debug, Default)]
pub struct Differences {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    name: String,
    what: What,
}

#[derive(Debug)]
enum What {
    Fields { message: String, fields: Vec<String> },
    Call { call: String, etcd: String, ours: String },
    Rule(Rule),
}

/// How two answers compare.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Alike after normalisation, perhaps with the help of entries, which are named.
    Same(BTreeSet<String>),
    /// The two answers as text.
    Different {
        /// What etcd said.
        etcd: String,
        /// What we said.
        ours: String,
    },
}

impl Differences {
    /// Parses the table. Errors name the entry.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let mut entries = Vec::new();
        let mut lines =
            text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')).peekable();
        while let Some(line) = lines.next() {
            let name = line.strip_prefix("difference ").with_context(|| format!("not an entry: {line}"))?;
            let mut attributes: Vec<(String, String)> = Vec::new();
            while let Some(line) = lines.next_if(|line| line.starts_with(' ')) {
                let (key, value) = line.trim().split_once(' ').with_context(|| format!("{name}: {line}"))?;
                attributes.push((key.to_owned(), value.trim().to_owned()));
            }
            entries.push(Entry::new(name, &attributes).with_context(|| format!("difference {name}"))?);
        }
        Ok(Self { entries })
    }

    /// Compares the answers to one call.
    pub fn compare(&self, situation: &Situation<'_>, etcd: &Answer, ours: &Answer) -> Verdict {
        let name = &situation.call.name;
        let (mut etcd, mut ours) = (etcd.clone(), ours.clone());
        mask_answer(&mut etcd);
        mask_answer(&mut ours);
        order_ties(situation.call, &mut etcd);
        order_ties(situation.call, &mut ours);
        if text(&etcd) == text(&ours) {
            return Verdict::Same(BTreeSet::new());
        }
        let spelled_out = self.entries.iter().find(|entry| match &entry.what {
            What::Call { call, etcd: theirs, ours: mine } => {
                *call == *name && *theirs == text(&etcd) && *mine == text(&ours)
            }
            What::Rule(rule) => rule.explains_answers(situation, &etcd, &ours),
            What::Fields { .. } => false,
        });
        if let Some(entry) = spelled_out {
            return Verdict::Same(BTreeSet::from([entry.name.clone()]));
        }
        let used = self.drop_fields(&mut etcd, &mut ours);
        let (etcd, ours) = (text(&etcd), text(&ours));
        if etcd == ours { Verdict::Same(used) } else { Verdict::Different { etcd, ours } }
    }

    /// Compares what the watchers of one call received; `None` for a side that has no such watcher.
    pub fn compare_events(
        &self,
        situation: &Situation<'_>,
        etcd: Option<&Watcher>,
        ours: Option<&Watcher>,
    ) -> Verdict {
        let texts = |watcher: Option<&Watcher>| {
            watcher.map(|watcher| watcher.received.iter().map(|event| event.text.clone()).collect::<Vec<_>>())
        };
        let (theirs, mine) = (texts(etcd), texts(ours));
        if theirs == mine {
            return Verdict::Same(BTreeSet::new());
        }
        let explains = |entry: &&Entry| matches!(&entry.what, What::Rule(rule) if rule.explains_events(situation, etcd, ours));
        if let Some(entry) = self.entries.iter().find(explains) {
            return Verdict::Same(BTreeSet::from([entry.name.clone()]));
        }
        let (theirs, mine) = (theirs.unwrap_or_default(), mine.unwrap_or_default());
        let first = (0..).find(|at| theirs.get(*at) != mine.get(*at)).unwrap_or_default();
        let shown = |events: &[String]| {
            let event = events.get(first).map_or("nothing", String::as_str);
            format!("event {first} of {}: {event}", events.len())
        };
        Verdict::Different { etcd: shown(&theirs), ours: shown(&mine) }
    }

    /// Names of the entries that are not among `used`.
    pub fn unused(&self, used: &BTreeSet<String>) -> Vec<&str> {
        self.entries.iter().map(|entry| entry.name.as_str()).filter(|name| !used.contains(*name)).collect()
    }

    fn drop_fields(&self, etcd: &mut Answer, ours: &mut Answer) -> BTreeSet<String> {
        let mut used = BTreeSet::new();
        for entry in &self.entries {
            let What::Fields { message, fields } = &entry.what else { continue };
            for answer in [&mut *etcd, &mut *ours] {
                let responses = match answer {
                    Answer::Ok(response) => std::slice::from_mut(response),
                    Answer::Err(..) => &mut [],
                    Answer::Stream(responses, _) => &mut responses[..],
                };
                for response in responses {
                    if remove_fields(response, message, fields) {
                        used.insert(entry.name.clone());
                    }
                }
            }
        }
        used
    }
}

impl Entry {
    fn new(name: &str, attributes: &[(String, String)]) -> anyhow::Result<Self> {
        let get = |key: &str| attributes.iter().find(|(k, _)| k == key).map(|(_, value)| value.clone());
        ensure!(get("because").is_some_and(|why| why.len() > 20), "says no reason (a line `because ..`)");
        let what = match (get("message"), get("call"), get("rule")) {
            (Some(message), None, None) => {
                let fields = get("fields").context("a `message` needs `fields`")?;
                What::Fields { message, fields: fields.split_whitespace().map(str::to_owned).collect() }
            }
            (None, None, Some(rule)) => What::Rule(Rule::named(&rule)?),
            (None, Some(call), None) => What::Call {
                call,
                etcd: get("etcd").context("a `call` needs `etcd`")?,
                ours: get("ours").context("a `call` needs `ours`")?,
            },
            _ => bail!("explains a `message` with `fields`, or a `call`, or what a `rule` knows"),
        };
        Ok(Self { name: name.trim().to_owned(), what })
    }
}

fn mask_answer(answer: &mut Answer) {
    match answer {
        Answer::Ok(message) => mask(message),
        Answer::Err(..) => {}
        Answer::Stream(messages, _) => messages.iter_mut().for_each(mask),
    }
}

/// The order of equal sort values is nobody's promise: sorted reads are compared with such pairs in the order of keys.
fn order_ties(call: &Call, answer: &mut Answer) {
    let Answer::Ok(message) = answer else { return };
    let target =
        ["VERSION", "CREATE", "MOD"].into_iter().find(|t| call.text.contains(&format!("sort_target: {t}")));
    let field = match target {
        Some("VERSION") => "version",
        Some("CREATE") => "create_revision",
        Some("MOD") => "mod_revision",
        _ => return,
    };
    if call.method.name() != "Range" {
        return;
    }
    let Some(Value::List(kvs)) = message.get_field_by_name_mut("kvs") else { return };
    let number = |kv: &Value| kv.as_message()?.get_field_by_name(field)?.as_i64();
    let key = |kv: &Value| Some(kv.as_message()?.get_field_by_name("key")?.as_bytes()?.clone());
    kvs.chunk_by_mut(|a, b| number(a) == number(b)).for_each(|equal| equal.sort_by_key(key));
}

/// An answer as one line: `Ok: ..` or `InvalidArgument: ..`.
pub fn text(answer: &Answer) -> String {
    match answer {
        Answer::Ok(message) => format!("Ok: {}", render(message)),
        Answer::Err(code, message) => format!("{code:?}: {message}"),
        Answer::Stream(messages, end) => {
            let mut parts: Vec<String> =
                messages.iter().map(|message| format!("<{}>", render(message))).collect();
            parts.extend(end.iter().map(|(code, message)| format!("ended {code:?}: {message}")));
            if parts.is_empty() {
                "Stream: silence".to_owned()
            } else {
                format!("Stream: {}", parts.join(" "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use prost_reflect::DynamicMessage;
    use tonic::Code;

    use super::super::call::descriptors;
    use super::super::script::Script;
    use super::*;

    const TABLE: &str = "difference newer\n  message StatusResponse\n  fields dbSizeQuota\n  because it came with 3.6, etcd 3.5 does not know it\n\
        difference order\n  call s.x\n  etcd Ok: count:3\n  ours InvalidArgument: no\n  because newer etcd refuses what 3.5.1 ignored\n";

    fn call(name: &str) -> Call {
        let text = format!("[{}] Range key: \"a\"", name.strip_prefix("s.").unwrap_or("other"));
        Script::parse("s", &text, &descriptors()).unwrap().calls.remove(0)
    }

    fn situation(call: &Call) -> Situation<'_> {
        Situation { call, is_before_start: false }
    }

    fn answer(name: &str, text: &str) -> Answer {
        let descriptor = descriptors().get_message_by_name(&format!("etcdserverpb.{name}")).unwrap();
        Answer::Ok(DynamicMessage::parse_text_format(descriptor, text).unwrap())
    }

    #[test]
    fn entries_explain_what_they_name_and_nothing_else() {
        let table = Differences::parse(TABLE).unwrap();
        let newer = table.compare(
            &situation(&call("s:1")),
            &answer("StatusResponse", ""),
            &answer("StatusResponse", "dbSizeQuota:4"),
        );
        assert_eq!(newer, Verdict::Same(BTreeSet::from(["newer".to_owned()])));
        let refused = Answer::Err(Code::InvalidArgument, "no".to_owned());
        let range = answer("RangeResponse", "count:3");
        assert_eq!(
            table.compare(&situation(&call("s.x")), &range, &refused),
            Verdict::Same(BTreeSet::from(["order".to_owned()]))
        );
        assert!(matches!(
            table.compare(&situation(&call("s.y")), &range, &refused),
            Verdict::Different { .. }
        ));
        assert!(matches!(
            table.compare(&situation(&call("s.x")), &refused, &range),
            Verdict::Different { .. }
        ));
        assert_eq!(table.unused(&BTreeSet::from(["order".to_owned()])), ["newer"]);
    }

    #[test]
    fn an_entry_without_a_reason_is_refused() {
        assert!(Differences::parse("difference x\n  message M\n  fields f\n").is_err());
        assert!(
            Differences::parse("difference x\n  call c\n  because a long and convincing reason\n").is_err()
        );
    }
}
