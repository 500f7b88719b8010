//! Figures of an evaluation.

use crate::objective::Metric;
use std::collections::{BTreeMap, BTreeSet};

/// The figures of an evaluation; those that the objective does not have, or that are not defined, are absent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics {
    /// Mean loss in nats per counted token, or per example for heads (squared error for regression).
    pub loss: f64,
    /// Counted tokens, for language models; all tokens for heads.
    pub tokens: u64,
    /// Examples.
    pub examples: u64,
    /// The other metrics of the objective by name.
    pub(crate) others: Vec<(String, f64)>,
}

impl Metrics {
    /// A loss over so many tokens and examples, without other metrics.
    pub fn new(loss: f64, tokens: u64, examples: u64) -> Metrics {
        Metrics { loss, tokens, examples, others: Vec::new() }
    }

    /// Adds a metric, where it is defined.
    pub fn set(&mut self, metric: Metric, value: impl Into<Option<f64>>) {
        self.others.extend(value.into().map(|v| (metric.name.to_string(), v)));
    }

    /// All figures by name.
    pub fn values(&self) -> BTreeMap<String, f64> {
        self.others.iter().cloned().chain([("loss".to_string(), self.loss)]).collect()
    }

    /// A figure by name, with or without `eval_`.
    pub fn get(&self, name: &str) -> Option<f64> {
        let name = name.strip_prefix("eval_").unwrap_or(name);
        if name == "loss" {
            return Some(self.loss);
        }
        self.others.iter().find(|o| o.0 == name).map(|o| o.1)
    }
}

/// Position of the largest value, the first of equals.
pub(crate) fn argmax(row: &[f32]) -> usize {
    let mut best = 0;
    for (i, &x) in row.iter().enumerate() {
        if x > row[best] || row[best].is_nan() {
            best = i;
        }
    }
    best
}

/// Share of equal pairs.
pub fn accuracy(predicted: &[usize], actual: &[usize]) -> f64 {
    let right = predicted.iter().zip(actual).filter(|(p, a)| p == a).count();
    right as f64 / actual.len().max(1) as f64
}

fn f1_of(label: usize, predicted: &[usize], actual: &[usize]) -> f64 {
    let count = |p: bool, a: bool| {
        predicted.iter().zip(actual).filter(|&(&x, &y)| (x == label) == p && (y == label) == a).count() as f64
    };
    let (hit, false_alarm, missed) = (count(true, true), count(true, false), count(false, true));
    let denominator = 2.0 * hit + false_alarm + missed;
    if denominator == 0.0 { 0.0 } else { 2.0 * hit / denominator }
}

/// F1 of label 1 where there are two labels (`sklearn.metrics.f1_score`), else the unweighted mean over the labels that
/// occur (`average="macro"`); 0 where it is not defined.
pub fn f1(predicted: &[usize], actual: &[usize], labels: usize) -> f64 {
    if labels <= 2 {
        return f1_of(1, predicted, actual);
    }
    let present: BTreeSet<usize> = predicted.iter().chain(actual).copied().collect();
    present.iter().map(|&l| f1_of(l, predicted, actual)).sum::<f64>() / present.len().max(1) as f64
}

/// Counts over sets of labels.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SetCounts {
    /// For each label how often it was rightly predicted, wrongly predicted, and missed.
    labels: Vec<[u64; 3]>,
    /// Sets that are equal, and all.
    equal: u64,
    sets: u64,
}

impl SetCounts {
    /// Counts pairs of sets, predicted and actual, of label numbers below `labels`.
    pub fn of<'a>(pairs: impl Iterator<Item = (&'a Vec<u64>, &'a Vec<u64>)>, labels: usize) -> SetCounts {
        let mut counts = SetCounts { labels: vec![[0; 3]; labels], ..SetCounts::default() };
        for (predicted, actual) in pairs {
            let hits = predicted.iter().map(|p| (p, usize::from(!actual.contains(p))));
            let missed = actual.iter().filter(|a| !predicted.contains(a)).map(|a| (a, 2));
            for (label, what) in hits.chain(missed) {
                if let Some(of_label) = counts.labels.get_mut(*label as usize) {
                    of_label[what] += 1;
                }
            }
            counts.equal += u64::from(predicted == actual);
            counts.sets += 1;
        }
        counts
    }

    fn f1_of([hit, false_alarm, missed]: [u64; 3]) -> f64 {
        let denominator = 2 * hit + false_alarm + missed;
        if denominator == 0 { 0.0 } else { 2.0 * hit as f64 / denominator as f64 }
    }

    /// F1 of all labels together (`sklearn.metrics.f1_score(average="micro")`).
    pub fn f1_micro(&self) -> f64 {
        let sum = |i: usize| self.labels.iter().map(|l| l[i]).sum();
        SetCounts::f1_of([sum(0), sum(1), sum(2)])
    }

    /// Mean of the F1 of each label (`average="macro"`); of a label that never occurs it is 0.
    pub fn f1_macro(&self) -> f64 {
        self.labels.iter().map(|&l| SetCounts::f1_of(l)).sum::<f64>() / self.labels.len().max(1) as f64
    }

    /// Share of examples with exactly the right labels (`sklearn.metrics.accuracy_score`).
    pub fn subset_accuracy(&self) -> f64 {
        self.equal as f64 / self.sets.max(1) as f64
    }
}

