//! Initialisation of whole checkpoints: written as computed, the same for any number of threads, reproduced from recipes.

use loram_core::{LoraConfig, SchemeOptions, SchemeSpec, TargetModules, from_recipe};
use loram_io::adapter::*;
use loram_io::atomic::Output;
use loram_io::checkpoint::{TensorSpec, pt_metadata, write_safetensors};
use loram_io::init::{BaseName, InitOptions, InitReport, Residual, init, init_to, reproduce};
use loram_io::verify::{Outcome, verify};
use loram_io::{Checkpoint, DType, Error, ModelConfig, Result, testing};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

const BASE: BaseName<'static> = BaseName { name: "base", revision: None };

fn options(scheme: &str, r: usize) -> InitOptions {
    InitOptions {
        lora: LoraConfig { r, lora_alpha: 1.5 * r as f64, ..Default::default() },
        scheme: SchemeSpec::parse(scheme, &Default::default()).unwrap(),
        seed: 3,
    }
}

fn targets(options: InitOptions, names: &[&str]) -> InitOptions {
    let names = TargetModules::Names(names.iter().map(|n| n.to_string()).collect());
    InitOptions { lora: LoraConfig { target_modules: names, ..options.lora.clone() }, ..options }
}

fn open(dir: &Path) -> (Checkpoint, Option<ModelConfig>) {
    (Checkpoint::open(dir).unwrap(), ModelConfig::load_known(dir).unwrap())
}

fn start(dir: &Path, options: &InitOptions, out: &Path) -> Result<InitReport> {
    let (ckpt, cfg) = open(dir);
    init_to(&ckpt, cfg.as_ref(), options, BASE, out, None, &|_, _, _| ())
}

fn bytes(dir: &Path, file: &str) -> Vec<u8> {
    fs::read(dir.join(file)).unwrap()
}

fn noise(len: usize, seed: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919 + seed * 104729) % 1009) as f32 / 1009.0 - 0.5).collect()
}

/// A folder with these tensors, in BF16, and this `config.json`.
fn folder(dir: &Path, config: Value, tensors: &[(&str, &[usize])]) -> PathBuf {
    let values = |i: usize, shape: &[usize]| noise(shape.iter().product(), i);
    let list = tensors.iter().enumerate();
    let list = list.map(|(i, (n, s))| (TensorSpec::new(*n, DType::BF16, s), Cow::Owned(values(i, s)))).collect();
    write_safetensors(dir.join("model.safetensors"), &pt_metadata(), list).unwrap();
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
    dir.to_path_buf()
}

const GPT2: [(&str, &[usize]); 9] = [
    ("wte.weight", &[50, 16]),
    ("wpe.weight", &[20, 16]),
    ("h.0.ln_1.weight", &[16]),
    ("h.0.attn.c_attn.weight", &[16, 48]),
    ("h.0.attn.c_attn.bias", &[48]),
    ("h.0.attn.c_proj.weight", &[16, 16]),
    ("h.0.mlp.c_fc.weight", &[16, 64]),
    ("h.0.mlp.c_proj.weight", &[64, 16]),
    ("ln_f.weight", &[16]),
];

fn gpt2(dir: &Path) -> PathBuf {
    folder(dir, json!({ "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"] }), &GPT2)
}

#[test]
fn the_file_is_that_of_the_adapter_in_memory_for_any_number_of_threads() {
    let (room, model) = (tempfile::tempdir().unwrap(), testing::tiny_llama());
    let (ckpt, cfg) = open(&model);
    for scheme in ["loram", "pissa-niter-2", "orthogonal"] {
        let o = options(scheme, 4);
        let (adapter, report) = init(&ckpt, cfg.as_ref(), &o, BASE, &|_, _, _| ()).unwrap();
        adapter.write_to(Output::new(&room.path().join("memory"), true)).unwrap();
        for threads in [1, 2, 5] {
            let out = room.path().join(format!("{scheme}-{threads}"));
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let streamed = pool.install(|| start(&model, &o, &out)).unwrap();
            assert_eq!((&streamed.layers, streamed.form), (&report.layers, report.form));
            for file in [ADAPTER_WEIGHTS, ADAPTER_CONFIG, RECIPE_FILE, "README.md"] {
                assert!(bytes(&out, file) == bytes(&room.path().join("memory"), file), "{scheme}: {file}");
            }
        }
    }
    let first: Vec<String> = init(&ckpt, cfg.as_ref(), &options("loram", 2), BASE, &|_, _, _| ()).unwrap().1.layers
        [..2]
        .iter()
        .map(|l| l.path.clone())
        .collect();
    assert_eq!(first, ["model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj"], "the model's order");
}

