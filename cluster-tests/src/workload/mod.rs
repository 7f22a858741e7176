//! What is done to a cluster: load, faults, and the reading afterwards that the judges get.

pub mod apiserver;
pub mod chaos;
pub mod chronicle;
pub mod collector;
pub mod compares;
pub mod crash;
pub mod dump_latency;
pub mod dump_policy;
pub mod failover;
pub mod first_ack;
pub mod hostile;
pub mod kill;
pub mod lease_fencing;
pub mod replace;
pub mod sdk;
pub mod verify;
pub mod watch;
pub mod writers;
