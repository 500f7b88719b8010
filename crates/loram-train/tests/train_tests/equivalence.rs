//! Rewritten configurations (`TrainConfig::rewritten`) train to the same ΔW at each of 200 steps, through the starts, the
//! models and the optimisers that runs use; other exponents do not.

use loram_io::init::InitOptions;
use loram_io::{Checkpoint, ModelConfig};
use loram_nn::{Batch, Compute, CrossEntropy, HeadKind, LoadOptions, Model, ParamKind};
use loram_train::TrainConfig;
use loram_train::adapt::{Calibration, initialize};
use loram_train::config::Layer;
use loram_train::optim::Optimizer;
use loram_train::schedule::Schedule;
use std::path::PathBuf;

const STEPS: usize = 200;

fn config(text: &str) -> TrainConfig {
    let all = format!("model: fixture\ndata: none\nr: 4\nmax_grad_norm: 0\nwarmup_ratio: 0.1\n{text}");
    TrainConfig::from_yaml(&all).unwrap()
}

fn rewritten(config: &TrainConfig, keys: &[&str]) -> TrainConfig {
    let new = config.rewritten(&Layer::from_settings(keys).unwrap().values).unwrap().config;
    // what is printed is what is read
    let again = TrainConfig::from_yaml(&new.to_short_yaml("")).unwrap();
    assert_eq!(TrainConfig { origins: new.origins.clone(), ..again }, new);
    new
}

/// A deterministic batch of token ids for a step.
fn batch(step: usize, vocab: u32) -> (Batch, CrossEntropy) {
    let mut state = step as u64 * 7919 + 1;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((state >> 33) % u64::from(vocab)) as u32
    };
    let tokens: Vec<u32> = (0..12).map(|_| next()).collect();
    let labels = tokens[1..].iter().map(|&t| i64::from(t)).chain([loram_nn::IGNORE]).collect();
    (Batch { tokens, lengths: vec![12], ..Batch::default() }, CrossEntropy::new(labels))
}

/// The factors of a layer in f64, with the scaling and the start's product s·B₀A₀ where the base lost it.
struct Course {
    /// s·B·A − s·B₀·A₀ of every layer, one after another, at every step.
    updates: Vec<Vec<f64>>,
}

fn product(s: f64, b: &[f64], a: &[f64], n: usize, m: usize, r: usize) -> Vec<f64> {
    let mut out = vec![0.0; n * m];
    for i in 0..n {
        for k in 0..r {
            let x = s * b[i * r + k];
            for j in 0..m {
                out[i * m + j] += x * a[k * m + j];
            }
        }
    }
    out
}

/// Trains and keeps ΔW of every step.
fn train(config: &TrainConfig, compute: Compute) -> Course {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/models/llama");
    let (ckpt, model_config) = (Checkpoint::open(&dir).unwrap(), ModelConfig::load(&dir).unwrap());
    let mut model =
        Model::load(&ckpt, &model_config, &LoadOptions { compute, ..LoadOptions::new(HeadKind::LanguageModel) })
            .unwrap();
    let mut scheme = config.scheme().unwrap();
    // multiples of any size, without the rounding of A₀ and B₀ to f32
    let late = compute == Compute::F64 && !scheme.info().changes_base;
    if late {
        scheme = scheme.with_scales(1.0, 1.0).unwrap();
    }
    let options = InitOptions { lora: config.lora_config(), scheme, seed: 3 };
    let adaptation = initialize(&mut model, &options, config.base, Calibration::default(), &mut |_, _, _| {}).unwrap();
    for p in model.params_mut().iter_mut().filter(|_| late) {
        let scale = if p.kind == ParamKind::LoraA { config.init_scale_a } else { config.init_scale_b };
        p.value.as_mut_slice::<f64>().iter_mut().for_each(|x| *x *= scale);
    }
    let wide = |model: &Model, path: &str, factor: &str| {
        let name = format!("{path}.lora_{factor}.weight");
        model.params().get(&name).map(|p| p.value.values_f64().unwrap()).unwrap()
    };
    let products = |model: &Model| -> Vec<f64> {
        let one = |(path, l): (&String, &loram_train::adapt::AdaptedLayer)| {
            let (a, b) = (wide(model, path, "A"), wide(model, path, "B"));
            product(l.plan.scaling, &b, &a, l.plan.n, l.plan.m, l.plan.r)
        };
        adaptation.layers.iter().flat_map(one).collect()
    };
    let before = products(&model);
    let mut optimizer = Optimizer::new(config, model.params().iter()).unwrap();
    let schedule = Schedule::new(config, STEPS);
    let mut updates = Vec::new();
    for step in 0..STEPS {
        let (b, mut targets) = batch(step, model_config.vocab_size() as u32);
        model.params_mut().zero_grads().unwrap();
        model.forward_backward(&b, &mut targets, 1.0 / 11.0, step as u64).unwrap();
        optimizer.step(model.params_mut().iter_mut(), schedule.share(step)).unwrap();
        updates.push(products(&model).iter().zip(&before).map(|(x, x0)| x - x0).collect());
    }
    Course { updates }
}

