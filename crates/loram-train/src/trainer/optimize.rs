//! One step: forward and backward over its batches, dealt to the ranks, then the optimiser.

use super::run::Run;
use super::step::Step;
use crate::batching::passes;
use crate::config::DistDtype;
use crate::dataset::Dataset;
use crate::dist::{Wire, deal, replicas};
use crate::objective::batches_and_losses;
use crate::optim::{check_finite, clip, grad_norm};
use crate::{Error, Result};
use loram_nn::{Batch, BatchLoss, Loss, Param};

impl Run<'_, '_, '_> {
    /// Forward and backward over the batches of a step, clipping and the optimiser.
    pub fn optimizer_step(&mut self) -> Result<Step> {
        let c = self.s.config;
        let from = self.s.state.batch_in_epoch;
        let to = (from + self.s.data.batches_per_step).min(self.batches.len());
        let train = &self.s.data.train;
        let model = &mut self.s.model;
        self.group.at_step(self.s.state.global_step + 1);
        let length = |i: usize| train.examples[i].tokens();
        // whole batches, since a loss may compare the examples of one; its passes know their place in the step
        let batches: Vec<Vec<&[usize]>> =
            self.batches[from..to].iter().map(|b| passes(b, length, self.s.max_tokens)).collect();
        let tokens = |batch: &[usize]| batch.iter().map(|&i| length(i)).sum::<usize>();
        let sizes: Vec<usize> = self.batches[from..to].iter().map(|b| tokens(b)).collect();
        let ranks = deal(&sizes, self.group.world());
        let mut mine: Vec<(u64, Batch, Box<dyn Loss>)> = Vec::new();
        let mut place = 0;
        for (batch, rank) in batches.iter().zip(ranks) {
            if rank == self.group.rank() {
                let examples = batch.iter().map(|pass| pass.iter().map(|&i| &train.examples[i]).collect());
                let made = batches_and_losses(train.task(), model, examples)?;
                mine.extend((place..).zip(made).map(|(i, (b, targets))| (i, b, targets)));
            }
            place += batch.len() as u64;
        }
        let counted = match self.group.is_solo() {
            true => mine.iter().map(|(_, _, targets)| targets.counted()).sum(),
            // known without communication: all ranks have all examples
            false => units(&self.batches[from..to], train),
        };
        model.params_mut().zero_grads()?;
        let mut loss = BatchLoss::default();
        for (i, b, targets) in &mut mine {
            // of the pass's place in the run, so that no mask depends on the number of ranks
            let seed = step_seed(c.seed, self.s.state.batches + *i);
            loss.add(model.forward_backward(b, &mut **targets, 1.0 / counted as f64, seed)?);
        }
        self.s.state.batches += place;
        let loss = self.sum_over_ranks(loss)?;
        if loss.counted != counted {
            let what = format!("the loss counts {} units, the examples of the step have {counted}", loss.counted);
            return Err(Error::Data(what));
        }
        let model = &mut self.s.model;
        let norm = grad_norm(model.params().iter())?;
        let share = self.schedule.share(self.s.state.global_step);
        let rate = share * self.s.learning_rate();
        let last = match loss.loss_sum.is_finite() && norm.is_finite() {
            true => String::new(),
            false => self.last_good(),
        };
        let model = &mut self.s.model;
        let list: Vec<&Param> = model.params().iter().collect();
        let step = self.s.state.global_step + 1;
        check_finite(&list, loss.loss_sum, norm, step, rate, &last)?;
        let last_step = step == self.s.data.total_steps;
        let mut gauge = self.gauge.as_mut().filter(|_| last_step || step.is_multiple_of(c.magnitude_steps));
        if let Some(gauge) = &mut gauge {
            gauge.before_step(model)?;
        }
        clip(model.params_mut().iter_mut(), norm, c.max_grad_norm)?;
        self.s.optimizer.step(model.params_mut().iter_mut(), share)?;
        let magnitude = gauge.map(|gauge| gauge.after_step(model)).transpose()?;
        self.s.state.batch_in_epoch = to;
        let tokens = sizes.iter().sum::<usize>() as u64;
        Ok(Step { loss, rate, share, norm, tokens, magnitude })
    }

    /// Sums the gradients of all ranks, and what goes with them: the loss, and whether a rank was asked to stop. Every so many
    /// steps the parameters of all ranks are compared.
    pub fn sum_over_ranks(&mut self, loss: BatchLoss) -> Result<BatchLoss> {
        if self.group.is_solo() {
            return Ok(loss);
        }
        let done = self.s.state.global_step;
        let parameters = match done.is_multiple_of(replicas::CHECK_STEPS) || done + 1 == self.s.data.total_steps {
            true => {
                replicas::values(&self.s.model, &mut self.flat)?;
                replicas::checksum(&self.flat)
            }
            false => 0,
        };
        replicas::gradients(&self.s.model, &mut self.flat)?;
        let BatchLoss { loss_sum, counted, correct } = loss;
        let stop = u64::from(self.stop.is_set());
        let words = [loss_sum.to_bits(), counted as u64, correct as u64, stop, parameters, 0];
        let wire = match self.s.config.dist_dtype {
            DistDtype::Float32 => Wire::F32,
            DistDtype::Bfloat16 => Wire::Bf16,
        };
        let all = self.group.sum(&mut self.flat, wire, words)?;
        if let Some(rank) = all.iter().position(|w| w[4] != all[0][4]) {
            let what =
                format!("after step {done} the parameters of {} differ from those of rank 0", self.group.name(rank));
            return Err(self.group.common(format!(
                "{what}: its processor, its GPU or its memory computes otherwise. {}",
                self.resumable()
            )));
        }
        replicas::set_gradients(&mut self.s.model, &self.flat)?;
        let mut sum = BatchLoss::default();
        for w in &all {
            let (counted, correct) = (w[1] as usize, w[2] as usize);
            sum.add(BatchLoss { loss_sum: f64::from_bits(w[0]), counted, correct });
        }
        self.asked = all.iter().any(|w| w[3] != 0);
        Ok(sum)
    }
}

/// Units that the loss of a step is a mean over.
fn units(batches: &[Vec<usize>], train: &Dataset) -> usize {
    batches.iter().flatten().map(|&i| train.examples[i].units()).sum()
}

/// Seed of the dropout of batch number `batch` of a run: SplitMix64 of both numbers.
fn step_seed(seed: u64, batch: u64) -> u64 {
    let mut z = seed.wrapping_add((batch + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
