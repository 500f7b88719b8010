//! Runs of several ranks against one process: the same losses, evaluations and files, whatever their number.

use crate::small::Room;
use crate::threads::ranks;
use loram_train::dist::ProcessGroup;
use loram_train::observer::Observer;
use loram_train::{Error, Event, Layer, Observe, Result, Status, Summary, TrainConfig, Trainer};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// The run of all ranks, with what rank 0 observes.
fn run_all(world: usize, config: impl Fn(&ProcessGroup) -> TrainConfig + Sync) -> Vec<Result<Summary>> {
    ranks(world, |group| Trainer::new(config(&group))?.in_group(group).run(&mut ()))
}

fn run(room: &Room, name: &str, world: usize, more: &str) -> Summary {
    let out = room.path(name);
    let mut all = run_all(world, |_| configured(room, &out, more));
    all.swap_remove(0).unwrap()
}

/// The small configuration, in which these lines replace those of the same keys.
fn configured(room: &Room, out: &Path, more: &str) -> TrainConfig {
    let layers = [room.config(out, "").to_yaml(), more.to_string()].map(|y| Layer::from_yaml(&y).unwrap());
    TrainConfig::layered(&layers).unwrap()
}

/// (step, loss, evaluation loss) of each line of metrics.
fn losses(out: &Path) -> Vec<(u64, Option<f64>, Option<f64>)> {
    let text = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let records = text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap());
    records.map(|r| (r["step"].as_u64().unwrap(), r["loss"].as_f64(), r["eval_loss"].as_f64())).collect()
}

fn assert_close(one: &Path, other: &Path) {
    let (a, b) = (losses(one), losses(other));
    assert_eq!(a.len(), b.len(), "{a:?}\n{b:?}");
    for (x, y) in a.iter().zip(&b) {
        let near = |x: Option<f64>, y: Option<f64>| match (x, y) {
            (Some(x), Some(y)) => (x - y).abs() < 1e-6,
            (x, y) => x == y,
        };
        assert!(x.0 == y.0 && near(x.1, y.1) && near(x.2, y.2), "{x:?} {y:?}");
    }
}

fn adapter(out: &Path) -> Vec<u8> {
    fs::read(out.join("adapter/adapter_model.safetensors")).unwrap()
}

#[test]
fn losses_are_those_of_one_process_with_the_same_global_batch() {
    let room = Room::new();
    let cases = [
        ("plain", "num_train_epochs: 2\n"),
        ("dropout", "lora_dropout: 0.2\nnum_train_epochs: 2\n"),
        ("parts", "max_tokens_per_batch: 7\nmax_steps: 5\n"),
        ("packed", "packing: true\nmax_length: 13\nmax_steps: 5\n"),
        ("grouped", "group_by_length: true\nmax_steps: 5\n"),
        ("full", "finetuning_type: full\nlearning_rate: 1e-3\nmax_steps: 5\n"),
        ("searched", "learning_rate: auto\nmax_steps: 3\n"),
        ("sgd", "optim: sgd\nmomentum: 0.9\nlearning_rate: 0.5\nmax_steps: 4\n"),
    ];
    for (name, more) in cases {
        let more = &format!("compute_dtype: float32\n{more}");
        let one = run(&room, &format!("{name}-1"), 1, &format!("{more}gradient_accumulation_steps: 6\n"));
        for (world, steps) in [(2, 3), (3, 2)] {
            let out = format!("{name}-{world}");
            let found = run(&room, &out, world, &format!("{more}gradient_accumulation_steps: {steps}\n"));
            assert_eq!((found.steps, found.tokens, found.status), (one.steps, one.tokens, Status::Finished), "{name}");
            assert_close(&room.path(&format!("{name}-1")), &room.path(&out));
        }
    }
}

#[test]
fn gradients_that_travel_in_bfloat16_train_as_well() {
    let room = Room::new();
    let more = "compute_dtype: float32\nmax_steps: 8\n";
    run(&room, "f32", 2, more);
    run(&room, "bf16", 2, &format!("{more}dist_dtype: bfloat16\n"));
    let (a, b) = (losses(&room.path("f32")), losses(&room.path("bf16")));
    let far = a.iter().zip(&b).filter_map(|(x, y)| Some((x.1? - y.1?).abs())).fold(0.0, f64::max);
    assert!(far > 0.0 && far < 2e-2, "{far}");
    // replicas were compared in the last step
    assert_eq!(b.last().unwrap().0, 8);
}

#[test]
fn replicas_stay_equal_and_a_repeated_run_gives_the_same_bits() {
    let room = Room::new();
    let more = "lora_dropout: 0.1\nmax_steps: 6\n";
    run(&room, "a", 3, more);
    run(&room, "b", 3, more);
    assert_eq!(adapter(&room.path("a")), adapter(&room.path("b")));
}

#[test]
fn evaluations_do_not_depend_on_the_number_of_ranks() {
    let room = Room::new();
    let more = "learning_rate: 0.0\neval_batch_size: 1\nmax_steps: 1\n";
    let metrics: Vec<_> = [1, 2, 4].map(|n| run(&room, &format!("e{n}"), n, more).eval_before.unwrap()).to_vec();
    assert!(metrics.windows(2).all(|w| w[0] == w[1]), "{metrics:?}");
}

