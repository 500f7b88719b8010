//! Timing of calls.

use std::time::{Duration, Instant};

/// Seconds of the fastest of many calls, which holds on a busy machine too.
pub fn fastest(budget: Duration, mut f: impl FnMut()) -> f64 {
    let (begun, mut best, mut calls) = (Instant::now(), f64::INFINITY, 0);
    while calls < 3 || begun.elapsed() < budget {
        let call = Instant::now();
        f();
        best = best.min(call.elapsed().as_secs_f64());
        calls += 1;
    }
    best
}
