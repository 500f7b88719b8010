//! Predictions for a checkpoint: against numpy, and what cannot be planned.

use loram_core::equivalence::Optimizer;
use loram_core::{LoraConfig, SchemeOptions, SchemeSpec};
use loram_io::plan::{MagnitudePlan, MatchTarget, PlanOptions, plan};
use loram_io::testing::{python, tiny_llama};
use loram_io::{Checkpoint, ModelConfig, Result};

fn options(scheme: &str, optimizer: Optimizer) -> PlanOptions {
    PlanOptions {
        lora: LoraConfig { r: 8, lora_alpha: 16.0, ..LoraConfig::default() },
        scheme: SchemeSpec::parse(scheme, &SchemeOptions::default()).unwrap(),
        seed: 42,
        optimizer,
        lr_a: 1e-3,
        lr_b: 2e-3,
        exact: true,
        matched: None,
    }
}

fn planned(o: &PlanOptions) -> Result<MagnitudePlan> {
    let dir = tiny_llama();
    plan(&Checkpoint::open(&dir)?, Some(&ModelConfig::load(&dir)?), o, &|_, _, _| {})
}

/// s⁴k₁ and ‖step‖/‖W‖ of `pissa` and `loram` (Adam, two rates) over all layers, and the mean exact gain, from the
/// definitions: the factors are made and multiplied.
const NUMPY: &str = r#"
import json, sys, numpy as np
from safetensors.numpy import load_file
w = {k: v.astype(np.float64) for k, v in load_file(sys.argv[1] + "/model.safetensors").items()}
r, s, lr_a, lr_b = 8, 2.0, 1e-3, 2e-3
phi = lambda m: np.sqrt(2 / (m + 1)) * np.sin(np.outer(np.arange(1, m + 1), np.arange(1, r + 1)) * np.pi / (m + 1))
total, squares, gains = {"pissa": [0, 0], "loram": [0, 0]}, 0, []
entries = 0
for name, x in w.items():
    if not name.endswith("_proj.weight"):
        continue
    n, m = x.shape
    u, sigma, vt = np.linalg.svd(x, full_matrices=False)
    gains.append(sigma[:r].sum() ** 2 / (r * (sigma ** 2).sum()))
    root = np.sqrt(sigma[:r] / s)
    beta = (np.log(r) / np.log(min(n, m)) * (x ** 2).sum() / r) ** 0.25
    for scheme, (a, b) in {"pissa": (root[:, None] * vt[:r], u[:, :r] * root), "loram": (beta * phi(m).T, beta * phi(n))}.items():
        k1 = ((a @ a.T) ** 2).sum() / m + ((b.T @ b) ** 2).sum() / n
        step = s * s * r * (lr_b ** 2 * (a ** 2).mean() + lr_a ** 2 * (b ** 2).mean())
        total[scheme][0] += s ** 4 * k1 * n * m
        total[scheme][1] += step * n * m
    squares += (x ** 2).sum()
    entries += n * m
out = {k: [v[0] / entries, float(np.sqrt(v[1] / squares))] for k, v in total.items()}
print(json.dumps({**out, "gain": float(np.mean(gains))}))
"#;

#[test]
fn predictions_are_those_of_numpy() {
    let found = planned(&options("loram", Optimizer::Adam)).unwrap();
    let done = std::process::Command::new(python()).args(["-c", NUMPY, tiny_llama().to_str().unwrap()]).output();
    let Some(out) = done.ok().filter(|o| o.status.success()) else {
        eprintln!("skipped: no numpy and safetensors in {} (set LORAM_PYTHON)", python().display());
        return;
    };
    let numpy: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    for scheme in ["loram", "pissa"] {
        let total = found.schemes.iter().find(|s| s.scheme == scheme).unwrap();
        for (found, known) in [(total.growth.k1, &numpy[scheme][0]), (total.growth.step_relative, &numpy[scheme][1])] {
            assert!((found / known.as_f64().unwrap() - 1.0).abs() < 1e-4, "{scheme}: {found}, numpy has {known}");
        }
    }
    let gain = found.layers.iter().map(|l| l.gains.exact.unwrap()).sum::<f64>() / found.layers.len() as f64;
    assert!((gain / numpy["gain"].as_f64().unwrap() - 1.0).abs() < 1e-4, "{gain}");
}

