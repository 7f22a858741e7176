//! What of etcd's contract no descriptor says: paths of HTTP, and the texts of errors.

/// The paths of the JSON gateway below `/v3/`, each for one method.
pub(super) const GATEWAY_PATHS: [&str; 51] = [
    "kv/range",
    "kv/put",
    "kv/deleterange",
    "kv/txn",
    "kv/compaction",
    "watch",
    "lease/grant",
    "lease/revoke",
    "kv/lease/revoke",
    "lease/keepalive",
    "lease/timetolive",
    "kv/lease/timetolive",
    "lease/leases",
    "kv/lease/leases",
    "cluster/member/add",
    "cluster/member/remove",
    "cluster/member/update",
    "cluster/member/list",
    "cluster/member/promote",
    "maintenance/alarm",
    "maintenance/status",
    "maintenance/defragment",
    "maintenance/hash",
    "maintenance/hashkv",
    "maintenance/snapshot",
    "maintenance/transfer-leadership",
    "maintenance/downgrade",
    "auth/enable",
    "auth/disable",
    "auth/status",
    "auth/authenticate",
    "auth/user/add",
    "auth/user/get",
    "auth/user/list",
    "auth/user/delete",
    "auth/user/changepw",
    "auth/user/grant",
    "auth/user/revoke",
    "auth/role/add",
    "auth/role/get",
    "auth/role/list",
    "auth/role/delete",
    "auth/role/grant",
    "auth/role/revoke",
    "lock/lock",
    "lock/unlock",
    "election/campaign",
    "election/proclaim",
    "election/leader",
    "election/observe",
    "election/resign",
];

/// Paths for people, probes and dashboards.
pub(super) const HTTP_PATHS: [&str; 5] = ["/health", "/livez", "/readyz", "/version", "/metrics"];

/// An error as clients see it; some match on the text.
#[derive(Debug, Clone, Copy)]
pub(super) struct ErrorText {
    /// The code, by its name.
    pub(super) code: &'static str,
    /// The text.
    pub(super) text: &'static str,
    /// Why holdfast does not give it; empty when it does.
    pub(super) never: &'static str,
}

const fn given(code: &'static str, text: &'static str) -> ErrorText {
    ErrorText { code, text, never: "" }
}

const fn never(code: &'static str, text: &'static str, never: &'static str) -> ErrorText {
    ErrorText { code, text, never }
}

