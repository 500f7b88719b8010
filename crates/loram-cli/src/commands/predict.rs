//! `loram predict`: the answers of a model to the records of data files.

use crate::console::Console;
use crate::error::{Error, Result};
use crate::format::several;
use crate::keys;
use crate::model::ModelArgs;
use crate::progress::Show;
use crate::sampling::SamplingArgs;
use clap::{ArgMatches, Args};
use loram_io::atomic::Output;
use loram_io::data::Answer;
use loram_io::rows::RowWriter;
use loram_train::Session;
use loram_train::dataset::DataOptions;
use loram_train::predict::{PredictOptions, answer_of};
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// Arguments of `loram predict`.
#[derive(Debug, Args)]
pub struct PredictArgs {
    #[command(flatten)]
    pub source: ModelArgs,
    /// Data files (.jsonl, .json, .csv, .tsv, .parquet, .arrow) or a data set of the hub (owner/name:split); labels and completions may be missing
    #[arg(long, value_name = "FILE", required = true, alias = "eval-data")]
    pub data: Vec<String>,
    /// File to write (.jsonl, .csv, .tsv, .parquet) [default: JSON Lines on standard output]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace a file that exists
    #[arg(long, requires = "output")]
    pub overwrite: bool,
    /// Texts for each record
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Sampling")]
    pub num_samples: usize,
    #[command(flatten)]
    pub sampling: SamplingArgs,
}

pub fn run(args: &PredictArgs, matches: &ArgMatches, console: &Console) -> Result<()> {
    let mut config = keys::partial(matches)?;
    config.eval_data.clone_from(&args.data);
    if args.num_samples == 0 {
        return Err(Error::Usage("--num-samples: expected 1 or more".into()));
    }
    if args.num_samples > 1 && args.sampling.temperature == 0.0 {
        return Err(Error::Usage(
            "--num-samples: all texts of a record are equal at --temperature 0: give a temperature, such as 0.8".into(),
        ));
    }
    let mut output =
        args.output.as_ref().map(|path| RowWriter::create(Output::new(path, args.overwrite))).transpose()?;
    let mut show = Show::new(console);
    let session = Session::open(&args.source.session(config.task, &config), &mut show)?;
    session.warnings.iter().for_each(|w| console.warn(w));
    if answer_of(&session) != Answer::Text {
        let why = "this model answers with labels or numbers, and generates nothing";
        if args.num_samples > 1 {
            return Err(Error::Usage(format!("--num-samples: {why}")));
        }
        SamplingArgs::refuse(matches, why)?;
    }
    let options = PredictOptions {
        batch_size: config.per_device_eval_batch_size,
        generation: args.sampling.options(session.generate_options())?,
        samples: args.num_samples,
    };
    let mut rows = 0;
    let mut all = Vec::new();
    let mut unwritten = None;
    let mut row = |row: Map<String, Value>| {
        rows += 1;
        match &mut output {
            Some(output) => output.write(row)?,
            None if console.json => all.push(row),
            None => {
                if let Err(e) = console.stream(&format!("{}\n", Value::Object(row))) {
                    let what = e.to_string();
                    unwritten = Some(e);
                    return Err(loram_train::Error::Data(what));
                }
            }
        }
        Ok(())
    };
    let done = session.predict(&DataOptions::evaluation(&config), &options, &mut show, &mut row);
    show.clear();
    match unwritten {
        Some(e) => return Err(e),
        None => done?,
    }
    let Some(path) = &args.output else {
        return match console.json {
            true => console.result(String::new, &json!({ "predictions": all })),
            false => Ok(()),
        };
    };
    if let Some(output) = output {
        output.finish()?;
    }
    let json = json!({ "output": path, "rows": rows, "model": session.base.name, "adapter": args.source.adapter });
    console.result(|| format!("{}: {}\n", path.display(), several(rows, "row")), &json)
}
