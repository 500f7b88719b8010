//! A failure of the GPU at any point of any public function is an error of that function: nothing unwinds out of the crate.

use super::random;
use crate::compute::Compute;
use crate::cuda::device::injected;
use crate::kernels::optim::{AdamW, Sgd};
use crate::optim::{AdamWStep, adamw, scale, sgd, sum_squares};
use crate::tensor::Tensor;
use crate::{Batch, CrossEntropy, Error, HeadKind, LoadOptions, Lora, Loss, Model, Observe, ParamKind, Result};
use loram_core::Factors;
use loram_io::{Checkpoint, ModelConfig};
use std::path::PathBuf;

/// Calls `f` again and again, with a failure at later and later calls of the driver, until it succeeds.
#[track_caller]
fn fails_everywhere<R>(what: &str, mut f: impl FnMut() -> Result<R>) {
    fails_from(what, || (), |()| f());
}

/// The same with something new for each call, which is made without failures.
#[track_caller]
fn fails_from<S, R>(what: &str, mut prepare: impl FnMut() -> S, mut f: impl FnMut(S) -> Result<R>) {
    let (mut at, mut failures) = (0, 0);
    loop {
        let fresh = prepare();
        match injected::at(at, || f(fresh)) {
            Ok(_) => break,
            Err(Error::Cuda(why)) => assert!(why.contains("injected"), "{what}: {why}"),
            Err(other) => panic!("{what}: another error: {other}"),
        }
        failures += 1;
        // the first calls one by one, then fewer
        at += 1 + at / 4;
    }
    assert!(failures > 0, "{what} does not use the GPU");
}

fn model() -> Model {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models/llama");
    let (ckpt, config) = (Checkpoint::open(&dir).unwrap(), ModelConfig::load(&dir).unwrap());
    let options = LoadOptions { compute: Compute::CudaBf16, ..LoadOptions::new(HeadKind::LanguageModel) };
    Model::load(&ckpt, &config, &options).unwrap()
}

fn lora(model: &Model, path: &str) -> Lora {
    let shape = model.linears().into_iter().find(|l| l.path == path).unwrap();
    let factors = Factors { n: shape.n, m: shape.m, r: 2, a: vec![0.1; 2 * shape.m], b: vec![0.1; 2 * shape.n] };
    let initial = Some(factors.clone());
    Lora { train_b: false, initial, ..Lora::new(factors, 1.0) }
}

const PATH: &str = "model.layers.0.self_attn.q_proj";

#[test]
fn of_tensors() {
    let x = [1.0, 2.0, 3.0];
    for compute in [Compute::CudaF32, Compute::CudaBf16] {
        fails_everywhere("Tensor::new", || Tensor::new(compute, 1, 3, &x));
        let mut t = Tensor::new(compute, 1, 3, &x).unwrap();
        fails_everywhere("Tensor::zeros_like", || t.zeros_like());
        fails_everywhere("Tensor::values", || t.values());
        fails_everywhere("Tensor::values_f64", || t.values_f64());
        fails_everywhere("Tensor::set_values", || t.set_values(&x));
        assert_eq!(t.values().unwrap(), x);
    }
}

#[test]
fn of_optimisers() {
    let tensor = |seed| super::on(Compute::CudaF32, &random(3, 5, seed));
    let (mut p, mut g, mut m, mut v) = (tensor(1), tensor(2), tensor(3), tensor(4));
    v.scale(0.0);
    let how = AdamW { lr: 0.1, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.0 };
    fails_everywhere("adamw", || adamw(&mut [AdamWStep { p: &mut p, g: &g, m: &mut m, v: &mut v, how }], 1));
    fails_everywhere("scale", || scale(&mut [&mut g], 0.5));
    fails_everywhere("sum_squares", || sum_squares(&[&g, &p]));
    let how = Sgd { lr: 0.1, momentum: 0.9, dampening: 0.0, nesterov: false, weight_decay: 0.0 };
    fails_everywhere("sgd", || sgd(&mut p, &g, Some(&mut m), &how, 1));
}

#[test]
fn of_models() {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models/llama");
    let (ckpt, config) = (Checkpoint::open(&dir).unwrap(), ModelConfig::load(&dir).unwrap());
    let options = LoadOptions { compute: Compute::CudaBf16, ..LoadOptions::new(HeadKind::LanguageModel) };
    fails_everywhere("Model::load", || Model::load(&ckpt, &config, &options));

    let mut m = model();
    let adapter = lora(&m, PATH);
    // an attempt that failed has changed nothing, so that the next one does not find an adapter
    fails_everywhere("Model::attach", || m.attach(PATH, adapter.clone()));
    assert_eq!(m.params().len(), 1);
    fails_everywhere("Model::factors", || m.factors(PATH));
    fails_everywhere("Params::zero_grads", || m.params_mut().zero_grads());
    fails_from("Model::add_module_to_save", model, |mut m| m.add_module_to_save("norm"));
    fails_from("Model::full_finetune", model, |mut m| m.full_finetune());
    fails_from("Model::train_rows", model, |mut m| m.train_rows("model.embed_tokens", &[3, 5], None, true));

    let batch = Batch { tokens: vec![3, 5, 7, 2, 9], lengths: vec![3, 2], ..Batch::default() };
    let labels = || CrossEntropy::new(vec![5, 7, -100, 9, -100]);
    // the weights go to the GPU with the first pass
    fails_everywhere("Model::evaluate", || m.evaluate(&batch, &mut labels()));
    fails_everywhere("Model::logits", || m.logits(&batch));
    fails_everywhere("Model::forward_backward", || m.forward_backward(&batch, &mut labels(), 0.5, 1));
    fails_everywhere("Model::without_adapters", || m.without_adapters(|off| off.logits(&batch))?);
    fails_everywhere("Model::observe_batch", || {
        m.observe(Observe::Gradient, [PATH.to_string()]);
        m.observe_batch(&batch, &mut labels(), &[], 0.5)?;
        m.observed()
    });
    fails_everywhere("Generator::feed", || m.generator()?.feed(&[1, 2, 3]));
    // still of use, with the same adapter
    assert_eq!((m.params().len(), m.params().iter().next().unwrap().kind), (1, ParamKind::LoraA));
    assert!(m.evaluate(&batch, &mut labels()).unwrap().loss.loss_sum > 0.0);
}

#[test]
fn of_originals() {
    let mut m = model();
    m.add_module_to_save("norm").unwrap();
    fails_everywhere("Model::without_adapters", || m.without_adapters(|_| ()));
    assert!(m.params().len() == 1 && m.params().iter().all(|p| p.kind == ParamKind::Saved));
    assert!(m.without_adapters(|_| ()).is_ok());
}

#[test]
fn of_losses() {
    let logits = super::on(Compute::CudaF32, &random(2, 8, 1));
    let fresh = || (logits.copy(), CrossEntropy::new(vec![1, 2]));
    fails_from("CrossEntropy", fresh, |(mut logits, mut loss)| {
        loss.chunk(&mut logits, &[0, 1], 1.0, true)?;
        loss.take()
    });
}
