//! `loram compare` and `loram report`, on the small Llama and generated data.

use loram_io::testing::tiny_llama;
use predicates::prelude::*;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

struct Room(tempfile::TempDir);

/// Two arms, two rates, one seed; eight steps each.
const SMALL: &str = "schemes:\n  lora: {init: lora}\n  loram: {init: loram}\nlr: [1e-3, 5e-3]\nseed: [0]\n";

impl Room {
    fn new() -> Room {
        Room(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes `grid.yaml`: `more` after what every grid of these tests has.
    fn grid(&self, name: &str, output: &str, more: &str) {
        let text = format!(
            "models: {{tiny: {}}}\ntasks:\n  food: {{data: 'demo:restaurants?n=32', eval_data: \
             'demo:restaurants?n=24&split=dev'}}\noutput_dir: {output}\nr: [2]\nmax_steps: 8\nbatch_size: 4\n\
             report_to: none\ntarget_modules: [q_proj, v_proj]\n{more}",
            tiny_llama().display()
        );
        fs::write(self.path(name), text).unwrap();
    }

    fn loram(&self, args: &[&str]) -> assert_cmd::assert::Assert {
        assert_cmd::Command::cargo_bin("loram").unwrap().current_dir(self.0.path()).args(args).write_stdin("").assert()
    }

    fn json(&self, args: &[&str]) -> Value {
        let out = self.loram(&[args, &["--json"]].concat()).success().get_output().stdout.clone();
        serde_json::from_slice(&out).unwrap()
    }

    /// One line on standard error with all these words, and exit code 2.
    fn refuses(&self, args: &[&str], words: &[&str]) {
        let out = self.loram(args).code(2).get_output().stderr.clone();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        words.iter().for_each(|w| assert!(text.contains(w), "no `{w}` in: {text}"));
    }

    /// Results of the scored runs of a comparison, without fields that depend on the machine or the time.
    fn found(&self, output: &str) -> BTreeMap<String, Value> {
        let dirs = fs::read_dir(self.path(output).join("runs")).unwrap().flatten();
        let mut out = BTreeMap::new();
        for dir in dirs {
            let Ok(text) = fs::read_to_string(dir.path().join("scores.json")) else { continue };
            let mut scores: Value = serde_json::from_str(&text).unwrap();
            let map = scores.as_object_mut().unwrap();
            map.remove("cost");
            map.remove("data");
            out.insert(dir.file_name().to_string_lossy().into_owned(), scores);
        }
        out
    }
}

#[test]
fn a_grid_is_made_once_and_reported() {
    let room = Room::new();
    room.grid("grid.yaml", "out", SMALL);
    let plan = room.json(&["compare", "grid.yaml", "--plan"]);
    assert_eq!((&plan["rows"][0]["runs"], &plan["rows"][0]["steps"]), (&Value::from(4), &Value::from(8)));
    assert!(plan["seconds"].as_f64().unwrap() > 0.0);
    let done = room.json(&["compare", "grid.yaml"]);
    assert_eq!((done["scored"].as_u64(), done["made"].as_u64(), done["total"].as_u64()), (Some(4), Some(4), Some(4)));
    let run = room.path("out/runs/tiny.food.lora.r2.lr1e-3.s0");
    for file in ["config.yaml", "metrics.jsonl", "summary.json", "environment.json", "scores.json"] {
        assert!(run.join(file).exists(), "{file}");
    }
    assert!(run.join("adapter/adapter_config.json").exists() && !run.join("checkpoint-8").exists());
    let first = room.found("out");
    let scores = &first["tiny.food.lora.r2.lr1e-3.s0"];
    assert_eq!(scores["selection"]["examples"], 12);
    assert_eq!(scores["examples"]["nats"].as_array().unwrap().len(), 12);
    let nats: f64 = scores["examples"]["nats"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).sum();
    let (loss, tokens) = (scores["test"]["loss"].as_f64().unwrap(), scores["test"]["tokens"].as_f64().unwrap());
    assert!((nats / tokens - loss).abs() < 1e-5, "{} {loss}", nats / tokens);
    // nothing is left
    let again = room.json(&["compare", "grid.yaml"]);
    assert_eq!((again["scored"].as_u64(), again["made"].as_u64()), (Some(4), Some(0)));
    room.loram(&["compare", "grid.yaml", "--list"]).success().stdout("");

    // what was scored is what anybody finds with the saved adapter
    let adapter = run.join("adapter").display().to_string();
    let test = fs::read_dir(room.path("out/data")).unwrap().flatten().next().unwrap().path().join("test.jsonl");
    let eval = room.json(&["eval", "--adapter", &adapter, "--data", &test.display().to_string()]);
    assert!((eval["loss"].as_f64().unwrap() - loss).abs() < 1e-5);

    room.loram(&[
        "report",
        "out",
        "-o",
        "report.html",
        "-o",
        "report.md",
        "-o",
        "runs.csv",
        "-o",
        "report.json",
        "--plots",
        "plots",
        "--peft-results",
        "peft",
    ])
    .success();
    let html = fs::read_to_string(room.path("report.html")).unwrap();
    assert!(html.contains("<svg") && html.contains("loram") && html.contains("Fewer than three seeds"));
    for outside in ["src=\"http", "href=\"http", "url(", "@import"] {
        assert!(!html.contains(outside), "the page must need no network: {outside}");
    }
    assert_eq!(fs::read_to_string(room.path("runs.csv")).unwrap().lines().count(), 5);
    assert!(fs::read_to_string(room.path("report.md")).unwrap().contains("| arm | learning rate | loss |"));
    let json: Value = serde_json::from_slice(&fs::read(room.path("report.json")).unwrap()).unwrap();
    assert_eq!(json["groups"][0]["arms"].as_array().unwrap().len(), 2);
    let gains = &json["gains"]["tiny"];
    let at = |list: &str, rank: u64| -> f64 {
        let i = gains["ranks"].as_array().unwrap().iter().position(|r| *r == rank).unwrap();
        gains[list][i]["mean"].as_f64().unwrap()
    };
    // docs/magnitude.md has them from a decomposition of its own
    assert!((at("exact", 8) - 0.315).abs() < 1e-3 && (at("log", 8) - 0.449).abs() < 1e-3, "{gains}");
    assert!((at("sketch", 8) - at("exact", 8)).abs() < 0.02);
    let plots: Vec<_> = fs::read_dir(room.path("plots")).unwrap().flatten().map(|e| e.path()).collect();
    assert_eq!(
        plots.len(),
        10,
        "two plots, the magnitudes of two arms and the gains of the model, each as SVG and PNG"
    );
    for png in plots.iter().filter(|p| p.extension().is_some_and(|e| e == "png")) {
        assert!(fs::read(png).unwrap().starts_with(b"\x89PNG"));
    }
    let results: Vec<_> = fs::read_dir(room.path("peft")).unwrap().flatten().collect();
    assert_eq!(results.len(), 4);
    let result: Value = serde_json::from_slice(&fs::read(results[0].path()).unwrap()).unwrap();
    assert_eq!(result["train_info"]["status"], "success");
    assert!(result["train_info"]["metrics"].as_array().unwrap().last().unwrap()["test loss"].is_number());
    // the same folders give the same bytes
    room.loram(&["report", "out", "-o", "again.html"]).success();
    assert_eq!(fs::read_to_string(room.path("again.html")).unwrap(), html);
}

#[test]
fn killed_and_started_again_it_repeats_nothing() {
    let room = Room::new();
    room.grid("whole.yaml", "whole", SMALL);
    room.loram(&["compare", "whole.yaml"]).success();
    room.grid("grid.yaml", "out", SMALL);
    let program = assert_cmd::cargo::cargo_bin("loram");
    let mut child = Command::new(program)
        .current_dir(room.0.path())
        .args(["compare", "grid.yaml", "--jobs", "1"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let began = Instant::now();
    while room.path("out/runs").read_dir().map_or(0, |d| d.count()) < 2 || room.found("out").is_empty() {
        assert!(began.elapsed() < Duration::from_secs(120), "no run is scored");
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // the run at hand ends with its driver; then its lock is free
    let scored = room.found("out").into_keys().collect::<Vec<_>>();
    let times =
        |id: &str| fs::metadata(room.path("out/runs").join(id).join("scores.json")).unwrap().modified().unwrap();
    let before: Vec<_> = scored.iter().map(|id| times(id)).collect();
    let mut done = Value::Null;
    while done["remaining"] != 0 {
        assert!(began.elapsed() < Duration::from_secs(240), "{done}");
        done = room.json(&["compare", "grid.yaml"]);
    }
    assert_eq!(scored.iter().map(|id| times(id)).collect::<Vec<_>>(), before);
    assert_eq!(room.found("out"), room.found("whole"), "the figures are those of an undisturbed comparison");
}

#[test]
fn shards_together_are_the_whole() {
    let room = Room::new();
    room.grid("whole.yaml", "whole", SMALL);
    room.loram(&["compare", "whole.yaml"]).success();
    for (i, output) in ["one", "two"].iter().enumerate() {
        room.grid("grid.yaml", output, SMALL);
        let done = room.json(&["compare", "grid.yaml", "--shard", &format!("{}/2", i + 1)]);
        assert_eq!(done["total"], 2);
        let listed = room.loram(&["compare", "grid.yaml", "--list"]).success().get_output().stdout.clone();
        assert_eq!(String::from_utf8(listed).unwrap().lines().count(), 2, "the other shard's");
    }
    // folders of other machines lie under the same name there: data paths are part of a run's configuration
    room.grid("one.yaml", "one", SMALL);
    for (i, line) in ["tiny.food.lora.r2.lr1e-3.s0", "nonsense"].iter().enumerate() {
        let expected = if i == 0 { 0 } else { 2 };
        room.loram(&["compare", "one.yaml", "--only", line]).code(expected);
    }
    let moved = room.path("moved");
    fs::rename(room.path("two"), &moved).unwrap();
    room.grid("two.yaml", "two", SMALL);
    fs::create_dir(room.path("two")).unwrap();
    room.loram(&["compare", "two.yaml", "--shard", "1/2"]).success();
    let gains = room.path("two/state/gains-tiny.json");
    let made = fs::read(&gains).unwrap();
    fs::remove_file(&gains).unwrap();
    let gathered = room.json(&["compare", "two.yaml", "--gather", "moved"]);
    assert_eq!(fs::read(&gains).unwrap(), made, "gain curves come along");
    assert_eq!((gathered["copied"].as_u64(), gathered["missing"].as_u64()), (Some(2), Some(0)));
    assert_eq!(room.found("two"), room.found("whole"));
}

#[test]
fn halving_gives_full_runs_to_the_better_rates_only() {
    let room = Room::new();
    let more = "schemes: {loram: {}}\nlr: [1e-5, 1e-4, 1e-3, 5e-3]\nseed: [0, 1]\nhalving: true\n";
    room.grid("grid.yaml", "out", more);
    let done = room.json(&["compare", "grid.yaml"]);
    // four short runs with the first seed, then two rates with two seeds
    assert_eq!((done["scored"].as_u64(), done["dropped"].as_u64()), (Some(8), Some(4)), "{done}");
    let found = room.found("out");
    let short = found.iter().filter(|(id, _)| id.ends_with(".rung0")).count();
    assert_eq!(short, 4);
    assert!(found.contains_key("tiny.food.loram.r2.lr5e-3.s1") && !found.contains_key("tiny.food.loram.r2.lr1e-5.s0"));
    let report = room.json(&["report", "out"]);
    let rates = report["groups"][0]["arms"][0]["rates"].as_array().unwrap();
    assert_eq!(rates.iter().filter(|r| r["halved"] == true).count(), 2);
    room.loram(&["report", "out"]).success().stdout(predicate::str::contains("dropped by halving"));
}

#[test]
fn auto_is_kept_for_a_report_of_its_own() {
    let room = Room::new();
    // auto is far from the best of these
    let rates = "lr: [auto, \"auto*0.9\", \"auto*0.8\", \"auto*0.7\"]\nseed: [0]\n";
    let schemes = "schemes: {lora: {init: lora}, loram: {init: loram}}\nscore: exact_match\n";
    room.grid("grid.yaml", "out", &format!("{schemes}{rates}halving: {{factor: 4, keep_auto: true}}\n"));
    let done = room.json(&["compare", "grid.yaml"]);
    let found = room.found("out");
    let full = |arm: &str, rate: &str| found.contains_key(&format!("tiny.food.{arm}.r2.lr-auto{rate}.s0"));
    assert!(full("lora", "") && full("loram", ""), "{done}");
    for scores in found.values() {
        let score = scores["test"]["exact_match"].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&score) && scores["selection"]["exact_match"].is_f64(), "{scores}");
    }
    let report = room.json(&["report", "out", "--learning-rate", "auto"]);
    for arm in report["groups"][0]["arms"].as_array().unwrap() {
        assert_eq!(arm["rates"].as_array().unwrap().len(), 1, "{arm}");
    }
    room.refuses(&["report", "out", "--learning-rate", "1e-3"], &["--learning-rate", "no finished run"]);
    room.loram(&["report", "out", "--learning-rate", "fast"]).code(2).stderr(predicate::str::contains("auto*F"));
}

#[test]
fn a_rate_that_is_too_high_is_a_result() {
    let room = Room::new();
    let more = "schemes: {loram: {optim: sgd, max_grad_norm: 0}}\nlr: [1e-3, 1e9]\nseed: [0]\n";
    room.grid("grid.yaml", "out", more);
    room.loram(&["compare", "grid.yaml"]).success().stderr(predicate::str::contains("diverged"));
    assert_eq!(room.found("out")["tiny.food.loram.r2.lr1e9.s0"]["outcome"], "diverged");
    let report = room.json(&["report", "out"]);
    assert_eq!(report["groups"][0]["arms"][0]["best_rate"], 1e-3);
}

#[test]
fn arms_are_compared_at_their_own_rates_and_at_equal_steps() {
    let room = Room::new();
    let schemes = "schemes:\n  lora: {init: lora}\n  loram: {init: loram}\nseed: [0, 1]\n";
    room.grid("auto.yaml", "auto", schemes);
    room.grid("steps.yaml", "steps", &format!("{schemes}step_size: [0.3%, 0.03]\n"));
    for grid in ["auto.yaml", "steps.yaml"] {
        let done = room.json(&["compare", grid]);
        assert_eq!(done["scored"], done["total"], "{done}");
    }
    // one search for each seed, not for each arm
    assert_eq!(fs::read_dir(room.path("auto/state/learning-rate")).unwrap().count(), 2);
    let rate = |run: &str| {
        let text = fs::read_to_string(room.path(run).join("environment.json")).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()["learning_rate"].clone()
    };
    let of = |arm: &str| rate(&format!("auto/runs/tiny.food.{arm}.r2.lr-auto.s1"));
    assert_eq!(of("lora")["step_size"], of("loram")["step_size"]);
    assert!(of("lora")["learning_rate"].as_f64() > of("loram")["learning_rate"].as_f64());
    assert_eq!(rate("steps/runs/tiny.food.lora.r2.step3e-3.s0")["origin"], "step_size");
    room.loram(&["report", "auto", "steps", "-o", "report.md"]).success();
    let page = fs::read_to_string(room.path("report.md")).unwrap();
    assert!(page.contains("step:0.3% (") && page.contains("auto ("), "{page}");
    // started again, nothing is left to do
    assert_eq!(room.json(&["compare", "steps.yaml"])["made"], 0);
}

#[test]
fn mistakes_in_a_grid_are_named() {
    let room = Room::new();
    let compare = |more: &str, words: &[&str]| {
        room.grid("grid.yaml", "out", more);
        room.refuses(&["compare", "grid.yaml"], &[&["grid.yaml"], words].concat());
        assert!(!room.path("out").exists(), "nothing is left behind by {more}");
    };
    let arms = "schemes: {lora: {init: lora}}\n";
    compare("lr: [1e-3]\n", &["`schemes` is missing"]);
    compare(&format!("{arms}step_size: [0.3]\nlr: [1e-3]\n"), &["the key `learning_rate` is given twice"]);
    compare(&format!("{arms}step_size: [fast]\n"), &["step_size: found \"fast\"", "shares of the weights' norm"]);
    compare(&format!("{arms}lr: [1e-3]\nshemes: {{}}\n"), &["unknown key `shemes`", "did you mean `schemes`?"]);
    compare("lr: [1e-3]\nschemes: {a: {lora_rnak: 4}}\n", &["`lora_rnak` in `schemes.a`", "did you mean"]);
    compare("lr: [1e-3]\nschemes: {a: {init: nonsense}}\n", &["a on food with tiny", "nonsense"]);
    compare(&format!("{arms}lr: [fast]\n"), &["learning_rate: found \"fast\"", "a number"]);
    compare(&format!("{arms}lr: [1e-3]\nsplit: {{selection: 2}}\n"), &["split.selection: found 2", "between 0 and 1"]);
    compare(&format!("{arms}lr: [1e-3]\nscore: beauty\n"), &["score: found `beauty`", "accuracy"]);
    compare(&format!("{arms}lr: [1e-3]\nhalving: {{factor: 1}}\n"), &["halving.factor: found 1", "2 or more"]);
    compare(&format!("{arms}lr: [1e-3]\nresume: true\n"), &["`resume`", "sets this key itself"]);
    compare(&format!("{arms}lr: [1e-3, 0.001]\n"), &["two runs would have the folder"]);
    compare(&format!("{arms}lr: [1e-3]\nforgetting_data: gone.txt\n"), &["forgetting_data", "gone.txt"]);
    room.refuses(&["compare", "gone.yaml"], &["gone.yaml"]);
    room.refuses(&["report", "gone"], &["gone", "no such folder"]);
    room.refuses(&["report", ".", "-o", "report.pdf"], &["report.pdf", ".html"]);
    room.refuses(&["report", "."], &["no finished run"]);
}

#[test]
fn a_folder_with_other_runs_is_not_taken_for_this_grid() {
    let room = Room::new();
    let arms = "schemes: {lora: {init: lora}}\nlr: [1e-3]\nseed: [0]\n";
    room.grid("grid.yaml", "out", arms);
    room.loram(&["compare", "grid.yaml"]).success();
    room.grid("grid.yaml", "out", &format!("{arms}weight_decay: 0.1\n"));
    room.refuses(&["compare", "grid.yaml"], &["another configuration", "weight_decay", "0.1"]);
}

/// An experiment folder as the PEFT project's comparison has it.
fn experiments(dir: &Path) {
    let write = |name: &str, text: &str| {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write(
        "default_training_params.json",
        r#"{"model_id": "some/model", "batch_size": 4, "optimizer_kwargs": {"lr": 1e-4, "weight_decay": 0.1}, "lr_scheduler": "cosine"}"#,
    );
    write(
        "experiments/lora/rank2/adapter_config.json",
        r#"{"peft_type": "LORA", "r": 2, "lora_alpha": 4, "init_lora_weights": true, "use_dora": false, "bias": "none", "target_modules": null}"#,
    );
    write(
        "experiments/lora/rank4-rslora/adapter_config.json",
        r#"{"peft_type": "LORA", "r": 4, "use_rslora": true, "init_lora_weights": "pissa_niter_4", "target_modules": ["q_proj"]}"#,
    );
    write("experiments/full-finetuning/slow/training_params.json", r#"{"optimizer_kwargs": {"lr": 1e-5}}"#);
}

#[test]
fn experiment_folders_of_peft_are_arms() {
    let room = Room::new();
    experiments(room.0.path());
    room.grid("grid.yaml", "out", "experiments: experiments\nlr: [1e-3]\nseed: [0]\n");
    let list = room.json(&["compare", "grid.yaml", "--list"]);
    let ids: Vec<&str> = list["ready"].as_array().unwrap().iter().map(|r| r["run"].as_str().unwrap()).collect();
    assert_eq!(
        ids,
        [
            "tiny.food.full-finetuning_slow.lr1e-5.s0",
            "tiny.food.lora_rank2.r2.lr1e-3.s0",
            "tiny.food.lora_rank4-rslora.r4.lr1e-3.s0"
        ]
    );
    fs::write(room.path("experiments/lora/rank2/adapter_config.json"), r#"{"peft_type": "VERA", "r": 2}"#).unwrap();
    room.refuses(&["compare", "grid.yaml"], &["rank2/adapter_config.json", "peft_type", "VERA"]);
}
