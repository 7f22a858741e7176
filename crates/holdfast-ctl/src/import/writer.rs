//! What is written to the target: guarded transactions, and revisions that are raised.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use anyhow::anyhow;
use bytes::Bytes;
use holdfast_env::{OsRng, Rng};
use holdfast_proto::etcdserverpb as pb;
use pb::request_op::Request as Op;
use tokio::task::JoinSet;
use tonic::{Code, Status};

use super::fault::Fault;
use super::flags::RAISES_AT_ONCE;
use super::leases::Leases;
use super::plan::{Change, KeyChange};
use super::position::Position;
use super::ranges::RESERVED;
use super::remote::Remote;

/// How often a transaction is made again because a lease in it was over.
const LEASE_TRIES: u32 = 5;

/// Writes to the target, as long as no other import has taken over. Clones write to the same.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    target: Remote,
    leases: Arc<Leases>,
    /// The mod revision of the owner's key, as this import has written it.
    owned: i64,
}

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    /// It was made.
    Yes,
    /// A lease in it is not there.
    NoLease,
    /// The target does not take a request of this size.
    TooLarge,
}

/// Whether this run has written to the target before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It has not: it takes over from whoever did.
    First,
    /// It has: it goes on only if nobody has taken over since, or finished.
    Again,
}

/// Tells this run of the program from others.
static RUN: LazyLock<Bytes> = LazyLock::new(|| format!("{:016x}", OsRng.next_u64()).into());

impl Writer {
    /// Takes over from any other import into this target: what that one writes from now on is refused.
    pub(crate) async fn take_over(target: Remote, leases: Arc<Leases>, turn: Turn) -> Result<Self, Fault> {
        let compare = match turn {
            Turn::First => Vec::new(),
            Turn::Again => vec![pb::Compare {
                result: pb::compare::CompareResult::Equal.into(),
                target: pb::compare::CompareTarget::Value.into(),
                key: owner_key(),
                target_union: Some(pb::compare::TargetUnion::Value(RUN.clone())),
                ..pb::Compare::default()
            }],
        };
        let success = vec![put(owner_key(), RUN.clone(), 0)];
        let answer = target.txn(pb::TxnRequest { compare, success, ..Default::default() }).await;
        let answer = answer.map_err(explained)?;
        if !answer.succeeded {
            return Err(Fault::TakenOver);
        }
        let owned = answer.header.map_or(0, |header| header.revision);
        Ok(Self { target, leases, owned })
    }

    /// An error when another import has taken over, or finished: who writes nothing would not hear of it.
    pub(crate) async fn check_owned(&self) -> Result<(), Fault> {
        self.txn(Vec::new()).await.map(drop)
    }

    /// Changes keys together, and the position with them.
    pub(crate) async fn write(
        &self,
        changes: &[KeyChange],
        position: Option<&Position>,
    ) -> Result<(), Fault> {
        let leases: BTreeSet<i64> = changes.iter().filter_map(lease_of).collect();
        for _ in 0..LEASE_TRIES {
            self.leases.ensure(&leases).await?;
            let mut ops: Vec<pb::RequestOp> = changes.iter().map(op).collect();
            ops.extend(position.map(|position| put(Position::key(), position.encode(), 0)));
            match self.txn(ops).await? {
                Written::Yes => return Ok(()),
                Written::NoLease => self.leases.forget(&leases),
                // The position follows in a transaction of its own: what it tells of is there then.
                Written::TooLarge if position.is_some() => {
                    Box::pin(self.write(changes, None)).await?;
                    return Box::pin(self.write(&[], position)).await;
                }
                Written::TooLarge => return self.put_large(changes).await,
            }
        }
        Err(Fault::Refused(anyhow!(
            "leases end on the target as soon as they are granted: are its disks much too slow?"
        )))
    }

    /// A pair as large as the target takes has no room beside it for the rest of a transaction. It is put without the guard.
    async fn put_large(&self, changes: &[KeyChange]) -> Result<(), Fault> {
        let [KeyChange { key, change: Change::Put { value, lease } }] = changes else {
            return Err(Fault::Refused(anyhow!(
                "the target refuses a transaction of {} changes as too large: give a smaller --txn-bytes, or start it \
                 with a larger --max-request-bytes",
                changes.len()
            )));
        };
        let (key, value, lease) = (key.clone(), value.clone(), *lease);
        let request =
            pb::PutRequest { key: key.clone(), value: value.clone(), lease, ..pb::PutRequest::default() };
        self.target.put(request).await.map(drop).map_err(|fault| match fault.status() {
            Some(status) if is_too_large(status) => Fault::Refused(anyhow!(
                "the target does not take the value of key {}, {} bytes: start it with a larger --max-request-bytes",
                key.escape_ascii(),
                value.len()
            )),
            _ => explained(fault),
        })
    }

