//! Ranges, ticks and labels of the axes of a line plot.

use super::plot::{LinePlot, XAxis, YRange};
use std::ops::Range;

/// Factor between the ends of a curve plot from which its scale is logarithmic.
const WIDE: f64 = 3.0;
/// Ticks that fit.
const MOST_TICKS: usize = 6;

/// An axis: the range and ticks in its own coordinates.
pub(super) struct Scale {
    pub range: Range<f64>,
    pub ticks: Vec<f64>,
    kind: Kind,
}

/// The kind of coordinates.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Values,
    /// Logarithms (base 10) of values, which `place` takes.
    Logarithms,
    /// Logarithms as the plot has them, of learning rates or ranks.
    Given,
}

impl Scale {
    /// The coordinate of a value.
    pub fn place(&self, value: f64) -> f64 {
        if self.kind == Kind::Logarithms { value.log10() } else { value }
    }

    /// The label of a tick.
    pub fn label(&self, tick: f64) -> String {
        let near = |x: f64, to: f64| (x - to).abs() < to.abs() * 1e-6;
        match self.kind {
            Kind::Logarithms => number(10f64.powf(tick)),
            Kind::Given => match 10f64.powf(tick) {
                x if (0.999..1e5).contains(&x) => format!("{x:.0}"),
                x => minus(format!("{x:.1e}").replace(".0e", "e")),
            },
            Kind::Values => {
                // as many digits as tell the ticks apart
                let digits = (0..6).find(|d| {
                    self.ticks.iter().all(|t| *t == 0.0 || near(format!("{t:.d$}").parse().unwrap_or(0.0), *t))
                });
                minus(format!("{tick:.*}", digits.unwrap_or(6)))
            }
        }
    }
}

/// A number with at most two significant digits.
pub(super) fn number(x: f64) -> String {
    if x != 0.0 && !(1e-3..1e5).contains(&x.abs()) {
        return minus(format!("{x:.1e}").replace(".0e", "e"));
    }
    let digits = (1.0 - x.abs().max(1e-300).log10().floor()).max(0.0) as usize;
    let text = format!("{x:.digits$}");
    minus(match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text,
    })
}

/// A number with a minus sign in place of the hyphen.
pub(super) fn minus(text: String) -> String {
    text.replace('-', "−")
}

/// The horizontal axis.
pub(super) fn x(p: &LinePlot) -> Scale {
    let all = p.series.iter().flat_map(|s| s.points.iter().map(|v| v.0));
    let (low, high) = all.fold((f64::INFINITY, f64::NEG_INFINITY), |r, x| (r.0.min(x), r.1.max(x)));
    let room = if p.bars { (high - low) * 0.06 } else { 0.0 };
    let range = (low - room)..(high + room);
    match &p.x {
        XAxis::Linear => Scale { ticks: steps(&range), range, kind: Kind::Values },
        XAxis::LogTicks(data) => {
            // values of different arms may be close together: their labels would overlap
            let apart = (high - low) / MOST_TICKS as f64;
            let mut ticks: Vec<f64> = Vec::new();
            for &value in data {
                if ticks.last().is_none_or(|last| value - last >= apart) {
                    ticks.push(value);
                }
            }
            Scale { ticks, range, kind: Kind::Given }
        }
    }
}

/// The vertical axis.
pub(super) fn y(p: &LinePlot) -> Scale {
    let Range { start: low, end: high } = values(p);
    if p.y == YRange::Curves && low > 0.0 && high / low >= WIDE {
        let room = (high / low).log10() * 0.05;
        let range = (low.log10() - room)..(high.log10() + room);
        return Scale { ticks: decades(&range), range, kind: Kind::Logarithms };
    }
    let room = ((high - low) * 0.07).max(high.abs() * 1e-3).max(1e-9);
    let range = (low - room)..(high + room);
    Scale { ticks: steps(&range), range, kind: Kind::Values }
}

/// The range of a plot's values, without outliers that would flatten the rest.
fn values(p: &LinePlot) -> Range<f64> {
    let mut all: Vec<f64> = p.series.iter().flat_map(|s| s.points.iter().map(|v| v.1)).collect();
    all.retain(|v| v.is_finite());
    all.sort_by(f64::total_cmp);
    let (Some(&low), Some(&high)) = (all.first(), all.last()) else { return 0.0..1.0 };
    let middle = all[all.len() / 2];
    match p.y {
        YRange::ClipHigh => low..high.min(middle + 2.5 * (middle - low).max(1e-9)),
        YRange::ClipLow => low.max(middle - 2.5 * (high - middle).max(1e-9))..high,
        YRange::Curves => {
            // a loss far above all losses at the start is a divergence
            let first = p.series.iter().filter_map(|s| s.points.first()).map(|v| v.1).filter(|v| v.is_finite());
            let start = first.fold(f64::NEG_INFINITY, f64::max);
            low..if start > 0.0 { high.min(3.0 * start) } else { high }
        }
    }
}

