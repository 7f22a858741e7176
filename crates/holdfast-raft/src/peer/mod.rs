//! How members talk: one long-lived connection to each peer for requests, one more per snapshot.
//!
//! Module map: [`link`] the connection we open to a peer and keep; [`network`] openraft's requests over it;
//! [`server`] connections that peers open to us, `held` its answers; [`snapshot`] both ends of a snapshot transfer; `hello` who is who;
//! [`roster`] who must not take part; [`discover`] who the members are, for one who does not know.

pub(crate) mod discover;
mod held;
pub(crate) mod hello;
pub(crate) mod link;
pub(crate) mod network;
pub(crate) mod roster;
pub(crate) mod server;
pub(crate) mod snapshot;
#[cfg(test)]
mod tests;
