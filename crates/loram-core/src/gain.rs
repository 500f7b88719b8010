//! The spectral gain Q[r] of LoRAM (2507.06558): which share of a weight's magnitude its start takes.

use crate::linalg;
use crate::rng::Stream;
use crate::schemes::SchemeSpec;
use crate::{Error, MatRef, Result};
use serde::{Deserialize, Serialize};

/// How Q[r] is found.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(try_from = "serde_json::Value", into = "serde_json::Value")]
pub enum Gain {
    /// ln r / ln min(n, m), both at least 2.
    #[default]
    Log,
    /// ln(r/2) / ln min(n, m), at least as for r/2 = 2.
    LogHalf,
    /// (Σ_{i≤r} σᵢ)² / (r·Σ σᵢ²) from all singular values.
    Exact,
    /// The same from a randomised estimate of the first r singular values.
    Sketch,
    /// The magnitude of another scheme's start.
    Track(String),
    /// A number in (0, 1].
    Value(f64),
}

impl Gain {
    /// Parses the name in a configuration.
    pub fn parse(name: &str) -> Result<Gain> {
        let bad = || {
            let expected = "log, log-half, exact, sketch, track:<scheme> or a number in (0, 1]";
            Error::setting("gain", format!("`{name}` is unknown; expected {expected}"))
        };
        Ok(match name {
            "log" => Gain::Log,
            "log-half" => Gain::LogHalf,
            "exact" => Gain::Exact,
            "sketch" => Gain::Sketch,
            _ => match name.strip_prefix("track:") {
                Some(scheme) => {
                    let spec = SchemeSpec::parse(scheme, &Default::default())?;
                    if !spec.info().basis_and_basis || spec.info().name == "loram" {
                        let what = format!("`{scheme}` has no magnitude to follow: its start is 0, or it is LoRAM");
                        return Err(Error::setting("gain", what));
                    }
                    Gain::Track(spec.to_string())
                }
                None => match name.parse() {
                    Ok(q) if q > 0.0 && q <= 1.0 => Gain::Value(q),
                    _ => return Err(bad()),
                },
            },
        })
    }

    /// Q[r] of a weight. `None` for [`Gain::Track`], which has a magnitude rather than a gain.
    pub(crate) fn value(&self, path: &str, w: MatRef<'_>, r: usize, seed: u64) -> Result<Option<f64>> {
        let side = w.rows.min(w.cols).max(2) as f64;
        Ok(Some(match self {
            Gain::Log => (r.max(2) as f64).ln() / side.ln(),
            Gain::LogHalf => (r as f64 / 2.0).max(2.0).ln() / side.ln(),
            Gain::Value(q) => *q,
            Gain::Exact => exact(&linalg::svd(path, &linalg::mat(w.data, w.rows, w.cols))?.s, r),
            Gain::Sketch => {
                let q = (r + 8).min(w.rows.min(w.cols));
                let omega = linalg::mat(&Stream::new(seed, path, 2).normals(w.cols * q, 1.0), w.cols, q);
                let s = linalg::randomised_svd(path, &linalg::mat(w.data, w.rows, w.cols), &omega, 1, r)?.s;
                let total: f64 = w.data.iter().map(|&x| f64::from(x).powi(2)).sum();
                if total == 0.0 { 0.0 } else { s.iter().sum::<f64>().powi(2) / (r as f64 * total) }
            }
            Gain::Track(_) => return Ok(None),
        }))
    }
}

/// Q[r] from singular values; 0 for a zero matrix.
pub fn exact(sigma: &[f64], r: usize) -> f64 {
    let total: f64 = sigma.iter().map(|s| s * s).sum();
    if total == 0.0 { 0.0 } else { sigma[..r].iter().sum::<f64>().powi(2) / (r as f64 * total) }
}

impl std::fmt::Display for Gain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Gain::Log => f.write_str("log"),
            Gain::LogHalf => f.write_str("log-half"),
            Gain::Exact => f.write_str("exact"),
            Gain::Sketch => f.write_str("sketch"),
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

/// Which statistic of the weight and of the basis product sets the magnitude.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GainStatistic {
    /// ν[X] = ‖X‖²_F / entries, as in the text of 2507.06558.
    #[default]
    SecondMoment,
    /// The unbiased, mean-removed variance, as in its authors' code.
    Variance,
}

impl GainStatistic {
    /// Parses the name in a configuration.
    pub fn parse(name: &str) -> Result<GainStatistic> {
        serde_json::from_value(name.into()).map_err(|_| {
            Error::setting("gain_statistic", format!("`{name}` is unknown; expected second-moment or variance"))
        })
    }

    /// Of a list of values, given the sums of x and x².
    pub(crate) fn of(self, count: usize, sum: f64, squares: f64) -> f64 {
        let n = count as f64;
        match self {
            GainStatistic::SecondMoment => squares / n,
            GainStatistic::Variance if count < 2 => 0.0,
            GainStatistic::Variance => (squares - sum * sum / n) / (n - 1.0),
        }
    }
}
