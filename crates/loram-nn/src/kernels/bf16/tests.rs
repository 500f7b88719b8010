use super::*;
use crate::kernels::gemm::{View, ViewMut};
use half::{bf16, f16};
use loram_core::{
    BlockScales, FourBit, FourBitType, Q4_1, Q4K, Q6K, RowOrder, ScaledFloat8, StoredWeight, ValueType, WeightFormat,
};
use std::sync::Arc;

/// Small integers, whose products and sums are exact in f32.
fn integers(len: usize, seed: u32) -> Vec<f32> {
    (0..len as u32).map(|i| (i.wrapping_add(seed).wrapping_mul(2_654_435_761) >> 20) as f32 % 7.0 - 3.0).collect()
}

fn kernels() -> Vec<Kernel> {
    let all: Vec<Kernel> = Kernel::ALL.into_iter().filter(|k| k.available()).collect();
    if all.is_empty() {
        eprintln!("skipped: this processor has no instructions for bf16");
    }
    all
}

fn stored(values: &[f32], number: Number) -> Vec<u8> {
    match number {
        Number::Bf16 => values.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect(),
        Number::F16 => values.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect(),
        Number::F32(_) => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
    }
}

/// All edges of tiles, panels, blocks and packed pieces.
#[test]
fn products_of_integers_are_exact() {
    let shapes = [
        (1, 1, 1),
        (2, 3, 2),
        (16, 16, 32),
        (31, 33, 65),
        (32, 32, 32),
        (33, 31, 31),
        (64, 64, 64),
        (100, 70, 97),
        (34, 2090, 40),
        (7, 40, 5000),
        (520, 270, 33),
    ];
    for kernel in kernels() {
        for (t, n, k) in shapes {
            for number in [Number::Bf16, Number::F16, Number::F32(1.0)] {
                for (transposed, accumulate) in [(true, false), (true, true), (false, false), (false, true)] {
                    let (x, w, old) = (integers(t * k, 1), integers(n * k, 5), integers(t * n, 9));
                    let (low_x, b) = (integers(t * 3, 4), integers(n * 3, 2));
                    // rows of the output with a gap, and bytes without alignment
                    let gap = 5;
                    let mut c = vec![f32::NAN; t * (n + gap)];
                    for (c, old) in c.chunks_exact_mut(n + gap).zip(old.chunks_exact(n)) {
                        if accumulate {
                            c[..n].copy_from_slice(old);
                        }
                    }
                    let mut bytes = stored(&w, number);
                    bytes.insert(0, 0xff);
                    let (rows, cols) = if transposed { (n, k) } else { (k, n) };
                    let matrix = Matrix::new(&bytes[1..], number, rows, cols);
                    let (x_rounded, h) = (Rounded::new(View::new(&x, t, k)), Rounded::new(View::new(&low_x, t, 3)));
                    let low = Right::Transposed(Matrix::of(View::new(&b, n, 3), 2.0));
                    let out = ViewMut::with_stride(&mut c, t, n, n + gap);
                    let right = if transposed { Right::Transposed(matrix) } else { Right::Plain(matrix) };
                    product(kernel, out, accumulate, &x_rounded, right, &[LowRank { x: &h, w: low }]);
                    for i in 0..t {
                        for j in 0..n {
                            let weight = |p: usize| if transposed { w[j * k + p] } else { w[p * n + j] };
                            let sum: f64 = (0..k).map(|p| f64::from(x[i * k + p]) * f64::from(weight(p))).sum();
                            let low: f64 = (0..3).map(|p| f64::from(low_x[i * 3 + p]) * f64::from(b[j * 3 + p])).sum();
                            let old = if accumulate { f64::from(old[i * n + j]) } else { 0.0 };
                            let found = f64::from(c[i * (n + gap) + j]);
                            let what = format!("{kernel:?} {number:?} ({t}, {n}, {k}) {transposed} {accumulate}");
                            assert_eq!(found, old + sum + 2.0 * low, "{what}: ({i}, {j})");
                        }
                        assert!(c[i * (n + gap) + n..(i + 1) * (n + gap)].iter().all(|x| x.is_nan()), "gaps stay");
                    }
                }
            }
        }
    }
}

