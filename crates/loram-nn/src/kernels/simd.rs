//! Run-time choice of vector instructions, and the few vector loops that compilers do not find by themselves.

use super::Real;

/// Run `f` compiled for the widest vector unit of this machine (AVX-512, AVX2+FMA, or the target's baseline).
///
/// Only what is inlined into `f` profits: loop bodies are `#[inline(always)]`.
#[inline(always)]
pub fn simd<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}

/// Partial sums in a reduction. A constant, so that sums have the same bits on every vector width.
pub(super) const LANES: usize = 32;

#[inline(always)]
pub(super) fn total<T: Real>(acc: [T; LANES]) -> T {
    // no index is a variable: with one, the compiler keeps the sums in memory, and adds them one by one
    macro_rules! halve {
        ($acc:ident, $n:literal) => {{
            let mut half = [T::ZERO; $n];
            for i in 0..$n {
                half[i] = $acc[i] + $acc[i + $n];
            }
            half
        }};
    }
    let acc = halve!(acc, 16);
    let acc = halve!(acc, 8);
    let acc = halve!(acc, 4);
    let acc = halve!(acc, 2);
    acc[0] + acc[1]
}

/// Σ aᵢ.
#[inline(always)]
pub fn sum<T: Real>(a: &[T]) -> T {
    let mut acc = [T::ZERO; LANES];
    let (chunks, rest) = a.as_chunks::<LANES>();
    for c in chunks {
        for l in 0..LANES {
            acc[l] += c[l];
        }
    }
    for (s, &x) in acc.iter_mut().zip(rest) {
        *s += x;
    }
    total(acc)
}

/// Σ aᵢ·bᵢ.
#[inline(always)]
pub fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    let mut acc = [T::ZERO; LANES];
    let ((ac, ar), (bc, br)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (x, y) in ac.iter().zip(bc) {
        for l in 0..LANES {
            acc[l] = x[l].mul_add(y[l], acc[l]);
        }
    }
    // filled up with zeros: a loop over some of the sums would keep all of them in memory
    let (mut x, mut y) = ([T::ZERO; LANES], [T::ZERO; LANES]);
    x[..ar.len()].copy_from_slice(ar);
    y[..br.len().min(ar.len())].copy_from_slice(&br[..br.len().min(ar.len())]);
    for l in 0..LANES {
        acc[l] = x[l].mul_add(y[l], acc[l]);
    }
    total(acc)
}

/// Σ aᵢ·bᵢ·cᵢ.
#[inline(always)]
pub fn dot3<T: Real>(a: &[T], b: &[T], c: &[T]) -> T {
    let mut acc = [T::ZERO; LANES];
    let ((ac, ar), (bc, br), (cc, cr)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>(), c.as_chunks::<LANES>());
    for ((x, y), z) in ac.iter().zip(bc).zip(cc) {
        for l in 0..LANES {
            acc[l] = (x[l] * y[l]).mul_add(z[l], acc[l]);
        }
    }
    for (s, ((&x, &y), &z)) in acc.iter_mut().zip(ar.iter().zip(br).zip(cr)) {
        *s = (x * y).mul_add(z, *s);
    }
    total(acc)
}

/// Σ (aᵢ − m)².
#[inline(always)]
pub fn centred_square_sum<T: Real>(a: &[T], m: T) -> T {
    let mut acc = [T::ZERO; LANES];
    let (chunks, rest) = a.as_chunks::<LANES>();
    for c in chunks {
        for l in 0..LANES {
            let d = c[l] - m;
            acc[l] = d.mul_add(d, acc[l]);
        }
    }
    for (s, &x) in acc.iter_mut().zip(rest) {
        let d = x - m;
        *s = d.mul_add(d, *s);
    }
    total(acc)
}

/// Largest element; −∞ for none. NaN elements are passed over.
#[inline(always)]
pub fn max<T: Real>(a: &[T]) -> T {
    let mut acc = [T::NEG_INFINITY; LANES];
    let (chunks, rest) = a.as_chunks::<LANES>();
    for c in chunks {
        for l in 0..LANES {
            acc[l] = c[l].max_of(acc[l]);
        }
    }
    for (s, &x) in acc.iter_mut().zip(rest) {
        *s = x.max_of(*s);
    }
    acc.into_iter().fold(T::NEG_INFINITY, |m, x| x.max_of(m))
}

/// aᵢ ← exp(aᵢ − m); gives Σ aᵢ.
#[inline(always)]
pub fn exp_sum<T: Real>(a: &mut [T], m: T) -> T {
    let mut acc = [T::ZERO; LANES];
    let (chunks, rest) = a.as_chunks_mut::<LANES>();
    for c in chunks {
        for l in 0..LANES {
            c[l] = (c[l] - m).exp();
            acc[l] += c[l];
        }
    }
    for (s, x) in acc.iter_mut().zip(rest) {
        *x = (*x - m).exp();
        *s += *x;
    }
    total(acc)
}
