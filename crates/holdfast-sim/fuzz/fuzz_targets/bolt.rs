//! Database files as etcd has them.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| holdfast_bolt::fuzz::database(input));
