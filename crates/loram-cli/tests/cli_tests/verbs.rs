//! Every verb once, on the small Llama: what it prints and what it leaves.

use crate::program::{json, loram, refused, text};
use loram_io::testing::tiny_llama;
use serde_json::Value;

const DATA: &str = "demo:restaurants?seed=0&n=16";
const EVAL: &str = "demo:restaurants?seed=0&n=20&split=dev";

#[test]
fn from_training_to_a_merged_model() {
    let room = tempfile::tempdir().unwrap();
    let dir = room.path();
    let model = tiny_llama().display().to_string();
    let summary = json(
        dir,
        &[
            "train",
            "--model",
            &model,
            "--data",
            "demo:restaurants?n=64",
            "--eval-data",
            EVAL,
            "--learning_rate",
            "2e-3",
            "--max-steps",
            "12",
            "--r",
            "4",
            "--set",
            "adapter_format=native",
            "-o",
            "run",
            "--sample-prompts",
            "1",
        ],
    );
    assert_eq!(summary["status"], "finished");
    let (before, after) = (&summary["eval_before"]["loss"], summary["eval_after"]["loss"].as_f64().unwrap());
    assert!(after < before.as_f64().unwrap());
    for file in ["config.yaml", "metrics.jsonl", "summary.json", "environment.json", "adapter/adapter_config.json"] {
        assert!(dir.join("run").join(file).is_file(), "{file}");
    }
    let events = std::fs::read_dir(dir.join("run")).unwrap().flatten();
    assert!(events.into_iter().any(|f| f.file_name().to_string_lossy().starts_with("events.out.tfevents")));

    // the written configuration starts the same run
    text(dir, &["train", "run/config.yaml", "-o", "again"]);
    let file = "adapter/adapter_model.safetensors";
    let bytes = |run: &str| std::fs::read(dir.join(run).join(file)).unwrap();
    assert!(bytes("run") == bytes("again"), "the same configuration gives the same bits");

    // native, plain and merged say the same
    let loss = |args: &[&str]| json(dir, &[&["eval", "--data", EVAL], args].concat())["loss"].as_f64().unwrap();
    let native = loss(&["--adapter", "run/adapter"]);
    assert!((native / after - 1.0).abs() < 1e-4, "{native} {after}");
    let made = json(dir, &["convert", "run/adapter", "-o", "plain"]);
    assert_eq!((made["to"].as_str(), made["ranks"][0].as_u64()), (Some("plain"), Some(8)));
    let plain = loss(&["--model", &model, "--adapter", "plain"]);
    assert!((plain / after - 1.0).abs() < 1e-4, "{plain} {after}");
    text(dir, &["merge", "--adapter", "plain", "-o", "merged"]);
    let merged = loss(&["--model", "merged"]);
    assert!((merged / after - 1.0).abs() < 5e-3, "{merged} {after}: bf16 weights");
    json(dir, &["convert", "plain", "-o", "native", "--to", "native"]);
    assert!(std::fs::read(dir.join("native/adapter_model.safetensors")).unwrap() == bytes("run"));
    let small = json(dir, &["convert", "plain", "-o", "small", "--rank", "4"]);
    let lost = small["truncation"]["error"].as_f64().unwrap();
    assert!(lost > 0.0 && lost < 1.0 && small["truncation"]["layers"].as_array().unwrap().len() == 35);
    assert!((loss(&["--model", &model, "--adapter", "small"]) / after - 1.0).abs() < 0.5);

    // an adapter names its base model for `train`, too
    let more = ["train", "--adapter", "plain", "--data", DATA, "-o", "further", "--max-steps", "1"];
    assert_eq!(json(dir, &more)["model"], model.as_str());
    let whole = text(dir, &["convert", "plain", "-o", "whole", "--rank", "500"]);
    assert!(whole.starts_with("no layer has a rank above 500: nothing was truncated\n"), "{whole}");
    // nothing that is there is replaced
    loram(dir, &["convert", "plain", "-o", "run/adapter"]).code(2);
    loram(dir, &["init", &model, "-o", "run/adapter"]).code(2);
    loram(dir, &["init", &model, "-o", "new", "--init", "pissa", "--residual", "merged"]).code(2);
    assert!(std::fs::read(dir.join("run").join(file)).unwrap() == bytes("again") && !dir.join("new").exists());

    assert!(text(dir, &["verify", "plain", "--base", &model]).contains("bit for bit"));
    let facts = json(dir, &["info", "plain"]);
    assert_eq!((facts["kind"].as_str(), facts["layers"].as_array().unwrap().len()), (Some("adapter"), 35));
    loram(dir, &["merge", "--adapter", "plain", "-o", "merged"]).code(2);

    let prompt = "name : Zizzi | type : pub =>";
    let one = json(dir, &["generate", "--adapter", "plain", "--prompt", prompt, "--max-new-tokens", "8"]);
    let two = json(dir, &["generate", "--adapter", "run/adapter", "--prompt", prompt, "--max-new-tokens", "8"]);
    assert_eq!(one["token_ids"], two["token_ids"]);
}

