//! What clients propose, and what evaluation answers.

use bytes::Bytes;

use crate::auth::{AuthChange, AuthRefusal};
use crate::types::{KeyRange, KeyValue, LeaseChange, LeaseId, LeaseRef, MemberId, Record, Revision, Term};

/// A replicated command. The closed set of what can change the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Creates or replaces one key.
    Put(Put),
    /// Deletes the keys of a range.
    DeleteRange(DeleteRange),
    /// Compares, then runs one of two lists of operations, atomically.
    Txn(Txn),
    /// Raises the compact revision.
    Compact(Compact),
    /// A member tells its name and client URLs.
    PublishMember(MemberAttributes),
    /// Raises an alarm, until it is cleared.
    RaiseAlarm(Alarm),
    /// Clears an alarm.
    ClearAlarm(Alarm),
    /// Creates a lease.
    LeaseGrant(LeaseGrant),
    /// Ends a lease and deletes its keys, because a client wants it.
    LeaseRevoke(LeaseId),
    /// Ends leases and deletes their keys, because their time is over.
    LeaseExpire(LeaseExpire),
    /// Notes how much time leases have left.
    LeaseCheckpoint(LeaseCheckpoint),
    /// Changes users, roles and permissions.
    Auth(AuthChange),
}

/// Creates or replaces one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// The key; never empty in a valid command.
    pub key: Bytes,
    /// The new value; empty and ignored with `ignore_value`.
    pub value: Bytes,
    /// The lease to attach to; `None` detaches.
    pub lease: Option<LeaseId>,
    /// Answer with the key's state before.
    pub prev_kv: bool,
    /// Keep the old value; the key must exist.
    pub ignore_value: bool,
    /// Keep the old lease; the key must exist.
    pub ignore_lease: bool,
}

/// Deletes the keys of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteRange {
    /// Which keys.
    pub range: KeyRange,
    /// Answer with the deleted keys' states.
    pub prev_kv: bool,
}

/// A read of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// Which keys.
    pub range: KeyRange,
    /// At most so many results; `None` means all.
    pub limit: Option<u64>,
    /// The revision to read at.
    pub at: ReadAt,
    /// The order of the results.
    pub order: SortOrder,
    /// What they are ordered by.
    pub target: SortTarget,
    /// Leave values out.
    pub keys_only: bool,
    /// Only count.
    pub count_only: bool,
    /// Lowest mod revision to return; 0 means no bound. All four bounds are inclusive.
    pub min_mod_revision: Revision,
    /// Highest mod revision to return; 0 means no bound.
    pub max_mod_revision: Revision,
    /// Lowest create revision to return; 0 means no bound.
    pub min_create_revision: Revision,
    /// Highest create revision to return; 0 means no bound.
    pub max_create_revision: Revision,
}

impl Range {
    /// Everything in a range with its values, as of now, in no order that is asked for.
    pub fn of(range: KeyRange) -> Self {
        Self {
            range,
            limit: None,
            at: ReadAt::Latest,
            order: SortOrder::None,
            target: SortTarget::Key,
            keys_only: false,
            count_only: false,
            min_mod_revision: Revision::NONE,
            max_mod_revision: Revision::NONE,
            min_create_revision: Revision::NONE,
            max_create_revision: Revision::NONE,
        }
    }
}

/// Which revision a read sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadAt {
    /// The newest.
    Latest,
    /// As it was at this revision.
    Revision(Revision),
}

/// The order of a range's results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SortOrder {
    /// Not asked for: ascending, but cut to the limit before sorting when the target is not the key.
    None,
    /// Ascending.
    Ascend,
    /// Descending.
    Descend,
}

/// What a range's results are ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SortTarget {
    /// The key.
    Key,
    /// The version.
    Version,
    /// The create revision.
    Create,
    /// The mod revision.
    Mod,
    /// The value, bytewise.
    Value,
}

/// Compares, then runs one of two lists of operations, atomically.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Txn {
    /// All must hold; none means true.
    pub compares: Vec<Compare>,
    /// Runs when all compares hold.
    pub success: Vec<Op>,
    /// Runs otherwise.
    pub failure: Vec<Op>,
}

