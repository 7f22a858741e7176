//! The rule of each RPC. Every handler admits its call under one of these, so that none is forgotten: see
//! [`Frontend::admit`](crate::frontend::Frontend::admit). A test holds the list against the descriptors.

/// Who may make a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Anybody. A token is not looked at.
    Open,
    /// Who has the role root, as of a confirmation by the leader.
    Root,
    /// Who has the role root, as of what this member has: what is done concerns this member alone, and has to be possible
    /// while there is no leader.
    RootHere,
    /// Who may touch the keys that it touches, or may do what it does: judged where that is known, and for what is
    /// replicated once more when it is evaluated.
    Judged,
    /// As [`Rule::Judged`], for each message of the client by itself: the stream is open to anybody.
    EachJudged,
}

/// An RPC and who may call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rpc {
    /// `package.Service/Method`.
    pub path: &'static str,
    /// Who may call it.
    pub rule: Rule,
    /// What is needed, in words.
    pub needs: &'static str,
}

macro_rules! rpcs {
    ($($name:ident $path:literal $rule:ident $needs:literal;)*) => {
        $(#[doc = $needs] pub const $name: Rpc = Rpc { path: $path, rule: Rule::$rule, needs: $needs };)*
        /// All of them.
        pub const ALL: &[Rpc] = &[$($name),*];
    };
}

rpcs! {
    RANGE "etcdserverpb.KV/Range" Judged "READ on the range";
    RANGE_STREAM "etcdserverpb.KV/RangeStream" Judged "READ on the range, with each piece";
    PUT "etcdserverpb.KV/Put" Judged "WRITE on the key and on all keys of the lease; READ on the key with prev_kv";
    DELETE_RANGE "etcdserverpb.KV/DeleteRange" Judged "WRITE on the range; READ on it with prev_kv";
    TXN "etcdserverpb.KV/Txn" Judged "READ for each compare, and what each operation of both branches needs, nested ones too";
    COMPACT "etcdserverpb.KV/Compact" Judged "the role root";
    WATCH "etcdserverpb.Watch/Watch" EachJudged "READ on the range, when a watcher is created";
    LEASE_GRANT "etcdserverpb.Lease/LeaseGrant" Judged "a user";
    LEASE_REVOKE "etcdserverpb.Lease/LeaseRevoke" Judged "WRITE on all keys of the lease";
    LEASE_KEEP_ALIVE "etcdserverpb.Lease/LeaseKeepAlive" EachJudged "WRITE on all keys of the lease";
    LEASE_TIME_TO_LIVE "etcdserverpb.Lease/LeaseTimeToLive" Judged "a user; READ on all keys of the lease when they are asked for";
    LEASE_LEASES "etcdserverpb.Lease/LeaseLeases" Judged "READ on all keys of all leases";
    MEMBER_ADD "etcdserverpb.Cluster/MemberAdd" Root "the role root";
    MEMBER_REMOVE "etcdserverpb.Cluster/MemberRemove" Root "the role root";
    MEMBER_UPDATE "etcdserverpb.Cluster/MemberUpdate" Root "the role root";
    MEMBER_PROMOTE "etcdserverpb.Cluster/MemberPromote" Root "the role root";
    MEMBER_LIST "etcdserverpb.Cluster/MemberList" Open "nothing: clients look for members before they log in";
    ALARM "etcdserverpb.Maintenance/Alarm" Judged "a user; the role root to raise or clear one";
    STATUS "etcdserverpb.Maintenance/Status" Open "nothing: clients look at members before they log in";
    DEFRAGMENT "etcdserverpb.Maintenance/Defragment" RootHere "the role root";
    HASH "etcdserverpb.Maintenance/Hash" RootHere "the role root";
    HASH_KV "etcdserverpb.Maintenance/HashKV" RootHere "the role root";
    SNAPSHOT "etcdserverpb.Maintenance/Snapshot" RootHere "the role root";
    MOVE_LEADER "etcdserverpb.Maintenance/MoveLeader" Root "the role root";
    DOWNGRADE "etcdserverpb.Maintenance/Downgrade" Root "the role root";
    AUTH_ENABLE "etcdserverpb.Auth/AuthEnable" Judged "the role root";
    AUTH_DISABLE "etcdserverpb.Auth/AuthDisable" Judged "the role root";
    AUTH_STATUS "etcdserverpb.Auth/AuthStatus" Open "nothing";
    AUTHENTICATE "etcdserverpb.Auth/Authenticate" Open "a password";
    USER_ADD "etcdserverpb.Auth/UserAdd" Root "the role root";
    USER_GET "etcdserverpb.Auth/UserGet" Judged "the role root, or to be that user";
    USER_LIST "etcdserverpb.Auth/UserList" Judged "the role root";
    USER_DELETE "etcdserverpb.Auth/UserDelete" Judged "the role root";
    USER_CHANGE_PASSWORD "etcdserverpb.Auth/UserChangePassword" Root "the role root";
    USER_GRANT_ROLE "etcdserverpb.Auth/UserGrantRole" Judged "the role root";
    USER_REVOKE_ROLE "etcdserverpb.Auth/UserRevokeRole" Judged "the role root";
    ROLE_ADD "etcdserverpb.Auth/RoleAdd" Judged "the role root";
    ROLE_GET "etcdserverpb.Auth/RoleGet" Judged "the role root, or that role";
    ROLE_LIST "etcdserverpb.Auth/RoleList" Judged "the role root";
    ROLE_DELETE "etcdserverpb.Auth/RoleDelete" Judged "the role root";
    ROLE_GRANT_PERMISSION "etcdserverpb.Auth/RoleGrantPermission" Root "the role root";
    ROLE_REVOKE_PERMISSION "etcdserverpb.Auth/RoleRevokePermission" Judged "the role root";
    LOCK "v3lockpb.Lock/Lock" Judged "READ and WRITE on the keys below the name";
    UNLOCK "v3lockpb.Lock/Unlock" Judged "WRITE on the key";
    CAMPAIGN "v3electionpb.Election/Campaign" Judged "READ and WRITE on the keys below the name";
    PROCLAIM "v3electionpb.Election/Proclaim" Judged "READ and WRITE on the key";
    LEADER "v3electionpb.Election/Leader" Judged "READ on the keys below the name";
    OBSERVE "v3electionpb.Election/Observe" Judged "READ on the keys below the name, with each look";
    RESIGN "v3electionpb.Election/Resign" Judged "READ and WRITE on the key";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message;
    use prost_types::FileDescriptorSet;

    use super::*;

    /// A method that is added to the contract does not pass until it has a rule.
    #[test]
    fn every_rpc_has_one_rule() {
        let set = FileDescriptorSet::decode(holdfast_proto::FILE_DESCRIPTOR_SET).unwrap();
        let mut served = BTreeSet::new();
        for file in &set.file {
            for service in file.service.iter().filter(|_| file.package() != "holdfast.internal.v1") {
                for method in &service.method {
                    served.insert(format!("{}.{}/{}", file.package(), service.name(), method.name()));
                }
            }
        }
        let ruled: BTreeSet<String> = ALL.iter().map(|rpc| rpc.path.to_owned()).collect();
        assert_eq!(ruled.len(), ALL.len(), "no RPC has two rules");
        assert_eq!(ruled, served);
    }
}
