//! Plots before they are drawn, and the style that all share.

use crate::stats::Pooled;
use plotters::prelude::*;

/// Width of a plot in units of its SVG; a phone shows it slightly smaller.
pub(super) const WIDTH: u32 = 380;
pub(super) const HEIGHT: u32 = 280;
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
    /// Estimates with intervals.
    Forest(Forest),
}

/// Estimates with their intervals, a row for each.
pub(super) struct Forest {
    pub title: String,
    pub x_label: String,
    /// Names, and estimates with 90 % and 95 % intervals.
    pub rows: Vec<(String, Pooled)>,
    /// Differences below it count as none.
    pub margin: f64,
}

/// Lines over a common horizontal axis.
pub(super) struct LinePlot {
    pub title: String,
    pub x_label: String,
    pub y_label: String,
    pub x: XAxis,
    pub y: YRange,
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

/// The vertical axis.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum YRange {
    /// Outliers at the top are clipped, where they would flatten all other lines.
    ClipHigh,
    /// The same at the bottom.
    ClipLow,
    /// Whole curves that begin high: everything but a divergence is shown, with a logarithmic scale if it spans much.
    Curves,
}

/// One line.
pub(super) struct Series {
    pub name: String,
    /// Number of its style: colour, dashes and marker.
    pub style: usize,
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
    /// Logarithms (base 10) of the values at the ends of the colour scale, which all maps of a report share.
    pub scale: (f64, f64),
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

/// Length of dashes and of the gaps between them; `None` for a solid line. With the marker it tells arms apart without
/// colour.
pub(super) fn dashes(i: usize) -> Option<(u32, u32)> {
    [None, Some((7, 4)), Some((2, 3)), Some((14, 4))][i % 4]
}

/// The outline of an arm's marker around its point, for a radius.
pub(super) fn marker(i: usize, radius: i32) -> Vec<(i32, i32)> {
    let r = radius;
    // half of a side, so that all have about the same area
    let h = (r * 7 + 4) / 8;
    match i % 5 {
        0 => (0..16)
            .map(|k| f64::from(k) * std::f64::consts::TAU / 16.0)
            .map(|t| ((f64::from(r) * t.cos()).round() as i32, (f64::from(r) * t.sin()).round() as i32))
            .collect(),
        1 => vec![(-h, -h), (h, -h), (h, h), (-h, h)],
        2 => vec![(0, -r - 1), (r + 1, h), (-r - 1, h)],
        3 => vec![(0, -r - 1), (r + 1, 0), (0, r + 1), (-r - 1, 0)],
        _ => vec![(0, r + 1), (r + 1, -h), (-r - 1, -h)],
    }
}

/// Result of drawing.
pub(super) type Drawn<B> = std::result::Result<(), DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;
