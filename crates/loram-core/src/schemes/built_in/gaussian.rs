//! PEFT's `gaussian`: A normal of deviation 1/r, B zero.

use crate::schemes::context::Context;
use crate::schemes::factors::SchemeFactors;
use crate::schemes::info::SchemeInfo;
use crate::Result;
use crate::growth::InitMagnitude;

pub(super) const INFO: SchemeInfo = SchemeInfo {
    summary: "A normal of deviation 1/r, B = 0",
    source: "PEFT `gaussian`",
    magnitude: Some(|_, f| Some(InitMagnitude::independent(f, 1.0 / (f.r * f.r) as f64, 0.0))),
    ..SchemeInfo::new("gaussian", init)
};

fn init(c: &Context<'_>) -> Result<SchemeFactors> {
    let (n, m, r) = c.shape();
    let a = c.stream(0).normals(r * m, 1.0 / r as f64);
    Ok(SchemeFactors::new(a.iter().map(|&x| x as f32).collect(), vec![0.0; n * r]))
}
