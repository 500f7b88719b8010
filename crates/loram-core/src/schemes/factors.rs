//! The factors that a scheme makes.

use crate::basis::Basis;
use crate::factors::Factors;
use crate::linalg::Svd;
use crate::targets::LayerPlan;
use faer::Mat;

/// Factors of one layer, as a scheme gives them: A₀ (r, m) and B₀ (n, r), row-major.
#[derive(Debug, Clone)]
pub struct SchemeFactors {
    /// A₀, (r, m) row-major.
    pub a: Vec<f32>,
    /// B₀, (n, r) row-major.
    pub b: Vec<f32>,
    /// True when A is trained.
    pub train_a: bool,
    /// True when B is trained.
    pub train_b: bool,
    /// The numbers that the recipe keeps, for a scheme that recomputes its factors from them.
    pub scale: Option<Scale>,
}

/// The parameters of a scaled basis in a layer's recipe, from which the factors are recomputed without the weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    /// Scale of both factors.
    pub beta: f64,
    /// Gain Q\[r\] that it stands for.
    pub gain: Option<f64>,
    /// Basis that is scaled.
    pub basis: Basis,
}

impl SchemeFactors {
    /// Factors that are both trained.
    pub fn new(a: Vec<f32>, b: Vec<f32>) -> SchemeFactors {
        SchemeFactors { a, b, train_a: true, train_b: true, scale: None }
    }

    /// A = diag(roots)·Vᵀ, B = U·diag(roots).
    pub fn of_triples(triples: &Svd, roots: &[f64]) -> SchemeFactors {
        SchemeFactors::new(triples.right(roots), triples.left(roots))
    }

    /// The factors alone, for a layer of this shape and rank.
    pub(super) fn of(self, plan: &LayerPlan) -> Factors {
        Factors { n: plan.n, m: plan.m, r: plan.r, a: self.a, b: self.b }
    }

    /// Multiplies A₀ and B₀.
    pub(super) fn multiply(&mut self, of_a: f64, of_b: f64) {
        for (values, scale) in [(&mut self.a, of_a), (&mut self.b, of_b)] {
            if scale != 1.0 {
                values.iter_mut().for_each(|x| *x = (f64::from(*x) * scale) as f32);
            }
        }
    }
}

impl Svd {
    /// The singular values, descending.
    pub fn values(&self) -> &[f64] {
        &self.s
    }

    /// The left singular vectors, each times its scale, as columns: (n, k) row-major.
    pub fn left(&self, scale: &[f64]) -> Vec<f32> {
        scaled_columns(&self.u, scale)
    }

    /// The right singular vectors, each times its scale, as rows: (k, m) row-major.
    pub fn right(&self, scale: &[f64]) -> Vec<f32> {
        columns_as_rows(&self.v, scale)
    }
}

/// The columns of X (len, r), scaled, as rows: (r, len) row-major.
pub(super) fn columns_as_rows(x: &Mat<f64>, scale: &[f64]) -> Vec<f32> {
    x.col_iter().zip(scale).flat_map(|(c, s)| c.iter().map(move |x| (x * s) as f32)).collect()
}

/// The columns of X (len, r), scaled: (len, r) row-major.
pub(super) fn scaled_columns(x: &Mat<f64>, scale: &[f64]) -> Vec<f32> {
    x.row_iter().flat_map(|row| row.iter().zip(scale).map(|(x, s)| (x * s) as f32).collect::<Vec<_>>()).collect()
}
