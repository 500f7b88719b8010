//! Adapters written by PEFT 0.21 (tests/data/make_adapters.py): read, rewritten, merged, refused.

use loram_core::{Factors, LoraConfig};
use loram_io::adapter::*;
use loram_io::atomic::Output;
use loram_io::checkpoint::{TensorSpec, pt_metadata, write_safetensors};
use loram_io::config::CheckpointHead;
use loram_io::family::TensorNames;
use loram_io::merge::write_merged;
use loram_io::{Checkpoint, DType, Error, ModelConfig};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::path::{Path, PathBuf};

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn config_file(dir: &Path) -> Map<String, Value> {
    serde_json::from_slice(&std::fs::read(dir.join(ADAPTER_CONFIG)).unwrap()).unwrap()
}

/// Copies an adapter and changes its configuration.
fn edited(name: &str, key: &str, value: Value) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(data(name).join(ADAPTER_WEIGHTS), dir.path().join(ADAPTER_WEIGHTS)).unwrap();
    let mut config = config_file(&data(name));
    config.insert(key.into(), value);
    std::fs::write(dir.path().join(ADAPTER_CONFIG), Value::Object(config).to_string()).unwrap();
    dir
}

#[test]
fn ranks_and_scalings_follow_the_patterns() {
    let a = Adapter::read(data("adapters/patterns")).unwrap();
    assert_eq!((a.form(), a.task_type.as_deref(), a.layers.len()), (AdapterForm::Plain, Some("CAUSAL_LM"), 6));
    let plan = a.plan().unwrap();
    let check = |path: &str, r: usize, alpha: f64| {
        let p = &plan[path];
        assert_eq!((a.layers[path].r, p.r, p.lora_alpha), (r, r, alpha), "{path}");
        assert!((p.scaling - alpha / (r as f64).sqrt()).abs() < 1e-12);
    };
    check("model.layers.0.self_attn.q_proj", 4, 6.0);
    check("model.layers.1.self_attn.q_proj", 3, 6.0);
    check("model.layers.0.self_attn.v_proj", 4, 5.0);
    check("model.layers.1.mlp.down_proj", 2, 6.0);
    assert_eq!(Adapter::read(data("adapters/bf16")).unwrap().dtype, DType::BF16);
}

#[test]
fn a_rewritten_adapter_is_the_same_to_peft() {
    for name in ["patterns", "bf16", "classifier", "roberta", "distilbert"] {
        let source = data("adapters").join(name);
        let dir = edited(&format!("adapters/{name}"), "a_key_of_the_future", json!({"kept": [1, 2]}));
        let a = Adapter::read(dir.path()).unwrap();
        let out = tempfile::tempdir().unwrap();
        a.write(out.path()).unwrap();
        let (mut old, mut new) = (config_file(&source), config_file(out.path()));
        assert_eq!(new.shift_remove("a_key_of_the_future"), Some(json!({"kept": [1, 2]})));
        for c in [&mut old, &mut new] {
            for list in ["target_modules", "modules_to_save"] {
                if let Some(Value::Array(names)) = c.get_mut(list) {
                    names.sort_by_key(|n| n.to_string());
                }
            }
        }
        assert_eq!(new, old, "{name}");
        assert_eq!(new.keys().collect::<Vec<_>>(), old.keys().collect::<Vec<_>>(), "sorted as PEFT sorts");
        let bytes = |d: &Path| std::fs::read(d.join(ADAPTER_WEIGHTS)).unwrap();
        let (x, y) = (
            Checkpoint::open_file(source.join(ADAPTER_WEIGHTS)).unwrap(),
            Checkpoint::open_file(out.path().join(ADAPTER_WEIGHTS)).unwrap(),
        );
        assert_eq!(x.names().collect::<Vec<_>>(), y.names().collect::<Vec<_>>());
        for n in x.names() {
            assert_eq!(x.tensor(n).unwrap().bytes(), y.tensor(n).unwrap().bytes(), "{name}: {n}");
        }
        assert_eq!(y.files()[0].metadata["format"], "pt");
        let first = bytes(out.path());
        assert!(matches!(a.write(out.path()).unwrap_err(), Error::Exists { .. }));
        a.write_to(Output::new(out.path(), true)).unwrap();
        assert_eq!(first, bytes(out.path()), "{name}: the same bytes again");
    }
}

