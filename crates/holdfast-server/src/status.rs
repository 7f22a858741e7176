//! The one place where a client-facing status is made: codes and texts of the wire contract.
//!
//! Clients match these texts exactly, so nothing is added to them. What else may help (a bound, whether the request may
//! have happened) goes into metadata beside the status. The match has no wildcard: a new failure does not compile
//! until its status is chosen here.

use std::time::Duration;

use holdfast_mvcc::auth::AuthRefusal;
use holdfast_mvcc::command::{Invalid, Refusal};
use holdfast_raft::{ChangeError, NodeError, TimeoutCause, TransferError};
use holdfast_storage::ReadError;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::backup::room::NoSnapshot;
use crate::codec::request::DecodeError;

/// Tells whether a failed write may have happened: `none` or `unknown`.
const OUTCOME: &str = "holdfast-outcome";
/// The lowest readable revision, with "compacted".
const COMPACT_REVISION: &str = "holdfast-compact-revision";
/// The newest revision, with "future revision".
const CURRENT_REVISION: &str = "holdfast-current-revision";

const INVALID_TOKEN: &str = "etcdserver: invalid auth token";
const USER_NAME_EMPTY: &str = "etcdserver: user name is empty";
const PERMISSION_DENIED: &str = "etcdserver: permission denied";
const OLD_REVISION: &str = "etcdserver: revision of auth store is old";

/// Why a client gets no answer. The closed set.
#[derive(Debug)]
pub enum Failure {
    /// The request must be changed.
    Invalid(Invalid),
    /// The request holds numbers without a meaning.
    Decode(DecodeError),
    /// The state refuses it, on every member alike.
    Refused(Refusal),
    /// Consensus gave no answer.
    Node(NodeError),
    /// The membership must not be changed so.
    Change(ChangeError),
    /// Peer URLs that are none.
    PeerUrls,
    /// Leadership was not moved.
    Transfer(TransferError),
    /// The client's own deadline ended first; a write may have happened.
    ClientDeadline,
    /// A time to live above the bound.
    LeaseTooLong,
    /// A client is not who it says, or says nothing.
    Auth(AuthFailure),
    /// The client asked for a leader and none is known.
    LeaderRequired,
    /// The version that the client names is no text.
    ClientApiVersion,
    /// A learner does not serve this.
    Learner,
    /// A local read failed for good.
    Store(String),
    /// This member's data cannot be trusted, or its store has failed: another member serves.
    Unfit,
    /// A watch stream was broken off by its client.
    WatchCanceled,
    /// The member is stopping.
    Stopped,
    /// A stream of a list in another order than the keys'.
    StreamSorted,
    /// A stream of a list with bounds on revisions.
    StreamFiltered,
    /// Not served by this version.
    Unimplemented(&'static str),
    /// There is no downgrade.
    Downgrade(NoDowngrade),
    /// The refusal of a step that a call on a lock or an election is made of.
    Step(Box<Failure>),
    /// The key with which a call waited for a lock is gone: its lease ended.
    SessionExpired,
    /// Nobody is elected.
    NoneElected,
    /// Who claims to be elected is not, or not any more.
    NotElected,
    /// A call of an elected one does not say who that is.
    ElectedMissing,
    /// As many calls wait for locks and elections as may.
    TooManyWaiting,
    /// There is no snapshot for a client.
    Snapshot(NoSnapshot),
    /// Larger than the transport takes.
    MessageTooLarge {
        /// Its size in bytes.
        bytes: u64,
        /// What is taken.
        bytes_max: u64,
    },
}

/// Why there is no downgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoDowngrade {
    /// The target is not a version.
    NotAVersion,
    /// Nothing can be downgraded to that version.
    InvalidTarget,
    /// There is none to be cancelled.
    NoneInProgress,
    /// The request wants something else.
    UnknownAction,
}

/// What only one member knows of a caller; what the state says is a [`Refusal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthFailure {
    /// A token that is not known here, has ended, or does not hold any more.
    InvalidToken,
    /// A permission to grant that says nothing.
    PermissionNotGiven,
    /// Somebody without a password has given one.
    NoPasswordUser,
    /// This member can check signed tokens, and sign none.
    NoSigningKey,
}