/// Largest ‖ΔW − ΔW'‖/‖ΔW‖ over all steps but the first, whose rate is 0.
fn apart(x: &Course, y: &Course) -> f64 {
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    let off =
        |(x, y): (&Vec<f64>, &Vec<f64>)| norm(&mut x.iter().zip(y).map(|(x, y)| x - y)) / norm(&mut x.iter().copied());
    let all = x.updates.iter().zip(&y.updates).skip(1).map(off);
    all.fold(0.0, |top: f64, off| if off > top || off.is_nan() { off } else { top })
}

/// Runs and the keys they are rewritten with: SGD, with momentum and decay; Adam; AdamW with decay and a large ε. Multiples
/// that are powers of 2 leave the f32 values of the starts exact, so that what is left is the rounding of f64.
const CASES: [(&str, &[&str]); 9] = [
    ("init: lora\noptim: sgd\nlearning_rate: 0.5\n", &["lora_alpha=64"]),
    (
        "init: loram\noptim: sgd\nlearning_rate: 0.02\nweight_decay: 0.3\nmomentum: 0.5\n",
        &["init_scale_a=2", "init_scale_b=0.25"],
    ),
    ("init: pissa\noptim: sgd\nlearning_rate: 0.01\nweight_decay: 0.1\n", &["lora_alpha=16", "init_scale_a=2"]),
    ("init: lora\nlearning_rate: 1e-3\n", &["lora_alpha=0.25"]),
    ("init: loram\nlearning_rate: 1e-3\nweight_decay: 0.1\nadam_epsilon: 1e-3\n", &["lora_alpha=1"]),
    ("init: loram\nlearning_rate: 1e-3\nlora_dropout: 0.2\n", &["use_rslora=true", "lora_alpha=8"]),
    ("init: lora\nlearning_rate: 1e-3\nweight_decay: 0.2\nloraplus_lr_ratio: 16\n", &["loraplus_lr_ratio=1"]),
    ("init: pissa\nlearning_rate: 1e-3\nweight_decay: 0.2\nadam_epsilon: 1e-4\n", &["lr_a=4e-3", "lr_b=1e-3"]),
    ("init: loram\nbase: branch\nlearning_rate: 1e-3\nweight_decay: 0.2\n", &["lora_alpha=64"]),
];

/// Multiples of any size.
const FREE: [(&str, &[&str]); 5] = [
    ("init: loram\noptim: sgd\nlearning_rate: 0.02\nweight_decay: 0.3\nwarmup_steps: 0\n", &["lora_alpha=7"]),
    ("init: lora\nlearning_rate: 1e-3\nadam_epsilon: 1e-3\nweight_decay: 0.1\n", &["lora_alpha=11"]),
    (
        "init: pissa\nlearning_rate: 3e-3\nweight_decay: 0.2\nadam_epsilon: 1e-3\nwarmup_steps: 0\n",
        &["lr_a=8e-3", "lora_alpha=5"],
    ),
    (
        "init: orthogonal\noptim: sgd\nlearning_rate: 0.02\nmomentum: 0.5\nweight_decay: 0.3\n",
        &["lora_alpha=7", "lr_a=0.05"],
    ),
    ("init: orthogonal\nlearning_rate: 1e-3\nweight_decay: 0.2\nadam_epsilon: 1e-6\n", &["lr_a=3e-3", "lora_alpha=5"]),
];

fn check<'a>(cases: impl IntoIterator<Item = (&'a str, &'a [&'a str])>, compute: Compute, allowed: f64) {
    for (text, keys) in cases {
        let one = config(text);
        let two = rewritten(&one, keys);
        let off = apart(&train(&one, compute), &train(&two, compute));
        println!("{compute:?} {}: {keys:?}, apart by {off:.1e}", text.replace('\n', " "));
        assert!(off < allowed, "{text}{keys:?}: {off:e}\n{}", two.to_short_yaml(""));
    }
}

#[test]
fn equal_settings_are_the_same_run_in_f64() {
    let unchanged_base = |case: &(&str, _)| case.0.contains("lora\n") || case.0.contains("orthogonal");
    check(CASES.into_iter().chain(FREE.into_iter().filter(unchanged_base)), Compute::F64, 1e-9);
}

#[test]
fn equal_settings_are_the_same_run_in_f32() {
    check(CASES.into_iter().chain(FREE), Compute::F32, 1e-4);
}

