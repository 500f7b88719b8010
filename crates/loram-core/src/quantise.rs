//! Quantisation to a few bits, in blocks with a scale each: what it leaves of a weight.

use crate::weight::FourBitType;
use crate::{Error, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Values that share a scale, as in bitsandbytes.
const BLOCK: usize = 64;

/// How a weight is quantised: each block of 64 values in row-major order is divided by its largest magnitude, and every
/// value goes to the nearest level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Quantizer {
    /// NF4, as bitsandbytes has it (without double quantisation of the scales).
    #[default]
    Nf4,
    /// 2^bits levels, evenly spaced from −1 to 1; 2 to 8 bits.
    Uniform(u32),
}

impl Quantizer {
    /// Parses the name in a configuration: `nf4` or `uniform-N`.
    pub fn parse(name: &str) -> Result<Quantizer> {
        let bits = name.strip_prefix("uniform-").and_then(|n| n.parse().ok());
        match (name, bits) {
            ("nf4", _) => Ok(Quantizer::Nf4),
            (_, Some(bits @ 2..=8)) => Ok(Quantizer::Uniform(bits)),
            _ => {
                let what = format!("`{name}` is unknown; expected nf4, or uniform-N with N from 2 to 8");
                Err(Error::setting("loftq_quantizer", what))
            }
        }
    }

    fn levels(self) -> Vec<f32> {
        match self {
            Quantizer::Nf4 => FourBitType::Nf4.levels().to_vec(),
            Quantizer::Uniform(bits) => {
                let last = (1u32 << bits) - 1;
                (0..=last).map(|i| (2.0 * f64::from(i) / f64::from(last) - 1.0) as f32).collect()
            }
        }
    }

    /// Replaces values by what is left of them: quantised and read back.
    pub fn apply(self, values: &mut [f32]) {
        let levels = self.levels();
        let between: Vec<f32> = levels.windows(2).map(|l| (l[0] + l[1]) / 2.0).collect();
        values.par_chunks_mut(BLOCK).for_each(|block| {
            let scale = block.iter().fold(0.0f32, |top, x| top.max(x.abs()));
            if scale > 0.0 {
                block.iter_mut().for_each(|x| *x = levels[between.partition_point(|b| *b < *x / scale)] * scale);
            }
        });
    }
}

impl std::fmt::Display for Quantizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Quantizer::Nf4 => f.write_str("nf4"),
            Quantizer::Uniform(bits) => write!(f, "uniform-{bits}"),
        }
    }
}

impl TryFrom<String> for Quantizer {
    type Error = Error;
    fn try_from(name: String) -> Result<Quantizer> {
        Quantizer::parse(&name)
    }
}

impl From<Quantizer> for String {
    fn from(q: Quantizer) -> String {
        q.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantised_values_stay_and_others_move_by_half_a_step_at_most() {
        let noise: Vec<f32> = crate::rng::Stream::new(1, "q", 0).normals(201, 0.02).iter().map(|&x| x as f32).collect();
        for (q, step) in [(Quantizer::Nf4, 0.304), (Quantizer::Uniform(2), 0.667), (Quantizer::Uniform(8), 0.00785)] {
            let mut once = noise.clone();
            q.apply(&mut once);
            let mut twice = once.clone();
            q.apply(&mut twice);
            assert_eq!(once, twice, "{q}");
            for (new, old) in once.chunks(BLOCK).zip(noise.chunks(BLOCK)) {
                let scale = old.iter().fold(0.0f32, |top, x| top.max(x.abs()));
                assert!(new.iter().zip(old).all(|(n, o)| (n - o).abs() <= 0.5001 * step * scale), "{q}");
            }
            assert_eq!(Quantizer::parse(&q.to_string()).unwrap(), q);
        }
        let mut zeros = vec![0.0; 70];
        Quantizer::Nf4.apply(&mut zeros);
        assert_eq!(zeros, vec![0.0; 70]);
        assert!(Quantizer::parse("uniform-9").is_err() && Quantizer::parse("nf3").is_err());
    }
}
