//! Keys of other trainers: what they are called here, or why there is nothing to set.

/// A key of another trainer.
#[derive(Debug, Clone, Copy)]
pub struct Foreign {
    /// Its name there.
    pub key: &'static str,
    /// The programs that have it.
    pub of: &'static str,
    /// Its replacement.
    pub here: Here,
}

/// The replacement of another trainer's key.
#[derive(Debug, Clone, Copy)]
pub enum Here {
    /// A key of this program.
    Key(&'static str),
    /// Nothing, for this reason.
    Nothing(&'static str),
}

use Here::{Key, Nothing};

const AXOLOTL: &str = "axolotl";
const FACTORY: &str = "LLaMA-Factory";
const TRL: &str = "TRL or transformers";
const MLX: &str = "mlx-lm";

const ONE_PRECISION: &str = "compute_dtype sets the precision of products; by default the device decides it";
const SEPARATE_DATA: &str = "evaluation data are files of their own (eval_data)";
const NO_DISTRIBUTION: &str = "a run is one process";
const ONE_ATTENTION: &str = "there is one implementation of attention";
const NO_WEIGHTING: &str = "pairs have equal weights";
const ONE_REFERENCE: &str =
    "the reference is the model before training: the base with adapters off, or the adapter that is trained further";
const NO_UPLOAD: &str = "nothing is uploaded";
const THREADS: &str = "--threads sets the number of threads";
const FLAT: &str = "a configuration is one flat list of keys: move its entries to the top";
const NO_CODE: &str = "code of a model is never run";
const NO_QUANTISATION: &str = "load_in_4bit quantises to 4 bits, other weights are trained as they are stored";

/// Keys of other trainers that have another name here, or none. Those that loram has too, or understands as aliases, are not
/// among them.
pub fn foreign_keys() -> &'static [Foreign] {
    FOREIGN
}

static FOREIGN: &[Foreign] = &[
    // axolotl
    of(AXOLOTL, "base_model", Key("model_name_or_path")),
    of(AXOLOTL, "base_model_config", Key("model_name_or_path")),
    of(AXOLOTL, "datasets", Key("train_data")),
    of(AXOLOTL, "test_datasets", Key("eval_data")),
    of(AXOLOTL, "val_set_size", Nothing(SEPARATE_DATA)),
    of(AXOLOTL, "micro_batch_size", Key("per_device_train_batch_size")),
    of(AXOLOTL, "sequence_len", Key("max_length")),
    of(AXOLOTL, "sample_packing", Key("packing")),
    of(AXOLOTL, "pad_to_sequence_len", Nothing("batches have no padding")),
    of(AXOLOTL, "num_epochs", Key("num_train_epochs")),
    of(AXOLOTL, "lr_scheduler", Key("lr_scheduler_type")),
    of(AXOLOTL, "lora_target_modules", Key("target_modules")),
    of(AXOLOTL, "lora_target_linear", Nothing("target_modules: all-linear is the default")),
    of(AXOLOTL, "lora_modules_to_save", Key("modules_to_save")),
    of(AXOLOTL, "lora_model_dir", Key("adapter_name_or_path")),
    of(AXOLOTL, "peft_use_rslora", Key("use_rslora")),
    of(AXOLOTL, "peft_use_dora", Nothing("DoRA is not supported")),
    of(AXOLOTL, "peft_init_lora_weights", Key("init_lora_weights")),
    of(AXOLOTL, "train_on_inputs", Key("completion_only_loss")),
    of(AXOLOTL, "evals_per_epoch", Key("eval_steps")),
    of(AXOLOTL, "saves_per_epoch", Key("save_steps")),
    of(AXOLOTL, "auto_resume_from_checkpoints", Key("resume_from_checkpoint")),
    of(AXOLOTL, "flash_attention", Nothing(ONE_ATTENTION)),
    of(AXOLOTL, "xformers_attention", Nothing(ONE_ATTENTION)),
    of(AXOLOTL, "sdp_attention", Nothing(ONE_ATTENTION)),
    of(AXOLOTL, "load_in_8bit", Nothing(NO_QUANTISATION)),
    of(AXOLOTL, "bnb_4bit_quant_storage", Nothing("4-bit codes are bytes")),
    of(AXOLOTL, "dataset_prepared_path", Nothing("data are prepared when the run begins")),
    of(AXOLOTL, "dataset_processes", Nothing(THREADS)),
    of(AXOLOTL, "special_tokens", Nothing("the tokenizer's own are used")),
    of(AXOLOTL, "tokenizer_type", Nothing("tokenizer.json is read")),
    of(AXOLOTL, "model_type", Nothing("config.json says it")),
    of(AXOLOTL, "trust_remote_code", Nothing(NO_CODE)),
    of(AXOLOTL, "strict", Nothing("unknown keys are always errors")),
    of(AXOLOTL, "wandb_project", Key("report_to")),
    of(AXOLOTL, "wandb_name", Key("report_to")),
    of(AXOLOTL, "wandb_entity", Key("report_to")),
    of(AXOLOTL, "wandb_watch", Key("report_to")),
    of(AXOLOTL, "wandb_log_model", Key("report_to")),
    of(AXOLOTL, "rl", Key("task")),
    of(AXOLOTL, "rl_beta", Key("beta")),
    of(AXOLOTL, "dpo_beta", Key("beta")),
    of(AXOLOTL, "orpo_alpha", Key("beta")),
    of(AXOLOTL, "dpo_loss_type", Key("loss_type")),
    of(AXOLOTL, "dpo_label_smoothing", Key("label_smoothing")),
    of(AXOLOTL, "kto_desirable_weight", Key("desirable_weight")),
    of(AXOLOTL, "kto_undesirable_weight", Key("undesirable_weight")),
    of(AXOLOTL, "dpo_use_weighting", Nothing(NO_WEIGHTING)),
    // LLaMA-Factory
    of(FACTORY, "stage", Key("task")),
    of(FACTORY, "mix_strategy", Nothing("data_weights are shares of an epoch")),
    of(FACTORY, "pref_beta", Key("beta")),
    of(FACTORY, "pref_loss", Key("loss_type")),
    of(FACTORY, "pref_ftx", Key("loss_weights")),
    of(FACTORY, "kto_chosen_weight", Key("desirable_weight")),
    of(FACTORY, "kto_rejected_weight", Key("undesirable_weight")),
    of(FACTORY, "ref_model", Nothing(ONE_REFERENCE)),
    of(FACTORY, "template", Key("chat_template")),
    of(FACTORY, "eval_dataset", Key("eval_data")),
    of(FACTORY, "val_size", Nothing(SEPARATE_DATA)),
    of(FACTORY, "dataset_dir", Nothing("data are given by their paths (train_data)")),
    of(FACTORY, "preprocessing_num_workers", Nothing(THREADS)),
    of(FACTORY, "overwrite_cache", Nothing("nothing is cached")),
    of(FACTORY, "plot_loss", Nothing("`loram report RUN_FOLDER --plots DIR` draws it")),
    of(FACTORY, "train_on_prompt", Key("completion_only_loss")),
    of(FACTORY, "quantization_bit", Nothing(NO_QUANTISATION)),
    of(FACTORY, "quantization_method", Nothing(NO_QUANTISATION)),
    of(FACTORY, "additional_target", Key("modules_to_save")),
    of(FACTORY, "pissa_init", Key("init_lora_weights")),
    of(FACTORY, "use_dora", Nothing("DoRA is not supported")),
    of(FACTORY, "flash_attn", Nothing(ONE_ATTENTION)),
    of(FACTORY, "neat_packing", Key("packing")),
    of(FACTORY, "ddp_timeout", Nothing(NO_DISTRIBUTION)),
    of(FACTORY, "export_dir", Nothing("`loram merge` writes the merged model")),
    // TRL, transformers
    of(TRL, "dataset_name", Key("train_data")),
    of(TRL, "dataset_config", Nothing("it is part of the data set's name: train_data: owner/name:config:split")),
    of(TRL, "dataset_train_split", Key("train_data")),
    of(TRL, "dataset_test_split", Key("eval_data")),
    of(TRL, "do_train", Nothing("`loram train` always trains")),
    of(TRL, "do_eval", Key("eval_strategy")),
    of(TRL, "bf16", Nothing(ONE_PRECISION)),
    of(TRL, "fp16", Nothing(ONE_PRECISION)),
    of(TRL, "tf32", Nothing(ONE_PRECISION)),
    of(TRL, "torch_dtype", Nothing(ONE_PRECISION)),
    of(TRL, "dtype", Nothing(ONE_PRECISION)),
    of(TRL, "attn_implementation", Nothing(ONE_ATTENTION)),
    of(TRL, "use_peft", Key("finetuning_type")),
    of(TRL, "lora_task_type", Key("task")),
    of(TRL, "assistant_only_loss", Key("completion_only_loss")),
    of(TRL, "eval_packing", Nothing("evaluations read one example at a time")),
    of(TRL, "gradient_checkpointing_kwargs", Key("gradient_checkpointing")),
    of(TRL, "dataloader_num_workers", Nothing(THREADS)),
    of(TRL, "dataloader_pin_memory", Nothing("data are in memory")),
    of(TRL, "dataloader_drop_last", Nothing("every example is used")),
    of(TRL, "dataset_num_proc", Nothing(THREADS)),
    of(TRL, "logging_strategy", Key("logging_steps")),
    of(TRL, "logging_first_step", Key("logging_steps")),
    of(TRL, "logging_dir", Key("output_dir")),
    of(TRL, "run_name", Key("output_dir")),
    of(TRL, "save_safetensors", Nothing("safetensors are always written")),
    of(TRL, "save_only_model", Key("save_strategy")),
    of(TRL, "push_to_hub", Nothing(NO_UPLOAD)),
    of(TRL, "hub_model_id", Nothing(NO_UPLOAD)),
    of(TRL, "hub_token", Nothing(NO_UPLOAD)),
    of(TRL, "hub_strategy", Nothing(NO_UPLOAD)),
    of(TRL, "model_revision", Key("revision")),
    of(TRL, "tokenizer_name", Nothing("the model's own is used")),
    of(TRL, "tokenizer_name_or_path", Nothing("the model's own is used")),
    of(TRL, "remove_unused_columns", Nothing("other columns are ignored")),
    of(TRL, "deepspeed", Nothing(NO_DISTRIBUTION)),
    of(TRL, "fsdp", Nothing(NO_DISTRIBUTION)),
    of(TRL, "local_rank", Nothing(NO_DISTRIBUTION)),
    of(TRL, "ddp_find_unused_parameters", Nothing(NO_DISTRIBUTION)),
    of(TRL, "use_cpu", Key("device")),
    of(TRL, "no_cuda", Key("device")),
    // TRL's preference trainers
    of(TRL, "max_prompt_length", Nothing("TRL has dropped it as well: max_length cuts prompt and answer together")),
    of(TRL, "max_completion_length", Nothing("max_length cuts prompt and answer together")),
    of(TRL, "truncation_mode", Nothing("sequences lose their end (keep_start)")),
    of(
        TRL,
        "disable_dropout",
        Nothing("the model's own dropout is off in preference training; lora_dropout is as given"),
    ),
    of(TRL, "precompute_ref_batch_size", Key("per_device_eval_batch_size")),
    of(TRL, "ref_model_init_kwargs", Nothing(ONE_REFERENCE)),
    of(TRL, "model_adapter_name", Key("adapter_name_or_path")),
    of(TRL, "ref_adapter_name", Nothing(ONE_REFERENCE)),
    of(TRL, "sync_ref_model", Nothing("the reference does not change")),
    of(TRL, "ref_model_mixup_alpha", Nothing("the reference does not change")),
    of(TRL, "ref_model_sync_steps", Nothing("the reference does not change")),
    of(TRL, "ld_alpha", Nothing("the tokens of an answer have equal weights")),
    of(TRL, "use_weighting", Nothing(NO_WEIGHTING)),
    of(TRL, "padding_free", Nothing("batches have no padding")),
    // mlx-lm
    of(MLX, "train", Nothing("`loram train` always trains")),
    of(MLX, "test", Nothing("`loram eval` evaluates")),
    of(MLX, "fine_tune_type", Key("finetuning_type")),
    of(MLX, "num_layers", Key("layers_to_transform")),
    of(MLX, "lora_layers", Key("layers_to_transform")),
    of(MLX, "iters", Key("max_steps")),
    of(MLX, "val_batches", Key("max_eval_samples")),
    of(MLX, "steps_per_report", Key("logging_steps")),
    of(MLX, "steps_per_eval", Key("eval_steps")),
    of(MLX, "save_every", Key("save_steps")),
    of(MLX, "adapter_path", Key("output_dir")),
    of(MLX, "resume_adapter_file", Key("adapter_name_or_path")),
    of(MLX, "grad_checkpoint", Key("gradient_checkpointing")),
    of(MLX, "grad_accumulation_steps", Key("gradient_accumulation_steps")),
    of(MLX, "mask_prompt", Key("completion_only_loss")),
    of(MLX, "lr_schedule", Key("lr_scheduler_type")),
    of(MLX, "lora_parameters", Nothing(FLAT)),
    of(MLX, "optimizer_config", Nothing(FLAT)),
    // sections of nested configurations
    of("nested configurations", "training", Nothing(FLAT)),
    of("nested configurations", "training_args", Nothing(FLAT)),
    of("nested configurations", "trainer", Nothing(FLAT)),
    of("nested configurations", "lora", Nothing(FLAT)),
    of("nested configurations", "lora_config", Nothing(FLAT)),
    of("nested configurations", "peft_config", Nothing(FLAT)),
];

const fn of(program: &'static str, key: &'static str, here: Here) -> Foreign {
    Foreign { key, of: program, here }
}

/// Returns advice on a key of another trainer.
pub(super) fn advice(key: &str) -> Option<String> {
    let found = FOREIGN.iter().find(|f| f.key == key)?;
    Some(match found.here {
        Key(own) => format!("a key of {}; here `{own}`", found.of),
        Nothing(why) => format!("a key of {}; remove it: {why}", found.of),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{key, keys};
    use std::collections::BTreeSet;

    #[test]
    fn the_table_fits_the_keys_that_there_are() {
        let mut seen = BTreeSet::new();
        for f in FOREIGN {
            assert!(seen.insert(f.key), "{} twice", f.key);
            assert!(key(f.key).is_none(), "{} is a key here", f.key);
            if let Key(own) = f.here {
                assert!(keys().iter().any(|k| k.name == own), "{}: there is no {own}", f.key);
            }
        }
        assert_eq!(advice("base_model").unwrap(), "a key of axolotl; here `model_name_or_path`");
        assert!(advice("bf16").unwrap().contains("remove it") && advice("learning_rate").is_none());
    }
}