#[test]
fn every_start_is_made_again_from_its_recipe() {
    let (room, model) = (tempfile::tempdir().unwrap(), testing::tiny_llama());
    let (ckpt, cfg) = open(&model);
    let base = || Some((&ckpt, cfg.as_ref(), "elsewhere"));
    let nothing = |_: usize, _: usize, _: &str| ();
    // those that start from calibration data have tests of their own, in loram-train
    for info in loram_core::registry().iter().filter(|i| i.statistic == loram_core::Statistic::None) {
        let name = info.name.replace("-k", "-2");
        let mut o = targets(options(&name, 4), &["q_proj", "down_proj", "embed_tokens"]);
        o.lora.rank_pattern.insert("layers.1.mlp.down_proj".into(), 6);
        o.lora.use_rslora = true;
        let (first, again, alone) = (room.path().join(&name), room.path().join("again"), room.path().join("alone"));
        start(&model, &o, &first).unwrap();
        let recipe = Recipe::read(&first.join(RECIPE_FILE)).unwrap();
        let free = recipe.layers.values().all(|l| from_recipe(l).is_some());
        let same = |dir: &Path| assert!(bytes(dir, ADAPTER_WEIGHTS) == bytes(&first, ADAPTER_WEIGHTS), "{name}");
        if free {
            reproduce(&first.join(RECIPE_FILE), None, Output::new(&alone, true), &nothing).unwrap();
            same(&alone);
            let [found, want] = [&alone, &first].map(|d| Adapter::read(d).unwrap().plan().unwrap());
            for (path, p) in want {
                assert!(
                    found[&path].r == p.r && (found[&path].scaling / p.scaling - 1.0).abs() < 1e-15,
                    "{name} {path}"
                );
            }
        } else {
            let no = room.path().join("no");
            let e = reproduce(&first, None, &no, &nothing).unwrap_err();
            assert!(e.to_string().contains(&format!("`{name}`")) && e.to_string().contains("--model"), "{e}");
            assert!(e.exit_code() == 2 && !no.exists());
        }
        reproduce(&first, base(), Output::new(&again, true), &nothing).unwrap();
        same(&again);
        let made = Adapter::read(&again).unwrap();
        assert_eq!((made.base_model.as_deref(), made.form()), (Some("elsewhere"), recipe.form));
        assert_eq!((made.task_type.as_deref(), made.config.use_rslora), (Some("CAUSAL_LM"), true));
        let found = verify(&made, Some((&ckpt, cfg.as_ref()))).unwrap();
        assert!(found.checks.iter().all(|c| c.outcome == Outcome::Passed), "{name}: {found:?}");
    }
    let other = testing::repo_root().join("fixtures/models/llama");
    let (ckpt, cfg) = open(&other);
    let e = reproduce(&room.path().join("pissa"), Some((&ckpt, cfg.as_ref(), "x")), &room.path().join("no"), &nothing);
    assert!(e.unwrap_err().to_string().contains("weight"));
    assert!(!room.path().join("no").exists());
}

#[test]
fn random_bases_and_other_gains_are_in_the_recipe_too() {
    let (room, model) = (tempfile::tempdir().unwrap(), testing::tiny_llama());
    for (basis, gain) in [("gaussian", "log-half"), ("random-orthogonal", "sketch"), ("dct", "exact")] {
        let scheme = SchemeOptions::default().with("basis", basis).with("gain", gain);
        let o = InitOptions { scheme: SchemeSpec::parse("loram", &scheme).unwrap(), ..options("loram", 4) };
        let [first, again] = ["a", "b"].map(|n| room.path().join(format!("{basis}-{n}")));
        start(&model, &o, &first).unwrap();
        reproduce(&first.join(RECIPE_FILE), None, &again, &|_, _, _| ()).unwrap();
        assert!(bytes(&first, ADAPTER_WEIGHTS) == bytes(&again, ADAPTER_WEIGHTS), "{basis} {gain}");
    }
}

/// ‖W − s·BA − R‖/‖W‖ over all layers, R being what the residual checkpoint holds.
fn distance(base: &Path, residual: &Path, adapter: &Adapter) -> f64 {
    let (base, residual) = (Checkpoint::open(base).unwrap(), Checkpoint::open(residual).unwrap());
    let (mut off, mut all) = (0.0, 0.0);
    for (path, plan) in adapter.plan().unwrap() {
        let w = &adapter.layers[&path];
        let name = format!("{path}.weight");
        let mut want = base.tensor(&name).unwrap().to_f32().unwrap();
        all += want.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
        w.add_to(&mut want, -plan.scaling);
        let found = residual.tensor(&name).unwrap().to_f32().unwrap();
        off += want.iter().zip(&found).map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>();
    }
    (off / all).sqrt()
}