/// Gᵀ·X, as gradients of factors are computed, on top of a product without inner indices.
#[test]
fn products_of_transposes_are_exact() {
    for kernel in kernels() {
        for (t, r, m) in [(1, 1, 1), (33, 5, 40), (64, 16, 64), (70, 35, 100), (1500, 16, 33)] {
            let (g, x, old) = (integers(t * r, 1), integers(t * m, 2), integers(r * m, 3));
            let left = Rounded::transposed(View::new(&g, t, r));
            let right = Rounded::new(View::new(&x, t, m));
            let nothing = Rounded::new(View::new(&[], r, 0));
            let none = Right::Plain(Matrix::of(View::new(&[], 0, m), 1.0));
            let mut c = old.clone();
            let extra = [LowRank { x: &left, w: Right::Rounded(&right) }];
            product(kernel, ViewMut::new(&mut c, r, m), true, &nothing, none, &extra);
            for i in 0..r {
                for j in 0..m {
                    let sum: f64 = (0..t).map(|p| f64::from(g[p * r + i]) * f64::from(x[p * m + j])).sum();
                    let want = f64::from(old[i * m + j]) + sum;
                    assert_eq!(f64::from(c[i * m + j]), want, "{kernel:?} ({t}, {r}, {m}): ({i}, {j})");
                }
            }
        }
    }
}

fn product_of(kernel: Kernel, x: &[f32], w: &[u8], (t, n, k): (usize, usize, usize), transposed: bool) -> Vec<f32> {
    let mut c = vec![0.0; t * n];
    let (rows, cols) = if transposed { (n, k) } else { (k, n) };
    let matrix = Matrix::new(w, Number::Bf16, rows, cols);
    let rounded = Rounded::new(View::new(x, t, k));
    let right = if transposed { Right::Transposed(matrix) } else { Right::Plain(matrix) };
    product(kernel, ViewMut::new(&mut c, t, n), false, &rounded, right, &[]);
    c
}

fn fractions(len: usize, seed: u32) -> Vec<f32> {
    let bits = |i: u32| i.wrapping_add(seed).wrapping_mul(2_654_435_761) ^ 0x5bd1_e995;
    (0..len as u32).map(|i| (bits(i) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let pool = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
    for kernel in kernels() {
        for shape @ (t, n, k) in [(70, 100, 200), (260, 300, 1200), (40, 2200, 700)] {
            for transposed in [true, false] {
                let (x, w) = (fractions(t * k, 1), stored(&fractions(n * k, 2), Number::Bf16));
                let one = pool(1).install(|| product_of(kernel, &x, &w, shape, transposed));
                for threads in [2, 3, 8] {
                    let many = pool(threads).install(|| product_of(kernel, &x, &w, shape, transposed));
                    assert!(one == many, "{kernel:?} {shape:?} with {threads} threads");
                }
                // a row does not depend on those beside it
                let few = product_of(kernel, &x[..3 * k], &w, (3, n, k), transposed);
                assert!(few == one[..3 * n], "{kernel:?} {shape:?}: rows on their own");
            }
        }
    }
}

/// The left operand is rounded to nearest even, and sums have the precision of f32.
#[test]
fn fractions_are_rounded_once() {
    for kernel in kernels() {
        let (t, n, k) = (50, 60, 700);
        let (x, w) = (fractions(t * k, 1), fractions(n * k, 2));
        let c = product_of(kernel, &x, &stored(&w, Number::Bf16), (t, n, k), true);
        let round = |x: f32| bf16::from_f32(x).to_f64();
        for i in 0..t {
            for j in 0..n {
                let terms: Vec<f64> = (0..k).map(|p| round(x[i * k + p]) * round(w[j * k + p])).collect();
                let (want, size) = (terms.iter().sum::<f64>(), terms.iter().map(|x| x.abs()).sum::<f64>());
                let error = (f64::from(c[i * n + j]) - want).abs();
                assert!(error < 1e-5 * size, "{kernel:?} ({i}, {j}): {} instead of {want}", c[i * n + j]);
            }
        }
    }
}

#[test]
fn numbers_beyond_bf16_and_nan_stay_so() {
    for kernel in kernels() {
        let mut x = vec![1.0; 40];
        let w = stored(&[1.0; 40], Number::Bf16);
        for (value, want) in
            [(f32::INFINITY, f32::INFINITY), (f32::MAX, f32::INFINITY), (f32::MIN_POSITIVE / 2.0, 39.0)]
        {
            x[7] = value;
            assert_eq!(product_of(kernel, &x, &w, (1, 1, 40), true), [want], "{kernel:?} {value}");
        }
        x[7] = f32::NAN;
        assert!(product_of(kernel, &x, &w, (1, 1, 40), true)[0].is_nan(), "{kernel:?}");
    }
}

/// Blocks of random integers, with small numbers in half precision `halves` bytes into each.
fn blocks(format: &dyn WeightFormat, values: usize, halves: &[usize]) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        (0..format.bytes_of(values) as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 21) as u8).collect();
    for (i, block) in bytes.chunks_exact_mut(format.block_bytes()).enumerate() {
        for &at in halves {
            block[at..at + 2].copy_from_slice(&f16::from_f32(0.01 + (i % 7) as f32 * 0.003).to_le_bytes());
        }
    }
    bytes
}

