//! Runs the scripts on one hub with a history beside it.
//!
//! ```text
//! hub [watchers=N] [revisions=N]          starts anew, at revision 1, with these bounds for a group
//! write KEY... [KEY-...]                  one revision in history: puts, and deletes of the keys with a minus
//! publish [through=N]                     hands the hub what history has behind the head
//! skip N                                  the revisions up to N will not be published
//! watch KEY [END] stream=N [from=N] [no=put|delete] [prev=yes]     END: a key, or "*" for all from KEY on;
//!                                         without from, from behind the head
//! unwatch ID... | unstream N
//! full N | room N                         stream N takes nothing more; it has room again, which the hub is told
//! group                                   takes out a group; `replay [through=N]`, `back`, `compacted at=N` end the
//!                                         one that is out longest, or a new one
//! progress stream=N | progress watcher=N
//! figures
//! ```
//! A delivery prints as `w1 s1: 3.0+a 3.1-b`: watcher 1, stream 1, at revision 3 a put of a and then a delete of b.

use std::collections::{BTreeSet, VecDeque};
use std::error::Error;

use bytes::Bytes;
use goldenscript::{Argument, ArgumentConsumer};
use holdfast_mvcc::types::{Change, KeyRange, PutRecord, RangeEnd, Record, RecordId, Revision};
use holdfast_watch::{
    Delivery, Filter, Group, GroupMax, Hub, PrevKv, StreamId, Taken, WatcherId, WatcherSpec,
};

type Answer = Result<String, Box<dyn Error>>;

pub(crate) struct Script {
    hub: Hub,
    history: Vec<Record>,
    newest: Revision,
    full: BTreeSet<StreamId>,
    watchers: Vec<WatcherId>,
    groups: VecDeque<Group>,
}

impl goldenscript::Runner for Script {
    fn run(&mut self, command: &goldenscript::Command) -> Answer {
        let mut args = command.consume_args();
        let answer = match command.name.as_str() {
            "hub" => self.start(&mut args),
            "write" => self.write(&args.rest_pos()),
            "publish" => self.publish(&mut args),
            "skip" => self.skip(&mut args),
            "watch" => self.watch(&mut args),
            "unwatch" => self.unwatch(&args.rest_pos()),
            "unstream" => {
                stream(&mut args).map(|stream| self.hub.remove_stream(stream)).map(|()| String::new())
            }
            "full" => stream(&mut args).map(|stream| self.full.insert(stream)).map(|_| String::new()),
            "room" => self.room(&mut args),
            "group" => Ok(self.group()),
            "replay" => self.replay(&mut args),
            "back" => self.back(),
            "compacted" => self.compacted(&mut args),
            "progress" => self.progress(&mut args),
            "figures" => Ok(self.figures()),
            name => Err(format!("no command: {name}").into()),
        }?;
        args.reject_rest()?;
        Ok(answer)
    }
}

fn number(args: &mut ArgumentConsumer<'_>) -> Result<u64, Box<dyn Error>> {
    args.next_pos().ok_or("a number is missing")?.parse()
}

fn stream(args: &mut ArgumentConsumer<'_>) -> Result<StreamId, Box<dyn Error>> {
    number(args).map(StreamId::new)
}

fn show(records: &[Record], delivery: Delivery<'_>, taken: Taken) -> String {
    let mut text = format!("w{} s{}:", delivery.watcher.get(), delivery.stream.get());
    for record in delivery.records.iter().map(|at| &records[*at]) {
        let sign = if record.change == Change::Delete { '-' } else { '+' };
        let RecordId { revision, sub } = record.id;
        text += &format!(" {}.{sub}{sign}{}", revision.get(), record.key.escape_ascii());
    }
    text += if delivery.prev_kv == PrevKv::Wanted { " prev" } else { "" };
    text + if taken == Taken::Full { " (full)\n" } else { "\n" }
}

impl Script {
    pub(crate) fn new() -> Self {
        let fresh = Revision::FRESH;
        Self {
            hub: Hub::new(fresh),
            history: Vec::new(),
            newest: fresh,
            full: BTreeSet::new(),
            watchers: Vec::new(),
            groups: VecDeque::new(),
        }
    }

    fn start(&mut self, args: &mut ArgumentConsumer<'_>) -> Answer {
        let max = GroupMax {
            watchers: args.lookup_parse("watchers")?.unwrap_or(GroupMax::DEFAULT.watchers),
            revisions: args.lookup_parse("revisions")?.unwrap_or(GroupMax::DEFAULT.revisions),
        };
        *self = Self { hub: Hub::with_group_max(Revision::FRESH, max), ..Self::new() };
        Ok(String::new())
    }

    fn write(&mut self, keys: &[&Argument]) -> Answer {
        self.newest = self.newest.next();
        for (sub, key) in (0..).zip(keys) {
            let put =
                PutRecord { create_revision: self.newest, version: 1, lease: None, value: Bytes::new() };
            let (change, key) = match key.value.strip_suffix('-') {
                Some(key) => (Change::Delete, key),
                None => (Change::Put(put), key.value.as_str()),
            };
            let id = RecordId::new(self.newest, sub);
            self.history.push(Record { id, key: Bytes::copy_from_slice(key.as_bytes()), change });
        }
        Ok(String::new())
    }

