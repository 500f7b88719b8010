//! Progress of a run: bars on a terminal, lines elsewhere.

use crate::console::Console;
use crate::format::{count, duration, several};
use indicatif::{ProgressBar, ProgressStyle};
use loram_io::error::human_bytes;
use loram_io::visible;
use loram_train::Metrics;
use loram_train::objective::Metric;
use loram_train::observer::{Event, Level, LogRecord, Observer, RunPlan, Sample, Stage, StepInfo};
use std::time::{Duration, Instant};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Time between lines without a terminal, so that log files stay readable.
const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// An observer that writes to the console.
pub struct Show<'a> {
    console: &'a Console,
    /// The current stage and its bar.
    stage: Option<(Stage, ProgressBar)>,
    /// The bar of the training steps.
    steps: Option<ProgressBar>,
    total_steps: usize,
    last_line: Option<Instant>,
    plan: Option<RunPlan>,
    last_step: Option<StepInfo>,
}

/// Columns of the terminal; some stay free, so that an echoed `^C` does not break the line.
fn columns() -> usize {
    const FREE: usize = 3;
    let size = terminal_size::terminal_size_of(std::io::stderr());
    size.map_or(80, |(width, _)| usize::from(width.0)).saturating_sub(FREE)
}

/// Columns of a bar on a line of so many.
fn bar_width(columns: usize) -> usize {
    (columns / 5).clamp(4, 24)
}

/// A bar with a name before and numbers after it, then as much of the message as fits.
fn style(numbers: &str) -> ProgressStyle {
    let template = format!("{{prefix:>10}} {{bar:{}}} {numbers}  {{msg}}", bar_width(columns()));
    ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸ ")
}

/// As many of the parts, in their order, as fit into so many columns.
fn fit(parts: &[String], columns: usize) -> String {
    let mut out = String::new();
    for part in parts {
        let gap = if out.is_empty() { "" } else { "  " };
        if out.width() + gap.len() + part.width() > columns {
            break;
        }
        out += gap;
        out += part;
    }
    out
}

/// The end of a path or name that fits into so many columns.
fn fit_end(text: &str, columns: usize) -> String {
    let mut left = columns.saturating_sub(1);
    let kept: Vec<char> = text
        .chars()
        .rev()
        .take_while(|c| {
            let w = c.width().unwrap_or(0);
            let fits = w <= left;
            left = left.saturating_sub(w);
            fits
        })
        .collect();
    match text.width() <= columns {
        true => text.to_string(),
        false if columns == 0 => String::new(),
        false => format!("…{}", kept.into_iter().rev().collect::<String>()),
    }
}

/// Columns that are left for a message beside a bar with numbers of so many columns.
fn room(numbers: usize) -> usize {
    let columns = columns();
    columns.saturating_sub(10 + 1 + bar_width(columns) + 1 + numbers + 2)
}

/// Columns of `done/total`.
fn fraction(total: usize) -> usize {
    2 * total.to_string().len() + 1
}

/// A progress bar over layers.
pub struct LayerBar(ProgressBar);

impl LayerBar {
    pub fn new(console: &Console) -> LayerBar {
        let bar = console.bars().add(ProgressBar::new(0));
        bar.set_style(style("{pos}/{len}"));
        bar.set_prefix("layers");
        LayerBar(bar)
    }

    /// Shows that `done` of `total` layers are finished; `path` is the last one.
    pub fn show(&self, done: usize, total: usize, path: &str) {
        self.0.set_length(total as u64);
        self.0.set_position(done as u64);
        self.0.set_message(fit_end(&visible(path), room(fraction(total))));
    }

    pub fn clear(self) {
        self.0.finish_and_clear();
    }
}

