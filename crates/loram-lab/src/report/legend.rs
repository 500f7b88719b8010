//! The legend of a line plot: names beside short lines, in as many rows as needed.

use super::plot::{Drawn, INK, LinePlot, Series, TEXT, WIDTH, colour, dashes, marker};
use plotters::coord::Shift;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use unicode_width::UnicodeWidthStr;

/// Height of a row.
pub(super) const LEGEND_ROW: u32 = 20;

/// Entries of the legend by row. Widths are estimated, since the height must be known before text can be measured.
fn legend(p: &LinePlot) -> Vec<Vec<(u32, &Series)>> {
    let mut out: Vec<Vec<(u32, &Series)>> = vec![Vec::new()];
    let mut x = 14;
    for s in &p.series {
        let width = 46 + 9 * s.name.width() as u32;
        if x + width > WIDTH && x > 14 {
            out.push(Vec::new());
            x = 14;
        }
        if let Some(row) = out.last_mut() {
            row.push((x, s));
        }
        x += width;
    }
    out
}

/// The number of rows.
pub(super) fn legend_rows(p: &LinePlot) -> u32 {
    legend(p).len() as u32
}

/// Draws the legend into an area of that many rows.
pub(super) fn draw_legend<B: DrawingBackend>(p: &LinePlot, area: &DrawingArea<B, Shift>, k: u32) -> Drawn<B> {
    for (i, row) in legend(p).into_iter().enumerate() {
        let y = ((i as u32 * LEGEND_ROW + LEGEND_ROW / 2) * k) as i32;
        for (x, s) in row {
            let x = (x * k) as i32;
            let (c, ends) = (colour(s.style), vec![(x, y), (x + (30 * k) as i32, y)]);
            let style = c.stroke_width(2 * k);
            match dashes(s.style) {
                None => area.draw(&PathElement::new(ends, style))?,
                Some((on, off)) => area.draw(&DashedPathElement::new(ends, on * k, off * k, style))?,
            }
            let at = EmptyElement::at((x + (15 * k) as i32, y));
            area.draw(&(at + Polygon::new(marker(s.style, (4 * k) as i32), c.filled())))?;
            let middle = Pos::new(HPos::Left, VPos::Center);
            let style = ("sans-serif", TEXT * k).into_font().color(&INK).pos(middle);
            area.draw(&Text::new(s.name.clone(), (x + (35 * k) as i32, y), style))?;
        }
    }
    Ok(())
}
