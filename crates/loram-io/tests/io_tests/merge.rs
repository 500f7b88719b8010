//! Merged model folders: what is copied, what changes, and that nothing half-written stays.

use loram_io::merge::{MergeSource, write_merged};
use loram_io::{Checkpoint, DType, ModelConfig, Result, manifest};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn model(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/models").join(name)
}

/// Adds a constant to some tensors.
struct Add(BTreeMap<&'static str, f32>);

impl MergeSource for Add {
    type Error = loram_io::Error;

    fn targets(&self) -> Vec<String> {
        self.0.keys().map(|k| k.to_string()).collect()
    }

    fn apply(&mut self, name: &str, _shape: &[usize], values: &mut [f32]) -> Result<()> {
        let c = self.0[name];
        values.iter_mut().for_each(|v| *v += c);
        Ok(())
    }
}

fn merge(base: &Path, out: &Path, changes: &[(&'static str, f32)]) -> Result<loram_io::merge::MergeReport> {
    let (ckpt, cfg) = (Checkpoint::open(base)?, ModelConfig::load(base)?);
    write_merged(&ckpt, Some(&cfg), out, &Map::new(), &mut Add(changes.iter().copied().collect()))
}

fn values(dir: &Path, name: &str) -> Vec<f32> {
    Checkpoint::open(dir).unwrap().tensor(name).unwrap().to_f32().unwrap()
}

#[test]
fn only_the_targets_change() {
    let (base, out) = (model("llama-tied-sharded"), tempfile::tempdir().unwrap());
    let dir = out.path().join("new");
    let target = "model.layers.1.mlp.up_proj.weight";
    let report = merge(&base, &dir, &[(target, 0.5)]).unwrap();
    let (old, new) = (Checkpoint::open(&base).unwrap(), Checkpoint::open(&dir).unwrap());
    assert_eq!((report.changed, report.copied, report.untied), (1, old.len() - 1, false));
    assert_eq!(report.bytes, old.total_bytes());
    for name in old.names() {
        let (x, y) = (old.tensor(name).unwrap(), new.tensor(name).unwrap());
        assert_eq!(x.bytes() == y.bytes(), name != target, "{name}");
    }
    let index = |d: &Path| -> Value {
        serde_json::from_slice(&std::fs::read(d.join("model.safetensors.index.json")).unwrap()).unwrap()
    };
    assert_eq!(index(&dir), index(&base));
    assert!(matches!(manifest::state(&dir), manifest::State::Whole(n) if n >= 4));
}

#[test]
fn a_tied_output_layer_is_written_apart_only_when_one_of_the_two_changes() {
    let (base, out) = (model("llama-tied-sharded"), tempfile::tempdir().unwrap());
    let embedding = "model.embed_tokens.weight";
    for (name, changes) in [
        ("head", vec![("lm_head.weight", 1.0)]),
        ("embedding", vec![(embedding, 1.0)]),
        ("both", vec![(embedding, 1.0), ("lm_head.weight", 2.0)]),
    ] {
        let dir = out.path().join(name);
        let report = merge(&base, &dir, &changes).unwrap();
        assert!(report.untied && report.added == ["lm_head.weight"]);
        let ModelConfig::Decoder(c) = ModelConfig::load(&dir).unwrap() else { panic!() };
        assert!(!c.tie_word_embeddings);
        let original = values(&base, embedding);
        for t in [embedding, "lm_head.weight"] {
            let plus = changes.iter().find(|c| c.0 == t).map_or(0.0, |c| c.1);
            let worst = values(&dir, t).iter().zip(&original).map(|(x, y)| (x - y - plus).abs()).fold(0.0, f32::max);
            assert!(worst < 0.02, "{name}, {t}: {worst}");
        }
        let ckpt = Checkpoint::open(&dir).unwrap();
        assert_eq!(ckpt.tensor("lm_head.weight").unwrap().dtype(), DType::BF16);
    }
}

#[test]
fn other_files_are_copied_and_weights_of_other_kinds_are_not() {
    let work = tempfile::tempdir().unwrap();
    let base = work.path().join("base");
    std::fs::create_dir_all(base.join("1_Pooling")).unwrap();
    for f in ["config.json", "model.safetensors"] {
        std::fs::copy(model("roberta").join(f), base.join(f)).unwrap();
    }
    for f in [
        "tokenizer.json",
        "pytorch_model.bin",
        "chat_template.jinja",
        ".gitattributes",
        "1_Pooling/config.json",
        "x.gguf",
    ] {
        std::fs::write(base.join(f), f).unwrap();
    }
    let mut read_only = std::fs::metadata(base.join("tokenizer.json")).unwrap().permissions();
    read_only.set_readonly(true);
    std::fs::set_permissions(base.join("tokenizer.json"), read_only).unwrap();
    let dir = work.path().join("out");
    std::fs::create_dir(&dir).unwrap();
    merge(&base, &dir, &[("classifier.out_proj.weight", 0.0)]).unwrap();
    let mut names: Vec<_> =
        std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let all =
        ["1_Pooling", "chat_template.jinja", "config.json", "manifest.json", "model.safetensors", "tokenizer.json"];
    assert_eq!(names, all);
    assert!(!std::fs::metadata(dir.join("tokenizer.json")).unwrap().permissions().readonly());
    let original = std::fs::read(base.join("config.json")).unwrap();
    assert_eq!(std::fs::read(dir.join("config.json")).unwrap(), original, "an unchanged config keeps its bytes");

    let e = merge(&base, &dir, &[]).unwrap_err();
    assert!(e.to_string().contains("exists: give another output"), "{e}");
}

#[test]
fn failures_leave_nothing_behind() {
    let (base, out) = (model("llama-tied-sharded"), tempfile::tempdir().unwrap());
    let dir = out.path().join("m");
    let e = merge(&base, &dir, &[("model.layers.1.mlp.up_proj.weight", f32::NAN)]).unwrap_err();
    assert!(e.to_string().contains("up_proj") && e.to_string().contains("after merging"), "{e}");
    let e = merge(&base, &dir, &[("model.layers.9.mlp.up_proj.weight", 1.0)]).unwrap_err();
    assert!(e.to_string().contains("layers.9") && e.exit_code() == 2, "{e}");
    assert!(std::fs::read_dir(out.path()).unwrap().next().is_none());
}

#[test]
fn config_updates_are_set_and_the_rest_kept() {
    let (base, out) = (model("roberta"), tempfile::tempdir().unwrap());
    let (ckpt, cfg) = (Checkpoint::open(&base).unwrap(), ModelConfig::load(&base).unwrap());
    let dir = out.path().join("m");
    let updates = json!({"id2label": {"0": "bad", "1": "good"}});
    write_merged(&ckpt, Some(&cfg), &dir, updates.as_object().unwrap(), &mut Add(BTreeMap::new())).unwrap();
    let new = ModelConfig::load(&dir).unwrap();
    assert_eq!(new.labels().names, ["bad", "good"]);
    assert!(cfg.raw().iter().all(|(k, v)| k == "id2label" || new.raw().get(k) == Some(v)));
}
