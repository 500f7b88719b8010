//! The model without its adapters, as losses need it that compare with the model before training.
//!
//! A base weight from which an initial product was subtracted no longer is that of the checkpoint, and W′ + s·B₀·A₀ would
//! differ from it by rounding. So the model remembers the weight that it had: where it is mapped from a file, that costs no
//! memory. The same holds for modules that are fully trained beside the adapters.

use super::originals::Originals;
use super::parts::Part;
use super::transformer::{Model, parts_mut};
use crate::linear::Lora;
use crate::param::{ParamKind, Trainable, Vector};
use crate::tensor::Tensor;
use crate::trained_rows::TrainedRows;
use crate::weight::Weight;
use crate::{Error, Result, cuda};
use std::collections::BTreeMap;

/// The pieces of a part that are put aside meanwhile.
#[derive(Default)]
struct PutAside {
    lora: Option<Lora>,
    rows: Option<TrainedRows>,
    weight: Option<Trainable<Weight>>,
    norm: Option<Vector>,
    bias: Option<Vector>,
}

/// A model without its adapters; they are put back when it is dropped.
struct WithoutAdapters<'a> {
    model: &'a mut Model,
    /// For each part, in the order of the model.
    aside: Vec<PutAside>,
}

impl<'a> WithoutAdapters<'a> {
    fn new(model: &'a mut Model) -> WithoutAdapters<'a> {
        let Originals { weights, vectors } = &model.originals;
        // copies on a GPU can fail: all are made before the first tensor is put aside
        let mut vectors: BTreeMap<String, Tensor> = vectors.iter().map(|(name, v)| (name.clone(), v.copy())).collect();
        let weight = |slot: &mut Trainable<Weight>, path: &str| {
            let original = weights.get(&format!("{path}.weight"))?;
            Some(std::mem::replace(slot, Trainable::Frozen(original.clone())))
        };
        let mut vector = |slot: &mut Vector, path: &str, suffix: &str| {
            let original = vectors.remove(&format!("{path}.{suffix}"))?;
            Some(std::mem::replace(slot, Trainable::Frozen(original)))
        };
        let put_aside = parts_mut(&mut model.backbone, &mut model.head).map(|part| match part {
            Part::Linear(l) => PutAside {
                lora: l.lora.take(),
                rows: l.rows.take(),
                weight: weight(&mut l.weight, &l.path),
                bias: l.bias.as_mut().and_then(|b| vector(b, &l.path, "bias")),
                norm: None,
            },
            Part::Embedding(e) => PutAside {
                lora: e.lora.take(),
                rows: e.rows.take(),
                weight: weight(&mut e.weight, &e.path),
                ..PutAside::default()
            },
            Part::Norm(n) => PutAside {
                norm: vector(&mut n.weight, &n.path, "weight"),
                bias: n.bias.as_mut().and_then(|b| vector(b, &n.path, "bias")),
                ..PutAside::default()
            },
        });
        let aside = put_aside.collect();
        WithoutAdapters { model, aside }
    }
}

impl Drop for WithoutAdapters<'_> {
    fn drop(&mut self) {
        fn put_back<T>(slot: &mut T, aside: Option<T>) {
            if let Some(value) = aside {
                *slot = value;
            }
        }
        let parts = parts_mut(&mut self.model.backbone, &mut self.model.head);
        for (part, aside) in parts.zip(self.aside.drain(..)) {
            let bias = match part {
                Part::Linear(l) => {
                    (l.lora, l.rows) = (aside.lora, aside.rows);
                    put_back(&mut l.weight, aside.weight);
                    l.bias.as_mut()
                }
                Part::Embedding(e) => {
                    (e.lora, e.rows) = (aside.lora, aside.rows);
                    put_back(&mut e.weight, aside.weight);
                    None
                }
                Part::Norm(n) => {
                    put_back(&mut n.weight, aside.norm);
                    n.bias.as_mut()
                }
            };
            if let Some(bias) = bias {
                put_back(bias, aside.bias);
            }
        }
    }
}

impl Model {
    /// Runs `f` on the model without its adapters and with the original values of modules that are fully trained beside
    /// them, as PEFT's `disable_adapter`. Its outputs are those of the base model, bit for bit, also where an initial product
    /// was subtracted from a weight. Afterwards the model is as before.
    ///
    /// # Errors
    /// A model in full fine-tuning, which does not keep its original weights; a failure of the GPU.
    pub fn without_adapters<R>(&mut self, f: impl FnOnce(&Model) -> R) -> Result<R> {
        if self.params.iter().any(|p| p.kind == ParamKind::Base) {
            let what = "the model is fully fine-tuned and has no adapters to switch off: load the base model a second time to \
                        compare with it, or train adapters";
            return Err(Error::Task(what.into()));
        }
        let off = cuda::catch(|| Ok(WithoutAdapters::new(self)))?;
        Ok(f(off.model))
    }
}