#[test]
fn other_exponents_are_another_run() {
    type Change = fn(&mut TrainConfig);
    // what the rewritten setting has, in place of what it would have with the exponents of the other optimiser or none
    let changes: [(&str, &[&str], Change); 6] = [
        ("init: loram\noptim: sgd\nlearning_rate: 0.02\n", &["lora_alpha=64"], |c| c.lr_a = Some(0.02 / 4.0)),
        ("init: loram\noptim: sgd\nlearning_rate: 0.02\nweight_decay: 0.3\n", &["lora_alpha=64"], |c| {
            c.weight_decay_b = Some(0.3 * 4.0);
        }),
        ("init: loram\nlearning_rate: 1e-3\n", &["lora_alpha=64"], |c| c.lr_a = Some(1e-3 / 16.0)),
        ("init: loram\nlearning_rate: 1e-3\nweight_decay: 0.2\n", &["lora_alpha=64"], |c| c.weight_decay_a = None),
        ("init: loram\nlearning_rate: 1e-3\nadam_epsilon: 1e-3\n", &["lora_alpha=64"], |c| c.adam_epsilon_b = None),
        ("init: loram\nlearning_rate: 1e-3\n", &["lora_alpha=64"], |c| c.init_scale_a = 1.0),
    ];
    for (text, keys, change) in changes {
        let one = config(text);
        let mut two = rewritten(&one, keys);
        let reference = train(&one, Compute::F64);
        assert!(apart(&reference, &train(&two, Compute::F64)) < 1e-9);
        change(&mut two);
        let off = apart(&reference, &train(&two, Compute::F64));
        println!("{}: {keys:?}, another exponent: apart by {off:.1e}", text.replace('\n', " "));
        assert!(off > 1e-3, "{text}{keys:?}: {off:e}");
    }
}

#[test]
fn rewritten_configurations_say_only_what_changed() {
    let one = config("init: lora\nlearning_rate: 1e-4\n");
    let new = rewritten(&one, &["lora_alpha=64"]);
    let text = new.to_short_yaml("");
    for line in ["lora_alpha: 64", "lr_a: 2.5e-5", "adam_epsilon_a: 4", "init_scale_b: 0.25"] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(!text.contains("lr_b") && !text.contains("weight_decay"), "{text}");
    // a change of notation changes nothing else
    let rs = rewritten(
        &config("init: pissa\nlearning_rate: 1e-4\nrank_pattern: {q_proj: 2}\nlora_alpha: 8\n"),
        &["use_rslora=true"],
    );
    assert_eq!((rs.lora_alpha, rs.alpha_pattern["q_proj"]), (Some(4.0), 8.0 / 2.0 * 2f64.sqrt()));
    assert_eq!((rs.lr_a, rs.init_scale_a), (None, 1.0));
    // LoRA+ is a scaling, and A stays as it is
    let plain =
        rewritten(&config("init: lora\nlearning_rate: 1e-4\nloraplus_lr_ratio: 16\n"), &["loraplus_lr_ratio=1"]);
    assert_eq!((plain.lr_a, plain.lr_b, plain.loraplus_lr_ratio), (None, None, Some(1.0)));
    assert!((plain.lora_alpha.unwrap() / 64.0 - 1.0).abs() < 1e-12, "16 times the 4 of r");
}

#[test]
fn what_cannot_be_rewritten_is_named() {
    let fails = |text: &str, keys: &[&str]| {
        let text = format!("{text}\nlearning_rate: 1e-4\n");
        let e = config(&text).rewritten(&Layer::from_settings(keys).unwrap().values).unwrap_err();
        assert_eq!(e.exit_code(), 2);
        e.to_string()
    };
    let auto = config("init: lora\n").rewritten(&Layer::from_settings(&["lora_alpha=8"]).unwrap().values);
    assert!(auto.unwrap_err().to_string().contains("learning_rate is auto; equivalent settings follow from a number"));
    assert!(fails("init: lora", &["r=8"]).contains("r: no equivalent setting follows from it"));
    assert!(fails("init: lora", &["lora_alfa=8"]).contains("did you mean `lora_alpha`"));
    assert!(fails("init: lora", &["lora_alpha=many"]).contains("lora_alpha: found \"many\""));
    assert!(fails("init: lora-alpha", &["lora_alpha=8"]).contains("sets lora_alpha itself"));
    assert!(fails("finetuning_type: full", &["lora_alpha=8"]).contains("no factors"));
    assert!(fails("init: lora", &["lora_alpha=8", "lr_a=1", "lr_b=1"]).contains("no equivalent setting has all"));
    let e = fails("init: lora\nalpha_pattern: {v_proj: 3}\nrank_pattern: {q_proj: 2}", &["use_rslora=true"]);
    assert!(e.contains("v_proj"), "{e}");
}
