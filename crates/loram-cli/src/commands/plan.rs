//! `loram plan`: predicts how far a run moves the weights, and rewrites a run into an equivalent one.

use crate::console::Console;
use crate::error::{Error, Result};
use crate::format::{several, shape};
use crate::keys;
use crate::ladder;
use crate::model::{in_4bit, open_known};
use crate::progress::{LayerBar, Show};
use crate::table::{Side, facts, table};
use clap::{ArgMatches, Args, ValueEnum};
use loram_core::Statistic;
use loram_core::growth::Knob;
use loram_io::plan::{Growth, MagnitudePlan, Match, MatchTarget, PlanOptions, PlannedLayer, plan};
use loram_train::config::{FinetuningType, Layer};
use loram_train::rate::cache_folder;
use loram_train::{RatePlan, TrainConfig, Trainer};
use serde_json::{Value, json};
use std::path::Path;

/// The learning rate of predictions where none is known.
const USUAL_RATE: f64 = 2e-4;
const ASSUMED: &str = ", since none is given (--data FILE finds one)";

/// Arguments of `loram plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Model folder, GGUF file or hub id, or a configuration file (which names its model)
    #[arg(value_name = "MODEL|CONFIG.yaml", required_unless_present = "model_name_or_path")]
    pub what: Option<String>,
    /// Print an equivalent configuration in which this key has another value: ΔW stays the same at every step. Reads no
    /// weights; may be repeated
    #[arg(long, value_name = "KEY=VALUE", conflicts_with_all = ["matched", "exact", "solve"])]
    pub rewrite: Vec<String>,
    /// Find the setting whose first step is as large as that of this scheme at this learning rate, e.g. lora@2e-4
    #[arg(id = "matched", long = "match", value_name = "SCHEME@RATE")]
    pub matched: Option<String>,
    /// The setting that --match changes
    #[arg(long, value_name = "KNOB", default_value = "lr", requires = "matched")]
    pub solve: Solve,
    /// Find the learning rate by a line search on the training data (implied by --data), and print the loss after one step at
    /// each rate tried
    #[arg(long, conflicts_with = "rewrite")]
    pub search: bool,
    /// Compute the singular values of every layer by SVD instead of estimating them in one pass
    #[arg(long)]
    pub exact: bool,
    /// List every layer
    #[arg(long)]
    pub layers: bool,
}

/// The setting that `--match` changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Solve {
    /// Learning rates
    Lr,
    /// lora_alpha
    Scaling,
    /// The size of both factors at initialisation
    #[value(alias = "start")]
    Init,
}

impl Solve {
    /// The setting in the library's terms.
    pub fn knob(self) -> Knob {
        match self {
            Solve::Lr => Knob::Rate,
            Solve::Scaling => Knob::Scaling,
            Solve::Init => Knob::Initialization,
        }
    }
}

pub fn run(args: &PlanArgs, matches: &ArgMatches, console: &Console) -> Result<()> {
    let file = args.what.as_deref().filter(|w| w.ends_with(".yaml") || w.ends_with(".yml"));
    let mut config = TrainConfig::layered(&keys::layers(matches, file.map(Path::new))?)?;
    if let (Some(name), None) = (&args.what, file) {
        if !config.model_name_or_path.is_empty() {
            return Err(Error::Usage("the model is given twice: as MODEL and with --model".into()));
        }
        config.set("model_name_or_path", name.clone())?;
    }
    if !args.rewrite.is_empty() {
        return rewrite(args, &config, console);
    }
    let name = config.model_name_or_path.clone();
    if name.is_empty() {
        return Err(Error::Usage(
            "model_name_or_path is missing: give a model folder, a GGUF file or a hub id (--model)".into(),
        ));
    }
    let found = match args.search || keys::given(matches, "train_data") {
        true => Some(search(&config, console)?),
        false => None,
    };
    let only_search = config.finetuning_type == FinetuningType::Full || config.scheme()?.statistic() != Statistic::None;
    if let Some(found) = found.as_ref().filter(|_| only_search || config.adapter_name_or_path.is_some()) {
        return console.result(|| ladder::text(found, &config), &json!({ "model": name, "learning_rate": found }));
    }
    // without a search, figures are for a rate that many use
    let rate = found.as_ref().map(|f| f.rate.learning_rate).filter(|_| config.learning_rate.value().is_none());
    let assumed = rate.is_none() && config.learning_rate.value().is_none();
    let config = match config.learning_rate.value() {
        Some(_) => config,
        None => config.at(rate.unwrap_or(USUAL_RATE)),
    };
    let (known, checkpoint) = open_known(&name, config.revision.as_deref(), console)?;
    let checkpoint = in_4bit(checkpoint, known.as_ref(), config.four_bit().as_ref())?;
    let [of_a, of_b] = config.factors();
    let options = PlanOptions {
        lora: config.lora_config(),
        scheme: config.scheme()?,
        seed: config.seed,
        optimizer: config.step_kind(),
        lr_a: of_a.learning_rate,
        lr_b: of_b.learning_rate,
        exact: args.exact,
        matched: args.matched.as_deref().map(MatchTarget::parse).transpose()?,
    };
    let bar = LayerBar::new(console);
    let planned = plan(&checkpoint, known.as_ref(), &options, &|done, total, path| bar.show(done, total, path))?;
    bar.clear();
    let solved = planned.matched.as_ref().map(|m| config.solved(m, args.solve.knob())).transpose()?;
    let mut json = serde_json::to_value(&planned).unwrap_or_default();
    json["learning_rate"] = json!(found);
    json["model"] = json!(name);
    json["solved"] = json!(solved);
    let head = found.map_or(String::new(), |f| ladder::text(&f, &config) + "\n");
    console.result(|| head + &text(&name, &planned, solved.as_ref(), args, assumed), &json)
}

