//! Starts of adapters: one file each, listed in [`registry`].

mod corda;
mod eva;
mod gaussian;
mod init_ab;
mod loftq;
mod lora;
mod lora_alpha;
mod lora_ga;
mod loram;
mod mica;
mod milora;
mod observed;
mod olora;
mod orthogonal;
mod pass;
mod pissa;
mod rlmo;
mod rlpo;
mod spec;

pub use corda::CordaMethod;
pub use eva::{eva_components, principal_components, redistribute_ranks};
pub use loftq::quantised_base;
pub use observed::{Components, Observed, Statistic};
pub use pass::{initialize_from_sums, initialize_in_pass};
pub use spec::{SchemeOptions, SchemeSpec};

use crate::basis::Basis;
use crate::lanczos::{self, End};
use crate::linalg::Svd;
use crate::rng::Stream;
use crate::targets::LayerPlan;
use crate::weight::{MatRef, Weight, WeightRef};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// What a scheme reads of the layer's weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WeightUse {
    /// Its shape alone.
    Shape,
    /// Its values once, in one pass, without a copy.
    Pass,
    /// A decomposition.
    Decomposition,
}

/// What there is to say about a scheme: CLI help, validation and the table in the documentation are made from it.
#[derive(Clone, Copy)]
pub struct SchemeInfo {
    /// Name in a configuration; a trailing `-k` stands for a number.
    pub name: &'static str,
    /// One line.
    pub summary: &'static str,
    /// Paper (arXiv number) or program.
    pub source: &'static str,
    /// Whether the weight's values are needed.
    pub needs_weight: bool,
    /// Whether B₀A₀ ≠ 0, so that the base changes to W − s·B₀A₀.
    pub changes_base: bool,
    /// Whether A₀ and B₀ are each proportional to 1/√s, so that s·B₀A₀ is the same at every scaling s.
    pub over_scaling: bool,
    /// What it needs of a run of the model on calibration data.
    pub statistic: Statistic,
    /// Options it takes.
    pub options: &'static [&'static str],
    start: fn(&Context<'_>) -> Result<Factors>,
}

impl std::fmt::Debug for SchemeInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}): {}", self.name, self.source, self.summary)
    }
}

/// A new scheme is one file and one line here.
static SCHEMES: [SchemeInfo; 17] = [
    loram::INFO,
    lora::INFO,
    gaussian::INFO,
    pissa::INFO,
    pissa::RANDOMISED,
    milora::INFO,
    olora::INFO,
    orthogonal::INFO,
    init_ab::INFO,
    rlpo::INFO,
    rlmo::INFO,
    mica::INFO,
    lora_alpha::INFO,
    eva::INFO,
    corda::INFO,
    lora_ga::INFO,
    loftq::INFO,
];

/// All schemes, the default first.
pub fn registry() -> &'static [SchemeInfo] {
    &SCHEMES
}

/// What a scheme works on.
struct Context<'a> {
    w: Weight<'a>,
    plan: &'a LayerPlan,
    seed: u64,
    spec: &'a SchemeSpec,
    known: Known<'a>,
}

impl Context<'_> {
    /// The error of a data-driven scheme without its data.
    fn unobserved(&self) -> Error {
        let what = self.spec.statistic().describe().unwrap_or("work");
        let what = format!("`{}` starts from the layer's {what} on calibration data, and none is given", self.spec);
        Error::layer(&self.plan.path, what)
    }

    /// The random stream of a factor of this layer.
    fn stream(&self, factor: u64) -> Stream {
        Stream::new(self.seed, &self.plan.path, factor)
    }

    /// Outputs, inputs, rank.
    fn shape(&self) -> (usize, usize, usize) {
        (self.plan.n, self.plan.m, self.plan.r)
    }

    /// The weight in f32, checked.
    fn values(&self) -> Result<Cow<'_, [f32]>> {
        self.check_finite(self.w.data.sums().1)?;
        Ok(self.w.data.to_f32())
    }

    /// An error that names the layer when ‖W‖² says that some value is not finite.
    fn check_finite(&self, squares: f64) -> Result<()> {
        match squares.is_finite() {
            true => Ok(()),
            false => Err(Error::layer(&self.plan.path, "its weight holds NaN or infinite values")),
        }
    }

    /// r singular triples of the weight.
    fn triples(&self, end: End) -> Result<Svd> {
        let (n, m, r) = self.shape();
        let w = self.values()?;
        lanczos::triples(&self.plan.path, &w, (n, m), end, r)
    }

    /// Half of a triple's σ/s belongs to each factor: √(σ/s).
    fn roots(&self, sigma: &[f64]) -> Result<Vec<f64>> {
        let s = self.plan.scaling;
        if s > 0.0 && s.is_finite() {
            return Ok(sigma.iter().map(|x| (x / s).sqrt()).collect());
        }
        let what =
            format!("scaling is {s}, and `{}` takes the root of σ/scaling: lora_alpha must be positive", self.spec);
        Err(Error::layer(&self.plan.path, what))
    }
}

