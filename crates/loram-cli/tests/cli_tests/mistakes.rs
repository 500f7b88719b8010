//! Mistakes that a newcomer makes: one line that names what is wrong, exit code 2, and nothing left behind.

use loram_io::testing::tiny_llama;
use predicates::prelude::*;
use std::fs;
use std::path::{Path, PathBuf};

struct Room(tempfile::TempDir);

impl Room {
    fn new() -> Room {
        let room = Room(tempfile::tempdir().unwrap());
        room.file("ok.jsonl", "{\"prompt\": \"Name the sea.\", \"completion\": \" The North Sea.\"}\n");
        room
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, text: &str) -> &Room {
        fs::write(self.path(name), text).unwrap();
        self
    }

    /// A copy of the small Llama without some files.
    fn model(&self, name: &str, without: &[&str]) -> PathBuf {
        let to = self.path(name);
        fs::create_dir(&to).unwrap();
        for entry in fs::read_dir(tiny_llama()).unwrap() {
            let from = entry.unwrap().path();
            let file = from.file_name().unwrap().to_str().unwrap();
            if !without.contains(&file) {
                fs::copy(&from, to.join(file)).unwrap();
            }
        }
        to
    }

    /// The program stops with code 2, one line on standard error that has all these words, and no new files.
    fn refuses(&self, args: &[&str], words: &[&str]) {
        let before = self.listing();
        let run = assert_cmd::Command::cargo_bin("loram")
            .unwrap()
            .current_dir(self.0.path())
            .env("HF_HUB_OFFLINE", "1")
            .env("HF_HOME", self.path("hf"))
            .env_remove("RUST_LOG")
            .args(args)
            .assert()
            .code(2)
            .stdout(predicate::str::is_empty());
        let text = String::from_utf8_lossy(&run.get_output().stderr).into_owned();
        let errors: Vec<&str> = text.lines().filter(|l| l.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "{args:?}: {text}");
        for word in words {
            assert!(errors[0].contains(word), "{args:?}: `{word}` is not in: {text}");
        }
        assert_eq!(self.listing(), before, "{args:?} left something behind");
    }

    /// `train` with the good data and these further arguments.
    fn train_refuses(&self, args: &[&str], words: &[&str]) {
        self.refuses(&[&["train", "-o", "run"], args].concat(), words);
    }

    fn listing(&self) -> Vec<PathBuf> {
        fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, out);
                }
                out.push(path);
            }
        }
        let mut out = Vec::new();
        walk(self.0.path(), &mut out);
        out.sort();
        out
    }
}

fn llama() -> String {
    tiny_llama().display().to_string()
}

#[cfg(not(any(feature = "cuda", feature = "cuda-emulation")))]
#[test]
fn a_gpu_that_this_build_does_not_know() {
    let room = Room::new();
    let model = tiny_llama().display().to_string();
    for verb in [&["train", "--data", "ok.jsonl", "-o", "run"][..], &["eval", "--data", "ok.jsonl"], &["generate"]] {
        room.refuses(&[verb, &["--model", &model, "--device", "cuda"]].concat(), &["device cuda", "--features cuda"]);
    }
    room.refuses(&["generate", "--model", &model, "--device", "tpu"], &["device", "tpu", "auto, cpu, cuda"]);
}

#[test]
fn models() {
    let room = Room::new();
    let data = ["--data", "ok.jsonl"];
    let with = |model: &str, words: &[&str]| room.train_refuses(&[&["--model", model], &data[..]].concat(), words);
    with("/no/such/model", &["/no/such/model", "no such"]);
    with("org/model", &["org/model", "HF_HUB_OFFLINE"]);
    let bin = room.model("bin", &["model.safetensors"]);
    fs::write(bin.join("pytorch_model.bin"), "pickle").unwrap();
    with("bin", &["pytorch_model.bin", "safetensors"]);
    room.model("no-tokenizer", &["tokenizer.json"]);
    with("no-tokenizer", &["tokenizer.json"]);
    room.model("no-config", &["config.json"]);
    with("no-config", &["config.json"]);
    let other = room.model("other", &[]).join("config.json");
    fs::write(&other, fs::read_to_string(&other).unwrap().replace("\"llama\"", "\"falcon_h1\"")).unwrap();
    with("other", &["falcon_h1", "not supported", "llama", "qwen3", "bert"]);
    let cut = room.model("cut", &[]).join("model.safetensors");
    let bytes = fs::read(&cut).unwrap();
    fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    with("cut", &["model.safetensors"]);
    let pointer = room.model("pointer", &[]).join("model.safetensors");
    fs::write(&pointer, "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n").unwrap();
    with("pointer", &["model.safetensors", "git lfs pull"]);
    fs::create_dir_all(room.path("run/adapter")).unwrap();
    room.file("run/adapter/adapter_config.json", "{}").file("model.gguf", "GGUF");
    fs::rename(room.path("run"), room.path("a-run")).unwrap();
    with("a-run", &["is a run folder", "a-run/adapter"]);
    with("model.gguf", &["model.gguf", "truncated file"]);
    with("cut/model.safetensors", &["give its folder", "cut"]);
}

