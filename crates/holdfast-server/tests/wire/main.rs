//! End to end: real members of the test server, driven over their client ports.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

mod auth;
mod auto_compaction;
mod common;
mod elections;
mod gateway;
mod http;
mod keep_alive;
mod lining_up;
mod locks;
mod members;
mod metadata;
mod pieces;
mod pings;
mod quota;
mod range_stream;
mod single;
mod snapshot;
mod starting;
mod three;
mod watch_cluster;
mod watch_create;
mod watch_events;
mod watch_progress;
mod watch_slow;
mod watching;
