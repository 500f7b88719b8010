//! `loram init`: starts for a whole checkpoint.

use super::folder;
use crate::cli::Init;
use crate::console::{Console, count, duration};
use crate::error::{Error, Result};
use crate::keys;
use crate::progress::{Show, layer_bar};
use crate::table::{Side, table};
use clap::ArgMatches;
use loram_core::Statistic;
use loram_io::error::human_bytes;
use loram_io::init::{InitOptions, init, write_residual};
use loram_io::{Checkpoint, ModelConfig};
use loram_train::adapt::init_on_data;
use loram_train::system;
use serde_json::json;

pub fn run(args: &Init, matches: &ArgMatches, console: &Console) -> Result<()> {
    let mut settings = keys::partial(matches)?;
    let dir = folder(&args.model, args.revision.as_deref(), console)?;
    let config = ModelConfig::load(&dir)?;
    let checkpoint = Checkpoint::open(&dir)?;
    let options = InitOptions {
        lora: settings.lora_config(),
        scheme: settings.scheme()?,
        seed: settings.seed,
        base_model: args.model.clone(),
        revision: args.revision.clone(),
    };
    if args.residual.is_some() && !options.scheme.info().basis_and_basis {
        let what = format!("--residual: `{}` leaves the base model as it is, so there is no residual", options.scheme);
        return Err(Error::Usage(what));
    }
    let (mut adapter, report) = if options.scheme.info().statistic == Statistic::None {
        let bar = layer_bar(console);
        let done = init(&checkpoint, Some(&config), &options, &|done, total, path| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
            bar.set_message(path.to_string());
        })?;
        bar.finish_and_clear();
        done
    } else {
        settings.model_name_or_path.clone_from(&args.model);
        settings.revision.clone_from(&args.revision);
        let mut show = Show::new(console);
        let done = init_on_data(&settings, &mut show)?;
        show.clear();
        done
    };
    if let Some(out) = &args.residual {
        console.say(format!("writing the residual checkpoint {}", out.display()));
        write_residual(&checkpoint, Some(&config), &mut adapter, out)?;
    }
    adapter.write(&args.output)?;
    let peak = system::peak_rss();
    let mut json = serde_json::to_value(&report).unwrap_or_default();
    json["output"] = json!(args.output.display().to_string());
    json["residual"] = json!(args.residual.as_ref().map(|r| r.display().to_string()));
    json["form"] = json!(adapter.form());
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
        text += &match (&args.residual, report.changes_base) {
            (Some(dir), _) => format!("it is a plain adapter of the residual base {}\n", dir.display()),
            (None, true) => format!(
                "native form: it belongs to the base with its start taken off, which loram does by itself\n\
                 next: loram train --model {} --adapter {} --data …\n",
                args.model,
                args.output.display()
            ),
            (None, false) => String::new(),
        };
        text
    };
    console.result(text, &json)
}
