//! The PEFT project's MetaMathQA comparison: its experiment folders as arms, and results in its form.

mod experiments;
mod results;

pub use experiments::{Experiment, Experiments, read_experiments};
pub use results::{result, write_results};
