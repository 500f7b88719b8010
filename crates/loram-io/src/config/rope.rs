//! Rotary position embedding: parameters as transformers 4 (`rope_theta`, `rope_scaling`) and transformers 5
//! (`rope_parameters`) write them.

use super::fields::Fields;
use crate::Result;

/// Rotary embedding of a decoder: inverse frequencies `theta^(−2i/head_dim)`, changed by `scaling`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeConfig {
    /// Base of the frequencies.
    pub theta: f64,
    /// How a longer context changes the frequencies.
    pub scaling: RopeScaling,
    /// Share of a head that is rotated, its first elements.
    pub partial_rotary_factor: f64,
}

/// Treatment of `partial_rotary_factor` by a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PartialRotary {
    /// Its class in transformers rotates whole heads whatever the field says.
    Ignored,
    /// It rotates the first share of a head.
    #[expect(dead_code, reason = "the families that rotate a part of a head are not read yet")]
    Used,
}

/// How the frequencies change for a longer context.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All frequencies divided by `factor`.
    Linear {
        /// Ratio of the new length to that of pre-training.
        factor: f64,
    },
    /// NTK-aware: theta grows with the length of the sequence once that exceeds `original_max`.
    Dynamic {
        /// Ratio of the new length to that of pre-training.
        factor: f64,
        /// `max_position_embeddings` of the model.
        original_max: usize,
    },
    /// Llama 3.1: low frequencies divided by `factor`, high ones kept, the band between interpolated.
    Llama3 {
        /// Ratio of the new length to that of pre-training.
        factor: f64,
        /// Wavelengths longer than `original_max / low_freq_factor` are divided.
        low_freq_factor: f64,
        /// Wavelengths shorter than `original_max / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// Length of pre-training in tokens.
        original_max: usize,
    },
    /// YaRN (2309.00071).
    Yarn {
        /// Ratio of the new length to that of pre-training.
        factor: f64,
        /// Length of pre-training in tokens.
        original_max: usize,
        /// Rotations within `original_max` above which a frequency is kept.
        beta_fast: f64,
        /// Rotations within `original_max` below which a frequency is divided by `factor`.
        beta_slow: f64,
        /// Counts only together with `mscale_all_dim`.
        mscale: Option<f64>,
        /// Counts only together with `mscale`.
        mscale_all_dim: Option<f64>,
        /// As given in the config; [`RopeScaling::attention_factor`] has the value that counts.
        attention_factor: Option<f64>,
        /// Whether the ends of the ramp between are rounded to whole dimensions.
        truncate: bool,
    },
}

impl RopeScaling {
    /// Factor on cos and sin: 1 for all but YaRN, where it follows `attention_factor`, or `mscale` and
    /// `mscale_all_dim`, or `0.1·ln(factor) + 1`.
    pub fn attention_factor(&self) -> f64 {
        let RopeScaling::Yarn { factor, mscale, mscale_all_dim, attention_factor, .. } = self else { return 1.0 };
        let of = |m: f64| if *factor <= 1.0 { 1.0 } else { 0.1 * m * factor.ln() + 1.0 };
        match (attention_factor, mscale, mscale_all_dim) {
            (Some(a), ..) => *a,
            // zero counts as absent, as in transformers
            (None, Some(m), Some(all)) if *m != 0.0 && *all != 0.0 => of(*m) / of(*all),
            _ => of(1.0),
        }
    }
}

