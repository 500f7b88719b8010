//! `loram init`: starts for a whole checkpoint, and starts made again from their recipe.

use super::folder;
use crate::cli::{Init, ResidualType};
use crate::console::{Console, count, duration};
use crate::error::{Error, Result};
use crate::keys::{given, partial};
use crate::progress::{Show, layer_bar};
use crate::table::{Side, table};
use clap::ArgMatches;
use loram_core::Statistic;
use loram_io::error::human_bytes;
use loram_io::init::{InitOptions, InitReport, Residual, init_to, remake, write_residual};
use loram_io::{AdapterForm, Checkpoint, DType, ModelConfig};
use loram_train::adapt::init_on_data;
use loram_train::config;
use loram_train::{TrainConfig, system};
use serde_json::json;

pub fn run(args: &Init, matches: &ArgMatches, console: &Console) -> Result<()> {
    let base = match args.model.as_ref().or(args.base.as_ref()) {
        Some(name) => {
            let dir = folder(name, args.revision.as_deref(), console)?;
            Some((name.as_str(), ModelConfig::load_known(&dir)?, Checkpoint::open(&dir)?))
        }
        None => None,
    };
    let bar = layer_bar(console);
    let progress = |done: usize, total: usize, path: &str| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
        bar.set_message(path.to_string());
    };
    let report = match (&args.from_recipe, &base) {
        (Some(recipe), _) => {
            refuse_keys(matches)?;
            let base = base.as_ref().map(|(name, config, checkpoint)| (checkpoint, config.as_ref(), *name));
            remake(recipe, base, &args.output, &progress)?
        }
        (None, Some((name, config, checkpoint))) => {
            if config.is_none() {
                console
                    .say(format!("{name}: an architecture that loram does not run; modules are named by its tensors"));
            }
            let mut settings = partial(matches)?;
            let options = InitOptions {
                lora: settings.lora_config(),
                scheme: settings.scheme()?,
                seed: settings.seed,
                base_model: name.to_string(),
                revision: args.revision.clone(),
            };
            let rated = ["learning_rate", "lr_a", "set"].iter().any(|key| given(matches, key));
            if options.scheme.behaviour().first_step && !rated {
                let what = "gain: `auto` is made for the learning rate of the run that follows: give --learning-rate";
                return Err(Error::Usage(what.into()));
            }
            let dtype = (args.residual_dtype == ResidualType::Float32).then_some(DType::F32);
            let residual = args.residual.as_ref().map(|to| Residual { to, dtype });
            if options.scheme.statistic() == Statistic::None {
                init_to(checkpoint, config.as_ref(), &options, &args.output, residual, &progress)?
            } else {
                settings.model_name_or_path = name.to_string();
                settings.revision.clone_from(&args.revision);
                on_data(&settings, (checkpoint, config.as_ref()), args, residual, console)?
            }
        }
        (None, None) => return Err(Error::Usage("a model, or --from-recipe, is needed".into())),
    };
    bar.finish_and_clear();
    show(args, base.as_ref().map(|b| b.0), &report, console)
}

/// A start that runs the model on calibration data.
fn on_data(
    settings: &TrainConfig,
    (checkpoint, config): (&Checkpoint, Option<&ModelConfig>),
    args: &Init,
    residual: Option<Residual<'_>>,
    console: &Console,
) -> Result<InitReport> {
    let scheme = settings.scheme()?;
    if residual.is_some() && !scheme.info().changes_base {
        let what = format!("`{scheme}` leaves the base model as it is: there is no residual to write");
        return Err(Error::Usage(what));
    }
    let mut progress = Show::new(console);
    let (adapter, mut report) = init_on_data(settings, &mut progress)?;
    progress.clear();
    adapter.write(&args.output)?;
    if let Some(residual) = residual {
        write_residual(checkpoint, config, &args.output, residual)?;
        report.form = AdapterForm::Plain;
    }
    Ok(report)
}

/// With a recipe there is nothing to set: it says everything.
fn refuse_keys(matches: &ArgMatches) -> Result<()> {
    match config::keys().iter().map(|k| k.name).chain(["set"]).find(|key| given(matches, key)) {
        None => Ok(()),
        Some(key) => Err(Error::Usage(format!("{key}: cannot be given with --from-recipe, whose recipe says it"))),
    }
}

fn show(args: &Init, model: Option<&str>, report: &InitReport, console: &Console) -> Result<()> {
    let peak = system::peak_rss();
    let mut json = serde_json::to_value(report).unwrap_or_default();
    json["output"] = json!(args.output.display().to_string());
    json["residual"] = json!(args.residual.as_ref().map(|r| r.display().to_string()));
    json["peak_memory"] = json!(peak);
    let text = || {
        let number = |x: Option<f64>| x.map_or("–".to_string(), |x| format!("{x:.6}"));
        let rows: Vec<Vec<String>> = report
            .layers
            .iter()
            .map(|l| {
                let shape = format!("{} × {}", l.shape[0], l.shape[1]);
                vec![
                    l.path.clone(),
                    shape,
                    l.r.to_string(),
                    format!("{:.4}", l.scaling),
                    number(l.gain),
                    number(l.beta),
                ]
            })
            .collect();
        let heading = [
            ("layer", Side::Left),
            ("shape", Side::Right),
            ("r", Side::Right),
            ("scaling", Side::Right),
            ("gain", Side::Right),
            ("β", Side::Right),
        ];
        let mut text = table(&heading, &rows);
        text += &format!(
            "\n{}: {} in {} layers, {} trainable parameters\n{} read in {}, peak memory {}\n",
            args.output.display(),
            report.scheme,
            report.layers.len(),
            count(report.trainable_parameters),
            human_bytes(report.bytes_read),
            duration(report.seconds),
            human_bytes(peak)
        );
        text += &match (&args.residual, report.form) {
            (Some(dir), _) => format!("it is a plain adapter of the residual base {}\n", dir.display()),
            (None, AdapterForm::Native) => format!(
                "native form: it belongs to the base with its start taken off, which loram does by itself\n\
                 next: loram train --model {} --adapter {} --data …\n",
                model.unwrap_or("MODEL"),
                args.output.display()
            ),
            (None, AdapterForm::Plain) => String::new(),
        };
        text
    };
    console.result(text, &json)
}
