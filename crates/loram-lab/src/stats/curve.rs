//! Figures of a curve over steps.

use super::summary::mean;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// Values by step, in ascending order of steps.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// Steps.
    pub steps: Vec<f64>,
    /// Values.
    pub values: Vec<f64>,
}

impl Curve {
    /// The mean height: the area under the curve by trapezoids, divided by its width. `None` with fewer than two points.
    pub fn mean_height(&self) -> Option<f64> {
        let width = self.steps.last()? - self.steps.first()?;
        let points = self.steps.windows(2).zip(self.values.windows(2));
        let area: f64 = points.map(|(s, v)| (s[1] - s[0]) * (v[0] + v[1]) / 2.0).sum();
        (self.steps.len() > 1 && width > 0.0).then(|| area / width)
    }

    /// The first step at which the curve, interpolated linearly, is at `level` or below; `None` if it never is.
    pub fn first_at_or_below(&self, level: f64) -> Option<f64> {
        let below = self.values.iter().position(|v| *v <= level)?;
        if below == 0 {
            return Some(self.steps[0]);
        }
        let (s0, s1) = (self.steps[below - 1], self.steps[below]);
        let (v0, v1) = (self.values[below - 1], self.values[below]);
        Some(s0 + (s1 - s0) * (v0 - level) / (v0 - v1))
    }
}

/// The mean of curves at the steps that all of them have, and the least and largest value at each of these steps.
pub fn mean_curve(curves: &[&Curve]) -> (Curve, Vec<(f64, f64)>) {
    let mut out = (Curve::default(), Vec::new());
    let Some(first) = curves.first() else { return out };
    let by_step = |c: &&Curve| -> HashMap<u64, f64> {
        // of equal steps, the first counts
        c.steps.iter().map(|s| s.to_bits()).zip(c.values.iter().copied()).rev().collect()
    };
    let others: Vec<HashMap<u64, f64>> = curves.iter().map(by_step).collect();
    for &step in &first.steps {
        let all = others.iter().map(|c| c.get(&step.to_bits()).copied());
        let Some(values) = all.collect::<Option<Vec<f64>>>() else { continue };
        let range = values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |r, v| (r.0.min(*v), r.1.max(*v)));
        out.0.steps.push(step);
        out.0.values.push(mean(&values));
        out.1.push(range);
    }
    out
}
