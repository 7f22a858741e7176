//! The load generator, and benchmarks side by side with etcd.
//!
//! Nothing of it is here yet: later work fills this crate. Until then it says so and fails.

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let said = writeln!(
        std::io::stderr(),
        "holdfast-bench does nothing yet: for a first impression use etcdctl check perf, or holdfast demo --rate 1000"
    );
    // Without a standard error the exit code alone has to say it.
    drop(said);
    ExitCode::FAILURE
}
