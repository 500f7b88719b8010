//! Models in the layout of diffusers, and adapters for its pipelines.

use super::program::{json, refused};
use loram_io::checkpoint::{TensorSpec, pt_metadata, write_safetensors};
use loram_io::{Checkpoint, DType};
use std::borrow::Cow;
use std::fs;
use std::path::Path;

const LAYERS: [(&str, [usize; 2]); 3] =
    [("blocks.0.attn.to_q", [24, 16]), ("blocks.0.ff.proj", [32, 24]), ("x_embedder", [24, 8])];

fn transformer(dir: &Path, class: &str) {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("config.json"), format!(r#"{{"_class_name": "{class}"}}"#)).unwrap();
    let tensors = LAYERS.iter().map(|(name, shape)| {
        let values: Vec<f32> = (0..shape[0] * shape[1]).map(|i| ((i * 37 % 101) as f32 - 50.0) / 100.0).collect();
        (TensorSpec::new(format!("{name}.weight"), DType::F32, shape), Cow::Owned(values))
    });
    write_safetensors(dir.join("diffusion_pytorch_model.safetensors"), &pt_metadata(), tensors.collect()).unwrap();
}

#[test]
fn from_an_initialisation_to_a_pipeline() {
    let room = tempfile::tempdir().unwrap();
    let dir = room.path();
    transformer(&dir.join("pipeline/transformer"), "FluxTransformer2DModel");
    fs::write(dir.join("pipeline/model_index.json"), "{}").unwrap();
    refused(dir, &["init", "pipeline", "-o", "a"], &["is a pipeline of diffusers", "pipeline/transformer"]);
    json(dir, &["init", "pipeline/transformer", "-o", "a", "--r", "4", "--lora-alpha", "8"]);
    let out = json(dir, &["export", "a", "-o", "lora", "--format", "diffusers", "--outtype", "f32"]);
    assert_eq!((out["component"].as_str(), out["layers"].as_u64()), (Some("transformer"), Some(3)));
    let file = Checkpoint::open_file(dir.join("lora/pytorch_lora_weights.safetensors")).unwrap();
    assert_eq!(file.names().count(), 6);
    json(dir, &["convert", "a", "-o", "plain"]);
    let plain = Checkpoint::open_file(dir.join("plain/adapter_model.safetensors")).unwrap();
    for (layer, [n, m]) in LAYERS {
        let tensor = |name: &str| file.tensor(&format!("transformer.{layer}.{name}.weight")).unwrap();
        let (a, b) = (tensor("lora_A"), tensor("lora_B"));
        assert_eq!((a.dims2().unwrap(), b.dims2().unwrap()), ((8, m), (n, 8)));
        // the scaling is in B, and a new adapter changes nothing
        let theirs =
            |name: &str| plain.tensor(&format!("base_model.model.{layer}.{name}.weight")).unwrap().to_f32().unwrap();
        assert_eq!(a.to_f32().unwrap(), theirs("lora_A"));
        let scaled: Vec<f32> = theirs("lora_B").iter().map(|x| 2.0 * x).collect();
        assert_eq!(b.to_f32().unwrap(), scaled);
    }
    refused(dir, &["export", "a", "-o", "lora", "--format", "diffusers"], &["lora", "exists"]);
    refused(dir, &["export", "a", "-o", "b", "--format", "diffusers", "--outtype", "q8_0"], &["f32, f16 or bf16"]);
    refused(dir, &["export", "a", "-o", "b", "--format", "diffusers", "--merged"], &["--merged"]);
    transformer(&dir.join("unet"), "UNet2DConditionModel");
    json(dir, &["init", "unet", "-o", "u", "--r", "4"]);
    assert_eq!(json(dir, &["export", "u", "-o", "u-lora", "--format", "diffusers"])["component"], "unet");
}

/// A residual base keeps the layout, with shards too.
#[test]
fn a_residual_base_in_shards() {
    let room = tempfile::tempdir().unwrap();
    let dir = room.path();
    transformer(&dir.join("whole"), "FluxTransformer2DModel");
    let whole = Checkpoint::open(dir.join("whole")).unwrap();
    let parts = dir.join("parts");
    fs::create_dir(&parts).unwrap();
    fs::copy(dir.join("whole/config.json"), parts.join("config.json")).unwrap();
    let mut map = serde_json::Map::new();
    for (i, (layer, shape)) in LAYERS.iter().enumerate() {
        let (name, file) =
            (format!("{layer}.weight"), format!("diffusion_pytorch_model-0000{}-of-00003.safetensors", i + 1));
        let values = whole.tensor(&name).unwrap().to_f32().unwrap();
        let tensors = vec![(TensorSpec::new(name.clone(), DType::F32, shape), Cow::Owned(values))];
        write_safetensors(parts.join(&file), &pt_metadata(), tensors).unwrap();
        map.insert(name, file.into());
    }
    let index = "diffusion_pytorch_model.safetensors.index.json";
    fs::write(parts.join(index), serde_json::json!({"metadata": {}, "weight_map": map}).to_string()).unwrap();
    json(dir, &["init", "parts", "-o", "a", "--r", "2", "--init", "pissa", "--residual", "residual"]);
    assert!(dir.join("residual").join(index).is_file() && !dir.join("residual/model.safetensors.index.json").exists());
    let residual = Checkpoint::open(dir.join("residual")).unwrap();
    let factors = Checkpoint::open_file(dir.join("a/adapter_model.safetensors")).unwrap();
    for (layer, [n, m]) in LAYERS {
        let of =
            |name: &str| factors.tensor(&format!("base_model.model.{layer}.{name}.weight")).unwrap().to_f32().unwrap();
        let (a, b) = (of("lora_A"), of("lora_B"));
        let weight = |c: &Checkpoint| c.tensor(&format!("{layer}.weight")).unwrap().to_f32().unwrap();
        let (w, rest) = (weight(&whole), weight(&residual));
        for (i, j) in (0..n).flat_map(|i| (0..m).map(move |j| (i, j))) {
            let product = b[2 * i] * a[j] + b[2 * i + 1] * a[m + j];
            assert!((rest[i * m + j] + product - w[i * m + j]).abs() < 1e-5, "{layer} ({i}, {j})");
        }
    }
}
