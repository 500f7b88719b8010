//! Arms against baselines over all groups at once, with the rules that decide.

use super::arm::ArmReport;
use super::group::{BASELINES, Group};
use crate::run_record::RunRecord;
use crate::stats::{Observations, Paired, Pooled, mean, pooled};
use loram_train::ExampleScores;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Differences below this are none in practice: percent of the loss, or points of an accuracy or correlation.
pub const SCORE_MARGIN: f64 = 1.0;
/// The same for steps and seconds, in percent.
pub const STEPS_MARGIN: f64 = 5.0;

/// The verdict of the intervals of score and area.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// The 95 % interval of one lies wholly beyond the margin on the worse side.
    Refuted,
    /// The 95 % interval of one lies wholly on the better side of 0, and the other one is not worse.
    Exceeds,
    /// The 90 % intervals of both lie inside the margins.
    Matches,
    /// None of these.
    Undecided,
}

/// The advantage of an arm in one group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// The group's title.
    pub group: String,
    /// Of the score.
    pub score: Pooled,
}

/// An arm against a baseline over all groups that have both. Every advantage is positive where the arm is better.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PooledComparison {
    /// The arm.
    pub arm: String,
    /// The baseline.
    pub baseline: String,
    /// Number of pairs of model and task.
    pub tasks: usize,
    /// Groups that are left out, since a run is missing or has no score.
    pub left_out: usize,
    /// Score on the test part at the end, in percent of `lora`'s loss, or in points.
    pub score: Pooled,
    /// Mean height of the loss curve, in percent of `lora`'s final loss.
    pub area: Option<Pooled>,
    /// Steps to the final loss of `lora` of the same seed, in percent of the run.
    pub steps: Option<Pooled>,
    /// Seconds until then, initialisation included, in percent of `lora`'s run.
    pub seconds: Option<Pooled>,
    /// By the rules of [`Decision`].
    pub decision: Decision,
    /// Undecided: by what factor there should be more data for intervals that would decide, if the estimate stays as it is.
    pub more_data: Option<f64>,
    /// By group.
    pub effects: Vec<Effect>,
}

/// One figure of both arms by seed.
#[derive(Default)]
struct Sides {
    a: Vec<f64>,
    b: Vec<f64>,
}

/// The figures of one group that are pooled.
struct Pairs<'a> {
    title: String,
    metric: &'a str,
    /// Results for single examples, where all runs have them.
    examples: Option<[Vec<&'a ExampleScores>; 2]>,
    score: Sides,
    /// Factor that makes an advantage in percent or points of a difference of scores.
    scale: f64,
    /// In percent, less is better; nothing where a run lacks the figure.
    area: Option<Sides>,
    steps: Option<Sides>,
    seconds: Option<Sides>,
}

impl Pairs<'_> {
    fn of_score(&self) -> Paired<'_> {
        let (a, b) = match &self.examples {
            Some([a, b]) => (Observations::Examples(a, self.metric), Observations::Examples(b, self.metric)),
            None => (Observations::Scores(&self.score.a), Observations::Scores(&self.score.b)),
        };
        Paired { a, b, scale: self.scale }
    }
}

/// All comparisons over at least two pairs of model and task.
pub(super) fn comparisons(groups: &[Group], runs: &[RunRecord]) -> Vec<PooledComparison> {
    let by_dir: BTreeMap<String, &RunRecord> = runs.iter().map(|r| (r.dir.display().to_string(), r)).collect();
    let arms: BTreeSet<&str> = groups.iter().flat_map(|g| &g.arms).map(|a| a.arm.as_str()).collect();
    let pairs = BASELINES.iter().flat_map(|b| arms.iter().filter(move |a| *a != b).map(move |a| (*a, *b)));
    pairs.filter_map(|(arm, baseline)| compare(arm, baseline, groups, &by_dir)).collect()
}

