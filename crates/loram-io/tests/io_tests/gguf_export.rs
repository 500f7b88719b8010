//! Adapters and merged models written as GGUF files, and read back.

use loram_core::{Factors, LoraConfig, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, TargetModules, WeightFormat};
use loram_io::adapter::{MergeOptions, SavedTensor};
use loram_io::gguf::{parse_gguf, read_lora, write_lora, write_merged_gguf};
use loram_io::testing::repo_root;
use loram_io::{Adapter, Checkpoint, DType, ModelConfig};
use std::path::PathBuf;

fn fixture(name: &str) -> PathBuf {
    repo_root().join("fixtures/models").join(name)
}

fn values(len: usize, seed: usize) -> Vec<f32> {
    (0..len).map(|i| (((i + 7 * seed) * 2654435761) % 1000003) as f32 / 2_000_006.0 - 0.25).collect()
}

/// An adapter of rank 4 on some layers, with another rank and scaling on one.
fn adapter(ckpt: &Checkpoint, paths: &[&str]) -> Adapter {
    let mut config = LoraConfig {
        r: 4,
        lora_alpha: 6.0,
        target_modules: TargetModules::Names(paths.iter().map(|p| p.to_string()).collect()),
        ..LoraConfig::default()
    };
    config.rank_pattern.insert("v_proj".into(), 2);
    config.alpha_pattern.insert("v_proj".into(), 5.0);
    let mut out = Adapter::new(config, "CAUSAL_LM", None);
    for (i, path) in paths.iter().enumerate() {
        let (n, m) = ckpt.tensor(&format!("{path}.weight")).unwrap().dims2().unwrap();
        let r = if path.ends_with("v_proj") { 2 } else { 4 };
        out.layers.insert(path.to_string(), Factors { n, m, r, a: values(r * m, i), b: values(n * r, i + 50) });
        if path.ends_with("embed_tokens") {
            out.embeddings.insert(path.to_string());
        }
    }
    out
}

const LAYERS: [&str; 4] = [
    "model.layers.0.self_attn.q_proj",
    "model.layers.1.self_attn.k_proj",
    "model.layers.1.self_attn.v_proj",
    "model.layers.0.mlp.down_proj",
];

/// s·B·A of a layer.
fn product(adapter: &Adapter, path: &str) -> Vec<f32> {
    let w = &adapter.layers[path];
    let mut out = vec![0.0; w.n * w.m];
    w.add_to(&mut out, adapter.plan().unwrap()[path].scaling);
    out
}

#[test]
fn an_adapter_comes_back_from_its_file() {
    for (base, embedding) in
        [("gguf-llama.gguf", true), ("gguf-qwen2.gguf", false), ("llama", true), ("mistral", false)]
    {
        let (ckpt, config) = (Checkpoint::open(fixture(base)).unwrap(), ModelConfig::load(fixture(base)).unwrap());
        let mut layers = LAYERS.to_vec();
        layers.extend(embedding.then_some("model.embed_tokens"));
        let own = adapter(&ckpt, &layers);
        let dir = tempfile::tempdir().unwrap();
        for (dtype, limit) in [(DType::F32, 1e-6), (DType::F16, 1e-3), (DType::Q8_0, 1e-2)] {
            let path = dir.path().join(format!("{dtype}.gguf"));
            write_lora(&own, &ckpt, &config, dtype, &path).unwrap();
            let back = read_lora(&path, &ckpt, &config).unwrap();
            assert_eq!(back.layers.keys().collect::<Vec<_>>(), own.layers.keys().collect::<Vec<_>>());
            assert_eq!(back.embeddings, own.embeddings);
            for layer in &layers {
                let (found, want) = (product(&back, layer), product(&own, layer));
                let most = want.iter().fold(0.0f32, |m, x| m.max(x.abs()));
                let off = found.iter().zip(&want).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
                assert!(off < limit * most, "{base} {dtype} {layer}: {off:e} of {most:e}");
            }
        }
        // rows of queries lie in the file as those of the base do
        let bytes = std::fs::read(dir.path().join("F32.gguf")).unwrap();
        let header = parse_gguf(&bytes).unwrap();
        let b = header.tensors.iter().find(|t| t.name == "blk.0.attn_q.weight.lora_b").unwrap();
        let row = |i: usize| &bytes[b.start + i * 16..][..16];
        let factors = &own.layers[LAYERS[0]];
        let own_row = |i: usize| -> Vec<u8> {
            factors.b[i * 4..][..4].iter().flat_map(|x| ((f64::from(*x) * 1.5) as f32).to_le_bytes()).collect()
        };
        let ModelConfig::Decoder(c) = &config else { panic!() };
        let second = if base.contains("qwen2") { 1 } else { c.head_dim / 2 };
        assert_eq!((row(0), row(1)), (&own_row(0)[..], &own_row(second)[..]), "{base}");
    }
}

