//! Between wire messages and what the core speaks. Pure mappings; nothing is decided here.
//!
//! Invariants
//! - Decoding accepts what etcd accepts: range ends of one zero byte, limits and revisions below one, operands that do
//!   not match their compare's target. Checks of meaning belong to `holdfast_mvcc::validate`.
//! - A decoded command holds no receive buffer alive that is much larger than the command itself.
//!
//! Module map: [`request`] from the wire, [`response`] to the wire; [`auth`] permissions, both ways; [`watch`] both ways for watch streams, which are
//! encoded by hand so that a change is encoded once for all its watchers.

pub mod auth;
pub mod list;
pub mod request;
pub mod response;
#[cfg(test)]
mod tests;
pub mod watch;
#[cfg(test)]
mod watch_tests;
