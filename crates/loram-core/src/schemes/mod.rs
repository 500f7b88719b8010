//! Starts of adapters: one file each, listed in [`registry`].

mod gaussian;
mod lora;
mod loram;
mod olora;
mod orthogonal;
mod spectral;

use crate::basis::Basis;
use crate::gain::{Gain, GainStatistic};
use crate::rng::Stream;
use crate::targets::LayerPlan;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

pub use loram::from_recipe;

/// A weight (rows, cols) = (out_features, in_features), row-major.
#[derive(Debug, Clone, Copy)]
pub struct MatRef<'a> {
    /// The values.
    pub data: &'a [f32],
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
}

/// Options of schemes, with the names they have in a configuration.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SchemeOptions {
    /// Basis of `loram`.
    pub basis: Basis,
    /// Gain of `loram`.
    pub gain: Gain,
    /// Statistic of `loram`.
    pub gain_statistic: GainStatistic,
}

/// What there is to say about a scheme.
#[derive(Debug, Clone, Copy)]
pub struct SchemeInfo {
    /// Name in a configuration.
    pub name: &'static str,
    /// One line.
    pub summary: &'static str,
    /// Paper or program.
    pub source: &'static str,
    /// Whether the weight's values are needed.
    pub needs_weight: bool,
    /// Whether B₀A₀ ≠ 0, so that the base changes to W − s·B₀A₀.
    pub basis_and_basis: bool,
    /// Options it takes.
    pub options: &'static [&'static str],
}

/// What a scheme works on.
pub(crate) struct Context<'a> {
    pub w: MatRef<'a>,
    pub plan: &'a LayerPlan,
    pub seed: u64,
    pub spec: &'a SchemeSpec,
}

impl Context<'_> {
    /// The random stream of a factor of this layer.
    pub fn stream(&self, factor: u64) -> Stream {
        Stream::new(self.seed, &self.plan.path, factor)
    }
}

/// Factors of a start: A (r, m), B (n, r), and for LoRAM its scale and gain.
pub(crate) struct Factors {
    pub a: Vec<f32>,
    pub b: Vec<f32>,
    pub beta: Option<f64>,
    pub gain: Option<f64>,
}

impl Factors {
    pub fn new(a: Vec<f32>, b: Vec<f32>) -> Factors {
        Factors { a, b, beta: None, gain: None }
    }
}

/// A scheme. One file, one line in the registry.
pub(crate) trait Scheme: Sync {
    fn info(&self) -> SchemeInfo;
    fn start(&self, c: &Context<'_>) -> Result<Factors>;
}

static SCHEMES: [&dyn Scheme; 7] = [
    &loram::Loram,
    &lora::Lora,
    &gaussian::Gaussian,
    &spectral::Spectral::Pissa,
    &spectral::Spectral::Milora,
    &olora::Olora,
    &orthogonal::Orthogonal,
];

/// All schemes, for help texts, validation and the documentation.
pub fn registry() -> Vec<SchemeInfo> {
    SCHEMES.iter().map(|s| s.info()).collect()
}

/// A scheme with its options.
#[derive(Clone)]
pub struct SchemeSpec {
    scheme: &'static dyn Scheme,
    /// Power iterations of `pissa-niter-k`.
    pub niter: Option<usize>,
    /// Options.
    pub options: SchemeOptions,
}

impl SchemeSpec {
    /// Parses a name (`pissa_niter_16` is `pissa-niter-16`; PEFT's `true` is `lora`). An unknown one is an error that
    /// lists all, with the nearest.
    pub fn parse(name: &str, options: &SchemeOptions) -> Result<SchemeSpec> {
        let plain = name.to_ascii_lowercase().replace('_', "-");
        let (base, niter) = match plain.strip_prefix("pissa-niter-") {
            Some(k) => ("pissa", Some(k.parse().map_err(|_| unknown(name))?)),
            None if plain == "true" => ("lora", None),
            None => (plain.as_str(), None),
        };
        let scheme = SCHEMES.iter().find(|s| s.info().name == base).ok_or_else(|| unknown(name))?;
        let given = [
            ("basis", options.basis != Basis::default()),
            ("gain", options.gain != Gain::default()),
            ("gain_statistic", options.gain_statistic != GainStatistic::default()),
        ];
        for (key, set) in given {
            if set && !scheme.info().options.contains(&key) {
                return Err(Error::setting(key, format!("is no option of `{base}`, only of `loram`")));
            }
        }
        Ok(SchemeSpec { scheme: *scheme, niter, options: options.clone() })
    }

