//! Logits, losses and gradients of every family against transformers and PEFT (`fixtures/make.py`).

use loram_core::Factors;
use loram_io::Checkpoint;
use loram_io::ModelConfig;
use loram_nn::*;
use std::path::PathBuf;

/// In the tree, or where a copy of them was carried to.
fn fixtures() -> PathBuf {
    let tree = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    std::env::var_os("LORAM_FIXTURES").map_or_else(tree, PathBuf::from)
}

/// Number types that this build has, and how far the results of each may be off: logits, loss and gradients.
fn computes() -> Vec<(Compute, [f64; 3])> {
    let exact = [1e-4, 1e-5, 1e-4];
    let mut all = vec![(Compute::F32, exact), (Compute::F64, exact)];
    if cfg!(any(feature = "cuda", feature = "cuda-emulation")) {
        // the models are small and random, so that nothing averages the rounding of bf16 out
        all.extend([(Compute::CudaF32, exact), (Compute::CudaBf16, [0.12, 3e-2, 0.25])]);
    }
    all
}

pub struct Reference {
    tensors: std::collections::HashMap<String, (Vec<usize>, Vec<f64>)>,
    info: serde_json::Value,
}

impl Reference {
    pub fn read(name: &str) -> Reference {
        let dir = fixtures().join("ref");
        let bytes = std::fs::read(dir.join(format!("{name}.safetensors"))).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let tensors = file
            .iter()
            .map(|(k, t)| {
                let values = match t.dtype() {
                    safetensors::Dtype::F32 => {
                        t.data().chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect()
                    }
                    safetensors::Dtype::I64 => {
                        t.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64).collect()
                    }
                    other => panic!("{other:?}"),
                };
                (k.to_string(), (t.shape().to_vec(), values))
            })
            .collect();
        let info = serde_json::from_str(&std::fs::read_to_string(dir.join(format!("{name}.json"))).unwrap()).unwrap();
        Reference { tensors, info }
    }

    fn get(&self, name: &str) -> &[f64] {
        &self.tensors[name].1
    }

    fn f32s(&self, name: &str) -> Vec<f32> {
        self.get(name).iter().map(|&x| x as f32).collect()
    }

    fn head(&self) -> HeadKind {
        match self.info["task"].as_str().unwrap() {
            "causal-lm" => HeadKind::LanguageModel,
            "regression" => HeadKind::Pooled { outputs: 1 },
            "token-classification" => HeadKind::Tokens { outputs: self.labels() },
            _ => HeadKind::Pooled { outputs: self.labels() },
        }
    }

    fn labels(&self) -> usize {
        self.info["num_labels"].as_u64().unwrap() as usize
    }

    fn loss(&self) -> Box<dyn Loss> {
        match self.info["task"].as_str().unwrap() {
            "causal-lm" | "token-classification" => Box::new(CrossEntropy::new(self.whole("labels").unwrap())),
            "multi-label" => {
                let holds = self.get("targets").iter().map(|&x| x == 1.0).collect();
                Box::new(BinaryCrossEntropy::new(holds, self.labels()))
            }
            "regression" => Box::new(SquaredError::new(self.f32s("targets"))),
            _ => Box::new(CrossEntropy::new(self.whole("targets").unwrap())),
        }
    }

    fn whole(&self, name: &str) -> Option<Vec<i64>> {
        self.tensors.get(name).map(|t| t.1.iter().map(|&x| x as i64).collect())
    }

    pub fn batch(&self) -> Batch {
        let whole = |n: &str| self.whole(n);
        Batch {
            tokens: whole("input_ids").unwrap().into_iter().map(|t| t as u32).collect(),
            lengths: whole("lengths").unwrap().into_iter().map(|n| n as usize).collect(),
            token_types: whole("token_types").unwrap_or_default().into_iter().map(|t| t as u32).collect(),
        }
    }

    /// Paths with an adapter and their shapes (n, m).
    fn layers(&self) -> Vec<(String, usize, usize)> {
        let mut paths: Vec<_> = self
            .tensors
            .keys()
            .filter_map(|k| Some(k.strip_prefix("lora.")?.strip_suffix(".A")?.to_string()))
            .collect();
        paths.sort();
        let shape = |p: &str| (self.tensors[&format!("lora.{p}.B")].0[0], self.tensors[&format!("lora.{p}.A")].0[1]);
        paths.into_iter().map(|p| (p.clone(), shape(&p).0, shape(&p).1)).collect()
    }

    pub fn model(&self, name: &str, compute: Compute, gradient_checkpointing: bool) -> Model {
        self.load(name, compute, gradient_checkpointing).unwrap()
    }

    fn load(&self, name: &str, compute: Compute, gradient_checkpointing: bool) -> Result<Model> {
        let folder = fixtures().join("models").join(name);
        let dir = if folder.exists() { folder } else { folder.with_extension("gguf") };
        let ckpt = Checkpoint::open(&dir).unwrap();
        let cfg = ModelConfig::load(&dir).unwrap();
        let options = LoadOptions { compute, gradient_checkpointing, ..LoadOptions::new(self.head()) };
        Model::load(&ckpt, &cfg, &options)
    }

    fn attach(&self, model: &mut Model, init: bool) {
        let r = self.info["r"].as_u64().unwrap() as usize;
        let scaling = self.info["lora_alpha"].as_f64().unwrap() / r as f64;
        for (path, n, m) in self.layers() {
            let (a, b) = (self.f32s(&format!("lora.{path}.A")), self.f32s(&format!("lora.{path}.B")));
            let factors = Factors { n, m, r, a, b };
            let init = init.then(|| Factors { a: vec![0.25; r * m], b: vec![-0.125; n * r], ..factors.clone() });
            let lora = Lora { initial: init, ..Lora::new(factors, scaling) };
            model.attach(&path, lora).unwrap();
        }
    }
}

