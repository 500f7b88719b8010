//! Scores a trained run on both parts of the held-out data, and measures forgetting.

use crate::grid::{Forgetting, RunSpec};
use crate::names::file_name;
use crate::run_folder::{result_dir, state_dir};
use crate::scores::{Cost, ForgettingFigures, Outcome, Scores};
use crate::{Error, Result};
use loram_io::atomic;
use loram_train::dataset::DataOptions;
use loram_train::observer::Observer;
use loram_train::{EvalOptions, Metrics, ProcessGroup, Session, SessionOptions, evaluate_in};
use std::path::Path;

/// Scores of a run without any figures.
pub fn empty(spec: &RunSpec, cost: Cost) -> Scores {
    Scores {
        point: spec.point.clone(),
        score: spec.score.clone(),
        outcome: Outcome::Finished,
        error: None,
        selection: None,
        test: None,
        data: [&spec.split.selection, &spec.split.test].map(|p| p.display().to_string()).to_vec(),
        forgetting: None,
        cost,
        examples: None,
    }
}

/// Loads the saved result and scores it. `before` is the loss of the base model on its own domain.
/// The evaluations are divided among the ranks of a group.
pub fn score(
    spec: &RunSpec,
    cost: Cost,
    before: Option<f64>,
    group: &ProcessGroup,
    observer: &mut dyn Observer,
) -> Result<Scores> {
    let result = result_dir(&spec.config.output_dir);
    let path = result.display().to_string();
    let options = match result.ends_with("adapter") {
        true => SessionOptions {
            model: spec.config.model_name_or_path.clone(),
            revision: spec.config.revision.clone(),
            adapter: Some(path),
            task: spec.config.task,
            device: spec.config.device,
            compute_dtype: spec.config.compute_dtype,
            ..SessionOptions::default()
        },
        false => SessionOptions {
            model: path,
            task: spec.config.task,
            device: spec.config.device,
            compute_dtype: spec.config.compute_dtype,
            ..SessionOptions::default()
        },
    };
    let mut session = Session::open(&options, observer)?;
    session.group = group.clone();
    let how = EvalOptions { batch_size: spec.config.per_device_eval_batch_size, ..EvalOptions::default() };
    let selection = part(spec, &spec.split.selection);
    let (mut selection, chosen) = session.evaluate(&selection, how, observer)?;
    let test = part(spec, &spec.split.test);
    let set = session.read(&test, observer)?;
    let (objective, size) = (set.objective, how.batch_size);
    let mut test = evaluate_in(group, &mut session.model, set.task(), &set.examples, how, &mut |_, _| {})?;
    // only rank 0 writes them
    let examples = match group.is_first() {
        true => Some(objective.example_scores(&mut session.model, set.task(), &set.examples, size)?),
        false => None,
    };
    if let Some(examples) = &examples {
        for metric in objective.metrics().iter().filter(|m| m.of_examples) {
            test.set(*metric, examples.overall(metric.name));
            if metric.name == spec.score.name {
                let found = objective.example_scores(&mut session.model, set.task(), &chosen.examples, size)?;
                selection.set(*metric, found.overall(metric.name));
            }
        }
    }
    let names: Vec<&str> = objective.metrics().iter().map(|m| m.name).collect();
    if !names.contains(&spec.score.name.as_str()) {
        let what = format!("score: this task gives no `{}`; there are {}", spec.score.name, names.join(", "));
        return Err(Error::Usage(what));
    }
    let forgetting = match (&spec.forgetting, before) {
        (Some(f), Some(before)) => {
            let (m, _) = session.evaluate(&domain(spec, f), how, observer)?;
            Some(ForgettingFigures { data: f.data.clone(), before, after: m.loss })
        }
        _ => None,
    };
    let error = [&selection, &test].into_iter().find_map(|m| no_score(m, &spec.score.name));
    let scored = error.is_none();
    Ok(Scores {
        outcome: if scored { Outcome::Finished } else { Outcome::Diverged },
        error,
        selection: scored.then_some(selection),
        test: scored.then_some(test),
        forgetting: forgetting.filter(|f| f.after.is_finite()),
        examples: examples.filter(|_| scored),
        ..empty(spec, cost)
    })
}

/// The reason why an evaluation has no score, if it has none.
fn no_score(found: &Metrics, name: &str) -> Option<String> {
    match (found.loss.is_finite(), found.get(name).is_some_and(f64::is_finite)) {
        (false, _) => Some("the evaluation loss is not a number".into()),
        (true, false) => Some(format!("`{name}` is not defined: all predictions, or all labels, are equal")),
        (true, true) => None,
    }
}

/// A part of the held-out data, with the options of the run's evaluation data.
fn part(spec: &RunSpec, path: &Path) -> DataOptions {
    let mut options = DataOptions::evaluation(&spec.config);
    options.paths = vec![path.display().to_string()];
    options.max_samples = None;
    options
}

/// Text of the model's own domain, to which columns and formats of the task do not apply.
fn domain(spec: &RunSpec, f: &Forgetting) -> DataOptions {
    DataOptions {
        paths: f.data.clone(),
        max_samples: f.samples,
        max_length: spec.config.max_length,
        completion_only: true,
        ..DataOptions::default()
    }
}

/// Loss of the original base model on its own domain, measured once for each model.
pub fn base_loss(spec: &RunSpec, f: &Forgetting, output: &Path, observer: &mut dyn Observer) -> Result<f64> {
    let limit = spec.config.max_length.map_or("own".to_string(), |n| n.to_string());
    let name = format!("{}-{}-{limit}-{}", spec.point.model, f.data.join("+"), f.samples.unwrap_or(0));
    let path = state_dir(output).join(format!("base-{}.json", file_name(&name)));
    if let Some(text) = loram_io::input::read_text_if_there(&path)? {
        return serde_json::from_str(&text).map_err(|e| Error::folder(&path, e.to_string()));
    }
    let options = SessionOptions {
        model: spec.config.model_name_or_path.clone(),
        revision: spec.config.revision.clone(),
        weights: spec.config.base_weights(),
        device: spec.config.device,
        compute_dtype: spec.config.compute_dtype,
        ..SessionOptions::default()
    };
    let mut session = Session::open(&options, observer)?;
    let how = EvalOptions { batch_size: spec.config.per_device_eval_batch_size, ..EvalOptions::default() };
    let (m, _) = session.evaluate(&domain(spec, f), how, observer)?;
    atomic::write_json(&path, &m.loss)?;
    Ok(m.loss)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_that_is_not_defined_is_no_score() {
        let found = |loss, pearson: Option<f64>| {
            let mut m = Metrics::new(loss, 9, 3);
            m.set(loram_train::objective::metric("pearson").unwrap(), pearson);
            m
        };
        assert_eq!(no_score(&found(2.0, Some(0.5)), "pearson"), None);
        assert!(no_score(&found(2.0, None), "pearson").unwrap().contains("all predictions, or all labels, are equal"));
        assert!(no_score(&found(f64::NAN, Some(0.5)), "pearson").unwrap().contains("loss is not a number"));
    }
}
