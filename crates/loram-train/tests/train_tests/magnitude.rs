//! Measured magnitudes: numbers as numpy has them, the run's bits untouched, the same lines after resuming.

use loram_io::testing::{python, tiny_llama};
use loram_train::{Event, Observe, TrainConfig, Trainer};
use serde_json::Value;
use std::path::Path;

fn config(out: &Path, more: &str) -> TrainConfig {
    let yaml = format!(
        "model: {}\ndata: demo:restaurants?seed=0&n=64\nr: 4\nlearning_rate: 2e-3\nbatch_size: 4\nlogging_steps: 1\n\
         output_dir: {}\nmax_steps: 5\n{more}",
        tiny_llama().display(),
        out.display()
    );
    TrainConfig::from_yaml(&yaml).unwrap()
}

fn run(out: &Path, more: &str) {
    Trainer::new(config(out, more)).unwrap().run(&mut ()).unwrap();
}

/// Lines of magnitudes: step and layers.
fn magnitudes(out: &Path) -> Vec<(u64, Value)> {
    let text = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let records = text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap());
    records.filter_map(|r| Some((r["step"].as_u64()?, r.get("magnitude")?.clone()))).collect()
}

/// `gain: auto`: the share of ‖W‖ by which the first update moves each layer is the one that was asked for.
#[test]
fn the_automatic_gain_moves_every_layer_alike() {
    let dir = tempfile::tempdir().unwrap();
    let shares = |gain: &str, optim: &str, rate: f64| -> Vec<f64> {
        let out = dir.path().join(format!("{gain}-{optim}-{rate}"));
        // the probe is the first batch, and one step is all there is
        let yaml = format!(
            "model: {}\ndata: demo:restaurants?seed=0&n=16\nr: 4\nbatch_size: 16\ncalibration_samples: 16\ngain: '{gain}'\n\
             optim: {optim}\nlearning_rate: {rate}\nlr_scheduler_type: constant\nwarmup_steps: 0\nmax_grad_norm: 0\n\
             max_steps: 1\nmagnitude_steps: 1\noutput_dir: {}\n",
            tiny_llama().display(),
            out.display()
        );
        let more = TrainConfig::from_yaml(&yaml).unwrap();
        Trainer::new(more).unwrap().run(&mut ()).unwrap();
        let (_, layers) = magnitudes(&out).remove(0);
        layers.as_object().unwrap().values().map(|l| l["relative"].as_f64().unwrap()).collect()
    };
    for (gain, optim, rate, share) in
        [("auto:0.01", "adamw", 4e-3, 0.01), ("auto:0.002", "adamw", 1e-3, 0.002), ("auto:0.01", "sgd", 1.0, 0.01)]
    {
        let found = shares(gain, optim, rate);
        assert_eq!(found.len(), 35);
        for x in found {
            assert!((x / share - 1.0).abs() < 0.06, "{gain} {optim} {rate}: {x}");
        }
    }
    let log = shares("log", "adamw", 4e-3);
    let spread = log.iter().fold(0.0f64, |t, &x| t.max(x)) / log.iter().fold(f64::MAX, |t, &x| t.min(x));
    assert!(spread > 1.3, "the logarithm's layers move differently: {spread}");
}

