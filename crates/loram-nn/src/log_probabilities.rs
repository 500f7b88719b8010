//! Losses of log-probabilities of whole sequences, as preference optimisation compares them.

#[cfg(gpu)]
use crate::cuda;
use crate::kernels::cross_entropy::{IGNORE, log_probabilities};
use crate::loss::{BatchLoss, Loss};
use crate::tensor::{Element, Tensor, typed};
use crate::{Error, Result};
use std::fmt::Debug;

/// A loss of sums of log-probabilities, each over a group of tokens such as those of an answer.
pub trait OfLogProbabilities: Debug + Send {
    /// The loss where these are Σ log p(label) of each group, in nats.
    ///
    /// # Errors
    /// Sums for which the loss is not defined.
    fn loss(&self, sums: &[f64]) -> Result<GroupLoss>;
}

/// A loss with its derivatives.
#[derive(Debug, Clone, Default)]
pub struct GroupLoss {
    /// Sums over the units of the pass.
    pub loss: BatchLoss,
    /// For each group dΣloss/dΣ log p.
    pub slopes: Vec<f64>,
    /// Figures of the units, for metrics.
    pub figures: Vec<f32>,
}

/// The sums alone: a loss of 0.
#[derive(Debug)]
struct SumsAlone;

impl OfLogProbabilities for SumsAlone {
    fn loss(&self, sums: &[f64]) -> Result<GroupLoss> {
        Ok(GroupLoss { slopes: vec![0.0; sums.len()], ..GroupLoss::default() })
    }
}

/// The tokens of a batch in groups, and the loss of the sums over these.
#[derive(Debug)]
pub struct LogProbabilities {
    /// Label of each row, [`IGNORE`] where none counts.
    labels: Vec<i64>,
    /// Group of each row.
    groups: Vec<usize>,
    units: usize,
    of: Box<dyn OfLogProbabilities>,
    sums: Vec<f64>,
    /// Sums of the last pass that has ended.
    last: Vec<f64>,
    /// The loss of this pass, once all rows were shown.
    found: Option<GroupLoss>,
    figures: Vec<f32>,
    /// Results on the GPU with their rows, which are read when all rows were shown.
    #[cfg(gpu)]
    on_gpu: (cuda::ops::Losses, Vec<usize>),
}

impl LogProbabilities {
    /// `labels` and `groups` are those of all rows of a batch, groups numbered from 0 to `count`; the mean loss is taken over
    /// `units`.
    pub fn new(
        labels: Vec<i64>,
        groups: Vec<usize>,
        count: usize,
        units: usize,
        of: Box<dyn OfLogProbabilities>,
    ) -> LogProbabilities {
        assert_eq!(labels.len(), groups.len(), "log-probabilities: a group for each label");
        LogProbabilities {
            labels,
            groups,
            units,
            of,
            sums: vec![0.0; count],
            last: Vec::new(),
            found: None,
            figures: Vec::new(),
            #[cfg(gpu)]
            on_gpu: Default::default(),
        }
    }

    /// The same without a loss: [`LogProbabilities::last_sums`] is all that is asked for.
    pub fn sums_alone(labels: Vec<i64>, groups: Vec<usize>, count: usize) -> LogProbabilities {
        LogProbabilities::new(labels, groups, count, 0, Box::new(SumsAlone))
    }

    /// Σ log p(label) of each group in the last pass, in nats.
    pub fn last_sums(&self) -> &[f64] {
        &self.last
    }

    /// The sums of this pass and what the loss makes of them.
    fn settle(&mut self) -> Result<&GroupLoss> {
        #[cfg(gpu)]
        {
            let (losses, rows) = std::mem::take(&mut self.on_gpu);
            let found = cuda::catch(|| Ok(losses.of_rows()))?;
            found.into_iter().zip(rows).for_each(|(loss, row)| self.sums[self.groups[row]] -= loss);
        }
        let found = self.of.loss(&self.sums)?;
        let (n, slopes) = (self.sums.len(), found.slopes.len());
        if n != slopes {
            return Err(Error::Batch(format!(
                "a loss of {n} groups of tokens: found {slopes} derivatives, expected {n}"
            )));
        }
        Ok(self.found.insert(found))
    }

    /// The scale of the gradient of each row: the logits' gradient is −slope·(softmax − onehot).
    fn scales(&mut self, rows: &[usize], scale: f64) -> Result<Vec<f64>> {
        if self.found.is_none() {
            self.settle()?;
        }
        let slopes = self.found.as_ref().map_or(&[][..], |found| &found.slopes);
        Ok(rows.iter().map(|&row| -scale * slopes[self.groups[row]]).collect())
    }
}

/// The log-probabilities of the labels of rows of logits, which become their gradients with `scales`.
fn of_rows<T: Element>(logits: &mut Tensor, labels: &[i64], scales: Option<&[f64]>) -> Result<Vec<f64>> {
    let n = logits.cols();
    let scales: Option<Vec<T>> = scales.map(|s| s.iter().map(|&x| T::from_f64(x)).collect());
    Ok(log_probabilities::<T>(logits.as_mut_slice(), labels, n, scales.as_deref())?)
}

impl Loss for LogProbabilities {
    fn rows(&self) -> usize {
        self.labels.len()
    }

    fn counts(&self, row: usize) -> bool {
        self.labels[row] != IGNORE
    }

    fn counted(&self) -> usize {
        self.units
    }

    fn needs_all_rows(&self) -> bool {
        true
    }

    fn chunk(&mut self, logits: &mut Tensor, rows: &[usize], scale: f64, grad: bool) -> Result<()> {
        let labels: Vec<i64> = rows.iter().map(|&i| self.labels[i]).collect();
        let scales = grad.then(|| self.scales(rows, scale)).transpose()?;
        let found = typed!(logits, T, of_rows::<T>(logits, &labels, scales.as_deref()), gpu: {
            crate::kernels::cross_entropy::check_labels(&labels, logits.cols())?;
            let labels: Vec<u32> = labels.iter().map(|&l| l as u32).collect();
            let scales: Option<Vec<f32>> = scales.map(|s| s.iter().map(|&x| x as f32).collect());
            cuda::catch(|| {
                match &scales {
                    // these rows have been counted
                    Some(_) => cuda::ops::Losses::default().add_scaled(logits, &labels, scales.as_deref()),
                    None => {
                        self.on_gpu.0.add_scaled(logits, &labels, None);
                        self.on_gpu.1.extend_from_slice(rows);
                    }
                }
                Ok(Vec::new())
            })
        })?;
        if !grad {
            found.into_iter().zip(rows).for_each(|(log_p, &row)| self.sums[self.groups[row]] += log_p);
        }
        Ok(())
    }

    fn take(&mut self) -> Result<BatchLoss> {
        if self.found.is_none() {
            self.settle()?;
        }
        let found = self.found.take().unwrap_or_default();
        let groups = self.sums.len();
        self.last = std::mem::replace(&mut self.sums, vec![0.0; groups]);
        self.figures = found.figures;
        Ok(found.loss)
    }

    fn figures(&mut self) -> Vec<f32> {
        std::mem::take(&mut self.figures)
    }
}
