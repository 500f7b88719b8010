//! Plots before they are drawn, and the style that all share.

use plotters::prelude::*;

/// Width of a plot in units of its SVG; on a phone a page shows it a little smaller.
pub(super) const WIDTH: u32 = 460;
pub(super) const HEIGHT: u32 = 300;
/// Sizes of text.
pub(super) const TEXT: u32 = 14;
pub(super) const TITLE: u32 = 16;
/// Pixels of a PNG for a unit.
pub(super) const PNG_SCALE: u32 = 2;
/// Text and axes; a page puts its own colour in their place.
pub(super) const INK: RGBColor = RGBColor(17, 24, 39);
pub(super) const GRID: RGBColor = RGBColor(209, 213, 219);
/// Distinct for most eyes, on white and on black.
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

/// What a plot shows.
pub(super) enum Plot {
    /// Lines.
    Lines(LinePlot),
    /// Coloured cells.
    Heat(HeatMap),
}

/// Lines over a common axis.
pub(super) struct LinePlot {
    pub title: String,
    pub x_label: String,
    pub y_label: String,
    pub x: XAxis,
    /// Cut the top, or the bottom, where single points would flatten all others.
    pub high_is_bad: bool,
    /// Show the spread as bars, not as an area.
    pub bars: bool,
    pub series: Vec<Series>,
}

/// The horizontal axis.
pub(super) enum XAxis {
    Linear,
    /// Logarithms to the base 10, with ticks at these.
    LogTicks(Vec<f64>),
}

/// One line.
pub(super) struct Series {
    pub name: String,
    pub colour: usize,
    pub points: Vec<(f64, f64)>,
    /// Low and high at each point.
    pub band: Vec<(f64, f64)>,
    /// Abscissa of a point with a ring.
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

/// What lies under a plot.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ground {
    /// White.
    White,
    /// That of the page; text and axes take its colours.
    Page,
}

/// The colour of an arm, by its place in the list of arms.
pub(super) fn colour(i: usize) -> RGBColor {
    COLOURS[i % COLOURS.len()]
}

/// Result of drawing.
pub(super) type Drawn<B> = std::result::Result<(), DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;
