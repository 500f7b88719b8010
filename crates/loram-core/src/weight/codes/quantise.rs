//! Quantisation to NF4 and FP4, with the bits of bitsandbytes (0.50, on the CPU).

use super::levels::FourBitType;
use super::nested::dynamic_map;
use std::sync::LazyLock;

/// How weights are quantised while they are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FourBitOptions {
    /// The levels.
    pub kind: FourBitType,
    /// Quantise the scales as well.
    pub nested: bool,
}

impl FourBitOptions {
    /// Values that share a scale.
    pub const BLOCK: usize = 64;
    /// BlockScales that share a scale, where they are quantised as well.
    pub const NESTED_BLOCK: usize = 256;
}

/// The smallest magnitude by which a block is divided.
const SMALLEST: f32 = 1e-38;

/// The bounds between neighbouring levels, and the code of each level in their order.
struct Bounds([f32; 15], [u8; 16]);

impl Bounds {
    fn of(kind: FourBitType) -> &'static Bounds {
        static ALL: LazyLock<[Bounds; 2]> = LazyLock::new(|| [FourBitType::Nf4, FourBitType::Fp4].map(Bounds::new));
        &ALL[usize::from(kind == FourBitType::Fp4)]
    }

    fn new(kind: FourBitType) -> Bounds {
        let levels = kind.levels();
        let mut order: [u8; 16] = std::array::from_fn(|i| i as u8);
        // stable: of the two zeros of FP4 the first comes first
        order.sort_by(|a, b| levels[usize::from(*a)].partial_cmp(&levels[usize::from(*b)]).expect("no NaN"));
        let level = |i: usize| levels[usize::from(order[i])];
        Bounds(std::array::from_fn(|i| (level(i) + level(i + 1)) / 2.0), order)
    }
}

/// Quantises values of whole blocks of 64, but perhaps the last of a weight: writes two codes to a byte, the upper half first, and the
/// largest magnitude of each block. Those of blocks with NaN or infinite values are not finite either, so that their decoded values
/// tell. Panics where `codes` or `scales` have other lengths.
pub fn quantise_4bit(kind: FourBitType, values: &[f32], codes: &mut [u8], scales: &mut [f32]) {
    assert_eq!(codes.len(), values.len().div_ceil(2), "codes of {} values", values.len());
    assert_eq!(scales.len(), values.len().div_ceil(FourBitOptions::BLOCK), "scales of {} values", values.len());
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || {
            let blocks = values.chunks(FourBitOptions::BLOCK).zip(codes.chunks_mut(FourBitOptions::BLOCK / 2));
            for ((values, codes), scale) in blocks.zip(scales) {
                *scale = block(Bounds::of(kind), values, codes);
            }
        },
    );
}

#[inline(always)]
fn block(bounds: &Bounds, values: &[f32], codes: &mut [u8]) -> f32 {
    // magnitudes are ordered as their bits are, NaN above all
    let top = f32::from_bits(values.iter().fold(0, |top, x| top.max(x.to_bits() & 0x7fff_ffff)));
    let (mut scaled, mut ranks) = ([0.0f32; FourBitOptions::BLOCK], [0u8; FourBitOptions::BLOCK]);
    let whole = values.len() == FourBitOptions::BLOCK;
    // bitsandbytes divides the values of a block that is not whole, and multiplies others by the inverse
    let least = if top < SMALLEST { SMALLEST } else { top };
    let (inverse, top) = (1.0 / least, if whole { top } else { least });
    for (s, x) in scaled.iter_mut().zip(values) {
        *s = if whole { x * inverse } else { x / top }.clamp(-1.0, 1.0);
    }
    for bound in bounds.0 {
        for (rank, x) in ranks.iter_mut().zip(&scaled) {
            *rank += u8::from(bound < *x);
        }
    }
    if !values.len().is_multiple_of(2) {
        // the padding of an odd number of values is a 0, whose rank is that of the level 0
        ranks[values.len()] = bounds.0.iter().filter(|b| **b < 0.0).count() as u8;
    }
    for (code, pair) in codes.iter_mut().zip(ranks.as_chunks::<2>().0) {
        *code = bounds.1[usize::from(pair[0])] << 4 | bounds.1[usize::from(pair[1])];
    }
    top
}

/// Quantised scales.
#[derive(Debug, Clone, PartialEq)]
pub struct NestedScales {
    /// A code into [`dynamic_map`] for each.
    pub codes: Vec<u8>,
    /// The scale of every 256 codes.
    pub scales: Vec<f32>,
    /// Their mean, which was subtracted.
    pub offset: f32,
}

/// Codes of bitsandbytes' 8-bit type are found in a table of so many steps from −1 to 1.
const STEPS: usize = 1 << 16;

/// Quantises the scales of a weight. `offset` takes the place of their mean, which bitsandbytes computes in f32 in an order that depends
/// on the machine, and which is rounded once here.
pub fn nested_scales(scales: &[f32], offset: Option<f32>) -> NestedScales {
    static TABLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let map = dynamic_map();
        let bounds: Vec<f32> = map.windows(2).map(|l| 0.5 * (l[0] + l[1])).collect();
        let code = |i: usize| {
            let value = -1.0 + 2.0 * i as f32 / (STEPS - 1) as f32;
            bounds.partition_point(|b| *b < value) as u8
        };
        (0..STEPS).map(code).collect()
    });
    let sum: f64 = scales.iter().map(|&x| f64::from(x)).sum();
    let offset = offset.unwrap_or((sum / scales.len().max(1) as f64) as f32);
    let (mut codes, mut tops) = (Vec::with_capacity(scales.len()), Vec::new());
    for block in scales.chunks(FourBitOptions::NESTED_BLOCK) {
        let top = block.iter().fold(0.0, |top: f32, x| top.max((x - offset).abs()));
        let inverse = 1.0 / top;
        codes.extend(block.iter().map(|x| match top == 0.0 {
            true => 0,
            false => {
                let x = ((x - offset) * inverse).clamp(-1.0, 1.0);
                TABLE[((x + 1.0) * 0.5 * (STEPS - 1) as f32 + 0.5) as usize]
            }
        }));
        // NaN in a scale shows in the offset and so in all
        tops.push(top);
    }
    NestedScales { codes, scales: tops, offset }
}
