//! Fuzz targets: what clients send, and what operators write. Run by `scripts/fuzz`; the inputs that are kept run with
//! the tests.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::OsString;
use std::path::Path;

use bytes::{Buf, Bytes};
use holdfast_mvcc::command::{Command, LeaseGrant};
use holdfast_mvcc::types::{Change, EntryId, LeaseId, LogIndex, PutRecord, RecordId, Term};
use holdfast_mvcc::validate::{is_too_deep, validate, validate_range, validate_txn};
use holdfast_mvcc::{State, Values};
use holdfast_proto::etcdserverpb as pb;
use prost::Message;

use crate::codec::{request, watch};
use crate::config::{Config, flags};
use crate::limits;

/// Some requests of one client, one after the other: they are refused, or a member evaluates them, and its state is that
/// of another member that does the same.
pub fn etcd_requests(mut input: &[u8]) {
    let (mut one, mut other) = (Member::default(), Member::default());
    while input.remaining() >= 3 {
        let (kind, bytes) = (input.get_u8(), usize::from(input.get_u16_le()));
        let bytes = input.copy_to_bytes(bytes.min(input.remaining()));
        if let Some(command) = command(kind, bytes)
            && validate(&command, limits::TXN_OPS_MAX).is_ok()
        {
            assert!(!is_too_deep(&command), "what is valid can be logged");
            one.apply(&command);
            other.apply(&command);
        }
    }
    assert_eq!(one.state.digest(), other.state.digest());
}

/// What a request asks for; nothing when it is refused, or changes nothing.
fn command(kind: u8, bytes: Bytes) -> Option<Command> {
    match kind % 8 {
        0 => Some(Command::Put(request::put(again(bytes)?))),
        1 => Some(Command::DeleteRange(request::delete_range(again(bytes)?))),
        2 => {
            let decoded = request::txn(again(bytes)?).ok()?;
            validate_txn(&decoded.txn, limits::TXN_OPS_MAX).ok()?;
            Some(Command::Txn(decoded.txn))
        }
        3 => Some(request::compact(&again::<pb::CompactionRequest>(bytes)?)),
        4 => {
            let decoded = request::range(again(bytes)?).ok()?;
            validate_range(&decoded.range).ok()?;
            None
        }
        5 => {
            let request: pb::WatchRequest = again(bytes)?;
            if let Some(pb::watch_request::RequestUnion::CreateRequest(create)) = request.request_union {
                drop(watch::create(&create));
            }
            None
        }
        6 => {
            let request: pb::LeaseGrantRequest = again(bytes)?;
            let ttl_seconds = u64::try_from(request.ttl).ok().filter(|ttl| *ttl > 0)?;
            Some(Command::LeaseGrant(LeaseGrant { id: LeaseId(request.id), ttl_seconds }))
        }
        _ => Some(Command::LeaseRevoke(LeaseId(again::<pb::LeaseRevokeRequest>(bytes)?.id))),
    }
}

/// A message, which is the same when it is sent again.
fn again<M: Message + Default + PartialEq + std::fmt::Debug>(bytes: Bytes) -> Option<M> {
    let message = M::decode(bytes).ok()?;
    let sent = message.encode_to_vec();
    assert_eq!(M::decode(&sent[..]).ok().as_ref(), Some(&message));
    Some(message)
}

/// A state with its values.
#[derive(Default)]
struct Member {
    state: State,
    values: Memory,
    applied: u64,
}

impl Member {
    fn apply(&mut self, command: &Command) {
        self.applied += 1;
        let entry = EntryId { term: Term(1), index: LogIndex(self.applied) };
        let outcome = match self.state.evaluate(entry, command, &mut self.values) {
            Ok(outcome) => outcome,
            Err(never) => match never {},
        };
        for record in outcome.records {
            if let Change::Put(put) = record.change {
                self.values.0.insert(record.id, put);
            }
        }
    }
}

#[derive(Default)]
struct Memory(BTreeMap<RecordId, PutRecord>);

impl Values for Memory {
    type Error = Infallible;
    fn record(&mut self, _: &Bytes, id: RecordId) -> Result<PutRecord, Infallible> {
        Ok(self.0.get(&id).expect("only what is retained is asked for").clone())
    }
}

/// A configuration: arguments, one on each line, and behind a line of dashes a file. It is refused with a sentence, or it
/// is a configuration.
pub fn config(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (arguments, file) = text.split_once("\n---\n").unwrap_or((text, ""));
    drop(flags::file::parse(Path::new("fuzz.yaml"), file));
    // A file elsewhere on this machine is nobody's business.
    let arguments = arguments.lines().filter(|line| !line.contains("config"));
    let arguments = std::iter::once("holdfast").chain(arguments).map(OsString::from);
    match flags::parse(arguments, &|_| None) {
        Ok(cli) => match Config::from_flags(&cli.server) {
            Ok(config) => assert!(!config.name.is_empty(), "a member has a name"),
            Err(error) => assert!(!error.to_string().is_empty(), "a refusal says why"),
        },
        Err(error) => assert!(!error.to_string().is_empty(), "a refusal says why"),
    }
}

#[cfg(test)]
#[path = "../../holdfast-sim/fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::replay;

    #[test]
    fn the_kept_requests_do_no_harm() {
        replay::replay("etcd_requests", super::etcd_requests);
    }

    #[test]
    fn the_kept_configurations_do_no_harm() {
        replay::replay("config", super::config);
    }
}