#[test]
fn a_new_adapter_has_every_key_of_peft() {
    let peft = config_file(&data("adapters/patterns"));
    let config = LoraConfig { r: 2, lora_alpha: 4.0, ..Default::default() };
    let mut a = Adapter::new(config, "CAUSAL_LM", Some("org/base".into()));
    let w = Factors { n: 4, m: 4, r: 2, a: vec![0.5; 8], b: vec![0.25; 8] };
    for p in ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj", "model.layers.0.mlp.up_proj"] {
        a.layers.insert(p.into(), w.clone());
    }
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("adapter");
    a.write(&out).unwrap();
    let c = config_file(&out);
    assert_eq!(c.keys().collect::<Vec<_>>(), peft.keys().collect::<Vec<_>>());
    assert_eq!(c["target_modules"], json!(["q_proj", "up_proj"]));
    assert_eq!((&c["lora_alpha"], &c["r"], &c["peft_type"]), (&json!(4), &json!(2), &json!("LORA")));
    assert_eq!((&c["base_model_name_or_path"], &c["init_lora_weights"]), (&json!("org/base"), &json!(true)));
    let card = std::fs::read_to_string(out.join("README.md")).unwrap();
    assert!(
        card.starts_with("---\nbase_model: \"org/base\"\nlibrary_name: peft\n")
            && card.contains("from_pretrained(\"org/base\")")
    );
    assert_eq!(Adapter::read(&out).unwrap().layers, a.layers);

    a.layers.get_mut("model.layers.0.mlp.up_proj").unwrap().a.pop();
    assert!(a.write(&out).unwrap_err().to_string().contains("up_proj"));
    assert_eq!(Adapter::read(&out).unwrap().layers.len(), 3, "the refused one has replaced nothing");
}

#[test]
fn older_peft_versions_are_read() {
    let dir = edited("adapters/classifier", "modules_to_save", Value::Null);
    let mut c = config_file(dir.path());
    // the keys of PEFT 0.4
    let keys = [
        "auto_mapping",
        "base_model_name_or_path",
        "bias",
        "fan_in_fan_out",
        "inference_mode",
        "init_lora_weights",
        "layers_pattern",
        "layers_to_transform",
        "lora_alpha",
        "lora_dropout",
        "modules_to_save",
        "peft_type",
        "r",
        "revision",
        "target_modules",
        "task_type",
    ];
    c.retain(|k, _| keys.contains(&k.as_str()));
    std::fs::write(dir.path().join(ADAPTER_CONFIG), Value::Object(c).to_string()).unwrap();
    let a = Adapter::read(dir.path()).unwrap();
    assert_eq!(a.saved.keys().collect::<Vec<_>>(), ["classifier.bias", "classifier.weight"]);
    assert_eq!(a.layers.len(), 4);
}

#[test]
fn keys_of_wrapped_models_are_read_and_two_of_one_tensor_refused() {
    let expected = Adapter::read(data("adapters/bf16")).unwrap();
    let renamed = |rename: &dyn Fn(&str) -> String| {
        let dir = edited("adapters/bf16", "revision", Value::Null);
        let file = Checkpoint::open_file(data("adapters/bf16").join(ADAPTER_WEIGHTS)).unwrap();
        let tensor = |name: &str| {
            let t = file.tensor(name).unwrap();
            (TensorSpec::new(rename(name), t.dtype(), t.shape()), Cow::Owned(t.to_f32().unwrap()))
        };
        let list = file.names().map(tensor).collect();
        write_safetensors(dir.path().join(ADAPTER_WEIGHTS), &pt_metadata(), list).unwrap();
        Adapter::read(dir.path())
    };
    for rename in [
        &(|k: &str| format!("_orig_mod.{k}")) as &dyn Fn(&str) -> String,
        &|k| format!("module.{k}"),
        &|k| format!("base_model.model.{k}"),
        &|k| k.replacen("base_model.model.", "base_model.model._orig_mod.", 1),
        &|k| k.replacen("base_model.model.", "", 1),
    ] {
        assert_eq!(renamed(rename).unwrap().layers, expected.layers);
    }
    // one of them with another prefix besides
    let first = expected.layers.keys().next().unwrap();
    let twice = |k: &str| k.replace(expected.layers.keys().nth(1).unwrap().as_str(), first);
    let e = renamed(&|k| if k == twice(k) { k.to_string() } else { format!("_orig_mod.{}", twice(k)) }).unwrap_err();
    assert!(e.to_string().contains(first) && e.exit_code() == 2, "{e}");
    let e = renamed(&|k| k.replace("lora_A.weight", "lora_C.weight")).unwrap_err();
    assert!(e.to_string().contains("lora_C"), "{e}");
}

