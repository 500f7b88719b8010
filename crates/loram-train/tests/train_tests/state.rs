//! Run folders after stops, damage and changes: nothing is lost, and nothing is used silently.

use crate::small::{Room, metrics};
use loram_io::lock::{Attempt, FileLock};
use loram_train::observer::Level;
use loram_train::{Error, Event, Observe, Observer, Result, Status, Summary, Trainer};
use std::fs;
use std::path::Path;

const STEPS: &str = "max_steps: 8\nsave_steps: 2\nsave_total_limit: 10\neval_steps: 4\nresume_from_checkpoint: auto\n";

fn weights(out: &Path) -> Vec<u8> {
    fs::read(out.join("adapter/adapter_model.safetensors")).unwrap()
}

pub fn run(room: &Room, out: &Path, more: &str) -> Result<Summary> {
    watched(room, out, more, &mut ())
}

fn watched(room: &Room, out: &Path, more: &str, observer: &mut dyn Observer) -> Result<Summary> {
    Trainer::new(room.config(out, more))?.run(observer)
}

/// Runs and returns the messages, too.
fn told(room: &Room, out: &Path, more: &str) -> (Result<Summary>, Vec<String>, usize) {
    let (mut messages, mut steps) = (Vec::new(), 0);
    let mut watch = Observe(|e: &Event| match e {
        Event::Message { level: Level::Warning | Level::Info, text } => messages.push(text.clone()),
        Event::Step(_) => steps += 1,
        _ => {}
    });
    let result = watched(room, out, more, &mut watch);
    (result, messages, steps)
}

/// Takes away the end of a run, so that it goes on from its checkpoints.
fn unfinish(out: &Path, checkpoints: &[usize]) {
    fs::remove_dir_all(out.join("adapter")).unwrap();
    fs::remove_file(out.join("summary.json")).unwrap();
    checkpoints.iter().for_each(|n| fs::remove_dir_all(out.join(format!("checkpoint-{n}"))).unwrap());
}

#[test]
fn a_run_that_has_ended_is_not_trained_again() {
    let room = Room::new();
    let out = room.path("out");
    let stops = "max_steps: 30\neval_steps: 2\nearly_stopping_patience: 2\nearly_stopping_threshold: 100\n";
    for (more, status) in [(STEPS, Status::Finished), (stops, Status::StoppedEarly)] {
        for resume in ["", "resume_from_checkpoint: auto\n"] {
            let more = format!("{}{resume}", more.replace("resume_from_checkpoint: auto\n", ""));
            let first = run(&room, &out, &more).unwrap();
            assert_eq!(first.status, status);
            let before = (weights(&out), metrics(&out), fs::read(out.join("summary.json")).unwrap());
            for _ in 0..2 {
                let (again, messages, steps) = told(&room, &out, &more);
                assert_eq!((again.unwrap().steps, steps), (first.steps, 0));
                assert!(messages[0].contains("has ended: nothing to do"), "{messages:?}");
                assert!(before == (weights(&out), metrics(&out), fs::read(out.join("summary.json")).unwrap()));
            }
            fs::remove_dir_all(&out).unwrap();
        }
    }
    // another run must not be taken for this one
    run(&room, &out, STEPS).unwrap();
    let e = run(&room, &out, &format!("{STEPS}weight_decay: 0.1\n")).unwrap_err();
    assert!(e.to_string().contains("weight_decay") && e.exit_code() == 2, "{e}");
    let other = STEPS.replace("resume_from_checkpoint: auto", "weight_decay: 0.1");
    assert!(matches!(run(&room, &out, &other).unwrap_err(), Error::OutputExists { .. }));
    // a damaged result is made again
    let (path, good) = (out.join("adapter/adapter_model.safetensors"), weights(&out));
    fs::write(&path, &good[..100]).unwrap();
    let (again, messages, steps) = told(&room, &out, STEPS);
    assert_eq!((again.unwrap().status, steps), (Status::Finished, 0));
    assert!(messages[0].contains("adapter is damaged and is made again"), "{messages:?}");
    assert!(weights(&out) == good);
}

#[test]
fn stopped_early_and_killed_before_its_end_it_does_not_train_on() {
    let room = Room::new();
    let out = room.path("out");
    let more = "max_steps: 30\neval_steps: 2\nsave_steps: 2\nearly_stopping_patience: 2\nearly_stopping_threshold: 100\n\
                resume_from_checkpoint: auto\n";
    let first = run(&room, &out, more).unwrap();
    let (expected, lines) = (weights(&out), metrics(&out));
    unfinish(&out, &[]);
    let (again, _, steps) = told(&room, &out, more);
    let again = again.unwrap();
    assert_eq!((again.status, again.steps, steps), (Status::StoppedEarly, first.steps, 0));
    assert!(weights(&out) == expected && metrics(&out) == lines);
}

