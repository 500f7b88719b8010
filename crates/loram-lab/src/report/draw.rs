//! Draws plots as SVG and PNG.

use super::clip::pieces;
use super::forest;
use super::legend::{LEGEND_ROW, draw_legend, legend_rows};
use super::plot::{
    Drawn, GRID, Ground, HEIGHT, HeatMap, INK, LinePlot, PNG_SCALE, Plot, Series, TEXT, TITLE, WIDTH, colour, dashes,
    marker,
};
use super::scale::{self, Scale};
use crate::{Error, Result};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, register_font};
use std::ops::Range;
use std::path::Path;
use std::sync::Once;

/// Markers on a curve with many points.
const MARKERS: usize = 6;

/// Registers the font that text is measured and drawn with.
fn fonts() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for style in [FontStyle::Normal, FontStyle::Bold] {
            // fails only on bytes that are not a font
            let _ = register_font("sans-serif", style, dejavu::sans::regular());
        }
    });
}

impl Plot {
    /// Width and height.
    fn size(&self) -> (u32, u32) {
        match self {
            Plot::Lines(p) => (WIDTH, HEIGHT + LEGEND_ROW * legend_rows(p) + 8),
            Plot::Heat(h) => (WIDTH, 98 + h.rows.len() as u32 * row_height(h)),
            Plot::Forest(f) => forest::size(f),
        }
    }

    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>, k: u32) -> std::result::Result<(), String> {
        match self {
            Plot::Lines(p) => lines(p, area, k).map_err(|e| e.to_string()),
            Plot::Heat(h) => heat(h, area, k).map_err(|e| e.to_string()),
            Plot::Forest(f) => forest::draw(f, area, k).map_err(|e| e.to_string()),
        }
    }
}

/// The plot as SVG text that scales with its container.
pub(super) fn svg(plot: &Plot, ground: Ground) -> String {
    fonts();
    let (w, h) = plot.size();
    let mut out = String::new();
    {
        let root = SVGBackend::with_string(&mut out, (w, h)).into_drawing_area();
        if ground == Ground::White {
            // writing into a string cannot fail
            let _ = root.fill(&WHITE);
        }
        if plot.draw(&root, 1).is_err() || root.present().is_err() {
            return String::new();
        }
    }
    match ground {
        Ground::White => out,
        Ground::Page => out.replace("#111827", "currentColor").replace("#D1D5DB", "var(--grid)").replacen(
            &format!("<svg width=\"{w}\" height=\"{h}\""),
            "<svg role=\"img\"",
            1,
        ),
    }
}

/// The plot as a PNG file.
pub(super) fn png(plot: &Plot, path: &Path) -> Result<()> {
    fonts();
    let (w, h) = plot.size();
    let failed = |e: String| Error::Failed(format!("cannot draw {}: {e}", path.display()));
    let root = BitMapBackend::new(path, (w * PNG_SCALE, h * PNG_SCALE)).into_drawing_area();
    root.fill(&WHITE).map_err(|e| failed(e.to_string()))?;
    plot.draw(&root, PNG_SCALE).map_err(failed)?;
    root.present().map_err(|e| failed(e.to_string()))
}

/// An axis with the ticks that it is given.
struct Axis {
    range: Range<f64>,
    ticks: Vec<f64>,
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;
    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let part = (value - self.range.start) / (self.range.end - self.range.start);
        limit.0 + (part * f64::from(limit.1 - limit.0)).round() as i32
    }
    fn key_points<H: KeyPointHint>(&self, _: H) -> Vec<f64> {
        self.ticks.clone()
    }
    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Axis {
    // labels are made where the scale is known
    fn format(value: &f64) -> String {
        value.to_string()
    }
}

