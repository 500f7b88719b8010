//! Rotary position embedding: parameters as transformers 4 (`rope_theta`, `rope_scaling`) and transformers 5
//! (`rope_parameters`) write them.

use super::fields::Fields;
use crate::Result;
use serde_json::Value;

/// Rotary embedding of a decoder: inverse frequencies `theta^(−2i/head_dim)`, changed by `scaling`.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeConfig {
    /// Base of the frequencies.
    pub theta: f64,
    /// How a longer context changes the frequencies.
    pub scaling: RopeScaling,
    /// Share of a head that is rotated, its first elements.
    pub partial_rotary_factor: f64,
    /// Pairs are neighbours (GLM), not the two halves of what is rotated.
    pub interleaved: bool,
    /// Queries grow with their position (Ministral 3).
    pub query_growth: Option<QueryGrowth>,
}

/// Factor 1 + beta·ln(1 + ⌊position/length⌋) on queries.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QueryGrowth {
    /// Its steepness.
    pub beta: f64,
    /// Tokens up to which it is 1.
    pub length: usize,
}

/// A family's values for fields that `config.json` does not have, and its treatment of others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RopeDefaults {
    /// `rope_theta`.
    pub theta: f64,
    /// Treatment of `partial_rotary_factor`.
    pub partial_rotary: PartialRotary,
}

/// Treatment of `partial_rotary_factor` by a family.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum PartialRotary {
    /// Its class in transformers rotates whole heads whatever the field says.
    Ignored,
    /// It rotates the first share of a head, by default this one.
    Used(f64),
}

/// How the frequencies change for a longer context.
#[derive(Debug, Clone, PartialEq)]
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
    /// LongRoPE (2402.13753): every frequency divided by a factor of its own.
    Long {
        /// Factors of the frequencies for sequences up to `original_max`.
        short: Vec<f64>,
        /// Factors of the frequencies for longer ones.
        long: Vec<f64>,
        /// Length of pre-training in tokens.
        original_max: usize,
        /// Factor on cos and sin.
        attention_factor: f64,
    },
}

