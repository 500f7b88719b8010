//! Layers side by side, their results in order.

use crate::{Error, Result};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Whose result is taken next.
struct Turn<F> {
    next: usize,
    failed: Option<Error>,
    take: F,
}

/// Calls `make` for every item, as many at a time as there are threads, and gives the results to `take` in the order of
/// the items: a thread whose item is not next waits, so that no more results than threads exist. The error is that of the
/// first item that fails, whatever the number of threads; items after it are not begun, or are in vain.
pub fn each<I: Sync, T>(
    items: &[I],
    make: impl Fn(&I) -> Result<T> + Sync,
    take: impl FnMut(usize, T) -> Result<()> + Send,
) -> Result<()> {
    let begun = AtomicUsize::new(0);
    let turn = Mutex::new(Turn { next: 0, failed: None, take });
    let passed = Condvar::new();
    // threads of our own: a thread of the pool that waits for a part of its layer would begin another layer meanwhile
    let work = || {
        let _end = Wake(&turn, &passed);
        loop {
            let i = begun.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(i) else { break };
            let made = make(item);
            let waiting = |t: &mut Turn<_>| t.next != i && t.failed.is_none();
            let mut turn = passed.wait_while(lock(&turn), waiting).unwrap_or_else(PoisonError::into_inner);
            if turn.failed.is_some() {
                break;
            }
            if let Err(e) = made.and_then(|made| (turn.take)(i, made)) {
                turn.failed = Some(e);
            }
            turn.next += 1;
            drop(turn);
            passed.notify_all();
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..rayon::current_num_threads().min(items.len()) {
            scope.spawn(work);
        }
    });
    let turn = turn.into_inner().unwrap_or_else(PoisonError::into_inner);
    turn.failed.map_or(Ok(()), Err)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A thread that panics must not leave the others waiting for its turn; the panic goes on when all have ended.
struct Wake<'a, F>(&'a Mutex<Turn<F>>, &'a Condvar);

impl<F> Drop for Wake<'_, F> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            lock(self.0).failed = Some(Error::Usage("a layer could not be started".into()));
            self.1.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_and_the_first_error_counts() {
        let items: Vec<usize> = (0..200).collect();
        let mut seen = Vec::new();
        let slow = |i: &usize| {
            std::thread::sleep(std::time::Duration::from_micros((i * 7919 % 13) as u64 * 20));
            Ok(*i)
        };
        each(&items, slow, |i, made| {
            assert_eq!(i, made);
            seen.push(made);
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, items);
        let e = each(&items, |i| if *i < 50 { Ok(()) } else { Err(Error::Usage(i.to_string())) }, |_, ()| Ok(()));
        assert_eq!(e.unwrap_err().to_string(), "50");
        let e = each(&items, |_| Ok(()), |i, ()| if i < 7 { Ok(()) } else { Err(Error::Usage(i.to_string())) });
        assert_eq!(e.unwrap_err().to_string(), "7");
        each(&Vec::<usize>::new(), |_| Ok(()), |_, ()| Ok(())).unwrap();
    }

    #[test]
    #[should_panic(expected = "a scoped thread panicked")]
    fn a_panic_ends_all_threads() {
        let items: Vec<usize> = (0..20).collect();
        let _ = each(&items, |i| if *i == 3 { panic!("three") } else { Ok(()) }, |_, ()| Ok(()));
    }
}
