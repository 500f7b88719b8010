//! A model whose products with frozen weights are computed in bf16, against the same model in f32.

use loram_core::Factors;
use loram_io::checkpoint::{TensorSpec, pt_metadata, write_safetensors};
use loram_io::testing::{repo_root, tiny_llama};
use loram_io::{Checkpoint, DType, ModelConfig};
use loram_nn::kernels::bf16::Kernel;
use loram_nn::{Batch, CrossEntropy, HeadKind, IGNORE, LoadOptions, Lora, Loss, Model, Products};
use std::path::Path;

use crate::common::data;

/// Loss and gradients of adapters of rank 4 on all layers, for two sequences.
fn step(dir: &Path, products: Products) -> (f64, Vec<(String, Vec<f64>)>) {
    let (ckpt, config) = (Checkpoint::open(dir).unwrap(), ModelConfig::load(dir).unwrap());
    let options = LoadOptions { products, ..LoadOptions::new(HeadKind::LanguageModel) };
    let mut model = Model::load(&ckpt, &config, &options).unwrap();
    for (i, layer) in model.linears().into_iter().filter(|l| !l.output_layer).enumerate() {
        let (n, m, r) = (layer.n, layer.m, 4);
        let size = |values: Vec<f32>| values.into_iter().map(|x| x * 0.05).collect();
        let (a, b) = (size(data(r * m, 2 * i as u64)), size(data(n * r, 2 * i as u64 + 1)));
        let factors = Factors { n, m, r, a, b };
        let lora =
            Lora { factors, scaling: 2.0, dropout: 0.0, train_a: true, train_b: true, bias: None, initial: None };
        model.attach(&layer.path, lora).unwrap();
    }
    let tokens: Vec<u32> = (0..75).map(|i| (i * 37 + i * i) % 90).collect();
    let lengths = vec![33, 42];
    let mut labels: Vec<i64> = tokens[1..].iter().map(|&t| i64::from(t)).chain([IGNORE]).collect();
    labels[32] = IGNORE;
    let mut loss = CrossEntropy::new(labels);
    let batch = Batch { tokens, lengths, ..Batch::default() };
    let counted = loss.counted() as f64;
    let found = model.forward_backward(&batch, &mut loss, 1.0 / counted, 0).unwrap();
    let gradients = model.params().iter().map(|p| (p.name.clone(), p.grad.values_f64().unwrap())).collect();
    (found.loss_sum / counted, gradients)
}

fn norm(x: impl Iterator<Item = f64>) -> f64 {
    x.map(|x| x * x).sum::<f64>().sqrt()
}

/// Weights in bf16 are used as they are, those in f32 are rounded; gradients differ by the rounding of activations.
#[test]
fn losses_and_gradients_are_those_of_f32_within_rounding() {
    let f32_model = repo_root().join("fixtures/models/llama");
    for kernel in Kernel::ALL.into_iter().filter(|k| k.available()) {
        for (dir, products) in
            [(tiny_llama(), Products::Stored(kernel)), (f32_model.clone(), Products::Rounded(kernel))]
        {
            let (loss, exact) = step(&dir, Products::Exact);
            let (rounded_loss, rounded) = step(&dir, products);
            let apart = (rounded_loss / loss - 1.0).abs();
            assert!(apart > 0.0 && apart < 2e-3, "{products:?}: loss {rounded_loss} instead of {loss}");
            let mut worst: f64 = 0.0;
            for ((name, want), (_, found)) in exact.iter().zip(&rounded) {
                let off = norm(want.iter().zip(found).map(|(x, y)| x - y)) / norm(want.iter().copied());
                assert!(off < 3e-2, "{products:?}: the gradient of {name} is off by {off:e}");
                worst = worst.max(off);
            }
            println!("{}: loss off by {apart:.1e}, gradients by at most {worst:.1e}", kernel.name());
        }
    }
}

/// A checkpoint in f32 is not rounded unless that is asked for, and one in f16 neither.
#[test]
fn only_weights_in_bf16_are_multiplied_so_by_default() {
    for kernel in Kernel::ALL.into_iter().filter(|k| k.available()) {
        for model in ["llama", "llama-f16"] {
            let dir = repo_root().join("fixtures/models").join(model);
            assert!(step(&dir, Products::Stored(kernel)) == step(&dir, Products::Exact), "{model}: the same bits");
        }
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    for kernel in Kernel::ALL.into_iter().filter(|k| k.available()) {
        let on = |n| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
            pool.install(|| step(&tiny_llama(), Products::Stored(kernel)))
        };
        let one = on(1);
        assert!(one == on(2) && one == on(3), "{}", kernel.name());
    }
}

/// A folder with the values of a GGUF file in F32.
fn unpacked(gguf: &Path, dir: &Path) {
    let (ckpt, config) = (Checkpoint::open(gguf).unwrap(), ModelConfig::load(gguf).unwrap());
    std::fs::write(dir.join("config.json"), serde_json::to_string(config.raw()).unwrap()).unwrap();
    let tensors = ckpt.names().map(|n| {
        let t = ckpt.tensor(n).unwrap();
        (TensorSpec::new(n, DType::F32, t.shape()), t.to_f32().unwrap().into())
    });
    write_safetensors(dir.join("model.safetensors"), &pt_metadata(), tensors.collect()).unwrap();
}

/// Weights that stay packed give the loss and gradients of their values, in bf16 with the same bits.
#[test]
fn packed_weights_train_as_their_values() {
    for name in ["gguf-llama", "gguf-llama-plain", "gguf-llama3", "gguf-qwen2", "gguf-qwen3"] {
        let gguf = repo_root().join(format!("fixtures/models/{name}.gguf"));
        let dir = tempfile::tempdir().unwrap();
        unpacked(&gguf, dir.path());
        let (packed, values) = (step(&gguf, Products::Exact), step(dir.path(), Products::Exact));
        assert!((packed.0 / values.0 - 1.0).abs() < 1e-6, "{name}: {} instead of {}", packed.0, values.0);
        for ((param, found), (_, want)) in packed.1.iter().zip(&values.1) {
            let off = norm(want.iter().zip(found).map(|(x, y)| x - y)) / norm(want.iter().copied());
            assert!(off < 1e-5, "{name}: the gradient of {param} is off by {off:e}");
        }
        for kernel in Kernel::ALL.into_iter().filter(|k| k.available()) {
            let (packed, values) =
                (step(&gguf, Products::Rounded(kernel)), step(dir.path(), Products::Rounded(kernel)));
            assert!(packed == values, "{name}, {}", kernel.name());
            if name == "gguf-llama" {
                assert!(step(&gguf, Products::Stored(kernel)) == values, "quantised weights are rounded by default");
            }
        }
    }
}