impl<'a> Show<'a> {
    pub fn new(console: &'a Console) -> Show<'a> {
        Show { console, stage: None, steps: None, total_steps: 0, last_line: None, plan: None, last_step: None }
    }

    /// Removes all bars from the screen.
    pub fn clear(&mut self) {
        for bar in self.stage.take().map(|s| s.1).into_iter().chain(self.steps.take()) {
            bar.finish_and_clear();
        }
    }

    fn on_stage(&mut self, stage: Stage, done: u64, total: u64, detail: &str) {
        if self.stage.as_ref().is_some_and(|s| s.0 != stage)
            && let Some((_, bar)) = self.stage.take()
        {
            bar.finish_and_clear();
        }
        if done >= total {
            if let Some((_, bar)) = self.stage.take() {
                bar.finish_and_clear();
            }
            return;
        }
        let bars = self.console.bars();
        let (_, bar) = self.stage.get_or_insert_with(|| {
            let bar = bars.add(ProgressBar::new(total));
            let (name, numbers) = match stage {
                Stage::Download => ("download", "{bytes}/{total_bytes} {bytes_per_sec}"),
                Stage::Data => ("data", "{pos}/{len}"),
                Stage::Quantization => ("quantise", ""),
                Stage::Model => ("model", ""),
                Stage::Reference => ("reference", "{pos}/{len}"),
                Stage::LearningRate => ("learning rate", ""),
                Stage::Initialization => ("initialise", "{pos}/{len}"),
                Stage::Evaluate => ("evaluate", "{pos}/{len}"),
                Stage::Sample => ("samples", "{pos}/{len}"),
                Stage::Predict => ("predict", "{pos}/{len}"),
                Stage::Save => ("save", ""),
            };
            bar.set_style(style(numbers));
            bar.set_prefix(name);
            (stage, bar)
        });
        bar.set_length(total);
        bar.set_position(done);
        let numbers = match stage {
            Stage::Download => 32,
            Stage::Quantization | Stage::Model | Stage::LearningRate | Stage::Save => 0,
            _ => fraction(total as usize),
        };
        bar.set_message(fit_end(&visible(detail), room(numbers)));
    }

    fn on_plan(&mut self, plan: &RunPlan) {
        self.total_steps = plan.total_steps;
        let what = match plan.adapted_layers {
            0 => "all weights".to_string(),
            n => format!("{} on {n} layers", plan.scheme),
        };
        let share = 100.0 * plan.trainable_parameters as f64 / plan.parameters.max(1) as f64;
        let cut = match plan.truncated {
            0 => String::new(),
            n => format!(", {} of them truncated to max_length", count(n as u64)),
        };
        self.console.say(format!(
            "training {what}: {} of {} parameters ({share:.2} %)\n\
             {}, {}{cut}; {}, {} per epoch",
            count(plan.trainable_parameters),
            count(plan.parameters),
            several(plan.examples as u64, "example"),
            several(plan.tokens, "token"),
            several(plan.total_steps as u64, "step"),
            count(plan.steps_per_epoch as u64),
        ));
        let rates: Vec<String> = plan.groups.iter().map(|g| format!("{} {:.2e}", g.name, g.learning_rate)).collect();
        if plan.groups.iter().any(|g| g.learning_rate != plan.groups[0].learning_rate) {
            self.console.say(format!("learning rates: {}", rates.join(", ")));
        }
        if plan.start_step > 0 {
            self.console.say(format!("resuming after step {}", plan.start_step));
        }
        let bar = self.console.bars().add(ProgressBar::new(plan.total_steps as u64));
        bar.set_style(style("{pos}/{len}"));
        bar.set_prefix("train");
        bar.set_position(plan.start_step as u64);
        self.steps = Some(bar);
        self.plan = Some(plan.clone());
    }

    fn on_step(&mut self, s: &StepInfo) {
        if let Some(bar) = &self.steps {
            bar.set_position(s.step as u64);
            // the most useful first: what does not fit is left out
            let parts = [
                format!("loss {:.4}", s.loss),
                format!("{} left", duration(s.eta)),
                format!("{} tok/s", count(s.tokens_per_second.round() as u64)),
                format!("lr {:.2e}", s.learning_rate),
                human_bytes(s.rss),
            ];
            bar.set_message(fit(&parts, room(fraction(self.total_steps))));
        }
        self.last_step = Some(s.clone());
    }

    /// Prints a line of the log to files and pipes; a terminal has the bar.
    fn on_log(&mut self, log: &LogRecord) {
        let Some(loss) = log.loss else { return };
        let last = log.step >= self.total_steps;
        let soon = self.last_line.is_some_and(|t| t.elapsed() < BETWEEN_LINES);
        if self.console.draws() || (soon && !last && !self.console.is_verbose()) {
            return;
        }
        self.last_line = Some(Instant::now());
        let eta = self.last_step.as_ref().map_or(String::new(), |s| format!("  {} left", duration(s.eta)));
        self.console.say(format!(
            "step {}/{}  epoch {:.2}  loss {loss:.4}  lr {:.2e}  {} tok/s  {}{eta}",
            log.step,
            self.total_steps,
            log.epoch,
            log.learning_rate.unwrap_or_default(),
            count(log.tokens_per_second.unwrap_or_default().round() as u64),
            human_bytes(log.rss.unwrap_or_default()),
        ));
    }

    fn on_sample(&mut self, s: &Sample) {
        let reference = match &s.reference {
            Some(r) => format!("\n  {}  {}", self.console.dim("reference"), one_line(r)),
            None => String::new(),
        };
        self.console.say_painted(&format!(
            "{} {}\n  {}     {}\n  {}      {}{reference}",
            self.console.bold("sample"),
            self.console.bold(&format!("{} training", s.when)),
            self.console.dim("prompt"),
            one_line(&s.prompt),
            self.console.dim("model"),
            one_line(&s.text),
        ));
    }
}

impl Drop for Show<'_> {
    /// After an error no bar stays on the screen.
    fn drop(&mut self) {
        self.clear();
    }
}

