//! The arms of one model, task and rank.

use super::arm::ArmReport;
use crate::grid::Score;
use crate::names::file_name;
use loram_train::config::LearningRate;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Names of the arms that all others are compared with.
pub const BASELINES: [&str; 2] = ["lora", "pissa"];

/// The arms of one model, task and rank.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Group {
    /// Model.
    pub model: String,
    /// Task.
    pub task: String,
    /// Rank; absent if no arm has one.
    pub r: Option<u64>,
    /// Other keys that vary.
    pub others: BTreeMap<String, String>,
    /// The metric that runs are judged by.
    pub score: Score,
    /// Seeds that all arms have, from which scores are computed.
    pub seeds: Vec<u64>,
    /// True if learning rates were chosen on other data than the scores are computed on.
    pub separate: bool,
    /// Number of records of the selection part; 0 if it is not known.
    pub selection_examples: u64,
    /// Number of records of the test part.
    pub test_examples: u64,
    /// Arms, the best first.
    pub arms: Vec<ArmReport>,
    /// The best learning rate of `lora`, for the comparison at one learning rate.
    pub fixed_rate: Option<LearningRate>,
    /// Number of runs of the comparison that are not there yet, those of arms without any run included.
    pub missing: usize,
    /// Warnings for the reader.
    pub warnings: Vec<String>,
}

impl Group {
    /// `task on model, r 16`.
    pub fn title(&self) -> String {
        let mut out = format!("{} on {}", self.task, self.model);
        if let Some(r) = self.r {
            out += &format!(", r {r}");
        }
        for (key, value) in &self.others {
            out += &format!(", {key} {value}");
        }
        out
    }

    /// The name of its files and anchors.
    pub fn slug(&self) -> String {
        file_name(&self.title().replace(", ", "-").replace(' ', "-"))
    }
}
