//! Decoders: from a configuration and its tensors to a backbone.

use super::{Loader, act};
use crate::Result;
use crate::kernels::attention::AttnShape;
use crate::kernels::rope::RopeParams;
use crate::model::block::SequentialBlock;
use crate::model::decoder::Decoder;
use crate::model::parts::rope::{Rope, Rotary};
use crate::model::parts::{Attention, GatedMlp, Mixer, Mlp, Norm, Projections, Residual, Sinks, Sublayer};
use crate::model::stack::Block;
use loram_io::DecoderConfig;
use loram_io::config::{
    LayerKind, Mixer as MixerKind, MlpModules, NormKind, Projections as Names, QkNorm, RopeConfig, RopeScaling,
};
use std::sync::Arc;

impl Loader<'_> {
    /// The backbone of a decoder: blocks of attention or a short convolution, and an MLP or a mixture of experts.
    pub fn decoder(&self, cfg: &DecoderConfig) -> Result<Decoder> {
        let (hidden, backbone) = (cfg.hidden_size, cfg.names.backbone);
        let ropes: Vec<Rotary> = cfg.ropes.iter().map(|config| self.rotary(config, cfg.head_dim)).collect();
        let mut blocks: Vec<Box<dyn Block>> = Vec::with_capacity(cfg.num_layers);
        for (i, kind) in cfg.layers.iter().enumerate() {
            let block = DecoderBlock { loader: self, cfg, number: i };
            blocks.push(match (kind.mixer, &cfg.modules.convolution, &cfg.convolution) {
                (MixerKind::Convolution, Some(names), Some(how)) => {
                    block.around(block.loader.short_convolution(|name| block.at(name), names, how, hidden)?)?
                }
                _ => {
                    let rope = kind.rope.map(|rope| ropes[rope].clone());
                    block.around(block.attention(kind, rope)?)?
                }
            });
        }
        Ok(Decoder {
            embed: self.table(cfg.names.embedding_path(), cfg.vocab_size, hidden, cfg.pad_token_id)?,
            embedding_scale: cfg.embedding_scale,
            blocks,
            positions: match cfg.modules.positions {
                Some(name) => {
                    Some(self.table(format!("{backbone}{name}"), cfg.max_position_embeddings, hidden, None)?)
                }
                None => None,
            },
            dropout: self.dropout(cfg.embedding_dropout, cfg.num_layers, 0),
            norm: self.decoder_norm(cfg, format!("{backbone}{}", cfg.modules.final_norm), hidden)?,
            turning_point: cfg.ropes.iter().find_map(|rope| match rope.scaling {
                RopeScaling::Long { original_max, .. } => Some(original_max),
                _ => None,
            }),
            compute: self.compute,
        })
    }

    /// A norm of the decoder.
    fn decoder_norm(&self, cfg: &DecoderConfig, path: String, len: usize) -> Result<Norm> {
        match cfg.norm {
            NormKind::Rms => self.rms_norm(path, len, cfg.rms_norm_eps, cfg.norm_offset),
            NormKind::Layer => self.layer_norm(path, len, cfg.rms_norm_eps, true),
        }
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
        self.loader.decoder_norm(self.cfg, self.at(name), len)
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

    /// The block around its mixer of tokens.
    fn around<A: Mixer + 'static>(&self, mixer: A) -> Result<Box<dyn Block>> {
        let (cfg, m) = (self.cfg, self.cfg.modules);
        let (inner, bias, act) = (cfg.intermediate_size, cfg.mlp_bias, act(cfg.hidden_act));
        if let (true, Some(names), Some(how)) = (cfg.layers[self.number].experts, &m.experts, &cfg.experts) {
            let experts = self.loader.experts(|name| self.at(name), names, how, cfg.hidden_size)?;
            return self.with_mlp(mixer, experts);
        }
        let down = self.loader.linear(self.at(m.down), cfg.hidden_size, inner, bias)?;
        match &m.mlp {
            MlpModules::Gated(names) => {
                self.with_mlp(mixer, GatedMlp { gate_up: self.projections(names, [inner; 2], bias)?, down, act })
            }
            MlpModules::Plain(name) => {
                let up = self.loader.linear(self.at(name), inner, cfg.hidden_size, bias)?;
                self.with_mlp(mixer, Mlp { up, down, act })
            }
        }
    }

    /// The block of a mixer of tokens and an MLP.
    fn with_mlp<A: Mixer + 'static, M: Sublayer + 'static>(&self, mixer: A, mlp: M) -> Result<Box<dyn Block>> {
        let m = self.cfg.modules;
        Ok(Box::new(SequentialBlock {
            attention: self.residual(m.input_norm, mixer, m.attention_out_norm, 1)?,
            mlp: self.residual(m.mlp_norm, mlp, m.mlp_out_norm, 2)?,
        }))
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
            sinks: match m.sinks {
                Some(name) => {
                    let path = self.at(name);
                    Some(Sinks { scores: self.loader.constant(&path, cfg.num_heads)?, path })
                }
                None => None,
            },
            positions: None,
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
