//! OLMo 2 and 3: norms after attention and MLP alone, and of all query and all key heads together.

use super::decoder::{self, DEFAULTS, Defaults, MODULES, NAMES, check_rope};
use super::description::Family;
use super::windows;
use crate::Result;
use crate::config::{
    DecoderConfig, DecoderModules, FamilyNames, Fields, LayerKind, ModelConfig, QkNorm, RopeDefaults,
    parse_ropes_by_type,
};

pub(super) static FAMILY: Family = Family {
    names: FamilyNames { model_type: "olmo2", class_stem: "Olmo2", ..NAMES },
    read: Some(|f| read(f, &FAMILY.names, &DEFAULTS_2).map(ModelConfig::Decoder)),
    about: "OLMo 2",
    ..Family::NEW
};

pub(super) static OLMO3: Family = Family {
    names: FamilyNames { model_type: "olmo3", class_stem: "Olmo3", ..NAMES },
    read: Some(|f| read_3(f).map(ModelConfig::Decoder)),
    about: "OLMo 3",
    ..Family::NEW
};

/// Of blocks without norms before their layers.
pub(super) static POST_NORM: DecoderModules = DecoderModules {
    input_norm: None,
    attention_out_norm: Some("post_attention_layernorm"),
    mlp_norm: None,
    mlp_out_norm: Some("post_feedforward_layernorm"),
    ..MODULES
};

const DEFAULTS_2: Defaults = Defaults { eps: 1e-5, bos: None, eos: &[50_279], pad: Some(1), ..DEFAULTS };
const DEFAULTS_3: Defaults = Defaults { theta: 500_000.0, ..DEFAULTS_2 };

fn read(f: &Fields<'_>, names: &'static FamilyNames, defaults: &Defaults) -> Result<DecoderConfig> {
    let config = decoder::read(f, names, defaults)?;
    let bias = f.bool("attention_bias", false)?;
    Ok(DecoderConfig { modules: &POST_NORM, qkv_bias: bias, o_bias: bias, qk_norm: QkNorm::Whole, ..config })
}

/// Most blocks see a window. `rope_scaling` stretches the others alone; `rope_theta` is the base of both.
fn read_3(f: &Fields<'_>) -> Result<DecoderConfig> {
    let mut map = f.map.clone();
    // both rotary embeddings are read below
    for field in ["rope_parameters", "rope_scaling"] {
        map.remove(field);
    }
    let config = read(&Fields { map: &map, ..*f }, &OLMO3.names, &DEFAULTS_3)?;
    let (n, positions) = (config.num_layers, config.max_position_embeddings);
    let rope = RopeDefaults { theta: DEFAULTS_3.theta, partial_rotary: DEFAULTS_3.partial_rotary };
    let ropes = parse_ropes_by_type(f, &rope, ("rope_theta", DEFAULTS_3.theta), positions)?;
    ropes.iter().try_for_each(|rope| check_rope(f, rope, config.head_dim))?;
    let slides = windows::layer_types(f, n)?.unwrap_or_else(|| (1..=n).map(|i| i % 4 != 0).collect());
    let mut layers = windows::blocks(f, &slides, &vec![true; n], windows::window(f, Some(4096))?)?;
    for (layer, slides) in layers.iter_mut().zip(slides) {
        *layer = LayerKind { rope: Some(usize::from(slides)), ..*layer };
    }
    Ok(DecoderConfig { ropes, layers, raw: f.map.clone(), ..config })
}
