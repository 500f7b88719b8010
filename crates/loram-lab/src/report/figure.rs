//! A plot with its place in a report.

use super::draw::svg;
use super::page::PlotView;
use super::plot::{Ground, Plot};

/// The part of a report that a plot belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// All tasks together.
    Pooled,
    /// One comparison, task by task.
    ByTask,
    /// The group of this index.
    Group(usize),
    /// The gains of a model.
    Gains,
}

/// A plot with its place in the report.
pub(super) struct Figure {
    /// The part of the report that it belongs to.
    pub place: Place,
    /// Name of its files.
    pub name: String,
    /// A sentence that describes it.
    pub caption: String,
    /// Its content.
    pub plot: Plot,
}

/// A figure as a part of a page.
pub(super) fn view(f: &Figure) -> PlotView {
    PlotView { svg: svg(&f.plot, Ground::Page), caption: f.caption.clone(), name: f.name.clone() }
}
