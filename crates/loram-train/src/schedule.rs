//! Learning-rate schedules with the formulas of `transformers.optimization`.

use crate::config::{SchedulerType, TrainConfig};

/// A learning-rate schedule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Its shape after warm-up.
    pub kind: SchedulerType,
    /// Warm-up steps.
    pub warmup: usize,
    /// Total steps.
    pub total: usize,
}

impl Schedule {
    /// The schedule of a run of `total` steps. A warm-up ratio is rounded up, a number of warm-up steps is rounded down
    /// (`TrainingArguments.get_warmup_steps`), but a ratio never covers the whole run: its only step would have the rate 0.
    pub fn new(config: &TrainConfig, total: usize) -> Schedule {
        let share = |x: f64| ((total as f64 * x).ceil() as usize).min(total.saturating_sub(1));
        let warmup = match config.warmup_steps {
            Some(n) if n >= 1.0 => n as usize,
            Some(x) => share(x),
            None => share(config.warmup_ratio),
        };
        Schedule { kind: config.lr_scheduler_type, warmup, total }
    }

    /// The share of its peak that the learning rate of step `done + 1` is.
    pub fn share(&self, done: usize) -> f64 {
        if self.kind == SchedulerType::Constant {
            return 1.0;
        }
        let step = done as f64;
        let warmup = self.warmup as f64;
        if done < self.warmup {
            return step / warmup.max(1.0);
        }
        let rest = (self.total as f64 - warmup).max(1.0);
        match self.kind {
            SchedulerType::Linear => ((self.total as f64 - step) / rest).max(0.0),
            SchedulerType::Cosine => {
                let progress = (step - warmup) / rest;
                (0.5 * (1.0 + (std::f64::consts::PI * progress).cos())).max(0.0)
            }
            SchedulerType::Constant | SchedulerType::ConstantWithWarmup => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(kind: SchedulerType, warmup: Option<f64>, ratio: f64, total: usize) -> Vec<f64> {
        let config = TrainConfig {
            lr_scheduler_type: kind,
            warmup_steps: warmup,
            warmup_ratio: ratio,
            ..TrainConfig::default()
        };
        let s = Schedule::new(&config, total);
        (0..total).map(|i| 1e-3 * s.share(i)).collect()
    }

    fn close(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (f, e) in found.iter().zip(expected) {
            assert!((f - e).abs() <= 1e-12 * e.abs().max(1e-3), "{found:?}\n{expected:?}");
        }
    }

    // numbers from tests/reference.py: transformers.get_scheduler(kind, optimizer, warm-up, total)
    #[test]
    fn courses_are_those_of_transformers() {
        use SchedulerType::*;
        close(&rates(Cosine, Some(3.0), 0.9, 8), include!("../tests/reference/cosine.in"));
        close(&rates(Linear, Some(3.0), 0.9, 8), include!("../tests/reference/linear.in"));
        close(&rates(ConstantWithWarmup, Some(3.0), 0.9, 8), include!("../tests/reference/constant_with_warmup.in"));
        close(&rates(Constant, Some(3.0), 0.9, 8), &[1e-3; 8]);
    }

    #[test]
    fn warmup_is_rounded_as_transformers_rounds() {
        let warmup = |steps, ratio, total| {
            let c = TrainConfig { warmup_steps: steps, warmup_ratio: ratio, ..TrainConfig::default() };
            Schedule::new(&c, total).warmup
        };
        assert_eq!(warmup(None, 0.03, 101), 4);
        assert_eq!((warmup(None, 0.03, 1), warmup(None, 0.03, 2), warmup(Some(0.5), 0.0, 1)), (0, 1, 0));
        assert_eq!(warmup(Some(0.1), 0.5, 25), 3);
        assert_eq!(warmup(Some(7.0), 0.5, 25), 7);
        assert_eq!(warmup(None, 0.0, 25), 0);
    }
}
