//! Preference training from the dry run to an evaluation and a resumed run, on the small Llama.

use crate::program::{json, loram, text};
use loram_io::testing::tiny_llama;
use std::fs;
use std::path::Path;

/// Facts about restaurants; the chosen sentence is about the right one.
fn write_pairs(dir: &Path) {
    let names = ["Aromi", "Zizzi", "Strada", "Giraffe", "Alimentum", "Cotto", "Fitzbillies", "Loch Fyne"];
    let areas = ["riverside", "city centre", "old town"];
    let (mut pairs, mut judged) = (String::new(), String::new());
    for i in 0..24 {
        let (name, area) = (names[i % 8], areas[i % 3]);
        let other = areas[(i + 1) % 3];
        let prompt = format!("name : {name} | area : {area} =>");
        let [good, bad] = [area, other].map(|a| format!(" {name} is in the {a}."));
        pairs += &format!("{{\"prompt\": \"{prompt}\", \"chosen\": \"{good}\", \"rejected\": \"{bad}\"}}\n");
        for (answer, label) in [(&good, true), (&bad, false)] {
            judged += &format!("{{\"prompt\": \"{prompt}\", \"completion\": \"{answer}\", \"label\": {label}}}\n");
        }
    }
    fs::write(dir.join("pairs.jsonl"), pairs).unwrap();
    fs::write(dir.join("judged.jsonl"), judged).unwrap();
}

const RUN: [&str; 10] =
    ["--data", "pairs.jsonl", "--eval-data", "pairs.jsonl", "--learning_rate", "1e-3", "--max-steps", "12", "--r", "4"];

#[test]
fn every_objective_learns_and_is_evaluated() {
    let room = tempfile::tempdir().unwrap();
    let dir = room.path();
    write_pairs(dir);
    let model = tiny_llama().display().to_string();
    for task in ["dpo", "orpo", "cpo", "simpo", "kto"] {
        let out = format!("run-{task}");
        let run = [&["train", "--model", &model, "--task", task, "-o", &out], &RUN[..]].concat();
        let summary = json(dir, &run);
        let figure = |when: &str, name: &str| summary[when][name].as_f64().unwrap_or_else(|| panic!("{task}: {name}"));
        assert!(figure("eval_after", "loss") < figure("eval_before", "loss"), "{task}");
        let margin = "rewards/margins";
        // the likelihood leads the first steps of orpo and cpo
        let grows = figure("eval_after", margin) > figure("eval_before", margin);
        assert!(grows || ["orpo", "cpo"].contains(&task), "{task}");
        if task == "dpo" {
            // W − s·B₀A₀ + s·B₀A₀ is W up to rounding
            let before = (figure("eval_before", "loss"), figure("eval_before", margin));
            assert!((before.0 - 2f64.ln()).abs() < 1e-2 && before.1.abs() < 2e-2, "{before:?}");
            assert!(figure("eval_after", "rewards/accuracies") > 0.8);
        }
        // the saved adapter gives the same figures, against the base model
        let adapter = format!("{out}/adapter");
        let found = json(dir, &["eval", "--adapter", &adapter, "--data", "pairs.jsonl", "--task", task]);
        let loss = found["loss"].as_f64().unwrap();
        assert!((loss - figure("eval_after", "loss")).abs() < 1e-3, "{task}: {loss}");
    }
    // data alone tell the task
    let found = json(dir, &["eval", "--adapter", "run-dpo/adapter", "--data", "pairs.jsonl"]);
    assert!(found["rewards/accuracies"].as_f64().unwrap() > 0.8);
    let shown = text(dir, &["train", "--model", &model, "--data", "judged.jsonl", "--dry-run"]);
    assert!(
        shown.contains("kto") && shown.contains("=>⟦ Aromi is in the riverside.") && shown.contains("label: desirable")
    );
    let shown = text(dir, &["train", "--model", &model, "--data", "pairs.jsonl", "--dry-run"]);
    assert!(shown.contains("dpo") && shown.contains("chosen\n") && shown.contains("\nrejected\n"), "{shown}");
    let log = fs::read_to_string(dir.join("run-dpo/metrics.jsonl")).unwrap();
    assert!(log.contains("\"rewards/accuracies\":") && log.contains("\"eval_rewards/chosen\":"));
}