#[test]
fn sampling_follows_the_seed() {
    let room = tempfile::tempdir().unwrap();
    let model = tiny_llama().display().to_string();
    let sample = |seed: &str| {
        let how = ["--temperature", "1", "--top-p", "0.9", "--max-new-tokens", "20", "--seed", seed];
        json(room.path(), &[&["generate", "--model", &model, "--prompt", "Once"], &how[..]].concat())["token_ids"]
            .clone()
    };
    assert_eq!(sample("1"), sample("1"));
    assert_ne!(sample("1"), sample("2"));
}

#[test]
fn a_chat_turn() {
    let room = tempfile::tempdir().unwrap();
    let model = tiny_llama().display().to_string();
    let said = json(
        room.path(),
        &[
            "generate",
            "--model",
            &model,
            "--chat",
            "--chat-template",
            "chatml",
            "--prompt",
            "Hello",
            "--max-new-tokens",
            "5",
        ],
    );
    assert!(said["prompt_tokens"].as_u64().unwrap() > 5);
}

#[test]
fn a_dry_run_writes_nothing() {
    let room = tempfile::tempdir().unwrap();
    let model = tiny_llama().display().to_string();
    let out =
        text(room.path(), &["train", "--model", &model, "--data", "demo:restaurants?n=8", "--dry-run", "--r", "3"]);
    for word in
        ["r: 3  # from flag", "learning rate auto", "time", "memory", "⟦", "⟧", "loram r 3 on 35 layers", "products"]
    {
        assert!(out.contains(word), "{word} is not in:\n{out}");
    }
    // what is useful comes first, and defaults are shown on request
    assert!(out.starts_with("model ") && out.lines().count() < 25 && !out.contains("learning_rate: \"auto\""), "{out}");
    let all = ["train", "--model", &model, "--data", "demo:restaurants?n=8", "--dry-run", "-v"];
    assert!(text(room.path(), &all).contains("learning_rate: \"auto\""));
    let json = json(room.path(), &all[..all.len() - 1]);
    assert!(json["time"]["seconds"].as_f64().unwrap() > 0.0 && json["time"]["measured"] == "steps", "{json}");
    assert_eq!(std::fs::read_dir(room.path()).unwrap().count(), 0);
}

#[test]
fn starts_without_training() {
    let room = tempfile::tempdir().unwrap();
    let (dir, model) = (room.path(), tiny_llama().display().to_string());
    let made = json(dir, &["init", &model, "-o", "start", "--init", "loram", "--r", "4", "--residual", "base"]);
    assert_eq!(made["layers"].as_array().unwrap().len(), 35);
    let exact = ["eval", "--data", EVAL, "--compute-dtype", "float32"];
    let loss = |args: &[&str]| json(dir, &[&exact[..], args].concat())["loss"].as_f64().unwrap();
    let base = loss(&["--model", &model]);
    // bf16 residual: rounding moves the model a little
    assert!((loss(&["--model", "base", "--adapter", "start"]) / base - 1.0).abs() < 0.02);
    json(dir, &["init", &model, "-o", "native", "--init", "pissa", "--r", "4"]);
    assert!((loss(&["--model", &model, "--adapter", "native"]) / base - 1.0).abs() < 1e-4);
}