fn lines<B: DrawingBackend>(p: &LinePlot, area: &DrawingArea<B, Shift>, k: u32) -> Drawn<B> {
    let (plot, legend) = area.split_vertically(HEIGHT * k);
    let (x, y) = (scale::x(p), scale::y(p));
    let axis = |s: &Scale| Axis { range: s.range.clone(), ticks: s.ticks.clone() };
    let mut chart = builder(p, &plot, k).build_cartesian_2d(axis(&x), axis(&y))?;
    axes(&mut chart, p, (&x, &y), k)?;
    for s in &p.series {
        series(&mut chart, p, s, &y, k)?;
    }
    draw_legend(p, &legend, k)
}

fn builder<'a, 'b, B: DrawingBackend>(
    p: &LinePlot,
    area: &'a DrawingArea<B, Shift>,
    k: u32,
) -> ChartBuilder<'a, 'b, B> {
    let mut b = ChartBuilder::on(area);
    b.caption(&p.title, ("sans-serif", TITLE * k).into_font().color(&INK));
    b.margin(6 * k).margin_right(14 * k).x_label_area_size(46 * k).y_label_area_size(62 * k);
    b
}

type Chart<'a, B> = ChartContext<'a, B, Cartesian2d<Axis, Axis>>;

fn axes<B: DrawingBackend>(chart: &mut Chart<'_, B>, p: &LinePlot, (x, y): (&Scale, &Scale), k: u32) -> Drawn<B> {
    let text = ("sans-serif", TEXT * k).into_font().color(&INK);
    chart
        .configure_mesh()
        .x_desc(&p.x_label)
        .y_desc(&p.y_label)
        .disable_x_mesh()
        .bold_line_style(GRID.stroke_width(k))
        .light_line_style(TRANSPARENT)
        .axis_style(GRID.stroke_width(k))
        .label_style(text.clone())
        .axis_desc_style(text)
        .x_label_formatter(&|v| x.label(*v))
        .y_label_formatter(&|v| y.label(*v))
        .draw()
}

fn series<B: DrawingBackend>(chart: &mut Chart<'_, B>, p: &LinePlot, s: &Series, y: &Scale, k: u32) -> Drawn<B> {
    let (c, range) = (colour(s.style), &y.range);
    let within = |v: f64| if v.is_finite() { v.clamp(range.start, range.end) } else { range.end };
    let all: Vec<(f64, f64)> = s.points.iter().map(|(x, v)| (*x, y.place(*v))).collect();
    let spread: Vec<(f64, f64, f64)> =
        s.points.iter().zip(&s.band).map(|(p, b)| (p.0, within(y.place(b.0)), within(y.place(b.1)))).collect();
    if p.bars {
        for (x, low, high) in &spread {
            chart.draw_series([PathElement::new(vec![(*x, *low), (*x, *high)], c.mix(0.6).stroke_width(k))])?;
        }
    } else {
        let there = spread.iter().map(|(x, low, _)| (*x, *low));
        let back = spread.iter().rev().map(|(x, _, high)| (*x, *high));
        chart.draw_series([Polygon::new(there.chain(back).collect::<Vec<_>>(), c.mix(0.16))])?;
    }
    let points: Vec<(f64, f64)> = all.iter().map(|(x, v)| (*x, within(*v))).collect();
    // marked points beyond the edge are drawn at the edge, where their line leaves the plot
    let line = if s.dots { vec![points.clone()] } else { pieces(&all, range) };
    let style = c.stroke_width(2 * k);
    match dashes(s.style) {
        None => chart.draw_series(line.into_iter().map(|l| PathElement::new(l, style)))?,
        Some((on, off)) => {
            chart.draw_series(line.into_iter().map(|l| DashedPathElement::new(l, on * k, off * k, style)))?
        }
    };
    // on a long curve a few markers, beside those of other curves
    let (every, first) = match s.dots || points.len() < 2 * MARKERS {
        true => (1, 0),
        false => (points.len() / MARKERS, s.style * points.len() / MARKERS / 12),
    };
    let marked = points.iter().zip(&all).filter(|(p, a)| s.dots || p.1 == a.1).map(|(p, _)| *p);
    let outline = marker(s.style, (3 * k) as i32);
    let dot = |p: (f64, f64)| EmptyElement::at(p) + Polygon::new(outline.clone(), c.filled());
    chart.draw_series(marked.skip(first).step_by(every).map(dot))?;
    if let Some(point) = s.marked.and_then(|x| points.iter().find(|p| p.0 == x)) {
        chart.draw_series([Circle::new(*point, (7 * k) as i32, c.stroke_width(k + k / 2))])?;
    }
    Ok(())
}

