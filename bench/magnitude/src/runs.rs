//! Short runs of the small Llama on generated data, for comparisons of initialisations.

use crate::result::Result;
use loram_io::testing::tiny_llama;
use loram_train::{Event, Observe, TrainConfig, Trainer};

/// Results of a run.
pub struct Outcome {
    /// Loss on held-out examples after the last step.
    pub eval_loss: f64,
    /// Steps and the mean over layers of ‖ΔW‖/‖W‖.
    pub moved: Vec<(f64, f64)>,
    /// Steps and training loss.
    pub losses: Vec<(f64, f64)>,
}

impl Outcome {
    /// ‖ΔW‖/‖W‖ at the last step.
    pub fn distance(&self) -> f64 {
        self.moved.last().map_or(0.0, |p| p.1)
    }
}

/// Trains with these keys beside the common ones: r 8, constant rate after a warm-up, 8 examples a step.
pub fn train(keys: &str, steps: usize) -> Result<Outcome> {
    let out = tempfile::tempdir()?;
    let yaml = format!(
        "model: {}\ndata: demo:restaurants?seed=0&n=1200\neval_data: demo:restaurants?n=100&split=dev\nr: 8\n\
         lr_scheduler_type: constant_with_warmup\neval_on_start: false\neval_strategy: epoch\nsave_strategy: \"no\"\n\
         num_train_epochs: 1\nmax_steps: {steps}\nlogging_steps: 5\nmagnitude_steps: 5\nreport_to: none\n\
         output_dir: {}\n{keys}\n",
        tiny_llama().display(),
        out.path().join("run").display()
    );
    let mut found = Outcome { eval_loss: f64::NAN, moved: Vec::new(), losses: Vec::new() };
    let mut watch = Observe(|e: &Event| {
        if let Event::Log(log) = e {
            let step = log.step as f64;
            if let Some(loss) = log.loss {
                found.losses.push((step, loss));
            }
            if let Some(layers) = &log.magnitude {
                let all: Vec<f64> = layers.values().filter_map(|l| l.relative).collect();
                found.moved.push((step, all.iter().sum::<f64>() / all.len() as f64));
            }
        }
    });
    let summary = Trainer::new(TrainConfig::from_yaml(&yaml)?)?.run(&mut watch)?;
    found.eval_loss = summary.eval_after.map_or(f64::NAN, |m| m.loss);
    Ok(found)
}
