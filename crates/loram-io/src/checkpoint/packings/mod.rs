//! Weights that are more than numbers of one type in one tensor: codes with tables in other tensors (NF4 and its kin), or
//! blocks of bytes whose shape is not that of the weight. What they are is seen from `config.json`, and from the names and types of the
//! tensors of a checkpoint, not from the type of one.

mod awq;
mod bitsandbytes;
mod float8;
mod gptq;
mod mxfp4;
mod packing;
mod repacked;
mod tables;

use crate::Result;
use crate::config::{CONFIG_FILE, Quantisation, read_object};
use std::path::Path;

pub use packing::{Packed, Packing};

/// The packings of a model folder, by the quantisation that its `config.json` names. To add one, write its file and its line here.
///
/// # Errors
/// A `config.json` that cannot be read, or that names a quantisation that is not supported.
pub(super) fn packings(dir: &Path) -> Result<Vec<Box<dyn Packing>>> {
    let path = dir.join(CONFIG_FILE);
    let quantisation = if path.exists() { Quantisation::of(&read_object(&path)?, &path)? } else { None };
    Ok(match quantisation {
        // adapters of the program tell its files by their tables, also without a configuration
        None | Some(Quantisation::Bitsandbytes) => vec![Box::new(bitsandbytes::FourBits)],
        Some(Quantisation::Gptq(settings)) => vec![Box::new(gptq::Gptq(settings))],
        Some(Quantisation::Awq(settings)) => vec![Box::new(awq::Awq(settings))],
        Some(Quantisation::Mxfp4) => vec![Box::new(mxfp4::Mxfp4Blocks)],
        Some(Quantisation::Float8(block)) => vec![Box::new(float8::Float8(block))],
    })
}
