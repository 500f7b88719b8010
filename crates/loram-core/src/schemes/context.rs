//! The input of a scheme's function: one layer, its options, and the parts of the weight and the data that it asks for.

use super::factors::SchemeFactors;
use super::input::{Given, LayerInput};
use super::observed::{Components, Observed, Statistic, check};
use super::option::{OptionInfo, SchemeOptions};
use crate::lanczos::{self, End};
use crate::linalg::Svd;
use crate::rng::Stream;
use crate::sketch::{self, Sketch};
use crate::targets::LayerPlan;
use crate::{Error, Result};
use serde::de::DeserializeOwned;
use std::borrow::Cow;

/// One layer at the hands of a scheme. Errors name the layer.
pub struct Context<'a> {
    /// Name of the scheme, with its number where it has one.
    pub(super) name: String,
    pub(super) number: Option<usize>,
    pub(super) options: &'a SchemeOptions,
    /// The statistic of calibration data that the scheme needs.
    pub(super) statistic: Statistic,
    pub(super) plan: &'a LayerPlan,
    pub(super) seed: u64,
    pub(super) input: &'a LayerInput<'a>,
    pub(super) tracked: Option<SchemeFactors>,
}

impl<'a> Context<'a> {
    /// Outputs n, inputs m, rank r.
    pub fn shape(&self) -> (usize, usize, usize) {
        (self.plan.n, self.plan.m, self.plan.r)
    }

    /// Whether the module is an embedding, n its rows and m its width. PEFT's `lora_embedding_A` is Bᵀ, its
    /// `lora_embedding_B` is Aᵀ.
    pub fn is_embedding(&self) -> bool {
        self.input.embedding
    }

    /// The layer's path, shape, rank and scaling.
    pub fn plan(&self) -> &'a LayerPlan {
        self.plan
    }

    /// The seed of the run.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The number in the scheme's name, for schemes whose name ends in `-k`.
    pub fn number(&self) -> Option<usize> {
        self.number
    }

    /// The options, as they were given.
    pub fn options(&self) -> &'a SchemeOptions {
        self.options
    }

    /// The value of one of the scheme's options.
    pub fn option<T: DeserializeOwned>(&self, option: &OptionInfo) -> Result<T> {
        self.options.get(option)
    }

    /// The random stream of a factor of this layer: it depends on the seed, the layer's path and `factor` alone.
    pub fn stream(&self, factor: u64) -> Stream {
        Stream::new(self.seed, &self.plan.path, factor)
    }

    /// An error that names the layer.
    pub fn error(&self, what: impl Into<String>) -> Error {
        Error::layer(&self.plan.path, what)
    }

    /// Σx and Σx² of the weight, both finite. Needs [`WeightUse::Sums`](super::WeightUse).
    pub fn sums(&self) -> Result<(f64, f64)> {
        let sums = match &self.input.weight {
            Given::Values(w) => w.sums(),
            Given::Sums(sums) => *sums,
            Given::Sketch(sketch) => sketch.sums,
            Given::Shape | Given::Wrong(..) => return Err(self.not_given("the sums of the weight")),
        };
        self.finite(sums.1)?;
        Ok(sums)
    }

    /// The estimate of the weight's spectrum that one pass gives. Needs [`WeightUse::Sketch`](super::WeightUse).
    pub(super) fn sketch(&self) -> Result<Cow<'_, Sketch>> {
        let sketch = match &self.input.weight {
            Given::Values(w) => Cow::Owned(sketch::of_weight(&self.plan.path, *w, self.seed)),
            Given::Sketch(sketch) => Cow::Borrowed(sketch),
            _ => return Err(self.not_given("a sketch of the weight")),
        };
        self.finite(sketch.sums.1)?;
        Ok(sketch)
    }

    /// The weight in f32, (n, m) row-major, all finite. Needs [`WeightUse::Values`](super::WeightUse).
    pub fn values(&self) -> Result<Cow<'_, [f32]>> {
        let Given::Values(w) = &self.input.weight else { return Err(self.not_given("the values of the weight")) };
        self.finite(w.sums().1)?;
        Ok(w.to_f32())
    }

    /// r singular triples of the weight.
    pub fn triples(&self, end: End) -> Result<Svd> {
        self.triples_of(&self.values()?, end)
    }

    /// r singular triples of another matrix (n, m).
    pub fn triples_of(&self, values: &[f32], end: End) -> Result<Svd> {
        let (n, m, r) = self.shape();
        lanczos::triples(&self.plan.path, values, (n, m), end, r)
    }

    /// Half of each triple's σ/s, for one factor of s·B·A: √(σ/s).
    pub fn roots(&self, sigma: &[f64]) -> Result<Vec<f64>> {
        let s = self.plan.scaling;
        if s > 0.0 && s.is_finite() {
            return Ok(sigma.iter().map(|x| (x / s).sqrt()).collect());
        }
        let name = &self.name;
        Err(self
            .error(format!("scaling is {s}, and `{name}` takes the root of σ/scaling: lora_alpha must be positive")))
    }

    /// The principal components of the layer's inputs, at least r of them, for schemes with
    /// [`Statistic::InputCovariance`].
    pub fn components(&self) -> Result<&'a Components> {
        let Some(Observed::Components(p)) = self.input.observed else { return Err(self.unobserved()) };
        let (_, m, r) = self.shape();
        if p.vectors.len() < r * m {
            let found = p.vectors.len() / m;
            return Err(self.error(format!("needs {r} principal components of its inputs, found {found}")));
        }
        check(&self.plan.path, "inputs' components", &p.vectors[..r * m], r * m)?;
        Ok(p)
    }

    /// The second moment (m, m) of the layer's inputs, for schemes with [`Statistic::InputMoment`].
    pub fn moment(&self) -> Result<&'a [f32]> {
        let Some(Observed::InputMoment(moment)) = self.input.observed else { return Err(self.unobserved()) };
        check(&self.plan.path, "inputs' second moment", moment, self.plan.m * self.plan.m)?;
        Ok(moment)
    }

    /// The gradient (n, m) of the loss by the weight, for schemes with [`Statistic::Gradient`].
    pub fn gradient(&self) -> Result<&'a [f32]> {
        let Some(Observed::Gradient(gradient)) = self.input.observed else { return Err(self.unobserved()) };
        check(&self.plan.path, "gradient", gradient, self.plan.n * self.plan.m)?;
        Ok(gradient)
    }

    /// The factors of the scheme that the options name ([`SchemeInfo::tracks`](super::SchemeInfo)), on this layer.
    pub fn tracked(&self) -> Option<&SchemeFactors> {
        self.tracked.as_ref()
    }

    /// The error of a data-driven scheme without its data.
    fn unobserved(&self) -> Error {
        let what = self.statistic.describe().unwrap_or("work");
        let name = &self.name;
        self.error(format!("`{name}` is initialised from the layer's {what} on calibration data, and none is given"))
    }

    /// The error of a scheme that reads more than it declares.
    fn not_given(&self, what: &str) -> Error {
        self.error(format!("`{}` reads {what}, which its declared weight use leaves out", self.name))
    }

    /// An error when ‖W‖² says that some value is not finite.
    fn finite(&self, squares: f64) -> Result<()> {
        match squares.is_finite() {
            true => Ok(()),
            false => Err(self.error("its weight holds NaN or infinite values")),
        }
    }
}
