use super::{GPU, SHAPES, close, on, random};
use crate::compute::Compute;
use crate::convolution::Kernel;
use crate::kernels::activation::Act;
use crate::kernels::clamped::Clamped;
use crate::mixture::{Join, row_dots, scale_rows};
use crate::ops::{self, Sequences};
use crate::tensor::Tensor;

#[test]
fn gates_of_experts() {
    for (rows, cols) in SHAPES {
        let [gate, up, dy] = [1, 2, 3].map(|seed| random(rows, cols, seed));
        for join in [Join::Clamped(Clamped { alpha: 1.702, limit: 0.625 }), Join::Act(Act::Silu)] {
            let run = |place: &dyn Fn(&Tensor) -> Tensor| {
                let (mut gate, mut up) = (place(&gate), place(&up));
                let y = join.forward(&gate, &up);
                join.backward(&mut gate, &mut up, place(&dy));
                [y, gate, up]
            };
            let want = run(&Tensor::copy);
            for compute in GPU {
                for (got, want) in run(&|t| on(compute, t)).iter().zip(&want) {
                    close(&format!("{join:?} of {rows}×{cols}"), compute, got, want);
                }
            }
        }
    }
}

#[test]
fn rows_with_factors_and_their_products() {
    for (rows, cols) in SHAPES {
        let (x, y) = (random(rows, cols, 1), random(rows, cols, 2));
        let factors: Vec<f64> = (0..rows).map(|i| 0.25 + i as f64 / 8.0).collect();
        let mut want = x.copy();
        scale_rows(&mut want, &factors);
        for compute in GPU {
            let mut got = on(compute, &x);
            scale_rows(&mut got, &factors);
            close("rows, scaled", compute, &got, &want);
            let bias = on(compute.exact(), &random(1, cols, 3));
            for (b, other) in [(on(compute, &y), y.copy()), (bias, random(1, cols, 3))] {
                let (found, expected) = (row_dots(&on(compute, &x), &b), row_dots(&x, &other));
                for (f, e) in found.iter().zip(&expected) {
                    assert!((f - e).abs() < 1e-3 * (1.0 + cols as f64).sqrt(), "{f} {e}");
                }
            }
        }
    }
}

#[test]
fn short_convolutions() {
    let lengths = [4, 1, 9];
    let positions: Vec<u32> = lengths.iter().flat_map(|&n| 0..n as u32).collect();
    for (width, length, biased) in [(1, 1, false), (5, 3, true), (300, 4, false)] {
        let (bcx, dy) = (random(14, 3 * width, 1), random(14, width, 2));
        let run = |compute: Compute| {
            let place = |t: &Tensor| if compute == Compute::F32 { t.copy() } else { on(compute, t) };
            let constant =
                |rows, seed| Tensor::from_f32(compute.exact(), rows, width, random(rows, width, seed).f32s());
            let kernel = Kernel { factors: constant(length, 3), bias: biased.then(|| constant(1, 4)) };
            let (bcx, dy, sequences) = (place(&bcx), place(&dy), Sequences::new(&lengths, &positions));
            let u = kernel.input(&bcx);
            let all = [kernel.forward(&bcx, &u, &sequences), kernel.backward(&bcx, &u, &sequences, &dy)];
            // the last tokens of the last sequence, after the others
            let index: Vec<usize> = (12..14).collect();
            let (two, late) = ([2], [7, 8]);
            let last = kernel.forward(&bcx.gather_rows(&index), &u, &Sequences::new(&two, &late));
            [&all[0], &all[1], &last, &u].map(Tensor::copy)
        };
        let want = run(Compute::F32);
        assert_eq!(want[2].f32s(), &want[0].f32s()[12 * width..]);
        for compute in GPU {
            for (got, want) in run(compute).iter().zip(&want) {
                close(&format!("{width} channels, {length} tokens"), compute, got, want);
            }
        }
    }
}

#[test]
fn sinks() {
    for (rows, heads, d) in [(1, 1, 1), (5, 3, 8), (7, 2, 64)] {
        let (o, lse, sinks) = (random(rows, heads * d, 1), random(rows, heads, 2), random(1, heads, 3));
        let (mut want_o, mut want_lse) = (o.copy(), lse.copy());
        ops::add_sinks(&mut want_o, &mut want_lse, &sinks, d);
        for compute in GPU {
            let (mut got_o, mut got_lse) = (on(compute, &o), on(compute.exact(), &lse));
            ops::add_sinks(&mut got_o, &mut got_lse, &on(compute.exact(), &sinks), d);
            close("o", compute, &got_o, &want_o);
            close("lse", compute, &got_lse, &want_lse);
        }
    }
}
