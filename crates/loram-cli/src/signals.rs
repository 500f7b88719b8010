//! Ctrl-C and SIGTERM: the first asks the run to stop at the next step and save, the second ends the program at once.

use crate::error::{Error, Result};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, OnceLock};

/// What the run looks at.
static STOP: OnceLock<Arc<AtomicBool>> = OnceLock::new();
/// Exit code that the first signal asked for; 0 while there was none.
static CODE: AtomicI32 = AtomicI32::new(0);

/// From now on a first signal sets `stop`; a second one exits with 130 (143 for SIGTERM).
pub fn stop_gently(stop: Arc<AtomicBool>) -> Result<()> {
    if STOP.set(stop).is_err() {
        return Ok(());
    }
    install().map_err(|e| Error::Failed(format!("cannot install a signal handler: {e}")))
}

/// 143 when SIGTERM came, else 130.
pub fn exit_code() -> i32 {
    match CODE.load(Ordering::SeqCst) {
        0 => 130,
        code => code,
    }
}

#[cfg(unix)]
fn install() -> std::io::Result<()> {
    /// Atomics, `write` and `_exit` are all that may be used here.
    extern "C" fn on_signal(signal: libc::c_int) {
        const NOTE: &[u8] = b"\nstopping after this step, with a checkpoint; once more ends at once\n";
        if CODE.swap(128 + signal, Ordering::SeqCst) != 0 {
            // SAFETY: ends the process without running anything else
            unsafe { libc::_exit(128 + signal) }
        }
        if let Some(stop) = STOP.get() {
            stop.store(true, Ordering::SeqCst);
        }
        // SAFETY: the bytes live as long as the program
        unsafe { libc::write(libc::STDERR_FILENO, NOTE.as_ptr().cast(), NOTE.len()) };
    }
    let handler: extern "C" fn(libc::c_int) = on_signal;
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the structure is plain data that is filled before use, and the handler is async-signal-safe
        let done = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as libc::sighandler_t;
            action.sa_flags = libc::SA_RESTART;
            libc::sigaction(signal, &action, std::ptr::null_mut())
        };
        if done != 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(())
}

#[cfg(not(unix))]
fn install() -> std::io::Result<()> {
    let handler = || {
        if CODE.swap(130, Ordering::SeqCst) != 0 {
            std::process::exit(130);
        }
        if let Some(stop) = STOP.get() {
            stop.store(true, Ordering::SeqCst);
        }
        eprintln!("stopping after this step, with a checkpoint; once more ends at once");
    };
    ctrlc::set_handler(handler).map_err(std::io::Error::other)
}
