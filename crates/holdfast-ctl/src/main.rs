//! The binary `holdfastctl`, with etcdctl's verbs and output and what the extensions add.
//!
//! Nothing of it is here yet: later work fills this crate. Until then it says so and fails, and etcdctl works against a
//! holdfast server.

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let said = writeln!(
        std::io::stderr(),
        "holdfastctl does nothing yet: use etcdctl, e.g. etcdctl --endpoints=127.0.0.1:2379 put hello world"
    );
    // Without a standard error the exit code alone has to say it.
    drop(said);
    ExitCode::FAILURE
}