#[test]
fn another_number_of_ranks_goes_on_with_the_run() {
    let room = Room::new();
    let more = "compute_dtype: float32\nlora_dropout: 0.1\nnum_train_epochs: 3\nsave_steps: 1\n";
    run(&room, "whole", 2, more);
    // 2 → 1 → 2
    for (world, stop) in [(2, 4), (1, 9), (2, usize::MAX)] {
        let out = room.path("parts");
        let all = ranks(world, |group| {
            let config = room.config(&out, &format!("{more}resume_from_checkpoint: latest\n"));
            let trainer = Trainer::new(config).unwrap().in_group(group.clone());
            let flag = trainer.stop_flag();
            // the last rank is asked
            let asked = group.rank() + 1 == group.world();
            let mut watch = Observe(|e: &Event| {
                if matches!(e, Event::Step(s) if s.step == stop) {
                    flag.stop();
                }
            });
            let observer: &mut dyn Observer = if asked || group.is_first() { &mut watch } else { &mut () };
            trainer.run(observer).unwrap()
        });
        assert!(all.iter().all(|s| s.steps == all[0].steps && s.status == all[0].status));
        assert_eq!(all[0].status, if stop == usize::MAX { Status::Finished } else { Status::Interrupted });
    }
    assert_close(&room.path("whole"), &room.path("parts"));
}

#[test]
fn a_rank_that_is_asked_to_stop_stops_all() {
    let room = Room::new();
    let out = room.path("run");
    let all = ranks(3, |group| {
        let trainer = Trainer::new(room.config(&out, "num_train_epochs: 50\n")).unwrap().in_group(group.clone());
        if group.rank() == 2 {
            trainer.stop_flag().stop();
        }
        trainer.run(&mut ()).unwrap()
    });
    for s in &all {
        assert_eq!((s.status, s.steps), (Status::Interrupted, 1));
    }
    assert!(out.join("checkpoint-1/trainer_state.json").exists());
}

#[test]
fn ranks_that_differ_are_refused_before_the_first_step() {
    let room = Room::new();
    let out = room.path("run");
    let told = |all: Vec<Result<Summary>>| {
        let errors: Vec<Error> = all.into_iter().map(Result::unwrap_err).collect();
        assert!(errors.iter().skip(1).all(Error::is_told_elsewhere) && !errors[0].is_told_elsewhere(), "{errors:?}");
        assert!(errors.iter().all(|e| e.exit_code() == 2 && e.to_string() == errors[0].to_string()), "{errors:?}");
        errors[0].to_string()
    };
    let of_rank =
        |group: &ProcessGroup, rank, more: &str| configured(&room, &out, if group.rank() == rank { more } else { "" });
    let text = told(run_all(3, |g| of_rank(g, 2, "seed: 7\nr: 3\n")));
    assert!(text.contains("rank 2 of 3") && text.contains("seed (7 there, 42 on rank 0)"), "{text}");
    assert!(text.contains("r (3 there"), "{text}");
    assert!(!out.exists(), "nothing is written");

    // other data behind the same name: the file changes between the reading of one rank and the other
    let line = r#"{"text": "w1 w2 w3"}"#;
    let other = room.path("other.jsonl");
    fs::write(&other, format!("{line}\n")).unwrap();
    let text = told(run_all(2, |g| TrainConfig {
        train_data: vec![if g.rank() == 1 {
            other.display().to_string()
        } else {
            room.path("train.jsonl").display().to_string()
        }],
        ..room.config(&out, "")
    }));
    assert!(text.contains("rank 1 of 2") && text.contains("train_data"), "{text}");
}

#[test]
fn an_error_of_one_rank_ends_all_with_it() {
    let room = Room::new();
    let out = room.path("run");
    fs::write(&out, "a file").unwrap();
    let all = run_all(2, |_| room.config(&out, ""));
    let texts: Vec<String> = all.into_iter().map(|r| r.unwrap_err().to_string()).collect();
    assert!(texts[0].contains("rank 0 of 2 on ") && texts[0].contains("is a file"), "{texts:?}");
    assert_eq!(texts[0], texts[1]);
    // what is wrong on all of them is no rank's own
    let all =
        run_all(2, |_| TrainConfig { train_data: vec!["nowhere.jsonl".into()], ..room.config(&room.path("b"), "") });
    let text = all.into_iter().next().unwrap().unwrap_err().to_string();
    assert!(text.starts_with("nowhere.jsonl"), "{text}");
}

#[test]
fn a_lost_rank_ends_the_others_with_its_name_and_the_last_checkpoint() {
    let room = Room::new();
    let out = room.path("run");
    let all = ranks(3, |group| {
        let config = room.config(&out, "num_train_epochs: 3\nsave_steps: 1\neval_strategy: no\n");
        let mut saved = 0;
        let mut watch = Observe(|e: &Event| {
            if matches!(e, Event::Saved { .. }) {
                saved += 1;
            }
            if saved == 3 {
                group.collective().lost().note(1);
            }
        });
        Trainer::new(config).unwrap().in_group(group.clone()).run(&mut watch)
    });
    for (rank, outcome) in all.into_iter().enumerate() {
        let e = outcome.unwrap_err();
        let text = e.to_string();
        assert!(text.starts_with("rank 1 of 3 on ") && text.contains("was lost in step "), "{text}");
        assert!(text.contains("checkpoint-") && text.contains("--resume"), "{text}");
        assert_eq!((e.is_told_elsewhere(), e.exit_code()), (rank != 0, 1));
    }
    let s =
        run(&room, "run", 2, "num_train_epochs: 3\nsave_steps: 1\neval_strategy: no\nresume_from_checkpoint: latest\n");
    assert_eq!(s.status, Status::Finished);
}