#[test]
fn an_adapter_of_a_model_without_head_gets_the_prefix_of_the_backbone() {
    let (dir, out) = (data("models/llama-tied-sharded"), tempfile::tempdir().unwrap());
    let (ckpt, cfg) = (Checkpoint::open(&dir).unwrap(), ModelConfig::load(&dir).unwrap());
    let whole = Adapter::read(data("adapters/patterns")).unwrap();
    let mut bare = whole.clone();
    bare.layers =
        whole.layers.iter().map(|(p, f)| (p.strip_prefix("model.").unwrap().to_string(), f.clone())).collect();
    let names = TensorNames::find(&ckpt, &cfg).unwrap();
    assert_eq!(bare.clone().fitted(&ckpt, &names).layers, whole.layers);
    let merged = |adapter: &Adapter, name: &str| {
        let to = out.path().join(name);
        merge_adapter(&ckpt, &cfg, adapter, &to, MergeOptions::default()).unwrap();
        let merged = Checkpoint::open(&to).unwrap();
        merged.tensor("model.layers.0.self_attn.q_proj.weight").unwrap().bytes().to_vec()
    };
    assert_eq!(merged(&bare, "bare"), merged(&whole, "whole"));
}

#[test]
fn trained_rows_and_biases_of_b_are_checked_with_their_settings() {
    let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/peft");
    let edited = |name: &str, key: &str, value: Value| {
        let dir = tempfile::tempdir().unwrap();
        std::fs::copy(fixtures.join(name).join(ADAPTER_WEIGHTS), dir.path().join(ADAPTER_WEIGHTS)).unwrap();
        let mut config = config_file(&fixtures.join(name));
        config.insert(key.into(), value);
        std::fs::write(dir.path().join(ADAPTER_CONFIG), Value::Object(config).to_string()).unwrap();
        Adapter::read(dir.path())
    };
    let tokens = Adapter::read(fixtures.join("tokens")).unwrap();
    assert_eq!(tokens.token_ids("model.embed_tokens").unwrap(), [2, 9, 40]);
    for wrong in [json!([2, 9]), Value::Null, json!({"lm_head": [2, 9, 40]})] {
        let e = edited("tokens", "trainable_token_indices", wrong).unwrap_err();
        assert!(e.to_string().contains("3 trained rows") && e.exit_code() == 2, "{e}");
    }
    // the head of a tied pair is the embedding's copy, or it is nothing that the configuration names
    assert_eq!(Adapter::read(fixtures.join("embedding-saved")).unwrap().saved.len(), 2);
    let e = edited("embedding-saved", "ensure_weight_tying", json!(false)).unwrap_err();
    assert!(e.to_string().contains("lm_head.weight"), "{e}");
    // a layer without bias takes none of B
    let bias = Adapter::read(fixtures.join("lora-bias")).unwrap();
    assert_eq!(bias.biases.len(), 4);
    let dir = fixtures.join("../models/llama");
    let (ckpt, cfg) = (Checkpoint::open(&dir).unwrap(), ModelConfig::load(&dir).unwrap());
    let out = tempfile::tempdir().unwrap();
    let e = merge_adapter(&ckpt, &cfg, &bias, &out.path().join("m"), MergeOptions::default()).unwrap_err();
    assert!(e.to_string().contains("lora_bias") && !out.path().join("m").exists(), "{e}");
}

