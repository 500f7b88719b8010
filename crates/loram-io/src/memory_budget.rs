//! A limit on the memory that code of a stranger, such as a chat template, may take on this thread.
//!
//! The library opens budgets; a program keeps them by an allocator that reports to [`changed`]. Without such an allocator
//! they have no effect.

use std::cell::Cell;

#[derive(Debug, Clone, Copy)]
struct Budget {
    left: isize,
    /// The line to print when it is used up.
    message: &'static str,
}

thread_local! {
    static BUDGET: Cell<Option<Budget>> = const { Cell::new(None) };
}

/// Runs `f`, which may take at most so many bytes more than it gives back.
pub(crate) fn within<T>(bytes: usize, message: &'static str, f: impl FnOnce() -> T) -> T {
    struct Restore(Option<Budget>);
    impl Drop for Restore {
        fn drop(&mut self) {
            BUDGET.set(self.0);
        }
    }
    let left = isize::try_from(bytes).unwrap_or(isize::MAX);
    let _restore = Restore(BUDGET.replace(Some(Budget { left, message })));
    f()
}

/// Counts memory taken on this thread, in bytes; less than 0 if it is given back. Neither allocates nor panics. The answer
/// is the message of the budget that this exceeds, if any: the program cannot go on, since allocations cannot fail.
pub fn changed(bytes: isize) -> Option<&'static str> {
    let mut budget = BUDGET.get()?;
    budget.left = budget.left.saturating_sub(bytes);
    BUDGET.set(Some(budget));
    (budget.left < 0).then_some(budget.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_ends_with_its_scope_and_counts_what_is_given_back() {
        assert_eq!(changed(1 << 40), None);
        within(100, "too much", || {
            assert_eq!(changed(90), None);
            assert_eq!(changed(-80), None);
            assert_eq!(changed(85), None);
            within(5, "inner", || assert_eq!(changed(6), Some("inner")));
            assert_eq!(changed(10), Some("too much"));
        });
        assert_eq!(changed(1 << 40), None);
    }
}
