//! Line charts as SVG.

use crate::result::Result;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;
use std::path::Path;
use std::sync::Once;

/// One line, with a band around it where there is one.
pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
    /// Lower and upper ends, at the same places as the points.
    pub band: Option<Vec<(f64, f64)>>,
    pub dashed: bool,
    /// Lines of one group have one colour.
    pub colour: usize,
}

impl Line {
    pub fn new(name: impl Into<String>, colour: usize, points: Vec<(f64, f64)>) -> Line {
        Line { name: name.into(), points, band: None, dashed: false, colour }
    }

    pub fn dashed(self) -> Line {
        Line { dashed: true, ..self }
    }
}

/// A panel of a figure.
pub struct Panel {
    pub title: String,
    pub x: &'static str,
    pub y: &'static str,
    pub log_x: bool,
    pub log_y: bool,
    pub legend: SeriesLabelPosition,
    pub lines: Vec<Line>,
}

/// Colours that people with colour blindness tell apart (Okabe and Ito).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
];

const WIDTH: u32 = 460;
const HEIGHT: u32 = 330;

fn font() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // the font of the program measures text; the viewer draws it in its own
        drop(plotters::style::register_font("sans-serif", FontStyle::Normal, dejavu::sans::regular()));
    });
}

/// Panels side by side, `columns` in a row.
pub fn figure(file: &Path, panels: &[Panel], columns: usize) -> Result<()> {
    font();
    let columns = columns.min(panels.len()).max(1);
    let rows = panels.len().div_ceil(columns);
    let mut text = String::new();
    {
        let root =
            SVGBackend::with_string(&mut text, (WIDTH * columns as u32, HEIGHT * rows as u32)).into_drawing_area();
        root.fill(&WHITE)?;
        for (area, panel) in root.split_evenly((rows, columns)).iter().zip(panels) {
            match (panel.log_x, panel.log_y) {
                (false, false) => draw(area, panel, range(panel, 0), range(panel, 1))?,
                (true, false) => draw(area, panel, range(panel, 0).log_scale(), range(panel, 1))?,
                (false, true) => draw(area, panel, range(panel, 0), range(panel, 1).log_scale())?,
                (true, true) => draw(area, panel, range(panel, 0).log_scale(), range(panel, 1).log_scale())?,
            }
        }
        root.present()?;
    }
    loram_io::atomic::write_bytes(file, text.as_bytes())?;
    println!("{}", file.display());
    Ok(())
}

/// From the least to the largest value of a coordinate.
fn range(panel: &Panel, of: usize) -> std::ops::Range<f64> {
    let log = if of == 0 { panel.log_x } else { panel.log_y };
    let pick = |p: &(f64, f64)| if of == 0 { p.0 } else { p.1 };
    let bands = panel.lines.iter().filter(|_| of == 1).flat_map(|l| l.band.iter().flatten()).flat_map(|b| [b.0, b.1]);
    let all = panel.lines.iter().flat_map(|l| l.points.iter().map(pick)).chain(bands);
    let (low, high) = all
        .filter(|x| x.is_finite() && (!log || *x > 0.0))
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
    match log {
        true => low..high * 1.0001,
        false if of == 1 => (low - 0.04 * (high - low))..(high + 0.04 * (high - low)),
        false => low..high,
    }
}

fn draw<X, Y>(area: &DrawingArea<SVGBackend<'_>, Shift>, panel: &Panel, x: X, y: Y) -> Result<()>
where
    X: AsRangedCoord<Value = f64>,
    Y: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .caption(&panel.title, ("sans-serif", 15))
        .x_label_area_size(34)
        .y_label_area_size(58)
        .build_cartesian_2d(x, y)?;
    let short = |x: &f64| match x.abs() {
        a if a == 0.0 || (0.01..10_000.0).contains(&a) => format!("{}", (x * 1e4).round() / 1e4),
        _ => format!("{x:.0e}"),
    };
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.1))
        .x_desc(panel.x)
        .y_desc(panel.y)
        .x_labels(7)
        .y_labels(7)
        .label_style(("sans-serif", 11))
        .axis_desc_style(("sans-serif", 12))
        .x_label_formatter(&short)
        .y_label_formatter(&short)
        .draw()?;
    for line in &panel.lines {
        let colour = COLOURS[line.colour % COLOURS.len()];
        if let Some(band) = &line.band {
            let low = line.points.iter().zip(band).map(|(p, b)| (p.0, b.0));
            let high = line.points.iter().zip(band).rev().map(|(p, b)| (p.0, b.1));
            chart.draw_series(std::iter::once(Polygon::new(low.chain(high).collect::<Vec<_>>(), colour.mix(0.18))))?;
        }
        let points = line.points.iter().copied().filter(|p| p.1.is_finite());
        let style = colour.stroke_width(2);
        let series = match line.dashed {
            true => chart.draw_series(DashedLineSeries::new(points, 5, 4, style))?,
            false => chart.draw_series(LineSeries::new(points, style))?,
        };
        if !line.name.is_empty() {
            let dashed = line.dashed;
            series.label(&line.name).legend(move |(x, y)| {
                let to = if dashed { x + 8 } else { x + 16 };
                PathElement::new([(x, y), (to, y)], style)
            });
        }
    }
    chart
        .configure_series_labels()
        .border_style(BLACK.mix(0.2))
        .background_style(WHITE.mix(0.75))
        .label_font(("sans-serif", 11))
        .position(panel.legend.clone())
        .draw()?;
    Ok(())
}