fn compare(
    arm: &str,
    baseline: &str,
    groups: &[Group],
    by_dir: &BTreeMap<String, &RunRecord>,
) -> Option<PooledComparison> {
    let mut by_task: BTreeMap<(&str, &str), Vec<Pairs<'_>>> = BTreeMap::new();
    let mut left_out = 0;
    for group in groups {
        let of = |name: &str| group.arms.iter().find(|a| a.arm == name);
        let (Some(a), Some(b)) = (of(arm), of(baseline)) else { continue };
        match pairs(group, a, b, of("lora").unwrap_or(b), by_dir) {
            Some(pairs) => by_task.entry((&group.model, &group.task)).or_default().push(pairs),
            None => left_out += 1,
        }
    }
    let tasks: Vec<Vec<Pairs<'_>>> = by_task.into_values().collect();
    if tasks.len() < 2 {
        return None;
    }
    let score = pooled(&tasks.iter().map(|task| task.iter().map(Pairs::of_score).collect()).collect::<Vec<_>>())?;
    let area = over(&tasks, |p| p.area.as_ref());
    let effect = |p: &Pairs<'_>| Some(Effect { group: p.title.clone(), score: pooled(&[vec![p.of_score()]])? });
    let (decision, more_data) = decide(&score, area.as_ref());
    Some(PooledComparison {
        arm: arm.into(),
        baseline: baseline.into(),
        tasks: tasks.len(),
        left_out,
        effects: tasks.iter().flatten().filter_map(effect).collect(),
        steps: over(&tasks, |p| p.steps.as_ref()),
        seconds: over(&tasks, |p| p.seconds.as_ref()),
        score,
        area,
        decision,
        more_data,
    })
}

/// The advantage in a figure of which less is better.
fn over<'a>(tasks: &'a [Vec<Pairs<'a>>], figure: impl Fn(&'a Pairs<'a>) -> Option<&'a Sides>) -> Option<Pooled> {
    let pair = |p| {
        let Sides { a, b } = figure(p)?;
        Some(Paired { a: Observations::Scores(b), b: Observations::Scores(a), scale: 1.0 })
    };
    let all = tasks.iter().map(|task| task.iter().map(pair).collect::<Option<Vec<_>>>());
    pooled(&all.collect::<Option<Vec<_>>>()?)
}

/// The runs of two arms at their best learning rates by seed; `None` where runs are missing or have no score.
fn pairs<'a>(
    group: &'a Group,
    a: &ArmReport,
    b: &ArmReport,
    lora: &ArmReport,
    by_dir: &BTreeMap<String, &'a RunRecord>,
) -> Option<Pairs<'a>> {
    let runs = |arm: &ArmReport| -> Option<Vec<&'a RunRecord>> {
        let all = arm.runs.iter().map(|dir| by_dir.get(dir).copied()).collect::<Option<Vec<_>>>()?;
        let whole = arm.open.is_none() && all.iter().all(|r| r.scores.test_score().is_some());
        (whole && !all.is_empty()).then_some(all)
    };
    let (of_a, of_b, of_lora) = (runs(a)?, runs(b)?, runs(lora)?);
    let seeds = |all: &[&RunRecord]| all.iter().map(|r| r.scores.point.seed).collect::<Vec<_>>();
    if seeds(&of_a) != seeds(&of_b) || seeds(&of_a) != seeds(&of_lora) {
        return None;
    }
    let scores = |all: &[&RunRecord]| all.iter().filter_map(|r| r.scores.test_score()).collect::<Vec<_>>();
    let data = &of_a[0].scores.data;
    let same = of_a.iter().chain(&of_b).all(|r| r.scores.data == *data);
    let examples = |all: &[&'a RunRecord]| all.iter().map(|r| r.scores.examples.as_ref()).collect::<Option<Vec<_>>>();
    let examples = examples(&of_a).zip(examples(&of_b)).filter(|(x, y)| {
        let lengths: BTreeSet<usize> = x.iter().chain(y).map(|e| e.len()).collect();
        same && lengths.len() == 1
    });
    let scale = if group.score.more_is_better { 100.0 } else { -100.0 / mean(&scores(&of_lora)) };
    let final_loss = |r: &RunRecord| r.curve().values.last().copied();
    let final_losses = of_lora.iter().map(|r| final_loss(r)).collect::<Option<Vec<f64>>>();
    let heights = |all: &[&RunRecord]| {
        let percent = 100.0 / mean(final_losses.as_ref()?);
        all.iter().map(|r| Some(percent * r.curve().mean_height()?)).collect::<Option<Vec<f64>>>()
    };
    // steps to the final loss of `lora` of the same seed, or all steps
    let reached = |run: &RunRecord, lora: &RunRecord| {
        let last = *run.curve().steps.last()?;
        Some((run.curve().first_at_or_below(final_loss(lora)?).unwrap_or(last), last))
    };
    let by_seed = |all: &[&RunRecord], figure: &dyn Fn(&RunRecord, &RunRecord) -> Option<f64>| {
        all.iter().zip(&of_lora).map(|(run, lora)| figure(run, lora)).collect::<Option<Vec<f64>>>()
    };
    let steps = |run: &RunRecord, lora: &RunRecord| reached(run, lora).map(|(at, last)| 100.0 * at / last);
    let seconds = |run: &RunRecord, lora: &RunRecord| {
        let ((at, last), cost) = (reached(run, lora)?, &run.scores.cost);
        let whole = lora.scores.cost.start_seconds + lora.scores.cost.train_seconds;
        Some(100.0 * (cost.start_seconds + cost.train_seconds * at / last) / whole).filter(|x| x.is_finite())
    };
    let sides = |of: &dyn Fn(&[&RunRecord]) -> Option<Vec<f64>>| Some(Sides { a: of(&of_a)?, b: of(&of_b)? });
    Some(Pairs {
        title: group.title(),
        metric: &group.score.name,
        examples: examples.map(|(a, b)| [a, b]),
        scale,
        area: sides(&heights),
        steps: sides(&|all| by_seed(all, &steps)),
        seconds: sides(&|all| by_seed(all, &seconds)),
        score: Sides { a: scores(&of_a), b: scores(&of_b) },
    })
}