#[test]
fn residual_checkpoints_in_f32_and_in_the_type_of_the_base() {
    let (room, model) = (tempfile::tempdir().unwrap(), testing::tiny_llama());
    let (ckpt, cfg) = open(&model);
    for (dtype, least, most) in [(Some(DType::F32), -1.0, 0.0), (None, 1e-4, 4e-3)] {
        let [out, to] = ["adapter", "base"].map(|n| room.path().join(format!("{n}-{dtype:?}")));
        let residual = Residual { to: (&to).into(), dtype };
        let o = targets(options("loram", 4), &["q_proj", "up_proj", "embed_tokens"]);
        let report = init_to(&ckpt, cfg.as_ref(), &o, BASE, &out, Some(residual), &|_, _, _| ()).unwrap();
        assert_eq!((report.form, report.changes_base), (AdapterForm::Plain, true));
        let adapter = Adapter::read(&out).unwrap();
        assert_eq!(adapter.base_model, Some(to.display().to_string()));
        let off = distance(&model, &to, &adapter);
        assert!(off > least && off <= most, "{dtype:?}: {off}");
        let written = Checkpoint::open(&to).unwrap();
        let changed = dtype.unwrap_or(DType::BF16);
        assert_eq!(written.info("model.layers.0.mlp.up_proj.weight").unwrap().dtype, changed);
        assert_eq!(written.info("model.norm.weight").unwrap().dtype, DType::BF16, "copied as it is");
        adapter.recipe.unwrap().base.unwrap().verify(&written, None).unwrap();
    }
    let config: Value = serde_json::from_slice(&bytes(&room.path().join("base-Some(F32)"), "config.json")).unwrap();
    assert_eq!(config["dtype"], "float32");
    let to = room.path().join("none");
    let e = init_to(
        &ckpt,
        cfg.as_ref(),
        &options("lora", 4),
        BASE,
        &room.path().join("x"),
        Some(Residual { to: (&to).into(), dtype: None }),
        &|_, _, _| (),
    );
    assert!(e.unwrap_err().to_string().contains("no residual"));
}

