//! Attention against the same with whole matrices of scores.

use super::common::{any_threads, cases, close, data, dot, is_gradient, is_gradient_along, to_f64, tolerance};
use loram_nn::kernels::Real;
use loram_nn::kernels::attention::{AttnDropout, AttnShape, attention, attention_backward, attention_cached};
use proptest::prelude::*;

/// True when query `i` sees key `j`.
fn sees(s: &AttnShape, i: usize, j: usize) -> bool {
    match (s.causal, s.window) {
        (true, w) => j <= i && w.is_none_or(|w| i - j < w),
        (false, w) => w.is_none_or(|w| i.abs_diff(j) <= w),
    }
}

/// Factors on the weights of each token, head and key of its document (up to the longest one), read out of the kernel: equal
/// scores, and values that are 1 at one key each.
fn masks(lengths: &[usize], s: &AttnShape) -> Vec<f64> {
    let tokens = lengths.iter().sum::<usize>();
    let longest = lengths.iter().copied().max().unwrap_or(0).max(1);
    if s.dropout.is_none() {
        return vec![1.0; tokens * s.heads * longest];
    }
    let probe = AttnShape { kv_heads: s.heads, head_dim: longest, scale: 1.0, causal: false, window: None, ..*s };
    let zeros = vec![0.0; tokens * probe.q_width()];
    let mut v = zeros.clone();
    let positions = lengths.iter().flat_map(|&n| (0..n).map(move |j| (n, j)));
    for (row, (_, j)) in v.chunks_exact_mut(probe.q_width()).zip(positions.clone()) {
        (0..s.heads).for_each(|h| row[h * longest + j] = 1.0);
    }
    let mut o = forward(&zeros, &zeros, &v, lengths, &probe).0;
    for (row, (n, _)) in o.chunks_exact_mut(probe.q_width()).zip(positions) {
        row.iter_mut().for_each(|x| *x *= n as f64);
    }
    o
}

/// Output and logarithms of the denominators, one query after the other.
fn naive(q: &[f64], k: &[f64], v: &[f64], lengths: &[usize], s: &AttnShape) -> (Vec<f64>, Vec<f64>) {
    let d = s.head_dim;
    let (mut o, mut lse) = (vec![0.0; q.len()], Vec::new());
    let masks = masks(lengths, s);
    let longest = lengths.iter().copied().max().unwrap_or(0).max(1);
    let mut start = 0;
    for &n in lengths {
        for i in 0..n {
            for head in 0..s.heads {
                let at = ((start + i) * s.heads + head) * d;
                let kv = |j: usize| ((start + j) * s.kv_heads + head / (s.heads / s.kv_heads)) * d;
                let keys: Vec<usize> = (0..n).filter(|&j| sees(s, i, j)).collect();
                let cap = |x: f64| s.cap.map_or(x, |c| c * (x / c).tanh());
                let weight = |&j: &usize| cap(s.scale * dot(&q[at..at + d], &k[kv(j)..kv(j) + d])).exp();
                let weights: Vec<f64> = keys.iter().map(weight).collect();
                let total: f64 = weights.iter().sum();
                for (&j, w) in keys.iter().zip(weights) {
                    let w = w * masks[((start + i) * s.heads + head) * longest + j];
                    for p in 0..d {
                        o[at + p] += w / total * v[kv(j) + p];
                    }
                }
                lse.push(total.ln());
            }
        }
        start += n;
    }
    (o, lse)
}

/// Queries, keys, values and a gradient of the output.
fn inputs<T: Real>(tokens: usize, s: &AttnShape) -> [Vec<T>; 4] {
    let (qw, kw) = (tokens * s.q_width(), tokens * s.kv_width());
    [data(qw, 1), data(kw, 2), data(kw, 3), data(qw, 4)]
}

/// Memory that the kernels overwrite.
fn junk<T: Real>(n: usize) -> Vec<T> {
    vec![T::from_f64(f64::NAN); n]
}

fn forward<T: Real>(q: &[T], k: &[T], v: &[T], lengths: &[usize], s: &AttnShape) -> (Vec<T>, Vec<T>) {
    let (mut o, mut lse) = (junk(q.len()), junk(lengths.iter().sum::<usize>() * s.heads));
    attention(q, k, v, &mut o, &mut lse, lengths, s);
    (o, lse)
}

/// dq, dk and dv.
fn backward<T: Real>(x: &[Vec<T>; 4], lengths: &[usize], s: &AttnShape) -> Vec<T> {
    let [q, k, v, d_o] = x;
    let (o, lse) = forward(q, k, v, lengths, s);
    let (mut dq, mut dk, mut dv) = (junk(q.len()), junk(k.len()), junk(v.len()));
    attention_backward(q, k, v, &o, &lse, d_o, &mut dq, &mut dk, &mut dv, lengths, s);
    [dq, dk, dv].concat()
}

