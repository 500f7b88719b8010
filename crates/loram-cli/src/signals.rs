//! Signals and closed outputs. The first SIGINT (Ctrl-C), SIGTERM or SIGHUP, and a message that reaches nobody any more, ask
//! the run to stop after its step and save; the second signal ends the program.

use crate::error::{Error, Result};
#[cfg(unix)]
use signal_hook::consts::{SIGHUP, SIGPIPE};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// Windows lacks it; a closed pipe has the same exit code there.
#[cfg(not(unix))]
const SIGPIPE: i32 = 13;

/// How a run is stopped, once there is one.
static RUN: OnceLock<Run> = OnceLock::new();

struct Run {
    stop: Arc<AtomicBool>,
    /// The exit code of the last signal; 0 before the first.
    code: Arc<AtomicUsize>,
}

/// Prints a message beside the progress bars; the flag says that a key may have been echoed behind them.
pub type Note = Box<dyn Fn(&str, bool) + Send>;

/// True while a closed pipe ends the program at once.
static PIPE_ENDS: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Installs handlers: the first signal sets `stop`, the second exits at once with 128 and the number of the signal. From now
/// on a closed pipe stops the run, too, instead of ending the program.
pub fn stop_gently(stop: Arc<AtomicBool>, note: Note) -> Result<()> {
    let code = Arc::new(AtomicUsize::new(0));
    if RUN.set(Run { stop: stop.clone(), code: code.clone() }).is_err() {
        return Ok(());
    }
    if let Some(ends) = PIPE_ENDS.get() {
        ends.store(false, Ordering::SeqCst);
    }
    install(stop, code, note).map_err(|e| Error::Failed(format!("cannot install a signal handler: {e}")))
}

fn install(stop: Arc<AtomicBool>, code: Arc<AtomicUsize>, note: Note) -> io::Result<()> {
    let signals = [
        SIGINT,
        SIGTERM,
        // nohup asks to go on without the terminal
        #[cfg(unix)]
        SIGHUP,
    ];
    #[cfg(unix)]
    let signals: Vec<i32> = signals.into_iter().filter(|&s| s != SIGHUP || !is_ignored(s)).collect();
    let armed = Arc::new(AtomicBool::new(false));
    for &signal in &signals {
        // handlers run in this order: the first signal finds the exit unarmed
        flag::register_conditional_shutdown(signal, 128 + signal, armed.clone())?;
        flag::register(signal, armed.clone())?;
        flag::register_usize(signal, code.clone(), 128 + signal as usize)?;
        flag::register(signal, stop.clone())?;
    }
    #[cfg(unix)]
    announce(signal_hook::iterator::Signals::new(signals)?, note)?;
    #[cfg(not(unix))]
    let _ = note;
    Ok(())
}

/// True if this program was started with the signal ignored; false where the system does not say.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|l| u64::from_str_radix(l.strip_prefix("SigIgn:")?.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// Tells the user after the first signal what happens now. A handler itself must not write through `std`. The bars are taken
/// off the screen for it, else a broken line of them stays.
#[cfg(unix)]
fn announce(mut signals: signal_hook::iterator::Signals, note: Note) -> std::io::Result<()> {
    let wait = move || {
        if let Some(signal) = signals.forever().next() {
            note("stopping after this step, with a checkpoint; press again to exit at once", signal == SIGINT);
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait).map(drop)
}

/// The exit code of a run that was stopped: 129 after SIGHUP, 141 after a closed pipe, 143 after SIGTERM, else 130.
pub fn exit_code() -> i32 {
    match RUN.get().map_or(0, |run| run.code.load(Ordering::SeqCst)) {
        0 => 128 + SIGINT,
        code => code as i32,
    }
}

/// Takes the outcome of a write to the terminal or a pipe. When nobody reads it any more, the run stops, as after a signal;
/// other failures to show a message are no reason to.
pub fn written(outcome: io::Result<()>) {
    const EIO: i32 = 5;
    let Err(e) = outcome else { return };
    if (e.kind() == io::ErrorKind::BrokenPipe || e.raw_os_error() == Some(EIO))
        && let Some(run) = RUN.get()
    {
        let _ = run.code.compare_exchange(0, 128 + SIGPIPE as usize, Ordering::SeqCst, Ordering::SeqCst);
        run.stop.store(true, Ordering::SeqCst);
    }
}

/// Makes a closed pipe (`| head`) end the program quietly, as other tools do, until there is a run to save. Rust ignores the
/// signal by default.
#[cfg(unix)]
pub fn end_on_closed_pipe() {
    let ends = PIPE_ENDS.get_or_init(|| Arc::new(AtomicBool::new(true)));
    // without the handler a closed pipe is an error message instead
    let _ = flag::register_conditional_default(SIGPIPE, ends.clone());
}

#[cfg(not(unix))]
pub fn end_on_closed_pipe() {}
