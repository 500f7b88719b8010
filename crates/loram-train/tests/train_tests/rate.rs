//! Runs whose learning rate is `auto` or a step size, and groups of parameters with rates of their own.

use loram_io::testing::tiny_llama;
use loram_train::config::LearningRate;
use loram_train::rate::RateOrigin;
use loram_train::{Event, FoundRate, Observe, Summary, TrainConfig, Trainer};
use serde_json::Value;
use std::path::Path;

fn config(out: &Path, more: &str) -> TrainConfig {
    let yaml = format!(
        "model: {}\nr: 4\nbatch_size: 4\nlogging_steps: 1\nreport_to: none\noutput_dir: {}\n{more}",
        tiny_llama().display(),
        out.display()
    );
    TrainConfig::from_yaml(&yaml).unwrap_or_else(|e| panic!("{e}\n{yaml}"))
}

const RESTAURANTS: &str = "data: demo:restaurants?seed=0&n=60\nmax_steps: 6\n";

fn run(config: TrainConfig) -> Summary {
    Trainer::new(config).unwrap().run(&mut ()).unwrap()
}

fn found(more: &str) -> FoundRate {
    let dir = tempfile::tempdir().unwrap();
    Trainer::new(config(dir.path(), more)).unwrap().find_rate(&mut ()).unwrap().rate
}

fn weights(out: &Path) -> Vec<u8> {
    std::fs::read(out.join("adapter/adapter_model.safetensors")).unwrap()
}

fn lines(out: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

fn environment(out: &Path) -> FoundRate {
    let text = std::fs::read_to_string(out.join("environment.json")).unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    serde_json::from_value(value["learning_rate"].clone()).unwrap()
}

#[test]
fn a_run_without_a_rate_finds_one_and_trains_as_if_it_had_been_given() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let auto = run(config(&at("auto"), RESTAURANTS));
    let rate = environment(&at("auto"));
    let search = rate.search.as_ref().unwrap();
    assert_eq!(
        (rate.origin, rate.learning_rate, &search.scheme[..]),
        (RateOrigin::Search, auto.learning_rate, "loram")
    );
    let optimum = search.optimum.unwrap();
    // 1.4 times the best step, within 6 % of the weights' norm
    let (factor, size) = (rate.learning_rate / optimum, rate.step_size.unwrap());
    assert!((factor - 1.4).abs() < 1e-9 || (factor < 1.4 && (size / 0.06 - 1.0).abs() < 1e-6), "{factor} {size}");
    assert!(rate.learning_rate > 1e-4 && rate.learning_rate < 0.1);
    assert!(search.gradient_records == 16 && search.loss_records == 16 && search.seconds > 0.0);
    assert!(auto.last_loss < lines(&at("auto"))[0]["loss"].as_f64().unwrap());
    // the search leaves no trace on the model
    let given = run(config(&at("given"), &format!("{RESTAURANTS}learning_rate: {}\n", rate.learning_rate)));
    assert_eq!(given.learning_rate, auto.learning_rate);
    assert!(weights(&at("auto")) == weights(&at("given")));
    assert_eq!(environment(&at("given")).origin, RateOrigin::Given);
    // a factor on it
    let half = run(config(&at("half"), &format!("{RESTAURANTS}learning_rate: auto*0.5\n")));
    let found_half = environment(&at("half"));
    assert_eq!((half.learning_rate, found_half.factor), (0.5 * auto.learning_rate, Some(0.5)));
    assert!(found_half.text().unwrap().starts_with("learning_rate: auto*0.5 is "), "{found_half:?}");
    // the same for any number of threads, and another for another seed's records
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    assert_eq!(pool.install(|| found(RESTAURANTS)).learning_rate, rate.learning_rate);
    assert_ne!(found(&format!("{RESTAURANTS}seed: 3\n")).search.unwrap().ladder, search.ladder);
}

