//! Output: results to standard output, messages to standard error, colours only on a terminal. Control characters of
//! foreign text never reach the terminal: what is printed here is made visible first.

use crate::error::{Error, Result};
use crate::signals;
use indicatif::MultiProgress;
use loram_io::visible;
use serde::Serialize;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Writes results and messages as the user's options ask for.
#[derive(Clone)]
pub struct Console {
    /// Results are one JSON object on standard output.
    pub json: bool,
    /// Errors and results only.
    pub quiet: bool,
    /// True for a rank other than 0, which shows nothing but its own errors.
    muted: Arc<AtomicBool>,
    verbose: u8,
    colour: bool,
    bars: MultiProgress,
}

impl Console {
    pub fn new(json: bool, quiet: bool, verbose: u8) -> Console {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())
            || std::env::var_os("TERM").is_some_and(|t| t == "dumb");
        let terminal = std::io::stderr().is_terminal();
        let bars = MultiProgress::new();
        if quiet || !terminal {
            bars.set_draw_target(indicatif::ProgressDrawTarget::hidden());
        }
        Console { json, quiet, muted: Arc::default(), verbose, colour: terminal && !plain, bars }
    }

    /// Shows no messages and results from now on, only errors.
    pub fn mute(&self) {
        self.muted.store(true, Ordering::Relaxed);
        self.bars.set_draw_target(indicatif::ProgressDrawTarget::hidden());
    }

    fn is_quiet(&self) -> bool {
        self.quiet || self.muted.load(Ordering::Relaxed)
    }

    /// The progress bars; messages suspend them.
    pub fn bars(&self) -> &MultiProgress {
        &self.bars
    }

    /// True if progress bars are drawn.
    pub fn draws(&self) -> bool {
        !self.bars.is_hidden()
    }

    /// True with `-v`.
    pub fn is_verbose(&self) -> bool {
        self.verbose > 0
    }

    /// Prints the crates' log messages: warnings by default, or as `RUST_LOG` says.
    pub fn start_logging(&self) {
        let level = match (self.quiet, self.verbose) {
            (true, _) => "error",
            (_, 0) => "warn",
            (_, 1) => "info",
            (_, 2) => "debug",
            _ => "trace",
        };
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
        let console = self.clone();
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(self.colour)
            .with_writer(move || Lines(console.bars.clone()))
            .event_format(Plain)
            .init();
    }

    /// Prints a message to standard error, unless `--quiet`.
    pub fn say(&self, line: impl AsRef<str>) {
        self.say_painted(&visible(line.as_ref()));
    }

    /// Prints a message with colours of ours, in which foreign text is [`visible`] already.
    pub fn say_painted(&self, line: &str) {
        if !self.is_quiet() {
            self.message(line);
        }
    }

    /// Prints messages to standard error from another thread, also with `--quiet`.
    pub fn note(&self) -> signals::Note {
        let (bars, drawn, muted) = (self.bars.clone(), self.draws(), self.muted.clone());
        Box::new(move |line, echoed| {
            if muted.load(Ordering::Relaxed) {
                return;
            }
            if drawn && echoed {
                // a bar ends at the right edge, so that `^C` stands on a line of its own below it: both go
                let erased = write!(std::io::stderr(), "\r\x1b[2K\x1b[1A\x1b[2K");
                signals::written(erased);
            }
            bars.suspend(|| signals::written(writeln!(std::io::stderr(), "{line}")))
        })
    }

    /// Prints a warning to standard error, unless `--quiet`.
    pub fn warn(&self, line: impl AsRef<str>) {
        if !self.is_quiet() {
            self.message(&format!("{} {}", self.paint("33;1", "warning:"), visible(line.as_ref())));
        }
    }

    /// Prints an error as one line to standard error.
    pub fn error(&self, e: &Error) {
        let text = e.to_string().replace('\n', " ");
        self.message(&format!("{} {}", self.paint("31;1", "error:"), visible(&text)));
    }

    /// Writes a line to standard error, above the progress bars.
    fn message(&self, line: &str) {
        self.bars.suspend(|| signals::written(writeln!(std::io::stderr(), "{line}")));
    }

    /// Prints the result: text, or a JSON object with `--json`.
    pub fn result(&self, text: impl FnOnce() -> String, json: &impl Serialize) -> Result<()> {
        if self.muted.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut out = match self.json {
            true => serde_json::to_string(json).map_err(|e| Error::Failed(format!("cannot write JSON: {e}")))?,
            false => visible(&text()).into_owned(),
        };
        if !out.ends_with('\n') && !out.is_empty() {
            out.push('\n');
        }
        self.bars.suspend(|| self.write(&out))
    }

    /// Writes text of a model to standard output: as it is to a file or pipe, visible to a terminal.
    pub fn stream(&self, text: &str) -> Result<()> {
        match std::io::stdout().is_terminal() {
            true => self.write(&visible(text)),
            false => self.write(text),
        }
    }

    /// Writes text to standard output and flushes it.
    fn write(&self, text: &str) -> Result<()> {
        let mut out = std::io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            // only a run is told; other commands have ended by the signal
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => {
                signals::written(Err(e));
                std::process::exit(signals::exit_code())
            }
            other => other.map_err(|e| Error::Failed(format!("cannot write to standard output: {e}"))),
        }
    }

    /// Bold text on a terminal (standard error).
    pub fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }

    /// Pale text on a terminal (standard error).
    pub fn dim(&self, text: &str) -> String {
        self.paint("2", text)
    }

    /// Text with a colour on a terminal (standard error).
    pub fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }
}

/// Formats log messages like the program's own: `warning: …`, `info: …`.
struct Plain;

impl<S, N> FormatEvent<S, N> for Plain
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &tracing::Event<'_>,
    ) -> std::fmt::Result {
        let (level, colour) = match *event.metadata().level() {
            tracing::Level::ERROR => ("error", "31;1"),
            tracing::Level::WARN => ("warning", "33;1"),
            tracing::Level::INFO => ("info", "1"),
            tracing::Level::DEBUG => ("debug", "2"),
            tracing::Level::TRACE => ("trace", "2"),
        };
        match writer.has_ansi_escapes() {
            true => write!(writer, "\x1b[{colour}m{level}:\x1b[0m ")?,
            false => write!(writer, "{level}: ")?,
        }
        let mut text = String::new();
        ctx.format_fields(Writer::new(&mut text), event)?;
        writeln!(writer, "{}", visible(&text))
    }
}

/// Writes log messages above the progress bars.
struct Lines(MultiProgress);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.suspend(|| signals::written(std::io::stderr().write_all(bytes)));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
