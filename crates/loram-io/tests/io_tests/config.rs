//! Model configurations: the same reading as transformers' (tests/data/make_configs.py), and clear errors for the rest.

use loram_io::checkpoint::{DType, TensorSpec, pt_metadata, write_safetensors};
use loram_io::config::*;
use loram_io::family::TensorNames;
use loram_io::{Checkpoint, ModelConfig, testing};
use serde_json::{Map, Value, json};
use std::path::Path;

fn parse(v: &Value) -> loram_io::Result<ModelConfig> {
    ModelConfig::parse(v.as_object().unwrap().clone(), Path::new("config.json"))
}

/// Inverse frequencies from the parsed parameters, written from the formulas in transformers' modeling_rope_utils.
fn inv_freq(c: &DecoderConfig, rope: &RopeConfig) -> Vec<f64> {
    let rotated = (c.head_dim as f64 * rope.partial_rotary_factor) as usize;
    let d = rotated as f64;
    let plain = |i: usize| rope.theta.powf(-((2 * i) as f64) / d);
    let tau = std::f64::consts::TAU;
    (0..rotated / 2)
        .map(|i| match &rope.scaling {
            // the dynamic kind equals the plain one up to the original length
            RopeScaling::None | RopeScaling::Dynamic { .. } => plain(i),
            RopeScaling::Linear { factor } => plain(i) / factor,
            RopeScaling::Llama3 { factor, low_freq_factor: low, high_freq_factor: high, original_max } => {
                let (f, l) = (plain(i), *original_max as f64);
                let wave = tau / f;
                let smooth = ((l / wave - low) / (high - low)).clamp(0.0, 1.0);
                (1.0 - smooth) * f / factor + smooth * f
            }
            RopeScaling::Long { short, .. } => plain(i) / short[i],
            RopeScaling::Yarn { factor, original_max, beta_fast, beta_slow, truncate, .. } => {
                let at = |rot: f64| d * (*original_max as f64 / (rot * tau)).ln() / (2.0 * rope.theta.ln());
                let (mut low, mut high) = (at(*beta_fast), at(*beta_slow));
                if *truncate {
                    (low, high) = (low.floor(), high.ceil());
                }
                (low, high) = (low.max(0.0), high.min(d - 1.0));
                let ramp = ((i as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
                plain(i) / factor * ramp + plain(i) * (1.0 - ramp)
            }
        })
        .collect()
}

#[test]
fn both_forms_of_every_family_are_read_as_transformers_reads_them() {
    let cases: Value = serde_json::from_str(include_str!("../data/configs.json")).unwrap();
    for case in cases.as_array().unwrap() {
        let (raw, e) = (&case["config"], &case["expected"]);
        let cfg = parse(raw).unwrap_or_else(|e| panic!("{raw}: {e}"));
        let labels = cfg.labels();
        let mut ours = json!({
            "vocab_size": cfg.vocab_size(), "hidden_size": cfg.hidden_size(), "num_labels": labels.len(),
            "labels": labels.names,
        });
        match &cfg {
            ModelConfig::Encoder(c) => {
                ours.as_object_mut().unwrap().extend(obj(json!({
                    "num_layers": c.num_layers, "num_heads": c.num_heads, "pad": c.pad_token_id,
                    "max_position_embeddings": c.max_position_embeddings, "tied": true,
                    "layer_norm_eps": c.layer_norm_eps, "type_vocab_size": c.type_vocab_size,
                    "intermediate_size": c.intermediate_size, "hidden_dropout": c.embedding_dropout,
                    "classifier_dropout": c.classifier_dropout,
                })));
                assert_eq!(c.position_offset, if c.names.model_type.contains("roberta") { 2 } else { 0 });
            }
            ModelConfig::Decoder(c) => {
                ours.as_object_mut().unwrap().extend(obj(json!({
                    "num_layers": c.num_layers, "num_heads": c.num_heads, "num_kv_heads": c.num_kv_heads,
                    "head_dim": c.head_dim, "max_position_embeddings": c.max_position_embeddings,
                    "tied": c.tie_word_embeddings, "intermediate_size": c.intermediate_size,
                    "qkv_bias": c.qkv_bias, "o_bias": c.o_bias, "mlp_bias": c.mlp_bias, "qk_norm": c.qk_norm != QkNorm::None,
                    "bos": c.bos_token_id, "eos": c.eos_token_ids, "pad": c.pad_token_id,
                    "theta": c.ropes.iter().map(|r| r.theta).collect::<Vec<_>>(), "rms_norm_eps": c.rms_norm_eps,
                    "scale": c.attention_scale, "embedding": c.embedding_scale, "residual": c.residual_scale,
                    "logits": c.logit_scale, "caps": [c.attention_cap, c.logit_cap],
                    "windows": c.layers.iter().map(|l| l.sliding_window).collect::<Vec<_>>(),
                    "rope_layers": c.layers.iter().map(|l| l.rope.is_some()).collect::<Vec<_>>(),
                    "sparse": c.layers.iter().map(|l| l.experts).collect::<Vec<_>>(),
                    "experts": c.experts.map(|e| json!([e.count, e.per_token, e.intermediate_size, e.normalised])),
                    "clamp": match c.experts.map(|e| e.gate) {
                        Some(Gate::Clamped { alpha, limit }) => json!([alpha, limit]),
                        _ => Value::Null,
                    },
                    "convolves": c.layers.iter().map(|l| l.mixer == Mixer::Convolution).collect::<Vec<_>>(),
                    "convolution": c.convolution.map(|c| json!([c.length, c.bias])),
                    "dropout": [c.embedding_dropout, c.residual_dropout, c.attention_dropout],
                })));
                let list = |key: &str| e[key].as_array().unwrap().clone();
                assert_eq!(c.ropes.len(), list("inv_freq").len(), "{raw}");
                for ((rope, scaling), expected) in c.ropes.iter().zip(list("attention_scaling")).zip(list("inv_freq")) {
                    let found = rope.scaling.attention_factor();
                    assert!((found - scaling.as_f64().unwrap()).abs() < 1e-6, "{raw}: {found}");
                    let (found, expected) = (inv_freq(c, rope), expected.as_array().unwrap());
                    assert_eq!(found.len(), expected.len(), "{raw}");
                    for (a, b) in found.iter().zip(expected) {
                        assert!((a / b.as_f64().unwrap() - 1.0).abs() < 1e-5, "{raw}: {a} {b}");
                    }
                }
            }
        }
        for (key, value) in e.as_object().unwrap() {
            if key == "inv_freq" || key == "attention_scaling" {
                continue;
            }
            let same = match (ours[key].as_f64(), value.as_f64()) {
                (Some(a), Some(b)) => (a - b).abs() <= 1e-12 * b.abs(),
                _ => &ours[key] == value,
            };
            assert!(same, "{raw}\nfield {key}: transformers {value}, ours {}", ours[key]);
        }
        assert_eq!(Value::Object(cfg.raw().clone()), *raw, "the file is kept to be written back");
    }
}

fn obj(v: Value) -> Map<String, Value> {
    v.as_object().unwrap().clone()
}

fn llama() -> Map<String, Value> {
    obj(json!({"model_type": "llama", "vocab_size": 64, "hidden_size": 64, "intermediate_size": 96,
               "num_hidden_layers": 2, "num_attention_heads": 4}))
}

/// The message for a llama config with this field changed must contain all of `needles`.
fn refused(field: &str, value: Value, needles: &[&str]) {
    let mut c = llama();
    c.insert(field.into(), value);
    let e = parse(&Value::Object(c)).unwrap_err();
    assert_eq!(e.exit_code(), 2);
    for n in needles {
        assert!(e.to_string().contains(n), "{e} lacks {n}");
    }
}

#[test]
fn what_is_not_supported_is_named_with_its_field() {
    refused("model_type", json!("gemma"), &["model_type", "`gemma`", "llama, mistral, qwen2", "distilbert"]);
    refused("model_type", json!("exaone_moe"), &["mixture of experts", "nearest supported one is `exaone4`"]);
    refused("num_local_experts", json!(8), &["num_local_experts", "mixtures of experts are not supported"]);
    refused("model_type", json!("gemma3"), &["text_config", "is missing"]);
    refused("model_type", Value::Null, &["model_type", "is missing"]);
    refused("rope_scaling", json!({"type": "ntk", "factor": 2.0}), &["rope_scaling.type", "`ntk`", "yarn"]);
    refused("rope_parameters", json!({"rope_type": "su"}), &["rope_parameters.short_factor", "list of factors"]);
    let short = json!({"type": "longrope", "short_factor": [1.0, 2.0], "long_factor": [1.0, 2.0]});
    refused("rope_scaling", short, &["short_factor", "expected 8 factors, found 2"]);
    refused("rope_scaling", json!({"rope_type": "linear"}), &["rope_scaling.factor", "missing"]);
    refused("rope_scaling", json!({"type": "default", "mrope_section": [1, 2]}), &["mrope_section"]);
    refused("rope_parameters", json!({"full_attention": {"rope_type": "default"}}), &["full_attention"]);
    refused("partial_rotary_factor", json!(1.5), &["partial_rotary_factor", "1.5"]);
    // with `default` it is ignored, as in transformers; with another type transformers fails on the shapes
    refused(
        "rope_parameters",
        json!({"rope_type": "linear", "factor": 2.0, "partial_rotary_factor": 0.5}),
        &["rope_parameters.partial_rotary_factor", "0.5"],
    );
    let mut ignored = llama();
    ignored.insert("partial_rotary_factor".into(), json!(0.5));
    let ModelConfig::Decoder(ignored) = parse(&Value::Object(ignored)).unwrap() else { panic!() };
    assert_eq!(ignored.ropes[0].partial_rotary_factor, 1.0);
    refused("hidden_act", json!("relu2"), &["hidden_act", "`relu2`", "silu"]);
    refused("hidden_size", json!("64"), &["hidden_size", "whole number", "\"64\""]);
    refused("hidden_size", json!(0), &["hidden_size", "at least 1"]);
    refused("num_key_value_heads", json!(3), &["num_key_value_heads", "do not divide"]);
    refused("num_attention_heads", json!(7), &["num_attention_heads", "hidden_size 64"]);
    refused("head_dim", json!(15), &["head_dim", "even"]);
    refused("num_local_experts", json!(8), &["num_local_experts", "experts"]);
    refused("vision_config", json!({}), &["vision_config", "multimodal"]);
    refused("quantization_config", json!({"quant_method": "hqq"}), &["quantization_config", "hqq", "unquantised"]);
    refused("id2label", json!({"0": "a", "2": "b"}), &["id2label", "ids 0 to 1"]);
    refused("problem_type", json!("ranking"), &["problem_type", "ranking"]);
    let mut c = llama();
    c.remove("vocab_size");
    assert!(parse(&Value::Object(c)).unwrap_err().to_string().contains("`vocab_size`: is missing"));

    let mut c = llama();
    c.insert("model_type".into(), json!("bert"));
    c.insert("position_embedding_type".into(), json!("relative_key"));
    assert!(parse(&Value::Object(c.clone())).unwrap_err().to_string().contains("relative_key"));
    c.insert("position_embedding_type".into(), json!("absolute"));
    c.insert("is_decoder".into(), json!(true));
    assert!(parse(&Value::Object(c)).unwrap_err().to_string().contains("is_decoder"));
}

#[test]
fn arbitrary_values_in_any_field_never_panic() {
    let odd = [
        json!(null),
        json!(-1),
        json!(1e300),
        json!("x"),
        json!([]),
        json!([1, "a"]),
        json!({}),
        json!(true),
        json!(0),
    ];
    let cases: Value = serde_json::from_str(include_str!("../data/configs.json")).unwrap();
    for case in cases.as_array().unwrap() {
        let raw = obj(case["config"].clone());
        for key in raw.keys() {
            for value in &odd {
                let mut c = raw.clone();
                c.insert(key.clone(), value.clone());
                let _ = parse(&Value::Object(c));
            }
        }
    }
}

#[test]
fn heads_follow_the_architecture() {
    let head = |arch: Value| {
        let mut c = llama();
        c.insert("architectures".into(), arch);
        parse(&Value::Object(c)).unwrap().head().clone()
    };
    assert_eq!(head(json!(["LlamaForCausalLM"])), CheckpointHead::CausalLm);
    assert_eq!(head(json!(["LlamaForSequenceClassification"])), CheckpointHead::SequenceClassification);
    assert_eq!(head(json!(["LlamaModel"])), CheckpointHead::Base);
    assert_eq!(head(json!(null)), CheckpointHead::CausalLm);
    assert_eq!(head(json!(["LlamaForTokenClassification"])), CheckpointHead::TokenClassification);
    assert_eq!(head(json!(["LlamaForQuestionAnswering"])), CheckpointHead::Other("LlamaForQuestionAnswering".into()));
}

#[test]
fn generation_config_takes_lists_and_falls_back_to_the_model() {
    let raw = obj(json!({"eos_token_id": [1, 2], "temperature": 0.6, "top_p": 0.9, "do_sample": true, "top_k": 20}));
    let g = GenerationConfig::parse(&raw, Path::new("generation_config.json")).unwrap();
    assert_eq!((g.eos_token_ids, g.temperature, g.top_p, g.top_k), (vec![1, 2], Some(0.6), Some(0.9), Some(20)));
    assert_eq!(g.do_sample, Some(true));
    let dir = tempfile::tempdir().unwrap();
    let g = GenerationConfig::load(dir.path(), &parse(&Value::Object(llama())).unwrap()).unwrap();
    assert_eq!((g.eos_token_ids, g.bos_token_id), (vec![2], Some(1)));
    let dir = testing::tiny_llama();
    let g = GenerationConfig::load(&dir, &ModelConfig::load(&dir).unwrap()).unwrap();
    assert_eq!((g.eos_token_ids, g.pad_token_id), (vec![0], Some(3)));
}

#[test]
fn a_folder_without_config_or_with_broken_json_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let e = ModelConfig::load(dir.path()).unwrap_err();
    assert!(e.to_string().contains("config.json") && e.exit_code() == 2, "{e}");
    std::fs::write(dir.path().join("config.json"), "{\"a\":\n").unwrap();
    assert!(ModelConfig::load(dir.path()).unwrap_err().to_string().contains("not valid JSON"));
    std::fs::write(dir.path().join("config.json"), "[]").unwrap();
    assert!(ModelConfig::load(dir.path()).unwrap_err().to_string().contains("JSON object"));
}

#[test]
fn names_translate_between_base_checkpoint_and_task_model() {
    let dir = testing::tiny_llama();
    let (ckpt, cfg) = (Checkpoint::open(&dir).unwrap(), ModelConfig::load(&dir).unwrap());
    let names = TensorNames::find(&ckpt, &cfg).unwrap();
    for n in ckpt.names() {
        assert_eq!(names.path(n), n);
        assert_eq!(names.stored(n), n);
    }
    let Some(dir) = testing::minilm_dir() else { return };
    let (ckpt, cfg) = (Checkpoint::open(&dir).unwrap(), ModelConfig::load(&dir).unwrap());
    assert_eq!(cfg.head(), &CheckpointHead::Base);
    let names = TensorNames::find(&ckpt, &cfg).unwrap();
    let path = "bert.encoder.layer.0.attention.self.query.weight";
    assert_eq!(names.stored(path), "encoder.layer.0.attention.self.query.weight");
    assert_eq!(names.path("encoder.layer.0.attention.self.query.weight"), path);
    assert_eq!(names.path("classifier.weight"), "classifier.weight");
    assert!(TensorNames::find(&ckpt, &parse(&Value::Object(llama())).unwrap()).is_err());
}

/// Checkpoints with images: the language model and its head under the prefixes that files have, and under those of modules.
#[test]
fn names_of_a_text_tower_in_either_form() {
    for fixture in ["gemma3-tower", "mistral3"] {
        let from = testing::repo_root().join("fixtures/models").join(fixture);
        let (ckpt, cfg) = (Checkpoint::open(&from).unwrap(), ModelConfig::load(&from).unwrap());
        let task = |n: &str| match n.strip_prefix("language_model.model.") {
            Some(rest) => format!("model.language_model.{rest}"),
            None => n.strip_prefix("language_model.").unwrap_or(n).to_string(),
        };
        let head = || ("language_model.lm_head.weight", vec![97, 32], vec![0.5; 97 * 32]);
        let own = ckpt.names().map(|n| {
            let t = ckpt.tensor(n).unwrap();
            (n, t.shape().to_vec(), t.to_f32().unwrap())
        });
        let all: Vec<_> = own.chain([head()]).collect();
        for renamed in [false, true] {
            let name = |n: &str| if renamed { task(n) } else { n.to_string() };
            let tensors = all
                .iter()
                .map(|(n, shape, values)| (TensorSpec::new(name(n), DType::F32, shape), values.clone().into()));
            let dir = tempfile::tempdir().unwrap();
            write_safetensors(dir.path().join("model.safetensors"), &pt_metadata(), tensors.collect()).unwrap();
            let names = TensorNames::find(&Checkpoint::open(dir.path()).unwrap(), &cfg).unwrap();
            for (n, ..) in all.iter().filter(|t| t.0.starts_with("language_model.")) {
                assert_eq!((names.stored(&task(n)), names.path(&name(n))), (name(n), task(n)), "{fixture}");
            }
        }
    }
}