#[test]
fn a_damaged_checkpoint_is_kept_aside_and_an_older_one_used() {
    let room = Room::new();
    for (kind, more) in [("adapter", STEPS.to_string()), ("full", format!("{STEPS}finetuning_type: full\n"))] {
        let whole = room.path(kind);
        run(&room, &whole, &more).unwrap();
        let result = if kind == "full" { "model" } else { "adapter" };
        let file = if kind == "full" { "model/model.safetensors" } else { "adapter/adapter_model.safetensors" };
        let good = fs::read(whole.join(file)).unwrap();
        let names: Vec<String> = fs::read_dir(whole.join("checkpoint-6"))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|n| n != "README.md")
            .collect();
        assert!(names.len() >= 4, "{names:?}");
        for name in names {
            for damage in ["delete", "empty", "half", "zeros", "bit"] {
                let out = room.path("out");
                copy(&whole, &out);
                fs::remove_dir_all(out.join(result)).unwrap();
                fs::remove_file(out.join("summary.json")).unwrap();
                fs::remove_dir_all(out.join("checkpoint-8")).unwrap();
                let path = out.join("checkpoint-6").join(&name);
                let mut bytes = fs::read(&path).unwrap();
                let n = bytes.len();
                match damage {
                    "delete" => fs::remove_file(&path).unwrap(),
                    "empty" => fs::write(&path, b"").unwrap(),
                    "half" => fs::write(&path, &bytes[..n / 2]).unwrap(),
                    "zeros" => {
                        bytes[n / 2..].fill(0);
                        fs::write(&path, &bytes).unwrap()
                    }
                    _ => {
                        bytes[n * 3 / 4] ^= 1;
                        fs::write(&path, &bytes).unwrap()
                    }
                }
                let (again, messages, steps) = told(&room, &out, &more);
                again.unwrap_or_else(|e| panic!("{name} {damage}: {e}"));
                assert_eq!(steps, 4, "{name} {damage}: from step 4, not from the damaged one");
                let said = messages.iter().find(|m| m.contains("checkpoint-6")).unwrap();
                let word = if name == "manifest.json" && damage == "delete" { "missing" } else { &name };
                assert!(said.contains("damaged") && said.contains(word), "{name} {damage}: {said}");
                assert!(out.join("checkpoint-6.damaged").is_dir());
                assert!(fs::read(out.join(file)).unwrap() == good, "{name} {damage}: other bits");
                assert_eq!(metrics(&out), metrics(&whole), "{name} {damage}");
                fs::remove_dir_all(&out).unwrap();
            }
        }
    }
}

#[test]
fn without_a_whole_checkpoint_the_run_does_not_begin_anew_silently() {
    let room = Room::new();
    let out = room.path("out");
    run(&room, &out, STEPS).unwrap();
    unfinish(&out, &[]);
    for n in [2, 4, 6, 8] {
        fs::write(out.join(format!("checkpoint-{n}/optimizer.safetensors")), "?").unwrap();
    }
    let e = run(&room, &out, STEPS).unwrap_err();
    assert!(e.to_string().contains("no checkpoint is whole (4 damaged)") && e.exit_code() == 2, "{e}");
    assert!(out.join("checkpoint-8.damaged").is_dir());
    let from = STEPS.replace("auto", &out.join("checkpoint-8.damaged").display().to_string());
    let e = run(&room, &out, &from).unwrap_err();
    assert!(e.to_string().contains("optimizer.safetensors"), "{e}");
}

