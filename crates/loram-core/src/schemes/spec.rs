//! A scheme's name and options, as a configuration gives them.

use super::{CordaMethod, SCHEMES, SchemeInfo, Statistic, WeightUse, lora_alpha};
use crate::basis::Basis;
use crate::first_step::FirstStep;
use crate::gain::{Gain, GainStatistic};
use crate::quantise::Quantizer;
use crate::targets::LayerPlan;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Options of schemes, with the names they have in a configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SchemeOptions {
    /// Basis of `loram`.
    pub basis: Basis,
    /// Gain of `loram`.
    pub gain: Gain,
    /// Statistic of `loram`.
    pub gain_statistic: GainStatistic,
    /// The run's first step, which the gain `auto` reads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_step: Option<FirstStep>,
    /// Largest rank of a layer under `eva`, in multiples of r; 1: ranks stay.
    pub rho: f64,
    /// Triples that `corda` takes.
    pub corda_method: CordaMethod,
    /// γ of `lora-ga`: both factors are n^¼/√γ times unit vectors.
    pub stable_gamma: f64,
    /// Quantisation that `loftq` makes up for.
    pub loftq_quantizer: Quantizer,
    /// Turns of `loftq`.
    pub loftq_iter: usize,
    /// Multiple of the scheme's A₀, for every scheme.
    #[serde(skip_serializing_if = "super::is_one")]
    pub init_scale_a: f64,
    /// Multiple of the scheme's B₀, for every scheme.
    #[serde(skip_serializing_if = "super::is_one")]
    pub init_scale_b: f64,
}

impl Default for SchemeOptions {
    fn default() -> SchemeOptions {
        SchemeOptions {
            basis: Basis::default(),
            gain: Gain::default(),
            gain_statistic: GainStatistic::default(),
            first_step: None,
            rho: 2.0,
            corda_method: CordaMethod::default(),
            stable_gamma: 16.0,
            loftq_quantizer: Quantizer::default(),
            loftq_iter: 1,
            init_scale_a: 1.0,
            init_scale_b: 1.0,
        }
    }
}

/// A scheme with its options.
#[derive(Clone)]
pub struct SchemeSpec {
    info: &'static SchemeInfo,
    /// Power iterations of `pissa-niter-k`.
    pub niter: Option<usize>,
    /// Options.
    pub options: SchemeOptions,
}

impl SchemeSpec {
    /// Parses a name; `_` is `-`, and PEFT's `true` is `lora`. Errors: an unknown name (all are listed, with the nearest),
    /// an option that the scheme does not take.
    pub fn parse(name: &str, options: &SchemeOptions) -> Result<SchemeSpec> {
        let plain = name.to_ascii_lowercase().replace('_', "-");
        let (plain, niter) = match plain.strip_prefix("pissa-niter-") {
            Some(k) => ("pissa-niter-k", Some(k.parse().map_err(|_| unknown(name))?)),
            None if plain == "true" => ("lora", None),
            None => (plain.as_str(), None),
        };
        let info = SCHEMES.iter().find(|s| s.name == plain && s.name.ends_with("-k") == niter.is_some());
        let info = info.ok_or_else(|| unknown(name))?;
        let default = SchemeOptions::default();
        let given = [
            ("basis", options.basis != default.basis),
            ("gain", options.gain != default.gain),
            ("gain_statistic", options.gain_statistic != default.gain_statistic),
            ("rho", options.rho != default.rho),
            ("corda_method", options.corda_method != default.corda_method),
            ("stable_gamma", options.stable_gamma != default.stable_gamma),
            ("loftq_quantizer", options.loftq_quantizer != default.loftq_quantizer),
            ("loftq_iter", options.loftq_iter != default.loftq_iter),
        ];
        for (key, set) in given {
            if set && !info.options.contains(&key) {
                let owners: Vec<&str> = SCHEMES.iter().filter(|s| s.options.contains(&key)).map(|s| s.name).collect();
                let what = format!("is no option of `{name}`, only of `{}`", owners.join("`, `"));
                return Err(Error::setting(key, what));
            }
        }
        for (key, ok, expected) in [
            ("rho", options.rho.is_finite() && options.rho >= 1.0, "a number of at least 1"),
            ("stable_gamma", options.stable_gamma.is_finite() && options.stable_gamma > 0.0, "a number above 0"),
            ("loftq_iter", options.loftq_iter > 0, "at least 1"),
            ("init_scale_a", options.init_scale_a.is_finite() && options.init_scale_a > 0.0, "a number above 0"),
            ("init_scale_b", options.init_scale_b.is_finite() && options.init_scale_b > 0.0, "a number above 0"),
        ] {
            if !ok {
                return Err(Error::setting(key, format!("expected {expected}")));
            }
        }
        Ok(SchemeSpec { info, niter, options: options.clone() })
    }

