//! The differences that are a matter of kind, not of one call: each is recognised by a rule here, and has its reason in
//! `differences.txt`.

use anyhow::bail;
use holdfast_proto::etcdserverpb::request_op::Request;
use holdfast_proto::etcdserverpb::watch_request::RequestUnion;
use holdfast_proto::etcdserverpb::{TxnRequest, WatchCreateRequest, WatchRequest};
use prost::Message;
use tonic::Code;

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
    /// A watcher that is not permitted is told why by us, and under the id -1; etcd 3.5 says `permission denied` under the id
    /// that was asked for.
    WatchNotPermitted,
    /// Who names a token that is not good is told so by us before the request is looked at, by etcd afterwards.
    TokenBeforeForm,
}

impl Rule {
    /// The rule of this name in the table.
    pub(super) fn named(name: &str) -> anyhow::Result<Self> {
        Ok(match name {
            "watch-from-negative-revision" => Self::WatchFromNegativeRevision,
            "progress-before-start" => Self::ProgressBeforeStart,
            "delete-at-compaction" => Self::DeleteAtCompaction,
            "txn-too-deep" => Self::TxnTooDeep,
            "watch-not-permitted" => Self::WatchNotPermitted,
            "token-before-form" => Self::TokenBeforeForm,
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
            Self::WatchNotPermitted => {
                let ours = text(ours);
                creates(situation.call)
                    && text(etcd).contains("created:true,canceled:true")
                    && text(etcd).contains(NOT_PERMITTED[0])
                    && ours.contains("watch_id:-1,created:true,canceled:true")
                    && NOT_PERMITTED.iter().any(|reason| ours.contains(reason))
            }
            Self::TokenBeforeForm => {
                situation.call.user.is_some()
                    && matches!(etcd, Answer::Err(Code::InvalidArgument, _))
                    && text(ours) == "Unauthenticated: etcdserver: invalid auth token"
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

/// Why a watcher is not permitted, by us; the first one by etcd 3.5, whatever it is.
const NOT_PERMITTED: [&str; 3] = [
    "cancel_reason:\"rpc error: code = PermissionDenied desc = etcdserver: permission denied\"",
    "cancel_reason:\"rpc error: code = InvalidArgument desc = etcdserver: user name is empty\"",
    "cancel_reason:\"rpc error: code = Unauthenticated desc = etcdserver: invalid auth token\"",
];

/// The watcher that the call asks for.
fn created(call: &Call) -> Option<WatchCreateRequest> {
    if !matches!(call.ask, Ask::Stream(_)) {
        return None;
    }
    match WatchRequest::decode(call.request(Revisions::default()).ok()?).ok()?.request_union? {
        RequestUnion::CreateRequest(create) => Some(create),
        _ => None,
    }
}

fn creates(call: &Call) -> bool {
    created(call).is_some()
}

fn starts_negative(call: &Call) -> bool {
    created(call).is_some_and(|create| create.start_revision < 0)
}

/// Whether etcd's sequence is ours without deletes at the compacted revision that the watcher starts at.
fn is_all_but_lost(etcd: &Watcher, ours: &Watcher) -> bool {
    let mut theirs = etcd.received.iter().peekable();
    let is_explained = ours.received.iter().all(|event| {
        theirs.next_if(|other| other.text == event.text).is_some() || ours.is_lost_by_compaction(event)
    });
    is_explained && theirs.next().is_none()
}