/// Factors of a start: A (r, m), B (n, r), and what LoRAM has to say about them.
struct Factors {
    a: Vec<f32>,
    b: Vec<f32>,
    train_a: bool,
    train_b: bool,
    beta: Option<f64>,
    gain: Option<f64>,
}

impl Factors {
    fn new(a: Vec<f32>, b: Vec<f32>) -> Factors {
        Factors { a, b, train_a: true, train_b: true, beta: None, gain: None }
    }

    /// A = diag(roots)·Vᵀ, B = U·diag(roots).
    fn of_triples(d: &Svd, roots: &[f64]) -> Factors {
        Factors::new(columns_as_rows(&d.v, roots), scaled_columns(&d.u, roots))
    }
}

/// The columns of X (len, r), scaled, as rows: (r, len) row-major.
fn columns_as_rows(x: &faer::Mat<f64>, scale: &[f64]) -> Vec<f32> {
    x.col_iter().zip(scale).flat_map(|(c, s)| c.iter().map(move |x| (x * s) as f32)).collect()
}

/// The columns of X (len, r), scaled: (len, r) row-major.
fn scaled_columns(x: &faer::Mat<f64>, scale: &[f64]) -> Vec<f32> {
    x.row_iter().flat_map(|row| row.iter().zip(scale).map(|(x, s)| (x * s) as f32).collect::<Vec<_>>()).collect()
}

/// The start of one layer.
#[derive(Debug, Clone)]
pub struct Initialization {
    /// A₀, (r, m) row-major.
    pub a: Vec<f32>,
    /// B₀, (n, r) row-major.
    pub b: Vec<f32>,
    /// Whether B₀A₀ ≠ 0: then the base has to become W − s·B₀A₀ ([`crate::residual`]) for the model's output to stay.
    pub changes_base: bool,
    /// Factor on B·A: the plan's, unless the scheme sets `lora_alpha` itself.
    pub scaling: f64,
    /// The `lora_alpha` that belongs to it: the plan's, unless the scheme sets it.
    pub lora_alpha: f64,
    /// Whether A is trained.
    pub train_a: bool,
    /// Whether B is trained.
    pub train_b: bool,
    /// How it was made.
    pub recipe: LayerRecipe,
}

/// How a layer's start was made. For LoRAM, and for schemes that read nothing but the shape, this is enough to make it
/// again bit for bit ([`from_recipe`]).
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
    /// What the scheme's A₀ was multiplied by.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub init_scale_a: f64,
    /// What the scheme's B₀ was multiplied by.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub init_scale_b: f64,
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

fn one() -> f64 {
    1.0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_one(x: &f64) -> bool {
    *x == 1.0
}

/// The factors times the scales of a recipe or a configuration.
fn scale(f: &mut Factors, of_a: f64, of_b: f64) {
    for (values, scale) in [(&mut f.a, of_a), (&mut f.b, of_b)] {
        if scale != 1.0 {
            values.iter_mut().for_each(|x| *x = (f64::from(*x) * scale) as f32);
        }
    }
}

/// Starts the adapter of a layer with weight `w` in f32: see [`initialize_from`].
pub fn initialize(spec: &SchemeSpec, w: MatRef<'_>, plan: &LayerPlan, seed: u64) -> Result<Initialization> {
    initialize_from(spec, w.into(), plan, seed)
}

/// Starts the adapter of a layer with weight `w`, in the type in which it is stored. Schemes that use no more than a
/// pass over it ([`SchemeSpec::weight_use`]) do not convert it.
///
/// Deterministic in (weight, plan, seed), whatever the number of threads and the order of layers. Errors name the layer:
/// a weight that is not finite or has another shape, a rank that the scheme cannot have.
pub fn initialize_from(spec: &SchemeSpec, w: Weight<'_>, plan: &LayerPlan, seed: u64) -> Result<Initialization> {
    initialize_observed(spec, w, plan, seed, None)
}

/// [`initialize_from`] for schemes that need a [`Statistic`] of the layer on calibration data; others ignore `observed`.
/// A data-driven scheme without it is an error, as is a statistic of another kind or shape.
pub fn initialize_observed(
    spec: &SchemeSpec,
    w: Weight<'_>,
    plan: &LayerPlan,
    seed: u64,
    observed: Option<&Observed>,
) -> Result<Initialization> {
    if (w.rows, w.cols, w.data.len()) != (plan.n, plan.m, plan.n * plan.m) {
        let what = format!("expected a weight ({}, {}), found ({}, {})", plan.n, plan.m, w.rows, w.cols);
        return Err(Error::layer(&plan.path, what));
    }
    start(spec, w, plan, seed, Known { pass: None, observed })
}

/// What is known of a layer beside its weight.
#[derive(Clone, Copy, Default)]
struct Known<'a> {
    /// Of the pass over the weight, where it was made already.
    pass: Option<&'a pass::Seen>,
    observed: Option<&'a Observed>,
}

