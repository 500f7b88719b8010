//! Heads for classification through training, evaluation, merging and resuming: poolings, several labels, tags of words.

use super::families::model;
use super::program::{json, refused};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

fn read(path: impl AsRef<Path>) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// A model of `fixtures/` as it is before a task: without the tensors of its head.
fn base(room: &Path, fixture: &str, family: &str, class: &str) -> PathBuf {
    let dir = model(room, fixture, family, if family == "llama" { "score" } else { "classifier" });
    let mut config = read(dir.join("config.json"));
    config["architectures"] = json!([class]);
    for key in ["id2label", "label2id", "problem_type", "classifier_pooling"] {
        config.as_object_mut().unwrap().remove(key);
    }
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
    dir
}

fn lines(room: &Path, name: &str, records: &[Value]) -> String {
    fs::write(room.join(name), records.iter().map(|r| format!("{r}\n")).collect::<String>()).unwrap();
    name.to_string()
}

/// Trains an adapter, and checks that the program, a merged model and a model trained in full agree on what they were trained for:
/// the same loss and metrics each way. Returns the metrics.
fn round_trip(room: &Path, model: &Path, data: &str, how: &[&str], merged_config: &[(&str, Value)]) -> Value {
    let model = model.display().to_string();
    let train = |out: &str, more: &[&str]| {
        let common = ["train", "--model", &model, "--data", data, "--eval-data", data, "-o", out, "--max-steps", "6"];
        let rest = ["--learning-rate", "5e-3", "--per-device-train-batch-size", "4", "--save-steps", "3"];
        json(room, &[&common[..], &rest, how, more].concat())
    };
    train("run", &[]);
    let found = json(room, &["eval", "--adapter", "run/adapter", "--data", data]);
    json(room, &["merge", "--adapter", "run/adapter", "-o", "merged"]);
    let merged = json(room, &["eval", "--model", "merged", "--data", data]);
    for (key, value) in found.as_object().unwrap() {
        if let (Some(a), Some(b)) = (value.as_f64(), merged[key].as_f64()) {
            assert!((a - b).abs() < 1e-4 * a.abs().max(1.0), "{key}: {a} of the adapter, {b} of the merged model");
        }
    }
    let config = read(room.join("merged/config.json"));
    for (key, value) in merged_config {
        assert_eq!(&config[*key], value, "{key}");
    }
    // the second half of the run, from its checkpoint
    let last = read(room.join("run/summary.json"))["last_loss"].clone();
    for gone in ["adapter", "checkpoint-6"] {
        fs::remove_dir_all(room.join("run").join(gone)).unwrap();
    }
    fs::remove_file(room.join("run/summary.json")).unwrap();
    train("run", &["--resume-from-checkpoint", "true"]);
    assert_eq!(read(room.join("run/summary.json"))["last_loss"], last);
    train("full", &["--finetuning-type", "full"]);
    let trained = read(room.join("full/summary.json"));
    let full = json(room, &["eval", "--model", "full/model", "--data", data]);
    let metrics = &trained["eval_after"];
    assert!((full["loss"].as_f64().unwrap() - metrics["loss"].as_f64().unwrap()).abs() < 1e-4, "{full} {metrics}");
    found
}

const TEXTS: [&str; 6] =
    ["this is a good film", "a bad film", "is this a film", "good good", "bad a bad film", "this film"];