impl Failure {
    /// The failure of a step that a call on a lock or an election is made of.
    pub fn step(self) -> Self {
        Self::Step(Box::new(self))
    }
}

impl From<Invalid> for Failure {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<NodeError> for Failure {
    fn from(error: NodeError) -> Self {
        Self::Node(error)
    }
}

impl From<TransferError> for Failure {
    fn from(error: TransferError) -> Self {
        Self::Transfer(error)
    }
}

impl From<NoSnapshot> for Failure {
    fn from(why: NoSnapshot) -> Self {
        Self::Snapshot(why)
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Refused(refusal) => Self::Refused(refusal),
            ReadError::Store(reason) => Self::Store(reason),
        }
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Invalid(invalid) => Self::new(Code::InvalidArgument, invalid_text(invalid)),
            Failure::Decode(DecodeError::SortOption) => {
                Self::new(Code::InvalidArgument, "etcdserver: invalid sort option")
            }
            // etcd has no text for this one: it answers such compares by accident.
            Failure::Decode(DecodeError::CompareOption) => {
                Self::new(Code::InvalidArgument, "etcdserver: invalid compare option")
            }
            Failure::Refused(refusal) => refused(refusal),
            Failure::Node(error) => node(&error),
            Failure::Change(error) => change(&error),
            Failure::PeerUrls => {
                Self::new(Code::InvalidArgument, "etcdserver: given member URLs are invalid")
            }
            Failure::Transfer(TransferError::NotLeader) => {
                Self::new(Code::FailedPrecondition, "etcdserver: not leader")
            }
            Failure::Transfer(TransferError::NoSuchVoter) => {
                Self::new(Code::FailedPrecondition, "etcdserver: bad leader transferee")
            }
            Failure::Transfer(TransferError::TimedOut) => {
                Self::new(Code::Unknown, "etcdserver: request timed out, leader transfer took too long")
            }
            Failure::ClientDeadline => with(
                Self::new(Code::DeadlineExceeded, "etcdserver: context deadline exceeded"),
                OUTCOME,
                "unknown",
            ),
            Failure::LeaseTooLong => Self::new(Code::OutOfRange, "etcdserver: too large lease TTL"),
            Failure::Auth(failure) => auth_failure(failure),
            Failure::LeaderRequired => Self::new(Code::Unavailable, "etcdserver: no leader"),
            Failure::ClientApiVersion => {
                Self::new(Code::InvalidArgument, "etcdserver: invalid client api version")
            }
            Failure::Learner => {
                Self::new(Code::FailedPrecondition, "etcdserver: rpc not supported for learner")
            }
            Failure::Store(_) => Self::new(Code::DataLoss, "etcdserver: corrupt cluster"),
            Failure::WatchCanceled => Self::new(Code::Cancelled, "etcdserver: watch canceled"),
            // etcd's watchers resume elsewhere when a member is unavailable, and end with any other code.
            Failure::Unfit => Self::new(
                Code::Unavailable,
                "etcdserver: this member's data cannot be trusted: use another member",
            ),
            Failure::Stopped => Self::new(Code::Unavailable, "etcdserver: server stopped"),
            Failure::StreamSorted => {
                Self::new(Code::Unimplemented, "RangeStream does not support custom sort orders")
            }
            Failure::StreamFiltered => {
                Self::new(Code::Unimplemented, "RangeStream does not support revision filters")
            }
            Failure::Unimplemented(method) => {
                Self::new(Code::Unimplemented, format!("{method} is not served by this version of holdfast"))
            }
            Failure::Downgrade(why) => no_downgrade(why),
            Failure::Step(refusal) => step(*refusal),
            Failure::SessionExpired => Self::new(Code::Unknown, "mutex: session is expired"),
            Failure::NoneElected => Self::new(Code::Unknown, "election: no leader"),
            Failure::NotElected => Self::new(Code::Unknown, "election: not leader"),
            Failure::ElectedMissing => Self::new(Code::Unknown, "\"leader\" field must be provided"),
            // etcd has no such limit, and so no text.
            Failure::TooManyWaiting => Self::new(
                Code::ResourceExhausted,
                "etcdserver: too many calls wait for locks and elections on this member (--max-waiting-calls)",
            ),
            Failure::Snapshot(why) => no_snapshot(&why),
            Failure::MessageTooLarge { bytes, bytes_max } => Self::new(
                Code::ResourceExhausted,
                format!("grpc: received message larger than max ({bytes} vs. {bytes_max})"),
            ),
        }
    }
}

