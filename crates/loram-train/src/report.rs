//! The records of a run folder: `metrics.jsonl`, `train.log`, TensorBoard events, `environment.json`.

use crate::base::{Base, show};
use crate::config::{TrainConfig, keys, yaml};
use crate::device::Arithmetic;
use crate::dist::ProcessGroup;
use crate::mlflow::{Ending, MlFlow};
use crate::observer::{Event, Level, LogRecord, Observer};
use crate::rate::FoundRate;
use crate::summary::Status;
use crate::tensorboard::EventWriter;
use crate::{Result, system};
use loram_io::checksum::sha256;
use loram_io::data::expand_paths;
use loram_io::{atomic, disk, visible};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Metrics by line.
pub const METRICS: &str = "metrics.jsonl";
/// The log file, with times.
pub const LOG: &str = "train.log";
/// The environment file: versions and machine.
pub const ENVIRONMENT: &str = "environment.json";

/// Passes events on to the observer, and writes them down once the run folder is there.
pub(crate) struct Reporter<'a> {
    observer: &'a mut dyn Observer,
    folder: Option<Folder>,
    /// Log lines from before there was a folder.
    early: Vec<String>,
}

struct Folder {
    dir: PathBuf,
    log: File,
    metrics: File,
    tensorboard: Option<EventWriter>,
    mlflow: Option<MlFlow>,
}

impl<'a> Reporter<'a> {
    pub fn new(observer: &'a mut dyn Observer) -> Reporter<'a> {
        Reporter { observer, folder: None, early: Vec::new() }
    }

    /// Opens the files of the run folder. `metrics.jsonl` begins with the lines of `history`, whatever it held before: those
    /// of a checkpoint, or none. `resumed` is the step that a resumed run goes on from.
    pub fn open(&mut self, config: &TrainConfig, history: &[LogRecord], resumed: Option<usize>) -> Result<()> {
        let dir = &config.output_dir;
        let mut lines = Vec::new();
        for record in history {
            lines.extend(line(record)?);
        }
        atomic::write_bytes(dir.join(METRICS), &lines)?;
        let append = |name: &str| {
            let path = dir.join(name);
            OpenOptions::new().create(true).append(true).open(&path).map_err(|e| loram_io::Error::io("write", &path, e))
        };
        let mut log = append(LOG)?;
        for line in self.early.drain(..) {
            writeln!(log, "{line}").map_err(|e| loram_io::Error::io("write", dir.join(LOG), e))?;
        }
        let to = config.report_to;
        let tensorboard = if to.tensorboard { Some(EventWriter::create(dir, resumed)?) } else { None };
        let mlflow = if to.mlflow { Some(MlFlow::begin(dir, &parameters(config), resumed.is_some())?) } else { None };
        self.folder = Some(Folder { dir: dir.to_path_buf(), log, metrics: append(METRICS)?, tensorboard, mlflow });
        Ok(())
    }

    /// Makes the lines of metrics durable.
    pub fn sync(&mut self) -> Result<()> {
        match &self.folder {
            Some(f) => Ok(disk::sync_file(&f.metrics, &f.dir.join(METRICS))?),
            None => Ok(()),
        }
    }

    pub fn message(&mut self, level: Level, text: impl Into<String>) {
        self.event(&Event::Message { level, text: text.into() });
    }

    /// A line of metrics, everywhere.
    pub fn record(&mut self, record: &LogRecord) -> Result<()> {
        if let Some(f) = &mut self.folder {
            disk::append(&f.metrics, &f.dir.join(METRICS), &line(record)?)?;
            if f.tensorboard.is_some() || f.mlflow.is_some() {
                let scalars = scalars(record);
                if let Some(tb) = &mut f.tensorboard {
                    scalars.iter().try_for_each(|(name, value)| tb.scalar(record.step, name, *value))?;
                }
                if let Some(warning) = f.mlflow.as_mut().and_then(|run| run.log(record.step, &scalars)) {
                    self.message(Level::Warning, warning);
                }
            }
        }
        self.event(&Event::Log(record.clone()));
        Ok(())
    }

    /// A sample text, for TensorBoard's text page too.
    pub fn sample(&mut self, step: usize, sample: crate::observer::Sample) -> Result<()> {
        if let Some(tb) = self.folder.as_mut().and_then(|f| f.tensorboard.as_mut()) {
            // indented lines: Markdown and HTML in them are shown as they are
            let verbatim = |text: &str| text.lines().map(|line| format!("    {line}\n")).collect::<String>();
            let text = format!("Prompt\n\n{}\nText\n\n{}", verbatim(&sample.prompt), verbatim(&sample.text));
            tb.text(step, &format!("sample/{}", sample.when), &text)?;
        }
        self.event(&Event::Sample(sample));
        Ok(())
    }
}

impl Observer for Reporter<'_> {
    fn event(&mut self, event: &Event) {
        if let Some(line) = log_line(event) {
            let line = format!("{} {line}", jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ"));
            match &mut self.folder {
                // a log that cannot be written must not end a run that works
                Some(f) => drop(writeln!(f.log, "{line}")),
                None => self.early.push(line),
            }
        }
        self.observer.event(event);
        if let Event::Done(summary) = event
            && let Some(mut run) = self.folder.as_mut().and_then(|f| f.mlflow.take())
        {
            let ending = if summary.status == Status::Interrupted { Ending::Interrupted } else { Ending::Finished };
            if let Some(warning) = run.end(ending) {
                self.message(Level::Warning, warning);
            }
        }
    }
}

/// A run that ends without a summary has failed.
impl Drop for Reporter<'_> {
    fn drop(&mut self) {
        if let Some(mut run) = self.folder.as_mut().and_then(|f| f.mlflow.take()) {
            // the error of the run is what the user sees
            let _ = run.end(Ending::Failed);
        }
    }
}

