//! Adapters on the linear layers and embeddings of a model.

use super::head::Head;
use super::parts::Part;
use super::transformer::Model;
use crate::compute::Compute;
use crate::cuda;
use crate::dropout::Dropout;
use crate::linear::Lora as Attached;
use crate::param::{Param, ParamKind, Params, Trainable};
use crate::tensor::Tensor;
use crate::trained_rows::TrainedRows;
use crate::weight::Weight;
use crate::{Error, Result};
use loram_core::Factors;

/// An adapter for one module with weight (n, m): W + scaling·B·A (2106.09685).
#[derive(Debug, Clone)]
pub struct Lora {
    /// A and B.
    pub factors: Factors,
    /// Factor on B·A.
    pub scaling: f64,
    /// Bias of B (`lora_bias`), (n); trained with B. Not for embeddings.
    pub bias: Option<Vec<f32>>,
    /// Probability of dropping an input of A in training (`lora_dropout`); embeddings have none.
    pub dropout: f64,
    /// A is trained, not frozen.
    pub train_a: bool,
    /// B is trained, not frozen.
    pub train_b: bool,
    /// A₀ and B₀, frozen: scaling·B₀·A₀ is subtracted in every pass, so that the base weight stays as it is.
    pub initial: Option<Factors>,
}

impl Lora {
    /// An adapter whose factors are trained, without bias and dropout, and with B₀·A₀ = 0.
    pub fn new(factors: Factors, scaling: f64) -> Lora {
        Lora { factors, scaling, bias: None, dropout: 0.0, train_a: true, train_b: true, initial: None }
    }
}

/// The parts of a module that adapters change.
struct Slots<'a> {
    weight: &'a mut Trainable<Weight>,
    lora: &'a mut Option<Attached>,
    rows: &'a mut Option<TrainedRows>,
}

impl Model {
    /// Slots of a module that takes an adapter, and the parameters.
    fn slots(&mut self, path: &str) -> Result<(Slots<'_>, &mut Params)> {
        let (part, params) = self.target_mut(path)?;
        let slots = match part {
            Part::Linear(l) => Slots { weight: &mut l.weight, lora: &mut l.lora, rows: &mut l.rows },
            Part::Embedding(e) => Slots { weight: &mut e.weight, lora: &mut e.lora, rows: &mut e.rows },
            Part::Norm(_) => unreachable!("norms are no targets"),
        };
        Ok((slots, params))
    }

    fn weight_of(&self, path: &str) -> Result<&Trainable<Weight>> {
        Ok(match self.target(path)? {
            Part::Linear(l) => &l.weight,
            Part::Embedding(e) => &e.weight,
            Part::Norm(_) => unreachable!("norms are no targets"),
        })
    }

    fn lora_of(&self, path: &str) -> Option<&Attached> {
        match self.target(path).ok()? {
            Part::Linear(l) => l.lora.as_ref(),
            Part::Embedding(e) => e.lora.as_ref(),
            Part::Norm(_) => None,
        }
    }

    /// The frozen weight (n, m) of a linear layer or embedding. Errors: no such module, one that is fully trained.
    pub fn frozen_weight(&self, path: &str) -> Result<&Weight> {
        match self.weight_of(path)? {
            Trainable::Frozen(w) => Ok(w),
            Trainable::Param(_) => Err(fully_trained(path)),
        }
    }

    /// Returns whether the module's weight is held in f32 and used so, so that it can be changed without loss.
    pub fn holds_f32(&self, path: &str) -> bool {
        let is_f32 = |w: &Weight| w.is_f32() && w.kernel().is_none();
        self.options.compute != Compute::CudaBf16 && self.frozen_weight(path).is_ok_and(is_f32)
    }

    /// Puts an adapter on a linear layer or embedding. Errors for factors of other shapes, and for a module that has an
    /// adapter or is trained itself.
    pub fn attach(&mut self, path: &str, lora: Lora) -> Result<()> {
        cuda::catch(|| self.attach_checked(path, lora))
    }

