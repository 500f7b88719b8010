//! Layers side by side, their results in order.

use crate::Result;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Layers done, layers in all, the layer that was finished. Called on the calling thread.
pub type Progress<'a> = &'a dyn Fn(usize, usize, &str);

/// Whose result is taken next.
struct Turn<T> {
    next: usize,
    made: Option<Result<T>>,
    /// Nothing is taken any more: a thread or `take` failed, or all is done.
    stopped: bool,
}

/// Calls `make` for every item, as many at a time as there are threads, and gives the results to `take` on the calling
/// thread, in the order of the items: a thread whose item is not next waits, so that no more results exist than threads
/// and one. The error is that of the first item that fails, whatever the number of threads; items after it are not begun,
/// or are in vain.
pub fn each<I: Sync, T: Send>(
    items: &[I],
    make: impl Fn(&I) -> Result<T> + Sync,
    mut take: impl FnMut(usize, T) -> Result<()>,
) -> Result<()> {
    let begun = AtomicUsize::new(0);
    let turn = Mutex::new(Turn { next: 0, made: None, stopped: false });
    let changed = Condvar::new();
    // threads of our own: a thread of the pool that waits for a part of its layer would begin another layer meanwhile
    let work = || {
        let _stop = StopOnPanic(&turn, &changed);
        loop {
            let i = begun.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(i) else { break };
            let made = make(item);
            let waiting = |t: &mut Turn<T>| !(t.stopped || t.next == i && t.made.is_none());
            let mut turn = changed.wait_while(lock(&turn), waiting).unwrap_or_else(PoisonError::into_inner);
            if turn.stopped {
                break;
            }
            turn.made = Some(made);
            drop(turn);
            changed.notify_all();
        }
    };
    std::thread::scope(|scope| {
        let _stop = Stop(&turn, &changed);
        for _ in 0..rayon::current_num_threads().min(items.len()) {
            scope.spawn(work);
        }
        for i in 0..items.len() {
            let waiting = |t: &mut Turn<T>| t.made.is_none() && !t.stopped;
            let mut turn = changed.wait_while(lock(&turn), waiting).unwrap_or_else(PoisonError::into_inner);
            // a thread panicked: the scope passes its panic on
            let Some(made) = turn.made.take() else { break };
            turn.next = i + 1;
            drop(turn);
            changed.notify_all();
            take(i, made?)?;
        }
        Ok(())
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends the work of all threads when it is dropped.
struct Stop<'a, T>(&'a Mutex<Turn<T>>, &'a Condvar);

impl<T> Drop for Stop<'_, T> {
    fn drop(&mut self) {
        lock(self.0).stopped = true;
        self.1.notify_all();
    }
}

/// The same when its thread panics, which must not leave the others waiting; a thread without more items ends alone.
struct StopOnPanic<'a, T>(&'a Mutex<Turn<T>>, &'a Condvar);

impl<T> Drop for StopOnPanic<'_, T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            drop(Stop(self.0, self.1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

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