/// One operation of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// A read.
    Range(Range),
    /// A put.
    Put(Put),
    /// A delete.
    DeleteRange(DeleteRange),
    /// A nested transaction; how deep is bounded by [`TXN_DEPTH_MAX`](crate::validate::TXN_DEPTH_MAX).
    Txn(Txn),
    /// The client set nothing; refused by validation.
    Unset,
}

/// A condition on every key of a range, against the state before the outermost transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compare {
    /// Which keys.
    pub range: KeyRange,
    /// The relation that must hold between the actual and the given value.
    pub relation: Relation,
    /// What is compared, with what.
    pub operand: Operand,
}

/// The relation of the actual to the given value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// Actual equals given.
    Equal,
    /// Actual is above given.
    Greater,
    /// Actual is below given.
    Less,
    /// Actual differs from given.
    NotEqual,
}

/// What is compared, with the given value. Numbers are as on the wire: a missing key counts as 0, except that a
/// `Value` compare on a missing key is always false.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operand {
    /// The version.
    Version(i64),
    /// The create revision.
    Create(i64),
    /// The mod revision.
    Mod(i64),
    /// The value, bytewise.
    Value(Bytes),
    /// The lease id.
    Lease(i64),
}

/// Raises the compact revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compact {
    /// As on the wire, may be zero or negative: the checks are part of evaluation.
    pub revision: i64,
}

/// What a member tells about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberAttributes {
    /// Which member.
    pub id: MemberId,
    /// Its name.
    pub name: String,
    /// Where clients reach it.
    pub client_urls: Vec<String>,
}

/// Something is wrong with a member. Ordered by member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alarm {
    /// Which member; as given, not checked.
    pub member: MemberId,
    /// What is wrong.
    pub kind: AlarmKind,
}

/// What is wrong with a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlarmKind {
    /// Its data has reached the quota: nothing that needs space is taken, on any member.
    NoSpace,
    /// Its data differs from the others': nothing is changed any more, on any member.
    Corrupt,
}

/// Creates a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseGrant {
    /// Its id.
    pub id: LeaseId,
    /// Its time to live in seconds. The bounds are checked before: they belong to who proposes.
    pub ttl_seconds: u64,
}

/// Leases that one command changes at most. What a longer list names beyond is passed over.
pub const LEASES_MAX: usize = 64;

/// Ends leases whose time is over. Those that do not exist are passed over, also when another has their id: the entry may
/// have waited for long, and the time of what was granted since is not over. All keys that go, go in one revision: lease
/// by lease in this order, those of one lease in key order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseExpire {
    /// The term in which the leader judged. In an entry of another term the command is refused.
    pub term: Term,
    /// Which leases; at most [`LEASES_MAX`].
    pub leases: Vec<LeaseRef>,
}

/// Notes how much time leases have left. Those that do not exist are passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseCheckpoint {
    /// As in [`LeaseExpire`]: a checkpoint that comes late could shorten what was renewed since.
    pub term: Term,
    /// How much of which; at most [`LEASES_MAX`].
    pub remaining: Vec<LeaseRemaining>,
}

/// How much time a lease has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseRemaining {
    /// Which one.
    pub lease: LeaseRef,
    /// In seconds; `None` means all that was granted.
    pub seconds: Option<u64>,
}

/// The deterministic result of a command: equal on every member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What the client gets; a refusal is an answer too, and changed nothing.
    pub response: Result<Response, Refusal>,
    /// The changes, in order of `id`; empty when nothing changed.
    pub records: Vec<Record>,
    /// What became of leases, in order; beside [`Outcome::records`], what the caller has to store.
    pub leases: Vec<LeaseChange>,
    /// The store's revision after the command.
    pub revision: Revision,
}

/// What a command answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// To [`Put`].
    Put(PutResponse),
    /// To [`DeleteRange`].
    DeleteRange(DeleteRangeResponse),
    /// To [`Txn`].
    Txn(TxnResponse),
    /// To [`Compact`].
    Compact,
    /// To [`MemberAttributes`].
    PublishMember,
    /// To [`Command::RaiseAlarm`] and [`Command::ClearAlarm`]: the alarm, unless there was none to clear.
    Alarm(Option<Alarm>),
    /// To [`Command::LeaseGrant`], [`Command::LeaseRevoke`], [`Command::LeaseExpire`] and [`Command::LeaseCheckpoint`].
    Lease,
    /// To [`Command::Auth`].
    Auth,
}

