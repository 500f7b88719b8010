//! Which keys of the configuration are flags of which verb, beside `train`, which has all.

/// A start.
const START: &[&str] = &[
    "init_lora_weights",
    "init_scale_a",
    "init_scale_b",
    "basis",
    "gain",
    "gain_statistic",
    "rho",
    "corda_method",
    "stable_gamma",
    "loftq_quantizer",
    "loftq_iter",
    "r",
    "lora_alpha",
    "lora_dropout",
    "target_modules",
    "exclude_modules",
    "rank_pattern",
    "alpha_pattern",
    "layers_to_transform",
    "layers_pattern",
    "use_rslora",
    "seed",
];

/// The data that some starts need, and the first step that the gain `auto` needs, for `init`.
const INIT: &[&str] = &[
    "device",
    "calibration_data",
    "calibration_samples",
    "dataset_format",
    "columns",
    "dataset_text_field",
    "completion_only_loss",
    "max_length",
    "chat_template",
    "task",
    "per_device_train_batch_size",
    "optim",
    "learning_rate",
    "lr_a",
    "lr_b",
    "loraplus_lr_ratio",
];

/// How large a step is, for `plan`.
const PLAN: &[&str] = &[
    "model_name_or_path",
    "revision",
    "optim",
    "learning_rate",
    "lr_a",
    "lr_b",
    "loraplus_lr_ratio",
    "momentum",
    "weight_decay",
    "weight_decay_a",
    "weight_decay_b",
    "adam_epsilon",
    "adam_epsilon_a",
    "adam_epsilon_b",
    "max_grad_norm",
    "modules_to_save",
];

/// A memory estimate, for `info`.
const ESTIMATE: &[&str] = &[
    "device",
    "finetuning_type",
    "optim",
    "max_length",
    "per_device_train_batch_size",
    "gradient_checkpointing",
    "modules_to_save",
];

/// An evaluation.
const EVAL: &[&str] = &[
    "device",
    "dataset_format",
    "columns",
    "dataset_text_field",
    "max_eval_samples",
    "completion_only_loss",
    "max_length",
    "chat_template",
    "task",
    "per_device_eval_batch_size",
];

/// Whether a key is a flag of `init`.
pub fn of_init(name: &str) -> bool {
    START.contains(&name) || INIT.contains(&name)
}

/// Whether a key is a flag of `plan`.
pub fn of_plan(name: &str) -> bool {
    START.contains(&name) || PLAN.contains(&name)
}

/// Whether a key is a flag of `info`.
pub fn of_info(name: &str) -> bool {
    START.contains(&name) || ESTIMATE.contains(&name)
}

/// Whether a key is a flag of `eval`.
pub fn of_eval(name: &str) -> bool {
    EVAL.contains(&name)
}

#[cfg(test)]
mod tests {
    #[test]
    fn they_exist() {
        let known: Vec<_> = loram_train::config::fields().iter().map(|f| f.name).collect();
        for key in [super::START, super::INIT, super::PLAN, super::ESTIMATE, super::EVAL].concat() {
            assert!(known.contains(&key), "`{key}` is no key of the configuration");
        }
    }
}
