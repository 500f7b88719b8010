//! Random numbers that depend on the seed, the layer and the factor alone, never on order or threads.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// The stream of a factor: ChaCha8 whose 32-byte key is, in little-endian 64-bit words, the seed, FNV-1a of the module
/// path, the number of the factor, and 0. Floats are made in f64 by functions that are part of the program, so that every
/// machine has the same bits.
pub struct Stream {
    rng: ChaCha8Rng,
}

impl Stream {
    /// The stream of a factor of the layer at `path`.
    pub fn new(seed: u64, path: &str, factor: u64) -> Stream {
        let hash =
            path.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        let mut key = [0u8; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&hash.to_le_bytes());
        key[16..24].copy_from_slice(&factor.to_le_bytes());
        Stream { rng: ChaCha8Rng::from_seed(key) }
    }

    /// Uniform in [0, 1).
    fn unit(&mut self) -> f64 {
        (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in ±bound.
    pub fn uniform(&mut self, len: usize, bound: f64) -> Vec<f32> {
        (0..len).map(|_| ((2.0 * self.unit() - 1.0) * bound) as f32).collect()
    }

    /// Normal of deviation `std` (Box–Muller).
    pub fn normals(&mut self, len: usize, std: f64) -> Vec<f64> {
        let mut out = Vec::with_capacity(len + 1);
        while out.len() < len {
            let radius = std * (-2.0 * libm::log(1.0 - self.unit())).sqrt();
            let angle = std::f64::consts::TAU * self.unit();
            out.extend([radius * libm::cos(angle), radius * libm::sin(angle)]);
        }
        out.truncate(len);
        out
    }

    /// Eight random signs each.
    pub(crate) fn signs(&mut self, len: usize) -> Vec<[f32; 8]> {
        let mut bits = 0;
        (0..len)
            .map(|i| {
                bits = if i % 8 == 0 { self.rng.next_u64() } else { bits >> 8 };
                std::array::from_fn(|k| if bits >> k & 1 == 0 { 1.0 } else { -1.0 })
            })
            .collect()
    }
}