#[test]
fn a_pooling_is_remembered() {
    let room = tempfile::tempdir().unwrap();
    let records: Vec<Value> =
        (0..6).map(|i| json!({"text": TEXTS[i], "label": (["neg", "pos", "so"][i % 3])})).collect();
    let data = lines(room.path(), "labels.jsonl", &records);
    let (dir, class) = (base(room.path(), "bert", "bert", "BertModel"), json!(["BertForTokenClassification"]));
    let merged = [("architectures", class), ("classifier_pooling", json!("mean"))];
    let mean = round_trip(room.path(), &dir, &data, &["--pooling", "mean"], &merged);
    let config = read(room.path().join("run/adapter/adapter_config.json"));
    assert_eq!(
        (&config["task_type"], config["modules_to_save"].to_string().contains("classifier")),
        (&json!("TOKEN_CLS"), true)
    );
    assert!(!config["target_modules"].to_string().contains("pooler"), "{config}");
    assert_eq!(read(room.path().join("run/adapter/loram.json"))["pooling"], "mean");
    let card = fs::read_to_string(room.path().join("run/adapter/README.md")).unwrap();
    assert!(
        card.contains("AutoModelForTokenClassification")
            && card.contains("num_labels=3")
            && card.contains("mask.sum(1)")
    );

    // further training keeps it, and it cannot be changed
    let model = dir.display().to_string();
    let on = |more: &[&str]| {
        let given =
            ["train", "--model", &model, "--data", &data, "-o", "next", "--max-steps", "1", "--learning-rate", "1e-3"];
        given.iter().chain(more).map(|s| s.to_string()).collect::<Vec<_>>()
    };
    let run = |args: &[&str]| {
        let args = on(args);
        json(room.path(), &args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    run(&["--adapter-name-or-path", "run/adapter"]);
    assert_eq!(read(room.path().join("next/adapter/loram.json"))["pooling"], "mean");
    let bad = |args: &[&str], words: &[&str]| {
        let args = on(args);
        refused(room.path(), &args.iter().map(String::as_str).collect::<Vec<_>>(), words);
    };
    bad(
        &["--adapter-name-or-path", "run/adapter", "--pooling", "cls", "--overwrite-output-dir"],
        &["pooling is cls", "mean"],
    );
    bad(&["--pooling", "median", "--overwrite-output-dir"], &["pooling", "cls, mean, last"]);
    refused(
        room.path(),
        &["train", "--model", "merged", "--data", &data, "-o", "x", "--pooling", "cls"],
        &["pooling is cls", "head already"],
    );
    let plain = lines(room.path(), "plain.jsonl", &[json!({"text": "a good film"})]);
    let llama = base(room.path(), "llama", "llama", "LlamaForCausalLM").display().to_string();
    refused(
        room.path(),
        &["train", "--model", &llama, "--data", &plain, "-o", "x", "--pooling", "mean", "--learning-rate", "1e-3"],
        &["pooling", "causal_lm"],
    );
    let first = {
        let room = tempfile::tempdir().unwrap();
        let (data, dir) = (lines(room.path(), "l.jsonl", &records), base(room.path(), "bert", "bert", "BertModel"));
        let cls = ["--pooling", "cls"];
        round_trip(room.path(), &dir, &data, &cls, &[("classifier_pooling", json!("cls"))])
    };
    assert_ne!(first["loss"], mean["loss"]);
}

#[test]
fn a_decoder_pools_too() {
    let room = tempfile::tempdir().unwrap();
    let records: Vec<Value> = (0..6).map(|i| json!({"text": TEXTS[i], "label": i as f64 + 0.5})).collect();
    let data = lines(room.path(), "scores.jsonl", &records);
    let dir = base(room.path(), "llama", "llama", "LlamaForCausalLM");
    let merged = [("architectures", json!(["LlamaForTokenClassification"])), ("problem_type", json!("regression"))];
    let found = round_trip(room.path(), &dir, &data, &["--pooling", "mean"], &merged);
    assert!(found["mse"].is_number(), "{found}");
    // its own
    let dir = dir.display().to_string();
    let own = ["train", "--model", &dir, "--data", &data, "-o", "own", "--max-steps", "1", "--learning-rate", "1e-3"];
    json(room.path(), &[&own[..], &["--pooling", "last"]].concat());
    assert_eq!(read(room.path().join("own/adapter/adapter_config.json"))["task_type"], "SEQ_CLS");
    let olmo = base(room.path(), "olmo2", "olmo2", "Olmo2ForCausalLM").display().to_string();
    let without =
        ["train", "--model", &olmo, "--data", &data, "-o", "x", "--pooling", "mean", "--learning-rate", "1e-3"];
    refused(room.path(), &without, &["pooling", "olmo2", "leave pooling out"]);
}

#[test]
fn several_labels() {
    let room = tempfile::tempdir().unwrap();
    let names = [&["sad", "long"][..], &[], &["long"], &["odd", "sad"], &["sad"], &["odd"]];
    let records: Vec<Value> = (0..6).map(|i| json!({"text": TEXTS[i], "labels": names[i]})).collect();
    let data = lines(room.path(), "sets.jsonl", &records);
    let dir = base(room.path(), "distilbert", "distilbert", "DistilBertModel");
    let merged = [
        ("architectures", json!(["DistilBertForSequenceClassification"])),
        ("problem_type", json!("multi_label_classification")),
        ("id2label", json!({"0": "long", "1": "odd", "2": "sad"})),
    ];
    let found = round_trip(room.path(), &dir, &data, &[], &merged);
    for metric in ["f1_micro", "f1_macro", "subset_accuracy"] {
        assert!(found[metric].is_number(), "{metric}: {found}");
    }
    // the same data with a 0 or 1 for each label
    let flags = |set: &[&str]| ["long", "odd", "sad"].map(|name| u8::from(set.contains(&name)));
    let records: Vec<Value> = (0..6).map(|i| json!({"text": TEXTS[i], "labels": flags(names[i])})).collect();
    let flagged = lines(room.path(), "flags.jsonl", &records);
    let same = json(room.path(), &["eval", "--adapter", "run/adapter", "--data", &flagged]);
    assert_eq!((&same["loss"], &same["f1_micro"]), (&found["loss"], &found["f1_micro"]));
    let other = lines(room.path(), "other.jsonl", &[json!({"text": "a", "labels": ["sad", "new"]})]);
    refused(
        room.path(),
        &["eval", "--adapter", "run/adapter", "--data", &other],
        &["other.jsonl:1", "`new`", "long, odd, sad"],
    );
    let short = lines(room.path(), "short.jsonl", &[json!({"text": "a", "labels": [true, false]})]);
    refused(
        room.path(),
        &["eval", "--adapter", "run/adapter", "--data", &short],
        &["short.jsonl:1", "2 values", "3 labels"],
    );
}

#[test]
fn tags_of_words() {
    for (fixture, class) in [
        ("roberta", "RobertaModel"),
        ("llama", "LlamaForCausalLM"),
        ("modernbert", "ModernBertModel"),
        ("deberta-v2", "DebertaV2Model"),
    ] {
        let room = tempfile::tempdir().unwrap();
        let tag = |word: &&str| match *word {
            "good" => "B-PRAISE",
            "film" => "I-PRAISE",
            _ => "O",
        };
        let record = |text: &str| {
            let words: Vec<&str> = text.split(' ').collect();
            json!({"tokens": words, "ner_tags": words.iter().map(tag).collect::<Vec<_>>()})
        };
        let data = lines(room.path(), "tags.jsonl", &TEXTS.map(record));
        let files = if fixture == "deberta-v2" { "deberta" } else { fixture };
        let dir = base(room.path(), files, fixture, class);
        let merged = [
            (
                "architectures",
                json!([format!("{}ForTokenClassification", class.replace("Model", "").replace("ForCausalLM", ""))]),
            ),
            ("id2label", json!({"0": "B-PRAISE", "1": "I-PRAISE", "2": "O"})),
        ];
        let found = round_trip(room.path(), &dir, &data, &[], &merged);
        for metric in ["precision", "recall", "f1", "accuracy"] {
            assert!(found[metric].is_number(), "{fixture}, {metric}: {found}");
        }
        let config = read(room.path().join("run/adapter/adapter_config.json"));
        assert_eq!(config["task_type"], "TOKEN_CLS");
        let bad = lines(room.path(), "bad.jsonl", &[json!({"tokens": ["a", "b"], "ner_tags": ["O"]})]);
        refused(
            room.path(),
            &["eval", "--adapter", "run/adapter", "--data", &bad],
            &["bad.jsonl:1", "2 words", "1 in `ner_tags`"],
        );
    }
}
