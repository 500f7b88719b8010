//! How far training is going to move the layers of a checkpoint (Proposition 2 of 2507.06558), without training: each
//! target's weight is read once, where it lies.

use crate::family::TensorNames;
use crate::init::{Progress, each};
use crate::layer_weight::LayerWeight;
use crate::linear::{embedding_paths, refuse_other_targets};
use crate::{Checkpoint, Error, ModelConfig, Result, target_modules};
use loram_core::equivalence::Optimizer;
use loram_core::growth::{InitMagnitude, Knob, largest_k1, rank_share};
use loram_core::{
    LayerPlan, LoraConfig, SchemeInfo, SchemeOptions, SchemeSpec, Statistic, exact_gain, log_gain, plan_layers,
    registry, singular_values, sketch_spectrum,
};
use serde::Serialize;

/// The run whose magnitude is predicted.
#[derive(Debug, Clone)]
pub struct PlanOptions {
    /// PEFT's settings.
    pub lora: LoraConfig,
    /// The initialisation.
    pub scheme: SchemeSpec,
    /// Seed of random initialisations and of the sketch.
    pub seed: u64,
    /// Kind of the optimiser's steps.
    pub optimizer: Optimizer,
    /// Learning rate of A.
    pub lr_a: f64,
    /// Learning rate of B.
    pub lr_b: f64,
    /// Compute singular values (an SVD of each layer) instead of estimating them in one pass.
    pub exact: bool,
    /// The run that is to be matched.
    pub matched: Option<MatchTarget>,
}

/// A run whose magnitude is to be reached.
#[derive(Debug, Clone)]
pub struct MatchTarget {
    /// Its initialisation.
    pub scheme: SchemeSpec,
    /// Its learning rate, of both factors.
    pub lr: f64,
}

impl MatchTarget {
    /// Parses `SCHEME@RATE`. Errors: another form, an unknown scheme, one that needs data, a rate that is not above 0.
    pub fn parse(text: &str) -> Result<MatchTarget> {
        let wrong = |what: String| Error::Usage(format!("match: found `{text}`, {what}"));
        let (name, rate) =
            text.split_once('@').ok_or_else(|| wrong("expected SCHEME@RATE, such as lora@2e-4".into()))?;
        let scheme = SchemeSpec::parse(name.trim(), &SchemeOptions::default())?;
        if scheme.statistic() != Statistic::None {
            return Err(wrong(format!("but the initialisation of `{scheme}` follows from data, not from the weights")));
        }
        match rate.trim().parse() {
            Ok(lr) if lr > 0.0 && f64::is_finite(lr) => Ok(MatchTarget { scheme, lr }),
            _ => Err(wrong("expected a learning rate above 0 after the @".into())),
        }
    }
}

/// Q\[r\] of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Gains {
    /// ln r / ln min(n, m).
    pub log: f64,
    /// From the spectrum that one pass estimates.
    pub sketch: f64,
    /// From all singular values, where they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact: Option<f64>,
}

/// The predicted magnitude of one scheme: in a layer, or in all layers together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Growth {
    /// s⁴·k₁: ν\[ΔW\] after t steps of SGD is this times t·lr²·ν\[∇_W\]; full fine-tuning has 1. Of all layers together:
    /// the mean over their entries.
    pub k1: f64,
    /// ‖ΔW‖²_F of the first step at the rates in hand: under Adam as it is, under SGD for ν\[∇_W\] = 1.
    pub step_squares: f64,
    /// ‖ΔW‖_F of that step over ‖W‖_F.
    pub step_relative: f64,
}

/// The prediction for a layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlannedLayer {
    /// Module path.
    pub path: String,
    /// Output and input features.
    pub shape: [usize; 2],
    /// Rank.
    pub r: usize,
    /// Factor on B·A.
    pub scaling: f64,
    /// ν\[W\].
    pub nu_w: f64,
    /// Q\[r\].
    pub gains: Gains,
    /// Of the scheme in hand.
    pub growth: Growth,
    /// The largest s⁴·k₁ of factors whose product has at most the magnitude of W (Q = 1).
    pub largest_k1: f64,
    /// The largest share of a gradient of independent entries that an update of rank 2r can hold.
    pub rank_share: f64,
    /// Multiple of the knob that matches the target on this layer alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multiple: Option<f64>,
    #[serde(skip)]
    others: Vec<Option<Growth>>,
    #[serde(skip)]
    target: Option<f64>,
}