/// A weight that is decoded on the way into the panels gives the bits of its values stored plainly.
#[test]
fn decoded_weights_are_multiplied_as_their_values_are() {
    let scales: Vec<u8> = (0..50_000).flat_map(|i| (0.01 + (i % 7) as f32 * 0.003).to_le_bytes()).collect();
    let nf4 = FourBit::new(FourBitType::Nf4, 64, ValueType::F32, BlockScales::F32(Arc::new(scales)));
    let formats: [(&dyn WeightFormat, &[usize]); 4] = [(&Q4_1, &[0, 2]), (&Q4K, &[0, 2]), (&Q6K, &[208]), (&nf4, &[])];
    for kernel in kernels() {
        for (format, halves) in formats {
            let block = format.block_values();
            // columns of the weight in blocks; the last one has more inner indices than are packed at a time
            for (t, rows, cols) in
                [(3, 32, block), (33, 70, 5 * block), (2, 40, 5120), (5, 2100, block), (1, 1300, 2304)]
            {
                let bytes = blocks(format, rows * cols, halves);
                for order in [RowOrder::Plain, RowOrder::Interleaved { head_dim: 2 }] {
                    let w = StoredWeight::new(format, &bytes[..], rows, cols).with_order(order);
                    let values = w.to_vec();
                    let plain = Matrix::of(View::new(&values, rows, cols), 1.0);
                    for (n, k, pair) in [
                        (rows, cols, [Right::StoredTransposed(w), Right::Transposed(plain)]),
                        (cols, rows, [Right::Stored(w), Right::Plain(plain)]),
                    ] {
                        let x = Rounded::new(View::new(&integers(t * k, 3), t, k));
                        let [found, want] = pair.map(|right| {
                            let mut c = vec![f32::NAN; t * n];
                            product(kernel, ViewMut::new(&mut c, t, n), false, &x, right, &[]);
                            c
                        });
                        assert!(found == want, "{kernel:?} {} ({t}, {n}, {k}) {order:?}", format.name());
                    }
                }
            }
        }
    }
}

/// Blocks of scales in both dimensions, which tiles cut anywhere.
#[test]
fn float8_is_multiplied_as_its_values_are() {
    for kernel in kernels() {
        for (t, rows, cols, block) in
            [(3, 70usize, 300usize, (32, 48)), (5, 64, 512, (64, 512)), (2, 33, 1000, (1, 1000))]
        {
            let scales = (0..rows.div_ceil(block.0) * cols.div_ceil(block.1)).map(|i| 0.5 + (i % 5) as f32 * 0.125);
            let format = ScaledFloat8::new((rows, cols), block, scales.collect(), ValueType::F32);
            // no NaN
            let bytes: Vec<u8> = blocks(&format, rows * cols, &[]).into_iter().map(|x| x & 0xf7).collect();
            let w = StoredWeight::new(&format, &bytes[..], rows, cols);
            let values = w.to_vec();
            let plain = Matrix::of(View::new(&values, rows, cols), 1.0);
            for (n, k, pair) in [
                (rows, cols, [Right::StoredTransposed(w), Right::Transposed(plain)]),
                (cols, rows, [Right::Stored(w), Right::Plain(plain)]),
            ] {
                let x = Rounded::new(View::new(&integers(t * k, 3), t, k));
                let [found, want] = pair.map(|right| {
                    let mut c = vec![f32::NAN; t * n];
                    product(kernel, ViewMut::new(&mut c, t, n), false, &x, right, &[]);
                    c
                });
                assert!(found == want, "{kernel:?} ({t}, {n}, {k})");
            }
        }
    }
}
