//! Two hundred greedy tokens of real models, as transformers has them (`fixtures/make_greedy.py`).

use loram_io::testing::{repo_root, shared_dir, tiny_llama};
use loram_train::config::ComputeDtype;
use loram_train::{Session, SessionOptions, generate};
use serde_json::Value;
use std::path::Path;

fn check(name: &str, model: &Path) {
    let path = repo_root().join(format!("fixtures/ref/{name}-greedy.json"));
    let expected: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    // transformers computed the reference in f32
    let compute_dtype = ComputeDtype::Float32;
    let options = SessionOptions { model: model.display().to_string(), compute_dtype, ..SessionOptions::default() };
    let session = Session::open(&options, &mut ()).unwrap();
    let mut how = session.generate_options();
    how.max_new_tokens = 200;
    let mut streamed = String::new();
    let prompt = expected["prompt"].as_str().unwrap();
    let made = generate(&session.model, &session.base.tokenizer, prompt, &how, &mut |piece| {
        streamed += piece;
        true
    });
    let made = made.unwrap();
    let ids: Vec<u32> = serde_json::from_value(expected["token_ids"].clone()).unwrap();
    assert_eq!(made.token_ids, ids);
    assert_eq!(made.prompt_tokens, expected["prompt_ids"].as_array().unwrap().len());
    assert_eq!(made.text.trim_start(), expected["text"].as_str().unwrap().trim_start());
    assert_eq!(streamed, made.text);
}

#[test]
fn tiny_llama_en() {
    check("tiny-llama-en", &tiny_llama());
}

#[test]
fn stories260k() {
    let Some(shared) = shared_dir() else { return };
    check("stories260K", &shared.join("models/stories260K"));
}