#[test]
fn what_is_not_supported_is_named() {
    let says = |dir: &Path, needles: &[&str]| {
        let e = Adapter::read(dir).unwrap_err();
        assert_eq!(e.exit_code(), 2, "{e}");
        for n in needles {
            assert!(e.to_string().contains(n), "{e} lacks {n}");
        }
    };
    says(&data("adapters/dora"), &["use_dora"]);
    says(edited("adapters/dora", "use_dora", json!(false)).path(), &["lora_magnitude_vector", "DoRA"]);
    says(edited("adapters/bf16", "bias", json!("lora_only")).path(), &["bias", "lora_only"]);
    says(edited("adapters/bf16", "peft_type", json!("IA3")).path(), &["peft_type", "IA3"]);
    says(edited("adapters/bf16", "target_parameters", json!(["x"])).path(), &["target_parameters"]);
    says(edited("adapters/bf16", "alora_invocation_tokens", json!([1])).path(), &["alora_invocation_tokens"]);
    says(edited("adapters/bf16", "layer_replication", json!([[0, 1]])).path(), &["layer_replication"]);
    says(edited("adapters/bf16", "r", json!("two")).path(), &["malformed"]);
    says(edited("adapters/patterns", "rank_pattern", json!({})).path(), &["rank", "down_proj"]);
    says(&data("nowhere"), &["no such adapter folder"]);
    says(&data("models/roberta"), &["no adapter_config.json"]);
    let dir = edited("adapters/bf16", "r", json!(2));
    std::fs::rename(dir.path().join(ADAPTER_WEIGHTS), dir.path().join("adapter_model.bin")).unwrap();
    says(dir.path(), &["adapter_model.bin", "never loaded"]);
    std::fs::remove_file(dir.path().join("adapter_model.bin")).unwrap();
    says(dir.path(), &["no adapter_model.safetensors"]);
}

#[test]
fn an_unconverted_pissa_adapter_is_pointed_out() {
    assert_eq!(Adapter::read(data("adapters/bf16")).unwrap().changed_base_hint(), None);
    let dir = edited("adapters/bf16", "init_lora_weights", json!("pissa_niter_4"));
    let hint = Adapter::read(dir.path()).unwrap().changed_base_hint().unwrap();
    assert!(hint.contains("pissa_niter_4") && hint.contains("changed base"), "{hint}");
}

/// Writes base + adapter and compares every tensor with PEFT's own merge.
fn merged(base: &str, adapter: &str, updates: Value, tolerance: f32) -> tempfile::TempDir {
    let (base, adapter) = (data("models").join(base), data("adapters").join(adapter));
    let (ckpt, cfg) = (Checkpoint::open(&base).unwrap(), ModelConfig::load(&base).unwrap());
    let a = Adapter::read(&adapter).unwrap();
    let out = tempfile::tempdir().unwrap();
    let mut source = AdapterMerge::new(&a).unwrap();
    let dir = out.path().join("merged");
    write_merged(&ckpt, Some(&cfg), &dir, updates.as_object().unwrap(), &mut source).unwrap();
    let (ours, theirs) =
        (Checkpoint::open(&dir).unwrap(), Checkpoint::open_file(adapter.join("merged.safetensors")).unwrap());
    for name in theirs.names() {
        let (x, y) = (ours.tensor(name).unwrap().to_f32().unwrap(), theirs.tensor(name).unwrap().to_f32().unwrap());
        let worst = x.iter().zip(&y).map(|(x, y)| (x - y).abs() / y.abs().max(0.1)).fold(0.0, f32::max);
        assert!(worst < tolerance, "{name}: {worst}");
    }
    assert_eq!(ours.len(), theirs.len());
    out
}

#[test]
fn merged_weights_are_those_of_peft() {
    // bf16 shards, rounded once: half a unit in the last place is at most 2⁻⁸ relative
    let out = merged("llama-tied-sharded", "patterns", json!({}), 1.001 / 256.0);
    let (old, new) = (
        Checkpoint::open(data("models/llama-tied-sharded")).unwrap(),
        Checkpoint::open(out.path().join("merged")).unwrap(),
    );
    assert_eq!(old.files().len(), new.files().len());
    for (x, y) in old.files().iter().zip(new.files()) {
        assert_eq!(
            (&x.name, &x.metadata, &x.tensors),
            (&y.name, &y.metadata, &y.tensors),
            "same shards, order and dtypes"
        );
    }
    for file in ["config.json", "generation_config.json"] {
        let read = |d: PathBuf| std::fs::read(d.join(file)).unwrap();
        assert_eq!(read(data("models/llama-tied-sharded")), read(out.path().join("merged")));
    }
    merged("roberta", "roberta", json!({}), 1e-5);
    // a head on a base model: the backbone gets its prefix, so that transformers finds both
    let class =
        ModelConfig::load(data("models/bert-base")).unwrap().class_name(&CheckpointHead::SequenceClassification);
    assert_eq!(class, "BertForSequenceClassification");
    let out = merged("bert-base", "classifier", json!({"architectures": [class]}), 1e-5);
    let dir = out.path().join("merged");
    assert_eq!(ModelConfig::load(&dir).unwrap().head(), &CheckpointHead::SequenceClassification);
    assert!(Checkpoint::open(&dir).unwrap().contains("bert.pooler.dense.weight"));
}

