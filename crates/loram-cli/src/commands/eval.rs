//! `loram eval`: loss and metrics on data files.

use crate::console::Console;
use crate::error::Result;
use crate::format::{count, several};
use crate::keys;
use crate::model::ModelArgs;
use crate::progress::Show;
use crate::ranks;
use crate::sampling::SamplingArgs;
use crate::table::facts;
use clap::{ArgMatches, Args};
use loram_io::data::Answer;
use loram_train::Session;
use loram_train::dataset::DataOptions;
use loram_train::evaluate::EvalOptions;
use loram_train::objective::Metric;
use loram_train::predict::{PredictOptions, answer_of};
use loram_train::text_metrics::TextScores;
use serde_json::{Map, Value, json};

/// Arguments of `loram eval`.
#[derive(Debug, Args)]
pub struct EvalArgs {
    #[command(flatten)]
    pub source: ModelArgs,
    /// Data files (.jsonl, .json, .csv, .tsv, .parquet, .arrow, .txt), a data set of the hub (owner/name:split), or a generated one such as demo:restaurants
    #[arg(long, value_name = "FILE", required = true, alias = "eval-data")]
    pub data: Vec<String>,
    /// Let a language model answer each prompt too, and compare the answers with the completions: exact match, ROUGE-L, BLEU
    #[arg(long)]
    pub generate: bool,
    #[command(flatten)]
    pub sampling: SamplingArgs,
}

pub fn run(args: &EvalArgs, matches: &ArgMatches, console: &Console) -> Result<()> {
    if !args.generate {
        SamplingArgs::refuse(matches, "nothing is generated without --generate")?;
    }
    let (mut config, group) = ranks::join(keys::partial(matches), console)?;
    config.eval_data.clone_from(&args.data);
    let mut show = Show::new(console);
    let mut session = group.agree(Session::open(&args.source.session(config.task, &config), &mut show))?;
    session.group = group.clone();
    session.warnings.iter().for_each(|w| console.warn(w));
    if args.generate && answer_of(&session) != Answer::Text {
        let what = "--generate: this model answers with labels or numbers: evaluate it without";
        group.agree(Err(loram_train::Error::Config(what.into())))?;
    }
    let how = EvalOptions { batch_size: config.per_device_eval_batch_size, ..EvalOptions::default() };
    let (metrics, data) = group.agree(session.evaluate(&DataOptions::evaluation(&config), how, &mut show))?;
    let generation = PredictOptions {
        batch_size: how.batch_size,
        generation: args.sampling.options(session.generate_options())?,
        samples: 1,
    };
    // rank 0 alone: texts are compared as a whole
    let texts = group.agree(match args.generate && group.is_first() {
        true => session.evaluate_texts(&DataOptions::evaluation(&config), &generation, &mut show).map(Some),
        false => Ok(None),
    })?;
    show.clear();
    if data.report.truncated > 0 {
        console.warn(format!(
            "{} of {} truncated to {} tokens",
            count(data.report.truncated as u64),
            several(data.report.examples as u64, "example"),
            data.max_length
        ));
    }
    let mut json: Map<String, Value> = match serde_json::to_value(&metrics) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    };
    json.insert("model".into(), json!(session.base.name));
    json.insert("adapter".into(), json!(args.source.adapter));
    json.insert("data".into(), json!(args.data));
    json.insert("truncated".into(), json!(data.report.truncated));
    let texts: Vec<(&str, &str, f64)> = texts.iter().flat_map(TextScores::described).collect();
    json.extend(texts.iter().map(|(name, _, value)| (name.to_string(), json!(value))));
    let text = || {
        let mut rows = vec![
            ("model", session.base.name.clone()),
            ("adapter", args.source.adapter.clone().unwrap_or_else(|| "none".into())),
            ("data", format!("{}: {}", args.data.join(", "), several(metrics.examples, "example"))),
        ];
        rows.extend(rows_of(&metrics));
        rows.extend(texts.iter().map(|(_, title, value)| (*title, format!("{:.2} %", 100.0 * value))));
        facts(&rows)
    };
    console.result(text, &json)
}

/// The figures of an evaluation with their names: the loss, metrics over tokens, the number of tokens, other metrics.
fn rows_of(m: &loram_train::Metrics) -> Vec<(&'static str, String)> {
    let value = |metric: Metric, x: f64| match metric.percent {
        true => format!("{:.2} %", 100.0 * x),
        false => format!("{x:.4}"),
    };
    let figures = m.described();
    let row = |&(metric, x): &(Metric, f64)| (metric.title, value(metric, x));
    let (over_tokens, others): (Vec<_>, Vec<_>) = figures[1..].iter().partition(|(metric, _)| metric.per_token);
    let unit = if over_tokens.is_empty() { "" } else { " nats per token" };
    let mut rows = vec![("loss", format!("{:.4}{unit}", m.loss))];
    rows.extend(over_tokens.iter().map(row));
    rows.push(("tokens", count(m.tokens)));
    rows.extend(others.iter().map(row));
    rows
}
