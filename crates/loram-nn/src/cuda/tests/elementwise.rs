use super::{GPU, SHAPES, close, on, random};
use crate::compute::Compute;
use crate::dropout::Dropout;
use crate::kernels::activation::Act;
use crate::kernels::rope::RopeParams;
use crate::model::parts::Norm;
use crate::model::parts::rope::RopeTable;
use crate::ops::{self, Sequences};
use crate::param::{Param, ParamKind, Params, Trainable};
use crate::tensor::Tensor;
use loram_io::config::{RopeConfig, RopeScaling};

const ACTS: [Act; 6] = [Act::Silu, Act::Gelu, Act::GeluTanh, Act::QuickGelu, Act::Relu, Act::Tanh];

/// A trained norm in the number type of parameters, and its parameters.
fn norm(compute: Compute, cols: usize, layer: bool) -> (Norm, Params) {
    let mut params = Params::default();
    let mut vector = |seed| {
        let value = Tensor::from_f32(compute.exact(), 1, cols, random(1, cols, seed).f32s());
        Trainable::Param(params.add(Param::new(format!("{seed}"), ParamKind::Saved, &[cols], value)))
    };
    let (weight, bias) = (vector(1), layer.then(|| vector(2)));
    let norm = Norm { path: "norm".into(), weight, bias, bias_is_fixed: false, eps: 1e-5, offset: None };
    (norm, params)
}

#[test]
fn norms() {
    for (rows, cols) in SHAPES {
        for layer in [false, true] {
            let x = random(rows, cols, 3);
            let (dy, before) = (random(rows, cols, 4), random(rows, cols, 5));
            let run = |compute, accumulate| {
                let (norm, mut params) = norm(compute, cols, layer);
                let place = |t: &Tensor| if compute == Compute::F32 { t.copy() } else { on(compute, t) };
                let (x, dy, mut dx) = (place(&x), place(&dy), place(&before));
                let (y, saved) = norm.forward(&params, &x);
                norm.backward(&mut params, &x, &saved, &dy, &mut dx, accumulate);
                let grads: Vec<Tensor> = params.iter().map(|p| p.grad.copy()).collect();
                (y, dx, grads)
            };
            for accumulate in [false, true] {
                let want = run(Compute::F32, accumulate);
                for compute in GPU {
                    let got = run(compute, accumulate);
                    let what = format!("norm ({layer}) of {rows}×{cols}");
                    close(&what, compute, &got.0, &want.0);
                    // one column has no gradient but rounding
                    if cols > 1 {
                        close(&format!("dx of {what}"), compute, &got.1, &want.1);
                    }
                    for (g, w) in got.2.iter().zip(&want.2) {
                        close(&format!("dw of {what}"), compute, g, w);
                    }
                }
            }
        }
    }
}

#[test]
fn activations() {
    for (rows, cols) in SHAPES {
        let mut x = random(rows, cols, 1);
        x.scale(4.0);
        let (up, dy) = (random(rows, cols, 2), random(rows, cols, 3));
        for act in ACTS {
            let mut slope = dy.copy();
            ops::act_backward(act, &x, &mut slope);
            let (mut dgate, mut dup) = (x.copy(), up.copy());
            ops::gated_backward(act, &mut dgate, &mut dup, dy.copy());
            for compute in GPU {
                let (gx, gup, gdy) = (on(compute, &x), on(compute, &up), on(compute, &dy));
                let what = format!("{act:?} of {rows}×{cols}");
                close(&what, compute, &ops::act(act, &gx), &ops::act(act, &x));
                close(&format!("gated {what}"), compute, &ops::gated(act, &gx, &gup), &ops::gated(act, &x, &up));
                let mut g = gdy.copy();
                ops::act_backward(act, &gx, &mut g);
                close(&format!("slope of {what}"), compute, &g, &slope);
                let (mut a, mut b) = (gx, gup);
                let again = ops::gated_backward(act, &mut a, &mut b, gdy);
                close(&format!("gated {what} in the backward pass"), compute, &again, &ops::gated(act, &x, &up));
                close(&format!("dgate of {what}"), compute, &a, &dgate);
                close(&format!("dup of {what}"), compute, &b, &dup);
            }
        }
    }
}

#[test]
fn sums_biases_and_scales() {
    for (rows, cols) in SHAPES {
        let (x, y, bias) = (random(rows, cols, 1), random(rows, cols, 2), random(1, cols, 3));
        let sums = |x: &Tensor, mut y: Tensor, bias: &Tensor| {
            ops::add_assign(&mut y, x);
            ops::add_bias(&mut y, bias);
            y.scale(0.5);
            let mut db = bias.copy();
            ops::bias_grad(x, &mut db);
            (y, db)
        };
        let want = sums(&x, y.copy(), &bias);
        for compute in GPU {
            let got = sums(&on(compute, &x), on(compute, &y), &on(Compute::CudaF32, &bias));
            close("sums", compute, &got.0, &want.0);
            close("gradient of a bias", compute, &got.1, &want.1);
        }
    }
}

#[test]
fn dropout_is_that_of_the_cpu() {
    for (rows, cols) in SHAPES {
        let (x, y) = (random(rows, cols, 1), random(rows, cols, 2));
        for p in [0.0, 0.25, 0.9] {
            for compute in GPU {
                let place = Dropout::model(p, 3, 1);
                let (gx, mut sum, mut got) = (on(compute, &x), y.copy(), on(compute, &y));
                place.add(&x, &mut sum, Some(11));
                place.add(&gx, &mut got, Some(11));
                close("dropout, added", compute, &got, &sum);
                match (place.of(&gx, Some(11)), place.of(&x, Some(11))) {
                    (Some(got), Some(want)) => close("dropout", compute, &got, &want),
                    (got, want) => assert_eq!((got.is_none(), want.is_none()), (true, true)),
                }
            }
        }
    }
}

#[test]
fn rotary_embedding() {
    let shapes =
        [(vec![1], 1, 2, 1.0), (vec![3, 0, 7], 3, 6, 1.0), (vec![33, 1], 2, 64, 1.0), (vec![9, 4], 2, 16, 0.25)];
    for ((lengths, heads, d, share), interleaved) in shapes.iter().flat_map(|s| [(s.clone(), false), (s.clone(), true)])
    {
        let rows = lengths.iter().sum();
        let positions: Vec<u32> = lengths.iter().flat_map(|&n: &usize| 0..n as u32).collect();
        let sequences = Sequences::new(&lengths, &positions);
        let params = RopeParams {
            config: RopeConfig {
                theta: 1e4,
                scaling: RopeScaling::None,
                partial_rotary_factor: share,
                interleaved,
                query_growth: None,
            },
            head_dim: d,
            queries: true,
        };
        let x = random(rows, heads * d, 1);
        for backward in [false, true] {
            // a part of the rows stays as it is
            let rotated = |compute, mut x: Tensor| {
                RopeTable::new(compute, &params, 40).apply(&mut x, 1.min(rows)..rows, &sequences, d, backward);
                x
            };
            let want = rotated(Compute::F32, x.copy());
            for compute in GPU {
                close("rope", compute, &rotated(compute, on(compute, &x)), &want);
            }
        }
    }
}
