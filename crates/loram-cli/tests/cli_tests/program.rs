//! The program, run in a folder.

use serde_json::Value;
use std::path::Path;

/// Runs a command, with nothing on standard input and no searches of earlier runs.
pub fn loram(dir: &Path, args: &[&str]) -> assert_cmd::assert::Assert {
    let mut command = assert_cmd::Command::cargo_bin("loram").unwrap();
    command.current_dir(dir).env("LORAM_CACHE", "").args(args).write_stdin("").assert()
}

/// Standard output of a command that succeeds.
pub fn text(dir: &Path, args: &[&str]) -> String {
    String::from_utf8(loram(dir, args).success().get_output().stdout.clone()).unwrap()
}

/// The same with `--json`: one object and nothing else.
pub fn json(dir: &Path, args: &[&str]) -> Value {
    let out = text(dir, &[args, &["--json"]].concat());
    assert_eq!(out.lines().count(), 1, "one JSON object and nothing else: {out}");
    serde_json::from_str(&out).unwrap()
}

/// Expects an error of usage or input with these words.
pub fn refused(dir: &Path, args: &[&str], words: &[&str]) {
    let out = loram(dir, args).code(2);
    let text = String::from_utf8_lossy(&out.get_output().stderr).into_owned();
    for word in words {
        assert!(text.contains(word), "{args:?}: `{word}` is not in: {text}");
    }
}
