//! The basis ablation: LoRAM with other bases at the same initial magnitude.

use crate::plot::{Line, Panel, figure};
use crate::result::Result;
use crate::runs::{Outcome, train};
use plotters::prelude::SeriesLabelPosition;
use std::path::Path;

pub const BASES: [&str; 4] = ["dst", "dct", "random-orthogonal", "gaussian"];
const SEEDS: [u64; 2] = [1, 2];

pub fn outcome(basis: &str, seed: u64, steps: usize) -> Result<Outcome> {
    train(&format!("init: loram\nbasis: {basis}\nlearning_rate: 1e-3\nseed: {seed}"), steps)
}

pub fn run(plots: &Path, steps: usize) -> Result<()> {
    println!("{:18} {:>20} {:>20}", "basis", "eval loss", "‖ΔW‖/‖W‖");
    let mut lines = Vec::new();
    for (colour, basis) in BASES.into_iter().enumerate() {
        let all = SEEDS.iter().map(|&seed| outcome(basis, seed, steps)).collect::<Result<Vec<_>>>()?;
        let list = |of: &dyn Fn(&Outcome) -> f64| all.iter().map(|o| format!("{:9.4}", of(o))).collect::<String>();
        println!("{basis:18} {:>20} {:>20}", list(&|o| o.eval_loss), list(&Outcome::distance));
        for (i, o) in all.iter().enumerate() {
            lines.push(Line::new(if i == 0 { basis } else { "" }, colour, o.losses.clone()));
        }
    }
    let panel = Panel {
        title: "training loss, two seeds".into(),
        x: "step",
        y: "",
        log_x: false,
        log_y: false,
        legend: SeriesLabelPosition::UpperRight,
        lines,
    };
    figure(&plots.join("bases.svg"), &[panel], 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bases_move_alike() {
        let all: Vec<Outcome> = ["dst", "gaussian"].map(|b| outcome(b, 1, 10).unwrap()).into();
        let ratio = all[0].distance() / all[1].distance();
        assert!((0.7..1.4).contains(&ratio), "{ratio}");
    }
}