#[test]
fn adapters() {
    let room = Room::new();
    let model = llama();
    let train = |more: &[&str], words: &[&str]| {
        room.train_refuses(&[&["--model", &model, "--data", "ok.jsonl"], more].concat(), words)
    };
    train(&["--target-modules", "q_prj"], &["target_modules", "q_prj", "q_proj", "down_proj"]);
    train(&["--r", "500"], &["q_proj", "500", "128"]);
    train(&["--r", "0"], &["r:", "at least 1"]);
    train(&["--init", "piss"], &["init_lora_weights", "piss", "did you mean `pissa`"]);
    train(&["--lora-alpha", "-1"], &["lora_alpha", "above 0"]);
    train(&["--adapter", "nowhere"], &["nowhere"]);
    train(&["--target-modules", "q_proj,v_prj"], &["target_modules", "v_prj matches", "did you mean `v_proj`"]);
    train(&["--target-modules", "all"], &["target_modules", "did you mean `all-linear`"]);
    room.refuses(&["convert", &model, "-o", "out"], &["adapter_config.json"]);
    // an adapter whose base model is gone
    room.model("base", &[]);
    let init = ["init", "base", "-o", "made", "--init", "lora", "--r", "2"];
    assert_cmd::Command::cargo_bin("loram").unwrap().current_dir(room.path("")).args(init).assert().success();
    fs::rename(room.path("base"), room.path("moved")).unwrap();
    room.refuses(&["merge", "--adapter", "made", "-o", "out"], &["base model that the adapter names", "--model"]);
    room.refuses(
        &["generate", "--adapter", "made", "--prompt", "a"],
        &["base model that the adapter names", "--model"],
    );
    room.refuses(&["merge", "--adapter", &model, "-o", "out"], &["adapter_config.json"]);
}

