//! Every key with its default and its meaning, in one table.

use super::value::*;
use loram_core::{OneOrMany, TargetModules};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A key of the configuration, for help texts.
#[derive(Debug, Clone)]
pub struct Field {
    /// Its name, as in transformers, PEFT or TRL.
    pub name: &'static str,
    /// Other names that are understood.
    pub aliases: &'static [&'static str],
    /// Group in the documentation.
    pub section: &'static str,
    /// What values it takes.
    pub expected: String,
    /// Its default; null where that depends on other keys (the help says how).
    pub default: Value,
    /// What it does.
    pub help: String,
}

macro_rules! keys {
    ($($section:literal { $(
        $(#[doc = $doc:literal])+
        $name:ident $([$($alias:literal),+])? : $type:ty = $default:expr $(, if |$x:ident| $check:expr => $range:literal)? ;
    )* })*) => {
        /// One training run: every key with its value. Names and meanings are those of transformers, PEFT and TRL where
        /// they have them; [`fields`] lists them with defaults and help.
        #[derive(Debug, Clone, PartialEq)]
        pub struct TrainConfig {
            $($( $(#[doc = $doc])+ pub $name: $type, )*)*
            /// Where each value that is not a default came from.
            pub origins: BTreeMap<&'static str, super::Origin>,
        }

        impl Default for TrainConfig {
            fn default() -> TrainConfig {
                TrainConfig { $($( $name: $default, )*)* origins: BTreeMap::new() }
            }
        }

        /// All keys, in the order of the documentation.
        pub fn fields() -> Vec<Field> {
            let defaults = TrainConfig::default();
            vec![$($( Field {
                name: stringify!($name),
                aliases: &[$($($alias),+)?],
                section: $section,
                expected: expected::<$type>(&[$($range)?]),
                default: KeyType::write(&defaults.$name),
                help: [$($doc),+].join("").trim().to_string(),
            }, )*)*]
        }

        /// The key's own name from its name or alias.
        pub(super) fn canonical(key: &str) -> Option<&'static str> {
            match key {
                $($( stringify!($name) $($(| $alias)+)? => Some(stringify!($name)), )*)*
                _ => None,
            }
        }

        impl TrainConfig {
            /// Sets a key by its own name. The error says what is expected.
            pub(super) fn put(&mut self, key: &str, value: &Value) -> Result<(), String> {
                match key {
                    $($( stringify!($name) => {
                        let ranges: &[&str] = &[$($range)?];
                        let wrong = || expected::<$type>(ranges);
                        let read = <$type as KeyType>::read(value).ok_or_else(wrong)?;
                        $( let ok = |$x: &$type| -> bool { $check }; if !ok(&read) { return Err(wrong()); } )?
                        self.$name = read;
                    } )*)*
                    _ => return Err("a known key".into()),
                }
                Ok(())
            }

            /// The value of a key by its own name, as it is written to files.
            pub fn get(&self, key: &str) -> Option<Value> {
                match canonical(key)? {
                    $($( stringify!($name) => Some(KeyType::write(&self.$name)), )*)*
                    _ => None,
                }
            }
        }
    };
}

fn expected<T: KeyType>(range: &[&str]) -> String {
    match range {
        // the range of the key in place of that of its type
        [range] => format!("{} ({range})", T::expected().replace(", 0 or more", "")),
        _ => T::expected(),
    }
}

keys! {
    "Model" {
        /// Model folder, or id on the Hugging Face hub.
        model_name_or_path ["model"]: String = String::new();
        /// Branch, tag or commit of a hub model.
        revision: Option<String> = None;
        /// Adapter to go on training, instead of a fresh start.
        adapter_name_or_path ["adapter"]: Option<String> = None;
    }
    "Data" {
        /// Training data: files (.jsonl, .json, .txt, also .gz), or a generated set such as demo:restaurants.
        train_data ["data", "dataset", "train_file"]: Vec<String> = Vec::new();
        /// Evaluation data, in the same forms.
        eval_data ["validation_data", "validation_file"]: Vec<String> = Vec::new();
        /// Format of the records: text, prompt_completion, messages, alpaca, classification or regression; null: recognised
        /// from their fields.
        dataset_format ["format"]: Option<String> = None;
        /// Renames columns: name that is expected → name in the data.
        columns: BTreeMap<String, String> = BTreeMap::new();
        /// Column of plain texts.
        dataset_text_field: Option<String> = None;
        /// Use at most this many training records; of text files, pieces of max_length.
        max_samples ["max_train_samples"]: Option<usize> = None, if |n| *n != Some(0) => "at least 1";
        /// Use at most this many evaluation records; of text files, pieces of max_length.
        max_eval_samples: Option<usize> = None, if |n| *n != Some(0) => "at least 1";
        /// Count the loss on completions and assistant turns only; null: where records have a prompt.
        completion_only_loss: Option<bool> = None;
        /// Longest example in tokens, and the size of a pack; null: the model's own limit, at most 1024.
        max_length ["max_seq_length", "cutoff_len"]: Option<usize> = None, if |n| n.is_none_or(|n| n >= 2) => "at least 2";
        /// Put several examples into one row of max_length tokens, without attention between them.
        packing: bool = false;
        /// Chat template in place of the model's: Jinja text, a file of it, or chatml.
        chat_template: Option<String> = None;
        /// What to learn; null: from the data and the model.
        task: Option<TaskKind> = None;
    }
    "Adapter" {
        /// lora trains adapters, full every weight.
        finetuning_type: FinetuningType = FinetuningType::Lora;
        /// Start of the adapters.
        init_lora_weights ["init"]: SchemeName = SchemeName("loram".into());
        /// Basis of loram: dst, random-orthogonal, gaussian or dct.
        basis: Option<String> = None;
        /// Gain of loram: log, log-half, exact, sketch, auto or auto:SHARE, track:SCHEME, or a number in (0, 1].
        gain: Option<String> = None;
        /// Statistic of W that the gain multiplies: second-moment, or variance as in the authors' code.
        gain_statistic: Option<String> = None;
        /// Data on which eva, corda and lora-ga run the model, and loram whose gain is auto or tracks one of them; empty: the training data.
        calibration_data: Vec<String> = Vec::new();
        /// Records of the calibration data to use, chosen by seed.
        calibration_samples: usize = 256, if |n| *n > 0 => "at least 1";
        /// Largest rank of a layer under eva, in multiples of r; 1: ranks stay as they are.
        rho: Option<f64> = None, if |x| x.is_none_or(|x| x >= 1.0) => "at least 1; null is 2";
        /// Triples that corda takes: ipm, or kpm to keep what the calibration data show.
        corda_method: Option<String> = None;
        /// gamma of lora-ga's stable scale; more makes the start smaller.
        stable_gamma: Option<f64> = None, if |x| x.is_none_or(|x| x > 0.0) => "above 0; null is 16";
        /// Quantisation that loftq makes up for: nf4, or uniform-N with N bits from 2 to 8; null: nf4.
        loftq_quantizer: Option<String> = None;
        /// Turns of loftq; null: 1.
        loftq_iter: Option<usize> = None, if |n| *n != Some(0) => "at least 1";
        /// Multiple of the A that the scheme starts with.
        init_scale_a: f64 = 1.0, if |x| *x > 0.0 && x.is_finite() => "above 0";
        /// Multiple of the B that the scheme starts with.
        init_scale_b: f64 = 1.0, if |x| *x > 0.0 && x.is_finite() => "above 0";
        /// Rank.
        r ["lora_r", "lora_rank", "rank"]: usize = 8, if |r| *r > 0 => "at least 1";
        /// Numerator of the scaling lora_alpha/r; null: r, so that the scaling is 1 (sqrt(r) with use_rslora).
        lora_alpha: Option<f64> = None, if |a| a.is_none_or(|a| a > 0.0) => "above 0";
        /// Probability of dropping an input of A in training.
        lora_dropout: f64 = 0.0, if |p| (0.0..1.0).contains(p) => "from 0 to below 1";
        /// Apply the dropout that config.json asks for inside the model (hidden_dropout_prob, attention_dropout, …) in training.
        model_dropout: bool = true;
        /// Modules that get an adapter.
        target_modules ["lora_target"]: TargetModules = TargetModules::AllLinear;
        /// Modules that get none.
        exclude_modules: Option<TargetModules> = None;
        /// Ranks of the modules that a pattern matches.
        rank_pattern: BTreeMap<String, usize> = BTreeMap::new(), if |p| p.values().all(|r| *r > 0) => "ranks of at least 1";
        /// lora_alpha of the modules that a pattern matches.
        alpha_pattern: BTreeMap<String, f64> = BTreeMap::new();
        /// Blocks that get adapters; null: all.
        layers_to_transform: Option<OneOrMany<usize>> = None;
        /// Name of the list of blocks, where it is not the first number in a path.
        layers_pattern: Option<OneOrMany<String>> = None;
        /// Modules that are trained whole beside the adapters; heads of classifiers always are.
        modules_to_save: Vec<String> = Vec::new();
        /// Scaling lora_alpha/sqrt(r) instead of lora_alpha/r.
        use_rslora: bool = false;
        /// How the start of a Basis & Basis scheme is taken off the base weights.
        base: BaseMode = BaseMode::Auto;
        /// Form of the saved adapter.
        adapter_format: AdapterFormat = AdapterFormat::Plain;
    }
    "Optimiser" {
        /// Largest learning rate.
        learning_rate ["lr"]: f64 = 5e-5, if |x| *x >= 0.0 => "0 or more";
        /// Course of the learning rate after warm-up.
        lr_scheduler_type: SchedulerType = SchedulerType::Cosine;
        /// Share of all steps in which the rate rises from 0; not used with warmup_steps.
        warmup_ratio: f64 = 0.03, if |x| (0.0..=1.0).contains(x) => "from 0 to 1";
        /// Steps in which the rate rises from 0; below 1 it is a share of all steps; null: by warmup_ratio.
        warmup_steps: Option<f64> = None, if |x| x.is_none_or(|x| x >= 0.0) => "0 or more";
        /// Passes over the data; not used with max_steps.
        num_train_epochs ["epochs"]: f64 = 3.0, if |x| *x > 0.0 => "above 0";
        /// Optimiser steps; null: by num_train_epochs.
        max_steps: Option<usize> = None, if |n| *n != Some(0) => "at least 1";
        /// Examples (packs, with packing) in one forward pass.
        per_device_train_batch_size ["batch_size", "train_batch_size"]: usize = 8, if |n| *n > 0 => "at least 1";
        /// Examples in one pass of an evaluation.
        per_device_eval_batch_size ["eval_batch_size"]: usize = 8, if |n| *n > 0 => "at least 1";
        /// Passes per optimiser step; the loss is the mean over all their tokens.
        gradient_accumulation_steps: usize = 1, if |n| *n > 0 => "at least 1";
        /// Optimiser.
        optim ["optimizer"]: OptimKind = OptimKind::AdamW;
        /// Momentum of sgd.
        momentum: f64 = 0.0, if |x| (0.0..1.0).contains(x) => "from 0 to below 1";
        /// AdamW's decay of the mean gradient.
        adam_beta1: f64 = 0.9, if |x| (0.0..1.0).contains(x) => "from 0 to below 1";
        /// AdamW's decay of the mean squared gradient.
        adam_beta2: f64 = 0.999, if |x| (0.0..1.0).contains(x) => "from 0 to below 1";
        /// AdamW's epsilon.
        adam_epsilon: f64 = 1e-8, if |x| *x >= 0.0 => "0 or more";
        /// Decoupled weight decay, not on biases and norms. It pulls the factors towards 0, not towards their start.
        weight_decay: f64 = 0.0, if |x| *x >= 0.0 => "0 or more";
        /// LoRA+: the learning rate of B is this many times that of A; null: the same. Biases that are trained whole follow B.
        loraplus_lr_ratio: Option<f64> = None, if |x| x.is_none_or(|x| x > 0.0) => "above 0";
        /// Largest learning rate of A; null: learning_rate. Modules that are trained whole keep learning_rate.
        lr_a: Option<f64> = None, if |x| x.is_none_or(|x| x >= 0.0) => "0 or more";
        /// Largest learning rate of B; null: that of A, times loraplus_lr_ratio.
        lr_b: Option<f64> = None, if |x| x.is_none_or(|x| x >= 0.0) => "0 or more";
        /// Weight decay of A; null: weight_decay.
        weight_decay_a: Option<f64> = None, if |x| x.is_none_or(|x| x >= 0.0) => "0 or more";
        /// Weight decay of B; null: weight_decay.
        weight_decay_b: Option<f64> = None, if |x| x.is_none_or(|x| x >= 0.0) => "0 or more";
        /// AdamW's epsilon for A; null: adam_epsilon.
        adam_epsilon_a: Option<f64> = None, if |x| x.is_none_or(|x| x >= 0.0) => "0 or more";
        /// AdamW's epsilon for B; null: adam_epsilon.
        adam_epsilon_b: Option<f64> = None, if |x| x.is_none_or(|x| x >= 0.0) => "0 or more";
        /// Largest norm of all gradients together; 0: no limit.
        max_grad_norm: f64 = 1.0, if |x| *x >= 0.0 => "0 or more";
        /// Keep only the inputs of blocks and compute the rest again: less memory, a third more time.
        gradient_checkpointing: bool = false;
        /// Seed of starts, heads and dropout.
        seed: u64 = 42;
        /// Seed of the order of the data; null: seed.
        data_seed: Option<u64> = None;
    }
    "Run" {
        /// Run folder.
        output_dir ["output"]: PathBuf = PathBuf::from("loram-output");
        /// Write into a run folder that is not empty; its checkpoints and adapter are removed first.
        overwrite_output_dir: bool = false;
        /// Go on from a checkpoint.
        resume_from_checkpoint ["resume"]: Resume = Resume::No;
        /// Steps between two lines of metrics.
        logging_steps: usize = 10, if |n| *n > 0 => "at least 1";
        /// Steps between two measurements of how far each adapted layer has moved; 0: none.
        magnitude_steps: usize = 20;
        /// When to evaluate; null: steps when eval_steps is given, else every epoch when there is eval_data.
        eval_strategy ["evaluation_strategy"]: Option<Strategy> = None;
        /// Steps between two evaluations.
        eval_steps: Option<usize> = None, if |n| *n != Some(0) => "at least 1";
        /// Evaluate before the first step too.
        eval_on_start: bool = true;
        /// When to save a checkpoint; null: steps when save_steps is given, else with the evaluations, else every epoch.
        save_strategy: Option<Strategy> = None;
        /// Steps between two checkpoints.
        save_steps: Option<usize> = None, if |n| *n != Some(0) => "at least 1";
        /// Keep at most this many checkpoints, the best one among them; null: all.
        save_total_limit: Option<usize> = Some(2), if |n| *n != Some(0) => "at least 1";
        /// Take the checkpoint with the best evaluation at the end, not the last step.
        load_best_model_at_end: bool = false;
        /// Metric that decides which checkpoint is best; null: loss.
        metric_for_best_model: Option<String> = None;
        /// Whether more of that metric is better; null: not for loss, perplexity and mse.
        greater_is_better: Option<bool> = None;
        /// Stop after this many evaluations without improvement; null: never.
        early_stopping_patience: Option<usize> = None, if |n| *n != Some(0) => "at least 1";
        /// Improvement that counts as one.
        early_stopping_threshold: f64 = 0.0, if |x| *x >= 0.0 => "0 or more";
        /// Prompts whose continuations are shown before and after, or how many evaluation examples to take for that.
        sample_prompts: SamplePrompts = SamplePrompts::First(0);
        /// Longest continuation shown, in tokens.
        max_new_tokens: usize = 64, if |n| *n > 0 => "at least 1";
        /// Where metrics go beside metrics.jsonl.
        report_to: ReportTo = ReportTo::TensorBoard;
        /// Where to run: cuda is an NVIDIA GPU, in bfloat16 with f32 adapters; auto takes one where this build and the
        /// machine have it.
        device: DeviceKind = DeviceKind::Auto;
        /// What to do when the memory estimate exceeds what is free.
        memory_check: MemoryCheck = MemoryCheck::Error;
    }
}