#[test]
fn searches_are_kept_for_repeated_runs() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("cache");
    let find = |more: &str| {
        let trainer = Trainer::new(config(&dir.path().join("run"), more)).unwrap();
        trainer.with_rate_cache(Some(cache.clone())).find_rate(&mut ()).unwrap().rate
    };
    let first = find(RESTAURANTS);
    let again = find(&format!("{RESTAURANTS}lr_scheduler_type: linear\n").replace("max_steps: 6", "max_steps: 9"));
    assert_eq!((first.from_cache, again.from_cache), (false, true));
    assert_eq!(first.search, again.search);
    // another scheme needs no search of its own, other settings do
    assert!(find(&format!("{RESTAURANTS}init: pissa\n")).from_cache);
    for more in ["lora_alpha: 8\n", "loraplus_lr_ratio: 4\n", "weight_decay: 0.1\n", "seed: 3\n", "max_length: 60\n"] {
        assert!(!find(&format!("{RESTAURANTS}{more}")).from_cache, "{more}");
    }
    // a run at a rate of its own hears of it
    let said = |rate: &str| {
        let mut messages = Vec::new();
        let mut watch = Observe(|e: &Event| {
            if let Event::Message { text, .. } = e {
                messages.push(text.clone());
            }
        });
        let trainer =
            Trainer::new(config(&dir.path().join(rate), &format!("{RESTAURANTS}learning_rate: {rate}\n"))).unwrap();
        trainer.with_rate_cache(Some(cache.clone())).run(&mut watch).unwrap();
        messages.into_iter().find(|m| m.contains("earlier search"))
    };
    assert!(said("2e-5").unwrap().starts_with("learning_rate: 2e-5 is 2.7 decades below the "), "{:?}", said("2e-5"));
    assert_eq!(said("4e-3"), None);
    // a damaged file is no result
    for entry in std::fs::read_dir(&cache).unwrap().flatten() {
        std::fs::write(entry.path(), "{}").unwrap();
    }
    assert_eq!(FoundRate { from_cache: false, ..find(RESTAURANTS) }.learning_rate, first.learning_rate);
}

#[test]
fn a_resumed_run_keeps_the_rate_that_it_found() {
    let dir = tempfile::tempdir().unwrap();
    let more = format!("{RESTAURANTS}save_steps: 2\n");
    let whole = run(config(&dir.path().join("whole"), &more));
    let out = dir.path().join("stopped");
    let trainer = Trainer::new(config(&out, &more)).unwrap();
    let stop = trainer.stop_flag();
    let mut watch = Observe(|e: &Event| {
        if matches!(e, Event::Step(s) if s.step == 3) {
            stop.stop();
        }
    });
    trainer.run(&mut watch).unwrap();
    let mut searched = false;
    let mut watch = Observe(|e: &Event| {
        searched |= matches!(e, Event::Stage { stage: loram_train::observer::Stage::LearningRate, .. });
    });
    let resumed = Trainer::new(config(&out, &format!("{more}resume: auto\n"))).unwrap().run(&mut watch).unwrap();
    assert!(!searched);
    assert_eq!(resumed.learning_rate, whole.learning_rate);
    assert!(weights(&out) == weights(&dir.path().join("whole")));
    assert_eq!(environment(&out).origin, RateOrigin::Search);
}

