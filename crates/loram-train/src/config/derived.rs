//! What follows from several keys together.

use super::{FinetuningType, Strategy, TrainConfig};
use crate::{Error, Result};
use loram_core::{FirstStep, LoraConfig, SchemeOptions, SchemeSpec, Statistic, scheme_options};
use serde_json::{Value, json};

/// What the optimiser does to one factor of every adapter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FactorSetting {
    /// Largest learning rate.
    pub learning_rate: f64,
    /// Decoupled weight decay (that of SGD is added to the gradient, as in torch).
    pub weight_decay: f64,
    /// AdamW's epsilon.
    pub epsilon: f64,
}

impl TrainConfig {
    /// `lora_alpha`, or its default: the rank.
    pub fn alpha(&self) -> f64 {
        self.lora_alpha.unwrap_or(self.r as f64)
    }

    /// The scheme with its options. Errors name an unknown scheme or option.
    pub fn scheme(&self) -> Result<SchemeSpec> {
        let (init_scale_a, init_scale_b) = (self.init_scale_a, self.init_scale_b);
        let mut options = SchemeOptions { init_scale_a, init_scale_b, ..SchemeOptions::default() };
        for option in scheme_options() {
            if let Some(value) = self.get(option.key).filter(|v| !v.is_null()) {
                options = options.with(option.key, value);
            }
        }
        let spec = SchemeSpec::parse(&self.init_lora_weights.0, &options)?;
        if !spec.behaviour().first_step {
            return Ok(spec);
        }
        let [lr_a, lr_b] = self.factors().map(|f| f.learning_rate);
        options.first_step = Some(FirstStep { optimizer: self.step_kind(), lr_a, lr_b });
        Ok(SchemeSpec::parse(&self.init_lora_weights.0, &options)?)
    }

    /// The adapter's settings in PEFT's form.
    pub fn lora_config(&self) -> LoraConfig {
        LoraConfig {
            r: self.r,
            lora_alpha: self.alpha(),
            lora_dropout: self.lora_dropout,
            target_modules: self.target_modules.clone(),
            exclude_modules: self.exclude_modules.clone(),
            rank_pattern: self.rank_pattern.clone(),
            alpha_pattern: self.alpha_pattern.clone(),
            layers_to_transform: self.layers_to_transform.clone(),
            layers_pattern: self.layers_pattern.clone(),
            modules_to_save: (!self.modules_to_save.is_empty()).then(|| self.modules_to_save.clone()),
            use_rslora: self.use_rslora,
            init_lora_weights: json!(self.init_lora_weights.0),
            ..LoraConfig::default()
        }
    }

    /// What the optimiser does to A and to B.
    pub fn factors(&self) -> [FactorSetting; 2] {
        let lr_a = self.lr_a.unwrap_or(self.learning_rate);
        let lr_b = self.lr_b.unwrap_or(lr_a * self.loraplus_lr_ratio.unwrap_or(1.0));
        let of = |learning_rate, decay: Option<f64>, epsilon: Option<f64>| FactorSetting {
            learning_rate,
            weight_decay: decay.unwrap_or(self.weight_decay),
            epsilon: epsilon.unwrap_or(self.adam_epsilon),
        };
        [of(lr_a, self.weight_decay_a, self.adam_epsilon_a), of(lr_b, self.weight_decay_b, self.adam_epsilon_b)]
    }

    /// When evaluations happen.
    pub fn evaluation(&self) -> Strategy {
        match self.eval_strategy {
            Some(s) => s,
            None if self.eval_data.is_empty() => Strategy::No,
            None if self.eval_steps.is_some() => Strategy::Steps,
            None => Strategy::Epoch,
        }
    }

    /// When checkpoints are saved.
    pub fn saving(&self) -> Strategy {
        match (self.save_strategy, self.save_steps) {
            (Some(s), _) => s,
            (None, Some(_)) => Strategy::Steps,
            (None, None) if self.evaluation() != Strategy::No => self.evaluation(),
            (None, None) => Strategy::Epoch,
        }
    }

    /// Steps between evaluations when they go by steps; `logging_steps` where nothing is given, as in transformers.
    pub fn eval_every(&self) -> usize {
        self.eval_steps.unwrap_or(self.logging_steps)
    }

    /// Steps between checkpoints when they go by steps: as often as evaluations, else 500 as in transformers.
    pub fn save_every(&self) -> usize {
        match self.save_steps {
            Some(n) => n,
            None if self.evaluation() == Strategy::Steps => self.eval_every(),
            None => 500,
        }
    }

