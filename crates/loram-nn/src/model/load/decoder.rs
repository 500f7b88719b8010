//! Decoders: from a configuration and its tensors to a backbone.

use super::{Loader, act};
use crate::Result;
use crate::dropout::Dropout;
use crate::kernels::attention::AttnShape;
use crate::kernels::rope::RopeParams;
use crate::model::block::SequentialBlock;
use crate::model::decoder::Decoder;
use crate::model::parts::rope::Rope;
use crate::model::parts::{Attention, GatedMlp, Residual};
use crate::model::stack::Block;
use loram_io::DecoderConfig;
use std::sync::Arc;

impl Loader<'_> {
    /// The backbone of a decoder: pre-norm blocks of rotary attention and a gated MLP.
    pub fn decoder(&self, cfg: &DecoderConfig) -> Result<Decoder> {
        let (hidden, d) = (cfg.hidden_size, cfg.head_dim);
        let (heads, kv) = (cfg.num_heads * d, cfg.num_kv_heads * d);
        let (m, backbone) = (cfg.modules, cfg.names.backbone);
        let rope = RopeParams { config: cfg.rope, head_dim: d };
        let rope = Arc::new(Rope::new(rope, self.compute));
        let mut blocks: Vec<Box<dyn Block>> = Vec::with_capacity(cfg.num_layers);
        for (i, kind) in cfg.layers.iter().enumerate() {
            let at = |name: &str| format!("{backbone}{}.{i}.{name}", m.blocks);
            let norm = |name: &str, len| self.rms_norm(at(name), len, cfg.rms_norm_eps);
            let attention = Attention {
                q: self.linear(at(m.q), heads, hidden, cfg.qkv_bias)?,
                k: self.linear(at(m.k), kv, hidden, cfg.qkv_bias)?,
                v: self.linear(at(m.v), kv, hidden, cfg.qkv_bias)?,
                o: self.linear(at(m.o), hidden, heads, cfg.o_bias)?,
                qk_norm: match cfg.qk_norm {
                    true => Some((norm(m.q_norm, d)?, norm(m.k_norm, d)?)),
                    false => None,
                },
                rope: kind.rope.then(|| rope.clone()),
                shape: AttnShape {
                    heads: cfg.num_heads,
                    kv_heads: cfg.num_kv_heads,
                    head_dim: d,
                    scale: 1.0 / (d as f64).sqrt(),
                    causal: true,
                    window: kind.sliding_window,
                    dropout: None,
                },
                dropout: self.dropout(cfg.attention_dropout, i, 0),
            };
            let mlp = GatedMlp {
                gate: self.linear(at(m.gate), cfg.intermediate_size, hidden, cfg.mlp_bias)?,
                up: self.linear(at(m.up), cfg.intermediate_size, hidden, cfg.mlp_bias)?,
                down: self.linear(at(m.down), hidden, cfg.intermediate_size, cfg.mlp_bias)?,
                act: act(cfg.hidden_act),
            };
            blocks.push(Box::new(SequentialBlock {
                attention: Residual {
                    pre: Some(norm(m.input_norm, hidden)?),
                    inner: attention,
                    dropout: Dropout::NONE,
                    post: None,
                },
                mlp: Residual { pre: Some(norm(m.mlp_norm, hidden)?), inner: mlp, dropout: Dropout::NONE, post: None },
            }));
        }
        Ok(Decoder {
            embed: self.table(cfg.names.embedding_path(), cfg.vocab_size, hidden, cfg.pad_token_id)?,
            blocks,
            norm: self.rms_norm(format!("{backbone}{}", m.final_norm), hidden, cfg.rms_norm_eps)?,
            compute: self.compute,
        })
    }
}
