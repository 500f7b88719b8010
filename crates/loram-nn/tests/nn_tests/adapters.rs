//! Adapters of embeddings, single trained rows and biases of B: gradients against finite differences, and the same on every
//! device.

use loram_core::Factors;
use loram_io::{Checkpoint, ModelConfig};
use loram_nn::*;
use std::path::PathBuf;

const EMBEDDING: &str = "model.embed_tokens";
const QUERY: &str = "model.layers.0.self_attn.q_proj";

fn computes() -> Vec<(Compute, f64)> {
    let mut all = vec![(Compute::F32, 1e-4)];
    if cfg!(any(feature = "cuda", feature = "cuda-emulation")) {
        all.extend([(Compute::CudaF32, 1e-4), (Compute::CudaBf16, 0.25)]);
    }
    all
}

fn noise(len: usize, seed: u32) -> Vec<f32> {
    let mut x = seed.wrapping_mul(2_654_435_761).max(1);
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        x as f32 / u32::MAX as f32 - 0.5
    };
    (0..len).map(|_| next()).collect()
}

fn factors(n: usize, m: usize, seed: u32) -> Factors {
    let r = 3;
    Factors { n, m, r, a: noise(r * m, seed), b: noise(n * r, seed + 1) }
}

/// Padding, a repeated token, trained and other ones.
fn batch() -> (Batch, CrossEntropy) {
    let batch = Batch { tokens: vec![5, 9, 5, 40, 0, 7, 9, 9], lengths: vec![5, 3], ..Batch::default() };
    (batch, CrossEntropy::new(vec![9, 5, 40, IGNORE, 5, 9, 9, IGNORE]))
}

fn model(name: &str, compute: Compute) -> Model {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models").join(name);
    let (ckpt, config) = (Checkpoint::open(&dir).unwrap(), ModelConfig::load(&dir).unwrap());
    Model::load(&ckpt, &config, &LoadOptions { compute, ..LoadOptions::new(HeadKind::LanguageModel) }).unwrap()
}

fn loss(model: &Model) -> f64 {
    let (batch, mut loss) = batch();
    model.evaluate(&batch, &mut loss).unwrap().loss.loss_sum
}

/// Gradients by name, after the loss.
fn gradients(model: &mut Model) -> (f64, Vec<(String, Vec<f64>)>) {
    let (batch, mut loss) = batch();
    model.params_mut().zero_grads().unwrap();
    let sum = model.forward_backward(&batch, &mut loss, 1.0, 0).unwrap().loss_sum;
    (sum, model.params().iter().map(|p| (p.name.clone(), p.grad.values_f64().unwrap())).collect())
}