/// Largest difference relative to the largest value.
pub fn worst(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    found.iter().zip(expected).fold(0.0f64, |m, (a, b)| m.max((a - b).abs())) / scale
}

pub fn doubles(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

fn check(name: &str) {
    let reference = Reference::read(name);
    let batch = reference.batch();
    for (compute, mut limit) in computes() {
        if name.starts_with("deberta") && compute.on_gpu() {
            assert!(reference.load(name, compute, false).err().unwrap().to_string().contains("set device: cpu"));
            continue;
        }
        if ["gguf-llama", "ministral3"].contains(&name) && compute == Compute::CudaBf16 {
            // their attention is sharp: gradients of q and k are many times those of the other models
            limit[2] = 0.5;
        }
        if compute == Compute::CudaBf16 && ["mixtral", "qwen3-moe", "gpt-oss"].iter().any(|m| name.starts_with(m)) {
            // rounding may send a token to another expert, whose output is another one altogether
            limit = [0.6, 3e-2, 0.9];
        }
        let mut model = reference.model(name, compute, false);
        let base = worst(&doubles(&model.logits(&batch).unwrap()), reference.get("logits"));
        reference.attach(&mut model, false);
        let adapted = worst(&doubles(&model.logits(&batch).unwrap()), reference.get("adapter_logits"));

        let eval = model.evaluate(&batch, &mut *reference.loss()).unwrap().loss;
        model.forward_backward(&batch, &mut *reference.loss(), 1.0 / eval.counted as f64, 0).unwrap();
        let loss = (eval.loss_sum / eval.counted as f64 / reference.get("loss")[0] - 1.0).abs();
        let mut grads: f64 = 0.0;
        for p in model.params().iter() {
            let key = format!("grad.{}", p.name.replace(".lora_", ".").replace(".weight", ""));
            grads = grads.max(worst(&p.grad.values_f64().unwrap(), reference.get(&key)));
        }
        assert_eq!(model.params().len(), 2 * reference.layers().len());
        println!(
            "{name} {compute:?}: logits {base:.1e}, with adapter {adapted:.1e}, loss {loss:.1e}, gradients {grads:.1e}"
        );
        assert!(base < limit[0] && adapted < limit[0] && loss < limit[1] && grads < limit[2], "{name} {compute:?}");

        // recomputation gives exactly the same gradients
        let mut again = reference.model(name, compute, true);
        reference.attach(&mut again, false);
        again.forward_backward(&batch, &mut *reference.loss(), 1.0 / eval.counted as f64, 0).unwrap();
        for (p, q) in model.params().iter().zip(again.params().iter()) {
            assert_eq!(p.grad.values_f64().unwrap(), q.grad.values_f64().unwrap(), "{}", p.name);
        }
    }
}

macro_rules! families {
    ($($test:ident $name:literal)*) => { $(#[test] fn $test() { check($name) })* };
}
families! {
    gguf_of_all_block_types "gguf-llama"
    gguf_with_plain_types "gguf-llama-plain"
    gguf_with_frequency_factors "gguf-llama3"
    gguf_with_biases "gguf-qwen2"
    gguf_with_norms_of_heads "gguf-qwen3"
    nf4_with_quantised_scales "llama-nf4"
    fp4_beside_plain_layers "llama-fp4"
    gptq "llama-gptq"
    gptq_with_groups_in_another_order "llama-gptq-act-order"
    gptq_of_8_bits "llama-gptq-8-bits"
    awq "llama-awq"
    float8_with_scales_of_blocks "llama-fp8"
    gguf_of_gemma3 "gguf-gemma3"
    llama "llama"
    llama_untied_with_biases "llama-untied"
    llama_sharded_bf16 "llama-sharded"
    llama_f16 "llama-f16"
    llama3_rope "llama3"
    linear_rope_in_transformers_4_form "llama-linear"
    dynamic_rope "llama-dynamic"
    yarn_rope "llama-yarn"
    mistral_sliding_window "mistral"
    qwen2 "qwen2"
    qwen3 "qwen3"
    smollm3 "smollm3"
    gemma2_with_soft_caps "gemma2"
    gemma3 "gemma3"
    gemma3_text_tower_sharded_bf16 "gemma3-tower"
    granite "granite"
    granite4_dense "granite4"
    phi3_with_long_rope "phi3"
    olmo2 "olmo2"
    olmo3 "olmo3"
    glm4_sharded_bf16 "glm4"
    exaone4 "exaone4"
    minicpm "minicpm"
    ministral3 "ministral3"
    mistral3_text_tower "mistral3"
    gpt2_with_transposed_weights "gpt2"
    gpt2_sharded_bf16 "gpt2-sharded"
    mixtral "mixtral"
    mixtral_with_experts_in_one_tensor "mixtral-fused"
    qwen3_moe_with_dense_blocks_sharded "qwen3-moe"
    gpt_oss "gpt-oss"
    gpt_oss_in_mxfp4 "gpt-oss-mxfp4"
    lfm2_sharded_bf16 "lfm2"
    bert "bert"
    bert_regression "bert-regression"
    roberta "roberta"
    distilbert "distilbert"
    mean_of_bert "bert-mean"
    first_state_of_roberta "roberta-cls"
    mean_of_llama "llama-mean"
    several_labels "distilbert-multi"
    tags_of_roberta "roberta-tags"
    tags_of_llama "llama-tags"
    modernbert_sharded_bf16 "modernbert"
    modernbert_tags_with_biases "modernbert-tags"
    deberta_v3 "deberta"
    deberta_v2_with_projections_of_positions_sharded_bf16 "deberta-tags"
}

/// An initial product subtracted as a frozen branch is the same as one subtracted from the weight, in values and gradients.
#[test]
fn initial_product_as_branch_or_in_the_weight() {
    let reference = Reference::read("qwen2");
    let batch = reference.batch();
    let mut branch = reference.model("qwen2", Compute::F64, false);
    reference.attach(&mut branch, true);
    let mut residual = reference.model("qwen2", Compute::F64, false);
    let r = reference.info["r"].as_u64().unwrap() as usize;
    let s = reference.info["lora_alpha"].as_f64().unwrap() / r as f64;
    for (path, n, m) in reference.layers() {
        let factors = Factors { n, m, r, a: vec![0.25; r * m], b: vec![-0.125; n * r] };
        residual.subtract_product(&path, &factors, s).unwrap();
    }
    reference.attach(&mut residual, false);
    let [x, y] = [&mut branch, &mut residual].map(|m| {
        m.forward_backward(&batch, &mut *reference.loss(), 0.1, 0).unwrap();
        (
            doubles(&m.logits(&batch).unwrap()),
            m.params().iter().map(|p| p.grad.values_f64().unwrap()).collect::<Vec<_>>(),
        )
    });
    assert!(worst(&x.0, &y.0) < 1e-5);
    for (g, h) in x.1.iter().zip(&y.1) {
        // the changed weight is rounded to f32
        assert!(worst(g, h) < 1e-4, "{}", worst(g, h));
    }
}

/// Without adapters a model gives the bits of its base, and with them again those from before: also where an initial product
/// was subtracted from weights or is subtracted in every pass, and beside modules that are fully trained.
#[test]
fn without_adapters() {
    for (name, compute, saved) in [
        ("llama", Compute::F32, "model.norm"),
        ("llama-untied", Compute::F64, "lm_head"),
        ("llama-sharded", Compute::F32, "embed_tokens"),
        ("qwen2", Compute::F32, "v_proj"),
        ("bert", Compute::F32, "classifier"),
    ] {
        let reference = Reference::read(name);
        let batch = reference.batch();
        let mut model = reference.model(name, compute, false);
        let base = model.logits(&batch).unwrap();
        assert_eq!(
            model.without_adapters(|m| m.logits(&batch)).unwrap().unwrap(),
            base,
            "{name}: nothing to switch off"
        );

        let layers = reference.layers();
        assert!(layers.len() > 2);
        let saved = model.add_module_to_save(saved).unwrap();
        for (i, (path, n, m)) in layers.iter().filter(|l| !saved.contains(&l.0)).enumerate() {
            let random = |len: usize, k: usize| (0..len).map(|j| ((j * 7 + k) % 11) as f32 * 0.02 - 0.1).collect();
            let initial = Factors { n: *n, m: *m, r: 2, a: random(2 * m, i), b: random(2 * n, i + 3) };
            let residual = i % 2 == 0;
            if residual {
                // twice: the weight of the checkpoint counts, not the one before the last change
                model.subtract_product(path, &initial, 0.25).unwrap();
                model.subtract_product(path, &initial, 0.25).unwrap();
            }
            let factors = initial.clone();
            let initial = (!residual).then_some(initial);
            let lora = Lora { initial, ..Lora::new(factors, 0.5) };
            model.attach(path, lora).unwrap();
        }
        for p in model.params_mut().iter_mut() {
            let moved: Vec<f32> = p.value.values().unwrap().iter().map(|x| x * 1.25 + 0.01).collect();
            p.value.set_values(&moved).unwrap();
        }
        let step = |model: &mut Model| {
            model.params_mut().zero_grads().unwrap();
            let loss = model.forward_backward(&batch, &mut *reference.loss(), 1.0, 7).unwrap().loss_sum;
            (loss, model.params().iter().map(|p| p.grad.values_f64().unwrap()).collect::<Vec<_>>())
        };
        let (with, trained) = (model.logits(&batch).unwrap(), step(&mut model));
        assert!(with != base, "{name}: adapters change nothing");
        for _ in 0..2 {
            assert_eq!(model.without_adapters(|m| m.logits(&batch)).unwrap().unwrap(), base, "{name}: off");
            assert_eq!(model.logits(&batch).unwrap(), with, "{name}: on again");
            assert!(step(&mut model) == trained, "{name}: training after it");
        }
    }
    let mut full = Reference::read("llama").model("llama", Compute::F32, false);
    full.full_finetune().unwrap();
    assert!(full.without_adapters(|_| ()).unwrap_err().to_string().contains("fully fine-tuned"));
}

/// A loss whose gradient needs all rows of a sequence: −log σ of the difference between the log-likelihoods of two halves of a
/// batch, as preference losses have it.
#[derive(Debug)]
struct Preference {
    labels: Vec<i64>,
    /// Rows of the first half of the sequences.
    first: usize,
    /// log-likelihoods of both halves, from the pass without gradients.
    found: [f64; 2],
    loss: f64,
}

impl Loss for Preference {
    fn rows(&self) -> usize {
        self.labels.len()
    }

    fn counts(&self, row: usize) -> bool {
        self.labels[row] != IGNORE
    }

    fn counted(&self) -> usize {
        1
    }

    fn needs_all_rows(&self) -> bool {
        true
    }

    fn chunk(&mut self, logits: &mut Tensor, rows: &[usize], scale: f64, grad: bool) -> loram_nn::Result<()> {
        let vocab = logits.cols();
        let (found, first) = (self.found, self.first);
        let slope = 1.0 / (1.0 + (found[0] - found[1]).exp());
        for (values, &row) in logits.as_mut_slice::<f64>().chunks_exact_mut(vocab).zip(rows) {
            let label = self.labels[row] as usize;
            let total: f64 = values.iter().map(|x| x.exp()).sum();
            if !grad {
                self.found[usize::from(row >= first)] += values[label] - total.ln();
                continue;
            }
            // d loss/d log-likelihood is −slope for the first half and slope for the second
            let weight = scale * if row < first { slope } else { -slope };
            for (i, x) in values.iter_mut().enumerate() {
                *x = weight * (x.exp() / total - f64::from(u8::from(i == label)));
            }
        }
        self.loss = (1.0 + (self.found[1] - self.found[0]).exp()).ln();
        Ok(())
    }

    fn take(&mut self) -> loram_nn::Result<BatchLoss> {
        self.found = [0.0; 2];
        Ok(BatchLoss { loss_sum: std::mem::take(&mut self.loss), counted: 1, correct: 0 })
    }
}

/// A loss over whole sequences from outside the crate: gradients against central differences.
#[test]
fn loss_that_needs_all_rows() {
    let reference = Reference::read("llama-untied");
    let batch = reference.batch();
    let first = batch.lengths[..batch.lengths.len() / 2].iter().sum();
    let mut labels = reference.whole("labels").unwrap();
    // few tokens, so that the difference stays where the sigmoid has a slope
    labels.iter_mut().enumerate().filter(|(i, _)| i % 5 != 0).for_each(|(_, l)| *l = IGNORE);
    let loss = || Preference { labels: labels.clone(), first, found: [0.0; 2], loss: 0.0 };
    let make = || Box::new(loss()) as Box<dyn Loss>;
    let model = reference.model("llama-untied", Compute::F64, false);
    check_gradients(&make, "preference", model, &batch, |model, batch| {
        model.evaluate(batch, &mut *make()).unwrap().loss.loss_sum
    });
}

/// Gradients of every parameter in full fine-tuning against central differences, in double precision.
#[test]
fn full_fine_tuning_gradients() {
    let decoders =
        ["llama-untied", "qwen3", "gemma2", "gemma3", "granite", "phi3", "olmo2", "glm4", "ministral3", "gpt2"];
    let others =
        ["deberta", "deberta-tags", "bert-mean", "distilbert-multi", "roberta-tags", "modernbert", "modernbert-tags"];
    for name in decoders.into_iter().chain(["bert", "roberta", "distilbert"]).chain(others) {
        let reference = Reference::read(name);
        let batch = reference.batch();
        check_gradients(
            &|| reference.loss(),
            name,
            reference.model(name, Compute::F64, false),
            &batch,
            |model, batch| model.evaluate(batch, &mut *reference.loss()).unwrap().loss.loss_sum,
        );
    }
}

/// The dropout of `config.json` is on in training passes only; its masks are the same in both directions and, with
/// gradient checkpointing, the second time.
#[test]
fn dropout_within_the_model() {
    for name in [
        "llama-untied",
        "gemma2",
        "phi3",
        "bert",
        "roberta",
        "distilbert",
        "bert-mean",
        "roberta-tags",
        "modernbert",
        "deberta",
    ] {
        let reference = Reference::read(name);
        let batch = reference.batch();
        let load = |dropout, gradient_checkpointing| {
            let dir = fixtures().join("models").join(name);
            let ckpt = Checkpoint::open(&dir).unwrap();
            let mut config = ModelConfig::load(&dir).unwrap();
            match &mut config {
                ModelConfig::Decoder(c) => (c.attention_dropout, c.residual_dropout) = (0.3, 0.2),
                ModelConfig::Encoder(c) => {
                    (c.embedding_dropout, c.attention_dropout, c.classifier_dropout) = (0.2, 0.3, 0.4);
                    (c.attention_out_dropout, c.mlp_out_dropout, c.token_dropout) = (0.2, 0.2, 0.4);
                }
            }
            let compute = Compute::F64;
            let options =
                LoadOptions { compute, gradient_checkpointing, dropout, ..LoadOptions::new(reference.head()) };
            Model::load(&ckpt, &config, &options).unwrap()
        };
        let train = |model: &mut Model, batch: &Batch| {
            model.forward_backward(batch, &mut *reference.loss(), 1.0, 7).unwrap().loss_sum
        };
        let (mut without, mut with) = (load(false, false), load(true, false));
        let [a, b] = [&without, &with].map(|m| m.evaluate(&batch, &mut *reference.loss()).unwrap().loss.loss_sum);
        assert_eq!(a, b);
        let [a, b] = [train(&mut without, &batch), train(&mut with, &batch)];
        assert!((a - b).abs() > 1e-6 * a.abs(), "{name}: dropout changes nothing");
        check_gradients(&|| reference.loss(), name, with, &batch, train);
        check_gradients(&|| reference.loss(), name, load(true, true), &batch, train);
    }
}

/// Compares gradients of every parameter in a training pass of seed 7 with differences of `loss`.
fn check_gradients(
    targets: &dyn Fn() -> Box<dyn Loss>,
    name: &str,
    mut model: Model,
    batch: &Batch,
    loss: impl Fn(&mut Model, &Batch) -> f64,
) {
    model.full_finetune().unwrap();
    model.forward_backward(batch, &mut *targets(), 1.0, 7).unwrap();
    let grads: Vec<(String, Vec<f64>)> =
        model.params().iter().map(|p| (p.name.clone(), p.grad.values_f64().unwrap())).collect();
    for (param, grad) in grads {
        // the entry with the largest gradient, and one more
        let largest = (0..grad.len()).max_by(|&i, &j| grad[i].abs().total_cmp(&grad[j].abs())).unwrap();
        for i in [largest, grad.len() / 3] {
            let mut at = |d: f64| {
                let value = model.params_mut().get_mut(&param).unwrap();
                let slot = &mut value.value.as_mut_slice::<f64>()[i];
                let before = *slot;
                *slot += d;
                let loss = loss(&mut model, batch);
                model.params_mut().get_mut(&param).unwrap().value.as_mut_slice::<f64>()[i] = before;
                loss
            };
            let numeric = (at(1e-5) - at(-1e-5)) / 2e-5;
            let tolerance = 1e-6 * (1.0 + grad[largest].abs());
            assert!((numeric - grad[i]).abs() < tolerance, "{name} {param}[{i}]: {numeric} {}", grad[i]);
        }
    }
}

/// The same bits for any number of threads.
#[test]
fn threads_do_not_change_gradients() {
    for name in ["llama", "mixtral", "qwen3-moe", "gpt-oss", "lfm2", "gpt2"] {
        let reference = Reference::read(name);
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut model = reference.model(name, Compute::F32, false);
                reference.attach(&mut model, false);
                let loss = model.forward_backward(&reference.batch(), &mut *reference.loss(), 1.0, 3).unwrap();
                (loss.loss_sum, model.params().iter().map(|p| p.grad.values().unwrap()).collect::<Vec<_>>())
            })
        };
        let one = run(1);
        assert!(one == run(2) && one == run(3), "{name}");
    }
}

