//! The client's requests, watches and what is built on them, against holdfast with one and three members, and against a
//! real etcd where there is one.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

mod auth;
mod backend;
#[path = "../support/etcd.rs"]
mod etcd;
#[path = "../support/relay.rs"]
mod relay;
mod requests;
mod sessions;
mod updates;
mod watch;
