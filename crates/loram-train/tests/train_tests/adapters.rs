//! Adapters that PEFT trained and saved give PEFT's outputs and gradients in our models (`fixtures/make_adapters.py`), and
//! so do the models that they are merged into.

use loram_io::adapter::{Adapter, AdapterForm, MergeOptions, merge_adapter};
use loram_io::merge::{MergeSource, write_merged};
use loram_io::{Checkpoint, DType, ModelConfig};
use loram_nn::{Batch, CrossEntropy, HeadKind, IGNORE, LoadOptions, Loss, Model};
use loram_train::adapt::{ExportInfo, LoadAdapter, load};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// An adapter with what PEFT computes with it.
struct Case {
    name: &'static str,
    adapter: PathBuf,
    head: HeadKind,
    ckpt: Checkpoint,
    config: ModelConfig,
    reference: Checkpoint,
    batch: Batch,
}

impl Case {
    fn read(name: &'static str) -> Case {
        let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
        let info: Value =
            serde_json::from_str(&std::fs::read_to_string(fixtures.join(format!("ref/peft-{name}.json"))).unwrap())
                .unwrap();
        let reference = Checkpoint::open_file(fixtures.join(format!("ref/peft-{name}.safetensors"))).unwrap();
        let ints = |key: &str| reference.tensor(key).unwrap().to_i64().unwrap();
        let numbers = |key: &str| ints(key).into_iter().map(|t| t as u32).collect();
        let head = match info["num_labels"].as_u64() {
            Some(n) => HeadKind::Pooled { outputs: n as usize },
            None => HeadKind::LanguageModel,
        };
        let dir = fixtures.join("models").join(info["model"].as_str().unwrap());
        let (ckpt, config) = (Checkpoint::open(&dir).unwrap(), ModelConfig::load(&dir).unwrap());
        let batch = Batch {
            tokens: numbers("input_ids"),
            lengths: ints("lengths").into_iter().map(|n| n as usize).collect(),
            token_types: if reference.contains("token_types") { numbers("token_types") } else { Vec::new() },
        };
        Case { name, adapter: fixtures.join("peft").join(name), head, ckpt, config, reference, batch }
    }

    fn model(&self) -> Model {
        Model::load(&self.ckpt, &self.config, &LoadOptions::new(self.head)).unwrap()
    }

    /// The largest difference to PEFT's logits, relative to the largest of them.
    fn worst(&self, model: &Model) -> f32 {
        let expected = self.reference.tensor("logits").unwrap().to_f32().unwrap();
        apart(&model.logits(&self.batch).unwrap(), &expected)
    }

    /// The mean over next tokens or classes, and how many count.
    fn loss(&self) -> (Box<dyn Loss>, usize) {
        if self.head != HeadKind::LanguageModel {
            let classes = self.reference.tensor("classes").unwrap().to_i64().unwrap();
            let count = classes.len();
            return (Box::new(CrossEntropy::new(classes)), count);
        }
        let mut labels = Vec::new();
        let mut rest = &self.batch.tokens[..];
        for &n in &self.batch.lengths {
            let (own, after) = rest.split_at(n);
            labels.extend(own[1..].iter().map(|&t| i64::from(t)));
            labels.push(IGNORE);
            rest = after;
        }
        let count = labels.iter().filter(|l| **l != IGNORE).count();
        (Box::new(CrossEntropy::new(labels)), count)
    }
}

fn apart(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    found.iter().zip(expected).fold(0.0f32, |m, (a, b)| m.max((a - b).abs())) / scale
}

fn check(name: &'static str) {
    let case = Case::read(name);
    let mut model = case.model();
    let before = case.worst(&model);
    let (_, warnings) = load(&mut model, &case.ckpt, &case.config, &case.adapter, LoadAdapter::frozen()).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    let after = case.worst(&model);
    println!("{name}: {before:.1e} without the adapter, {after:.1e} with it");
    assert!(before > 1e-3 && after < 1e-4, "{name}: {before:.1e} without the adapter, {after:.1e} with it");
}

/// The merged model and one with the adapter written again compute the same as PEFT.
fn merged_and_rewritten(name: &'static str) {
    let case = Case::read(name);
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("merged");
    let adapter = Adapter::read(&case.adapter).unwrap();
    let report = merge_adapter(&case.ckpt, &case.config, &adapter, &out, MergeOptions::default()).unwrap();
    let (ckpt, config) = (Checkpoint::open(&out).unwrap(), ModelConfig::load(&out).unwrap());
    let merged = Model::load(&ckpt, &config, &LoadOptions::new(case.head)).unwrap();
    let error = case.worst(&merged);
    // weights in 16 bits are rounded once more
    let narrow = case.ckpt.names().any(|n| case.ckpt.info(n).is_some_and(|info| info.dtype == DType::BF16));
    assert!(error < if narrow { 2e-2 } else { 1e-4 }, "{name}, merged: {error:.1e}");
    if adapter.config.ensure_weight_tying || adapter.tokens.len() == 1 {
        assert!(!report.untied && merged.tied_head().is_some(), "{name}: the head stays the embedding");
    }
    let again = dir.path().join("again");
    adapter.write(&again).unwrap();
    let mut model = case.model();
    load(&mut model, &case.ckpt, &case.config, &again, LoadAdapter::frozen()).unwrap();
    let error = case.worst(&model);
    assert!(error < 1e-4, "{name}, rewritten: {error:.1e}");
    trained_and_exported(&case, dir.path());
}

