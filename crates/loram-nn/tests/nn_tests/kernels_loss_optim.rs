//! Losses against their formulas, optimisers against the loops of `torch.optim`.

use super::common::{any_threads, cases, close, data, is_gradient, to_f64, tolerance};
use loram_nn::kernels::Real;
use loram_nn::kernels::cross_entropy::{IGNORE, LossSum, mse, softmax_cross_entropy};
use loram_nn::kernels::optim::{AdamW, Sgd, adamw_step, sgd_step};
use proptest::prelude::*;

/// −log softmax(row)[label] of every counted row.
fn naive_loss(logits: &[f64], labels: &[i64], vocab: usize) -> f64 {
    let one = |(i, &label): (usize, &i64)| {
        let row = &logits[i * vocab..(i + 1) * vocab];
        row.iter().map(|x| x.exp()).sum::<f64>().ln() - row[label as usize]
    };
    labels.iter().enumerate().filter(|(_, l)| **l != IGNORE).map(one).sum()
}

/// Labels of which every third is left out.
fn some_labels(rows: usize, vocab: usize) -> Vec<i64> {
    (0..rows).map(|i| if i % 3 == 1 { IGNORE } else { (i * 7 % vocab) as i64 }).collect()
}

fn check_loss<T: Real>(rows: usize, vocab: usize, size: f64) {
    let logits: Vec<T> = data::<f64>(rows * vocab, 1).iter().map(|x| T::from_f64(x * size)).collect();
    let labels = some_labels(rows, vocab);
    let run = |grad| {
        let mut g = logits.clone();
        let sum = softmax_cross_entropy(&mut g, &labels, vocab, T::from_f64(0.25), grad).unwrap();
        (sum, g)
    };
    let sum = run(false).0;
    // the loss as one more element: it too has the same bits on any number of threads
    let grad = any_threads(|| {
        let (with, mut g) = run(true);
        assert_eq!(with, sum);
        g.push(T::from_f64(with.loss));
        g
    });
    let x = to_f64(&logits);
    // a row's loss is the logarithm of a sum that may be near 1, and right to the rounding of that 1
    let counted = sum.counted as f64;
    close(&[sum.loss, counted], &[naive_loss(&x, &labels, vocab), counted], tolerance::<T>());
    assert_eq!(sum.counted, labels.iter().filter(|&&l| l != IGNORE).count());
    let best = |row: &[T]| (0..vocab).rev().fold(0, |best, i| if row[i] >= row[best] { i } else { best });
    let right = |(row, &l): (&[T], &i64)| best(row) as i64 == l;
    assert_eq!(sum.correct, logits.chunks_exact(vocab).zip(&labels).filter(|&x| right(x)).count());

    let mut want = vec![0.0; rows * vocab];
    for (i, &label) in labels.iter().enumerate().filter(|(_, l)| **l != IGNORE) {
        let row = i * vocab..(i + 1) * vocab;
        let total: f64 = x[row.clone()].iter().map(|x| x.exp()).sum();
        for (g, x) in want[row.clone()].iter_mut().zip(&x[row]) {
            *g = 0.25 * x.exp() / total;
        }
        want[i * vocab + label as usize] -= 0.25;
    }
    // probabilities of the only class are 1, and the gradient what rounding leaves
    close(&[&grad[..want.len()], &[T::ONE]].concat(), &[&want[..], &[1.0]].concat(), tolerance::<T>());
    if T::NAME == "f64" && want.len() < 100 {
        is_gradient(&want, &x, &|x| 0.25 * naive_loss(x, &labels, vocab));
    }
}

proptest! {
    #![proptest_config(cases(80))]

    #[test]
    fn cross_entropy_of_odd_shapes(rows in 0usize..9, vocab in 1usize..80, size in 0.0f64..9.0) {
        check_loss::<f32>(rows, vocab, size);
        check_loss::<f64>(rows, vocab, size);
    }

    #[test]
    fn squared_error(n in 0usize..80) {
        check_mse::<f32>(n);
        check_mse::<f64>(n);
    }
}

