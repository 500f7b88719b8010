//! The integration tests of loram-cli. One binary: each test target links the whole workspace again.

mod compare;
mod diffusers;
mod examples;
mod families;
mod foreign;
mod gguf;
mod heads;
mod memory;
mod mistakes;
mod mixing;
mod predictions;
mod preferences;
mod program;
mod quantised;
mod reliability;
mod server;
#[path = "../../../loram-train/tests/train_tests/small.rs"]
mod small;
mod tracking;
mod verbs;
