//! One member of a holdfast cluster, from its client port down: what the binary `holdfast` runs.
//!
//! It reads the configuration, claims the data directory, starts log, storage and consensus, and serves etcd's gRPC
//! services together with health, version and metrics over HTTP on one port.
//!
//! # What it is not
//! It holds no state of its own: commands go to `holdfast-raft`, reads to `holdfast-storage`. It knows nothing of
//! openraft or of storage engines.
//!
//! # Invariants
//! - Nothing below [`config`] reads the environment. What cannot work is refused before anything on disk is touched.
//! - [`status`] alone makes statuses for clients; [`codec`], [`port`] and the services alone name generated types.
//! - A linearizable read is answered from local state behind a confirmation that began after the request arrived.
//! - Every task is owned by [`server::Server`] and ends with it.
//!
//! # Module map
//! [`config`], [`limits`], [`identity`], [`joining`], [`data_dir`] before the start; [`server`] the order of start and stop;
//! [`serve`], [`listener`], [`connection`], [`port`], [`cork`], [`pings`] the client port; [`tls`] certificates of all ports; [`services`] gRPC, [`http`] the plain side, [`frontend`] what both share;
//! [`watch`] the watch streams; [`lines`] what locks and elections wait in; [`digests`] whether the members agree; [`auto_compaction`] history that goes by itself, [`quota`] when there is too much of it; [`backup`] etcd's database files;
//! [`codec`], [`status`] the wire; [`metrics`], [`monitoring`], [`logging`]; [`demo`], [`healthcheck`] the other commands.

pub mod auth;
pub mod auto_compaction;
pub mod backup;
pub mod codec;
pub mod config;
pub mod connection;
pub mod cork;
pub mod data_dir;
pub mod demo;
pub mod digests;
pub mod error;
pub mod frontend;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
pub mod gateway;
pub mod healthcheck;
pub mod http;
pub mod identity;
pub mod joining;
pub mod limits;
pub mod lines;
pub mod listener;
pub mod logging;
pub mod metrics;
pub mod monitoring;
pub mod pings;
pub mod port;
pub mod quota;
pub mod receiving;
pub mod serve;
pub mod server;
pub mod services;
pub mod status;
pub mod tls;
pub mod version;
pub mod watch;