#[test]
fn metrics_are_those_of_the_checkpoint() {
    let room = Room::new();
    let whole = room.path("whole");
    let more = format!("{STEPS}magnitude_steps: 3\n");
    run(&room, &whole, &more).unwrap();
    let expected = metrics(&whole);
    assert!(expected.iter().any(|l| l.contains("magnitude")) && expected.iter().any(|l| l.contains("eval_loss")));
    type Damage = (&'static str, fn(Vec<u8>) -> Vec<u8>);
    let spoil: [Damage; 5] = [
        ("lost", |_| Vec::new()),
        ("half a line", |t| t[..t.len() / 3].to_vec()),
        ("a byte that is not UTF-8", |mut t| {
            t[10] = 0xff;
            t
        }),
        ("repeated", |t| [t.clone(), t].concat()),
        ("whole", |t| t),
    ];
    for (what, change) in spoil {
        let out = room.path("out");
        copy(&whole, &out);
        unfinish(&out, &[8]);
        let path = out.join("metrics.jsonl");
        fs::write(&path, change(fs::read(&path).unwrap())).unwrap();
        run(&room, &out, &more).unwrap();
        assert_eq!(metrics(&out), expected, "{what}");
        fs::remove_dir_all(&out).unwrap();
    }
    // from an older checkpoint on, stopped, and then from the newest
    let out = room.path("out");
    copy(&whole, &out);
    unfinish(&out, &[]);
    let from = more.replace("auto", &out.join("checkpoint-4").display().to_string());
    let trainer = Trainer::new(room.config(&out, &from)).unwrap();
    let stop = trainer.stop_flag();
    let mut watch = Observe(|e: &Event| {
        if matches!(e, Event::Step(s) if s.step == 5) {
            stop.stop();
        }
    });
    assert_eq!(trainer.run(&mut watch).unwrap().status, Status::Interrupted);
    run(&room, &out, &more).unwrap();
    assert_eq!(metrics(&out), expected);
    assert!(weights(&out) == weights(&whole));
}

#[test]
fn one_process_at_a_time_works_in_a_folder() {
    let room = Room::new();
    let out = room.path("out");
    fs::create_dir(&out).unwrap();
    let Attempt::Taken(lock) = FileLock::take(&out.join("run.lock")).unwrap() else { panic!("nobody has it") };
    let e = run(&room, &out, STEPS).unwrap_err();
    assert!(e.to_string().contains(&format!("in use by process {}", std::process::id())), "{e}");
    assert_eq!(e.exit_code(), 2);
    drop(lock);
    // left by a process that was killed
    fs::write(out.join("run.lock"), r#"{"pid": 1, "host": "here", "started": "2020-01-01T00:00:00Z"}"#).unwrap();
    run(&room, &out, STEPS).unwrap();
    assert!(!out.join("run.lock").exists());
}

#[test]
fn what_a_run_reads_must_not_change_before_it_is_resumed() {
    let room = Room::new();
    let out = room.path("out");
    for (file, word) in
        [("model/model.safetensors", "base model"), ("train.jsonl", "training data"), ("dev.jsonl", "evaluation data")]
    {
        run(&room, &out, STEPS).unwrap();
        unfinish(&out, &[6, 8]);
        let path = room.path(file);
        let before = fs::read(&path).unwrap();
        let mut bytes = before.clone();
        match file {
            // the last weight
            "model/model.safetensors" => *bytes.last_mut().unwrap() ^= 1,
            _ => {
                let at = bytes.windows(2).position(|w| w == b" w").unwrap() + 2;
                bytes[at] = if bytes[at] == b'1' { b'2' } else { b'1' };
            }
        }
        fs::write(&path, &bytes).unwrap();
        let e = run(&room, &out, STEPS).unwrap_err();
        let text = e.to_string();
        assert!(text.contains(word) && text.contains("allow_changed_inputs") && e.exit_code() == 2, "{text}");
        let (done, messages, _) = told(&room, &out, &format!("{STEPS}allow_changed_inputs: true\n"));
        assert_eq!(done.unwrap().status, Status::Finished);
        assert!(messages.iter().any(|m| m.contains(word)), "{messages:?}");
        fs::write(&path, before).unwrap();
        fs::remove_dir_all(&out).unwrap();
    }
}

#[test]
fn a_run_that_is_lost_stops_and_keeps_its_last_good_checkpoint() {
    let room = Room::new();
    let out = room.path("out");
    // one good stretch, then rates that ruin the model: the schedule is constant after a long warm-up
    let more = "max_steps: 400\nsave_steps: 5\nsave_total_limit: 1\neval_strategy: no\nwarmup_steps: 300\n\
                lr_scheduler_type: constant\nmax_grad_norm: 0\nresume_from_checkpoint: auto\n";
    let more = format!("{more}optim: sgd\nlr_a: 1e5\nlr_b: 1e5\n");
    let e = run(&room, &out, &more).unwrap_err();
    assert!(matches!(e, Error::Lost { .. } | Error::NotFinite { .. }), "{e}");
    let text = e.to_string();
    assert!(text.contains("lower learning_rate") || text.contains("learning rate is too high"), "{text}");
    assert_eq!(e.exit_code(), 1);
    assert!(!out.join("adapter").exists() && !out.join("summary.json").exists());
    if text.contains("last good checkpoint is") {
        let named = text.rsplit("last good checkpoint is ").next().unwrap();
        assert!(Path::new(named).is_dir(), "{text}");
    }
    // repeated, it fails in the same way
    let again = run(&room, &out, &more).unwrap_err().to_string();
    assert_eq!(again.split(':').next(), text.split(':').next());
}

#[test]
fn a_checkpoint_of_another_folder_does_not_replace_the_run_here() {
    let room = Room::new();
    let (one, two) = (room.path("one"), room.path("two"));
    run(&room, &one, STEPS).unwrap();
    run(&room, &two, &format!("{STEPS}seed: 7\n")).unwrap();
    let before = weights(&two);
    let from = STEPS.replace("auto", &one.join("checkpoint-4").display().to_string());
    assert!(matches!(run(&room, &two, &from).unwrap_err(), Error::OutputExists { .. }));
    assert!(weights(&two) == before);
    let three = room.path("three");
    for _ in 0..2 {
        run(&room, &three, &from).unwrap();
        assert!(weights(&three) == weights(&one));
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() { copy(&source, &target) } else { assert!(fs::copy(&source, &target).is_ok()) }
    }
}
