//! What follows from several keys together.

use super::{FinetuningType, Strategy, TrainConfig};
use crate::{Error, Result};
use loram_core::{
    Basis, CordaMethod, Gain, GainStatistic, LoraConfig, Quantizer, SchemeOptions, SchemeSpec, Statistic,
};
use serde_json::{Value, json};

impl TrainConfig {
    /// `lora_alpha`, or its default: the rank.
    pub fn alpha(&self) -> f64 {
        self.lora_alpha.unwrap_or(self.r as f64)
    }

    /// The start with its options. Errors name an unknown scheme or option.
    pub fn scheme(&self) -> Result<SchemeSpec> {
        let statistic = self.gain_statistic.as_deref().map(GainStatistic::parse).transpose()?;
        let default = SchemeOptions::default();
        let options = SchemeOptions {
            basis: self.basis.as_deref().map(Basis::parse).transpose()?.unwrap_or_default(),
            gain: self.gain.as_deref().map(Gain::parse).transpose()?.unwrap_or_default(),
            gain_statistic: statistic.unwrap_or_default(),
            rho: self.rho.unwrap_or(default.rho),
            corda_method: self.corda_method.as_deref().map(CordaMethod::parse).transpose()?.unwrap_or_default(),
            stable_gamma: self.stable_gamma.unwrap_or(default.stable_gamma),
            loftq_quantizer: self.loftq_quantizer.as_deref().map(Quantizer::parse).transpose()?.unwrap_or_default(),
            loftq_iter: self.loftq_iter.unwrap_or(default.loftq_iter),
        };
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
        if !self.calibration_data.is_empty() && scheme.info().statistic == Statistic::None {
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
            ] {
                if self.origins.contains_key(key) {
                    return wrong(format!("{key} does not go with adapter_name_or_path: `{path}` brings its own"));
                }
            }
        }
        Ok(())
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
        const FREE: [&str; 28] = [
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
