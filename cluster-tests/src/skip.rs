//! What a test leaves out, said aloud.

use std::io::Write;

/// Prints `skipped: WHAT: WHY` to standard error, past the capture of passing tests; `.ci/run` collects these lines.
pub fn skipped(what: &str, why: &str) {
    // A closed standard error leaves nobody to tell.
    drop(writeln!(std::io::stderr(), "skipped: {what}: {why}"));
}
