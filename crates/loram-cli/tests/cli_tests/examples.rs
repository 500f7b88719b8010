//! The console examples of the documentation, run as they stand there. `TRYCMD=overwrite` writes the program's output
//! into the pages; put wildcards (`[..]`, `...`) back where numbers vary.

use loram_io::testing::repo_root;
use std::fs;
use std::os::unix::fs::symlink;

/// Files that the examples name, beside those of the repository.
const FILES: [(&str, &str); 16] = [
    (
        "train.jsonl",
        "{\"prompt\": \"name : Aromi | area : riverside =>\", \"completion\": \" Aromi is on the riverside.\"}\n",
    ),
    ("unknown.yaml", "model: assets/tiny-llama-en\nlerning_rate: 1e-4\n"),
    ("eight.yaml", "model: assets/tiny-llama-en\nr: eight\n"),
    ("twice.yaml", "model: a\nmodel_name_or_path: b\n"),
    ("broken.yaml", "model: a\nr: 8: 9\n"),
    ("train.csv", "prompt,completion\nname : Aromi =>, Aromi is by the river, near the park.\n"),
    ("cut.jsonl", "{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"prompt\": \"a\", \"completion\"\n"),
    ("number.jsonl", "{\"prompt\": \"a\", \"completion\": 5}\n"),
    ("empty.jsonl", ""),
    ("columns.jsonl", "{\"question\": \"a\", \"answer\": \"b\"}\n"),
    ("mixed.jsonl", "{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"prompt\": \"a\", \"answer\": \"b\"}\n"),
    (
        "chat.jsonl",
        "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"b\"}]}\n",
    ),
    ("labels.jsonl", "{\"text\": \"a\", \"label\": \"negative\"}\n{\"text\": \"b\", \"label\": \"positive\"}\n"),
    ("labels-eval.jsonl", "{\"text\": \"a\", \"label\": \"neutral\"}\n"),
    ("one-label.jsonl", "{\"text\": \"a\", \"label\": \"x\"}\n{\"text\": \"b\", \"label\": \"x\"}\n"),
    ("scores.jsonl", "{\"text\": \"a\", \"label\": 3}\n{\"text\": \"b\", \"label\": 3.5}\n"),
];

#[test]
fn console_examples_of_the_documentation() {
    let (root, room) = (repo_root(), tempfile::tempdir().unwrap());
    for folder in ["assets", "examples"] {
        symlink(root.join(folder), room.path().join(folder)).unwrap();
    }
    for (name, text) in FILES {
        fs::write(room.path().join(name), text).unwrap();
    }
    let train = |args: &[&str]| {
        let few = ["--max-steps", "2", "--sample-prompts", "0", "--quiet"];
        let mut command = assert_cmd::Command::cargo_bin("loram").unwrap();
        command.current_dir(room.path()).arg("train").args(args).args(few).assert().success();
    };
    train(&["examples/quickstart.yaml", "--eval-strategy", "no"]);
    let mine = ["--data", "train.jsonl", "-o", "runs/mine", "--r", "16", "--save-steps", "1"];
    train(&[&["--model", "assets/tiny-llama-en"], &mine[..]].concat());

    // trycmd runs commands in the current directory; all other tests here name theirs
    std::env::set_current_dir(room.path()).unwrap();
    let cases = trycmd::TestCases::new();
    cases.register_bin("loram", std::path::Path::new(env!("CARGO_BIN_EXE_loram")));
    cases.env("HF_HUB_OFFLINE", "1").env("HF_HOME", room.path().join("hub").display().to_string());
    // estimates of memory are those of f32, whatever the machine has
    cases.env("LORAM_CPU_KERNEL", "f32");
    cases.case(root.join("README.md")).case(root.join("docs/*.md")).case(root.join("docs/*/*.md"));
    cases.run();
}

/// The commands below "Your own model and data", as a reader pastes them into a shell.
#[cfg(unix)]
#[test]
fn the_commands_of_the_readme_run_as_they_are_written() {
    let (root, room) = (repo_root(), tempfile::tempdir().unwrap());
    symlink(root.join("assets"), room.path().join("assets")).unwrap();
    fs::create_dir(room.path().join("bin")).unwrap();
    symlink(env!("CARGO_BIN_EXE_loram"), room.path().join("bin/loram")).unwrap();
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let part = readme.split("## Your own model and data").nth(1).unwrap();
    // the shortest run, then one with everything around it
    let blocks = part.split("```sh\n").skip(1).take(2).map(|block| block.split("```").next().unwrap());
    let commands: &str = &blocks.collect::<String>();
    assert!(commands.contains("loram merge"));
    let path = format!("{}:{}", room.path().join("bin").display(), std::env::var("PATH").unwrap());
    let shell = |commands: &str| {
        let mut sh = std::process::Command::new("sh");
        let run = sh.args(["-e", "-c", commands]).current_dir(room.path()).env("PATH", &path).output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
        assert!(run.status.success(), "{commands}: {said}");
        said
    };
    let said = shell(commands);
    // what is suggested next can be run as it is, too
    let next = said.split("\nnext:\n").last().unwrap().lines().next().unwrap().trim();
    assert!(next.starts_with("loram generate --adapter runs/mine/adapter --prompt 'name : Aromi"), "{next}");
    shell(next);
}

#[test]
fn generated_pages_are_what_the_program_prints() {
    let pages =
        ["coming-from", "commands", "configuration", "models", "schemes"].map(|page| (page, format!("{page}.md")));
    for (page, file) in pages.into_iter().chain([("schema", "configuration.schema.json".into())]) {
        let run = assert_cmd::Command::cargo_bin("loram").unwrap().args(["docs", page]).assert().success();
        let stored = fs::read_to_string(repo_root().join(format!("docs/{file}"))).unwrap();
        let same = String::from_utf8_lossy(&run.get_output().stdout) == stored;
        assert!(same, "docs/{file} has drifted: loram docs {page} > docs/{file}");
    }
}