#[test]
fn starts_from_calibration_data() {
    let dir = tempfile::tempdir().unwrap();
    let model = tiny_llama().display().to_string();
    // in bf16 the last bits of sums in f32 decide how activations are rounded
    let exact = ["--data", DATA, "--compute-dtype", "float32"];
    let before = json(dir.path(), &[&["eval", "--model", &model], &exact[..]].concat())["loss"].as_f64().unwrap();
    for scheme in ["eva", "corda", "lora-ga"] {
        let data = ["--calibration-data", DATA, "--calibration-samples", "8", "--r", "2"];
        let made = json(dir.path(), &[&["init", &model, "-o", scheme, "--init", scheme], &data[..]].concat());
        let native = scheme != "eva";
        assert_eq!(made["changes_base"], native, "{scheme}");
        assert_eq!(dir.path().join(scheme).join("start.safetensors").exists(), native, "{scheme}");
        let after = json(dir.path(), &[&["eval", "--model", &model, "--adapter", scheme], &exact[..]].concat());
        assert!((after["loss"].as_f64().unwrap() - before).abs() < 1e-4, "{scheme} moves the model");
        // the plain form needs the start that came along
        loram(dir.path(), &["convert", scheme, "-o", &format!("{scheme}-plain")]).success();
    }
    loram(dir.path(), &["init", &model, "-o", "none", "--init", "corda"]).code(2);
    loram(dir.path(), &["init", &model, "-o", "loftq", "--init", "loftq", "--residual", "quantised"]).success();
    let base = json(dir.path(), &["eval", "--model", "quantised", "--data", DATA])["loss"].as_f64().unwrap();
    let both = json(dir.path(), &["eval", "--model", "quantised", "--adapter", "loftq", "--data", DATA]);
    let near = (both["loss"].as_f64().unwrap() - before).abs();
    assert!(near < (base - before).abs() && base != before, "the start gives back a part of what is quantised away");
}

#[test]
fn a_start_is_made_again_from_its_recipe() {
    let room = tempfile::tempdir().unwrap();
    let (dir, model) = (room.path(), tiny_llama().display().to_string());
    let same = |a: &str, b: &str| {
        let bytes = |d: &str| std::fs::read(dir.join(d).join("adapter_model.safetensors")).unwrap();
        assert!(bytes(a) == bytes(b), "{a} and {b} differ");
    };
    json(dir, &["init", &model, "-o", "first", "--init", "loram", "--gain", "sketch", "--r", "4", "--threads", "1"]);
    json(dir, &["init", "--model", &model, "-o", "second", "--init", "loram", "--gain", "sketch", "--r", "4"]);
    same("first", "second");
    let made = json(dir, &["init", "--from-recipe", "first/loram.json", "-o", "third"]);
    assert_eq!((made["form"].as_str(), made["layers"].as_array().unwrap().len()), (Some("native"), 35));
    same("first", "third");
    assert!(text(dir, &["verify", "third", "--base", &model]).contains("equal bit for bit in 35 layers"));
    json(dir, &["init", &model, "-o", "pissa", "--init", "pissa", "--r", "4"]);
    json(dir, &["init", "--from-recipe", "pissa", "--model", &model, "-o", "again"]);
    same("pissa", "again");
}

