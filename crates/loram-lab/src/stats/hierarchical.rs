//! Bootstrap intervals of a difference pooled over tasks, seeds and test examples.
//!
//! A replicate draws, with replacement, as many tasks as there are, in each drawn task as many seeds as it has, and in each as many
//! test examples, one draw for both arms and all of its seeds. Its value is the mean over the drawn tasks; a task with several
//! comparisons (ranks) counts with their mean. What differs between tasks is thus part of the interval.

use super::bootstrap::Observations;
use super::summary::{mean, quantile};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Number of replicates.
const REPLICATES: u64 = 10_000;
/// Seed of all draws: the same runs give the same report.
const SEED: u64 = 0x10_4a4;

/// Two arms on one task at one rank, seeds in the same order, and the factor that gives their difference the common unit.
#[derive(Debug, Clone, Copy)]
pub struct Paired<'a> {
    /// The first arm.
    pub a: Observations<'a>,
    /// The arm that is subtracted.
    pub b: Observations<'a>,
    /// Factor on a − b.
    pub scale: f64,
}

/// A difference with its 90 % and 95 % intervals.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Pooled {
    /// The estimate from all data.
    pub estimate: f64,
    /// 2.5 % and 97.5 % quantiles of the replicates.
    pub wide: (f64, f64),
    /// 5 % and 95 % quantiles.
    pub narrow: (f64, f64),
}

impl Paired<'_> {
    fn shape(&self) -> Option<(usize, usize)> {
        let of = |o: &Observations<'_>| (o.seeds(), o.examples());
        (of(&self.a) == of(&self.b) && of(&self.a).0 > 0).then(|| of(&self.a))
    }

    fn difference(&self, seeds: &[usize], examples: &[usize]) -> Option<f64> {
        Some(self.scale * (self.a.score(seeds, examples)? - self.b.score(seeds, examples)?))
    }
}

/// The pooled difference; `None` of nothing, where two arms have other numbers of seeds or examples, where the metric is not defined, or
/// where there is nothing to draw from.
pub fn pooled(tasks: &[Vec<Paired<'_>>]) -> Option<Pooled> {
    let shapes: Vec<Vec<(usize, usize)>> =
        tasks.iter().map(|task| task.iter().map(Paired::shape).collect()).collect::<Option<_>>()?;
    if tasks.is_empty() || tasks.iter().any(Vec::is_empty) {
        return None;
    }
    let several = tasks.len() > 1 || shapes.iter().flatten().any(|&(seeds, examples)| seeds > 1 || examples > 1);
    if !several {
        return None;
    }
    let all = |n: usize| (0..n).collect::<Vec<_>>();
    let whole =
        |(pair, &(seeds, examples)): (&Paired<'_>, &(usize, usize))| pair.difference(&all(seeds), &all(examples));
    let of_task = |(task, shapes): (&Vec<Paired<'_>>, &Vec<(usize, usize)>)| {
        Some(mean(&task.iter().zip(shapes).map(whole).collect::<Option<Vec<f64>>>()?))
    };
    let estimate = mean(&tasks.iter().zip(&shapes).map(of_task).collect::<Option<Vec<f64>>>()?);
    let replicate = |i: u64| {
        let mut rng = ChaCha8Rng::seed_from_u64(SEED);
        rng.set_stream(i);
        let mut draw = |n: usize| (0..n).map(|_| rng.random_range(0..n)).collect::<Vec<_>>();
        let mut sum = 0.0;
        for task in draw(tasks.len()) {
            let mut of_task = 0.0;
            for (pair, &(seeds, examples)) in tasks[task].iter().zip(&shapes[task]) {
                of_task += pair.difference(&draw(seeds), &draw(examples))?;
            }
            sum += of_task / tasks[task].len() as f64;
        }
        Some(sum / tasks.len() as f64).filter(|x| x.is_finite())
    };
    let mut found: Vec<f64> = (0..REPLICATES).into_par_iter().filter_map(replicate).collect();
    if found.is_empty() {
        return None;
    }
    found.sort_by(f64::total_cmp);
    let range = |q: f64| (quantile(&found, q), quantile(&found, 1.0 - q));
    Some(Pooled { estimate, wide: range(0.025), narrow: range(0.05) })
}
