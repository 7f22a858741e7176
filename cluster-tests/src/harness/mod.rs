//! Real processes on this machine: finding the binary, free ports, starting, killing, pausing, starting again.
//!
//! Everything that is started is stopped again when its owner is dropped, on a panic too. Traffic stays on loopback.

pub mod binary;
pub mod cluster;
pub mod ports;
pub mod process;
pub mod proxy;
pub mod scrape;
