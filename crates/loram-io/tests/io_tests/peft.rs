//! PEFT itself on our files: a plain adapter gives PEFT the weights that our merge writes, a native one is refused, a merged
//! folder loads in transformers. Skipped without a Python that has PEFT (`LORAM_PYTHON`).

use loram_core::{Factors, LoraConfig, SchemeSpec, StoredWeight, initialize, plan_layers};
use loram_io::adapter::*;
use loram_io::merge::write_merged;
use loram_io::{Checkpoint, ModelConfig, linear_modules, testing};
use std::path::PathBuf;
use std::process::Command;

const SCRIPT: &str = r#"
import sys, torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from peft import PeftModel
base, plain, native, merged = sys.argv[1:]
load = lambda p: AutoModelForCausalLM.from_pretrained(p, dtype=torch.float32)
ids = torch.tensor([[1, 5, 9, 3, 7]])
with torch.no_grad():
    theirs = PeftModel.from_pretrained(load(base), plain)(ids).logits
    ours = load(merged)(ids).logits
    before = load(base)(ids).logits
print("moved", float((theirs - before).abs().max() / before.abs().max()))
print("error", float((theirs - ours).abs().max() / theirs.abs().max()))
try:
    PeftModel.from_pretrained(load(base), native)
    print("native loaded")
except ValueError as e:
    print("native refused:", e)
"#;

#[test]
fn peft_reads_plain_adapters_and_refuses_native_ones() {
    let have = Command::new(testing::python()).args(["-c", "import peft, transformers, safetensors"]).output();
    if !have.is_ok_and(|o| o.status.success()) {
        eprintln!("skipped: {} has no PEFT (set LORAM_PYTHON)", testing::python().display());
        return;
    }
    let base = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/models/llama-tied-sharded");
    let (ckpt, cfg) = (Checkpoint::open(&base).unwrap(), ModelConfig::load(&base).unwrap());
    let config = LoraConfig { r: 4, lora_alpha: 6.0, ..Default::default() };
    let spec = SchemeSpec::parse("loram", &Default::default()).unwrap();
    let mut a = Adapter::new(config.clone(), "CAUSAL_LM", Some(base.display().to_string()));
    let mut recipe = Recipe::new(AdapterForm::Native, spec.to_string(), 0);
    for plan in plan_layers(&config, &linear_modules(&ckpt, Some(&cfg)).unwrap()).unwrap() {
        let data = ckpt.tensor(&format!("{}.weight", plan.path)).unwrap().to_f32().unwrap();
        let start = initialize(&spec, StoredWeight::of(&data, plan.n, plan.m), &plan, 0).unwrap();
        let moved = |x: Vec<f32>| x.iter().enumerate().map(|(i, x)| x + ((i * 7 % 11) as f32 - 5.0) * 0.02).collect();
        let Factors { n, m, r, a: a0, b: b0 } = start.factors;
        a.layers.insert(plan.path.clone(), Factors { n, m, r, a: moved(a0), b: moved(b0) });
        recipe.layers.insert(plan.path, start.recipe);
    }
    a.recipe = Some(recipe);
    let dir = tempfile::tempdir().unwrap();
    let [plain, native, merged] = ["plain", "native", "merged"].map(|n| dir.path().join(n));
    a.write(&native).unwrap();
    a.to_plain(|p| panic!("{p}")).unwrap().write(&plain).unwrap();
    write_merged(&ckpt, Some(&cfg), &merged, &Default::default(), &mut AdapterMerge::new(&a).unwrap()).unwrap();

    let mut python = Command::new(testing::python());
    python.arg("-c").arg(SCRIPT).arg(&base).args([&plain, &native, &merged]).env("HF_HUB_OFFLINE", "1");
    let out = python.output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let figure = |name: &str| -> f64 {
        text.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_else(|| panic!("{text}")).trim().parse().unwrap()
    };
    assert!(figure("moved ") > 0.05, "{text}");
    // the merged weights are bf16: the only difference is that rounding
    assert!(figure("error ") < 0.02, "{text}");
    assert!(text.contains("native refused:") && text.contains("loram-native"), "{text}");
}