#[test]
fn schemes_move_the_weights_alike() {
    let loram = found(RESTAURANTS);
    let size = loram.step_size.unwrap();
    // under Adam, at the same scaling: the smaller the initial factors, the higher the rate
    let rates = ["pissa", "milora", "lora"].map(|scheme| {
        let own = found(&format!("{RESTAURANTS}init: {scheme}\n"));
        assert_eq!(own.step_size, Some(size), "{scheme}");
        // it is the rate of a run that is given that size
        let dir = tempfile::tempdir().unwrap();
        let more = format!("{RESTAURANTS}init: {scheme}\nmax_steps: 1\nlearning_rate: step:{size}\n");
        let given = run(config(dir.path(), &more.replacen("max_steps: 6\n", "", 1)));
        assert!((given.learning_rate / own.learning_rate - 1.0).abs() < 1e-9, "{scheme}");
        own.learning_rate
    });
    assert!(loram.learning_rate < rates[0] * 1.5 && rates[0] < rates[1] && rates[0] < rates[2], "{loram:?} {rates:?}");
    // a scaling four times as large has a quarter of the rate, as Adam's steps demand where B₀A₀ leads
    let scaled = found(&format!("{RESTAURANTS}lora_alpha: 16\n"));
    let ratio = loram.learning_rate / scaled.learning_rate;
    assert!((2.5..6.0).contains(&ratio), "{ratio}");
}

/// A step size is what the first step moves: measured by the run itself, layer by layer.
#[test]
fn a_step_size_is_the_geometric_mean_over_the_layers() {
    let dir = tempfile::tempdir().unwrap();
    let more = "data: demo:restaurants?seed=0&n=60\nmax_steps: 1\nwarmup_steps: 0\nlr_scheduler_type: constant\n\
                magnitude_steps: 1\nlearning_rate: step:0.2%\n";
    run(config(dir.path(), more));
    let logged = lines(dir.path());
    let layers = logged.iter().find_map(|l| l.get("magnitude")).unwrap().as_object().unwrap().clone();
    let logs: Vec<f64> = layers.values().map(|l| l["relative"].as_f64().unwrap().ln()).collect();
    let mean = (logs.iter().sum::<f64>() / logs.len() as f64).exp();
    // the formula takes signs of gradients for independent ones
    assert!((mean / 0.002).ln().abs() < 0.25, "{mean}");
    let e =
        TrainConfig::from_yaml("model: m\ndata: d\nlearning_rate: step:0.2%\nlr_b: 1e-3\n").unwrap_err().to_string();
    assert!(e.contains("lr_b needs a number as learning_rate, which is step:0.2%"), "{e}");
    let sgd = Trainer::new(config(dir.path(), &format!("{more}optim: sgd\noverwrite_output_dir: true\n"))).unwrap();
    assert!(sgd.run(&mut ()).unwrap_err().to_string().contains("step sizes are for adamw"));
}

#[test]
fn the_search_follows_the_optimiser() {
    let rate = |more: &str| found(&format!("{RESTAURANTS}{more}"));
    let (sgd, momentum) = (rate("optim: sgd\n"), rate("optim: sgd\nmomentum: 0.9\n"));
    assert!(sgd.search.as_ref().unwrap().optimum.is_some() && sgd.step_size.is_none());
    assert!((sgd.learning_rate / momentum.learning_rate - 10.0).abs() < 1e-6, "ten steps add up");
    let (plain, plus) = (rate("init: lora\n"), rate("init: lora\nloraplus_lr_ratio: 16\n"));
    assert!(plus.learning_rate < plain.learning_rate / 4.0, "{} {}", plus.learning_rate, plain.learning_rate);
    let full = rate("finetuning_type: full\n");
    assert_eq!((full.search.as_ref().unwrap().scheme.as_str(), full.origin), ("full", RateOrigin::Search));
    assert!(full.search.unwrap().optimum.is_some());
}

