//! Checkpoints that are called or tied otherwise than transformers writes them, and texts that contain padding.

use loram_io::checkpoint::{TensorSpec, pt_metadata, write_safetensors};
use loram_io::{Checkpoint, DType, ModelConfig};
use loram_nn::*;
use std::borrow::Cow;
use std::path::{Path, PathBuf};

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

/// A tensor by name with its shape and values.
type Named = (String, Vec<usize>, Vec<f32>);

/// A copy of a fixture's model with other tensors.
fn copy(model: &str, edit: impl Fn(&mut Vec<Named>)) -> tempfile::TempDir {
    let (from, to) = (fixtures().join("models").join(model), tempfile::tempdir().unwrap());
    std::fs::copy(from.join("config.json"), to.path().join("config.json")).unwrap();
    let ckpt = Checkpoint::open(&from).unwrap();
    let read = |name: &str| {
        let t = ckpt.tensor(name).unwrap();
        (name.to_string(), t.shape().to_vec(), t.to_f32().unwrap())
    };
    let mut tensors: Vec<Named> = ckpt.names().map(read).collect();
    edit(&mut tensors);
    let tensors = tensors.into_iter().map(|(n, s, v)| (TensorSpec::new(n, DType::F32, &s), Cow::Owned(v))).collect();
    write_safetensors(to.path().join("model.safetensors"), &pt_metadata(), tensors).unwrap();
    to
}

fn load(dir: &Path, head: HeadKind) -> Result<Model> {
    let (ckpt, config) = (Checkpoint::open(dir)?, ModelConfig::load(dir)?);
    Model::load(&ckpt, &config, &LoadOptions::new(head))
}

fn batch() -> Batch {
    Batch { tokens: vec![3, 17, 44, 9, 60, 8, 2, 31], lengths: vec![5, 3], ..Batch::default() }
}

fn logits(dir: &Path) -> Vec<f32> {
    load(dir, HeadKind::LanguageModel).unwrap().logits(&batch()).unwrap()
}

#[test]
fn prefixes_of_wrappers_are_taken_off() {
    let before = |prefix: &'static str| {
        move |tensors: &mut Vec<Named>| {
            tensors.iter_mut().for_each(|t| t.0 = format!("{prefix}{}", t.0));
        }
    };
    for model in ["llama-untied", "qwen2"] {
        let expected = logits(&fixtures().join("models").join(model));
        for prefix in ["_orig_mod.", "module.", "module._orig_mod.", "base_model.model.base_model.model.", "a.b."] {
            assert_eq!(logits(copy(model, before(prefix)).path()), expected, "{model} {prefix}");
        }
        let inside = copy(model, |tensors| {
            tensors.iter_mut().for_each(|t| t.0 = t.0.replace(".self_attn.", "._orig_mod.self_attn."));
        });
        assert_eq!(logits(inside.path()), expected, "{model}, blocks alone");
        let backbone = copy("qwen2", |tensors| {
            tensors.iter_mut().for_each(|t| t.0 = t.0.strip_prefix("model.").unwrap().to_string());
        });
        assert_eq!(logits(backbone.path()), logits(&fixtures().join("models/qwen2")));
    }
    let twice = copy("qwen2", |tensors| {
        let (_, shape, values) = tensors[0].clone();
        tensors.push((format!("_orig_mod.{}", tensors[0].0), shape, values));
    });
    let e = Checkpoint::open(twice.path()).unwrap_err();
    assert!(e.to_string().contains("_orig_mod.model.embed_tokens.weight") && e.exit_code() == 2, "{e}");
}

/// `qwen2` ties its head to the embedding, which alone is in the file.
#[test]
fn the_head_of_the_file_counts_where_it_is_another() {
    const EMBEDDING: &str = "model.embed_tokens.weight";
    let of = |tensors: &Vec<Named>| tensors.iter().find(|t| t.0 == EMBEDDING).unwrap().clone();
    let tied = |dir: &Path| load(dir, HeadKind::LanguageModel).unwrap().tied_head().is_some();
    let own = fixtures().join("models/qwen2");
    let expected = logits(&own);
    assert!(tied(&own));
    // under the name of the head alone
    let alone =
        copy("qwen2", |t| t.iter_mut().filter(|t| t.0 == EMBEDDING).for_each(|t| t.0 = "lm_head.weight".into()));
    assert_eq!(logits(alone.path()), expected);
    assert!(tied(alone.path()));
    let equal = copy("qwen2", |t| {
        let (_, shape, values) = of(t);
        t.push(("lm_head.weight".into(), shape, values));
    });
    assert_eq!(logits(equal.path()), expected);
    assert!(tied(equal.path()));
    // twice the weight: twice the logits, to the bit
    let double = copy("qwen2", |t| {
        let (_, shape, values) = of(t);
        t.push(("lm_head.weight".into(), shape, values.iter().map(|x| 2.0 * x).collect()));
    });
    assert!(!tied(double.path()));
    assert_eq!(logits(double.path()), expected.iter().map(|x| 2.0 * x).collect::<Vec<_>>());
    let none = copy("qwen2", |t| t.retain(|t| t.0 != EMBEDDING));
    let e = load(none.path(), HeadKind::LanguageModel).err().unwrap();
    assert!(e.to_string().contains("model.embed_tokens.weight"), "{e}");
}

fn padded(name: &str) -> (Checkpoint, Batch) {
    let file = Checkpoint::open_file(fixtures().join(format!("ref/padding-{name}.safetensors"))).unwrap();
    let numbers = |key: &str| file.tensor(key).unwrap().to_i64().unwrap();
    let tokens = numbers("input_ids").into_iter().map(|t| t as u32).collect();
    let lengths = numbers("lengths").into_iter().map(|n| n as usize).collect();
    (file, Batch { tokens, lengths, ..Batch::default() })
}

fn same(file: &Checkpoint, model: &Model, batch: &Batch) {
    let expected = file.tensor("logits").unwrap().to_f32().unwrap();
    let found = model.logits(batch).unwrap();
    let worst = found.iter().zip(&expected).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(found.len() == expected.len() && worst < 1e-5, "{worst}: {found:?} {expected:?}");
}

/// `fixtures/make_padding.py`.
#[test]
fn texts_with_padding_are_read_as_transformers_reads_them() {
    let (file, batch) = padded("roberta");
    let model = load(&fixtures().join("models/roberta"), HeadKind::Pooled { outputs: 2 }).unwrap();
    same(&file, &model, &batch);
    let (file, batch) = padded("llama");
    let score = file.tensor("score").unwrap();
    let classifier =
        copy("llama", |t| t.push(("score.weight".into(), score.shape().to_vec(), score.to_f32().unwrap())));
    same(&file, &load(classifier.path(), HeadKind::Pooled { outputs: 3 }).unwrap(), &batch);
}
