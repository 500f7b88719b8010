//! Runs that are killed, or whose disk fails, at every single change of the file system: the same command then ends with the
//! same bits and the same metrics, and nothing is left over.

use crate::small::{Room, metrics};
use crate::state;
use loram_io::fault::{Fault, with};
use loram_train::Result;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The results of a run: the files of its adapter or model, its metrics, the names in its folder.
#[derive(Debug, PartialEq)]
struct Left {
    result: BTreeMap<String, Vec<u8>>,
    metrics: Vec<String>,
    names: BTreeSet<String>,
}

fn left(out: &Path) -> Left {
    let dir = ["adapter", "model"].map(|n| out.join(n)).into_iter().find(|d| d.exists()).unwrap();
    let name = |e: &std::fs::DirEntry| e.file_name().to_string_lossy().into_owned();
    let files = std::fs::read_dir(dir).unwrap().flatten();
    Left {
        result: files.map(|e| (name(&e), std::fs::read(e.path()).unwrap())).collect(),
        metrics: metrics(out),
        names: std::fs::read_dir(out).unwrap().flatten().map(|e| name(&e)).collect(),
    }
}

const CASES: [(&str, &str); 4] = [
    (
        "the best checkpoint",
        "max_steps: 6\neval_steps: 2\nsave_steps: 2\nload_best_model_at_end: true\nmagnitude_steps: 2\ninit: loram\n",
    ),
    (
        "early stopping",
        "max_steps: 12\neval_steps: 1\nsave_steps: 2\nsave_strategy: steps\nearly_stopping_patience: 2\n\
         early_stopping_threshold: 100\n",
    ),
    ("no checkpoint", "max_steps: 3\nsave_strategy: no\neval_steps: 3\n"),
    ("all weights", "max_steps: 4\nsave_steps: 2\neval_strategy: no\nfinetuning_type: full\n"),
];

/// Runs every case with a fault at every change in turn, or at every `stride`th unless `LORAM_EVERY_CHANGE` is set; `after`
/// sees what the first command returned.
fn at_every_change(fault: Fault, stride: usize, after: impl Fn(&Result<()>)) {
    let stride = if std::env::var_os("LORAM_EVERY_CHANGE").is_some() { 1 } else { stride };
    let room = Room::new();
    for (name, more) in CASES {
        let more = format!("{more}resume_from_checkpoint: auto\n");
        let run = |out: &Path| state::run(&room, out, &more).map(drop);
        let whole = room.path("whole");
        run(&whole).unwrap();
        let expected = left(&whole);
        let mut changes = 0;
        for at in (1..).step_by(stride) {
            let out = room.path("out");
            let (first, seen) = with(fault, at, || run(&out));
            if seen < at {
                first.unwrap();
                changes = seen;
                break;
            }
            after(&first);
            run(&out).unwrap_or_else(|e| panic!("{name}, change {at}: the same command again: {e}"));
            let found = left(&out);
            assert_eq!(found.metrics, expected.metrics, "{name}, change {at}");
            assert_eq!(found.names, expected.names, "{name}, change {at}");
            assert!(found == expected, "{name}, change {at}: other bits");
            std::fs::remove_dir_all(&out).unwrap();
        }
        assert!(changes > 40, "{name}: only {changes} changes were seen");
        println!("{name}: {changes} changes of the file system");
        for out in ["out", "whole"] {
            std::fs::remove_dir_all(room.path(out)).unwrap();
        }
    }
}

#[test]
fn killed_at_any_change_it_ends_with_the_same_bits() {
    at_every_change(Fault::Freeze, 7, |_| ());
}

#[test]
fn a_full_disk_is_one_error_and_the_same_command_finishes() {
    at_every_change(Fault::Fail(28), 17, |first| {
        if let Err(e) = first {
            let text = e.to_string();
            assert!(text.contains("os error 28") && !text.contains('\n'), "{text}");
            assert_eq!(e.exit_code(), 1);
        }
    });
}

#[test]
fn a_disk_that_fails_is_one_error_and_the_same_command_finishes() {
    at_every_change(Fault::Fail(5), 19, |first| {
        if let Err(e) = first {
            assert!(e.to_string().contains("os error 5"), "{e}");
        }
    });
}

/// Kills at random changes, one after another, until the run has ended; then once more from the start. With
/// `LORAM_EVERY_CHANGE` 200 kills, else 15.
#[test]
fn killed_again_and_again_it_ends_with_the_same_bits() {
    let room = Room::new();
    let wanted = if std::env::var_os("LORAM_EVERY_CHANGE").is_some() { 200 } else { 15 };
    let more = "max_steps: 20\neval_steps: 3\nsave_steps: 1\nsave_strategy: steps\nmagnitude_steps: 2\n\
                lora_dropout: 0.1\ngradient_accumulation_steps: 2\nresume_from_checkpoint: auto\n";
    let run = |out: &Path| state::run(&room, out, more).map(drop);
    let (whole, out) = (room.path("whole"), room.path("out"));
    run(&whole).unwrap();
    let expected = left(&whole);
    let (mut kills, mut ends, mut random) = (0, 0, 1u64);
    while kills < wanted || ends == 0 {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let at = 1 + (random >> 33) as usize % 200;
        match with(Fault::Freeze, at, || run(&out)) {
            (first, seen) if seen < at => {
                first.unwrap();
                assert!(left(&out) == expected, "after {kills} kills");
                std::fs::remove_dir_all(&out).unwrap();
                ends += 1;
            }
            _ => kills += 1,
        }
    }
    println!("{kills} kills, {ends} ends");
}
