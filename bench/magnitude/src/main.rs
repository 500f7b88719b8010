//! Reproduces the measurements of magnitudes in 2507.06558, one experiment per command:
//!
//! ```text
//! cargo run --release -p loram-magnitude -- growth     (the law of growth, and where it stops to hold)
//! cargo run --release -p loram-magnitude -- network    (five layers, 400 wide, r = 25)
//! cargo run --release -p loram-magnitude -- gains      (Q[r] of trained weights)
//! cargo run --release -p loram-magnitude -- tracking   (the sine basis at the magnitude of other schemes)
//! cargo run --release -p loram-magnitude -- bases      (other bases at one magnitude)
//! ```
//!
//! Each prints a table and writes a plot to `docs/plots/`.

mod bases;
mod gains;
mod growth;
mod network;
mod plot;
mod result;
mod runs;
mod tracking;

use clap::{Parser, ValueEnum};
use result::Result;
use std::path::PathBuf;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Experiment {
    Growth,
    Network,
    Gains,
    Tracking,
    Bases,
}

#[derive(Debug, Parser)]
struct Arguments {
    /// The experiment to run
    experiment: Experiment,
    /// Folder for the plot
    #[arg(long, default_value = "docs/plots")]
    plots: PathBuf,
    /// Optimiser steps of each run (tracking, bases)
    #[arg(long, default_value_t = 80)]
    steps: usize,
}

fn main() -> Result<()> {
    let args = Arguments::parse();
    std::fs::create_dir_all(&args.plots)?;
    match args.experiment {
        Experiment::Growth => growth::run(&args.plots),
        Experiment::Network => network::run(&args.plots),
        Experiment::Gains => gains::run(&args.plots),
        Experiment::Tracking => tracking::run(&args.plots, args.steps),
        Experiment::Bases => bases::run(&args.plots, args.steps),
    }
}
