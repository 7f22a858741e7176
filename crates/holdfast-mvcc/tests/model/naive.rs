//! The same store, told as plainly as possible: one whole map per revision, one list of records. It shares the
//! vocabulary with the crate, and no code.

use std::collections::BTreeMap;

use bytes::Bytes;
use holdfast_mvcc::command::*;
use holdfast_mvcc::types::*;

/// The term of all entries.
pub(crate) const TERM: Term = Term(5);

/// All keys at one revision.
pub(crate) type Map = BTreeMap<Bytes, KeyValue>;

pub(crate) struct Model {
    pub(crate) revision: u64,
    pub(crate) compact_revision: Option<u64>,
    /// The map at every readable revision.
    pub(crate) maps: BTreeMap<u64, Map>,
    /// All retained records, ascending.
    pub(crate) records: Vec<Record>,
    pub(crate) leases: BTreeMap<LeaseId, Lease>,
}

/// What a command has written so far, on top of the newest map.
struct Work {
    map: Map,
    records: Vec<Record>,
    leases: Vec<LeaseChange>,
}

pub(crate) fn contains(range: &KeyRange, key: &Bytes) -> bool {
    match &range.end {
        RangeEnd::Single => *key == range.start,
        RangeEnd::Before(end) => range.start <= *key && key < end,
        RangeEnd::Unbounded => range.start <= *key,
    }
}

fn within(map: &Map, range: &KeyRange) -> Vec<KeyValue> {
    map.values().filter(|kv| contains(range, &kv.key)).cloned().collect()
}

impl Model {
    pub(crate) fn new() -> Self {
        Self {
            revision: 1,
            compact_revision: None,
            maps: BTreeMap::from([(0, Map::new()), (1, Map::new())]),
            records: Vec::new(),
            leases: BTreeMap::new(),
        }
    }

    pub(crate) fn apply(&mut self, command: &Command, entry: EntryId) -> Outcome {
        let mut work =
            Work { map: self.maps[&self.revision].clone(), records: Vec::new(), leases: Vec::new() };
        let response = match command {
            Command::Put(put) => self.refuse_put(put, true).map(|()| Response::Put(self.put(&mut work, put))),
            Command::DeleteRange(delete) => Ok(Response::DeleteRange(self.delete(&mut work, delete))),
            Command::Txn(txn) => {
                let refusals = self.refusals(txn);
                match refusals.into_iter().min_by_key(|(rank, _)| *rank) {
                    Some((_, refusal)) => Err(refusal),
                    None => Ok(Response::Txn(self.txn(&mut work, txn))),
                }
            }
            Command::Compact(compact) => self.compact(compact.revision),
            Command::PublishMember(_) => Ok(Response::PublishMember),
            Command::RaiseAlarm(_) | Command::ClearAlarm(_) => panic!("the model knows no alarms"),
            Command::Auth(_) => panic!("the model knows no users"),
            Command::LeaseGrant(grant) => self.grant(&mut work, *grant, entry),
            Command::LeaseRevoke(lease) if !self.leases.contains_key(lease) => {
                Err(Refusal::LeaseNotFound { lease: *lease })
            }
            Command::LeaseRevoke(lease) => {
                self.end(&mut work, *lease);
                Ok(Response::Lease)
            }
            Command::LeaseExpire(LeaseExpire { term, .. })
            | Command::LeaseCheckpoint(LeaseCheckpoint { term, .. })
                if *term != TERM =>
            {
                Err(Refusal::OtherTerm { judged: *term, applied: TERM })
            }
            Command::LeaseExpire(expire) => {
                for lease in &expire.leases {
                    if self.is_there(*lease) {
                        self.end(&mut work, lease.id);
                    }
                }
                Ok(Response::Lease)
            }
            Command::LeaseCheckpoint(checkpoint) => {
                checkpoint.remaining.iter().for_each(|remaining| self.checkpoint(&mut work, *remaining));
                Ok(Response::Lease)
            }
        };
        if !work.records.is_empty() {
            self.revision += 1;
            self.maps.insert(self.revision, work.map);
            self.records.extend(work.records.iter().cloned());
        }
        let Work { records, leases, .. } = work;
        Outcome { response, records, leases, revision: Revision::new(self.revision) }
    }

