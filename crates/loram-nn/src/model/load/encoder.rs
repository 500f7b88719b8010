//! Encoders: from a configuration and its tensors to a backbone.

use super::{Loader, act};
use crate::Result;
use crate::kernels::attention::AttnShape;
use crate::model::block::SequentialBlock;
use crate::model::encoder::{Encoder, RelativeEmbedding};
use crate::model::parts::rope::Rotary;
use crate::model::parts::{Attention, GatedMlp, Mlp, Norm, Positions, Projections, Residual};
use crate::model::stack::Block;
use loram_io::EncoderConfig;
use loram_io::config::{MlpModules, Projections as Names, RelativePositions};

impl Loader<'_> {
    /// The backbone of an encoder: blocks of bidirectional attention and an MLP.
    pub fn encoder(&self, cfg: &EncoderConfig) -> Result<Encoder> {
        let (names, backbone, hidden) = (cfg.modules, cfg.names.backbone, cfg.hidden_size);
        let ropes: Vec<Rotary> = cfg.ropes.iter().map(|config| self.rotary(config, cfg.head_dim())).collect();
        let blocks = (0..cfg.num_layers).map(|number| EncoderBlock { loader: self, cfg, number }.load(&ropes));
        let at = |name: &str| format!("{backbone}{name}");
        let norm = |name: &str| self.layer_norm(at(name), hidden, cfg.layer_norm_eps, cfg.norm_bias);
        let table = |name: &str, rows, padding| self.table(at(name), rows, hidden, padding);
        Ok(Encoder {
            blocks: blocks.collect::<Result<_>>()?,
            words: self.table(cfg.names.embedding_path(), cfg.vocab_size, hidden, Some(cfg.pad_token_id))?,
            positions: match cfg.has_positions {
                true => Some(table(names.positions, cfg.max_position_embeddings, cfg.padding_position)?),
                false => None,
            },
            types: match cfg.type_vocab_size {
                0 => None,
                n => Some(table(names.types, n, None)?),
            },
            norm: norm(names.embedding_norm)?,
            final_norm: names.final_norm.map(norm).transpose()?,
            relative: match &cfg.relative {
                None => None,
                Some(relative) => Some(RelativeEmbedding {
                    table: table(names.relative.embedding, 2 * relative.span, None)?,
                    norm: if relative.norm { Some(norm(names.relative.norm)?) } else { None },
                }),
            },
            dropout: self.dropout(cfg.embedding_dropout, cfg.num_layers, 0),
            position_offset: cfg.position_offset,
            padding: cfg.padding_position,
            max_length: cfg.max_length(),
            compute: self.compute,
        })
    }
}

/// One block of an encoder, as its parts are loaded.
struct EncoderBlock<'a> {
    loader: &'a Loader<'a>,
    cfg: &'a EncoderConfig,
    number: usize,
}

impl EncoderBlock<'_> {
    fn load(&self, ropes: &[Rotary]) -> Result<Box<dyn Block>> {
        let (cfg, m) = (self.cfg, self.cfg.modules);
        let (hidden, inner, bias) = (cfg.hidden_size, cfg.intermediate_size, cfg.mlp_bias);
        let input_norm = m.input_norm.filter(|_| cfg.layers[self.number].has_input_norm);
        let attention =
            self.residual(input_norm, self.attention(ropes)?, m.attention_norm, cfg.attention_out_dropout, 1)?;
        let (down, act) = (self.linear(m.down, hidden, inner, bias)?, act(cfg.hidden_act));
        let dropout = cfg.mlp_out_dropout;
        Ok(match &m.mlp {
            MlpModules::Plain(up) => {
                let mlp = Mlp { up: self.linear(up, inner, hidden, bias)?, down, act };
                Box::new(SequentialBlock { attention, mlp: self.residual(m.mlp_norm, mlp, m.output_norm, dropout, 2)? })
            }
            MlpModules::Gated(gate_up) => {
                let mlp = GatedMlp { gate_up: self.projections(gate_up, inner, bias)?, down, act };
                Box::new(SequentialBlock { attention, mlp: self.residual(m.mlp_norm, mlp, m.output_norm, dropout, 2)? })
            }
        })
    }

    /// The path of a module.
    fn at(&self, name: &str) -> String {
        format!("{}{}.{}.{name}", self.cfg.names.backbone, self.cfg.modules.blocks, self.number)
    }

    fn linear(&self, name: &str, n: usize, m: usize, bias: bool) -> Result<crate::linear::Linear> {
        self.loader.linear(self.at(name), n, m, bias)
    }

    fn norm(&self, name: &str) -> Result<Norm> {
        let cfg = self.cfg;
        self.loader.layer_norm(self.at(name), cfg.hidden_size, cfg.layer_norm_eps, cfg.norm_bias)
    }

    /// A layer with a norm before it or of the stream after it, where these have names; `place` numbers its dropout.
    fn residual<S>(
        &self,
        pre: Option<&str>,
        inner: S,
        post: Option<&str>,
        dropout: f64,
        place: u64,
    ) -> Result<Residual<S>> {
        Ok(Residual {
            pre: pre.map(|name| self.norm(name)).transpose()?,
            inner,
            out: None,
            scale: 1.0,
            dropout: self.loader.dropout(dropout, self.number, place),
            post: post.map(|name| self.norm(name)).transpose()?,
        })
    }

    /// Projections of the hidden states, `width` wide each.
    fn projections<const N: usize>(&self, names: &Names<N>, width: usize, bias: bool) -> Result<Projections<N>> {
        self.loader.projections(names, [width; N], self.cfg.hidden_size, bias, |name| self.at(name))
    }

    fn positions(&self, of: &RelativePositions) -> Result<Positions> {
        let (cfg, m) = (self.cfg, self.cfg.modules);
        let own = |name: &str, there: bool| match there && !of.shares_projections {
            true => self.linear(name, cfg.hidden_size, cfg.hidden_size, cfg.attention_bias).map(Some),
            false => Ok(None),
        };
        Ok(Positions {
            k: own(m.relative.k, of.c2p)?,
            q: own(m.relative.q, of.p2c)?,
            of: *of,
            dropout: self.loader.dropout(cfg.embedding_dropout, self.number, 3),
        })
    }

    fn attention(&self, ropes: &[Rotary]) -> Result<Attention> {
        let (cfg, m, hidden) = (self.cfg, self.cfg.modules, self.cfg.hidden_size);
        let kind = cfg.layers[self.number];
        Ok(Attention {
            qkv: self.projections(&m.qkv, hidden, cfg.attention_bias)?,
            o: self.linear(m.o, hidden, hidden, cfg.attention_bias)?,
            qk_norm: None,
            rope: kind.rope.map(|rope| ropes[rope].clone()),
            sinks: None,
            positions: cfg.relative.as_ref().map(|relative| self.positions(relative)).transpose()?,
            shape: AttnShape {
                heads: cfg.num_heads,
                kv_heads: cfg.num_heads,
                head_dim: cfg.head_dim(),
                scale: cfg.attention_scale,
                cap: None,
                causal: false,
                window: kind.window,
                dropout: None,
            },
            dropout: self.loader.dropout(cfg.attention_dropout, self.number, 0),
        })
    }
}