    /// Metric that decides which checkpoint is best, without `eval_`.
    pub fn best_metric(&self) -> &str {
        let name = self.metric_for_best_model.as_deref().unwrap_or("loss");
        name.strip_prefix("eval_").unwrap_or(name)
    }

    /// Whether more of [`TrainConfig::best_metric`] is better.
    pub fn more_is_better(&self) -> bool {
        self.greater_is_better.unwrap_or(!["loss", "perplexity", "mse"].contains(&self.best_metric()))
    }

    /// Whether evaluations are compared with each other.
    pub fn tracks_best(&self) -> bool {
        self.load_best_model_at_end || self.metric_for_best_model.is_some() || self.early_stopping_patience.is_some()
    }

    /// Checks what depends on several keys.
    pub fn check(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::Config(what));
        if self.model_name_or_path.is_empty() {
            return wrong("model_name_or_path is missing: give a model folder or a hub id (--model)".into());
        }
        if self.train_data.is_empty() {
            return wrong("train_data is missing: give a data file (--data)".into());
        }
        let scheme = self.scheme()?;
        if !self.calibration_data.is_empty() && scheme.statistic() == Statistic::None {
            return wrong(format!("calibration_data has no effect on `{scheme}`, which starts without data"));
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
        if let Some(path) = &self.adapter_name_or_path {
            // the adapter brings its own
            for key in [
                "r",
                "lora_alpha",
                "init_lora_weights",
                "target_modules",
                "rank_pattern",
                "alpha_pattern",
                "use_rslora",
                "calibration_data",
                "init_scale_a",
                "init_scale_b",
            ] {
                if self.origins.contains_key(key) {
                    return wrong(format!("{key} does not go with adapter_name_or_path: `{path}` brings its own"));
                }
            }
        }
        Ok(())
    }

    /// Settings of single factors that say nothing, or two things.
    pub(super) fn check_factors(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::Config(what));
        if self.lr_b.is_some() && self.loraplus_lr_ratio.is_some() {
            return wrong("lr_b and loraplus_lr_ratio both set the learning rate of B: give one".into());
        }
        for (key, value) in [("lr_a", self.lr_a), ("lr_b", self.lr_b)] {
            if self.learning_rate == 0.0 && value.is_some_and(|x| x > 0.0) {
                return wrong(format!("{key} needs a learning_rate above 0, whose schedule it follows"));
            }
        }
        let given = [
            ("lr_a", self.lr_a.is_some()),
            ("lr_b", self.lr_b.is_some()),
            ("weight_decay_a", self.weight_decay_a.is_some()),
            ("weight_decay_b", self.weight_decay_b.is_some()),
            ("adam_epsilon_a", self.adam_epsilon_a.is_some()),
            ("adam_epsilon_b", self.adam_epsilon_b.is_some()),
            ("init_scale_a", self.init_scale_a != 1.0),
            ("init_scale_b", self.init_scale_b != 1.0),
        ];
        match given.iter().find(|g| g.1 && self.finetuning_type == FinetuningType::Full) {
            Some((key, _)) => wrong(format!("{key} is for adapters: finetuning_type full has no A and B")),
            None => Ok(()),
        }
    }

    /// The best checkpoint can only be taken when evaluations and checkpoints fall together.
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
             (every {}); leave save_strategy and save_steps away, or make save_steps a multiple of eval_steps",
            eval.as_str(),
            self.eval_every(),
            save.as_str(),
            self.save_every()
        )))
    }

    /// Keys whose values decide the course of a run, `device` being where it runs indeed: a resumed run must not change them.
    pub(crate) fn trajectory(&self, device: &str) -> serde_json::Map<String, Value> {
        // what only says where, when and how results are shown may change
        const FREE: [&str; 29] = [
            "model_name_or_path",
            "revision",
            "train_data",
            "calibration_data",
            "eval_data",
            "max_eval_samples",
            "per_device_eval_batch_size",
            "gradient_checkpointing",
            "adapter_format",
            "output_dir",
            "overwrite_output_dir",
            "resume_from_checkpoint",
            "logging_steps",
            "magnitude_steps",
            "eval_strategy",
            "eval_steps",
            "eval_on_start",
            "save_strategy",
            "save_steps",
            "save_total_limit",
            "load_best_model_at_end",
            "metric_for_best_model",
            "greater_is_better",
            "early_stopping_patience",
            "early_stopping_threshold",
            "sample_prompts",
            "max_new_tokens",
            "report_to",
            "memory_check",
        ];
        let mut all = self.to_json();
        all.retain(|k, _| !FREE.contains(&k.as_str()));
        all.insert("device".into(), json!(device));
        all
    }
}
