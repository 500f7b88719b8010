//! Every verb on bases in 4 bits: quantised while they are read, and read as they are.

use crate::program::{json, loram, refused};
use loram_io::testing::{python, repo_root, shared_dir};
use serde_json::Value;
use std::fs;

fn tiny() -> String {
    repo_root().join("assets/tiny-llama-en").display().to_string()
}

/// A folder with a few sentences.
fn room() -> tempfile::TempDir {
    let room = tempfile::tempdir().unwrap();
    let line = |i: usize| {
        let (who, what) = (["the cat", "a dog", "my aunt"][i % 3], ["sleeps", "runs away", "reads a book"][i / 3 % 3]);
        serde_json::json!({"prompt": format!("{who} "), "completion": format!("{what} in the garden")}).to_string()
            + "\n"
    };
    fs::write(room.path().join("data.jsonl"), (0..24).map(line).collect::<String>()).unwrap();
    room
}

fn loss(value: &Value, at: &str) -> f64 {
    value.pointer(at).and_then(Value::as_f64).unwrap_or_else(|| panic!("{at} in {value}"))
}

fn near(a: f64, b: f64, share: f64) -> bool {
    (a / b - 1.0).abs() < share
}

#[test]
fn a_base_that_is_quantised_while_it_is_read() {
    let room = room();
    let (dir, base) = (room.path(), tiny());
    let plain = json(dir, &["info", &base])["model"]["bytes"].as_u64().unwrap();
    let packed = json(dir, &["info", &base, "--load-in-4bit"]);
    assert!(packed["model"]["bytes"].as_u64().unwrap() < plain * 6 / 10, "the embedding stays: {packed}");
    assert!(packed["model"]["dtypes"].get("NF4").is_some());

    let set =
        ["--load-in-4bit", "--data", "data.jsonl", "--eval-data", "data.jsonl", "--max-steps", "8", "--lr", "1e-3"];
    for (scheme, more) in [
        ("loram", &["--bnb-4bit-use-double-quant"][..]),
        ("pissa", &["--bnb-4bit-quant-type", "fp4", "--llm-int8-skip-modules", "down_proj"]),
        ("lora", &[]),
    ] {
        let run = format!("run-{scheme}");
        let summary = json(dir, &[&["train", "--model", &base, "-o", &run, "--init", scheme], &set[..], more].concat());
        let (before, after) = (loss(&summary, "/eval_before/loss"), loss(&summary, "/eval_after/loss"));
        assert!(after < 0.9 * before, "{scheme}: {summary}");
        // the model does not change at step 0
        let start = json(dir, &[&["eval", "--model", &base, "--data", "data.jsonl", "--load-in-4bit"], more].concat());
        assert!(near(loss(&start, "/loss"), before, 1e-4), "{scheme}: {start}");
        // the adapter remembers its base
        let adapter = format!("{run}/adapter");
        let eval = |args: &[&str]| {
            let all = [&["eval", "--adapter", &adapter, "--data", "data.jsonl"], args].concat();
            loss(&json(dir, &all), "/loss")
        };
        assert!(near(eval(&[]), after, 1e-4), "{scheme}");
        assert!(!near(eval(&["--load-in-4bit", "false"]), after, 1e-4), "{scheme}");
        loram(dir, &["generate", "--adapter", &adapter, "--prompt", "the cat", "--max-new-tokens", "4"]).success();
        assert_eq!(json(dir, &["verify", &adapter, "--base", &base])["passed"], true);
        let more = ["train", "--adapter", &adapter, "-o", "more", "--overwrite-output-dir", "--data", "data.jsonl"];
        let on = json(dir, &[&more[..], &["--eval-data", "data.jsonl", "--max-steps", "1", "--lr", "1e-4"]].concat());
        assert!(near(loss(&on, "/eval_before/loss"), after, 1e-4), "{scheme}: {on}");
        // merged into what it was trained on, or into what is stored
        let merged = |flags: &[&str], name: &str| {
            json(dir, &[&["merge", "--adapter", &adapter, "-o", name], flags].concat());
            loss(&json(dir, &["eval", "--model", name, "--data", "data.jsonl"]), "/loss")
        };
        assert!(near(merged(&[], &format!("merged-{scheme}")), after, 0.02), "{scheme}");
        let stored = merged(&["--unquantised"], &format!("stored-{scheme}"));
        assert!(near(stored, eval(&["--load-in-4bit", "false"]), 0.02), "{scheme}");
    }
    // an initialisation is reproduced on the weights that it was made on
    json(dir, &["init", &base, "-o", "start", "--load-in-4bit", "--init", "pissa", "--r", "4"]);
    json(dir, &["init", "--model", &base, "--from-recipe", "start", "-o", "again"]);
    let factors = |name: &str| fs::read(dir.join(name).join("adapter_model.safetensors")).unwrap();
    assert!(factors("start") == factors("again"));
    json(dir, &["plan", &base, "--load-in-4bit", "--lr", "1e-3"]);
}

