//! Plots before they are drawn, and the style that all share.

use plotters::prelude::*;

/// Width of a plot in units of its SVG; a phone shows it slightly smaller.
pub(super) const WIDTH: u32 = 460;
pub(super) const HEIGHT: u32 = 300;
/// Text sizes.
pub(super) const TEXT: u32 = 14;
pub(super) const TITLE: u32 = 16;
/// Pixels of a PNG per unit.
pub(super) const PNG_SCALE: u32 = 2;
/// Text and axes; a page replaces this colour by its own.
pub(super) const INK: RGBColor = RGBColor(17, 24, 39);
pub(super) const GRID: RGBColor = RGBColor(209, 213, 219);
/// Colours that are distinct on white and on black, also with colour blindness.
const COLOURS: [RGBColor; 12] = [
    RGBColor(213, 94, 0),
    RGBColor(0, 134, 204),
    RGBColor(0, 158, 115),
    RGBColor(204, 100, 167),
    RGBColor(188, 143, 0),
    RGBColor(127, 103, 205),
    RGBColor(128, 128, 128),
    RGBColor(86, 180, 190),
    RGBColor(166, 86, 60),
    RGBColor(110, 160, 40),
    RGBColor(190, 40, 70),
    RGBColor(70, 80, 190),
];

/// A plot.
pub(super) enum Plot {
    /// Lines.
    Lines(LinePlot),
    /// Coloured cells.
    Heat(HeatMap),
}

/// Lines over a common horizontal axis.
pub(super) struct LinePlot {
    pub title: String,
    pub x_label: String,
    pub y_label: String,
    pub x: XAxis,
    /// If true, clip outliers at the top, else at the bottom, where they would flatten all other lines.
    pub high_is_bad: bool,
    /// Show the spread as bars instead of a band.
    pub bars: bool,
    pub series: Vec<Series>,
}

/// The horizontal axis.
pub(super) enum XAxis {
    Linear,
    /// Logarithms to base 10, with ticks at these values.
    LogTicks(Vec<f64>),
}

/// One line.
pub(super) struct Series {
    pub name: String,
    pub colour: usize,
    pub points: Vec<(f64, f64)>,
    /// Lower and upper end of the spread at each point.
    pub band: Vec<(f64, f64)>,
    /// The x of a point that is marked by a ring.
    pub marked: Option<f64>,
    pub dots: bool,
}

/// Coloured cells.
pub(super) struct HeatMap {
    pub title: String,
    pub rows: Vec<String>,
    pub columns: Vec<f64>,
    pub values: Vec<Vec<Option<f64>>>,
}

/// The background of a plot.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ground {
    /// White.
    White,
    /// That of the page, whose colours text and axes take.
    Page,
}

/// The colour of an arm, by its place in the list of arms.
pub(super) fn colour(i: usize) -> RGBColor {
    COLOURS[i % COLOURS.len()]
}

/// Result of drawing.
pub(super) type Drawn<B> = std::result::Result<(), DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;
