//! Formats of codes whose scales are in tables beside them: the 4-bit types of bitsandbytes, the integers in groups of
//! GPTQ and AWQ, and MXFP4.
//!
//! A run of neighbouring values shares one table of 16 values: it is made once for the run, with the scale and the rounding to the
//! number type of the checkpoint in it, and every code is looked up in a vector register.

mod four_bit;
mod group;
mod levels;
mod lookup;
mod mxfp4;
mod nested;
mod quantise;
mod value_type;

pub use four_bit::FourBit;
pub use group::{GroupTables, Grouped};
pub use levels::{BlockScales, FourBitParts, FourBitType, SharedBytes};
pub use mxfp4::Mxfp4;
pub use nested::dynamic_map;
pub use quantise::{FourBitOptions, NestedScales, nested_scales, quantise_4bit};
pub use value_type::ValueType;