#[test]
fn what_4_bits_cannot_do_is_refused() {
    let room = room();
    let (dir, base) = (room.path(), tiny());
    let packed = repo_root().join("fixtures/models/llama-nf4").display().to_string();
    let train = ["train", "--model", &base, "--data", "data.jsonl", "-o", "run", "--lr", "1e-3"];
    let with = |more: &[&'static str]| [&train[..], more].concat();
    refused(dir, &with(&["--load-in-4bit", "--finetuning-type", "full"]), &["load_in_4bit", "finetuning_type"]);
    refused(dir, &with(&["--bnb-4bit-quant-type", "fp4"]), &["bnb_4bit_quant_type", "load_in_4bit"]);
    refused(dir, &with(&["--load-in-4bit", "--bnb-4bit-quant-type", "int4"]), &["bnb_4bit_quant_type", "nf4, fp4"]);
    refused(dir, &["info", &packed, "--load-in-4bit"], &["quantised already", "NF4"]);
    let residual = ["init", &base, "-o", "a", "--residual", "b", "--init", "pissa", "--load-in-4bit"];
    refused(dir, &residual, &["quantised", "NF4", "`loram`"]);
    refused(dir, &["init", &packed, "-o", "a", "--residual", "b", "--init", "pissa"], &["quantised", "NF4", "`loram`"]);
    assert!(!dir.join("a").exists() && !dir.join("b").exists() && !dir.join("run").exists());
}

const PEFT: &str = r#"
import json, sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
base, adapter, text = sys.argv[1:]
config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                            bnb_4bit_compute_dtype=torch.float32)
model = AutoModelForCausalLM.from_pretrained(base, quantization_config=config, dtype=torch.float32, device_map="cpu")
tokens = AutoTokenizer.from_pretrained(base)
ids = torch.tensor([tokens(text)["input_ids"] + [tokens.eos_token_id]])
loss = lambda m: torch.nn.functional.cross_entropy(m(ids).logits[0, :-1], ids[0, 1:]).item()
with torch.no_grad():
    # in training: bitsandbytes' kernels for inference take sizes of whole blocks only, and round to bf16
    print(json.dumps([loss(model.train()), loss(PeftModel.from_pretrained(model, adapter).train())]))
"#;

/// Losses of transformers and PEFT on the base that bitsandbytes quantises, and with the adapter.
#[test]
fn peft_loads_the_adapter_onto_the_same_base() {
    let there = std::process::Command::new(python()).args(["-c", "import peft, bitsandbytes"]).output();
    if !there.is_ok_and(|out| out.status.success()) {
        eprintln!("skipped: no packages peft and bitsandbytes in {} (set LORAM_PYTHON)", python().display());
        return;
    }
    let room = room();
    // in f32, so that neither side rounds what it decodes
    let Some(shared) = shared_dir() else { return };
    let (dir, base) = (room.path(), shared.join("models/stories260K").display().to_string());
    let text = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park.";
    fs::write(dir.join("text.jsonl"), serde_json::json!({ "text": text }).to_string() + "\n").unwrap();
    let four = ["--load-in-4bit", "--bnb-4bit-use-double-quant"];
    let train = ["train", "--model", &base, "--data", "data.jsonl", "-o", "run", "--lr", "3e-3", "--max-steps", "8"];
    json(dir, &[&train[..], &four].concat());
    let exact = ["--data", "text.jsonl", "--compute-dtype", "float32"];
    let before = json(dir, &[&["eval", "--model", &base], &exact[..], &four].concat());
    let after = json(dir, &[&["eval", "--adapter", "run/adapter"], &exact[..]].concat());
    let out = std::process::Command::new(python())
        .args(["-c", PEFT, &base, &dir.join("run/adapter").display().to_string(), text])
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let found: Vec<f64> =
        serde_json::from_slice(out.stdout.split(|b| *b == b'\n').rfind(|l| !l.is_empty()).unwrap()).unwrap();
    eprintln!("base {} {}, adapter {} {}", found[0], before["loss"], found[1], after["loss"]);
    assert!((found[1] / found[0] - 1.0).abs() > 1e-3, "the adapter does something: {found:?}");
    for (ours, theirs) in [(&before, found[0]), (&after, found[1])] {
        assert!(near(loss(ours, "/loss"), theirs, 1e-5), "{ours} {found:?}");
    }
}
