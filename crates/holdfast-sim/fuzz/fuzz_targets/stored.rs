//! What is in the stable store.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| holdfast_storage::fuzz::stored(input));