/// Gradients of every parameter are PEFT's, and a model that is saved is read as it was.
fn trained_and_exported(case: &Case, dir: &Path) {
    let mut model = case.model();
    let how = LoadAdapter { train: true, ..LoadAdapter::frozen() };
    let (adaptation, _) = load(&mut model, &case.ckpt, &case.config, &case.adapter, how).unwrap();
    let (mut loss, count) = case.loss();
    model.forward_backward(&case.batch, &mut *loss, 1.0 / count as f64, 0).unwrap();
    let expected: Vec<&str> = case.reference.names().filter_map(|n| n.strip_prefix("grad.")).collect();
    let mut found: Vec<&str> = model.params().iter().map(|p| p.name.as_str()).collect();
    found.sort_unstable();
    assert_eq!(found, expected, "{}", case.name);
    for p in model.params().iter() {
        let theirs = case.reference.tensor(&format!("grad.{}", p.name)).unwrap().to_f32().unwrap();
        let error = apart(&p.grad.values().unwrap(), &theirs);
        assert!(error < 1e-4, "{}: gradient of {}: {error:.1e}", case.name, p.name);
    }
    let info = ExportInfo { base_model: "base".into(), revision: None, task_type: "CAUSAL_LM" };
    let exported = dir.join("exported");
    adaptation.export(&model, AdapterForm::Plain, &info).unwrap().write(&exported).unwrap();
    let mut model = case.model();
    load(&mut model, &case.ckpt, &case.config, &exported, LoadAdapter::frozen()).unwrap();
    let error = case.worst(&model);
    assert!(error < 1e-4, "{}, exported: {error:.1e}", case.name);
}

#[test]
fn plain() {
    check("plain");
}

#[test]
fn rslora_with_patterns() {
    check("rslora-patterns");
}

#[test]
fn classifier_with_its_saved_head() {
    check("classifier");
}

#[test]
fn adapted_output_layer() {
    check("lm-head");
}

#[test]
fn adapted_embeddings() {
    for name in ["embedding", "embedding-tied", "positions"] {
        check(name);
        merged_and_rewritten(name);
    }
}

#[test]
fn a_saved_embedding_whose_head_follows() {
    check("embedding-saved");
    merged_and_rewritten("embedding-saved");
}

#[test]
fn single_trained_tokens() {
    for name in ["tokens", "tokens-untied"] {
        check(name);
        merged_and_rewritten(name);
    }
}

#[test]
fn biases_of_b() {
    check("lora-bias");
    merged_and_rewritten("lora-bias");
}

/// GPT-2's `Conv1D`, which is merged as it is stored; layers beside experts and sinks; convolutions.
#[test]
fn transposed_weights_mixtures_and_convolutions() {
    for name in ["conv1d", "conv1d-embeddings", "mixture", "convolution"] {
        check(name);
        merged_and_rewritten(name);
    }
    check("sinks");
}

/// Of `qkv_proj` and `gate_up_proj`; of an embedding with a factor; norms whose weights are stored minus one.
#[test]
fn fused_layers_and_those_of_gemma() {
    for name in ["fused", "scaled-embedding", "norms"] {
        check(name);
        merged_and_rewritten(name);
    }
}

/// Nothing changes.
struct Unchanged;

impl MergeSource for Unchanged {
    type Error = loram_io::Error;

    fn targets(&self) -> Vec<String> {
        Vec::new()
    }

    fn apply(&mut self, _: &str, _: &[usize], _: &mut [f32]) -> loram_io::Result<()> {
        Ok(())
    }
}

/// Experts in MXFP4 are written in BF16, the other way round, as transformers has them.
#[test]
fn experts_in_mxfp4_are_merged_into_bf16() {
    let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    let reference = Checkpoint::open_file(fixtures.join("ref/gpt-oss-mxfp4.safetensors")).unwrap();
    let numbers = |key: &str| reference.tensor(key).unwrap().to_i64().unwrap();
    let batch = Batch {
        tokens: numbers("input_ids").into_iter().map(|t| t as u32).collect(),
        lengths: numbers("lengths").into_iter().map(|n| n as usize).collect(),
        token_types: Vec::new(),
    };
    let (dir, room) = (fixtures.join("models/gpt-oss-mxfp4"), tempfile::tempdir().unwrap());
    let out = room.path().join("merged");
    let (ckpt, config) = (Checkpoint::open(&dir).unwrap(), ModelConfig::load(&dir).unwrap());
    write_merged(&ckpt, Some(&config), &out, &serde_json::Map::new(), &mut Unchanged).unwrap();
    let (ckpt, config) = (Checkpoint::open(&out).unwrap(), ModelConfig::load(&out).unwrap());
    assert!(ckpt.quantised().is_none());
    let experts = ckpt.info("model.layers.0.mlp.experts.gate_up_proj").unwrap();
    assert_eq!((experts.dtype, &experts.shape[..]), (DType::BF16, &[3, 32, 64][..]));
    let merged = Model::load(&ckpt, &config, &LoadOptions::new(HeadKind::LanguageModel)).unwrap();
    let expected = reference.tensor("logits").unwrap().to_f32().unwrap();
    let error = apart(&merged.logits(&batch).unwrap(), &expected);
    assert!(error < 1e-4, "{error:.1e}");
}