/// Matthews correlation for any number of labels (R_K of Gorodkin 2004, as `sklearn.metrics.matthews_corrcoef`); 0 where
/// it is not defined.
pub fn matthews(predicted: &[usize], actual: &[usize]) -> f64 {
    let n = actual.len() as f64;
    let right = predicted.iter().zip(actual).filter(|(p, a)| p == a).count() as f64;
    let counts = |v: &[usize]| {
        let mut c: BTreeMap<usize, f64> = BTreeMap::new();
        v.iter().for_each(|&x| *c.entry(x).or_default() += 1.0);
        c
    };
    let (p, a) = (counts(predicted), counts(actual));
    let both: f64 = p.iter().map(|(k, x)| x * a.get(k).copied().unwrap_or(0.0)).sum();
    let squares = |c: &BTreeMap<usize, f64>| c.values().map(|x| x * x).sum::<f64>();
    let denominator = ((n * n - squares(&p)) * (n * n - squares(&a))).sqrt();
    if denominator == 0.0 { 0.0 } else { (right * n - both) / denominator }
}

/// Pearson correlation; `None` when a side is constant or there are fewer than two values.
pub fn pearson(x: &[f64], y: &[f64]) -> Option<f64> {
    let n = x.len() as f64;
    let mean = |v: &[f64]| v.iter().sum::<f64>() / n;
    let (mx, my) = (mean(x), mean(y));
    let (mut xy, mut xx, mut yy) = (0.0, 0.0, 0.0);
    for (a, b) in x.iter().zip(y) {
        xy += (a - mx) * (b - my);
        xx += (a - mx) * (a - mx);
        yy += (b - my) * (b - my);
    }
    (x.len() > 1 && xx > 0.0 && yy > 0.0).then(|| (xy / (xx.sqrt() * yy.sqrt())).clamp(-1.0, 1.0))
}

/// Spearman rank correlation, ties with their mean rank (`scipy.stats.spearmanr`).
pub fn spearman(x: &[f64], y: &[f64]) -> Option<f64> {
    pearson(&ranks(x), &ranks(y))
}

fn ranks(v: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..v.len()).collect();
    order.sort_by(|&i, &j| v[i].total_cmp(&v[j]));
    let mut out = vec![0.0; v.len()];
    let mut start = 0;
    while start < order.len() {
        let mut end = start + 1;
        while end < order.len() && v[order[end]] == v[order[start]] {
            end += 1;
        }
        let rank = (start + end - 1) as f64 / 2.0 + 1.0;
        order[start..end].iter().for_each(|&i| out[i] = rank);
        start = end;
    }
    out
}

/// Mean of squared differences.
pub fn mse(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(a, b)| (a - b) * (a - b)).sum::<f64>() / x.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    /// Values made by tests/reference.py with sklearn and scipy.
    #[derive(Deserialize)]
    struct Reference {
        predicted: Vec<usize>,
        actual: Vec<usize>,
        labels: usize,
        accuracy: f64,
        f1: f64,
        matthews: f64,
    }
    #[derive(Deserialize)]
    struct Pairs {
        x: Vec<f64>,
        y: Vec<f64>,
        pearson: f64,
        spearman: f64,
        mse: f64,
    }
    #[derive(Deserialize)]
    struct File {
        classes: Vec<Reference>,
        numbers: Vec<Pairs>,
    }

    fn close(found: f64, expected: f64, what: &str) {
        assert!((found - expected).abs() < 1e-12, "{what}: {found}, expected {expected}");
    }

    #[test]
    fn figures_are_those_of_sklearn_and_scipy() {
        let file: File = serde_json::from_str(include_str!("../tests/reference/metrics.json")).unwrap();
        assert!(file.classes.len() >= 5 && file.numbers.len() >= 3);
        for c in &file.classes {
            close(accuracy(&c.predicted, &c.actual), c.accuracy, "accuracy");
            close(f1(&c.predicted, &c.actual, c.labels), c.f1, "f1");
            close(matthews(&c.predicted, &c.actual), c.matthews, "matthews");
        }
        for n in &file.numbers {
            close(pearson(&n.x, &n.y).unwrap(), n.pearson, "pearson");
            close(spearman(&n.x, &n.y).unwrap(), n.spearman, "spearman");
            close(mse(&n.x, &n.y), n.mse, "mse");
        }
    }

    #[derive(Deserialize)]
    struct Sets {
        predicted: Vec<Vec<u64>>,
        actual: Vec<Vec<u64>>,
        labels: usize,
        micro: f64,
        macro_: f64,
        accuracy: f64,
    }

    #[test]
    fn figures_of_sets_are_those_of_sklearn() {
        let text = include_str!("../tests/reference/sets.json").replace("\"macro\"", "\"macro_\"");
        let cases: Vec<Sets> = serde_json::from_str(&text).unwrap();
        assert!(cases.len() >= 4);
        for c in &cases {
            let counts = SetCounts::of(c.predicted.iter().zip(&c.actual), c.labels);
            close(counts.f1_micro(), c.micro, "micro");
            close(counts.f1_macro(), c.macro_, "macro");
            close(counts.subset_accuracy(), c.accuracy, "subset accuracy");
        }
    }

    #[test]
    fn undefined_figures() {
        assert_eq!(pearson(&[1.0, 1.0], &[1.0, 2.0]), None);
        assert_eq!(spearman(&[1.0], &[1.0]), None);
        assert_eq!(matthews(&[0, 0], &[0, 1]), 0.0);
        assert_eq!(f1(&[0, 0], &[0, 0], 2), 0.0);
    }

    #[test]
    fn the_first_of_equals() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0, 2.0]), 1);
        assert_eq!(argmax(&[f32::NAN, 1.0]), 1);
    }
}
