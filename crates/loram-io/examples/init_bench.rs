//! The loram side of `bench/init`.
//!
//!     init_bench weights FOLDER llama-2-7b|qwen2.5-0.5b   # a checkpoint of random bf16 weights in that shape
//!     init_bench start JOB.json                           # starts of single layers; prints times, memory, errors

use half::bf16;
use loram_core::{LayerPlan, SchemeOptions, SchemeSpec, StoredWeight, initialize, residual};
use loram_io::checkpoint::{DType, INDEX_FILE, SINGLE_FILE, SafetensorsWriter, TensorSpec, pt_metadata};
use loram_io::{Checkpoint, Error, Result, atomic};
use rayon::prelude::*;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::path::Path;
use std::time::Instant;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args[..] {
        ["weights", folder, model] => weights(Path::new(folder), model),
        ["start", job] => start(Path::new(job)),
        _ => Err(Error::Usage("init_bench weights FOLDER MODEL | init_bench start JOB.json".into())),
    };
    if let Err(e) = done {
        eprintln!("{e}");
        std::process::exit(e.exit_code());
    }
}

/// Sizes of a Llama-like decoder.
struct Shape {
    family: &'static str,
    hidden: usize,
    inner: usize,
    layers: usize,
    kv: usize,
    vocab: usize,
    head_dim: usize,
    tied: bool,
    /// Blocks in a shard.
    shard: usize,
}

const LLAMA: Shape = Shape {
    family: "llama",
    hidden: 4096,
    inner: 11008,
    layers: 32,
    kv: 4096,
    vocab: 32000,
    head_dim: 128,
    tied: false,
    shard: 11,
};
const QWEN: Shape = Shape {
    family: "qwen2",
    hidden: 896,
    inner: 4864,
    layers: 24,
    kv: 128,
    vocab: 151936,
    head_dim: 64,
    tied: true,
    shard: 24,
};

fn weights(folder: &Path, model: &str) -> Result<()> {
    let s = match model {
        "llama-2-7b" => LLAMA,
        "qwen2.5-0.5b" => QWEN,
        _ => return Err(Error::Usage(format!("no shape `{model}`"))),
    };
    let config = json!({
        "model_type": s.family, "architectures": [if s.family == "llama" { "LlamaForCausalLM" } else { "Qwen2ForCausalLM" }],
        "hidden_size": s.hidden, "intermediate_size": s.inner, "num_hidden_layers": s.layers, "vocab_size": s.vocab,
        "num_attention_heads": s.hidden / s.head_dim, "num_key_value_heads": s.kv / s.head_dim, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 4096, "tie_word_embeddings": s.tied, "torch_dtype": "bfloat16", "hidden_act": "silu"
    });
    atomic::write_json(folder.join("config.json"), &config)?;
    let shards = s.layers.div_ceil(s.shard);
    let mut map = Map::new();
    for shard in 0..shards {
        let mut tensors: Vec<(String, Vec<usize>)> = Vec::new();
        let mut add = |name: String, shape: &[usize]| tensors.push((name, shape.to_vec()));
        if shard == 0 {
            add("model.embed_tokens.weight".into(), &[s.vocab, s.hidden]);
        }
        for i in shard * s.shard..((shard + 1) * s.shard).min(s.layers) {
            let (h, f) = (s.hidden, s.inner);
            let mut of = |name: &str, shape: &[usize]| add(format!("model.layers.{i}.{name}.weight"), shape);
            for (name, n, m) in [
                ("self_attn.q_proj", h, h),
                ("self_attn.k_proj", s.kv, h),
                ("self_attn.v_proj", s.kv, h),
                ("self_attn.o_proj", h, h),
                ("mlp.gate_proj", f, h),
                ("mlp.up_proj", f, h),
                ("mlp.down_proj", h, f),
            ] {
                of(name, &[n, m]);
            }
            for name in ["input_layernorm", "post_attention_layernorm"] {
                of(name, &[h]);
            }
            if s.family == "qwen2" {
                for (name, n) in [("q", h), ("k", s.kv), ("v", s.kv)] {
                    add(format!("model.layers.{i}.self_attn.{name}_proj.bias"), &[n]);
                }
            }
        }
        if shard + 1 == shards {
            add("model.norm.weight".into(), &[s.hidden]);
            if !s.tied {
                add("lm_head.weight".into(), &[s.vocab, s.hidden]);
            }
        }
        let file = match shards {
            1 => SINGLE_FILE.to_string(),
            _ => format!("model-{:05}-of-{shards:05}.safetensors", shard + 1),
        };
        let specs = tensors.iter().map(|(name, shape)| TensorSpec::new(name, DType::BF16, shape)).collect();
        let mut writer = SafetensorsWriter::create(folder.join(&file), &pt_metadata(), specs)?;
        for (name, shape) in tensors {
            let values = noise(&name, shape.iter().product());
            writer.put(&name, bytemuck::cast_slice(&values))?;
            map.insert(name, Value::String(file.clone()));
        }
        writer.finish()?;
    }
    if shards > 1 {
        atomic::write_json(folder.join(INDEX_FILE), &json!({ "metadata": {}, "weight_map": map }))?;
    }
    Ok(())
}

