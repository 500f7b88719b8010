//! Text and templates of others: control characters are shown, wherever they come from, and no template fills the memory.

use loram_io::testing::tiny_llama;
use std::fs;
use std::path::Path;

/// Runs the program and returns both outputs.
fn output(dir: &Path, args: &[&str]) -> (String, String) {
    let run = assert_cmd::Command::cargo_bin("loram")
        .unwrap()
        .current_dir(dir)
        .env("HF_HUB_OFFLINE", "1")
        .env_remove("RUST_LOG")
        .args(args)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(run.stdout), text(run.stderr))
}

fn is_plain(text: &str) {
    let hidden = |c: char| c.is_control() && c != '\n' && c != '\t';
    assert!(!text.contains(hidden), "{text:?}");
}

#[test]
fn escape_sequences_are_shown_and_not_sent() {
    let dir = tempfile::tempdir().unwrap();
    let model = tiny_llama().display().to_string();
    // what retitles and clears a terminal, in a record, a label, and the name of a file
    let evil = r#"\u001b]0;PWNED\u0007\u001b[2J"#;
    fs::write(dir.path().join("a.jsonl"), format!("{{\"prompt\":\"{evil}x\",\"completion\":\"y\\r\"}}\n")).unwrap();
    let dry = |data: &str| output(dir.path(), &["train", "--model", &model, "--data", data, "-o", "run", "--dry-run"]);
    let (out, err) = dry("a.jsonl");
    is_plain(&out);
    is_plain(&err);
    assert!(out.contains(r"\u{1b}]0;PWNED\u{7}\u{1b}[2Jx"), "{out}{err}");

    let labels = format!("{{\"text\":\"a\",\"label\":\"{evil}\"}}\n{{\"text\":\"b\",\"label\":\"n\\nm\"}}\n");
    fs::write(dir.path().join("b.jsonl"), labels).unwrap();
    let (out, err) = dry("b.jsonl");
    is_plain(&out);
    is_plain(&err);
    assert!(out.contains(r"\u{1b}]0;PWNED") && out.contains(r"n\nm"), "{out}{err}");

    let name = "c\u{1b}[2J.jsonl";
    let (_, err) = dry(name);
    is_plain(&err);
    assert!(err.starts_with("error: ") && err.contains(r"c\u{1b}[2J.jsonl"), "{err}");
    fs::write(dir.path().join(name), "{\"text\": 1}\n").unwrap();
    let (_, err) = dry(name);
    is_plain(&err);
    let (_, err) = output(dir.path(), &["info", "no\u{1b}[2J/model"]);
    is_plain(&err);

    // machines get what is there
    let (json, _) =
        output(dir.path(), &["train", "--model", &model, "--data", "a.jsonl", "-o", "run", "--dry-run", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    let example = value["example"].as_array().unwrap().iter().map(|s| s["text"].as_str().unwrap()).collect::<String>();
    assert!(example.contains("\u{1b}]0;PWNED"), "{example:?}");
}

#[test]
fn a_template_that_fills_the_memory_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let bomb =
        "{% set n = namespace(l=[1]) %}{% for i in range(40) %}{% set n.l = n.l + n.l %}{% endfor %}{{ n.l | length }}";
    fs::write(dir.path().join("bomb.jinja"), bomb).unwrap();
    let chat = r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}"#;
    fs::write(dir.path().join("a.jsonl"), format!("{chat}\n")).unwrap();
    let model = tiny_llama().display().to_string();
    let args = ["train", "--model", &model, "--data", "a.jsonl", "-o", "run", "--chat-template", "bomb.jinja"];
    let run = assert_cmd::Command::cargo_bin("loram").unwrap().current_dir(dir.path()).args(args).output().unwrap();
    let err = String::from_utf8(run.stderr).unwrap();
    assert_eq!(run.status.code(), Some(2), "{err}");
    assert!(err.contains("error: chat template: it takes too m"), "{err}");
    // as after a kill: the lock of a dead process, which is no obstacle
    let left = fs::read_dir(dir.path().join("run")).into_iter().flatten().map(|f| f.unwrap().file_name());
    assert!(left.into_iter().all(|name| name == "run.lock"));
}
