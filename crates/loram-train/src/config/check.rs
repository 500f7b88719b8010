//! Checks that involve several keys.

use super::key::Mark;
use super::lookup::marked;
use super::table::TrainConfig;
use super::types::{FinetuningType, LearningRate, OptimKind, Strategy};
use crate::{Error, Result};
use loram_core::Statistic;

impl TrainConfig {
    /// Checks the keys against each other. An error names the key that does not fit.
    pub fn check(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::Config(what));
        // an adapter names its base model
        if self.model_name_or_path.is_empty() && self.adapter_name_or_path.is_none() {
            return wrong("model_name_or_path is missing: give a model folder or a hub id (--model)".into());
        }
        if self.train_data.is_empty() {
            return wrong("train_data is missing: give a data file (--data)".into());
        }
        let (weights, data) = (self.data_weights.len(), self.train_data.len());
        if weights > 0 && weights != data {
            return wrong(format!(
                "data_weights has {weights} numbers, but train_data has {data} entries: give one for each (train_data: [{{path: \
                 a.jsonl, weight: 0.3}}, …])"
            ));
        }
        if self.load_in_4bit && self.finetuning_type == FinetuningType::Full {
            return wrong(
                "load_in_4bit does not go with finetuning_type full: quantised weights cannot be trained".into(),
            );
        }
        // the defaults stand in the config.yaml of every run
        let of_four_bit = [
            ("bnb_4bit_quant_type", self.bnb_4bit_quant_type != TrainConfig::default().bnb_4bit_quant_type),
            ("bnb_4bit_use_double_quant", self.bnb_4bit_use_double_quant),
            ("llm_int8_skip_modules", !self.llm_int8_skip_modules.is_empty()),
        ];
        if let Some((key, _)) = of_four_bit.into_iter().find(|(_, set)| !self.load_in_4bit && *set) {
            return wrong(format!("{key} has no effect without load_in_4bit: true"));
        }
        let scheme = self.scheme()?;
        if !self.calibration_data.is_empty() && scheme.statistic() == Statistic::None {
            return wrong(format!("calibration_data has no effect on `{scheme}`, which is initialised without data"));
        }
        if scheme.behaviour().takes_share && self.optim == OptimKind::Sgd {
            let what = "gain: `auto` takes its share from a line search with adamw: give auto:SHARE with sgd, such as auto:0.003";
            return wrong(what.into());
        }
        let asked = self.eval_strategy.map_or(self.eval_steps.is_some(), |s| s != Strategy::No);
        if asked && self.eval_data.is_empty() {
            let key = if self.eval_strategy.is_some() { "eval_strategy" } else { "eval_steps" };
            return wrong(format!("{key} asks for evaluations, but there is no eval_data"));
        }
        if self.tracks_best() && self.evaluation() == Strategy::No {
            let key = match (self.load_best_model_at_end, self.early_stopping_patience) {
                (true, _) => "load_best_model_at_end",
                (_, Some(_)) => "early_stopping_patience",
                _ => "metric_for_best_model",
            };
            return wrong(format!("{key} needs evaluations: give eval_data and an eval_strategy other than no"));
        }
        if self.load_best_model_at_end {
            self.check_best()?;
        }
        self.check_factors()?;
        if self.finetuning_type == FinetuningType::Full && self.adapter_name_or_path.is_some() {
            return wrong("adapter_name_or_path does not go with finetuning_type full: merge the adapter first".into());
        }
        if let Some(path) = &self.adapter_name_or_path
            && let Some(key) = marked(Mark::InAdapter).find(|k| self.origins.contains_key(k.name))
        {
            return wrong(format!("{} does not go with adapter_name_or_path: `{path}` brings its own", key.name));
        }
        Ok(())
    }

    /// Checks settings of single factors: none without effect, none twice.
    pub(super) fn check_factors(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::Config(what));
        if self.lr_b.is_some() && self.loraplus_lr_ratio.is_some() {
            return wrong("lr_b and loraplus_lr_ratio both set the learning rate of B: give one".into());
        }
        for (key, value) in [("lr_a", self.lr_a), ("lr_b", self.lr_b)] {
            if value.is_some() && self.learning_rate.value().is_none() {
                let what = format!(
                    "{key} needs a number as learning_rate, which is {}: give one, or loraplus_lr_ratio in place of {key}",
                    self.learning_rate
                );
                return wrong(what);
            }
            if self.learning_rate == LearningRate::Value(0.0) && value.is_some_and(|x| x > 0.0) {
                return wrong(format!("{key} needs a learning_rate above 0, whose schedule it follows"));
            }
        }
        if self.finetuning_type == FinetuningType::Full
            && let Some(key) = marked(Mark::Factor).find(|k| self.differs_from_default(k))
        {
            return wrong(format!("{} is for adapters: finetuning_type full has no A and B", key.name));
        }
        Ok(())
    }

    /// Checks that checkpoints are saved where evaluations happen, since one of them is to be the best.
    fn check_best(&self) -> Result<()> {
        let (eval, save) = (self.evaluation(), self.saving());
        let together = match (eval, save) {
            (Strategy::Steps, Strategy::Steps) => self.save_every().is_multiple_of(self.eval_every()),
            (a, b) => a == b,
        };
        if together {
            return Ok(());
        }
        Err(Error::Config(format!(
            "load_best_model_at_end needs checkpoints where evaluations are: eval_strategy is {} (every {}), save_strategy {} \
             (every {}); remove save_strategy and save_steps, or make save_steps a multiple of eval_steps",
            eval.as_str(),
            self.eval_every(),
            save.as_str(),
            self.save_every()
        )))
    }
}