    fn attach_checked(&mut self, path: &str, lora: Lora) -> Result<()> {
        let compute = self.options.compute;
        let embedding = self.is_embedding(path);
        let (slots, params) = self.slots(path)?;
        let wrong = |what: String| Err(Error::Layer { path: path.to_string(), what });
        let Trainable::Frozen(weight) = slots.weight else { return Err(fully_trained(path)) };
        let (n, m) = (weight.rows(), weight.cols());
        if slots.lora.is_some() {
            return wrong("has an adapter already".into());
        }
        if slots.rows.is_some() {
            return wrong("has single trained rows (trainable_token_indices): it takes no adapter beside them".into());
        }
        for f in std::iter::once(&lora.factors).chain(&lora.initial) {
            if (f.n, f.m) != (n, m) {
                let what = "the adapter belongs to another model";
                return wrong(format!("its weight is ({n}, {m}), the factors are for ({}, {}): {what}", f.n, f.m));
            }
            if let Err(what) = f.check() {
                return wrong(what);
            }
        }
        if embedding && lora.bias.is_some() {
            return wrong("is an embedding, whose adapter has no bias (lora_bias)".into());
        }
        if let Some(bias) = lora.bias.as_ref().filter(|bias| bias.len() != n) {
            return wrong(format!("the bias of its adapter has {} values, expected {n}", bias.len()));
        }
        let probability = if embedding { 0.0 } else { lora.dropout };
        let dropout = Dropout::adapter(probability, params.len() as u64);
        // what is not trained may be as narrow as activations
        let factor = |values: Vec<f32>, shape: &[usize], train: bool, kind, suffix: &str| {
            let (rows, cols) = if let &[rows, cols] = shape { (rows, cols) } else { (1, values.len()) };
            let value = |compute| Tensor::from_f32(compute, rows, cols, &values);
            match train {
                true => Ok(Param::new(format!("{path}.{suffix}"), kind, shape, value(compute.exact()))),
                // vectors are held in the number type of parameters
                false => Err(value(if shape.len() == 1 { compute.exact() } else { compute })),
            }
        };
        let Factors { r, a, b, .. } = lora.factors;
        let a = factor(a, &[r, m], lora.train_a, ParamKind::LoraA, "lora_A.weight");
        let b = factor(b, &[n, r], lora.train_b, ParamKind::LoraB, "lora_B.weight");
        let bias = lora.bias.map(|bias| factor(bias, &[n], lora.train_b, ParamKind::LoraB, "lora_B.bias"));
        let frozen =
            |f: Factors| (Tensor::from_f32(compute, f.r, f.m, &f.a), Tensor::from_f32(compute, f.n, f.r, &f.b));
        let initial = lora.initial.map(frozen);
        // a GPU can fail before this, not after
        let mut place = |made: std::result::Result<Param, Tensor>| match made {
            Ok(param) => Trainable::Param(params.add(param)),
            Err(frozen) => Trainable::Frozen(frozen),
        };
        let (a, b, bias) = (place(a), place(b), bias.map(place));
        weight.leave_gpu();
        *slots.lora = Some(Attached { a, b, scaling: lora.scaling, bias, dropout, initial });
        Ok(())
    }

    /// Returns the factors of an adapter as they are now, trained or frozen; `None` for a module without adapter.
    ///
    /// # Errors
    /// A failure of the GPU.
    pub fn factors(&self, path: &str) -> Result<Option<Factors>> {
        let Some(lora) = self.lora_of(path) else { return Ok(None) };
        let (a, b) = (lora.a.get(&self.params), lora.b.get(&self.params));
        Ok(Some(Factors { n: b.rows(), m: a.cols(), r: a.rows(), a: a.values()?, b: b.values()? }))
    }

    /// Returns the bias (n) of an adapter's B as it is now; `None` for a module without one.
    ///
    /// # Errors
    /// A failure of the GPU.
    pub fn lora_bias(&self, path: &str) -> Result<Option<Vec<f32>>> {
        let bias = self.lora_of(path).and_then(|lora| lora.bias.as_ref());
        bias.map(|bias| bias.get(&self.params).values()).transpose()
    }

    /// Trains single rows of a frozen weight, or sets them when `train` is false: rows `ids` get `values` (ids, m), or begin
    /// as they are. Errors: an id beyond the weight or twice, values of another length, a module with an adapter or one that
    /// is trained itself.
    pub fn train_rows(&mut self, path: &str, ids: &[u32], values: Option<&[f32]>, train: bool) -> Result<()> {
        cuda::catch(|| self.train_rows_checked(path, ids, values, train))
    }

    fn train_rows_checked(&mut self, path: &str, ids: &[u32], values: Option<&[f32]>, train: bool) -> Result<()> {
        let exact = self.options.compute.exact();
        let (slots, params) = self.slots(path)?;
        let wrong = |what: String| Err(Error::Layer { path: path.to_string(), what });
        if slots.lora.is_some() || slots.rows.is_some() {
            return wrong("has an adapter: it takes no single trained rows (trainable_token_indices) beside it".into());
        }
        let Trainable::Frozen(weight) = &*slots.weight else { return Err(fully_trained(path)) };
        let (k, m) = (ids.len(), weight.cols());
        if let Some(values) = values.filter(|v| v.len() != k * m) {
            return wrong(format!("{k} trained rows of {m} values expected, found {} values", values.len()));
        }
        let rows = TrainedRows::new(path, weight, ids, exact, |own| {
            let value = values.map_or_else(|| own.copy(), |v| Tensor::from_f32(exact, k, m, v));
            match train {
                true => {
                    let name = format!("{path}.token_adapter.trainable_tokens_delta");
                    Trainable::Param(params.add(Param::new(name, ParamKind::Tokens, &[k, m], value)))
                }
                false => Trainable::Frozen(value),
            }
        })?;
        *slots.rows = Some(rows);
        Ok(())
    }