/// Reads either form. `max_positions` is `max_position_embeddings`.
pub(crate) fn parse(
    cfg: &Fields<'_>,
    default_theta: f64,
    max_positions: usize,
    partial: PartialRotary,
) -> Result<RopeConfig> {
    let (name, nested) = match cfg.object("rope_scaling")?.filter(|m| !m.is_empty()) {
        Some(m) => ("rope_scaling.", Some(m)),
        None => ("rope_parameters.", cfg.object("rope_parameters")?),
    };
    let empty = serde_json::Map::new();
    let rope = Fields { map: nested.unwrap_or(&empty), path: cfg.path, prefix: name };

    if let Some((key, _)) = rope.map.iter().find(|(_, v)| v.is_object()) {
        return Err(rope.error(key, "rotary parameters that differ between layer types are not supported"));
    }
    if rope.get("mrope_section").is_some() {
        return Err(rope.error("mrope_section", "multimodal rotary embedding is not supported: text models only"));
    }
    let theta = match rope.opt_f64("rope_theta")? {
        Some(t) => t,
        None => cfg.f64("rope_theta", default_theta)?,
    };
    if theta.is_nan() || theta <= 0.0 {
        return Err(cfg.error("rope_theta", format!("must be positive, found {theta}")));
    }
    let kind = match rope.opt_str("rope_type")? {
        Some(k) => k,
        None => rope.opt_str("type")?.unwrap_or("default"),
    };
    let need = |field: &str| {
        rope.opt_f64(field)?.ok_or_else(|| rope.error(field, format!("is missing for rope type `{kind}`")))
    };
    let factor = || match need("factor")? {
        f if f > 0.0 => Ok(f),
        f => Err(rope.error("factor", format!("must be positive, found {f}"))),
    };
    // a value beside the rope object wins over one inside, as in transformers
    let original_max = || match cfg.opt_usize("original_max_position_embeddings")? {
        Some(n) => Ok(n),
        None => rope.usize("original_max_position_embeddings", max_positions),
    };
    let scaling = match kind {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: factor()? },
        // transformers measures the growth from max_position_embeddings, whatever the original length
        "dynamic" => RopeScaling::Dynamic { factor: factor()?, original_max: max_positions },
        "llama3" => {
            let (low, high) = (need("low_freq_factor")?, need("high_freq_factor")?);
            if low.is_nan() || low <= 0.0 || high.is_nan() || high <= low {
                return Err(
                    rope.error("high_freq_factor", format!("must exceed low_freq_factor > 0, found {high} and {low}"))
                );
            }
            RopeScaling::Llama3 {
                factor: factor()?,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max: original_max()?,
            }
        }
        "yarn" => {
            let original_max = original_max()?.max(1);
            // zero counts as absent, as in transformers
            let nonzero = |field: &str, default: f64| -> Result<f64> {
                Ok(rope.opt_f64(field)?.filter(|b| *b != 0.0).unwrap_or(default))
            };
            RopeScaling::Yarn {
                factor: match rope.get("factor") {
                    Some(_) => factor()?,
                    None => max_positions as f64 / original_max as f64,
                },
                original_max,
                beta_fast: nonzero("beta_fast", 32.0)?,
                beta_slow: nonzero("beta_slow", 1.0)?,
                mscale: rope.opt_f64("mscale")?,
                mscale_all_dim: rope.opt_f64("mscale_all_dim")?,
                attention_factor: rope.opt_f64("attention_factor")?,
                truncate: rope.bool("truncate", true)?,
            }
        }
        other => {
            let field = if rope.get("rope_type").is_some() { "rope_type" } else { "type" };
            return Err(rope.error(
                field,
                format!("rope type `{other}` is not supported; supported: default, linear, dynamic, llama3, yarn"),
            ));
        }
    };
    let partial_rotary_factor = share(cfg, &rope, partial, scaling)?;
    Ok(RopeConfig { theta, scaling, partial_rotary_factor })
}

/// The share of a head that is rotated. The value inside the rope object wins, as in transformers.
fn share(cfg: &Fields<'_>, rope: &Fields<'_>, partial: PartialRotary, scaling: RopeScaling) -> Result<f64> {
    const FIELD: &str = "partial_rotary_factor";
    let from = if rope.get(FIELD).is_some() { rope } else { cfg };
    let factor = from.f64(FIELD, 1.0)?;
    if !(factor > 0.0 && factor <= 1.0) {
        return Err(from.error(FIELD, format!("expected a share above 0 and at most 1, found {factor}")));
    }
    match partial {
        PartialRotary::Used => Ok(factor),
        PartialRotary::Ignored if factor == 1.0 => Ok(1.0),
        PartialRotary::Ignored if scaling == RopeScaling::None => {
            tracing::warn!(
                "{}: {FIELD} is {factor}, but this architecture rotates whole heads, in transformers too: it is ignored",
                cfg.path.display()
            );
            Ok(1.0)
        }
        // the tables of transformers then have another width than the heads
        PartialRotary::Ignored => {
            let what = format!("{factor} does not go with a rope type other than `default` in this architecture");
            Err(from.error(FIELD, what))
        }
    }
}
