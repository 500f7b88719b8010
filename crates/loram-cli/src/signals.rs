//! Ctrl-C and SIGTERM: the first signal asks the run to stop after its step and save, the second ends the program.

use crate::error::{Error, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// The exit code of the last signal; 0 before the first.
static CODE: OnceLock<Arc<AtomicUsize>> = OnceLock::new();

/// Installs handlers: the first signal sets `stop`, the second exits at once with 130 (143 for SIGTERM).
pub fn stop_gently(stop: Arc<AtomicBool>) -> Result<()> {
    let code = Arc::new(AtomicUsize::new(0));
    if CODE.set(code.clone()).is_err() {
        return Ok(());
    }
    install(stop, code).map_err(|e| Error::Failed(format!("cannot install a signal handler: {e}")))
}

fn install(stop: Arc<AtomicBool>, code: Arc<AtomicUsize>) -> std::io::Result<()> {
    let signals = [SIGINT, SIGTERM];
    let armed = Arc::new(AtomicBool::new(false));
    for signal in signals {
        // handlers run in this order: the first signal finds the exit unarmed
        flag::register_conditional_shutdown(signal, 128 + signal, armed.clone())?;
        flag::register(signal, armed.clone())?;
        flag::register_usize(signal, code.clone(), 128 + signal as usize)?;
        flag::register(signal, stop.clone())?;
    }
    #[cfg(unix)]
    announce(signal_hook::iterator::Signals::new(signals)?)?;
    Ok(())
}

/// Tells the user after the first signal what happens now. A handler itself must not write through `std`.
#[cfg(unix)]
fn announce(mut signals: signal_hook::iterator::Signals) -> std::io::Result<()> {
    use std::io::Write;
    let wait = move || {
        if signals.forever().next().is_some() {
            let note = "\nstopping after this step, with a checkpoint; press again to exit at once";
            // a closed standard error must not end the run before its checkpoint
            let _ = writeln!(std::io::stderr(), "{note}");
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait).map(drop)
}

/// 143 after SIGTERM, else 130.
pub fn exit_code() -> i32 {
    match CODE.get().map_or(0, |code| code.load(Ordering::SeqCst)) {
        0 => 130,
        code => code as i32,
    }
}

/// Makes a closed pipe (`| head`) end the program quietly, as other tools do; Rust ignores the signal by default.
#[cfg(unix)]
pub fn end_on_closed_pipe() {
    use signal_hook::consts::SIGPIPE;
    // without the handler a closed pipe is an error message instead
    let _ = flag::register_conditional_default(SIGPIPE, Arc::new(AtomicBool::new(true)));
}

#[cfg(not(unix))]
pub fn end_on_closed_pipe() {}
