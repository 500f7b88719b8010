//! Losses with their gradients: softmax cross-entropy over rows of logits, and squared error.

use super::{
    OutOfRange, Real,
    par::{Rows, RowsMut, for_rows},
    simd::{exp_sum, max, simd},
};

/// Label of a row that does not count.
pub const IGNORE: i64 = -100;

/// The loss of a batch of rows.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LossSum {
    /// Σ −log softmax(row)\[label\] over counted rows, in `f64`, rows in order.
    pub loss: f64,
    /// Rows whose label is not [`IGNORE`].
    pub counted: usize,
    /// Counted rows whose (first) largest logit is the label's.
    pub correct: usize,
}

/// Loss of `logits` (rows × vocab) against `labels` (rows, [`IGNORE`] = −100 to skip). With `grad` the logits are replaced
/// by scale·(softmax − onehot), 0 for skipped rows; without, their contents are undefined afterwards.
///
/// # Errors
/// The first label that is neither −100 nor in 0..vocab; nothing is changed then.
pub fn softmax_cross_entropy<T: Real>(
    logits: &mut [T],
    labels: &[i64],
    vocab: usize,
    scale: T,
    grad: bool,
) -> Result<LossSum, OutOfRange> {
    let results = all_rows(logits, labels, vocab, |_| scale, grad)?;
    Ok(LossSum {
        loss: results.iter().map(|r| r.0).sum(),
        counted: labels.iter().filter(|&&l| l != IGNORE).count(),
        correct: results.iter().filter(|r| r.1).count(),
    })
}

/// log softmax(row)\[label\] of each row of `logits` (rows × vocab), in nats; 0 for skipped rows. With `scales`, one for each row,
/// the logits are replaced by scale·(softmax − onehot); without, their contents are undefined afterwards.
///
/// # Errors
/// The first label that is neither −100 nor in 0..vocab; nothing is changed then.
pub fn log_probabilities<T: Real>(
    logits: &mut [T],
    labels: &[i64],
    vocab: usize,
    scales: Option<&[T]>,
) -> Result<Vec<f64>, OutOfRange> {
    if let Some(scales) = scales {
        assert_eq!(scales.len(), labels.len(), "log_probabilities: a scale for each row");
    }
    let scale = |row: usize| scales.map_or(T::ZERO, |s| s[row]);
    Ok(all_rows(logits, labels, vocab, scale, scales.is_some())?.into_iter().map(|r| -r.0).collect())
}

/// (loss, correct) of each row.
fn all_rows<T: Real>(
    logits: &mut [T],
    labels: &[i64],
    vocab: usize,
    scale: impl Fn(usize) -> T + Sync,
    grad: bool,
) -> Result<Vec<(f64, bool)>, OutOfRange> {
    let rows = labels.len();
    assert_eq!(logits.len(), rows * vocab, "cross-entropy: {rows} rows of {vocab}");
    check_labels(labels, vocab)?;
    let mut results = vec![(0.0f64, false); rows];
    let parts = (RowsMut(logits, vocab), Rows(labels, 1), RowsMut(&mut results, 1));
    for_rows(parts, rows, 2 * vocab, |(logits, labels, results), range| {
        for (i, (&label, result)) in labels.0.iter().zip(results.0).enumerate() {
            let row = &mut logits.0[i * vocab..(i + 1) * vocab];
            if label != IGNORE {
                *result = one_row(row, label as usize, scale(range.start + i), grad);
            } else if grad {
                row.fill(T::ZERO);
            }
        }
    });
    Ok(results)
}

/// The first label that is neither −100 nor in 0..vocab.
pub(crate) fn check_labels(labels: &[i64], vocab: usize) -> Result<(), OutOfRange> {
    match labels.iter().position(|&l| l != IGNORE && !(0..vocab as i64).contains(&l)) {
        Some(index) => Err(OutOfRange { what: "label", index, value: labels[index], limit: vocab }),
        None => Ok(()),
    }
}

/// (loss, correct) of one row.
fn one_row<T: Real>(row: &mut [T], label: usize, scale: T, grad: bool) -> (f64, bool) {
    simd(
        #[inline(always)]
        || {
            let top = max(row);
            let target = row[label];
            let correct = target == top && !row[..label].contains(&top);
            let total = exp_sum(row, top);
            if grad {
                let factor = scale / total;
                for p in row.iter_mut() {
                    *p *= factor;
                }
                row[label] -= scale;
            }
            (total.to_f64().ln() - (target - top).to_f64(), correct)
        },
    )
}

/// Σ of −log σ(x) for targets that are set and −log σ(−x) for the others, in `f64`, and whether all x have the right sign. With
/// `scale`, the logits x become scale·(σ(x) − target).
pub fn binary_cross_entropy<T: Real>(logits: &mut [T], targets: &[bool], scale: Option<T>) -> (f64, bool) {
    assert_eq!(logits.len(), targets.len(), "binary_cross_entropy");
    let (mut sum, mut right) = (0.0, true);
    for (x, &target) in logits.iter_mut().zip(targets) {
        let at = x.to_f64();
        right &= (at > 0.0) == target;
        // max(x, 0) − x·target + log(1 + e^−|x|) does not overflow
        let toward = if target { at } else { 0.0 };
        sum += at.max(0.0) - toward + (-at.abs()).exp().ln_1p();
        if let Some(scale) = scale {
            let sigmoid = 1.0 / (1.0 + (-at).exp());
            *x = scale * T::from_f64(sigmoid - f64::from(u8::from(target)));
        }
    }
    (sum, right)
}

/// Σ (pred − target)² in `f64`, in order; `dpred` gets scale·2·(pred − target).
pub fn mse<T: Real>(pred: &[T], target: &[T], scale: T, dpred: Option<&mut [T]>) -> f64 {
    assert_eq!(pred.len(), target.len(), "mse");
    if let Some(d) = dpred {
        assert_eq!(d.len(), pred.len(), "mse: dpred");
        for ((d, &p), &t) in d.iter_mut().zip(pred).zip(target) {
            *d = scale * (p - t + (p - t));
        }
    }
    pred.iter().zip(target).map(|(&p, &t)| (p - t).to_f64().powi(2)).sum()
}