impl Observer for Show<'_> {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Message { level: Level::Info, text } => self.console.say(text),
            Event::Message { level: Level::Warning, text } => self.console.warn(text),
            Event::Stage { stage, done, total, detail } => self.on_stage(*stage, *done, *total, detail),
            Event::Plan(plan) => self.on_plan(plan),
            Event::Step(step) => self.on_step(step),
            Event::Log(log) => self.on_log(log),
            Event::Evaluated { step, metrics, best, .. } => {
                let star = if *best { "  (best so far)" } else { "" };
                let when = if *step == 0 { "before training".into() } else { format!("at step {step}") };
                self.console.say(format!("evaluation {when}: {}{star}", figures(metrics)));
            }
            Event::Saved { path, .. } => {
                if self.console.is_verbose() {
                    self.console.say(format!("saved {}", path.display()));
                }
            }
            Event::Sample(sample) => self.on_sample(sample),
            Event::Done(_) => self.clear(),
        }
    }
}

/// A text on one line of at most 160 columns.
fn one_line(text: &str) -> String {
    const LONGEST: usize = 160;
    let line = visible(text.trim()).replace('\n', "⏎");
    let mut columns = 0;
    let mut too_long = |c: char| {
        columns += c.width().unwrap_or(0);
        columns > LONGEST
    };
    match line.find(&mut too_long) {
        Some(at) => format!("{}…", &line[..at]),
        None => line,
    }
}

/// The metrics of an evaluation on one line.
pub fn figures(m: &Metrics) -> String {
    let one = |(metric, x): (Metric, f64)| match (metric.short?, metric.percent) {
        (name, true) => Some(format!("{name} {:.2} %", 100.0 * x)),
        (name, false) => Some(format!("{name} {x:.4}")),
    };
    m.described().into_iter().filter_map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_fits_the_terminal() {
        let parts = ["loss 0.4177", "44 s left", "12 223 tok/s", "lr 1.82e-3", "240.2 MB"].map(String::from);
        assert_eq!(fit(&parts, 80), parts.join("  "));
        assert_eq!(fit(&parts, 36), "loss 0.4177  44 s left  12 223 tok/s");
        assert_eq!(fit(&parts, 35), "loss 0.4177  44 s left");
        assert_eq!(fit(&parts, 3), "");
        assert_eq!(fit_end("model.layers.0.self_attn.q_proj", 12), "…attn.q_proj");
        assert_eq!([fit_end("short", 5), fit_end("short", 0)], ["short", ""]);
        assert_eq!(fit_end("模型/层", 5), "…/层");
        for columns in [60, 80, 100, 200] {
            let message = fit(&parts, columns - (10 + 1 + bar_width(columns) + 1 + fraction(500) + 2));
            assert!(message.starts_with("loss"), "{columns}: {message}");
        }
    }
}
