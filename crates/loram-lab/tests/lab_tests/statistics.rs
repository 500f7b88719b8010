//! Statistics against numpy and scipy (`tests/reference.py`).

use loram_lab::stats::{
    Curve, Observations, Paired, Resampled, bootstrap, mean, mean_curve, paired_bootstrap, pooled, quantile, std,
};
use loram_train::ExampleScores;
use loram_train::objective::{Classification, NextToken, Regression};
use serde_json::Value;

fn reference() -> Value {
    serde_json::from_str(include_str!("../reference/statistics.json")).unwrap()
}

fn list(v: &Value) -> Vec<f64> {
    v.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn close(found: f64, expected: &Value, tolerance: f64, what: &str) {
    let expected = expected.as_f64().unwrap();
    assert!((found - expected).abs() <= tolerance, "{what}: {found}, expected {expected}");
}

#[test]
fn summaries_are_those_of_numpy() {
    for s in reference()["summaries"].as_array().unwrap() {
        let mut x = list(&s["x"]);
        close(mean(&x), &s["mean"], 1e-12, "mean");
        close(std(&x).unwrap(), &s["std"], 1e-12, "std");
        x.sort_by(f64::total_cmp);
        for (q, expected) in list(&s["q"]).into_iter().zip(s["quantiles"].as_array().unwrap()) {
            close(quantile(&x, q), expected, 1e-12, "quantile");
        }
    }
    assert_eq!(std(&[1.0]), None);
}

#[test]
fn intervals_over_seeds_are_those_of_scipy() {
    for s in reference()["seeds"].as_array().unwrap() {
        let (a, b) = (list(&s["a"]), list(&s["b"]));
        let found = paired_bootstrap(Observations::Scores(&a), Observations::Scores(&b)).unwrap();
        assert_eq!(found.resampled, Resampled::Seeds);
        close(found.estimate, &s["estimate"], 1e-12, "estimate");
        // 2000 replicates scatter by a few hundredths of the width
        let room = 0.08 * (s["high"].as_f64().unwrap() - s["low"].as_f64().unwrap());
        close(found.low, &s["low"], room, "low");
        close(found.high, &s["high"], room, "high");
    }
}

fn language(nats: Vec<f64>, tokens: &[u64]) -> ExampleScores {
    NextToken::scores(nats, tokens.to_vec(), vec![0; tokens.len()])
}

#[test]
fn intervals_over_examples_are_those_of_scipy() {
    for s in reference()["examples"].as_array().unwrap() {
        let tokens: Vec<u64> = list(&s["tokens"]).into_iter().map(|t| t as u64).collect();
        let (a, b) = (language(list(&s["a"]), &tokens), language(list(&s["b"]), &tokens));
        let found =
            paired_bootstrap(Observations::Examples(&[&a], "loss"), Observations::Examples(&[&b], "loss")).unwrap();
        assert_eq!(found.resampled, Resampled::Examples);
        close(found.estimate, &s["estimate"], 1e-12, "estimate");
        let room = 0.08 * (s["high"].as_f64().unwrap() - s["low"].as_f64().unwrap());
        close(found.low, &s["low"], room, "low");
        close(found.high, &s["high"], room, "high");
    }
}

#[test]
fn intervals_over_tasks_are_those_of_numpy() {
    let reference = &reference()["pooled"];
    let runs = |task: &Value, arm: &str| -> Vec<ExampleScores> {
        let tokens: Vec<u64> = list(&task["tokens"]).into_iter().map(|t| t as u64).collect();
        task[arm].as_array().unwrap().iter().map(|nats| language(list(nats), &tokens)).collect()
    };
    let tasks = reference["tasks"].as_array().unwrap();
    let all: Vec<(Vec<ExampleScores>, Vec<ExampleScores>, f64)> =
        tasks.iter().map(|t| (runs(t, "a"), runs(t, "b"), t["scale"].as_f64().unwrap())).collect();
    let borrowed: Vec<(Vec<&ExampleScores>, Vec<&ExampleScores>, f64)> =
        all.iter().map(|(a, b, scale)| (a.iter().collect(), b.iter().collect(), *scale)).collect();
    let tasks: Vec<Vec<Paired<'_>>> = borrowed
        .iter()
        .map(|(a, b, scale)| {
            let of = |runs| Observations::Examples(runs, "loss");
            vec![Paired { a: of(a), b: of(b), scale: *scale }]
        })
        .collect();
    let found = pooled(&tasks).unwrap();
    close(found.estimate, &reference["estimate"], 1e-9, "estimate");
    let quantiles = reference["quantiles"].as_array().unwrap();
    let width = quantiles[3].as_f64().unwrap() - quantiles[0].as_f64().unwrap();
    let ends = [found.wide.0, found.narrow.0, found.narrow.1, found.wide.1];
    for (found, expected) in ends.into_iter().zip(quantiles) {
        close(found, expected, 0.03 * width, "quantile");
    }
    // a task at several ranks counts once, with their mean
    let (alone, twice) = (pooled(&tasks[..1]).unwrap(), pooled(&[[&tasks[0][..], &tasks[0][..]].concat()]).unwrap());
    assert!((alone.estimate - twice.estimate).abs() < 1e-12);
    assert!(twice.wide.1 - twice.wide.0 < alone.wide.1 - alone.wide.0);
    assert_eq!(pooled(&[]), None);
}

#[test]
fn what_two_arms_share_cancels_out() {
    // examples of very different difficulty, an arm that is better by a little on each
    let tokens = vec![10; 40];
    let nats: Vec<f64> = (0..40).map(|i| 1.0 + (i * 37 % 40) as f64).collect();
    let run =
        |seed: i32, shift: f64| language(nats.iter().map(|x| x + 0.1 * f64::from(seed) + shift).collect(), &tokens);
    let a: Vec<ExampleScores> = (0..3).map(|s| run(s, -0.2)).collect();
    let b: Vec<ExampleScores> = (0..3).map(|s| run(s, 0.0)).collect();
    let (a, b): (Vec<&ExampleScores>, Vec<&ExampleScores>) = (a.iter().collect(), b.iter().collect());
    let alone = bootstrap(Observations::Examples(&a, "loss")).unwrap();
    let paired = paired_bootstrap(Observations::Examples(&a, "loss"), Observations::Examples(&b, "loss")).unwrap();
    assert_eq!(paired.resampled, Resampled::SeedsAndExamples);
    assert!(alone.high - alone.low > 0.3, "{alone:?}");
    assert!((paired.low + 0.02).abs() < 1e-9 && (paired.high + 0.02).abs() < 1e-9, "{paired:?}");
    assert_eq!(bootstrap(Observations::Scores(&[1.0])), None, "one value says nothing of others");
    let short = [a[0]];
    assert!(paired_bootstrap(Observations::Examples(&a, "loss"), Observations::Examples(&short, "loss")).is_none());
}

#[test]
fn figures_of_curves() {
    for c in reference()["curves"].as_array().unwrap() {
        let curve = Curve { steps: list(&c["steps"]), values: list(&c["values"]) };
        close(curve.mean_height().unwrap(), &c["height"], 1e-12, "height");
        close(curve.first_at_or_below(c["level"].as_f64().unwrap()).unwrap(), &c["reached"], 1e-9, "reached");
        assert_eq!(curve.first_at_or_below(0.1), None);
        assert_eq!(curve.first_at_or_below(5.0), Some(0.0));
        let other = Curve { steps: vec![0.0, 25.0, 30.0], values: vec![1.0, 2.4, 9.0] };
        let (mean, band) = mean_curve(&[&curve, &other]);
        assert_eq!((mean.steps, mean.values), (vec![0.0, 25.0], vec![2.0, 1.9]));
        assert_eq!(band, [(1.0, 3.0), (1.4, 2.4)]);
    }
    assert_eq!(Curve { steps: vec![1.0], values: vec![2.0] }.mean_height(), None);
}

#[test]
fn metrics_of_chosen_examples() {
    let e = NextToken::scores(vec![2.0, 9.0], vec![2, 3], vec![1, 3]);
    assert_eq!(e.metric("loss", &[0]), Some(1.0));
    assert_eq!(e.metric("loss", &[0, 1, 1]), Some(20.0 / 8.0));
    assert_eq!(e.metric("token_accuracy", &[0, 1]), Some(0.8));
    assert_eq!((e.overall("exact_match"), e.metric("exact_match", &[1, 1, 0])), (Some(0.5), Some(2.0 / 3.0)));
    assert_eq!(e.metric("accuracy", &[0]), None);
    let c = Classification::scores(vec![0.5, 1.5, 1.0], vec![1, 0, 1], vec![1, 1, 0], 2);
    assert_eq!(c.overall("loss"), Some(1.0));
    assert_eq!(c.overall("accuracy"), Some(1.0 / 3.0));
    let v = Regression::scores(vec![1.0, 2.0, 3.0], vec![1.0, 2.0, 5.0]);
    assert_eq!(v.overall("mse"), Some(4.0 / 3.0));
    assert!((v.overall("spearmanr").unwrap() - 1.0).abs() < 1e-12);
    assert_eq!(v.metric("pearson", &[0, 0, 0]), None, "not defined on equal values");
}