/// One scheme, over all layers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SchemeTotal {
    /// Canonical name.
    pub scheme: String,
    /// True for the one in hand, with its options.
    pub own: bool,
    /// Its predicted magnitude.
    pub growth: Growth,
    /// The learning rate at which it moves as far as the scheme in hand at its rate; absent where nothing moves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr_for_equal: Option<f64>,
}

/// The settings that match the target.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Match {
    /// Target's scheme.
    pub scheme: String,
    /// Target's rate.
    pub lr: f64,
    /// ‖ΔW‖_F of its first step over ‖W‖_F, all layers together.
    pub step_relative: f64,
    /// Multiples of the rates, of the scaling, and of A₀ and B₀: each alone makes the first steps equally large.
    pub rate: f64,
    /// See `rate`.
    pub scaling: f64,
    /// See `rate`.
    #[serde(rename = "start")]
    pub init: f64,
}

/// How far training is going to move the layers of a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MagnitudePlan {
    /// Canonical name of the scheme in hand.
    pub scheme: String,
    /// `sgd` or `adam`.
    pub optimizer: &'static str,
    /// Learning rate of A.
    pub lr_a: f64,
    /// Learning rate of B.
    pub lr_b: f64,
    /// Layers in the order of the model.
    pub layers: Vec<PlannedLayer>,
    /// Every scheme that needs no data and whose magnitude has a formula, the one in hand first.
    pub schemes: Vec<SchemeTotal>,
    /// Bytes of weights that were read.
    pub bytes_read: u64,
    /// The settings that match the target, where one was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matched: Option<Match>,
}

/// Predicts the magnitude of each target of a checkpoint. Errors: those of an initialisation ([`crate::init::init`]); a scheme that needs data; a target
/// whose update is 0.
pub fn plan(
    ckpt: &Checkpoint,
    cfg: Option<&ModelConfig>,
    options: &PlanOptions,
    progress: Progress<'_>,
) -> Result<MagnitudePlan> {
    if options.scheme.statistic() != Statistic::None {
        let what = format!(
            "the initialisation of `{}` follows from data: only training can say how far it moves",
            options.scheme
        );
        return Err(Error::Usage(what));
    }
    let names = TensorNames::of(ckpt, cfg)?;
    let targets = target_modules(ckpt, cfg)?;
    refuse_other_targets(ckpt, &names, &options.lora)?;
    let plans = plan_layers(&options.lora, &targets)?;
    let embeddings = embedding_paths(ckpt, &names);
    let others = compared(&options.scheme)?;
    let mut layers = Vec::new();
    let mut bytes_read = 0;
    let make = |p: &LayerPlan| {
        let weight = LayerWeight::find(ckpt, &names, &p.path)?;
        let layer = planned(&weight, p, options, &others, embeddings.contains(&p.path))?;
        let bytes = weight.tensor.bytes().len();
        weight.tensor.release();
        Ok((layer, bytes))
    };
    each(&plans, make, |i, (layer, bytes)| {
        bytes_read += bytes as u64;
        layers.push(layer);
        progress(i + 1, plans.len(), &plans[i].path);
        Ok(())
    })?;
    let schemes = totals(options, &others, &layers);
    let matched = options.matched.as_ref().map(|t| matching(options, t, &layers, schemes[0].growth)).transpose()?;
    Ok(MagnitudePlan {
        scheme: options.scheme.to_string(),
        optimizer: match options.optimizer {
            Optimizer::Sgd => "sgd",
            Optimizer::Adam => "adam",
        },
        lr_a: options.lr_a,
        lr_b: options.lr_b,
        layers,
        schemes,
        bytes_read,
        matched,
    })
}

/// The schemes to compare with: those without data, at their default options, whose magnitude has a formula. Families
/// with a number in their name are left out.
fn compared(own: &SchemeSpec) -> Result<Vec<SchemeSpec>> {
    let formula = |s: &SchemeInfo| s.magnitude.is_some() && s.family().is_none();
    let listed = registry().iter().filter(|s| s.statistic == Statistic::None && formula(s));
    let specs = listed.map(|s| Ok(SchemeSpec::parse(s.name, &SchemeOptions::default())?));
    Ok(specs.collect::<Result<Vec<_>>>()?.into_iter().filter(|s| s != own).collect())
}