fn check<T: Real>(lengths: &[usize], s: &AttnShape) {
    let x @ [q, k, v, d_o] = &inputs::<T>(lengths.iter().sum(), s);
    let out = any_threads(|| {
        let (o, lse) = forward(q, k, v, lengths, s);
        [o, lse].concat()
    });
    let [qd, kd, vd, gd] = [q, k, v, d_o].map(|x| to_f64(x));
    let (o, lse) = naive(&qd, &kd, &vd, lengths, s);
    close(&out[..o.len()], &o, tolerance::<T>());
    // as denominators: logarithms may be all but 0, or −∞ for a query that sees nothing
    let denominators: Vec<f64> = out[o.len()..].iter().map(|l| l.to_f64().exp()).collect();
    close(&denominators, &lse.iter().map(|l| l.exp()).collect::<Vec<_>>(), tolerance::<T>());

    let grads = to_f64(&any_threads(|| backward(x, lengths, s)));
    if T::NAME == "f32" {
        // together: those of queries and keys may be all but 0
        return close(&grads, &backward(&[qd, kd, vd, gd], lengths, s), 1e-4);
    }
    let (dq, rest) = grads.split_at(q.len());
    let (dk, dv) = rest.split_at(k.len());
    let check = if q.len() < 60 { is_gradient } else { is_gradient_along };
    let loss = |q: &[f64], k: &[f64], v: &[f64]| dot(&naive(q, k, v, lengths, s).0, &gd);
    check(dq, &qd, &|q| loss(q, &kd, &vd));
    check(dk, &kd, &|k| loss(&qd, k, &vd));
    check(dv, &vd, &|v| loss(&qd, &kd, v));
}

fn shapes() -> impl Strategy<Value = AttnShape> {
    let window = prop::option::weighted(0.6, prop_oneof![0usize..9, 60usize..70, Just(usize::MAX)]);
    let dropout = prop::option::weighted(0.3, (0.0..1.0, any::<u64>()).prop_map(|(p, seed)| AttnDropout { p, seed }));
    let cap = prop::option::weighted(0.3, 0.5..4.0);
    (1usize..4, 1usize..4, 1usize..20, any::<bool>(), window, dropout, cap).prop_map(
        |(kv_heads, group, head_dim, causal, window, dropout, cap)| {
            let scale = 1.5 / (head_dim as f64).sqrt();
            AttnShape { heads: kv_heads * group, kv_heads, head_dim, scale, cap, causal, window, dropout }
        },
    )
}

proptest! {
    #![proptest_config(cases(80))]

    #[test]
    fn short_documents(lengths in prop::collection::vec(0usize..7, 0..5), s in shapes()) {
        check::<f32>(&lengths, &s);
        check::<f64>(&lengths, &s);
    }
}

proptest! {
    #![proptest_config(cases(16))]

    /// More than one tile of queries and of keys.
    #[test]
    fn long_documents(lengths in prop::collection::vec(0usize..180, 1..4), s in shapes()) {
        check::<f32>(&lengths, &s);
        check::<f64>(&lengths, &s);
    }

    #[test]
    fn decoding_is_the_end_of_a_whole_pass(queries in 0usize..80, before in 0usize..100, s in shapes()) {
        let s = AttnShape { dropout: None, ..s };
        cached::<f32>(queries, before, &s);
        cached::<f64>(queries, before, &s);
    }
}

#[test]
fn dropout_keeps_its_share_and_differs_between_places() {
    let (lengths, p) = ([150, 90], 0.3);
    let with = |seed| AttnShape { dropout: Some(AttnDropout { p, seed }), ..WIDE };
    let masks = |seed| masks(&lengths, &with(seed));
    let mask = masks(5);
    let first = &mask[..150 * WIDE.heads * 150];
    let dropped = first.iter().filter(|&&x| x == 0.0).count() as f64 / first.len() as f64;
    assert!((dropped - p).abs() < 0.01, "{dropped}");
    assert!(first.iter().all(|&x| x == 0.0 || (x - 1.0 / (1.0 - p)).abs() < 1e-12));
    // of unrelated masks 0.3² + 0.7² of the places agree
    let unrelated = |a: &[f64], b: &[f64]| {
        let same = a.iter().zip(b).filter(|(a, b)| (**a == 0.0) == (**b == 0.0)).count() as f64 / a.len() as f64;
        assert!((same - 0.58).abs() < 0.02, "{same}");
    };
    unrelated(first, &masks(6)[..first.len()]);
    let rows: Vec<&[f64]> = first.chunks_exact(150).collect();
    let of = |pick: &dyn Fn(usize) -> bool| {
        (0..rows.len()).filter(|&i| pick(i)).flat_map(|i| rows[i].to_vec()).collect::<Vec<f64>>()
    };
    unrelated(&of(&|i| i % 4 == 0), &of(&|i| i % 4 == 1));
    unrelated(&of(&|i| i < 300), &of(&|i| i >= 300));
    assert_eq!(mask, masks(5));
}