    fn records(&self, from: Revision, through: Revision) -> Vec<Record> {
        let is_within = |record: &&Record| record.id.revision >= from && record.id.revision <= through;
        self.history.iter().filter(is_within).cloned().collect()
    }

    /// The revision given by `through`, else the newest.
    fn through(&self, args: &mut ArgumentConsumer<'_>) -> Result<Revision, Box<dyn Error>> {
        Ok(args.lookup_parse("through")?.map_or(self.newest, Revision::new))
    }

    fn publish(&mut self, args: &mut ArgumentConsumer<'_>) -> Answer {
        let through = self.through(args)?;
        let records = self.records(self.hub.head().next(), through);
        let mut out = String::new();
        let full = &self.full;
        self.hub.publish(&records, through, &mut |delivery| {
            let taken = if full.contains(&delivery.stream) { Taken::Full } else { Taken::Taken };
            out += &show(&records, delivery, taken);
            taken
        });
        Ok(out)
    }

    fn skip(&mut self, args: &mut ArgumentConsumer<'_>) -> Answer {
        self.hub.skip_to(Revision::new(number(args)?));
        Ok(String::new())
    }

    fn watch(&mut self, args: &mut ArgumentConsumer<'_>) -> Answer {
        let bytes = |argument: &Argument| Bytes::copy_from_slice(argument.value.as_bytes());
        let start = bytes(args.next_pos().ok_or("the key is missing")?);
        let end = match args.next_pos() {
            None => RangeEnd::Single,
            Some(end) if end.value == "*" => RangeEnd::Unbounded,
            Some(end) => RangeEnd::Before(bytes(end)),
        };
        let unwanted = args.lookup("no").map(|sort| sort.value.as_str());
        let id = self.hub.add(WatcherSpec {
            stream: StreamId::new(args.lookup_parse("stream")?.ok_or("the stream is missing")?),
            range: KeyRange { start, end },
            from: args.lookup_parse("from")?.map_or(self.hub.head().next(), Revision::new),
            filter: Filter { puts: unwanted != Some("put"), deletes: unwanted != Some("delete") },
            prev_kv: args.lookup("prev").map_or(PrevKv::Omitted, |_| PrevKv::Wanted),
        });
        self.watchers.push(id);
        Ok(format!("w{}\n", id.get()))
    }

    fn watcher(&self, id: u64) -> Result<WatcherId, Box<dyn Error>> {
        Ok(*self
            .watchers
            .iter()
            .find(|watcher| watcher.get() == id)
            .ok_or("no such watcher was ever added")?)
    }

    fn unwatch(&mut self, ids: &[&Argument]) -> Answer {
        for id in ids {
            self.hub.remove(self.watcher(id.parse()?)?);
        }
        Ok(String::new())
    }

    fn room(&mut self, args: &mut ArgumentConsumer<'_>) -> Answer {
        let stream = stream(args)?;
        self.full.remove(&stream);
        self.hub.unblock(stream);
        Ok(String::new())
    }

    fn group(&mut self) -> String {
        let Some(group) = self.hub.next_group() else { return "none\n".to_owned() };
        let text = format!("group from={} watchers={}\n", group.from.get(), group.watchers());
        self.groups.push_back(group);
        text
    }

    /// The group that is out longest, or a new one.
    fn take(&mut self, out: &mut String) -> Option<Group> {
        if self.groups.is_empty() {
            *out += &self.group();
        }
        self.groups.pop_front()
    }

    fn replay(&mut self, args: &mut ArgumentConsumer<'_>) -> Answer {
        let mut out = String::new();
        let through = self.through(args)?;
        let Some(group) = self.take(&mut out) else { return Ok(out) };
        let records = self.records(group.from, through);
        let full = &self.full;
        self.hub.replay(group, &records, through, &mut |delivery| {
            let taken = if full.contains(&delivery.stream) { Taken::Full } else { Taken::Taken };
            out += &show(&records, delivery, taken);
            taken
        });
        Ok(out)
    }

    fn back(&mut self) -> Answer {
        let mut out = String::new();
        if let Some(group) = self.take(&mut out) {
            self.hub.put_back(group);
        }
        Ok(out)
    }

    fn compacted(&mut self, args: &mut ArgumentConsumer<'_>) -> Answer {
        let at = Revision::new(args.lookup_parse("at")?.ok_or("at=N")?);
        let mut out = String::new();
        if let Some(group) = self.take(&mut out) {
            self.hub.compacted(group, at, &mut |watcher, stream| {
                out += &format!("w{} s{}: canceled\n", watcher.get(), stream.get());
            });
        }
        Ok(out)
    }

    fn progress(&self, args: &mut ArgumentConsumer<'_>) -> Answer {
        let progress = match (args.lookup_parse("stream")?, args.lookup_parse("watcher")?) {
            (Some(stream), None) => self.hub.stream_progress(StreamId::new(stream)),
            (None, Some(watcher)) => self.hub.watcher_progress(self.watcher(watcher)?),
            _ => return Err("stream=N or watcher=N".into()),
        };
        Ok(progress.map_or("none\n".to_owned(), |revision| format!("{}\n", revision.get())))
    }

    fn figures(&self) -> String {
        let figures = self.hub.figures();
        format!(
            "head={} watchers={} synced={} lagging={} streams={} blocked={}\n",
            self.hub.head().get(),
            figures.watchers,
            figures.synced,
            figures.lagging,
            figures.streams,
            figures.blocked
        )
    }
}