impl RopeScaling {
    /// Factor on cos and sin: 1 for all but LongRoPE and YaRN, where it follows `attention_factor`, or `mscale` and
    /// `mscale_all_dim`, or `0.1·ln(factor) + 1`.
    pub fn attention_factor(&self) -> f64 {
        if let RopeScaling::Long { attention_factor, .. } = self {
            return *attention_factor;
        }
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
pub(crate) fn parse(cfg: &Fields<'_>, defaults: &RopeDefaults, max_positions: usize) -> Result<RopeConfig> {
    let (name, nested) = match cfg.object("rope_scaling")?.filter(|m| !m.is_empty()) {
        Some(m) => ("rope_scaling.", Some(m)),
        None => ("rope_parameters.", cfg.object("rope_parameters")?),
    };
    let empty = serde_json::Map::new();
    let name = format!("{}{name}", cfg.prefix);
    let rope = Fields { map: nested.unwrap_or(&empty), path: cfg.path, prefix: &name };
    if let Some((key, _)) = rope.map.iter().find(|(_, v)| v.is_object()) {
        return Err(rope.error(key, "rotary parameters that differ between layer types are not supported here"));
    }
    read(cfg, &rope, defaults, max_positions)
}

/// Reads the rotary embeddings of full and of sliding attention. transformers 5 has an object for each; before, the fields of
/// [`parse`] were those of full attention, and `local_theta` names the field with the base of the other and its default.
pub(crate) fn parse_by_type(
    cfg: &Fields<'_>,
    defaults: &RopeDefaults,
    (local_key, local_theta): (&str, f64),
    max_positions: usize,
) -> Result<Vec<RopeConfig>> {
    const TYPES: [&str; 2] = ["full_attention", "sliding_attention"];
    let nested = cfg.object("rope_parameters")?;
    let by_type = |m: &serde_json::Map<String, Value>| m.iter().any(|(key, _)| TYPES.contains(&key.as_str()));
    let local = RopeDefaults { theta: local_theta, ..*defaults };
    let empty = serde_json::Map::new();
    if let Some(nested) = nested.filter(|m| by_type(m)) {
        let name = format!("{}rope_parameters.", cfg.prefix);
        let all = Fields { map: nested, path: cfg.path, prefix: &name };
        let both = TYPES.into_iter().zip([*defaults, local]);
        return both
            .map(|(kind, defaults)| {
                let name = format!("{name}{kind}.");
                let rope = Fields { map: all.object(kind)?.unwrap_or(&empty), path: cfg.path, prefix: &name };
                // what stands beside the objects is not of one type
                read(&Fields { map: &empty, ..*cfg }, &rope, &defaults, max_positions)
            })
            .collect();
    }
    let theta = cfg.f64(local_key, local_theta)?;
    let plain = Fields { map: &empty, ..*cfg };
    Ok(vec![
        parse(cfg, defaults, max_positions)?,
        read(&plain, &plain, &RopeDefaults { theta, ..local }, max_positions)?,
    ])
}

/// Reads the object `rope` of rotary parameters; what it does not have may stand in `cfg`.
fn read(cfg: &Fields<'_>, rope: &Fields<'_>, defaults: &RopeDefaults, max_positions: usize) -> Result<RopeConfig> {
    if rope.get("mrope_section").is_some() {
        return Err(rope.error("mrope_section", "multimodal rotary embedding is not supported: text models only"));
    }
    let theta = match rope.opt_f64("rope_theta")? {
        Some(t) => t,
        None => cfg.f64("rope_theta", defaults.theta)?,
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
        // su is its first name
        "longrope" | "su" => {
            let original_max = original_max()?.max(1);
            let factors = |field: &str| -> Result<Vec<f64>> {
                let list = rope.get(field).and_then(Value::as_array);
                let list = list.and_then(|l| l.iter().map(Value::as_f64).collect::<Option<Vec<f64>>>());
                let positive = list.filter(|l| l.iter().all(|x| x.is_finite() && *x > 0.0));
                positive.ok_or_else(|| rope.error(field, "expected a list of factors above 0, one for each frequency"))
            };
            let ratio = rope.opt_f64("factor")?.unwrap_or(max_positions as f64 / original_max as f64);
            let computed = if ratio <= 1.0 { 1.0 } else { (1.0 + ratio.ln() / (original_max as f64).ln()).sqrt() };
            RopeScaling::Long {
                short: factors("short_factor")?,
                long: factors("long_factor")?,
                original_max,
                attention_factor: rope.opt_f64("attention_factor")?.unwrap_or(computed),
            }
        }
        other => {
            let field = if rope.get("rope_type").is_some() { "rope_type" } else { "type" };
            return Err(rope.error(
                field,
                format!(
                    "rope type `{other}` is not supported; supported: default, linear, dynamic, llama3, yarn, longrope"
                ),
            ));
        }
    };
    let partial_rotary_factor = share(cfg, rope, defaults.partial_rotary, &scaling)?;
    Ok(RopeConfig { theta, scaling, partial_rotary_factor, interleaved: false, query_growth: None })
}

/// The share of a head that is rotated. The value inside the rope object wins, as in transformers.
fn share(cfg: &Fields<'_>, rope: &Fields<'_>, partial: PartialRotary, scaling: &RopeScaling) -> Result<f64> {
    const FIELD: &str = "partial_rotary_factor";
    let from = if rope.get(FIELD).is_some() { rope } else { cfg };
    let default = if let PartialRotary::Used(share) = partial { share } else { 1.0 };
    let factor = from.f64(FIELD, default)?;
    if !(factor > 0.0 && factor <= 1.0) {
        return Err(from.error(FIELD, format!("expected a share above 0 and at most 1, found {factor}")));
    }
    match partial {
        PartialRotary::Used(_) => Ok(factor),
        PartialRotary::Ignored if factor == 1.0 => Ok(1.0),
        PartialRotary::Ignored if *scaling == RopeScaling::None => {
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
