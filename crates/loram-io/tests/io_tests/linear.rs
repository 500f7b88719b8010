//! Linear layers found from tensor names, against the modules of transformers' models (tests/data/make_adapters.py).

use loram_io::{Checkpoint, ModelConfig, linear_modules, testing};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

fn model(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/models").join(name)
}

#[test]
fn same_linear_layers_as_transformers_has() {
    let all: Value = serde_json::from_str(include_str!("../data/linears.json")).unwrap();
    for (name, expected) in all.as_object().unwrap() {
        let dir = model(name);
        let (ckpt, mut cfg) = (Checkpoint::open(&dir).unwrap(), ModelConfig::load(&dir).unwrap());
        if name == "bert-base" {
            // the file says BertModel with the default of two labels; the list was made for three
            let ModelConfig::Encoder(c) = &mut cfg else { panic!() };
            c.labels.names = vec!["a".into(), "b".into(), "c".into()];
        }
        let found: BTreeMap<String, Vec<usize>> =
            linear_modules(&ckpt, Some(&cfg)).unwrap().into_iter().map(|l| (l.path, vec![l.n, l.m])).collect();
        let expected: BTreeMap<String, Vec<usize>> = serde_json::from_value(expected.clone()).unwrap();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn output_layers_are_flagged_and_blocks_come_in_order() {
    let outputs = |name: &str| -> Vec<String> {
        let dir = model(name);
        let (ckpt, cfg) = (Checkpoint::open(&dir).unwrap(), ModelConfig::load(&dir).unwrap());
        let all = linear_modules(&ckpt, Some(&cfg)).unwrap();
        all.into_iter().filter(|l| l.output_layer).map(|l| l.path).collect()
    };
    assert_eq!(outputs("llama-tied-sharded"), ["lm_head"]);
    assert_eq!(outputs("bert-base"), ["classifier"]);
    assert_eq!(outputs("roberta"), ["classifier.dense", "classifier.out_proj"]);
    assert_eq!(outputs("distilbert"), ["classifier", "pre_classifier"]);

    let dir = testing::tiny_llama();
    let ckpt = Checkpoint::open(&dir).unwrap();
    let paths: Vec<String> = linear_modules(&ckpt, None).unwrap().into_iter().map(|l| l.path).collect();
    assert_eq!(paths.len(), 5 * 7, "without a config: what the file holds");
    let first: Vec<&str> = paths[..7].iter().map(|p| p.rsplit('.').next().unwrap()).collect();
    assert_eq!(first, ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]);
    assert!(paths[7].starts_with("model.layers.1."));
}

#[test]
fn real_encoder_checkpoint() {
    let Some(dir) = testing::minilm_dir() else { return };
    let (ckpt, cfg) = (Checkpoint::open(&dir).unwrap(), ModelConfig::load(&dir).unwrap());
    let linears = linear_modules(&ckpt, Some(&cfg)).unwrap();
    assert_eq!(linears.len(), 6 * 6 + 2);
    assert_eq!(linears[0].path, "bert.encoder.layer.0.attention.self.query");
    assert_eq!((linears[0].n, linears[0].m), (384, 384));
}

#[test]
fn conv1d_layers_have_their_sides_the_other_way_round() {
    use loram_io::DType;
    use loram_io::checkpoint::{TensorSpec, pt_metadata, write_safetensors};
    let dir = tempfile::tempdir().unwrap();
    let write = |shape: [usize; 2]| {
        let values = vec![0.0f32; shape[0] * shape[1]];
        let spec = TensorSpec::new("transformer.h.0.attn.c_attn.weight", DType::F32, &shape);
        write_safetensors(dir.path().join("model.safetensors"), &pt_metadata(), vec![(spec, (&values[..]).into())])
            .unwrap();
        let found = linear_modules(&Checkpoint::open(dir.path()).unwrap(), None).unwrap();
        assert_eq!(found[0].path, "transformer.h.0.attn.c_attn");
        (found[0].n, found[0].m)
    };
    // without a config: the longer side of this layer is its output
    assert_eq!((write([8, 24]), write([24, 8])), ((24, 8), (24, 8)));
    std::fs::write(dir.path().join("config.json"), r#"{"model_type": "gpt_bigcode"}"#).unwrap();
    assert_eq!(write([10, 8]), (10, 8));
    std::fs::write(dir.path().join("config.json"), r#"{"model_type": "gpt2"}"#).unwrap();
    assert_eq!(write([8, 24]), (24, 8));
}