fn planned(
    weight: &LayerWeight,
    p: &LayerPlan,
    o: &PlanOptions,
    others: &[SchemeSpec],
    embedding: bool,
) -> Result<PlannedLayer> {
    weight.with(p.n, p.m, |w| {
        let squares = w.sums().1;
        let nu_w = squares / (p.n * p.m) as f64;
        let estimate = sketch_spectrum(&p.path, w, o.seed)?;
        let computed = if o.exact { Some(singular_values(&p.path, w)?) } else { None };
        let sigma = computed.as_ref().unwrap_or(&estimate);
        let growth = |init: &InitMagnitude, lr_a, lr_b| {
            let step_squares = init.first_step(o.optimizer, lr_a, lr_b) * (p.n * p.m) as f64;
            let k1 = init.scaling.powi(4) * init.k1();
            Growth { k1, step_squares, step_relative: (step_squares / squares).sqrt() }
        };
        let predict = |spec: &SchemeSpec| InitMagnitude::predict(spec, w, p, o.seed, sigma, embedding);
        let own = predict(&o.scheme)?;
        let other = |spec: &SchemeSpec| {
            // an initialisation that this rank does not allow is not a reason to stop
            let init = predict(spec).ok()?;
            Some(growth(&init, o.lr_a, o.lr_b))
        };
        let own_growth = growth(&own, o.lr_a, o.lr_b);
        let target = match &o.matched {
            Some(t) => Some(growth(&predict(&t.scheme)?, t.lr, t.lr).step_squares),
            None => None,
        };
        let multiple = |t: f64| Knob::Rate.multiple(o.optimizer, false, own_growth.step_squares, t);
        Ok(PlannedLayer {
            path: p.path.clone(),
            shape: [p.n, p.m],
            r: p.r,
            scaling: own.scaling,
            nu_w,
            gains: Gains {
                log: log_gain(p.r, p.n, p.m),
                sketch: exact_gain(&estimate, p.r),
                exact: computed.as_ref().map(|s| exact_gain(s, p.r)),
            },
            growth: own_growth,
            largest_k1: own.scaling.powi(4) * largest_k1(p.n, p.m, nu_w),
            rank_share: rank_share(p.n, p.m, 2 * p.r),
            multiple: target.map(multiple).filter(|x| x.is_finite()),
            others: others.iter().map(other).collect(),
            target,
        })
    })?
}

/// All layers together; `None` where one of them has no figure.
fn sum<'a>(layers: &'a [PlannedLayer], of: impl Fn(&'a PlannedLayer) -> Option<Growth>) -> Option<Growth> {
    let (mut entries, mut squares, mut out) = (0.0, 0.0, Growth::default());
    for l in layers {
        let (own, g) = ((l.shape[0] * l.shape[1]) as f64, of(l)?);
        entries += own;
        squares += own * l.nu_w;
        out.k1 += own * g.k1;
        out.step_squares += g.step_squares;
    }
    out.k1 /= entries;
    out.step_relative = (out.step_squares / squares).sqrt();
    Some(out)
}

fn totals(o: &PlanOptions, others: &[SchemeSpec], layers: &[PlannedLayer]) -> Vec<SchemeTotal> {
    let own = sum(layers, |l| Some(l.growth)).unwrap_or_default();
    let total = |scheme: String, growth: Growth, is_own| SchemeTotal {
        lr_for_equal: Some(o.lr_a * Knob::Rate.multiple(o.optimizer, false, growth.step_squares, own.step_squares))
            .filter(|x| x.is_finite() && growth.step_squares > 0.0),
        scheme,
        own: is_own,
        growth,
    };
    let mut out = vec![total(o.scheme.to_string(), own, true)];
    for (i, spec) in others.iter().enumerate() {
        if let Some(growth) = sum(layers, |l| l.others[i]) {
            out.push(total(spec.to_string(), growth, false));
        }
    }
    out
}

fn matching(o: &PlanOptions, t: &MatchTarget, layers: &[PlannedLayer], own: Growth) -> Result<Match> {
    let wanted: f64 = layers.iter().filter_map(|l| l.target).sum();
    let over = o.scheme.over_scaling();
    let multiple = |knob: Knob| knob.multiple(o.optimizer, over, own.step_squares, wanted);
    if wanted.is_nan() || wanted <= 0.0 || own.step_squares <= 0.0 {
        let what = format!("match: the first step of `{}` or of `{}` does not move anything", o.scheme, t.scheme);
        return Err(Error::Usage(what));
    }
    let squares: f64 = layers.iter().map(|l| l.nu_w * (l.shape[0] * l.shape[1]) as f64).sum();
    Ok(Match {
        scheme: t.scheme.to_string(),
        lr: t.lr,
        step_relative: (wanted / squares).sqrt(),
        rate: multiple(Knob::Rate),
        scaling: multiple(Knob::Scaling),
        init: multiple(Knob::Initialization),
    })
}
