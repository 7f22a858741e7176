//! What peers say.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| holdfast_raft::fuzz::peer_message(input));
