//! Values that follow from several keys together.

use super::key::Mark;
use super::table::TrainConfig;
use super::types::{FourBitKind, Strategy};
use crate::Result;
use crate::base::BaseWeights;
use crate::objective::{LossSettings, metric};
use loram_core::{FirstStep, LoraConfig, SchemeOptions, SchemeSpec};
use loram_io::{FourBitName, LoadIn4Bit};
use serde_json::{Map, Value, json};

/// The optimiser's settings for one factor of every adapter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FactorSetting {
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Decoupled weight decay (SGD adds it to the gradient, as torch does).
    pub weight_decay: f64,
    /// Epsilon of AdamW.
    pub epsilon: f64,
}

impl TrainConfig {
    /// How the base is quantised while it is read, if it is.
    pub fn four_bit(&self) -> Option<LoadIn4Bit> {
        self.load_in_4bit.then(|| LoadIn4Bit {
            bnb_4bit_quant_type: match self.bnb_4bit_quant_type {
                FourBitKind::Nf4 => FourBitName::Nf4,
                FourBitKind::Fp4 => FourBitName::Fp4,
            },
            bnb_4bit_use_double_quant: self.bnb_4bit_use_double_quant,
            llm_int8_skip_modules: self.llm_int8_skip_modules.clone(),
        })
    }

    /// Quantises the base in this way while it is read.
    pub(crate) fn set_four_bit(&mut self, four_bit: &LoadIn4Bit) {
        self.load_in_4bit = true;
        self.bnb_4bit_quant_type = match four_bit.bnb_4bit_quant_type {
            FourBitName::Nf4 => FourBitKind::Nf4,
            FourBitName::Fp4 => FourBitKind::Fp4,
        };
        self.bnb_4bit_use_double_quant = four_bit.bnb_4bit_use_double_quant;
        self.llm_int8_skip_modules.clone_from(&four_bit.llm_int8_skip_modules);
    }

    /// The treatment of the quantisation that an adapter remembers, in an evaluation: the keys override it where they are given.
    pub fn base_weights(&self) -> BaseWeights {
        match (self.four_bit(), self.origins.contains_key("load_in_4bit")) {
            (Some(four_bit), _) => BaseWeights::FourBit(four_bit),
            (None, true) => BaseWeights::AsStored,
            (None, false) => BaseWeights::OfAdapter,
        }
    }

    /// Settings of the loss of preferences.
    pub fn loss_settings(&self) -> LossSettings {
        LossSettings {
            loss_type: self.loss_type.clone(),
            loss_weights: self.loss_weights.clone(),
            beta: self.beta,
            label_smoothing: self.label_smoothing,
            f_divergence_type: self.f_divergence_type,
            f_alpha_divergence_coef: self.f_alpha_divergence_coef,
            discopop_tau: self.discopop_tau,
            simpo_gamma: self.simpo_gamma,
            cpo_alpha: self.cpo_alpha,
            desirable_weight: self.desirable_weight,
            undesirable_weight: self.undesirable_weight,
            ..LossSettings::DEFAULT
        }
    }

    /// `lora_alpha`, or its default: the rank.
    pub fn alpha(&self) -> f64 {
        self.lora_alpha.unwrap_or(self.r as f64)
    }

    /// The initialisation scheme with its options. Errors name an unknown scheme or option.
    pub fn scheme(&self) -> Result<SchemeSpec> {
        self.scheme_of_step(None)
    }

    /// The same, for a run whose first step is to move the weights by this share of their norm.
    pub(crate) fn scheme_of_step(&self, share: Option<f64>) -> Result<SchemeSpec> {
        let (init_scale_a, init_scale_b) = (self.init_scale_a, self.init_scale_b);
        let mut options = SchemeOptions { init_scale_a, init_scale_b, ..SchemeOptions::default() };
        for (key, value) in &self.scheme_options {
            options = options.with(key, value.clone());
        }
        let spec = SchemeSpec::parse(&self.init_lora_weights.0, &options)?;
        if !spec.behaviour().first_step {
            return Ok(spec);
        }
        let [lr_a, lr_b] = self.factors().map(|f| f.learning_rate);
        options.first_step = Some(FirstStep { optimizer: self.step_kind(), lr_a, lr_b, share });
        Ok(SchemeSpec::parse(&self.init_lora_weights.0, &options)?)
    }

