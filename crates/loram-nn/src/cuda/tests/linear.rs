use super::{GPU, close, numbers, on, random};
use crate::compute::Compute;
use crate::dropout::Dropout;
use crate::linear::{Linear, Lora};
use crate::param::{Param, ParamKind, Params, Trainable};
use crate::products::Operand;
use crate::tensor::Tensor;
use crate::weight::Weight;

/// The composition of a layer.
#[derive(Debug, Clone, Copy)]
struct Kind {
    trained: bool,
    bias: bool,
    lora: bool,
    initial: bool,
    p: f64,
}

fn layer(compute: Compute, (n, m, r): (usize, usize, usize), kind: Kind) -> (Linear, Params) {
    let mut params = Params::default();
    let tensor = |compute, rows, cols, seed| {
        let mut t = Tensor::from_f32(compute, rows, cols, &numbers(rows * cols, seed));
        t.scale(0.25);
        t
    };
    let mut trained = |rows, cols, seed| {
        let value = tensor(compute.exact(), rows, cols, seed);
        Trainable::Param(params.add(Param::new(format!("{seed}"), ParamKind::LoraA, &[rows, cols], value)))
    };
    let mut linear = Linear::frozen("layer".into(), Weight::from_f32(n, m, numbers(n * m, 1)));
    if kind.trained {
        linear.weight = match trained(n, m, 1) {
            Trainable::Param(id) => Trainable::Param(id),
            Trainable::Frozen(()) => unreachable!("made above"),
        };
    }
    if kind.bias {
        let Trainable::Param::<()>(id) = trained(1, n, 2) else { unreachable!("made above") };
        linear.bias = Some(Trainable::Param(id));
    }
    if kind.lora {
        let Trainable::Param::<()>(a) = trained(r, m, 3) else { unreachable!("made above") };
        let Trainable::Param::<()>(b) = trained(n, r, 4) else { unreachable!("made above") };
        let initial = kind.initial.then(|| (tensor(compute, r, m, 5), tensor(compute, n, r, 6)));
        let dropout = Dropout::adapter(kind.p, 2);
        linear.lora =
            Some(Lora { a: Trainable::Param(a), b: Trainable::Param(b), scaling: 0.5, bias: None, dropout, initial });
    }
    (linear, params)
}

#[test]
fn layers() {
    let plain = Kind { trained: false, bias: false, lora: false, initial: false, p: 0.0 };
    let kinds = [
        plain,
        Kind { bias: true, ..plain },
        Kind { lora: true, ..plain },
        Kind { lora: true, bias: true, initial: true, ..plain },
        Kind { lora: true, initial: true, p: 0.4, ..plain },
        Kind { trained: true, bias: true, ..plain },
    ];
    for (t, n, m, r) in [(1, 1, 1, 1), (7, 5, 3, 2), (33, 17, 64, 8), (2, 130, 31, 1)] {
        for kind in kinds {
            let (x, dy) = (random(t, m, 7), random(t, n, 8));
            let (y0, dx0) = (random(t, n, 9), random(t, m, 10));
            let run = |compute: Compute, accumulate: bool| {
                let (linear, mut params) = layer(compute, (n, m, r), kind);
                let place = |t: &Tensor| if compute == Compute::F32 { t.copy() } else { on(compute, t) };
                let (x, dy, base, mut dx) = (place(&x), place(&dy), place(&y0), place(&dx0));
                let (x, dy) = (Operand::new(&x), Operand::new(&dy));
                let (y, saved) = linear.forward_onto(&params, &x, accumulate.then_some(&base), Some(5));
                linear.backward(&mut params, &x, &saved, &dy, Some((&mut dx, accumulate)), Some(5));
                let grads: Vec<Tensor> = params.iter().map(|p| p.grad.copy()).collect();
                (y, dx, grads)
            };
            for accumulate in [false, true] {
                let want = run(Compute::F32, accumulate);
                for compute in GPU {
                    let got = run(compute, accumulate);
                    let what = format!("({t}, {m}) through ({n}, {m}) {kind:?}");
                    close(&what, compute, &got.0, &want.0);
                    close(&format!("dx of {what}"), compute, &got.1, &want.1);
                    for (i, (g, w)) in got.2.iter().zip(&want.2).enumerate() {
                        close(&format!("gradient {i} of {what}"), compute, g, w);
                    }
                }
            }
        }
    }
}
