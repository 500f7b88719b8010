//! Where words go: results to standard output, messages to standard error, colours only on a terminal.

use crate::cli::Common;
use crate::error::Error;
use indicatif::MultiProgress;
use serde::Serialize;
use std::io::{IsTerminal, Write};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// How the user wants to be spoken to.
#[derive(Clone)]
pub struct Console {
    /// One JSON object on standard output and nothing else there.
    pub json: bool,
    /// Errors and results only.
    pub quiet: bool,
    verbose: u8,
    colour: bool,
    bars: MultiProgress,
}

impl Console {
    pub fn new(common: &Common) -> Console {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())
            || std::env::var_os("TERM").is_some_and(|t| t == "dumb");
        let terminal = std::io::stderr().is_terminal();
        let bars = MultiProgress::new();
        if common.quiet || !terminal {
            bars.set_draw_target(indicatif::ProgressDrawTarget::hidden());
        }
        Console { json: common.json, quiet: common.quiet, verbose: common.verbose, colour: terminal && !plain, bars }
    }

    /// Progress bars, which step aside for messages.
    pub fn bars(&self) -> &MultiProgress {
        &self.bars
    }

    /// Whether progress is drawn.
    pub fn draws(&self) -> bool {
        !self.bars.is_hidden()
    }

    /// Whether `-v` was given.
    pub fn is_verbose(&self) -> bool {
        self.verbose > 0
    }

    /// Log lines of the crates: warnings by default; `RUST_LOG` decides where it is set.
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

    /// A line of the story on standard error; not with `--quiet`.
    pub fn say(&self, line: impl AsRef<str>) {
        if !self.quiet {
            self.bars.suspend(|| eprintln!("{}", line.as_ref()));
        }
    }

    /// A line that the user should look at.
    pub fn warn(&self, line: impl AsRef<str>) {
        if !self.quiet {
            self.bars.suspend(|| eprintln!("{} {}", self.paint("33;1", "warning:"), line.as_ref()));
        }
    }

    /// The one line of an error.
    pub fn error(&self, e: &Error) {
        let text = e.to_string().replace('\n', " ");
        self.bars.suspend(|| eprintln!("{} {text}", self.paint("31;1", "error:")));
    }

    /// The result: text for people, or the JSON object that `--json` asks for.
    pub fn result(&self, text: impl FnOnce() -> String, json: &impl Serialize) -> crate::Result<()> {
        let mut out = match self.json {
            true => serde_json::to_string(json).map_err(|e| Error::Failed(format!("cannot write JSON: {e}")))?,
            false => text(),
        };
        if !out.ends_with('\n') && !out.is_empty() {
            out.push('\n');
        }
        self.bars.suspend(|| self.write(&out))
    }

    /// Text to standard output at once.
    pub fn write(&self, text: &str) -> crate::Result<()> {
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .map_err(|e| Error::Failed(format!("cannot write to standard output: {e}")))
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

/// Log lines in the form of the program's own messages: `warning: …`, `info: …`.
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
        ctx.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// Writes log lines above the bars.
struct Lines(MultiProgress);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.suspend(|| std::io::stderr().write_all(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Whole numbers with thousands apart: `1 234 567`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(c);
    }
    out
}

/// So many of something: `1 example`, `1 234 examples`.
pub fn several(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(n), if n == 1 { "" } else { "s" })
}

/// Seconds as `3.2 s`, `4 min 05 s`, `2 h 07 min`.
pub fn duration(seconds: f64) -> String {
    let s = seconds.max(0.0);
    match s {
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 60.0 => format!("{s:.0} s"),
        s if s < 3600.0 => format!("{} min {:02} s", s as u64 / 60, s as u64 % 60),
        s => format!("{} h {:02} min", s as u64 / 3600, s as u64 % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!([count(7), count(1234), count(1_185_152)], ["7", "1 234", "1 185 152"]);
        assert_eq!([duration(3.21), duration(245.0), duration(7620.0)], ["3.2 s", "4 min 05 s", "2 h 07 min"]);
    }
}
