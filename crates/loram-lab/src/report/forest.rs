//! Forest plots: a row for each estimate, with its 90 % interval as a thick line and its 95 % interval as a thin one.

use super::plot::{Drawn, Forest, GRID, INK, TEXT, TITLE, WIDTH, colour};
use super::scale::{minus, steps};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Height of a row: its name above its intervals.
const ROW: u32 = 34;
/// Height of the title, and of the axis with its label.
const ENDS: (u32, u32) = (38, 50);

/// Width and height.
pub(super) fn size(f: &Forest) -> (u32, u32) {
    (WIDTH, ENDS.0 + f.rows.len() as u32 * ROW + ENDS.1)
}

pub(super) fn draw<B: DrawingBackend>(f: &Forest, area: &DrawingArea<B, Shift>, k: u32) -> Drawn<B> {
    let at = |n: u32| (n * k) as i32;
    let text = |size: u32| ("sans-serif", size * k).into_font().color(&INK);
    let ends = |r: (f64, f64), p: &(String, crate::stats::Pooled)| (r.0.min(p.1.wide.0), r.1.max(p.1.wide.1));
    let (low, high) = f.rows.iter().fold((-1.5 * f.margin, 1.5 * f.margin), ends);
    let room = 0.04 * (high - low);
    let range = low - room..high + room;
    let (left, width) = (at(14), at(WIDTH) - at(28));
    let place = |x: f64| left + ((x - range.start) / (range.end - range.start) * f64::from(width)).round() as i32;
    let (top, bottom) = (at(ENDS.0), at(ENDS.0 + f.rows.len() as u32 * ROW));
    area.draw(&Text::new(f.title.clone(), (at(14), at(8)), text(TITLE)))?;
    let band = [(place(-f.margin), top), (place(f.margin), bottom)];
    area.draw(&Rectangle::new(band, GRID.mix(0.4).filled()))?;
    area.draw(&PathElement::new(vec![(place(0.0), top), (place(0.0), bottom)], INK.mix(0.6).stroke_width(k)))?;
    for (i, (name, p)) in f.rows.iter().enumerate() {
        let y = at(ENDS.0 + i as u32 * ROW);
        area.draw(&Text::new(name.clone(), (left, y + at(2)), text(12)))?;
        let (c, y) = (
            colour(if p.wide.0 > 0.0 {
                2
            } else if p.wide.1 < 0.0 {
                0
            } else {
                1
            }),
            y + at(25),
        );
        let line = |(a, b): (f64, f64), wide: u32| {
            area.draw(&PathElement::new(vec![(place(a), y), (place(b), y)], c.stroke_width(wide * k)))
        };
        line(p.wide, 1)?;
        line(p.narrow, 3)?;
        area.draw(&Circle::new((place(p.estimate), y), at(4), c.filled()))?;
    }
    area.draw(&PathElement::new(vec![(left, bottom), (left + width, bottom)], GRID.stroke_width(k)))?;
    let centred = |size: u32| text(size).pos(Pos::new(HPos::Center, VPos::Top));
    for tick in steps(&range) {
        // as few digits as the widest axis needs
        let label = minus(format!("{:.1}", tick + 0.0).trim_end_matches(".0").to_string());
        area.draw(&Text::new(label, (place(tick), bottom + at(4)), centred(12)))?;
    }
    area.draw(&Text::new(f.x_label.clone(), (left + width / 2, bottom + at(26)), centred(TEXT)))
}
