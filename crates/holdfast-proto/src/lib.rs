//! The protobuf messages and gRPC stubs of holdfast, generated from the workspace's `proto/`.
//!
//! What it is: one module per proto package, with messages, clients and servers, and the descriptors of all of them.
//! What it is not: a place for logic. Conversions live in the codec, network and service modules that name these types.
//!
//! Invariants
//! - Names, numbers, types and streaming kinds of the etcd packages equal `tests/wire_contract.txt`; a test compares
//!   them both ways.
//! - Every `bytes` field is [`bytes::Bytes`]: a decoded message shares the buffer it came in.
//! - Generated code needs no protoc: the build script uses protox.
//!
//! Module map: [`etcdserverpb`] (KV, Watch, Lease, Cluster, Maintenance, Auth), [`mvccpb`] (pairs and events),
//! [`authpb`] (users and roles), [`v3lockpb`], [`v3electionpb`]; [`internal`] (log entries, peers), which clients
//! never see; [`codec`] puts messages into bytes.

pub mod codec;

/// Declares the module of one proto package. Its docs are the comments of the proto files.
macro_rules! generated {
    ($(#[$doc:meta])* $name:ident, $package:literal) => {
        $(#[$doc])*
        #[allow(missing_docs, reason = "the proto files document what is not plain from its name")]
        #[allow(unreachable_pub, reason = "generated")]
        #[allow(clippy::all, clippy::pedantic, clippy::allow_attributes_without_reason, reason = "generated")]
        pub mod $name {
            tonic::include_proto!($package);
        }
    };
}

generated!(
    /// What is stored under a key, and what happened to it.
    mvccpb,
    "mvccpb"
);
generated!(
    /// Users, roles and permissions.
    authpb,
    "authpb"
);
generated!(
    /// The main client services: KV, Watch, Lease, Cluster, Maintenance, Auth.
    etcdserverpb,
    "etcdserverpb"
);
generated!(
    /// The lock service.
    v3lockpb,
    "v3lockpb"
);
generated!(
    /// The election service.
    v3electionpb,
    "v3electionpb"
);

/// Nested as the proto package is, so that references between packages resolve.
mod holdfast {
    pub(crate) mod internal {
        generated!(
            /// What members write to their logs and say to each other.
            v1,
            "holdfast.internal.v1"
        );
    }
}
pub use holdfast::internal::v1 as internal;

/// The encoded `google.protobuf.FileDescriptorSet` of every file in `proto/`, imports included, without comments.
/// For gRPC reflection and for tests that walk messages by name.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
