//! Checkpoints of the key index.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| holdfast_storage::fuzz::checkpoint(input));
