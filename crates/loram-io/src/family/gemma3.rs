//! Gemma 3, alone and as the text tower of the larger checkpoints: Gemma 2 with norms of the query and key heads in place of
//! soft caps, and rotary embeddings of two bases.

use super::decoder::{Defaults, NAMES, cap, check_rope};
use super::description::{Family, GgufFamily};
use super::gemma2::{DEFAULTS_GEMMA, GGUF_OF_GEMMA, common};
use super::{tower, windows};
use crate::Result;
use crate::config::{
    DecoderConfig, FamilyNames, Fields, LayerKind, ModelConfig, QkNorm, RopeDefaults, parse_ropes_by_type,
};
use serde_json::{Map, Value};

pub(super) static FAMILY: Family = Family {
    names: FamilyNames { model_type: "gemma3_text", class_stem: "Gemma3", ..NAMES },
    read: Some(|f| read(f).map(ModelConfig::Decoder)),
    gguf: Some(GgufFamily {
        architecture: "gemma3",
        modules: GGUF_OF_GEMMA,
        norm_shift: 1.0,
        numbers: &[
            ("attention.sliding_window", "sliding_window"),
            ("attention.sliding_window_pattern", "sliding_window_pattern"),
            ("rope.freq_base_swa", "rope_local_base_freq"),
            ("final_logit_softcapping", "final_logit_softcapping"),
        ],
        complete,
        ..GgufFamily::NEW
    }),
    about: "Gemma 3 (270M, 1B), FunctionGemma",
    checked: "a small random model, and Gemma 3 270M, in transformers and PEFT",
    ..Family::NEW
};

/// Text and images; the text tower is read.
pub(super) static TOWER: Family = Family {
    names: FamilyNames { model_type: "gemma3", class_stem: "Gemma3", ..tower::NAMES },
    text_tower: Some("gemma3_text"),
    about: "Gemma 3 (4B to 27B, the text tower)",
    ..Family::NEW
};

const DEFAULTS: Defaults = Defaults { max_positions: 131_072, theta: 1e6, ..DEFAULTS_GEMMA };

/// Dimensions that published files leave out.
const DIMENSIONS: [(&str, usize); 5] = [
    ("vocab_size", 262_208),
    ("hidden_size", 2304),
    ("intermediate_size", 9216),
    ("num_hidden_layers", 26),
    ("num_attention_heads", 8),
];

/// The scale of the scores, which files leave to the program that reads them: that of 27B follows from the width of the model, those
/// of the others from that of the heads.
fn complete(config: &mut Map<String, Value>) {
    const BLOCKS_OF_27B: u64 = 62;
    let number = |field: &str| config.get(field).and_then(Value::as_u64);
    let heads = number("hidden_size").zip(number("num_attention_heads"));
    let by_width =
        heads.filter(|_| number("num_hidden_layers") == Some(BLOCKS_OF_27B)).map(|(hidden, n)| hidden / n.max(1));
    if let Some(scalar) = by_width.or(number("head_dim")) {
        config.insert("query_pre_attn_scalar".into(), scalar.into());
    }
}

fn read(f: &Fields<'_>) -> Result<DecoderConfig> {
    let mut map = f.map.clone();
    for (field, value) in DIMENSIONS {
        map.entry(field).or_insert(value.into());
    }
    // both rotary embeddings are read below
    for field in ["rope_parameters", "rope_scaling"] {
        map.remove(field);
    }
    let config = common(&Fields { map: &map, ..*f }, &FAMILY.names, &DEFAULTS)?;
    let (n, positions) = (config.num_layers, config.max_position_embeddings);
    let rope = RopeDefaults { theta: DEFAULTS.theta, partial_rotary: DEFAULTS.partial_rotary };
    let ropes = parse_ropes_by_type(f, &rope, ("rope_local_base_freq", 10_000.0), positions)?;
    ropes.iter().try_for_each(|rope| check_rope(f, rope, config.head_dim))?;
    let window = windows::window(f, Some(4096))?;
    let pattern = f.usize("sliding_window_pattern", 6)?.max(1);
    let slides = match windows::layer_types(f, n)? {
        Some(slides) => slides,
        None => (1..=n).map(|i| i % pattern != 0).collect(),
    };
    let mut layers = windows::blocks(f, &slides, &vec![true; n], window)?;
    for (layer, slides) in layers.iter_mut().zip(slides) {
        *layer = LayerKind { rope: Some(usize::from(slides)), ..*layer };
    }
    Ok(DecoderConfig {
        ropes,
        // a scaled embedding reaches to here
        max_length: positions,
        layers,
        qk_norm: QkNorm::Heads,
        logit_cap: cap(f, "final_logit_softcapping", None)?,
        raw: f.map.clone(),
        ..config
    })
}
