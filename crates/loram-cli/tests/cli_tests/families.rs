//! `loram init` adapts the same layers of a model under every scheme, whichever family it belongs to.

use crate::program::{json, refused};
use loram_core::{Statistic, registry};
use loram_io::checkpoint::{DType, TensorSpec, pt_metadata, write_safetensors};
use loram_io::{Checkpoint, family, testing};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A tokenizer of words for the models of `fixtures/`, whose vocabulary has 97 entries.
fn write_tokenizer(dir: &Path) {
    let words = ["<unk>", "<s>", "</s>", "a", "good", "bad", "film", "this", "is"];
    let vocab: serde_json::Map<String, Value> =
        words.iter().enumerate().map(|(i, w)| (w.to_string(), json!(i))).collect();
    let special = |id: usize| {
        json!({"id": id, "content": words[id], "single_word": false, "lstrip": false, "rstrip": false,
                                     "normalized": false, "special": true})
    };
    let tokenizer = json!({"version": "1.0", "added_tokens": [special(0), special(1), special(2)],
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"}});
    fs::write(dir.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let special = json!({"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<unk>", "unk_token": "<unk>"});
    fs::write(dir.join("tokenizer_config.json"), special.to_string()).unwrap();
}

/// A copy of a model of `fixtures/` with a tokenizer, under another `model_type`, without the tensors that `leave` names.
pub fn model(room: &Path, fixture: &str, model_type: &str, leave: &str) -> PathBuf {
    let (from, to) =
        (testing::repo_root().join("fixtures/models").join(fixture), room.join(format!("{model_type}{leave}")));
    fs::create_dir(&to).unwrap();
    write_tokenizer(&to);
    let mut config: Value = serde_json::from_str(&fs::read_to_string(from.join("config.json")).unwrap()).unwrap();
    config["model_type"] = json!(model_type);
    fs::write(to.join("config.json"), config.to_string()).unwrap();
    let checkpoint = Checkpoint::open(&from).unwrap();
    let kept = checkpoint.names().filter(|n| leave.is_empty() || !n.contains(leave));
    let tensors = kept.map(|n| {
        let t = checkpoint.tensor(n).unwrap();
        (TensorSpec::new(n, DType::F32, t.shape()), t.to_f32().unwrap().into())
    });
    write_safetensors(to.join("model.safetensors"), &pt_metadata(), tensors.collect()).unwrap();
    to
}

/// The layers that each scheme adapts, in the order of the report. A model whose family does not run here is left out
/// of the schemes that run it on data.
fn adapted(room: &Path, model: &Path, runs: bool) -> Vec<(&'static str, Vec<String>)> {
    let config: Value = serde_json::from_str(&fs::read_to_string(model.join("config.json")).unwrap()).unwrap();
    let texts = ["this is a good film", "a bad film", "is this a film"];
    let labels = config["id2label"].as_object().map_or(2, |labels| labels.len());
    let record = |i: usize| json!({"text": texts[i], "label": format!("LABEL_{i}")});
    let labelled: String = (0..labels).map(|i| format!("{}\n", record(i))).collect();
    let plain: String = texts.iter().map(|t| format!("{}\n", json!({ "text": t }))).collect();
    let classifies = config["architectures"].to_string().contains("SequenceClassification");
    fs::write(room.join("data.jsonl"), if classifies { labelled } else { plain }).unwrap();
    let model = model.display().to_string();
    let schemes = registry().iter().filter(|s| runs || s.statistic == Statistic::None);
    schemes
        .map(|scheme| {
            // PiSSA with a number of iterations
            let name = scheme.name.replace("-niter-k", "-niter-2");
            let mut args = vec!["init", &model, "-o", "out", "--overwrite", "--init", &name, "--r", "2", "--json"];
            if scheme.statistic != Statistic::None {
                args.extend(["--calibration-data", "data.jsonl"]);
            }
            if scheme.options.iter().any(|o| o.key == "rho") {
                // with more components than ranks, EVA takes ranks from some layers
                args.extend(["--rho", "1"]);
            }
            let mut loram = assert_cmd::Command::cargo_bin("loram").unwrap();
            let out = loram.current_dir(room).args(&args).assert().success();
            let report: Value = serde_json::from_slice(&out.get_output().stdout).unwrap();
            let layers = report["layers"].as_array().unwrap().iter();
            (scheme.name, layers.map(|l| l["path"].as_str().unwrap().to_string()).collect())
        })
        .collect()
}

/// Checks that all schemes adapt the same layers of a model, and so many of them.
fn same_layers(model_type: &str, leave: &str, runs: bool, count: usize) {
    let room = tempfile::tempdir().unwrap();
    let fixture = match model_type {
        "xlm-roberta" => "roberta",
        "deberta-v2" => "deberta",
        "gemma3_text" => "gemma3",
        "gemma3" => "gemma3-tower",
        "granitemoehybrid" => "granite4",
        "qwen3_moe" => "qwen3-moe",
        "gpt_oss" => "gpt-oss",
        own => own,
    };
    let model = if runs { model(room.path(), fixture, model_type, leave) } else { gpt2(room.path(), model_type) };
    let all = adapted(room.path(), &model, runs);
    let (_, expected) = &all[0];
    assert_eq!(expected.len(), count, "{model_type}{leave}: {expected:?}");
    for (scheme, layers) in &all {
        assert_eq!(layers, expected, "{model_type}{leave}: `{scheme}` and `{}` adapt other layers", all[0].0);
    }
}

/// A small checkpoint of a family with `Conv1D` layers.
fn gpt2(room: &Path, model_type: &str) -> PathBuf {
    let dir = room.join(model_type);
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("config.json"), json!({ "model_type": model_type }).to_string()).unwrap();
    let shapes: [(&str, &[usize]); 7] = [
        (if model_type == "openai-gpt" { "tokens_embed.weight" } else { "wte.weight" }, &[20, 8]),
        ("h.0.ln_1.weight", &[8]),
        ("h.0.attn.c_attn.weight", &[8, 24]),
        ("h.0.attn.c_attn.bias", &[24]),
        ("h.0.attn.c_proj.weight", &[8, 8]),
        ("h.0.mlp.c_fc.weight", &[8, 32]),
        ("h.0.mlp.c_proj.weight", &[32, 8]),
    ];
    let values = |shape: &[usize]| (0..shape.iter().product()).map(|i: usize| (i * 7919 % 101) as f32 / 101.0 - 0.5);
    let tensors = shapes.map(|(name, shape)| (TensorSpec::new(name, DType::F32, shape), values(shape).collect()));
    write_safetensors(dir.join("model.safetensors"), &pt_metadata(), tensors.into()).unwrap();
    dir
}

#[test]
fn every_scheme_adapts_the_same_layers_of_every_family() {
    // two blocks (in some three or four) of seven linear layers, or of four to six
    let decoders = [
        ("llama", 14),
        ("mistral", 14),
        ("qwen2", 14),
        ("qwen3", 14),
        ("smollm3", 28),
        ("gemma2", 14),
        ("gemma3_text", 21),
        ("gemma3", 14),
        ("granite", 14),
        ("granitemoehybrid", 12),
        ("phi3", 8),
        ("olmo2", 14),
        ("olmo3", 14),
        ("glm4", 12),
        ("exaone4", 14),
        ("minicpm", 14),
        ("ministral3", 14),
        ("mistral3", 14),
        // attention alone
        ("mixtral", 8),
        ("qwen3_moe", 12),
        ("gpt_oss", 8),
        // convolutions have two layers
        ("lfm2", 17),
        ("gpt2", 8),
    ];
    // PEFT adapts the poolers of BERT and DeBERTa and the first layer of ModernBERT's head, and leaves out both layers of the others' heads
    let encoders = [
        ("bert", 13),
        ("roberta", 12),
        ("xlm-roberta", 12),
        ("distilbert", 12),
        ("modernbert", 17),
        ("deberta-v2", 13),
    ];
    let conv1d = [("openai-gpt", 4), ("imagegpt", 4)];
    let running: Vec<(&str, usize)> = decoders.into_iter().chain(encoders).collect();
    let names: BTreeSet<&str> = running.iter().map(|f| f.0).collect();
    assert_eq!(names, family::supported().collect(), "a family is missing here");
    std::thread::scope(|scope| {
        for (model_type, count) in running {
            scope.spawn(move || same_layers(model_type, "", true, count));
        }
        for (model_type, count) in conv1d {
            scope.spawn(move || same_layers(model_type, "", false, count));
        }
        // layers that the checkpoint does not have begin at random: there is nothing to adapt
        scope.spawn(|| same_layers("bert", "pooler", true, 12));
        scope.spawn(|| same_layers("distilbert", "classifier", true, 12));
    });
}

#[test]
fn what_is_never_trained_is_refused_by_name() {
    let room = tempfile::tempdir().unwrap();
    std::fs::write(room.path().join("data.jsonl"), "{\"text\": \"this is a good film\"}\n").unwrap();
    for (fixture, model_type) in
        [("mixtral", "mixtral"), ("qwen3-moe", "qwen3_moe"), ("gpt-oss", "gpt_oss"), ("lfm2", "lfm2"), ("gpt2", "gpt2")]
    {
        model(room.path(), fixture, model_type, "");
    }
    let says = |model: &str, flags: &[&str], needles: &[&str]| {
        let args = [&["train", "--model", model, "--data", "data.jsonl", "--max-steps", "1"], flags].concat();
        refused(room.path(), &args, needles);
        assert!(!room.path().join("loram-output").exists(), "{model} {flags:?}");
    };
    for (model, path) in [("mixtral", ".experts"), ("gpt_oss", "sinks"), ("lfm2", "conv.conv")] {
        says(model, &["--finetuning-type", "full"], &["never trained", path, "finetuning_type: lora"]);
    }
    says("mixtral", &["--target-modules", "q_proj,w1"], &["experts.0.w1", "target_parameters", "all-linear"]);
    says("mixtral", &["--target-modules", "gate"], &["router"]);
    says("gpt_oss", &["--target-modules", "gate_up_proj"], &["experts.gate_up_proj", "all-linear"]);
    says("qwen3_moe", &["--target-modules", "q_proj,down_proj"], &["down_proj", "experts"]);
    says("gpt_oss", &["--modules-to-save", "layers.0.self_attn"], &["never trained", "modules_to_save"]);
    says("gpt2", &["--modules-to-save", "c_attn"], &["modules_to_save", "Conv1D"]);
}

/// Adapters of weights that are stored transposed belong to the checkpoint, and are merged into it.
#[test]
fn an_adapter_of_gpt2_is_merged_into_its_base() {
    let room = tempfile::tempdir().unwrap();
    std::fs::write(room.path().join("data.jsonl"), "{\"text\": \"this is a good film\"}\n").unwrap();
    model(room.path(), "gpt2", "gpt2", "");
    for init in ["loram", "pissa", "loftq"] {
        let (run, merged) = (format!("run-{init}"), format!("merged-{init}"));
        let train = [
            "train",
            "--model",
            "gpt2",
            "--data",
            "data.jsonl",
            "--max-steps",
            "2",
            "--learning-rate",
            "1e-3",
            "--r",
            "2",
        ];
        json(room.path(), &[&train[..], &["--init", init, "-o", &run]].concat());
        let adapter = format!("{run}/adapter");
        let config = fs::read_to_string(room.path().join(&adapter).join("adapter_config.json")).unwrap();
        assert!(config.contains("\"fan_in_fan_out\": true"), "{config}");
        json(room.path(), &["merge", "--model", "gpt2", "--adapter", &adapter, "-o", &merged]);
        let loss = |flags: &[&str]| {
            let found = json(room.path(), &[&["eval", "--data", "data.jsonl"], flags].concat());
            found["loss"].as_f64().unwrap()
        };
        let (with, alone) = (loss(&["--model", "gpt2", "--adapter", &adapter]), loss(&["--model", &merged]));
        assert!((with / alone - 1.0).abs() < 1e-5, "{init}: {with} {alone}");
    }
}