/// What a put answers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PutResponse {
    /// The key's state before, when asked for and there was one.
    pub prev_kv: Option<KeyValue>,
}

/// What a delete answers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeleteRangeResponse {
    /// How many keys were deleted.
    pub deleted: u64,
    /// Their states before, in key order, when asked for.
    pub prev_kvs: Vec<KeyValue>,
}

/// What a range answers, with its pairs where `P` puts them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RangeResponse<P = Vec<KeyValue>> {
    /// The keys, in the order asked for.
    pub kvs: P,
    /// True when the limit cut the result.
    pub more: bool,
    /// How many keys the range holds at that revision, whatever the limit and the filters.
    pub count: u64,
}

/// What a transaction answers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TxnResponse {
    /// Which list ran: true for `success`.
    pub succeeded: bool,
    /// One response per operation that ran, in order.
    pub responses: Vec<OpResponse>,
}

/// What one operation of a transaction answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpResponse {
    /// The revision for the inner header: of a write, the transaction's own when it has changed something so far.
    pub revision: Revision,
    /// The answer, of the operation's kind.
    pub result: OpResult,
}

/// The answer of one operation, of its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpResult {
    /// To [`Op::Range`].
    Range(RangeResponse),
    /// To [`Op::Put`].
    Put(PutResponse),
    /// To [`Op::DeleteRange`].
    DeleteRange(DeleteRangeResponse),
    /// To [`Op::Txn`].
    Txn(TxnResponse),
}

/// A refusal that every member reaches: part of the answer, nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// `ignore_value` or `ignore_lease` on a key that does not exist.
    #[error("the key to keep the value or lease of does not exist")]
    KeyNotFound,
    /// A put or a revoke names a lease that does not exist.
    #[error("lease {} not found", lease.0)]
    LeaseNotFound {
        /// The lease.
        lease: LeaseId,
    },
    /// A grant names a lease that exists.
    #[error("lease {} exists already", lease.0)]
    LeaseExists {
        /// The lease.
        lease: LeaseId,
    },
    /// The entry is of another term than the one in which the leader judged: it has been deposed since.
    #[error("judged in term {}, applied in term {}", judged.0, applied.0)]
    OtherTerm {
        /// The term in which the command was made.
        judged: Term,
        /// The entry's term.
        applied: Term,
    },
    /// A member's data has reached the quota.
    #[error("the alarm for missing space is active")]
    NoSpace,
    /// Users, roles and permissions forbid it.
    #[error("auth: {0}")]
    Auth(AuthRefusal),
    /// A member's data differs from the others'.
    #[error("the alarm for differing data is active")]
    Corrupt,
    /// The revision is below the compact revision (for a compaction: not above it).
    #[error("revision {requested} has been compacted, lowest is {}", compact_revision.get())]
    Compacted {
        /// What was asked for, as on the wire.
        requested: i64,
        /// The lowest readable revision; 0 when nothing was ever compacted.
        compact_revision: Revision,
    },
    /// The revision has not happened yet.
    #[error("revision {requested} is in the future, newest is {}", current.get())]
    FutureRevision {
        /// What was asked for.
        requested: i64,
        /// The newest revision.
        current: Revision,
    },
}

/// A request that must not be proposed: the client has to change it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// A key is empty.
    #[error("key is not provided")]
    EmptyKey,
    /// `ignore_value` came with a value.
    #[error("value is provided although it is to be kept")]
    ValueProvided,
    /// `ignore_lease` came with a lease.
    #[error("lease is provided although it is to be kept")]
    LeaseProvided,
    /// More operations in a transaction than allowed.
    #[error("{operations} operations in a transaction, at most {operations_max} are allowed")]
    TooManyOperations {
        /// How many there are.
        operations: usize,
        /// How many may be there.
        operations_max: usize,
    },
    /// Transactions nested deeper than allowed.
    #[error("transactions are nested deeper than {depth_max} levels")]
    TooDeep {
        /// How many may be one in the other.
        depth_max: usize,
    },
    /// A key is put twice, or put and deleted, in one branch.
    #[error("a key is put twice, or put and deleted, in one transaction branch")]
    DuplicateKey,
    /// An operation without content.
    #[error("an operation of the transaction is empty")]
    EmptyOperation,
}