/// The keys of a configuration that have a value.
fn parameters(config: &TrainConfig) -> Vec<(String, String)> {
    let value = |name: &str| config.value(name).filter(|v| !v.is_null()).map(|v| yaml(&v));
    keys().iter().filter_map(|k| Some((k.name.to_string(), value(k.name)?))).collect()
}

/// The figures of a record by the names that dashboards know.
fn scalars(record: &LogRecord) -> Vec<(String, f64)> {
    let train = [
        ("loss", record.loss),
        ("learning_rate", record.learning_rate),
        ("grad_norm", record.grad_norm),
        ("token_accuracy", record.token_accuracy),
        ("rewards/accuracies", record.reward_accuracy),
        ("tokens_per_second", record.tokens_per_second),
    ];
    let mut out: Vec<(String, f64)> =
        train.into_iter().filter_map(|(name, value)| Some((format!("train/{name}"), value?))).collect();
    out.extend(record.learning_rates.iter().map(|(group, v)| (format!("train/learning_rate/{group}"), *v)));
    out.extend(record.eval.iter().map(|(name, v)| (format!("eval/{}", name.trim_start_matches("eval_")), *v)));
    for (path, layer) in record.magnitude.iter().flatten() {
        out.extend(layer.values().map(|(name, v)| (format!("magnitude/{name}/{path}"), v)));
    }
    out
}

/// A record as a line of `metrics.jsonl`.
fn line(record: &LogRecord) -> Result<Vec<u8>> {
    let mut line = serde_json::to_vec(record).map_err(|e| loram_io::Error::Usage(e.to_string()))?;
    line.push(b'\n');
    Ok(line)
}

/// The log line of an event; steps and progress are omitted.
fn log_line(event: &Event) -> Option<String> {
    Some(match event {
        Event::Message { level: Level::Info, text } => visible(text).into_owned(),
        Event::Message { level: Level::Warning, text } => format!("WARNING {}", visible(text)),
        Event::Plan(p) => format!("plan {}", json(p)),
        // magnitudes are long, and metrics.jsonl has them
        Event::Log(r) if r.magnitude.is_some() => return None,
        Event::Log(r) => format!("log {}", json(r)),
        Event::Evaluated { step, metrics, best, .. } => format!("evaluated step {step} best {best} {}", json(metrics)),
        Event::Saved { step, path } => format!("saved step {step} {}", path.display()),
        Event::Sample(s) => format!("sample {}", json(s)),
        Event::Done(s) => format!("done {}", json(s.as_ref())),
        Event::Stage { .. } | Event::Step(_) => return None,
    })
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Writes `environment.json`: version, machine, model, data with their checksums, and where the learning rate comes from.
pub(crate) fn write_environment(
    dir: &Path,
    base: &Base,
    arithmetic: Arithmetic,
    data: &[String],
    rate: Option<&FoundRate>,
    group: &ProcessGroup,
) -> Result<()> {
    let data = expand_paths(data)?;
    let files = data.iter().map(|p| match Path::new(p).is_file() {
        true => serde_json::json!({"path": p, "sha256": sha256(Path::new(p)).ok()}),
        false => serde_json::json!({"path": p}),
    });
    let value = serde_json::json!({
        "loram": env!("CARGO_PKG_VERSION"),
        "started": jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "command": std::env::args().collect::<Vec<_>>(),
        "os": std::env::consts::OS,
        "arch": std::env::consts::ARCH,
        "cpu": system::cpu_name(),
        "compute_dtype": arithmetic.dtype(&base.checkpoint),
        "kernel": arithmetic.kernel_name(&base.checkpoint),
        "threads": rayon::current_num_threads(),
        "available_memory": system::available_memory(),
        "model": {
            "name": base.name,
            "revision": base.revision,
            "path": show(&base.dir),
            "family": base.config.family(),
            "bytes": base.checkpoint.total_bytes(),
        },
        "data": files.collect::<Vec<_>>(),
        "learning_rate": rate,
        "ranks": {"engine": group.collective().engine(), "hosts": group.hosts()},
    });
    Ok(atomic::write_json(dir.join(ENVIRONMENT), &value)?)
}