#[test]
fn an_adapter_for_another_model_is_refused_before_anything_is_written() {
    let base = data("models/llama-tied-sharded");
    let (ckpt, cfg) = (Checkpoint::open(&base).unwrap(), ModelConfig::load(&base).unwrap());
    let a = Adapter::read(data("adapters/distilbert")).unwrap();
    let out = tempfile::tempdir().unwrap();
    let write = |a: &Adapter| {
        let mut source = AdapterMerge::new(a).unwrap();
        write_merged(&ckpt, Some(&cfg), &out.path().join("m"), &Map::new(), &mut source).unwrap_err()
    };
    assert!(matches!(write(&a), Error::NoTensor { .. }));
    let mut a = Adapter::read(data("adapters/bf16")).unwrap();
    let w = a.layers.values_mut().next().unwrap();
    w.m += 2;
    w.a.extend([0.0; 4]);
    assert!(write(&a).to_string().contains("the adapter is for shape"));
    assert!(std::fs::read_dir(out.path()).unwrap().next().is_none(), "nothing is left behind");
}

#[test]
fn fingerprints_tell_bases_apart() {
    let (a, b) =
        (Checkpoint::open(data("models/roberta")).unwrap(), Checkpoint::open(data("models/bert-base")).unwrap());
    let path = "roberta.encoder.layer.0.attention.self.query";
    let print = Fingerprint::of(&a, None, [path]).unwrap();
    print.verify(&a, None).unwrap();
    let mut other = print.clone();
    other.layers.insert(path.into(), "0".repeat(16));
    let e = other.verify(&a, None).unwrap_err().to_string();
    assert!(e.contains(path) && e.contains("other weights"), "{e}");
    let cfg = ModelConfig::load(data("models/bert-base")).unwrap();
    let names = TensorNames::find(&b, &cfg).unwrap();
    Fingerprint::of(&b, Some(&names), ["bert.encoder.layer.1.output.dense"]).unwrap();
}

/// A native adapter on the small Llama: LoRAM (from the recipe alone) or PiSSA (from the base's weights), moved from its
/// start.
fn native(scheme: &str) -> Adapter {
    let base = data("models/llama-tied-sharded");
    let (ckpt, cfg) = (Checkpoint::open(&base).unwrap(), ModelConfig::load(&base).unwrap());
    let linears = loram_io::linear_modules(&ckpt, Some(&cfg)).unwrap();
    let mut config = LoraConfig { r: 3, lora_alpha: 5.0, use_rslora: true, ..Default::default() };
    config.rank_pattern.insert("k_proj".into(), 2);
    config.alpha_pattern.insert("v_proj".into(), 7.0);
    let spec = loram_core::SchemeSpec::parse(scheme, &Default::default()).unwrap();
    let mut a = Adapter::new(config.clone(), "CAUSAL_LM", Some("base".into()));
    let mut recipe = Recipe::new(AdapterForm::Native, spec.to_string(), 11);
    for plan in loram_core::plan_layers(&config, &linears).unwrap() {
        let w = ckpt.tensor(&format!("{}.weight", plan.path)).unwrap().to_f32().unwrap();
        let w = loram_core::StoredWeight::of(&w, plan.n, plan.m);
        let start = loram_core::initialize(&spec, w, &plan, 11).unwrap();
        let moved = |x: Vec<f32>| x.iter().enumerate().map(|(i, x)| x + ((i % 5) as f32 - 2.0) * 0.03).collect();
        let Factors { n, m, r, a: a0, b: b0 } = start.factors;
        a.layers.insert(plan.path.clone(), Factors { n, m, r, a: moved(a0), b: moved(b0) });
        recipe.layers.insert(plan.path, start.recipe);
    }
    recipe.base = Some(Fingerprint::of(&ckpt, None, a.layers.keys().map(String::as_str)).unwrap());
    a.recipe = Some(recipe);
    a
}

