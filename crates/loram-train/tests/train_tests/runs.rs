//! Whole runs on the small Llama: same bits again, going on where it stopped, the best checkpoint, early stopping.

use loram_io::testing::tiny_llama;
use loram_train::dataset::Known;
use loram_train::{Base, DataOptions, Error, Event, Observe, Status, Summary, TrainConfig, Trainer, read_dataset};
use std::path::{Path, PathBuf};

fn config(out: &Path, more: &str) -> TrainConfig {
    let yaml = format!(
        "model: {}\ndata: demo:restaurants?seed=0&n=64\nr: 4\nlearning_rate: 2e-3\nbatch_size: 4\nlogging_steps: 1\n\
         output_dir: {}\noverwrite_output_dir: true\n{more}",
        tiny_llama().display(),
        out.display()
    );
    TrainConfig::from_yaml(&yaml).unwrap_or_else(|e| panic!("{e}\n{yaml}"))
}

fn run(out: &Path, more: &str) -> Summary {
    Trainer::new(config(out, more)).unwrap().run(&mut ()).unwrap()
}

/// Trains until `step` steps are made and then asks to stop.
fn stopped(out: &Path, more: &str, step: usize) -> Summary {
    let trainer = Trainer::new(config(out, more)).unwrap();
    let stop = trainer.stop_flag();
    let mut watch = Observe(|e: &Event| {
        if matches!(e, Event::Step(s) if s.step == step) {
            stop.stop();
        }
    });
    trainer.run(&mut watch).unwrap()
}

fn weights(adapter: &Path) -> Vec<u8> {
    std::fs::read(adapter.join("adapter_model.safetensors")).unwrap()
}

/// Training losses by step.
fn losses(out: &Path) -> Vec<(u64, f64)> {
    let text = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let records = text.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap());
    records.filter_map(|r| Some((r["step"].as_u64()?, r["loss"].as_f64()?))).collect()
}

#[test]
fn the_same_bits_again_with_any_number_of_threads() {
    let dir = tempfile::tempdir().unwrap();
    let mut found = Vec::new();
    for threads in [1, 2, 3] {
        let out = dir.path().join(threads.to_string());
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let s = pool.install(|| run(&out, "max_steps: 6\nlora_dropout: 0.1\n"));
        assert_eq!((s.status, s.steps), (Status::Finished, 6));
        found.push((weights(&out.join("adapter")), losses(&out)));
    }
    assert!(found.windows(2).all(|w| w[0] == w[1]));
    let other = dir.path().join("other");
    run(&other, "max_steps: 6\nlora_dropout: 0.1\nseed: 43\n");
    assert_ne!(found[0].0, weights(&other.join("adapter")), "another seed gives other weights");
}

#[test]
fn a_resumed_run_ends_with_the_bits_of_one_that_never_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        ("loram", "init: loram\nlora_dropout: 0.05\ngradient_accumulation_steps: 2\nnum_train_epochs: 2\n"),
        ("branch", "init: loram\nbase: branch\nmax_steps: 9\npacking: true\nmax_length: 128\n"),
        ("pissa", "init: pissa\nmax_steps: 9\nloraplus_lr_ratio: 4\nadapter_format: native\n"),
        ("lora", "init: lora\nmax_steps: 9\noptim: sgd\nmomentum: 0.9\nlearning_rate: 0.1\n"),
        ("full", "finetuning_type: full\nmax_steps: 5\n"),
        ("eva", "init: eva\nmax_steps: 5\ncalibration_samples: 16\n"),
        ("corda", "init: corda\ncorda_method: kpm\nmax_steps: 5\ncalibration_samples: 16\nadapter_format: native\n"),
        ("lora-ga", "init: lora-ga\nbase: branch\nmax_steps: 5\ncalibration_samples: 16\n"),
        ("auto", "gain: auto:0.01\nmax_steps: 5\ncalibration_samples: 16\n"),
        ("loftq", "init: loftq\nloftq_iter: 2\nmax_steps: 5\n"),
    ];
    for (name, more) in cases {
        // `learning_rate` may be given twice: the later one counts
        let more = if more.contains("learning_rate") { more.replace("learning_rate: 0.1\n", "") } else { more.into() };
        let (whole, parts) = (dir.path().join(format!("{name}-whole")), dir.path().join(format!("{name}-parts")));
        let a = run(&whole, &more);
        let b = stopped(&parts, &more, 3);
        assert_eq!((b.status, b.steps), (Status::Interrupted, 3), "{name}");
        assert!(b.adapter.is_none() && b.checkpoint.is_some() && b.next[0].contains("--resume"));
        let c = run(&parts, &format!("{more}resume_from_checkpoint: auto\n"));
        assert_eq!((c.status, c.steps), (Status::Finished, a.steps), "{name}");
        let file = if name == "full" { "model/model.safetensors" } else { "adapter/adapter_model.safetensors" };
        assert!(
            std::fs::read(whole.join(file)).unwrap() == std::fs::read(parts.join(file)).unwrap(),
            "{name}: weights"
        );
        assert_eq!(losses(&whole), losses(&parts), "{name}");
        assert_eq!(a.train_loss.to_bits(), c.train_loss.to_bits(), "{name}");
    }
}