#[test]
fn conv1d_layers_start_as_the_linear_layers_that_they_are() {
    let room = tempfile::tempdir().unwrap();
    let dirs = ["gpt2", "linear"].map(|n| room.path().join(n));
    dirs.iter().for_each(|d| fs::create_dir(d).unwrap());
    let model = gpt2(&dirs[0]);
    let (ckpt, _) = open(&model);
    // the same weights as (out, in), in f32, under other names
    let linear: Vec<_> = GPT2
        .iter()
        .filter(|t| t.0.contains(".c_") && t.0.ends_with(".weight"))
        .map(|(name, shape)| {
            let (rows, cols) = (shape[0], shape[1]);
            let x = ckpt.tensor(name).unwrap().to_f32().unwrap();
            let t: Vec<f32> = (0..rows * cols).map(|k| x[k % rows * cols + k / rows]).collect();
            (TensorSpec::new(format!("transformer.{name}"), DType::F32, &[cols, rows]), Cow::Owned(t))
        })
        .collect();
    write_safetensors(dirs[1].join("model.safetensors"), &pt_metadata(), linear).unwrap();
    fs::write(dirs[1].join("config.json"), r#"{"model_type": "other"}"#).unwrap();

    let sketch = SchemeOptions::default().with("gain", "sketch");
    let mut sketched = options("loram", 4);
    sketched.scheme = SchemeSpec::parse("loram", &sketch).unwrap();
    for (i, o) in [options("loram", 4), options("pissa", 4), options("olora", 4), sketched].iter().enumerate() {
        let [a, b] = ["c", "l"].map(|n| room.path().join(format!("{n}{i}")));
        start(&model, o, &a).unwrap();
        start(&dirs[1], o, &b).unwrap();
        let [found, want] = [&a, &b].map(|d| Adapter::read(d).unwrap());
        assert_eq!(found.layers.len(), 4);
        assert_eq!(found.layers, want.layers, "{}", o.scheme);
        assert!(found.config.fan_in_fan_out && !want.config.fan_in_fan_out);
        assert_eq!((found.task_type.as_deref(), want.task_type), (Some("CAUSAL_LM"), None));
        assert!(verify(&found, Some((&ckpt, None))).unwrap().passed);

        // the residual is (in, out) again
        let to = room.path().join(format!("residual{i}"));
        let out = room.path().join(format!("plain{i}"));
        init_to(
            &ckpt,
            None,
            o,
            BASE,
            &out,
            Some(Residual { to: (&to).into(), dtype: Some(DType::F32) }),
            &|_, _, _| (),
        )
        .unwrap();
        let residual = Checkpoint::open(&to).unwrap();
        for (path, w) in &found.layers {
            let name = format!("{}.weight", path.trim_start_matches("transformer."));
            let (stored, before) = (residual.tensor(&name).unwrap(), ckpt.tensor(&name).unwrap());
            assert_eq!(stored.shape(), [w.m, w.n]);
            let (stored, before) = (stored.to_f32().unwrap(), before.to_f32().unwrap());
            let mut product = vec![0.0; w.n * w.m];
            w.add_to(&mut product, 1.5);
            let off = |k: usize| (before[k] - product[k % w.n * w.m + k / w.n] - stored[k]).abs();
            assert!((0..w.n * w.m).all(|k| off(k) < 1e-5), "{path}");
        }
    }
}

#[test]
fn what_is_no_linear_layer_is_refused_by_name() {
    let room = tempfile::tempdir().unwrap();
    let model = folder(
        room.path(),
        json!({ "model_type": "some_moe", "architectures": ["SomeMoeForCausalLM"] }),
        &[
            ("model.embed_tokens.weight", &[40, 8]),
            ("model.layers.0.self_attn.q_proj.weight", &[8, 8]),
            ("model.layers.0.input_layernorm.weight", &[8]),
            ("model.layers.0.mlp.gate.weight", &[4, 8]),
            ("model.layers.0.mlp.experts.gate_up_proj", &[4, 8, 16]),
            ("model.layers.0.mlp.shared_experts.up_proj.weight", &[16, 8]),
            ("model.layers.1.mlp.experts.0.down_proj.weight", &[8, 16]),
            ("model.layers.1.mlp.conv.weight", &[8, 1, 4]),
            ("lm_head.weight", &[40, 8]),
        ],
    );
    let out = room.path().join("out");
    let report = start(&model, &options("loram", 4), &out).unwrap();
    let paths: Vec<&str> = report.layers.iter().map(|l| l.path.as_str()).collect();
    assert_eq!(paths, ["model.layers.0.self_attn.q_proj", "model.layers.0.mlp.shared_experts.up_proj"]);
    assert_eq!(Adapter::read(&out).unwrap().task_type.as_deref(), Some("CAUSAL_LM"));
    for (name, words) in [
        ("input_layernorm", &["layers.0.input_layernorm", "[8]"][..]),
        ("gate", &["layers.0.mlp.gate", "routes"]),
        ("gate_up_proj", &["layers.0.mlp.experts.gate_up_proj", "expert", "[4, 8, 16]"]),
        ("down_proj", &["layers.1.mlp.experts.0.down_proj", "expert"]),
        ("conv", &["layers.1.mlp.conv", "two dimensions"]),
        ("nothing", &["nothing", "q_proj"]),
    ] {
        let wanted = targets(options("loram", 4), &["q_proj", name][(name == "nothing") as usize..]);
        let e = start(&model, &wanted, &room.path().join("none")).unwrap_err();
        assert!(words.iter().all(|w| e.to_string().contains(w)) && e.exit_code() == 2, "{name}: {e}");
    }
}

#[test]
fn damaged_weights_and_impossible_ranks_are_named_and_leave_nothing() {
    let room = tempfile::tempdir().unwrap();
    let dir = room.path();
    fs::write(dir.join("config.json"), "{}").unwrap();
    let target = "block.1.dense.weight";
    let write = |dtype: DType, shape: &[usize], change: &dyn Fn(&mut [f32])| {
        let mut values = noise(shape.iter().product(), 1);
        change(&mut values);
        let list = vec![
            (TensorSpec::new("block.0.dense.weight", DType::F32, &[6, 9]), Cow::Owned(noise(54, 0))),
            (TensorSpec::new(target, dtype, shape), Cow::Owned(values)),
        ];
        write_safetensors(dir.join("model.safetensors"), &pt_metadata(), list).unwrap();
    };
    let fails = |o: &InitOptions, words: &[&str]| {
        let e = start(dir, o, &dir.join("out")).unwrap_err();
        assert!(words.iter().all(|w| e.to_string().contains(w)) && e.exit_code() == 2, "{e}");
        assert_eq!(fs::read_dir(dir).unwrap().count(), 2, "something is left behind");
    };
    for dtype in [DType::F32, DType::F16, DType::BF16, DType::F64] {
        for bad in [f32::NAN, f32::INFINITY] {
            write(dtype, &[6, 9], &|v| v[17] = bad);
            for scheme in ["loram", "pissa", "olora"] {
                fails(&options(scheme, 4), &["block.1.dense", "NaN or infinite"]);
            }
        }
        write(dtype, &[6, 9], &|_| ());
        for r in [1, 6] {
            let report = start(dir, &options("loram", r), &dir.join("out")).unwrap();
            assert!(report.layers.iter().all(|l| l.r == r && l.beta > Some(0.0)), "r = 1 is not dead");
            fs::remove_dir_all(dir.join("out")).unwrap();
        }
        fails(&options("loram", 7), &["block.0.dense", "(6, 9)", "r = 7"]);
    }
    write(DType::F32, &[54], &|_| ());
    let e = start(dir, &targets(options("loram", 4), &["dense"]), &dir.join("out")).unwrap_err();
    assert!(e.to_string().contains("block.1.dense") && e.to_string().contains("[54]"), "{e}");
    // integers, as quantised checkpoints have them
    let header = r#"{"a.dense.weight":{"dtype":"I8","shape":[6,9],"data_offsets":[0,54]}}"#;
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[1; 54]].concat();
    fs::write(dir.join("model.safetensors"), file).unwrap();
    fails(&options("loram", 4), &["a.dense", "I8", "unquantised"]);
    let header = r#"{"a.dense.qweight":{"dtype":"I32","shape":[6,9],"data_offsets":[0,216]}}"#;
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[1; 216]].concat();
    fs::write(dir.join("model.safetensors"), file).unwrap();
    let o = targets(options("loram", 4), &["dense"]);
    let e = start(dir, &o, &dir.join("out")).unwrap_err();
    assert!(matches!(e, Error::Core(_) | Error::Tensor { .. }) && e.to_string().contains("quantised"), "{e}");
    fs::write(dir.join("config.json"), r#"{"model_type": "x", "quantization_config": {"quant_method": "hqq"}}"#)
        .unwrap();
    let e = Checkpoint::open(dir).unwrap_err().to_string();
    assert!(e.contains("hqq") && e.contains("quantization_config"), "{e}");
}