#[test]
fn data() {
    let room = Room::new();
    room.file("bad.jsonl", "{\"text\": \"a\"}\n{\"text\": }\n")
        .file("empty.jsonl", "\n")
        .file("mixed.jsonl", "{\"text\": \"a\"}\n{\"prompt\": \"a\", \"completion\": \"b\"}\n")
        .file("columns.jsonl", "{\"question\": \"a\", \"reply\": \"b\"}\n")
        .file("train.jsonl", "{\"text\": \"a\", \"label\": \"x\"}\n{\"text\": \"b\", \"label\": \"y\"}\n")
        .file("dev.jsonl", "{\"text\": \"a\", \"label\": \"x\"}\n{\"text\": \"b\", \"label\": \"z\"}\n")
        .file("one.jsonl", "{\"text\": \"a\", \"label\": \"x\"}\n{\"text\": \"b\", \"label\": \"x\"}\n")
        .file("table.csv", "prompt,completion\na,b\na,b,c\n");
    let model = llama();
    let with = |args: &[&str], words: &[&str]| room.train_refuses(&[&["--model", &model], args].concat(), words);
    with(&["--data", "nowhere.jsonl"], &["nowhere.jsonl"]);
    with(&["--data", "bad.jsonl"], &["bad.jsonl:2"]);
    with(&["--data", "empty.jsonl"], &["empty.jsonl", "empty"]);
    with(&["--data", "mixed.jsonl"], &["mixed.jsonl:2", "mixed formats"]);
    with(&["--data", "columns.jsonl"], &["columns.jsonl:1", "question"]);
    with(&["--data", "table.csv"], &["table.csv:3", "a row of 3 cells"]);
    with(&["--data", "train.jsonl", "--eval-data", "dev.jsonl"], &["dev.jsonl:2", "`z`", "x, y"]);
    with(&["--data", "one.jsonl"], &["one.jsonl", "`x`"]);
    with(&["--data", "demo:hotels"], &["demo:hotels", "restaurants"]);
    // what is there instead, and what to do
    fs::create_dir(room.path("folder")).unwrap();
    room.file("folder/a.jsonl", "{}\n")
        .file("pointer.jsonl", "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n")
        .file("pretty.jsonl", "{\n  \"text\": \"a\"\n}\n")
        .file("table.jsonl", "prompt,completion\na,b\n")
        .file("null.jsonl", "{\"text\": \"a\", \"label\": null}\n{\"text\": \"a\", \"label\": \"x\"}\n")
        .file("gap.jsonl", "{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"prompt\": \"a\", \"completion\": null}\n")
        .file("first-gap.jsonl", "{\"prompt\": \"a\", \"completion\": null}\n")
        .file("sst.jsonl", "{\"sentence\": \"a\", \"label\": 1}\n")
        .file(
            "roles.jsonl",
            "{\"messages\": [{\"role\": \"human\", \"content\": \"a\"}, {\"role\": \"bot\", \"content\": \"b\"}]}\n",
        );
    with(&["--data", "folder"], &["folder: is a folder", "'folder/*.jsonl'"]);
    with(&["--data", "*.none"], &["*.none", "no file matches"]);
    with(&["--data", "org/set"], &["org/set", "data set org/set of the hub", "is not there"]);
    with(&["--data", "pointer.jsonl"], &["pointer.jsonl", "git lfs pull"]);
    with(&["--data", "pretty.jsonl"], &["pretty.jsonl:1", "spread over several lines", "jq -c"]);
    with(&["--data", "table.jsonl"], &["table.jsonl:1", "that of a table", "ends in .csv"]);
    with(&["--data", "null.jsonl"], &["null.jsonl:1", "`label` is null"]);
    with(&["--data", "gap.jsonl"], &["gap.jsonl:2", "`completion`", "found null"]);
    with(&["--data", "first-gap.jsonl"], &["first-gap.jsonl:1", "`completion`", "found null"]);
    with(&["--data", "sst.jsonl"], &["sst.jsonl:1", "--columns '{text: sentence}'"]);
    with(&["--data", "roles.jsonl", "--chat-template", "chatml"], &["roles.jsonl:1", "`assistant`", "bot"]);
    with(&["--data", "roles.jsonl", "--chat-template", "llama3"], &["llama3", "there is `chatml`"]);
    with(&["--data", "ok.jsonl", "ok2.jsonl"], &["ok2.jsonl", "--data ok2.jsonl"]);
}

#[test]
fn configuration() {
    let room = Room::new();
    room.file("typo.yaml", "learning_rat: 1e-3\n")
        .file("type.yaml", "model: m\ndata: ok.jsonl\nlearning_rate: fast\n")
        .file("broken.yaml", "model: m\n  data: [\n")
        .file("twice.yaml", "lr: 1e-3\nlearning_rate: 1e-4\n")
        .file("full.txt", "x");
    room.refuses(&["train", "typo.yaml"], &["learning_rat", "typo.yaml", "did you mean `learning_rate`"]);
    room.refuses(&["train", "type.yaml"], &["learning_rate", "fast", "type.yaml", "a number"]);
    room.refuses(&["train", "broken.yaml"], &["broken.yaml", "line 2"]);
    room.refuses(&["train", "twice.yaml"], &["`lr`", "`learning_rate`"]);
    room.refuses(&["train", "nowhere.yaml"], &["nowhere.yaml"]);
    room.file("axolotl.yaml", "base_model: m\nmicro_batch_size: 2\nbf16: true\n")
        .file("same.yaml", "r: 8\nseed: 1\nr: 16\n");
    let all =
        ["`base_model` (from axolotl.yaml:1", "`model_name_or_path`", "`micro_batch_size`", "`bf16`", "remove it"];
    room.refuses(&["train", "axolotl.yaml"], &all);
    room.refuses(&["train", "same.yaml"], &["same.yaml", "`r` is given twice, in lines 1 and 3"]);
    room.refuses(&["train", "type.yaml"], &["type.yaml:3"]);
    room.refuses(&["train", "."], &["is a folder"]);
    room.refuses(&["train"], &["model_name_or_path"]);
    room.refuses(&["train", "--model", &llama()], &["train_data"]);
    room.refuses(&["train", "--set", "r"], &["--set r", "key=value"]);
    room.refuses(&["train", "--set", "batchsize=3"], &["batchsize", "did you mean"]);
    room.refuses(&["train", "--lerning-rate", "1"], &["--lerning-rate"]);
    room.refuses(
        &["train", "--model", &llama(), "--data", "ok.jsonl", "--eval-steps", "5"],
        &["eval_steps", "eval_data"],
    );
    // a file where the run folder should be, and a folder with other things in it
    room.refuses(&["train", "--model", &llama(), "--data", "ok.jsonl", "-o", "full.txt"], &["full.txt"]);
    room.refuses(&["train", "--model", &llama(), "--data", "ok.jsonl", "-o", "."], &["not empty"]);
}