    /// Facts about the scheme.
    pub fn info(&self) -> &'static SchemeInfo {
        self.info
    }

    /// What it reads of a weight, with these options.
    pub fn weight_use(&self) -> WeightUse {
        match (&self.options.gain, self.info.needs_weight) {
            (_, false) => WeightUse::Shape,
            (_, true) if self.info.name != "loram" => WeightUse::Decomposition,
            (Gain::Exact, _) => WeightUse::Decomposition,
            (Gain::Track(scheme), _) => SchemeSpec::parse(scheme, &Default::default())
                .map_or(WeightUse::Decomposition, |reference| reference.weight_use().max(WeightUse::Pass)),
            _ => WeightUse::Pass,
        }
    }

    /// Whether a weight is read once at most, and nothing else is needed: then it need not lie in memory, see
    /// [`initialize_in_pass`](crate::initialize_in_pass).
    pub fn one_pass(&self) -> bool {
        self.statistic() == Statistic::None && self.weight_use() <= WeightUse::Pass
    }

    /// Whether the shape of a weight and the sums Σx and Σx² of its values are all that is read of it.
    pub fn sums_suffice(&self) -> bool {
        self.one_pass() && (self.weight_use() == WeightUse::Shape || self.options.gain != Gain::Sketch)
    }

    /// Whether A₀ and B₀ are each proportional to 1/√s: [`SchemeInfo::over_scaling`], or that of the scheme that LoRAM's
    /// gain tracks.
    pub fn over_scaling(&self) -> bool {
        match &self.options.gain {
            Gain::Track(scheme) => {
                SchemeSpec::parse(scheme, &Default::default()).is_ok_and(|reference| reference.over_scaling())
            }
            _ => self.info.over_scaling,
        }
    }

    /// What it needs of a run of the model on calibration data: that of the scheme, or of the one that LoRAM's gain tracks.
    pub fn statistic(&self) -> Statistic {
        match &self.options.gain {
            Gain::Track(scheme) => SchemeSpec::parse(scheme, &Default::default())
                .map_or(Statistic::None, |reference| reference.statistic()),
            Gain::Auto(_) => Statistic::Gradient,
            _ => self.info.statistic,
        }
    }

    /// The plan with what the scheme sets itself: `lora-alpha` its `lora_alpha`, and with it the scaling. Others leave it.
    pub fn adjust(&self, plan: &LayerPlan) -> Result<LayerPlan> {
        if self.info.name == "lora-alpha" { lora_alpha::adjust(plan) } else { Ok(plan.clone()) }
    }
}

fn unknown(name: &str) -> Error {
    let all: Vec<&str> = SCHEMES.iter().map(|s| s.name).collect();
    let nearest = all.iter().max_by(|a, b| strsim::jaro_winkler(a, name).total_cmp(&strsim::jaro_winkler(b, name)));
    let near = nearest.filter(|n| strsim::jaro_winkler(n, name) > 0.8);
    let hint = near.map_or(String::new(), |n| format!("; did you mean `{n}`?"));
    Error::setting("init_lora_weights", format!("unknown scheme `{name}`; there are {}{hint}", all.join(", ")))
}

impl std::fmt::Display for SchemeSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.niter {
            Some(k) => write!(f, "pissa-niter-{k}"),
            None => f.write_str(self.info.name),
        }
    }
}

impl std::fmt::Debug for SchemeSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SchemeSpec({self}, {:?})", self.options)
    }
}

impl PartialEq for SchemeSpec {
    fn eq(&self, other: &SchemeSpec) -> bool {
        self.to_string() == other.to_string() && self.options == other.options
    }
}
