//! The table of all keys but the options of schemes, which the schemes describe. Adding a key is one row here, and the code
//! that uses it.

use super::key::{Key, Mark, expected, key_table};
use super::layer::Origin;
use super::types::*;
use crate::objective::{Divergence, Objective};
use loram_core::{OneOrMany, TargetModules, TokenIndices};
use loram_io::config::PoolingMode;
use loram_io::data::DataFormat;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::PathBuf;

key_table! {
    "Model" {
        /// Model folder, GGUF file, or id on the Hugging Face hub.
        model_name_or_path ["model"]: String = String::new(),
            as "DIR|FILE|HUB_ID", [Plan Common AliasFlag Resumable Input];
        /// Branch, tag or commit of a hub model.
        revision: Option<String> = None, [Plan Resumable Arm];
        /// Quantise the weights of linear layers to 4 bits while they are read, as bitsandbytes does. Embeddings and output layers
        /// stay as they are. An adapter remembers it.
        load_in_4bit: bool = false, [Init Info Eval Predict Generate Plan Common];
        /// The 4-bit type of load_in_4bit.
        bnb_4bit_quant_type: FourBitKind = FourBitKind::Nf4, [Init Info Eval Predict Generate Plan];
        /// Quantise the scales of load_in_4bit as well, to 8 bits.
        bnb_4bit_use_double_quant: bool = false, [Init Info Eval Predict Generate Plan];
        /// Modules that load_in_4bit leaves as they are, by the beginning or the end of their paths.
        llm_int8_skip_modules: Vec<String> = Vec::new(), as "NAME", [Init Info Eval Predict Generate Plan];
        /// How a classifier reads a sequence, through one linear layer: the mean over the states of its tokens, the first (cls) or the
        /// last one; null: as the model's class in transformers does. Sentence encoders such as MiniLM were trained with mean, BGE with
        /// cls. An adapter and a merged model remember it.
        pooling ["pooling_mode"]: Option<PoolingMode> = None, as "CHOICE", [Init Plan];
        /// Adapter to train further, in place of a new one.
        adapter_name_or_path ["adapter"]: Option<String> = None, as "DIR|HUB_ID", [AliasFlag Plan];
    }
    "Data" {
        /// Training data: files (.jsonl, .json, .csv, .tsv, .parquet, .arrow, .txt), a data set of the hub (owner/name:split), or a generated one such as demo:restaurants.
        train_data ["data", "dataset", "train_file"]: Vec<String> = Vec::new(),
            as "FILE", [Common AliasFlag Resumable Input Plan];
        /// Weights of the entries of train_data, in place of weights beside their paths: of the examples of an epoch, each entry gives
        /// its share; empty: all examples of all entries.
        data_weights ["interleave_probs"]: Vec<f64> = Vec::new(),
            if |w| w.iter().all(|x| *x > 0.0 && x.is_finite()) => "above 0", as "X", [Plan];
        /// Evaluation data, in the same forms.
        eval_data ["validation_data", "validation_file"]: Vec<String> = Vec::new(),
            as "FILE", [Common Resumable Input];
        /// Format of the records; null: detect it from their fields.
        dataset_format ["format"]: Option<&'static dyn DataFormat> = None, [Init Eval Plan];
        /// Rename columns: expected name → name in the data.
        columns: BTreeMap<String, String> = BTreeMap::new(), [Init Eval Predict Plan];
        /// Column that holds the text.
        dataset_text_field: Option<String> = None, [Init Eval Predict Plan];
        /// Use at most this many training records, chosen by the seed; of text files, this many pieces of max_length.
        max_samples ["max_train_samples"]: Option<usize> = None, if |n| *n != Some(0) => "at least 1", [MinusOne Plan];
        /// Use at most this many evaluation records, chosen by the seed; of text files, this many pieces of max_length.
        max_eval_samples: Option<usize> = None, if |n| *n != Some(0) => "at least 1", [Eval Predict Resumable];
        /// Compute the loss on completions and assistant turns only; null: if records have a prompt.
        completion_only_loss: Option<bool> = None, [Init Eval Plan];
        /// Maximum length of an example in tokens, and the size of a pack; null: the model's own limit, at most 1024.
        max_length ["max_seq_length", "cutoff_len"]: Option<usize> = None, if |n| n.is_none_or(|n| n >= 2) => "at least 2",
            [Init Info Eval Predict Common Plan];
        /// Pack several examples into one row of max_length tokens, without attention between them.
        packing: bool = false, [Common Plan];
        /// Chat template that replaces the model's: Jinja text, a file with it, or chatml.
        chat_template: Option<String> = None, [Init Eval Predict Plan];
        /// Variables of the chat template for all records, such as {enable_thinking: false}; a record's own
        /// chat_template_kwargs override them.
        chat_template_kwargs: Map<String, Value> = Map::new(), [Init Eval Predict Plan];
        /// Training objective; null: chosen by the data and the model.
        task: Option<&'static dyn Objective> = None, [Init Eval Predict Plan];
    }
    "Preferences" {
        /// Loss of preferences; empty: sigmoid for dpo and cpo, kto for kto. Several are added. dpo has sigmoid, hinge, ipo, exo_pair,
        /// nca_pair, robust, bco_pair, sppo_hard, aot, aot_unpaired, apo_zero, apo_down, discopop, sft and sigmoid_norm, cpo has
        /// sigmoid, hinge, ipo and simpo, kto has kto and apo_zero_unpaired.
        loss_type: Vec<String> = Vec::new(), as "NAME", [Init Eval Plan Preference];
        /// Weights of the losses in loss_type; empty: 1 for each.
        loss_weights: Vec<f64> = Vec::new(), as "X", [Init Eval Plan Preference];
        /// Scale of the rewards of preferences: the larger it is, the closer the model stays to its reference (dpo, kto). For orpo the
        /// weight of the odds ratio.
        beta: f64 = 0.1, if |x| *x > 0.0 && x.is_finite() => "above 0", [Init Eval Plan Preference];
        /// Probability that a preference is the wrong way round: for the losses robust, exo_pair, aot and aot_unpaired of dpo, and for
        /// cpo and simpo.
        label_smoothing: f64 = 0.0, if |x| (0.0..1.0).contains(x) => "from 0 to below 1", [Init Eval Plan Preference];
        /// Regulariser between the model and its reference in dpo.
        f_divergence_type: Divergence = Divergence::ReverseKl, [Init Eval Plan Preference];
        /// The α of alpha_divergence.
        f_alpha_divergence_coef: f64 = 0.5, [Init Eval Plan Preference];
        /// Temperature of the loss discopop.
        discopop_tau: f64 = 0.05, if |x| *x > 0.0 => "above 0", [Init Eval Plan Preference];
        /// Margin that simpo aims at.
        simpo_gamma: f64 = 0.5, [Init Eval Plan Preference];
        /// Weight of the negative log-likelihood of chosen answers in cpo.
        cpo_alpha: f64 = 1.0, if |x| *x >= 0.0 => "0 or more", [Init Eval Plan Preference];
        /// Weight of desirable answers in kto.
        desirable_weight: f64 = 1.0, if |x| *x >= 0.0 => "0 or more", [Init Eval Plan Preference];
        /// Weight of undesirable answers in kto.
        undesirable_weight: f64 = 1.0, if |x| *x >= 0.0 => "0 or more", [Init Eval Plan Preference];
        /// Compute the log-probabilities of the reference once, before training, not in every step; null: if examples are seen more
        /// than once, in full fine-tuning, and if an adapter is trained further, which is then the reference.
        precompute_ref_log_probs: Option<bool> = None, [Preference];
    }
    "Adapter" {
        /// lora trains adapters, full trains every weight.
        finetuning_type: FinetuningType = FinetuningType::Lora, [Info Plan];
        /// Initialisation scheme of the adapters.
        init_lora_weights ["init"]: SchemeName = SchemeName("loram".into()),
            [Init Plan Info Common AliasFlag InAdapter];
        /// Data on which eva, corda and lora-ga run the model, and loram if its gain is auto or tracks one of them; empty: the
        /// training data.
        calibration_data: Vec<String> = Vec::new(), as "FILE", [Init Resumable InAdapter Arm];
        /// Number of calibration records, chosen by seed.
        calibration_samples: usize = 256, if |n| *n > 0 => "at least 1", [Init];
        /// Factor on the initial A of the scheme.
        init_scale_a: f64 = 1.0, if |x| *x > 0.0 && x.is_finite() => "above 0",
            [Init Plan Info InAdapter Factor Rewritable];
        /// Factor on the initial B of the scheme.
        init_scale_b: f64 = 1.0, if |x| *x > 0.0 && x.is_finite() => "above 0",
            [Init Plan Info InAdapter Factor Rewritable];
        /// Rank of the adapters.
        r ["lora_r", "lora_rank", "rank"]: usize = 16, if |r| *r > 0 => "at least 1",
            [Init Plan Info Common Axis Peft InAdapter];
        /// Numerator of the scaling lora_alpha/r; null: r, for a scaling of 1 (sqrt(r) with use_rslora).
        lora_alpha: Option<f64> = None, if |a| a.is_none_or(|a| a > 0.0) => "above 0",
            [Init Plan Info Common Peft InAdapter Rewritable];
        /// Dropout probability of the input of A in training.
        lora_dropout: f64 = 0.0, if |p| (0.0..1.0).contains(p) => "from 0 to below 1", [Init Plan Info Peft];
        /// Apply the dropout that config.json asks for inside the model (hidden_dropout_prob, attention_dropout, …) in training.
        model_dropout: bool = true;
        /// Modules that get an adapter.
        target_modules ["lora_target"]: TargetModules = TargetModules::AllLinear,
            [Init Plan Info Common Peft InAdapter];
        /// Modules that get no adapter.
        exclude_modules: Option<TargetModules> = None, [Init Plan Info Peft];
        /// Ranks of modules that match a pattern: pattern → rank.
        rank_pattern: BTreeMap<String, usize> = BTreeMap::new(), if |p| p.values().all(|r| *r > 0) => "ranks of at least 1",
            [Init Plan Info Peft InAdapter];
        /// lora_alpha of modules that match a pattern: pattern → lora_alpha.
        alpha_pattern: BTreeMap<String, f64> = BTreeMap::new(), [Init Plan Info Peft InAdapter];
        /// Blocks that get adapters, by number; null: all.
        layers_to_transform: Option<OneOrMany<usize>> = None, [Init Plan Info Peft];
        /// Name of the list of blocks, if it is not the one before the first number in a path.
        layers_pattern: Option<OneOrMany<String>> = None, [Init Plan Info Peft];
        /// Modules that are fully trained and saved beside the adapters; heads of classifiers always are.
        modules_to_save: Vec<String> = Vec::new(), [Plan Info Peft];
        /// Tokens whose embeddings are trained, by number: a list for the token embedding, or a map from module to list. A head
        /// that shares the embedding's weight follows.
        trainable_token_indices: Option<TokenIndices> = None, [Info Peft];
        /// Give a head that shares the embedding's weight every change of the embedding: of target_modules and modules_to_save.
        ensure_weight_tying: bool = false, [Info Peft];
        /// Train a bias of B as well.
        lora_bias: bool = false, [Info Peft];
        /// Use the scaling lora_alpha/sqrt(r) instead of lora_alpha/r.
        use_rslora: bool = false, [Init Plan Info Common Peft InAdapter Rewritable];
        /// How s·B₀A₀ is subtracted from the base, if the scheme starts with B₀A₀ ≠ 0: residual changes the weights, branch
        /// subtracts it in every pass; auto takes residual for weights held in f32.
        base: BaseMode = BaseMode::Auto;
        /// Form of the saved adapter: plain loads into PEFT, native has rank r and the recipe of the initialisation.
        adapter_format: AdapterFormat = AdapterFormat::Plain, [Resumable];
    }
    "Optimiser" {
        /// Peak learning rate. auto: a line search on the training data finds it before the first step (docs/rate.md);
        /// auto*F: F times that.
        /// step:SHARE: the rate at which the first step moves the weights by this share of their norm, such as step:0.3%.
        learning_rate ["lr"]: LearningRate = LearningRate::Auto, [Init Plan Common Axis Rewritable];
        /// Peak learning rate of modules that are trained beside the adapters: heads and modules_to_save; null: 3e-2·384/width,
        /// at most 1e-1, for a new head (a tenth of that for regression), and learning_rate for other modules.
        head_learning_rate: Option<f64> = None, if |x| x.is_none_or(|x| x >= 0.0) => "0 or more", [Plan];
        /// Learning rate schedule after warm-up.
        lr_scheduler_type: SchedulerType = SchedulerType::Cosine;
        /// Share of all steps over which the learning rate rises from 0; not used with warmup_steps.
        warmup_ratio: f64 = 0.03, if |x| (0.0..=1.0).contains(x) => "from 0 to 1";
        /// Steps over which the learning rate rises from 0; below 1: share of all steps; null: use warmup_ratio.
        warmup_steps: Option<f64> = None, if |x| x.is_none_or(|x| x >= 0.0) => "0 or more";
        /// Number of passes over the data; not used with max_steps.
        num_train_epochs ["epochs"]: f64 = 1.0, if |x| *x > 0.0 => "above 0", [Common];
        /// Number of optimiser steps; null: use num_train_epochs.
        max_steps: Option<usize> = None, if |n| *n != Some(0) => "at least 1", [Common MinusOne];
        /// Examples (packs, with packing) per forward pass.
        per_device_train_batch_size ["batch_size", "train_batch_size"]: usize = 8, if |n| *n > 0 => "at least 1",
            [Init Info Common Plan];
        /// Examples per forward pass of an evaluation.
        per_device_eval_batch_size ["eval_batch_size"]: usize = 8, if |n| *n > 0 => "at least 1",
            [Eval Predict Resumable Cosmetic];
        /// Split a batch into forward passes of at most this many tokens. The optimiser step stays the same: gradients are
        /// those of the whole batch.
        max_tokens_per_batch: Option<usize> = None, if |n| *n != Some(0) => "at least 1", [Common Plan];
        /// Choose max_tokens_per_batch so that a step fits into the free memory, by the estimate that a dry run prints.
        auto_find_batch_size: bool = false;
        /// Put examples of similar length into the same batch, as transformers does. Nothing is padded here, so that this saves
        /// no time; batches of long examples take more memory.
        group_by_length: bool = false;
        /// Batches per optimiser step; the loss is the mean over all their tokens.
        gradient_accumulation_steps: usize = 1, if |n| *n > 0 => "at least 1", [Common Plan];
        /// Number type in which gradients travel between the processes of a run (docs/distributed.md): bfloat16 halves the traffic.
        dist_dtype: DistDtype = DistDtype::Float32;
        /// Optimiser.
        optim ["optimizer"]: OptimKind = OptimKind::AdamW, [Init Plan Info];
        /// Momentum of sgd.
        momentum: f64 = 0.0, if |x| (0.0..1.0).contains(x) => "from 0 to below 1", [Plan];
        /// Decay of AdamW's running mean of gradients.
        adam_beta1: f64 = 0.9, if |x| (0.0..1.0).contains(x) => "from 0 to below 1";
        /// Decay of AdamW's running mean of squared gradients.
        adam_beta2: f64 = 0.999, if |x| (0.0..1.0).contains(x) => "from 0 to below 1";
        /// Epsilon of AdamW.
        adam_epsilon: f64 = 1e-8, if |x| *x >= 0.0 => "0 or more", [Plan];
        /// Decoupled weight decay, not on biases and norms. It pulls the factors towards 0, not towards their initial values.
        weight_decay: f64 = 0.0, if |x| *x >= 0.0 => "0 or more", [Plan];
        /// Weight decay of heads and modules_to_save; null: weight_decay.
        head_weight_decay: Option<f64> = None, if |x| x.is_none_or(|x| x >= 0.0) => "0 or more", [Plan];
        /// LoRA+: ratio of the learning rate of B to that of A; null: 1. Trained biases follow B.
        loraplus_lr_ratio: Option<f64> = None, if |x| x.is_none_or(|x| x > 0.0) => "above 0", [Init Plan Rewritable];
        /// Peak learning rate of A; null: learning_rate.
        lr_a: Option<f64> = None, if |x| x.is_none_or(|x| x >= 0.0) => "0 or more", [Init Plan Factor Rewritable];
        /// Peak learning rate of B; null: that of A, times loraplus_lr_ratio.
        lr_b: Option<f64> = None, if |x| x.is_none_or(|x| x >= 0.0) => "0 or more", [Init Plan Factor Rewritable];
        /// Weight decay of A; null: weight_decay.
        weight_decay_a: Option<f64> = None, if |x| x.is_none_or(|x| x >= 0.0) => "0 or more", [Plan Factor];
        /// Weight decay of B; null: weight_decay.
        weight_decay_b: Option<f64> = None, if |x| x.is_none_or(|x| x >= 0.0) => "0 or more", [Plan Factor];
        /// Epsilon of AdamW for A; null: adam_epsilon.
        adam_epsilon_a: Option<f64> = None, if |x| x.is_none_or(|x| x >= 0.0) => "0 or more", [Plan Factor];
        /// Epsilon of AdamW for B; null: adam_epsilon.
        adam_epsilon_b: Option<f64> = None, if |x| x.is_none_or(|x| x >= 0.0) => "0 or more", [Plan Factor];
        /// Clip gradients to this total norm; 0: no clipping.
        max_grad_norm: f64 = 1.0, if |x| *x >= 0.0 => "0 or more", [Plan];
        /// Keep only the inputs of blocks and recompute the rest: less memory, a third more time.
        gradient_checkpointing: bool = false, [Info Resumable];
        /// Seed of the initialisation of adapters and heads, and of dropout.
        seed: u64 = 42, [Init Plan Info Common Axis];
        /// Seed of the data order; null: seed.
        data_seed: Option<u64> = None, [Plan];
    }
    "Run" {
        /// Run folder.
        output_dir ["output"]: PathBuf = PathBuf::from("loram-output"), [Common AliasFlag Resumable Folder];
        /// Write into a run folder that is not empty; remove its checkpoints and adapter first.
        overwrite_output_dir: bool = false, [Resumable Folder];
        /// Resume from a checkpoint.
        resume_from_checkpoint ["resume"]: Resume = Resume::No, [AliasFlag Resumable Folder];
        /// Resume although the base model, the training data or the evaluation data have changed since the run began.
        allow_changed_inputs: bool = false, [Resumable Cosmetic];
        /// Steps between lines of metrics.
        logging_steps: usize = 10, if |n| *n > 0 => "at least 1", [Resumable];
        /// Steps between measurements of the size of each layer's update; 0: never.
        magnitude_steps: usize = 20, [Resumable Cosmetic];
        /// When to evaluate; null: steps if eval_steps is given, else every epoch if there is eval_data.
        eval_strategy ["evaluation_strategy"]: Option<Strategy> = None, [Resumable];
        /// Steps between evaluations.
        eval_steps: Option<usize> = None, if |n| *n != Some(0) => "at least 1", [Resumable];
        /// Evaluate before the first step, too.
        eval_on_start: bool = true, [Resumable];
        /// When to save a checkpoint; null: steps if save_steps is given, else with the evaluations, else every epoch.
        save_strategy: Option<Strategy> = None, [Resumable];
        /// Steps between checkpoints.
        save_steps: Option<usize> = None, if |n| *n != Some(0) => "at least 1", [Resumable];
        /// Keep at most this many checkpoints, including the best one; null: all.
        save_total_limit: Option<usize> = Some(2), if |n| *n != Some(0) => "at least 1",
            [Resumable Cosmetic MinusOne];
        /// Save the weights of the best evaluation at the end, not those of the last step.
        load_best_model_at_end: bool = false, [Resumable Arm];
        /// Metric that decides which evaluation is best; null: loss.
        metric_for_best_model: Option<String> = None, [Resumable Arm];
        /// Prefer larger values of that metric; null: true except for losses, perplexity, mse, kl and what concerns rejected answers.
        greater_is_better: Option<bool> = None, [Resumable Arm];
        /// Stop after this many evaluations without improvement; null: never.
        early_stopping_patience: Option<usize> = None, if |n| *n != Some(0) => "at least 1", [Resumable Arm];
        /// Smallest improvement that counts as one.
        early_stopping_threshold: f64 = 0.0, if |x| *x >= 0.0 => "0 or more", [Resumable Arm];
        /// Prompts to generate from before and after training, or the number of evaluation examples to use for that.
        sample_prompts: SamplePrompts = SamplePrompts::First(0), [Resumable];
        /// Maximum length of these texts in tokens.
        max_new_tokens: usize = 64, if |n| *n > 0 => "at least 1", [Resumable];
        /// Where to report metrics besides metrics.jsonl.
        report_to: ReportTo = ReportTo::TENSORBOARD, [Resumable Cosmetic];
        /// Device: cuda is an NVIDIA GPU, in bfloat16 with f32 adapters; auto takes one if this build supports it and the
        /// machine has one.
        device: DeviceKind = DeviceKind::Auto, [Init Info Eval Predict Generate Common Plan];
        /// Number type of products with frozen weights and in attention on the CPU, with sums and everything else in float32. auto
        /// takes bfloat16 for weights that are stored in it or quantised if the processor has AMX or, from AMD, AVX512-BF16.
        compute_dtype ["bnb_4bit_compute_dtype"]: ComputeDtype = ComputeDtype::Auto, [Init Eval Predict Generate Plan];
        /// Reaction to a memory estimate that exceeds the free memory.
        memory_check: MemoryCheck = MemoryCheck::Error, [Resumable Cosmetic];
    }
}