/// Ticks in steps of 1, 2 or 5 times a power of ten.
pub(super) fn steps(range: &Range<f64>) -> Vec<f64> {
    let width = (range.end - range.start).max(f64::MIN_POSITIVE);
    let power = 10f64.powf((width / MOST_TICKS as f64).log10().floor());
    let fits = |s: &&f64| width / (**s * power) <= MOST_TICKS as f64;
    let step = power * [1.0, 2.0, 5.0].iter().find(fits).unwrap_or(&10.0);
    let first = (range.start / step).ceil() as i64;
    (first..).map(|i| i as f64 * step).take_while(|t| *t <= range.end).take(4 * MOST_TICKS).collect()
}

/// Ticks (logarithms) at the finest of these lists of numbers that is not too dense.
fn decades(range: &Range<f64>) -> Vec<f64> {
    const LISTS: [&[f64]; 4] = [&[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0], &[1.0, 2.0, 3.0, 5.0], &[1.0, 2.0, 5.0], &[1.0]];
    let powers = (range.start.floor() as i32)..=(range.end.ceil() as i32);
    let of = |list: &[f64]| -> Vec<f64> {
        let all = powers.clone().flat_map(|p| list.iter().map(move |m| m.log10() + f64::from(p)));
        all.filter(|t| range.contains(t)).collect()
    };
    LISTS.iter().map(|l| of(l)).find(|t| t.len() <= MOST_TICKS).unwrap_or_else(|| of(LISTS[3]))
}

#[cfg(test)]
mod tests {
    use super::super::plot::Series;
    use super::*;

    fn curves(lines: &[&[f64]], y: YRange) -> LinePlot {
        let line = |values: &&[f64]| Series {
            name: String::new(),
            style: 0,
            points: values.iter().enumerate().map(|(i, v)| (i as f64, *v)).collect(),
            band: Vec::new(),
            marked: None,
            dots: false,
        };
        LinePlot {
            title: String::new(),
            x_label: String::new(),
            y_label: String::new(),
            x: XAxis::Linear,
            y,
            bars: false,
            series: lines.iter().map(line).collect(),
        }
    }

    #[test]
    fn a_curve_is_shown_from_its_first_step() {
        let p = curves(&[&[4.2, 0.4, 0.3, 0.11], &[4.2, 0.5, 0.4, 0.3]], YRange::Curves);
        let scale = y(&p);
        assert!(scale.range.contains(&scale.place(4.2)) && scale.range.contains(&scale.place(0.11)));
        let labels: Vec<String> = scale.ticks.iter().map(|t| scale.label(*t)).collect();
        assert_eq!(labels, ["0.1", "0.2", "0.5", "1", "2", "5"]);
        // what diverges leaves the plot
        let scale = y(&curves(&[&[4.0, 2.0, 1e6], &[4.0, 2.0, 1.0]], YRange::Curves));
        assert!((scale.range.end - 12f64.log10()).abs() < 0.1, "{:?}", scale.range);
        // outliers by learning rate do not flatten the rest
        assert!(y(&curves(&[&[1.0, 1.1, 1.2, 90.0]], YRange::ClipHigh)).range.end < 2.0);
    }

    #[test]
    fn labels_of_values_that_lie_close_together_are_left_out() {
        let mut p = curves(&[&[1.0, 2.0, 3.0, 4.0]], YRange::Curves);
        p.x = XAxis::LogTicks(vec![0.0, 0.1, 1.0, 1.1, 2.0, 2.2, 3.0]);
        assert_eq!(x(&p).ticks, [0.0, 1.0, 2.0, 3.0]);
        p.x = XAxis::LogTicks(vec![0.0, 0.6, 1.2, 1.8, 2.4, 3.0]);
        assert_eq!(x(&p).ticks.len(), 6);
    }

    #[test]
    fn ticks_are_round_and_labels_tell_them_apart() {
        let scale = y(&curves(&[&[-0.021, 0.0, 0.013]], YRange::ClipLow));
        let labels: Vec<String> = scale.ticks.iter().map(|t| scale.label(*t)).collect();
        assert_eq!(labels, ["−0.02", "−0.01", "0.00", "0.01"]);
        assert_eq!(steps(&(0.0..500.0)), [0.0, 100.0, 200.0, 300.0, 400.0, 500.0]);
        for (x, text) in [(1e-4, "1e−4"), (0.0031, "0.0031"), (25.0, "25"), (1.5, "1.5"), (2.5e7, "2.5e7"), (0.0, "0")]
        {
            assert_eq!(number(x), text, "{x}");
        }
    }
}
