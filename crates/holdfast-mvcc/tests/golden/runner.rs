//! Runs the scripts on one state with a store of all its records.
//!
//! Beside the words of `syntax`: `grant ID TTL`, `revoke ID`, `expire TERM LEASE ...` and `remain TERM LEASE SECONDS|all` (in an
//! entry of the term that `term N` has set, 1 at first, and of the index that `index N` has set, one more each time; a LEASE is
//! ID or ID@INDEX, without one the lease that has the id now), `leases`, `compact N`, `publish ID NAME URL`, `members`, `state`, `records` (the retained ones),
//! `hash [rev=N]`, `cleanup [N]`, `restart` (rebuilds the state from retained records), `attach KEY LEASE` (rewrites
//! history: the key's newest put was made with this lease), `needed COMMAND` (the values to fetch before it).
//! Since arguments may hold any character, scripts write commands as literals: `> put a 1`; those whose answer does not
//! matter carry a tag: `[quiet]> put a 1`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::error::Error;
use std::fmt::Write as _;

use bytes::Bytes;
use holdfast_mvcc::command::*;
use holdfast_mvcc::types::*;
use holdfast_mvcc::{
    HistoryHasher, IndexChunk, PutMeta, RangeSource, RecordMeta, State, Values, range, read_txn, validate,
};

use crate::syntax;

const TXN_OPS_MAX: usize = 128;

#[derive(Default)]
struct Store(BTreeMap<RecordId, Record>);

impl Values for Store {
    type Error = Infallible;
    fn record(&mut self, key: &Bytes, id: RecordId) -> Result<PutRecord, Infallible> {
        let record = &self.0[&id];
        assert_eq!(record.key, key);
        let Change::Put(put) = &record.change else { panic!("only puts are asked for") };
        Ok(put.clone())
    }
}

struct Reader<'a>(&'a State, &'a mut Store);

impl RangeSource for Reader<'_> {
    type Error = Infallible;
    fn chunk(
        &mut self,
        range: &KeyRange,
        after: Option<&Bytes>,
        at: Revision,
        keys_max: usize,
    ) -> Result<IndexChunk, Infallible> {
        Ok(self.0.chunk(range, after, at, keys_max))
    }
    fn record(&mut self, key: &Bytes, id: RecordId) -> Result<PutRecord, Infallible> {
        self.1.record(key, id)
    }
}

pub(crate) struct Script {
    state: State,
    store: Store,
    /// Of the entries to come.
    term: u64,
    /// Of the next entry.
    index: u64,
}

fn parse(text: &str, state: &State) -> Result<Option<Command>, Box<dyn Error>> {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    Ok(Some(match word {
        "put" => Command::Put(syntax::put(rest)?),
        "del" => Command::DeleteRange(syntax::delete(rest)?),
        "txn" => Command::Txn(syntax::txn(rest)?),
        "grant" => {
            let (id, ttl) = rest.split_once(' ').ok_or("grant ID TTL")?;
            Command::LeaseGrant(LeaseGrant { id: LeaseId(id.parse()?), ttl_seconds: ttl.parse()? })
        }
        "revoke" => Command::LeaseRevoke(LeaseId(rest.parse()?)),
        "expire" => {
            let mut numbers = rest.split_whitespace();
            let term = Term(numbers.next().ok_or("expire TERM LEASE ...")?.parse()?);
            let leases = numbers.map(|lease| lease_ref(lease, state)).collect::<Result<_, _>>()?;
            Command::LeaseExpire(LeaseExpire { term, leases })
        }
        "remain" => {
            let words: Vec<&str> = rest.split_whitespace().collect();
            let [term, lease, seconds] = words[..] else {
                return Err("remain TERM LEASE SECONDS|all".into());
            };
            let seconds = if seconds == "all" { None } else { Some(seconds.parse()?) };
            let remaining = vec![LeaseRemaining { lease: lease_ref(lease, state)?, seconds }];
            Command::LeaseCheckpoint(LeaseCheckpoint { term: Term(term.parse()?), remaining })
        }
        "compact" => Command::Compact(Compact { revision: rest.parse()? }),
        "publish" => {
            let words: Vec<&str> = rest.split_whitespace().collect();
            let [id, name, url] = words[..] else { return Err("publish ID NAME URL".into()) };
            Command::PublishMember(MemberAttributes {
                id: MemberId(id.parse()?),
                name: name.to_owned(),
                client_urls: vec![url.to_owned()],
            })
        }
        _ => return Ok(None),
    }))
}

fn lease_ref(text: &str, state: &State) -> Result<LeaseRef, Box<dyn Error>> {
    let (id, index) = text.split_once('@').map_or((text, None), |(id, index)| (id, Some(index)));
    let id = LeaseId(id.parse()?);
    let granted_at = match index {
        Some(index) => LogIndex(index.parse()?),
        None => state.lease(id).map_or(LogIndex(0), |lease| lease.granted_at),
    };
    Ok(LeaseRef { id, granted_at })
}

