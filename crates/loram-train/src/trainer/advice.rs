//! Advice at the end of a run: findings from its losses, and commands to go on with.

use super::run::Run;
use crate::Metrics;
use crate::base::show;
use crate::checkpoint::TrainerState;
use crate::config::{Key, Mark, TrainConfig, keys};
use crate::shell::quoted;
use loram_nn::HeadKind;
use serde_json::Value;
use std::path::Path;

/// Share by which a loss must fall for a run to have learnt something.
const LEAST_FALL: f64 = 0.005;

/// A learning rate below which a run that learns nothing should try a higher one.
const USUAL_RATE: f64 = 1e-3;

/// Findings from the losses of a run: that it diverged, learnt nothing, or overfits. `after` are the metrics of the weights that
/// are saved.
pub(super) fn of_losses(
    state: &TrainerState,
    after: Option<&Metrics>,
    config: &TrainConfig,
    took_best: bool,
) -> Option<String> {
    let mut logged = state.log_history.iter().filter_map(|r| r.loss);
    let (what, before, last, fall) = match (&state.first_metrics, after) {
        (Some(before), Some(after)) => ("evaluation loss", before.loss, after.loss, LEAST_FALL),
        // losses of other batches scatter
        _ => ("loss", logged.next()?, logged.next_back()?, 0.0),
    };
    if last > before * 1.1 + 0.01 {
        return Some(format!(
            "the {what} rose from {before:.4} to {last:.4}: the run diverged; lower learning_rate or raise warmup_ratio"
        ));
    }
    if last > before * (1.0 - fall) {
        let rate = state.rate.as_ref().map_or(0.0, |r| r.learning_rate);
        let (rate, other) = (
            short(rate),
            if rate < USUAL_RATE { format!("a higher one, such as {}", short(10.0 * rate)) } else { "others".into() },
        );
        return Some(format!(
            "the {what} did not fall ({before:.4} at the start, {last:.4} at the end): the run learnt nothing. The first \
             suspect is learning_rate ({rate}): try {other}"
        ));
    }
    if took_best { None } else { overfitting(state, config) }
}

/// A warning if evaluations were better before the end.
fn overfitting(state: &TrainerState, config: &TrainConfig) -> Option<String> {
    let losses =
        state.log_history.iter().filter(|r| r.step > 0).filter_map(|r| Some((r.step, *r.eval.get("eval_loss")?)));
    let (step, best) = losses.clone().min_by(|a, b| a.1.total_cmp(&b.1))?;
    let (end, last) = losses.max_by_key(|l| l.0)?;
    let remedy = match (config.load_best_model_at_end, config.metric_for_best_model.is_some()) {
        (false, _) => "load_best_model_at_end: true saves the weights of the best evaluation; fewer epochs save time",
        (true, _) => "fewer epochs save time, more data or a lower rank would help",
    };
    (end > step && last > best * 1.03 + 0.005).then(|| {
        format!(
            "the evaluation loss was lowest at step {step} ({best:.4}) and rose to {last:.4} at step {end}: the model overfits \
             the training data. {remedy}"
        )
    })
}

/// A learning rate as people write it.
fn short(rate: f64) -> String {
    format!("{:e}", (rate * 1e12).round() / 1e12)
}

/// The command that goes on with an interrupted run.
pub(super) fn resume(output: &Path) -> String {
    format!("loram train {} --resume", quoted(&show(&output.join("config.yaml"))))
}