fn row_height(h: &HeatMap) -> u32 {
    if h.rows.len() > 48 { 8 } else { 16 }
}

fn heat<B: DrawingBackend>(h: &HeatMap, area: &DrawingArea<B, Shift>, k: u32) -> Drawn<B> {
    let (low, high) = h.scale;
    let shade = |v: f64| viridis(((v.log10() - low) / (high - low).max(1e-9)).clamp(0.0, 1.0));
    let at = |n: u32| (n * k) as i32;
    let (left, top, row) = (at(122), at(34), at(row_height(h)));
    let width = at(WIDTH) - left - at(14);
    let columns = h.columns.len().max(1) as i32;
    let text = |size: u32| ("sans-serif", size * k).into_font().color(&INK);
    area.draw(&Text::new(h.title.clone(), (at(14), at(8)), text(TITLE)))?;
    // names that would overlap are left out
    let named = 16_u32.div_ceil(row_height(h)) as usize;
    for (y, (name, values)) in h.rows.iter().zip(&h.values).enumerate() {
        let y0 = top + y as i32 * row;
        if y % named == 0 {
            let style = text(13).pos(Pos::new(HPos::Left, VPos::Center));
            area.draw(&Text::new(name.clone(), (at(8), y0 + row / 2), style))?;
        }
        for (x, value) in values.iter().enumerate() {
            let Some(v) = value.filter(|v| *v > 0.0) else { continue };
            let x0 = left + x as i32 * width / columns;
            let x1 = left + (x as i32 + 1) * width / columns;
            area.draw(&Rectangle::new([(x0, y0), (x1, y0 + row)], shade(v).filled()))?;
        }
    }
    let bottom = top + h.rows.len() as i32 * row;
    for x in (0..h.columns.len()).step_by(h.columns.len().div_ceil(5).max(1)) {
        let label = format!("{}", h.columns[x]);
        area.draw(&Text::new(label, (left + x as i32 * width / columns, bottom + at(4)), text(13)))?;
    }
    area.draw(&Text::new("step", (at(8), bottom + at(4)), text(13)))?;
    for i in 0..60 {
        let x0 = left + i * width / 60;
        let cell = [(x0, bottom + at(26)), (left + (i + 1) * width / 60, bottom + at(36))];
        area.draw(&Rectangle::new(cell, viridis(f64::from(i) / 59.0).filled()))?;
    }
    let end = |v: f64| scale::number(10f64.powf(v));
    area.draw(&Text::new(end(low), (left, bottom + at(40)), text(13)))?;
    let right = text(13).pos(Pos::new(HPos::Right, VPos::Top));
    area.draw(&Text::new(end(high), (left + width, bottom + at(40)), right))
}

/// The colour map: dark blue over green to yellow, interpolated linearly between five colours.
fn viridis(t: f64) -> RGBColor {
    const STOPS: [(f64, f64, f64); 5] =
        [(68.0, 1.0, 84.0), (59.0, 82.0, 139.0), (33.0, 145.0, 140.0), (94.0, 201.0, 98.0), (253.0, 231.0, 37.0)];
    let at = t * 4.0;
    let i = (at as usize).min(3);
    let part = at - i as f64;
    let mix = |a: f64, b: f64| (a + part * (b - a)).round() as u8;
    let (a, b) = (STOPS[i], STOPS[i + 1]);
    RGBColor(mix(a.0, b.0), mix(a.1, b.1), mix(a.2, b.2))
}