impl goldenscript::Runner for Script {
    fn run(&mut self, command: &goldenscript::Command) -> Result<String, Box<dyn Error>> {
        let answer = self.answer(&command.name)?;
        Ok(if command.tags.contains("quiet") { String::new() } else { answer })
    }
}

impl Script {
    fn answer(&mut self, text: &str) -> Result<String, Box<dyn Error>> {
        if let Some(command) = parse(text, &self.state)? {
            return self.evaluate(&command);
        }
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        match word {
            "get" => self.get(&syntax::get(rest)?),
            "state" => Ok(format!(
                "revision={} compact_revision={:?} keys={} logical_bytes={}\n",
                self.state.head().revision.get(),
                self.state.head().compact_revision.map(Revision::get),
                self.state.keys(),
                self.state.logical_bytes()
            )),
            "members" => Ok(self.state.head().members.iter().fold(String::new(), |text, member| {
                format!("{text}{} {} {}\n", member.id.0, member.name, member.client_urls.join(","))
            })),
            "records" => Ok(self.retained().fold(String::new(), |text, record| text + &show_record(record))),
            "hash" => self.hash(rest.strip_prefix("rev=").map(str::parse).transpose()?),
            "cleanup" => self.cleanup(rest.parse().unwrap_or(usize::MAX)),
            "restart" => self.restart(),
            "term" => {
                self.term = rest.parse()?;
                Ok(String::new())
            }
            "index" => {
                self.index = rest.parse()?;
                Ok(String::new())
            }
            "leases" => Ok(self.leases()),
            "attach" => self.attach(rest),
            "needed" => {
                let command = parse(rest, &self.state)?.ok_or("needed COMMAND")?;
                let needed = self.state.needed_values(&command, 5).into_iter();
                Ok(needed
                    .fold(String::new(), |text, (key, id)| format!("{text}{} {}\n", show(&key), show_id(id))))
            }
            _ => Err(format!("no command: {text}").into()),
        }
    }
}

impl Script {
    pub(crate) fn new() -> Self {
        Self { state: State::new(), store: Store::default(), term: 1, index: 1 }
    }

    fn evaluate(&mut self, command: &Command) -> Result<String, Box<dyn Error>> {
        validate::validate(command, TXN_OPS_MAX)?;
        let digest = self.state.digest();
        let entry = EntryId { term: Term(self.term), index: LogIndex(self.index) };
        self.index += 1;
        let Ok(outcome) = self.state.evaluate(entry, command, &mut self.store);
        self.store.0.extend(outcome.records.iter().map(|record| (record.id, record.clone())));
        if outcome.response.is_err() {
            assert_eq!(self.state.digest(), digest, "a refusal changes nothing");
        }
        let mut out = String::new();
        match outcome.response? {
            Response::Put(put) => show_put(&mut out, "", &put),
            Response::DeleteRange(delete) => show_delete(&mut out, "", &delete),
            Response::Txn(txn) => {
                if let Command::Txn(request) = command
                    && request.is_read_only()
                {
                    self.check_read_only(request, &txn);
                }
                show_txn(&mut out, "", &txn);
            }
            Response::Compact
            | Response::PublishMember
            | Response::Alarm(_)
            | Response::Lease
            | Response::Auth => {}
        }
        outcome.leases.iter().for_each(|change| out += &show_change(change));
        outcome.records.iter().for_each(|record| out += &show_record(record));
        writeln!(out, "revision {}", outcome.revision.get())?;
        Ok(out)
    }

    /// A transaction that only reads is answered alike with and without a log entry.
    fn check_read_only(&mut self, request: &Txn, logged: &TxnResponse) {
        let Ok(answer) = read_txn(&mut Reader(&self.state, &mut self.store), request, self.state.window());
        assert_eq!(answer.as_ref(), Ok(logged));
    }

    fn get(&mut self, request: &Range) -> Result<String, Box<dyn Error>> {
        validate::validate_range(request)?;
        let at = self.state.resolve(request.at)?;
        let Ok(answer) = range(&mut Reader(&self.state, &mut self.store), request, at);
        let mut out = String::new();
        show_range(&mut out, "", &answer);
        Ok(out)
    }

    fn retained(&self) -> impl Iterator<Item = &Record> {
        self.store.0.values().filter(|record| self.state.is_retained(&record.key, record.id))
    }

    fn hash(&self, revision: Option<u64>) -> Result<String, Box<dyn Error>> {
        let at = revision.map_or(ReadAt::Latest, |revision| ReadAt::Revision(Revision::new(revision)));
        let at = self.state.resolve(at)?;
        let mut hasher = HistoryHasher::new();
        self.retained().filter(|record| record.id.revision <= at).for_each(|record| hasher.record(record));
        Ok(format!("{:08x} at {}\n", hasher.finish(), at.get()))
    }

