//! Command lines and configuration files.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| holdfast_server::fuzz::config(input));
