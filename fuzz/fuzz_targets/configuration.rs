#![no_main]
//! Configuration files, and `--set key=value`.

use libfuzzer_sys::fuzz_target;
use loram_train::{Layer, TrainConfig};

fuzz_target!(|data: &[u8]| {
    let Some([yaml, set]) = loram_fuzz::parts(data) else { return };
    let mut layers: Vec<Layer> = Layer::from_yaml(yaml).into_iter().collect();
    layers.extend(Layer::from_settings(&set.lines().collect::<Vec<_>>()));
    let Ok(config) = TrainConfig::resolve(&layers) else { return };
    // what is written can be read, and says the same
    let again = TrainConfig::from_yaml(&config.to_yaml()).expect("the resolved configuration");
    assert_eq!(again.to_json(), config.to_json());
});
