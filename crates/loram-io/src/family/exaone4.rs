//! EXAONE 4: norms after attention and MLP alone, and of the query and key heads; with windows, the blocks that see everything
//! have no rotary embedding.

use super::decoder::{self, DEFAULTS, Defaults, NAMES};
use super::description::Family;
use super::olmo2::POST_NORM;
use super::windows;
use crate::Result;
use crate::config::{DecoderConfig, FamilyNames, Fields, ModelConfig, QkNorm};

pub(super) static FAMILY: Family = Family {
    names: FamilyNames { model_type: "exaone4", class_stem: "Exaone4", tags_tokens: true, ..NAMES },
    read: Some(|f| read(f).map(ModelConfig::Decoder)),
    about: "EXAONE 4",
    ..Family::NEW
};

const DEFAULTS_32B: Defaults = Defaults { kv_heads: Some(32), eps: 1e-5, bos: Some(0), ..DEFAULTS };

fn read(f: &Fields<'_>) -> Result<DecoderConfig> {
    let config = decoder::read(f, &FAMILY.names, &DEFAULTS_32B)?;
    let n = config.num_layers;
    let window = windows::window(f, Some(4096))?;
    let slides = match windows::layer_types(f, n)? {
        Some(slides) => slides,
        None if window.is_none() => vec![false; n],
        None => pattern(f, n)?,
    };
    let rope: Vec<bool> = slides.iter().map(|slides| *slides || window.is_none()).collect();
    let layers = windows::blocks(f, &slides, &rope, window)?;
    Ok(DecoderConfig { modules: &POST_NORM, qk_norm: QkNorm::Heads, layers, ..config })
}

/// `sliding_window_pattern`: every so many blocks, one sees everything. Published files write it as letters, too (`LLLG`).
fn pattern(f: &Fields<'_>, n: usize) -> Result<Vec<bool>> {
    const FIELD: &str = "sliding_window_pattern";
    if let Some(letters) = f.get(FIELD).and_then(|v| v.as_str()) {
        let of = |c| match c {
            'L' => Ok(true),
            'G' => Ok(false),
            _ => Err(f.error(FIELD, format!("expected letters L and G, found `{letters}`"))),
        };
        let cycle = letters.chars().map(of).collect::<Result<Vec<bool>>>()?;
        if cycle.is_empty() {
            return Err(f.error(FIELD, "is empty"));
        }
        return Ok((0..n).map(|i| cycle[i % cycle.len()] && i + 1 < n).collect());
    }
    match f.usize(FIELD, 4)? {
        0 => Err(f.error(FIELD, "must be at least 1 with a sliding window")),
        every => Ok((1..=n).map(|i| i % every != 0).collect()),
    }
}
