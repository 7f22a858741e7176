//! What log entries carry.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| holdfast_raft::fuzz::log_entry(input));