#[test]
fn what_is_solved_for_is_as_large_as_the_target() {
    for optimizer in [Optimizer::Sgd, Optimizer::Adam] {
        for scheme in ["loram", "pissa", "olora"] {
            let mut o = options(scheme, optimizer);
            o.matched = Some(MatchTarget::parse("lora@2e-4").unwrap());
            let first = planned(&o).unwrap();
            let m = first.matched.clone().unwrap();
            let close = |o: &PlanOptions| {
                let again = planned(o).unwrap().schemes[0].growth.step_relative;
                assert!((again / m.step_relative - 1.0).abs() < 1e-3, "{scheme} {optimizer:?}: {again} {m:?}");
            };
            close(&PlanOptions { lr_a: o.lr_a * m.rate, lr_b: o.lr_b * m.rate, matched: None, ..o.clone() });
            // the target's scaling is the run's, so that it must not be looked at again
            let lora = LoraConfig { lora_alpha: 16.0 * m.scaling, ..o.lora.clone() };
            close(&PlanOptions { lora, matched: None, ..o.clone() });
            let scale = SchemeOptions { init_scale_a: m.init, init_scale_b: m.init, ..Default::default() };
            let spec = SchemeSpec::parse(scheme, &scale).unwrap();
            close(&PlanOptions { scheme: spec, matched: None, ..o });
        }
    }
    // the rate in the table is the one at which a scheme moves as far
    let o = options("loram", Optimizer::Sgd);
    let o = PlanOptions { lr_b: o.lr_a, ..o };
    let found = planned(&o).unwrap();
    let pissa = found.schemes.iter().find(|s| s.scheme == "pissa").unwrap();
    let lr = pissa.lr_for_equal.unwrap();
    let spec = SchemeSpec::parse("pissa", &SchemeOptions::default()).unwrap();
    let again = planned(&PlanOptions { scheme: spec, lr_a: lr, lr_b: lr, ..o }).unwrap();
    assert!((again.schemes[0].growth.step_relative / found.schemes[0].growth.step_relative - 1.0).abs() < 1e-6);
}

#[test]
fn bounds_and_mistakes() {
    let o = options("loram", Optimizer::Sgd);
    let gain = SchemeOptions::default().with("gain", 1.0);
    let full = PlanOptions { scheme: SchemeSpec::parse("loram", &gain).unwrap(), ..o.clone() };
    for (layer, most) in planned(&o).unwrap().layers.iter().zip(&planned(&full).unwrap().layers) {
        assert!(layer.growth.k1 < layer.largest_k1 && layer.rank_share <= 1.0, "{layer:?}");
        assert!((most.growth.k1 / most.largest_k1 - 1.0).abs() < 1e-9, "a gain of 1 reaches the bound");
    }
    let fails = |o: PlanOptions| planned(&o).unwrap_err().to_string();
    assert!(fails(options("corda", Optimizer::Sgd)).contains("follows from data"));
    let mut wide = o.clone();
    wide.lora.r = 4096;
    assert!(fails(wide).contains("larger than the smaller side"));
    for (text, what) in [
        ("lora", "SCHEME@RATE"),
        ("lora@x", "learning rate above 0"),
        ("eva@1e-4", "follows from data"),
        ("no@1", "unknown"),
    ] {
        let e = MatchTarget::parse(text).unwrap_err();
        assert!(e.to_string().contains(what) && e.exit_code() == 2, "{text}: {e}");
    }
}
