//! Adapters on the linear layers of a model.

use super::transformer::Model;
use crate::compute::Compute;
use crate::cuda;
use crate::dropout::Dropout;
use crate::linear::{Linear, Lora as Attached};
use crate::param::{ParamKind, Trainable, Vector};
use crate::tensor::Tensor;
use crate::weight::Weight;
use crate::{Error, Result};
use loram_core::Factors;

/// An adapter for one linear layer with weight (n, m): W + scaling·B·A (2106.09685).
#[derive(Debug, Clone)]
pub struct Lora {
    /// A and B.
    pub factors: Factors,
    /// Factor on B·A.
    pub scaling: f64,
    /// Probability of dropping an input of A in training (`lora_dropout`).
    pub dropout: f64,
    /// A is trained, not frozen.
    pub train_a: bool,
    /// B is trained, not frozen.
    pub train_b: bool,
    /// A₀ and B₀, frozen: scaling·B₀·A₀ is subtracted in every pass, so that the base weight stays as it is.
    pub initial: Option<Factors>,
}

impl Model {
    /// The frozen weight (n, m) of a linear layer. Errors: no such layer, one that is fully trained.
    pub fn frozen_weight(&self, path: &str) -> Result<&Weight> {
        match &self.linear(path)?.weight {
            Trainable::Frozen(w) => Ok(w),
            Trainable::Param(_) => Err(fully_trained(path)),
        }
    }

    /// Returns whether the layer's weight is held in f32, so that it can be changed without loss.
    pub fn holds_f32(&self, path: &str) -> bool {
        let is_f32 = |l: &Linear| matches!(&l.weight, Trainable::Frozen(w) if w.is_f32());
        self.options.compute != Compute::CudaBf16 && self.linear(path).is_ok_and(is_f32)
    }

    /// Puts an adapter on a linear layer. Errors for factors of other shapes, and for a layer that has an adapter or is fully
    /// trained.
    pub fn attach(&mut self, path: &str, lora: Lora) -> Result<()> {
        cuda::catch(|| self.attach_checked(path, lora))
    }

    fn attach_checked(&mut self, path: &str, lora: Lora) -> Result<()> {
        let compute = self.options.compute;
        let (linear, params) = self.linear_mut(path)?;
        let (n, m) = (linear.n, linear.m);
        let wrong = |what: String| Err(Error::Layer { path: path.to_string(), what });
        if linear.lora.is_some() {
            return wrong("has an adapter already".into());
        }
        if matches!(linear.weight, Trainable::Param(_)) {
            return Err(fully_trained(path));
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
        let Factors { r, ref a, ref b, .. } = lora.factors;
        let a = factor(a, r, m, lora.train_a, ParamKind::LoraA, "lora_A");
        let b = factor(b, n, r, lora.train_b, ParamKind::LoraB, "lora_B");
        let frozen =
            |f: Factors| (Tensor::from_f32(compute, f.r, f.m, &f.a), Tensor::from_f32(compute, f.n, f.r, &f.b));
        let initial = lora.initial.map(frozen);
        linear.lora = Some(Attached { a, b, scaling: lora.scaling, dropout, initial });
        Ok(())
    }

    /// Returns the factors of an adapter as they are now, trained or frozen; `None` for a layer without adapter.
    pub fn factors(&self, path: &str) -> Option<Factors> {
        let linear = self.linear(path).ok()?;
        let lora = linear.lora.as_ref()?;
        let (a, b) = (lora.a.get(&self.params), lora.b.get(&self.params));
        Some(Factors { n: linear.n, m: linear.m, r: a.rows(), a: a.to_f32_vec(), b: b.to_f32_vec() })
    }

    /// W ← W − s·B·A on an owned f32 copy of the weight; the checkpoint is not touched.
    pub fn subtract_product(&mut self, path: &str, factors: &Factors, s: f64) -> Result<()> {
        let tied_head = self.tied_head == Some(path);
        let (linear, _) = self.linear_mut(path)?;
        let (n, m) = (linear.n, linear.m);
        let Factors { r, ref a, ref b, .. } = *factors;
        if (factors.n, factors.m) != (n, m) || factors.check().is_err() {
            let what = format!("A has {} values and B {}, which fit no rank of an ({n}, {m}) weight", a.len(), b.len());
            return Err(Error::Layer { path: path.to_string(), what });
        }
        let Trainable::Frozen(weight) = &mut linear.weight else {
            return Err(Error::Layer {
                path: path.to_string(),
                what: "is fully trained: nothing can be subtracted from it".into(),
            });
        };
        if tied_head {
            tracing::info!("{path} shares the embedding's weight: the initial product is subtracted from a copy");
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
