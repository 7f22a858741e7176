//! Which values a command will need, found by running its reads over the index with the values left out.

use bytes::Bytes;

use crate::command::{Command, DeleteRange, Op, Operand, Put, Txn};
use crate::range::{RangeSource, for_each_key, range};
use crate::state::{IndexChunk, State};
use crate::txn::all_hold;
use crate::types::{KeyRange, PutRecord, RecordId, Revision};

impl State {
    /// The records whose values [`State::evaluate`] will ask for, as far as they exist already: to be fetched before,
    /// so that evaluation does not wait for a disk. At most `records_max`; a record may appear twice. Where a branch
    /// depends on a value, both branches' records are named. A hint: commands evaluated in between may change it,
    /// and a transaction's own writes may move other keys into its limited ranges.
    pub fn needed_values(&self, command: &Command, records_max: usize) -> Vec<(Bytes, RecordId)> {
        let mut probe = Probe { state: self, needed: Vec::new(), records_max };
        // Being full is the way to end early, not a failure.
        let (Ok(()) | Err(Full)) = match command {
            Command::Put(put) => probe.put(put),
            Command::DeleteRange(delete) => probe.delete(delete),
            Command::Txn(txn) => probe.txn(txn),
            Command::Compact(_)
            | Command::PublishMember(_)
            | Command::RaiseAlarm(_)
            | Command::ClearAlarm(_)
            | Command::LeaseGrant(_)
            | Command::LeaseRevoke(_)
            | Command::LeaseExpire(_)
            | Command::LeaseCheckpoint(_)
            | Command::Auth(_) => Ok(()),
        };
        probe.needed
    }
}

/// Notes what is asked for and answers an empty value.
struct Probe<'a> {
    state: &'a State,
    needed: Vec<(Bytes, RecordId)>,
    records_max: usize,
}

/// The probe has noted as much as it may.
struct Full;

impl Probe<'_> {
    fn newest(&self) -> Revision {
        self.state.head().revision
    }

    fn put(&mut self, put: &Put) -> Result<(), Full> {
        match self.state.index.live(&put.key) {
            Some((id, _)) if put.prev_kv || put.ignore_value => self.record(&put.key, id).map(|_| ()),
            _ => Ok(()),
        }
    }

    fn delete(&mut self, delete: &DeleteRange) -> Result<(), Full> {
        if !delete.prev_kv {
            return Ok(());
        }
        let newest = self.newest();
        for_each_key(self, &delete.range, newest, |probe, key| probe.record(&key.key, key.id).map(|_| ()))
    }

    fn txn(&mut self, txn: &Txn) -> Result<(), Full> {
        let newest = self.newest();
        let mut may_succeed = true;
        let mut may_fail = false;
        for compare in &txn.compares {
            if matches!(compare.operand, Operand::Value(_)) {
                for_each_key(self, &compare.range, newest, |probe, key| {
                    probe.record(&key.key, key.id).map(|_| ())
                })?;
                may_fail = true;
            } else if !all_hold(self, std::slice::from_ref(compare), newest)? {
                may_succeed = false;
                may_fail = true;
                break;
            }
        }
        if may_succeed {
            self.ops(&txn.success)?;
        }
        if may_fail {
            self.ops(&txn.failure)?;
        }
        Ok(())
    }

    fn ops(&mut self, ops: &[Op]) -> Result<(), Full> {
        for op in ops {
            match op {
                Op::Range(read) => {
                    if let Ok(at) = self.state.resolve(read.at) {
                        range(self, read, at)?;
                    }
                }
                Op::Put(put) => self.put(put)?,
                Op::DeleteRange(delete) => self.delete(delete)?,
                Op::Txn(nested) => self.txn(nested)?,
                Op::Unset => {}
            }
        }
        Ok(())
    }
}

impl RangeSource for Probe<'_> {
    type Error = Full;

    fn chunk(
        &mut self,
        range: &KeyRange,
        after: Option<&Bytes>,
        at: Revision,
        keys_max: usize,
    ) -> Result<IndexChunk, Full> {
        Ok(self.state.chunk(range, after, at, keys_max))
    }

    fn record(&mut self, key: &Bytes, id: RecordId) -> Result<PutRecord, Full> {
        if self.needed.len() == self.records_max {
            return Err(Full);
        }
        self.needed.push((key.clone(), id));
        Ok(PutRecord { create_revision: Revision::NONE, version: 0, lease: None, value: Bytes::new() })
    }
}
