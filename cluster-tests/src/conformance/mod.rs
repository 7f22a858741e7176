//! Conformance: the same scripted calls to real etcd and to holdfast, and every difference that nobody has explained.
//!
//! What it is: scripts of calls as text (`cluster-tests/conformance/*.calls`), a runner that plays one script against
//! any set of members, a normaliser for what may differ by nature (ids, terms, sizes, hashes), and a checked-in table
//! of explained differences (`conformance/differences.txt`). Beside it the same for `etcdctl`: one list of command
//! lines, played by several versions of the tool against several servers, compared by output and exit status.
//!
//! Watch streams are part of it: [`player`] plays a script and waits for what is due to each watcher, `stream` is a
//! connection, [`inbox`] sorts what came on it, [`watcher`] knows what is due.
//!
//! What it is not: a judge of histories under faults; every script is a single client, one call after the other.
//!
//! Invariants
//! - Real etcd runs in the same test: no answer is stored, so none can be stale.
//! - A difference counts unless an entry of the table expects exactly it; an entry that explains nothing fails too.
//! - With several members the calls go around them in turn, so that forwarding and follower reads are covered.
//!
//! Module map: [`script`] reads scripts, [`placeholder`] fills revisions in, [`random`] writes some, [`call`] sends one call by reflection, [`normalise`] masks, [`differences`]
//! is the table with [`rules`] for kinds of difference, [`runner`] compares; [`members`] is a cluster to play against; [`etcdctl`] plays command lines,
//! [`printed`] masks their output. [`coverage`] and [`observed`] keep account of the fields that were there, and [`document`]
//! writes `docs/conformance.md` from it.

pub mod call;
mod contract;
pub mod coverage;
pub mod differences;
pub mod document;
pub mod etcdctl;
pub mod inbox;
pub mod members;
pub mod normalise;
pub mod observed;
pub mod placeholder;
pub mod player;
pub mod printed;
pub mod random;
pub mod rules;
pub mod runner;
pub mod script;
mod stream;
pub mod watcher;
