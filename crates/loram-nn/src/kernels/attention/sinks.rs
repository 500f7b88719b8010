//! Sinks: a score of each head that takes its share of the softmax and adds nothing to the output (2309.17453, gpt-oss).

use super::super::{
    Real,
    par::{RowsMut, for_rows},
};

/// The output o (t × heads·d) and the logarithms of denominators `lse` (t × heads) of an attention, as they are with the scores `sinks`
/// (heads) beside those of the keys. The backward pass needs no more than these.
pub fn add_sinks<T: Real>(o: &mut [T], lse: &mut [T], sinks: &[T], d: usize) {
    let heads = sinks.len();
    let rows = lse.len() / heads.max(1);
    assert_eq!((lse.len(), o.len()), (rows * heads, rows * heads * d), "add_sinks");
    for_rows((RowsMut(o, heads * d), RowsMut(lse, heads)), rows, heads * d, |(o, lse), _| {
        let all = o.0.chunks_exact_mut(d.max(1)).zip(lse.0.iter_mut()).zip(sinks.iter().cycle());
        for ((o, lse), &sink) in all {
            let over = sink - *lse;
            let share = T::ONE / (T::ONE + over.exp());
            o.iter_mut().for_each(|x| *x *= share);
            // ln(eᵃ + eᵇ) from the larger one
            *lse =
                if over > T::ZERO { sink + (T::ONE + (-over).exp()).ln() } else { *lse + (T::ONE + over.exp()).ln() };
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_is_a_key_whose_value_is_zero() {
        let scores = [0.3f64, -1.2, 2.0];
        let values = [1.0, -2.0, 0.5];
        for sink in [-50.0, -1.0, 0.0, 3.0, 60.0, 800.0] {
            let total: f64 = scores.iter().map(|s| s.exp()).sum();
            let mut o = [scores.iter().zip(values).map(|(s, v)| s.exp() * v).sum::<f64>() / total];
            let mut lse = [total.ln()];
            add_sinks(&mut o, &mut lse, &[sink], 1);
            let top = scores.iter().copied().fold(sink, f64::max);
            let all: f64 = scores.iter().map(|s| (s - top).exp()).sum::<f64>() + (sink - top).exp();
            let want = scores.iter().zip(values).map(|(s, v)| (s - top).exp() * v).sum::<f64>() / all;
            assert!((o[0] - want).abs() < 1e-12 && (lse[0] - (top + all.ln())).abs() < 1e-12, "{sink}");
        }
    }
}