    /// The single trained rows of a module as they are now: their numbers, and their values (rows, m) row-major.
    ///
    /// # Errors
    /// A failure of the GPU.
    pub fn trained_rows(&self, path: &str) -> Result<Option<(Vec<u32>, Vec<f32>)>> {
        let rows = match self.target(path) {
            Ok(Part::Linear(l)) => l.rows.as_ref(),
            Ok(Part::Embedding(e)) => e.rows.as_ref(),
            Ok(Part::Norm(_)) | Err(_) => None,
        };
        rows.map(|rows| Ok((rows.ids.clone(), rows.value.get(&self.params).values()?))).transpose()
    }

    /// The head that shares the weight of the token embedding: the paths of both. `None` where the model has none.
    pub fn tied_head(&self) -> Option<(&str, &str)> {
        Some((self.tied_head?, &self.backbone.tokens().path))
    }

    /// Gives the head that shares the embedding's weight the same changes as the embedding (PEFT's `ensure_weight_tying`): its
    /// trained weight, adapter and single rows are the embedding's, and gradients of both places add up. `dropout` is that
    /// of the head's adapter. Without such a head nothing happens. An error for a head that has an adapter of its own.
    pub fn tie_head(&mut self, dropout: f64) -> Result<()> {
        let Some(path) = self.tied_head else { return Ok(()) };
        let embedding = self.backbone.tokens();
        let Head::Lm(head) = &mut self.head else { return Ok(()) };
        let head = &mut head.linear;
        if head.lora.is_some() || head.rows.is_some() {
            let what = "has an adapter of its own, but is to share that of the embedding (ensure_weight_tying)".into();
            return Err(Error::Layer { path: path.into(), what });
        }
        if let Trainable::Frozen(old) = &head.weight {
            let same = matches!(&embedding.weight, Trainable::Frozen(w) if w.shares(old));
            if !same {
                self.originals.keep_weight(format!("{path}.weight"), old);
            }
        }
        let rows = || embedding.rows.as_ref().map(TrainedRows::shared);
        let (rows, lora) = cuda::catch(|| Ok((rows(), embedding.lora.as_ref().map(Attached::shared))))?;
        (head.weight, head.rows, head.lora) = (embedding.weight.shared(), rows, lora);
        if let Some(lora) = &mut head.lora {
            lora.dropout = Dropout::adapter(dropout, self.params.len() as u64);
        }
        Ok(())
    }

    /// W ← W − s·B·A on an owned f32 copy of the weight; the checkpoint is not touched.
    pub fn subtract_product(&mut self, path: &str, factors: &Factors, s: f64) -> Result<()> {
        let tied = self.tied_head == Some(path) || self.tied_head.is_some() && self.backbone.tokens().path == path;
        let (slots, _) = self.slots(path)?;
        let Trainable::Frozen(weight) = slots.weight else {
            return Err(Error::Layer {
                path: path.to_string(),
                what: "is fully trained: nothing can be subtracted from it".into(),
            });
        };
        let (n, m) = (weight.rows(), weight.cols());
        let Factors { r, ref a, ref b, .. } = *factors;
        if (factors.n, factors.m) != (n, m) || factors.check().is_err() {
            let what = format!("A has {} values and B {}, which fit no rank of an ({n}, {m}) weight", a.len(), b.len());
            return Err(Error::Layer { path: path.to_string(), what });
        }
        let format = weight.stored().format();
        if format.block_values() > 1 {
            let what = format!(
                "its weight is quantised ({}), and so would W − s·B₀A₀ have to be: leave `base` at auto, which subtracts the initial \
                 product as a branch, or take the scheme `loram`, whose initial factors need no memory",
                format.name()
            );
            return Err(Error::Layer { path: path.to_string(), what });
        }
        if tied {
            tracing::info!(
                "head and embedding share a weight: the initial product of {path} is subtracted from a copy"
            );
        }
        let original = weight.clone();
        weight.change(|w| {
            use crate::kernels::gemm::{View, ViewMut, gemm};
            gemm(ViewMut::new(w, n, m), true, -s as f32, View::new(b, n, r), View::new(a, r, m));
        });
        self.originals.keep_weight(format!("{path}.weight"), &original);
        Ok(())
    }
}

fn fully_trained(path: &str) -> Error {
    Error::Layer { path: path.into(), what: "is fully trained (modules_to_save): it takes no adapter".into() }
}
