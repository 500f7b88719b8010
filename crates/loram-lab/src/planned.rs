//! The runs that a comparison is to have, written beside them, so that a report knows which are missing.

use crate::board::{Board, State};
use crate::grid::{Grid, Halving, Point};
use crate::run_folder::state_dir;
use crate::scores::SCORES;
use crate::{Error, Result};
use loram_io::atomic;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Name of the file in the folder of a comparison's state.
const PLANNED: &str = "runs.json";

/// The runs that a comparison consists of.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    /// All runs, short ones of successive halving as well.
    pub runs: Vec<Point>,
    /// Names of runs that short runs decided against.
    pub dropped: Vec<String>,
    /// Successive halving: of the learning rates of an arm, only some get full runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halving: Option<Halving>,
}

impl Planned {
    /// The full runs.
    pub fn full(&self) -> impl Iterator<Item = &Point> {
        self.runs.iter().filter(|p| p.rung.is_none())
    }

    /// The number of learning rates, of so many, in each round: of short runs first, of full runs last.
    pub fn rounds(halving: Option<Halving>, rates: usize) -> Vec<usize> {
        let Halving { factor, rounds, .. } = halving.unwrap_or(Halving { factor: 1, rounds: 0, keep_auto: false });
        let mut out = vec![rates];
        for _ in 0..rounds {
            out.push(out[out.len() - 1].div_ceil(factor.max(1)));
        }
        out
    }
}

/// Writes down the runs of a grid, as far as it is known which of them are to be made.
pub(crate) fn write(grid: &Grid, board: &Board) -> Result<()> {
    let states = board.states();
    let dropped = board.runs.iter().zip(&states).filter(|(_, s)| **s == State::Dropped);
    let planned = Planned {
        runs: board.runs.iter().map(|r| r.point.clone()).collect(),
        dropped: dropped.map(|(r, _)| r.id()).collect(),
        halving: grid.halving,
    };
    if read(&grid.output_dir)?.as_ref() != Some(&planned) {
        atomic::write_json(state_dir(&grid.output_dir).join(PLANNED), &planned)?;
    }
    Ok(())
}

/// The runs of the comparison in this output folder; `None` if there is no list.
pub(crate) fn read(output: &Path) -> Result<Option<Planned>> {
    let path = state_dir(output).join(PLANNED);
    match loram_io::input::read_text_if_there(&path)? {
        None => Ok(None),
        Some(text) => serde_json::from_str(&text).map(Some).map_err(|e| Error::folder(&path, e.to_string())),
    }
}

/// The folders of runs that the comparisons in or below these folders are to have, and that are not scored.
pub fn missing(dirs: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut out = Vec::new();
    dirs.iter().try_for_each(|dir| look(dir, 2, &mut out))?;
    out.sort();
    out.dedup();
    Ok(out)
}

fn look(dir: &Path, depth: usize, out: &mut Vec<PathBuf>) -> Result<()> {
    if let Some(planned) = read(dir)? {
        let wanted = planned.runs.iter().map(Point::id).filter(|id| !planned.dropped.contains(id));
        out.extend(wanted.map(|id| dir.join("runs").join(id)).filter(|run| !run.join(SCORES).exists()));
        return Ok(());
    }
    if depth > 0 {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                look(&entry.path(), depth - 1, out)?;
            }
        }
    }
    Ok(())
}
