//! The integration tests of loram-io. One binary: each test target links the whole workspace again.

mod adapter;
mod chat;
mod checkpoint;
mod columns;
mod config;
mod fake_hub;
mod gains;
mod gguf;
mod gguf_export;
mod hostile;
mod hub;
mod hub_datasets;
mod hub_faults;
mod init;
mod linear;
mod merge;
mod packed;
mod parsers;
mod peft;
mod plan;
mod quantised;
mod text;
