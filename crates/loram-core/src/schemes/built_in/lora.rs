//! LoRA's own initialisation (2106.09685) as PEFT has it: A uniform, B zero.

use crate::schemes::context::Context;
use crate::schemes::factors::SchemeFactors;
use crate::schemes::info::SchemeInfo;
use crate::Result;
use crate::growth::InitMagnitude;

pub(super) const INFO: SchemeInfo = SchemeInfo {
    aliases: &["true"],
    summary: "A uniform in ±1/sqrt(in_features) (kaiming_uniform, a = √5), B = 0",
    source: "2106.09685, PEFT `True`",
    magnitude: Some(|_, f| {
        let nu_a = if f.embedding { 1.0 } else { 1.0 / (3.0 * f.m as f64) };
        Some(InitMagnitude::independent(f, nu_a, 0.0))
    }),
    ..SchemeInfo::new("lora", init)
};

fn init(c: &Context<'_>) -> Result<SchemeFactors> {
    let (n, m, r) = c.shape();
    if c.is_embedding() {
        return Ok(of_embedding(c));
    }
    Ok(SchemeFactors::new(c.stream(0).uniform(r * m, 1.0 / (m as f64).sqrt()), vec![0.0; n * r]))
}

/// PEFT's adapter of an embedding, whatever the scheme of the linear layers: `lora_embedding_B`, which is Aᵀ, normal of
/// deviation 1, and `lora_embedding_A`, which is Bᵀ, zero.
pub(super) fn of_embedding(c: &Context<'_>) -> SchemeFactors {
    let (n, m, r) = c.shape();
    let a = c.stream(0).normals(r * m, 1.0);
    SchemeFactors::new(a.iter().map(|&x| x as f32).collect(), vec![0.0; n * r])
}