#[test]
fn measuring_changes_no_bit_and_resuming_no_line() {
    let dir = tempfile::tempdir().unwrap();
    let (without, every, resumed) = (dir.path().join("0"), dir.path().join("1"), dir.path().join("r"));
    run(&without, "magnitude_steps: 0\n");
    run(&every, "magnitude_steps: 1\n");
    let weights = |out: &Path| std::fs::read(out.join("adapter/adapter_model.safetensors")).unwrap();
    assert_eq!(weights(&without), weights(&every));
    assert!(magnitudes(&without).is_empty());
    let all = magnitudes(&every);
    assert_eq!(all.iter().map(|m| m.0).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    for (step, layers) in &all {
        assert_eq!(layers.as_object().unwrap().len(), 35);
        for (path, l) in layers.as_object().unwrap() {
            assert_eq!(l.as_object().unwrap().len(), 8, "{path}: {l}");
            let update = l["nu_update"].as_f64().unwrap();
            // the first step of the warm-up has rate 0
            assert_eq!(update == 0.0, *step == 1, "{path}: {l}");
            if *step == 2 {
                assert!((l["nu_step"].as_f64().unwrap() / update - 1.0).abs() < 1e-6, "all of ΔW is of this step: {l}");
            }
        }
    }
    // by default at the end, and every 20 steps
    let plain = dir.path().join("d");
    run(&plain, "");
    assert_eq!(magnitudes(&plain), all[4..]);

    let trainer = Trainer::new(config(&resumed, "magnitude_steps: 1\n")).unwrap();
    let stop = trainer.stop_flag();
    let mut watch = Observe(|e: &Event| {
        if matches!(e, Event::Step(s) if s.step == 3) {
            stop.stop();
        }
    });
    trainer.run(&mut watch).unwrap();
    assert_eq!(magnitudes(&resumed), all[..3]);
    run(&resumed, "magnitude_steps: 1\nresume_from_checkpoint: auto\n");
    assert_eq!(magnitudes(&resumed), all);
    assert_eq!(weights(&resumed), weights(&every));
}

/// ν and both norms of the update that the adapter makes, from its files, by numpy.
const NUMPY: &str = r#"
import json, sys, numpy as np
from safetensors.numpy import load_file
adapter, base = load_file(sys.argv[1] + "/adapter_model.safetensors"), load_file(sys.argv[2] + "/model.safetensors")
config = json.load(open(sys.argv[1] + "/adapter_config.json"))
out = {}
for key, a in adapter.items():
    if not key.endswith("lora_A.weight"):
        continue
    path = key[len("base_model.model."):-len(".lora_A.weight")]
    b, w = adapter[key.replace("lora_A", "lora_B")], base[path + ".weight"].astype(np.float64)
    delta = config["lora_alpha"] / config["r"] * b.astype(np.float64) @ a.astype(np.float64)
    norm = lambda x: float(np.linalg.norm(x))
    out[path] = [float((delta ** 2).mean()), norm(delta) / norm(w), float(np.linalg.norm(delta, 2) / np.linalg.norm(w, 2))]
print(json.dumps(out))
"#;

#[test]
fn figures_are_those_of_numpy() {
    let dir = tempfile::tempdir().unwrap();
    for scheme in ["loram", "lora"] {
        let out = dir.path().join(scheme);
        run(&out, &format!("init: {scheme}\n"));
        let weights = tiny_llama();
        let done = std::process::Command::new(python())
            .args(["-c", NUMPY, out.join("adapter").to_str().unwrap(), weights.to_str().unwrap()])
            .output();
        let text = done.map(|o| (o.status.success(), String::from_utf8_lossy(&o.stdout).into_owned()));
        let Ok((true, text)) = text else {
            eprintln!("skipped: no numpy and safetensors in {} (set LORAM_PYTHON)", python().display());
            return;
        };
        let expected: Value = serde_json::from_str(&text).unwrap();
        let (_, found) = magnitudes(&out).pop().unwrap();
        assert_eq!(found.as_object().unwrap().len(), expected.as_object().unwrap().len());
        for (path, values) in expected.as_object().unwrap() {
            for (i, (name, allowed)) in
                [("nu_update", 1e-3), ("relative", 1e-3), ("relative_spectral", 5e-3)].iter().enumerate()
            {
                let (found, numpy) = (found[path][name].as_f64().unwrap(), values[i].as_f64().unwrap());
                assert!((found / numpy - 1.0).abs() < *allowed, "{scheme} {path} {name}: {found}, numpy has {numpy}");
            }
        }
    }
}
