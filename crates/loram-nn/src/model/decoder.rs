//! Decoder-only language models.

use super::decoder_block::{DecoderBlock, LayerCache};
use super::load::Loader;
use super::stack::{Embedding, Part, Pass};
use crate::Result;
use crate::batch::Batch;
#[cfg(gpu)]
use crate::cuda;
use crate::cuda::on_gpu;
use crate::kernels::activation::Act;
use crate::kernels::attention::AttnShape;
use crate::kernels::embedding;
use crate::kernels::rope::{RopeKind, RopeParams};
use crate::linear::{Linear, Trainable};
use crate::ops::{Norm, RopeTable, Sequences};
use crate::param::Params;
use crate::tensor::{Compute, Tensor, typed};
use loram_io::DecoderConfig;
use loram_io::config::{Activation, RopeScaling};
use std::sync::{Arc, Mutex};

/// Embedding, blocks and final norm.
pub(crate) struct Decoder {
    pub embed: Embedding,
    pub blocks: Vec<DecoderBlock>,
    pub norm: Norm,
    ropes: Ropes,
    compute: Compute,
}

/// Rotary tables, made when a length first needs them.
struct Ropes {
    params: RopeParams,
    made: Mutex<Vec<Arc<RopeTable>>>,
    compute: Compute,
}

impl Ropes {
    /// A table for a sequence of `len` tokens.
    fn get(&self, len: usize) -> Arc<RopeTable> {
        let mut made = self.made.lock().expect("rope tables");
        if let Some(table) = made.iter().find(|t| t.serves(len)) {
            return table.clone();
        }
        // dynamic scaling has a table per length: only the latest few stay
        made.truncate(3);
        let size = match self.params.kind {
            RopeKind::Dynamic { max_position, .. } => len.max(max_position),
            _ => len.next_power_of_two().max(128),
        };
        let table = Arc::new(RopeTable::new(self.compute, &self.params, size));
        made.insert(0, table.clone());
        table
    }

    /// One table where it serves all documents, else one for each.
    fn for_documents(&self, lengths: &[usize]) -> Vec<Arc<RopeTable>> {
        let longest = self.get(lengths.iter().copied().max().unwrap_or(0));
        if lengths.iter().all(|&n| longest.serves(n)) {
            return vec![longest];
        }
        lengths.iter().map(|&n| self.get(n)).collect()
    }
}

pub(crate) fn act(a: Activation) -> Act {
    match a {
        Activation::Silu => Act::Silu,
        Activation::Gelu => Act::Gelu,
        Activation::GeluTanh => Act::GeluTanh,
        Activation::Relu => Act::Relu,
        Activation::Tanh => Act::Tanh,
    }
}

fn rope_params(cfg: &DecoderConfig) -> RopeParams {
    let kind = match cfg.rope.scaling {
        RopeScaling::None => RopeKind::Default,
        RopeScaling::Linear { factor } => RopeKind::Linear { factor },
        RopeScaling::Dynamic { factor, original_max } => RopeKind::Dynamic { factor, max_position: original_max },
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max } => {
            RopeKind::Llama3 { factor, low_freq_factor, high_freq_factor, original_max }
        }
        RopeScaling::Yarn {
            factor,
            original_max,
            beta_fast,
            beta_slow,
            mscale,
            mscale_all_dim,
            attention_factor,
            truncate,
        } => RopeKind::Yarn {
            factor,
            original_max,
            beta_fast,
            beta_slow,
            mscale,
            mscale_all_dim,
            attention_factor,
            truncate,
        },
    };
    RopeParams { kind, theta: cfg.rope.theta, head_dim: cfg.head_dim, partial_rotary_factor: 1.0 }
}

impl Decoder {
    pub fn load(cfg: &DecoderConfig, l: &Loader<'_>) -> Result<Decoder> {
        let (hidden, d) = (cfg.hidden_size, cfg.head_dim);
        let (heads, kv) = (cfg.num_heads * d, cfg.num_kv_heads * d);
        let (m, backbone) = (cfg.modules, cfg.names.backbone);
        let mut blocks = Vec::with_capacity(cfg.num_layers);
        for (i, kind) in cfg.layers.iter().enumerate() {
            let at = |name: &str| format!("{backbone}{}.{i}.{name}", m.blocks);
            let norm = |name: &str, len| l.rms_norm(at(name), len, cfg.rms_norm_eps);
            blocks.push(DecoderBlock {
                input_norm: norm(m.input_norm, hidden)?,
                q: l.linear(at(m.q), heads, hidden, cfg.qkv_bias)?,
                k: l.linear(at(m.k), kv, hidden, cfg.qkv_bias)?,
                v: l.linear(at(m.v), kv, hidden, cfg.qkv_bias)?,
                o: l.linear(at(m.o), hidden, heads, cfg.o_bias)?,
                qk_norm: match cfg.qk_norm {
                    true => Some((norm(m.q_norm, d)?, norm(m.k_norm, d)?)),
                    false => None,
                },
                post_norm: norm(m.mlp_norm, hidden)?,
                gate: l.linear(at(m.gate), cfg.intermediate_size, hidden, cfg.mlp_bias)?,
                up: l.linear(at(m.up), cfg.intermediate_size, hidden, cfg.mlp_bias)?,
                down: l.linear(at(m.down), hidden, cfg.intermediate_size, cfg.mlp_bias)?,
                act: act(cfg.hidden_act),
                shape: AttnShape {
                    heads: cfg.num_heads,
                    kv_heads: cfg.num_kv_heads,
                    head_dim: d,
                    scale: 1.0 / (d as f64).sqrt(),
                    causal: true,
                    window: kind.sliding_window,
                    dropout: None,
                },
                attention_dropout: l.dropout(cfg.attention_dropout, i, 0),
                rope: kind.rope,
            });
        }
        Ok(Decoder {
            embed: l.table(cfg.names.embedding_path(), cfg.vocab_size, hidden)?,
            blocks,
            norm: l.rms_norm(format!("{backbone}{}", m.final_norm), hidden, cfg.rms_norm_eps)?,
            ropes: Ropes { params: rope_params(cfg), made: Mutex::new(Vec::new()), compute: l.compute },
            compute: l.compute,
        })
    }