    fn grant(&mut self, work: &mut Work, grant: LeaseGrant, entry: EntryId) -> Result<Response, Refusal> {
        if grant.id.0 == 0 {
            return Err(Refusal::LeaseNotFound { lease: grant.id });
        }
        if self.leases.contains_key(&grant.id) {
            return Err(Refusal::LeaseExists { lease: grant.id });
        }
        let lease =
            Lease { granted_at: entry.index, granted_seconds: grant.ttl_seconds, remaining_seconds: None };
        self.leases.insert(grant.id, lease);
        work.leases.push(LeaseChange { id: grant.id, lease: Some(lease) });
        Ok(Response::Lease)
    }

    fn end(&mut self, work: &mut Work, lease: LeaseId) {
        if self.leases.remove(&lease).is_none() {
            return;
        }
        let gone: Vec<Bytes> =
            work.map.values().filter(|kv| kv.lease == Some(lease)).map(|kv| kv.key.clone()).collect();
        for start in gone {
            let range = KeyRange { start, end: RangeEnd::Single };
            self.delete(work, &DeleteRange { range, prev_kv: false });
        }
        work.leases.push(LeaseChange { id: lease, lease: None });
    }

    fn is_there(&self, lease: LeaseRef) -> bool {
        self.leases.get(&lease.id).is_some_and(|there| there.granted_at == lease.granted_at)
    }

    fn checkpoint(&mut self, work: &mut Work, remaining: LeaseRemaining) {
        let id = remaining.lease.id;
        if !self.is_there(remaining.lease) {
            return;
        }
        let Some(lease) = self.leases.get_mut(&id) else { return };
        lease.remaining_seconds = remaining.seconds.filter(|seconds| *seconds < lease.granted_seconds);
        work.leases.push(LeaseChange { id, lease: Some(*lease) });
    }

    fn compact(&mut self, requested: i64) -> Result<Response, Refusal> {
        let last = self.compact_revision.map_or(-1, |last| last as i64);
        if requested <= last {
            let compact_revision = Revision::new(self.compact_revision.unwrap_or(0));
            return Err(Refusal::Compacted { requested, compact_revision });
        }
        if requested > self.revision as i64 {
            return Err(Refusal::FutureRevision { requested, current: Revision::new(self.revision) });
        }
        let compact = requested as u64;
        self.compact_revision = Some(compact);
        self.maps.retain(|&revision, _| revision >= compact);
        let alive = &self.maps[&compact];
        self.records.retain(|record| {
            let revision = record.id.revision.get();
            let is_seen = alive.get(&record.key).is_some_and(|kv| kv.mod_revision.get() == revision);
            let is_put = matches!(record.change, Change::Put(_));
            revision > compact || (is_put && is_seen) || (!is_put && revision == compact)
        });
        Ok(Response::Compact)
    }

    pub(crate) fn resolve(&self, at: ReadAt) -> Result<u64, Refusal> {
        let ReadAt::Revision(revision) = at else { return Ok(self.revision) };
        let requested = revision.get() as i64;
        if revision.get() == 0 {
            Ok(self.revision)
        } else if revision.get() > self.revision {
            Err(Refusal::FutureRevision { requested, current: Revision::new(self.revision) })
        } else if self.maps.contains_key(&revision.get()) {
            Ok(revision.get())
        } else {
            Err(Refusal::Compacted {
                requested,
                compact_revision: Revision::new(
                    self.compact_revision.expect("maps go away by compaction only"),
                ),
            })
        }
    }

    /// Everything that is wrong with the operations that would run, ranked: puts before ranges, then in order.
    fn refusals(&self, txn: &Txn) -> Vec<((u8, usize), Refusal)> {
        let mut ops = Vec::new();
        self.running_ops(txn, &mut ops);
        let mut refusals = Vec::new();
        for (place, op) in ops.into_iter().enumerate() {
            match op {
                Op::Put(put) => refusals.extend(self.refuse_put(put, false).err().map(|it| ((0, place), it))),
                Op::Range(range) => refusals.extend(self.resolve(range.at).err().map(|it| ((1, place), it))),
                _ => {}
            }
        }
        refusals
    }

