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

/// The statistic of a data-driven scheme's case, as the scheme takes it.
fn observed(case: &Value, m: usize, r: usize) -> Option<Observed> {
    let components = |c: &Value| Observed::Components(principal_components("layer", &f32s(c), m, r).unwrap());
    case.get("covariance")
        .map(components)
        .or_else(|| case.get("moment").map(|c| Observed::InputMoment(f32s(c))))
        .or_else(|| case.get("gradient").map(|g| Observed::Gradient(f32s(g))))
}

#[test]
fn starts_are_those_of_peft_and_numpy() {
    let Some(cases) = fixture("starts.json") else { return };
    let mut compared = 0;
    for case in cases.as_array().unwrap() {
        let size = |key: &str| case[key].as_u64().unwrap() as usize;
        let (n, m, r) = (size("n"), size("m"), size("r"));
        let w = f32s(&case["w"]);
        let matrix = StoredWeight::of(&w, n, m);
        for (name, want) in case["schemes"].as_object().unwrap() {
            let options =
                want.get("options").map_or(Default::default(), |o| serde_json::from_value(o.clone()).unwrap());
            let spec = SchemeSpec::parse(want["scheme"].as_str().unwrap_or(name), &options).unwrap();
            let scaling = want["scaling"].as_f64().unwrap();
            let lora_alpha = case["lora_alpha"].as_f64().unwrap();
            let plan = LayerPlan { path: "layer".into(), n, m, r, lora_alpha, scaling };
            let data = observed(want, m, r);
            assert_eq!(data.is_some(), spec.info().statistic != Statistic::None, "{name}");
            let mut start = initialize(&spec, LayerInput::from(matrix).observed(data.as_ref()), &plan, 5).unwrap();
            let check = |what: &str, off: f64| {
                assert!(off < TOLERANCE, "{name} ({n}, {m}) r = {r}: {what} is off by {off:e}");
            };
            let (a, b) = (numbers(&want["a"]), numbers(&want["b"]));
            let (own_a, own_b) = (aligned(&start.factors.a, &a, r, true), aligned(&start.factors.b, &b, r, false));
            check("A", distance(&own_a, &a));
            check("B", distance(&own_b, &b));
            if name == "lora-ga" {
                // its A and B are of different triples: the sign of each is open by itself
                (start.factors.a, start.factors.b) = (own_a, own_b);
            }
            let mut base = w.clone();
            residual(&mut base, &start);
            check("residual", distance(&base, &numbers(&want["residual"])));
            let quantised = quantised_base(&spec, matrix, &plan).unwrap();
            assert_eq!(quantised.is_some(), want.get("quantised").is_some(), "{name}");
            if let Some(q) = quantised {
                check("quantised weight", distance(&q, &numbers(&want["quantised"])));
            }
            compared += 1;
        }
    }
    assert!(compared >= 42, "{compared} starts compared");
}

