//! The content of a report as sections, tables and plots, before it is written as HTML or Markdown.

use serde::Serialize;

/// A whole report.
#[derive(Debug, Serialize)]
pub(super) struct Page {
    pub title: String,
    /// A line below the title.
    pub summary: String,
    pub sections: Vec<Section>,
}

/// A section with a heading.
#[derive(Debug, Default, Serialize)]
pub(super) struct Section {
    pub anchor: String,
    pub title: String,
    pub paragraphs: Vec<String>,
    pub warnings: Vec<String>,
    pub blocks: Vec<Block>,
}

/// A part of a section.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Block {
    /// Rows of figures.
    Table(Table),
    /// Plots side by side.
    Plots { plots: Vec<PlotView> },
    /// A part that is folded until it is opened.
    Details { summary: String, text: Option<String>, table: Option<Table>, plots: Vec<PlotView> },
}

#[derive(Debug, Serialize)]
pub(super) struct PlotView {
    pub svg: String,
    pub caption: String,
    pub name: String,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Table {
    pub caption: String,
    pub columns: Vec<Column>,
    pub rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
pub(super) struct Column {
    pub name: String,
    /// True for a column of numbers.
    pub number: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub cells: Vec<Cell>,
    /// True for a row that is highlighted.
    pub best: bool,
}

/// A cell; its tone is `good`, `bad`, or empty.
#[derive(Debug, Serialize)]
pub(super) struct Cell {
    pub text: String,
    pub tone: &'static str,
}

impl From<String> for Cell {
    fn from(text: String) -> Cell {
        Cell { text, tone: "" }
    }
}

impl Table {
    /// A table whose first column holds names and the others numbers.
    pub fn new(caption: impl Into<String>, columns: &[&str]) -> Table {
        let column = |(i, name): (usize, &&str)| Column { name: name.to_string(), number: i > 0 };
        Table { caption: caption.into(), columns: columns.iter().enumerate().map(column).collect(), rows: Vec::new() }
    }

    pub fn push(&mut self, cells: Vec<Cell>, best: bool) {
        self.rows.push(Row { cells, best });
    }
}
