//! Real processes on this machine: finding the binary, free ports, starting, killing, pausing, starting again; the network
//! between them and the disks below them.
//!
//! Everything that is started is stopped again when its owner is dropped, on a panic too. Traffic stays on loopback.

pub mod binary;
pub mod cluster;
pub mod disk;
pub mod network;
pub mod ports;
pub mod process;
pub mod scrape;
