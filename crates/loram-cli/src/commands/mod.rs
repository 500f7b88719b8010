//! One file for each command: its arguments and what it does.

pub mod compare;
pub mod convert;
pub mod docs;
pub mod doctor;
pub mod eval;
pub mod export;
pub mod generate;
pub mod info;
pub mod init;
pub mod init_config;
pub mod man;
pub mod merge;
pub mod plan;
pub mod predict;
pub mod report;
pub mod schemes;
pub mod serve;
pub mod train;
pub mod verify;
