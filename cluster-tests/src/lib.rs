//! The harness that starts real processes, breaks them, records what clients saw, and judges it.
//!
//! It shares no code with what it judges: of the workspace it uses the generated wire types alone, so that the same
//! workloads run against real etcd as the control. Judges are pure functions of what was recorded, and each of them is
//! tested with doctored results that it has to catch.
//!
//! Module map: [`harness`] (processes, their network and disks), [`nemesis`] (what breaks them), [`client`] (one call, one outcome), [`workload`] (what is done),
//! [`judge`] (what it must have led to), [`watch`] (etcdctl's commands that go on), [`mutants`] (planted mistakes that all this has to find), [`conformance`] and [`differ`] (call by call beside real etcd), [`skip`] (what was left out, said aloud).

pub mod client;
pub mod conformance;
pub mod differ;
pub mod harness;
pub mod judge;
pub mod mutants;
pub mod nemesis;
pub mod skip;
pub mod watch;
pub mod workload;