/// New queries against a cache: the last rows of the whole attention.
fn cached<T: Real>(queries: usize, before: usize, s: &AttnShape) {
    let n = before + queries;
    let [q, k, v, _] = inputs::<T>(n, s);
    let want = naive(&to_f64(&q), &to_f64(&k), &to_f64(&v), &[n], s).0;
    let from = before * s.q_width();
    let got = any_threads(|| {
        let mut o = junk(q.len() - from);
        attention_cached(&q[from..], vec![((&k, &v), queries)], &mut o, None, s);
        o
    });
    close(&got, &want[from..], tolerance::<T>());
}

const WIDE: AttnShape = AttnShape {
    heads: 4,
    kv_heads: 2,
    head_dim: 32,
    scale: 0.18,
    cap: None,
    causal: true,
    window: None,
    dropout: None,
};

#[test]
fn every_way_to_share_the_work() {
    // one long document leaves threads idle unless its gradients are computed apart, several even ones do not
    let ways: [(&[usize], AttnShape); 6] = [
        (&[300], AttnShape { heads: 1, kv_heads: 1, ..WIDE }),
        (&[300], AttnShape { heads: 7, kv_heads: 1, causal: false, ..WIDE }),
        (&[290, 3, 0, 40], AttnShape { window: Some(70), ..WIDE }),
        (&[257, 1], AttnShape { window: Some(0), ..WIDE }),
        (&[257, 129], AttnShape { window: Some(64), causal: false, ..WIDE }),
        (&[64, 128, 64, 128], WIDE),
    ];
    for (lengths, s) in ways {
        check::<f32>(lengths, &s);
        check::<f64>(lengths, &s);
    }
}

#[test]
fn decoding_on_several_threads() {
    for window in [None, Some(100)] {
        for queries in [1, 4, 5, 130] {
            cached::<f32>(queries, 2000, &AttnShape { window, ..WIDE });
        }
    }
}

#[test]
fn documents_do_not_see_each_other() {
    let lengths = [5, 70, 1, 66];
    let [q, k, v, _] = inputs::<f32>(142, &WIDE);
    let packed = forward(&q, &k, &v, &lengths, &WIDE).0;
    let mut alone = Vec::new();
    let mut at = 0;
    for n in lengths {
        let (w, kw) =
            (at * WIDE.q_width()..(at + n) * WIDE.q_width(), at * WIDE.kv_width()..(at + n) * WIDE.kv_width());
        alone.extend(forward(&q[w], &k[kw.clone()], &v[kw], &[n], &WIDE).0);
        at += n;
    }
    assert_eq!(packed, alone);
}

#[test]
fn large_scores_do_not_overflow() {
    // scores of hundreds, whose exponentials f32 does not have
    let s = AttnShape { scale: 40.0, ..WIDE };
    let [q, k, v, g] = inputs::<f32>(100, &s);
    let wide = [&q, &k, &v, &g].map(|x| to_f64(x));
    let exact = forward(&wide[0], &wide[1], &wide[2], &[100], &s);
    let (o, lse) = forward(&q, &k, &v, &[100], &s);
    close(&o, &exact.0, 1e-4);
    close(&lse, &exact.1, 1e-6);
    assert!(lse.iter().any(|&l| l > 90.0));
    assert!(backward(&[q, k, v, g], &[100], &s).iter().all(|x| x.is_finite()));
}

#[test]
#[should_panic(expected = "3 heads over 2 key heads")]
fn heads_that_do_not_divide() {
    let s = AttnShape { heads: 3, ..WIDE };
    let [q, k, v, _] = inputs::<f32>(1, &s);
    forward(&q, &k, &v, &[1], &s);
}

#[test]
#[should_panic(expected = "2 queries among 1 keys")]
fn more_queries_than_keys() {
    let [q, k, v, _] = inputs::<f32>(2, &WIDE);
    let half = WIDE.kv_width();
    attention_cached(&q, vec![((&k[..half], &v[..half]), 2)], &mut junk(q.len()), None, &WIDE);
}
