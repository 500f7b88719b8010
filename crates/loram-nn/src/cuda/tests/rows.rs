use super::{GPU, SHAPES, close, on, random};
use crate::Error;
use crate::compute::Compute;
use crate::model::parts::Embedding;
use crate::ops;
use crate::param::{Param, ParamKind, Params, Trainable};
use crate::tensor::Tensor;
use crate::weight::Weight;

#[test]
fn rows_go_out_and_come_back() {
    for (rows, cols) in SHAPES {
        let x = random(rows, cols, 1);
        let index: Vec<usize> = (0..rows).rev().step_by(2).collect();
        let more = random(index.len(), cols, 2);
        let mut want = x.copy();
        want.add_rows(&index, &more);
        for compute in GPU {
            let mut got = on(compute, &x);
            close("rows", compute, &got.gather_rows(&index), &x.gather_rows(&index));
            got.add_rows(&index, &on(compute, &more));
            close("rows, added", compute, &got, &want);
            let columns: Vec<u32> = (0..cols as u32).rev().step_by(3).collect();
            let picked = x.gather_columns(&columns);
            close("columns", compute, &on(compute, &x).gather_columns(&columns), &picked);
            let (mut want, mut got) = (x.copy(), on(compute, &x));
            want.add_columns(&columns, &picked);
            got.add_columns(&columns, &on(compute, &picked));
            close("columns, added", compute, &got, &want);
        }
    }
}

#[test]
fn means_of_sequences() {
    let lengths = [3, 1, 17, 0, 2];
    for cols in [1, 31, 300] {
        let (x, dy) = (random(23, cols, 1), random(lengths.len(), cols, 2));
        for compute in GPU {
            close("means", compute, &ops::mean_rows(&on(compute, &x), &lengths), &ops::mean_rows(&x, &lengths));
            let found = ops::mean_rows_backward(&on(compute, &dy), &lengths);
            close("gradients of means", compute, &found, &ops::mean_rows_backward(&dy, &lengths));
        }
    }
}

#[test]
fn embeddings() {
    let ids = [0, 6, 6, 2, 6, 0, 4];
    for cols in [1, 31, 300] {
        let (values, dy, before) = (random(7, cols, 1), random(ids.len(), cols, 2), random(ids.len(), cols, 3));
        for trained in [false, true] {
            let run = |compute: Compute, accumulate| {
                let mut params = Params::default();
                let weight = match trained {
                    false => Trainable::Frozen(Weight::from_f32(7, cols, values.f32s().to_vec())),
                    true => {
                        let value = Tensor::from_f32(compute.exact(), 7, cols, values.f32s());
                        Trainable::Param(params.add(Param::new("table".into(), ParamKind::Base, &[7, cols], value)))
                    }
                };
                let table = Embedding::new("table".into(), weight, None);
                let place = |t: &Tensor| if compute == Compute::F32 { t.copy() } else { on(compute, t) };
                let mut out = place(&before);
                table.forward(&params, &ids, &mut out, accumulate).unwrap();
                table.backward(&mut params, &ids, &place(&dy)).unwrap();
                let e = table.forward(&params, &[0, 7], &mut Tensor::scratch(compute, 2, cols), false).unwrap_err();
                assert!(matches!(e, Error::OutOfRange(o) if (o.index, o.value, o.limit) == (1, 7, 7)), "{e}");
                (out, params.iter().next().map(|p| p.grad.copy()))
            };
            for accumulate in [false, true] {
                let want = run(Compute::F32, accumulate);
                for compute in GPU {
                    let got = run(compute, accumulate);
                    close("embeddings", compute, &got.0, &want.0);
                    if let (Some(got), Some(want)) = (&got.1, &want.1) {
                        close("gradient of embeddings", compute, got, want);
                    }
                }
            }
        }
    }
}
