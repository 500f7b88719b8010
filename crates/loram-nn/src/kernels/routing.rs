//! Routing of tokens to experts: which ones a token goes to, their weights, and the gradient of these.

use rayon::prelude::*;

/// How weights follow from the outputs of a router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Routes {
    /// Experts of a block.
    pub count: usize,
    /// Experts that a token goes to: those with the largest outputs, of equal ones the first.
    pub per_token: usize,
    /// The weights of the chosen experts are the softmax over their outputs; otherwise that over all outputs.
    pub normalised: bool,
}

/// The tokens of one expert.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Group {
    /// Rows of the tokens, ascending.
    pub tokens: Vec<usize>,
    /// The weight of the expert for each of them.
    pub weights: Vec<f64>,
}

/// The routes of all tokens of a pass.
#[derive(Debug, Clone, PartialEq)]
pub struct Routing {
    /// The tokens of each expert.
    pub groups: Vec<Group>,
    /// Softmax over all outputs (t, count); empty where weights are normalised.
    probabilities: Vec<f64>,
}

/// The softmax of some numbers, in place.
fn softmax(x: &mut [f64]) {
    let top = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    x.iter_mut().for_each(|x| *x = (*x - top).exp());
    let total: f64 = x.iter().sum();
    x.iter_mut().for_each(|x| *x /= total);
}

impl Routes {
    /// The places of the largest outputs, the largest first.
    fn choose(&self, outputs: &[f64]) -> Vec<usize> {
        let mut all: Vec<usize> = (0..self.count).collect();
        all.sort_by(|&i, &j| outputs[j].total_cmp(&outputs[i]).then(i.cmp(&j)));
        all.truncate(self.per_token);
        all
    }

    /// The routes that follow from a router's outputs (t, count).
    pub fn route(&self, outputs: &[f64]) -> Routing {
        assert!(
            self.per_token <= self.count && outputs.len().is_multiple_of(self.count),
            "outputs of {} experts",
            self.count
        );
        let of = |outputs: &[f64]| {
            let chosen = self.choose(outputs);
            let mut weights: Vec<f64> = chosen.iter().map(|&e| outputs[e]).collect();
            let mut all = Vec::new();
            match self.normalised {
                true => softmax(&mut weights),
                false => {
                    all = outputs.to_vec();
                    softmax(&mut all);
                    weights = chosen.iter().map(|&e| all[e]).collect();
                }
            }
            (chosen, weights, all)
        };
        let tokens: Vec<_> = outputs.par_chunks_exact(self.count).map(of).collect();
        let mut routing = Routing { groups: vec![Group::default(); self.count], probabilities: Vec::new() };
        for (t, (chosen, weights, all)) in tokens.into_iter().enumerate() {
            for (e, w) in chosen.into_iter().zip(weights) {
                routing.groups[e].tokens.push(t);
                routing.groups[e].weights.push(w);
            }
            routing.probabilities.extend(all);
        }
        routing
    }

    /// The gradient (t, count) of the outputs of `tokens` tokens, from that of the weights: `gradients` has one for every token of each
    /// group.
    pub fn backward(&self, routing: &Routing, gradients: &[Vec<f64>], tokens: usize) -> Vec<f64> {
        let n = self.count;
        // Σ w·dw of each token
        let mut sums = vec![0.0; tokens];
        let mut out = vec![0.0; tokens * n];
        for (e, (group, gradients)) in routing.groups.iter().zip(gradients).enumerate() {
            assert_eq!(group.tokens.len(), gradients.len(), "gradients of expert {e}");
            for ((&t, w), g) in group.tokens.iter().zip(&group.weights).zip(gradients) {
                sums[t] += w * g;
                out[t * n + e] = w * g;
            }
        }
        if self.normalised {
            for (e, group) in routing.groups.iter().enumerate() {
                for (&t, w) in group.tokens.iter().zip(&group.weights) {
                    out[t * n + e] -= w * sums[t];
                }
            }
            return out;
        }
        out.par_chunks_exact_mut(n).zip(routing.probabilities.par_chunks_exact(n)).zip(&sums).for_each(
            |((out, p), sum)| {
                out.iter_mut().zip(p).for_each(|(x, p)| *x -= p * sum);
            },
        );
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outputs(tokens: usize, count: usize) -> Vec<f64> {
        (0..tokens * count).map(|i| ((i * 7919 + 13) % 1009) as f64 / 250.0 - 2.0).collect()
    }

    #[test]
    fn weights_are_those_of_the_largest_outputs() {
        for normalised in [false, true] {
            let routes = Routes { count: 5, per_token: 2, normalised };
            let x = outputs(7, 5);
            let routing = routes.route(&x);
            for t in 0..7 {
                let row = &x[t * 5..(t + 1) * 5];
                let total: f64 = row.iter().map(|x| x.exp()).sum();
                let chosen: Vec<(usize, f64)> = (0..5)
                    .filter_map(|e| {
                        let at = routing.groups[e].tokens.iter().position(|&of| of == t)?;
                        Some((e, routing.groups[e].weights[at]))
                    })
                    .collect();
                assert_eq!(chosen.len(), 2);
                let least = chosen.iter().map(|c| row[c.0]).fold(f64::INFINITY, f64::min);
                assert_eq!(row.iter().filter(|x| **x > least).count(), 1);
                let share = if normalised { chosen.iter().map(|c| row[c.0].exp()).sum() } else { total };
                chosen.iter().for_each(|(e, w)| assert!((w - row[*e].exp() / share).abs() < 1e-12));
            }
        }
        // of equal ones the first
        let routes = Routes { count: 4, per_token: 2, normalised: true };
        let routing = routes.route(&[1.0, 2.0, 2.0, 2.0]);
        assert_eq!(routing.groups.iter().map(|g| g.tokens.len()).collect::<Vec<_>>(), [0, 1, 1, 0]);
    }

    #[test]
    fn gradients_are_central_differences() {
        for normalised in [false, true] {
            let routes = Routes { count: 6, per_token: 3, normalised };
            let x = outputs(4, 6);
            // a loss that is linear in the weights
            let factor = |e: usize, t: usize| ((e * 5 + t * 3) % 7) as f64 - 2.5;
            let loss = |x: &[f64]| {
                let groups = routes.route(x).groups.into_iter().enumerate();
                groups
                    .map(|(e, g)| g.tokens.iter().zip(&g.weights).map(|(t, w)| factor(e, *t) * w).sum::<f64>())
                    .sum::<f64>()
            };
            let routing = routes.route(&x);
            let given = routing.groups.iter().enumerate();
            let gradients: Vec<Vec<f64>> =
                given.map(|(e, g)| g.tokens.iter().map(|t| factor(e, *t)).collect()).collect();
            let found = routes.backward(&routing, &gradients, 4);
            for i in 0..x.len() {
                let (mut up, mut down) = (x.clone(), x.clone());
                (up[i], down[i]) = (up[i] + 1e-6, down[i] - 1e-6);
                let want = (loss(&up) - loss(&down)) / 2e-6;
                assert!((found[i] - want).abs() < 1e-7, "{i}: {} {want}", found[i]);
            }
        }
    }
}
