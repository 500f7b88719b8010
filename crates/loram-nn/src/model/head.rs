//! What sits on top: next-token prediction, classification or regression, each with its loss.

use super::load::Loader;
use super::parts::{Embedding, Part, PartMut};
use crate::batch::{Batch, BatchLoss, Targets};
#[cfg(gpu)]
use crate::cuda;
use crate::dropout::Dropout;
use crate::kernels::activation::Act;
#[cfg(gpu)]
use crate::kernels::cross_entropy::check_labels;
use crate::kernels::cross_entropy::{IGNORE, LossSum, mse, softmax_cross_entropy};
use crate::linear::{Linear, LinearSaved};
use crate::ops;
use crate::param::{Params, Trainable};
use crate::tensor::{Compute, Element, Tensor, typed};
use crate::weight::Weight;
use crate::{Error, Result, Task};
use loram_io::{DecoderConfig, EncoderConfig};
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// Logits that exist at a time (64 MiB in f32): the whole table of a large vocabulary never does.
const LOGITS: usize = 1 << 24;

/// The same on a GPU (128 MiB in bf16), where narrow products leave most of it idle.
const GPU_LOGITS: usize = 1 << 26;

/// Top of a model.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a model has one")]
pub(crate) enum Head {
    /// `lm_head`.
    Lm(Linear),
    /// Reads one token of each document.
    Pooled(Pooled),
}

/// An optional layer with activation, then the output layer.
#[derive(Debug)]
pub(crate) struct Pooled {
    /// On what is read (RoBERTa).
    input_dropout: Dropout,
    first: Option<(Linear, Act)>,
    /// Before the output layer.
    dropout: Dropout,
    out: Linear,
    /// Reads the last token instead of the first.
    last: bool,
    regression: bool,
}

/// Activations of a pooled head.
struct PooledSaved {
    x: Tensor,
    first: Option<(Tensor, Tensor, LinearSaved)>,
    out: LinearSaved,
}

/// The loss and, where asked for, the gradient of the head's input.
pub(crate) struct HeadOut {
    pub loss: BatchLoss,
    pub d_hidden: Option<Tensor>,
    pub logits: Vec<f32>,
}

/// How the backward pass of a head is run.
pub(crate) struct Backward {
    /// Factor on the sum of losses.
    pub scale: f64,
    /// Whether something below the head is trained.
    pub through: bool,
    /// Seed of the dropout.
    pub step: u64,
}

