//! Which blocks of a decoder attend to a sliding window.

use crate::Result;
use crate::config::{Fields, LayerKind};

/// `sliding_window`, in tokens; null means none.
pub(super) fn window(f: &Fields<'_>, default: Option<usize>) -> Result<Option<usize>> {
    let window = match f.map.get("sliding_window") {
        None => default,
        Some(_) => f.opt_usize("sliding_window")?,
    };
    match window {
        Some(0) => Err(f.error("sliding_window", "must be at least 1, or null for none")),
        window => Ok(window),
    }
}

/// `layer_types` of `n` blocks: true for sliding attention. `None` when the config does not have it.
pub(super) fn layer_types(f: &Fields<'_>, n: usize) -> Result<Option<Vec<bool>>> {
    let Some(types) = f.get("layer_types") else { return Ok(None) };
    let types = types.as_array().ok_or_else(|| f.error("layer_types", "expected a list"))?;
    if types.len() != n {
        return Err(f.error("layer_types", format!("{} entries for {n} layers", types.len())));
    }
    let slides = types.iter().map(|t| match t.as_str() {
        Some("full_attention") => Ok(false),
        Some("sliding_attention") => Ok(true),
        _ => {
            let what = format!("{t} is not supported; supported: \"full_attention\", \"sliding_attention\"");
            Err(f.error("layer_types", what))
        }
    });
    slides.collect::<Result<_>>().map(Some)
}

/// The blocks, from which of them slide and which have rotary embedding.
pub(super) fn blocks(f: &Fields<'_>, slides: &[bool], rope: &[bool], window: Option<usize>) -> Result<Vec<LayerKind>> {
    if slides.contains(&true) && window.is_none() {
        return Err(f.error("layer_types", "asks for sliding attention, but no sliding window is set and in use"));
    }
    let block = |(slides, rope): (&bool, &bool)| LayerKind {
        sliding_window: window.filter(|_| *slides),
        rope: rope.then_some(0),
        ..LayerKind::PLAIN
    };
    Ok(slides.iter().zip(rope).map(block).collect())
}

/// Blocks of Qwen2 and Qwen3: `layer_types`, else the blocks from `max_window_layers` on, where `use_sliding_window` is set;
/// without it the window is ignored.
pub(super) fn qwen(f: &Fields<'_>, n: usize) -> Result<Vec<LayerKind>> {
    let used = f.bool("use_sliding_window", false)?;
    let window = window(f, Some(4096))?.filter(|_| used);
    let slides = match layer_types(f, n)? {
        Some(slides) => slides,
        None if window.is_none() => vec![false; n],
        None => {
            let first = f.usize("max_window_layers", 28)?;
            (0..n).map(|i| i >= first).collect()
        }
    };
    blocks(f, &slides, &vec![true; n], window)
}
