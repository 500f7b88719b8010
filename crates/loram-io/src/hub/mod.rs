//! Resolves what a user types, a folder or a hub id like `org/name`, to a folder on this machine.
//!
//! Files go into the standard Hugging Face cache, so that a model downloaded by transformers is found here and the other
//! way round. A download is checked against the hash that the hub names before it gets its place there. With `HF_HUB_OFFLINE` set, or when the hub cannot be reached, a cached snapshot is used.

mod cache;
mod client;
mod dataset;
mod download;
mod hash;
mod options;
mod repo;
mod resolve;
mod transfer;

pub use dataset::{dataset, dataset_with, is_dataset};
pub use options::{Download, HubOptions};
pub use resolve::{resolve, resolve_with};