#[test]
fn what_a_file_cannot_hold_is_an_error() {
    let (ckpt, config) =
        (Checkpoint::open(fixture("gguf-qwen2.gguf")).unwrap(), ModelConfig::load(fixture("gguf-qwen2.gguf")).unwrap());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.gguf");
    let fails = |change: &dyn Fn(&mut Adapter), dtype, words: &str| {
        let mut own = adapter(&ckpt, &LAYERS);
        change(&mut own);
        let e = write_lora(&own, &ckpt, &config, dtype, &path).unwrap_err();
        assert!(e.to_string().contains(words) && e.exit_code() == 2, "{e}");
        assert!(!path.exists());
    };
    fails(&|_| (), DType::Q4K, "not Q4_K");
    let saved = SavedTensor { shape: vec![2], values: vec![0.0; 2] };
    fails(
        &|a| drop(a.saved.insert("model.norm.weight".into(), saved.clone())),
        DType::F16,
        "`model.norm.weight` is fully trained",
    );
    fails(&|a| drop(a.tokens.insert("model.embed_tokens".into(), saved.clone())), DType::F16, "single trained rows");
    fails(&|a| drop(a.biases.insert(LAYERS[0].into(), vec![])), DType::F16, "lora_bias");
    let head = Factors { n: 97, m: 32, r: 4, a: vec![0.0; 128], b: vec![0.0; 388] };
    fails(
        &|a| drop(a.layers.insert("lm_head".into(), head.clone())),
        DType::F16,
        "`lm_head` is the embedding in this model",
    );
    fails(&|a| a.layers.clear(), DType::F16, "holds no factors");
    // files that are not adapters of this model
    let e = read_lora(&fixture("gguf-qwen2.gguf"), &ckpt, &config).unwrap_err();
    assert!(e.to_string().contains("is a model, not an adapter"), "{e}");
    let own = adapter(&ckpt, &LAYERS);
    write_lora(&own, &ckpt, &config, DType::F16, &path).unwrap();
    assert!(Checkpoint::open(&path).unwrap_err().to_string().contains("is a LoRA adapter, not a model"));
    let llama = (Checkpoint::open(fixture("llama")).unwrap(), ModelConfig::load(fixture("llama")).unwrap());
    let e = read_lora(&path, &llama.0, &llama.1).unwrap_err().to_string();
    assert!(e.contains("the adapter is for `qwen2`, the model is `llama`"), "{e}");
}

#[test]
fn a_merged_file_holds_the_sum_and_everything_else_as_it_was() {
    let base = fixture("gguf-llama.gguf");
    let (ckpt, config) = (Checkpoint::open(&base).unwrap(), ModelConfig::load(&base).unwrap());
    let own = adapter(&ckpt, &LAYERS);
    let dir = tempfile::tempdir().unwrap();
    for (dtype, limit) in
        [(DType::F32, 1e-6), (DType::BF16, 4e-3), (DType::Q8_0, 8e-3), (DType::Q4_0, 0.13), (DType::Q5_1, 0.04)]
    {
        let path = dir.path().join(format!("{dtype}.gguf"));
        let report = write_merged_gguf(&ckpt, &config, &own, dtype, &path, MergeOptions::default()).unwrap();
        assert_eq!((report.changed, report.changed + report.copied), (4, ckpt.len()));
        let merged = Checkpoint::open(&path).unwrap();
        assert_eq!(ModelConfig::load(&path).unwrap().raw(), config.raw());
        for name in ckpt.names() {
            let (old, new) = (ckpt.tensor(name).unwrap(), merged.tensor(name).unwrap());
            let Some(layer) = name.strip_suffix(".weight").filter(|p| LAYERS.contains(p)) else {
                assert_eq!((old.dtype(), old.bytes()), (new.dtype(), new.bytes()), "{name}");
                continue;
            };
            assert_eq!(new.dtype(), dtype);
            let sum: Vec<f32> = old.to_f32().unwrap().iter().zip(product(&own, layer)).map(|(w, d)| w + d).collect();
            let most = sum.iter().fold(0.0f32, |m, x| m.max(x.abs()));
            let found = new.to_f32().unwrap();
            let off = found.iter().zip(&sum).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(off < limit * most, "{dtype} {name}: {off:e} of {most:e}");
        }
    }
    let folder = (Checkpoint::open(fixture("llama")).unwrap(), ModelConfig::load(fixture("llama")).unwrap());
    let e = write_merged_gguf(&folder.0, &folder.1, &own, DType::F16, &dir.path().join("x"), MergeOptions::default());
    assert!(e.unwrap_err().to_string().contains("is no GGUF file"));
}

/// Blocks as gguf-py's `quantize` makes them, from the same values.
#[test]
fn quantised_blocks_are_those_of_gguf_py() {
    let file = Checkpoint::open_file(repo_root().join("fixtures/ref/gguf-quantised.safetensors")).unwrap();
    let values = file.tensor("values").unwrap().to_f32().unwrap();
    type Quantise = fn(&[f32]) -> Vec<u8>;
    let all: [(&dyn WeightFormat, Quantise); 5] = [
        (&Q4_0, Q4_0::quantised),
        (&Q4_1, Q4_1::quantised),
        (&Q5_0, Q5_0::quantised),
        (&Q5_1, Q5_1::quantised),
        (&Q8_0, Q8_0::quantised),
    ];
    for (format, quantise) in all {
        let blocks = file.tensor(format.name()).unwrap();
        assert_eq!(quantise(&values), blocks.bytes(), "{}", format.name());
        assert_eq!(format.values_in(blocks.bytes().len()), values.len());
    }
}
