//! A log opened over damaged files.
#![no_main]

use std::path::Path;
use std::sync::Arc;

use holdfast_env::Disk;
use holdfast_sim::disk::SimDisk;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let disk: Arc<dyn Disk> = SimDisk::new(1).mount();
    holdfast_log::fuzz::log_open(input, &disk, Path::new("/log"));
});
