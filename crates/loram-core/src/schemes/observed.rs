//! Statistics of a layer on calibration data, which data-driven schemes are initialised from.

use crate::{Error, Result};

/// A statistic of each layer that a scheme needs from a run of the model on calibration data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statistic {
    /// Nothing: no data are needed.
    None,
    /// The covariance of the layer's inputs over tokens, of which the first principal components are enough.
    InputCovariance,
    /// The mean over sequences of XᵀX, each X divided by the size of its largest value.
    InputMoment,
    /// The gradient of the loss by the layer's weight.
    Gradient,
}

impl Statistic {
    /// The statistic in a few words; `None` for a scheme that needs no data.
    pub fn describe(self) -> Option<&'static str> {
        match self {
            Statistic::None => None,
            Statistic::InputCovariance => Some("covariance of the inputs"),
            Statistic::InputMoment => Some("second moment of the inputs"),
            Statistic::Gradient => Some("gradient"),
        }
    }

    /// The number of values for a layer with `n` outputs and `m` inputs.
    pub fn values(self, n: usize, m: usize) -> usize {
        match self {
            Statistic::None => 0,
            Statistic::InputCovariance | Statistic::InputMoment => m * m,
            Statistic::Gradient => n * m,
        }
    }
}

/// A statistic of one layer with weight (n, m), in the form in which its scheme takes it.
#[derive(Debug, Clone)]
pub enum Observed {
    /// Of [`Statistic::InputCovariance`].
    Components(Components),
    /// Of [`Statistic::InputMoment`]: (m, m), symmetric.
    InputMoment(Vec<f32>),
    /// Of [`Statistic::Gradient`]: (n, m), row-major, on any scale.
    Gradient(Vec<f32>),
}

/// Principal components of a layer's inputs.
#[derive(Debug, Clone, PartialEq)]
pub struct Components {
    /// Unit vectors (count, m), row-major, by descending variance.
    pub vectors: Vec<f32>,
    /// Share of the total variance that each explains.
    pub ratios: Vec<f64>,
}

/// An error that names the layer when the statistic is not finite or has another length than the layer asks for.
pub(super) fn check(path: &str, what: &str, values: &[f32], len: usize) -> Result<()> {
    if values.len() != len {
        return Err(Error::layer(path, format!("expected {len} values of its {what}, found {}", values.len())));
    }
    match values.iter().all(|x| x.is_finite()) {
        true => Ok(()),
        false => Err(Error::layer(path, format!("its {what} on the calibration data is not finite"))),
    }
}
