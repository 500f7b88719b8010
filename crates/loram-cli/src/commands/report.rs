//! `loram report`: run folders as a page, tables, and plots.

use crate::cli::Report;
use crate::console::{Console, several};
use crate::error::Result;
use crate::table::facts;
use loram_lab::report;
use loram_lab::{analyse, collect, peft};
use serde_json::json;
use std::path::PathBuf;

pub fn run(args: &Report, console: &Console) -> Result<()> {
    args.output.iter().try_for_each(|o| report::check_output(o))?;
    let runs = collect(&args.dirs)?;
    let page = report::Report::new(args.title.clone(), &runs, analyse(&runs));
    let mut written: Vec<PathBuf> = Vec::new();
    for output in &args.output {
        page.write(output)?;
        written.push(output.clone());
    }
    if let Some(dir) = &args.plots {
        written.extend(page.write_plots(dir)?);
    }
    if let Some(dir) = &args.peft_results {
        peft::write_results(&runs, dir)?;
        written.push(dir.clone());
    }
    if written.is_empty() {
        // nothing asked for: the tables, to be read here
        return console.result(|| page.markdown().unwrap_or_default(), &page);
    }
    let text = || {
        let mut rows = vec![("runs", several(runs.len() as u64, "run"))];
        rows.extend(written.iter().map(|w| ("written", w.display().to_string())));
        facts(&rows)
    };
    console.result(text, &json!({"runs": runs.len(), "written": written}))
}