/// Normal values of deviation `std` from ChaCha8 (Box–Muller), as transformers starts a new head.
fn normal(seed: u64, len: usize, std: f64) -> Vec<f32> {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let mut uniform = move || (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    let mut out = Vec::with_capacity(len + 1);
    while out.len() < len {
        let radius = std * (-2.0 * (1.0 - uniform()).ln()).sqrt();
        let angle = std::f64::consts::TAU * uniform();
        out.extend([(radius * angle.cos()) as f32, (radius * angle.sin()) as f32]);
    }
    out.truncate(len);
    out
}

/// The checkpoint's layer, or a fresh one when it has none of these outputs.
fn load_or_new(l: &Loader<'_>, path: &str, n: usize, m: usize, bias: bool, seed: u64, std: f64) -> Result<Linear> {
    if l.has(&format!("{path}.weight")) {
        return match l.linear(path.to_string(), n, m, bias) {
            Err(Error::Shape { name, found, expected }) => Err(Error::Task(format!(
                "tensor `{name}`: the checkpoint's head has shape {found:?}, this task needs {expected:?}: \
                 give data with the model's labels, or start from a checkpoint without a head"
            ))),
            other => other,
        };
    }
    tracing::info!("`{path}` is not in the checkpoint: started at random (seed {seed})");
    // each fresh layer gets a stream of its own
    let stream = path.bytes().fold(seed, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let mut linear = Linear::frozen(path.to_string(), Weight::from_f32(n, m, normal(stream, n * m, std)));
    if bias {
        linear.bias = Some(Trainable::Frozen(Tensor::zeros(l.compute.exact(), 1, n)));
    }
    Ok(linear)
}

impl Head {
    pub fn decoder(cfg: &DecoderConfig, l: &Loader<'_>, embed: &Embedding, task: Task, seed: u64) -> Result<Head> {
        let (vocab, hidden) = (cfg.vocab_size, cfg.hidden_size);
        let Some(outputs) = task.outputs() else {
            if !cfg.tie_word_embeddings {
                return Ok(Head::Lm(l.linear("lm_head".into(), vocab, hidden, false)?));
            }
            let Trainable::Frozen(weight) = &embed.weight else { unreachable!("nothing is trained yet") };
            return Ok(Head::Lm(Linear::frozen("lm_head".into(), weight.clone())));
        };
        let out = load_or_new(l, "score", outputs, hidden, false, seed, std_of(&cfg.raw))?;
        let none = Dropout::NONE;
        let regression = task == Task::Regression;
        Ok(Head::Pooled(Pooled { input_dropout: none, first: None, dropout: none, out, last: true, regression }))
    }

    pub fn encoder(cfg: &EncoderConfig, l: &Loader<'_>, task: Task, seed: u64) -> Result<Head> {
        let Some(outputs) = task.outputs() else {
            return Err(Error::Task(format!(
                "`{}` is an encoder: it classifies or scores texts (data with a label), it does not write them",
                cfg.family
            )));
        };
        let hidden = cfg.hidden_size;
        let (first, activation, out) = match cfg.family.as_str() {
            "bert" => ("bert.pooler.dense", Act::Tanh, "classifier"),
            "distilbert" => ("pre_classifier", Act::Relu, "classifier"),
            _ => ("classifier.dense", Act::Tanh, "classifier.out_proj"),
        };
        let std = std_of(&cfg.raw);
        let first = load_or_new(l, first, hidden, hidden, true, seed, std)?;
        let out = load_or_new(l, out, outputs, hidden, true, seed, std)?;
        let regression = task == Task::Regression;
        let before = if cfg.family.ends_with("roberta") { cfg.classifier_dropout } else { 0.0 };
        // beyond the places of the embeddings
        let dropout = |p, index| l.dropout(p, cfg.num_layers + 1, index);
        Ok(Head::Pooled(Pooled {
            input_dropout: dropout(before, 0),
            first: Some((first, activation)),
            dropout: dropout(cfg.classifier_dropout, 1),
            out,
            last: false,
            regression,
        }))
    }

    pub fn linears(&self) -> Vec<&Linear> {
        match self {
            Head::Lm(l) => vec![l],
            Head::Pooled(p) => p.first.iter().map(|f| &f.0).chain([&p.out]).collect(),
        }
    }

    pub fn parts_mut(&mut self) -> Vec<PartMut<'_>> {
        match self {
            Head::Lm(l) => vec![Part::Linear(l)],
            Head::Pooled(p) => p.first.iter_mut().map(|f| &mut f.0).chain([&mut p.out]).map(Part::Linear).collect(),
        }
    }

    /// Loss of a batch from the final hidden states (t, hidden), and its gradients.
    pub fn loss(&self, params: &mut Params, hidden: &Tensor, batch: &Batch, how: &Backward) -> Result<HeadOut> {
        match self {
            Head::Lm(linear) => lm_loss(linear, params, hidden, batch, how),
            Head::Pooled(head) => head.loss(params, hidden, batch, how),
        }
    }

    /// Loss of a batch and the outputs of a pooled head.
    pub fn evaluate(&self, params: &Params, hidden: &Tensor, batch: &Batch) -> Result<HeadOut> {
        match self {
            Head::Lm(linear) => {
                let mut loss = LmLoss::default();
                for (rows, labels) in counted_chunks(linear, batch, hidden.compute())? {
                    let mut logits = linear.forward(params, &hidden.gather_rows(&rows), None).0;
                    loss.add(&mut logits, &labels, 1.0, false)?;
                }
                Ok(HeadOut { loss: loss.sum(), d_hidden: None, logits: Vec::new() })
            }
            Head::Pooled(head) => {
                let mut out = head.forward(params, head.pick(hidden, batch)?, None).0;
                let logits = out.to_f32_vec();
                Ok(HeadOut { loss: head.loss_of(&mut out, batch, 1.0)?, d_hidden: None, logits })
            }
        }
    }

    /// (t, vocab) for a language model, (documents, outputs) otherwise.
    pub fn logits(&self, params: &Params, hidden: &Tensor, batch: &Batch) -> Result<Tensor> {
        match self {
            Head::Lm(linear) => Ok(linear.forward(params, hidden, None).0),
            Head::Pooled(head) => Ok(head.forward(params, head.pick(hidden, batch)?, None).0),
        }
    }
}

fn std_of(raw: &serde_json::Map<String, serde_json::Value>) -> f64 {
    raw.get("initializer_range").and_then(|v| v.as_f64()).unwrap_or(0.02)
}

/// Positions whose label counts, with their labels, in chunks small enough for their logits.
fn counted_chunks(head: &Linear, batch: &Batch, compute: Compute) -> Result<Vec<(Vec<usize>, Vec<i64>)>> {
    if batch.labels.len() != batch.tokens.len() {
        return Err(Error::Batch("a language model needs a label for every token".into()));
    }
    let counted: Vec<usize> = (0..batch.labels.len()).filter(|&i| batch.labels[i] != IGNORE).collect();
    let labels = |rows: &[usize]| rows.iter().map(|&i| batch.labels[i]).collect();
    let logits = if compute.on_gpu() { GPU_LOGITS } else { LOGITS };
    Ok(counted.chunks((logits / head.n).clamp(16, 4096)).map(|rows| (rows.to_vec(), labels(rows))).collect())
}

/// Loss of rows of logits, which become their gradients times `scale` with `grad`.
fn cross_entropy<T: Element>(logits: &mut Tensor, labels: &[i64], scale: f64, grad: bool) -> Result<BatchLoss> {
    let n = logits.cols();
    let sum = softmax_cross_entropy::<T>(logits.as_mut_slice(), labels, n, T::from_f64(scale), grad)?;
    Ok(sum.into())
}

impl From<LossSum> for BatchLoss {
    fn from(sum: LossSum) -> BatchLoss {
        BatchLoss { loss_sum: sum.loss, counted: sum.counted, correct: sum.correct }
    }
}

/// The loss of a language model over chunks of logits; what a GPU finds is read when all is done.
#[derive(Default)]
struct LmLoss {
    found: BatchLoss,
    #[cfg(gpu)]
    on_gpu: cuda::ops::Losses,
}

impl LmLoss {
    /// Labels all count. With `grad` the logits become their gradients times `scale`.
    fn add(&mut self, logits: &mut Tensor, labels: &[i64], scale: f64, grad: bool) -> Result<()> {
        let found = typed!(logits, T, cross_entropy::<T>(logits, labels, scale, grad), gpu: {
            check_labels(labels, logits.cols())?;
            let labels: Vec<u32> = labels.iter().map(|&l| l as u32).collect();
            self.on_gpu.add(logits, &labels, scale, grad);
            Ok(BatchLoss::default())
        })?;
        self.found.add(found);
        Ok(())
    }

    fn sum(self) -> BatchLoss {
        #[cfg(gpu)]
        let on_gpu = self.on_gpu.sum().into();
        #[cfg(not(gpu))]
        let on_gpu = BatchLoss::default();
        let mut sum = self.found;
        sum.add(on_gpu);
        sum
    }
}

/// Next-token cross-entropy over the positions whose label counts: logits and their gradients chunk by chunk.
fn lm_loss(head: &Linear, params: &mut Params, hidden: &Tensor, batch: &Batch, how: &Backward) -> Result<HeadOut> {
    let mut loss = LmLoss::default();
    let mut d_hidden = how.through.then(|| Tensor::zeros(hidden.compute(), hidden.rows(), hidden.cols()));
    let step = Some(how.step);
    for (rows, labels) in counted_chunks(head, batch, hidden.compute())? {
        let x = hidden.gather_rows(&rows);
        let (mut logits, saved) = head.forward(params, &x, step);
        loss.add(&mut logits, &labels, how.scale, true)?;
        let mut dx = how.through.then(|| Tensor::scratch(x.compute(), x.rows(), x.cols()));
        head.backward(params, &x, &saved, &logits, dx.as_mut().map(|t| (t, false)), step);
        if let (Some(d), Some(dx)) = (&mut d_hidden, &dx) {
            d.add_rows(&rows, dx);
        }
    }
    Ok(HeadOut { loss: loss.sum(), d_hidden, logits: Vec::new() })
}

impl Pooled {
    fn rows(&self, batch: &Batch) -> Result<Vec<usize>> {
        let mut start = 0;
        let mut rows = Vec::with_capacity(batch.lengths.len());
        for (i, &n) in batch.lengths.iter().enumerate() {
            if n == 0 {
                return Err(Error::Batch(format!("document {i} has no token to read a label from")));
            }
            rows.push(if self.last { start + n - 1 } else { start });
            start += n;
        }
        Ok(rows)
    }

    fn pick(&self, hidden: &Tensor, batch: &Batch) -> Result<Tensor> {
        Ok(hidden.gather_rows(&self.rows(batch)?))
    }

    fn forward(&self, params: &Params, x: Tensor, step: Option<u64>) -> (Tensor, PooledSaved) {
        let x = self.input_dropout.apply(x, step);
        let first = self.first.as_ref().map(|(linear, act)| {
            let (z, saved) = linear.forward(params, &x, step);
            (self.dropout.apply(ops::act(*act, &z), step), z, saved)
        });
        let (logits, out) = self.out.forward(params, first.as_ref().map_or(&x, |f| &f.0), step);
        (logits, PooledSaved { x, first, out })
    }

    /// Loss of outputs (documents, outputs), which become its gradient times `scale`. So few numbers are the CPU's work.
    fn loss_of(&self, out: &mut Tensor, batch: &Batch, scale: f64) -> Result<BatchLoss> {
        if out.compute().on_gpu() {
            let mut here = out.on_cpu().into_owned();
            let loss = self.loss_of(&mut here, batch, scale)?;
            out.copy_from_f32(here.f32s());
            return Ok(loss);
        }
        match &batch.targets {
            Targets::None => Ok(BatchLoss::default()),
            Targets::Class(ids) if !self.regression => {
                let labels: Vec<i64> = ids.iter().map(|&c| c as i64).collect();
                typed!(out, T, cross_entropy::<T>(out, &labels, scale, true))
            }
            Targets::Value(values) if self.regression => {
                let loss_sum = typed!(out, T, {
                    let target: Vec<T> = values.iter().map(|&v| T::from_f32(v)).collect();
                    let pred = out.as_slice::<T>().to_vec();
                    mse(&pred, &target, T::from_f64(scale), Some(out.as_mut_slice()))
                });
                Ok(BatchLoss { loss_sum, counted: values.len(), correct: 0 })
            }
            Targets::Class(_) => Err(Error::Task("the model has a regression head, the data have classes".into())),
            Targets::Value(_) => Err(Error::Task("the model has a classification head, the data have numbers".into())),
        }
    }

    fn loss(&self, params: &mut Params, hidden: &Tensor, batch: &Batch, how: &Backward) -> Result<HeadOut> {
        if batch.targets == Targets::None {
            return Err(Error::Batch("training a head needs a target for every document".into()));
        }
        let rows = self.rows(batch)?;
        let step = Some(how.step);
        let (mut out, saved) = self.forward(params, hidden.gather_rows(&rows), step);
        let logits = out.to_f32_vec();
        let loss = self.loss_of(&mut out, batch, how.scale)?;
        let mut d = Tensor::scratch(out.compute(), rows.len(), self.out.m);
        let input = saved.first.as_ref().map_or(&saved.x, |f| &f.0);
        self.out.backward(params, input, &saved.out, &out, Some((&mut d, false)), step);
        if let (Some((linear, act)), Some((_, z, lora))) = (&self.first, &saved.first) {
            d = self.dropout.apply(d, step);
            ops::act_backward(*act, z, &mut d);
            let mut dx = Tensor::scratch(out.compute(), rows.len(), linear.m);
            linear.backward(params, &saved.x, lora, &d, Some((&mut dx, false)), step);
            d = self.input_dropout.apply(dx, step);
        }
        let d_hidden = how.through.then(|| {
            let mut all = Tensor::zeros(hidden.compute(), hidden.rows(), hidden.cols());
            all.add_rows(&rows, &d);
            all
        });
        Ok(HeadOut { loss, d_hidden, logits })
    }
}
