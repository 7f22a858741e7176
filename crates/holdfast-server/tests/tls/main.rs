//! TLS end to end: real members, real handshakes over loopback, certificates made for each test.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

mod certs;
mod clients;
mod peers;
mod plain;
mod refused;
mod reload;
mod users;
