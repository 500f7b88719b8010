//! `loram train`: one run from a configuration.

use crate::console::Console;
use crate::error::Result;
use crate::format::{count, duration, memory_parts, several};
use crate::keys::layers;
use crate::progress::{Show, figures};
use crate::signals;
use crate::table::facts;
use clap::{ArgMatches, Args};
use loram_io::error::human_bytes;
use loram_train::config::keys;
use loram_train::{DataSummary, Preview, PreviewSpan, Status, Summary, TrainConfig, Trainer};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Arguments of `loram train`.
#[derive(Debug, Args)]
pub struct TrainArgs {
    /// Configuration file; flags and --set override it
    #[arg(value_name = "CONFIG.yaml")]
    pub config: Option<PathBuf>,
    /// Print the resolved configuration, the memory estimate and an example with its loss mask, then exit
    #[arg(long)]
    pub dry_run: bool,
    /// List all keys with their defaults and meanings, then exit
    #[arg(long)]
    pub help_keys: bool,
}

/// Returns the exit code: 130 or 143 if a signal stopped the run.
pub fn run(args: &TrainArgs, matches: &ArgMatches, console: &Console) -> Result<i32> {
    if args.help_keys {
        return help_keys(console).map(|()| 0);
    }
    let config = TrainConfig::resolve(&layers(matches, args.config.as_deref())?)?;
    let trainer = Trainer::new(config)?;
    let mut show = Show::new(console);
    if args.dry_run {
        let preview = trainer.preview(&mut show)?;
        show.clear();
        preview.warnings.iter().for_each(|w| console.warn(w));
        return console.result(|| preview_text(&preview), &preview).map(|()| 0);
    }
    let stop = trainer.stop_flag();
    signals::stop_gently(stop.shared())?;
    let summary = trainer.run(&mut show)?;
    show.clear();
    console.result(|| summary_text(&summary), &summary)?;
    Ok(if summary.status == Status::Interrupted { signals::exit_code() } else { 0 })
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

/// The output of `--dry-run`: configuration, data, memory, and the first example with its loss mask.
fn preview_text(p: &Preview) -> String {
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
    let free = p.free_memory.map_or(String::new(), |f| format!("; {} free", human_bytes(f)));
    let mut rows = vec![("model", p.family.clone()), ("task", p.task.to_string()), ("training data", data(&p.train))];
    if !p.labels.is_empty() {
        rows.insert(2, ("labels", p.labels.join(", ")));
    }
    if let Some(eval) = &p.eval {
        rows.push(("evaluation data", data(eval)));
    }
    if p.adapted_layers > 0 {
        rows.push(("adapted layers", p.adapted_layers.to_string()));
    }
    rows.push((
        "steps",
        format!("{}, {} per epoch", several(p.total_steps as u64, "step"), count(p.steps_per_epoch as u64)),
    ));
    rows.push(("memory", format!("about {}{free} ({})", human_bytes(m.total), memory_parts(m))));
    let mut text = format!("{}\n{}", p.config.trim_end(), "\n");
    text += &facts(&rows);
    text += "\nfirst example; the loss is over ";
    text += if p.target.is_some() { "the label:\n" } else { "the text between ⟦ and ⟧:\n" };
    text += &example(&p.example, p.target.is_some());
    if let Some(target) = &p.target {
        text += &format!("\nlabel: {target}");
    }
    text + "\n"
}

fn example(spans: &[PreviewSpan], head: bool) -> String {
    let mut text = String::new();
    for (i, s) in spans.iter().enumerate() {
        if i > 0 && s.sequence != spans[i - 1].sequence {
            text += "\n";
        }
        text += &if s.counted && !head { format!("⟦{}⟧", s.text) } else { s.text.clone() };
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
    for command in &s.next {
        text += &format!("  {command}\n");
    }
    text
}
