//! Gives a fuzz target every input that is kept for it: the tests of the crates that have targets do so.

use std::path::Path;

/// The inputs in `corpus/<name>`, one after the other. Panics when there is none.
pub(crate) fn replay(name: &str, target: impl Fn(&[u8])) {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../holdfast-sim/fuzz/corpus").join(name);
    let mut inputs: Vec<_> =
        kept.read_dir().expect("inputs are kept").map(|entry| entry.expect("a file").path()).collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "no input is kept for {name}");
    for path in inputs {
        let input = std::fs::read(&path).expect("an input can be read");
        // Told when the target panics.
        eprintln!("{}", path.display());
        target(&input);
    }
}
