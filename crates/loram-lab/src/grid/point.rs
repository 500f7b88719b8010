//! A point of a grid: what distinguishes a run from the others, and the name of its folder.

use crate::names::file_name;
use loram_train::config::LearningRate;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The coordinates of a run in its grid.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Name of the model.
    pub model: String,
    /// Name of the task.
    pub task: String,
    /// Name of the arm: a scheme with its settings.
    pub arm: String,
    /// Rank; absent for arms that have none, such as full fine-tuning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r: Option<u64>,
    /// Peak learning rate.
    pub learning_rate: LearningRate,
    /// Seed of initialisation and data order.
    pub seed: u64,
    /// Other keys that vary, as text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub others: BTreeMap<String, String>,
    /// The round of successive halving that this short run belongs to; absent for full runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rung: Option<usize>,
}

impl Point {
    /// The name of the run and its folder, which depends on this point alone, not on the rest of the grid.
    pub fn id(&self) -> String {
        let mut out = self.without_seed();
        out += &format!(".s{}", self.seed);
        if let Some(rung) = self.rung {
            out += &format!(".rung{rung}");
        }
        out
    }

    /// The name without seed and round.
    pub fn without_seed(&self) -> String {
        let mut out = self.without_rate();
        out += &match self.learning_rate {
            LearningRate::Auto => ".lr-auto".to_string(),
            LearningRate::AutoTimes(x) => format!(".lr-auto-x{x:e}"),
            LearningRate::Value(x) => format!(".lr{x:e}"),
            LearningRate::StepSize(share) => format!(".step{share:e}"),
        };
        for (key, value) in &self.others {
            out += &format!(".{}-{}", file_name(key), file_name(value));
        }
        out
    }

    fn without_rate(&self) -> String {
        let mut out = [&self.model, &self.task, &self.arm].map(|n| file_name(n)).join(".");
        if let Some(r) = self.r {
            out += &format!(".r{r}");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_runs_tell_points_apart() {
        let mut p = Point {
            model: "assets/tiny".into(),
            task: "e2e".into(),
            arm: "lora+rs".into(),
            r: Some(4),
            learning_rate: 1e-3.into(),
            seed: 7,
            others: BTreeMap::from([("gain".into(), "0.5".into())]),
            rung: None,
        };
        assert_eq!(p.id(), "assets_tiny.e2e.lora+rs.r4.lr1e-3.gain-0_5.s7");
        p.rung = Some(0);
        (p.r, p.learning_rate) = (None, 3.162e-4.into());
        assert_eq!(p.id(), "assets_tiny.e2e.lora+rs.lr3.162e-4.gain-0_5.s7.rung0");
        (p.rung, p.others) = (None, BTreeMap::new());
        p.learning_rate = LearningRate::StepSize(0.003);
        assert_eq!(p.id(), "assets_tiny.e2e.lora+rs.step3e-3.s7");
        p.learning_rate = LearningRate::Auto;
        assert_eq!(p.id(), "assets_tiny.e2e.lora+rs.lr-auto.s7");
    }
}
