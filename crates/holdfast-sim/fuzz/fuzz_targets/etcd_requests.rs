//! What clients send.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| holdfast_server::fuzz::etcd_requests(input));
