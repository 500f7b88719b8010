//! Losses over the outputs of a head.
//!
//! A head computes its outputs in chunks of rows and hands each chunk to a [`Loss`], which holds the targets and turns the
//! outputs into gradients in place. A language-model head has a row for each token, a pooled head one for each sequence.

#[cfg(gpu)]
use crate::cuda;
#[cfg(gpu)]
use crate::kernels::cross_entropy::check_labels;
use crate::kernels::cross_entropy::{IGNORE, LossSum, binary_cross_entropy, mse, softmax_cross_entropy};
use crate::tensor::{Element, Tensor, typed};
use crate::{Error, Result};

/// Sums over the rows that counted.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct BatchLoss {
    /// Σ of the losses (nats, or squared errors).
    pub loss_sum: f64,
    /// Number of tokens or sequences that counted.
    pub counted: usize,
    /// How many of them had the largest logit in the right place.
    pub correct: usize,
}

impl BatchLoss {
    /// Adds another batch.
    pub fn add(&mut self, other: BatchLoss) {
        self.loss_sum += other.loss_sum;
        self.counted += other.counted;
        self.correct += other.correct;
    }
}

impl From<LossSum> for BatchLoss {
    fn from(sum: LossSum) -> BatchLoss {
        BatchLoss { loss_sum: sum.loss, counted: sum.counted, correct: sum.correct }
    }
}

/// The targets of a batch and the loss against them. A value serves one pass at a time: [`Loss::take`] ends a pass.
pub trait Loss: std::fmt::Debug + Send {
    /// Number of rows that it has targets for: the tokens of the batch for a language-model head, its sequences for a
    /// pooled head.
    fn rows(&self) -> usize;

    /// True when row `row` contributes to the loss. A language-model head computes no logits for the others.
    fn counts(&self, row: usize) -> bool;

    /// Number of units that the mean loss is taken over.
    fn counted(&self) -> usize {
        (0..self.rows()).filter(|&row| self.counts(row)).count()
    }

    /// True when the gradient of a row depends on other rows, as in losses over whole sequences. The head then shows all
    /// chunks with `grad = false` before it shows them again with `grad = true`.
    fn needs_all_rows(&self) -> bool {
        false
    }

    /// Adds the loss of `outputs` (`rows.len()`, outputs of the head). With `grad` the outputs become their gradients
    /// times `scale`; without, their contents are undefined afterwards.
    ///
    /// # Errors
    /// Targets that do not fit the outputs.
    fn chunk(&mut self, outputs: &mut Tensor, rows: &[usize], scale: f64, grad: bool) -> Result<()>;

    /// Returns the sums of the pass and resets them.
    ///
    /// # Errors
    /// Sums that cannot be read from a GPU.
    fn take(&mut self) -> Result<BatchLoss>;

    /// Figures of the units of the pass that [`Loss::take`] ended, where the loss has any: as many for each unit.
    fn figures(&mut self) -> Vec<f32> {
        Vec::new()
    }
}

/// Softmax cross-entropy against one label per row, in nats.
#[derive(Debug, Default)]
pub struct CrossEntropy {
    labels: Vec<i64>,
    found: BatchLoss,
    /// Results on the GPU, read when the pass ends.
    #[cfg(gpu)]
    on_gpu: cuda::ops::Losses,
}

impl CrossEntropy {
    /// A loss against these labels, [`IGNORE`] for rows that do not count.
    pub fn new(labels: Vec<i64>) -> CrossEntropy {
        CrossEntropy { labels, ..CrossEntropy::default() }
    }

    /// The labels of all rows.
    pub fn labels(&self) -> &[i64] {
        &self.labels
    }
}

/// The loss of rows of logits, which become their gradients times `scale` with `grad`.
fn cross_entropy<T: Element>(logits: &mut Tensor, labels: &[i64], scale: f64, grad: bool) -> Result<BatchLoss> {
    let n = logits.cols();
    let sum = softmax_cross_entropy::<T>(logits.as_mut_slice(), labels, n, T::from_f64(scale), grad)?;
    Ok(sum.into())
}

impl Loss for CrossEntropy {
    fn rows(&self) -> usize {
        self.labels.len()
    }

    fn counts(&self, row: usize) -> bool {
        self.labels[row] != IGNORE
    }