    async fn txn(&self, success: Vec<pb::RequestOp>) -> Result<Written, Fault> {
        let compare = vec![owned(self.owned)];
        match self.target.txn(pb::TxnRequest { compare, success, ..Default::default() }).await {
            Ok(answer) if answer.succeeded => Ok(Written::Yes),
            Ok(_) => Err(Fault::TakenOver),
            Err(fault) if fault.says(Code::NotFound, "etcdserver: requested lease not found") => {
                Ok(Written::NoLease)
            }
            Err(fault) if fault.status().is_some_and(is_too_large) => Ok(Written::TooLarge),
            Err(fault) => Err(explained(fault)),
        }
    }

    /// Raises the target's revision, write by write, until it is `goal` or more. Says how far it is after each lot.
    pub(crate) async fn raise(&self, goal: i64, mut tell: impl FnMut(i64)) -> Result<(), Fault> {
        let mut under_way = JoinSet::new();
        let key = raise_key();
        let mut missing = goal - self.target.revision_seen();
        while missing > 0 || !under_way.is_empty() {
            while missing > 0 && under_way.len() < RAISES_AT_ONCE {
                let (target, key) = (self.target.clone(), key.clone());
                let request = pb::PutRequest { key, ..pb::PutRequest::default() };
                under_way.spawn(async move { target.put(request).await });
                missing -= 1;
            }
            if let Some(done) = under_way.join_next().await {
                joined(done)?.map_err(explained)?;
                tell(goal - missing);
            }
        }
        Ok(())
    }

    /// Removes what the import keeps in the target, but for a word that it was finished.
    pub(crate) async fn finish(&self, position: &Position) -> Result<(), Fault> {
        let delete = |key: Bytes| {
            let delete = pb::DeleteRangeRequest { key, ..pb::DeleteRangeRequest::default() };
            pb::RequestOp { request: Some(Op::RequestDeleteRange(delete)) }
        };
        let mut ops: Vec<pb::RequestOp> = [owner_key(), Position::key(), raise_key()].map(delete).into();
        ops.push(put(Position::finished_key(), position.encode(), 0));
        self.txn(ops).await.map(drop)
    }
}

fn raise_key() -> Bytes {
    Bytes::from(format!("{RESERVED}raise"))
}

fn owner_key() -> Bytes {
    Bytes::from(format!("{RESERVED}owner"))
}

/// That the owner's key is as this import has written it.
fn owned(mod_revision: i64) -> pb::Compare {
    pb::Compare {
        result: pb::compare::CompareResult::Equal.into(),
        target: pb::compare::CompareTarget::Mod.into(),
        key: owner_key(),
        target_union: Some(pb::compare::TargetUnion::ModRevision(mod_revision)),
        ..pb::Compare::default()
    }
}

/// What a task came to. One that panicked takes the program with it.
pub(crate) fn joined<T>(done: Result<T, tokio::task::JoinError>) -> Result<T, Fault> {
    done.map_err(|error| Fault::Refused(anyhow!("a part of the import ended: {error}")))
}

fn lease_of(change: &KeyChange) -> Option<i64> {
    match change.change {
        Change::Put { lease, .. } if lease != 0 => Some(lease),
        Change::Put { .. } | Change::Delete => None,
    }
}

fn op(KeyChange { key, change }: &KeyChange) -> pb::RequestOp {
    match change {
        Change::Put { value, lease } => put(key.clone(), value.clone(), *lease),
        Change::Delete => {
            let delete = pb::DeleteRangeRequest { key: key.clone(), ..Default::default() };
            pb::RequestOp { request: Some(Op::RequestDeleteRange(delete)) }
        }
    }
}

fn put(key: Bytes, value: Bytes, lease: i64) -> pb::RequestOp {
    let put = pb::PutRequest { key, value, lease, ..Default::default() };
    pb::RequestOp { request: Some(Op::RequestPut(put)) }
}

/// etcd's answer, or gRPC's about a message that is larger still.
fn is_too_large(status: &Status) -> bool {
    match status.code() {
        Code::InvalidArgument => status.message() == "etcdserver: request is too large",
        Code::ResourceExhausted | Code::OutOfRange => !status.message().starts_with("etcdserver: "),
        _ => false,
    }
}

/// With what to do, for what an operator can help.
fn explained(fault: Fault) -> Fault {
    let hint = match fault.status().map(|status| (status.code(), status.message())) {
        Some((Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded")) => {
            "start the target with a larger --quota-backend-bytes, or compact it, and run the import again"
        }
        Some((Code::InvalidArgument, "etcdserver: too many operations in txn request")) => {
            "give --txn-ops as the target's --max-txn-ops"
        }
        _ => return fault,
    };
    Fault::Refused(anyhow!("{fault}: {hint}"))
}
