//! Preferences against the trainers of TRL (`fixtures/make_preferences.py`): tokens, losses, gradients and metrics.

use loram_core::Factors;
use loram_io::data::{DataSpec, Example, PrepareReport, Preparer, Record, load_records};
use loram_io::testing::tiny_llama;
use loram_io::{Checkpoint, ModelConfig, TextTokenizer};
use loram_nn::{HeadKind, LoadOptions, Lora, Model};
use loram_train::config::Layer;
use loram_train::objective::{Task, add_reference, batch_and_loss, batches_and_losses, find};
use loram_train::{EvalOptions, Objective, TrainConfig, evaluate};
use serde_json::Value;
use std::path::PathBuf;

struct Reference {
    info: Value,
    file: Checkpoint,
}

impl Reference {
    fn read() -> Reference {
        let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/ref");
        let text = std::fs::read_to_string(dir.join("preferences.json")).unwrap();
        let file = Checkpoint::open_file(dir.join("preferences.safetensors")).unwrap();
        Reference { info: serde_json::from_str(&text).unwrap(), file }
    }

    fn max_length(&self, form: &str) -> usize {
        self.info["records"][form]["max_length"].as_u64().unwrap() as usize
    }

    fn records(&self, form: &str) -> Vec<Record> {
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("records.jsonl");
        let records = self.info["records"][form]["records"].as_array().unwrap();
        let lines: Vec<String> = records.iter().map(Value::to_string).collect();
        std::fs::write(&path, lines.join("\n")).unwrap();
        load_records(&DataSpec { paths: vec![path.display().to_string()], ..DataSpec::default() }).unwrap()
    }

    fn examples(&self, form: &str) -> (Vec<Example>, PrepareReport) {
        let template = self.info["chat_template"].as_str().unwrap().to_string();
        let tokenizer = TextTokenizer::load(tiny_llama()).unwrap();
        Preparer::new(tokenizer, self.max_length(form), Some(template)).prepare_all(&self.records(form)).unwrap()
    }

    fn model(&self) -> Model {
        let dir = tiny_llama();
        let (checkpoint, config) = (Checkpoint::open(&dir).unwrap(), ModelConfig::load(&dir).unwrap());
        let mut model = Model::load(&checkpoint, &config, &LoadOptions::new(HeadKind::LanguageModel)).unwrap();
        let number = |key: &str| self.info[key].as_f64().unwrap();
        let (r, scaling) = (number("r") as usize, number("lora_alpha") / number("r"));
        for name in self.file.names() {
            let Some(path) = name.strip_prefix("lora.").and_then(|n| n.strip_suffix(".A")) else { continue };
            let (a, b) = (self.file.tensor(name).unwrap(), self.file.tensor(&format!("lora.{path}.B")).unwrap());
            let (n, m) = (b.shape()[0], a.shape()[1]);
            let factors = Factors { n, m, r, a: a.to_f32().unwrap(), b: b.to_f32().unwrap() };
            model.attach(path, Lora::new(factors, scaling)).unwrap();
        }
        model
    }
}

fn numbers(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as u32).collect()
}

#[test]
fn answers_have_the_tokens_of_trl() {
    let reference = Reference::read();
    for (form, of) in reference.info["records"].as_object().unwrap() {
        let (examples, _) = reference.examples(form);
        let rows = of["tokens"].as_array().unwrap();
        assert_eq!(examples.len(), rows.len(), "{form}");
        for (i, (e, row)) in examples.iter().zip(rows).enumerate() {
            let prompt = numbers(&row["prompt_ids"]);
            let answers = ["chosen_ids", "rejected_ids", "completion_ids"];
            let answers: Vec<Vec<u32>> = answers.iter().filter_map(|k| row.get(*k)).map(numbers).collect();
            assert_eq!(e.sequences.len(), answers.len(), "{form} {i}");
            for (s, answer) in e.sequences.iter().zip(answers) {
                let mut ids = [&prompt[..], &answer].concat();
                ids.truncate(reference.max_length(form));
                let mask: Vec<bool> = (0..ids.len()).map(|at| at >= prompt.len()).collect();
                assert_eq!((&s.input_ids, &s.loss_mask), (&ids, &mask), "{form} {i}");
            }
        }
    }
}

/// The objective and the settings of a variant.
fn settings(variant: &Value) -> (&'static dyn Objective, loram_train::objective::LossSettings) {
    let mut config = TrainConfig::resolve(&[Layer::from_yaml("model: none\ndata: none").unwrap()]).unwrap();
    for (key, value) in variant["settings"].as_object().unwrap() {
        config.set(key, value.clone()).unwrap();
    }
    let objective = find(variant["task"].as_str().unwrap()).unwrap();
    let settings = config.loss_settings();
    objective.check(&settings).unwrap();
    (objective, settings)
}