/// modules_to_save trains the weights and biases of a module and nothing else.
#[test]
fn saved_modules() {
    let reference = Reference::read("roberta");
    let mut model = reference.model("roberta", Compute::F32, false);
    let paths = model.add_module_to_save("classifier").unwrap();
    assert_eq!(paths, ["classifier.dense", "classifier.out_proj"]);
    let names: Vec<_> = model.params().iter().map(|p| (p.name.clone(), p.kind)).collect();
    assert_eq!(names.len(), 4);
    assert_eq!(names[1], ("classifier.dense.bias".to_string(), ParamKind::Saved));
    assert!(model.add_module_to_save("nothing").is_err());
}

#[test]
fn wrong_input_is_an_error() {
    let reference = Reference::read("bert");
    let mut model = reference.model("bert", Compute::F32, false);
    let mut batch = reference.batch();
    batch.tokens[2] = 5000;
    let wrong = |batch: &Batch, loss: &mut dyn Loss| model.evaluate(batch, loss).unwrap_err().to_string();
    assert!(wrong(&batch, &mut *reference.loss()).contains("token id 5000"));
    let batch = reference.batch();
    assert!(wrong(&batch, &mut CrossEntropy::new(vec![0, 1, 2, 3])).contains("label 3"));
    assert!(wrong(&batch, &mut CrossEntropy::new(vec![0, 1, 2])).contains("found 3, expected 4"));
    assert!(wrong(&batch, &mut SquaredError::new(vec![0.5; 4])).contains("1 output"));
    let batch = Batch { tokens: vec![4; 41], lengths: vec![41], ..Default::default() };
    assert!(model.logits(&batch).unwrap_err().to_string().contains("41"));
    assert!(model.generator().is_err());
    let factors = Factors { n: 1, m: 1, r: 1, a: vec![], b: vec![] };
    let lora = Lora::new(factors, 1.0);
    assert!(model.attach("bert.encoder.layer.0.attention.self.query", lora.clone()).unwrap_err().exit_code() == 2);
    assert!(model.attach("nowhere", lora).unwrap_err().to_string().contains("nowhere"));
}
