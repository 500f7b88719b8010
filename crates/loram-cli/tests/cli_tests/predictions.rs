//! `loram predict`, and `loram eval --generate`.

use super::program::{json, loram, refused, text};
use loram_io::testing::tiny_llama;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

const TEXTS: [&str; 6] = ["a fine day", "a bad day", "what a fine thing", "bad and worse", "fine", "so bad"];

fn lines(room: &Path, name: &str, records: &[Value]) -> String {
    fs::write(room.join(name), records.iter().map(|r| format!("{r}\n")).collect::<String>()).unwrap();
    name.to_string()
}

/// Trains a head of the small Llama on records for a few steps.
fn trained(room: &Path, records: &[Value]) {
    let data = lines(room, "train.jsonl", records);
    let model = tiny_llama().display().to_string();
    let how = ["--learning-rate", "3e-3", "--max-steps", "8", "--per-device-train-batch-size", "3", "-o", "run"];
    json(room, &[&["train", "--model", &model, "--data", &data], &how[..]].concat());
}

fn rows(room: &Path, args: &[&str]) -> Vec<Value> {
    let out = text(room, &[&["predict"], args].concat());
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Records of one field less.
fn without(records: &[Value], key: &str) -> Vec<Value> {
    let mut records = records.to_vec();
    records.iter_mut().for_each(|r| drop(r.as_object_mut().unwrap().remove(key)));
    records
}

#[test]
fn labels_with_probabilities() {
    let room = tempfile::tempdir().unwrap();
    let dir = room.path();
    let label = |text: &str| if text.contains("fine") { "good" } else { "bad" };
    let records: Vec<Value> =
        TEXTS.iter().enumerate().map(|(i, t)| json!({"id": i, "text": t, "label": label(t)})).collect();
    trained(dir, &records);
    let asked = lines(dir, "asked.jsonl", &without(&records, "label"));
    let exact = ["--adapter", "run/adapter", "--data", &asked, "--compute-dtype", "float32"];
    let found = rows(dir, &exact);
    assert_eq!(found.len(), 6);
    let mut right = 0;
    for (row, record) in found.iter().zip(&records) {
        assert_eq!((&row["id"], &row["text"]), (&record["id"], &record["text"]));
        let [good, bad] = ["good", "bad"].map(|l| row["probabilities"][l].as_f64().unwrap());
        assert!((good + bad - 1.0).abs() < 1e-6);
        assert_eq!(row["prediction"], if good > bad { "good" } else { "bad" });
        right += usize::from(row["prediction"] == record["label"]);
    }
    // the accuracy of an evaluation is that of the predictions
    let eval = ["eval", "--adapter", "run/adapter", "--data", "train.jsonl", "--compute-dtype", "float32"];
    let accuracy = json(dir, &eval)["accuracy"].as_f64();
    assert!((accuracy.unwrap() - right as f64 / 6.0).abs() < 1e-9);
    // one at a time, and as tables
    let alone = rows(dir, &[&exact[..], &["--per-device-eval-batch-size", "1"]].concat());
    for (a, b) in alone.iter().zip(&found) {
        let p = |row: &Value| row["probabilities"]["good"].as_f64().unwrap();
        assert!((p(a) - p(b)).abs() < 1e-4);
    }
    for name in ["out.csv", "out.parquet"] {
        json(dir, &[&["predict"], &exact[..], &["-o", name]].concat());
        // what is written can be read: the predictions become labels
        let columns = ["--columns", "{label: prediction}"];
        let eval = ["eval", "--adapter", "run/adapter", "--data", name, "--compute-dtype", "float32"];
        let eval = json(dir, &[&eval[..], &columns].concat());
        assert_eq!(eval["accuracy"], 1.0, "{name}");
        refused(dir, &["predict", "--adapter", "run/adapter", "--data", &asked, "-o", name], &["exists"]);
    }
    refused(dir, &["predict", "--adapter", "run/adapter", "--data", &asked, "-o", "a.txt"], &["a.txt", ".jsonl"]);
    refused(dir, &["predict", "--adapter", "run/adapter", "--data", &asked, "--num-samples", "0"], &["--num-samples"]);
    let several = ["--num-samples", "2", "--temperature", "1"];
    refused(dir, &[&["predict", "--adapter", "run/adapter", "--data", &asked], &several[..]].concat(), &["labels"]);
    refused(dir, &["predict", "--adapter", "run/adapter", "--data", &asked, "--top-k", "3"], &["--top-k", "labels"]);
    refused(dir, &["eval", "--adapter", "run/adapter", "--data", "train.jsonl", "--generate"], &["--generate"]);
    refused(
        dir,
        &["eval", "--adapter", "run/adapter", "--data", "train.jsonl", "--stop", "x"],
        &["--stop", "--generate"],
    );
    let wrong = lines(dir, "wrong.jsonl", &[json!({"tekst": "a"})]);
    refused(dir, &["predict", "--adapter", "run/adapter", "--data", &wrong], &["wrong.jsonl:1", "`text`", "`tekst`"]);
    refused(dir, &["predict", "--adapter", "run/adapter", "--data", &wrong, "-o", "no.jsonl"], &["wrong.jsonl:1"]);
    assert!(!dir.join("no.jsonl").exists());
}

#[test]
fn numbers() {
    let room = tempfile::tempdir().unwrap();
    let records: Vec<Value> =
        TEXTS.iter().map(|t| json!({"text": t, "text_pair": "pair", "label": t.len() as f64 / 10.0})).collect();
    trained(room.path(), &records);
    let asked = lines(room.path(), "asked.jsonl", &without(&records, "label"));
    let found = rows(room.path(), &["--adapter", "run/adapter", "--data", &asked]);
    let squares = found.iter().zip(&records).map(|(row, record)| {
        let of = |v: &Value| v.as_f64().unwrap();
        (of(&row["prediction"]) - of(&record["label"])).powi(2)
    });
    let mse =
        json(room.path(), &["eval", "--adapter", "run/adapter", "--data", "train.jsonl"])["mse"].as_f64().unwrap();
    assert!((squares.sum::<f64>() / 6.0 / mse - 1.0).abs() < 1e-4);
}

#[test]
fn several_labels_and_tags() {
    let room = tempfile::tempdir().unwrap();
    let dir = room.path();
    let records: Vec<Value> = TEXTS
        .iter()
        .map(|t| {
            let labels: Vec<&str> = ["fine", "day", "bad"].into_iter().filter(|w| t.contains(w)).collect();
            json!({"text": t, "labels": labels})
        })
        .collect();
    trained(dir, &records);
    for row in rows(dir, &["--adapter", "run/adapter", "--data", "train.jsonl"]) {
        let holds: Vec<&str> = row["prediction"].as_array().unwrap().iter().map(|l| l.as_str().unwrap()).collect();
        for (label, p) in row["probabilities"].as_object().unwrap() {
            assert_eq!(holds.contains(&label.as_str()), p.as_f64().unwrap() > 0.5, "{label} of {row}");
        }
        assert_eq!(row["probabilities"].as_object().unwrap().len(), 3);
    }
    fs::remove_dir_all(dir.join("run")).unwrap();

    let words = ["Anna", "lives", "in", "Rome"];
    trained(dir, &vec![json!({"tokens": words, "ner_tags": ["B-PER", "O", "O", "B-LOC"]}); 4]);
    let asked = lines(dir, "asked.jsonl", &[json!({"tokens": words})]);
    let found = rows(dir, &["--adapter", "run/adapter", "--data", &asked]);
    let tags = found[0]["prediction"].as_array().unwrap();
    assert!(tags.len() == 4 && tags.iter().all(|t| ["B-PER", "O", "B-LOC"].contains(&t.as_str().unwrap())));
    // a word beyond the longest sequence has no answer
    let cut = rows(dir, &["--adapter", "run/adapter", "--data", &asked, "--max-length", "3"]);
    assert_eq!(cut[0]["prediction"].as_array().unwrap().len(), 4);
    assert!(cut[0]["prediction"][3].is_null() && cut[0]["probabilities"][3].is_null());
}

#[test]
fn texts_are_those_of_generate() {
    let room = tempfile::tempdir().unwrap();
    let dir = room.path();
    let model = tiny_llama().display().to_string();
    let prompts = ["Once", "The people of the village were all", "A"];
    let records: Vec<Value> = prompts.iter().map(|p| json!({"prompt": p, "id": 7})).collect();
    let asked = lines(dir, "asked.jsonl", &records);
    // in bf16 the number of rows that are multiplied together changes the rounding
    let all = ["--model", &model, "--data", &asked, "--max-new-tokens", "12", "--compute-dtype", "float32"];
    let found = rows(dir, &all);
    for (row, prompt) in found.iter().zip(prompts) {
        let how = ["--max-new-tokens", "12", "--compute-dtype", "float32"];
        let one = json(dir, &[&["generate", "--model", &model, "--prompt", prompt], &how[..]].concat());
        assert_eq!((&row["prediction"], &row["id"]), (&one["text"], &json!(7)));
        assert_eq!(row["finish"], one["finish"]);
    }
    // a text ends before a stop text
    let word = found[1]["prediction"].as_str().unwrap().split_whitespace().nth(2).unwrap().to_string();
    let cut = rows(dir, &[&all[..], &["--stop", &word]].concat());
    assert!(!cut[1]["prediction"].as_str().unwrap().contains(&word) && cut[1]["finish"] == "eos", "{}", cut[1]);
    // prompt and answer together have at most so many tokens
    let short = rows(dir, &[&all[..], &["--max-length", "20"]].concat());
    assert!(short[1]["prediction"].as_str().unwrap().len() < found[1]["prediction"].as_str().unwrap().len());
    let beyond = ["--max-length", "4"];
    refused(dir, &[&["predict"], &all[..], &beyond].concat(), &["asked.jsonl:2", "the model takes 4"]);
    // samples differ, and do not depend on what is generated beside them
    let sampled = |batch: &str| {
        let how = ["--num-samples", "3", "--temperature", "1", "--per-device-eval-batch-size", batch];
        rows(dir, &[&all[..], &how].concat())
    };
    let samples = sampled("8");
    assert_eq!(samples.len(), 9);
    assert!(samples.iter().enumerate().all(|(i, row)| row["sample"] == i % 3 && row["prompt"] == prompts[i / 3]));
    assert!(
        samples[0]["prediction"] != samples[1]["prediction"] && samples[0]["prediction"] != samples[3]["prediction"]
    );
    assert_eq!(samples, sampled("2"));
    refused(dir, &[&["predict"], &all[..], &["--num-samples", "2"]].concat(), &["--temperature"]);
    refused(dir, &["predict", "--model", &model, "--data", "demo.txt"], &["demo.txt"]);
    loram(dir, &["predict", "--model", &model]).code(2);
}

#[test]
fn generated_texts_against_completions() {
    let room = tempfile::tempdir().unwrap();
    let dir = room.path();
    let model = tiny_llama().display().to_string();
    let one = json(dir, &["generate", "--model", &model, "--prompt", "Once", "--max-new-tokens", "6"]);
    let records = [
        json!({"prompt": "Once", "completion": one["text"]}),
        json!({"prompt": "Once", "completion": "nothing like it"}),
    ];
    let data = lines(dir, "data.jsonl", &records);
    let found = json(dir, &["eval", "--model", &model, "--data", &data, "--generate", "--max-new-tokens", "6"]);
    assert_eq!(found["exact_match"], 0.5);
    assert!((0.5..0.7).contains(&found["rouge_l"].as_f64().unwrap()), "{found}");
    assert!(found["bleu"].as_f64().unwrap() > 0.1 && found["loss"].as_f64().unwrap() > 0.0);
    let text = text(dir, &["eval", "--model", &model, "--data", &data, "--generate", "--max-new-tokens", "6"]);
    assert!(text.contains("exact match") && text.contains("50.00 %"), "{text}");
    let asked = lines(dir, "asked.jsonl", &[json!({"text": "Once"})]);
    refused(dir, &["eval", "--model", &model, "--data", &asked, "--generate"], &["asked.jsonl:1", "completion"]);
}
