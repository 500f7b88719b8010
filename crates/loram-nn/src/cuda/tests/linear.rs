use super::{GPU, close, numbers, on, random};
use crate::compute::Compute;
use crate::dropout::Dropout;
use crate::linear::{Linear, Lora, backward_all, forward_all, room};
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

/// Outputs of a layer with the ranks of its adapter and of the initial factors; no adapter where the first is 0.
type Ranked = (usize, [usize; 2]);

/// Layers with one input (t, m).
fn beside(compute: Compute, m: usize, outputs: &[Ranked], dropout: f64) -> (Vec<Linear>, Params) {
    let mut params = Params::default();
    let tensor = |compute, rows, cols, seed| {
        let mut t = Tensor::from_f32(compute, rows, cols, &numbers(rows * cols, seed));
        t.scale(0.125);
        t
    };
    let layer = |(i, &(n, [r, r0])): (usize, &Ranked)| {
        let seed = 10 * i as u64;
        let mut linear = Linear::frozen(format!("layer {i}"), Weight::from_f32(n, m, numbers(n * m, seed)));
        if r > 0 {
            let mut trained = |rows, cols, seed, kind| {
                let value = tensor(compute.exact(), rows, cols, seed);
                Trainable::Param(params.add(Param::new(format!("{i} {seed}"), kind, &[rows, cols], value)))
            };
            // B of the second layer is frozen
            let a = trained(r, m, seed + 1, ParamKind::LoraA);
            let b = match i {
                1 => Trainable::Frozen(tensor(compute, n, r, seed + 2)),
                _ => trained(n, r, seed + 2, ParamKind::LoraB),
            };
            let initial = (r0 > 0).then(|| (tensor(compute, r0, m, seed + 3), tensor(compute, n, r0, seed + 4)));
            let dropout = Dropout::adapter(dropout, i as u64);
            linear.lora = Some(Lora { a, b, scaling: 0.75, bias: None, dropout, initial });
        }
        linear
    };
    (outputs.iter().enumerate().map(layer).collect(), params)
}

#[test]
fn layers_with_one_input() {
    let kinds: [(usize, usize, [Ranked; 3], f64); 6] = [
        (5, 16, [(8, [8, 0]), (16, [8, 0]), (24, [16, 0])], 0.0),
        (150, 136, [(264, [16, 0]), (136, [16, 16]), (8, [8, 8])], 0.0),
        (131, 520, [(16, [48, 0]), (40, [0, 0]), (128, [40, 24])], 0.0),
        (65, 72, [(72, [24, 8]), (136, [24, 8]), (256, [24, 8])], 0.0),
        // ranks, widths and dropout that each layer takes alone
        (9, 24, [(8, [3, 0]), (16, [8, 0]), (5, [2, 1])], 0.0),
        (9, 24, [(8, [8, 0]), (16, [8, 8]), (24, [16, 0])], 0.3),
    ];
    for (t, m, outputs, dropout) in kinds {
        let x = random(t, m, 1);
        let gradients: Vec<Tensor> = outputs.iter().zip(2..).map(|(&(n, _), seed)| random(t, n, seed)).collect();
        let before = random(t, m, 9);
        // with `beside_input` the projections go into columns that the input has to spare
        let run = |compute: Compute, accumulate: bool, beside_input: bool| {
            let (linears, mut params) = beside(compute, m, &outputs, dropout);
            let place = |t: &Tensor| if compute == Compute::F32 { t.copy() } else { on(compute, t) };
            let (x, mut dx) = (place(&x), place(&before));
            params.begin_pass(compute);
            let three = [&linears[0], &linears[1], &linears[2]];
            let spare = if beside_input { room(&three, &params, compute, Some(3)) } else { 0 };
            if beside_input {
                let taken = compute == Compute::CudaBf16 && m % 8 == 0 && t != 9;
                assert_eq!(spare > 0, taken, "room for ({t}, {m}) through {outputs:?} in {compute:?}");
            }
            let out = match spare {
                0 => forward_all(three, &params, &Operand::new(&x), Some(3)),
                _ => {
                    let of = |row: &[f32]| row.iter().copied().chain(vec![f32::NAN; spare]).collect::<Vec<_>>();
                    let values: Vec<f32> = x.to_f32_vec().chunks(m).flat_map(of).collect();
                    let wide = Tensor::from_f32(compute, t, m + spare, &values);
                    forward_all(three, &params, &Operand::new(&wide), Some(3))
                }
            };
            let mut gradients = gradients.iter().map(place);
            let mut ys = Vec::new();
            let mut dy = || gradients.next().expect("a gradient for each");
            let layers = three.map(|linear| (linear, dy()));
            let layers: Vec<_> = layers.into_iter().zip(out).collect();
            let layers: [_; 3] = layers
                .into_iter()
                .map(|((linear, dy), (y, saved))| {
                    ys.push(y);
                    (linear, saved, dy)
                })
                .collect::<Vec<_>>()
                .try_into()
                .unwrap_or_else(|_| unreachable!("three layers"));
            backward_all(&mut params, layers, &x, Some((&mut dx, accumulate)), Some(3));
            params.end_pass();
            ys.push(dx);
            ys.extend(params.iter().map(|p| p.grad.copy()));
            ys
        };
        for accumulate in [false, true] {
            let want = run(Compute::F32, accumulate, false);
            for (compute, beside_input) in GPU.into_iter().flat_map(|c| [(c, false), (c, true)]) {
                let got = run(compute, accumulate, beside_input);
                for (i, (g, w)) in got.iter().zip(&want).enumerate() {
                    close(&format!("number {i} of ({t}, {m}) through {outputs:?}"), compute, g, w);
                }
            }
        }
    }
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
