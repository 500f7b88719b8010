//! Gain curves of the models of a comparison: computed once, kept beside the run folders, shown in reports.

use crate::grid::Grid;
use crate::names::file_name;
use crate::run_folder::state_dir;
use crate::{Error, Result};
use loram_io::atomic;
use loram_io::gain_curves::GainCurves;
use loram_train::{Base, TrainConfig};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn path(output: &Path, model: &str) -> PathBuf {
    state_dir(output).join(format!("gains-{}.json", file_name(model)))
}

/// Computes the curves that are missing: exact ones for small models, else those of the sketch.
pub(crate) fn prepare(grid: &Grid, models: &BTreeMap<&str, &TrainConfig>) -> Result<()> {
    for (name, config) in models {
        let path = path(&grid.output_dir, name);
        if path.exists() {
            continue;
        }
        let base = Base::of(config, &mut ())?;
        let exact = GainCurves::exact_is_quick(&base.checkpoint, &base.config)?;
        let curves = GainCurves::of(&base.checkpoint, &base.config, None, exact)?;
        create_parent(&path)?;
        atomic::write_json(&path, &curves)?;
    }
    Ok(())
}

/// Copies the curves of another folder of the same grid; the models themselves need not be available.
pub(crate) fn copy(grid: &Grid, models: &BTreeMap<&str, &TrainConfig>, from: &Path) -> Result<()> {
    for name in models.keys() {
        let (source, target) = (path(from, name), path(&grid.output_dir, name));
        let Some(text) = loram_io::input::read_text_if_there(&source)? else { continue };
        if !target.exists() {
            create_parent(&target)?;
            atomic::write_bytes(&target, text.as_bytes())?;
        }
    }
    Ok(())
}

fn create_parent(path: &Path) -> Result<()> {
    let dir = path.parent().unwrap_or(path);
    Ok(std::fs::create_dir_all(dir).map_err(|e| loram_io::Error::io("create", dir, e))?)
}

/// Reads the curves of a model, given a run folder of a comparison; `None` if there are none.
pub(crate) fn read(run: &Path, model: &str) -> Result<Option<GainCurves>> {
    let Some(output) = run.parent().and_then(Path::parent) else { return Ok(None) };
    let path = path(output, model);
    match loram_io::input::read_text_if_there(&path)? {
        None => Ok(None),
        Some(text) => serde_json::from_str(&text).map(Some).map_err(|e| Error::folder(&path, e.to_string())),
    }
}