/// All of them.
pub(super) const ERRORS: [ErrorText; 73] = [
    given("InvalidArgument", "etcdserver: key is not provided"),
    given("InvalidArgument", "etcdserver: key not found"),
    given("InvalidArgument", "etcdserver: value is provided"),
    given("InvalidArgument", "etcdserver: lease is provided"),
    given("InvalidArgument", "etcdserver: too many operations in txn request"),
    given("InvalidArgument", "etcdserver: duplicate key given in txn request"),
    given("InvalidArgument", "etcdserver: invalid client api version"),
    given("InvalidArgument", "etcdserver: invalid sort option"),
    given("OutOfRange", "etcdserver: mvcc: required revision has been compacted"),
    given("OutOfRange", "etcdserver: mvcc: required revision is a future revision"),
    given("ResourceExhausted", "etcdserver: mvcc: database space exceeded"),
    given("NotFound", "etcdserver: requested lease not found"),
    given("FailedPrecondition", "etcdserver: lease already exists"),
    given("OutOfRange", "etcdserver: too large lease TTL"),
    given("Canceled", "etcdserver: watch canceled"),
    given("FailedPrecondition", "etcdserver: member ID already exist"),
    given("FailedPrecondition", "etcdserver: Peer URLs already exists"),
    given("FailedPrecondition", "etcdserver: re-configuration failed due to not enough started members"),
    given("InvalidArgument", "etcdserver: given member URLs are invalid"),
    given("NotFound", "etcdserver: member not found"),
    given("FailedPrecondition", "etcdserver: can only promote a learner member"),
    given("FailedPrecondition", "etcdserver: can only promote a learner member which is in sync with leader"),
    given("FailedPrecondition", "etcdserver: too many learner members in cluster"),
    never("FailedPrecondition", "etcdserver: cluster ID mismatch", "said by etcd's peers to each other"),
    given("InvalidArgument", "etcdserver: request is too large"),
    given("ResourceExhausted", "etcdserver: too many requests"),
    given("FailedPrecondition", "etcdserver: root user does not exist"),
    given("FailedPrecondition", "etcdserver: root user does not have root role"),
    given("FailedPrecondition", "etcdserver: user name already exists"),
    given("InvalidArgument", "etcdserver: user name is empty"),
    given("FailedPrecondition", "etcdserver: user name not found"),
    given("FailedPrecondition", "etcdserver: role name already exists"),
    given("FailedPrecondition", "etcdserver: role name not found"),
    given("InvalidArgument", "etcdserver: role name is empty"),
    given("InvalidArgument", "etcdserver: authentication failed, invalid user ID or password"),
    given("InvalidArgument", "etcdserver: permission not given"),
    given("PermissionDenied", "etcdserver: permission denied"),
    given("FailedPrecondition", "etcdserver: role is not granted to the user"),
    given("FailedPrecondition", "etcdserver: permission is not granted to the role"),
    given("FailedPrecondition", "etcdserver: authentication is not enabled"),
    given("Unauthenticated", "etcdserver: invalid auth token"),
    given("InvalidArgument", "etcdserver: invalid auth management"),
    never(
        "InvalidArgument",
        "etcdserver: revision of auth store is old",
        "a token that does not hold is told to be invalid: clients log in again for either",
    ),
    given("Unavailable", "etcdserver: no leader"),
    given("FailedPrecondition", "etcdserver: not leader"),
    given("Unavailable", "etcdserver: leader changed"),
    never("FailedPrecondition", "etcdserver: not capable", "said while members of etcd 2 are in the cluster"),
    given("Unavailable", "etcdserver: server stopped"),
    given("Unavailable", "etcdserver: request timed out"),
    given("Unavailable", "etcdserver: request timed out, possibly due to previous leader failure"),
    given("Unavailable", "etcdserver: request timed out, possibly due to connection lost"),
    given("Unavailable", "etcdserver: request timed out, waiting for the applied index took too long"),
    given("Unavailable", "etcdserver: unhealthy cluster"),
    given("DataLoss", "etcdserver: corrupt cluster"),
    given("FailedPrecondition", "etcdserver: rpc not supported for learner"),
    given("FailedPrecondition", "etcdserver: bad leader transferee"),
    given("InvalidArgument", "etcdserver: wrong downgrade target version format"),
    given("InvalidArgument", "etcdserver: invalid downgrade target version"),
    never(
        "FailedPrecondition",
        "etcdserver: cluster version not found during downgrade",
        "there is no downgrade",
    ),
    never(
        "FailedPrecondition",
        "etcdserver: cluster has a downgrade job in progress",
        "there is no downgrade",
    ),
    given("FailedPrecondition", "etcdserver: no inflight downgrade job"),
    never("Canceled", "etcdserver: request canceled", "gRPC says it to who gives up"),
    given("DeadlineExceeded", "etcdserver: context deadline exceeded"),
    given("Unknown", "etcdserver: unknown method"),
    given("Unknown", "etcdserver: request timed out, leader transfer took too long"),
    given("Unknown", "auth: authentication failed, password was given for no password user"),
    given("Unknown", "auth: token signing attempted with verify-only key"),
    given("Unknown", "election: no leader"),
    given("Unknown", "election: not leader"),
    given("Unknown", "\"leader\" field must be provided"),
    given("Unknown", "mutex: session is expired"),
    given("Unimplemented", "RangeStream does not support custom sort orders"),
    given("Unimplemented", "RangeStream does not support revision filters"),
];

/// Fields of answers that neither etcd nor holdfast ever sets: the method, how the names begin, and why.
pub(super) const UNSET: [(&str, &str, &str); 6] = [
    ("LeaseGrant", "LeaseGrantResponse.error", "errors have a status"),
    ("Snapshot", "ResponseHeader.", "there is no header"),
    ("Defragment", "ResponseHeader.", "there is no header"),
    ("MoveLeader", "ResponseHeader.", "there is no header"),
    ("Downgrade", "DowngradeResponse.", "holdfast refuses every version: there is none to go down to"),
    ("Downgrade", "ResponseHeader.", "holdfast refuses every version: there is none to go down to"),
];
