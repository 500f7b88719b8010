//! Encoders: from a configuration and its tensors to a backbone.

use super::{Loader, act};
use crate::Result;
use crate::kernels::attention::AttnShape;
use crate::model::block::SequentialBlock;
use crate::model::encoder::Encoder;
use crate::model::parts::{Attention, Mlp, Projections, Residual};
use crate::model::stack::Block;
use loram_io::EncoderConfig;

impl Loader<'_> {
    /// The backbone of an encoder: post-norm blocks of bidirectional attention and an MLP.
    pub fn encoder(&self, cfg: &EncoderConfig) -> Result<Encoder> {
        let (names, backbone) = (cfg.modules, cfg.names.backbone);
        let (hidden, inner, eps) = (cfg.hidden_size, cfg.intermediate_size, cfg.layer_norm_eps);
        let mut blocks: Vec<Box<dyn Block>> = Vec::with_capacity(cfg.num_layers);
        for i in 0..cfg.num_layers {
            let at = |name: &str| format!("{backbone}{}.{i}.{name}", names.blocks);
            let square = |name: &str| self.linear(at(name), hidden, hidden, true);
            let norm = |name: &str| self.layer_norm(at(name), hidden, eps).map(Some);
            let attention = Attention {
                qkv: Projections::Apart([square(names.q)?, square(names.k)?, square(names.v)?]),
                o: square(names.o)?,
                qk_norm: None,
                rope: None,
                shape: AttnShape {
                    heads: cfg.num_heads,
                    kv_heads: cfg.num_heads,
                    head_dim: cfg.head_dim(),
                    scale: 1.0 / (cfg.head_dim() as f64).sqrt(),
                    cap: None,
                    causal: false,
                    window: None,
                    dropout: None,
                },
                dropout: self.dropout(cfg.attention_dropout, i, 0),
            };
            let mlp = Mlp {
                up: self.linear(at(names.up), inner, hidden, true)?,
                down: self.linear(at(names.down), hidden, inner, true)?,
                act: act(cfg.hidden_act),
            };
            let attention_dropout = if cfg.drops_attention { cfg.hidden_dropout } else { 0.0 };
            blocks.push(Box::new(SequentialBlock {
                attention: Residual {
                    pre: None,
                    inner: attention,
                    out: None,
                    scale: 1.0,
                    dropout: self.dropout(attention_dropout, i, 1),
                    post: norm(names.attention_norm)?,
                },
                mlp: Residual {
                    pre: None,
                    inner: mlp,
                    out: None,
                    scale: 1.0,
                    dropout: self.dropout(cfg.hidden_dropout, i, 2),
                    post: norm(names.output_norm)?,
                },
            }));
        }
        let at = |name: &str| format!("{backbone}{name}");
        Ok(Encoder {
            words: self.table(cfg.names.embedding_path(), cfg.vocab_size, hidden, Some(cfg.pad_token_id))?,
            positions: self.table(at(names.positions), cfg.max_position_embeddings, hidden, cfg.padding_position)?,
            types: match cfg.type_vocab_size {
                0 => None,
                n => Some(self.table(at(names.types), n, hidden, None)?),
            },
            norm: self.layer_norm(at(names.embedding_norm), hidden, eps)?,
            dropout: self.dropout(cfg.hidden_dropout, cfg.num_layers, 0),
            blocks,
            position_offset: cfg.position_offset,
            padding: cfg.padding_position,
            max_length: cfg.max_length(),
            compute: self.compute,
        })
    }
}