    fn running_ops<'a>(&self, txn: &'a Txn, ops: &mut Vec<&'a Op>) {
        let branch = if self.succeeds(txn) { &txn.success } else { &txn.failure };
        for op in branch {
            if let Op::Txn(nested) = op {
                self.running_ops(nested, ops);
            }
            ops.push(op);
        }
    }

    fn refuse_put(&self, put: &Put, lease_first: bool) -> Result<(), Refusal> {
        let missing = put.lease.filter(|lease| !self.leases.contains_key(lease));
        let no_lease = missing.map(|lease| Refusal::LeaseNotFound { lease });
        let is_missing = !self.maps[&self.revision].contains_key(&put.key);
        let no_key = ((put.ignore_value || put.ignore_lease) && is_missing).then_some(Refusal::KeyNotFound);
        let refusal = if lease_first { no_lease.or(no_key) } else { no_key.or(no_lease) };
        refusal.map_or(Ok(()), Err)
    }

    fn succeeds(&self, txn: &Txn) -> bool {
        txn.compares.iter().all(|compare| {
            let kvs = within(&self.maps[&self.revision], &compare.range);
            match (&compare.operand, kvs.is_empty()) {
                (Operand::Value(_), true) => false,
                (_, true) => {
                    let zero = KeyValue {
                        key: Bytes::new(),
                        create_revision: Revision::NONE,
                        mod_revision: Revision::NONE,
                        version: 0,
                        lease: None,
                        value: Bytes::new(),
                    };
                    relation_holds(compare, &zero)
                }
                (_, false) => kvs.iter().all(|kv| relation_holds(compare, kv)),
            }
        })
    }

    fn put(&self, work: &mut Work, put: &Put) -> PutResponse {
        let old = work.map.get(&put.key).cloned();
        let revision = Revision::new(self.revision + 1);
        let new = KeyValue {
            key: put.key.clone(),
            create_revision: old.as_ref().map_or(revision, |old| old.create_revision),
            mod_revision: revision,
            version: old.as_ref().map_or(0, |old| old.version) + 1,
            lease: if put.ignore_lease { old.as_ref().and_then(|old| old.lease) } else { put.lease },
            value: if put.ignore_value { old.clone().expect("checked").value } else { put.value.clone() },
        };
        work.records.push(Record {
            id: RecordId::new(revision, work.records.len() as u32),
            key: put.key.clone(),
            change: Change::Put(PutRecord {
                create_revision: new.create_revision,
                version: new.version,
                lease: new.lease,
                value: new.value.clone(),
            }),
        });
        work.map.insert(put.key.clone(), new);
        PutResponse { prev_kv: old.filter(|_| put.prev_kv) }
    }

    fn delete(&self, work: &mut Work, delete: &DeleteRange) -> DeleteRangeResponse {
        let gone = within(&work.map, &delete.range);
        for kv in &gone {
            work.map.remove(&kv.key);
            let id = RecordId::new(Revision::new(self.revision + 1), work.records.len() as u32);
            work.records.push(Record { id, key: kv.key.clone(), change: Change::Delete });
        }
        let deleted = gone.len() as u64;
        DeleteRangeResponse { deleted, prev_kvs: if delete.prev_kv { gone } else { Vec::new() } }
    }

    fn txn(&self, work: &mut Work, txn: &Txn) -> TxnResponse {
        let succeeded = self.succeeds(txn);
        let mut responses = Vec::new();
        for op in if succeeded { &txn.success } else { &txn.failure } {
            let result = match op {
                Op::Put(put) => OpResult::Put(self.put(work, put)),
                Op::DeleteRange(delete) => OpResult::DeleteRange(self.delete(work, delete)),
                Op::Txn(nested) => OpResult::Txn(self.txn(work, nested)),
                Op::Range(range) => OpResult::Range(match range.at {
                    ReadAt::Revision(revision) if revision.get() > 0 => {
                        self.range(&self.maps[&revision.get()], range)
                    }
                    _ => self.range(&work.map, range),
                }),
                Op::Unset => unreachable!("refused before"),
            };
            let revision = match op {
                Op::Txn(_) => 0,
                _ => self.revision + u64::from(!work.records.is_empty()),
            };
            responses.push(OpResponse { revision: Revision::new(revision), result });
        }
        TxnResponse { succeeded, responses }
    }

    pub(crate) fn range(&self, map: &Map, request: &Range) -> RangeResponse {
        let all = within(map, &request.range);
        let count = all.len() as u64;
        if request.count_only {
            return RangeResponse { kvs: Vec::new(), more: false, count };
        }
        let bounds = [
            request.min_mod_revision,
            request.max_mod_revision,
            request.min_create_revision,
            request.max_create_revision,
        ];
        let limit = request.limit.map_or(usize::MAX, |limit| limit as usize);
        let mut kvs = all;
        if request.order == SortOrder::None && bounds == [Revision::NONE; 4] && limit != usize::MAX {
            kvs.truncate(limit + 1);
        }
        kvs.retain(|kv| {
            kv.mod_revision >= bounds[0]
                && (bounds[1] == Revision::NONE || kv.mod_revision <= bounds[1])
                && kv.create_revision >= bounds[2]
                && (bounds[3] == Revision::NONE || kv.create_revision <= bounds[3])
        });
        kvs.sort_by(|a, b| {
            let order = match request.target {
                SortTarget::Key => a.key.cmp(&b.key),
                SortTarget::Version => a.version.cmp(&b.version),
                SortTarget::Create => a.create_revision.cmp(&b.create_revision),
                SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
                SortTarget::Value => a.value.cmp(&b.value),
            };
            if request.order == SortOrder::Descend { order.reverse() } else { order }
        });
        let more = kvs.len() > limit;
        kvs.truncate(limit);
        if request.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
        }
        RangeResponse { kvs, more, count }
    }
}

