//! CorDA (2406.05223): the singular value decomposition of W·C, C = the second moment of the layer's inputs, in place of
//! that of W. `ipm` takes what matters most for the calibration data, `kpm` what matters least, and so keeps it.

use crate::schemes::context::Context;
use crate::schemes::factors::{SchemeFactors, columns_as_rows};
use crate::schemes::info::SchemeInfo;
use crate::schemes::input::WeightUse;
use crate::schemes::observed::Statistic;
use crate::schemes::option::{OptionInfo, named};
use crate::Result;
use crate::linalg::{Spectrum, mat, rows, view, wide_product};
use serde::{Deserialize, Serialize};

pub(super) const INFO: SchemeInfo = SchemeInfo {
    summary: "W·C = UΣVᵀ with C = XᵀX of the inputs: A = √(Σ/s)·VᵀC⁻¹, B = U·√(Σ/s), first (ipm) or last (kpm) r",
    source: "2406.05223, PEFT `corda`",
    weight: WeightUse::Values,
    changes_base: true,
    over_scaling: true,
    statistic: Statistic::InputMoment,
    options: &[METHOD],
    ..SchemeInfo::new("corda", init)
};

const METHOD: OptionInfo = OptionInfo {
    key: "corda_method",
    help: "Mode of corda: ipm, or kpm to preserve knowledge that the calibration data show",
    expected: "ipm or kpm",
    default: "ipm",
    read: named::<CordaMethod>,
};

/// Which triples of W·C `corda` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum CordaMethod {
    /// Instruction-previewed mode: the first r, for calibration data of the task to learn.
    #[default]
    Ipm,
    /// Knowledge-preserved mode: the last r, for calibration data of the knowledge to keep.
    Kpm,
}

/// Share of the mean diagonal that is added to C's diagonal. PEFT starts with it and doubles it while its inverse in f32
/// is bad; nothing is inverted here.
const DAMPING: f64 = 0.01;

fn init(c: &Context<'_>) -> Result<SchemeFactors> {
    let (n, m, r) = c.shape();
    let moment = c.moment()?;
    let w = c.values()?;
    let mut context = mat(moment, m, m);
    let mean = (0..m).map(|i| context[(i, i)]).sum::<f64>() / m as f64;
    if mean <= 0.0 {
        return Err(c.error("its inputs are all 0 on the calibration data"));
    }
    (0..m).for_each(|i| context[(i, i)] += DAMPING * mean);
    let oriented = rows(wide_product(view(&w, n, m), context.as_ref()).as_ref());
    let spectrum = Spectrum::new(&c.plan().path, &oriented, n, m, true)?;
    let first = if c.option::<CordaMethod>(&METHOD)? == CordaMethod::Kpm { n.min(m) - r } else { 0 };
    let d = spectrum.triples(first, r);
    let roots = c.roots(&d.s)?;
    // Uᵀ·W·C = Σ·Vᵀ, so that Σ·VᵀC⁻¹ is UᵀW
    let projected = wide_product(view(&w, n, m).transpose(), d.u.as_ref());
    let over: Vec<f64> = d.s.iter().zip(&roots).map(|(s, root)| if *s > 0.0 { root / s } else { 0.0 }).collect();
    Ok(SchemeFactors::new(columns_as_rows(&projected, &over), d.left(&roots)))
}
