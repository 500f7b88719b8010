//! `loram report`: writes pages, tables and plots from run folders.

use crate::console::Console;
use crate::error::{Error, Result};
use crate::format::several;
use crate::table::facts;
use clap::Args;
use loram_io::atomic::Output;
use loram_lab::report;
use loram_lab::{analyse, collect, missing, peft};
use loram_train::config::LearningRate;
use serde_json::json;
use std::path::PathBuf;

/// Arguments of `loram report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Run folders, or output folders of comparisons
    #[arg(value_name = "DIR", required = true)]
    pub dirs: Vec<PathBuf>,
    /// Output file: .html, .md, .csv (one line per run) or .json; may be repeated
    #[arg(long, short, value_name = "FILE")]
    pub output: Vec<PathBuf>,
    /// Output folder for all plots as SVG and PNG
    #[arg(long, value_name = "DIR")]
    pub plots: Option<PathBuf>,
    /// Output folder for result files in the format of PEFT's method comparison
    #[arg(long, value_name = "DIR")]
    pub peft_results: Option<PathBuf>,
    /// Only runs with this learning rate, as their grid gives it: auto, 1e-3, step:0.3%
    #[arg(long, value_name = "RATE")]
    pub learning_rate: Option<LearningRate>,
    /// Replace output files that exist
    #[arg(long)]
    pub overwrite: bool,
    /// Title of the page
    #[arg(long, value_name = "TEXT", default_value = "Comparison")]
    pub title: String,
}

/// Returns the exit code: 1 if runs of a comparison are missing.
pub fn run(args: &ReportArgs, console: &Console) -> Result<i32> {
    args.output.iter().try_for_each(|o| report::check_output(o))?;
    let outputs = args.output.iter().chain(&args.plots).chain(&args.peft_results);
    outputs.map(|path| Output::new(path, args.overwrite)).try_for_each(|o| o.check())?;
    let missing = missing(&args.dirs)?;
    let code = if missing.is_empty() { 0 } else { 1 };
    if code != 0 {
        let names: Vec<String> = missing.iter().map(|m| m.display().to_string()).collect();
        let n = several(names.len() as u64, "run");
        console.warn(format!("the comparison is incomplete, {n} missing: {}", names.join(", ")));
    }
    let mut found = collect(&args.dirs)?;
    if let Some(rate) = args.learning_rate {
        found.keep_rate(rate);
        if found.runs.is_empty() {
            return Err(Error::Usage(format!("--learning-rate {rate}: no finished run has this learning rate")));
        }
    }
    let (runs, analysis) = (&found.runs, analyse(&found));
    let still = analysis.missing;
    let page = report::Report::new(args.title.clone(), &found, analysis);
    let mut written: Vec<PathBuf> = Vec::new();
    for output in &args.output {
        page.write(output)?;
        written.push(output.clone());
    }
    if let Some(dir) = &args.plots {
        written.extend(page.write_plots(Output::new(dir, args.overwrite))?);
    }
    if let Some(dir) = &args.peft_results {
        peft::write_results(runs, dir)?;
        written.push(dir.clone());
    }
    if written.is_empty() {
        // without an output file: print the tables
        console.result(|| page.markdown().unwrap_or_default(), &page)?;
        return Ok(code);
    }
    let text = || {
        let count = match still {
            0 => several(runs.len() as u64, "run"),
            n => format!("{} of {}; {n} missing, so that verdicts may be open", runs.len(), runs.len() + n),
        };
        let mut rows = vec![("runs", count)];
        rows.extend(written.iter().map(|w| ("written", w.display().to_string())));
        facts(&rows)
    };
    console.result(text, &json!({"runs": runs.len(), "missing": missing, "written": written}))?;
    Ok(code)
}