#[test]
fn native_adapters_survive_the_files_and_never_pass_for_plain_ones() {
    let ckpt = Checkpoint::open(data("models/llama-tied-sharded")).unwrap();
    for scheme in ["loram", "pissa"] {
        let a = native(scheme);
        let dir = tempfile::tempdir().unwrap();
        a.write(dir.path()).unwrap();
        let b = Adapter::read(dir.path()).unwrap();
        assert_eq!((b.form(), &b.layers, &b.recipe), (AdapterForm::Native, &a.layers, &a.recipe));
        b.recipe.as_ref().unwrap().base.as_ref().unwrap().verify(&ckpt, None).unwrap();
        let init = config_file(dir.path())["init_lora_weights"].clone();
        assert_eq!(init, json!(format!("{scheme}-native")), "a name at which PEFT stops");
        let card = std::fs::read_to_string(dir.path().join("README.md")).unwrap();
        assert!(card.contains("native form and does not fit the base model as it is"));

        // a plain adapter over it takes the old recipe away
        let weight = |p: &str| ckpt.tensor(&format!("{p}.weight"))?.to_f32();
        let plain = b.to_plain(weight).unwrap();
        let mut foreign = plain.clone();
        foreign.recipe = None;
        foreign.write_to(Output::new(dir.path(), true)).unwrap();
        assert!(!dir.path().join(RECIPE_FILE).exists());
        assert_eq!(Adapter::read(dir.path()).unwrap().form(), AdapterForm::Plain);

        // without the layer's recipe it cannot be written or read
        let mut broken = a.clone();
        broken.recipe.as_mut().unwrap().layers.pop_first();
        assert!(broken.write(dir.path()).unwrap_err().to_string().contains("loram.json lacks layer"));
    }
    assert!(native("pissa").to_plain(|p| Err(Error::Usage(p.into()))).is_err(), "PiSSA needs the weights");
    native("loram").to_plain(|p| panic!("LoRAM asked for the weight of {p}")).unwrap();
}

#[test]
fn plain_form_and_native_form_merge_to_the_same_weights() {
    let base = data("models/llama-tied-sharded");
    let (ckpt, cfg) = (Checkpoint::open(&base).unwrap(), ModelConfig::load(&base).unwrap());
    for scheme in ["loram", "pissa"] {
        let a = native(scheme);
        let plain = a.to_plain(|p| ckpt.tensor(&format!("{p}.weight"))?.to_f32()).unwrap();
        assert_eq!(plain.form(), AdapterForm::Plain);
        let (old, new) = (a.plan().unwrap(), plain.plan().unwrap());
        for (path, p) in &old {
            assert_eq!(new[path].r, 2 * p.r);
            assert!((new[path].scaling / p.scaling - 1.0).abs() < 1e-12, "{path}");
        }
        let out = tempfile::tempdir().unwrap();
        let merge = |name: &str, a: &Adapter| {
            let dir = out.path().join(name);
            write_merged(&ckpt, Some(&cfg), &dir, &Map::new(), &mut AdapterMerge::new(a).unwrap()).unwrap();
            Checkpoint::open(dir).unwrap()
        };
        let (x, y) = (merge("native", &a), merge("plain", &plain));
        let mut changed = 0;
        for name in x.names() {
            assert_eq!(x.tensor(name).unwrap().bytes(), y.tensor(name).unwrap().bytes(), "{scheme}: {name}");
            changed += (x.tensor(name).unwrap().bytes() != ckpt.tensor(name).unwrap().bytes()) as usize;
        }
        assert_eq!(changed, 14);
    }
}