    /// True when the learning rate is a number: what follows the run's first step needs one.
    pub fn gives_rate(&self) -> bool {
        self.learning_rate.value().is_some()
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
            trainable_token_indices: self.trainable_token_indices.clone().filter(|t| !t.is_empty()),
            ensure_weight_tying: self.ensure_weight_tying,
            lora_bias: self.lora_bias,
            use_rslora: self.use_rslora,
            init_lora_weights: json!(self.init_lora_weights.0),
            ..LoraConfig::default()
        }
    }

    /// The same configuration at this peak learning rate: those of A and B change with it.
    #[must_use]
    pub fn at(&self, learning_rate: f64) -> TrainConfig {
        let ratio = self.learning_rate.value().map_or(1.0, |old| learning_rate / old);
        let scaled = |lr: Option<f64>| lr.map(|lr| if ratio == 1.0 { lr } else { lr * ratio });
        let (lr_a, lr_b) = (scaled(self.lr_a), scaled(self.lr_b));
        TrainConfig { learning_rate: learning_rate.into(), lr_a, lr_b, ..self.clone() }
    }

    /// The learning rates of A and B as multiples of the run's.
    pub fn factors_per_rate(&self) -> [f64; 2] {
        let unit = self.learning_rate.value().filter(|x| *x > 0.0).unwrap_or(1.0);
        self.at(unit).factors().map(|f| f.learning_rate / unit)
    }

    /// The optimiser's settings for A and B; at a learning rate that is not a number yet, their rates are multiples of it.
    pub fn factors(&self) -> [FactorSetting; 2] {
        let lr_a = self.lr_a.unwrap_or(self.learning_rate.value().unwrap_or(1.0));
        let lr_b = self.lr_b.unwrap_or(lr_a * self.loraplus_lr_ratio.unwrap_or(1.0));
        let of = |learning_rate, decay: Option<f64>, epsilon: Option<f64>| FactorSetting {
            learning_rate,
            weight_decay: decay.unwrap_or(self.weight_decay),
            epsilon: epsilon.unwrap_or(self.adam_epsilon),
        };
        [of(lr_a, self.weight_decay_a, self.adam_epsilon_a), of(lr_b, self.weight_decay_b, self.adam_epsilon_b)]
    }

    /// When to evaluate.
    pub fn evaluation(&self) -> Strategy {
        match self.eval_strategy {
            Some(s) => s,
            None if self.eval_data.is_empty() => Strategy::No,
            None if self.eval_steps.is_some() => Strategy::Steps,
            None => Strategy::Epoch,
        }
    }

    /// When to save a checkpoint.
    pub fn saving(&self) -> Strategy {
        match (self.save_strategy, self.save_steps) {
            (Some(s), _) => s,
            (None, Some(_)) => Strategy::Steps,
            (None, None) if self.evaluation() != Strategy::No => self.evaluation(),
            (None, None) => Strategy::Epoch,
        }
    }

    /// Steps between evaluations under [`Strategy::Steps`]; by default `logging_steps`, as in transformers.
    pub fn eval_every(&self) -> usize {
        self.eval_steps.unwrap_or(self.logging_steps)
    }

    /// Steps between checkpoints under [`Strategy::Steps`]; by default those of evaluations, else 500 as in transformers.
    pub fn save_every(&self) -> usize {
        match self.save_steps {
            Some(n) => n,
            None if self.evaluation() == Strategy::Steps => self.eval_every(),
            None => 500,
        }
    }

    /// The metric that decides which checkpoint is best, without `eval_`.
    pub fn best_metric(&self) -> &str {
        let name = self.metric_for_best_model.as_deref().unwrap_or("loss");
        name.strip_prefix("eval_").unwrap_or(name)
    }

    /// True if larger values of [`TrainConfig::best_metric`] are better.
    pub fn more_is_better(&self) -> bool {
        let default = metric(self.best_metric()).is_none_or(|m| m.higher_is_better);
        self.greater_is_better.unwrap_or(default)
    }

    /// True if evaluations are compared with each other.
    pub fn tracks_best(&self) -> bool {
        self.load_best_model_at_end || self.metric_for_best_model.is_some() || self.early_stopping_patience.is_some()
    }

    /// The keys that a resumed run must not change, with their values. `device` and `dtype` are those that the run uses, which
    /// `auto` does not tell.
    pub(crate) fn fixed_keys(&self, device: &str, dtype: &str) -> Map<String, Value> {
        let mut values = self.values_of(|k| !k.is(Mark::Resumable));
        values.insert("device".into(), json!(device));
        values.insert("compute_dtype".into(), json!(dtype));
        values
    }
}