#[test]
fn an_interrupted_run_ends_with_the_same_bits() {
    let room = tempfile::tempdir().unwrap();
    let dir = room.path();
    write_pairs(dir);
    let model = tiny_llama().display().to_string();
    for (name, more) in [("settled", "true"), ("each-step", "false")] {
        let settings = ["--set".to_string(), format!("precompute_ref_log_probs={more}")];
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let run = |out: &str, more: &[&str]| {
            let head =
                ["train", "--model", &model, "-o", out, "--save-steps", "5", "--set", "gradient_accumulation_steps=2"];
            text(dir, &[&head, &RUN[..], &settings, more].concat())
        };
        let (whole, stopped) = (format!("{name}-whole"), format!("{name}-stopped"));
        run(&whole, &[]);
        run(&stopped, &["--set", "save_total_limit=null"]);
        let adapter = |out: &str| fs::read(dir.join(out).join("adapter/adapter_model.safetensors")).unwrap();
        let first = adapter(&stopped);
        for gone in ["adapter", "summary.json", "checkpoint-10", "checkpoint-12"] {
            let path = dir.join(&stopped).join(gone);
            let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        }
        run(&stopped, &["--set", "save_total_limit=null", "--resume"]);
        assert!(adapter(&stopped) == adapter(&whole) && first == adapter(&whole), "{name}");
    }
}

#[test]
fn what_has_no_effect_or_no_reference_is_refused() {
    let room = tempfile::tempdir().unwrap();
    let dir = room.path();
    write_pairs(dir);
    let model = tiny_llama().display().to_string();
    let refused = |args: &[&str], words: &[&str]| {
        let out =
            loram(dir, &[&["train", "--model", &model, "--max-steps", "1", "--learning_rate", "1e-3"], args].concat());
        let error = String::from_utf8(out.code(2).get_output().stderr.clone()).unwrap();
        words.iter().for_each(|w| assert!(error.contains(w), "no `{w}` in: {error}"));
        assert!(!dir.join("loram-output").exists());
    };
    let pairs = ["--data", "pairs.jsonl"];
    refused(&["--data", "demo:restaurants?n=8", "--beta", "0.2"], &["beta", "no effect", "causal_lm"]);
    refused(&[&pairs[..], &["--loss-type", "sigmoidal"]].concat(), &["loss_type", "`sigmoidal`", "ipo"]);
    refused(&[&pairs[..], &["--loss-type", "exo_pair"]].concat(), &["label_smoothing", "exo_pair"]);
    refused(&[&pairs[..], &["--task", "orpo", "--loss-type", "ipo"]].concat(), &["loss_type", "no effect", "orpo"]);
    refused(
        &[&pairs[..], &["--loss-type", "aot", "--f-divergence-type", "js_divergence"]].concat(),
        &["f_divergence_type"],
    );
    refused(&[&pairs[..], &["--packing"]].concat(), &["packing", "dpo"]);
    refused(&[&pairs[..], &["--task", "causal_lm"]].concat(), &["pairs.jsonl:1", "dpo", "causal_lm"]);
    refused(&[&pairs[..], &["--task", "kto", "--finetuning-type", "full"]].concat(), &["kto", "full fine-tuning"]);
    refused(&[&pairs[..], &["--set", "max_prompt_length=64"]].concat(), &["max_prompt_length", "TRL", "max_length"]);
    fs::write(dir.join("broken.jsonl"), "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": 3}\n").unwrap();
    refused(&["--data", "broken.jsonl", "--task", "dpo"], &["broken.jsonl:1", "rejected"]);
}

/// The reference is the model before training, in full fine-tuning and where an adapter is trained further, too.
#[test]
fn references_of_other_starts() {
    let room = tempfile::tempdir().unwrap();
    let dir = room.path();
    write_pairs(dir);
    let model = tiny_llama().display().to_string();
    let full =
        ["train", "--model", &model, "--finetuning-type", "full", "--lr", "1e-4", "-o", "full", "--max-steps", "2"];
    let data = ["--data", "pairs.jsonl", "--eval-data", "pairs.jsonl"];
    let summary = json(dir, &[&full[..], &data].concat());
    assert!((summary["eval_before"]["loss"].as_f64().unwrap() - 2f64.ln()).abs() < 1e-6);
    let sft = [
        "train",
        "--model",
        &model,
        "--data",
        "demo:restaurants?n=32",
        "--lr",
        "2e-3",
        "--max-steps",
        "8",
        "-o",
        "sft",
    ];
    text(dir, &sft);
    let further = ["train", "--adapter", "sft/adapter", "--lr", "1e-3", "-o", "further", "--max-steps", "4"];
    let summary = json(dir, &[&further[..], &data].concat());
    let before = &summary["eval_before"];
    assert!((before["loss"].as_f64().unwrap() - 2f64.ln()).abs() < 1e-5, "{before}");
    assert!(summary["eval_after"]["loss"].as_f64().unwrap() < before["loss"].as_f64().unwrap());
}
