//! The input of an initialisation: a layer's weight, or the results of one pass over it, and statistics.

use super::observed::Observed;
use crate::sketch::Sketch;
use crate::weight::StoredWeight;

/// How much a scheme reads of a layer's weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WeightUse {
    /// Its shape alone.
    Shape,
    /// The sums Σx and Σx² of its values, in one pass without a copy.
    Sums,
    /// The sums and an estimate of its spectrum, in one pass without a copy.
    Sketch,
    /// All values: a decomposition.
    Values,
}

/// The input for one layer. [`initialize`](crate::initialize) takes a weight in memory as it is; a weight that is read
/// while it is worked on comes from [`LayerInput::read`], and one on an accelerator by its [`LayerInput::sums`].
pub struct LayerInput<'a> {
    pub(super) weight: Given<'a>,
    pub(super) observed: Option<&'a Observed>,
    /// The weight is that of an embedding.
    pub(super) embedding: bool,
}

/// How much of the weight there is.
pub(super) enum Given<'a> {
    /// Its shape alone.
    Shape,
    /// A weight of another shape than the layer has.
    Wrong(usize, usize),
    /// Σx and Σx².
    Sums((f64, f64)),
    /// The same and an estimate of the spectrum.
    Sketch(Sketch),
    /// All values.
    Values(StoredWeight<'a>),
}

impl<'a> LayerInput<'a> {
    /// The shape alone, which the plan has.
    pub fn shape() -> LayerInput<'a> {
        LayerInput { weight: Given::Shape, observed: None, embedding: false }
    }

    /// The sums Σx and Σx² of the weight's values, for schemes with
    /// [`sums_suffice`](crate::SchemeSpec::sums_suffice).
    pub fn sums(sums: (f64, f64)) -> LayerInput<'a> {
        LayerInput { weight: Given::Sums(sums), observed: None, embedding: false }
    }

    /// The same with a statistic of the layer on calibration data, for schemes that need one; others ignore it.
    #[must_use]
    pub fn observed(self, observed: Option<&'a Observed>) -> LayerInput<'a> {
        LayerInput { observed, ..self }
    }
}

impl LayerInput<'_> {
    /// ‖W‖_F, where the sums of the weight are known.
    pub(super) fn norm(&self) -> Option<f64> {
        match &self.weight {
            Given::Sums((_, squares)) => Some(squares.sqrt()),
            Given::Sketch(sketch) => Some(sketch.sums.1.sqrt()),
            Given::Shape | Given::Wrong(..) | Given::Values(_) => None,
        }
    }

    /// The same for the weight (rows, width) of an embedding, whose adapter some schemes initialise otherwise.
    #[must_use]
    pub fn of_embedding(self, embedding: bool) -> Self {
        LayerInput { embedding, ..self }
    }
}

impl<'a> From<StoredWeight<'a>> for LayerInput<'a> {
    fn from(w: StoredWeight<'a>) -> LayerInput<'a> {
        LayerInput { weight: Given::Values(w), observed: None, embedding: false }
    }
}