/// The decision by the intervals of score and area, and, where there is none, by what factor more data would bring one.
fn decide(score: &Pooled, area: Option<&Pooled>) -> (Decision, Option<f64>) {
    let parts: Vec<&Pooled> = std::iter::once(score).chain(area).collect();
    let not_worse = |p: &Pooled| p.wide.1 > -SCORE_MARGIN;
    let exceeds = |i: usize| parts[i].wide.0 > 0.0 && parts.iter().enumerate().all(|(j, p)| j == i || not_worse(p));
    let inside = |p: &&Pooled| p.narrow.0 > -SCORE_MARGIN && p.narrow.1 < SCORE_MARGIN;
    if parts.iter().any(|p| !not_worse(p)) {
        return (Decision::Refuted, None);
    }
    if (0..parts.len()).any(exceeds) {
        return (Decision::Exceeds, None);
    }
    if parts.iter().all(inside) {
        return (Decision::Matches, None);
    }
    // intervals shrink with the root of the amount of data
    let factor = |width: f64, room: f64| if room > 0.0 { (width / room).powi(2) } else { f64::INFINITY };
    let half = |p: &Pooled| (p.narrow.1 - p.narrow.0) / 2.0;
    let matching = parts.iter().map(|p| factor(half(p), SCORE_MARGIN - p.estimate.abs())).fold(0.0, f64::max);
    let exceeding = parts.iter().map(|p| factor(p.estimate - p.wide.0, p.estimate)).fold(f64::INFINITY, f64::min);
    let refuting = parts.iter().map(|p| factor(p.wide.1 - p.estimate, -SCORE_MARGIN - p.estimate));
    let least = matching.min(exceeding).min(refuting.fold(f64::INFINITY, f64::min));
    (Decision::Undecided, least.is_finite().then_some(least))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(estimate: f64, wide: f64, narrow: f64) -> Pooled {
        Pooled { estimate, wide: (estimate - wide, estimate + wide), narrow: (estimate - narrow, estimate + narrow) }
    }

    #[test]
    fn decisions_follow_the_intervals() {
        let decide = |score: Pooled, area: Pooled| decide(&score, Some(&area)).0;
        assert_eq!(decide(of(0.1, 0.5, 0.4), of(-0.2, 0.6, 0.5)), Decision::Matches);
        assert_eq!(decide(of(0.7, 0.5, 0.4), of(-0.2, 0.6, 0.5)), Decision::Exceeds);
        // the area is worse
        assert_eq!(decide(of(0.7, 0.5, 0.4), of(-2.0, 0.6, 0.5)), Decision::Refuted);
        assert_eq!(decide(of(-1.2, 0.1, 0.1), of(0.0, 0.1, 0.1)), Decision::Refuted);
        assert_eq!(decide(of(0.0, 3.0, 2.5), of(0.0, 0.1, 0.1)), Decision::Undecided);
        // an interval beyond 0 and inside the margins is better, not level
        assert_eq!(decide(of(0.3, 0.2, 0.1), of(0.0, 0.1, 0.1)), Decision::Exceeds);
    }

    #[test]
    fn more_data_is_what_shrinks_the_intervals_enough() {
        let (decision, more) = decide(&of(0.0, 3.0, 2.0), None);
        assert_eq!((decision, more), (Decision::Undecided, Some(4.0)));
        // it would exceed before it could match
        let (_, more) = decide(&of(0.9, 1.8, 1.5), None);
        assert!((more.unwrap() - 4.0).abs() < 1e-9);
        assert_eq!(decide(&of(-1.0, 0.5, 0.4), None).1, None, "on the margin no amount decides");
    }
}
