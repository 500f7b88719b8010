//! Decoders: from a configuration and its tensors to a backbone.

use super::{Loader, act};
use crate::Result;
use crate::kernels::attention::AttnShape;
use crate::kernels::rope::RopeParams;
use crate::model::block::SequentialBlock;
use crate::model::decoder::Decoder;
use crate::model::parts::rope::{Rope, Rotary};
use crate::model::parts::{Attention, GatedMlp, Norm, Projections, Residual};
use crate::model::stack::Block;
use loram_io::DecoderConfig;
use loram_io::config::{LayerKind, Projections as Names, QkNorm, RopeConfig, RopeScaling};
use std::sync::Arc;

impl Loader<'_> {
    /// The backbone of a decoder: blocks of rotary attention and a gated MLP.
    pub fn decoder(&self, cfg: &DecoderConfig) -> Result<Decoder> {
        let (hidden, backbone) = (cfg.hidden_size, cfg.names.backbone);
        let ropes: Vec<Rotary> = cfg.ropes.iter().map(|config| self.rotary(config, cfg.head_dim)).collect();
        let mut blocks: Vec<Box<dyn Block>> = Vec::with_capacity(cfg.num_layers);
        for (i, kind) in cfg.layers.iter().enumerate() {
            let block = DecoderBlock { loader: self, cfg, number: i };
            let m = cfg.modules;
            let mlp = GatedMlp {
                gate_up: block.projections(&m.gate_up, [cfg.intermediate_size; 2], cfg.mlp_bias)?,
                down: self.linear(block.at(m.down), hidden, cfg.intermediate_size, cfg.mlp_bias)?,
                act: act(cfg.hidden_act),
            };
            let rope = kind.rope.map(|rope| ropes[rope].clone());
            blocks.push(Box::new(SequentialBlock {
                attention: block.residual(m.input_norm, block.attention(kind, rope)?, m.attention_out_norm, 1)?,
                mlp: block.residual(m.mlp_norm, mlp, m.mlp_out_norm, 2)?,
            }));
        }
        Ok(Decoder {
            embed: self.table(cfg.names.embedding_path(), cfg.vocab_size, hidden, cfg.pad_token_id)?,
            embedding_scale: cfg.embedding_scale,
            blocks,
            norm: self.rms_norm(
                format!("{backbone}{}", cfg.modules.final_norm),
                hidden,
                cfg.rms_norm_eps,
                cfg.norm_offset,
            )?,
            turning_point: cfg.ropes.iter().find_map(|rope| match rope.scaling {
                RopeScaling::Long { original_max, .. } => Some(original_max),
                _ => None,
            }),
            compute: self.compute,
        })
    }

    /// The rotary embedding of heads of width `head_dim`.
    pub(super) fn rotary(&self, config: &RopeConfig, head_dim: usize) -> Rotary {
        let rope =
            |queries| Arc::new(Rope::new(RopeParams { config: config.clone(), head_dim, queries }, self.compute));
        let keys = rope(false);
        let queries = if config.query_growth.is_some() { rope(true) } else { keys.clone() };
        Rotary { queries, keys }
    }
}

/// One block of a decoder, as its parts are loaded.
struct DecoderBlock<'a> {
    loader: &'a Loader<'a>,
    cfg: &'a DecoderConfig,
    number: usize,
}

impl DecoderBlock<'_> {
    /// The path of a module.
    fn at(&self, name: &str) -> String {
        format!("{}{}.{}.{name}", self.cfg.names.backbone, self.cfg.modules.blocks, self.number)
    }

    fn norm(&self, name: &str, len: usize) -> Result<Norm> {
        self.loader.rms_norm(self.at(name), len, self.cfg.rms_norm_eps, self.cfg.norm_offset)
    }

    /// A layer with norms before and after it, where these have names; `place` numbers its dropout.
    fn residual<S>(&self, pre: Option<&str>, inner: S, out: Option<&str>, place: u64) -> Result<Residual<S>> {
        let norm = |name: &str| self.norm(name, self.cfg.hidden_size);
        Ok(Residual {
            pre: pre.map(norm).transpose()?,
            inner,
            out: out.map(norm).transpose()?,
            scale: self.cfg.residual_scale,
            dropout: self.loader.dropout(self.cfg.residual_dropout, self.number, place),
            post: None,
        })
    }

    /// Projections of the hidden states, `widths` wide.
    fn projections<const N: usize>(&self, names: &Names<N>, widths: [usize; N], bias: bool) -> Result<Projections<N>> {
        self.loader.projections(names, widths, self.cfg.hidden_size, bias, |name| self.at(name))
    }

    fn attention(&self, kind: &LayerKind, rope: Option<Rotary>) -> Result<Attention> {
        let (cfg, m, d) = (self.cfg, self.cfg.modules, self.cfg.head_dim);
        let (heads, kv) = (cfg.num_heads * d, cfg.num_kv_heads * d);
        let qk_norm = match cfg.qk_norm {
            QkNorm::None => None,
            QkNorm::Heads => Some((d, d)),
            QkNorm::Whole => Some((heads, kv)),
        };
        Ok(Attention {
            qkv: self.projections(&m.qkv, [heads, kv, kv], cfg.qkv_bias)?,
            o: self.loader.linear(self.at(m.o), cfg.hidden_size, heads, cfg.o_bias)?,
            qk_norm: match qk_norm {
                Some((q, k)) => Some((self.norm(m.q_norm, q)?, self.norm(m.k_norm, k)?)),
                None => None,
            },
            rope,
            shape: AttnShape {
                heads: cfg.num_heads,
                kv_heads: cfg.num_kv_heads,
                head_dim: d,
                scale: cfg.attention_scale,
                cap: cfg.attention_cap,
                causal: true,
                window: kind.sliding_window,
                dropout: None,
            },
            dropout: self.loader.dropout(cfg.attention_dropout, self.number, 0),
        })
    }
}
