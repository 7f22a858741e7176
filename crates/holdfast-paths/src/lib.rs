//! What one step of a core path costs: by the clock, or in instructions.
//!
//! A bench of a crate names its paths once and hands them to [`main`]. `cargo bench -p CRATE` times them with criterion.
//! `scripts/check counts` has valgrind count the instructions of so many steps and of twice as many: what is between them
//! is the steps', without the program's start and without the path's set-up, and it is the same on a busy machine. The
//! counts that were found are kept in `scripts/lib/counts.txt`, and a path that has become dearer fails the gate.
//!
//! It is not a benchmark of the product: that is `holdfast-bench`. It is used by benches alone.

use std::hint::black_box;
use std::io::Write;

use criterion::Criterion;

/// One path.
#[derive(Debug, Clone, Copy)]
pub struct Path {
    /// Its name: words with dashes between them.
    pub name: &'static str,
    /// Sets it up; what is given takes one step each time.
    pub set_up: fn() -> Step,
}

/// Takes one step. What it gives depends on all of the work, so that none of it is left out.
pub type Step = Box<dyn FnMut() -> u64>;

/// What a bench was asked for.
enum Asked<'a> {
    /// The names, a line each.
    List,
    /// So many steps of a path, and nothing else.
    Steps { name: &'a str, steps: u64 },
    /// Times, from criterion.
    Times,
}

/// Runs a bench: `--paths` prints the names of its paths, `--steps N NAME` takes N steps of one; anything else is
/// criterion's.
///
/// # Panics
/// When there is no such path, or no such number.
pub fn main(paths: &[Path]) {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match asked(&arguments) {
        Asked::List => {
            let names: String = paths.iter().map(|path| format!("{}\n", path.name)).collect();
            std::io::stdout().write_all(names.as_bytes()).expect("standard output takes the names");
        }
        Asked::Steps { name, steps } => {
            let path = paths.iter().find(|path| path.name == name);
            let mut step = (path.expect("the path is one of --paths").set_up)();
            for _ in 0..steps {
                black_box(step());
            }
        }
        Asked::Times => {
            let mut criterion = Criterion::default().configure_from_args();
            for path in paths {
                let mut step = (path.set_up)();
                criterion.bench_function(path.name, |bencher| bencher.iter(&mut step));
            }
            criterion.final_summary();
        }
    }
}

fn asked(arguments: &[String]) -> Asked<'_> {
    match arguments {
        [first, ..] if first == "--paths" => Asked::List,
        [first, steps, name, ..] if first == "--steps" => {
            Asked::Steps { name, steps: steps.parse().expect("a number of steps") }
        }
        _ => Asked::Times,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static STEPS: Cell<u64> = const { Cell::new(0) };
    }

    #[test]
    fn what_is_asked_for_is_understood() {
        let of = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert!(matches!(asked(&of("--paths")), Asked::List));
        assert!(matches!(asked(&of("--steps 12 put")), Asked::Steps { name: "put", steps: 12 }));
        assert!(matches!(asked(&of("--bench put")), Asked::Times));
    }

    #[test]
    fn a_path_takes_steps_one_by_one() {
        let path = Path {
            name: "count",
            set_up: || {
                Box::new(|| {
                    STEPS.set(STEPS.get() + 1);
                    STEPS.get()
                })
            },
        };
        let mut step = (path.set_up)();
        assert_eq!((step(), step()), (1, 2));
    }
}
