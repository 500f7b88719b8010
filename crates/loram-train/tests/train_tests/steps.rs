//! Twenty AdamW steps of every start against transformers and PEFT (`fixtures/make_steps.py`): losses to 1e-3.

use loram_core::{Factors, LoraConfig, SchemeOptions, SchemeSpec};
use loram_io::init::InitOptions;
use loram_io::{Checkpoint, ModelConfig};
use loram_nn::{Batch, CrossEntropy, HeadKind, IGNORE, LoadOptions, Lora, Loss, Model};
use loram_train::TrainConfig;
use loram_train::adapt::{Calibration, initialize};
use loram_train::config::BaseMode;
use loram_train::optim::{Optimizer, clip, grad_norm};
use serde_json::Value;
use std::path::PathBuf;

struct Steps {
    info: Value,
    file: Checkpoint,
}

impl Steps {
    fn read(name: &str) -> Steps {
        let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/ref");
        let text = std::fs::read_to_string(dir.join(format!("steps-{name}.json"))).unwrap();
        let file = Checkpoint::open_file(dir.join(format!("steps-{name}.safetensors"))).unwrap();
        Steps { info: serde_json::from_str(&text).unwrap(), file }
    }

    fn bytes<const N: usize>(&self, name: &str) -> Vec<[u8; N]> {
        self.file.tensor(name).unwrap().bytes().chunks_exact(N).map(|b| b.try_into().unwrap()).collect()
    }

    fn ints(&self, name: &str) -> Vec<i64> {
        self.bytes::<8>(name).into_iter().map(i64::from_le_bytes).collect()
    }

    fn losses(&self) -> Vec<f64> {
        self.bytes::<8>("losses").into_iter().map(f64::from_le_bytes).collect()
    }

    fn head(&self) -> HeadKind {
        match self.info["num_labels"].as_u64() {
            Some(n) => HeadKind::Pooled { outputs: n as usize },
            None => HeadKind::LanguageModel,
        }
    }

    fn model(&self) -> Model {
        let name = self.info["model"].as_str().unwrap();
        let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models").join(name);
        let (ckpt, config) = (Checkpoint::open(&dir).unwrap(), ModelConfig::load(&dir).unwrap());
        Model::load(&ckpt, &config, &LoadOptions::new(self.head())).unwrap()
    }

    /// The sequences of every step with their labels.
    fn batches(&self) -> Vec<(Batch, CrossEntropy)> {
        let (tokens, lengths) = (self.ints("tokens"), self.ints("lengths"));
        let starts: Vec<usize> = (0..lengths.len()).map(|i| lengths[..i].iter().sum::<i64>() as usize).collect();
        let head = self.head() != HeadKind::LanguageModel;
        let (types, targets) = match head {
            true => (self.ints("token_types"), self.ints("targets")),
            false => (Vec::new(), Vec::new()),
        };
        let one = |pair: &[i64]| {
            let mut b = Batch::default();
            let mut labels = Vec::new();
            for &i in pair {
                let (at, n) = (starts[i as usize], lengths[i as usize] as usize);
                b.tokens.extend(tokens[at..at + n].iter().map(|&t| t as u32));
                b.lengths.push(n);
                if head {
                    b.token_types.extend(types[at..at + n].iter().map(|&t| t as u32));
                    labels.push(targets[i as usize]);
                } else {
                    labels.extend(&tokens[at + 1..at + n]);
                    labels.push(IGNORE);
                }
            }
            (b, CrossEntropy::new(labels))
        };
        self.ints("steps").chunks_exact(2).map(one).collect()
    }

    /// PEFT's own starts on our model: for schemes that draw random numbers.
    fn attach(&self, model: &mut Model, changes_base: bool) {
        let r = self.info["r"].as_u64().unwrap() as usize;
        let scaling = self.info["lora_alpha"].as_f64().unwrap() / r as f64;
        // the order does not matter to AdamW
        for name in self.file.names() {
            let Some(path) = name.strip_prefix("start.").and_then(|n| n.strip_suffix(".A")) else { continue };
            let (a, b) = (self.file.tensor(name).unwrap(), self.file.tensor(&format!("start.{path}.B")).unwrap());
            let (n, m) = (b.shape()[0], a.shape()[1]);
            let factors = Factors { n, m, r, a: a.to_f32().unwrap(), b: b.to_f32().unwrap() };
            if changes_base {
                model.subtract_product(path, &factors, scaling).unwrap();
            }
            let lora = Lora::new(factors, scaling);
            model.attach(path, lora).unwrap();
        }
    }

