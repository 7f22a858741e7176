//! The differences that are a matter of kind, not of one call: each is recognised by a rule here, and has its reason in
//! `differences.txt`.

use anyhow::bail;
use holdfast_proto::etcdserverpb::request_op::Request;
use holdfast_proto::etcdserverpb::watch_request::RequestUnion;
use holdfast_proto::etcdserverpb::{TxnRequest, WatchRequest};
use prost::Message;

use super::call::Answer;
use super::differences::text;
use super::placeholder::Revisions;
use super::script::{Ask, Call};
use super::watcher::Watcher;

/// A call, and what must be known of it to judge its answers.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// The call.
    pub call: &'a Call,
    /// It asks for progress while a watcher of the stream starts at a revision that is still to come.
    pub is_before_start: bool,
}

/// A kind of difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// We refuse a watcher that starts at a negative revision; etcd 3.5 takes it for the beginning.
    WatchFromNegativeRevision,
    /// We keep silent when progress is asked for and a watcher of the stream starts in the future; etcd 3.5 answers.
    ProgressBeforeStart,
    /// Of a delete at exactly the compacted revision we tell, as etcd since 3.6; etcd 3.5 has forgotten it.
    DeleteAtCompaction,
    /// We refuse transactions that are nested deeper than 32 levels; etcd takes what its decoder takes.
    TxnTooDeep,
}

impl Rule {
    /// The rule of this name in the table.
    pub(super) fn named(name: &str) -> anyhow::Result<Self> {
        Ok(match name {
            "watch-from-negative-revision" => Self::WatchFromNegativeRevision,
            "progress-before-start" => Self::ProgressBeforeStart,
            "delete-at-compaction" => Self::DeleteAtCompaction,
            "txn-too-deep" => Self::TxnTooDeep,
            _ => bail!("there is no rule {name}"),
        })
    }

    /// Whether it explains what the two sides answered, masked.
    pub(super) fn explains_answers(self, situation: &Situation<'_>, etcd: &Answer, ours: &Answer) -> bool {
        match self {
            Self::WatchFromNegativeRevision => {
                starts_negative(situation.call)
                    && text(etcd).contains("created:true")
                    && !text(etcd).contains("watch_id:-1")
                    && text(ours).contains(REFUSED_AS_COMPACTED)
            }
            Self::ProgressBeforeStart => {
                situation.is_before_start && matches!(ours, Answer::Stream(none, None) if none.is_empty())
            }
            Self::TxnTooDeep => {
                let request = situation.call.request(Revisions::default()).ok();
                let txn = request.and_then(|request| TxnRequest::decode(request).ok());
                situation.call.method.name() == "Txn"
                    && txn.is_some_and(|txn| depth(&txn) > TXN_DEPTH_MAX)
                    && matches!(etcd, Answer::Ok(_))
                    && text(ours) == "InvalidArgument: etcdserver: too many operations in txn request"
            }
            Self::DeleteAtCompaction => false,
        }
    }

    /// Whether it explains what the two sides sent to the watcher of one call.
    pub(super) fn explains_events(
        self,
        situation: &Situation<'_>,
        etcd: Option<&Watcher>,
        ours: Option<&Watcher>,
    ) -> bool {
        match (self, etcd, ours) {
            (Self::WatchFromNegativeRevision, Some(_), None) => starts_negative(situation.call),
            (Self::DeleteAtCompaction, Some(etcd), Some(ours)) => is_all_but_lost(etcd, ours),
            _ => false,
        }
    }
}

/// How many transactions may be one in the other.
const TXN_DEPTH_MAX: usize = 32;

/// How many transactions are one in the other, at most.
fn depth(txn: &TxnRequest) -> usize {
    let ops = txn.success.iter().chain(&txn.failure);
    let nested = ops.filter_map(|op| match &op.request {
        Some(Request::RequestTxn(nested)) => Some(depth(nested)),
        _ => None,
    });
    1 + nested.max().unwrap_or(0)
}

/// How a watcher is refused whose start is below what can be read.
const REFUSED_AS_COMPACTED: &str = "watch_id:-1,created:true,canceled:true,\
    cancel_reason:\"etcdserver: mvcc: required revision has been compacted\"";

fn starts_negative(call: &Call) -> bool {
    if !matches!(call.ask, Ask::Stream(_)) {
        return false;
    }
    let request = call.request(Revisions::default()).ok().and_then(|r| WatchRequest::decode(r).ok());
    let union = request.and_then(|request| request.request_union);
    matches!(union, Some(RequestUnion::CreateRequest(create)) if create.start_revision < 0)
}

/// Whether etcd's sequence is ours without deletes at the compacted revision that the watcher starts at.
fn is_all_but_lost(etcd: &Watcher, ours: &Watcher) -> bool {
    let mut theirs = etcd.received.iter().peekable();
    let is_explained = ours.received.iter().all(|event| {
        theirs.next_if(|other| other.text == event.text).is_some() || ours.is_lost_by_compaction(event)
    });
    is_explained && theirs.next().is_none()
}
