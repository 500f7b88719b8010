//! Faults on request, for tests: the n-th change of the file system kills the program, fails, or freezes the disk.
//!
//! A test in the same process uses [`with`], which concerns its own thread. A test that starts the program sets
//! `LORAM_FAULT` to `kill@N`, `freeze@N`, `ENOSPC@N` or `EIO@N`; only debug builds look at it.

use std::cell::RefCell;
use std::io;
use std::sync::{Mutex, OnceLock};

/// The fault at the chosen change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing; changes are only counted.
    None,
    /// The program is killed, as by a power cut.
    Kill,
    /// This change and all later ones fail and change nothing: what a killed program leaves, without killing the test.
    Freeze,
    /// This change fails with an error number of the system.
    Fail(i32),
}

/// A fault and when it happens.
#[derive(Debug)]
struct Plan {
    fault: Fault,
    /// Number of the change, from 1.
    at: usize,
    seen: usize,
}

impl Plan {
    fn point(&mut self) -> io::Result<()> {
        self.seen += 1;
        match self.fault {
            Fault::Freeze if self.seen >= self.at => Err(io::Error::other("the disk is frozen")),
            _ if self.seen != self.at => Ok(()),
            Fault::Kill => kill(),
            Fault::Fail(number) => Err(io::Error::from_raw_os_error(number)),
            Fault::None | Fault::Freeze => Ok(()),
        }
    }
}

thread_local! {
    static OF_THREAD: RefCell<Option<Plan>> = const { RefCell::new(None) };
}

/// Every change of the file system passes here first.
pub(crate) fn point() -> io::Result<()> {
    OF_THREAD.with_borrow_mut(|plan| plan.as_mut().map_or(Ok(()), Plan::point))?;
    if !cfg!(debug_assertions) {
        return Ok(());
    }
    static OF_PROCESS: OnceLock<Option<Mutex<Plan>>> = OnceLock::new();
    let plan = OF_PROCESS.get_or_init(|| Some(Mutex::new(parse(&std::env::var("LORAM_FAULT").ok()?)?)));
    match plan.as_ref().map(Mutex::lock) {
        Some(Ok(mut plan)) => plan.point(),
        _ => Ok(()),
    }
}

/// Runs `f` with a fault at the change of number `at` that it makes on this thread. Returns its result and the number of
/// changes.
pub fn with<T>(fault: Fault, at: usize, f: impl FnOnce() -> T) -> (T, usize) {
    OF_THREAD.set(Some(Plan { fault, at, seen: 0 }));
    let result = f();
    let seen = OF_THREAD.take().map_or(0, |plan| plan.seen);
    (result, seen)
}

fn parse(text: &str) -> Option<Plan> {
    let (name, at) = text.split_once('@')?;
    let fault = match name {
        "kill" => Fault::Kill,
        "freeze" => Fault::Freeze,
        "ENOSPC" => Fault::Fail(28),
        "EIO" => Fault::Fail(5),
        _ => return None,
    };
    Some(Plan { fault, at: at.parse().ok()?, seen: 0 })
}

#[cfg(unix)]
fn kill() -> ! {
    use rustix::process::{Signal, getpid, kill_process};
    let _ = kill_process(getpid(), Signal::KILL);
    std::process::abort()
}

#[cfg(not(unix))]
fn kill() -> ! {
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_happen_once_or_stay() {
        let run = |fault, at| with(fault, at, || (0..4).map(|_| point().is_ok()).collect::<Vec<_>>());
        assert_eq!(run(Fault::None, 2), (vec![true; 4], 4));
        assert_eq!(run(Fault::Fail(28), 2).0, [true, false, true, true]);
        assert_eq!(run(Fault::Freeze, 3).0, [true, true, false, false]);
        assert!(point().is_ok(), "the fault ends with its closure");
        assert_eq!(parse("ENOSPC@7").map(|p| (p.fault, p.at)), Some((Fault::Fail(28), 7)));
        assert!(parse("fire@1").is_none() && parse("kill").is_none());
    }
}
