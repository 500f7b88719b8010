//! Linear layers with their LoRA adapters.

mod backward;
mod forward;
#[cfg(gpu)]
mod group;
mod layer;

pub(crate) use backward::{backward_all, backward_inputs, backward_outputs};
pub(crate) use forward::{forward_all, room};
pub(crate) use layer::{Layer, Linear, LinearSaved, Lora};
