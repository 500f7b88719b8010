//! The factors of a layer's adapter: one type for those of an initialisation, of a file and of a model.

/// Factors A (r, m) and B (n, r) for a layer with weight (n, m), row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Factors {
    /// Output features of the layer.
    pub n: usize,
    /// Input features of the layer.
    pub m: usize,
    /// Rank.
    pub r: usize,
    /// A (`lora_A`), (r, m).
    pub a: Vec<f32>,
    /// B (`lora_B`), (n, r).
    pub b: Vec<f32>,
}

impl Factors {
    /// The number of values in A and B that this shape has.
    pub fn parameters(&self) -> usize {
        (self.n + self.m) * self.r
    }

    /// Checks that A and B have as many values as their shapes. The error says what was found and what was expected.
    pub fn check(&self) -> std::result::Result<(), String> {
        let Factors { n, m, r, .. } = *self;
        let (a, b) = (self.a.len(), self.b.len());
        match (a, b) == (r * m, n * r) {
            true => Ok(()),
            false => Err(format!("A has {a} values and B {b}, expected the shapes ({r}, {m}) and ({n}, {r})")),
        }
    }

    /// Returns whether all values have the same bits; −0 counts as 0, because the plain form of an adapter holds −B₀.
    pub fn same_bits(&self, other: &Factors) -> bool {
        let same = |x: &[f32], y: &[f32]| {
            x.len() == y.len() && x.iter().zip(y).all(|(x, y)| x.to_bits() == y.to_bits() || (*x == 0.0 && *y == 0.0))
        };
        (self.n, self.m, self.r) == (other.n, other.m, other.r) && same(&self.a, &other.a) && same(&self.b, &other.b)
    }
}