#[test]
fn losses_gradients_and_metrics_are_those_of_trl() {
    let reference = Reference::read();
    let variants = reference.info["variants"].as_array().unwrap();
    assert_eq!(variants.len(), 32);
    let mut worst: f64 = 0.0;
    for variant in variants {
        let name = variant["name"].as_str().unwrap();
        let (objective, settings) = settings(variant);
        let task = Task { settings: &settings, ..Task::new(objective, &[]) };
        let (examples, _) = reference.examples(variant["form"].as_str().unwrap());
        let mut model = reference.model();
        let expected = variant["loss"].as_f64().unwrap();
        let near = |what: &str, found: f64, expected: f64| {
            assert!(
                (found - expected).abs() <= 1e-4 * expected.abs().max(1.0),
                "{name}: {what} {found}, expected {expected}"
            );
        };
        model.params_mut().zero_grads().unwrap();
        let (batch, mut loss) = batch_and_loss(task, &mut model, &examples).unwrap();
        let found = model.forward_backward(&batch, &mut *loss, 1.0 / examples.len() as f64, 0).unwrap();
        near("loss", found.loss_sum / found.counted as f64, expected);
        for param in model.params().iter() {
            let Some((path, factor)) = param.name.rsplit_once(".lora_") else { panic!("{}", param.name) };
            let factor = factor.chars().next().unwrap();
            let want = reference.file.tensor(&format!("{name}.{path}.{factor}")).unwrap().to_f32().unwrap();
            let grad = param.grad.values().unwrap();
            let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
            let size = norm(&mut want.iter().map(|&x| f64::from(x)));
            let apart = norm(&mut grad.iter().zip(&want).map(|(&g, &w)| f64::from(g - w)));
            worst = worst.max(apart / size.max(1e-6));
            assert!(apart <= 1e-4 * size.max(1e-6), "{name}: gradient of {}: {apart} of {size}", param.name);
        }
        // in one batch: kto and the likelihood in orpo and cpo see all of it
        let options = EvalOptions { batch_size: examples.len(), ..EvalOptions::default() };
        let metrics = evaluate(&mut model, task, &examples, options, &mut |_, _| {}).unwrap();
        near("evaluation", metrics.loss, expected);
        let mut compared = 0;
        for (metric, value) in variant["metrics"].as_object().unwrap() {
            if let Some(found) = metrics.get(metric) {
                near(metric, found, value.as_f64().unwrap());
                compared += 1;
            }
        }
        assert!(compared >= 6, "{name}: {compared} metrics");
    }
    println!("gradients: {worst:.1e} of their norm at most");
}

/// Gradients of a batch that is cut into passes, and with a reference that was settled before, are those of the batch.
#[test]
fn passes_and_settled_references_change_nothing() {
    let reference = Reference::read();
    for variant in reference.info["variants"].as_array().unwrap() {
        let name = variant["name"].as_str().unwrap();
        let (objective, settings) = settings(variant);
        if !["dpo-sigmoid", "dpo-mpo", "dpo-aot", "orpo", "cpo", "kto", "kto-apo"].contains(&name) {
            continue;
        }
        let task = Task { settings: &settings, ..Task::new(objective, &[]) };
        let (examples, _) = reference.examples(variant["form"].as_str().unwrap());
        let mut model = reference.model();
        let mut settled = examples.clone();
        model.without_adapters(|m| add_reference(m, &mut settled, 1, &mut |_| {})).unwrap().unwrap();
        assert!(settled.iter().all(|e| e.reference.len() == e.sequences.len()));
        let mut grads = |passes: Vec<Vec<&Example>>| {
            model.params_mut().zero_grads().unwrap();
            let mut sum = 0.0;
            for (batch, mut loss) in batches_and_losses(task, &mut model, passes)? {
                sum += model.forward_backward(&batch, &mut *loss, 0.25, 0).unwrap().loss_sum;
            }
            let all: Vec<f32> = model.params().iter().flat_map(|p| p.grad.values().unwrap()).collect();
            Ok::<_, loram_train::Error>((sum, all))
        };
        let (loss, whole) = grads(vec![examples.iter().collect()]).unwrap();
        let cut = grads(vec![settled[..1].iter().collect(), settled[1..].iter().collect()]);
        if name == "dpo-aot" {
            let error = cut.unwrap_err().to_string();
            assert!(error.contains("max_tokens_per_batch"), "{error}");
            continue;
        }
        let (other, pieces) = cut.unwrap();
        assert!((loss - other).abs() < 1e-5, "{name}: {loss} {other}");
        let size = whole.iter().map(|x| x * x).sum::<f32>().sqrt();
        let apart = whole.iter().zip(&pieces).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt();
        assert!(apart <= 1e-5 * size, "{name}: {apart} of {size}");
    }
}
