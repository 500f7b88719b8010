//! Models with explicit forward and backward passes.

mod adapter;
mod backbone;
mod block;
mod decoder;
mod encoder;
mod generate;
mod head;
mod load;
mod options;
mod originals;
pub(crate) mod parts;
mod pass;
mod pooled;
mod stack;
mod train;
mod trained;
mod transformer;
mod without_adapters;

pub use adapter::Lora;
pub use generate::{Generator, feed_all};
pub use options::LoadOptions;
pub use transformer::Model;
