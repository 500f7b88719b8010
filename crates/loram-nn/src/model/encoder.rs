//! Bidirectional encoders.

use super::decoder::act;
use super::encoder_block::EncoderBlock;
use super::load::Loader;
use super::stack::{Embedding, Part, Pass};
use crate::batch::Batch;
use crate::dropout::Dropout;
use crate::kernels::attention::AttnShape;
use crate::linear::Linear;
use crate::ops::{Norm, NormSaved, Sequences};
use crate::param::Params;
use crate::tensor::{Compute, Tensor};
use crate::{Error, Result};
use loram_io::EncoderConfig;

/// Embeddings and blocks.
pub(crate) struct Encoder {
    words: Embedding,
    positions: Embedding,
    /// Segments; DistilBERT has none.
    types: Option<Embedding>,
    norm: Norm,
    dropout: Dropout,
    pub blocks: Vec<EncoderBlock>,
    position_offset: usize,
    max_length: usize,
    hidden: usize,
    compute: Compute,
}

/// Activations of the embedding layer.
pub(crate) struct EmbedSaved {
    sum: Tensor,
    norm: NormSaved,
}

impl Encoder {
    pub fn load(cfg: &EncoderConfig, l: &Loader<'_>) -> Result<Encoder> {
        let (names, backbone) = (cfg.modules, cfg.names.backbone);
        let (hidden, inner, eps) = (cfg.hidden_size, cfg.intermediate_size, cfg.layer_norm_eps);
        let mut blocks = Vec::with_capacity(cfg.num_layers);
        for i in 0..cfg.num_layers {
            let at = |name: &str| format!("{backbone}{}.{i}.{name}", names.blocks);
            let square = |name: &str| l.linear(at(name), hidden, hidden, true);
            blocks.push(EncoderBlock {
                q: square(names.q)?,
                k: square(names.k)?,
                v: square(names.v)?,
                o: square(names.o)?,
                attention_norm: l.layer_norm(at(names.attention_norm), hidden, eps)?,
                up: l.linear(at(names.up), inner, hidden, true)?,
                down: l.linear(at(names.down), hidden, inner, true)?,
                output_norm: l.layer_norm(at(names.output_norm), hidden, eps)?,
                act: act(cfg.hidden_act),
                shape: AttnShape {
                    heads: cfg.num_heads,
                    kv_heads: cfg.num_heads,
                    head_dim: cfg.head_dim(),
                    scale: 1.0 / (cfg.head_dim() as f64).sqrt(),
                    causal: false,
                    window: None,
                    dropout: None,
                },
                attention_dropout: l.dropout(cfg.attention_dropout, i, 0),
                output_dropout: l.dropout(if cfg.drops_attention { cfg.hidden_dropout } else { 0.0 }, i, 1),
                mlp_dropout: l.dropout(cfg.hidden_dropout, i, 2),
            });
        }
        let at = |name: &str| format!("{backbone}{name}");
        Ok(Encoder {
            compute: l.compute,
            words: l.table(cfg.names.embedding_path(), cfg.vocab_size, hidden)?,
            positions: l.table(at(names.positions), cfg.max_position_embeddings, hidden)?,
            types: match cfg.type_vocab_size {
                0 => None,
                n => Some(l.table(at(names.types), n, hidden)?),
            },
            norm: l.layer_norm(at(names.embedding_norm), hidden, eps)?,
            dropout: l.dropout(cfg.hidden_dropout, cfg.num_layers, 0),
            blocks,
            position_offset: cfg.position_offset,
            max_length: cfg.max_length(),
            hidden,
        })
    }

    pub fn pass<'a>(&self, lengths: &'a [usize], positions: &'a [u32], step: Option<u64>) -> Pass<'a> {
        Pass { documents: Sequences::new(lengths, positions), step, rope: Vec::new() }
    }

    fn rows(&self, batch: &Batch, positions: &[u32]) -> (Vec<u32>, Vec<u32>) {
        let positions = positions.iter().map(|p| p + self.position_offset as u32).collect();
        let types = match batch.token_types.is_empty() {
            true => vec![0; batch.tokens.len()],
            false => batch.token_types.clone(),
        };
        (positions, types)
    }

    /// dropout(norm(word + position + segment)).
    pub fn embed(
        &self,
        params: &Params,
        batch: &Batch,
        positions: &[u32],
        step: Option<u64>,
    ) -> Result<(Tensor, EmbedSaved)> {
        if let Some(&length) = batch.lengths.iter().find(|&&n| n > self.max_length) {
            return Err(Error::TooLong { length, max: self.max_length });
        }
        let (positions, types) = self.rows(batch, positions);
        let mut sum = Tensor::scratch(self.compute, batch.tokens.len(), self.hidden);
        self.words.rows(params, &batch.tokens, &mut sum, false)?;
        self.positions.rows(params, &positions, &mut sum, true)?;
        if let Some(table) = &self.types {
            table.rows(params, &types, &mut sum, true)?;
        }
        let (x, norm) = self.norm.forward(params, &sum);
        Ok((self.dropout.apply(x, step), EmbedSaved { sum, norm }))
    }

    pub fn embed_backward(
        &self,
        params: &mut Params,
        batch: &Batch,
        positions: &[u32],
        saved: &EmbedSaved,
        dx: Tensor,
        step: Option<u64>,
    ) -> Result<()> {
        let dx = self.dropout.apply(dx, step);
        let mut d = Tensor::scratch(dx.compute(), dx.rows(), dx.cols());
        self.norm.backward(params, &saved.sum, &saved.norm, &dx, &mut d, false);
        let (positions, types) = self.rows(batch, positions);
        self.words.rows_backward(params, &batch.tokens, &d)?;
        self.positions.rows_backward(params, &positions, &d)?;
        self.types.iter().try_for_each(|t| t.rows_backward(params, &types, &d))
    }

    /// Whether anything below the blocks is trained.
    pub fn embedding_trains(&self) -> bool {
        self.words.trains()
            || self.positions.trains()
            || self.types.as_ref().is_some_and(Embedding::trains)
            || self.norm.trains()
    }

    pub fn linears(&self) -> Vec<&Linear> {
        self.blocks.iter().flat_map(|b| b.linears()).collect()
    }

    pub fn parts(&mut self) -> Vec<Part<'_>> {
        let mut parts = vec![Part::Embedding(&mut self.words), Part::Embedding(&mut self.positions)];
        parts.extend(self.types.as_mut().map(Part::Embedding));
        parts.push(Part::Norm(&mut self.norm));
        parts.extend(self.blocks.iter_mut().flat_map(|b| b.parts()));
        parts
    }
}
