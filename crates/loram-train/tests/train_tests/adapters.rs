//! Adapters that PEFT trained and saved give PEFT's outputs in our models (`fixtures/make_adapters.py`).

use loram_io::{Checkpoint, ModelConfig};
use loram_nn::{Batch, HeadKind, LoadOptions, Model};
use loram_train::adapt::{LoadAdapter, load};
use serde_json::Value;
use std::path::PathBuf;

fn check(name: &str) {
    let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    let info: Value =
        serde_json::from_str(&std::fs::read_to_string(fixtures.join(format!("ref/peft-{name}.json"))).unwrap())
            .unwrap();
    let reference = Checkpoint::open_file(fixtures.join(format!("ref/peft-{name}.safetensors"))).unwrap();
    let ints = |key: &str| -> Vec<i64> {
        let bytes = reference.tensor(key).unwrap();
        bytes.bytes().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect()
    };
    let head = match info["num_labels"].as_u64() {
        Some(n) => HeadKind::Pooled { outputs: n as usize },
        None => HeadKind::LanguageModel,
    };
    let dir = fixtures.join("models").join(info["model"].as_str().unwrap());
    let (ckpt, config) = (Checkpoint::open(&dir).unwrap(), ModelConfig::load(&dir).unwrap());
    let mut model = Model::load(&ckpt, &config, &LoadOptions::new(head)).unwrap();
    let batch = Batch {
        tokens: ints("input_ids").into_iter().map(|t| t as u32).collect(),
        lengths: ints("lengths").into_iter().map(|n| n as usize).collect(),
        token_types: match reference.contains("token_types") {
            true => ints("token_types").into_iter().map(|t| t as u32).collect(),
            false => Vec::new(),
        },
    };
    let expected = reference.tensor("logits").unwrap().to_f32().unwrap();
    let worst = |found: &[f32]| {
        assert_eq!(found.len(), expected.len());
        let scale = expected.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        found.iter().zip(&expected).fold(0.0f32, |m, (a, b)| m.max((a - b).abs())) / scale
    };
    let before = worst(&model.logits(&batch).unwrap());
    let adapter = fixtures.join("peft").join(name);
    let (_, warnings) = load(&mut model, &ckpt, &config, &adapter, LoadAdapter::frozen()).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    let after = worst(&model.logits(&batch).unwrap());
    println!("{name}: {before:.1e} without the adapter, {after:.1e} with it");
    assert!(before > 1e-3 && after < 1e-4, "{name}: {before:.1e} without the adapter, {after:.1e} with it");
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
