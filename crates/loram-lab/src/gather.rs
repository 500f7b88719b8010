//! Collects run folders from several machines.

use crate::board::{Board, State};
use crate::grid::Grid;
use crate::run_folder::check_same;
use crate::scores::Scores;
use crate::{Error, Result};
use loram_io::atomic::{AtomicDir, Output};
use std::path::{Path, PathBuf};

/// The result of [`gather`].
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Gathered {
    /// Runs that were copied.
    pub copied: usize,
    /// Runs that were present already.
    pub there: usize,
    /// Runs that were skipped: of another grid, or not scored.
    pub left_out: usize,
    /// Runs of the grid that are still missing.
    pub missing: usize,
}

/// Copies the scored runs of these folders, output folders of the same grid, into the grid's own folder.
pub fn gather(grid: &Grid, from: &[PathBuf]) -> Result<Gathered> {
    let board = Board::new(grid)?;
    let mut out = Gathered::default();
    for folder in from {
        crate::gains::copy(grid, &board.models(), folder)?;
        let runs = folder.join("runs");
        let entries = std::fs::read_dir(&runs)
            .map_err(|_| Error::folder(folder, "expected the output folder of a comparison"))?;
        let mut dirs: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(|p| p.is_dir()).collect();
        dirs.sort();
        for dir in dirs {
            let id = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let spec = board.runs.iter().find(|s| s.id() == id);
            let (Some(spec), Some(_)) = (spec, Scores::read(&dir)?) else {
                out.left_out += 1;
                continue;
            };
            check_same(spec, &dir)?;
            let target = grid.run_dir(&id);
            if Scores::read(&target)?.is_some() {
                out.there += 1;
                continue;
            }
            let room = AtomicDir::create(Output::new(&target, true))?;
            copy(&dir, room.path())?;
            room.commit()?;
            out.copied += 1;
        }
    }
    let board = Board::new(grid)?;
    crate::planned::write(grid, &board)?;
    let states = board.states();
    out.missing = states.iter().filter(|s| !matches!(s, State::Scored | State::Dropped)).count();
    Ok(out)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).map_err(|e| loram_io::Error::io("create", to, e))?;
    let entries = std::fs::read_dir(from).map_err(|e| loram_io::Error::io("read", from, e))?;
    for entry in entries.flatten() {
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        match source.is_dir() {
            true => copy(&source, &target)?,
            false => {
                std::fs::copy(&source, &target).map_err(|e| loram_io::Error::io("copy", &source, e))?;
            }
        }
    }
    Ok(())
}
