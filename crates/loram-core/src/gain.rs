//! The spectral gain Q\[r\] of LoRAM (2507.06558): the share of a weight's magnitude that s·B₀A₀ has.

use crate::linalg::Spectrum;
use crate::weight::StoredWeight;
use crate::{Error, Result, sketch};
use serde::{Deserialize, Serialize};

/// Ways to set Q\[r\].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(try_from = "serde_json::Value", into = "serde_json::Value")]
pub enum Gain {
    /// ln r / ln min(n, m), both at least 2. Free; two to three times too large for most trained layers at r ≤ 16.
    #[default]
    Log,
    /// ln(r/2) / ln min(n, m), with r/2 and min(n, m) at least 2.
    LogHalf,
    /// (Σ_{i≤r} σᵢ)² / (r·Σ σᵢ²) from all singular values.
    Exact,
    /// The same, estimated in one pass over the weight: within 10 to 20 % on trained layers.
    Sketch,
    /// The magnitude of another scheme's s·B₀A₀.
    Track(String),
    /// The gain with which the first update moves the weight by this share of its norm, and 1 at most: see [`crate::FirstStep`],
    /// which has the share where none is given.
    Auto(Option<f64>),
    /// A number in (0, 1].
    Value(f64),
}

impl Gain {
    /// Parses the name in a configuration.
    pub fn parse(name: &str) -> Result<Gain> {
        Ok(match name {
            "log" => Gain::Log,
            "log-half" | "log_half" => Gain::LogHalf,
            "exact" => Gain::Exact,
            "sketch" => Gain::Sketch,
            "auto" => Gain::Auto(None),
            _ if name.starts_with("auto:") => match name["auto:".len()..].parse() {
                Ok(share) if share > 0.0 && share <= 1.0 => Gain::Auto(Some(share)),
                _ => {
                    let what = format!("`{name}`: expected a share of the weight's norm in (0, 1] after `auto:`");
                    return Err(Error::setting("gain", what));
                }
            },
            _ => match name.strip_prefix("track:") {
                // whether there is such a scheme is for the registry to say
                Some(scheme) => Gain::Track(scheme.to_ascii_lowercase().replace('_', "-")),
                None => match name.parse() {
                    Ok(q) if q > 0.0 && q <= 1.0 => Gain::Value(q),
                    _ => {
                        let expected =
                            "log, log-half, exact, sketch, auto, auto:<share>, track:<scheme> or a number in (0, 1]";
                        return Err(Error::setting("gain", format!("`{name}` is unknown; expected {expected}")));
                    }
                },
            },
        })
    }

    /// Q\[r\] where the shape (n, m) is all that it takes, else `None`.
    pub(crate) fn of_shape(&self, r: usize, n: usize, m: usize) -> Option<f64> {
        match self {
            Gain::Log => Some(log_gain(r, n, m)),
            Gain::LogHalf => Some(libm::log((r as f64 / 2.0).max(2.0)) / libm::log(n.min(m).max(2) as f64)),
            Gain::Value(q) => Some(*q),
            Gain::Exact | Gain::Sketch | Gain::Auto(_) | Gain::Track(_) => None,
        }
    }
}

/// ln r / ln min(n, m), with both at least 2 inside the logarithm: r = 1 would give a dead adapter.
pub fn log_gain(r: usize, n: usize, m: usize) -> f64 {
    libm::log(r.max(2) as f64) / libm::log(n.min(m).max(2) as f64)
}

/// Q\[r\] from singular values in descending order; 0 for a zero matrix. An r beyond their number counts as their number.
pub fn exact(sigma: &[f64], r: usize) -> f64 {
    let total: f64 = sigma.iter().map(|s| s * s).sum();
    let top: f64 = sigma.iter().take(r).sum();
    if total == 0.0 { 0.0 } else { top * top / (r.min(sigma.len()) as f64 * total) }
}

/// All singular values of a weight (n, m), row-major, descending, in f64. Errors when the decomposition does not converge,
/// with `path`.
pub fn singular_values(path: &str, w: StoredWeight<'_>) -> Result<Vec<f64>> {
    singular_values_of(path, &w.to_f32(), w.rows(), w.cols())
}

/// The same of values in f32.
pub(crate) fn singular_values_of(path: &str, values: &[f32], n: usize, m: usize) -> Result<Vec<f64>> {
    Ok(Spectrum::new(path, values, n, m, false)?.s)
}

/// Estimate of Q\[r\] in one pass over the weight, deterministic in (seed, path): see [`Gain::Sketch`].
pub fn sketch_gain(path: &str, w: StoredWeight<'_>, r: usize, seed: u64) -> f64 {
    sketch::of_weight(path, w, seed).gain(r)
}

/// Estimate of all singular values from one pass over the weight, descending: the spectrum of which [`sketch_gain`] is the
/// gain. Values far down are those of a typical trained layer rather than of this one. Errors: a weight that is not finite.
pub fn sketch_spectrum(path: &str, w: StoredWeight<'_>, seed: u64) -> Result<Vec<f64>> {
    let found = sketch::of_weight(path, w, seed);
    match found.sums.1.is_finite() {
        true => Ok(found.spectrum()),
        false => Err(Error::layer(path, "its weight holds NaN or infinite values")),
    }
}

impl std::fmt::Display for Gain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Gain::Log => f.write_str("log"),
            Gain::LogHalf => f.write_str("log-half"),
            Gain::Exact => f.write_str("exact"),
            Gain::Sketch => f.write_str("sketch"),
            Gain::Auto(None) => f.write_str("auto"),
            Gain::Auto(Some(share)) => write!(f, "auto:{share}"),
            Gain::Track(s) => write!(f, "track:{s}"),
            Gain::Value(q) => write!(f, "{q}"),
        }
    }
}

impl TryFrom<serde_json::Value> for Gain {
    type Error = Error;
    fn try_from(v: serde_json::Value) -> Result<Gain> {
        match v {
            serde_json::Value::String(s) => Gain::parse(&s),
            other => Gain::parse(&other.to_string()),
        }
    }
}

impl From<Gain> for serde_json::Value {
    fn from(g: Gain) -> Self {
        match g {
            Gain::Value(q) => q.into(),
            other => other.to_string().into(),
        }
    }
}

/// Statistic of the weight and of the basis product that sets the magnitude.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GainStatistic {
    /// ν\[X\] = ‖X‖²_F / entries, as in the text of 2507.06558.
    #[default]
    SecondMoment,
    /// The unbiased, mean-removed variance, as in its authors' code.
    Variance,
}

impl GainStatistic {
    /// Returns the statistic of a list of values from the sums of x and x².
    pub(crate) fn of(self, count: usize, sum: f64, squares: f64) -> f64 {
        let n = count as f64;
        match self {
            GainStatistic::SecondMoment => squares / n,
            GainStatistic::Variance if count < 2 => 0.0,
            GainStatistic::Variance => ((squares - sum * sum / n) / (n - 1.0)).max(0.0),
        }
    }
}