#[test]
fn truncation_keeps_scalings_and_reports_its_error() {
    let plain = native("loram").to_plain(|_| unreachable!()).unwrap();
    let (same, lost) = plain.truncated(100).unwrap();
    assert!(same.layers == plain.layers && lost.layers.is_empty() && lost.error == 0.0);
    let (small, lost) = plain.truncated(2).unwrap();
    assert_eq!(lost.layers.len(), 14);
    assert!(lost.layers.iter().all(|l| l.error > 0.0 && l.error < 1.0));
    let (least, most) = lost.layers.iter().fold((1.0, 0.0), |(a, b): (f64, f64), l| (a.min(l.error), b.max(l.error)));
    assert!(least <= lost.error && lost.error <= most, "{least} {} {most}", lost.error);
    let (old, new) = (plain.plan().unwrap(), small.plan().unwrap());
    for (path, p) in &old {
        assert_eq!(new[path].r, 2);
        assert!((new[path].scaling / p.scaling - 1.0).abs() < 1e-12, "{path}");
    }
    let dir = tempfile::tempdir().unwrap();
    small.write(dir.path()).unwrap();
    assert_eq!(Adapter::read(dir.path()).unwrap().layers, small.layers);
    assert!(plain.truncated(0).is_err() && native("loram").truncated(2).is_err());
}

#[test]
fn folded_scalings_give_the_same_update() {
    // rsLoRA, two ranks and two alphas
    let plain = native("loram").to_plain(|_| unreachable!()).unwrap();
    let folded = plain.folded().unwrap();
    let c = &folded.config;
    assert!(!c.use_rslora && c.rank_pattern.is_empty() && c.alpha_pattern.is_empty());
    assert_eq!((c.r, c.lora_alpha), (6, 6.0));
    let plans = plain.plan().unwrap();
    for (path, w) in &folded.layers {
        let old = &plain.layers[path];
        let (mut x, mut y) = (vec![0.0; w.n * w.m], vec![0.0; w.n * w.m]);
        old.add_to(&mut x, plans[path].scaling);
        w.add_to(&mut y, 1.0);
        assert!(x.iter().zip(&y).all(|(x, y)| (x - y).abs() < 1e-5), "{path}");
    }
    assert!(native("loram").folded().is_err());
}

#[test]
fn plain_and_back() {
    let ckpt = Checkpoint::open(data("models/llama-tied-sharded")).unwrap();
    for scheme in ["loram", "pissa"] {
        let native = native(scheme);
        let weight = |path: &str| ckpt.tensor(&format!("{path}.weight"))?.to_f32();
        let plain = native.to_plain(weight).unwrap();
        let back = plain.to_native(weight).unwrap();
        assert_eq!(back.layers, native.layers, "{scheme}");
        assert_eq!(back.form(), native.form(), "{scheme}");
        let (x, y) = (back.plan().unwrap(), native.plan().unwrap());
        assert!(x.iter().all(|(path, p)| (p.scaling / y[path].scaling - 1.0).abs() < 1e-12 && p.r == y[path].r));
        let mut trained = plain.clone();
        trained.layers.values_mut().next().unwrap().a.iter_mut().for_each(|x| *x += 1.0);
        let e = trained.to_native(weight).unwrap_err().to_string();
        assert!(e.contains("trained further or cut"), "{e}");
        let cut = plain.truncated(3).unwrap().0;
        assert!(cut.to_native(weight).unwrap_err().to_string().contains("trained further or cut"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn damaged_recipes_and_configurations_never_panic(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        which in 0usize..2,
    ) {
        static FILES: std::sync::OnceLock<(tempfile::TempDir, [Vec<u8>; 2])> = std::sync::OnceLock::new();
        let (dir, files) = FILES.get_or_init(|| {
            let dir = tempfile::tempdir().unwrap();
            native("loram").write(dir.path()).unwrap();
            let read = |name| std::fs::read(dir.path().join(name)).unwrap();
            let files = [read(RECIPE_FILE), read(ADAPTER_CONFIG)];
            (dir, files)
        });
        let mut bytes = files[which].clone();
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let work = tempfile::tempdir().unwrap();
        for name in [RECIPE_FILE, ADAPTER_CONFIG, ADAPTER_WEIGHTS] {
            std::fs::copy(dir.path().join(name), work.path().join(name)).unwrap();
        }
        std::fs::write(work.path().join([RECIPE_FILE, ADAPTER_CONFIG][which]), bytes).unwrap();
        if let Ok(a) = Adapter::read(work.path()) {
            let _ = a.to_plain(|p| Err(Error::Usage(p.into())));
        }
    }
}