fn no_downgrade(why: NoDowngrade) -> Status {
    let (code, text) = match why {
        NoDowngrade::NotAVersion => {
            (Code::InvalidArgument, "etcdserver: wrong downgrade target version format")
        }
        NoDowngrade::InvalidTarget => (Code::InvalidArgument, "etcdserver: invalid downgrade target version"),
        NoDowngrade::NoneInProgress => (Code::FailedPrecondition, "etcdserver: no inflight downgrade job"),
        NoDowngrade::UnknownAction => (Code::Unknown, "etcdserver: unknown method"),
    };
    Status::new(code, text)
}

/// In etcd locks and elections are made by a client inside the server, and what it is refused loses its code on the way
/// out; the text stays. Whether a request happened is no refusal, and keeps its code: clients act on it.
fn step(refusal: Failure) -> Status {
    let is_refusal = matches!(refusal, Failure::Invalid(_) | Failure::Refused(_));
    let status = Status::from(refusal);
    if is_refusal { Status::new(Code::Unknown, status.message()) } else { status }
}

/// etcd needs no room for a snapshot and takes any number of clients, so that it has no texts for these.
fn no_snapshot(why: &NoSnapshot) -> Status {
    match why {
        NoSnapshot::TooMany => Status::new(
            Code::ResourceExhausted,
            "etcdserver: too many snapshots at a time on this member (--max-snapshot-streams)",
        ),
        NoSnapshot::NoSpace { free_bytes, needed_bytes } => Status::new(
            Code::ResourceExhausted,
            format!(
                "etcdserver: a snapshot needs {needed_bytes} bytes on the disk of this member's data directory, and \
                 {free_bytes} are free"
            ),
        ),
        NoSnapshot::Disk(error) => Status::new(
            Code::Internal,
            format!("etcdserver: the snapshot cannot be written in this member's data directory: {error}"),
        ),
        NoSnapshot::Replaced => Status::new(
            Code::Unavailable,
            "etcdserver: the state of this member was replaced while the snapshot was written: try again",
        ),
    }
}

fn invalid_text(invalid: Invalid) -> &'static str {
    match invalid {
        Invalid::EmptyKey => "etcdserver: key is not provided",
        Invalid::ValueProvided => "etcdserver: value is provided",
        Invalid::LeaseProvided => "etcdserver: lease is provided",
        // etcd bounds the depth by the number of operations alone.
        Invalid::TooManyOperations { .. } | Invalid::TooDeep { .. } => {
            "etcdserver: too many operations in txn request"
        }
        Invalid::DuplicateKey => "etcdserver: duplicate key given in txn request",
        // etcd's own text for an operation with nothing set.
        Invalid::EmptyOperation => "etcdserver: key not found",
    }
}