#[test]
fn a_limit_of_samples_counts_the_pieces_of_a_text_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("novel.txt");
    std::fs::write(&path, "It was a dark and stormy night. ".repeat(200)).unwrap();
    let base = Base::open(&tiny_llama().display().to_string(), None, None, &mut ()).unwrap();
    let read = |max_samples| {
        let paths = vec![path.display().to_string()];
        let options = DataOptions { paths, max_length: Some(32), max_samples, ..DataOptions::default() };
        read_dataset(&base, &options, Known::Nothing, &mut ()).unwrap()
    };
    let (all, three) = (read(None), read(Some(3)));
    assert!(all.examples.len() > 20);
    assert_eq!((three.examples.len(), three.report.examples, three.report.tokens), (3, 3, 96));
    assert_eq!(three.examples[2].sequences, all.examples[2].sequences);
}

#[test]
fn a_resumed_run_must_be_the_same_run() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    stopped(&out, "max_steps: 6\n", 2);
    let changed = config(&out, "max_steps: 6\nweight_decay: 0.1\nresume_from_checkpoint: auto\n");
    let e = Trainer::new(changed).unwrap().run(&mut ()).unwrap_err();
    assert!(e.to_string().contains("weight_decay"), "{e}");
    assert_eq!(e.exit_code(), 2);
}

#[test]
fn the_best_checkpoint_is_what_is_saved() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    // a learning rate that ruins the model after a good first epoch
    let more = "eval_data: demo:restaurants?seed=0&n=16&split=dev\neval_steps: 2\nmax_steps: 12\n\
                load_best_model_at_end: true\nearly_stopping_patience: 3\nsave_total_limit: 1\nlr_scheduler_type: constant\n";
    let s = run(&out, more);
    let best = s.best_step.unwrap();
    let text = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let evals: Vec<(u64, f64)> = text
        .lines()
        .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap())
        .filter_map(|r| Some((r["step"].as_u64()?, r["eval_loss"].as_f64()?)))
        .collect();
    let least = evals.iter().filter(|e| e.0 > 0).min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    assert_eq!(least.0 as usize, best);
    assert!((s.eval_after.unwrap().loss - least.1).abs() < 1e-12 && s.took_best);
    assert!(evals[0].1 > least.1, "training helps");
    assert!(out.join(format!("checkpoint-{best}")).is_dir(), "the best checkpoint is kept");
}

#[test]
fn early_stopping() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    // an improvement that nothing reaches: the first evaluation is the best, the third that does not improve ends it
    let more = "eval_data: demo:restaurants?seed=0&n=8&split=dev\neval_steps: 1\nmax_steps: 12\n\
                early_stopping_patience: 3\nearly_stopping_threshold: 100\n";
    let s = run(&out, more);
    assert_eq!((s.status, s.steps), (Status::StoppedEarly, 4));
    assert!(s.adapter.is_some());
}

#[test]
fn accumulation_is_the_larger_batch() {
    let dir = tempfile::tempdir().unwrap();
    // all examples in every step, so that the order does not matter; completions differ in length
    let one = |name: &str, batch: usize, accumulation: usize| {
        let out = dir.path().join(name);
        let mut c = config(&out, "max_steps: 4\n");
        (c.per_device_train_batch_size, c.gradient_accumulation_steps) = (batch, accumulation);
        Trainer::new(c).unwrap().run(&mut ()).unwrap();
        losses(&out)
    };
    let (whole, parts) = (one("whole", 64, 1), one("parts", 8, 8));
    assert_eq!(whole.len(), 4);
    for (a, b) in whole.iter().zip(&parts) {
        assert!((a.1 / b.1 - 1.0).abs() < 1e-5, "{whole:?} {parts:?}");
    }
}

#[test]
fn every_start_and_full_fine_tuning_learn() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["loram", "lora", "gaussian", "pissa", "orthogonal", "olora", "milora", "full"] {
        let out = dir.path().join(name);
        let more = match name {
            "full" => "finetuning_type: full\nnum_train_epochs: 1\n".to_string(),
            _ => format!("init: {name}\nnum_train_epochs: 2\n"),
        };
        let s = run(&out, &format!("{more}eval_data: demo:restaurants?seed=0&n=16&split=dev\n"));
        let (before, after) = (s.eval_before.unwrap().loss, s.eval_after.unwrap().loss);
        assert!(after < 0.8 * before, "{name}: {before} -> {after}");
        assert!(s.adapter.unwrap().is_dir() && out.join("summary.json").is_file() && out.join("config.yaml").is_file());
    }
}

#[test]
fn what_diverges_stops_with_the_reason_and_leaves_no_adapter() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let mut c = config(&out, "max_steps: 40\noptim: sgd\nmax_grad_norm: 0\nwarmup_ratio: 0\n");
    c.learning_rate = 1e12.into();
    let e = Trainer::new(c).unwrap().run(&mut ()).unwrap_err();
    assert!(matches!(e, Error::NotFinite { .. }), "{e}");
    assert!(!out.join("adapter").exists());
}

#[test]
fn a_run_folder_that_holds_something_else_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let out: PathBuf = dir.path().join("run");
    std::fs::create_dir(&out).unwrap();
    std::fs::write(out.join("thesis.tex"), "years of work").unwrap();
    let mut c = config(&out, "max_steps: 1\n");
    c.overwrite_output_dir = false;
    let e = Trainer::new(c).unwrap().run(&mut ()).unwrap_err();
    assert!(e.to_string().contains("not empty") || e.to_string().contains("overwrite_output_dir"), "{e}");
    run(&out, "max_steps: 1\n");
    assert_eq!(std::fs::read_to_string(out.join("thesis.tex")).unwrap(), "years of work");
}