fn relation_holds(compare: &Compare, kv: &KeyValue) -> bool {
    let order = match &compare.operand {
        Operand::Version(given) => (kv.version as i64).cmp(given),
        Operand::Create(given) => (kv.create_revision.get() as i64).cmp(given),
        Operand::Mod(given) => (kv.mod_revision.get() as i64).cmp(given),
        Operand::Value(given) => kv.value.cmp(given),
        Operand::Lease(given) => kv.lease.map_or(0, |lease| lease.0).cmp(given),
    };
    match compare.relation {
        Relation::Equal => order.is_eq(),
        Relation::NotEqual => order.is_ne(),
        Relation::Greater => order.is_gt(),
        Relation::Less => order.is_lt(),
    }
}

/// Whether a transaction keeps the rule on keys: of any two writes that may both run, none puts a key that the other
/// writes. Told as all pairs of writes, each with the way that leads to it.
pub(crate) fn has_overlap(txn: &Txn) -> bool {
    let mut writes = Vec::new();
    collect(txn, &mut Vec::new(), &mut writes);
    let clash = |a: &(Vec<Step>, KeyRange, bool), b: &(Vec<Step>, KeyRange, bool)| {
        let touches = match (a.2, b.2) {
            (true, true) => a.1.start == b.1.start,
            (true, false) => contains(&b.1, &a.1.start),
            (false, true) => contains(&a.1, &b.1.start),
            (false, false) => false,
        };
        touches && may_both_run(&a.0, &b.0)
    };
    writes.iter().enumerate().any(|(place, a)| writes[..place].iter().any(|b| clash(a, b)))
}

/// A branch and a place in it.
type Step = (bool, usize);

fn may_both_run(a: &[Step], b: &[Step]) -> bool {
    let fork = a.iter().zip(b).find(|(a, b)| a != b);
    fork.is_some_and(|(a, b)| a.0 == b.0)
}

fn collect(txn: &Txn, way: &mut Vec<Step>, writes: &mut Vec<(Vec<Step>, KeyRange, bool)>) {
    for (branch, ops) in [(true, &txn.success), (false, &txn.failure)] {
        for (place, op) in ops.iter().enumerate() {
            way.push((branch, place));
            match op {
                Op::Put(put) => {
                    let range = KeyRange { start: put.key.clone(), end: RangeEnd::Single };
                    writes.push((way.clone(), range, true));
                }
                Op::DeleteRange(delete) => writes.push((way.clone(), delete.range.clone(), false)),
                Op::Txn(nested) => collect(nested, way, writes),
                Op::Range(_) | Op::Unset => {}
            }
            way.pop();
        }
    }
}