#[test]
fn cross_entropy_on_several_threads() {
    for (rows, vocab) in [(131, 1009), (2, 40_009), (4000, 17)] {
        check_loss::<f32>(rows, vocab, 5.0);
        check_loss::<f64>(rows, vocab, 5.0);
    }
}

#[test]
fn large_logits() {
    let mut x = vec![1e4f32, 0.0, -1e4, 0.0, 3e38, 3e38];
    let sum = softmax_cross_entropy(&mut x, &[2, 1], 3, 1.0, true).unwrap();
    let want = LossSum { loss: 2e4 + f64::from(2f32).ln(), counted: 2, correct: 1 };
    // the second row's maximum is at its label first
    assert_eq!((sum.counted, sum.correct), (want.counted, want.correct));
    close(&[sum.loss], &[want.loss], 1e-6);
    close(&x, &[1.0, 0.0, -1.0, 0.0, -0.5, 0.5], 1e-6);
}

#[test]
fn labels_without_a_class_are_errors() {
    for (bad, vocab) in [(3, 3), (-1, 3), (-99, 3), (i64::MIN, 3), (0, 0)] {
        let x = data::<f32>(2 * vocab, 1);
        let mut y = x.clone();
        let e = softmax_cross_entropy(&mut y, &[IGNORE, bad], vocab, 1.0, true).unwrap_err();
        assert_eq!((e.index, e.value, e.limit, e.what), (1, bad, vocab, "label"));
        assert_eq!(y, x);
    }
    let nothing = softmax_cross_entropy::<f32>(&mut [], &[IGNORE; 2], 0, 1.0, true).unwrap();
    assert_eq!(nothing, LossSum::default());
}

#[test]
fn nan_is_not_hidden() {
    let mut x = [1.0f32, f32::NAN, 0.0];
    assert!(softmax_cross_entropy(&mut x, &[0], 3, 1.0, true).unwrap().loss.is_nan());
    assert!(x.iter().all(|x| x.is_nan()));
    assert!(mse(&[f32::NAN], &[0.0], 1.0, None).is_nan());
}

fn check_mse<T: Real>(n: usize) {
    let (pred, target) = (data::<T>(n, 1), data::<T>(n, 2));
    let mut d = vec![T::from_f64(f64::NAN); n];
    let loss = mse(&pred, &target, T::from_f64(0.5), Some(&mut d));
    assert_eq!(loss, mse(&pred, &target, T::ONE, None));
    let (p, t) = (to_f64(&pred), to_f64(&target));
    let naive = |p: &[f64]| p.iter().zip(&t).map(|(p, t)| (p - t).powi(2)).sum::<f64>();
    close(&[loss], &[naive(&p)], tolerance::<T>());
    let d = to_f64(&d);
    close(&d, &p.iter().zip(&t).map(|(p, t)| p - t).collect::<Vec<_>>(), tolerance::<T>());
    is_gradient(&d, &p, &|p| 0.5 * naive(p));
}

/// One parameter through `_single_tensor_adamw` of torch; its moments.
fn torch_adamw(p: &mut f64, grads: impl Iterator<Item = f64>, how: &AdamW) -> (f64, f64) {
    let (mut m, mut v) = (0.0, 0.0);
    for (t, g) in (1..).zip(grads) {
        *p *= 1.0 - how.lr * how.weight_decay;
        m += (g - m) * (1.0 - how.beta1);
        v = v * how.beta2 + (1.0 - how.beta2) * g * g;
        let denominator = f64::sqrt(v) / (1.0 - how.beta2.powi(t)).sqrt() + how.eps;
        *p -= how.lr / (1.0 - how.beta1.powi(t)) * m / denominator;
    }
    (m, v)
}

/// One parameter through `_single_tensor_sgd` of torch.
fn torch_sgd(p: &mut f64, grads: impl Iterator<Item = f64>, how: &Sgd) {
    let mut buffer: Option<f64> = None;
    for g in grads {
        let mut g = g + how.weight_decay * *p;
        if how.momentum != 0.0 {
            let b = buffer.map_or(g, |b| how.momentum * b + (1.0 - how.dampening) * g);
            buffer = Some(b);
            g = if how.nesterov { g + how.momentum * b } else { b };
        }
        *p -= how.lr * g;
    }
}

