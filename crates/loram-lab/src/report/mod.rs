//! Reports as HTML, Markdown, CSV or JSON, with plots as SVG and PNG. They depend on the run folders alone.

mod clip;
mod contents;
mod csv;
mod draw;
mod figure;
mod figures;
mod forest;
mod groups;
mod legend;
mod page;
mod plot;
mod pooled;
mod scale;
mod text;

use crate::analyse::Analysis;
use crate::collect::Collection;
use crate::run_record::RunRecord;
use crate::{Error, Result};
use figure::Figure;
use loram_io::atomic::{self, AtomicDir, Output};
use page::Page;
use serde::Serialize;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Endings of files that a report can be written to.
const ENDINGS: [&str; 4] = ["html", "md", "csv", "json"];

/// A report that can be written in several forms.
#[derive(Serialize)]
pub struct Report {
    /// The title.
    pub title: String,
    /// Version of this program.
    pub loram: &'static str,
    /// All figures.
    #[serde(flatten)]
    pub analysis: Analysis,
    /// A summary of every run.
    pub runs: Vec<Value>,
    #[serde(skip)]
    page: Page,
    #[serde(skip)]
    figures: Vec<Figure>,
    #[serde(skip)]
    csv: String,
}

fn ending(path: &Path) -> Option<&str> {
    path.extension().and_then(|e| e.to_str()).filter(|e| ENDINGS.contains(e))
}

/// Fails if the ending of the file is not that of a report.
pub fn check_output(path: &Path) -> Result<()> {
    match ending(path) {
        Some(_) => Ok(()),
        None => Err(Error::Usage(format!(
            "--output {}: expected a file that ends with .{}",
            path.display(),
            ENDINGS.join(", .")
        ))),
    }
}

impl Report {
    /// The report of these runs.
    pub fn new(title: String, found: &Collection, analysis: Analysis) -> Report {
        let figures = figures::figures(&analysis);
        let runs = &found.runs;
        Report {
            page: contents::page(&title, found, &analysis, &figures),
            csv: csv::csv(runs),
            runs: runs.iter().map(summary).collect(),
            loram: env!("CARGO_PKG_VERSION"),
            title,
            analysis,
            figures,
        }
    }

    /// Writes the report in the format that the ending of the file stands for.
    pub fn write(&self, path: &Path) -> Result<()> {
        match ending(path) {
            Some("html") => Ok(atomic::write_bytes(path, text::html(&self.page)?.as_bytes())?),
            Some("md") => Ok(atomic::write_bytes(path, self.markdown()?.as_bytes())?),
            Some("csv") => Ok(atomic::write_bytes(path, self.csv.as_bytes())?),
            Some("json") => Ok(atomic::write_json(path, self)?),
            _ => check_output(path),
        }
    }

    /// The report as Markdown, without plots.
    pub fn markdown(&self) -> Result<String> {
        text::markdown(&self.page)
    }

    /// Writes every plot as SVG and PNG; other files in a folder that is replaced stay. Returns the files.
    pub fn write_plots<'a>(&self, output: impl Into<Output<'a>>) -> Result<Vec<PathBuf>> {
        let output = output.into();
        let (room, dir) = (AtomicDir::create(output)?, output.path);
        let mut out = Vec::new();
        for figure in &self.figures {
            let (svg, png) = (format!("{}.svg", figure.name), format!("{}.png", figure.name));
            atomic::write_bytes(room.path().join(&svg), draw::svg(&figure.plot, plot::Ground::White).as_bytes())?;
            draw::png(&figure.plot, &room.path().join(&png))?;
            out.extend([dir.join(svg), dir.join(png)]);
        }
        room.commit_keeping(|_| true)?;
        Ok(out)
    }
}

fn summary(run: &RunRecord) -> Value {
    let s = &run.scores;
    json!({
        "folder": run.dir,
        "point": s.point,
        "outcome": s.outcome,
        "selection": s.selection,
        "test": s.test,
        "forgetting": s.forgetting,
        "cost": s.cost,
    })
}