#[test]
fn a_learning_rate_is_found_and_shown() {
    let room = tempfile::tempdir().unwrap();
    let (dir, model) = (room.path(), tiny_llama().display().to_string());
    let plan = ["plan", &model, "--data", DATA, "--r", "4"];
    let said = text(dir, &plan);
    for word in ["best single step", "gradient of", "█", "lower than", "equivalent lr"] {
        assert!(said.contains(word), "{word} is not in:\n{said}");
    }
    let found = json(dir, &plan)["learning_rate"].clone();
    let rate = found["learning_rate"].as_f64().unwrap();
    assert!(found["search"]["rungs"].as_array().unwrap().len() > 2 && rate > 1e-4 && rate < 1.0, "{found}");
    // a given rate wins, with a note when it is far away; every scheme, a full one and one from data, has a search
    let note = text(dir, &[&plan[..], &["--learning-rate", "1e-5"]].concat());
    assert!(note.contains("decades below that") && note.contains("at learning rate 1e-5"), "{note}");
    std::fs::write(dir.join("run.yaml"), format!("model: {model}\ndata: {DATA}\ninit: eva\nr: 4\n")).unwrap();
    assert!(text(dir, &["plan", "run.yaml", "--search"]).contains("best single step"));
    assert!(text(dir, &[&plan[..], &["--finetuning-type", "full"]].concat()).contains("(full)"));
    let bare = text(dir, &["plan", &model]);
    assert!(bare.contains("at learning rate 2e-4, since none is given"), "{bare}");
    // nothing was written but what was asked for
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), 1);
}

#[test]
fn runs_are_planned_matched_and_rewritten() {
    let room = tempfile::tempdir().unwrap();
    let (dir, model) = (room.path(), tiny_llama().display().to_string());
    let found = json(dir, &["plan", &model, "--r", "8", "--lr", "2e-3", "--match", "lora@2e-3"]);
    assert_eq!((found["layers"].as_array().unwrap().len(), found["schemes"].as_array().unwrap().len()), (35, 11));
    let rate = found["solved"]["learning_rate"].as_f64().unwrap();
    // at its own rate `loram` moves further: the table and the solution agree on how much
    let lora = found["schemes"].as_array().unwrap().iter().find(|s| s["scheme"] == "lora").unwrap();
    assert!((rate * lora["lr_for_equal"].as_f64().unwrap() / 4e-6 - 1.0).abs() < 1e-3 && rate < 1e-3, "{found}");
    for (knob, key) in [("scaling", "lora_alpha:"), ("start", "init_scale_a:")] {
        let said = text(dir, &["plan", &model, "--match", "lora@2e-4", "--solve", knob, "--layers"]);
        assert!(said.contains(key) && said.contains("down_proj") && said.contains("most"), "{said}");
    }
    // a rewritten configuration is one
    let config = format!("model: {model}\ndata: {DATA}\ninit: lora\nlr: 1e-3\nmax_grad_norm: 0\nmax_steps: 3\n");
    // equal runs round differently in bf16
    let config = config + "compute_dtype: float32\n";
    std::fs::write(dir.join("run.yaml"), config).unwrap();
    let equal = text(dir, &["plan", "run.yaml", "--rewrite", "lora_alpha=64"]);
    std::fs::write(dir.join("equal.yaml"), &equal).unwrap();
    let train = |file: &str| json(dir, &["train", file, "-o", &format!("{file}-run"), "--report-to", "none"]);
    let (one, two) = (train("run.yaml"), train("equal.yaml"));
    let loss = |s: &Value| s["last_loss"].as_f64().unwrap();
    assert!((loss(&one) / loss(&two) - 1.0).abs() < 1e-5, "{} {}\n{equal}", loss(&one), loss(&two));
    for wrong in [
        &["plan"][..],
        &["plan", &model, "--match", "lora"],
        &["plan", &model, "--init", "corda"],
        &["plan", &model, "--model", &model],
        &["plan", "run.yaml", "--rewrite", "r=2"],
        &["plan", "run.yaml", "--rewrite", "lora_alpha=2", "--exact"],
    ] {
        loram(dir, wrong).code(2);
    }
}

#[test]
fn help_lists_and_completions() {
    let room = tempfile::tempdir().unwrap();
    let say = |args: &[&str]| text(room.path(), args);
    assert!(say(&["--help"]).contains("train") && say(&["train", "--help"]).contains("--lora-alpha"));
    assert!(say(&["train", "--help-keys"]).contains("gradient_accumulation_steps"));
    for scheme in ["loram", "pissa", "milora", "olora", "orthogonal", "gaussian", "lora"] {
        assert!(say(&["schemes"]).contains(scheme));
    }
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = say(&["completions", shell]);
        assert!(script.contains("loram"));
        assert_eq!(json(room.path(), &["completions", shell])["script"], script);
    }
    let model = tiny_llama().display().to_string();
    let facts = say(&["info", &model]);
    for word in ["LlamaForCausalLM", "1 185 152", "q_proj", "trainable", "memory"] {
        assert!(facts.contains(word), "{word} is not in:\n{facts}");
    }
}