/// The learning rate that `auto` gives a run of this configuration.
fn search(config: &TrainConfig, console: &Console) -> Result<RatePlan> {
    let mut show = Show::new(console);
    let found = Trainer::new(config.clone())?.with_rate_cache(cache_folder()).find_rate(&mut show)?;
    show.clear();
    Ok(found)
}

/// Prints an equivalent configuration.
fn rewrite(args: &PlanArgs, config: &TrainConfig, console: &Console) -> Result<()> {
    let wanted = Layer::from_settings(&args.rewrite)?.values;
    let new = config.rewritten(&wanted)?;
    new.notes.iter().for_each(|n| console.warn(n));
    let head = "# an equivalent run: the same ΔW at every step\n";
    let json = json!({ "config": new.config.to_json(), "notes": new.notes });
    console.result(|| new.config.to_short_yaml(head), &json)
}

fn text(
    name: &str,
    p: &MagnitudePlan,
    solved: Option<&serde_json::Map<String, Value>>,
    args: &PlanArgs,
    assumed: bool,
) -> String {
    // rates that were found have more digits than they are worth
    let e = |x: f64| format!("{:e}", format!("{x:.3e}").parse().unwrap_or(x));
    let rate = if p.lr_a == p.lr_b { e(p.lr_a) } else { format!("A {}, B {}", e(p.lr_a), e(p.lr_b)) };
    let mut text = facts(&[
        ("model", format!("{name}, {}", several(p.layers.len() as u64, "layer"))),
        ("run", format!("{}, {} at learning rate {rate}{}", p.scheme, p.optimizer, if assumed { ASSUMED } else { "" })),
        ("spectra", if args.exact { "exact" } else { "estimated in one pass (--exact computes them)" }.into()),
    ]);
    text += "\n";
    if args.layers {
        text += &layers(&p.layers);
        text += "\n";
    }
    text += &summary(&p.layers);
    text += "\n";
    text += &schemes(p);
    if let (Some(m), Some(solved)) = (&p.matched, solved) {
        text += &matched(m, solved);
    }
    text
}

fn short(x: f64) -> String {
    if x == 0.0 { "0".into() } else { format!("{x:.2e}") }
}

fn layers(layers: &[PlannedLayer]) -> String {
    let heading = [
        ("layer", Side::Left),
        ("shape", Side::Right),
        ("r", Side::Right),
        ("scaling", Side::Right),
        ("ν[W]", Side::Right),
        ("Q log", Side::Right),
        ("sketch", Side::Right),
        ("exact", Side::Right),
        ("s⁴k₁", Side::Right),
        ("most", Side::Right),
        ("‖step‖/‖W‖", Side::Right),
    ];
    let row = |l: &PlannedLayer| {
        vec![
            l.path.clone(),
            shape(l.shape[0], l.shape[1]),
            l.r.to_string(),
            format!("{:.4}", l.scaling),
            short(l.nu_w),
            format!("{:.3}", l.gains.log),
            format!("{:.3}", l.gains.sketch),
            l.gains.exact.map_or("–".into(), |q| format!("{q:.3}")),
            short(l.growth.k1),
            short(l.largest_k1),
            short(l.growth.step_relative),
        ]
    };
    table(&heading, &layers.iter().map(row).collect::<Vec<_>>())
}

/// Mean gains of all layers, and upper limits.
fn summary(layers: &[PlannedLayer]) -> String {
    let mean = |of: &dyn Fn(&PlannedLayer) -> f64| layers.iter().map(of).sum::<f64>() / layers.len().max(1) as f64;
    let exact = match layers.iter().all(|l| l.gains.exact.is_some()) {
        true => format!(", exact {:.3}", mean(&|l| l.gains.exact.unwrap_or(0.0))),
        false => String::new(),
    };
    facts(&[
        (
            "mean gain Q",
            format!("logarithm {:.3}, sketch {:.3}{exact}", mean(&|l| l.gains.log), mean(&|l| l.gains.sketch)),
        ),
        (
            "at most",
            format!(
                "s⁴k₁ = {} for an initialisation of W's own magnitude; an update of rank 2r holds up to {:.0} % of a random gradient",
                short(mean(&|l| l.largest_k1)),
                100.0 * mean(&|l| l.rank_share)
            ),
        ),
    ])
}

fn schemes(p: &MagnitudePlan) -> String {
    let growth = |g: &Growth| vec![short(g.k1), short(g.step_relative)];
    let mut rows: Vec<Vec<String>> = Vec::new();
    for s in &p.schemes {
        let mark = if s.own { "→ " } else { "  " };
        let mut row = vec![format!("{mark}{}", s.scheme)];
        row.extend(growth(&s.growth));
        row.push(s.lr_for_equal.map_or("–".into(), short));
        rows.push(row);
    }
    if p.optimizer == "sgd" {
        rows.push(vec!["  (full fine-tuning)".into(), "1".into(), String::new(), String::new()]);
    }
    let step = if p.optimizer == "sgd" { "‖step‖/‖W‖ (ν[∇W] = 1)" } else { "‖step‖/‖W‖" };
    let heading =
        [("  scheme", Side::Left), ("s⁴k₁", Side::Right), (step, Side::Right), ("equivalent lr", Side::Right)];
    table(&heading, &rows)
}

fn matched(m: &Match, solved: &serde_json::Map<String, Value>) -> String {
    let keys: Vec<String> = solved.iter().map(|(k, v)| format!("{k}: {}", loram_train::config::yaml(v))).collect();
    format!(
        "\n# the same size of the first step as {} at {:e} (‖step‖/‖W‖ = {})\n{}\n",
        m.scheme,
        m.lr,
        short(m.step_relative),
        keys.join("\n")
    )
}
