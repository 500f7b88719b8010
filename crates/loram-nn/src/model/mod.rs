//! Models with explicit forward and backward passes.

mod decoder;
mod decoder_block;
mod encoder;
mod encoder_block;
mod head;
mod load;
pub(crate) mod stack;
mod train;

pub use generate::Generator;
mod generate;

use crate::cuda;
use crate::dropout::Dropout;
use crate::linear::{Lora as Attached, Trainable, Vector};
use crate::param::{ParamKind, Params};
use crate::tensor::{Compute, Tensor};
use crate::weight::Weight;
use crate::{Error, Result};
use head::Head;
use load::Loader;
use loram_core::LinearInfo;
use loram_io::{Checkpoint, ModelConfig};
use stack::Part;

/// What a model is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Next-token prediction.
    CausalLm,
    /// One of several labels per text.
    Classification {
        /// Number of labels.
        num_labels: usize,
    },
    /// One number per text.
    Regression,
}

impl Task {
    /// Outputs of the head; `None` for a language model.
    pub fn outputs(self) -> Option<usize> {
        match self {
            Task::CausalLm => None,
            Task::Classification { num_labels } => Some(num_labels),
            Task::Regression => Some(1),
        }
    }
}

/// How a model is loaded.
#[derive(Debug, Clone, Copy)]
pub struct LoadOptions {
    /// What it is used for.
    pub task: Task,
    /// Number type of activations, and where the model runs.
    pub compute: Compute,
    /// Keep the inputs of blocks only and compute the rest again in the backward pass (1604.06174).
    pub gradient_checkpointing: bool,
    /// Start of a head that the checkpoint does not have.
    pub seed: u64,
    /// Apply the dropout of `config.json` (`hidden_dropout_prob`, `attention_dropout` and the like) in training passes.
    pub dropout: bool,
}

impl LoadOptions {
    /// Single precision, no recomputation, seed 0, no dropout in the model.
    pub fn new(task: Task) -> LoadOptions {
        LoadOptions { task, compute: Compute::F32, gradient_checkpointing: false, seed: 0, dropout: false }
    }
}

/// An adapter for one linear layer with weight (n, m): W + scaling·B·A (2106.09685).
#[derive(Debug, Clone)]
pub struct Lora {
    /// A, (r, m) row-major.
    pub a: Vec<f32>,
    /// B, (n, r) row-major.
    pub b: Vec<f32>,
    /// Rank.
    pub r: usize,
    /// Factor on B·A.
    pub scaling: f64,
    /// Probability of dropping an input of A in training (`lora_dropout`).
    pub dropout: f64,
    /// Whether A is trained.
    pub train_a: bool,
    /// Whether B is trained.
    pub train_b: bool,
    /// `(A₀, B₀)`: a frozen start whose product is subtracted in every pass, so that the base weight stays as it is.
    pub start: Option<(Vec<f32>, Vec<f32>)>,
}

enum Backbone {
    Decoder(decoder::Decoder),
    Encoder(encoder::Encoder),
}

/// A transformer with adapters.
pub struct Model {
    backbone: Backbone,
    head: Head,
    params: Params,
    options: LoadOptions,
    /// `lm_head` shares the embedding.
    tied: bool,
}

impl Model {
    /// Builds the model of `cfg` over the weights of a checkpoint, which stay mapped. A head that the checkpoint does
    /// not have is started at random; errors name tensors that are missing or have another shape.
    pub fn load(ckpt: &Checkpoint, cfg: &ModelConfig, options: &LoadOptions) -> Result<Model> {
        if options.compute.on_gpu() {
            cuda::info()?;
        }
        let loader = Loader::new(ckpt, cfg, options)?;
        let (backbone, head, tied) = match cfg {
            ModelConfig::Decoder(c) => {
                let decoder = decoder::Decoder::load(c, &loader)?;
                let head = Head::decoder(c, &loader, &decoder.embed, options.task, options.seed)?;
                (Backbone::Decoder(decoder), head, c.tie_word_embeddings && options.task == Task::CausalLm)
            }
            ModelConfig::Encoder(c) => {
                let head = Head::encoder(c, &loader, options.task, options.seed)?;
                (Backbone::Encoder(encoder::Encoder::load(c, &loader)?), head, false)
            }
        };
        Ok(Model { backbone, head, params: Params::default(), options: *options, tied })
    }

    /// What the model was loaded with.
    pub fn options(&self) -> &LoadOptions {
        &self.options
    }

    fn all_linears(&self) -> Vec<&crate::linear::Linear> {
        let mut list = match &self.backbone {
            Backbone::Decoder(d) => d.linears(),
            Backbone::Encoder(e) => e.linears(),
        };
        list.extend(self.head.linears());
        list
    }

