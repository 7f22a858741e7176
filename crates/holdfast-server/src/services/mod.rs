//! The gRPC services: translation only.
//!
//! Each checks the call, decodes, asks the [`crate::frontend`], encodes. What later work fills answers Unimplemented,
//! so that reflection already lists it.
//!
//! Module map: [`kv`], [`lease`], [`lock`], [`election`], [`cluster`], [`maintenance`], [`watch`], [`auth`] serve;
//! [`range_stream`] is long lists, [`snapshot`] the state as a file.

pub mod auth;
pub mod cluster;
pub mod election;
pub mod kv;
pub mod lease;
pub mod lock;
pub mod maintenance;
pub mod range_stream;
pub mod snapshot;
pub mod watch;

use tonic::Status;

/// The stream type of methods that never answer with one.
pub type NoStream<T> = tokio_stream::Empty<Result<T, Status>>;