/// Nearly normal values of deviation 0.02: the sum of four uniform 16-bit numbers (SplitMix64).
fn noise(name: &str, len: usize) -> Vec<bf16> {
    const CHUNK: usize = 1 << 16;
    let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let scale = 0.02 / (4.0 * (65536f32 * 65536.0 / 12.0)).sqrt();
    let mut out = vec![bf16::ZERO; len];
    out.par_chunks_mut(CHUNK).enumerate().for_each(|(c, chunk)| {
        let mut state = seed ^ (c as u64).wrapping_mul(0xd134_2543_de82_ef95);
        for x in chunk {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^= z >> 31;
            let sum = (z & 0xffff) + (z >> 16 & 0xffff) + (z >> 32 & 0xffff) + (z >> 48);
            *x = bf16::from_f32((sum as f32 - 131070.0) * scale);
        }
    });
    out
}

#[derive(Deserialize)]
struct Job {
    /// A safetensors file of matrices in f32.
    weights: String,
    scheme: String,
    r: usize,
    threads: usize,
}

/// Start and residual of every matrix of a file: what PEFT does when it puts an adapter on a layer.
fn start(job: &Path) -> Result<()> {
    let text = std::fs::read_to_string(job).map_err(|e| Error::io("read", job, e))?;
    let job: Job = serde_json::from_str(&text).map_err(|e| Error::Usage(e.to_string()))?;
    rayon::ThreadPoolBuilder::new().num_threads(job.threads).build_global().map_err(|e| Error::Usage(e.to_string()))?;
    let file = Checkpoint::open_file(&job.weights)?;
    let spec = SchemeSpec::parse(&job.scheme, &SchemeOptions::default())?;
    let mut layers = Vec::new();
    for name in file.names() {
        let tensor = file.tensor(name)?;
        let (n, m) = tensor.dims2()?;
        let mut w = tensor.to_f32()?;
        let before = memory("VmRSS");
        let clock = Instant::now();
        let plan = LayerPlan { path: name.into(), n, m, r: job.r, lora_alpha: job.r as f64, scaling: 1.0 };
        let made = initialize(&spec, StoredWeight::of(&w, n, m), &plan, 0)?;
        residual(&mut w, &made);
        let seconds = clock.elapsed().as_secs_f64();
        let left = w.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        layers.push(json!({ "name": name, "shape": [n, m], "seconds": seconds, "residual_norm": left,
            "memory": memory("VmHWM") - before }));
    }
    println!("{}", json!({ "layers": layers }));
    Ok(())
}

/// A line of /proc/self/status, in bytes.
fn memory(key: &str) -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'));
    line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse::<i64>().ok()).unwrap_or(0) * 1024
}
