#![no_main]
//! `config.json` of models, beside the weights of a small model.

use libfuzzer_sys::fuzz_target;
use loram_io::config::GenerationConfig;
use loram_io::inspect::model_facts;
use loram_io::{Checkpoint, ModelConfig};
use loram_train::TrainConfig;
use loram_train::estimate::estimate;
use serde_json::Value;
use std::path::Path;
use std::sync::LazyLock;

static MODELS: LazyLock<Vec<Checkpoint>> = LazyLock::new(|| {
    ["llama", "qwen3", "smollm3", "bert", "roberta", "distilbert"]
        .map(|name| Checkpoint::open(loram_fuzz::repository().join("fixtures/models").join(name)).expect("a fixture"))
        .into()
});

fuzz_target!(|data: &[u8]| {
    let Ok(Value::Object(raw)) = serde_json::from_slice(data) else { return };
    let path = Path::new("config.json");
    let _ = GenerationConfig::parse(&raw, path);
    let Ok(config) = ModelConfig::parse(raw, path) else { return };
    let _ = config.max_length();
    for checkpoint in MODELS.iter() {
        let _ = model_facts(checkpoint, &config);
        let _ = estimate(&TrainConfig::default(), checkpoint, &config, 512);
    }
});
