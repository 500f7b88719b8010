//! `loram train`: one run from a configuration.

use crate::console::Console;
use crate::error::{Error, Result};
use crate::format::{count, duration, memory_parts, several};
use crate::keys::layers;
use crate::program::{as_called, on_path};
use crate::progress::{Show, figures};
use crate::ranks;
use crate::signals;
use crate::table::facts;
use clap::{ArgMatches, Args};
use loram_io::error::human_bytes;
use loram_train::config::{LearningRate, keys};
use loram_train::rate::cache_folder;
use loram_train::{
    DataSummary, ExpectedTime, Measured, Preview, PreviewSpan, Status, Summary, TrainConfig, Trainer, expected_time,
};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Arguments of `loram train`.
#[derive(Debug, Args)]
pub struct TrainArgs {
    /// Configuration file; flags and --set override it
    #[arg(value_name = "CONFIG.yaml")]
    pub config: Option<PathBuf>,
    /// Print data, steps, time and memory, an example with its loss mask, and the settings, then exit
    #[arg(long)]
    pub dry_run: bool,
    /// Show the launcher that started this process (mpirun, srun, torchrun) and its ranks, then exit
    #[arg(long)]
    pub dist_info: bool,
    /// List all keys with their defaults and meanings, then exit
    #[arg(long)]
    pub help_keys: bool,
}

/// Returns the exit code: 130 or 143 if a signal stopped the run.
pub fn run(args: &TrainArgs, matches: &ArgMatches, console: &Console) -> Result<i32> {
    if args.help_keys {
        return help_keys(console).map(|()| 0);
    }
    if let Some(path) = args.config.as_deref().filter(|p| holds_data(p)) {
        let what = format!("{0} is a data file, not a configuration: repeat the flag (--data {0})", path.display());
        return Err(Error::Usage(what));
    }
    let config = layers(matches, args.config.as_deref());
    if args.dist_info {
        return ranks::info(config.and_then(|l| Ok(TrainConfig::layered(&l)?)), console).map(|()| 0);
    }
    let (config, group) = ranks::join(config.and_then(|l| Ok(TrainConfig::resolve(&l)?)), console)?;
    let trainer = Trainer::new(config)?.with_rate_cache(cache_folder()).in_group(group.clone());
    let mut show = Show::new(console);
    if args.dry_run && !group.is_first() {
        return Ok(0);
    }
    if args.dry_run {
        return dry_run(&trainer, &mut show, console).map(|()| 0);
    }
    let stop = trainer.stop_flag();
    signals::stop_gently(stop.shared(), console.note())?;
    let summary = trainer.run(&mut show)?;
    show.clear();
    console.result(|| summary_text(&summary), &summary)?;
    Ok(if summary.status == Status::Interrupted { signals::exit_code() } else { 0 })
}

/// True for a file name of data, which a second word after `--data` would be.
fn holds_data(path: &Path) -> bool {
    loram_io::data::has_known_ending(&path.to_string_lossy())
}

fn help_keys(console: &Console) -> Result<()> {
    let all: Vec<Value> = keys()
        .iter()
        .map(|key| {
            json!({
                "key": key.name,
                "aliases": key.aliases,
                "section": key.section,
                "values": key.expected,
                "default": key.default,
                "help": key.help,
            })
        })
        .collect();
    let text = || {
        let mut text = String::new();
        let mut section = "";
        for key in keys() {
            if key.section != section {
                section = key.section;
                text += &format!("{}{section}\n", if text.is_empty() { "" } else { "\n" });
            }
            let also = match key.aliases {
                [] => String::new(),
                list => format!(" (also {})", list.join(", ")),
            };
            text += &format!("  {}{also} = {}\n      {}\n      {}\n", key.name, key.default, key.help, key.expected);
        }
        text
    };
    console.result(text, &json!({ "keys": all }))
}

fn dry_run(trainer: &Trainer, show: &mut Show<'_>, console: &Console) -> Result<()> {
    let preview = trainer.preview(show)?;
    show.clear();
    console.say("timing a few steps");
    let time = expected_time(trainer.config(), &preview);
    preview.warnings.iter().for_each(|w| console.warn(w));
    let mut json = serde_json::to_value(&preview).unwrap_or_default();
    json["time"] = json!(time);
    console.result(|| preview_text(trainer.config(), &preview, time, console.is_verbose()), &json)
}

