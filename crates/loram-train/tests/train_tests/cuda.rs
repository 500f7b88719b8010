//! Whole runs on a GPU, or in its emulation, beside the same runs on the CPU.

use loram_io::testing::tiny_llama;
use loram_train::{Session, SessionOptions, Status, TrainConfig, Trainer};
use std::path::Path;

fn train(out: &Path, device: &str, more: &str) -> Vec<f64> {
    let yaml = format!(
        "model: {}\ndata: demo:restaurants?seed=0&n=2\nr: 4\nlearning_rate: 2e-3\nbatch_size: 2\nlogging_steps: 1\n\
         lora_dropout: 0.1\noutput_dir: {}\ndevice: {device}\n{more}",
        tiny_llama().display(),
        out.display()
    );
    let summary = Trainer::new(TrainConfig::from_yaml(&yaml).unwrap()).unwrap().run(&mut ()).unwrap();
    assert_eq!(summary.peak_gpu_memory.is_some(), device == "cuda");
    assert_ne!(summary.status, Status::StoppedEarly);
    let text = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let records = text.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap());
    records.filter_map(|r| r["loss"].as_f64()).collect()
}

#[track_caller]
fn close(a: &[f64], b: &[f64], limit: f64) {
    assert_eq!(a.len(), b.len());
    let apart = a.iter().zip(b).map(|(a, b)| (a / b - 1.0).abs()).fold(0.0, f64::max);
    assert!(apart < limit, "apart by {apart}: {a:?} {b:?}");
}

#[test]
fn losses_are_those_of_the_cpu_and_a_run_goes_on_where_it_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let [cpu, cuda, parts] = ["cpu", "cuda", "parts"].map(|name| dir.path().join(name));
    let more = "max_steps: 4\nlr_scheduler_type: constant\nsave_steps: 2\n";
    let want = train(&cpu, "cpu", more);
    let got = train(&cuda, "cuda", more);
    assert!(want[3] < want[0]);
    close(&got, &want, 0.02);

    // adapters, optimiser and gradients are in f32, so that going on gives the same bits
    train(&parts, "cuda", more);
    std::fs::remove_dir_all(parts.join("checkpoint-4")).unwrap();
    let again = train(&parts, "cuda", &format!("{more}resume: auto\n"));
    assert_eq!(again, got);

    let evaluated = |device| {
        let adapter = Some(cuda.join("adapter").display().to_string());
        let options = SessionOptions { adapter, device, ..SessionOptions::default() };
        let mut session = Session::open(&options, &mut ()).unwrap();
        let config = TrainConfig::from_yaml("model: m\ndata: d\neval_data: demo:restaurants?seed=1&n=2").unwrap();
        let data = loram_train::DataOptions::evaluation(&config);
        let (metrics, _) = session.evaluate(&data, Default::default(), &mut ()).unwrap();
        let options = loram_train::GenerateOptions { max_new_tokens: 4, ..session.generate_options() };
        let prompt = "name : Aromi | area : riverside =>";
        let made = loram_train::generate(&session.model, &session.base.tokenizer, prompt, &options, &mut |_| true);
        (metrics.loss, made.unwrap().token_ids)
    };
    use loram_train::config::DeviceKind::{Cpu, Cuda};
    let (cpu, cuda) = (evaluated(Cpu), evaluated(Cuda));
    close(&[cpu.0], &[cuda.0], 0.02);
    assert_eq!(cpu.1[0], cuda.1[0], "the first token that follows");
}

#[test]
fn every_weight_and_with_momentum() {
    let dir = tempfile::tempdir().unwrap();
    let more = "max_steps: 2\nfinetuning_type: full\noptim: sgd\nmomentum: 0.9\ngradient_checkpointing: true\n";
    let run = |device| train(&dir.path().join(device), device, more);
    close(&run("cuda"), &run("cpu"), 0.02);
}
