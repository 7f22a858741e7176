//! Records of a log.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| holdfast_log::fuzz::log_records(input));