/// The output of `--dry-run`: data, steps, time and memory, the first example with its loss mask, and the settings.
fn preview_text(c: &TrainConfig, p: &Preview, time: Option<ExpectedTime>, all: bool) -> String {
    let data = |d: &DataSummary| {
        let mut text = format!(
            "{}, {}, {} of them in the loss; longest {}, limit {}",
            several(d.examples as u64, "example"),
            several(d.tokens as u64, "token"),
            count(d.counted as u64),
            count(d.longest as u64),
            count(d.max_length as u64)
        );
        if d.truncated > 0 {
            text += &format!("; {} truncated", count(d.truncated as u64));
        }
        if d.dropped > 0 {
            text += &format!("; {} skipped, without a token in the loss", count(d.dropped as u64));
        }
        text
    };
    let m = &p.memory;
    let share = 100.0 * m.trainable_parameters as f64 / m.base_parameters.max(1) as f64;
    let trained = format!("{} ({share:.2} % of the model)", several(m.trainable_parameters, "parameter"));
    let free = p.free_memory.map_or(String::new(), |f| format!("; {} free", human_bytes(f)));
    let mut rows = vec![
        ("model", format!("{} ({})", p.model, p.family)),
        ("task", p.task.to_string()),
        ("training data", data(&p.train)),
    ];
    if !p.labels.is_empty() {
        rows.insert(2, ("labels", p.labels.join(", ")));
    }
    for (i, s) in p.mixture.iter().enumerate() {
        let (share, n) = (100.0 * s.share, several(s.examples as u64, "example"));
        let text = format!(
            "{share:.1} % of an epoch from {} (weight {}): {} of {n}",
            s.name,
            s.weight,
            count(s.per_epoch as u64)
        );
        rows.push((if i == 0 { "mixture" } else { "" }, text));
    }
    if let Some(eval) = &p.eval {
        rows.push(("evaluation data", data(eval)));
    }
    rows.push((
        "trained",
        match (p.adapted_layers, &c.adapter_name_or_path) {
            (0, _) => format!("all weights, {trained}"),
            (n, Some(adapter)) => format!("the adapter {adapter} on {n} layers"),
            (n, None) => format!("{} r {} on {n} layers, {trained}", c.init_lora_weights.0, c.r),
        },
    ));
    rows.push((
        "steps",
        format!(
            "{}, {} per epoch; learning rate {}",
            several(p.total_steps as u64, "step"),
            count(p.steps_per_epoch as u64),
            match c.learning_rate {
                LearningRate::Auto => "auto (`loram plan CONFIG --search` finds it without training)".into(),
                other => other.to_string(),
            }
        ),
    ));
    rows.push((
        "time",
        match time {
            Some(t) if t.measured == Measured::Steps => {
                format!("about {}, from a few steps on this machine", duration(t.seconds))
            }
            Some(t) => format!("very roughly {}, from the speed of this machine", duration(t.seconds)),
            None => "not estimated: the first steps of the run show it".into(),
        },
    ));
    rows.push(("products", format!("{} ({})", p.compute_dtype, p.kernel)));
    rows.push(("memory", format!("about {}{free} ({})", human_bytes(m.total), memory_parts(m))));
    rows.push(("run folder", c.output_dir.display().to_string()));
    let mut text = facts(&rows);
    text += "\nfirst example; the loss is over ";
    let marked = p.example.iter().any(|s| s.counted);
    text += if marked { "the text between ⟦ and ⟧:\n" } else { "the label:\n" };
    text += &example(&p.example);
    if let Some(target) = &p.target {
        text += &format!("\nlabel: {target}");
    }
    text + "\n\n" + &settings(&p.config, all)
}

/// The settings as YAML: all of them, or those that were given.
fn settings(config: &str, all: bool) -> String {
    if all {
        return config.to_string();
    }
    let given: Vec<&str> = config.lines().filter(|l| l.contains("  # from ")).collect();
    let (n, rest) = (given.len(), config.lines().filter(|l| !l.is_empty() && !l.starts_with('#')).count());
    format!("settings that were given ({} more have their defaults; -v lists all)\n{}\n", rest - n, given.join("\n"))
}

/// Several sequences are two answers to a prompt.
fn example(spans: &[PreviewSpan]) -> String {
    let several = spans.iter().any(|s| s.sequence > 0);
    let mut text = String::new();
    for (i, s) in spans.iter().enumerate() {
        if several && (i == 0 || s.sequence != spans[i - 1].sequence) {
            text += if i == 0 { "chosen\n" } else { "\nrejected\n" };
        }
        text += &if s.counted { format!("⟦{}⟧", s.text) } else { s.text.clone() };
    }
    text
}

fn summary_text(s: &Summary) -> String {
    let how = match s.status {
        Status::Finished => "finished",
        Status::StoppedEarly => "stopped early: the evaluation metric no longer improved",
        Status::Interrupted => "stopped by a signal",
    };
    let mut rows = vec![
        (
            "run",
            format!(
                "{how} after {} of {}, {:.2} epochs, {}",
                s.steps,
                several(s.total_steps as u64, "step"),
                s.epochs,
                duration(s.seconds)
            ),
        ),
        ("loss", format!("{:.4} on average, {:.4} at the last step", s.train_loss, s.last_loss)),
    ];
    if let Some(m) = &s.eval_before {
        rows.push(("before", figures(m)));
    }
    if let Some(m) = &s.eval_after {
        rows.push(("after", figures(m)));
    }
    if let (true, Some(best)) = (s.took_best, s.best_step) {
        rows.push(("saved", format!("the weights of step {best}, the best evaluation")));
    }
    let gpu = s.peak_gpu_memory.map_or(String::new(), |m| format!(", on the GPU {}", human_bytes(m)));
    rows.push((
        "speed",
        format!("{} tokens/s, peak memory {}{gpu}", count(s.tokens_per_second.round() as u64), human_bytes(s.peak_rss)),
    ));
    rows.push(("trained", format!("{} of {} parameters", count(s.trainable_parameters), count(s.parameters))));
    rows.push(("run folder", s.output_dir.display().to_string()));
    if let Some(adapter) = &s.adapter {
        rows.push((if s.scheme == "full" { "model" } else { "adapter" }, adapter.display().to_string()));
    }
    if let Some(checkpoint) = &s.checkpoint {
        rows.push(("checkpoint", checkpoint.display().to_string()));
    }
    let mut text = String::from("\n") + &facts(&rows) + "\nnext:\n";
    // TensorBoard is another program
    for command in s.next.iter().filter(|c| c.starts_with("loram ") || c.split(' ').next().is_some_and(on_path)) {
        text += &format!("  {}\n", as_called(command));
    }
    text
}