const SCRIPT: &str = r#"
import sys, torch
from transformers import AutoModelForCausalLM, GPT2Config
from peft import PeftModel
what, base, residual, adapter = sys.argv[1:]
load = lambda p: AutoModelForCausalLM.from_pretrained(p, dtype=torch.float32)
if what == "make":
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(GPT2Config(vocab_size=99, n_positions=32, n_embd=24, n_layer=2, n_head=2)).save_pretrained(base)
else:
    ids = torch.tensor([[1, 5, 9, 3, 7]])
    with torch.no_grad():
        want, without = load(base)(ids).logits, load(residual)(ids).logits
        found = PeftModel.from_pretrained(load(residual), adapter)(ids).logits
    print(float((found - want).abs().max() / want.abs().max()), float((without - want).abs().max() / want.abs().max()))
"#;

#[test]
fn peft_gets_gpt2_back_from_residual_and_adapter() {
    let run = |args: &[&str]| {
        let mut python = std::process::Command::new(testing::python());
        python.arg("-c").arg(SCRIPT).args(args).env("HF_HUB_OFFLINE", "1").output().unwrap()
    };
    let have = std::process::Command::new(testing::python()).args(["-c", "import peft, transformers"]).output();
    if !have.is_ok_and(|o| o.status.success()) {
        eprintln!("skipped: {} has no PEFT (set LORAM_PYTHON)", testing::python().display());
        return;
    }
    let room = tempfile::tempdir().unwrap();
    let [base, to, out] = ["base", "residual", "adapter"].map(|n| room.path().join(n));
    let text = |p: &PathBuf| p.display().to_string();
    assert!(run(&["make", &text(&base), "-", "-"]).status.success());
    let (ckpt, cfg) = open(&base);
    let residual = Residual { to: (&to).into(), dtype: None };
    init_to(&ckpt, cfg.as_ref(), &options("loram", 4), BASE, &out, Some(residual), &|_, _, _| ()).unwrap();
    let done = run(&["check", &text(&base), &text(&to), &text(&out)]);
    let figures: Vec<f64> =
        String::from_utf8_lossy(&done.stdout).split_whitespace().filter_map(|x| x.parse().ok()).collect();
    assert_eq!(figures.len(), 2, "{}", String::from_utf8_lossy(&done.stderr));
    assert!(figures[0] < 1e-4 && figures[1] > 1e-2, "with adapter {}, without {}", figures[0], figures[1]);
}
