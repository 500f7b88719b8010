//! `loram init` for starts that run the model on data.

use super::{Calibration, ExportInfo, StartOptions, fingerprint, start};
use crate::config::{BaseMode, TrainConfig};
use crate::dataset::{DataOptions, calibration_examples, read_dataset};
use crate::observer::{Observer, Stage};
use crate::session::{Base, stage};
use crate::{Error, Result, device};
use loram_io::adapter::{Adapter, AdapterForm};
use loram_io::error::Error as IoError;
use loram_io::init::{InitReport, InitializedLayer};
use loram_nn::LoadOptions;
use std::time::Instant;

/// Starts adapters on a model with the settings' data-driven scheme and calibration data, without training: as
/// [`loram_io::init::init`] does for other schemes. An adapter whose start changes the base is in native form and brings
/// its start along, since no recipe makes it again.
pub fn init_on_data(config: &TrainConfig, observer: &mut dyn Observer) -> Result<(Adapter, InitReport)> {
    let clock = Instant::now();
    let scheme = config.scheme()?;
    if config.calibration_data.is_empty() {
        let what = format!("`{scheme}` runs the model on data: give a data file (--calibration-data)");
        return Err(Error::Config(what));
    }
    if !config.modules_to_save.is_empty() {
        let what = "modules_to_save: modules that are trained whole need no start; give them when training";
        return Err(IoError::Usage(what.into()).into());
    }
    let base = Base::open(&config.model_name_or_path, config.revision.as_deref(), observer)?;
    let data = read_dataset(&base, &DataOptions::calibration(config), None, observer)?;
    let examples = calibration_examples(config, &data.examples);
    let compute = device::compute(config.device)?;
    let mut model = base.model(&LoadOptions { compute, seed: config.seed, ..LoadOptions::new(data.head()) })?;
    let lora = config.lora_config();
    // the weights stay as they are: nothing runs after the start
    let options = StartOptions { lora, scheme, seed: config.seed, base: BaseMode::Branch };
    let objective = data.objective;
    let calibration = Calibration { objective, examples: &examples, batch_size: config.per_device_train_batch_size };
    let mut adaptation = start(&mut model, &options, calibration, &mut |done, total, path| {
        stage(observer, Stage::Initialization, done as u64, total as u64, path);
    })?;
    let paths = adaptation.layers.keys().map(String::as_str);
    adaptation.base = Some(fingerprint(&base.checkpoint, &base.config, paths)?);
    let info = ExportInfo {
        base_model: base.name.clone(),
        revision: base.revision.clone(),
        task_type: data.objective.task_type(),
    };
    let adapter = adaptation.export(&model, AdapterForm::Native, &info)?;
    let layers: Vec<InitializedLayer> = model
        .linears()
        .into_iter()
        .filter_map(|l| adaptation.layers.get(&l.path))
        .map(|l| InitializedLayer {
            path: l.plan.path.clone(),
            shape: [l.plan.n, l.plan.m],
            r: l.plan.r,
            scaling: l.plan.scaling,
            gain: l.recipe.as_ref().and_then(|r| r.gain),
            beta: l.recipe.as_ref().and_then(|r| r.beta),
        })
        .collect();
    let report = InitReport {
        scheme: options.scheme.to_string(),
        trainable_parameters: layers.iter().map(|l| ((l.shape[0] + l.shape[1]) * l.r) as u64).sum(),
        layers,
        bytes_read: base.checkpoint.total_bytes(),
        seconds: clock.elapsed().as_secs_f64(),
        changes_base: adaptation.changes_base(),
        form: adapter.form(),
    };
    Ok((adapter, report))
}
