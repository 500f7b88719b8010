//! Checkpoints of a run.

use super::alike::check_same_base;
use super::run::Run;
use crate::Result;
use crate::checkpoint::{self, Trained, checkpoint_dir};
use crate::observer::{Event, Observer};
use std::path::PathBuf;

impl Run<'_, '_, '_> {
    /// Where a run that fails can be taken up again.
    pub fn last_good(&self) -> String {
        let good = self.s.state.health.last_good.map(|step| checkpoint_dir(&self.s.config.output_dir, step));
        match (good.filter(|dir| dir.exists()), &self.last_checkpoint) {
            (Some(good), _) => format!("the last good checkpoint is {}", good.display()),
            (None, Some(newest)) => format!("no checkpoint is from before that (the newest is {})", newest.display()),
            (None, None) => "no checkpoint was saved yet".into(),
        }
    }

    /// Saves a checkpoint and removes those beyond `save_total_limit`; rank 0 writes it.
    pub fn save(&mut self) -> Result<()> {
        self.seconds();
        if let Some(sum) = self.base_sum.take() {
            let failed = |_| loram_io::Error::Usage("the checksum of the base model could not be computed".into());
            let sum = sum.join().map_err(failed)??;
            check_same_base(&sum, self.group)?;
            self.s.state.inputs.base = Some(sum);
        }
        let state = &mut self.s.state;
        if state.health.is_good() {
            state.health.last_good = Some(state.global_step);
        }
        let saved = match self.group.is_first() {
            true => self.write_checkpoint(),
            false => Ok(checkpoint_dir(&self.s.config.output_dir, self.s.state.global_step)),
        };
        self.last_checkpoint = Some(self.group.agree(saved)?);
        Ok(())
    }

    pub fn write_checkpoint(&mut self) -> Result<PathBuf> {
        self.reporter.sync()?;
        let s = &self.s;
        let trained = Trained { model: &s.model, adaptation: s.adaptation.as_ref(), info: &s.info };
        let path = checkpoint::save(&s.config.output_dir, &trained, &s.optimizer, &s.state)?;
        self.reporter.event(&Event::Saved { step: s.state.global_step, path: path.clone() });
        self.prune()?;
        Ok(path)
    }

    /// Removes checkpoints beyond `save_total_limit`, but not the newest, the best and the last good one.
    pub fn prune(&self) -> Result<()> {
        let s = &self.s;
        let best = s.state.best_step.filter(|_| s.config.tracks_best());
        let keep = [best, s.state.health.last_good, Some(s.state.global_step)];
        match s.config.save_total_limit {
            Some(limit) => checkpoint::prune(&s.config.output_dir, limit, &keep),
            None => Ok(()),
        }
    }

    pub fn last_checkpoint(&self) -> Option<PathBuf> {
        self.last_checkpoint.clone()
    }
}