const STEPS: u64 = 5;

fn gradients<T: Real>(n: usize) -> Vec<Vec<T>> {
    (1..=STEPS).map(|step| data(n, 10 + step)).collect()
}

fn check_adamw<T: Real>(n: usize, how: &AdamW) {
    let (p, grads) = (data::<T>(n, 1), gradients::<T>(n));
    let got = any_threads(|| {
        let (mut p, mut m, mut v) = (p.clone(), vec![T::ZERO; n], vec![T::ZERO; n]);
        for (step, g) in (1..).zip(&grads) {
            adamw_step(&mut p, g, &mut m, &mut v, how, step);
        }
        [p, m, v].concat()
    });
    let mut want = to_f64(&p);
    let moments = |(i, p): (usize, &mut f64)| torch_adamw(p, grads.iter().map(|g| g[i].to_f64()), how);
    let (m, v): (Vec<f64>, Vec<f64>) = want.iter_mut().enumerate().map(moments).unzip();
    close(&got, &[want, m, v].concat(), tolerance::<T>());
}

fn check_sgd<T: Real>(n: usize, how: &Sgd) {
    let (p, grads) = (data::<T>(n, 1), gradients::<T>(n));
    let got = any_threads(|| {
        let (mut p, mut buffer) = (p.clone(), vec![T::ZERO; n]);
        for (step, g) in (1..).zip(&grads) {
            let buffer = (how.momentum != 0.0).then_some(&mut buffer[..]);
            sgd_step(&mut p, g, buffer, how, step);
        }
        p
    });
    let mut want = to_f64(&p);
    for (i, p) in want.iter_mut().enumerate() {
        torch_sgd(p, grads.iter().map(|g| g[i].to_f64()), how);
    }
    close(&got, &want, tolerance::<T>());
}

proptest! {
    #![proptest_config(cases(60))]

    #[test]
    fn adamw_is_torchs(
        n in 0usize..70,
        (lr, weight_decay) in (0.0f64..0.1, 0.0f64..0.5),
        (beta1, beta2) in (0.0f64..0.99, 0.5f64..0.9999),
        eps in prop::sample::select(vec![1e-8, 1e-3]),
    ) {
        let how = AdamW { lr, beta1, beta2, eps, weight_decay };
        check_adamw::<f32>(n, &how);
        check_adamw::<f64>(n, &how);
    }

    #[test]
    fn sgd_is_torchs(
        n in 0usize..70,
        (lr, weight_decay) in (0.0f64..0.5, 0.0f64..0.5),
        momentum in prop::sample::select(vec![0.0, 0.5, 0.9]),
        dampening in prop::sample::select(vec![0.0, 0.3]),
        nesterov: bool,
    ) {
        let how = Sgd { lr, momentum, dampening, nesterov, weight_decay };
        check_sgd::<f32>(n, &how);
        check_sgd::<f64>(n, &how);
    }
}

#[test]
fn optimisers_on_several_threads() {
    let n = 100_003;
    check_adamw::<f32>(n, &AdamW { lr: 1e-2, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 });
    for momentum in [0.0, 0.9] {
        check_sgd::<f32>(n, &Sgd { lr: 0.1, momentum, dampening: 0.0, nesterov: true, weight_decay: 0.01 });
    }
}

#[test]
fn what_was_in_the_buffer_before_the_first_step_does_not_count() {
    let how = Sgd { lr: 0.1, momentum: 0.9, dampening: 0.5, nesterov: false, weight_decay: 0.0 };
    let (mut p, mut buffer) = ([1.0f64], [7.0]);
    sgd_step(&mut p, &[2.0], Some(&mut buffer), &how, 1);
    assert_eq!((p, buffer), ([0.8], [2.0]));
}

#[test]
fn a_gradient_of_zero_moves_nothing() {
    let how = AdamW { lr: 0.1, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 };
    let (mut p, mut m, mut v) = ([1.5f32], [0.0], [0.0]);
    adamw_step(&mut p, &[0.0], &mut m, &mut v, &how, 1);
    assert_eq!((p, m, v), ([1.5], [0.0], [0.0]));
}
