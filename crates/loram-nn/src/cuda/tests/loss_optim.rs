use super::{GPU, SHAPES, close, on, random};
use crate::compute::Compute;
use crate::cuda::ops::Losses;
use crate::kernels::cross_entropy::{log_probabilities, softmax_cross_entropy};
use crate::kernels::optim::{AdamW, Sgd};
use crate::optim::{AdamWStep, adamw, scale, sgd, sum_squares, zero};
use crate::tensor::Tensor;

#[test]
fn cross_entropy() {
    for (rows, cols) in SHAPES {
        let mut logits = random(rows, cols, 1);
        logits.scale(8.0);
        let labels: Vec<i64> = (0..rows).map(|i| (i * 7 % cols) as i64).collect();
        let ids: Vec<u32> = labels.iter().map(|&l| l as u32).collect();
        for grad in [false, true] {
            let mut want = logits.copy();
            let sum = softmax_cross_entropy(want.f32s_mut(), &labels, cols, 0.5, grad).unwrap();
            for compute in GPU {
                let mut got = on(compute, &logits);
                let mut losses = Losses::default();
                losses.add(&mut got, &ids, 0.5, grad);
                losses.add(&mut on(compute, &logits), &ids, 0.5, false);
                let found = losses.sum();
                // there are equal largest logits among them: the first one counts
                assert_eq!((found.counted, found.correct), (2 * sum.counted, 2 * sum.correct), "{rows}×{cols}");
                assert!(
                    (found.loss - 2.0 * sum.loss).abs() <= 1e-4 * sum.loss.max(1e-2),
                    "{} {}",
                    found.loss,
                    sum.loss
                );
                if grad {
                    close("gradient of logits", compute, &got, &want);
                }
            }
        }
    }
}

#[test]
fn rows_with_scales_of_their_own() {
    for (rows, cols) in SHAPES {
        let logits = random(rows, cols, 2);
        let labels: Vec<i64> = (0..rows).map(|i| (i * 5 % cols) as i64).collect();
        let ids: Vec<u32> = labels.iter().map(|&l| l as u32).collect();
        let scales: Vec<f32> = (0..rows).map(|i| (i % 7) as f32 * 0.2 - 0.5).collect();
        let mut want = logits.copy();
        let expected = log_probabilities(want.f32s_mut(), &labels, cols, Some(&scales)).unwrap();
        for compute in GPU {
            let mut got = on(compute, &logits);
            let mut losses = Losses::default();
            losses.add_scaled(&mut on(compute, &logits), &ids, None);
            losses.add_scaled(&mut got, &ids, Some(&scales));
            let found = losses.of_rows();
            assert_eq!(found.len(), 2 * rows);
            for (row, f) in found.iter().enumerate() {
                let e = expected[row % rows];
                assert!((f + e).abs() <= 2e-2 * e.abs().max(1.0), "{rows}×{cols}: {f} {e}");
            }
            close("gradient of logits", compute, &got, &want);
        }
    }
}

#[test]
fn optimiser_steps() {
    for (rows, cols) in SHAPES {
        let (p, g) = (random(rows, cols, 1), random(rows, cols, 2));
        let adam = AdamW { lr: 0.1, beta1: 0.9, beta2: 0.99, eps: 1e-6, weight_decay: 0.1 };
        let plain = Sgd { lr: 0.1, momentum: 0.0, dampening: 0.0, nesterov: false, weight_decay: 0.1 };
        let ways = [plain, Sgd { momentum: 0.9, ..plain }, Sgd { momentum: 0.9, nesterov: true, ..plain }];
        let run = |compute| {
            let place = |t: &Tensor| Tensor::from_f32(compute, t.rows(), t.cols(), t.f32s());
            let zeros = || Tensor::zeros(compute, rows, cols);
            let g = place(&g);
            let (mut a, mut m, mut v) = (place(&p), zeros(), zeros());
            let mut all = Vec::new();
            // beside a tensor of another size and other rates
            let (mut a2, g2) = (place(&random(3, 700, 5)), place(&random(3, 700, 6)));
            let [mut m2, mut v2] = [(); 2].map(|()| Tensor::zeros(compute, 3, 700));
            for step in 1..4 {
                let first = AdamWStep { p: &mut a, g: &g, m: &mut m, v: &mut v, how: adam };
                let how = AdamW { lr: 0.01, weight_decay: 0.0, ..adam };
                adamw(&mut [first, AdamWStep { p: &mut a2, g: &g2, m: &mut m2, v: &mut v2, how }], step).unwrap();
            }
            let squares = sum_squares(&[&g, &a, &a2]).unwrap();
            scale(&mut [&mut v, &mut v2], 0.5).unwrap();
            zero(&mut [&mut m, &mut m2]);
            all.extend([a, m, v, a2, m2, v2]);
            for how in ways {
                let (mut b, mut buffer) = (place(&p), zeros());
                (1..4).for_each(|step| sgd(&mut b, &g, Some(&mut buffer), &how, step).unwrap());
                all.extend([b, buffer]);
            }
            (all, squares)
        };
        let (want, squares) = run(Compute::F32);
        let (got, found) = run(Compute::CudaF32);
        for (g, w) in got.iter().zip(&want) {
            close("state of an optimiser", Compute::CudaF32, g, w);
        }
        for (f, s) in found.iter().zip(&squares) {
            assert!((f - s).abs() <= 1e-5 * s, "{f} {s}");
        }
    }
}
