//! `loram init` and the initialisation of a run give the same bits.

use loram_core::{LoraConfig, SchemeOptions, SchemeSpec, Statistic, TargetModules, registry};
use loram_io::adapter::AdapterForm;
use loram_io::checkpoint::{TensorSpec, pt_metadata, write_safetensors};
use loram_io::init::{BaseName, InitOptions, init, init_to};
use loram_io::{Adapter, Checkpoint, DType, ModelConfig, testing};
use loram_nn::{Batch, HeadKind, LoadOptions, Model};
use loram_train::adapt::{Calibration, ExportInfo, LoadAdapter, initialize, load};
use loram_train::config::BaseMode;
use std::borrow::Cow;
use std::path::{Path, PathBuf};

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// Every scheme that needs no data, LoRAM with other gains, and one with scales.
fn schemes() -> Vec<SchemeSpec> {
    let without_data = registry().iter().filter(|s| s.behaviour().statistic == Statistic::None);
    let mut out: Vec<SchemeSpec> = without_data
        .map(|s| SchemeSpec::parse(&s.name.replace("-k", "-2"), &SchemeOptions::default()).unwrap())
        .collect();
    for gain in ["sketch", "exact", "track:pissa", "0.3"] {
        out.push(SchemeSpec::parse("loram", &SchemeOptions::default().with("gain", gain)).unwrap());
    }
    let scaled = SchemeOptions { init_scale_a: 0.5, ..SchemeOptions::default() };
    out.push(SchemeSpec::parse("loram", &scaled).unwrap());
    out
}

/// `init` on the checkpoint, a run's own initialisation, and a run that trains the folder of `init`.
fn check(dir: &Path, label: &str) {
    let (ckpt, config) = (Checkpoint::open(dir).unwrap(), ModelConfig::load(dir).unwrap());
    let model = || Model::load(&ckpt, &config, &LoadOptions::new(HeadKind::LanguageModel)).unwrap();
    let room = tempfile::tempdir().unwrap();
    let base = BaseName { name: "base", revision: None };
    let info = ExportInfo { base_model: "base".into(), revision: None, task_type: "CAUSAL_LM" };
    let batch = Batch { tokens: vec![3, 5, 9, 2, 7], lengths: vec![5], ..Batch::default() };
    let all = schemes();
    assert!(all.len() > 15, "{}", all.len());
    for (i, scheme) in all.into_iter().enumerate() {
        let name = format!("{label}: {scheme:?}");
        // linear layers, and the embedding
        let target_modules = TargetModules::Regex(r".*(_proj|embed_tokens)".into());
        let mut lora = LoraConfig { r: 4, lora_alpha: 6.0, target_modules, ..LoraConfig::default() };
        lora.rank_pattern.insert("k_proj".into(), 2);
        let options = InitOptions { lora, scheme, seed: 5 };
        let (expected, _) = init(&ckpt, Some(&config), &options, base, &|_, _, _| ()).unwrap();
        assert!(expected.layers.len() >= 8 && expected.embeddings.len() == 1);

        let mut own = model();
        let mut adaptation =
            initialize(&mut own, &options, BaseMode::Auto, Calibration::default(), &mut |_, _, _| ()).unwrap();
        adaptation.identify(&ckpt, &config).unwrap();
        let native = adaptation.export(&own, AdapterForm::Native, &info).unwrap();
        assert_eq!(native.recipe, expected.recipe, "{name}");
        assert_eq!((native.layers.len(), &native.config), (expected.layers.len(), &expected.config), "{name}");

        let folder = room.path().join(i.to_string());
        init_to(&ckpt, Some(&config), &options, base, &folder, None, &|_, _, _| ()).unwrap();
        assert_eq!(Adapter::read(&folder).unwrap().layers, expected.layers);
        let mut loaded = model();
        let how = LoadAdapter { train: true, dropout: 0.0, base: BaseMode::Auto };
        let (from_folder, warnings) = load(&mut loaded, &ckpt, &config, &folder, how).unwrap();
        assert!(warnings.is_empty(), "{name}: {warnings:?}");
        for (path, want) in &expected.layers {
            for (whose, found) in [
                ("the run", own.factors(path).unwrap().unwrap()),
                ("the run from the folder", loaded.factors(path).unwrap().unwrap()),
                ("the exported adapter", native.layers[path].clone()),
            ] {
                assert_eq!((found.n, found.m, found.r), (want.n, want.m, want.r), "{name}, {whose}: {path}");
                let same = bits(&found.a) == bits(&want.a) && bits(&found.b) == bits(&want.b);
                assert!(same, "{name}, {whose}: {path} has other bits");
            }
            assert_eq!(adaptation.initial(path), from_folder.initial(path), "{name}: {path}");
        }
        let [x, y] = [&own, &loaded].map(|m| m.logits(&batch).unwrap());
        assert!(bits(&x) == bits(&y), "{name}: the models differ at step 0");
    }
}

fn fixture() -> PathBuf {
    testing::repo_root().join("fixtures/models/llama")
}

#[test]
fn a_run_has_the_factors_of_init_in_bf16() {
    check(&testing::tiny_llama(), "BF16");
}

#[test]
fn a_run_has_the_factors_of_init_in_f32() {
    check(&fixture(), "F32");
}

/// Weights that the model holds in memory alone, converted from a type that it cannot use in place.
#[test]
fn a_run_has_the_factors_of_init_for_weights_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let ckpt = Checkpoint::open(fixture()).unwrap();
    let tensor = |name: &str| {
        let t = ckpt.tensor(name).unwrap();
        (TensorSpec::new(name, DType::F64, t.shape()), Cow::Owned(t.to_f32().unwrap()))
    };
    let tensors = ckpt.names().map(tensor).collect();
    write_safetensors(dir.path().join("model.safetensors"), &pt_metadata(), tensors).unwrap();
    std::fs::copy(fixture().join("config.json"), dir.path().join("config.json")).unwrap();
    check(dir.path(), "F64");
}
