//! Panics end the process, but for those of foreign code that is called through [`caught`].

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};

thread_local! {
    /// True while this thread runs code whose panic is caught.
    static IS_CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// From here on a panic is reported, then ends the process, whichever thread it is on, unless it is [`caught`]. A member of
/// which one thread is gone would go on and answer nothing.
pub fn end_the_process() {
    let report = take_hook();
    set_hook(Box::new(move |panic| {
        report(panic);
        if !IS_CAUGHT.get() {
            std::process::abort();
        }
    }));
}

/// Runs code that may panic over what it reads from a disk; gives what it says then. What it was working on must not be
/// used again.
///
/// # Errors
/// The message of the panic.
pub fn caught<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    let before = IS_CAUGHT.replace(true);
    let result = catch_unwind(AssertUnwindSafe(run));
    IS_CAUGHT.set(before);
    result.map_err(|panic| message(&*panic))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "it did not say why".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_caught_with_its_message() {
        assert_eq!(caught(|| 7), Ok(7));
        assert_eq!(caught(|| panic!("as text")), Err::<(), _>("as text".to_owned()));
        assert_eq!(caught(|| panic!("number {}", 1)), Err::<(), _>("number 1".to_owned()));
        assert!(!IS_CAUGHT.get(), "what runs behind it is not caught");
    }
}