    pub fn pass<'a>(&self, lengths: &'a [usize], positions: &'a [u32], step: Option<u64>) -> Pass<'a> {
        Pass { documents: Sequences::new(lengths, positions), step, rope: self.ropes.for_documents(lengths) }
    }

    pub fn embed(&self, params: &Params, batch: &Batch) -> Result<Tensor> {
        let mut x = Tensor::scratch(self.compute, batch.tokens.len(), self.norm.weight.get(params).cols());
        self.embed.rows(params, &batch.tokens, &mut x, false)?;
        Ok(x)
    }

    pub fn embed_backward(&self, params: &mut Params, batch: &Batch, dx: &Tensor) -> Result<()> {
        self.embed.rows_backward(params, &batch.tokens, dx)
    }

    pub fn linears(&self) -> Vec<&Linear> {
        self.blocks.iter().flat_map(|b| b.linears()).collect()
    }

    pub fn parts(&mut self) -> Vec<Part<'_>> {
        let mut parts = vec![Part::Embedding(&mut self.embed)];
        parts.extend(self.blocks.iter_mut().flat_map(|b| b.parts()));
        parts.push(Part::Norm(&mut self.norm));
        parts
    }

    /// An empty cache for generation.
    pub fn cache(&self) -> Vec<LayerCache> {
        let empty = |l: &Linear| Tensor::scratch(self.compute, 0, l.n);
        self.blocks.iter().map(|b| LayerCache { k: empty(&b.k), v: empty(&b.v) }).collect()
    }

    /// Final hidden states (n, hidden) of tokens that continue `start` earlier ones.
    pub fn continue_with(
        &self,
        params: &Params,
        tokens: &[u32],
        start: usize,
        cache: &mut [LayerCache],
    ) -> Result<Tensor> {
        let positions: Vec<u32> = (start..start + tokens.len()).map(|p| p as u32).collect();
        let lengths = [tokens.len()];
        let rope = vec![self.ropes.get(start + tokens.len())];
        let pass = Pass { documents: Sequences::new(&lengths, &positions), step: None, rope };
        let mut x = Tensor::scratch(self.compute, tokens.len(), self.norm.weight.get(params).cols());
        self.embed.rows(params, tokens, &mut x, false)?;
        for (block, cache) in self.blocks.iter().zip(cache) {
            x = block.continue_with(params, &x, cache, &pass);
        }
        Ok(self.norm.forward(params, &x).0)
    }
}

impl Embedding {
    /// out (ids × cols) = (accumulate ? out : 0) + rows of the table.
    pub fn rows(&self, params: &Params, ids: &[u32], out: &mut Tensor, accumulate: bool) -> Result<()> {
        match &self.weight {
            Trainable::Frozen(w) => w.gather(ids, out, accumulate),
            Trainable::Param(id) => gather(params.value(*id), ids, out, accumulate),
        }
    }

    /// Adds the rows of dx to the gradient of the table, when it is trained.
    pub fn rows_backward(&self, params: &mut Params, ids: &[u32], dx: &Tensor) -> Result<()> {
        let Trainable::Param(id) = self.weight else { return Ok(()) };
        let grad = params.grad_mut(id);
        let cols = grad.cols();
        typed!(dx, T, embedding::scatter_add::<T>(dx.as_slice(), ids, grad.as_mut_slice(), cols), gpu: {
            // ids were looked up in the table in the forward pass
            cuda::rows::scatter_add(dx, ids, grad);
            Ok(())
        })?;
        Ok(())
    }

    pub fn trains(&self) -> bool {
        matches!(self.weight, Trainable::Param(_))
    }
}

/// out (ids × cols) = (accumulate ? out : 0) + rows of a trained table.
fn gather(table: &Tensor, ids: &[u32], out: &mut Tensor, accumulate: bool) -> Result<()> {
    use embedding::{Table as Kernel, check, gather};
    let cols = table.cols();
    match table.compute() {
        Compute::F32 => gather(Kernel::F32(table.as_slice()), cols, ids, out.f32s_mut(), accumulate)?,
        Compute::F64 => gather::<f64>(Kernel::F64(table.as_slice()), cols, ids, out.as_mut_slice(), accumulate)?,
        Compute::CudaF32 | Compute::CudaBf16 => {
            check(ids, table.rows())?;
            on_gpu!(cuda::rows::gather(table, ids, out, accumulate));
        }
    }
    Ok(())
}
