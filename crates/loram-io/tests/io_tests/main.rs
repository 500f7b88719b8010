//! The integration tests of loram-io. One binary: each test target links the whole workspace again.

mod adapter;
mod chat;
mod checkpoint;
mod config;
mod gains;
mod hub;
mod init;
mod linear;
mod merge;
mod parsers;
mod peft;
mod plan;
mod text;