#[test]
fn the_automatic_gain_takes_the_size_of_the_best_step() {
    let dir = tempfile::tempdir().unwrap();
    let out = |name: &str| dir.path().join(name);
    let more = "data: demo:restaurants?seed=0&n=60\nmax_steps: 1\nwarmup_steps: 0\nlr_scheduler_type: constant\n\
                magnitude_steps: 1\ngain: auto\n";
    run(config(&out("auto"), more));
    let rate = environment(&out("auto"));
    let search = rate.search.clone().unwrap();
    assert_eq!((rate.learning_rate, rate.step_size), (search.learning_rate, Some(search.step_size)));
    // the recipe reproduces it without a search
    let recipe = std::fs::read_to_string(out("auto").join("adapter/loram.json")).unwrap();
    let recipe: Value = serde_json::from_str(&recipe).unwrap();
    let share = recipe["options"]["first_step"]["share"].as_f64().unwrap();
    assert!((share / search.step_size - 1.0).abs() < 1e-12, "{recipe}");
    // at a rate that is given, the share is the same
    run(config(&out("given"), &format!("{more}learning_rate: 1e-3\n")));
    let given = environment(&out("given"));
    assert_eq!((given.learning_rate, given.origin), (1e-3, RateOrigin::Given));
    assert_eq!(given.search.unwrap().ladder, search.ladder);
    let e = TrainConfig::from_yaml("model: m\ndata: d\ngain: auto\noptim: sgd\n").unwrap_err().to_string();
    assert!(e.contains("auto:SHARE"), "{e}");
}

#[test]
fn a_new_head_has_a_rate_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("train.jsonl");
    let line = |i: usize| {
        let (word, label) = [("good", "yes"), ("awful", "no")][i % 2];
        format!("{{\"text\": \"It was a {word} day, number {i}.\", \"label\": \"{label}\"}}\n")
    };
    std::fs::write(&data, (0..40).map(line).collect::<String>()).unwrap();
    let more = |rate: &str| format!("data: {}\nmax_steps: 4\nwarmup_steps: 1\n{rate}", data.display());
    let out = dir.path().join("auto");
    let summary = run(config(&out, &more("")));
    // the head learns alone first: through a head at random no step of the adapters would help
    assert!(environment(&out).search.unwrap().optimum.is_some());
    let logged = &lines(&out)[1]["learning_rates"];
    let (head, a) = (logged["head"].as_f64().unwrap(), logged["lora_A"].as_f64().unwrap());
    // 128 wide: 3e-2·384/128
    assert!((head / a - 0.09 / summary.learning_rate).abs() < 1e-6 * head / a, "{logged}");
    assert_eq!(logged["lora_A"], logged["lora_B"]);
    let out = dir.path().join("given");
    run(config(&out, &more("learning_rate: 1e-3\nhead_learning_rate: 1e-2\nhead_weight_decay: 0.1\n")));
    assert_eq!(
        lines(&out)[1]["learning_rates"]["head"].as_f64().unwrap(),
        10.0 * lines(&out)[1]["learning_rate"].as_f64().unwrap()
    );
    // one group, or several at one rate: the rate of the run says it all
    let out = dir.path().join("plain");
    run(config(&out, &format!("{RESTAURANTS}learning_rate: 1e-3\n")));
    assert!(lines(&out)[1].get("learning_rates").is_none());
}

#[test]
fn small_data_and_odd_keys() {
    // one record is both the gradient's and the losses'
    let one = found("data: demo:restaurants?seed=0&n=1\nmax_steps: 1\n");
    let search = one.search.unwrap();
    assert_eq!((search.gradient_records, search.loss_records), (1, 1));
    // A and B keep their ratio, and the rate is that of A
    let ratio = found(&format!("{RESTAURANTS}learning_rate: 1e-3\nlr_a: 2e-3\nlr_b: 8e-3\n"));
    let plus = found(&format!("{RESTAURANTS}loraplus_lr_ratio: 4\n"));
    assert_eq!(ratio.learning_rate, plus.learning_rate);
    assert_eq!(TrainConfig::default().learning_rate, LearningRate::Auto);
    // packed rows, accumulation and split passes change what is read, not whether it works
    for more in ["packing: true\nmax_length: 128\n", "gradient_accumulation_steps: 2\nmax_tokens_per_batch: 64\n"] {
        assert!(found(&format!("{RESTAURANTS}{more}")).search.unwrap().optimum.is_some(), "{more}");
    }
}
