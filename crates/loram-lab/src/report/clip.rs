//! Clips lines at the edges of a plot.

use std::ops::Range;

/// The pieces of a line within `range` of y. The rest is left out instead of drawn along the edge, where it would look like
/// a plateau. Values that are not finite interrupt the line.
pub fn pieces(points: &[(f64, f64)], range: &Range<f64>) -> Vec<Vec<(f64, f64)>> {
    let mut out: Vec<Vec<(f64, f64)>> = Vec::new();
    for pair in points.windows(2) {
        let Some((from, to)) = segment(pair[0], pair[1], range) else { continue };
        match out.last_mut() {
            Some(piece) if piece.last() == Some(&from) => piece.push(to),
            _ => out.push(vec![from, to]),
        }
    }
    out
}

/// The part of a segment within the range.
fn segment(a: (f64, f64), b: (f64, f64), range: &Range<f64>) -> Option<((f64, f64), (f64, f64))> {
    if !(a.1.is_finite() && b.1.is_finite()) || a.1.max(b.1) < range.start || a.1.min(b.1) > range.end {
        return None;
    }
    let inside = |p: (f64, f64)| {
        let y = p.1.clamp(range.start, range.end);
        if y == p.1 { p } else { (a.0 + (b.0 - a.0) * (y - a.1) / (b.1 - a.1), y) }
    };
    Some((inside(a), inside(b)))
}

#[cfg(test)]
mod tests {
    use super::pieces;

    #[test]
    fn lines_leave_the_plot_and_come_back() {
        let line = [(0.0, 4.0), (1.0, 0.0), (2.0, 1.0), (3.0, 5.0), (4.0, 5.0), (5.0, -3.0)];
        let want = vec![vec![(0.5, 2.0), (1.0, 0.0), (2.0, 1.0), (2.25, 2.0)], vec![(4.375, 2.0), (4.625, 0.0)]];
        assert_eq!(pieces(&line, &(0.0..2.0)), want);
        assert_eq!(pieces(&[(0.0, 1.0), (1.0, f64::NAN), (2.0, 1.0)], &(0.0..2.0)), Vec::<Vec<_>>::new());
        assert_eq!(pieces(&[(0.0, 1.0), (1.0, 2.0)], &(0.0..2.0)), [[(0.0, 1.0), (1.0, 2.0)]]);
        assert!(pieces(&[(0.0, 3.0), (1.0, 4.0)], &(0.0..2.0)).is_empty() && pieces(&[], &(0.0..1.0)).is_empty());
    }
}
