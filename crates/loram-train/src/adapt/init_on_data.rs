//! `loram init` for schemes that run the model on data.

use super::{Calibration, ExportInfo, initialize};
use crate::base::{Base, stage};
use crate::config::{BaseMode, TrainConfig};
use crate::dataset::{DataOptions, Known, calibration_examples, read_dataset};
use crate::device::Arithmetic;
use crate::observer::{Observer, Stage};
use crate::{Error, Result};
use loram_io::adapter::{Adapter, AdapterForm};
use loram_io::init::{InitOptions, InitReport};
use loram_nn::{HeadKind, LoadOptions};
use std::time::Instant;

/// Initialises adapters with the settings' data-driven scheme and calibration data, without training: as
/// [`loram_io::init::init`] does for other schemes. An adapter whose scheme changes the base is in native form and has its
/// initial factors beside it, since no recipe gives them.
pub fn init_on_data(config: &TrainConfig, observer: &mut dyn Observer) -> Result<(Adapter, InitReport)> {
    let clock = Instant::now();
    let scheme = config.scheme()?;
    if config.calibration_data.is_empty() {
        let what = format!("`{scheme}` runs the model on data: give a data file (--calibration-data)");
        return Err(Error::Config(what));
    }
    let options = InitOptions { lora: config.lora_config(), scheme, seed: config.seed };
    options.refuse_saved_modules()?;
    let base = Base::of(config, observer)?;
    let data = read_dataset(&base, &DataOptions::calibration(config), Known::Nothing, observer)?;
    let examples = calibration_examples(config, &data.examples);
    let load = LoadOptions { seed: config.seed, ..Arithmetic::of(config)?.options(data.head()) };
    let mut model = base.model(&load)?;
    let calibration =
        Calibration { task: data.task(), examples: &examples, batch_size: config.per_device_train_batch_size };
    // the weights stay as they are: nothing runs after the initialisation
    let base_mode = BaseMode::Branch;
    let mut adaptation = initialize(&mut model, &options, base_mode, calibration, &mut |done, total, path| {
        stage(observer, Stage::Initialization, done as u64, total as u64, path);
    })?;
    adaptation.identify(&base.checkpoint, &base.config)?;
    if let Some(recipe) = &mut adaptation.recipe {
        recipe.pooling = base.config.pooling().filter(|_| matches!(data.head(), HeadKind::Pooled { .. }));
    }
    let info = ExportInfo::of(&base, data.head());
    let adapter = adaptation.export(&model, AdapterForm::Native, &info)?;
    let order = model.targets();
    let recipe = adaptation.recipe.as_ref().expect("a new adapter has one");
    let mut report = InitReport::new(recipe, order.iter().map(|l| l.path.as_str()));
    (report.bytes_read, report.seconds) = (base.checkpoint.total_bytes(), clock.elapsed().as_secs_f64());
    Ok((adapter, report))
}