    fn cleanup(&mut self, keys_max: usize) -> Result<String, Box<dyn Error>> {
        let digest = self.state.digest();
        let compacted = self.state.head().compact_revision;
        let next = compacted.and_then(|revision| self.state.drop_compacted(revision, None, keys_max));
        assert_eq!(self.state.digest(), digest, "nobody sees the clean-up");
        Ok(format!("next={}\n", next.map_or("none".to_owned(), |next| show(&next))))
    }

    fn leases(&self) -> String {
        let mut out = String::new();
        for (id, lease) in self.state.leases() {
            let keys: Vec<String> = self.state.attached_keys(id).map(show).collect();
            out += &format!("{} {}: {}\n", id.0, show_lease_time(lease), keys.join(" "));
        }
        out
    }

    fn restart(&mut self) -> Result<String, Box<dyn Error>> {
        let mut state = State::with_head(self.state.head().clone());
        for record in self.retained() {
            let put = match &record.change {
                Change::Put(put) => Some(PutMeta {
                    create_revision: put.create_revision,
                    version: put.version,
                    lease: put.lease,
                    value_bytes: u32::try_from(put.value.len())?,
                }),
                Change::Delete => None,
            };
            state.restore(&RecordMeta { id: record.id, key: record.key.clone(), put });
        }
        state.restore_leases(self.state.leases());
        let is_equal = state.digest() == self.state.digest();
        self.state = state;
        Ok(format!("digest {}\n", if is_equal { "as before" } else { "changed" }))
    }

    fn attach(&mut self, rest: &str) -> Result<String, Box<dyn Error>> {
        let (key, lease) = rest.split_once(' ').ok_or("attach KEY LEASE")?;
        let newest = self.store.0.values_mut().rfind(|record| record.key == key.as_bytes());
        let Some(Record { change: Change::Put(put), .. }) = newest else { return Err("no such key".into()) };
        put.lease = Some(LeaseId(lease.parse()?));
        self.restart()
    }
}

fn show(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn show_id(id: RecordId) -> String {
    format!("{}.{}", id.revision.get(), id.sub)
}

fn show_record(record: &Record) -> String {
    match &record.change {
        Change::Put(put) => format!(
            "+ {} {}={} create={} version={}{}\n",
            show_id(record.id),
            show(&record.key),
            show(&put.value),
            put.create_revision.get(),
            put.version,
            show_lease(put.lease)
        ),
        Change::Delete => format!("- {} {}\n", show_id(record.id), show(&record.key)),
    }
}

fn show_lease_time(lease: Lease) -> String {
    let left = lease.remaining_seconds.map_or(String::new(), |seconds| format!("{seconds} of "));
    format!("{left}{} s", lease.granted_seconds)
}

fn show_change(change: &LeaseChange) -> String {
    format!("lease {} {}\n", change.id.0, change.lease.map_or("gone".to_owned(), show_lease_time))
}

fn show_lease(lease: Option<LeaseId>) -> String {
    lease.map_or(String::new(), |lease| format!(" lease={}", lease.0))
}

fn show_kv(out: &mut String, lead: &str, kv: &KeyValue) {
    let (create, modified) = (kv.create_revision.get(), kv.mod_revision.get());
    let (key, value, lease) = (show(&kv.key), show(&kv.value), show_lease(kv.lease));
    *out += &format!("{lead}{key}={value} create={create} mod={modified} version={}{lease}\n", kv.version);
}

fn show_put(out: &mut String, indent: &str, put: &PutResponse) {
    if let Some(kv) = &put.prev_kv {
        show_kv(out, &format!("{indent}prev "), kv);
    }
}

fn show_delete(out: &mut String, indent: &str, delete: &DeleteRangeResponse) {
    *out += &format!("{indent}deleted {}\n", delete.deleted);
    delete.prev_kvs.iter().for_each(|kv| show_kv(out, &format!("{indent}prev "), kv));
}

fn show_range(out: &mut String, indent: &str, range: &RangeResponse) {
    range.kvs.iter().for_each(|kv| show_kv(out, indent, kv));
    *out += &format!("{indent}count {}{}\n", range.count, if range.more { ", more" } else { "" });
}

fn show_txn(out: &mut String, indent: &str, txn: &TxnResponse) {
    *out += &format!("{indent}{}\n", if txn.succeeded { "succeeded" } else { "failed" });
    let deeper = format!("{indent}    ");
    for response in &txn.responses {
        let revision = response.revision.get();
        match &response.result {
            OpResult::Put(put) => {
                *out += &format!("{indent}  put at {revision}\n");
                show_put(out, &deeper, put);
            }
            OpResult::DeleteRange(delete) => {
                *out += &format!("{indent}  del at {revision}\n");
                show_delete(out, &deeper, delete);
            }
            OpResult::Range(range) => {
                *out += &format!("{indent}  get at {revision}\n");
                show_range(out, &deeper, range);
            }
            OpResult::Txn(nested) => {
                *out += &format!("{indent}  txn at {revision}\n");
                show_txn(out, &deeper, nested);
            }
        }
    }
}