    fn chunk(&mut self, logits: &mut Tensor, rows: &[usize], scale: f64, grad: bool) -> Result<()> {
        let labels: Vec<i64> = rows.iter().map(|&i| self.labels[i]).collect();
        let found = typed!(logits, T, cross_entropy::<T>(logits, &labels, scale, grad), gpu: {
            check_labels(&labels, logits.cols())?;
            let labels: Vec<u32> = labels.iter().map(|&l| l as u32).collect();
            cuda::catch(|| {
                self.on_gpu.add(logits, &labels, scale, grad);
                Ok(BatchLoss::default())
            })
        })?;
        self.found.add(found);
        Ok(())
    }

    fn take(&mut self) -> Result<BatchLoss> {
        let found = std::mem::take(&mut self.found);
        #[cfg(gpu)]
        let found = {
            let mut found = found;
            let on_gpu = std::mem::take(&mut self.on_gpu);
            found.add(cuda::catch(|| Ok(on_gpu.sum()))?.into());
            found
        };
        Ok(found)
    }
}

/// Binary cross-entropy of every output against 0 or 1, in nats: the mean over the outputs of a row, as
/// `BCEWithLogitsLoss` in transformers' multi-label classification.
#[derive(Debug, Default)]
pub struct BinaryCrossEntropy {
    /// (rows, outputs).
    targets: Vec<bool>,
    outputs: usize,
    found: BatchLoss,
}

impl BinaryCrossEntropy {
    /// A loss against `outputs` targets for each row.
    pub fn new(targets: Vec<bool>, outputs: usize) -> BinaryCrossEntropy {
        BinaryCrossEntropy { targets, outputs, found: BatchLoss::default() }
    }
}

impl Loss for BinaryCrossEntropy {
    fn rows(&self) -> usize {
        self.targets.len() / self.outputs.max(1)
    }

    fn counts(&self, _: usize) -> bool {
        true
    }

    fn chunk(&mut self, outputs: &mut Tensor, rows: &[usize], scale: f64, grad: bool) -> Result<()> {
        let n = self.outputs;
        if outputs.cols() != n {
            let found = outputs.cols();
            return Err(Error::Task(format!(
                "{n} labels need a head with as many outputs, the model's head has {found}"
            )));
        }
        let (mut loss_sum, mut correct) = (0.0, 0);
        typed!(outputs, T, {
            let share = T::from_f64(scale / n as f64);
            for (row, &i) in outputs.as_mut_slice::<T>().chunks_exact_mut(n.max(1)).zip(rows) {
                let targets = &self.targets[i * n..(i + 1) * n];
                let (loss, right) = binary_cross_entropy(row, targets, grad.then_some(share));
                loss_sum += loss / n as f64;
                correct += usize::from(right);
            }
        });
        self.found.add(BatchLoss { loss_sum, counted: rows.len(), correct });
        Ok(())
    }

    fn take(&mut self) -> Result<BatchLoss> {
        Ok(std::mem::take(&mut self.found))
    }
}

/// Squared error of a head with one output.
#[derive(Debug, Default)]
pub struct SquaredError {
    values: Vec<f32>,
    found: BatchLoss,
}

impl SquaredError {
    /// A loss against one number per row.
    pub fn new(values: Vec<f32>) -> SquaredError {
        SquaredError { values, found: BatchLoss::default() }
    }
}

impl Loss for SquaredError {
    fn rows(&self) -> usize {
        self.values.len()
    }

    fn counts(&self, _: usize) -> bool {
        true
    }

    fn chunk(&mut self, outputs: &mut Tensor, rows: &[usize], scale: f64, grad: bool) -> Result<()> {
        if outputs.cols() != 1 {
            let n = outputs.cols();
            return Err(Error::Task(format!("regression needs a head with 1 output, the model's head has {n}")));
        }
        let loss_sum = typed!(outputs, T, {
            let target: Vec<T> = rows.iter().map(|&i| T::from_f32(self.values[i])).collect();
            let pred = outputs.as_slice::<T>().to_vec();
            mse(&pred, &target, T::from_f64(scale), grad.then_some(outputs.as_mut_slice()))
        });
        self.found.add(BatchLoss { loss_sum, counted: rows.len(), correct: 0 });
        Ok(())
    }

    fn take(&mut self) -> Result<BatchLoss> {
        Ok(std::mem::take(&mut self.found))
    }
}
