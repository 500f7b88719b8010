//! Trains an adapter with a scheme that loram does not know, and reads it back.

mod sparse;

use loram_core::{LayerInput, LayerPlan, SchemeOptions, SchemeSpec, from_recipe, initialize};
use loram_io::adapter::Adapter;
use loram_train::{TrainConfig, Trainer};
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    // once, before anything else asks for a scheme
    loram_core::register(&[&sparse::SPARSE])?;

    // one layer of 64 × 48
    let spec = SchemeSpec::parse("sparse", &SchemeOptions::default().with("density", 0.25))?;
    let plan = LayerPlan { path: "q_proj".into(), n: 64, m: 48, r: 4, lora_alpha: 4.0, scaling: 1.0 };
    let layer = initialize(&spec, LayerInput::shape(), &plan, 42)?;
    let filled = layer.factors.a.iter().filter(|x| **x != 0.0).count();
    println!("{spec}: {filled} of {} entries of A are not 0", layer.factors.a.len());
    assert_eq!(from_recipe(&layer.recipe), Some(layer.factors), "its recipe is sufficient");

    // a run: the scheme's name and its option are keys of the configuration like any other
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let yaml = format!(
        "model: {root}/assets/tiny-llama-en\ndata: demo:restaurants\noutput_dir: {root}/runs/custom-scheme\n\
         overwrite_output_dir: true\nreport_to: none\ninit: sparse\ndensity: 0.25\nr: 4\nmax_steps: 40\n\
         learning_rate: 5e-3\n"
    );
    let wrong = TrainConfig::from_yaml(&yaml.replace("density: 0.25", "density: 2")).unwrap_err();
    println!("{wrong}");
    let config = TrainConfig::from_yaml(&yaml)?;
    let folder = config.output_dir.join("adapter");
    let summary = Trainer::new(config)?.run(&mut ())?;
    println!("{} steps: mean loss {:.3}, at the end {:.3}", summary.steps, summary.train_loss, summary.last_loss);

    let adapter = Adapter::read(&folder)?;
    let recipe = adapter.recipe.ok_or("no recipe")?;
    println!("{} layers of scheme {} {:?}", adapter.layers.len(), recipe.scheme, recipe.options.values);
    Ok(())
}