fn start(spec: &SchemeSpec, w: Weight<'_>, plan: &LayerPlan, seed: u64, known: Known<'_>) -> Result<Initialization> {
    check_rank(plan)?;
    let plan = spec.adjust(plan)?;
    let mut f = (spec.info().start)(&Context { w, plan: &plan, seed, spec, known })?;
    let SchemeOptions { init_scale_a, init_scale_b, .. } = spec.options;
    scale(&mut f, init_scale_a, init_scale_b);
    let recipe = LayerRecipe {
        scheme: spec.to_string(),
        path: plan.path.clone(),
        n: plan.n,
        m: plan.m,
        r: plan.r,
        scaling: plan.scaling,
        seed,
        init_scale_a,
        init_scale_b,
        beta: f.beta,
        gain: f.gain,
        basis: f.beta.map(|_| spec.options.basis),
    };
    Ok(Initialization {
        a: f.a,
        b: f.b,
        changes_base: spec.info().changes_base,
        scaling: plan.scaling,
        lora_alpha: plan.lora_alpha,
        train_a: f.train_a,
        train_b: f.train_b,
        recipe,
    })
}

/// A rank from 1 to min(n, m).
pub(crate) fn check_rank(plan: &LayerPlan) -> Result<()> {
    let (n, m, r) = (plan.n, plan.m, plan.r);
    if r == 0 {
        return Err(Error::layer(&plan.path, "expected a rank r of at least 1, found 0"));
    }
    if r > n.min(m) {
        let what = format!("r = {r} is larger than the smaller side of its weight ({n}, {m})");
        return Err(Error::layer(&plan.path, what));
    }
    Ok(())
}

/// The start (A₀ (r, m), B₀ (n, r)) of a recipe, bit for bit as it was. `None` when it needs the weight (the schemes that
/// decompose it) or calibration data, or when the recipe is none that this crate writes.
pub fn from_recipe(recipe: &LayerRecipe) -> Option<(Vec<f32>, Vec<f32>)> {
    let LayerRecipe { n, m, r, .. } = *recipe;
    let spec = SchemeSpec::parse(&recipe.scheme, &Default::default()).ok()?;
    let plan = LayerPlan { path: recipe.path.clone(), n, m, r, lora_alpha: 0.0, scaling: recipe.scaling };
    check_rank(&plan).ok()?;
    // a recipe is a file from elsewhere: no allocation that no layer can need
    (n.checked_add(m)?.checked_mul(r)? < 1 << 34).then_some(())?;
    let scaled = |mut f: Factors| {
        scale(&mut f, recipe.init_scale_a, recipe.init_scale_b);
        Some((f.a, f.b))
    };
    if let (Some(beta), Some(basis)) = (recipe.beta.filter(|b| b.is_finite()), recipe.basis) {
        let (a, b) = loram::factors(basis, &plan, recipe.seed, beta);
        return scaled(Factors::new(a, b));
    }
    if spec.weight_use() > WeightUse::Shape || spec.statistic() != Statistic::None {
        return None;
    }
    let none = Weight { data: WeightRef::F32(&[]), rows: n, cols: m };
    let context = Context { w: none, plan: &plan, seed: recipe.seed, spec: &spec, known: Known::default() };
    scaled((spec.info().start)(&context).ok()?)
}