fn refused(refusal: Refusal) -> Status {
    match refusal {
        Refusal::Auth(refusal) => {
            let (code, text) = auth(refusal);
            Status::new(code, text)
        }
        // etcd says the same of a write that it has carried out.
        Refusal::NoSpace => with(
            Status::new(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
            OUTCOME,
            "none",
        ),
        Refusal::Corrupt => Status::new(Code::DataLoss, "etcdserver: corrupt cluster"),
        Refusal::KeyNotFound => Status::new(Code::InvalidArgument, "etcdserver: key not found"),
        Refusal::LeaseNotFound { .. } => Status::new(Code::NotFound, "etcdserver: requested lease not found"),
        Refusal::LeaseExists { .. } => {
            Status::new(Code::FailedPrecondition, "etcdserver: lease already exists")
        }
        // Of what only leaders propose, and no client waits for.
        Refusal::OtherTerm { .. } => Status::new(Code::Unavailable, "etcdserver: leader changed"),
        Refusal::Compacted { compact_revision, .. } => with(
            Status::new(Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted"),
            COMPACT_REVISION,
            &compact_revision.get().to_string(),
        ),
        Refusal::FutureRevision { current, .. } => with(
            Status::new(Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision"),
            CURRENT_REVISION,
            &current.get().to_string(),
        ),
    }
}

fn auth_failure(failure: AuthFailure) -> Status {
    match failure {
        AuthFailure::InvalidToken => Status::new(Code::Unauthenticated, INVALID_TOKEN),
        AuthFailure::PermissionNotGiven => {
            Status::new(Code::InvalidArgument, "etcdserver: permission not given")
        }
        // Not in etcd's table: the code is what it makes of what is not.
        AuthFailure::NoPasswordUser => {
            Status::new(Code::Unknown, "auth: authentication failed, password was given for no password user")
        }
        // Nor this.
        AuthFailure::NoSigningKey => {
            Status::new(Code::Unknown, "auth: token signing attempted with verify-only key")
        }
    }
}

fn auth(refusal: AuthRefusal) -> (Code, &'static str) {
    match refusal {
        AuthRefusal::RootUserMissing => (Code::FailedPrecondition, "etcdserver: root user does not exist"),
        AuthRefusal::RootRoleMissing => {
            (Code::FailedPrecondition, "etcdserver: root user does not have root role")
        }
        AuthRefusal::UserExists => (Code::FailedPrecondition, "etcdserver: user name already exists"),
        AuthRefusal::UserNameEmpty => (Code::InvalidArgument, USER_NAME_EMPTY),
        AuthRefusal::UserNotFound => (Code::FailedPrecondition, "etcdserver: user name not found"),
        AuthRefusal::RoleExists => (Code::FailedPrecondition, "etcdserver: role name already exists"),
        AuthRefusal::RoleNotFound => (Code::FailedPrecondition, "etcdserver: role name not found"),
        AuthRefusal::RoleNameEmpty => (Code::InvalidArgument, "etcdserver: role name is empty"),
        AuthRefusal::AuthenticationFailed => {
            (Code::InvalidArgument, "etcdserver: authentication failed, invalid user ID or password")
        }
        AuthRefusal::PermissionDenied => (Code::PermissionDenied, PERMISSION_DENIED),
        AuthRefusal::RoleNotGranted => {
            (Code::FailedPrecondition, "etcdserver: role is not granted to the user")
        }
        AuthRefusal::PermissionNotGranted => {
            (Code::FailedPrecondition, "etcdserver: permission is not granted to the role")
        }
        AuthRefusal::NotEnabled => (Code::FailedPrecondition, "etcdserver: authentication is not enabled"),
        // etcd 3.5.1 has no code for it and says Unknown; later releases, whose clients act on it, say this.
        AuthRefusal::OldRevision => (Code::InvalidArgument, OLD_REVISION),
        AuthRefusal::InvalidManagement => (Code::InvalidArgument, "etcdserver: invalid auth management"),
        // etcd has no such limits, and so no texts.
        AuthRefusal::NameTooLong => {
            (Code::InvalidArgument, "etcdserver: the name of a user or role has at most 1024 bytes")
        }
        AuthRefusal::TooMuch => {
            (Code::ResourceExhausted, "etcdserver: users and roles take too much space: delete some of them")
        }
    }
}

fn node(error: &NodeError) -> Status {
    let (code, text, outcome) = match error {
        NodeError::NoLeader => (Code::Unavailable, "etcdserver: no leader", "none"),
        NodeError::LeaderChanged => (Code::Unavailable, "etcdserver: leader changed", "none"),
        NodeError::TooLarge { .. } => (Code::InvalidArgument, "etcdserver: request is too large", "none"),
        NodeError::TooDeep { .. } => {
            (Code::InvalidArgument, "etcdserver: too many operations in txn request", "none")
        }
        NodeError::TooManyRequests => (Code::ResourceExhausted, "etcdserver: too many requests", "none"),
        NodeError::NoSpace => (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded", "none"),
        NodeError::TimedOut(TimeoutCause::Plain) => {
            (Code::Unavailable, "etcdserver: request timed out", "unknown")
        }
        NodeError::TimedOut(TimeoutCause::LeaderFailure) => (
            Code::Unavailable,
            "etcdserver: request timed out, possibly due to previous leader failure",
            "unknown",
        ),
        NodeError::TimedOut(TimeoutCause::ConnectionLost) => {
            (Code::Unavailable, "etcdserver: request timed out, possibly due to connection lost", "unknown")
        }
        NodeError::ApplyTimedOut => (
            Code::Unavailable,
            "etcdserver: request timed out, waiting for the applied index took too long",
            "none",
        ),
        NodeError::Stopped => (Code::Unavailable, "etcdserver: server stopped", "unknown"),
    };
    with(Status::new(code, text), OUTCOME, outcome)
}

fn change(error: &ChangeError) -> Status {
    let (code, text) = match error {
        ChangeError::Node(error) => return node(error),
        ChangeError::NotFound => (Code::NotFound, "etcdserver: member not found"),
        ChangeError::IdTaken => (Code::FailedPrecondition, "etcdserver: member ID already exist"),
        ChangeError::UrlsTaken => (Code::FailedPrecondition, "etcdserver: Peer URLs already exists"),
        ChangeError::TooManyLearners => {
            (Code::FailedPrecondition, "etcdserver: too many learner members in cluster")
        }
        ChangeError::NotLearner => {
            (Code::FailedPrecondition, "etcdserver: can only promote a learner member")
        }
        ChangeError::NotReady => (
            Code::FailedPrecondition,
            "etcdserver: can only promote a learner member which is in sync with leader",
        ),
        ChangeError::NotEnoughStarted => (
            Code::FailedPrecondition,
            "etcdserver: re-configuration failed due to not enough started members",
        ),
        ChangeError::Unhealthy => (Code::Unavailable, "etcdserver: unhealthy cluster"),
    };
    with(Status::new(code, text), OUTCOME, "none")
}

fn with(mut status: Status, key: &'static str, value: &str) -> Status {
    // The values are short words and digits, which are always valid metadata.
    if let Ok(value) = value.parse::<MetadataValue<_>>() {
        status.metadata_mut().insert(key, value);
    }
    status
}

/// Why there is no new watcher. The stream and its other watchers live on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusedWatch {
    /// The range ends before it begins.
    EmptyRange,
    /// The first revision wanted is below zero.
    NegativeStart,
    /// The id is in use on this stream.
    DuplicateId,
    /// The stream has as many watchers as it may have.
    TooMany,
}

/// The cancel reason in the answer to a create that is refused.
pub fn refused_watch(why: RefusedWatch) -> &'static str {
    match why {
        RefusedWatch::EmptyRange => "mvcc: watcher range is empty",
        RefusedWatch::NegativeStart => "etcdserver: mvcc: required revision has been compacted",
        RefusedWatch::DuplicateId => "mvcc: duplicate watch ID provided on the WatchStream",
        // etcd has no such limit, and so no text.
        RefusedWatch::TooMany => "etcdserver: too many watchers on this watch stream: open another stream",
    }
}

/// The cancel reason in the answer to a create that its client may not have: clients know it by the text of the whole
/// error, as Go's gRPC prints it.
pub fn denied_watch(failure: &Failure) -> &'static str {
    match failure {
        Failure::Auth(AuthFailure::InvalidToken) => {
            "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token"
        }
        Failure::Refused(Refusal::Auth(AuthRefusal::UserNameEmpty)) => {
            "rpc error: code = InvalidArgument desc = etcdserver: user name is empty"
        }
        // Nothing else comes out of a look at what somebody may read.
        _ => "rpc error: code = PermissionDenied desc = etcdserver: permission denied",
    }
}

/// A node's failure within a budget: when the client's own deadline was the shorter one, it is that which ended.
pub fn within(error: NodeError, client_deadline: Option<Duration>, budget: Duration) -> Failure {
    let deadline_was_the_clients = client_deadline.is_some_and(|deadline| deadline <= budget);
    match error {
        NodeError::TimedOut(_) | NodeError::ApplyTimedOut if deadline_was_the_clients => {
            Failure::ClientDeadline
        }
        other => Failure::Node(other),
    }
}

/// The transport's own "message too large", with the size and the limit it names, if that is what `message` says.
///
/// tonic refuses such a message before any service sees it, with a text of its own; clients know gRPC's.
pub fn too_large_in_transport(message: &str) -> Option<Failure> {
    let rest = message.strip_prefix("Error, decoded message length too large: found ")?;
    let (bytes, rest) = rest.split_once(" bytes, the limit is: ")?;
    let bytes_max = rest.strip_suffix(" bytes")?;
    Some(Failure::MessageTooLarge { bytes: bytes.parse().ok()?, bytes_max: bytes_max.parse().ok()? })
}

/// What a client is told whose requests could not be read any further, if the transport's own words do not fit.
pub fn broken_stream(status: &Status) -> Option<Failure> {
    match status.code() {
        Code::Cancelled => Some(Failure::WatchCanceled),
        _ => too_large_in_transport(status.message()),
    }
}

#[cfg(test)]
mod tests {
    use holdfast_mvcc::types::{LeaseId, Revision, Term};

    use super::*;

    #[test]
    fn codes_and_texts_are_those_of_the_contract() {
        let cases: Vec<(Failure, i32, &str)> = vec![
            (Invalid::EmptyKey.into(), 3, "etcdserver: key is not provided"),
            (Invalid::ValueProvided.into(), 3, "etcdserver: value is provided"),
            (Invalid::LeaseProvided.into(), 3, "etcdserver: lease is provided"),
            (
                Invalid::TooManyOperations { operations: 129, operations_max: 128 }.into(),
                3,
                "etcdserver: too many operations in txn request",
            ),
            (Invalid::TooDeep { depth_max: 32 }.into(), 3, "etcdserver: too many operations in txn request"),
            (Invalid::DuplicateKey.into(), 3, "etcdserver: duplicate key given in txn request"),
            (Invalid::EmptyOperation.into(), 3, "etcdserver: key not found"),
            (DecodeError::SortOption.into(), 3, "etcdserver: invalid sort option"),
            (DecodeError::CompareOption.into(), 3, "etcdserver: invalid compare option"),
            (Refusal::KeyNotFound.into(), 3, "etcdserver: key not found"),
            (Refusal::NoSpace.into(), 8, "etcdserver: mvcc: database space exceeded"),
            (Refusal::Corrupt.into(), 15, "etcdserver: corrupt cluster"),
            (
                Refusal::Compacted { requested: 1, compact_revision: Revision::new(4) }.into(),
                11,
                "etcdserver: mvcc: required revision has been compacted",
            ),
            (
                Refusal::FutureRevision { requested: 9, current: Revision::new(4) }.into(),
                11,
                "etcdserver: mvcc: required revision is a future revision",
            ),
            (NodeError::NoLeader.into(), 14, "etcdserver: no leader"),
            (NodeError::LeaderChanged.into(), 14, "etcdserver: leader changed"),
            (NodeError::TooLarge { bytes: 2, bytes_max: 1 }.into(), 3, "etcdserver: request is too large"),
            (
                NodeError::TooDeep { depth_max: 32 }.into(),
                3,
                "etcdserver: too many operations in txn request",
            ),
            (NodeError::TooManyRequests.into(), 8, "etcdserver: too many requests"),
            (NodeError::NoSpace.into(), 8, "etcdserver: mvcc: database space exceeded"),
            (NodeError::TimedOut(TimeoutCause::Plain).into(), 14, "etcdserver: request timed out"),
            (
                NodeError::TimedOut(TimeoutCause::LeaderFailure).into(),
                14,
                "etcdserver: request timed out, possibly due to previous leader failure",
            ),
            (
                NodeError::TimedOut(TimeoutCause::ConnectionLost).into(),
                14,
                "etcdserver: request timed out, possibly due to connection lost",
            ),
            (
                NodeError::ApplyTimedOut.into(),
                14,
                "etcdserver: request timed out, waiting for the applied index took too long",
            ),
            (NodeError::Stopped.into(), 14, "etcdserver: server stopped"),
            (Failure::ClientDeadline, 4, "etcdserver: context deadline exceeded"),
            (Failure::LeaderRequired, 14, "etcdserver: no leader"),
            (Failure::ClientApiVersion, 3, "etcdserver: invalid client api version"),
            (Failure::Learner, 9, "etcdserver: rpc not supported for learner"),
            (Failure::Store("sled: corrupt".to_owned()), 15, "etcdserver: corrupt cluster"),
            (Failure::Stopped, 14, "etcdserver: server stopped"),
            (Failure::StreamSorted, 12, "RangeStream does not support custom sort orders"),
            (Failure::StreamFiltered, 12, "RangeStream does not support revision filters"),
            (Failure::Unimplemented("Watch"), 12, "Watch is not served by this version of holdfast"),
            (
                Failure::MessageTooLarge { bytes: 2_187_274, bytes_max: 2_097_152 },
                8,
                "grpc: received message larger than max (2187274 vs. 2097152)",
            ),
        ];
        check(cases);
    }

    #[test]
    fn those_of_leases_are() {
        let lease = LeaseId(7);
        check(vec![
            (Refusal::LeaseNotFound { lease }.into(), 5, "etcdserver: requested lease not found"),
            (Refusal::LeaseExists { lease }.into(), 9, "etcdserver: lease already exists"),
            (
                Refusal::OtherTerm { judged: Term(1), applied: Term(2) }.into(),
                14,
                "etcdserver: leader changed",
            ),
            (Failure::LeaseTooLong, 11, "etcdserver: too large lease TTL"),
        ]);
    }

    #[test]
    fn those_of_locks_and_elections_are() {
        let step = Failure::step;
        let lease = LeaseId(7);
        check(vec![
            (step(Refusal::LeaseNotFound { lease }.into()), 2, "etcdserver: requested lease not found"),
            (step(Invalid::EmptyKey.into()), 2, "etcdserver: key is not provided"),
            (step(NodeError::NoLeader.into()), 14, "etcdserver: no leader"),
            (Failure::SessionExpired, 2, "mutex: session is expired"),
            (Failure::NoneElected, 2, "election: no leader"),
            (Failure::NotElected, 2, "election: not leader"),
            (Failure::ElectedMissing, 2, "\"leader\" field must be provided"),
            (
                Failure::TooManyWaiting,
                8,
                "etcdserver: too many calls wait for locks and elections on this member (--max-waiting-calls)",
            ),
        ]);
    }

    fn check(cases: Vec<(Failure, i32, &str)>) {
        for (failure, code, text) in cases {
            let (what, status) = (format!("{failure:?}"), Status::from(failure));
            assert_eq!((i32::from(status.code()), status.message()), (code, text), "{what}");
        }
    }

    #[test]
    fn those_of_snapshots_say_what_to_do() {
        check(vec![
            (
                NoSnapshot::TooMany.into(),
                8,
                "etcdserver: too many snapshots at a time on this member (--max-snapshot-streams)",
            ),
            (
                NoSnapshot::NoSpace { free_bytes: 5, needed_bytes: 9 }.into(),
                8,
                "etcdserver: a snapshot needs 9 bytes on the disk of this member's data directory, and 5 are free",
            ),
            (
                NoSnapshot::Disk(std::io::ErrorKind::StorageFull.into()).into(),
                13,
                "etcdserver: the snapshot cannot be written in this member's data directory: no storage space",
            ),
            (
                NoSnapshot::Replaced.into(),
                14,
                "etcdserver: the state of this member was replaced while the snapshot was written: try again",
            ),
        ]);
    }

    #[test]
    fn changes_of_members_are_refused_in_the_words_of_the_contract() {
        check(vec![
            (Failure::Change(ChangeError::NotFound), 5, "etcdserver: member not found"),
            (Failure::Change(ChangeError::IdTaken), 9, "etcdserver: member ID already exist"),
            (Failure::Change(ChangeError::UrlsTaken), 9, "etcdserver: Peer URLs already exists"),
            (
                Failure::Change(ChangeError::TooManyLearners),
                9,
                "etcdserver: too many learner members in cluster",
            ),
            (Failure::Change(ChangeError::NotLearner), 9, "etcdserver: can only promote a learner member"),
            (
                Failure::Change(ChangeError::NotReady),
                9,
                "etcdserver: can only promote a learner member which is in sync with leader",
            ),
            (
                Failure::Change(ChangeError::NotEnoughStarted),
                9,
                "etcdserver: re-configuration failed due to not enough started members",
            ),
            (Failure::Change(ChangeError::Unhealthy), 14, "etcdserver: unhealthy cluster"),
            (Failure::PeerUrls, 3, "etcdserver: given member URLs are invalid"),
            (TransferError::NotLeader.into(), 9, "etcdserver: not leader"),
            (TransferError::NoSuchVoter.into(), 9, "etcdserver: bad leader transferee"),
            (
                TransferError::TimedOut.into(),
                2,
                "etcdserver: request timed out, leader transfer took too long",
            ),
        ]);
    }

    #[test]
    fn a_failed_write_says_whether_it_may_have_happened() {
        let outcome = |error: NodeError| {
            let status = Status::from(Failure::Node(error));
            status.metadata().get(OUTCOME).map(|v| v.to_str().unwrap().to_owned()).unwrap()
        };
        assert_eq!(outcome(NodeError::LeaderChanged), "none");
        assert_eq!(outcome(NodeError::TimedOut(TimeoutCause::Plain)), "unknown");
        assert_eq!(outcome(NodeError::Stopped), "unknown");
        let refused = Status::from(Failure::from(Refusal::NoSpace));
        assert_eq!(refused.metadata().get(OUTCOME).unwrap(), "none");
    }

    #[test]
    fn a_timeout_within_the_clients_deadline_is_the_clients() {
        let second = Duration::from_secs(1);
        let timed_out = || NodeError::TimedOut(TimeoutCause::Plain);
        assert!(matches!(within(timed_out(), Some(second), 7 * second), Failure::ClientDeadline));
        assert!(matches!(within(timed_out(), Some(9 * second), 7 * second), Failure::Node(_)));
        assert!(matches!(within(timed_out(), None, 7 * second), Failure::Node(_)));
        assert!(matches!(
            within(NodeError::NoLeader, Some(second), 7 * second),
            Failure::Node(NodeError::NoLeader)
        ));
    }

    #[test]
    fn a_broken_stream_is_canceled_or_what_the_transport_says() {
        let canceled = Status::from(broken_stream(&Status::cancelled("reset")).unwrap());
        assert_eq!((i32::from(canceled.code()), canceled.message()), (1, "etcdserver: watch canceled"));
        let large =
            "Error, decoded message length too large: found 9 bytes, the limit is: 8 bytes".to_owned();
        let large = broken_stream(&Status::out_of_range(large));
        assert!(matches!(large, Some(Failure::MessageTooLarge { bytes: 9, bytes_max: 8 })), "{large:?}");
        assert!(broken_stream(&Status::internal("no protobuf")).is_none());
    }

    #[test]
    fn the_transports_refusal_is_recognised() {
        let text =
            "Error, decoded message length too large: found 2187274 bytes, the limit is: 2097152 bytes";
        assert!(matches!(
            too_large_in_transport(text),
            Some(Failure::MessageTooLarge { bytes: 2_187_274, bytes_max: 2_097_152 })
        ));
        assert!(too_large_in_transport("etcdserver: mvcc: required revision has been compacted").is_none());
    }
}
