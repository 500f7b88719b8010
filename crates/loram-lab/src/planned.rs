//! The runs that a comparison is to have, written beside them, so that a report knows which are missing.

use crate::board::{Board, State};
use crate::grid::Grid;
use crate::run_folder::state_dir;
use crate::scores::SCORES;
use crate::{Error, Result};
use loram_io::atomic;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Name of the file in the folder of a comparison's state.
const PLANNED: &str = "runs.json";

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Planned {
    /// Names of all runs.
    runs: Vec<String>,
    /// Names of runs that short runs decided against.
    dropped: Vec<String>,
}

/// Writes down the runs of a grid, as far as it is known which of them are to be made.
pub(crate) fn write(grid: &Grid, board: &Board) -> Result<()> {
    let states = board.states();
    let dropped = board.runs.iter().zip(&states).filter(|(_, s)| **s == State::Dropped);
    let planned =
        Planned { runs: board.runs.iter().map(|r| r.id()).collect(), dropped: dropped.map(|(r, _)| r.id()).collect() };
    let path = state_dir(&grid.output_dir).join(PLANNED);
    if read(&path)?.as_ref() != Some(&planned) {
        atomic::write_json(&path, &planned)?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Option<Planned>> {
    match loram_io::input::read_text_if_there(path)? {
        None => Ok(None),
        Some(text) => serde_json::from_str(&text).map(Some).map_err(|e| Error::folder(path, e.to_string())),
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
    if let Some(planned) = read(&state_dir(dir).join(PLANNED))? {
        let wanted = planned.runs.iter().filter(|id| !planned.dropped.contains(id));
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
