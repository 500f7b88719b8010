//! `loram init`: adapters for a whole checkpoint, and adapters reproduced from their recipe.

use crate::console::Console;
use crate::error::{Error, Result};
use crate::format::{count, duration, shape};
use crate::keys::{given, partial};
use crate::model::{in_4bit, open_known};
use crate::program::program;
use crate::progress::{LayerBar, Show};
use crate::table::{Side, table};
use clap::{ArgMatches, Args, ValueEnum};
use loram_core::Statistic;
use loram_io::atomic::Output;
use loram_io::error::human_bytes;
use loram_io::init::{BaseName, InitOptions, InitReport, Residual, init_to, recipe_in_4bit, reproduce, write_residual};
use loram_io::{AdapterForm, Checkpoint, DType, ModelConfig};
use loram_train::adapt::init_on_data;
use loram_train::config;
use loram_train::shell::quoted;
use loram_train::{TrainConfig, system};
use serde_json::json;
use std::path::PathBuf;

/// Arguments of `loram init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Model folder or hub id, of any architecture with safetensors weights; or a GGUF file
    #[arg(value_name = "MODEL", required_unless_present_any = ["from_recipe", "base_model"])]
    pub model: Option<String>,
    /// The same, as a flag
    #[arg(
        id = "base_model",
        long = "model",
        value_name = "DIR|HUB_ID",
        alias = "model-name-or-path",
        conflicts_with = "model"
    )]
    pub base: Option<String>,
    /// Output folder for the adapter
    #[arg(long, short, value_name = "DIR")]
    pub output: PathBuf,
    /// Replace an adapter in the output folder, and a model in that of --residual
    #[arg(long)]
    pub overwrite: bool,
    /// Also write the residual checkpoint W − s·B₀A₀ to this folder; the adapter is then a plain adapter of it
    #[arg(long, value_name = "DIR")]
    pub residual: Option<PathBuf>,
    /// Data type of the changed weights in the residual checkpoint
    #[arg(long, value_name = "TYPE", default_value = "model", requires = "residual")]
    pub residual_dtype: ResidualType,
    /// Reproduce an initialisation bit for bit from a loram.json, or from an adapter folder that holds one. The model is
    /// needed only if the scheme reads its weights
    #[arg(long, value_name = "FILE|DIR", conflicts_with = "residual")]
    pub from_recipe: Option<PathBuf>,
    /// Branch, tag or commit of a hub model
    #[arg(long, value_name = "NAME")]
    pub revision: Option<String>,
}

/// Data type of the weights of a residual checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ResidualType {
    /// That of the model; the result is rounded once
    Model,
    /// 32-bit floats; nothing is rounded
    Float32,
}

pub fn run(args: &InitArgs, matches: &ArgMatches, console: &Console) -> Result<()> {
    let output = Output::new(&args.output, args.overwrite);
    let residual = args.residual.as_deref().map(|to| Output::new(to, args.overwrite));
    [Some(output), residual].iter().flatten().try_for_each(Output::check)?;
    let base = match args.model.as_ref().or(args.base.as_ref()) {
        Some(name) => {
            let (config, checkpoint) = open_known(name, args.revision.as_deref(), console)?;
            let four_bit = match &args.from_recipe {
                Some(recipe) => recipe_in_4bit(recipe)?,
                None => partial(matches)?.four_bit(),
            };
            let checkpoint = in_4bit(checkpoint, config.as_ref(), four_bit.as_ref())?;
            Some((name.as_str(), config, checkpoint))
        }
        None => None,
    };
    let bar = LayerBar::new(console);
    let progress = |done: usize, total: usize, path: &str| bar.show(done, total, path);
    let report = match (&args.from_recipe, &base) {
        (Some(recipe), _) => {
            refuse_keys(matches)?;
            let base = base.as_ref().map(|(name, config, checkpoint)| (checkpoint, config.as_ref(), *name));
            reproduce(recipe, base, output, &progress)?
        }
        (None, Some((name, config, checkpoint))) => {
            if config.is_none() {
                console.say(format!("{name}: loram cannot run this architecture; modules are named after its tensors"));
            }
            let mut settings = partial(matches)?;
            let options = InitOptions { lora: settings.lora_config(), scheme: settings.scheme()?, seed: settings.seed };
            if options.scheme.behaviour().takes_share {
                let what = "gain: `auto` takes its share from the line search of a training run: give auto:SHARE (`loram plan \
                            --data FILE` prints one)";
                return Err(Error::Usage(what.into()));
            }
            if options.scheme.behaviour().first_step && !settings.gives_rate() {
                let what = "gain: `auto` depends on the learning rate of the training run: give --learning-rate";
                return Err(Error::Usage(what.into()));
            }
            let dtype = (args.residual_dtype == ResidualType::Float32).then_some(DType::F32);
            let residual = residual.map(|to| Residual { to, dtype });
            if options.scheme.statistic() == Statistic::None {
                let base = BaseName { name, revision: args.revision.as_deref() };
                init_to(checkpoint, config.as_ref(), &options, base, output, residual, &progress)?
            } else {
                settings.model_name_or_path = name.to_string();
                settings.revision.clone_from(&args.revision);
                on_data(&settings, (checkpoint, config.as_ref()), output, residual, console)?
            }
        }
        (None, None) => return Err(Error::Usage("give a model or --from-recipe".into())),
    };
    bar.clear();
    show(args, &report, console)
}

/// Initialises an adapter from calibration data, on which the model runs.
fn on_data(
    settings: &TrainConfig,
    (checkpoint, config): (&Checkpoint, Option<&ModelConfig>),
    output: Output<'_>,
    residual: Option<Residual<'_>>,
    console: &Console,
) -> Result<InitReport> {
    let scheme = settings.scheme()?;
    if residual.is_some() && !scheme.info().changes_base {
        let what = format!("`{scheme}` does not change the base model: there is no residual to write");
        return Err(Error::Usage(what));
    }
    let mut progress = Show::new(console);
    let (adapter, mut report) = init_on_data(settings, &mut progress)?;
    progress.clear();
    adapter.write_to(output)?;
    if let Some(residual) = residual {
        write_residual(checkpoint, config, output.path, residual)?;
        report.form = AdapterForm::Plain;
    }
    Ok(report)
}

/// An error if a key is given with a recipe, which holds all settings.
fn refuse_keys(matches: &ArgMatches) -> Result<()> {
    match config::keys().iter().map(|k| k.name).chain(["set"]).find(|key| given(matches, key)) {
        None => Ok(()),
        Some(key) => Err(Error::Usage(format!("{key}: cannot be combined with --from-recipe, whose recipe sets it"))),
    }
}

fn show(args: &InitArgs, report: &InitReport, console: &Console) -> Result<()> {
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
                vec![
                    l.path.clone(),
                    shape(l.shape[0], l.shape[1]),
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
            (Some(dir), _) => format!("a plain adapter of the residual checkpoint {}\n", dir.display()),
            (None, AdapterForm::Native) => format!(
                "native form: its base model is W − s·B₀A₀, which loram computes from the recipe\n\
                 train it with `{} train --adapter {} --data FILE`\n",
                program(),
                quoted(&args.output.display().to_string())
            ),
            (None, AdapterForm::Plain) => String::new(),
        };
        text
    };
    console.result(text, &json)
}