#[test]
fn eva_gives_the_ranks_of_peft() {
    let Some(cases) = fixture("ranks.json") else { return };
    let (mut moved, mut none) = (0, 0);
    for case in cases.as_array().unwrap() {
        let rho = case["rho"].as_f64().unwrap();
        let config = LoraConfig { use_rslora: case["use_rslora"].as_bool().unwrap(), ..Default::default() };
        let layers = case["layers"].as_array().unwrap();
        let (mut plans, mut components) = (Vec::new(), Vec::new());
        for (i, layer) in layers.iter().enumerate() {
            let [n, m, r] = ["n", "m", "before"].map(|key| layer[key].as_u64().unwrap() as usize);
            let lora_alpha = case["lora_alpha"].as_f64().unwrap();
            let scaling = config.scaling(lora_alpha, r);
            let plan = LayerPlan { path: format!("layers.{i}"), n, m, r, lora_alpha, scaling };
            let covariance = f32s(&layer["covariance"]);
            let spec = SchemeSpec::parse("eva", &SchemeOptions::default().with("rho", rho)).unwrap();
            let count = spec.components(&plan);
            components.push(principal_components(&plan.path, &covariance, m, count).unwrap());
            plans.push(plan);
        }
        redistribute_ranks(&config, &mut plans, &components);
        let spec = SchemeSpec::parse("eva", &SchemeOptions::default().with("rho", rho)).unwrap();
        for ((plan, layer), components) in plans.iter().zip(layers).zip(components) {
            let [r, alpha, scaling] = ["r", "lora_alpha", "scaling"].map(|key| layer[key].as_f64().unwrap());
            assert_eq!((plan.r as f64, plan.lora_alpha), (r, alpha), "ρ = {rho}: {}", plan.path);
            assert!((plan.scaling - scaling).abs() < 1e-12, "ρ = {rho}: {}", plan.path);
            moved += usize::from(layer["before"] != layer["r"]);
            none += usize::from(plan.r == 0);
            if plan.r == 0 {
                continue;
            }
            let w = vec![0.0; plan.n * plan.m];
            let matrix = StoredWeight::of(&w, plan.n, plan.m);
            let data = Observed::Components(components);
            let start = initialize(&spec, LayerInput::from(matrix).observed(Some(&data)), plan, 0).unwrap();
            let a = numbers(&layer["a"]);
            let off = distance(&aligned(&start.factors.a, &a, plan.r, true), &a);
            assert!(off < TOLERANCE, "ρ = {rho}: A of {} is off by {off:e}", plan.path);
        }
    }
    assert!(moved > 0 && none > 0, "the cases hold layers that gain, lose and end without an adapter");
}

#[test]
fn data_driven_starts_say_what_they_lack() {
    let (n, m) = (6, 5);
    let w: Vec<f32> = (0..n * m).map(|i| (i as f32).sin()).collect();
    let matrix = StoredWeight::of(&w, n, m);
    let plan = LayerPlan { path: "model.q_proj".into(), n, m, r: 2, lora_alpha: 2.0, scaling: 1.0 };
    let start = |name: &str, plan: &LayerPlan, data: Option<&Observed>| {
        let spec = SchemeSpec::parse(name, &Default::default()).unwrap();
        initialize(&spec, LayerInput::from(matrix).observed(data), plan, 0).map_err(|e| e.to_string())
    };
    for name in ["eva", "corda", "lora_ga"] {
        let e = start(name, &plan, None).unwrap_err();
        assert!(e.contains("model.q_proj") && e.contains("calibration data"), "{e}");
        let e = start(name, &plan, Some(&Observed::Gradient(vec![f32::NAN; n * m]))).unwrap_err();
        assert!(e.contains("model.q_proj"), "{e}");
    }
    let e = start("lora-ga", &plan, Some(&Observed::Gradient(vec![0.0; n * m]))).unwrap_err();
    assert!(e.contains("gradient is 0"), "{e}");
    let wide = LayerPlan { r: 3, ..plan.clone() };
    let e = start("lora-ga", &wide, Some(&Observed::Gradient(w.clone()))).unwrap_err();
    assert!(e.contains("2r") && e.contains("(6, 5)"), "{e}");
    let e = start("corda", &plan, Some(&Observed::InputMoment(vec![0.0; 7]))).unwrap_err();
    assert!(e.contains("expected 25 values") && e.contains("found 7"), "{e}");
    assert!(principal_components("x", &[0.0; 25], 5, 2).unwrap_err().to_string().contains("do not vary"));
    let gradient = Observed::Gradient(w.clone());
    let st = start("lora-ga", &plan, Some(&gradient)).unwrap();
    assert!(from_recipe(&st.recipe).is_none(), "the recipe alone does not make it again");
    let options = SchemeOptions::default().with("rho", 3.0);
    let e = SchemeSpec::parse("corda", &options).unwrap_err().to_string();
    assert!(e.contains("rho") && e.contains("`eva`"), "{e}");
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
