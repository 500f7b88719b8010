//! A very sparse random projection (Li, Hastie and Church, KDD 2006) as A, B = 0: most entries of A are 0, the others ±c,
//! with the variance that LoRA's own initialisation has.

use loram_core::growth::InitMagnitude;
use loram_core::option::number;
use loram_core::{Context, OptionInfo, Result, SchemeFactors, SchemeInfo};

pub static SPARSE: SchemeInfo = SchemeInfo {
    summary: "A sparse: ±1/sqrt(3·density·in_features) with probability density, else 0; B = 0",
    source: "KDD 2006",
    options: &[DENSITY],
    // what `loram plan` and `--solve` ask for; without a formula they initialise the layer and look
    magnitude: Some(|_, layer| Some(InitMagnitude::independent(layer, 1.0 / (3 * layer.m) as f64, 0.0))),
    ..SchemeInfo::new("sparse", init)
};

/// A key of configurations, with the help text and the check of every other key.
const DENSITY: OptionInfo = OptionInfo {
    key: "density",
    help: "Share of the entries of A that are not 0 under sparse",
    expected: "a number in (0, 1]",
    default: "0.1",
    read: |value| number(value, |x| x > 0.0 && x <= 1.0),
};

fn init(layer: &Context<'_>) -> Result<SchemeFactors> {
    let (n, m, r) = layer.shape();
    let density: f64 = layer.option(&DENSITY)?;
    let size = (1.0 / (3.0 * density * m as f64)).sqrt() as f32;
    // uniform in ±1: a stream that depends on the seed and the layer alone
    let uniform = layer.stream(0).uniform(r * m, 1.0);
    let kept = |x: &f32| if f64::from(x.abs()) < density { size.copysign(*x) } else { 0.0 };
    Ok(SchemeFactors::new(uniform.iter().map(kept).collect(), vec![0.0; n * r]))
}
