//! From logits to the next token.

use crate::metrics::argmax;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::collections::BTreeSet;

/// How the next token is chosen, with transformers' meanings.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 means greedy: always the most likely token.
    pub temperature: f64,
    /// Keep the most likely tokens up to this share of the probability; 1 keeps all.
    pub top_p: f64,
    /// Keep this many of the most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Divides positive and multiplies negative logits of tokens that occurred, prompt included; 1 changes nothing.
    pub repetition_penalty: f64,
    /// Seed of the choices.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Sampling {
        Sampling { temperature: 0.0, top_p: 1.0, top_k: 0, repetition_penalty: 1.0, seed: 42 }
    }
}

impl Sampling {
    /// Returns the name of a setting that is out of its range, and its range.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return Err(("temperature", "0 or more"));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(("top_p", "above 0, up to 1"));
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite()) {
            return Err(("repetition_penalty", "above 0"));
        }
        Ok(())
    }
}

/// Chooses tokens one after another.
pub struct Sampler {
    how: Sampling,
    rng: ChaCha8Rng,
}

impl Sampler {
    /// A sampler at its first choice.
    pub fn new(how: &Sampling) -> Sampler {
        Sampler { how: how.clone(), rng: ChaCha8Rng::seed_from_u64(how.seed) }
    }

    /// The next token. `seen` are the tokens so far; the logits are changed.
    pub fn next(&mut self, logits: &mut [f32], seen: &[u32]) -> u32 {
        let penalty = self.how.repetition_penalty as f32;
        if penalty != 1.0 {
            for id in seen.iter().collect::<BTreeSet<_>>() {
                if let Some(x) = logits.get_mut(*id as usize) {
                    *x = if *x < 0.0 { *x * penalty } else { *x / penalty };
                }
            }
        }
        if self.how.temperature == 0.0 {
            return argmax(logits) as u32;
        }
        let mut kept = self.candidates(logits);
        // probabilities of what is left, most likely first
        let total: f64 = kept.iter().map(|k| k.1).sum();
        let mut at = (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64 * total;
        let last = kept.pop();
        for (id, p) in kept {
            if at < p {
                return id;
            }
            at -= p;
        }
        last.map_or(0, |k| k.0)
    }

    /// Tokens that pass top-k and then top-p, as transformers' warpers in their order, with their unnormalised
    /// probabilities, most likely first.
    fn candidates(&self, logits: &[f32]) -> Vec<(u32, f64)> {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let scale = 1.0 / self.how.temperature;
        let p = |x: f32| ((f64::from(x) - f64::from(max)) * scale).exp();
        let mut all: Vec<(u32, f64)> = logits.iter().enumerate().map(|(i, &x)| (i as u32, p(x))).collect();
        let order = |a: &(u32, f64), b: &(u32, f64)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        let k = self.how.top_k;
        if k > 0 && k < all.len() {
            all.select_nth_unstable_by(k - 1, order);
            all.truncate(k);
        }
        all.sort_unstable_by(order);
        if self.how.top_p < 1.0 {
            let limit = self.how.top_p * all.iter().map(|k| k.1).sum::<f64>();
            let mut sum = 0.0;
            // a token stays while those before it have not reached the share; the first always stays
            let keep = all.iter().take_while(|k| {
                let stays = sum < limit;
                sum += k.1;
                stays
            });
            let keep = keep.count().max(1);
            all.truncate(keep);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(how: Sampling, logits: &[f32]) -> Vec<u32> {
        Sampler::new(&how).candidates(logits).iter().map(|k| k.0).collect()
    }

    #[test]
    fn greedy_takes_the_most_likely() {
        let mut s = Sampler::new(&Sampling::default());
        assert_eq!(s.next(&mut [0.0, 2.0, 1.0], &[]), 1);
        let mut s = Sampler::new(&Sampling { repetition_penalty: 3.0, ..Sampling::default() });
        assert_eq!(s.next(&mut [0.0, 2.0, 1.0], &[1, 1]), 2, "2/3 < 1");
        assert_eq!(s.next(&mut [-1.0, -2.0, -1.5], &[0]), 2, "-1·3 < -1.5");
    }

    #[test]
    fn filters_keep_what_they_should() {
        let logits = [(0.5f32).ln(), (0.1f32).ln(), (0.3f32).ln(), (0.1f32).ln()];
        let how = |top_k, top_p| Sampling { temperature: 1.0, top_k, top_p, ..Sampling::default() };
        assert_eq!(kept(how(0, 1.0), &logits), [0, 2, 1, 3]);
        assert_eq!(kept(how(2, 1.0), &logits), [0, 2]);
        assert_eq!(kept(how(0, 0.49), &logits), [0]);
        assert_eq!(kept(how(0, 0.7), &logits), [0, 2]);
        assert_eq!(kept(how(0, 0.0), &logits), [0]);
        // top-p acts on what top-k left: 0.5/0.8 = 0.625
        assert_eq!(kept(how(2, 0.6), &logits), [0]);
    }

    #[test]
    fn frequencies_follow_the_probabilities() {
        let logits = [(0.6f32).ln(), (0.3f32).ln(), (0.1f32).ln()];
        let mut s = Sampler::new(&Sampling { temperature: 1.0, ..Sampling::default() });
        let mut count = [0usize; 3];
        for _ in 0..20_000 {
            count[s.next(&mut logits.clone(), &[]) as usize] += 1;
        }
        for (c, p) in count.iter().zip([0.6, 0.3, 0.1]) {
            assert!((*c as f64 / 20_000.0 - p).abs() < 0.015, "{count:?}");
        }
        let run = |seed| {
            let mut s = Sampler::new(&Sampling { temperature: 1.0, seed, ..Sampling::default() });
            (0..20).map(|_| s.next(&mut logits.clone(), &[])).collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }
}