    fn parts(&mut self) -> Vec<Part<'_>> {
        let mut parts = match &mut self.backbone {
            Backbone::Decoder(d) => d.parts(),
            Backbone::Encoder(e) => e.parts(),
        };
        parts.extend(self.head.parts());
        parts
    }

    /// Every linear layer with its shape, in the order of the model.
    pub fn linears(&self) -> Vec<LinearInfo> {
        let output = |path: &str| path == "lm_head" || path == "score" || path.starts_with("classifier");
        self.all_linears()
            .into_iter()
            .map(|l| LinearInfo { path: l.path.clone(), n: l.n, m: l.m, output_layer: output(&l.path) })
            .collect()
    }

    fn linear_mut(&mut self, path: &str) -> Result<(&mut crate::linear::Linear, &mut Params)> {
        if !self.all_linears().iter().any(|l| l.path == path) {
            let example = self.all_linears().first().map_or(String::new(), |l| format!(" (there is `{}`, …)", l.path));
            return Err(Error::NoModule { path: path.to_string(), hint: example });
        }
        let mut parts = match &mut self.backbone {
            Backbone::Decoder(d) => d.parts(),
            Backbone::Encoder(e) => e.parts(),
        };
        parts.extend(self.head.parts());
        let linear = parts.into_iter().find_map(|p| match p {
            Part::Linear(l) if l.path == path => Some(l),
            _ => None,
        });
        Ok((linear.expect("checked above"), &mut self.params))
    }

    /// The weight of a linear layer as it is now, in f32, (n, m) row-major.
    pub fn weight_f32(&self, path: &str) -> Result<Vec<f32>> {
        let linears = self.all_linears();
        let Some(linear) = linears.iter().find(|l| l.path == path) else {
            return Err(Error::NoModule { path: path.to_string(), hint: String::new() });
        };
        Ok(match &linear.weight {
            Trainable::Frozen(w) => w.to_f32().into_owned(),
            Trainable::Param(id) => self.params.value(*id).to_f32_vec(),
        })
    }

    /// True when the layer's weight is held in f32, so that it can be changed without loss.
    pub fn holds_f32(&self, path: &str) -> bool {
        self.options.compute != Compute::CudaBf16
            && self
                .all_linears()
                .iter()
                .any(|l| l.path == path && matches!(&l.weight, Trainable::Frozen(w) if w.is_f32()))
    }

    /// Puts an adapter on a linear layer. Shapes are checked; a layer takes one adapter.
    pub fn attach(&mut self, path: &str, lora: Lora) -> Result<()> {
        let compute = self.options.compute;
        let (linear, params) = self.linear_mut(path)?;
        let (n, m, r) = (linear.n, linear.m, lora.r);
        let wrong = |what: String| Err(Error::Layer { path: path.to_string(), what });
        if linear.lora.is_some() {
            return wrong("has an adapter already".into());
        }
        if matches!(linear.weight, Trainable::Param(_)) {
            return wrong("is trained whole (modules_to_save): it takes no adapter".into());
        }
        let pairs = std::iter::once((&lora.a, &lora.b)).chain(lora.start.as_ref().map(|s| (&s.0, &s.1)));
        for (a, b) in pairs {
            if a.len() != r * m || b.len() != n * r {
                let (la, lb) = (a.len(), b.len());
                return wrong(format!(
                    "A has {la} values and B {lb}, expected ({r}, {m}) and ({n}, {r}): the adapter belongs to another model"
                ));
            }
        }
        let dropout = Dropout::adapter(lora.dropout, params.len() as u64);
        // what is not trained may be as narrow as activations
        let mut factor = |values: &[f32], rows, cols, train: bool, kind, suffix: &str| -> Vector {
            let value = |compute| Tensor::from_f32(compute, rows, cols, values);
            match train {
                true => {
                    let (name, value) = (format!("{path}.{suffix}.weight"), value(compute.exact()));
                    Trainable::Param(params.add(name, kind, &[rows, cols], value))
                }
                false => Trainable::Frozen(value(compute)),
            }
        };
        let a = factor(&lora.a, r, m, lora.train_a, ParamKind::LoraA, "lora_A");
        let b = factor(&lora.b, n, r, lora.train_b, ParamKind::LoraB, "lora_B");
        let start = lora.start.map(|(a, b)| (Tensor::from_f32(compute, r, m, &a), Tensor::from_f32(compute, n, r, &b)));
        linear.lora = Some(Attached { a, b, scaling: lora.scaling, dropout, start });
        Ok(())
    }

    /// The factors `(A, B)` of an adapter as they are now, trained or frozen.
    pub fn factors(&self, path: &str) -> Option<(Vec<f32>, Vec<f32>)> {
        let linears = self.all_linears();
        let lora = linears.iter().find(|l| l.path == path)?.lora.as_ref()?;
        Some((lora.a.get(&self.params).to_f32_vec(), lora.b.get(&self.params).to_f32_vec()))
    }

    /// W ← W − s·B·A on an owned f32 copy of the weight; the checkpoint is not touched. A: (r, m), B: (n, r).
    pub fn subtract_product(&mut self, path: &str, a: &[f32], b: &[f32], s: f64) -> Result<()> {
        let tied_head = self.tied && path == "lm_head";
        let (linear, _) = self.linear_mut(path)?;
        let (n, m) = (linear.n, linear.m);
        let r = a.len() / m.max(1);
        if a.len() != r * m || b.len() != n * r {
            let what = format!("A has {} values and B {}, which fit no rank of an ({n}, {m}) weight", a.len(), b.len());
            return Err(Error::Layer { path: path.to_string(), what });
        }
        let Trainable::Frozen(weight) = &mut linear.weight else {
            return Err(Error::Layer {
                path: path.to_string(),
                what: "is trained whole: its start cannot move".into(),
            });
        };
        if tied_head {
            tracing::info!("lm_head shares the embedding's weight: the start is taken off a copy");
        }
        weight.change(|w| {
            use crate::kernels::gemm::{View, ViewMut, gemm};
            gemm(ViewMut::new(w, n, m), true, -s as f32, View::new(b, n, r), View::new(a, r, m));
        });
        Ok(())
    }

    /// Trains a module whole beside the adapters (PEFT's `modules_to_save`): every layer whose path ends with `name`, or
    /// lies inside a module whose path does. Gives the paths.
    pub fn add_module_to_save(&mut self, name: &str) -> Result<Vec<String>> {
        let matches = |path: &str| {
            let ends = path.match_indices('.').map(|(i, _)| &path[..i]).chain([path]);
            ends.into_iter().any(|p| p == name || p.strip_suffix(name).is_some_and(|rest| rest.ends_with('.')))
        };
        let paths: Vec<String> = self.parts().iter().map(|p| p.path().to_string()).filter(|p| matches(p)).collect();
        if paths.is_empty() {
            return Err(Error::NoModule { path: name.to_string(), hint: " to train whole (modules_to_save)".into() });
        }
        self.make_trainable(ParamKind::Saved, |path| paths.iter().any(|p| p == path));
        Ok(paths)
    }

    /// Full fine-tuning: every weight, bias and norm becomes a parameter. Shared weights stay shared.
    pub fn full_finetune(&mut self) {
        self.make_trainable(ParamKind::Base, |_| true);
        if self.tied
            && let (Backbone::Decoder(d), Head::Lm(head)) = (&self.backbone, &mut self.head)
            && let Trainable::Param(id) = d.embed.weight
        {
            head.weight = Trainable::Param(id);
        }
    }

    fn make_trainable(&mut self, kind: ParamKind, chosen: impl Fn(&str) -> bool) {
        let compute = self.options.compute.exact();
        let tied = self.tied && kind == ParamKind::Base;
        let mut parts = match &mut self.backbone {
            Backbone::Decoder(d) => d.parts(),
            Backbone::Encoder(e) => e.parts(),
        };
        parts.extend(self.head.parts());
        for part in parts.into_iter().filter(|p| chosen(p.path()) && !(tied && p.path() == "lm_head")) {
            let path = part.path().to_string();
            let (weight, bias, norm) = match part {
                Part::Linear(l) => (Some(&mut l.weight), l.bias.as_mut(), None),
                Part::Embedding(t) => (Some(&mut t.weight), None, None),
                Part::Norm(n) => (None, n.bias.as_mut(), Some(&mut n.weight)),
            };
            if let Some(source) = weight
                && let Trainable::Frozen(w) = source
            {
                let shape = [w.rows(), w.cols()];
                let value = w.to_tensor(compute);
                *source = Trainable::Param(self.params.add(format!("{path}.weight"), kind, &shape, value));
            }
            for (vector, suffix) in [(norm, "weight"), (bias, "bias")] {
                if let Some(source) = vector
                    && let Trainable::Frozen(v) = source
                {
                    let value = v.clone();
                    let shape = [value.cols()];
                    *source = Trainable::Param(self.params.add(format!("{path}.{suffix}"), kind, &shape, value));
                }
            }
        }
    }

    /// The trained tensors.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The trained tensors, to change.
    pub fn params_mut(&mut self) -> &mut Params {
        &mut self.params
    }

    /// Bytes of the base weights, mapped or owned.
    pub fn base_bytes(&self) -> usize {
        let bytes = |w: &Trainable<Weight>| match w {
            Trainable::Frozen(w) => w.bytes(),
            Trainable::Param(_) => 0,
        };
        self.all_linears().iter().map(|l| bytes(&l.weight)).sum()
    }
}