    /// Facts about the scheme.
    pub fn info(&self) -> SchemeInfo {
        self.scheme.info()
    }
}

fn unknown(name: &str) -> Error {
    let all: Vec<&str> = SCHEMES.iter().map(|s| s.info().name).collect();
    let nearest = all.iter().max_by(|a, b| strsim::jaro_winkler(a, name).total_cmp(&strsim::jaro_winkler(b, name)));
    let hint = nearest.filter(|n| strsim::jaro_winkler(n, name) > 0.8).map_or(String::new(), |n| format!("; did you mean `{n}`?"));
    Error::setting("init_lora_weights", format!("unknown scheme `{name}`; there are {}, pissa-niter-<k>{hint}", all.join(", ")))
}

impl std::fmt::Display for SchemeSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.scheme.info().name)?;
        self.niter.map_or(Ok(()), |k| write!(f, "-niter-{k}"))
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

/// The start of one layer.
#[derive(Debug, Clone)]
pub struct Start {
    /// A₀, (r, m) row-major.
    pub a: Vec<f32>,
    /// B₀, (n, r) row-major.
    pub b: Vec<f32>,
    /// Whether B₀A₀ ≠ 0: then the base has to become W − s·B₀A₀ for the model's output to stay.
    pub changes_base: bool,
    /// Factor on B·A.
    pub scaling: f64,
    /// Whether A is trained.
    pub train_a: bool,
    /// Whether B is trained.
    pub train_b: bool,
    /// How it was made.
    pub recipe: LayerRecipe,
}

/// How a layer's start was made. For LoRAM on a basis without randomness these few numbers make it again bit for bit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerRecipe {
    /// Canonical name of the scheme.
    pub scheme: String,
    /// Module path, part of the random stream.
    pub path: String,
    /// Output features.
    pub n: usize,
    /// Input features.
    pub m: usize,
    /// Rank.
    pub r: usize,
    /// Factor on B·A.
    pub scaling: f64,
    /// Seed of the random stream.
    pub seed: u64,
    /// LoRAM's scale of both factors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beta: Option<f64>,
    /// LoRAM's gain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gain: Option<f64>,
    /// LoRAM's basis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basis: Option<Basis>,
}

/// Starts the adapter of a layer with weight `w`. Deterministic in (weight, plan, seed). Errors name the layer: a weight
/// that is not finite or has another shape, a rank that the scheme cannot have.
pub fn initialize(spec: &SchemeSpec, w: MatRef<'_>, plan: &LayerPlan, seed: u64) -> Result<Start> {
    if (w.rows, w.cols, w.data.len()) != (plan.n, plan.m, plan.n * plan.m) {
        let what = format!("expected a weight ({}, {}), found ({}, {})", plan.n, plan.m, w.rows, w.cols);
        return Err(Error::layer(&plan.path, what));
    }
    if plan.r == 0 || plan.r > plan.n.min(plan.m) {
        let what = format!("r = {} does not fit a weight ({}, {})", plan.r, plan.n, plan.m);
        return Err(Error::layer(&plan.path, what));
    }
    let info = spec.info();
    if info.needs_weight && !crate::magnitude::sums(w.data).1.is_finite() {
        return Err(Error::layer(&plan.path, "its weight holds NaN or infinite values"));
    }
    let f = spec.scheme.start(&Context { w, plan, seed, spec })?;
    let recipe = LayerRecipe {
        scheme: spec.to_string(),
        path: plan.path.clone(),
        n: plan.n,
        m: plan.m,
        r: plan.r,
        scaling: plan.scaling,
        seed,
        beta: f.beta,
        gain: f.gain,
        basis: f.beta.map(|_| spec.options.basis),
    };
    let (scaling, changes_base) = (plan.scaling, info.basis_and_basis);
    Ok(Start { a: f.a, b: f.b, changes_base, scaling, train_a: true, train_b: true, recipe })
}
