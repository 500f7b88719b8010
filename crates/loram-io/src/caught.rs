//! Panics of libraries as errors: some of them panic on files that nobody meant them to read.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs a function of a library; a panic in it is an error with its message, and prints nothing.
///
/// The panic hook of the program stays in place for all other panics.
pub(crate) fn caught<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = take_hook();
        set_hook(Box::new(move |info| {
            if !QUIET.get() {
                others(info);
            }
        }));
    });
    let before = QUIET.replace(true);
    // what `run` changes is given up, or only read, after an error
    let done = catch_unwind(AssertUnwindSafe(run));
    QUIET.set(before);
    done.map_err(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref::<&str>().copied());
        text.unwrap_or("no message").lines().next().unwrap_or_default().to_string()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_message() {
        assert_eq!(caught(|| 3), Ok(3));
        assert_eq!(
            caught(|| [1][std::hint::black_box(5)]).unwrap_err(),
            "index out of bounds: the len is 1 but the index is 5"
        );
        assert_eq!(caught(|| panic!("{} is {}", "this", "why")).unwrap_err() as String, "this is why");
        assert!(!QUIET.get());
    }
}