    /// Our initial factors.
    fn initialize(&self, model: &mut Model, base: BaseMode) {
        let lora = LoraConfig {
            r: self.info["r"].as_u64().unwrap() as usize,
            lora_alpha: self.info["lora_alpha"].as_f64().unwrap(),
            ..LoraConfig::default()
        };
        let scheme = SchemeSpec::parse(self.info["scheme"].as_str().unwrap(), &SchemeOptions::default()).unwrap();
        let options = InitOptions { lora, scheme, seed: 1 };
        initialize(model, &options, base, Calibration::default(), &mut |_, _, _| {}).unwrap();
    }

    /// Trains and compares.
    fn check(&self, mut model: Model) {
        let number = |key: &str| self.info[key].as_f64().unwrap_or(0.0);
        let config = TrainConfig {
            learning_rate: number("lr").into(),
            weight_decay: number("wd"),
            max_grad_norm: number("clip"),
            ..TrainConfig::default()
        };
        // torch.optim.AdamW with one group decays biases and norms too
        model.params_mut().iter_mut().for_each(|p| p.decay = true);
        let mut optimizer = Optimizer::new(&config, model.params().iter()).unwrap();
        let mut worst: f64 = 0.0;
        let expected = self.losses();
        for (i, (batch, mut targets)) in self.batches().into_iter().enumerate() {
            let counted = targets.counted();
            model.params_mut().zero_grads().unwrap();
            let loss = model.forward_backward(&batch, &mut targets, 1.0 / counted as f64, 0).unwrap();
            assert_eq!(loss.counted, counted);
            worst = worst.max((loss.loss_sum / counted as f64 / expected[i] - 1.0).abs());
            let norm = grad_norm(model.params().iter()).unwrap();
            clip(model.params_mut().iter_mut(), norm, config.max_grad_norm).unwrap();
            optimizer.step(model.params_mut().iter_mut(), 1.0).unwrap();
        }
        println!("{}: {:.4} -> {:.4}, apart by at most {worst:.1e}", self.info, expected[0], expected[19]);
        assert!(worst < 1e-3, "losses are apart by {worst:.1e}");
    }
}

/// Starts that follow from the weights: ours, in both ways of changing the base.
fn ours(name: &str) {
    let steps = Steps::read(name);
    for base in [BaseMode::Residual, BaseMode::Branch] {
        let mut model = steps.model();
        if steps.head() != HeadKind::LanguageModel {
            model.add_module_to_save("classifier").unwrap();
        }
        steps.initialize(&mut model, base);
        steps.check(model);
    }
}

/// Random starts: PEFT's.
fn theirs(name: &str, changes_base: bool) {
    let steps = Steps::read(name);
    let mut model = steps.model();
    if steps.head() != HeadKind::LanguageModel {
        model.add_module_to_save("classifier").unwrap();
    }
    steps.attach(&mut model, changes_base);
    steps.check(model);
}

#[test]
fn loram() {
    ours("llama-loram");
    ours("bert-loram");
    ours("modernbert-loram");
    ours("deberta-loram");
}

/// Norms in other places, soft caps, factors, fused projections: a start that follows from the weights, in each family.
#[test]
fn families() {
    let dense = ["gemma2", "gemma3", "granite", "granite4", "phi3", "olmo2", "olmo3", "glm4", "exaone4", "ministral3"];
    for family in dense.into_iter().chain(["gpt2", "mixtral", "qwen3-moe", "gpt-oss", "lfm2"]) {
        ours(&format!("{family}-loram"));
    }
}

#[test]
fn pissa() {
    ours("llama-pissa");
}

#[test]
fn milora() {
    ours("llama-milora");
}

#[test]
fn olora() {
    ours("llama-olora");
}

#[test]
fn lora() {
    theirs("llama-lora", false);
    theirs("bert-lora", false);
}

#[test]
fn lora_with_decay_and_clipping() {
    theirs("llama-lora-decay-clip", false);
}

#[test]
fn gaussian() {
    theirs("llama-gaussian", false);
}

#[test]
fn orthogonal() {
    theirs("llama-orthogonal", true);
}

#[test]
fn full() {
    for name in ["llama-full", "gemma3-full", "olmo2-full"] {
        let steps = Steps::read(name);
        let mut model = steps.model();
        model.full_finetune().unwrap();
        steps.check(model);
    }
}
