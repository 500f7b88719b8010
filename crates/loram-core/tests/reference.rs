//! Starts against PEFT's, and numpy's where PEFT has none (`fixtures/schemes`, made by `make.py` there).

use loram_core::*;
use serde_json::Value;

/// Relative, in Frobenius norm.
const TOLERANCE: f64 = 1e-5;

fn fixture(name: &str) -> Option<Value> {
    let path = format!("{}/../../fixtures/schemes/{name}", env!("CARGO_MANIFEST_DIR"));
    match std::fs::read_to_string(&path) {
        Ok(text) => Some(serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}"))),
        Err(e) => {
            eprintln!("skipped: {path}: {e}");
            None
        }
    }
}

fn numbers(v: &Value) -> Vec<f64> {
    v.as_array().expect("a list of numbers").iter().map(|x| x.as_f64().unwrap()).collect()
}

fn f32s(v: &Value) -> Vec<f32> {
    numbers(v).into_iter().map(|x| x as f32).collect()
}

fn distance(x: &[f32], want: &[f64]) -> f64 {
    assert_eq!(x.len(), want.len());
    let off: f64 = x.iter().zip(want).map(|(x, w)| (f64::from(*x) - w).powi(2)).sum();
    let size: f64 = want.iter().map(|w| w * w).sum();
    if size == 0.0 { off.sqrt() } else { (off / size).sqrt() }
}

/// The k-th vectors of a factor of rank r: rows of A (r, len), columns of B (len, r).
fn indices(len: usize, r: usize, k: usize, of_a: bool) -> Vec<usize> {
    (0..len).map(|i| if of_a { k * len + i } else { i * r + k }).collect()
}

/// Gives each vector of a factor the sign of the reference's: what a decomposition leaves open.
fn aligned(x: &[f32], want: &[f64], r: usize, of_a: bool) -> Vec<f32> {
    let len = x.len() / r;
    let mut out = x.to_vec();
    for k in 0..r {
        let at = indices(len, r, k, of_a);
        if at.iter().map(|&i| f64::from(x[i]) * want[i]).sum::<f64>() < 0.0 {
            at.iter().for_each(|&i| out[i] = -out[i]);
        }
    }
    out
}

#[test]
fn starts_are_those_of_peft_and_numpy() {
    let Some(cases) = fixture("starts.json") else { return };
    let mut compared = 0;
    for case in cases.as_array().unwrap() {
        let size = |key: &str| case[key].as_u64().unwrap() as usize;
        let (n, m, r) = (size("n"), size("m"), size("r"));
        let w = f32s(&case["w"]);
        for (name, want) in case["schemes"].as_object().unwrap() {
            let spec = SchemeSpec::parse(name, &SchemeOptions::default()).unwrap();
            let scaling = want["scaling"].as_f64().unwrap();
            let lora_alpha = case["lora_alpha"].as_f64().unwrap();
            let plan = LayerPlan { path: "layer".into(), n, m, r, lora_alpha, scaling };
            let start = initialize(&spec, MatRef { data: &w, rows: n, cols: m }, &plan, 5).unwrap();
            let (a, b) = (numbers(&want["a"]), numbers(&want["b"]));
            let mut base = w.clone();
            residual(&mut base, &start);
            for (what, off) in [
                ("A", distance(&aligned(&start.a, &a, r, true), &a)),
                ("B", distance(&aligned(&start.b, &b, r, false), &b)),
                ("residual", distance(&base, &numbers(&want["residual"]))),
            ] {
                assert!(off < TOLERANCE, "{name} ({n}, {m}) r = {r}: {what} is off by {off:e}");
            }
            compared += 1;
        }
    }
    assert!(compared >= 21, "{compared} starts compared");
}

#[test]
fn targets_ranks_and_scalings_are_those_of_peft() {
    let Some(file) = fixture("targets.json") else { return };
    let modules = file["modules"].as_array().unwrap();
    let linears: Vec<LinearInfo> = modules.iter().map(|path| linear(path.as_str().unwrap())).collect();
    for case in file["cases"].as_array().unwrap() {
        let mut settings = serde_json::json!({"r": 8, "lora_alpha": 16});
        settings.as_object_mut().unwrap().extend(case["settings"].as_object().unwrap().clone());
        let config: LoraConfig = serde_json::from_value(settings.clone()).unwrap();
        let found = plan_layers(&config, &linears);
        let Some(want) = case["matched"].as_object() else {
            // PEFT also fails where a module matches that is no linear layer, which only linear layers can do here
            let other = || plan_layers(&config, &containers(&linears)).is_ok();
            // and Python's regular expressions refuse a reference to a group that is still open ("error")
            assert!(
                found.is_err() || case["matched"] == "error" || other(),
                "{settings}: PEFT says {}, here {found:?}",
                case["matched"]
            );
            continue;
        };
        let found = found.unwrap_or_else(|e| panic!("{settings}: {e}"));
        assert_eq!(found.len(), want.len(), "{settings}");
        for plan in found {
            let [r, alpha, scaling] = [0, 1, 2].map(|i| want[&plan.path][i].as_f64().unwrap());
            assert_eq!((plan.r as f64, plan.lora_alpha), (r, alpha), "{settings}: {}", plan.path);
            assert!((plan.scaling / scaling - 1.0).abs() < 1e-12, "{settings}: {}", plan.path);
        }
    }
}

/// The modules of the file are all alike, and to PEFT none of them is an output layer.
fn linear(path: &str) -> LinearInfo {
    LinearInfo { path: path.into(), n: 8, m: 8, output_layer: false }
}

/// The modules that hold these, which PEFT's rules see too.
fn containers(linears: &[LinearInfo]) -> Vec<LinearInfo> {
    let mut paths: Vec<&str> =
        linears.iter().flat_map(|l| l.path.match_indices('.').map(|(i, _)| &l.path[..i])).collect();
    paths.sort_unstable();
    paths.dedup();
    paths.into_iter().map(linear).collect()
}
