//! PEFT's `gaussian`: A normal of deviation 1/r, B zero.

use super::lora::of_embedding;
use crate::schemes::context::Context;
use crate::schemes::factors::SchemeFactors;
use crate::schemes::info::SchemeInfo;
use crate::Result;
use crate::growth::InitMagnitude;

pub(super) const INFO: SchemeInfo = SchemeInfo {
    summary: "A normal of deviation 1/r, B = 0",
    source: "PEFT `gaussian`",
    magnitude: Some(|_, f| {
        let nu_a = if f.embedding { 1.0 } else { 1.0 / (f.r * f.r) as f64 };
        Some(InitMagnitude::independent(f, nu_a, 0.0))
    }),
    ..SchemeInfo::new("gaussian", init)
};

fn init(c: &Context<'_>) -> Result<SchemeFactors> {
    if c.is_embedding() {
        return Ok(of_embedding(c));
    }
    let (n, m, r) = c.shape();
    let a = c.stream(0).normals(r * m, 1.0 / r as f64);
    Ok(SchemeFactors::new(a.iter().map(|&x| x as f32).collect(), vec![0.0; n * r]))
}