#[test]
fn doctor_describes_the_machine() {
    let run = |args: &[&str]| {
        let mut loram = assert_cmd::Command::cargo_bin("loram").unwrap();
        let done =
            loram.arg("doctor").args(args).env("HF_HUB_CACHE", "/nowhere/at/all").env_remove("HF_TOKEN").assert();
        String::from_utf8(done.success().get_output().stdout.clone()).unwrap()
    };
    let text = run(&[]);
    assert!(text.contains("GFLOP/s in float32") && text.contains("/nowhere/at/all, not there yet"), "{text}");
    let value: serde_json::Value = serde_json::from_str(&run(&["--json", "--threads", "1"])).unwrap();
    assert_eq!((&value["threads"], &value["hub"]["cache"]), (&1.into(), &"/nowhere/at/all".into()));
    assert!(value["float32_gflops"].as_f64().unwrap() > 0.1);
    assert_eq!(value["kernel"].is_null(), value["bfloat16_gflops"].is_null());
}

#[test]
fn manual_pages_of_all_commands() {
    let dir = tempfile::tempdir().unwrap();
    let loram = || assert_cmd::Command::cargo_bin("loram").unwrap();
    let page = loram().arg("man").assert().success();
    assert!(String::from_utf8_lossy(&page.get_output().stdout).contains(".TH loram 1"));
    std::fs::write(dir.path().join("other.1"), "x").unwrap();
    loram().args(["man", "-o"]).arg(dir.path()).assert().success();
    let train = std::fs::read_to_string(dir.path().join("loram-train.1")).unwrap();
    assert!(train.contains(".TH loram-train 1") && train.contains("learning\\-rate"), "{train}");
    assert!(dir.path().join("other.1").exists() && !dir.path().join("loram-docs.1").exists());
}

#[test]
fn a_configuration_from_flags_trains() {
    let room = tempfile::tempdir().unwrap();
    let dir = room.path();
    let model = tiny_llama().display().to_string();
    let flags = ["--model", &model, "--data", DATA, "--eval-data", EVAL, "-o", "run", "--r", "4", "--max-steps", "2"];
    let out = text(dir, &[&["init-config", "mine.yaml"], &flags[..]].concat());
    assert!(out.contains("train mine.yaml --dry-run"), "{out}");
    let (from_file, from_flags) =
        (["train", "mine.yaml", "--dry-run"], [&["train"], &flags[..], &["--dry-run"]].concat());
    // without the comments that say where a value comes from
    let settings = |args: &[&str]| -> Vec<String> {
        let all = json(dir, args)["config"].as_str().unwrap().to_string();
        all.lines().map(|line| line.split("  # from ").next().unwrap().to_string()).collect()
    };
    assert_eq!(settings(&from_file), settings(&from_flags));
    let written = std::fs::read_to_string(dir.join("mine.yaml")).unwrap();
    assert!(written.contains("\nr: 4\n") && written.contains("\n# packing: false\n"), "{written}");
    // on standard output, the same but for its name
    let printed = text(dir, &[&["init-config"], &flags[..]].concat());
    assert_eq!(printed.replace("FILE.yaml", "mine.yaml").trim_end(), written.trim_end());
    // what is there stays, and what is missing is named, without a terminal
    refused(dir, &[&["init-config", "mine.yaml"], &flags[..]].concat(), &["mine.yaml", "exists"]);
    refused(dir, &["init-config", "other.yaml", "--data", DATA], &["model_name_or_path"]);
    refused(dir, &["init-config", "other.yaml", "--model", &model], &["train_data"]);
    refused(dir, &["init-config", "--overwrite"], &["CONFIG.yaml"]);
    assert!(!dir.join("other.yaml").exists());
}
