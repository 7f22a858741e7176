//! Deterministic simulation of the real crates: their code, unchanged, on a simulated disk, clock, network and random
//! source, in one thread, so that a run is a function of its seed.
//!
//! # How it stays repeatable
//! Everything runs on one current-thread tokio runtime with paused time: when no task can run, the clock jumps to the
//! next timer. All randomness comes from generators seeded by the run's seed, each owner with its own. Loops that
//! have a thread of their own in production are tasks here.
//!
//! # What it is not
//! It has no second implementation of anything: a member here is the real log, storage and consensus code. sled and redb
//! do their own file access and cannot run here; the stable store is kept by a small engine of the storage crate that
//! writes to the simulated disk and keeps the same contract.
//!
//! # Module map
//! [`world`] clock, random source and task spawner; [`network`] links that delay, cut and break; [`disk`] a disk that
//! loses, tears and reorders what was not synced; [`cluster`] three to five members under faults, with judges and a
//! trace.

pub mod cluster;
pub mod disk;
pub mod network;
pub mod world;
