#![no_main]
//! `adapter_config.json` of adapters, beside the weights of a small adapter.

use libfuzzer_sys::fuzz_target;
use loram_io::Adapter;
use loram_io::inspect::adapter_facts;

fuzz_target!(|data: &[u8]| {
    let dir = loram_fuzz::folder();
    let weights = dir.join("adapter_model.safetensors");
    if !weights.exists() {
        let fixture = loram_fuzz::repository().join("fixtures/peft/rslora-patterns/adapter_model.safetensors");
        std::fs::copy(fixture, &weights).expect("a fixture");
    }
    loram_fuzz::put(&dir.join("adapter_config.json"), data);
    let Ok(adapter) = Adapter::read(&dir) else { return };
    let _ = adapter_facts(&adapter);
    let _ = adapter.config_json();
});