#[test]
fn memory_that_is_not_there() {
    let room = Room::new();
    let model = llama();
    let data = "demo:restaurants?n=40000";
    let args = ["--model", &model, "--data", data, "--batch-size", "40000", "--set", "max_length=512"];
    room.train_refuses(&[&args[..], &["--packing"]].concat(), &["memory", "free", "per_device_train_batch_size"]);
}

#[test]
fn initialisation() {
    let room = Room::new();
    let model = llama();
    let gpt = room.model("gpt", &["config.json"]);
    room.file("gpt/config.json", r#"{"model_type": "unheard-of"}"#).file("half.json", "{\"format\": 1");
    assert_cmd::Command::cargo_bin("loram")
        .unwrap()
        .current_dir(room.path(""))
        .args([
            "init",
            gpt.to_str().unwrap(),
            "-o",
            "pissa",
            "--init",
            "pissa",
            "--r",
            "2",
            "--target-modules",
            "q_proj",
        ])
        .assert()
        .success()
        .stderr(predicate::str::contains("cannot run this architecture"));
    let auto = ["init", &model, "-o", "out", "--gain", "auto", "--calibration-data", "demo:restaurants?n=8"];
    room.refuses(&auto, &["`auto`", "auto:SHARE"]);
    // another key in --set is no learning rate
    let set = ["init", &model, "-o", "out", "--set", "gain=auto:0.01", "--calibration-data", "demo:restaurants?n=8"];
    room.refuses(&set, &["`auto`", "--learning-rate"]);
    room.refuses(
        &["init", &model, "-o", "out", "--gain", "auto:0.01", "--learning-rate", "1e-3"],
        &["--calibration-data"],
    );
    room.refuses(&["init", &model, "-o", "out", "--r", "400"], &["r = 400", "layers.0"]);
    room.refuses(
        &["init", &model, "-o", "out", "--target-modules", "q_proj,v_prj"],
        &["v_prj matches no linear layer", "did you mean `v_proj`"],
    );
    room.refuses(&["init", &model, "-o", "out", "--init", "lora", "--residual", "base"], &["no residual"]);
    room.refuses(&["init", "--from-recipe", "pissa", "-o", "out"], &["`pissa`", "--model"]);
    room.refuses(&["init", "--from-recipe", "half.json", "-o", "out"], &["half.json", "no valid recipe"]);
    room.refuses(&["init", "--from-recipe", "nowhere", "-o", "out"], &["nowhere"]);
    room.refuses(&["init", "--from-recipe", "pissa", "-o", "out", "--r", "8"], &["r: cannot", "--from-recipe"]);
}

/// The limit on the size of files stands for a disk that gets full half-way: the space seemed to be there at the start.
#[cfg(unix)]
#[test]
fn a_disk_that_gets_full() {
    let room = Room::new();
    let before = room.listing();
    let program = assert_cmd::cargo::cargo_bin("loram");
    for args in [&["-o", "out"][..], &["-o", "out", "--residual", "base"]] {
        // 64 KiB: the adapter has more, the residual checkpoint too
        let run = std::process::Command::new("sh")
            .args(["-c", "ulimit -f 128; trap '' XFSZ; exec \"$@\"", "sh"])
            .arg(&program)
            .args(["init", &llama(), "--init", "loram", "--r", if args.len() == 2 { "16" } else { "1" }])
            .args(args)
            .current_dir(room.path(""))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&run.stderr).into_owned();
        assert_eq!(run.status.code(), Some(1), "{text}");
        assert!(text.contains("cannot write") && text.contains("safetensors"), "{text}");
        assert_eq!(room.listing(), before, "something is left behind");
    }
}