impl Run<'_, '_, '_> {
    /// Commands that use the result, ready to be run.
    pub(super) fn next(&self, result: Option<&Path>) -> Vec<String> {
        let config = self.s.config;
        let Some(result) = result else { return vec![resume(&config.output_dir)] };
        let (result, adapted) = (quoted(&show(result)), self.s.adaptation.is_some());
        let with = format!("{} {result}", if adapted { "--adapter" } else { "--model" });
        let mut out = Vec::new();
        if self.s.data.train.head() == HeadKind::LanguageModel {
            let set = self.s.data.eval.as_ref().unwrap_or(&self.s.data.train);
            let chat = match (&set.chat, &config.chat_template) {
                (false, _) => String::new(),
                (true, None) => " --chat".into(),
                (true, Some(t)) => format!(" --chat --chat-template {}", quoted(t)),
            };
            let prompt = self.s.example_prompt(set);
            out.push(format!("loram generate {with}{chat} --prompt {}", quoted(&prompt)));
        } else {
            let data = if config.eval_data.is_empty() { &config.train_data } else { &config.eval_data };
            let data: String = data.iter().map(|d| format!(" --data {}", quoted(d))).collect();
            out.push(format!("loram eval {with}{data}{}", reading(config)));
        }
        let output = show(&config.output_dir);
        if adapted {
            let merged = format!("{}-merged", output.trim_end_matches('/'));
            out.push(format!("loram merge {with} --output {}", quoted(&merged)));
        }
        if config.report_to.tensorboard {
            out.push(format!("tensorboard --logdir {}", quoted(&output)));
        }
        out
    }
}

/// Flags by which `loram eval` reads data as the run did.
fn reading(config: &TrainConfig) -> String {
    let given = |k: &&Key| k.section == "Data" && k.is(Mark::Eval) && config.differs_from_default(k);
    let flag = |k: &Key| {
        let value = match config.get(k.name).unwrap_or(Value::Null) {
            Value::String(s) => s,
            other => other.to_string(),
        };
        format!(" --{} {}", k.flag(), quoted(&value))
    };
    keys().iter().filter(given).map(flag).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observer::LogRecord;
    use crate::rate::FoundRate;

    fn metrics(loss: f64) -> Metrics {
        serde_json::from_value(serde_json::json!({"loss": loss, "tokens": 9, "examples": 3})).unwrap()
    }

    fn state(before: f64, evaluations: &[(usize, f64)]) -> TrainerState {
        let record = |(step, loss): &(usize, f64)| LogRecord {
            step: *step,
            eval: [("eval_loss".to_string(), *loss)].into(),
            ..LogRecord::default()
        };
        TrainerState {
            first_metrics: Some(metrics(before)),
            log_history: evaluations.iter().map(record).collect(),
            rate: Some(FoundRate::given(5e-5)),
            ..TrainerState::default()
        }
    }

    #[test]
    fn losses_suggest_a_remedy() {
        let config = TrainConfig::default();
        let say = |before: f64, all: &[(usize, f64)], took_best: bool| {
            let last = all.last().map(|l| metrics(l.1));
            of_losses(&state(before, all), last.as_ref(), &config, took_best)
        };
        let text = say(4.2, &[(10, 4.6), (20, 5.0)], false).unwrap();
        assert!(text.contains("rose from 4.2000 to 5.0000") && text.contains("lower learning_rate"), "{text}");
        let text = say(4.2, &[(10, 4.21), (20, 4.195)], false).unwrap();
        assert!(
            text.contains("learnt nothing") && text.contains("learning_rate (5e-5): try a higher one, such as 5e-4"),
            "{text}"
        );
        let text = say(1.0, &[(10, 0.37), (20, 0.42), (30, 0.5)], false).unwrap();
        assert!(text.contains("lowest at step 10 (0.3700)") && text.contains("load_best_model_at_end: true"), "{text}");
        assert_eq!(say(1.0, &[(10, 0.37), (20, 0.42), (30, 0.37)], true), None, "the best weights are saved");
        assert_eq!(say(1.0, &[(10, 0.5), (20, 0.4), (30, 0.401)], false), None, "no rise to speak of");
    }

    #[test]
    fn without_evaluations_the_training_loss_speaks() {
        let log = |loss: f64| LogRecord { step: 10, loss: Some(loss), ..LogRecord::default() };
        let say = |losses: &[f64]| {
            let state =
                TrainerState { log_history: losses.iter().map(|l| log(*l)).collect(), ..TrainerState::default() };
            of_losses(&state, None, &TrainConfig::default(), false)
        };
        assert!(say(&[3.0, 2.9, 3.01]).unwrap().contains("the loss did not fall"));
        assert_eq!((say(&[3.0, 2.5]), say(&[3.0])), (None, None));
    }
}