/// The kinds of what is trained, on a model whose head is the embedding (`qwen2`) or is not (`llama-untied`).
type Case = (&'static str, fn(Compute) -> Model);

fn cases() -> Vec<Case> {
    fn embedding(model: &mut Model, initial: bool) {
        let (n, m) = (97, 32);
        let initial = initial.then(|| factors(n, m, 50));
        model.attach(EMBEDDING, Lora { initial, ..Lora::new(factors(n, m, 3), 0.7) }).unwrap();
    }
    vec![
        ("embedding", |compute| {
            let mut model = model("llama-untied", compute);
            embedding(&mut model, true);
            model
        }),
        ("embedding and head", |compute| {
            let mut model = model("qwen2", compute);
            embedding(&mut model, true);
            model.tie_head(0.0).unwrap();
            model
        }),
        ("rows of both", |compute| {
            let mut model = model("qwen2", compute);
            model.train_rows(EMBEDDING, &[9, 40, 3], Some(&noise(3 * 32, 8)), true).unwrap();
            model.tie_head(0.0).unwrap();
            model
        }),
        ("rows of each", |compute| {
            let mut model = model("llama-untied", compute);
            model.train_rows(EMBEDDING, &[9, 5], Some(&noise(2 * 32, 8)), true).unwrap();
            model.train_rows("lm_head", &[40, 9], Some(&noise(2 * 32, 9)), true).unwrap();
            model
        }),
        ("bias of B", |compute| {
            let mut model = model("qwen2", compute);
            let lora = Lora { bias: Some(noise(32, 4)), ..Lora::new(factors(32, 32, 6), 1.5) };
            model.attach(QUERY, lora).unwrap();
            model
        }),
    ]
}

/// Bases whose weights stay packed: adapters with an initial product on all layers of the first block.
fn packed() -> Vec<Case> {
    macro_rules! case {
        ($name:literal) => {
            ($name, |compute| {
                let mut model = model($name, compute);
                for (i, layer) in model.linears().into_iter().filter(|l| l.path.contains("layers.0.")).enumerate() {
                    let seed = 10 * i as u32 + 1;
                    let initial = Some(factors(layer.n, layer.m, seed + 5));
                    let lora = Lora { initial, ..Lora::new(factors(layer.n, layer.m, seed), 0.7) };
                    model.attach(&layer.path, lora).unwrap();
                }
                model
            })
        };
    }
    vec![
        case!("llama-nf4"),
        case!("llama-fp4"),
        case!("llama-gptq"),
        case!("llama-awq"),
        case!("llama-fp8"),
        case!("gguf-llama.gguf"),
        case!("gguf-qwen3.gguf"),
    ]
}

#[test]
fn gradients_are_those_of_finite_differences() {
    for (what, make) in cases().into_iter().chain(packed()) {
        let mut model = make(Compute::F64);
        let (_, found) = gradients(&mut model);
        for (name, gradient) in &found {
            let padding = (*name == format!("{EMBEDDING}.lora_B.weight")).then_some(0..3);
            for at in (0..gradient.len()).step_by(gradient.len().div_ceil(40)) {
                // the row of the padding token counts for a head alone, as in torch
                if padding.as_ref().is_some_and(|p| p.contains(&at)) {
                    continue;
                }
                let step = 1e-5;
                let mut moved = |by: f64| {
                    let param = model.params_mut().get_mut(name).unwrap();
                    param.value.as_mut_slice::<f64>()[at] += by;
                    loss(&model)
                };
                let (up, down) = (moved(step), moved(-2.0 * step));
                moved(step);
                let expected = (up - down) / (2.0 * step);
                let error = (gradient[at] - expected).abs() / expected.abs().max(1.0);
                assert!(error < 1e-6, "{what}: {name}[{at}] is {}, expected {expected}", gradient[at]);
            }
        }
    }
}

#[test]
fn all_devices_compute_the_same() {
    for (what, make) in cases().into_iter().chain(packed()) {
        let (loss, expected) = gradients(&mut make(Compute::F64));
        for (compute, limit) in computes() {
            let mut model = make(compute);
            let (found, list) = gradients(&mut model);
            assert!((found - loss).abs() < limit * loss, "{what}, {compute:?}: {found} {loss}");
            assert_eq!(list.len(), expected.len());
            for ((name, found), (_, expected)) in list.iter().zip(&expected) {
                let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
                let apart = norm(&mut found.iter().zip(expected).map(|(a, b)| a - b));
                let whole = norm(&mut expected.iter().copied());
                assert!(whole > 1e-3 && apart < limit * whole, "{what}, {compute:?}: {name} {apart} of {whole}");
            }
        }
    }
}

#[test]
fn generation_and_the_base_model_see_them_or_not() {
    for (what, make) in cases() {
        let mut changed = make(Compute::F32);
        let (batch, _) = batch();
        let logits = changed.logits(&batch).unwrap();
        let mut generator = changed.generator().unwrap();
        generator.feed(&batch.tokens[..3]).unwrap();
        let next = generator.feed(&batch.tokens[3..5]).unwrap();
        let last = &logits[4 * 97..5 * 97];
        let worst = next.iter().zip(last).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(worst < 1e-4, "{what}: {worst}");
        let name = if what.contains("each") || what == "embedding" { "llama-untied" } else { "qwen2" };
        let base = model(name, Compute::F32).logits(&batch).unwrap();
        assert_ne!(logits, base, "{what}");
        assert_eq!(changed.without_adapters(|m| m.logits(&batch).unwrap()).unwrap(), base, "{what}");
        assert_eq!(changed.logits(&batch).unwrap(), logits, "{what}: put back");
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let mut untied = model("llama-untied", Compute::F32);
    let e = |e: Error| e.to_string();
    assert!(e(untied.train_rows(EMBEDDING, &[3, 97], None, true).unwrap_err()).contains("97"));
    assert!(e(untied.train_rows(EMBEDDING, &[3, 3], None, true).unwrap_err()).contains("twice"));
    assert!(e(untied.train_rows(EMBEDDING, &[3], Some(&[0.0; 5]), true).unwrap_err()).contains("5 values"));
    assert!(e(untied.train_rows("nowhere", &[3], None, true).unwrap_err()).contains("nowhere"));
    untied.train_rows(EMBEDDING, &[3], None, true).unwrap();
    let both = untied.attach(EMBEDDING, Lora::new(factors(97, 32, 1), 1.0)).unwrap_err();
    assert!(e(both).contains("trainable_token_indices"));
    let bias = Lora { bias: Some(vec![0.0; 4]), ..Lora::new(factors(32, 32, 1), 1.0) };
    assert!(e(untied.attach(QUERY, bias).unwrap_err()).contains("4 values"));
    let mut tied = model("qwen2", Compute::F32);
    let bias = Lora { bias: Some(vec![0.0; 97]), ..Lora::new(factors(97, 32, 1), 1.0) };
    assert!(e(tied.attach(EMBEDDING, bias).unwrap_err()).contains("lora_bias"));
    tied.attach("lm_head", Lora::new(factors(97, 32, 1), 1.0)).unwrap();
    assert!(e(tied.tie_head(0.0).unwrap_err()).contains("ensure_weight_tying"));
}
