//! The end of a run: the best weights, the adapter, the summary.

use super::advice;
use super::run::Run;
use crate::base::{show, stage};
use crate::checkpoint::{self, checkpoint_dir, restore_weights};
use crate::config::AdapterFormat;
use crate::full::save_full;
use crate::observer::{Event, Level, Observer, Stage};
use crate::summary::{SUMMARY, Status, Summary};
use crate::{Metrics, Result, device, system};
use loram_io::adapter::{Adapter, AdapterForm};
use loram_io::atomic::{self, Output};
use std::path::{Path, PathBuf};

impl Run<'_, '_, '_> {
    /// Saves the trained weights and writes the summary. An interrupted run has its checkpoint instead of an adapter.
    pub(super) fn finish(mut self, status: Status) -> Result<Summary> {
        let mut took_best = false;
        let mut adapter = None;
        // of an interrupted run: only what was measured on the weights of its checkpoint
        let now = self.s.state.global_step;
        let mut eval_after = self.s.state.last_metrics.clone().filter(|m| m.0 == now && now > 0).map(|m| m.1);
        // a process that was killed may have left more than the limit
        let first = self.group.is_first();
        if first {
            self.prune()?;
        }
        if status != Status::Interrupted {
            let steps = self.s.state.global_step;
            let best = self.s.state.best_step.filter(|&b| self.s.config.load_best_model_at_end && b != steps);
            if let Some(step) = best {
                let group = self.group;
                took_best = group.from_first(|| self.take(step))?;
            } else {
                took_best = self.s.config.load_best_model_at_end && self.s.state.best_step == Some(steps);
            }
            eval_after = self.final_metrics(took_best)?;
            if first {
                adapter = Some(self.save_result()?);
            }
            let after = self.sample("after")?;
            self.samples.extend(after);
        }
        if let Some(text) = advice::of_losses(&self.s.state, eval_after.as_ref(), self.s.config, took_best) {
            self.reporter.message(Level::Warning, text);
        }
        let summary = self.summary(status, took_best, adapter, eval_after);
        if first {
            self.reporter.sync()?;
            // last: it says that the run has ended
            atomic::write_json(self.s.config.output_dir.join(SUMMARY), &summary)?;
        }
        self.reporter.event(&Event::Done(Box::new(summary.clone())));
        Ok(summary)
    }

    /// Loads the weights of a checkpoint into the model; false (with a message) when it is gone.
    fn take(&mut self, step: usize) -> Result<bool> {
        let dir = checkpoint_dir(&self.s.config.output_dir, step);
        if let Err(what) = checkpoint::check(&dir) {
            let text = format!(
                "the best evaluation was at step {step}, whose checkpoint cannot be used ({what}): taking the last step"
            );
            self.reporter.message(Level::Warning, text);
            return Ok(false);
        }
        match &self.s.adaptation {
            None => restore_weights(&dir, &mut self.s.model)?,
            Some(_) => self.take_factors(&dir)?,
        }
        self.reporter.message(Level::Info, format!("took the weights of step {step}, the best evaluation"));
        Ok(true)
    }

    /// Loads the trained tensors of a checkpoint; initial factors and base stay as they are.
    fn take_factors(&mut self, dir: &Path) -> Result<()> {
        let saved = Adapter::read(dir)?;
        for p in self.s.model.params_mut().iter_mut() {
            let path = |suffix: &str| p.name.strip_suffix(suffix);
            let layer = |suffix: &str| path(suffix).and_then(|path| saved.layers.get(path));
            let tokens = path(".token_adapter.trainable_tokens_delta").and_then(|path| saved.tokens.get(path));
            let bias = path(".lora_B.bias").and_then(|path| saved.biases.get(path));
            let values = match (layer(".lora_A.weight"), layer(".lora_B.weight"), tokens.or(saved.saved.get(&p.name))) {
                (Some(l), ..) => &l.a,
                (_, Some(l), _) => &l.b,
                (.., Some(t)) => &t.values,
                _ => match bias {
                    Some(bias) => bias,
                    None => continue,
                },
            };
            p.value.set_values(values)?;
        }
        Ok(())
    }

    /// Metrics of the weights that are saved.
    fn final_metrics(&mut self, took_best: bool) -> Result<Option<Metrics>> {
        let state = &self.s.state;
        if took_best && state.best_metrics.is_some() {
            return Ok(state.best_metrics.clone());
        }
        match &state.last_metrics {
            Some((step, m)) if *step == state.global_step => Ok(Some(m.clone())),
            _ if self.s.data.eval.is_some() => self.evaluate().map(Some),
            _ => Ok(None),
        }
    }

    /// Writes `adapter/`, or `model/` in full fine-tuning.
    fn save_result(&mut self) -> Result<PathBuf> {
        let s = &self.s;
        let out = s.config.output_dir.join(if s.adaptation.is_some() { "adapter" } else { "model" });
        stage(self.reporter, Stage::Save, 0, 1, &show(&out));
        match &s.adaptation {
            Some(a) => {
                let form = match s.config.adapter_format {
                    AdapterFormat::Plain => AdapterForm::Plain,
                    AdapterFormat::Native => AdapterForm::Native,
                };
                a.export(&s.model, form, &s.info)?.write_to(Output::new(&out, true))?;
            }
            None => {
                let output = Output::new(&out, true);
                save_full(&s.base, &s.model, s.data.train.objective, &s.data.train.labels, output)?;
            }
        }
        stage(self.reporter, Stage::Save, 1, 1, &show(&out));
        Ok(out)
    }

    fn summary(
        &self,
        status: Status,
        took_best: bool,
        adapter: Option<PathBuf>,
        eval_after: Option<Metrics>,
    ) -> Summary {
        let (s, state) = (&self.s, &self.s.state);
        let adapters: u64 = match &s.adaptation {
            Some(a) => a.layers.values().map(|l| ((l.plan.n + l.plan.m) * l.plan.r) as u64).sum(),
            None => 0,
        };
        // a run that was already complete has no speed in this process
        let (seconds, tokens) = match state.global_step > self.first_step {
            true => (state.train_seconds - self.earlier, state.tokens_seen - self.tokens_before),
            false => (state.train_seconds, state.tokens_seen),
        };
        let tensors = loram_nn::memory_use();
        Summary {
            status,
            steps: state.global_step,
            total_steps: s.data.total_steps,
            epochs: self.epoch(),
            train_loss: state.loss_of_steps / state.global_step.max(1) as f64,
            last_loss: state.last_loss,
            eval_before: state.first_metrics.clone(),
            eval_after,
            best_step: state.best_step,
            took_best,
            scheme: self.scheme(),
            trainable_parameters: s.model.params().count() as u64,
            parameters: s.memory.base_parameters + adapters,
            learning_rate: s.learning_rate(),
            tokens: state.tokens_seen,
            seconds: state.train_seconds,
            tokens_per_second: tokens as f64 / seconds.max(1e-9),
            peak_rss: system::peak_rss(),
            peak_tensors: tensors.peak_live,
            peak_tensor_pages: tensors.peak_held,
            estimated_memory: s.memory.total,
            peak_gpu_memory: device::peak_memory(s.model.options().compute),
            model: s.base.name.clone(),
            output_dir: s.config.output_dir.clone(),
            next: self.next(adapter.as_deref()),
            adapter,
            checkpoint: self.last_checkpoint(),
            samples: self.samples.clone(),
        }
    }
}
